//! A rollout as people see it: where it stands, what holds it, what each gate reads, and why.

use jiff::Timestamp;
use serin_server::api::types::{
    GateState, GateView, HoldView, MetricStatus, MetricView, OnBreach, OverriddenView, PackDetail, Phase,
    ProgressView, RolloutView, WatchState, WeightChangeBy,
};

use crate::terminal::{BAD, Cell, GOOD, LOOK, QUIET, STRONG, TRIAL, Table, ago, bar, duration, paint};
use clap::builder::styling::Style;

/// Characters of the weight bar.
const WEIGHT_BAR: usize = 40;
/// The longest line of a sentence.
const LINE: usize = 96;
/// Characters of an evidence bar.
const EVIDENCE_BAR: usize = 10;

/// How much of a rollout is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Everything.
    Full,
    /// What fits beside other output: only metrics that are judged or that stand out.
    Short,
}

/// A pack without a rollout, in a few lines.
pub(crate) fn idle(pack: &PackDetail) -> String {
    let mut text = format!("{}   stable {}", paint(STRONG, &pack.name), paint(GOOD, &pack.stable));
    if pack.forced {
        text.push_str(&format!("   {}", paint(BAD, "forced to stable")));
    }
    text.push_str("\n  no rollout yet: the next version that is applied starts one\n");
    text
}

/// A rollout, current or past.
pub(crate) fn rollout(view: &RolloutView, depth: Depth) -> String {
    let mut text = head(view);
    text.push_str(&weight(view));
    text.push_str(&schedule(view));
    if let Some(progress) = &view.progress {
        text.push_str(&checks(view, progress));
    }
    text.push_str(&holds(&view.holds, view.as_of));
    text.push_str(&overridden(view));
    text.push_str(&watch(view));
    text.push_str(&notes(view, depth));
    text.push('\n');
    text.push_str(&segments(view));
    text.push_str(&gates(&view.gates, view.end.is_some()));
    text.push_str(&metrics(view, depth));
    text.push_str(&exposure(view));
    text
}

fn head(view: &RolloutView) -> String {
    let mut text = format!(
        "{}   {} → {}   {}   {}\n",
        paint(STRONG, &view.pack),
        view.stable,
        paint(TRIAL, &view.canary),
        paint(phase_style(view.phase), view.phase),
        paint(QUIET, &view.id),
    );
    if view.forced {
        text.push_str(&format!("  {}\n", paint(BAD, "forced to stable: nobody gets the canary")));
    }
    match (&view.progress, &view.end) {
        (Some(progress), _) => {
            let step = format!("step {} of {}", progress.step + 1, progress.of);
            let in_step = duration(i64::try_from(progress.in_step.millis() / 1_000).unwrap_or(i64::MAX));
            let time = format!("{in_step} of {}", progress.hold);
            let sessions = plural(progress.step_sessions, "matured canary session");
            text.push_str(&format!(
                "  {step} · {time} in this step · {sessions} · {}\n",
                next(view, progress)
            ));
        }
        (None, Some(end)) => {
            let style = phase_style(view.phase);
            let took = duration(end.at.duration_since(view.started_at).as_secs());
            text.push_str(&format!(
                "  {} after {took}, {}\n",
                paint(style, end.how),
                ago(end.at, view.as_of)
            ));
            text.push_str(&format!("  because: {} ({})\n", end.reason, end.actor));
        }
        (None, None) => {}
    }
    text
}

/// For how long the completed version is still judged, or what that came to.
fn watch(view: &RolloutView) -> String {
    let Some(watch) = &view.watch else { return String::new() };
    let told = match (watch.state, watch.breached_at) {
        (WatchState::Running, _) => {
            let left = duration(watch.until.duration_since(view.as_of).as_secs().max(0));
            let then = match watch.on_breach {
                OnBreach::Notify => "tells",
                OnBreach::Rollback => "rolls back",
            };
            format!("until {}, {left} more; a gate that breaks {then}", watch.until)
        }
        (WatchState::Over, _) => {
            paint(GOOD, format!("over: {}", watch.summary.as_deref().unwrap_or("no gate was broken")))
        }
        (WatchState::Breached, at) => {
            let since = at.map_or_else(String::new, |at| format!(" {}", ago(at, view.as_of)));
            paint(BAD, format!("broken{since}: {}", watch.summary.as_deref().unwrap_or("a gate")))
        }
    };
    format!("  watch     {told}\n")
}

