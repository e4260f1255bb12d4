//! `spec.rollout.analysis`: what is measured and what it decides.

use super::judge;
use super::walk::{Field, Fields, Walk};
use crate::fields::{
    self, LONGEST_PROVIDER, LONGEST_QUERY, MOST_FAILURES, MOST_GATES, MOST_OUTCOMES, MOST_SAMPLES,
};
use crate::judge::Judge;
use crate::metric::{self, Better, Kind, Metric, MetricName, Resolved, Signal, Tier, Unit};
use crate::outside;
use crate::plan::{AnalysisPlan, BUILTIN, Comparison, Decision, Gate, GateRule, OnDegraded, Regression};
use crate::units::HoldFor;

/// Matured canary sessions in a step below which a gate reads no data, unless the manifest says otherwise.
const MIN_SAMPLES: u64 = 30;

/// The comparisons as written.
pub(super) const COMPARISONS: [(&str, Comparison); 4] = [
    (">=", Comparison::AtLeast),
    (">", Comparison::Above),
    ("<=", Comparison::AtMost),
    ("<", Comparison::Below),
];

/// Reads `analysis`; `observing` is the length of the Observing step, the default of `initialDelay`.
pub(super) fn analysis(walk: &mut Walk, fields: &Fields<'_>, observing: HoldFor) -> AnalysisPlan {
    let outcomes = fields.get("outcomes").map(|field| outcomes(walk, &field)).unwrap_or_default();
    let (custom, judges): (Vec<Metric>, Vec<Option<Judge>>) = outcomes.into_iter().unzip();
    let gates = fields.get("metrics").map(|field| gates(walk, &field, &custom)).unwrap_or_default();
    let failure_threshold =
        fields.get("failureThreshold").and_then(|field| walk.whole_number(&field, 1, MOST_FAILURES));
    let interval = fields.get("interval").and_then(|field| walk.positive_duration(&field));
    let confidence = fields.get("confidence").and_then(|field| walk.read(&field, confidence));
    let initial_delay = fields.get("initialDelay").and_then(|field| walk.duration(&field));
    let reactions =
        [("hold", OnDegraded::Hold), ("rollback", OnDegraded::Rollback), ("notify", OnDegraded::Notify)];
    let on_degraded = fields.get("onDegraded").and_then(|field| walk.choice(&field, &reactions));
    AnalysisPlan {
        gates,
        custom,
        judges: judges.into_iter().flatten().collect(),
        failure_threshold: failure_threshold.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
        interval: interval.unwrap_or(HoldFor::from_mins(1)),
        confidence: confidence.unwrap_or(0.95),
        initial_delay: initial_delay.unwrap_or(observing),
        on_degraded: on_degraded.unwrap_or(OnDegraded::Hold),
    }
}

/// Reads `95%` or `0.95`, from 50 % to 99.99 %.
fn confidence(text: &str) -> Result<f64, String> {
    let share = share(text).ok_or_else(|| format!("{text:?} is no confidence such as 95% or 0.95"))?;
    if (0.5..=0.9999).contains(&share) {
        Ok(share)
    } else {
        Err(format!("confidence {text:?} is outside 50% to 99.99%"))
    }
}

/// Reads `50%` or `0.5`.
fn share(text: &str) -> Option<f64> {
    let text = text.trim();
    match text.strip_suffix('%') {
        Some(percent) => finite(percent).map(|percent| percent / 100.0),
        None => finite(text),
    }
}

fn finite(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite())
}

