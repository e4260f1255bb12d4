//! Who belongs to a segment: its expression, compiled once, over the attributes of a session.
//!
//! This is the only file that knows the expression language (CEL). An expression is held to what a
//! class of sessions needs: no loops, few nodes, a fixed set of functions. Its cost is therefore
//! bounded by its size and that of the attributes, whatever anybody writes.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::objects::{Key, Map as CelMap};
use cel::{Context, Env, Program, Value as CelValue};
use serde_json::{Map, Value};

use crate::ids::SegmentName;
use crate::plan::{Matcher, Segment};

/// What is known of a session besides its key.
pub type Attributes = Map<String, Value>;

/// The attribute that names the segment of a session where a segment has no expression.
pub const SEGMENT_ATTRIBUTE: &str = "segment";

/// The longest expression, in bytes.
pub const LONGEST_EXPRESSION: usize = 4_096;

/// Attributes with more bytes than this, as JSON, match no expression.
pub const LARGEST_ATTRIBUTES: usize = 8_192;

/// The most nodes of an expression: names, literals, operators and calls.
const MOST_NODES: usize = 1_024;

/// The most levels that an expression may nest.
const DEEPEST_NESTING: usize = 32;

/// The only variable of an expression.
const VARIABLE: &str = "attributes";

/// The functions of an expression, beside operators and `has`.
const FUNCTIONS: [&str; 7] = ["size", "contains", "startsWith", "endsWith", "string", "int", "double"];

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidExpression {
    /// What is wrong, with the place inside the expression where it is known.
    pub message: String,
    /// What to write instead.
    pub hint: &'static str,
}

impl InvalidExpression {
    fn new(message: impl Into<String>, hint: &'static str) -> Self {
        Self { message: message.into(), hint }
    }
}

/// Checks an expression without keeping it.
///
/// # Errors
/// [`InvalidExpression`] when it is no expression, or asks for more than a segment may.
pub fn check(text: &str) -> Result<(), InvalidExpression> {
    compile(&Env::stdlib(), text).map(|_| ())
}

/// The segments of a plan, ready to be asked which of them a session belongs to.
pub struct Segmenter {
    env: Arc<Env>,
    matchers: Vec<Compiled>,
}

enum Compiled {
    Expression(Program),
    Named(SegmentName),
    Everyone,
}

/// The segment of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its index in the plan.
    pub segment: usize,
    unreadable: u32,
}

impl Found {
    /// The segments that could not tell, because an attribute is missing or of another type: no match.
    pub fn unreadable(self) -> impl Iterator<Item = usize> {
        (0..32).filter(move |index| self.unreadable & (1 << index) != 0)
    }
}

/// What a segment says to the attributes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The session belongs to it.
    Matches,
    /// The session does not.
    Differs,
    /// It could not tell, because an attribute is missing or of another type: no match.
    Unreadable,
    /// An earlier segment matches.
    NotAsked,
}

impl Found {
    /// What the segment with an index says.
    pub fn answer(self, index: usize) -> Answer {
        match index.cmp(&self.segment) {
            Ordering::Equal => Answer::Matches,
            Ordering::Greater => Answer::NotAsked,
            Ordering::Less if self.unreadable().any(|unreadable| unreadable == index) => Answer::Unreadable,
            Ordering::Less => Answer::Differs,
        }
    }
}

impl fmt::Debug for Segmenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segmenter").field("segments", &self.matchers.len()).finish_non_exhaustive()
    }
}

impl Segmenter {
    /// Compiles the matchers of a plan.
    ///
    /// # Errors
    /// [`InvalidExpression`] for the first expression that cannot be used; parsing a manifest finds it before.
    pub fn new(segments: &[Segment]) -> Result<Self, InvalidExpression> {
        let env = Env::stdlib();
        let matchers = segments.iter().map(|segment| match &segment.matcher {
            Matcher::Expression(text) => compile(&env, text).map(Compiled::Expression),
            Matcher::NamedByAttribute => Ok(Compiled::Named(segment.name.clone())),
            Matcher::Everyone => Ok(Compiled::Everyone),
        });
        let matchers = matchers.collect::<Result<_, _>>()?;
        Ok(Self { env: Arc::new(env), matchers })
    }

    /// Whether attributes can make a difference.
    pub fn reads_attributes(&self) -> bool {
        self.matchers.len() > 1
    }

