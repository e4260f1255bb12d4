//! `serin provider`: the stand-in LLM provider, to try things without a key.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use serin_provider::{Provider, Reach, Script, Tls, Versions};

use crate::manifest_file::read_text;
use crate::terminal::{STRONG, paint};
use crate::told::{Detail, Exit, Severity, Told};

/// Run the stand-in LLM provider, which answers by a script
///
/// It speaks the OpenAI chat completions API: streams, tool calls, refusals, rate limits and broken
/// connections. What it answers is scripted per system prompt, so that a worse prompt really gets
/// worse answers.
#[derive(Debug, clap::Args)]
pub(crate) struct ProviderArgs {
    /// The script that says what is answered; the one of `serin demo` when left out
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// The address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8990", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The certificate to speak TLS with (PEM); clients may then choose HTTP/2
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// Reads the script and answers until it is interrupted.
pub(crate) async fn run(args: &ProviderArgs) -> anyhow::Result<Exit> {
    let script = match &args.script {
        Some(path) => {
            let text = read_text(path)?;
            Script::parse(&text).map_err(|error| {
                let place = |n| u32::try_from(n).unwrap_or(u32::MAX);
                let detail = Detail {
                    rule: None,
                    severity: Severity::Error,
                    message: error.message.clone(),
                    file: path.display().to_string(),
                    path: String::new(),
                    line: place(error.line),
                    column: place(error.column),
                    excerpt: None,
                    hint: None,
                };
                let message = format!("could not read the script {}", path.display());
                Told { message, details: vec![detail], hints: Vec::new() }
            })?
        }
        None => crate::demo::script(),
    };
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::read(certificate, key)?),
        (None, _) | (_, None) => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let reach = Reach { tls, versions: Versions::Both };
    let provider = Provider::start_with(script, args.listen, &reach).await;
    let provider = provider.context("the stand-in provider did not start")?;
    let address = format!("{scheme}://{}", provider.addr());
    anstream::println!("stand-in provider  {}", paint(STRONG, format!("{address}/v1")));
    anstream::println!("counters           {address}/stand-in/stats");
    tokio::signal::ctrl_c().await.context("could not wait for an interrupt")?;
    provider.shutdown().await;
    Ok(Exit::Done)
}
