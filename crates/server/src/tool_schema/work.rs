//! How much work a schema can be, before anything is judged by it.
//!
//! A part of a schema can be asked about one value as often as there are ways from the root of the schema to it, and
//! ways double with each pair of references. The count of those ways, for values at each depth, bounds the work.

use std::collections::HashMap;

use serde_json::Value;

/// The deepest values that are told apart; JSON is read no deeper.
const DEEPEST: usize = 128;

/// Keywords whose schema is about the same value.
const SAME: [&str; 4] = ["not", "if", "then", "else"];
/// Keywords with a list of schemas about the same value.
const SAME_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords with named schemas about the same value.
const SAME_NAMED: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Keywords whose schema is about values inside, or with a list of such schemas.
const INSIDE: [&str; 8] = [
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords with named schemas about values inside.
const INSIDE_NAMED: [&str; 2] = ["properties", "patternProperties"];

/// The work for one value, by its depth.
#[derive(Debug)]
pub(super) struct Work(Vec<u64>);

/// A part of a schema and where it leads.
#[derive(Debug, Default)]
struct Part {
    weight: u64,
    same: Vec<usize>,
    inside: Vec<usize>,
}

impl Work {
    /// The work of a schema; nothing where it has no bound, or refers to something other than its own parts.
    pub(super) fn of(schema: &Value) -> Option<Self> {
        let mut parts = Parts { root: schema, list: Vec::new(), known: HashMap::new() };
        parts.visit(schema)?;
        let order = order(&parts.list)?;
        let mut ways = vec![0_u64; parts.list.len()];
        ways[0] = 1;
        let mut by_depth = Vec::new();
        while by_depth.len() <= DEEPEST && ways.iter().any(|ways| *ways > 0) {
            let mut next = vec![0_u64; parts.list.len()];
            let mut work = 0_u64;
            for &at in &order {
                let here = ways[at];
                if here == 0 {
                    continue;
                }
                work = work.saturating_add(here.saturating_mul(parts.list[at].weight));
                for &other in &parts.list[at].same {
                    ways[other] = ways[other].saturating_add(here);
                }
                for &other in &parts.list[at].inside {
                    next[other] = next[other].saturating_add(here);
                }
            }
            by_depth.push(work);
            ways = next;
        }
        Some(Self(by_depth))
    }

    /// The most work for a value.
    pub(super) fn for_value(&self, value: &Value) -> u64 {
        let mut work = 0_u64;
        let mut waiting = vec![(value, 0_usize)];
        while let Some((value, depth)) = waiting.pop() {
            let Some(per_value) = self.0.get(depth) else { continue };
            let size = match value {
                Value::String(text) => 1 + text.len() as u64 / 16,
                Value::Null | Value::Bool(_) | Value::Number(_) => 1,
                Value::Array(items) => {
                    waiting.extend(items.iter().map(|item| (item, depth + 1)));
                    1 + items.len() as u64
                }
                Value::Object(fields) => {
                    waiting.extend(fields.values().map(|item| (item, depth + 1)));
                    1 + fields.len() as u64
                }
            };
            work = work.saturating_add(per_value.saturating_mul(size));
        }
        work
    }
}

struct Parts<'s> {
    root: &'s Value,
    list: Vec<Part>,
    known: HashMap<*const Value, usize>,
}

impl<'s> Parts<'s> {
    /// The number of a part, with everything that it leads to.
    fn visit(&mut self, schema: &'s Value) -> Option<usize> {
        if let Some(at) = self.known.get(&std::ptr::from_ref(schema)) {
            return Some(*at);
        }
        let first = self.list.len();
        let mut waiting = vec![self.part(schema)];
        while let Some((at, schema)) = waiting.pop() {
            let (same, inside) = leads(self.root, schema)?;
            for (targets, is_same) in [(same, true), (inside, false)] {
                for target in targets {
                    let to = match self.known.get(&std::ptr::from_ref(target)) {
                        Some(to) => *to,
                        None => {
                            let part = self.part(target);
                            waiting.push(part);
                            part.0
                        }
                    };
                    let part = &mut self.list[at];
                    if is_same { part.same.push(to) } else { part.inside.push(to) }
                }
            }
        }
        Some(first)
    }

    fn part(&mut self, schema: &'s Value) -> (usize, &'s Value) {
        let at = self.list.len();
        self.known.insert(std::ptr::from_ref(schema), at);
        let count = |value: &Value| match value {
            Value::Array(items) => items.len() as u64,
            Value::Object(fields) => fields.len() as u64,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
        };
        let members = schema.as_object().into_iter().flat_map(|fields| fields.values());
        self.list.push(Part { weight: 1 + members.map(count).sum::<u64>(), ..Part::default() });
        (at, schema)
    }
}

/// The parts that a part asks about the same value, and about values inside of it.
fn leads<'s>(root: &'s Value, schema: &'s Value) -> Option<(Vec<&'s Value>, Vec<&'s Value>)> {
    let (mut same, mut inside) = (Vec::new(), Vec::new());
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        let keyword = keyword.as_str();
        match keyword {
            "$ref" => {
                let pointer = value.as_str()?.strip_prefix('#')?;
                same.push(root.pointer(&pointer.replace("%25", "%").replace("%22", "\""))?);
            }
            // Who is meant is found out while a value is judged.
            "$dynamicRef" | "$recursiveRef" | "$id" | "$anchor" | "$dynamicAnchor" => return None,
            _ if SAME.contains(&keyword) => same.push(value),
            _ if SAME_LISTS.contains(&keyword) => same.extend(value.as_array().into_iter().flatten()),
            _ if SAME_NAMED.contains(&keyword) => {
                same.extend(
                    value
                        .as_object()
                        .into_iter()
                        .flat_map(|named| named.values())
                        .filter(|value| value.is_object()),
                );
            }
            _ if INSIDE_NAMED.contains(&keyword) => {
                inside.extend(value.as_object().into_iter().flat_map(|named| named.values()));
            }
            _ if INSIDE.contains(&keyword) => match value {
                Value::Array(list) => inside.extend(list),
                other => inside.push(other),
            },
            _ => {}
        }
    }
    Some((same, inside))
}

/// The parts in an order in which each comes before those that it asks about the same value; nothing where that is a circle.
fn order(parts: &[Part]) -> Option<Vec<usize>> {
    let mut asked_by = vec![0_usize; parts.len()];
    for to in parts.iter().flat_map(|part| &part.same) {
        asked_by[*to] += 1;
    }
    let mut ready: Vec<usize> = (0..parts.len()).filter(|at| asked_by[*at] == 0).collect();
    let mut order = Vec::with_capacity(parts.len());
    while let Some(at) = ready.pop() {
        order.push(at);
        for to in &parts[at].same {
            asked_by[*to] -= 1;
            if asked_by[*to] == 0 {
                ready.push(*to);
            }
        }
    }
    (order.len() == parts.len()).then_some(order)
}
