//! `serin init`: a first pack and manifest from the text of a prompt.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use serin_core::ids::PackName;
use serin_core::prompt::Pack;

use crate::terminal::{GOOD, STRONG, paint};
use crate::told::{Exit, Told};

/// The version of what is written.
const FIRST_VERSION: &str = "1.0.0";

/// The prompt's name in the pack.
const PROMPT: &str = "main";

/// Write a first pack and manifest from the text of a prompt
#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// The folder to write into
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
    /// The name of the pack: lower-case letters, digits and dashes
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A file with the text of the prompt, or the text itself; `{{name}}` stands for a variable
    #[arg(long, value_name = "FILE|TEXT")]
    prompt: Option<String>,
}

/// Writes the two files; what exists is left alone.
pub(crate) fn run(args: &InitArgs) -> anyhow::Result<Exit> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => ask("Name of the pack", "my-pack", "--name")?,
    };
    let name = PackName::parse(&name).map_err(|error| Told::new(error.to_string()))?;
    let prompt = match &args.prompt {
        Some(prompt) => prompt.clone(),
        None => {
            ask("The prompt, or a file with it", "You are a friendly assistant of {{company}}.", "--prompt")?
        }
    };
    let path = Path::new(&prompt);
    let text = if path.is_file() { crate::manifest_file::read_text(path)? } else { prompt };
    let text = text.trim();
    if text.is_empty() {
        return Err(Told::new("the prompt is empty").into());
    }

    let pack = pack(&name, text);
    if let Err(problems) = Pack::from_value(pack.clone()) {
        let told = Told::new(format!("could not make a pack of this prompt: {}", problems[0].message));
        return Err(told.hint("`{{name}}` stands for a variable, with a-z, 0-9 and _ in its name").into());
    }
    let pack_file = format!("{name}-{FIRST_VERSION}.pack.json");
    let pack_text = serde_json::to_string_pretty(&pack).expect("the pack was made of text") + "\n";
    let manifest_file = format!("{name}.yaml");
    let folder = if args.folder == Path::new(".") { Path::new("") } else { args.folder.as_path() };
    let wanted = [(pack_file.as_str(), pack_text), (manifest_file.as_str(), manifest(&name, &pack_file))];
    let wanted = wanted.map(|(file, text)| (folder.join(file), text));
    if let Some((path, _)) = wanted.iter().find(|(path, _)| path.exists()) {
        let told = Told::new(format!("{} exists already; nothing was written", path.display()));
        return Err(told.hint("choose another --name, or another folder").into());
    }
    let failed = |path: &Path, error| Told::new(format!("could not write {}: {error}", path.display()));
    std::fs::create_dir_all(&args.folder).map_err(|error| failed(&args.folder, error))?;
    for (path, text) in &wanted {
        std::fs::File::create_new(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| failed(path, error))?;
        anstream::println!("{} {}", paint(GOOD, "wrote"), path.display());
    }
    let manifest = wanted[1].0.display();
    anstream::println!("\nNext:");
    for (command, why) in [
        (format!("serin lint -f {manifest}"), "checks both files"),
        (format!("serin render {manifest}{}", flags_of(text)), "shows what the model gets"),
        ("serin serve".to_owned(), "starts the server"),
        (format!("serin apply -f {manifest}"), "publishes it; the first version is stable at once"),
    ] {
        anstream::println!("  {}  # {why}", paint(STRONG, command));
    }
    Ok(Exit::Done)
}

/// Asks on the terminal; elsewhere the flag has to be given.
fn ask(question: &str, default: &str, flag: &str) -> Result<String, Told> {
    if !std::io::stdin().is_terminal() {
        return Err(Told::new(format!("{flag} is missing, and there is no terminal to ask on"))
            .hint(format!("serin init --name {} --prompt prompt.txt", "my-pack")));
    }
    anstream::eprint!("{question} [{default}]: ");
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Told::new(format!("could not read the answer: {error}")))?;
    let line = line.trim();
    Ok(if line.is_empty() { default.to_owned() } else { line.to_owned() })
}

/// The variables of a prompt in the order of their first use.
fn variables(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for part in text.split("{{").skip(1) {
        let Some((name, _)) = part.split_once("}}") else { continue };
        let name = name.trim();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn flags_of(text: &str) -> String {
    variables(text).iter().map(|name| format!(" --var {name}=…")).collect()
}

fn pack(name: &PackName, text: &str) -> serde_json::Value {
    let variables: Vec<serde_json::Value> = variables(text)
        .iter()
        .map(|name| json!({ "name": name, "type": "string", "required": true }))
        .collect();
    let title = name.as_str().replace('-', " ");
    json!({
        "$schema": "https://promptpack.org/schema/latest/promptpack.schema.json",
        "id": name.as_str(),
        "name": title,
        "version": FIRST_VERSION,
        "template_engine": { "version": "v1", "syntax": "{{variable}}" },
        "prompts": {
            PROMPT: {
                "id": PROMPT,
                "name": title,
                "version": FIRST_VERSION,
                "system_template": text,
                "variables": variables,
            }
        }
    })
}

fn manifest(name: &PackName, pack_file: &str) -> String {
    format!(
        r#"# The first version is stable at once. Change the prompt, raise `version` here and in the pack
# file, and `serin apply -f` ships the change to 10 % of the new sessions first.
apiVersion: {}
kind: {}
metadata:
  name: {name}
spec:
  version: "{FIRST_VERSION}"
  source:
    file: {pack_file}
  rollout:
    strategy: canary
    canaryWeight: 10            # percent of the new sessions
    stepWeight: 10              # so much more with each step
    stepInterval: 5m
    analysis:
      interval: 1m              # a check each minute
      metrics:
        - name: success_rate
          threshold: 90%
          comparison: ">="
        - name: latency_p95
          threshold: 10s
          comparison: "<="
"#,
        serin_core::parse::API_VERSION,
        serin_core::parse::KIND,
    )
}
