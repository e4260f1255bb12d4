//! What the numbers of a rollout do not hold, in words: it is said where the numbers are shown.

use serin_core::ids::PackName;

use super::App;

/// What is missing from the evidence of a pack since the server started, worst first; empty when nothing is.
pub(super) fn notes(app: &App, pack: &PackName) -> Vec<String> {
    let mut notes = Vec::new();
    let dropped = app.resolver().signals.dropped();
    let facts = app.ingest.dropped() + dropped.facts();
    if app.ingest.is_failing() {
        notes.push(format!(
            "The store does not take what is measured: {} assignments and facts wait, and what is shown is from before. Prompts are served all the same; look at the disk of the server and its log.",
            app.ingest.waiting()
        ));
    }
    if facts > 0 {
        notes.push(format!(
            "{facts} facts about sessions were lost since the server started, because the store was away or too slow for too long: what is shown counts fewer than there were, of all packs."
        ));
    }
    if dropped.contacts() > 0 {
        notes.push(format!(
            "{} assignments of sessions were lost since the server started, because the queue was full: these sessions are no evidence.",
            dropped.contacts()
        ));
    }
    let without_session = app.gateway.counts().without_session(pack);
    if without_session > 0 {
        notes.push(format!(
            "{without_session} requests brought the history of a conversation and no session since the server started: such a conversation may change versions between its turns, and counts as several. Send x-serin-session; docs/clients.md shows how."
        ));
    }
    let unjudged = app.gateway.counts().tools_unjudged(pack);
    if unjudged > 0 {
        notes.push(format!(
            "{unjudged} answers called tools in a way that could not be judged since the server started: a schema above 64 KiB or out of all proportion, more than 128 calls, or more than 1 MiB of them. They count as neither right nor wrong; `serin lint` finds such schemas in a pack."
        ));
    }
    notes
}
