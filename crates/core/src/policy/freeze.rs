//! `freeze`: times in which nothing advances. They end by themselves, and never keep anybody from going back.

use std::collections::BTreeSet;

use jiff::ToSpan as _;
use jiff::civil::{Date, Weekday, date};
use jiff::tz::TimeZone;

use super::{Imposed, RuleName, Violation};
use crate::plan::Window;
use crate::units::{HoldFor, Timestamp};

/// Borders of windows that are looked through for the end of a freeze: some months of daily windows.
const MOST_BORDERS: usize = 400;

/// A part of the day in which nothing advances, on some days.
#[derive(Debug, Clone, PartialEq)]
pub struct FreezeWindow {
    /// The part of the day; its weight means nothing.
    pub window: Window,
    /// The days on which it opens, counted from Monday as 1; empty for all.
    pub days: BTreeSet<i8>,
    /// The first day on which it opens; nothing for always.
    pub from: Option<Date>,
    /// The last day on which it opens; nothing for ever.
    pub until: Option<Date>,
}

/// The windows of one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Freeze {
    /// The rule.
    pub rule: RuleName,
    /// Its windows.
    pub windows: Vec<FreezeWindow>,
}

/// A freeze in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// The rule.
    pub rule: RuleName,
    /// The window, as people read it.
    pub window: String,
    /// When nothing is frozen any more; nothing where that lies too far ahead to tell.
    pub until: Option<Timestamp>,
}

impl FreezeWindow {
    /// Whether a point in time lies inside.
    pub fn contains(&self, now: Timestamp) -> bool {
        self.window.contains(now) && self.opened_on(now).is_some_and(|day| self.opens_on(day))
    }

    /// The day on which the window opened that is open at a point in time: the day before, after midnight.
    fn opened_on(&self, now: Timestamp) -> Option<Date> {
        let zoned = now.to_zoned(TimeZone::get(&self.window.zone).ok()?);
        let minute = u16::try_from(i32::from(zoned.hour()) * 60 + i32::from(zoned.minute())).ok()?;
        let wraps = self.window.from_minute > self.window.to_minute;
        match wraps && minute < self.window.to_minute {
            true => zoned.date().checked_sub(1.day()).ok(),
            false => Some(zoned.date()),
        }
    }

    fn opens_on(&self, day: Date) -> bool {
        let on_day = self.days.is_empty() || self.days.contains(&day.weekday().to_monday_one_offset());
        on_day && self.from.is_none_or(|from| from <= day) && self.until.is_none_or(|until| day <= until)
    }

    /// Every time around `near` at which it may open or close, or around the first day on which it opens.
    fn borders(&self, near: Timestamp) -> Vec<Timestamp> {
        let Ok(zone) = TimeZone::get(&self.window.zone) else { return Vec::new() };
        let today = near.to_zoned(zone.clone()).date();
        let day_before = |day: Date| day.checked_sub(1.day()).unwrap_or(day);
        if self.until.is_some_and(|until| until < day_before(today)) {
            return Vec::new();
        }
        let far_ahead = self.from.filter(|from| day_before(*from) > today);
        let first = far_ahead.and_then(|from| from.to_zoned(zone).ok()).map(|zoned| zoned.timestamp());
        self.window.borders(first.unwrap_or(near))
    }

    /// The window as people read it: `00:00-24:00 UTC sat sun, 2026-12-20 to 2027-01-03`.
    pub fn shown(&self) -> String {
        let mut text = self.window.as_written.clone();
        for day in &self.days {
            let weekday = Weekday::from_monday_one_offset(*day).expect("days are counted from 1 to 7");
            text.push(' ');
            text.push_str(word(weekday));
        }
        match (self.from, self.until) {
            (None, None) => {}
            (Some(from), None) => text.push_str(&format!(", from {from}")),
            (None, Some(until)) => text.push_str(&format!(", to {until}")),
            (Some(from), Some(until)) => text.push_str(&format!(", {from} to {until}")),
        }
        text
    }
}

