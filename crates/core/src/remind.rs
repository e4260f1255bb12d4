//! Holds that last: somebody should know that a rollout has stood still all night.

use serde_json::json;

use crate::audit::Action;
use crate::ids::Actor;
use crate::pack::{Draft, PackState, Transition};
use crate::rollout::HoldCause;
use crate::units::{HoldFor, Timestamp};

/// Notes the holds that have lasted for at least `after`, each once; nothing where there is none.
pub fn remind(pack: &PackState, after: HoldFor, now: Timestamp) -> Option<Transition> {
    let (_, active) = pack.active()?;
    let now = active.last_at.max(now);
    let lasting: Vec<HoldCause> = active
        .holds
        .iter()
        // A freeze says when it ends.
        .filter(|(cause, hold)| {
            **cause != HoldCause::Frozen && !hold.reminded && HoldFor::between(hold.since, now) >= after
        })
        .map(|(cause, _)| *cause)
        .collect();
    if lasting.is_empty() {
        return None;
    }
    let actor = Actor::serin();
    let mut draft = Draft::of(pack, now);
    for cause in lasting {
        let Some(hold) = draft.active().holds.get_mut(&cause) else { continue };
        hold.reminded = true;
        let (since, reason) = (hold.since, hold.reason.clone());
        let lasts_ms = HoldFor::between(since, now).millis();
        let evidence =
            json!({"cause": cause, "since": since, "lasts_ms": lasts_ms, "cleared_by": cause.cleared_by()});
        draft.fact(&actor, Action::HoldLasts, &reason, evidence);
    }
    Some(draft.finish())
}