/// Reads the outcomes, with who judges each.
fn outcomes(walk: &mut Walk, field: &Field<'_>) -> Vec<(Metric, Option<Judge>)> {
    let mut outcomes: Vec<(Metric, Option<Judge>)> = Vec::new();
    for item in &walk.list(field, MOST_OUTCOMES) {
        let Some((outcome, judge)) = outcome(walk, item) else { continue };
        let earlier: Vec<Metric> = outcomes.iter().map(|(metric, _)| metric.clone()).collect();
        match metric::resolve(outcome.name.as_str(), &earlier) {
            Resolved::Unknown { nearest: _ } => outcomes.push((outcome, judge)),
            Resolved::Exact(known) | Resolved::Alias(known) => {
                let message = if earlier.contains(&known) {
                    format!("outcome {} is declared twice", outcome.name)
                } else {
                    format!("{} already names the built-in metric {}", outcome.name, known.name)
                };
                walk.error(&item.spot, message);
            }
        }
    }
    outcomes
}

fn outcome(walk: &mut Walk, item: &Field<'_>) -> Option<(Metric, Option<Judge>)> {
    let fields = walk.fields(item, &fields::OUTCOME)?;
    let name =
        walk.require(&fields, "name", "order_placed").and_then(|field| walk.read(&field, MetricName::parse));
    let kinds = [("rate", Kind::Rate), ("mean", Kind::Mean)];
    let kind = walk.require(&fields, "kind", "rate").and_then(|field| walk.choice(&field, &kinds));
    let directions = [("higher", Better::Higher), ("lower", Better::Lower)];
    let better = walk.require(&fields, "better", "higher").and_then(|field| walk.choice(&field, &directions));
    let tiers = [("low", Tier::Low), ("medium", Tier::Medium), ("high", Tier::High)];
    let tier = fields.get("tier").and_then(|field| walk.choice(&field, &tiers)).unwrap_or(Tier::Medium);
    let bound = |walk: &mut Walk, field: &Option<Field<'_>>| {
        let read = |text: &str| finite(text).ok_or_else(|| format!("{text:?} is no number"));
        field.as_ref().and_then(|field| walk.read(field, read))
    };
    let (min, max) = (fields.get("min"), fields.get("max"));
    let range = match (kind?, &min, &max) {
        (Kind::Mean, None, None) => None,
        (Kind::Mean, Some(_), Some(field)) => {
            let (low, high) = (bound(walk, &min), bound(walk, &max));
            if let (Some(low), Some(high)) = (low, high)
                && low >= high
            {
                walk.error(&field.spot, format!("max {high} is not above min {low}"));
            }
            low.zip(high)
        }
        (Kind::Mean, Some(field), None) | (Kind::Mean, None, Some(field)) => {
            walk.error_with_hint(&field.key(), "`min` and `max` belong together", "give both or none");
            None
        }
        (Kind::Rate | Kind::ComplementRate | Kind::Quantile(_), _, _) => {
            for field in [&min, &max].into_iter().flatten() {
                walk.error_with_hint(
                    &field.key(),
                    "a rate lies between 0 and 1",
                    "remove it, or use `kind: mean`",
                );
            }
            Some((0.0, 1.0))
        }
    };
    let judge = fields.get("judge").and_then(|field| Some((judge::draft(walk, &field)?, field)));
    let (name, kind, better) = (name?, kind?, better?);
    let unit = if kind == Kind::Mean { Unit::Number } else { Unit::Share };
    let signal = Signal::Custom(name.as_str().to_owned());
    let metric = Metric { signal, name, kind, better, tier, unit, range };
    Some(match judge {
        None => (metric, None),
        Some((draft, field)) => judge::judged(walk, &field, metric, draft),
    })
}

fn gates(walk: &mut Walk, field: &Field<'_>, custom: &[Metric]) -> Vec<Gate> {
    let mut gates: Vec<Gate> = Vec::new();
    for item in &walk.list(field, MOST_GATES) {
        let Some(gate) = gate(walk, item, custom) else { continue };
        if gates.iter().any(|earlier| is_same_question(earlier, &gate)) {
            let message = format!("a gate on {} of this kind is already listed", gate.metric.name);
            walk.error_with_hint(&item.spot, message, "keep the stricter one");
        }
        // Readings go by the name of their metric.
        let is_other = |earlier: &Gate| {
            earlier.metric.name == gate.metric.name
                && (earlier.provider != gate.provider || (gate.is_outside() && earlier.query != gate.query))
        };
        if gates.iter().any(is_other) {
            let message = format!("another gate on {} takes it from elsewhere", gate.metric.name);
            walk.error_with_hint(
                &item.spot,
                message,
                "give the one of the outside provider a name of its own",
            );
        }
        gates.push(gate);
    }
    gates
}

