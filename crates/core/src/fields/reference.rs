//! The table as a page for people: the generated part of `docs/manifest.md`.

use std::fmt::Write as _;

use super::{Field, MANIFEST, Mapping, Presence, Rule, Shape};
use crate::lint::RULES;
use crate::metric::{Better, Kind, Tier, Unit, aliases, catalogue};

/// Every field with type, default, example and rule, as Markdown; then metrics and lint rules.
pub fn reference() -> String {
    let mut text = String::new();
    for mapping in MANIFEST.all() {
        text.push_str(&section(mapping));
    }
    text.push_str(&metrics());
    text.push_str(&lints());
    text
}

fn section(mapping: &Mapping) -> String {
    let title =
        if mapping.path.is_empty() { "The document".to_owned() } else { format!("`{}`", mapping.path) };
    let mut text = format!("## {title}\n\n{}\n\n", mapping.about);
    text.push_str("| field | type | default | example |\n| --- | --- | --- | --- |\n");
    for field in mapping.fields {
        let columns = [code(field.name), shape(&field.shape), presence(field.presence), code(field.example)];
        let row: Vec<String> = columns.iter().map(|column| column.replace('|', "\\|")).collect();
        writeln!(text, "| {} |", row.join(" | ")).expect("a string takes everything");
    }
    text.push('\n');
    for field in mapping.fields {
        writeln!(text, "- `{}`: {}", field.name, rule_of(field)).expect("a string takes everything");
    }
    for rule in mapping.rules {
        writeln!(text, "- {}", between(rule)).expect("a string takes everything");
    }
    text.push('\n');
    text
}

/// Text as code, also when it holds a backtick.
fn code(text: &str) -> String {
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

fn shape(shape: &Shape) -> String {
    let words = |words: &[&str]| words.iter().map(|word| code(word)).collect::<Vec<_>>().join(", ");
    match shape {
        Shape::Choice([only]) => format!("{} only", code(only)),
        Shape::Choice(choices) => format!("one of {}", words(choices)),
        Shape::Truth => "`true` or `false`".to_owned(),
        Shape::Text { longest } => format!("text of 1 to {longest} bytes"),
        Shape::Name { pattern: _, words } => format!("name: {words}"),
        Shape::Metric => "name of a metric".to_owned(),
        Shape::Version => "semantic version".to_owned(),
        Shape::Weight => "share: `10` or `10%`, by 0.01%".to_owned(),
        Shape::SegmentWeight => "share, or `progressive`".to_owned(),
        Shape::Duration { zero: true } => "time: `90s`, `5m`, `1h30m`, `1d`, or `0s`".to_owned(),
        Shape::Duration { zero: false } => "time: `90s`, `5m`, `1h30m`, `1d`".to_owned(),
        Shape::Count { least, most } => format!("whole number, {least} to {most}"),
        Shape::Share => "number, or percent".to_owned(),
        Shape::Number => "number".to_owned(),
        Shape::Threshold => "value in the unit of the metric".to_owned(),
        Shape::Regression => "difference: `2%`, `2pp`, `200ms`, `0.2`".to_owned(),
        Shape::Window => "part of the day".to_owned(),
        Shape::Labels => "mapping of names to texts".to_owned(),
        Shape::Pack => "PromptPack".to_owned(),
        Shape::DurationOr(mapping) => {
            format!("time such as `24h`, or mapping, [below](#{})", anchor(mapping))
        }
        Shape::Mapping(mapping) => format!("mapping, [below](#{})", anchor(mapping)),
        Shape::List { of, most, one_with: _ } => format!("list of up to {most}, [below](#{})", anchor(of)),
    }
}

/// The link target that Markdown gives to the title of a mapping.
fn anchor(mapping: &Mapping) -> String {
    mapping.path.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

fn presence(presence: Presence) -> String {
    match presence {
        Presence::Required => "required".to_owned(),
        Presence::Default(value) => code(value),
        Presence::Optional(_) => "-".to_owned(),
    }
}

fn rule_of(field: &Field) -> String {
    match field.presence {
        Presence::Optional(without) => format!("{} Without it: {without}.", field.rule),
        Presence::Required | Presence::Default(_) => field.rule.to_owned(),
    }
}

fn between(rule: &Rule) -> String {
    let listed = |names: &[&str]| names.iter().map(|name| code(name)).collect::<Vec<_>>().join(" and ");
    match rule {
        Rule::ExactlyOne(names) => {
            format!("Exactly one of {} is given.", listed(names))
        }
        Rule::Excludes(name, others) => format!("`{name}` excludes {}.", listed(others)),
        Rule::Needs(name, other) => format!("`{name}` needs `{other}`."),
        Rule::Where { field, is, needs, without } => {
            let mut says = Vec::new();
            if !needs.is_empty() {
                says.push(format!("needs {}", listed(needs)));
            }
            if !without.is_empty() {
                says.push(format!("excludes {}", listed(without)));
            }
            format!("`{field}: {is}` {}.", says.join(" and "))
        }
        Rule::WhereNot { field, is, needs } => {
            format!("Any other `{field}` than `{is}` needs {}.", listed(needs))
        }
    }
}

fn lints() -> String {
    let mut text = "\n## What `serin lint` warns of\n\nEach warning has the name of its rule, its place, and a hint.\n\n\
                    | rule | what it finds |\n| --- | --- |\n"
        .to_owned();
    for (name, finds) in RULES {
        writeln!(text, "| `{name}` | {finds} |").expect("a string takes everything");
    }
    text
}

fn metrics() -> String {
    let mut text = "## Metrics\n\nWhat a gate may name. The tier is the authority of a metric: a Degraded one of high or \
                    medium tier holds the rollout, a low one only tells, and as a gate it is a warning of `serin lint`.\n\n\
                    | metric | kind | better | tier | threshold, such as |\n| --- | --- | --- | --- | --- |\n"
        .to_owned();
    for metric in catalogue() {
        let kind = match metric.kind {
            Kind::Rate => "rate",
            Kind::ComplementRate => "rate (1 minus another)",
            Kind::Mean => "mean",
            Kind::Quantile(_) => "quantile of requests",
        };
        let better = match metric.better {
            Better::Higher => "higher",
            Better::Lower => "lower",
            Better::Watched => "neither: both sides are watched",
        };
        let tier = match metric.tier {
            Tier::High => "high",
            Tier::Medium => "medium",
            Tier::Low => "low",
        };
        let such_as = match metric.unit {
            Unit::Share => "`90%`, `0.9`",
            Unit::Millis => "`3000ms`, `3s`",
            Unit::Tokens => "`800`",
            Unit::Dollars => "`0.02`, `$0.02`",
            Unit::Rating => "`4.2`, from 1 to 5",
            Unit::Score => "`0.3`, from -1 to 1",
            Unit::Turns => "`6` requests",
            Unit::Characters => "`1200`",
            Unit::Number => "`0.2`",
        };
        writeln!(text, "| `{}` | {kind} | {better} | {tier} | {such_as} |", metric.name)
            .expect("a string takes everything");
    }
    let others: Vec<String> =
        aliases().map(|(written, meant)| format!("`{written}` for `{meant}`")).collect();
    write!(text, "\nOther usual names are understood, with a note: {}.\n", others.join(", "))
        .expect("a string takes everything");
    text
}
