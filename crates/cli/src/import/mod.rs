//! `serin import`: prompts that live elsewhere become a pack, and what cannot come along is named.

mod draft;
mod langfuse;
mod openai;
mod template;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serin_core::ids::{PackName, Version};
use serin_core::manifest::At;
use serin_core::prompt::{Pack, Places};

use self::draft::{Draft, Place};
use self::template::Dialect;
use crate::manifest_file::{Source, read_text};
use crate::terminal::{GOOD, STRONG, paint};
use crate::told::{Detail, Exit, Severity, Told};

/// Make a pack of prompts from OpenAI, Langfuse, Jinja or plain text
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// Prompts: JSON of OpenAI or Langfuse (one, a list, or one a line), Jinja or text; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the files are; found out by their content and name when left out
    #[arg(long, value_name = "FORM")]
    from: Option<Form>,
    /// The name of the pack; that of a single file when left out
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The version of the pack
    #[arg(long, value_name = "VERSION", default_value = "1.0.0")]
    pack_version: String,
    /// Where the pack goes, `-` is standard output; NAME-VERSION.pack.json when left out
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Fail, and write nothing, when something cannot be carried over
    #[arg(long)]
    strict: bool,
}

/// In what form prompts come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Reusable prompts of OpenAI, as its API gives them
    Openai,
    /// Prompts of Langfuse, as its API exports them
    Langfuse,
    /// A Jinja template
    Jinja,
    /// A text with `{{variables}}`
    Text,
}

/// Reads the files and writes the pack.
pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<Exit> {
    let version = Version::parse(&args.pack_version).map_err(|error| Told::new(error.to_string()))?;
    let name = name_of(args)?;
    let mut draft = Draft::default();
    let mut losses = Vec::new();
    for file in &args.files {
        let text = read_text(file)?;
        read(file, &text, args.from, &mut draft)?;
        losses.extend(told(file, &text, draft.take_losses()));
    }
    draft.settle();
    let first = args.files.first().map(PathBuf::as_path).unwrap_or(Path::new("-"));
    losses.extend(told(first, "", draft.take_losses()));
    let pack = draft.pack(&name, &version);
    if let Err(problems) = Pack::from_value(pack.clone()) {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let message = format!("could not make a pack of these prompts: {}", problems.join("; "));
        return Err(Told { message, details: losses, hints: Vec::new() }.into());
    }
    for loss in &losses {
        anstream::eprintln!("{loss}\n");
    }
    let count = losses.len();
    if args.strict && count > 0 {
        let message = format!("{count} things could not be carried over; nothing was written");
        return Err(Told::new(message).hint("leave out --strict to write what can be").into());
    }
    let text = serde_json::to_string_pretty(&pack).expect("the pack was made of text") + "\n";
    write(args, &name, &version, &text, count)?;
    Ok(Exit::Done)
}

fn write(
    args: &ImportArgs,
    name: &PackName,
    version: &Version,
    text: &str,
    losses: usize,
) -> Result<(), Told> {
    if args.to.as_deref() == Some(Path::new("-")) {
        return std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| Told::new(format!("could not write the pack: {error}")));
    }
    let path = args.to.clone().unwrap_or_else(|| PathBuf::from(format!("{name}-{version}.pack.json")));
    let written = std::fs::File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let told = Told::new(format!("{} exists already; nothing was written", path.display()));
            told.hint("name another file with --to, or `-` for standard output")
        }
        _ => Told::new(format!("could not write {}: {error}", path.display())),
    })?;
    let lost = match losses {
        0 => "everything came along".to_owned(),
        1 => "1 thing did not come along".to_owned(),
        n => format!("{n} things did not come along"),
    };
    anstream::println!("{} {}: {lost}", paint(GOOD, "wrote"), path.display());
    anstream::println!(
        "\nNext:\n  {}  # what Serin uses of it",
        paint(STRONG, format!("serin lint {}", path.display()))
    );
    Ok(())
}

