//! What judges did, as metrics.

use prometheus_client::registry::Registry;

use super::{counter, load};
use crate::judge::JudgeCounts;

pub(super) fn judges(registry: &mut Registry, counts: &JudgeCounts) {
    let registry = registry.sub_registry_with_prefix("judge");
    for (name, help, value) in [
        ("asked", "Times that a judge was asked about a session", &counts.asked),
        ("verdicts", "Verdicts of judges, each an outcome of its session", &counts.judged),
        ("unanswered", "Times that a judge did not answer", &counts.unanswered),
        ("unreadable", "Answers of judges that were no verdict", &counts.unreadable),
        ("failed", "Sessions that were given up without a verdict", &counts.failed),
        (
            "over_budget",
            "Sessions not judged because the budget of their judge was spent",
            &counts.over_budget,
        ),
        ("cost_microdollars", "What judges cost, in millionths of a US dollar", &counts.cost_micros),
    ] {
        counter(registry, name, help, load(value));
    }
}