    /// The first segment that a session belongs to; the last one where no other matches.
    pub fn find(&self, attributes: &Attributes) -> Found {
        let last = self.matchers.len().saturating_sub(1);
        let mut found = Found { segment: last, unreadable: 0 };
        let mut context = None;
        for (index, matcher) in self.matchers.iter().enumerate() {
            let matches = match matcher {
                Compiled::Everyone => Some(true),
                Compiled::Named(name) => named(attributes, name),
                Compiled::Expression(program) => {
                    let context = context.get_or_insert_with(|| self.context(attributes));
                    context.as_ref().and_then(|context| truth(program, context))
                }
            };
            match matches {
                Some(true) => {
                    found.segment = index;
                    return found;
                }
                Some(false) => {}
                None => found.unreadable |= 1_u32.checked_shl(index as u32).unwrap_or(0),
            }
        }
        found
    }

    /// What expressions read; nothing when the attributes are too large to be read.
    fn context(&self, attributes: &Attributes) -> Option<Context<'static, 'static>> {
        let mut left = LARGEST_ATTRIBUTES;
        if !is_within(&mut left, attributes.iter()) {
            return None;
        }
        let mut context = Context::with_env(Arc::clone(&self.env));
        context.add_variable_from_value(VARIABLE, cel_map(attributes));
        Some(context)
    }
}

/// Whether the `segment` attribute names a segment; nothing when it is missing or no text.
fn named(attributes: &Attributes, name: &SegmentName) -> Option<bool> {
    match attributes.get(SEGMENT_ATTRIBUTE)? {
        Value::String(text) => Some(text == name.as_str()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What an expression says; nothing where it cannot tell.
fn truth(program: &Program, context: &Context<'_, '_>) -> Option<bool> {
    match program.execute(context) {
        Ok(CelValue::Bool(matches)) => Some(matches),
        Ok(_) | Err(_) => None,
    }
}

/// Takes the size of attributes off what is left; says whether there was enough.
fn is_within<'a>(left: &mut usize, members: impl Iterator<Item = (&'a String, &'a Value)>) -> bool {
    let take = |left: &mut usize, size: usize| {
        *left = left.saturating_sub(size + 1);
        *left > 0
    };
    for (key, value) in members {
        if !take(left, key.len()) || !is_value_within(left, value) {
            return false;
        }
    }
    true
}

fn is_value_within(left: &mut usize, value: &Value) -> bool {
    *left = left.saturating_sub(1);
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => *left = left.saturating_sub(text.len()),
        Value::Array(items) => return items.iter().all(|item| is_value_within(left, item)),
        Value::Object(members) => return is_within(left, members.iter()),
    }
    *left > 0
}

fn cel_map(members: &Attributes) -> CelValue {
    let entry = |(key, value): (&String, &Value)| (Key::String(Arc::new(key.clone())), cel_value(value));
    CelValue::Map(CelMap { map: Arc::new(members.iter().map(entry).collect()) })
}

fn cel_value(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(truth) => CelValue::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => CelValue::Int(whole),
            (None, Some(whole)) => CelValue::UInt(whole),
            (None, None) => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) => CelValue::List(Arc::new(items.iter().map(cel_value).collect())),
        Value::Object(members) => cel_map(members),
    }
}

/// Compiles an expression and holds it to what a segment may ask.
fn compile(env: &Env, text: &str) -> Result<Program, InvalidExpression> {
    if text.len() > LONGEST_EXPRESSION {
        let message = format!("has {} bytes, more than {LONGEST_EXPRESSION}", text.len());
        return Err(InvalidExpression::new(message, "let the app send an attribute that says it in short"));
    }
    brackets(text)?;
    let program = env.compile(text).map_err(|errors| {
        let told = errors.errors.first().map(|error| {
            let message = error.msg.trim_start_matches("Syntax error: ");
            // What the parser would have taken instead is a list of thirty tokens.
            let message = message.split(" expecting ").next().unwrap_or_default();
            let message: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
            match error.pos {
                (1, column) if column > 0 => format!("at character {column}: {message}"),
                (line, column) if line > 1 => format!("at line {line}, character {column}: {message}"),
                _ => message,
            }
        });
        let message = format!("is no CEL expression: {}", told.unwrap_or_default());
        InvalidExpression::new(message, EXAMPLE)
    })?;
    let mut nodes = 0;
    walk(program.expression(), 0, &mut nodes)?;
    if !program.references().has_variable(VARIABLE) {
        let message = "never reads `attributes`, so it is the same for every session";
        return Err(InvalidExpression::new(message, EXAMPLE));
    }
    Ok(program)
}

const EXAMPLE: &str = "write for example `attributes.email.endsWith(\"@acme.com\")`";

