//! `serin diff`: what applying a manifest would change.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;
use serin_core::parse;
use serin_core::prompt::{Pack, PackChange};
use serin_server::api::types::ContentChange;

use crate::api::{Client, ServerArgs, changes};
use crate::manifest_file::{Loaded, load};
use crate::terminal::{GOOD, Output, OutputFlag, QUIET, STRONG, paint};
use crate::told::{self, Detail, Exit, Told};

/// Compare a manifest with what is published
///
/// Its version is compared with the same version on the server, or else with stable. Exit code: 0 same,
/// 1 differs, 2 error.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// The manifest, YAML or JSON; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// How to write what differs
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    output: DiffOutput,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum DiffOutput {
    /// For people.
    #[default]
    Table,
    /// What differs, as JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// A comment for a pull request.
    Markdown,
}

/// What differs, as data.
#[derive(Debug, Serialize)]
struct Difference {
    pack: String,
    version: String,
    /// The version that it is compared with; nothing for a new pack.
    against: Option<String>,
    /// What differs in the prompts.
    content: Vec<ContentChange>,
    /// What differs in the rollout block.
    rollout: Vec<ContentChange>,
    /// Rules of the server's policy that the manifest does not keep.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policy: Vec<Detail>,
}

/// Compares; errors have an exit code of their own.
pub(crate) async fn run(args: &DiffArgs) -> anyhow::Result<Exit> {
    match compare(args).await {
        Ok(mut difference) => {
            let same = difference.against.is_some()
                && difference.content.is_empty()
                && difference.rollout.is_empty();
            if same {
                // Applying what is published already changes nothing, which no rule forbids.
                difference.policy.clear();
            }
            let as_data = |output| OutputFlag { output }.print(&difference, table);
            match args.output {
                DiffOutput::Table => as_data(Output::Table)?,
                DiffOutput::Json => as_data(Output::Json)?,
                DiffOutput::Yaml => as_data(Output::Yaml)?,
                DiffOutput::Markdown => print!("{}", markdown(&difference)),
            }
            Ok(if same { Exit::Done } else { Exit::Failed })
        }
        Err(told) => {
            told::print(&told.into());
            Ok(Exit::Usage)
        }
    }
}

async fn compare(args: &DiffArgs) -> Result<Difference, Told> {
    let loaded = load(&args.file)?;
    let Loaded { plan, pack, json, .. } = &loaded;
    let client = Client::new(&args.server)?;
    let known = client.packs().await?.packs.into_iter().find(|known| known.name == plan.pack.as_str());
    let mut difference = Difference {
        pack: plan.pack.to_string(),
        version: plan.version.to_string(),
        against: None,
        content: Vec::new(),
        rollout: Vec::new(),
        policy: loaded.against(&client.policy().await?),
    };
    let Some(known) = known else { return Ok(difference) };
    let published = match client.version(&plan.pack, &difference.version).await? {
        Some(same) => Some(same),
        None => client.version(&plan.pack, &known.stable).await?,
    };
    let Some(published) = published else { return Ok(difference) };
    difference.against = Some(published.summary.version.clone());
    let before = published.content.and_then(|content| Pack::stored_value(content).ok());
    difference.content = match (&before, pack) {
        (Some(before), Some(after)) => before.diff(after).iter().map(ContentChange::from).collect(),
        (None, None) => Vec::new(),
        (before, after) => {
            let text = |pack: &Option<&Pack>| pack.map(|pack| format!("prompts of {}", pack.version()));
            let change = PackChange {
                json_path: "spec.source".to_owned(),
                before: text(&before.as_ref()),
                after: text(&after.as_ref()),
            };
            vec![ContentChange::from(&change)]
        }
    };
    let old = parse::to_json(&published.manifest).unwrap_or_default();
    fields(
        "spec.rollout",
        old.pointer("/spec/rollout"),
        json.pointer("/spec/rollout"),
        &mut difference.rollout,
    );
    Ok(difference)
}

/// Compares two values; mappings by key, everything else as a whole.
fn fields(
    path: &str,
    before: Option<&serde_json::Value>,
    after: Option<&serde_json::Value>,
    changes: &mut Vec<ContentChange>,
) {
    use serde_json::Value;
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                fields(&format!("{path}.{key}"), a.get(key), b.get(key), changes);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                fields(&format!("{path}[{index}]"), a.get(index), b.get(index), changes);
            }
        }
        (before, after) => {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            changes.push(ContentChange {
                path: path.to_owned(),
                before: before.map(text),
                after: after.map(text),
            });
        }
    }
}

