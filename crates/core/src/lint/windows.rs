//! Windows of a schedule that change nothing, or do not open.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::{Lint, ROLLOUT, add};
use crate::plan::{Plan, Window};
use crate::schedule::REFERENCE_YEAR;
use crate::units::Timestamp;

/// Looks the windows of a plan over.
pub(super) fn windows(plan: &Plan, lints: &mut Vec<Lint>) {
    let Some(schedule) = &plan.schedule else { return };
    for (index, window) in schedule.windows.iter().enumerate() {
        let path = format!("{ROLLOUT}.schedule[{index}]");
        let Window { as_written, weight, .. } = window;
        if schedule.has_gaps() && *weight == schedule.otherwise {
            let message = format!(
                "window {as_written:?} never applies: {weight} is in force without it, by canaryWeight"
            );
            add(lints, "idle-window", &path, message, "give it another weight, or remove it");
        }
        if let Some(day) = skipped_on(window) {
            let message = format!(
                "window {as_written:?} does not open on days like {day}: the clock of {} skips it",
                window.zone
            );
            let hint = "let it begin earlier or end later, or write it in UTC";
            add(lints, "skipped-window", &path, message, hint);
        }
    }
}

/// The first day of a year on which the clock of its zone jumps over the whole window.
fn skipped_on(window: &Window) -> Option<Date> {
    let zone = TimeZone::get(&window.zone).ok()?;
    let new_year = Date::new(REFERENCE_YEAR, 1, 1).ok()?.to_zoned(zone.clone()).ok()?.timestamp();
    let changes = zone.following(new_year).map(|change| change.timestamp());
    let mut jumps =
        changes.map(|change| jump(&zone, change)).take_while(|jump| jump.0.year() == REFERENCE_YEAR);
    let hours = |day: Date, minute: u16| {
        let minute = i64::from(minute);
        day.to_datetime(jiff::civil::Time::midnight())
            .checked_add(jiff::SignedDuration::from_mins(minute))
            .ok()
    };
    let closes = if window.to_minute == 0 { 1_440 } else { window.to_minute };
    jumps.find_map(|(from, to)| {
        let day = from.date();
        let (opens, closes) = (hours(day, window.from_minute)?, hours(day, closes)?);
        (opens < closes && from <= opens && closes <= to).then_some(day)
    })
}

/// What the wall clock shows just before a change of its offset, to the second, and at the change.
fn jump(zone: &TimeZone, change: Timestamp) -> (DateTime, DateTime) {
    let at = change.to_zoned(zone.clone()).datetime();
    let before = change.checked_sub(jiff::SignedDuration::from_secs(1)).unwrap_or(change);
    let before = before.to_zoned(zone.clone()).datetime();
    (before.checked_add(jiff::SignedDuration::from_secs(1)).unwrap_or(before), at)
}

#[cfg(test)]
mod tests {

    fn found(windows: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: omnia.altairalabs.ai/v1alpha1\nkind: PromptPack\nmetadata: {{name: p}}\n\
             spec: {{version: 1.0.0, rollout: {{canaryWeight: 20, schedule: [{windows}]}}}}"
        );
        let plan = crate::parse::parse(&text).unwrap_or_else(|problems| panic!("{problems}")).plan;
        let mut lints = Vec::new();
        super::windows(&plan, &mut lints);
        lints.iter().map(|lint| format!("{} {}: {}", lint.rule, lint.path, lint.message)).collect()
    }

    #[test]
    fn a_window_that_changes_nothing_is_found() {
        assert_eq!(
            found("{window: '22:00-06:00 UTC', canaryWeight: 20}"),
            [
                "idle-window spec.rollout.schedule[0]: window \"22:00-06:00 UTC\" never applies: 20% is in force without it, by canaryWeight"
            ]
        );
        // Windows that cover the day leave no time to canaryWeight.
        assert!(
            found(
                "{window: '22:00-06:00 UTC', canaryWeight: 20}, {window: '06:00-22:00 UTC', canaryWeight: 5}"
            )
            .is_empty()
        );
    }

    #[test]
    fn a_window_that_a_clock_change_skips_is_found() {
        let skipped = found("{window: '02:00-03:00 Europe/Berlin', canaryWeight: 5}");
        assert_eq!(
            skipped,
            [
                "skipped-window spec.rollout.schedule[0]: window \"02:00-03:00 Europe/Berlin\" does not open on days like 2026-03-29: the clock of Europe/Berlin skips it"
            ]
        );
        assert_eq!(found("{window: '02:15-02:45 America/New_York', canaryWeight: 5}").len(), 1);
        for open in [
            "02:00-03:01 Europe/Berlin",
            "01:59-03:00 Europe/Berlin",
            "02:00-03:00 UTC",
            "23:00-03:00 Europe/Berlin",
        ] {
            assert!(found(&format!("{{window: '{open}', canaryWeight: 5}}")).is_empty(), "{open}");
        }
    }
}
