//! What a rollout can show at the traffic that is there.
//!
//! Said before a rollout starts (`serin plan`) and while it runs (`serin status`): when each step starts, how many
//! canary sessions it collects, whether they are enough, and how large a harm has to be for each gate to see it. All
//! numbers are expectations at a steady rate; nothing here decides anything.

mod propose;
mod reading;
mod sight;
mod timetable;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::analysis::DEFAULT_MIN_SAMPLES;
use crate::evidence::{
    BASELINE_SESSIONS, Baseline, JudgeRule, LEAST_BASELINE_SESSIONS, MOST_REQUESTS, fold_ages, measures,
};
use crate::metric::Kind;
use crate::plan::{Decision, Gate, GateRule, Plan, StepPhase, StepWeight, Strategy};
use crate::units::{HoldFor, Timestamp};
use crate::weight::Weight;

use reading::Reading;

pub use propose::{ProposedStep, propose};
pub use sight::{GateForecast, Sees, Sight};
pub use timetable::{TimetableEntry, timetable};
pub use words::{notes, sentences};

/// Canary sessions in a whole rollout below which only a collapse is seen: a 10 % gate then needs 16 % failures.
pub const FEW_SESSIONS: u64 = 500;

/// The latency cap that is assumed as long as stable's own is not frozen.
pub const ASSUMED_LATENCY_CAP: HoldFor = HoldFor::from_secs(10);

/// Nothing is planned for longer than this.
const NEVER_SECS: f64 = 3_650.0 * 86_400.0;

/// New sessions of a pack, of both variants together, at a steady rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    sessions_per_second: f64,
    requests_per_session: f64,
    segment_shares: Option<Vec<f64>>,
}

/// Why numbers are no traffic.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidTraffic {
    /// The rate is zero, negative, not a number or beyond a million a second.
    #[error(
        "a rate of {0} sessions per second cannot be planned for; it must lie above 0 and below a million"
    )]
    Rate(f64),
    /// Sessions have less than one request, or too many.
    #[error("a session cannot have {0} requests on average; it must have 1 to 10000")]
    Requests(f64),
    /// A share is negative or not a number, or the shares do not add up to 1.
    #[error("the shares of the segments must be 0 or more and add up to 100 %, but add up to {0} %")]
    Shares(f64),
}

impl Traffic {
    /// So many new sessions per second, each of one request.
    ///
    /// # Errors
    /// [`InvalidTraffic::Rate`] unless it lies above 0 and below a million.
    pub fn per_second(sessions: f64) -> Result<Self, InvalidTraffic> {
        if !(sessions > 0.0 && sessions < 1e6) {
            return Err(InvalidTraffic::Rate(sessions));
        }
        Ok(Self { sessions_per_second: sessions, requests_per_session: 1.0, segment_shares: None })
    }

    /// So many new sessions per day, each of one request.
    ///
    /// # Errors
    /// As [`Self::per_second`].
    pub fn per_day(sessions: f64) -> Result<Self, InvalidTraffic> {
        Self::per_second(sessions / 86_400.0)
    }

    /// The same sessions with so many requests each, on average: 1 to 10 000.
    ///
    /// # Errors
    /// [`InvalidTraffic::Requests`] outside of that range.
    pub fn with_requests(self, per_session: f64) -> Result<Self, InvalidTraffic> {
        if !(1.0..=10_000.0).contains(&per_session) {
            return Err(InvalidTraffic::Requests(per_session));
        }
        Ok(Self { requests_per_session: per_session, ..self })
    }

    /// The same sessions spread over the segments of a plan, in their order; shares that add up to 1.
    ///
    /// # Errors
    /// [`InvalidTraffic::Shares`] when they do not.
    pub fn with_segment_shares(self, shares: Vec<f64>) -> Result<Self, InvalidTraffic> {
        let sum: f64 = shares.iter().sum();
        if shares.iter().any(|share| share.is_nan() || *share < 0.0) || (sum - 1.0).abs() > 1e-6 {
            return Err(InvalidTraffic::Shares(100.0 * sum));
        }
        Ok(Self { segment_shares: Some(shares), ..self })
    }

    /// New sessions per second.
    pub fn sessions_per_second(&self) -> f64 {
        self.sessions_per_second
    }

    /// New sessions per second of each of `n` segments; equal where nothing is known.
    fn by_segment(&self, n: usize) -> Vec<f64> {
        match &self.segment_shares {
            Some(shares) if shares.len() == n => {
                shares.iter().map(|share| share * self.sessions_per_second).collect()
            }
            Some(_) | None => vec![self.sessions_per_second / n.max(1) as f64; n],
        }
    }
}

