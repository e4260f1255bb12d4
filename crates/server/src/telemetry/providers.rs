//! Metrics of each provider by its name; the settings bound their number.

use prometheus_client::registry::Registry;

use super::{Counters, Gauges};
use crate::gateway::Upstreams;

/// Adds what is counted of each provider.
pub(super) fn providers(registry: &mut Registry, upstreams: &Upstreams) {
    let registry = registry.sub_registry_with_prefix("provider");
    let (in_flight, waiting) = (Gauges::default(), Gauges::default());
    let mut counters: Vec<(&str, &str, Counters)> = Vec::new();
    for upstream in upstreams.iter() {
        let labels = vec![("provider", upstream.name().to_string())];
        for (index, (name, help, value)) in upstream.counted().into_iter().enumerate() {
            if index == counters.len() {
                counters.push((name, help, Counters::default()));
            }
            counters[index].2.get_or_create(&labels).inc_by(value);
        }
        let (n_in_flight, n_waiting) = upstream.in_flight();
        in_flight.get_or_create(&labels).set(n_in_flight as f64);
        waiting.get_or_create(&labels).set(n_waiting as f64);
    }
    for (name, help, family) in counters {
        registry.register(name, help, family);
    }
    registry.register("in_flight", "Requests under way to a provider", in_flight);
    registry.register("waiting", "Requests that wait until others to their provider have ended", waiting);
}
