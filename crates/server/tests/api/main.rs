//! The whole server over HTTP: real listeners, a real store, a manual clock, a stand-in provider.

mod alerts;
mod app;
mod bodiless;
mod data_plane;
mod documents;
mod explain;
mod grafana;
mod guards;
mod in_flight;
mod judge;
mod lifecycle;
mod link;
mod matrix;
mod missing;
mod notify;
mod ofrep;
mod otlp;
mod policy;
mod problems;
mod prometheus;
mod properties;
mod publishing;
mod receiver;
mod samples;
mod starts;