/// What a rollout of a plan looks like at some traffic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// New sessions per second.
    pub sessions_per_second: f64,
    /// Mean requests of a session.
    pub requests_per_session: f64,
    /// Whether only a collapse can be seen, or the steps have to wait for most of the time.
    pub is_low: bool,
    /// Whether the whole rollout collects fewer than [`FEW_SESSIONS`] canary sessions.
    pub sees_only_collapse: bool,
    /// The length by the clock: the sum of all holds.
    pub planned_length: HoldFor,
    /// The length with the time that steps wait for their sessions; absent when it would never end.
    pub expected_length: Option<HoldFor>,
    /// The length after which the rollout holds for a person.
    pub deadline: HoldFor,
    /// 1 - the chance of ever rolling back a canary that is within its gates.
    pub confidence: f64,
    /// Every step.
    pub steps: Vec<StepForecast>,
    /// Every gate.
    pub gates: Vec<GateForecast>,
    /// What is taken for granted, in words.
    pub assumptions: Vec<String>,
}

/// One step at some traffic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepForecast {
    /// Its index, from 0.
    pub index: u16,
    /// Where it stands in the life of a rollout.
    pub phase: StepPhase,
    /// What sets the weight, such as `10%` or `02:00-06:00 UTC 50%, else 10%`.
    pub shown: String,
    /// Share of all new sessions that get the canary, over all segments and windows, in percent.
    pub canary_percent: f64,
    /// Whether a person must approve before the next step.
    pub approval: bool,
    /// When it starts by the clock, after the start of the rollout.
    pub planned_start: HoldFor,
    /// How long it lasts at least.
    pub hold: HoldFor,
    /// When it starts at this traffic; absent when it is never reached.
    pub expected_start: Option<HoldFor>,
    /// How long it lasts at this traffic; absent when it never ends.
    pub expected_hold: Option<HoldFor>,
    /// New canary sessions while it lasts.
    pub canary_sessions: u64,
    /// New stable sessions while it lasts.
    pub stable_sessions: u64,
    /// Canary sessions of this step that are matured when its hold has passed.
    pub matured_in_hold: u64,
    /// Canary sessions that are matured by its end, since the rollout began.
    pub matured_in_all: u64,
    /// Matured canary sessions that it needs.
    pub needed: u64,
    /// Whether it gets them in its hold.
    pub fits: bool,
    /// What it waits for after its hold, in words.
    pub waits_for: Option<String>,
}

impl Forecast {
    /// Forecasts a rollout; `baseline` makes maturity and comparisons exact where it is known.
    pub fn new(plan: &Plan, traffic: &Traffic, baseline: Option<&Baseline>) -> Self {
        let walk = Walk::through(plan, traffic, baseline);
        let mut forecast = walk.forecast(plan, traffic, baseline.is_none());
        forecast.gates = sight::gates(plan, traffic, &walk, baseline);
        forecast
    }

    /// A forecast for traffic that is low; nothing, and no effort, for any other.
    fn new_if_low(plan: &Plan, traffic: &Traffic, baseline: Option<&Baseline>) -> Option<Self> {
        let walk = Walk::through(plan, traffic, baseline);
        let mut forecast = walk.forecast(plan, traffic, baseline.is_none());
        if !forecast.is_low {
            return None;
        }
        forecast.gates = sight::gates(plan, traffic, &walk, baseline);
        Some(forecast)
    }

    /// Whether every step gets its sessions in its hold.
    pub fn fits(&self) -> bool {
        self.steps.iter().all(|step| step.fits)
    }

    /// Matured canary sessions in the whole rollout.
    pub fn canary_sessions(&self) -> u64 {
        self.steps.iter().map(|step| step.matured_in_all).max().unwrap_or(0)
    }
}

/// Sessions that arrive while one step lasts.
#[derive(Debug, Clone, PartialEq)]
struct Flow {
    /// Seconds after the start of the rollout.
    start: f64,
    /// Seconds; infinite when the step never ends.
    length: f64,
    /// New sessions per second at each weight.
    by_weight: BTreeMap<Weight, f64>,
    is_observing: bool,
}

impl Flow {
    /// New canary sessions per second.
    fn canary(&self) -> f64 {
        self.by_weight.iter().map(|(weight, rate)| weight.share() * rate).sum()
    }

    fn all(&self) -> f64 {
        self.by_weight.values().sum()
    }

    /// Whether anybody of it can get the canary, be there traffic or not.
    fn has_canary(&self) -> bool {
        self.by_weight.keys().any(|weight| *weight > Weight::ZERO)
    }

