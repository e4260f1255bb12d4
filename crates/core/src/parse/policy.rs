//! The policy as written in the settings: a list of rules, in the words of the manifest.

use std::collections::BTreeSet;

use jiff::civil::{Date, Weekday};

use super::analysis::{COMPARISONS, rule as gate_rule};
use super::problem::Problems;
use super::schedule::window;
use super::walk::{Field, Fields, Spot, Walk};
use crate::access::{Permission, Role};
use crate::analysis::rule_text;
use crate::fields::{self, MOST_APPROVALS, MOST_GATES, MOST_RULES, MOST_SEGMENTS, MOST_WINDOWS};
use crate::ids::SegmentName;
use crate::manifest::{Node, Value};
use crate::metric::{self, MetricName, Resolved};
use crate::plan::Window;
use crate::policy::{
    Approvals, FreezeWindow, Policy, Promoters, RequiredGate, RequiredRule, Rule, RuleName, day_word,
};
use crate::weight::Weight;

/// The most patterns of a rule.
const MOST_PATTERNS: usize = 100;

/// What a rule may demand; one that demands nothing is a mistake.
const DEMANDS: [&str; 5] = ["maxFirstWeight", "requiredGates", "approvals", "promoteFully", "freeze"];

/// Reads the rules of a policy.
///
/// # Errors
/// [`Problems`] holds everything that is wrong with it, each problem with its place; they quote no lines.
pub fn policy(node: &Node) -> Result<Policy, Problems> {
    let mut walk = Walk::default();
    let whole = Field { spot: Spot { path: "policy".to_owned(), at: node.at }, key_at: node.at, node };
    let mut rules: Vec<Rule> = Vec::new();
    for item in walk.list(&whole, MOST_RULES) {
        let Some(rule) = rule(&mut walk, &item) else { continue };
        if rules.iter().any(|earlier| earlier.name == rule.name) {
            walk.error(&item.spot, format!("there is a rule {} already", rule.name));
        }
        rules.push(rule);
    }
    if walk.errors.is_empty() {
        Ok(Policy::new(rules, node.to_json()))
    } else {
        Err(Problems::new(walk.errors))
    }
}

fn rule(walk: &mut Walk, item: &Field<'_>) -> Option<Rule> {
    let errors = walk.errors.len();
    let fields = walk.fields(item, &fields::RULE)?;
    let name =
        walk.require(&fields, "name", "careful-start").and_then(|field| walk.read(&field, RuleName::parse));
    if walk.errors.len() == errors && DEMANDS.iter().all(|demand| fields.get(demand).is_none()) {
        let hint = format!("add one of {}", DEMANDS.join(", "));
        walk.error_with_hint(&item.key(), "the rule demands nothing", hint);
    }
    let packs =
        fields.get("packs").map(|field| list(walk, &field, MOST_PATTERNS, pattern)).unwrap_or_default();
    let labels = fields.get("labels").map(|field| walk.labels(&field)).unwrap_or_default();
    let max_first_weight = fields.get("maxFirstWeight").and_then(|field| positive_weight(walk, &field));
    let except_segments = fields.get("exceptSegments").map(|field| {
        if max_first_weight.is_none() {
            walk.error(&field.key(), "`exceptSegments` belongs to `maxFirstWeight`");
        }
        list(walk, &field, MOST_SEGMENTS, SegmentName::parse)
    });
    let required_gates = fields.get("requiredGates").map(|field| required_gates(walk, &field));
    let approvals = fields.get("approvals").and_then(|field| approvals(walk, &field));
    let promote_fully = fields.get("promoteFully").and_then(|field| promoters(walk, &field));
    let freeze = fields.get("freeze").map(|field| freeze(walk, &field)).unwrap_or_default();
    Some(Rule {
        name: name?,
        packs,
        labels,
        max_first_weight,
        except_segments: except_segments.unwrap_or_default(),
        required_gates: required_gates.unwrap_or_default(),
        approvals,
        promote_fully,
        freeze,
    })
}