/// Whether two gates ask the same of the same metric, perhaps with other numbers.
fn is_same_question(a: &Gate, b: &Gate) -> bool {
    let same_rule = match (a.rule, b.rule) {
        (GateRule::Threshold { comparison: a, .. }, GateRule::Threshold { comparison: b, .. }) => {
            a.low_is_bad() == b.low_is_bad()
        }
        (GateRule::NotWorseThanStable { .. }, GateRule::NotWorseThanStable { .. }) => true,
        (GateRule::Threshold { .. }, GateRule::NotWorseThanStable { .. })
        | (GateRule::NotWorseThanStable { .. }, GateRule::Threshold { .. }) => false,
    };
    same_rule && a.metric.name == b.metric.name && a.provider == b.provider
}

fn gate(walk: &mut Walk, item: &Field<'_>, custom: &[Metric]) -> Option<Gate> {
    let fields = walk.fields(item, &fields::GATE)?;
    let provider = fields.get("provider").and_then(|field| walk.text(&field, LONGEST_PROVIDER));
    let provider = provider.unwrap_or_else(|| BUILTIN.to_owned());
    let is_builtin = provider == BUILTIN;
    let comparison = fields.get("comparison").and_then(|field| walk.choice(&field, &COMPARISONS));
    let metric = walk.require(&fields, "name", "success_rate").and_then(|field| {
        let metric = named(walk, &field, custom);
        let outside = || outside_metric(&field, comparison);
        metric
            .or_else(|unknown| if is_builtin { Err(unknown) } else { outside().ok_or(unknown) })
            .map_or_else(
                |(message, hint)| {
                    walk.error_with_hint(&field.spot, message, hint);
                    None
                },
                Some,
            )
    });
    let rule = rule(walk, &fields, metric.as_ref(), comparison);
    let decisions = [("evidence", Decision::Evidence), ("point", Decision::Point)];
    let decision = match (fields.get("decision"), is_builtin) {
        (Some(field), true) => walk.choice(&field, &decisions).unwrap_or(Decision::Evidence),
        (None, true) => Decision::Evidence,
        (Some(field), false) => {
            if walk.choice(&field, &decisions) == Some(Decision::Evidence) {
                let message = format!("provider {provider:?} gives no sessions to weigh as evidence");
                walk.error_with_hint(&field.spot, message, "use `decision: point`, or leave it out");
            }
            Decision::Point
        }
        (None, false) => Decision::Point,
    };
    let query = query(walk, &fields, &provider, rule);
    let min_samples = fields.get("minSamples").and_then(|field| walk.whole_number(&field, 1, MOST_SAMPLES));
    let maturity = fields.get("maturity").and_then(|field| walk.duration(&field));
    let budget = fields.get("weight").and_then(|field| {
        let positive = |text: &str| share(text).filter(|share| *share > 0.0);
        walk.read(&field, |text| {
            positive(text).ok_or_else(|| format!("{text:?} is no share above 0, such as 2 or 50%"))
        })
    });
    Some(Gate {
        metric: metric?,
        rule: rule?,
        decision,
        min_samples: min_samples.unwrap_or(MIN_SAMPLES),
        maturity,
        budget: budget.unwrap_or(1.0),
        provider,
        query,
    })
}