    /// Whether there is a concurrent control.
    fn is_split(&self) -> bool {
        self.by_weight.iter().any(|(weight, rate)| is_split(*weight) && *rate > 0.0)
    }

    /// Seconds of this step whose sessions are at least `age` old at the time `now`, both in seconds.
    fn matured_secs(&self, now: f64, age: f64) -> f64 {
        (now - age - self.start).clamp(0.0, self.length)
    }
}

/// Whether a weight leaves sessions to both variants.
fn is_split(weight: Weight) -> bool {
    weight > Weight::ZERO && weight < Weight::FULL
}

/// What a check asks of the sessions before it passes.
#[derive(Debug, Clone, PartialEq)]
struct Need {
    /// Who asks.
    what: String,
    /// Matured canary sessions.
    sessions: u64,
    /// The age at which they are matured, in seconds.
    age: f64,
    of: NeedOf,
    /// Who reads only some of them.
    judged: Option<Reading>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NeedOf {
    /// Of the step.
    Step,
    /// Of the step, where there is a concurrent control.
    ComparedStep,
    /// Since the rollout began.
    All,
}

/// A walk through the steps of a plan at some traffic.
#[derive(Debug, Clone, PartialEq)]
struct Walk {
    needs: Vec<Need>,
    /// The age at which a session counts for its step, in seconds.
    first_age: f64,
    /// Seconds between two checks.
    interval: f64,
    flows: Vec<Flow>,
    /// What each step waits for after its hold.
    waits: Vec<Option<String>>,
}

impl Walk {
    fn through(plan: &Plan, traffic: &Traffic, baseline: Option<&Baseline>) -> Self {
        let mut walk = Self::start(plan, traffic, baseline);
        for index in 0..plan.steps.len() {
            walk.enter(plan, traffic, index);
        }
        walk
    }

    /// Before the first step.
    fn start(plan: &Plan, traffic: &Traffic, baseline: Option<&Baseline>) -> Self {
        let constants = baseline.cloned().unwrap_or_else(|| assumed_baseline(traffic));
        let measures = measures(plan, &constants);
        let first_age = fold_ages(&measures).first().map_or(0.0, |age| age.secs_f64());
        let age_of = |gate: &Gate| {
            let is_limit = matches!(gate.rule, GateRule::Threshold { .. });
            let found = measures.iter().find(|measure| {
                let judged = match measure.judge {
                    JudgeRule::Limit { .. } => is_limit,
                    JudgeRule::Stable => !is_limit,
                };
                judged && measure.metric.name == gate.metric.name
            });
            found.map_or(first_age, |measure| measure.maturity.read_at.secs_f64())
        };
        let gates = &plan.analysis.gates;
        let of_step = gates.iter().map(|gate| gate.min_samples).max().unwrap_or(DEFAULT_MIN_SAMPLES);
        let need = |what: String, sessions, age, of| Need { what, sessions, age, of, judged: None };
        let mut needs = vec![need("the step".to_owned(), of_step, first_age, NeedOf::Step)];
        for gate in gates.iter().filter(|gate| gate.decision == Decision::Evidence) {
            let (name, age) = (gate.metric.name.to_string(), age_of(gate));
            let of = match gate.rule {
                GateRule::Threshold { .. } => NeedOf::Step,
                GateRule::NotWorseThanStable { .. } => NeedOf::ComparedStep,
            };
            let judged = Reading::of(plan, gate, traffic);
            needs.push(Need { judged, ..need(name.clone(), gate.min_samples, age, of) });
            if let (Kind::Quantile(q), GateRule::Threshold { .. }) = (gate.metric.kind, gate.rule) {
                needs.push(need(name, sessions_for_quantile(q), age, NeedOf::All));
            }
        }
        let interval = plan.analysis.interval.secs_f64();
        Self { needs, first_age, interval, flows: Vec::new(), waits: Vec::new() }
    }

    /// Walks through one more step.
    fn enter(&mut self, plan: &Plan, traffic: &Traffic, index: usize) {
        let step = &plan.steps[index];
        let mut flow = self.next_flow(plan, traffic, index);
        let hold = step.hold.secs_f64();
        let (what, needed) = if flow.is_observing {
            ("a baseline".to_owned(), baseline_secs(&flow, traffic))
        } else {
            self.slowest_need(&flow)
        };
        let waits = needed > hold;
        let length = if waits { up_to(needed, self.interval) } else { hold };
        flow.length = if length > NEVER_SECS { f64::INFINITY } else { length };
        self.flows.push(flow);
        self.waits.push(waits.then_some(what));
    }