/// Reads windows, each as text or as a mapping that says on which days it opens.
fn freeze(walk: &mut Walk, field: &Field<'_>) -> Vec<FreezeWindow> {
    let items = walk.list(field, MOST_WINDOWS);
    if matches!(&field.node.value, Value::List(items) if items.is_empty()) {
        walk.error_with_hint(&field.spot, "the list is empty", "leave it out, or list its windows");
    }
    items.iter().filter_map(|item| freeze_window(walk, item)).collect()
}

fn freeze_window(walk: &mut Walk, item: &Field<'_>) -> Option<FreezeWindow> {
    if let Value::Scalar(_) = &item.node.value {
        let window = part_of_the_day(walk, item)?;
        return Some(FreezeWindow { window, days: BTreeSet::new(), from: None, until: None });
    }
    let fields = walk.fields(item, &fields::FREEZE)?;
    let window = walk.require(&fields, "window", "\"18:00-08:00 Europe/Berlin\"");
    let window = window.and_then(|field| part_of_the_day(walk, &field));
    let days = fields.get("days").map(|field| list(walk, &field, DAYS.len(), day)).unwrap_or_default();
    let date = |walk: &mut Walk, field: &Option<Field<'_>>| {
        let read =
            |text: &str| text.parse::<Date>().map_err(|_| format!("{text:?} is no day such as 2026-12-20"));
        field.as_ref().and_then(|field| walk.read(field, read))
    };
    let (from, until) = (fields.get("from"), fields.get("until"));
    let (first, last) = (date(walk, &from), date(walk, &until));
    if let (Some(first), Some(last), Some(field)) = (first, last, &until)
        && last < first
    {
        walk.error(&field.spot, format!("the last day {last} lies before the first day {first}"));
    }
    Some(FreezeWindow { window: window?, days: days.into_iter().collect(), from: first, until: last })
}

fn part_of_the_day(walk: &mut Walk, field: &Field<'_>) -> Option<Window> {
    match window(&walk.scalar(field)?.text) {
        Ok(window) => Some(window),
        Err((message, hint)) => {
            walk.error_with_hint(&field.spot, message, hint);
            None
        }
    }
}

/// The days of the week, from Monday on.
const DAYS: [Weekday; 7] = [
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
    Weekday::Sunday,
];

fn day(text: &str) -> Result<i8, String> {
    let found = DAYS.into_iter().find(|day| day_word(*day) == text);
    found
        .map(Weekday::to_monday_one_offset)
        .ok_or_else(|| format!("{text:?} is none of {}", DAYS.map(day_word).join(", ")))
}

fn approvals(walk: &mut Walk, field: &Field<'_>) -> Option<Approvals> {
    let fields = walk.fields(field, &fields::APPROVALS)?;
    let count = fields.get("count").and_then(|field| walk.whole_number(&field, 1, MOST_APPROVALS));
    let before = fields.get("before").and_then(|field| positive_weight(walk, &field));
    Some(Approvals { count: count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1), before })
}

fn promoters(walk: &mut Walk, field: &Field<'_>) -> Option<Promoters> {
    let fields = walk.fields(field, &fields::PROMOTERS)?;
    if fields.get("roles").is_none() && fields.get("keys").is_none() {
        walk.error_with_hint(&field.spot, "names nobody", "add `roles: [admin]`, or `keys` by their names");
    }
    let may_promote = |role: &Role| role.may(Permission::PromoteFull);
    let role = |text: &str| {
        Role::parse(text).filter(may_promote).ok_or_else(|| {
            let known: Vec<&str> =
                Role::ALL.iter().filter(|role| may_promote(role)).map(|role| role.as_str()).collect();
            format!("{text:?} is no role that may promote; those are {}", known.join(" and "))
        })
    };
    let key = |text: &str| if text.is_empty() { Err("is empty") } else { Ok(text.to_owned()) };
    let roles = fields.get("roles").map(|field| list(walk, &field, Role::ALL.len(), role));
    let keys = fields.get("keys").map(|field| list(walk, &field, MOST_PATTERNS, key));
    Some(Promoters {
        roles: roles.unwrap_or_default().into_iter().collect(),
        keys: keys.unwrap_or_default().into_iter().collect(),
    })
}

