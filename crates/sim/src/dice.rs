//! Everything random, one generator per purpose, and what a session shows when they are rolled.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};
use serin_core::metric::Signal;
use serin_core::observation::{ErrorKind, Fact, Observation, Outcome, Response};
use serin_core::units::{HoldFor, Timestamp};

use crate::truth::Truth;

/// Most requests of one session.
const MOST_REQUESTS: u32 = 200;
/// Share of answers that call a tool.
const TOOL_SHARE: f64 = 0.3;
/// Standard deviation over mean of tokens and cost.
const SPREAD: f64 = 0.5;
/// The standard normal's 99th percentile.
const Z99: f64 = 2.326_347_874_040_841;

/// How sessions behave, whatever version they get.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Habits {
    /// Mean requests of a session, at least 1; geometric.
    pub requests_mean: f64,
    /// Mean pause between two requests.
    pub pause: HoldFor,
    /// How much the requests of a session have in common, 0 (nothing) to 1 (everything).
    pub correlation: f64,
    /// Share of outcomes that never arrive.
    pub lost_outcomes: f64,
    /// Median time from the assignment to an outcome; its 99th percentile is five times that.
    pub outcome_delay: HoldFor,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            requests_mean: 1.0,
            pause: HoldFor::from_secs(20),
            correlation: 0.0,
            lost_outcomes: 0.0,
            outcome_delay: HoldFor::from_mins(1),
        }
    }
}

/// A lognormal distribution, shifted.
#[derive(Debug, Clone, Copy)]
struct LogNormal {
    mu: f64,
    sigma: f64,
    shift: f64,
}

impl LogNormal {
    fn of_tail(median: f64, p99: f64, shift: f64) -> Self {
        Self { mu: median.ln(), sigma: ((p99 / median).ln() / Z99).max(0.0), shift }
    }

    fn of_mean(mean: f64) -> Self {
        let variance = (1.0 + SPREAD * SPREAD).ln();
        Self { mu: mean.ln() - variance / 2.0, sigma: variance.sqrt(), shift: 0.0 }
    }

    fn value(self, z: f64) -> f64 {
        ((self.mu + self.sigma * z).exp() + self.shift).max(1e-6)
    }
}

/// The truth about a version, ready to be sampled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model {
    truth: Truth,
    latency: Option<LogNormal>,
    input_tokens: Option<LogNormal>,
    output_tokens: Option<LogNormal>,
    cost: Option<LogNormal>,
}

impl Model {
    pub(crate) fn of(truth: Truth) -> Self {
        let latency = truth.latency_median_ms.map(|median| {
            let p99 = truth.latency_p99_ms.unwrap_or(median * 2.0);
            LogNormal::of_tail(median, p99, truth.latency_shift_ms.unwrap_or(0.0))
        });
        Self {
            truth,
            latency,
            input_tokens: truth.input_tokens.map(LogNormal::of_mean),
            output_tokens: truth.output_tokens.map(LogNormal::of_mean),
            cost: truth.cost.map(LogNormal::of_mean),
        }
    }
}

