//! `serin plan`: the timeline of a rollout at some traffic, and what its gates can see.

use std::path::PathBuf;

use clap::builder::styling::Style;
use jiff::Timestamp;
use serde::Serialize;
use serin_core::forecast::{
    Forecast, GateForecast, ProposedStep, Sees, StepForecast, TimetableEntry, propose, sentences, timetable,
};
use serin_core::plan::{Plan, StepPhase};
use serin_core::units::HoldFor;

use crate::api::ServerArgs;
use crate::lint::policy_in;
use crate::manifest_file::load;
use crate::status_view::{paragraph, percent, thousands};
use crate::terminal::{Cell, GOOD, LOOK, OutputFlag, QUIET, STRONG, Table, bar, paint};
use crate::timetable::{chart, moment};
use crate::told::Exit;
use crate::traffic::TrafficArgs;

/// Characters of a bar of the chart.
const CHART_BAR: usize = 24;
/// Standard deviations at which the bar of a mean is full.
const FULL_BAR_SD: f64 = 2.0;

/// Show the timeline of a rollout, and how large a harm its gates see at which traffic
///
/// Without a rate the traffic of a running server is taken.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// The manifest (YAML or JSON); `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// Show on the calendar what a rollout does that starts then, such as 2026-12-01T22:00Z. Alone it needs
    /// no traffic
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Timestamp>,
    /// Settings of the server, for the freezes and approvals of its policy
    #[arg(long, env = "SERIN_SETTINGS", value_name = "FILE")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    output: OutputFlag,
    #[command(flatten)]
    server: ServerArgs,
}

/// A plan, as data.
#[derive(Debug, Serialize)]
struct Report {
    pack: String,
    version: String,
    /// When what is in force, for a rollout that starts at a given time.
    #[serde(skip_serializing_if = "Option::is_none")]
    timetable: Option<Vec<TimetableEntry>>,
    /// What it looks like at a traffic.
    #[serde(flatten)]
    at_traffic: Option<AtTraffic>,
}

/// A plan at some traffic.
#[derive(Debug, Serialize)]
struct AtTraffic {
    /// Where the traffic comes from: `given`, or the server.
    traffic_from: String,
    forecast: Forecast,
    sentences: Vec<String>,
    /// Steps that fit the traffic; empty for segments and schedules.
    proposed: Vec<ProposedStep>,
}

/// Forecasts the rollout of a manifest.
pub(crate) async fn run(args: &PlanArgs) -> anyhow::Result<Exit> {
    let mut loaded = load(&args.file)?;
    if let Some(path) = &args.settings {
        policy_in(path)?.impose(&mut loaded.plan);
    }
    let plan = &loaded.plan;
    let given = args.traffic.given(plan)?;
    let at_traffic = match (given, args.from) {
        (None, Some(_)) => None,
        (given, _) => {
            let (traffic, traffic_from) = match given {
                Some(traffic) => (traffic, "given".to_owned()),
                None => args.traffic.seen(plan, &args.server).await?,
            };
            let forecast = Forecast::new(plan, &traffic, None);
            let sentences = sentences(plan, &forecast);
            Some(AtTraffic { traffic_from, sentences, proposed: propose(plan, &traffic, None), forecast })
        }
    };
    let report = Report {
        pack: plan.pack.to_string(),
        version: plan.version.to_string(),
        timetable: args.from.map(|from| timetable(plan, from)),
        at_traffic,
    };
    args.output.print(&report, |report| table(plan, report))?;
    Ok(Exit::Done)
}

fn table(plan: &Plan, report: &Report) -> String {
    let mut text = format!("{} {}", paint(STRONG, &report.pack), report.version);
    if let Some(AtTraffic { forecast, traffic_from, .. }) = &report.at_traffic {
        text.push_str(&format!("   {}, {}", rate(forecast.sessions_per_second), paint(QUIET, traffic_from)));
    }
    text.push_str("\n\n");
    if let Some(entries) = &report.timetable {
        text.push_str(&chart(plan, entries));
        let note =
            "By the clock: every check passes, approvals come at once, and no step waits for sessions.";
        text.push_str(&paragraph(note, QUIET));
        text.push('\n');
    }
    if let Some(AtTraffic { forecast, sentences, proposed, .. }) = &report.at_traffic {
        text.push_str(&timeline(&forecast.steps));
        text.push('\n');
        for gate in &forecast.gates {
            text.push_str(&sights(gate, &forecast.steps));
            text.push('\n');
        }
        for sentence in sentences {
            text.push_str(&paragraph(sentence, Style::new()));
        }
        text.push_str(&paragraph(&format!("Taken for granted: {}.", forecast.assumptions.join("; ")), QUIET));
        text.push_str(&proposal(forecast, proposed));
    }
    text
}

/// New sessions, by the second or by the day.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 0.1 {
        format!("{} sessions/s", percent(per_second))
    } else {
        format!("{} sessions/day", (per_second * 86_400.0).round())
    }
}

