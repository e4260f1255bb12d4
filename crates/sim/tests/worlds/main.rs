//! Whole rollouts on virtual time, each rule and each story in one test.

mod field_bugs;
mod holds;
mod lifecycle;
mod numbers;
mod stories;
mod support;
