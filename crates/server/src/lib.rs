//! Acts: gateway, control loop, store and API around the decisions of `serin_core`.

pub mod alerts;
pub mod api;
pub mod auth;
pub mod clock;
pub mod control;
pub mod dashboard;
pub mod errors;
pub mod gateway;
pub mod ingest;
pub mod judge;
mod lock;
pub mod notify;
pub mod oidc;
pub mod otlp;
pub mod pins;
mod recent;
pub mod resolve;
pub mod samples;
pub mod segments;
pub mod server;
pub mod settings;
pub mod signal;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod tool_schema;
pub mod trust;