/// Reads what an outside provider is asked.
fn query(walk: &mut Walk, fields: &Fields<'_>, provider: &str, rule: Option<GateRule>) -> Option<String> {
    if provider == BUILTIN {
        if let Some(field) = fields.get("query") {
            let hint = "name the provider that is asked, as the server's settings call it, or remove it";
            walk.error_with_hint(&field.key(), "`query` belongs to an outside `provider`", hint);
        }
        return None;
    }
    let example = r#"'sum(rate(errors_total{version="{{version}}"}[5m]))'"#;
    let field = walk.require(fields, "query", example)?;
    let query = walk.text(&field, LONGEST_QUERY)?;
    let compares = matches!(rule, Some(GateRule::NotWorseThanStable { .. }));
    match outside::problem(&query, compares) {
        Some(problem) => {
            let hint = format!("it may hold {}", outside::placeholders());
            walk.error_with_hint(&field.spot, problem, hint);
            None
        }
        None => Some(query),
    }
}

/// Finds the metric of a name; else tells message and hint.
fn named(walk: &mut Walk, field: &Field<'_>, custom: &[Metric]) -> Result<Metric, (String, String)> {
    let Some(scalar) = walk.scalar(field) else {
        return Err(("the name cannot be read".to_owned(), "write a name such as success_rate".to_owned()));
    };
    match metric::resolve(&scalar.text, custom) {
        Resolved::Exact(metric) => Ok(metric),
        Resolved::Alias(metric) => {
            let message = format!("{} is read as {}", scalar.text, metric.name);
            walk.warn(&field.spot, message, format!("write `name: {}`", metric.name));
            Ok(metric)
        }
        Resolved::Unknown { nearest } => {
            let name: String = scalar.text.chars().take(80).collect();
            let hint = match nearest {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => "name a built-in metric, or declare it in `analysis.outcomes`".to_owned(),
            };
            Err((format!("no metric is called {name:?}"), hint))
        }
    }
}

/// A metric that only an outside provider knows; its comparison says which way is good.
fn outside_metric(field: &Field<'_>, comparison: Option<Comparison>) -> Option<Metric> {
    let crate::manifest::Value::Scalar(scalar) = &field.node.value else { return None };
    let name = MetricName::parse(&scalar.text).ok()?;
    let better = if comparison?.low_is_bad() { Better::Higher } else { Better::Lower };
    let signal = Signal::Custom(name.as_str().to_owned());
    Some(Metric {
        name,
        signal,
        kind: Kind::Mean,
        better,
        tier: Tier::Medium,
        unit: Unit::Number,
        range: Some((f64::MIN, f64::MAX)),
    })
}

/// Reads `threshold` and `comparison`, or `compareTo` and `maxRegression`.
pub(super) fn rule(
    walk: &mut Walk,
    fields: &Fields<'_>,
    metric: Option<&Metric>,
    comparison: Option<Comparison>,
) -> Option<GateRule> {
    match (fields.get("threshold"), fields.get("compareTo")) {
        (Some(_), Some(field)) => {
            walk.error_with_hint(
                &field.key(),
                "`compareTo` and `threshold` exclude each other",
                "write two gates",
            );
            None
        }
        (None, None) => {
            let hint = "add `threshold` and `comparison`, or `compareTo: stable` and `maxRegression`";
            walk.error_with_hint(&fields.spot, "the gate has no rule", hint);
            None
        }
        (None, Some(field)) => {
            walk.choice(&field, &[("stable", ())]);
            if let Some(field) = fields.get("comparison") {
                let hint = "remove it: the metric itself says which way is good";
                walk.error_with_hint(&field.key(), "`comparison` belongs to `threshold`", hint);
            }
            let field = walk.require(fields, "maxRegression", "2%")?;
            Some(GateRule::NotWorseThanStable { max_regression: regression(walk, &field, metric)? })
        }
        (Some(threshold), None) => {
            if let Some(field) = fields.get("maxRegression") {
                walk.error_with_hint(
                    &field.key(),
                    "`maxRegression` belongs to `compareTo: stable`",
                    "remove it",
                );
            }
            if fields.get("comparison").is_none() {
                let sign = match metric.map(|metric| metric.better) {
                    Some(Better::Lower) => "\"<=\"",
                    Some(Better::Higher | Better::Watched) | None => "\">=\"",
                };
                walk.require(fields, "comparison", sign);
            }
            let metric = metric?;
            let limit = limit(walk, &threshold, metric)?;
            let comparison = comparison?;
            warn_of_direction(walk, fields, metric, comparison);
            Some(GateRule::Threshold { comparison, limit })
        }
    }
}

