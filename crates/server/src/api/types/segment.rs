//! Segments, and the windows that set their weights.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::check::{GateView, MetricView};
use super::rollout::SidesView;

/// How one segment of a rollout stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SegmentView {
    /// Its name.
    pub name: String,
    /// Who belongs to it, in words or as the expression of the manifest.
    pub members: String,
    /// Set share of its new sessions that get the canary, in percent; absent once the rollout is over.
    #[schema(minimum = 0, maximum = 100)]
    pub weight: Option<f64>,
    /// Sessions that were assigned.
    pub sessions: SidesView,
    /// Of them, those that have matured and count as evidence.
    pub matured: SidesView,
    /// Requests since this process took up the rollout for which the segment could not tell, because an attribute
    /// was missing or of another type: no match.
    pub unreadable: u64,
    /// Whether one of its gates is proven to be broken, whatever all segments together show.
    pub degraded: bool,
    /// Each gate, read from the sessions of the segment alone.
    pub gates: Vec<GateView>,
    /// Every metric that its matured sessions have shown, stable beside canary.
    pub metrics: Vec<MetricView>,
}

/// The next change of the weights in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WeightChangeView {
    /// When, at the earliest.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Set share of new sessions of the last segment then, in percent.
    #[schema(minimum = 0, maximum = 100)]
    pub weight: f64,
    /// The same by segment, in the order of the manifest.
    pub weights: Vec<f64>,
    /// Why: `step` for the next step, `window` for a window of the schedule.
    pub by: WeightChangeBy,
}

/// What changes a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightChangeBy {
    /// The next step.
    Step,
    /// A window of the schedule.
    Window,
}