fn positive_weight(walk: &mut Walk, field: &Field<'_>) -> Option<Weight> {
    let weight = walk.weight(field)?;
    if weight == Weight::ZERO {
        walk.error_with_hint(&field.spot, "must be above 0%", "a canary without sessions shows nothing");
    }
    Some(weight)
}

/// Reads a list of one or more texts by a parser of each.
fn list<T, E: std::fmt::Display>(
    walk: &mut Walk,
    field: &Field<'_>,
    most: usize,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Vec<T> {
    let errors = walk.errors.len();
    let items = walk.list(field, most);
    if items.is_empty() && walk.errors.len() == errors {
        walk.error_with_hint(&field.spot, "the list is empty", "leave it out, or list what it is for");
    }
    items.iter().filter_map(|item| walk.read(item, &parse)).collect()
}

fn pattern(text: &str) -> Result<String, &'static str> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '*';
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("must be the name of a pack, in which `*` stands for any number of characters")
    }
}

fn required_gates(walk: &mut Walk, field: &Field<'_>) -> Vec<RequiredGate> {
    let items = walk.list(field, MOST_GATES);
    items.iter().filter_map(|item| required_gate(walk, item)).collect()
}

/// Reads the name of a metric, or a gate as a manifest has it.
fn required_gate(walk: &mut Walk, item: &Field<'_>) -> Option<RequiredGate> {
    if let Value::Scalar(_) = &item.node.value {
        return Some(RequiredGate { metric: named(walk, item)?, rule: None });
    }
    let fields = walk.fields(item, &fields::REQUIRED_GATE)?;
    let field = walk.require(&fields, "name", "success_rate")?;
    let metric = named(walk, &field)?;
    let parts = ["threshold", "comparison", "compareTo", "maxRegression"];
    if parts.iter().all(|part| fields.get(part).is_none()) {
        return Some(RequiredGate { metric, rule: None });
    }
    let Resolved::Exact(known) = metric::resolve(metric.as_str(), &[]) else {
        let hint = "require the gate by its name alone; only the manifest knows the unit of its own outcomes";
        walk.error_with_hint(&field.spot, format!("{metric} is no metric of the catalogue"), hint);
        return None;
    };
    let comparison = fields.get("comparison").and_then(|field| walk.choice(&field, &COMPARISONS));
    let rule = gate_rule(walk, &fields, Some(&known), comparison)?;
    let rule =
        RequiredRule { rule, shown: rule_text(&known, &rule), example: example(&metric, &fields, &parts) };
    Some(RequiredGate { metric, rule: Some(rule) })
}

/// A gate of a manifest that says what is written here.
fn example(metric: &MetricName, fields: &Fields<'_>, parts: &[&str]) -> String {
    let mut text = format!("{{name: {metric}");
    for part in parts {
        let Some(field) = fields.get(part) else { continue };
        if let Value::Scalar(scalar) = &field.node.value {
            let quote = if *part == "comparison" { "\"" } else { "" };
            text.push_str(&format!(", {part}: {quote}{}{quote}", scalar.text));
        }
    }
    text + "}"
}

/// Reads the name of a metric of the catalogue, or of an outcome that manifests declare.
fn named(walk: &mut Walk, field: &Field<'_>) -> Option<MetricName> {
    let text = &walk.scalar(field)?.text;
    match metric::resolve(text, &[]) {
        Resolved::Exact(metric) | Resolved::Alias(metric) => Some(metric.name),
        Resolved::Unknown { nearest: Some(nearest) } => {
            let message = format!("no metric is called {text:?}");
            walk.error_with_hint(&field.spot, message, format!("did you mean `{nearest}`?"));
            None
        }
        Resolved::Unknown { nearest: None } => walk.read(field, MetricName::parse),
    }
}