fn limit(walk: &mut Walk, field: &Field<'_>, metric: &Metric) -> Option<f64> {
    let text = &walk.scalar(field)?.text;
    match metric::parse_threshold(text, metric) {
        Ok(limit) => Some(limit),
        Err(error) => {
            match finite(text) {
                Some(percent) if metric.unit == Unit::Share && (1.0..=100.0).contains(&percent) => {
                    walk.error_with_hint(&field.spot, error, format!("write {percent}%"));
                }
                Some(_) | None => walk.error(&field.spot, error),
            }
            None
        }
    }
}

fn warn_of_direction(walk: &mut Walk, fields: &Fields<'_>, metric: &Metric, comparison: Comparison) {
    let (contradicts, meant) = match metric.better {
        Better::Higher => (!comparison.low_is_bad(), ">="),
        Better::Lower => (comparison.low_is_bad(), "<="),
        Better::Watched => (false, ""),
    };
    if contradicts && let Some(field) = fields.get("comparison") {
        let good = if comparison.low_is_bad() { "a low" } else { "a high" };
        let message =
            format!("`{}` rolls back for {good} {}, which is the good side", comparison.sign(), metric.name);
        walk.warn(&field.spot, message, format!("use `comparison: \"{meant}\"`"));
    }
}

/// Reads `2%` (relative), `2pp`, `200ms`, `3s`, `0.2` (absolute, in the unit of the metric); above 0.
pub(super) fn regression(walk: &mut Walk, field: &Field<'_>, metric: Option<&Metric>) -> Option<Regression> {
    let unit = metric.map(|metric| metric.unit);
    walk.read(field, |text| {
        let read = read_regression(text.trim(), unit).ok_or_else(|| {
            let example = match unit {
                None | Some(Unit::Share) => "2% or 2pp",
                Some(Unit::Millis) => "5% or 200ms",
                Some(Unit::Tokens | Unit::Dollars | Unit::Rating | Unit::Score) => "5% or 0.2",
                Some(Unit::Turns | Unit::Characters | Unit::Number) => "5% or 0.2",
            };
            format!("{text:?} is no regression such as {example}")
        })?;
        match read {
            Regression::Relative(size) | Regression::Absolute(size) if size > 0.0 && size.is_finite() => {
                Ok(read)
            }
            Regression::Relative(_) | Regression::Absolute(_) => Err(format!("{text:?} must be above 0")),
        }
    })
}

fn read_regression(text: &str, unit: Option<Unit>) -> Option<Regression> {
    let number = |digits: &str, scale: f64| finite(digits).map(|number| number * scale);
    if let Some(digits) = text.strip_suffix('%') {
        return number(digits, 0.01).map(Regression::Relative);
    }
    let absolute = match unit {
        None | Some(Unit::Share) => match text.strip_suffix("pp") {
            Some(points) => number(points, 0.01),
            None => number(text, 1.0),
        },
        Some(Unit::Millis) => match (text.strip_suffix("ms"), text.strip_suffix('s')) {
            (Some(ms), _) => number(ms, 1.0),
            (None, Some(secs)) => number(secs, 1_000.0),
            (None, None) => number(text, 1.0),
        },
        Some(Unit::Dollars) => number(text.strip_prefix('$').unwrap_or(text), 1.0),
        Some(Unit::Tokens | Unit::Rating | Unit::Score | Unit::Turns | Unit::Characters | Unit::Number) => {
            number(text, 1.0)
        }
    };
    absolute.map(Regression::Absolute)
}
