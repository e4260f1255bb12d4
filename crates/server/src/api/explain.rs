//! The answer to "which version does this session get, why, and what comes next".
//!
//! **Invariant:** asking changes nothing: no pin is made or touched, nothing is counted.

use std::sync::PoisonError;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serin_core::explain::{Ahead, ChangeBy, Fate, Kept, NewSessions, Who, ahead, fate, new_sessions};
use serin_core::ids::{SessionHash, SessionKey, Version};
use serin_core::pack::PackState;
use serin_core::plan::{Plan, Segment};
use serin_core::routing::{Assigned, Bucket, Contact, Pin, PinAction, Reason, Turn, Variant, assign};
use serin_core::segment::{Attributes, Found};
use serin_core::units::{HoldFor, Timestamp};
use serin_core::weight::Weight;
use utoipa::IntoParams;

use super::App;
use super::error::ApiError;
use super::packs::known;
use super::read::Params;
use super::types::{
    ExplainView, ExplainedResponse, NextChangeView, PinView, ProblemDetails, SegmentTestView, ShareView,
};
use super::view::rounded;
use crate::gateway::Answered;
use crate::snapshot::PackSnapshot;

/// The longest id of a response, in bytes.
const LONGEST_ID: usize = 1_024;

/// Who is asked about.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainParams {
    /// A session, as the app names it.
    session: Option<String>,
    /// A response instead, by the id that the provider gave it; its session is explained.
    response: Option<String>,
    /// Attributes as a JSON object. With a session: what it would send; alone: which version any new session with
    /// them would get.
    #[param(value_type = Option<String>, example = r#"{"tier": "beta"}"#)]
    attributes: Option<String>,
}

/// Explains which version a session, or any new one, gets, why, and what comes next; asking changes nothing.
///
/// A session that has a version keeps it, whatever its attributes are. Responses are remembered in memory: the newest
/// 200 000 that went through the gateway since the server started, and those that telemetry named.
#[utoipa::path(
    get, path = "/packs/{pack}/explain", tag = "orders",
    params(("pack" = String, Path, description = "The pack."), ExplainParams),
    responses(
        (status = 200, description = "The version and why.", body = ExplainView),
        (status = 400, description = "The session, the response or the attributes are none.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "There is no such pack, or nothing is known of the response.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The weight is changing at this moment.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn explain(
    State(app): State<App>,
    Path(pack): Path<String>,
    Params(params): Params<ExplainParams>,
) -> Result<Json<ExplainView>, ApiError> {
    let attributes = params.attributes.as_deref().map(attributes).transpose()?;
    let (name, _) = known(&app, &pack).await?;
    let changing = || {
        ApiError::unavailable("changing", "the weight is changing at this moment, and with it the answer")
            .hint("ask again in a moment")
    };
    // Before the picture is read, so that the picture is never the older one.
    let standing = app.control.standing(&name).await;
    let (state, plan, _) = standing.ok_or_else(|| ApiError::unknown_pack(&pack, &[]))?;
    let snapshot = app.resolver().snapshot();
    let pack_now = snapshot.packs.get(&name).filter(|pack| pack.revision == state.revision);
    let pack = pack_now.ok_or_else(changing)?;
    let (session, response) = match (&params.session, &params.response) {
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request("query", "both a session and a response are given")
                .hint("a response leads to its session: name one of both"));
        }
        (Some(session), None) => (Some(key(session)?), None),
        (None, Some(id)) => {
            let (session, response) = of_response(&app, pack, id)?;
            (Some(session), Some(response))
        }
        (None, None) => (None, None),
    };
    let question = Question { pack, state: &state, plan: &plan, attributes, now: app.now() };
    let view = match session {
        Some(key) => {
            let pin = app.resolver().pins.get(SessionHash::of(&name, &key));
            question.of_session(&key, pin).ok_or_else(changing)?
        }
        None => question.of_new_sessions(),
    };
    Ok(Json(ExplainView { response, ..view }))
}

fn key(session: &str) -> Result<SessionKey, ApiError> {
    SessionKey::parse(session).map_err(|error| ApiError::bad_request("session", error.to_string()))
}

fn attributes(text: &str) -> Result<Attributes, ApiError> {
    serde_json::from_str(text).map_err(|error| {
        ApiError::bad_request(
            "attributes",
            format!("could not read the attributes as a JSON object: {error}"),
        )
        .hint("write for example {\"tier\": \"beta\"}, with its quotes and braces encoded for a URL")
    })
}

