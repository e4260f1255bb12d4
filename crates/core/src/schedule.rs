//! When the windows of a schedule open and close: by the wall clock of their zones, across midnight and
//! daylight-saving changes.

use std::collections::BTreeSet;

use jiff::ToSpan as _;
use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::plan::{Schedule, Window};
use crate::units::Timestamp;
use crate::weight::Weight;

/// The year on whose days windows are looked at without a date: zones shift against each other during a
/// year, and core does not know which year it is.
pub(crate) const REFERENCE_YEAR: i16 = 2026;
/// Days ahead in which the next border is looked for: a window that a clock change skips opens a day later.
const DAYS_AHEAD: i32 = 3;
/// Borders that are looked through for a change of weight: a week of the most windows has fewer.
const MOST_BORDERS: usize = 400;
/// Minutes of a day.
const DAY: u32 = 1_440;

impl Schedule {
    /// The window in force at a point in time; nothing between windows.
    pub fn window_at(&self, now: Timestamp) -> Option<&Window> {
        self.windows.iter().find(|window| window.contains(now))
    }

    /// The weight in force at a point in time.
    pub fn weight_at(&self, now: Timestamp) -> Weight {
        self.window_at(now).map_or(self.otherwise, |window| window.weight)
    }

    /// Every weight that is in force at some time of the day.
    pub fn weights(&self) -> BTreeSet<Weight> {
        let mut weights: BTreeSet<Weight> = self.windows.iter().map(|window| window.weight).collect();
        if self.has_gaps() {
            weights.insert(self.otherwise);
        }
        weights
    }

    /// Whether there may be times without a window; windows of several zones are taken to leave some.
    pub fn has_gaps(&self) -> bool {
        let zone = self.windows.first().map(|window| &window.zone);
        let covered: u32 = self.windows.iter().map(Window::minutes).sum();
        covered != DAY || self.windows.iter().any(|window| Some(&window.zone) != zone)
    }

    /// The highest weight of a window.
    pub fn best(&self) -> Weight {
        self.windows.iter().map(|window| window.weight).max().unwrap_or(self.otherwise)
    }

    /// Whether a window of the highest weight is in force.
    pub fn is_best(&self, now: Timestamp) -> bool {
        self.windows.is_empty() || self.window_at(now).is_some_and(|window| window.weight == self.best())
    }

    /// The earliest time from `from` on at which a window of the highest weight is in force.
    pub fn best_from(&self, from: Timestamp) -> Timestamp {
        let borders = std::iter::successors(Some(from), |at| self.next_border(*at)).take(MOST_BORDERS);
        borders.into_iter().find(|at| self.is_best(*at)).unwrap_or(Timestamp::MAX)
    }

    /// The next change of weight after a point in time, and what to; nothing when it never changes.
    pub fn next_change(&self, after: Timestamp) -> Option<(Timestamp, Weight)> {
        let now = self.weight_at(after);
        let borders = std::iter::successors(self.next_border(after), |at| self.next_border(*at));
        let mut changes = borders.take(MOST_BORDERS).map(|at| (at, self.weight_at(at)));
        changes.find(|(_, weight)| *weight != now)
    }

    /// The next time after a point in time at which another window, or none, comes into force.
    pub fn next_border(&self, after: Timestamp) -> Option<Timestamp> {
        let index = |at: Timestamp| self.windows.iter().position(|window| window.contains(at));
        let now = index(after);
        let mut times: Vec<Timestamp> =
            self.windows.iter().flat_map(|window| window.borders(after)).collect();
        times.retain(|at| *at > after);
        times.sort_unstable();
        times.into_iter().find(|at| index(*at) != now)
    }
}

