//! Tells people what happened: at least once, in order, from the audit log.
//!
//! Each receiver has a cursor in the store: the last entry of the audit log that it is done with. An entry is
//! done with when the receiver has taken it, does not want it, or has refused it for so long that it went to
//! the dead letters. A receiver that cannot be reached is tried again after a growing wait; what comes later
//! waits behind, so that nobody reads of an end before the beginning. Whatever an attempt sends again carries
//! the same id.
//!
//! **Invariant:** telling people is never in the way of deciding: nothing here holds a pack or a transaction
//! while it waits for a receiver.

pub mod alertmanager;
pub mod backoff;
pub mod client;
mod deliver;
pub mod event;
pub mod link;
pub mod message;
pub mod pagerduty;
pub mod picture;
pub mod receiver;
pub mod slack;
pub mod webhook;

pub use self::deliver::{Notifier, NotifyError, Retried, Standing};