/// The session of a response, by what the gateway has served, else by what telemetry told.
fn of_response(
    app: &App,
    pack: &PackSnapshot,
    id: &str,
) -> Result<(SessionKey, ExplainedResponse), ApiError> {
    if id.is_empty() || id.len() > LONGEST_ID {
        let detail = format!("the id of a response has 1 to {LONGEST_ID} bytes, not {}", id.len());
        return Err(ApiError::bad_request("response", detail));
    }
    let id = id.to_owned();
    if let Some(Answered { session, cohort, named }) = app.gateway.answered(&pack.name, &id) {
        let cohort = pack.route.cohorts.get(cohort);
        let (version, variant) = match (&named, cohort) {
            (Some(named), _) => (Some(named.to_string()), None),
            (None, Some(cohort)) => (Some(cohort.version.to_string()), Some(cohort.variant.into())),
            (None, None) => (None, None),
        };
        return Ok((session, ExplainedResponse { id, version, variant }));
    }
    let links = app.otlp.links.lock().unwrap_or_else(PoisonError::into_inner);
    let is_of_pack = |told: &Option<String>| told.as_deref().is_none_or(|told| told == pack.name.as_str());
    let told = links.of_response(&id).filter(|subject| is_of_pack(&subject.pack));
    if let Some((session, subject)) =
        told.and_then(|told| Some((SessionKey::parse(told.session.as_deref()?).ok()?, told)))
    {
        return Ok((session, ExplainedResponse { id, version: subject.version.clone(), variant: None }));
    }
    let shown: String = id.chars().take(80).collect();
    let detail = format!("nothing is known of response {shown:?} of pack {}", pack.name);
    Err(ApiError::not_found("unknown-response", detail).hint(
        "the newest 200 000 responses since the server started are known, by the `id` in their body; \
         the answer's header `x-serin-session` names its session",
    ))
}

/// What is asked, and of which picture.
struct Question<'a> {
    pack: &'a PackSnapshot,
    state: &'a PackState,
    plan: &'a Plan,
    attributes: Option<Attributes>,
    now: Timestamp,
}

