//! `serin plan`: the timeline of a rollout at some traffic, and what its gates can see.

use std::path::PathBuf;

use clap::builder::styling::Style;
use serde::Serialize;
use serin_core::forecast::{
    Forecast, GateForecast, ProposedStep, Sees, StepForecast, Traffic, propose, sentences,
};
use serin_core::plan::{Plan, StepPhase};
use serin_core::units::HoldFor;

use crate::api::{Client, ServerArgs};
use crate::manifest_file::load;
use crate::status_view::{paragraph, percent, thousands};
use crate::terminal::{Cell, GOOD, LOOK, OutputFlag, QUIET, STRONG, Table, bar, paint};
use crate::told::{Exit, Told};

/// Characters of a bar of the chart.
const CHART_BAR: usize = 24;
/// Standard deviations at which the bar of a mean is full.
const FULL_BAR_SD: f64 = 2.0;
/// Canary sessions from which the requests of a session are taken from a running rollout.
const LEAST_SESSIONS: u64 = 30;

/// Show the timeline of a rollout, and how large a harm its gates see at which traffic
///
/// Without a rate the traffic of a running server is taken.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// The manifest (YAML or JSON); `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// New sessions per second
    #[arg(long, value_name = "RATE", conflicts_with = "sessions_per_day")]
    sessions_per_second: Option<f64>,
    /// New sessions per day
    #[arg(long, value_name = "RATE")]
    sessions_per_day: Option<f64>,
    /// Mean requests of a session
    #[arg(long, value_name = "COUNT")]
    requests_per_session: Option<f64>,
    /// The share of a segment in the sessions; the last segment gets the rest. May be repeated
    #[arg(long = "share", value_name = "SEGMENT=PERCENT", value_parser = share)]
    shares: Vec<(String, f64)>,
    #[command(flatten)]
    output: OutputFlag,
    #[command(flatten)]
    server: ServerArgs,
}

/// Reads `beta_users=10%`.
fn share(text: &str) -> Result<(String, f64), String> {
    let wrong = || format!("{text:?} is no share such as beta_users=10%");
    let (segment, share) = text.split_once('=').ok_or_else(wrong)?;
    let share: f64 = share.trim().trim_end_matches('%').trim_end().parse().map_err(|_| wrong())?;
    if (0.0..=100.0).contains(&share) { Ok((segment.to_owned(), share / 100.0)) } else { Err(wrong()) }
}

/// A plan at some traffic, as data.
#[derive(Debug, Serialize)]
struct Report {
    pack: String,
    version: String,
    /// Where the traffic comes from: `given`, or the server.
    traffic_from: String,
    forecast: Forecast,
    sentences: Vec<String>,
    /// Steps that fit the traffic; empty for segments and schedules.
    proposed: Vec<ProposedStep>,
}

/// Forecasts the rollout of a manifest.
pub(crate) async fn run(args: &PlanArgs) -> anyhow::Result<Exit> {
    let loaded = load(&args.file)?;
    let plan = &loaded.plan;
    let (traffic, traffic_from) = traffic(args, plan).await?;
    let forecast = Forecast::new(plan, &traffic, None);
    let report = Report {
        pack: plan.pack.to_string(),
        version: plan.version.to_string(),
        traffic_from,
        sentences: sentences(plan, &forecast),
        proposed: propose(plan, &traffic, None),
        forecast,
    };
    args.output.print(&report, table)?;
    Ok(Exit::Done)
}

/// The traffic that was given, or that the server sees.
async fn traffic(args: &PlanArgs, plan: &Plan) -> Result<(Traffic, String), Told> {
    let told = |error: serin_core::forecast::InvalidTraffic| Told::new(error.to_string());
    let (traffic, from) = match (args.sessions_per_second, args.sessions_per_day) {
        (Some(rate), _) => (Traffic::per_second(rate).map_err(told)?, "given".to_owned()),
        (None, Some(rate)) => (Traffic::per_day(rate).map_err(told)?, "given".to_owned()),
        (None, None) => seen(args, plan).await?,
    };
    let traffic = match args.requests_per_session {
        Some(requests) => traffic.with_requests(requests).map_err(told)?,
        None => traffic,
    };
    let traffic = match segment_shares(args, plan)? {
        Some(shares) => traffic.with_segment_shares(shares).map_err(told)?,
        None => traffic,
    };
    Ok((traffic, from))
}

