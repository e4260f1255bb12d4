//! A rollout on the calendar: which weight is in force when, in UTC and by the clock of the windows.

use jiff::{Timestamp, Zoned};
use serin_core::forecast::TimetableEntry;
use serin_core::plan::{Plan, StepPhase};

use crate::terminal::{Cell, GOOD, QUIET, TRIAL, Table, bar};

/// Characters of the bar of the chart.
const CHART_BAR: usize = 20;
/// Zones beside UTC that have a column.
const MOST_ZONES: usize = 2;

/// Reads a point in time: `2026-12-01T22:00Z`, with an offset, or with a zone in brackets.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    let zoned = || text.parse::<Zoned>().ok().map(|zoned| zoned.timestamp());
    text.parse::<Timestamp>().ok().or_else(zoned).ok_or_else(|| {
        format!("{text:?} is no time such as 2026-12-01T22:00Z or 2026-12-01T22:00[Europe/Berlin]")
    })
}

/// The zones of a plan's windows other than UTC, in the order written.
fn zones(plan: &Plan) -> Vec<&str> {
    let mut zones: Vec<&str> = Vec::new();
    for window in plan.schedule.iter().flat_map(|schedule| &schedule.windows) {
        if !matches!(window.zone.as_str(), "UTC" | "Etc/UTC") && !zones.contains(&window.zone.as_str()) {
            zones.push(&window.zone);
        }
    }
    zones.truncate(MOST_ZONES);
    zones
}

/// The timetable with a bar for what new sessions get; of the last segment, where there are several.
pub(crate) fn chart(plan: &Plan, entries: &[TimetableEntry]) -> String {
    let zones = zones(plan);
    let segments: Vec<String> = plan.segments.iter().map(|segment| segment.name.to_string()).collect();
    let has_segments = segments.len() > 1;
    let mut headings: Vec<String> = vec!["UTC".to_owned()];
    headings.extend(zones.iter().map(|zone| (*zone).to_owned()));
    headings.extend(["AFTER>".to_owned(), "STEP>".to_owned(), "PHASE".to_owned()]);
    if has_segments {
        headings.extend(segments.iter().map(|segment| format!("{segment}>")));
    } else {
        headings.push("WEIGHT>".to_owned());
    }
    headings.extend([String::new(), "WHY".to_owned()]);
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>()).indented();
    for entry in entries {
        let mut cells = vec![Cell::left(entry.at.strftime("%a %Y-%m-%d %H:%M").to_string())];
        cells.extend(zones.iter().map(|zone| Cell::left(local(entry.at, zone)).style(QUIET)));
        cells.push(Cell::right(format!("T+{}", entry.since_start)).style(QUIET));
        cells.push(Cell::right(entry.step.map_or_else(|| "-".to_owned(), |step| (step + 1).to_string())));
        cells.push(Cell::left(match entry.phase {
            Some(StepPhase::Observing) => "Observing",
            Some(StepPhase::Progressing) => "Progressing",
            Some(StepPhase::Completing) => "Completing",
            None => "Completed",
        }));
        cells.extend(entry.weights.iter().map(|(_, weight)| Cell::right(weight.to_string())));
        let last = entry.weights.last().map_or(0.0, |(_, weight)| weight.share());
        let style = if entry.step.is_some() { TRIAL } else { GOOD };
        cells.push(Cell::left(bar(last, CHART_BAR)).style(style));
        let step = entry.step.and_then(|step| plan.steps.get(usize::from(step)));
        let approval = if step.is_some_and(|step| step.approval) { ", until somebody approves" } else { "" };
        cells.push(Cell::left(format!("{}{approval}", entry.why)).style(QUIET));
        table.row(cells);
    }
    table.to_string()
}

/// The wall clock of a zone, with its abbreviation where it changes: `Wed 2026-12-02 06:00`.
fn local(at: Timestamp, zone: &str) -> String {
    at.in_tz(zone).map_or_else(|_| "?".to_owned(), |zoned| zoned.strftime("%a %Y-%m-%d %H:%M").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_a_zone_or_an_offset() {
        let read = |text: &str| moment(text).map(|at| at.to_string());
        assert_eq!(read("2026-12-01T22:00Z"), Ok("2026-12-01T22:00:00Z".to_owned()));
        assert_eq!(read("2026-12-01T22:00:30+01:00"), Ok("2026-12-01T21:00:30Z".to_owned()));
        assert_eq!(read("2026-12-01T22:00[Europe/Berlin]"), Ok("2026-12-01T21:00:00Z".to_owned()));
        for wrong in ["2026-12-01T22:00", "tomorrow", "", "2026-13-01T22:00Z"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
