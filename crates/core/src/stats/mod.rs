//! The evidence engine: numbers in, e-values and estimates out.
//!
//! An **e-value** is at most 1 on average when nothing is wrong and grows when something is. Whoever acts when it
//! reaches 1/alpha is wrong at most a fraction alpha of the time, however often they look (Ville 1939). All logs
//! are natural, a value is always *badness* in 0..=1, and the unit is the session.
//!
//! One file per test. Each turns counts into a [`process::Process`]; [`late_harm`] reads the process as one
//! e-value, [`merge`] joins the e-values of several gates under one error budget.
//!
//! **Invariant:** sums run in a fixed order, so equal counts give bit-equal results.

pub mod badness;
pub mod bound;
pub mod canary;
pub mod interval;
pub mod late_harm;
pub mod logspace;
pub mod maturity;
pub mod mean;
pub mod merge;
pub mod pairs;
pub mod power;
pub mod process;
pub mod quantile;
pub mod response_guard;
pub mod sample_ratio;
pub mod share;
