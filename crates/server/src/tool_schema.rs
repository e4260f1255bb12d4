//! The JSON Schemas of tools: compiled once, and asked whether the arguments of a call fit.
//!
//! **Invariant:** nothing is ever fetched, and the work for one call is bounded: a schema has at most
//! [`LARGEST_SCHEMA`] bytes, the ways through it are counted before it is asked, and its patterns run in linear time.
//! What is too much is not judged, which is told apart from what does not fit.

mod work;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use serin_core::prompt::{Pack, PackProblem, path_under};
use xxhash_rust::xxh3::xxh3_128;

use self::work::Work;

/// The most bytes of a schema.
pub const LARGEST_SCHEMA: usize = 64 << 10;
/// The most parts of a schema that are asked for one call, each as often as there are ways to it.
const MOST_WORK: u64 = 500_000;
/// The most schemas that are remembered; the older half of them is forgotten to make room.
const MOST_SCHEMAS: usize = 1_024;
/// The most bytes that a compiled pattern may take.
const LARGEST_PATTERN: usize = 1 << 20;

/// Whether the arguments of a call fit the schema of its tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// They do.
    Fits,
    /// They do not, or they are no JSON.
    Misfits,
    /// Nobody can say: the schema is none, or it is too much work.
    Unknown,
}

/// The schema of one tool.
#[derive(Debug)]
pub struct ToolSchema {
    text: Box<[u8]>,
    /// Made at the first call; nothing where nobody can be judged by it.
    compiled: OnceLock<Option<Compiled>>,
}

#[derive(Debug)]
struct Compiled {
    validator: Validator,
    work: Work,
}

impl Compiled {
    fn of(text: &[u8]) -> Option<Self> {
        let schema: Value = serde_json::from_slice(text).ok()?;
        let work = Work::of(&schema)?;
        if work.for_value(&Value::Null) > MOST_WORK {
            return None;
        }
        // An engine that goes back and forth could take forever: patterns that need one judge nobody.
        let patterns = PatternOptions::regex().size_limit(LARGEST_PATTERN);
        let validator = jsonschema::options().offline().with_pattern_options(patterns).build(&schema).ok()?;
        Some(Self { validator, work })
    }
}

impl ToolSchema {
    fn of(text: &[u8]) -> Self {
        Self { text: text.into(), compiled: OnceLock::new() }
    }

    /// Judges the arguments of a call.
    pub fn judge(&self, arguments: &str) -> Fit {
        let Ok(value) = serde_json::from_str::<Value>(arguments) else { return Fit::Misfits };
        match self.compiled.get_or_init(|| Compiled::of(&self.text)) {
            Some(compiled) if compiled.work.for_value(&value) > MOST_WORK => Fit::Unknown,
            Some(compiled) if compiled.validator.is_valid(&value) => Fit::Fits,
            Some(_) => Fit::Misfits,
            None => Fit::Unknown,
        }
    }
}

/// The schemas of all tools that were offered lately, each compiled once however many requests offer it.
#[derive(Debug, Default)]
pub struct ToolSchemas(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u128, Arc<ToolSchema>>,
    old: HashMap<u128, Arc<ToolSchema>>,
}

impl ToolSchemas {
    /// The schema with this text, as JSON; nothing for one that is too large.
    pub fn of(&self, text: &[u8]) -> Option<Arc<ToolSchema>> {
        if text.len() > LARGEST_SCHEMA {
            return None;
        }
        let key = xxh3_128(text);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(schema) = known.young.get(&key) {
            return Some(Arc::clone(schema));
        }
        let schema = known.old.remove(&key).unwrap_or_else(|| Arc::new(ToolSchema::of(text)));
        if known.young.len() >= MOST_SCHEMAS / 2 {
            known.old = std::mem::take(&mut known.young);
        }
        known.young.insert(key, Arc::clone(&schema));
        Some(schema)
    }
}

