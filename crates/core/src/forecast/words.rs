//! A forecast in plain sentences.

use super::{Forecast, GateForecast, Sees, Sight, Traffic};
use crate::evidence::Baseline;
use crate::metric::Kind;
use crate::plan::{GateRule, Plan, Strategy};
use crate::units::HoldFor;

/// A gate that sees only harms above this share of bad ones sees nothing useful.
const USELESS_SHARE: f64 = 0.5;

/// What a person should know about a rollout at the traffic that is there; nothing when there is traffic enough.
pub fn notes(plan: &Plan, traffic: &Traffic, baseline: Option<&Baseline>) -> Vec<String> {
    if plan.strategy == Strategy::Immediate {
        return Vec::new();
    }
    let forecast = Forecast::new_if_low(plan, traffic, baseline);
    forecast.map(|forecast| sentences(plan, &forecast)).unwrap_or_default()
}

/// A forecast as sentences: what is seen, what the steps wait for, and what helps.
pub fn sentences(plan: &Plan, forecast: &Forecast) -> Vec<String> {
    if plan.strategy == Strategy::Immediate {
        return vec![
            "Everyone gets the version at once: nothing is compared, and no harm is seen.".to_owned(),
        ];
    }
    let mut told = vec![reach(forecast)];
    told.extend(length(forecast));
    told.extend(forecast.gates.iter().filter_map(|gate| blind(gate, forecast)));
    told.extend(literal(forecast));
    if forecast.is_low {
        told.push(format!("What helps: {}.", help(plan, forecast).join("; ")));
    }
    told
}

/// What the gates see, early and by the end.
fn reach(forecast: &Forecast) -> String {
    let by_evidence: Vec<&GateForecast> =
        forecast.gates.iter().filter(|gate| gate.sees != Sees::Literal).collect();
    if by_evidence.is_empty() {
        return "No gate weighs evidence: only the status of the other metrics holds the rollout.".to_owned();
    }
    let seen: Vec<String> =
        (0..).zip(&by_evidence).map(|(index, gate)| early_and_late(gate, index == 0)).collect();
    let seen = seen.join("; ");
    let what = if forecast.sees_only_collapse {
        format!("At this traffic Serin can catch a collapse, not a small decline: {seen}.")
    } else {
        format!("Serin can catch: {seen}.")
    };
    format!("{what} Pass means no harm was seen, not that none exists.")
}

/// `after 30 canary sessions a success rate of 63% or lower in 4 of 5 rollouts, after 240, 80% or lower`.
fn early_and_late(gate: &GateForecast, is_first: bool) -> String {
    let early = &gate.at_first;
    let late = gate.sights.iter().filter(|sight| sight.harm.is_some()).max_by_key(|sight| sight.sessions);
    let after = |sight: &Sight| {
        let chance = if is_first { " in 4 of 5 rollouts" } else { "" };
        let unit = match (is_first, gate.judged_share.is_some()) {
            (true, false) => " canary sessions",
            (true, true) => " judged canary sessions",
            (false, false) => ",",
            (false, true) => " judged ones,",
        };
        format!("after {}{unit} {}{chance}", counted(sight.sessions), noun(gate, sight))
    };
    match late {
        Some(late) if late.sessions > early.sessions && early.harm.is_some() => {
            // What it is a share of was said before.
            let shown = late.shown.split(" of requests").next().unwrap_or_default();
            format!("{}, after {}, {shown}", after(early), counted(late.sessions))
        }
        Some(late) if late.sessions > early.sessions => after(late),
        Some(_) | None if early.harm.is_some() => after(early),
        Some(_) | None => format!("of {} nothing", gate.metric),
    }
}

/// What a sight shows, with what it is about: `a success rate of 63% or lower`.
fn noun(gate: &GateForecast, sight: &Sight) -> String {
    let name = gate.metric.replace('_', " ");
    match gate.kind {
        Kind::Quantile(_) => sight.shown.clone(),
        Kind::Mean => format!("{} {}", name.trim_end_matches(" avg"), sight.shown),
        Kind::Rate | Kind::ComplementRate => {
            let article = if name.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
            format!("{article} {name} of {}", sight.shown)
        }
    }
}

/// A count with its thousands set apart.
fn counted(count: u64) -> String {
    match (count / 1_000, count % 1_000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{},{rest:03}", counted(thousands)),
    }
}

