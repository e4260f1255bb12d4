//! Samples that went before a judge could read them, counted by rollout.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serin_core::ids::RolloutId;

/// Rollouts that are told apart; those that came first are forgotten first.
const MOST_ROLLOUTS: usize = 256;

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Early(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    total: u64,
    of_rollouts: VecDeque<(RolloutId, u64)>,
}

impl Early {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, early: BTreeMap<RolloutId, u64>) {
        if early.is_empty() {
            return;
        }
        let mut counted = self.counted();
        for (rollout, count) in early {
            counted.total += count;
            match counted.of_rollouts.iter_mut().find(|(known, _)| *known == rollout) {
                Some((_, known)) => *known += count,
                None => {
                    if counted.of_rollouts.len() == MOST_ROLLOUTS {
                        counted.of_rollouts.pop_front();
                    }
                    counted.of_rollouts.push_back((rollout, count));
                }
            }
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.counted().total
    }

    pub(super) fn of(&self, rollout: &RolloutId) -> u64 {
        self.counted().of_rollouts.iter().find(|(known, _)| known == rollout).map_or(0, |(_, count)| *count)
    }
}
