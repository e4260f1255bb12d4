//! `serin render`: the text that a model would get.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serin_core::ids::PromptName;
use serin_core::prompt::{Pack, RenderError, VariableType};

use crate::api::{Client, ServerArgs};
use crate::manifest_file;
use crate::terminal::{Output, OutputFlag};
use crate::told::{Exit, Told};

/// Show the text that a model gets, with values filled in
#[derive(Debug, clap::Args)]
pub(crate) struct RenderArgs {
    /// A prompt: FILE/PROMPT of a pack file or manifest, or PACK/PROMPT on the server; the prompt's
    /// name may be left out when there is only one
    #[arg(value_name = "PACK/PROMPT")]
    prompt: String,
    /// A value for a variable; numbers, lists and objects as JSON
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// Which version of a pack on the server; stable when left out
    #[arg(long, value_name = "VERSION")]
    pack_version: Option<String>,
    /// The model that is asked, where a prompt is different for some models
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    output: OutputFlag,
    #[command(flatten)]
    server: ServerArgs,
}

/// Reads `name=value`.
fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("{text:?} is no NAME=VALUE")),
    }
}

/// Renders a prompt and prints its text.
pub(crate) async fn run(args: &RenderArgs) -> anyhow::Result<Exit> {
    let (pack, prompt) = find(args).await?;
    let prompt = match prompt {
        Some(name) => PromptName::parse(&name).map_err(|reason| Told::new(reason.to_string()))?,
        None => only_prompt(&pack)?,
    };
    let values = values(&pack, &prompt, &args.variables)?;
    let rendered =
        pack.render(&prompt, args.model.as_deref(), &values).map_err(|error| refused(&error, args))?;
    match args.output.output {
        Output::Table => anstream::println!("{}", rendered.system),
        Output::Json | Output::Yaml => {
            let mut answer = serde_json::json!({
                "pack": pack.id().to_string(),
                "version": pack.version().to_string(),
                "prompt": rendered.prompt.to_string(),
                "system": rendered.system,
                "parameters": rendered.parameters,
            });
            if let Some(model) = rendered.model {
                answer["model"] = model.into();
            }
            if !rendered.tools.is_empty() {
                answer["tools"] = rendered.tools.iter().map(|tool| serde_json::json!(**tool)).collect();
            }
            args.output.print(&answer, ToString::to_string)?;
        }
    }
    Ok(Exit::Done)
}

/// The pack that is meant, and the name of the prompt if it was given.
async fn find(args: &RenderArgs) -> anyhow::Result<(Pack, Option<String>)> {
    let named = Path::new(&args.prompt);
    if named.is_file() {
        return Ok((read_pack(named)?, None));
    }
    let (before, prompt) = match args.prompt.rsplit_once('/') {
        Some((before, prompt)) => (before, Some(prompt.to_owned())),
        None => (args.prompt.as_str(), None),
    };
    if prompt.is_some() && Path::new(before).is_file() {
        return Ok((read_pack(Path::new(before))?, prompt));
    }
    let is_path = |text: &str| text.contains('/') || text.ends_with(".json") || text.ends_with(".yaml");
    if is_path(before) || (prompt.is_none() && is_path(&args.prompt)) {
        let told = Told::new(format!("could not find a pack file in {:?}", args.prompt));
        return Err(told.hint("name a file and a prompt in it: support.pack.json/support").into());
    }
    let content = Client::new(&args.server)?.pack_content(before, args.pack_version.as_deref()).await?;
    let pack = Pack::stored_value(content)
        .map_err(|problems| Told::new(format!("the server's pack cannot be rendered: {}", problems[0])))?;
    Ok((pack, prompt))
}

/// The prompts of a pack file, or of the manifest that names it.
fn read_pack(path: &Path) -> Result<Pack, Told> {
    let text = manifest_file::read_text(path)?;
    if let Ok(pack) = Pack::parse(&text) {
        return Ok(pack);
    }
    if serde_json::from_str::<Value>(&text).is_ok_and(|json| json.get("prompts").is_some()) {
        let details = manifest_file::examine(path)?.details;
        let message = format!("{} cannot be rendered as it stands", path.display());
        return Err(Told { message, details, hints: Vec::new() });
    }
    let version_only = || {
        Told::new(format!("{} has no prompts of its own", path.display()))
            .hint("a manifest without `spec.source` is version only: its prompts are held by the app")
    };
    manifest_file::load(&PathBuf::from(path))?.pack.ok_or_else(version_only)
}

fn only_prompt(pack: &Pack) -> Result<PromptName, Told> {
    let mut names = pack.prompts().keys();
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only.clone()),
        (Some(_), Some(_)) | (None, _) => {
            let known: Vec<String> = pack.prompts().keys().map(ToString::to_string).collect();
            Err(Told::new(format!("pack {} has several prompts: {}", pack.id(), known.join(", "))).hint(
                format!("name one of them: {}/{}", pack.id(), known.first().map_or("", String::as_str)),
            ))
        }
    }
}

/// The values as the types of their variables have them.
fn values(
    pack: &Pack,
    prompt: &PromptName,
    given: &[(String, String)],
) -> Result<BTreeMap<String, Value>, Told> {
    let mut values = BTreeMap::new();
    for (name, text) in given {
        let declared = pack
            .prompts()
            .get(prompt)
            .and_then(|prompt| prompt.variables.iter().find(|variable| variable.name == *name));
        let value = match declared.map(|variable| variable.kind) {
            Some(VariableType::String) | None => Value::String(text.clone()),
            Some(kind) => serde_json::from_str(text).map_err(|_| {
                Told::new(format!("variable {name} is {}, and {text:?} is none", kind.name()))
                    .hint(format!("write it as JSON: --var '{name}=[\"a\",\"b\"]'"))
            })?,
        };
        if values.insert(name.clone(), value).is_some() {
            return Err(Told::new(format!("variable {name} is given twice")));
        }
    }
    Ok(values)
}

fn refused(error: &RenderError, args: &RenderArgs) -> Told {
    let told = Told::new(format!("could not render {}: {error}", args.prompt));
    match error {
        RenderError::MissingVariables { missing, .. } => {
            let flags: Vec<String> = missing.iter().map(|name| format!("--var {name}=…")).collect();
            told.hint(format!("add {}", flags.join(" ")))
        }
        RenderError::UnknownPrompt { .. }
        | RenderError::UnknownVariables { .. }
        | RenderError::WrongType { .. }
        | RenderError::Invalid { .. } => told,
    }
}