/// One generator per purpose, so that a draw more here changes nothing there.
#[derive(Debug)]
pub(crate) struct Dice {
    pub(crate) arrival: Pcg64Mcg,
    pub(crate) variant: Pcg64Mcg,
    pub(crate) key: Pcg64Mcg,
    requests: Pcg64Mcg,
    success: Pcg64Mcg,
    latency: Pcg64Mcg,
    tokens: Pcg64Mcg,
    tools: Pcg64Mcg,
    outcome: Pcg64Mcg,
    rating: Pcg64Mcg,
    delay: Pcg64Mcg,
    lost: Pcg64Mcg,
    pub(crate) segment: Pcg64Mcg,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mut purpose = 0_u64;
        let mut next = || {
            purpose += 1;
            Pcg64Mcg::seed_from_u64(mixed(seed, purpose))
        };
        Self {
            arrival: next(),
            variant: next(),
            key: next(),
            requests: next(),
            success: next(),
            latency: next(),
            tokens: next(),
            tools: next(),
            outcome: next(),
            rating: next(),
            delay: next(),
            lost: next(),
            segment: next(),
        }
    }

    /// Milliseconds to the next arrival at a rate per second.
    pub(crate) fn wait_ms(&mut self, per_second: f64) -> f64 {
        exponential(&mut self.arrival) * 1_000.0 / per_second
    }

    /// Everything that a session shows in its life, oldest first by when it began.
    pub(crate) fn session(
        &mut self,
        model: &Model,
        habits: &Habits,
        assigned_at: Timestamp,
    ) -> Vec<Observation> {
        let lost = model.truth.lost_sessions.unwrap_or(0.0);
        if lost > 0.0 && self.lost.random::<f64>() < lost {
            return Vec::new();
        }
        let n = self.n_requests(habits);
        let mut seen = Vec::with_capacity(n as usize);
        let common = (self.success.random::<f64>(), normal(&mut self.latency));
        let mut start_ms = 0.0;
        for request in 0..n {
            if request > 0 {
                start_ms += exponential(&mut self.requests) * as_ms(habits.pause);
            }
            let response = self.response(model, habits.correlation, common, n > 1);
            let latency_ms = response.latency_ms.unwrap_or(0.0);
            let at = later(assigned_at, start_ms);
            let until = later(assigned_at, start_ms + latency_ms);
            seen.push(Observation { at, until, request: None, fact: Fact::Response(response) });
            start_ms += latency_ms;
        }
        self.outcomes(model, habits, assigned_at, &mut seen);
        seen.sort_by_key(|observation| observation.at);
        seen
    }

    fn n_requests(&mut self, habits: &Habits) -> u32 {
        if habits.requests_mean <= 1.0 {
            return 1;
        }
        let go_on = 1.0 - 1.0 / habits.requests_mean;
        let mut n = 1;
        while n < MOST_REQUESTS && self.requests.random::<f64>() < go_on {
            n += 1;
        }
        n
    }

    fn response(&mut self, model: &Model, correlation: f64, common: (f64, f64), many: bool) -> Response {
        let truth = &model.truth;
        let mut response = Response::default();
        if let Some(rate) = truth.success_rate {
            // With many requests in a session some of them share its luck.
            let shares = many && self.success.random::<f64>() < correlation;
            let luck = if shares || !many { common.0 } else { self.success.random::<f64>() };
            let success = luck < rate;
            response.success = Some(success);
            response.error = (!success).then_some(ErrorKind::Provider);
        }
        if let Some(latency) = model.latency {
            let z = if many {
                correlation.sqrt() * common.1 + (1.0 - correlation).sqrt() * normal(&mut self.latency)
            } else {
                common.1
            };
            response.latency_ms = Some(latency.value(z));
        }
        let mut size = |model: Option<LogNormal>| model.map(|model| model.value(normal(&mut self.tokens)));
        response.input_tokens = size(model.input_tokens);
        response.output_tokens = size(model.output_tokens);
        response.cost = size(model.cost);
        if let Some(accuracy) = truth.tool_accuracy {
            let calls = u32::from(self.tools.random::<f64>() < TOOL_SHARE);
            let wrong = self.tools.random::<f64>() >= accuracy;
            response.tool_calls = Some(calls);
            response.wrong_tool_calls = Some(if wrong { calls } else { 0 });
        }
        response.refusal = truth.refusal_rate.map(|rate| self.tools.random::<f64>() < rate);
        response
    }

    fn outcomes(
        &mut self,
        model: &Model,
        habits: &Habits,
        assigned_at: Timestamp,
        seen: &mut Vec<Observation>,
    ) {
        let truth = &model.truth;
        let mut found: Vec<(Signal, f64)> = Vec::new();
        for (rate, signal) in [(truth.completion, Signal::Completion), (truth.escalation, Signal::Escalation)]
        {
            if let Some(rate) = rate {
                found.push((signal, f64::from(u8::from(self.outcome.random::<f64>() < rate))));
            }
        }
        if let Some(mean) = truth.satisfaction
            && self.rating.random::<f64>() < truth.rating_share.unwrap_or(1.0)
        {
            let stars = (0..4).filter(|_| self.rating.random::<f64>() < (mean - 1.0) / 4.0).count();
            #[expect(clippy::cast_precision_loss, reason = "at most four stars")]
            found.push((Signal::Satisfaction, 1.0 + stars as f64));
        }
        let delay = LogNormal::of_tail(as_ms(habits.outcome_delay), 5.0 * as_ms(habits.outcome_delay), 0.0);
        for (signal, value) in found {
            let at = later(assigned_at, delay.value(normal(&mut self.delay)));
            if self.lost.random::<f64>() >= habits.lost_outcomes {
                seen.push(Observation {
                    at,
                    until: at,
                    request: None,
                    fact: Fact::Outcome(Outcome { signal, value }),
                });
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "lengths of time in ms stay far below 2^52")]
fn as_ms(length: HoldFor) -> f64 {
    length.millis() as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
fn later(start: Timestamp, ms: f64) -> Timestamp {
    HoldFor::from_millis(ms as u64).after(start)
}

fn exponential(dice: &mut Pcg64Mcg) -> f64 {
    -(1.0 - dice.random::<f64>()).ln()
}

/// A standard normal value by Box and Muller.
fn normal(dice: &mut Pcg64Mcg) -> f64 {
    let (radius, angle) = (exponential(dice), dice.random::<f64>());
    (2.0 * radius).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// A seed for one purpose or run, far from the seeds of its neighbours.
pub(crate) fn mixed(seed: u64, purpose: u64) -> u64 {
    let mut x = seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_show_what_is_true() {
        let truth = Truth {
            escalation: Some(0.2),
            output_tokens: Some(300.0),
            ..Truth::default().success(0.9).latency(1_000.0, 3_000.0).satisfaction(4.2, 0.5)
        };
        let habits = Habits { requests_mean: 3.0, correlation: 0.3, ..Habits::default() };
        let (model, mut dice) = (Model::of(truth), Dice::new(7));
        let (mut requests, mut successes, mut slow, mut tokens, mut ratings, mut stars) =
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        for _ in 0..40_000 {
            for seen in dice.session(&model, &habits, Timestamp::UNIX_EPOCH) {
                match seen.fact {
                    Fact::Response(response) => {
                        requests += 1.0;
                        successes += f64::from(u8::from(response.success == Some(true)));
                        slow += f64::from(u8::from(response.latency_ms.is_some_and(|ms| ms > 3_000.0)));
                        tokens += response.output_tokens.unwrap_or(0.0);
                    }
                    Fact::Outcome(Outcome { signal: Signal::Satisfaction, value }) => {
                        ratings += 1.0;
                        stars += value;
                    }
                    Fact::Outcome(_) | Fact::Started => {}
                }
            }
        }
        let near = |value: f64, expected: f64, within: f64| {
            assert!((value - expected).abs() < within, "{value} {expected}")
        };
        near(requests / 40_000.0, 3.0, 0.05);
        near(successes / requests, 0.9, 0.005);
        near(slow / requests, 0.01, 0.001);
        near(tokens / requests, 300.0, 2.0);
        near(ratings / 40_000.0, 0.5, 0.01);
        near(stars / ratings, 4.2, 0.03);
    }
}
