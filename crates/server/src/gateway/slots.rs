//! How many requests may be under way at one provider, and how many wait for their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// The places of one provider.
///
/// **Invariant:** at most `most` requests hold a place, and at most `most_waiting` wait for one.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    most: usize,
    waiting: AtomicUsize,
    most_waiting: usize,
    longest_wait: Duration,
    waited: AtomicU64,
    refused: AtomicU64,
}

/// A request's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Slot(#[expect(dead_code, reason = "it is held, not read")] OwnedSemaphorePermit);

/// All places are taken, and nobody left one in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// One of those who wait; no more when it is dropped, however the wait ends.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slots {
    /// Places for `most` requests, for which `most_waiting` more wait for `longest_wait` at most.
    pub(super) fn new(most: usize, most_waiting: usize, longest_wait: Duration) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            most,
            waiting: AtomicUsize::new(0),
            most_waiting,
            longest_wait,
            waited: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Takes a place, and waits for one when there is none.
    ///
    /// # Errors
    /// [`Full`] when too many wait already, or the wait takes too long.
    pub(super) async fn take(&self) -> Result<Slot, Full> {
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => return Ok(Slot(permit)),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {}
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.most_waiting {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Full);
        }
        self.waited.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(self.longest_wait, Arc::clone(&self.free).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Slot(permit)),
            Ok(Err(_)) | Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(Full)
            }
        }
    }

    /// The number of places.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// The number of requests under way.
    pub(super) fn taken(&self) -> usize {
        self.most - self.free.available_permits().min(self.most)
    }

    /// The number of requests that wait for a place.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The number of requests that had to wait.
    pub(super) fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// The number of requests that got no place.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn so_many_have_a_place_so_many_wait_and_the_rest_is_refused() {
        let slots = Slots::new(1, 1, Duration::from_secs(10));
        let first = slots.take().await.unwrap();
        let second = async { slots.take().await.map(drop) };
        let third = async { slots.take().await.map(drop) };
        let leaving = async {
            tokio::task::yield_now().await;
            assert_eq!((slots.taken(), slots.waiting()), (1, 1));
            drop(first);
        };
        assert_eq!(tokio::join!(second, third, leaving), (Ok(()), Err(Full), ()));
        assert_eq!((slots.taken(), slots.waiting(), slots.waited(), slots.refused()), (0, 0, 1, 1));
    }

    #[tokio::test]
    async fn nobody_waits_for_longer_than_the_longest_wait_and_who_leaves_waits_no_more() {
        let slots = Slots::new(1, 1, Duration::from_millis(40));
        let _first = slots.take().await.unwrap();
        assert_eq!(slots.take().await.map(drop), Err(Full));
        let short = tokio::time::timeout(Duration::from_millis(1), slots.take()).await;
        assert!(short.is_err(), "the client left");
        assert_eq!((slots.waiting(), slots.waited(), slots.refused()), (0, 2, 1));
    }
}
