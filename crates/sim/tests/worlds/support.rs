//! Manifests and worlds that several tests begin with.

use serin_core::units::HoldFor;
use serin_sim::{Truth, World};

pub(crate) use crate::reference::manifest;

/// The first manifest of the design page: both gates, 10 % steps of five minutes.
pub(crate) const SUPPORT: &str = r#"
apiVersion: omnia.altairalabs.ai/v1alpha1
kind: PromptPack
metadata:
  name: support-prompts
spec:
  version: "2.4.0"
  rollout:
    strategy: canary
    canaryWeight: 10
    stepWeight: 10
    stepInterval: 5m
    analysis:
      metrics:
        - name: success_rate
          threshold: 90%
          comparison: ">="
        - name: latency_p99
          threshold: 3000ms
          comparison: "<="
      failureThreshold: 2
      interval: 1m
"#;

/// The manifest as it stands, for another version.
pub(crate) fn support(version: &str) -> String {
    SUPPORT.replace("2.4.0", version)
}

/// Traffic on 2.3.1 that has gone on for long enough to serve as a baseline.
pub(crate) fn busy(seed: u64, sessions_per_s: f64) -> World {
    World::new(seed).stable("2.3.1").traffic(sessions_per_s).warmed_up(minutes(10))
}

/// Traffic in which 2.4.0 is exactly as good as 2.3.1: 97 % success, 99 % below 2.4 s.
pub(crate) fn healthy(seed: u64, sessions_per_s: f64) -> World {
    use serin_core::routing::Variant::{Canary, Stable};
    World::new(seed)
        .stable("2.3.1")
        .truth(Stable, Truth::healthy())
        .truth(Canary, Truth::healthy())
        .traffic(sessions_per_s)
        .warmed_up(minutes(10))
}

pub(crate) const fn minutes(n: u64) -> HoldFor {
    HoldFor::from_mins(n)
}

pub(crate) const fn seconds(n: u64) -> HoldFor {
    HoldFor::from_secs(n)
}