    /// The sessions that arrive in the next step, whose length is still open.
    fn next_flow(&self, plan: &Plan, traffic: &Traffic, index: usize) -> Flow {
        let start = self.flows.last().map_or(0.0, |flow| flow.start + flow.length);
        let is_observing = plan.steps[index].phase == StepPhase::Observing;
        Flow { start, length: f64::INFINITY, by_weight: by_weight(plan, traffic, index), is_observing }
    }

    /// What takes longest before the step may end, and how many seconds that is.
    fn slowest_need(&self, flow: &Flow) -> (String, f64) {
        let mut slowest = (String::new(), 0.0);
        for need in &self.needs {
            let secs = self.secs_for(need, flow);
            if secs > slowest.1 {
                let span = match need.of {
                    NeedOf::Step | NeedOf::ComparedStep => "in the step",
                    NeedOf::All => "since the start",
                };
                let Need { what, sessions, .. } = need;
                let what = match need.judged {
                    None => format!("{what} needs {sessions} canary sessions {span}"),
                    Some(reading) => {
                        format!("{what} needs {sessions} judged canary sessions {span} ({reading})")
                    }
                };
                slowest = (what, secs);
            }
        }
        slowest
    }

    /// Seconds from the start of a step until a need is met; infinite when it never is.
    fn secs_for(&self, need: &Need, flow: &Flow) -> f64 {
        let sessions = need.sessions as f64 / need.judged.map_or(1.0, |reading| reading.share);
        match need.of {
            NeedOf::Step | NeedOf::ComparedStep | NeedOf::All if !flow.has_canary() => 0.0,
            NeedOf::ComparedStep if !flow.is_split() => 0.0,
            NeedOf::Step | NeedOf::ComparedStep => sessions / flow.canary() + need.age,
            NeedOf::All => {
                // The moment at which the last of them is assigned, in an earlier step or in this one.
                let mut missing = sessions;
                for earlier in &self.flows {
                    let here = earlier.canary() * earlier.length;
                    if here >= missing {
                        let assigned = earlier.start + missing / earlier.canary();
                        return (assigned + need.age - flow.start).max(0.0);
                    }
                    missing -= here;
                }
                missing / flow.canary() + need.age
            }
        }
    }

    /// Seconds after the start at which a step ends.
    fn end_of(&self, index: usize) -> f64 {
        self.flows[index].start + self.flows[index].length
    }

    /// Canary sessions since the start that are matured when a step ends.
    fn matured_by_end(&self, index: usize, age: f64) -> f64 {
        let now = self.end_of(index);
        if now.is_infinite() {
            return 0.0;
        }
        self.flows[..=index].iter().map(|flow| flow.canary() * flow.matured_secs(now, age)).sum()
    }

    fn forecast(&self, plan: &Plan, traffic: &Traffic, baseline_is_assumed: bool) -> Forecast {
        let mut steps = Vec::with_capacity(plan.steps.len());
        let mut planned_start = HoldFor::ZERO;
        for (index, step) in plan.steps.iter().enumerate() {
            let flow = &self.flows[index];
            let lasts = if flow.length.is_finite() { flow.length } else { 0.0 };
            let in_hold = flow.canary() * (step.hold.secs_f64() - self.first_age).max(0.0);
            steps.push(StepForecast {
                index: u16::try_from(index).unwrap_or(u16::MAX),
                phase: step.phase,
                shown: plan.shown_weight(&step.weight),
                canary_percent: 100.0 * flow.canary() / flow.all().max(f64::MIN_POSITIVE),
                approval: step.approval,
                planned_start,
                hold: step.hold,
                expected_start: hold_for(flow.start),
                expected_hold: hold_for(flow.length).filter(|_| flow.start.is_finite()),
                canary_sessions: whole(flow.canary() * lasts),
                stable_sessions: whole((flow.all() - flow.canary()) * lasts),
                matured_in_hold: whole(in_hold),
                matured_in_all: whole(self.matured_by_end(index, self.first_age)),
                needed: if flow.is_observing { 0 } else { self.needs[0].sessions },
                fits: self.waits[index].is_none(),
                waits_for: self.waits[index].clone(),
            });
            planned_start = planned_start.plus(step.hold);
        }
        let mut forecast = Forecast {
            sessions_per_second: traffic.sessions_per_second,
            requests_per_session: traffic.requests_per_session,
            is_low: false,
            sees_only_collapse: false,
            planned_length: planned_start,
            expected_length: match self.flows.len() {
                0 => Some(HoldFor::ZERO),
                n => hold_for(self.end_of(n - 1)),
            },
            deadline: plan.progress.deadline,
            confidence: plan.analysis.confidence,
            steps,
            gates: Vec::new(),
            assumptions: self.assumptions(plan, traffic, baseline_is_assumed),
        };
        let waits = forecast.expected_length.is_none_or(|expected| expected > planned_start.times(2));
        let is_canary = plan.strategy == Strategy::Canary;
        forecast.sees_only_collapse = is_canary && forecast.canary_sessions() < FEW_SESSIONS;
        forecast.is_low = is_canary && (waits || forecast.sees_only_collapse);
        forecast
    }