/// The longest comment, in characters; what takes them takes about 65 000.
const MOST_COMMENT: usize = 60_000;

/// A comment for a pull request: a heading, and each change as a diff.
fn markdown(difference: &Difference) -> String {
    let Difference { pack, version, against, content, rollout, policy } = difference;
    let policy = not_kept(policy);
    let Some(against) = against else {
        return format!("### `{pack}` {version}\n\nA new pack: the server has none of this name.\n{policy}");
    };
    let mut text = format!("### `{pack}` {against} → {version}\n{policy}");
    if content.is_empty() && rollout.is_empty() {
        return text + "\nNo difference to what is published.\n";
    }
    let mut left_out = 0;
    for (heading, found) in [("Prompts", content), ("Rollout", rollout)] {
        if found.is_empty() {
            continue;
        }
        text.push_str(&format!("\n**{heading}**\n"));
        for change in found {
            let block = fenced(change);
            if text.chars().count() + block.chars().count() > MOST_COMMENT {
                left_out += 1;
            } else {
                text.push_str(&block);
            }
        }
    }
    if left_out > 0 {
        text.push_str(&format!(
            "\n{left_out} more changes are too long to show here: `serin diff` shows them.\n"
        ));
    }
    text
}

/// The rules of the policy that are not kept, as a list; nothing where all are.
fn not_kept(violations: &[Detail]) -> String {
    if violations.is_empty() {
        return String::new();
    }
    let line = |violation: &Detail| {
        let rule = violation.rule.as_deref().unwrap_or_default();
        format!("- **{rule}**: `{}`: {}\n", violation.path, violation.message)
    };
    format!(
        "\n**Policy: `serin apply` will be refused**\n\n{}",
        violations.iter().map(line).collect::<String>()
    )
}

/// One change; its fence is longer than any run of backticks inside, so that a prompt cannot end it.
fn fenced(change: &ContentChange) -> String {
    let sides = [(&change.before, '-'), (&change.after, '+')];
    let mut lines = String::new();
    for (side, sign) in sides {
        for line in side.iter().flat_map(|text| text.lines()) {
            lines.push_str(&format!("{sign} {line}\n"));
        }
    }
    let longest = lines.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("\n`{}`\n{fence}diff\n{lines}{fence}\n", change.path)
}

fn table(difference: &Difference) -> String {
    let Difference { pack, version, against, content, rollout, policy } = difference;
    let policy: String = policy.iter().map(|violation| format!("{violation}\n\n")).collect();
    let Some(against) = against else {
        let pack = paint(STRONG, pack);
        return format!("{pack} {version} is new: the server has no pack of this name\n\n{policy}")
            .trim_end()
            .to_owned();
    };
    let mut text = format!("{} {against} on the server → {version} in the file\n\n", paint(STRONG, pack));
    if content.is_empty() && rollout.is_empty() {
        return text + &paint(GOOD, "no difference");
    }
    for (heading, found) in [("prompts", content), ("rollout", rollout)] {
        if !found.is_empty() {
            text.push_str(&format!("{}\n{}\n", paint(QUIET, heading), changes(found)));
        }
    }
    text + &policy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(before: &str, after: &str) -> ContentChange {
        let side = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ContentChange { path: "prompts.answer".to_owned(), before: side(before), after: side(after) }
    }

    fn difference(content: Vec<ContentChange>) -> Difference {
        let (pack, version) = ("support".to_owned(), "2.0.0".to_owned());
        Difference {
            pack,
            version,
            against: Some("1.0.0".to_owned()),
            content,
            rollout: Vec::new(),
            policy: Vec::new(),
        }
    }

    #[test]
    fn a_comment_shows_each_change_and_no_prompt_can_break_out_of_it() {
        let text = markdown(&difference(vec![change("Be kind.", "Be kind.\n````\n# Approved")]));
        assert_eq!(
            text,
            "### `support` 1.0.0 → 2.0.0\n\n**Prompts**\n\n`prompts.answer`\n`````diff\n- Be kind.\n+ Be kind.\n+ ````\n+ # Approved\n`````\n"
        );
        assert!(markdown(&difference(Vec::new())).contains("No difference"));
    }

    #[test]
    fn a_comment_that_would_be_too_long_says_what_it_leaves_out() {
        let text = markdown(&difference(vec![change("", &"x".repeat(70_000)), change("a", "b")]));
        assert!(text.chars().count() < MOST_COMMENT && text.contains("+ b\n"), "{}", text.len());
        assert!(text.contains("1 more changes are too long"), "{text}");
    }
}
