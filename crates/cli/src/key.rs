//! `serin key`: makes, lists and revokes the keys that people, pipelines and apps show.

use clap::ValueEnum;
use serin_core::ids::PackName;
use serin_server::api::types::{KeyCreated, KeyList, KeyRequest, KeyView, Role};
use serin_server::auth::{hash_of, new_key, random};

use crate::api::{Client, ServerArgs};
use crate::status::pack_name;
use crate::terminal::{BAD, Cell, GOOD, OutputFlag, QUIET, STRONG, Table, ago, paint};
use crate::told::{Exit, Told};

/// Make, list and revoke keys
///
/// A key opens the control plane for a person or a pipeline, or the data plane for an app. It is shown
/// once; the server keeps its hash.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a key; it is the only thing on standard output
    Create(CreateArgs),
    /// List all keys; none is shown itself
    List {
        #[command(flatten)]
        output: OutputFlag,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Revoke a key at once, with the sessions that it began
    Revoke {
        /// The name or the id of the key
        name: String,
        /// Why; kept in the audit log
        #[arg(long, short, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        output: OutputFlag,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// What people call it, and what the audit log says
    name: String,
    /// What it is good for
    #[arg(long, value_enum, value_name = "ROLE")]
    role: RoleArg,
    /// The packs that it is good for; all of them when left out
    #[arg(long, value_parser = pack_name, value_delimiter = ',', value_name = "PACK")]
    packs: Vec<PackName>,
    /// How long it is good for, such as 90d; for good when left out
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// Let it read the text of prompts although its role does not bring that
    #[arg(long)]
    read_prompts: bool,
    /// Ask no server; print the entry for `control.keys` of the settings besides
    #[arg(long, conflicts_with = "expires")]
    offline: bool,
    #[command(flatten)]
    output: OutputFlag,
    #[command(flatten)]
    server: ServerArgs,
}

/// The roles, as flags have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    /// Sees everything but the text of prompts
    Viewer,
    /// Applies manifests, and rolls back
    Engineer,
    /// Pauses, resumes, approves, promotes, rolls back, retries
    Operator,
    /// Does everything, and makes keys
    Admin,
    /// An app: resolves, sends chats and reports
    Data,
    /// A monitoring system: says which alerts fire
    Alerts,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Engineer => Self::Engineer,
            RoleArg::Operator => Self::Operator,
            RoleArg::Admin => Self::Admin,
            RoleArg::Data => Self::Data,
            RoleArg::Alerts => Self::Alerts,
        }
    }
}

/// Makes, lists or revokes.
pub(crate) async fn run(args: &KeyArgs) -> anyhow::Result<Exit> {
    match &args.what {
        What::Create(create) if create.offline => {
            offline(create)?;
        }
        What::Create(create) => {
            let created = Client::new(&create.server)?.create_key(&request(create)).await?;
            anstream::eprintln!("{}", about(&created));
            create.output.print(&created, |created| created.key.clone())?;
        }
        What::List { output, server } => output.print(&Client::new(server)?.keys().await?, table)?,
        What::Revoke { name, reason, output, server } => {
            let revoked = Client::new(server)?.revoke_key(name, reason.as_deref()).await?;
            output.print(&revoked, |key| {
                paint(GOOD, format!("the key {} is good for nothing now", key.name))
            })?;
        }
    }
    Ok(Exit::Done)
}

fn request(args: &CreateArgs) -> KeyRequest {
    let packs: Vec<String> = args.packs.iter().map(ToString::to_string).collect();
    KeyRequest {
        name: args.name.clone(),
        role: args.role.into(),
        packs: (!packs.is_empty()).then_some(packs),
        read_prompts: args.read_prompts,
        expires_in: args.expires.clone(),
    }
}

/// What is said beside a new key.
fn about(created: &KeyCreated) -> String {
    let KeyView { name, role, packs, expires_at, .. } = &created.info;
    let packs = packs.as_ref().map_or_else(|| "all packs".to_owned(), |packs| packs.join(", "));
    let until = expires_at.map_or_else(String::new, |at| format!(", until {at:.0}"));
    let how = match role {
        Role::Data => "apps send it as `x-serin-key`",
        Role::Alerts => "monitoring sends it to `/api/v1/alerts` as `Authorization: Bearer`",
        Role::Viewer | Role::Engineer | Role::Operator | Role::Admin => "use it with SERIN_KEY or --key",
    };
    let first = paint(GOOD, format!("key {name}: {role} for {packs}{until}"));
    format!("{first}\n{}", paint(QUIET, format!("it is shown this once; {how}")))
}

/// A key that the settings are to name.
fn offline(args: &CreateArgs) -> anyhow::Result<()> {
    if args.name.is_empty() || args.name.chars().any(|c| c.is_control() || "\"\\".contains(c)) {
        return Err(Told::new(format!("the name {:?} cannot stand in the settings", args.name)).into());
    }
    let key = new_key(random());
    let role = Role::from(args.role);
    let packs: Vec<&str> = args.packs.iter().map(PackName::as_str).collect();
    let packs = if packs.is_empty() { String::new() } else { format!(", packs: [{}]", packs.join(", ")) };
    let prompts = if args.read_prompts { ", readPrompts: true" } else { "" };
    anstream::eprintln!("{}", paint(QUIET, "add this to the settings of the server, and start it anew:"));
    anstream::eprintln!(
        "control:\n  keys:\n    - {{name: \"{}\", role: {role}{packs}{prompts}, keyHash: \"{}\"}}",
        args.name,
        hash_of(&key).to_hex()
    );
    println!("{key}");
    Ok(())
}

fn table(list: &KeyList) -> String {
    if list.keys.is_empty() {
        return "no keys: the server is open on its machine; `serin key create` makes the first one"
            .to_owned();
    }
    let now = jiff::Timestamp::now();
    let mut table = Table::new(&["KEY", "ROLE", "PACKS", "MADE", "BY", "EXPIRES", "LAST USE"]);
    for key in &list.keys {
        let expires = match (key.expired, key.expires_at) {
            (true, _) => Cell::left("expired").style(BAD),
            (false, Some(at)) => Cell::left(format!("{at:.0}")),
            (false, None) => Cell::left("never").style(QUIET),
        };
        let role = if key.read_prompts && !matches!(key.role, Role::Engineer | Role::Admin) {
            format!("{}, reads prompts", key.role)
        } else {
            key.role.to_string()
        };
        table.row([
            Cell::left(&key.name).style(STRONG),
            Cell::left(role),
            Cell::left(key.packs.as_ref().map_or_else(|| "all".to_owned(), |packs| packs.join(", "))),
            Cell::left(key.created_at.map_or_else(|| "in the settings".to_owned(), |at| ago(at, now))),
            Cell::left(key.created_by.as_deref().unwrap_or("-")),
            expires,
            Cell::left(key.last_used_at.map_or_else(|| "never".to_owned(), |at| ago(at, now))),
        ]);
    }
    table.to_string()
}