/// The word for a day of the week.
pub(crate) fn word(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "mon",
        Weekday::Tuesday => "tue",
        Weekday::Wednesday => "wed",
        Weekday::Thursday => "thu",
        Weekday::Friday => "fri",
        Weekday::Saturday => "sat",
        Weekday::Sunday => "sun",
    }
}

impl Imposed {
    fn windows(&self) -> impl Iterator<Item = (&RuleName, &FreezeWindow)> {
        self.freezes.iter().flat_map(|freeze| freeze.windows.iter().map(|window| (&freeze.rule, window)))
    }

    /// Whether nothing may advance at a point in time.
    pub fn is_frozen(&self, now: Timestamp) -> bool {
        self.windows().any(|(_, window)| window.contains(now))
    }

    /// The freeze in force at a point in time.
    pub fn frozen_at(&self, now: Timestamp) -> Option<Frozen> {
        let (rule, window) = self.windows().find(|(_, window)| window.contains(now))?;
        Some(Frozen { rule: rule.clone(), window: window.shown(), until: self.thaws_at(now) })
    }

    /// The earliest time from `from` on at which nothing is frozen; nothing where that lies too far ahead to tell.
    pub fn thaws_at(&self, from: Timestamp) -> Option<Timestamp> {
        let borders = std::iter::successors(Some(from), |at| self.next_border(*at)).take(MOST_BORDERS);
        borders.into_iter().find(|at| !self.is_frozen(*at))
    }

    /// Whether freezes without a last day leave no time open, from some day on.
    pub fn is_endless(&self) -> bool {
        let days = self.windows().flat_map(|(_, window)| [window.from, window.until]);
        let last = days.flatten().max().unwrap_or(date(2026, 1, 1));
        // No zone is more than a day away, and a window may last until the day after.
        let later = last.checked_add(3.days()).unwrap_or(last);
        let later = later.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
        later.is_ok_and(|later| self.thaws_at(later).is_none())
    }

    /// The next time after a point in time at which a freeze begins or ends; nothing without freezes.
    pub fn next_change(&self, after: Timestamp) -> Option<Timestamp> {
        let now = self.is_frozen(after);
        let borders = std::iter::successors(self.next_border(after), |at| self.next_border(*at));
        borders.take(MOST_BORDERS).find(|at| self.is_frozen(*at) != now)
    }

    /// When so much time has passed since `from` that is not frozen; never where that lies too far ahead to tell.
    pub fn after(&self, from: Timestamp, length: HoldFor) -> Timestamp {
        if self.freezes.is_empty() {
            return length.after(from);
        }
        let (mut at, mut left) = (from, length);
        for _ in 0..MOST_BORDERS {
            let Some(thaw) = self.thaws_at(at) else { return Timestamp::MAX };
            let end = left.after(thaw);
            match self.next_change(thaw).filter(|freezes| *freezes < end) {
                None => return end,
                Some(freezes) => (at, left) = (freezes, left.minus(HoldFor::between(thaw, freezes))),
            }
        }
        Timestamp::MAX
    }

    /// The next minute after a point in time at which some window may open or close.
    fn next_border(&self, after: Timestamp) -> Option<Timestamp> {
        let borders = self.windows().flat_map(|(_, window)| window.borders(after));
        borders.filter(|at| *at > after).min()
    }

    /// The rule by which nothing starts and nobody promotes at a point in time.
    pub fn refuses_at(&self, now: Timestamp) -> Option<Violation> {
        let frozen = self.frozen_at(now)?;
        Some(Violation {
            path: String::new(),
            message: format!("nothing advances: {frozen}"),
            hint: match frozen.until {
                Some(_) => "wait for the end of the freeze; rolling back is possible at any time",
                None => "the rule has to leave some time open, or to have a last day (`until`); rolling back is possible at any time",
            }
            .to_owned(),
            rule: frozen.rule,
        })
    }
}

impl std::fmt::Display for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the rule {} freezes {}", self.rule, self.window)?;
        match self.until {
            Some(until) => write!(f, "; it ends at {until}"),
            None => f.write_str("; no end of it is in sight"),
        }
    }
}