    fn assumptions(&self, plan: &Plan, traffic: &Traffic, baseline_is_assumed: bool) -> Vec<String> {
        let mut taken = vec!["sessions arrive at a steady rate, day and night".to_owned()];
        if baseline_is_assumed {
            taken.push(format!(
                "answers take at most {ASSUMED_LATENCY_CAP}, so that a session counts {} after it began",
                hold_for(self.first_age).unwrap_or_default()
            ));
        }
        if plan.segments.len() > 1 && traffic.segment_shares.is_none() {
            taken.push(format!(
                "each of the {} segments brings the same number of sessions",
                plan.segments.len()
            ));
        }
        if plan.schedule.is_some() {
            taken.push(
                "windows count with their share of the day, and the wait for a best one is left out"
                    .to_owned(),
            );
        }
        if plan.analysis.gates.iter().any(|gate| gate.metric.is_voluntary()) {
            taken.push(
                "every session has a rating; with one in ten, the gate needs ten times as long".to_owned(),
            );
        }
        if self.needs.iter().any(|need| need.judged.is_some()) {
            taken.push("every session that a judge reads gets a verdict".to_owned());
        }
        if traffic.requests_per_session > 1.0 {
            taken.push(
                "requests of a session fail together; if each fails on its own, a little less is enough"
                    .to_owned(),
            );
        }
        taken
    }
}

/// New sessions per second at each weight of a step; windows with their share of the day.
fn by_weight(plan: &Plan, traffic: &Traffic, index: usize) -> BTreeMap<Weight, f64> {
    const MINUTES: u64 = 24 * 60;
    let rates = traffic.by_segment(plan.segments.len());
    let looks = match plan.steps[index].weight {
        StepWeight::Windows => MINUTES,
        StepWeight::Ramp(_) | StepWeight::Stage(_) | StepWeight::RampInBestWindow(_) => 1,
    };
    let mut by_weight = BTreeMap::new();
    for minute in 0..looks {
        let weights = plan.weights(index, HoldFor::from_mins(minute).after(Timestamp::UNIX_EPOCH));
        for (weight, rate) in weights.into_iter().zip(&rates) {
            *by_weight.entry(weight).or_insert(0.0) += rate / looks as f64;
        }
    }
    by_weight
}

/// Seconds until Observing has a baseline: stable's last day, or what it collects itself.
fn baseline_secs(flow: &Flow, traffic: &Traffic) -> f64 {
    let of_last_day = traffic.sessions_per_second * 86_400.0;
    if of_last_day >= BASELINE_SESSIONS as f64 {
        return 0.0;
    }
    let missing = (LEAST_BASELINE_SESSIONS as f64 - of_last_day).max(0.0);
    if missing > 0.0 { missing / (flow.all() - flow.canary()) } else { 0.0 }
}

/// Constants that stand for stable's as long as these are not frozen.
fn assumed_baseline(traffic: &Traffic) -> Baseline {
    let requests = traffic.requests_per_session.min(f64::from(MOST_REQUESTS));
    Baseline {
        frozen_at: Timestamp::UNIX_EPOCH,
        sessions: 0,
        request_cap: MOST_REQUESTS,
        requests_mean: requests,
        latency_cap_ms: ASSUMED_LATENCY_CAP.secs_f64() * 1_000.0,
        metrics: BTreeMap::new(),
    }
}

/// Sessions that a quantile gate needs since the start: 1/(1-q).
fn sessions_for_quantile(q: f64) -> u64 {
    (1.0 / (1.0 - q)).round() as u64
}

/// The next multiple of `unit` at or above a number of seconds.
fn up_to(secs: f64, unit: f64) -> f64 {
    // A sum of decimals that should be a multiple may lie a hair above it.
    ((secs - 1e-6) / unit).ceil() * unit
}

fn hold_for(secs: f64) -> Option<HoldFor> {
    (secs.is_finite() && secs <= NEVER_SECS).then(|| HoldFor::from_secs(secs.round() as u64))
}

/// Whole sessions; a hair below a whole number counts as that number.
fn whole(sessions: f64) -> u64 {
    (sessions + 1e-6).floor() as u64
}
