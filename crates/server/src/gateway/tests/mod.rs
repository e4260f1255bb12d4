//! The gateway in front of the stand-in provider, over real sockets.

mod chat;
mod continuations;
mod failures;
mod faults;
mod http2;
mod passing;
mod protocols;
mod providers;
mod streams;
mod tls;
mod world;

pub(super) use world::{next_response, resolved, resolver};