/// The name of the pack, as given or that of the only file.
fn name_of(args: &ImportArgs) -> Result<PackName, Told> {
    let stem = match &args.files[..] {
        [only] => only.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next()),
        _ => None,
    };
    let text = match (&args.name, stem) {
        (Some(name), _) => name.clone(),
        (None, Some(stem)) if stem != "-" => draft::name(stem).to_lowercase().replace('_', "-"),
        (None, _) => return Err(Told::new("the pack needs a name").hint("give it with --name")),
    };
    PackName::parse(&text).map_err(|error| Told::new(error.to_string()).hint("give another with --name"))
}

/// Reads one file into the draft.
fn read(file: &Path, text: &str, form: Option<Form>, draft: &mut Draft) -> Result<(), Told> {
    let json = documents(text);
    let form = form.unwrap_or_else(|| form_of(file, &json));
    let shown = file.display();
    match form {
        Form::Text | Form::Jinja => {
            let dialect = if form == Form::Jinja { Dialect::Jinja } else { Dialect::Plain };
            let stem =
                file.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
            let text = text.trim_end();
            if text.trim().is_empty() {
                return Err(Told::new(format!("{shown} is empty")));
            }
            draft.text_file(stem.filter(|stem| *stem != "-").unwrap_or("main"), text, dialect);
        }
        Form::Openai | Form::Langfuse => {
            let Some(documents) = json else {
                return Err(Told::new(format!("{shown} is no JSON")).hint("--from says what the file is"));
            };
            let found = match form {
                Form::Langfuse => langfuse::read(&documents, draft),
                Form::Openai | Form::Text | Form::Jinja => openai::read(&documents, draft),
            };
            if found == 0 {
                return Err(
                    Told::new(format!("{shown} holds no prompt")).hint("--from says what the file is")
                );
            }
        }
    }
    Ok(())
}

/// One object with its path in the file.
type Document = (String, Value);

/// The objects of a file: one, a list, the `data` of a page, or one in each line.
fn documents(text: &str) -> Option<Vec<Document>> {
    let listed = |base: &str, items: Vec<Value>| {
        items.into_iter().enumerate().map(|(index, item)| (format!("{base}[{index}]"), item)).collect()
    };
    match serde_json::from_str(text) {
        Ok(Value::Array(items)) => Some(listed("", items)),
        Ok(Value::Object(mut fields)) => match fields.remove("data") {
            Some(Value::Array(items)) => Some(listed("data", items)),
            Some(other) => {
                fields.insert("data".to_owned(), other);
                Some(vec![(String::new(), Value::Object(fields))])
            }
            None => Some(vec![(String::new(), Value::Object(fields))]),
        },
        Ok(_) => None,
        Err(_) => {
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let read = lines
                .map(|(index, line)| Some((format!("line {}", index + 1), serde_json::from_str(line).ok()?)));
            let documents: Option<Vec<Document>> = read.collect();
            documents.filter(|documents| documents.iter().all(|(_, value)| value.is_object()))
        }
    }
}

/// What a file is, by its content and its name.
fn form_of(file: &Path, documents: &Option<Vec<Document>>) -> Form {
    if let Some((_, first)) = documents.as_ref().and_then(|documents| documents.first()) {
        let is_langfuse = first.get("prompt").is_some_and(|prompt| prompt.is_string() || prompt.is_array());
        return if is_langfuse { Form::Langfuse } else { Form::Openai };
    }
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if [".j2", ".jinja", ".jinja2"].iter().any(|end| name.ends_with(end)) { Form::Jinja } else { Form::Text }
}

/// Losses as they are shown.
fn told(file: &Path, text: &str, losses: Vec<draft::Loss>) -> Vec<Detail> {
    let source = Source { name: file.display().to_string(), text };
    let places = Places::of(text);
    let line_of = |path: &str| {
        let line = path.strip_prefix("line ")?.split(['.', '[']).next()?.parse().ok()?;
        Some(At { line, column: 1 })
    };
    losses
        .into_iter()
        .map(|loss| {
            let (path, at) = match loss.place {
                Place::Path(path) => {
                    let at = line_of(&path).unwrap_or_else(|| places.at(&path));
                    (path, at)
                }
                Place::At(at) => (String::new(), at),
            };
            source.detail(Severity::Warning, &path, at, &loss.message, loss.hint.as_deref())
        })
        .collect()
}
