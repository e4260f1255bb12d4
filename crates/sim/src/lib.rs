//! Seeded traffic worlds on virtual time around `serin-core`.
//!
//! There is no clock: a rollout of 45 minutes takes milliseconds, and the same seed gives the same rollout. All
//! decisions are made by the functions that a server calls.

mod book;
mod controller;
mod crowd;
mod dense;
mod dice;
mod report;
mod rollouts;
mod scenario;
mod truth;
mod world;

pub use controller::{Applied, ApplyError, Controller};
pub use dice::Habits;
pub use report::{Onset, Proportion, Report, Spread};
pub use rollouts::{Batch, Progress, simulate, simulate_batch};
pub use scenario::{InvalidScenario, Scenario, ScenarioChange, Traffic, Whom};
pub use truth::{Change, Timeline, Truth};
pub use world::{Served, World};