impl Window {
    /// Whether a point in time lies inside, by the wall clock of the window's zone.
    ///
    /// A zone that the bundled data do not know never matches; parsing refuses such a zone.
    pub fn contains(&self, now: Timestamp) -> bool {
        let Ok(zoned) = now.in_tz(&self.zone) else { return false };
        let minute = u16::try_from(i32::from(zoned.hour()) * 60 + i32::from(zoned.minute())).unwrap_or(0);
        if self.from_minute < self.to_minute {
            (self.from_minute..self.to_minute).contains(&minute)
        } else {
            minute >= self.from_minute || minute < self.to_minute
        }
    }

    /// Minutes from opening to closing by the wall clock, 1 to 1 440.
    fn minutes(&self) -> u32 {
        let (from, to) = (u32::from(self.from_minute), u32::from(self.to_minute));
        if from < to { to - from } else { DAY - from + to }
    }

    /// Every time around `near` at which the window may open or close: its own minutes, and the clock
    /// changes of its zone, which may skip or repeat them.
    pub(crate) fn borders(&self, near: Timestamp) -> Vec<Timestamp> {
        let Ok(zone) = TimeZone::get(&self.zone) else { return Vec::new() };
        let today = near.to_zoned(zone.clone()).date();
        let mut times = Vec::new();
        for day in -1..=DAYS_AHEAD {
            let Ok(date) = today.checked_add(day.days()) else { continue };
            for minute in [self.from_minute, self.to_minute] {
                let (Ok(hour), Ok(minute)) = (i8::try_from(minute / 60), i8::try_from(minute % 60)) else {
                    continue;
                };
                let Ok(time) = Time::new(hour, minute, 0, 0) else { continue };
                let wall = date.to_datetime(time);
                // A minute that comes twice is a border both times.
                let (first, second) =
                    (zone.to_ambiguous_timestamp(wall).earlier(), zone.to_ambiguous_timestamp(wall).later());
                times.extend(first);
                times.extend(second);
            }
        }
        times.extend(zone.following(near).take(1).map(|change| change.timestamp()));
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn schedule(windows: &str) -> Schedule {
        let text = format!(
            "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: p}}\n\
             spec: {{version: 1.0.0, rollout: {{canaryWeight: 20, schedule: [{windows}]}}}}"
        );
        let plan: Plan = crate::parse::parse(&text).unwrap_or_else(|problems| panic!("{problems}")).plan;
        plan.schedule.unwrap()
    }

    /// Each change of weight after a point in time, in percent.
    fn changes(schedule: &Schedule, from: &str, n: usize) -> Vec<String> {
        let mut at: Timestamp = from.parse().unwrap();
        let mut told = Vec::new();
        for _ in 0..n {
            let Some((next, weight)) = schedule.next_change(at) else { break };
            told.push(format!("{next} {weight}"));
            at = next;
        }
        told
    }

    #[test]
    fn windows_across_midnight_change_the_weight_at_their_borders() {
        let day = schedule(
            "{window: '02:00-06:00 UTC', canaryWeight: 50}, {window: '06:00-18:00 UTC', canaryWeight: 10}, \
             {window: '18:00-02:00 UTC', canaryWeight: 30}",
        );
        assert_eq!(
            changes(&day, "2026-11-24T00:30:00Z", 4),
            [
                "2026-11-24T02:00:00Z 50%",
                "2026-11-24T06:00:00Z 10%",
                "2026-11-24T18:00:00Z 30%",
                "2026-11-25T02:00:00Z 50%"
            ]
        );
        let weights: Vec<String> = day.weights().iter().map(ToString::to_string).collect();
        assert_eq!(weights, ["10%", "30%", "50%"], "the windows cover the whole day");
        let from = "2026-11-24T07:00:00Z".parse().unwrap();
        assert_eq!(day.best_from(from).to_string(), "2026-11-25T02:00:00Z");
        assert!(day.is_best("2026-11-24T05:59:59.999Z".parse().unwrap()));
        assert!(!day.is_best("2026-11-24T06:00:00Z".parse().unwrap()));
    }

    #[test]
    fn between_windows_the_canary_weight_is_in_force() {
        let gap = schedule("{window: '22:00-06:00 Europe/Berlin', canaryWeight: 40}");
        assert_eq!(
            changes(&gap, "2026-11-24T12:00:00Z", 2),
            ["2026-11-24T21:00:00Z 40%", "2026-11-25T05:00:00Z 20%"]
        );
        assert_eq!(gap.weights().len(), 2);
    }

    /// FIELD bug 14: a daylight-saving change. Berlin's clock goes from 02:00 to 03:00 on 2026-03-29, and from
    /// 03:00 back to 02:00 on 2026-10-25.
    #[test]
    fn bug_14_a_window_follows_the_wall_clock_through_daylight_saving_changes() {
        let night = schedule("{window: '01:00-04:00 Europe/Berlin', canaryWeight: 40}");
        assert_eq!(
            changes(&night, "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T00:00:00Z 40%", "2026-03-29T02:00:00Z 20%"],
            "an hour shorter in spring"
        );
        assert_eq!(
            changes(&night, "2026-10-24T12:00:00Z", 2),
            ["2026-10-24T23:00:00Z 40%", "2026-10-25T03:00:00Z 20%"],
            "an hour longer in autumn"
        );
        let inside = schedule("{window: '02:15-02:45 Europe/Berlin', canaryWeight: 40}");
        assert_eq!(
            changes(&inside, "2026-03-28T12:00:00Z", 2),
            ["2026-03-30T00:15:00Z 40%", "2026-03-30T00:45:00Z 20%"],
            "the skipped hour opens no window"
        );
        assert_eq!(
            changes(&inside, "2026-10-24T12:00:00Z", 4),
            [
                "2026-10-25T00:15:00Z 40%",
                "2026-10-25T00:45:00Z 20%",
                "2026-10-25T01:15:00Z 40%",
                "2026-10-25T01:45:00Z 20%"
            ],
            "the repeated hour opens it twice"
        );
        let half = schedule("{window: '02:30-05:00 Europe/Berlin', canaryWeight: 40}");
        assert_eq!(
            changes(&half, "2026-03-28T12:00:00Z", 1),
            ["2026-03-29T01:00:00Z 40%"],
            "02:30 does not exist; from 03:00 on the window is open"
        );
    }

    #[test]
    fn every_border_is_where_the_weight_really_changes() {
        let zones = [
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "Asia/Kathmandu",
            "Australia/Lord_Howe",
            "Pacific/Apia",
        ];
        for zone in zones {
            let schedule = schedule(&format!(
                "{{window: '01:30-02:10 {zone}', canaryWeight: 40}}, {{window: '23:45-00:15 {zone}', canaryWeight: 60}}"
            ));
            for start in [
                "2026-03-28T00:07:00Z",
                "2026-10-24T00:07:00Z",
                "2026-04-04T00:07:00Z",
                "2026-11-01T00:07:00Z",
            ] {
                let mut at: Timestamp = start.parse().unwrap();
                let end = at.checked_add(60.hours()).unwrap();
                let mut next = schedule.next_border(at);
                while at < end {
                    let later = at.checked_add(1.minutes()).unwrap();
                    let changed = schedule.weight_at(at) != schedule.weight_at(later);
                    let told = next.is_some_and(|next| at < next && next <= later);
                    assert_eq!(changed, told, "{zone} {at}");
                    if told {
                        next = schedule.next_border(later);
                    }
                    at = later;
                }
            }
        }
    }

    #[test]
    fn a_window_that_lasts_all_day_never_changes() {
        let all_day = schedule("{window: '00:00-24:00 UTC', canaryWeight: 30}");
        assert_eq!(all_day.next_change("2026-11-24T12:00:00Z".parse().unwrap()), None);
        assert_eq!(all_day.weights().len(), 1);
        let now = "2026-11-24T12:00:00Z".parse().unwrap();
        assert_eq!(all_day.best_from(now), now);
    }
}
