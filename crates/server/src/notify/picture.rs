//! What on-call needs to know at the moment of a message: what is in canary, since when, and who can help.

use jiff::Timestamp;
use serin_core::ids::{PackName, RolloutId};
use serin_core::parse::parse;
use serin_core::plan::People;
use serin_core::rollout::{Active, Hold, HoldCause, Rollout};
use serin_core::units::HoldFor;
use serin_core::weight::Weight;

use super::event::Event;
use crate::control::Control;
use crate::store::StoreError;

/// What is known at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The rollout that an event concerns, as it stands now.
    pub rollout: Option<Rollout>,
    /// Who owns the pack, and who is told when it needs somebody.
    pub people: People,
    /// Every rollout under way, by pack.
    pub canaries: Vec<Canary>,
    /// When this was read.
    pub as_of: Timestamp,
}

/// A rollout under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Canary {
    /// The pack.
    pub pack: PackName,
    /// The rollout.
    pub id: RolloutId,
    /// The version that is tried.
    pub version: String,
    /// Its set share of new sessions.
    pub weight: Weight,
    /// When the rollout started.
    pub since: Timestamp,
    /// Who started it.
    pub by: String,
    /// What keeps it from advancing.
    pub holds: Vec<(HoldCause, Hold)>,
}

impl Picture {
    /// Reads what is known at this moment.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn read(control: &Control, event: &Event, now: Timestamp) -> Result<Self, StoreError> {
        let stored = match event.rollout.as_deref().and_then(|id| RolloutId::parse(id).ok()) {
            Some(id) => control.store().rollout(&id).await?,
            None => None,
        };
        let plan = stored.as_ref().and_then(|stored| parse(&stored.manifest).ok()).map(|parsed| parsed.plan);
        let mut canaries = Vec::new();
        for pack in control.names().await {
            let Some((state, _, _)) = control.standing(&pack).await else { continue };
            let Some((rollout, active)) = state.active() else { continue };
            canaries.push(Canary::of(&pack, rollout, active));
        }
        Ok(Self {
            rollout: stored.map(|stored| stored.rollout),
            people: plan.map(|plan| plan.people).unwrap_or_default(),
            canaries,
            as_of: now,
        })
    }

    /// The rollout of an event, if it is under way.
    pub fn canary_of(&self, event: &Event) -> Option<&Canary> {
        let id = event.rollout.as_deref()?;
        self.canaries.iter().find(|canary| canary.id.as_str() == id)
    }
}

impl Canary {
    /// A rollout under way as it stands.
    pub fn of(pack: &PackName, rollout: &Rollout, active: &Active) -> Self {
        Self {
            pack: pack.clone(),
            id: rollout.id.clone(),
            version: rollout.canary.to_string(),
            weight: rollout.weight(),
            since: rollout.started_at,
            by: rollout.started_by.to_string(),
            holds: active.holds.iter().map(|(cause, hold)| (*cause, hold.clone())).collect(),
        }
    }

    /// One line for people: `support 2.0.0 at 20% for 3h (since 2026-11-02 09:00 UTC, by ana), on hold: degraded`.
    pub fn line(&self, now: Timestamp) -> String {
        let causes: Vec<String> = self.holds.iter().map(|(cause, _)| cause.to_string()).collect();
        let hold =
            if causes.is_empty() { String::new() } else { format!(", on hold: {}", causes.join(", ")) };
        format!(
            "{} {} at {}% for {} (since {}, by {}){hold}",
            self.pack,
            self.version,
            self.weight.percent(),
            minutes(HoldFor::between(self.since, now)),
            when(self.since),
            self.by,
        )
    }
}

/// A point in time for people, to the minute.
pub fn when(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// A length of time for people, to the minute once it has minutes.
pub fn minutes(length: HoldFor) -> HoldFor {
    let unit = if length < HoldFor::from_mins(1) { 1_000 } else { 60_000 };
    HoldFor::from_millis(length.millis() / unit * unit)
}