fn next(view: &RolloutView, progress: &ProgressView) -> String {
    let what = match progress.next.step {
        Some(step) => view
            .steps
            .get(usize::from(step))
            .map_or_else(|| format!("{}%", percent(progress.next.weight)), |step| step.shown.clone()),
        None => "completed".to_owned(),
    };
    match progress.next.at {
        Some(at) if at > view.as_of => {
            format!("next: {what} in {}", duration(seconds_up(at.duration_since(view.as_of).as_millis())))
        }
        Some(_) => format!("next: {what} after the next check that passes"),
        None => format!("next: {what} once nothing holds it"),
    }
}

fn weight(view: &RolloutView) -> String {
    let set = format!("{}%", percent(view.weight));
    let mut text =
        format!("  weight    {} {}", paint(TRIAL, bar(view.weight / 100.0, WEIGHT_BAR)), paint(STRONG, set));
    let measured = &view.measured;
    let mut served = Vec::new();
    if view.progress.is_some()
        && let Some(share) = measured.new_sessions
    {
        let sessions = measured.sessions.stable + measured.sessions.canary;
        served.push(format!("{}% of {}", percent(share), plural(sessions, "new session")));
    }
    if let Some(share) = measured.of_requests {
        let requests = measured.requests.stable + measured.requests.canary;
        served.push(format!("{}% of {}", percent(share), plural(requests, "request")));
    }
    if !served.is_empty() {
        text.push_str(&format!("  measured {}", served.join(", ")));
    }
    text.push('\n');
    text
}

/// The window in force, and the next change of weight that a window brings.
fn schedule(view: &RolloutView) -> String {
    let Some(progress) = &view.progress else { return String::new() };
    let by_window = progress.next_change.as_ref().filter(|change| change.by == WeightChangeBy::Window);
    if progress.window.is_none() && by_window.is_none() {
        return String::new();
    }
    let window = progress.window.as_deref().unwrap_or("no window is open");
    let next = match by_window {
        Some(change) => format!(
            "next: {}% in {}, at {}",
            percent(change.weight),
            duration(seconds_up(change.at.duration_since(view.as_of).as_millis())),
            change.at.strftime("%F %H:%M UTC")
        ),
        None if view.holds.is_empty() => "it does not set the weight of this step".to_owned(),
        None => "on hold no window raises the weight".to_owned(),
    };
    format!("  window    {window} · {next}\n")
}

/// Each segment with its weight and what its gates read; nothing where the manifest names none.
fn segments(view: &RolloutView) -> String {
    if view.segments.is_empty() {
        return String::new();
    }
    let headings = ["SEGMENT", "WEIGHT>", "STABLE>", "CANARY>", "MATURED>", "GATES", "MEMBERS"];
    let mut table = Table::new(&headings).indented();
    let mut unreadable = Vec::new();
    for segment in &view.segments {
        let gates: Vec<String> = segment
            .gates
            .iter()
            .map(|gate| format!("{} {} {}", gate.metric, gate.shown, gate.state))
            .collect();
        let worst = segment.gates.iter().find(|gate| gate_style(gate.state) == BAD);
        let is_bad = segment.degraded || worst.is_some();
        let weight = segment.weight.map_or_else(|| "-".to_owned(), |weight| format!("{}%", percent(weight)));
        table.row([
            Cell::left(&segment.name).style(if is_bad { BAD } else { Style::new() }),
            Cell::right(weight).style(TRIAL),
            Cell::right(thousands(segment.sessions.stable)),
            Cell::right(thousands(segment.sessions.canary)),
            Cell::right(thousands(segment.matured.canary)),
            Cell::left(gates.join(", ")).style(if is_bad { BAD } else { QUIET }),
            Cell::left(&segment.members).style(QUIET),
        ]);
        if segment.unreadable > 0 {
            unreadable.push(format!("{} in {}", segment.name, plural(segment.unreadable, "request")));
        }
    }
    let mut text = table.to_string();
    if !unreadable.is_empty() {
        let sentence = format!(
            "No match for lack of an attribute, or because it has another type: {}.",
            unreadable.join(", ")
        );
        text.push_str(&paragraph(&sentence, LOOK));
    }
    text.push('\n');
    text
}