/// Refuses what would nest too deep before a parser has to follow it.
fn brackets(text: &str) -> Result<(), InvalidExpression> {
    let (mut depth, mut quote, mut escaped, mut conditions, mut run) = (0_usize, None, false, 0, 0);
    for c in text.chars() {
        if let Some(end) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == end => quote = None,
                _ => {}
            }
            continue;
        }
        match c {
            '"' | '\'' => quote = Some(c),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '?' => conditions += 1,
            _ => {}
        }
        run = if matches!(c, '!' | '-') { run + 1 } else { 0 };
        if depth.max(conditions).max(run) > DEEPEST_NESTING {
            return Err(too_deep());
        }
    }
    Ok(())
}

fn too_deep() -> InvalidExpression {
    let message = format!("nests more than {DEEPEST_NESTING} levels");
    InvalidExpression::new(message, "let the app send an attribute that says it in short")
}

fn walk(node: &IdedExpr, depth: usize, nodes: &mut usize) -> Result<(), InvalidExpression> {
    *nodes += 1;
    if *nodes > MOST_NODES {
        let message = format!("has more than {MOST_NODES} parts");
        return Err(InvalidExpression::new(message, "let the app send an attribute that says it in short"));
    }
    if depth > DEEPEST_NESTING {
        return Err(too_deep());
    }
    let mut inner = |node: &IdedExpr| walk(node, depth + 1, nodes);
    match &node.expr {
        Expr::Literal(_) => Ok(()),
        Expr::Ident(name) if name == VARIABLE => Ok(()),
        Expr::Ident(name) => {
            let message = format!("reads `{name}`; the only variable is `attributes`");
            Err(InvalidExpression::new(message, EXAMPLE))
        }
        Expr::Select(select) => inner(&select.operand),
        Expr::List(list) => list.elements.iter().try_for_each(inner),
        Expr::Call(call) => {
            let is_operator = call.func_name.contains('_') || call.func_name == "@in";
            if !is_operator && !FUNCTIONS.contains(&call.func_name.as_str()) {
                let message = format!("calls `{}`, which segments do not have", call.func_name);
                let hint = "operators, `in`, `has`, size, contains, startsWith, endsWith, string, int and double can be used";
                return Err(InvalidExpression::new(message, hint));
            }
            call.target.as_deref().map_or(Ok(()), &mut inner)?;
            call.args.iter().try_for_each(inner)
        }
        Expr::Comprehension(_) => {
            let message = "loops over a list, which segments do not do";
            Err(InvalidExpression::new(message, "write `\"beta\" in attributes.groups`"))
        }
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    inner(&entry.key)?;
                    inner(&entry.value)?;
                }
            }
            Ok(())
        }
        Expr::Struct(_) | Expr::Unspecified => Err(InvalidExpression::new("builds a message", EXAMPLE)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::SegmentWeight;

    fn segment(name: &str, matcher: Matcher) -> Segment {
        let name = SegmentName::parse(name).unwrap();
        Segment { name, matcher, weight: SegmentWeight::Progressive, duration: None }
    }

    /// The segment that attributes fall into, of `staff` with an expression, `beta` by name, and everyone;
    /// and the segments that could not tell.
    fn found(expression: &str, attributes: Value) -> (&'static str, Vec<usize>) {
        let segmenter = Segmenter::new(&[
            segment("staff", Matcher::Expression(expression.to_owned())),
            segment("beta", Matcher::NamedByAttribute),
            segment("all", Matcher::Everyone),
        ])
        .unwrap_or_else(|error| panic!("{error}"));
        let Value::Object(attributes) = attributes else { panic!("attributes are an object") };
        let found = segmenter.find(&attributes);
        (["staff", "beta", "all"][found.segment], found.unreadable().collect())
    }

    const MAIL: &str = r#"attributes.email.endsWith("@acme.com")"#;

    #[test]
    fn the_first_segment_that_matches_is_taken() {
        assert_eq!(found(MAIL, json!({"email": "a@acme.com", "segment": "beta"})), ("staff", vec![]));
        assert_eq!(found(MAIL, json!({"email": "a@other.org", "segment": "beta"})), ("beta", vec![]));
        assert_eq!(found(MAIL, json!({"email": "a@other.org", "segment": "gamma"})), ("all", vec![]));
    }

    #[test]
    fn an_attribute_that_is_missing_or_of_another_type_is_no_match_and_is_told() {
        assert_eq!(found(MAIL, json!({})), ("all", vec![0, 1]));
        assert_eq!(found(MAIL, json!({"email": 7, "segment": ["beta"]})), ("all", vec![0, 1]));
        assert_eq!(found(MAIL, json!({"email": null, "segment": "beta"})), ("beta", vec![0]));
        assert_eq!(
            found("attributes.email", json!({"email": "no truth value", "segment": "x"})),
            ("all", vec![0])
        );
        let large = json!({"email": "a@acme.com", "note": "x".repeat(LARGEST_ATTRIBUTES), "segment": "beta"});
        assert_eq!(found(MAIL, large), ("beta", vec![0]), "too large to be read");
        assert_eq!(
            found(r#"has(attributes.a) && attributes.a > 3"#, json!({"segment": "x"})),
            ("all", vec![])
        );
    }

    #[test]
    fn expressions_say_what_people_write() {
        for (expression, attributes) in [
            (r#""beta" in attributes.groups"#, json!({"groups": ["alpha", "beta"]})),
            (
                r#"attributes.plan in ["team", "enterprise"] && attributes.seats >= 10"#,
                json!({"plan": "team", "seats": 10}),
            ),
            (r#"attributes["user.country"] == "DE" || attributes.test"#, json!({"user.country": "DE"})),
            (r#"attributes.org.id == 7"#, json!({"org": {"id": 7}})),
            (r#"!(attributes.age < 18)"#, json!({"age": 18})),
            (r#"size(attributes.name) > 2 && attributes.name.startsWith('Z')"#, json!({"name": "Zoë"})),
            (r#"int(attributes.level) > 3"#, json!({"level": "4"})),
            (
                r#"has(attributes.email) ? attributes.email.contains("@acme") : false"#,
                json!({"email": "x@acme.io"}),
            ),
            (r#"attributes.score > 0.5"#, json!({"score": 0.75})),
        ] {
            assert_eq!(found(expression, attributes).0, "staff", "{expression}");
        }
    }

    #[test]
    fn what_segments_do_not_have_is_refused_with_what_to_write() {
        let told = |text: &str| check(text).unwrap_err().to_string();
        assert_eq!(
            told("attributes.email.endsWith("),
            "is no CEL expression: at character 27: mismatched input '<EOF>'"
        );
        assert_eq!(told("user.email == 'x'"), "reads `user`; the only variable is `attributes`");
        assert_eq!(told("attributes.email.matches('a+')"), "calls `matches`, which segments do not have");
        assert_eq!(told("attributes.g.exists(g, g == 'x')"), "loops over a list, which segments do not do");
        assert_eq!(told("1 == 1"), "never reads `attributes`, so it is the same for every session");
        assert!(told("").starts_with("is no CEL expression: "), "{}", told(""));
        assert_eq!(
            told(&format!("attributes.a == '{}'", "x".repeat(4_096))),
            "has 4114 bytes, more than 4096"
        );
    }

    #[test]
    fn no_expression_takes_the_parser_or_the_request_path_down() {
        let fits = |head: &str, part: &str, tail: &str| {
            let times = (LONGEST_EXPRESSION - head.len() - tail.len()) / part.len();
            format!("{head}{}{tail}", part.repeat(times))
        };
        let attributes = json!({"a": "x".repeat(8_000)});
        let Value::Object(attributes) = attributes else { unreachable!("it was just written") };
        for text in [
            fits("", "(", ""),
            fits("", "[", ""),
            fits("", "{", ""),
            fits("", "!", "attributes.a"),
            fits("", "-", "attributes.a"),
            fits("", "- ", "attributes.a"),
            fits("attributes", ".a", ""),
            fits("attributes", "[0]", ""),
            fits("attributes", ".a()", ""),
            fits("true", "?true:true", ""),
            fits("attributes.a", "+attributes.a", " == ''"),
            fits("attributes.a", "||attributes.a", ""),
            fits("attributes.a", "&&attributes.a=='x'", ""),
            fits("attributes.a == ", "[0][", ""),
            fits("", "\"", ""),
            fits("", "'\\", ""),
            fits("attributes.a in [", "0,", "1]"),
            fits("[1]", ".map(y,y+y)", ""),
            fits("", "attributes.a+size(", ""),
            "attributes.a == 9223372036854775808".to_owned(),
            "attributes.a == -9223372036854775808 / -1".to_owned(),
            "\u{0}attributes.a".to_owned(),
        ] {
            let segments =
                [segment("x", Matcher::Expression(text.clone())), segment("all", Matcher::Everyone)];
            if let Ok(segmenter) = Segmenter::new(&segments) {
                segmenter.find(&attributes);
            }
        }
    }
}