/// What is wrong with the schemas of a pack's tools.
pub fn problems(pack: &Pack) -> Vec<PackProblem> {
    let mut problems = Vec::new();
    let tools = pack.raw().get("tools").and_then(Value::as_object);
    for (name, tool) in tools.into_iter().flatten() {
        let Some(schema) = tool.get("parameters").filter(|schema| !schema.is_null()) else { continue };
        let base = path_under("tools", &["", name.as_str(), "parameters"].join("/"));
        let problem = |json_path: String, message: String, hint: Option<&str>| PackProblem {
            json_path,
            message,
            hint: hint.map(str::to_owned),
        };
        let length = serde_json::to_vec(schema).map_or(usize::MAX, |text| text.len());
        if length > LARGEST_SCHEMA {
            let message = format!("the schema has {length} bytes, more than {LARGEST_SCHEMA}");
            problems.push(problem(
                base,
                message,
                Some("calls of a tool are judged by a schema of a page or two"),
            ));
        } else if let Err(wrong) = check(schema) {
            let path = path_under(&base, &wrong.pointer);
            problems.push(problem(path, format!("no JSON Schema: {}", wrong.message), wrong.hint));
        }
    }
    problems
}

/// Why a schema cannot be compiled.
struct Wrong {
    /// Where in it, as a JSON pointer.
    pointer: String,
    message: String,
    hint: Option<&'static str>,
}

