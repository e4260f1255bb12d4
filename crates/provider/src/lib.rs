//! A stand-in LLM provider that speaks the real protocols.
//!
//! It answers as a provider does (streams, tool calls, refusals, rate limits, broken
//! connections), and what it answers is scripted per system prompt: a worse prompt really
//! gets worse answers. Tests, the demo and people without a provider key send their traffic
//! here.
//!
//! - [`Script`] says which behaviour answers which request;
//! - [`Provider`] listens on an address, [`StandIn`] is the same thing without a listener;
//! - one module per protocol turns an answer into bytes: `openai_chat` (Chat Completions),
//!   `openai_responses` (Responses) and `anthropic_messages` (Messages). The decision what to
//!   answer (`answer`) knows no protocol, and `wire` sends it, whole, spoilt or in pieces.
//!
//! # Headers that steer one request
//!
//! | request header | effect |
//! | --- | --- |
//! | `x-stand-in-key` | the request's dice are keyed by this text instead of by a counter |
//! | `x-stand-in-script` | a [`Behaviour`] as JSON that answers this request instead of the script |
//!
//! The same key under the same script gets the same answer, down to its id: give each turn of
//! a session a key of its own. Every answer of the model carries `x-stand-in-quality`, from 0 to 1.
//!
//! # Versions of HTTP
//!
//! A listener speaks HTTP/1.1 and HTTP/2, with TLS by what the client chooses of both and without by how the
//! client begins; [`Reach`] narrows that down.
//!
//! # Endpoints about itself
//!
//! `GET /stand-in/stats` shows [`Stats`] as JSON, `GET /stand-in/last` the last request as
//! `{method, path, headers, body}`. Neither counts as a request.

mod answer;
mod anthropic_messages;
mod body;
mod conversation;
mod draw;
mod error;
mod exchange;
mod openai_chat;
mod openai_responses;
mod openai_rest;
mod provider;
mod reach;
mod script;
mod stand_in;
mod values;
mod wire;

pub use provider::{Provider, StartError};
pub use reach::{Reach, Tls, TlsError, Versions};
pub use script::{Behaviour, Failure, Fault, Moment, Refusal, Rule, Script, ScriptError, ToolCall, When};
pub use stand_in::{RecordedRequest, StandIn, Stats};
pub use values::{FailureStatus, Fraction, Payload, Spread, ValueError};
