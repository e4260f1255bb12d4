//! `spec.rollout.analysis.outcomes[].judge`: who judges an outcome, and by what.

use super::walk::{Field, Walk};
use crate::fields::{self, LONGEST_MODEL, LONGEST_RUBRIC, MOST_JUDGEMENTS};
use crate::ids::ProviderName;
use crate::judge::{Judge, Scale};
use crate::metric::{Kind, Metric};
use crate::weight::Weight;

/// Requests in an hour, unless the manifest says otherwise.
const MAX_PER_HOUR: u64 = 200;

/// A judge whose outcome is not known yet.
pub(super) struct Draft {
    provider: Option<ProviderName>,
    model: String,
    rubric: String,
    sample_rate: Weight,
    max_per_hour: u32,
    max_cost_per_hour: Option<f64>,
}

/// Reads `judge`; nothing when something is wrong.
pub(super) fn draft(walk: &mut Walk, field: &Field<'_>) -> Option<Draft> {
    let fields = walk.fields(field, &fields::JUDGE)?;
    let model = walk.require(&fields, "model", "gpt-5-mini");
    let model = model.and_then(|field| walk.text(&field, LONGEST_MODEL));
    let rubric = walk.require(&fields, "rubric", "Pass if the answer solves what the user asked for.");
    let rubric = rubric.and_then(|field| walk.text(&field, LONGEST_RUBRIC));
    let provider = fields.get("provider").map(|field| walk.read(&field, ProviderName::parse));
    let sample_rate = fields.get("sampleRate").map(|field| {
        let rate = walk.weight(&field);
        if rate == Some(Weight::ZERO) {
            walk.error_with_hint(&field.spot, "0% judges nobody", "remove `judge`, or raise it");
        }
        rate
    });
    let max_per_hour = fields.get("maxPerHour").map(|field| walk.whole_number(&field, 1, MOST_JUDGEMENTS));
    let max_cost_per_hour = fields.get("maxCostPerHour").map(|field| {
        walk.read(&field, |text| match text.trim().parse::<f64>() {
            Ok(dollars) if dollars.is_finite() && dollars > 0.0 => Ok(dollars),
            Ok(_) | Err(_) => Err(format!("{text:?} is no number of dollars above 0, such as 1.5")),
        })
    });
    let provider = match provider {
        Some(read) => Some(read?),
        None => None,
    };
    let max_cost_per_hour = match max_cost_per_hour {
        Some(read) => Some(read?),
        None => None,
    };
    Some(Draft {
        provider,
        model: model?,
        rubric: rubric?,
        sample_rate: sample_rate.unwrap_or(Some(Weight::FULL))?,
        max_per_hour: u32::try_from(max_per_hour.unwrap_or(Some(MAX_PER_HOUR))?).ok()?,
        max_cost_per_hour,
    })
}

/// The metric of a judged outcome, and its judge.
///
/// A share of those who were judged is a mean of zeros and ones: who was not judged is neither good nor bad, while a
/// rate that apps report takes silence for a no.
pub(super) fn judged(
    walk: &mut Walk,
    field: &Field<'_>,
    metric: Metric,
    draft: Draft,
) -> (Metric, Option<Judge>) {
    let scale = match (metric.kind, metric.range) {
        (Kind::Mean, Some((low, high))) => Scale::Number { low, high },
        (Kind::Mean, None) => {
            let hint = "add `min: 1` and `max: 5`, or use `kind: rate` for pass or fail";
            walk.error_with_hint(&field.key(), "the judge of a mean needs its `min` and `max`", hint);
            return (metric, None);
        }
        (Kind::Rate | Kind::ComplementRate | Kind::Quantile(_), _) => Scale::PassFail,
    };
    let Draft { provider, model, rubric, sample_rate, max_per_hour, max_cost_per_hour } = draft;
    let outcome = metric.name.clone();
    let judge =
        Judge { outcome, provider, model, rubric, sample_rate, max_per_hour, max_cost_per_hour, scale };
    let range = metric.range.or(Some((0.0, 1.0)));
    (Metric { kind: Kind::Mean, range, ..metric }, Some(judge))
}
