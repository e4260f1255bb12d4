//! Whole rollouts on virtual time, each rule and each story in one test.

mod evidence;
mod field_bugs;
mod holds;
mod lifecycle;
mod numbers;
mod patterns;
mod progress;
mod reference;
mod stories;
mod support;