/// The traffic that the server sees.
async fn seen(args: &PlanArgs, plan: &Plan) -> Result<(Traffic, String), Told> {
    const HINT: &str = "name the traffic with --sessions-per-second or --sessions-per-day";
    let client = Client::new(&args.server)?;
    let detail = client.pack(&plan.pack).await.map_err(|told| told.hint(HINT))?;
    let server = args.server.server.trim_end_matches('/');
    let rate = detail.sessions_per_second.ok_or_else(|| {
        Told::new(format!("{server} has seen too few sessions of {} to know their rate", plan.pack))
            .hint(HINT)
    })?;
    let told = |error: serin_core::forecast::InvalidTraffic| Told::new(error.to_string()).hint(HINT);
    let traffic = Traffic::per_second(rate).map_err(told)?;
    let exposure = detail.rollout.map(|rollout| rollout.exposure);
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let requests = exposure
        .filter(|exposure| exposure.sessions >= LEAST_SESSIONS)
        .map(|exposure| (exposure.requests as f64 / exposure.sessions as f64).clamp(1.0, 10_000.0));
    let traffic = match requests {
        Some(requests) => traffic.with_requests(requests).map_err(told)?,
        None => traffic,
    };
    Ok((traffic, format!("seen by {server}")))
}

/// The shares of all segments, in their order; the last one gets what is left.
fn segment_shares(args: &PlanArgs, plan: &Plan) -> Result<Option<Vec<f64>>, Told> {
    if args.shares.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = plan.segments.iter().map(|segment| segment.name.to_string()).collect();
    if let Some((unknown, _)) = args.shares.iter().find(|(name, _)| !names.contains(name)) {
        let told = Told::new(format!("{} has no segment {unknown:?}", args.file.display()));
        return Err(told.hint(format!("its segments are {}", names.join(", "))));
    }
    let given =
        |name: &String| args.shares.iter().find(|(given, _)| given == name).map_or(0.0, |(_, share)| *share);
    let mut shares: Vec<f64> = names.iter().map(given).collect();
    if let Some(last) = shares.len().checked_sub(1) {
        let others: f64 = shares[..last].iter().sum();
        shares[last] = 1.0 - others;
    }
    Ok(Some(shares))
}

fn table(report: &Report) -> String {
    let forecast = &report.forecast;
    let per_day = (forecast.sessions_per_second * 86_400.0).round();
    let rate = if forecast.sessions_per_second >= 0.1 {
        format!("{} sessions/s", percent(forecast.sessions_per_second))
    } else {
        format!("{per_day} sessions/day")
    };
    let mut text = format!(
        "{} {}   {rate}, {}\n\n",
        paint(STRONG, &report.pack),
        report.version,
        paint(QUIET, &report.traffic_from)
    );
    text.push_str(&timeline(&forecast.steps));
    text.push('\n');
    for gate in &forecast.gates {
        text.push_str(&sights(gate, &forecast.steps));
        text.push('\n');
    }
    for sentence in &report.sentences {
        text.push_str(&paragraph(sentence, Style::new()));
    }
    text.push_str(&paragraph(&format!("Taken for granted: {}.", forecast.assumptions.join("; ")), QUIET));
    text.push_str(&proposal(forecast, &report.proposed));
    text
}

fn timeline(steps: &[StepForecast]) -> String {
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
    let mut text = format!(
        "  {} {}   {}\n",
        paint(STRONG, &gate.metric),
        gate.rule,
        paint(QUIET, format!("{read}, sessions count after {}", gate.maturity))
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