/// A step for a narrow table: number, weight, hold, how long it takes, canary sessions.
pub(crate) fn steps_in_short(step: &StepForecast) -> [String; 5] {
    let approval = if step.approval { " + approval" } else { "" };
    [
        (step.index + 1).to_string(),
        format!("{}{approval}", step.shown),
        step.hold.to_string(),
        step.expected_hold.map_or_else(|| "forever".to_owned(), |hold| hold.to_string()),
        thousands(step.canary_sessions),
    ]
}

/// The steps of a forecast as a table.
pub(crate) fn timeline(steps: &[StepForecast]) -> String {
    let headings = [
        "STEP>",
        "BY THE CLOCK>",
        "EXPECTED>",
        "PHASE",
        "WEIGHT",
        "HOLD>",
        "TAKES>",
        "CANARY>",
        "STABLE>",
        "MATURED>",
        "NEEDS>",
    ];
    let mut table = Table::new(&headings).indented();
    for step in steps {
        let at = |start: HoldFor| format!("T+{start}");
        let style = if step.fits { GOOD } else { LOOK };
        let approval = if step.approval { " + approval" } else { "" };
        table.row([
            Cell::right((step.index + 1).to_string()),
            Cell::right(at(step.planned_start)).style(QUIET),
            Cell::right(step.expected_start.map_or_else(|| "never".to_owned(), at)),
            Cell::left(phase(step.phase)),
            Cell::left(format!("{}{approval}", step.shown)),
            Cell::right(step.hold.to_string()),
            Cell::right(step.expected_hold.map_or_else(|| "forever".to_owned(), |hold| hold.to_string()))
                .style(style),
            Cell::right(thousands(step.canary_sessions)),
            Cell::right(thousands(step.stable_sessions)),
            Cell::right(thousands(step.matured_in_all)),
            Cell::right(if step.needed == 0 { "-".to_owned() } else { thousands(step.needed) }),
        ]);
    }
    table.to_string()
}

fn phase(phase: StepPhase) -> &'static str {
    match phase {
        StepPhase::Observing => "Observing",
        StepPhase::Progressing => "Progressing",
        StepPhase::Completing => "Completing",
    }
}

/// What a gate sees, as a table whose last column is a chart: the longer the bar, the blinder the gate.
fn sights(gate: &GateForecast, steps: &[StepForecast]) -> String {
    let read = match gate.sees {
        Sees::Literal => "read literally".to_owned(),
        Sees::Share => format!("{} of the error budget", share_of(gate.budget)),
        Sees::Mean | Sees::Comparison => format!("{} of the error budget, estimated", share_of(gate.budget)),
    };
    let judged = gate.judged_share.map_or_else(String::new, |share| {
        format!(", of which its judge reads {:.3}%", share * 100.0).replace(".000%", "%")
    });
    let mut text = format!(
        "  {} {}   {}\n",
        paint(STRONG, &gate.metric),
        gate.rule,
        paint(QUIET, format!("{read}, sessions count after {}{judged}", gate.maturity))
    );
    if gate.sees == Sees::Literal {
        return text;
    }
    let mut table =
        Table::new(&["STEP>", "SESSIONS>", "SEEN IN 4 OF 5 ROLLOUTS", "THE SMALLEST HARM"]).indented();
    for (step, sight) in steps.iter().zip(&gate.sights) {
        let size = match (sight.harm, gate.accepted) {
            (None, _) => 1.0,
            // In ratios, from what is accepted (empty) to all sessions (full).
            (Some(harm), Some(accepted)) => (harm / accepted).ln() / accepted.recip().ln(),
            (Some(harm), None) => harm / FULL_BAR_SD,
        };
        let style = if sight.harm.is_none() || size > 0.5 { LOOK } else { GOOD };
        table.row([
            Cell::right((step.index + 1).to_string()),
            Cell::right(thousands(sight.sessions)),
            Cell::left(&sight.shown),
            Cell::left(bar(size, CHART_BAR)).style(style),
        ]);
    }
    text.push_str(&table.to_string());
    text
}

fn share_of(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// Steps that fit, where the given ones do not or could be much shorter.
fn proposal(forecast: &Forecast, proposed: &[ProposedStep]) -> String {
    let length = proposed.iter().fold(HoldFor::ZERO, |sum, step| sum.plus(step.hold));
    let are_shorter = length.times(2) <= forecast.planned_length;
    if proposed.is_empty() || (forecast.fits() && !are_shorter) {
        return String::new();
    }
    let what = if forecast.fits() {
        "At this traffic shorter steps are enough"
    } else {
        "These steps fit this traffic"
    };
    let mut text = format!("\n  {what}; they take {length}, the first one observes:\n    steps:\n");
    for step in proposed {
        let sessions = paint(QUIET, format!("# {} canary sessions", thousands(step.canary_sessions)));
        text.push_str(&format!("      - {{weight: {}, hold: {}}}   {sessions}\n", step.weight, step.hold));
    }
    text
}