/// Whether a text is a schema, also one that takes too long to judge anybody by.
fn check(schema: &Value) -> Result<(), Wrong> {
    if Work::of(schema).is_some_and(|work| work.for_value(&Value::Null) > MOST_WORK) {
        let hint = Some("name a part of it once, and not again in each of its own parts");
        return Err(Wrong {
            pointer: String::new(),
            message: "it refers to itself in too many ways".to_owned(),
            hint,
        });
    }
    let patterns = PatternOptions::fancy_regex().size_limit(LARGEST_PATTERN);
    let built = jsonschema::options().offline().with_pattern_options(patterns).build(schema);
    built.map(drop).map_err(|error| {
        let message: String = error.to_string().chars().take(200).collect();
        let is_elsewhere =
            message.contains("retriev") || message.contains("resolve") || message.contains("not present");
        let hint = is_elsewhere
            .then_some("nothing is fetched: put what `$ref` names into `$defs` of the same schema");
        Wrong { pointer: error.instance_path().to_string(), message, hint }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    fn judged(schema: &Value, arguments: &str) -> Fit {
        ToolSchemas::default().of(schema.to_string().as_bytes()).expect("it is small").judge(arguments)
    }

    #[test]
    fn arguments_fit_or_do_not() {
        let schema = json!({
            "type": "object", "required": ["id"], "additionalProperties": false,
            "properties": {"id": {"type": "string", "pattern": "^[a-w]+$"}, "n": {"$ref": "#/$defs/n"}},
            "$defs": {"n": {"enum": [1, 2]}},
        });
        for (arguments, fit) in [
            (r#"{"id": "a"}"#, Fit::Fits),
            (r#"{"id": "a", "n": 2}"#, Fit::Fits),
            (r#"{"id": "xa"}"#, Fit::Misfits),
            (r#"{"id": "a", "n": 3}"#, Fit::Misfits),
            (r#"{"id": 7}"#, Fit::Misfits),
            (r#"{"id": "a", "other": 1}"#, Fit::Misfits),
            ("{}", Fit::Misfits),
            ("{", Fit::Misfits),
        ] {
            assert_eq!(judged(&schema, arguments), fit, "{arguments}");
        }
        assert_eq!(judged(&json!({}), "7"), Fit::Fits);
        assert_eq!(judged(&json!({"type": "strng"}), "7"), Fit::Unknown, "a bad schema blames nobody");
        assert_eq!(judged(&json!({"$ref": "https://127.0.0.1:1/x.json"}), "7"), Fit::Unknown);
    }

    #[test]
    fn a_schema_is_compiled_once_and_the_old_ones_are_forgotten() {
        let schemas = ToolSchemas::default();
        let first = schemas.of(b"{}").unwrap();
        assert!(Arc::ptr_eq(&first, &schemas.of(b"{}").unwrap()));
        for number in 0..10 * MOST_SCHEMAS {
            schemas.of(format!("{{\"minimum\":{number}}}").as_bytes());
        }
        let known = schemas.0.lock().unwrap();
        assert!(known.young.len() + known.old.len() <= MOST_SCHEMAS);
        drop(known);
        assert!(schemas.of(&vec![b' '; LARGEST_SCHEMA + 1]).is_none());
    }

    #[test]
    fn no_schema_makes_a_call_costly() {
        // Each of these takes exponential time, or never ends, where it is followed naively.
        let doubling: serde_json::Map<String, Value> = (0..40)
            .map(|n| {
                let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
                (format!("d{n}"), json!({"allOf": [next, next]}))
            })
            .chain([("d40".to_owned(), json!({"type": "object"}))])
            .collect();
        let doubling = json!({"$ref": "#/$defs/d0", "$defs": doubling});
        assert_eq!(judged(&doubling, "{}"), Fit::Unknown);
        let itself =
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}});
        assert_eq!(judged(&itself, "{}"), Fit::Unknown);
        let twice = json!({"properties": {"a": {"$ref": "#"}}});
        let deep_twice = json!({"allOf": [twice, twice]});
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!({ "a": deep });
        }
        assert_eq!(judged(&deep_twice, &deep.to_string()), Fit::Unknown);
        assert_eq!(judged(&deep_twice, r#"{"a": {"a": 1}}"#), Fit::Fits, "it is the value that is too deep");
        let tree = json!({"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}});
        assert_eq!(judged(&tree, r#"{"left": {"right": {}}, "right": {"left": 1}}"#), Fit::Misfits);
        let backtracking = json!({"pattern": "^(?=(a+)+$)(a+)+b$"});
        assert_eq!(judged(&backtracking, &format!("{:?}", "a".repeat(5_000))), Fit::Unknown);
        let large = json!({"items": {"enum": (0..10_000).collect::<Vec<_>>()}});
        assert_eq!(judged(&large, &json!(vec![0; 10_000]).to_string()), Fit::Unknown);
    }

    #[test]
    fn a_chain_of_references_as_long_as_a_schema_can_be_does_not_end_the_process() {
        let links: serde_json::Map<String, Value> = (0..1_500)
            .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})))
            .chain([("d1500".to_owned(), json!({"type": "object"}))])
            .collect();
        let chain = json!({"$ref": "#/$defs/d0", "$defs": links});
        assert_ne!(judged(&chain, "{}"), Fit::Misfits);
    }

    #[test]
    fn a_bad_schema_of_a_pack_is_told_with_its_path() {
        let pack = json!({
            "id": "p", "name": "P", "version": "1.0.0", "template_engine": {"version": "v1", "syntax": "{{variable}}"},
            "tools": {
                "good": {"name": "good", "description": "d", "parameters": {"type": "object", "properties": {}}},
                "none": {"name": "none", "description": "d"},
                "bad.one": {"name": "bad", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "strng"}}}},
                "far": {"name": "far", "description": "d", "parameters": {"type": "object", "properties": {"a": {"$ref": "https://example.com/a.json"}}}},
            },
            "prompts": {"p": {"id": "p", "name": "P", "version": "1.0.0", "system_template": "x"}},
        });
        let pack = Pack::stored_value(pack).unwrap();
        let told: Vec<String> = problems(&pack).iter().map(ToString::to_string).collect();
        let paths: Vec<String> = problems(&pack).into_iter().map(|problem| problem.json_path).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(paths[0].starts_with("tools[\"bad.one\"].parameters"), "{paths:?}");
        assert!(paths[1].starts_with("tools.far.parameters") && told[1].contains("$defs"), "{told:?}");
    }
}