fn checks(view: &RolloutView, progress: &ProgressView) -> String {
    let until = progress.next_check_at.duration_since(view.as_of).as_millis();
    let next =
        if until > 0 { format!("next in {}", duration(seconds_up(until))) } else { "next is due".to_owned() };
    let failed =
        format!("{} of {} failures to a rollback", progress.failed_checks, progress.failure_threshold);
    let failed = if progress.failed_checks > 0 { paint(BAD, failed) } else { failed };
    match &view.last_check {
        Some(check) => {
            let outcome = paint(outcome_style(check.outcome.as_str()), check.outcome);
            let age = ago(check.at, view.as_of);
            let first = format!("  check {:<4}{outcome} ({age}) · {next} · {failed}\n", check.number);
            format!("{first}            {}\n", paint(QUIET, &check.summary))
        }
        None => format!("  checks    none yet · {next}\n"),
    }
}

fn holds(holds: &[HoldView], now: Timestamp) -> String {
    let mut text = String::new();
    for hold in holds {
        let since = ago(hold.since, now);
        let cause = paint(LOOK, format!("on hold: {}", hold.shown));
        text.push_str(&format!("  {cause} ({since}, by {}): {}\n", hold.actor, hold.reason));
        text.push_str(&format!("            {} {}\n", paint(QUIET, "cleared by"), hold.cleared_by));
    }
    text
}

/// The rules of the policy that somebody has set aside.
fn overridden(view: &RolloutView) -> String {
    let line = |overridden: &OverriddenView| {
        let rules = paint(LOOK, format!("policy overridden: {}", overridden.rules.join(", ")));
        format!(
            "  {rules} ({}, by {}): {}\n",
            ago(overridden.at, view.as_of),
            overridden.actor,
            overridden.reason
        )
    };
    view.overridden.iter().map(line).collect()
}

/// What to know at the traffic that is there.
fn notes(view: &RolloutView, depth: Depth) -> String {
    let shown = match depth {
        Depth::Full => view.notes.as_slice(),
        Depth::Short => view.notes.get(..1).unwrap_or_default(),
    };
    shown.iter().map(|note| paragraph(note, LOOK)).collect()
}

/// A sentence in lines that fit a terminal.
pub(crate) fn paragraph(sentence: &str, style: Style) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in sentence.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= LINE => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| format!("  {}\n", paint(style, line))).collect()
}

fn gates(gates: &[GateView], is_over: bool) -> String {
    if gates.is_empty() {
        let text = if is_over {
            "no gate was read: the rollout has none, or ended before its first check"
        } else {
            "no gates: the rollout advances by the clock"
        };
        return format!("  {}\n\n", paint(LOOK, text));
    }
    let headings = ["GATE", "RULE", "CANARY>", "STATE", "SESSIONS>", "EVIDENCE AGAINST THE CANARY"];
    let mut table = Table::new(&headings).indented();
    for gate in gates {
        let style = gate_style(gate.state);
        let sessions = if gate.samples < gate.needed {
            format!("{} of {}", thousands(gate.samples), thousands(gate.needed))
        } else {
            thousands(gate.samples)
        };
        let evidence = format!("{} {:.0}%", bar(gate.how_sure, EVIDENCE_BAR), gate.how_sure * 100.0);
        table.row([
            Cell::left(&gate.metric),
            Cell::left(&gate.rule),
            Cell::right(&gate.shown),
            Cell::left(gate.state.as_str()).style(style),
            Cell::right(sessions),
            Cell::left(evidence).style(if gate.how_sure > 0.5 { LOOK } else { QUIET }),
        ]);
    }
    format!("{table}\n")
}

fn metrics(view: &RolloutView, depth: Depth) -> String {
    let shown: Vec<&MetricView> = view.metrics.iter().filter(|metric| is_shown(metric, depth)).collect();
    if shown.is_empty() {
        return format!("  {}\n\n", paint(QUIET, "no metric has data yet"));
    }
    let interval = format!("{}% INTERVAL>", percent(view.confidence));
    // Until a metric has enough sessions for one, the column would only take room.
    let has_interval = shown.iter().any(|metric| metric.interval.is_some());
    let mut headings = vec!["METRIC", "STABLE>", "CANARY>", "DIFFERENCE>"];
    headings.extend(has_interval.then_some(interval.as_str()));
    headings.extend(["GATE", "STATUS"]);
    let mut table = Table::new(&headings).indented();
    for metric in shown {
        let mut cells = vec![
            Cell::left(&metric.metric),
            Cell::right(&metric.stable_shown),
            Cell::right(&metric.canary_shown),
            Cell::right(&metric.difference_shown),
        ];
        if has_interval {
            let shown = metric.interval.as_ref().map_or("-", |interval| interval.shown.as_str());
            cells.push(Cell::right(shown).style(QUIET));
        }
        cells.push(Cell::left(metric.gate.as_deref().unwrap_or("")).style(QUIET));
        cells.push(Cell::left(metric.status.as_str()).style(status_style(metric.status)));
        table.row(cells);
    }
    format!("{table}\n")
}