impl Question<'_> {
    /// What the segments of the rollout in force say; nothing where they make no difference.
    fn found(&self) -> Option<Found> {
        let attributes = self.attributes.clone().unwrap_or_default();
        self.pack.reads_attributes().then(|| self.pack.segments.peek(&attributes))
    }

    fn tests(&self, found: Option<Found>) -> Vec<SegmentTestView> {
        let Some(found) = found else { return Vec::new() };
        let test = |(index, segment): (usize, &Segment)| SegmentTestView {
            name: segment.name.to_string(),
            members: segment.members(),
            answer: found.answer(index).into(),
        };
        self.plan.segments.iter().enumerate().map(test).collect()
    }

    /// The segment that a live pin was assigned in, under the rollout in force.
    fn stamped_segment(&self, pin: Option<Pin>) -> Option<usize> {
        let route = &self.pack.route;
        let pin = pin.filter(|pin| !pin.is_expired(&route.sessions, self.now))?;
        let stamp = route.cohorts.get(pin.cohort)?.stamp.as_ref()?;
        let split = route.split.as_ref().filter(|split| split.rollout == stamp.rollout)?;
        Some(usize::from(stamp.segment)).filter(|segment| *segment < split.segments.len())
    }

    /// The answer for a session; nothing while a change that concerns it is being committed.
    fn of_session(&self, key: &SessionKey, pin: Option<Pin>) -> Option<ExplainView> {
        let route = &self.pack.route;
        let stamped = self.stamped_segment(pin);
        let found = if stamped.is_some() { None } else { self.found() };
        let segment = stamped.unwrap_or_else(|| found.map_or(0, |found| found.segment));
        let contact = Contact { key, segment, turn: Turn::User };
        let assignment = match assign(route, pin, contact, self.now) {
            Assigned::Now(assignment) => assignment,
            Assigned::AfterChange => return None,
        };
        let version = &assignment.cohort.version;
        let is_kept = match assignment.pin {
            PinAction::Touch | PinAction::Move => true,
            PinAction::Create => false,
        };
        let ends_at = pin.filter(|_| is_kept).map(|pin| {
            // A session that moves begins to age anew.
            let begun = if assignment.pin == PinAction::Move { self.now } else { at(pin.pinned_at) };
            route.sessions.max_lifetime.after(begun)
        });
        let because = match (assignment.pin, pin.and_then(|pin| route.cohorts.get(pin.cohort))) {
            (PinAction::Move, Some(before)) if !route.forced => format!(
                "its version {} is out of service, so that it moves with its next user turn",
                before.version
            ),
            (PinAction::Touch | PinAction::Move | PinAction::Create, _) => {
                self.why(assignment.reason, assignment.bucket, assignment.weight, segment)
            }
        };
        let next = assignment.bucket.and_then(|bucket| {
            let kept = ends_at.map(|ends_at| Kept { version, ends_at });
            self.next(Who { kept, bucket, segment }, version)
        });
        Some(ExplainView {
            session: Some(key.to_string()),
            version: Some(version.to_string()),
            variant: Some(assignment.cohort.variant.into()),
            message: format!("gets {version}: {because}"),
            bucket: assignment.bucket.map(Bucket::index),
            pin: pin.and_then(|pin| pin_view(self.pack, pin, self.now)),
            next,
            ..self.view(assignment.reason, segment, found)
        })
    }

    /// The answer for any new session.
    fn of_new_sessions(&self) -> ExplainView {
        let found = self.found();
        let segment = found.map_or(0, |found| found.segment);
        let NewSessions { reason, shares } = new_sessions(&self.pack.route, segment);
        let view = self.view(reason, segment, found);
        let only = match shares.as_slice() {
            [(version, variant, _)] => Some((*version, *variant)),
            _ => None,
        };
        let gets = match &only {
            Some((version, _)) => format!("gets {version}"),
            None => {
                let told = |(version, variant, share): &(&Version, Variant, Weight)| {
                    format!("{version} ({variant}) in {share} of cases")
                };
                format!("gets {}", shares.iter().map(told).collect::<Vec<_>>().join(", "))
            }
        };
        let because = self.why(reason, None, Weight::ZERO, segment);
        ExplainView {
            version: only.map(|(version, _)| version.to_string()),
            variant: only.map(|(_, variant)| variant.into()),
            message: format!("{gets}: {because}"),
            next: self.next_of_new_sessions(segment),
            ..view
        }
    }

    /// What is the same whoever is asked about.
    fn view(&self, reason: Reason, segment: usize, found: Option<Found>) -> ExplainView {
        let split = self.pack.route.split.as_ref();
        let in_force = split.and_then(|split| split.segments.get(segment));
        let share = |(version, variant, share): &(&Version, Variant, Weight)| ShareView {
            version: version.to_string(),
            variant: (*variant).into(),
            share: share.percent(),
        };
        ExplainView {
            pack: self.pack.name.to_string(),
            session: None,
            response: None,
            version: None,
            variant: None,
            reason: reason.into(),
            message: String::new(),
            rollout: split.map(|split| split.rollout.to_string()),
            segment: in_force.map(|segment| segment.name.to_string()),
            segments: self.tests(found),
            bucket: None,
            weight: in_force.map_or(0.0, |segment| segment.weight.percent()),
            new_sessions: new_sessions(&self.pack.route, segment).shares.iter().map(share).collect(),
            pin: None,
            next: None,
        }
    }

    fn why(&self, reason: Reason, bucket: Option<Bucket>, weight: Weight, segment: usize) -> String {
        let name = self.pack.route.split.as_ref().and_then(|split| split.segments.get(segment));
        let place = match name {
            Some(segment) if self.pack.reads_attributes() => format!("it belongs to {}, and ", segment.name),
            Some(_) | None => String::new(),
        };
        match (reason, bucket) {
            (Reason::Static, _) => "no rollout is under way".to_owned(),
            (Reason::Split | Reason::TargetingMatch, Some(bucket)) => format!(
                "{place}its bucket {} against {}, the buckets that {weight} gives to the canary",
                bucket.index(),
                weight.bp()
            ),
            (Reason::Split | Reason::TargetingMatch, None) => {
                let weight = name.map_or(Weight::ZERO, |segment| segment.weight);
                format!("{place}{weight} of the new sessions get the canary, by the key of the session")
            }
            (Reason::Pinned, _) => "it had this version before".to_owned(),
            (Reason::Disabled, _) => "everything is forced to stable".to_owned(),
        }
    }

    fn ahead(&self) -> Option<Ahead> {
        let (rollout, active) = self.state.active()?;
        Some(ahead(self.plan, rollout, active, self.now))
    }

    /// What the next change does to a session that has or would get a version now.
    fn next(&self, who: Who<'_>, now: &Version) -> Option<NextChangeView> {
        let (rollout, _) = self.state.active()?;
        let ahead = self.ahead()?;
        let of = |variant| match variant {
            Variant::Stable if ahead.by != ChangeBy::Completion => &rollout.stable,
            Variant::Stable | Variant::Canary => &rollout.canary,
        };
        let when = self.when(&ahead, who.segment);
        let (version, message) = match fate(&ahead, rollout, &self.state.sessions, who) {
            Fate::Keeps if ahead.by == ChangeBy::Completion && *now != rollout.canary => {
                (now, format!("{when}; it keeps {now} until it ends"))
            }
            Fate::Keeps => (now, format!("{when}; it keeps {now} if it goes on, whatever the weight is")),
            Fate::Moves => {
                (&rollout.canary, format!("{when}; it moves to {} with its next user turn", rollout.canary))
            }
            Fate::Begins(variant) => {
                let version = of(variant);
                let still = if version == now { "still get" } else { "get" };
                (version, format!("{when}; its first request would {still} {version} then"))
            }
            Fate::BeginsAnew(variant) => {
                let version = of(variant);
                (version, format!("{when}; it ends by its age before, and would begin anew with {version}"))
            }
        };
        let (version, changes) = (Some(version.to_string()), Some(version != now));
        Some(NextChangeView { version, changes, ..self.next_view(&ahead, who.segment, message) })
    }

    fn next_of_new_sessions(&self, segment: usize) -> Option<NextChangeView> {
        let (rollout, _) = self.state.active()?;
        let ahead = self.ahead()?;
        let weight = ahead.weights[segment];
        let canary = &rollout.canary;
        let when = self.when(&ahead, segment);
        let (version, message) = if ahead.by == ChangeBy::Completion || weight == Weight::FULL {
            (Some(canary), format!("{when}; every new session gets {canary} then"))
        } else if weight == Weight::ZERO {
            let stable = &rollout.stable;
            (Some(stable), format!("{when}; every new session gets {stable} then"))
        } else {
            (None, format!("{when}; {weight} of the new sessions get {canary} then"))
        };
        let view = self.next_view(&ahead, segment, message);
        Some(NextChangeView { version: version.map(ToString::to_string), ..view })
    }

    fn next_view(&self, ahead: &Ahead, segment: usize, message: String) -> NextChangeView {
        NextChangeView {
            at: ahead.at,
            by: ahead.by.into(),
            step: match ahead.by {
                ChangeBy::Step(step) => Some(step),
                ChangeBy::Window | ChangeBy::Completion => None,
            },
            weight: ahead.weights[segment].percent(),
            version: None,
            changes: None,
            message,
        }
    }

    /// What changes, and when.
    fn when(&self, ahead: &Ahead, segment: usize) -> String {
        let weight = ahead.weights[segment];
        let set = self.pack.route.split.as_ref().and_then(|split| split.segments.get(segment));
        let brings = if set.is_some_and(|set| set.weight == weight) { "stays at" } else { "brings" };
        let what = match ahead.by {
            ChangeBy::Step(step) => {
                format!("step {} of {} {brings} {weight}", step + 1, self.plan.steps.len())
            }
            ChangeBy::Window => format!("a window {brings} {weight}"),
            ChangeBy::Completion => "the rollout completes".to_owned(),
        };
        match ahead.at {
            Some(at) if at <= self.now => format!("{what} as soon as a check passes"),
            Some(at) => format!("{what} in {} at the earliest", rounded(HoldFor::between(self.now, at))),
            None => format!("{what} once nothing holds the rollout"),
        }
    }
}

fn at(seconds: u32) -> Timestamp {
    Timestamp::from_second(i64::from(seconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn pin_view(pack: &PackSnapshot, pin: Pin, now: Timestamp) -> Option<PinView> {
    let cohort = pack.route.cohorts.get(pin.cohort)?;
    let stamp = cohort.of_rollout();
    let age: HoldFor = rounded(pin.age(now));
    Some(PinView {
        version: cohort.version.to_string(),
        variant: cohort.variant.into(),
        rollout: stamp.map(|stamp| stamp.rollout.to_string()),
        step: stamp.map(|stamp| stamp.step),
        weight: stamp.map(|stamp| stamp.weight.percent()),
        pinned_at: at(pin.pinned_at),
        last_seen: at(pin.last_seen),
        age,
        expired: pin.is_expired(&pack.route.sessions, now),
    })
}
