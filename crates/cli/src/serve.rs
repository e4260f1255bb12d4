//! `serin serve`: the server, with its settings from flags, variables and a file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serin_server::auth::ADMIN_KEY_FILE;
use serin_server::server::{Overrides, Server};
use serin_server::settings::{Options, Settings, SettingsError};
use serin_server::{api, telemetry};

use crate::terminal::{QUIET, STRONG, paint};
use crate::told::{Exit, Told};

/// Variables that the command line reads and that are no settings.
const OWN_VARIABLES: [&str; 4] = ["SERIN_SERVER", "SERIN_KEY", "SERIN_ACTOR", "SERIN_SETTINGS"];

/// Run the server: gateway, control loop and API
///
/// Settings come from flags, `SERIN_*` variables and a file, in this order of precedence.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The settings file (YAML)
    #[arg(long, env = "SERIN_SETTINGS", value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Where the database is kept [default: serin-data]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// The address of the data plane, where apps send their requests [default: 127.0.0.1:8980]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The address of the control plane, with the API [default: 127.0.0.1:8981]
    #[arg(long, value_name = "ADDRESS")]
    control_listen: Option<String>,
    /// The base URL of the LLM provider; the one of OpenAI when left out
    #[arg(long, value_name = "URL")]
    provider: Option<String>,
    /// How the log is written: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Print the settings in force, each with its origin, and exit
    #[arg(long)]
    print_settings: bool,
}

/// Serves until it is interrupted.
pub(crate) async fn run(args: &ServeArgs) -> anyhow::Result<Exit> {
    let options = Options {
        file: args.settings.clone(),
        data_dir: args.data_dir.clone(),
        data_listen: args.listen.clone(),
        control_listen: args.control_listen.clone(),
        provider_base_url: args.provider.clone(),
        log_format: args.log_format.clone(),
    };
    let settings = Settings::load(&options, &variables()).map_err(told)?;
    if args.print_settings {
        print!("{}", settings.print());
        return Ok(Exit::Done);
    }
    telemetry::init(&settings.log)?;
    let server = Server::start(&settings, Overrides::default()).await?;
    announce(&server, &settings);
    interrupted().await?;
    anstream::eprintln!("{}", paint(QUIET, "stopping: requests under way may end"));
    server.shutdown().await;
    Ok(Exit::Done)
}

/// The variables of the environment that can be settings; text that is no UTF-8 is none.
fn variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !OWN_VARIABLES.contains(&name.as_str()))
        .collect()
}

fn told(error: SettingsError) -> anyhow::Error {
    match error {
        SettingsError::File { path, source } => {
            Told::new(format!("could not read the settings file {}: {source}", path.display())).into()
        }
        SettingsError::Problems(problems) => {
            let listed: Vec<String> = problems
                .iter()
                .map(|problem| problem.to_string().lines().map(|line| format!("  {line}\n")).collect())
                .collect();
            Told::new(format!("the settings have problems\n{}", listed.concat().trim_end()))
                .hint("`serin serve --print-settings` shows what is in force, and where it comes from")
                .into()
        }
    }
}

fn announce(server: &Server, settings: &Settings) {
    let control = format!("http://{}", server.control_addr());
    anstream::println!("data plane     {}", paint(STRONG, format!("http://{}/v1", server.data_addr())));
    anstream::println!("control plane  {}", paint(STRONG, &control));
    let provider = settings.providers.of_default().map_or("", |provider| provider.base_url.as_str());
    anstream::println!("provider       {provider}");
    anstream::println!("data folder    {}", settings.data_dir.display());
    anstream::println!("key            {}\n", key(server, settings));
    anstream::println!(
        "Point the base URL of your OpenAI client at the data plane, and publish a first pack:"
    );
    let is_default = server.control_addr().port() == 8981;
    let named = if is_default { String::new() } else { format!(" --server {control}") };
    anstream::println!("  {}", paint(STRONG, "serin init"));
    anstream::println!("  {}", paint(STRONG, format!("serin apply -f my-pack.yaml{named}")));
}

/// Where the key is that the command line needs.
fn key(server: &Server, settings: &Settings) -> String {
    let file = settings.data_dir.join(ADMIN_KEY_FILE);
    match server.first_key() {
        Some(path) => {
            format!("{} (made now, for an admin; `serin` finds it on this machine)", path.display())
        }
        None if settings.control.open => "none is asked for (control.open)".to_owned(),
        None if file.exists() => file.display().to_string(),
        None => "--key or SERIN_KEY of the command line".to_owned(),
    }
}

/// Waits for Ctrl-C, or for the signal with which service managers stop a process.
async fn interrupted() -> anyhow::Result<()> {
    const COULD_NOT: &str = "could not wait for an interrupt";
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminated = signal(SignalKind::terminate()).context(COULD_NOT)?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.context(COULD_NOT),
            _ = terminated.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.context(COULD_NOT)
}

/// The description of the HTTP API.
pub(crate) fn openapi() -> String {
    api::openapi().to_pretty_json().expect("the description holds text and numbers only")
}

/// Starts an open server inside this process, without a settings file and deaf to variables.
pub(crate) async fn start_embedded(
    data_dir: &Path,
    data: SocketAddr,
    control: SocketAddr,
    provider: &str,
) -> anyhow::Result<Server> {
    let options = Options {
        data_dir: Some(data_dir.to_string_lossy().into_owned()),
        data_listen: Some(data.to_string()),
        control_listen: Some(control.to_string()),
        provider_base_url: Some(provider.to_owned()),
        ..Options::default()
    };
    // Nobody's conversations: the users are simulated.
    let variables = [("SERIN_DRAIN", "2s"), ("SERIN_CONTROL_OPEN", "true"), ("SERIN_SAMPLES_RATE", "20%")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = Settings::load(&options, &BTreeMap::from(variables)).map_err(told)?;
    Ok(Server::start(&settings, Overrides::default()).await?)
}