/// How long the rollout takes, and why.
fn length(forecast: &Forecast) -> Vec<String> {
    let short: Vec<_> = forecast.steps.iter().filter(|step| !step.fits).collect();
    let mut told = Vec::new();
    let Some(expected) = forecast.expected_length else {
        let stuck = forecast.steps.iter().find(|step| step.expected_hold.is_none());
        let why = stuck.and_then(|step| step.waits_for.clone()).unwrap_or_default();
        return vec![format!("The rollout never ends: {why}, and gets none.")];
    };
    match short.as_slice() {
        [] => told.push(format!("Every step gets its sessions in its time: the rollout takes {expected}.")),
        [first, ..] => {
            let (verb, why) = (if short.len() == 1 { "waits" } else { "wait" }, first.waits_for.as_deref());
            told.push(format!(
                "{} of {} steps {verb} for sessions: the rollout takes about {} instead of {}; in step {} {}.",
                short.len(),
                forecast.steps.len(),
                about(expected),
                forecast.planned_length,
                first.index + 1,
                why.unwrap_or_default(),
            ));
        }
    }
    if expected > forecast.deadline {
        told.push(format!(
            "Its deadline of {} passes before: from then on it holds for a person; set `progress.deadline` to {} or more.",
            forecast.deadline,
            about(expected),
        ));
    }
    told
}

/// Says so when a gate sees nothing useful in the whole rollout.
fn blind(gate: &GateForecast, forecast: &Forecast) -> Option<String> {
    if gate.sees == Sees::Literal || forecast.steps.is_empty() {
        return None;
    }
    let best = gate.sights.iter().filter_map(|sight| sight.harm).min_by(f64::total_cmp);
    let is_useless = match (gate.sees, best) {
        (_, None) => true,
        (Sees::Share | Sees::Comparison, Some(share)) => share > USELESS_SHARE && share < 1.0,
        (Sees::Mean | Sees::Literal, Some(_)) => false,
    };
    is_useless.then(|| {
        let (n, judged) = match gate.judged_share {
            None => (forecast.canary_sessions(), ""),
            Some(_) => (gate.sights.iter().map(|sight| sight.sessions).max().unwrap_or(0), "judged "),
        };
        let n = counted(n);
        format!(
            "{} {} sees nothing useful at this traffic: {n} {judged}canary sessions are too few for it.",
            gate.metric, gate.rule
        )
    })
}

fn literal(forecast: &Forecast) -> Option<String> {
    let names: Vec<&str> = forecast
        .gates
        .iter()
        .filter(|gate| gate.sees == Sees::Literal)
        .map(|gate| gate.metric.as_str())
        .collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    (!names.is_empty()).then(|| {
        format!(
            "{} {verb} read literally: a failed check whenever the last interval is on the wrong side, on however few sessions; the promise of {}% does not cover that.",
            names.join(" and "),
            forecast.confidence * 100.0,
        )
    })
}

/// What makes more visible at low traffic, the most effective first.
fn help(plan: &Plan, forecast: &Forecast) -> Vec<String> {
    let mut ways = Vec::new();
    let early = forecast.steps.iter().find(|step| step.needed > 0);
    if early.is_some_and(|step| step.canary_percent < 25.0) {
        ways.push("more weight in the first steps, so that sessions come sooner".to_owned());
    }
    if forecast.sees_only_collapse {
        ways.push("longer steps".to_owned());
    }
    for gate in &plan.analysis.gates {
        if let (Kind::Quantile(q), GateRule::Threshold { .. }) = (gate.metric.kind, gate.rule)
            && q > 0.9
        {
            let name = gate.metric.name.as_str();
            let needed = super::sessions_for_quantile(q);
            if let Some((family, _)) = name.rsplit_once('_') {
                ways.push(format!("{family}_p90 instead of {name} (10 sessions instead of {needed})"));
            }
        }
    }
    let compares_a_mean = plan.analysis.gates.iter().any(|gate| {
        gate.metric.kind == Kind::Mean && matches!(gate.rule, GateRule::NotWorseThanStable { .. })
    });
    if !compares_a_mean {
        ways.push(
            "`compareTo: stable` on a mean such as latency_avg, where every session tells something"
                .to_owned(),
        );
    }
    ways.push("a judge that rates every session".to_owned());
    ways.push("reading some conversations yourself before you approve".to_owned());
    ways
}

/// A length without digits that mean nothing: whole hours above two days, whole minutes above an hour.
fn about(length: HoldFor) -> HoldFor {
    let secs = length.millis() / 1_000;
    let unit = match secs {
        0..3_600 => 1,
        3_600..172_800 => 60,
        _ => 3_600,
    };
    HoldFor::from_secs(secs.div_ceil(unit) * unit)
}
