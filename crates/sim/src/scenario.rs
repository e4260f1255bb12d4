//! Scenarios: what is true about two versions, how much traffic there is, and what goes wrong when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_core::analysis::Sides;
use serin_core::metric::Signal;
use serin_core::units::HoldFor;

use crate::dice::Habits;
use crate::truth::{Change, Timeline, Truth};

/// The scenarios that come with Serin, by name.
const BUILT_IN: [(&str, &str); 5] = [
    ("healthy", include_str!("scenarios/healthy.yaml")),
    ("regression", include_str!("scenarios/regression.yaml")),
    ("subtle", include_str!("scenarios/subtle.yaml")),
    ("late-harm", include_str!("scenarios/late-harm.yaml")),
    ("outage", include_str!("scenarios/outage.yaml")),
];

/// What is true about two versions in the course of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it is about, in a sentence.
    #[serde(default)]
    pub about: String,
    /// Whether the canary should not become stable: a completed rollout is then a mistake.
    pub harmful: bool,
    /// How many sessions arrive.
    #[serde(default)]
    pub traffic: Traffic,
    /// How sessions behave.
    #[serde(default)]
    pub habits: Habits,
    /// What is true about stable.
    pub stable: Truth,
    /// Where the canary differs from stable.
    #[serde(default)]
    pub canary: Truth,
    /// What changes on the way, in this order.
    #[serde(default)]
    pub changes: Vec<ScenarioChange>,
}

/// How many sessions arrive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// New sessions per second, on average over the day.
    pub sessions_per_s: f64,
    /// A factor for each hour of the day, UTC; empty for the same all day.
    pub by_hour: Vec<f64>,
    /// The hour of the day at which the rollout begins, 0 to 23.
    pub begins_at_hour: u8,
    /// Sessions of stable before the rollout, for the baseline; 0 for a pack that nobody used before.
    pub earlier_sessions: u32,
    /// The share of the sessions that each segment of the manifest brings, 0 to 1; the last segment brings the rest.
    /// Where none is named, each brings as many.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub segments: BTreeMap<String, f64>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            sessions_per_s: 10.0,
            by_hour: Vec::new(),
            begins_at_hour: 9,
            earlier_sessions: 1_000,
            segments: BTreeMap::new(),
        }
    }
}

/// Something that changes on the way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioChange {
    /// Whom it concerns.
    pub of: Whom,
    /// Since when, counted from the start of the rollout.
    pub from: HoldFor,
    /// Until when; for good when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<HoldFor>,
    /// How long it takes to arrive; at once when absent.
    #[serde(default)]
    pub over: HoldFor,
    /// What is true then.
    pub truth: Truth,
}

/// Whom a change concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whom {
    /// Stable alone.
    Stable,
    /// The canary alone.
    Canary,
    /// Both: drift, or an outage of the provider.
    Both,
}

/// Why a scenario was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidScenario {
    /// The text is no scenario.
    #[error("could not read the scenario: {0}")]
    Unreadable(String),
    /// A number cannot be.
    #[error("scenario {scenario}: {field} cannot be {value}")]
    Implausible {
        /// The scenario.
        scenario: String,
        /// Where the number stands.
        field: String,
        /// The number.
        value: f64,
    },
}

impl Scenario {
    /// Reads a scenario in YAML.
    ///
    /// # Errors
    /// [`InvalidScenario`] when the text is no scenario, or a number in it cannot be.
    pub fn parse(yaml: &str) -> Result<Self, InvalidScenario> {
        let scenario: Self =
            serde_saphyr::from_str(yaml).map_err(|error| InvalidScenario::Unreadable(error.to_string()))?;
        match scenario.implausible() {
            Some((field, value)) => {
                Err(InvalidScenario::Implausible { scenario: scenario.name, field, value })
            }
            None => Ok(scenario),
        }
    }

