//! Waiting for a rollout to end, and what the end means to a pipeline.

use std::time::{Duration, Instant};

use serin_core::ids::PackName;
use serin_server::api::types::{HoldCause, PackDetail, Phase, RolloutView};

use crate::api::Client;
use crate::told::{Exit, Told};

/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long a server may be away before waiting gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where waiting has got.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The pack as it stood last.
    pub(crate) pack: PackDetail,
    /// How it ended; nothing while there is something to wait for.
    pub(crate) exit: Option<Exit>,
}

/// What a pack's state means for a version that somebody waits for.
///
/// Without a version the current or latest rollout is meant.
pub(crate) fn judge(pack: &PackDetail, version: Option<&str>) -> Option<Exit> {
    let rollout =
        pack.rollout.as_ref().filter(|rollout| version.is_none_or(|version| rollout.canary == version));
    match rollout {
        Some(rollout) => match rollout.phase {
            Phase::Completed => Some(Exit::Done),
            Phase::RolledBack | Phase::Superseded => Some(Exit::RolledBack),
            Phase::Observing | Phase::Progressing | Phase::Completing => {
                needs_person(rollout).then_some(Exit::OnHold)
            }
        },
        None => match version {
            Some(version) if pack.stable != version => Some(Exit::RolledBack),
            Some(_) | None => Some(Exit::Done),
        },
    }
}

/// Whether a hold is in force that only a person clears.
fn needs_person(rollout: &RolloutView) -> bool {
    rollout.holds.iter().any(|hold| match hold.cause {
        HoldCause::Paused | HoldCause::ApprovalDue | HoldCause::Deadline | HoldCause::ForcedStable => true,
        HoldCause::AtRisk
        | HoldCause::NoData
        | HoldCause::Unproven
        | HoldCause::StableFails
        | HoldCause::Degraded
        | HoldCause::SampleRatio
        | HoldCause::ProviderUnreachable
        | HoldCause::NoBaseline
        | HoldCause::Unobserved
        | HoldCause::Alert
        | HoldCause::Frozen => false,
    })
}

/// Waits until a rollout is over, needs a person, or the time is up; shows each state to `watch`.
///
/// # Errors
/// [`Told`] when the server refuses, or is away for a minute.
pub(crate) async fn wait(
    client: &Client,
    pack: &PackName,
    version: Option<&str>,
    timeout: Option<Duration>,
    mut watch: impl FnMut(&PackDetail),
) -> Result<Seen, Told> {
    let started = Instant::now();
    let mut answered = Instant::now();
    loop {
        match client.pack(pack).await {
            Ok(detail) => {
                answered = Instant::now();
                watch(&detail);
                let on_hold = detail.rollout.as_ref().is_some_and(|rollout| !rollout.holds.is_empty());
                if let Some(exit) = judge(&detail, version) {
                    return Ok(Seen { pack: detail, exit: Some(exit) });
                }
                if timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
                    let exit = if on_hold { Exit::OnHold } else { Exit::TimedOut };
                    return Ok(Seen { pack: detail, exit: Some(exit) });
                }
            }
            // A server that restarts keeps its rollouts; so does the one who waits.
            Err(told) if answered.elapsed() >= PATIENCE => return Err(told),
            Err(told) if answered < started + ASK_EVERY => return Err(told),
            Err(_) => {}
        }
        let left = timeout.map_or(ASK_EVERY, |timeout| timeout.saturating_sub(started.elapsed()));
        tokio::time::sleep(left.min(ASK_EVERY)).await;
    }
}
