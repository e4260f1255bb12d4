//! The metrics of rollouts as OpenMetrics: one series for each pack, version, variant and metric.
//!
//! Manifests may declare metrics of their own, so their number has a ceiling here; what is left out is counted.

use prometheus_client::registry::Registry;
use serin_core::analysis::{MetricReading, Status};
use serin_core::ids::PackName;

use super::{Gauges, gauge};
use crate::control::view::PackView;

/// Metrics of rollouts that one scrape shows at most; each has up to five series.
pub const MOST_METRICS: usize = 2_000;

/// Metrics of all packs, collected for one scrape.
#[derive(Debug)]
pub(super) struct Measured {
    room: usize,
    left_out: u64,
    value: Gauges,
    samples: Gauges,
    status: Gauges,
}

impl Measured {
    /// Room for so many metrics.
    pub(super) fn with_room(room: usize) -> Self {
        Self {
            room,
            left_out: 0,
            value: Gauges::default(),
            samples: Gauges::default(),
            status: Gauges::default(),
        }
    }

    /// Adds what was measured of the current or latest rollout of a pack.
    pub(super) fn add(&mut self, pack: &PackName, view: &PackView) {
        let (Some(rollout), Some(measured)) = (&view.state.rollout, &view.measured) else { return };
        for reading in &measured.metrics {
            if self.room == 0 {
                self.left_out += 1;
                continue;
            }
            self.room -= 1;
            let MetricReading { metric, stable, canary, stable_samples, canary_samples, status, .. } =
                reading;
            for (variant, version, value, samples) in [
                ("stable", &rollout.stable, stable, stable_samples),
                ("canary", &rollout.canary, canary, canary_samples),
            ] {
                let labels = vec![
                    ("pack", pack.to_string()),
                    ("version", version.to_string()),
                    ("variant", variant.to_owned()),
                    ("metric", metric.to_string()),
                ];
                self.samples.get_or_create(&labels).set(*samples as f64);
                // Nothing measured is no series, and not 0.
                if let Some(value) = value {
                    self.value.get_or_create(&labels).set(*value);
                }
            }
            let word = match status {
                Status::Improved => "improved",
                Status::Degraded => "degraded",
                Status::Watch => "watch",
                Status::Ok => "ok",
                Status::NoData => "no_data",
            };
            let labels =
                vec![("pack", pack.to_string()), ("metric", metric.to_string()), ("status", word.to_owned())];
            self.status.get_or_create(&labels).set(1.0);
        }
    }

    /// Adds the series to what is shown.
    pub(super) fn register(self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("metric");
        let Self { value, samples, status, left_out, .. } = self;
        registry.register(
            "value",
            "Value of a metric over the current or latest rollout, in its own unit",
            value,
        );
        registry.register("samples", "Values that it rests on", samples);
        registry.register("status", "1 for how the canary stands against stable", status);
        let help = "Metrics that this scrape left out, because there are more than it shows";
        gauge(registry, "left_out", help, left_out);
    }
}