    /// The built-in scenario of a name.
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, yaml) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name)?;
        Some(Self::parse(yaml).expect("a test reads every built-in scenario"))
    }

    /// The names of the built-in scenarios.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    fn implausible(&self) -> Option<(String, f64)> {
        let truths =
            [("stable".to_owned(), &self.stable), ("canary".to_owned(), &self.canary)].into_iter().chain(
                self.changes
                    .iter()
                    .enumerate()
                    .map(|(at, change)| (format!("changes[{at}].truth"), &change.truth)),
            );
        for (place, truth) in truths {
            if let Some((field, value)) = truth.implausible() {
                return Some((format!("{place}.{field}"), value));
            }
        }
        let (traffic, habits) = (&self.traffic, &self.habits);
        let hour_off = traffic.by_hour.iter().find(|factor| !(0.0..=100.0).contains(*factor)).copied();
        let in_all: f64 = traffic.segments.values().sum();
        let shares_fit =
            traffic.segments.values().all(|share| (0.0..=1.0).contains(share)) && in_all <= 1.0 + 1e-9;
        let checks = [
            (
                "traffic.sessions_per_s",
                traffic.sessions_per_s,
                traffic.sessions_per_s > 0.0 && traffic.sessions_per_s <= 1e4,
            ),
            ("traffic.by_hour", hour_off.unwrap_or(0.0), hour_off.is_none()),
            (
                "traffic.by_hour (24 factors, or none)",
                hours(traffic),
                [0, 24].contains(&traffic.by_hour.len()),
            ),
            ("traffic.begins_at_hour", f64::from(traffic.begins_at_hour), traffic.begins_at_hour < 24),
            (
                "traffic.earlier_sessions",
                f64::from(traffic.earlier_sessions),
                traffic.earlier_sessions <= 100_000,
            ),
            ("traffic.segments (shares of 0 to 1, 1 in all)", in_all, shares_fit),
            ("habits.requests_mean", habits.requests_mean, (1.0..=50.0).contains(&habits.requests_mean)),
            ("habits.correlation", habits.correlation, (0.0..=1.0).contains(&habits.correlation)),
            ("habits.lost_outcomes", habits.lost_outcomes, (0.0..=1.0).contains(&habits.lost_outcomes)),
        ];
        checks.into_iter().find(|(_, _, fits)| !fits).map(|(field, value, _)| (field.to_owned(), value))
    }

    /// The segments that it names and a plan does not have.
    pub fn unknown_segments(&self, plan: &serin_core::plan::Plan) -> Vec<String> {
        let is_known = |name: &String| plan.segments.iter().any(|segment| segment.name.as_str() == name);
        self.traffic.segments.keys().filter(|name| !is_known(name)).cloned().collect()
    }

    /// What is true about both variants, minute by minute.
    pub(crate) fn timelines(&self) -> Sides<Timeline> {
        let of = |base: Truth, excluded: Whom| Timeline {
            base,
            changes: self
                .changes
                .iter()
                .filter(|change| change.of != excluded)
                .map(|change| Change {
                    from: change.from,
                    until: change.until,
                    over: change.over,
                    truth: change.truth,
                })
                .collect(),
        };
        Sides {
            stable: of(self.stable, Whom::Canary),
            canary: of(self.stable.changed_by(&self.canary), Whom::Stable),
        }
    }

    /// The signals that sessions can show at any time.
    pub(crate) fn signals(&self) -> Vec<Signal> {
        let all = self
            .changes
            .iter()
            .fold(self.stable.changed_by(&self.canary), |all, change| all.changed_by(&change.truth));
        [
            (all.success_rate, Signal::Success),
            (all.latency_median_ms, Signal::Latency),
            (all.input_tokens, Signal::InputTokens),
            (all.output_tokens, Signal::OutputTokens),
            (all.cost, Signal::Cost),
            (all.tool_accuracy, Signal::ToolCalls),
            (all.refusal_rate, Signal::Refusal),
            (all.completion, Signal::Completion),
            (all.escalation, Signal::Escalation),
            (all.satisfaction, Signal::Satisfaction),
        ]
        .into_iter()
        .filter_map(|(known, signal)| known.map(|_| signal))
        .collect()
    }

    /// New sessions per second at a time since the start of the rollout.
    pub(crate) fn sessions_per_s(&self, since_start_ms: u64) -> f64 {
        let hour = (u64::from(self.traffic.begins_at_hour) + since_start_ms / 3_600_000) % 24;
        let factor = usize::try_from(hour).ok().and_then(|hour| self.traffic.by_hour.get(hour));
        self.traffic.sessions_per_s * factor.copied().unwrap_or(1.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a list in a file is short")]
fn hours(traffic: &Traffic) -> f64 {
    traffic.by_hour.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_reads_and_writes() {
        for name in Scenario::names() {
            let scenario = Scenario::built_in(name).expect("it is built in");
            assert_eq!(scenario.name, name);
            assert!(!scenario.about.is_empty());
            let written = serde_json::to_string(&scenario).expect("plain data");
            assert_eq!(serde_json::from_str::<Scenario>(&written).expect("reads back"), scenario);
        }
        assert_eq!(Scenario::built_in("unknown"), None);
    }

    #[test]
    fn wrong_scenarios_are_refused_with_the_place() {
        let told = |yaml: &str| Scenario::parse(yaml).unwrap_err().to_string();
        assert_eq!(
            told("{name: x, harmful: false, stable: {success_rate: 94}}"),
            "scenario x: stable.success_rate cannot be 94"
        );
        assert_eq!(
            told("{name: x, harmful: false, stable: {}, traffic: {sessions_per_s: 0}}"),
            "scenario x: traffic.sessions_per_s cannot be 0"
        );
        assert!(told("{name: x, harmful: false, stable: {}, trafic: {}}").contains("trafic"));
    }
}
