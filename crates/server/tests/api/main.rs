//! The whole server over HTTP: real listeners, a real store, a manual clock, a stand-in provider.

mod app;
mod data_plane;
mod documents;
mod explain;
mod guards;
mod in_flight;
mod lifecycle;
mod link;
mod matrix;
mod notify;
mod ofrep;
mod otlp;
mod problems;
mod prometheus;
mod publishing;
mod receiver;
mod samples;
mod starts;