/// Metrics that many people look at are shown even when short.
fn is_shown(metric: &MetricView, depth: Depth) -> bool {
    const ALWAYS: [&str; 5] = [
        "success_rate",
        "task_completion_rate",
        "tool_call_accuracy",
        "latency_avg",
        "user_satisfaction_avg",
    ];
    depth == Depth::Full || metric.gate.is_some() || ALWAYS.contains(&metric.metric.as_str())
}

fn exposure(view: &RolloutView) -> String {
    let exposure = &view.exposure;
    let until = exposure.until.unwrap_or(view.as_of);
    let time = duration(until.duration_since(exposure.since).as_secs());
    format!(
        "  exposure  {} and {} met {} in {time}, at most {}% of the new sessions\n",
        plural(exposure.sessions, "session"),
        plural(exposure.requests, "request"),
        view.canary,
        percent(exposure.largest_weight),
    )
}

/// A rollout in one line, for logs.
pub(crate) fn line(view: &RolloutView) -> String {
    let step = view
        .progress
        .as_ref()
        .map_or_else(String::new, |progress| format!("  step {}/{}", progress.step + 1, progress.of));
    let check = view.last_check.as_ref().map_or_else(String::new, |check| {
        format!("  check {} {}: {}", check.number, check.outcome, check.summary)
    });
    let holds: Vec<&str> = view.holds.iter().map(|hold| hold.shown.as_str()).collect();
    let holds = if holds.is_empty() { String::new() } else { format!("  on hold: {}", holds.join(", ")) };
    let end = view.end.as_ref().map_or_else(String::new, |end| format!("  {}: {}", end.how, end.reason));
    let check = if end.is_empty() { check } else { String::new() };
    format!("{} {}{step}  {}%{check}{holds}{end}", view.canary, view.phase, percent(view.weight))
}

/// What each gate reads, on how much, against what; the end of a line for logs.
pub(crate) fn gates_in_line(view: &RolloutView) -> String {
    let told = |gate: &GateView| {
        format!(
            "  {} {} ({}, {} of {} sessions)",
            gate.metric, gate.shown, gate.rule, gate.samples, gate.needed
        )
    };
    view.gates.iter().map(told).collect()
}

/// The style of a phase.
pub(crate) fn phase_style(phase: Phase) -> Style {
    match phase {
        Phase::Observing | Phase::Progressing | Phase::Completing => TRIAL,
        Phase::Completed => GOOD,
        Phase::RolledBack => BAD,
        Phase::Superseded => LOOK,
    }
}

fn outcome_style(outcome: &str) -> Style {
    match outcome {
        "pass" => GOOD,
        "fail" => BAD,
        "observed" => QUIET,
        _ => LOOK,
    }
}

fn gate_style(state: GateState) -> Style {
    match state {
        GateState::Pass => GOOD,
        GateState::AtRisk | GateState::NoData => LOOK,
        GateState::Fail => BAD,
        GateState::NotApplicable => QUIET,
    }
}

fn status_style(status: MetricStatus) -> Style {
    match status {
        MetricStatus::Improved | MetricStatus::Ok => GOOD,
        MetricStatus::Watch => LOOK,
        MetricStatus::Degraded => BAD,
        MetricStatus::NoData => QUIET,
    }
}

/// A percentage with as many decimals as it needs, at most two.
pub(crate) fn percent(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A count with its thousands set apart.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// Whole seconds that a countdown shows.
fn seconds_up(millis: i128) -> i64 {
    i64::try_from((millis.max(0) + 999) / 1_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([10.0, 0.01, 33.333, 100.0].map(percent), ["10", "0.01", "33.33", "100"]);
        assert_eq!([-5, 0, 1, 1_000, 1_001].map(seconds_up), [0, 0, 1, 1, 2]);
    }
}
