//! The way of samples to the store: redacted first, many at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::{SampleCounts, SampleSettings, Told};
use crate::errors::Chain;
use crate::store::{Store, StoreError};

/// Drafts that are taken at a time.
const BATCH: usize = 32;

pub(super) struct Writer {
    pub(super) settings: SampleSettings,
    pub(super) store: Store,
    pub(super) counts: Arc<SampleCounts>,
}

impl Writer {
    /// Writes what it is told, until nobody is left to tell anything.
    pub(super) async fn run(self, mut told: mpsc::Receiver<Told>) {
        // A shorter expiry also holds for what is there already.
        if let Err(error) = self.store.shorten_samples(self.settings.expiry).await {
            tracing::warn!(error = %Chain(&error), "could not shorten the expiry of the samples that are stored");
        }
        let mut batch = Vec::with_capacity(BATCH);
        while told.recv_many(&mut batch, BATCH).await > 0 {
            let (mut drafts, mut waiting) = (Vec::new(), Vec::new());
            for told in batch.drain(..) {
                match told {
                    Told::Draft(draft) => drafts.push(*draft),
                    Told::Settle(answer) => waiting.push(answer),
                }
            }
            let count = drafts.len();
            if count > 0
                && let Err(error) = self.write(drafts).await
            {
                add(&self.counts.dropped, count);
                tracing::warn!(error = %Chain(&error), "{count} samples are lost: they could not be stored");
            }
            for answer in waiting {
                // Whoever has gone away needs no answer.
                let _ = answer.send(());
            }
        }
    }

    async fn write(&self, drafts: Vec<super::Draft>) -> Result<(), StoreError> {
        let (redactor, max_bytes) = (self.settings.redactor.clone(), self.settings.max_bytes);
        // Searching a large text takes milliseconds, in which no request shall wait.
        let redacting = tokio::task::spawn_blocking(move || {
            drafts.into_iter().map(|draft| draft.redacted(&redactor, max_bytes)).collect::<Vec<_>>()
        });
        let samples = match redacting.await {
            Ok(samples) => samples,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let saved = self.store.save_samples(&samples, self.settings.expiry, self.settings.limit).await?;
        let redactions = samples.iter().map(|sample| u64::from(sample.said.redactions)).sum();
        self.counts.redactions.fetch_add(redactions, Ordering::Relaxed);
        self.counts.stored.fetch_add(saved.stored, Ordering::Relaxed);
        self.counts.displaced.fetch_add(saved.displaced, Ordering::Relaxed);
        self.counts.early.add(saved.early);
        Ok(())
    }
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
}
