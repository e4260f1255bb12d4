//! `spec.rollout.segments`: classes of sessions that get the canary before everyone does.

use super::walk::{Field, Walk};
use crate::fields::{self, MOST_SEGMENTS};
use crate::ids::SegmentName;
use crate::plan::{Matcher, Segment, SegmentWeight};
use crate::segment::{LONGEST_EXPRESSION, check};

/// The word for a weight that follows the ramp.
const PROGRESSIVE: &str = "progressive";

/// The one segment of a rollout that names none.
pub(crate) fn everyone() -> Segment {
    Segment {
        name: SegmentName::parse("everyone").expect("a word is a segment name"),
        matcher: Matcher::Everyone,
        weight: SegmentWeight::Progressive,
        duration: None,
    }
}

/// Reads the list: fixed segments first, then exactly one progressive segment that catches everyone.
pub(super) fn segments(walk: &mut Walk, field: &Field<'_>) -> Vec<Segment> {
    let items = walk.list(field, MOST_SEGMENTS);
    if items.is_empty() {
        return vec![everyone()];
    }
    let mut segments: Vec<Segment> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let is_last = index + 1 == items.len();
        if let Some(segment) = segment(walk, item, is_last) {
            if segments.iter().any(|earlier| earlier.name == segment.name) {
                walk.error(&item.spot, format!("segment {} is listed twice", segment.name));
            }
            segments.push(segment);
        }
    }
    if segments.is_empty() { vec![everyone()] } else { segments }
}

fn segment(walk: &mut Walk, item: &Field<'_>, is_last: bool) -> Option<Segment> {
    let fields = walk.fields(item, &fields::SEGMENT)?;
    let name =
        walk.require(&fields, "name", "beta_users").and_then(|field| walk.read(&field, SegmentName::parse));
    let example = if is_last { PROGRESSIVE } else { "50%" };
    let weight = walk.require(&fields, "weight", example).and_then(|field| {
        let is_progressive = walk.scalar(&field)?.text == PROGRESSIVE;
        match (is_progressive, is_last) {
            (true, true) => Some(SegmentWeight::Progressive),
            (false, false) => walk.weight(&field).map(SegmentWeight::Fixed),
            (true, false) => {
                let hint = "move it to the end, and give every other segment a weight and a duration";
                walk.error_with_hint(&field.spot, "only the last segment can be progressive", hint);
                None
            }
            (false, true) => {
                let hint = "end with a segment such as `{name: all_users, weight: progressive}`";
                walk.error_with_hint(&field.spot, "the last segment must be progressive", hint);
                None
            }
        }
    });
    let duration = if is_last {
        if let Some(field) = fields.get("duration") {
            walk.error_with_hint(
                &field.key(),
                "the progressive segment has no duration",
                "the ramp says how long it takes",
            );
        }
        None
    } else {
        walk.require(&fields, "duration", "24h").and_then(|field| walk.positive_duration(&field))
    };
    let matcher = match (fields.get("match"), is_last) {
        (None, true) => Matcher::Everyone,
        (None, false) => Matcher::NamedByAttribute,
        (Some(field), false) => Matcher::Expression(expression(walk, &field)?),
        (Some(field), true) => {
            walk.error_with_hint(&field.key(), "the last segment catches everyone", "remove its `match`");
            return None;
        }
    };
    Some(Segment { name: name?, matcher, weight: weight?, duration })
}

/// Reads a `match` and compiles it, so that what is wrong with it is found here and not on the first request.
fn expression(walk: &mut Walk, field: &Field<'_>) -> Option<String> {
    let text = walk.text(field, LONGEST_EXPRESSION)?;
    match check(&text) {
        Ok(()) => Some(text),
        Err(invalid) => {
            walk.error_with_hint(&field.spot, format!("the expression {invalid}"), invalid.hint);
            None
        }
    }
}
