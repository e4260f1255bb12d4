//! Decides everything that Serin decides, and does nothing.
//!
//! No async, I/O, clock, randomness, environment or logging: points in time, ids and seeds are
//! arguments, and decisions are returned as data with their reasons.

pub mod access;
pub mod aggregate;
pub mod alert;
pub mod analysis;
pub mod audit;
pub mod command;
pub mod evidence;
pub mod explain;
pub mod fields;
pub mod forecast;
pub mod glob;
pub mod ids;
pub mod invariant;
pub mod judge;
pub mod lint;
pub mod manifest;
pub mod metric;
pub mod observation;
pub mod outside;
pub mod pack;
pub mod parse;
pub mod plan;
pub mod policy;
pub mod prompt;
pub mod publish;
pub mod redact;
pub mod remind;
pub mod replay;
pub mod retrospect;
pub mod rollout;
pub mod routing;
pub mod sample;
pub mod schedule;
pub mod segment;
pub mod stats;
pub mod tick;
pub mod units;
pub mod watch;
pub mod weight;
