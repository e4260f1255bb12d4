//! `serin`: the one binary.

mod analyze;
mod api;
mod apply;
mod audit;
mod check;
mod demo;
mod diff;
#[cfg(test)]
mod examples_of_pipelines;
mod explain;
mod exposure;
mod import;
mod init;
mod junit;
mod key;
mod key_file;
mod lint;
mod list;
mod live;
mod manifest_file;
mod notify;
mod order;
mod plan;
mod provider;
mod render;
mod samples;
mod schema;
mod serve;
mod simulate;
mod status;
mod status_view;
mod terminal;
mod timetable;
mod told;
mod traffic;
mod wait;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::told::Exit;

/// Ships changes to LLM prompts as canaries: a small share of live sessions first, more while the
/// evidence is good, and back to the old version by itself when it is not.
#[derive(Debug, Parser)]
#[command(name = "serin", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Serve(serve::ServeArgs),
    Init(init::InitArgs),
    Import(import::ImportArgs),
    Render(render::RenderArgs),
    Lint(lint::LintArgs),
    Schema(schema::SchemaArgs),
    Check(check::CheckArgs),
    Diff(diff::DiffArgs),
    Plan(plan::PlanArgs),
    Simulate(simulate::SimulateArgs),
    Analyze(analyze::AnalyzeArgs),
    Apply(apply::ApplyArgs),
    Get(list::GetArgs),
    Status(status::StatusArgs),
    /// Stop a rollout where it is; sessions keep their versions, gates keep judging
    Pause(order::OrderArgs),
    /// Let a paused rollout go on
    Resume(order::OrderArgs),
    /// Approve the step that waits for it
    Approve(order::ForwardArgs),
    /// Enter the next step now, past every hold but a failing check
    Promote(order::PromoteArgs),
    /// Send everyone back to stable; on an idle pack, back to the stable version before
    Rollback(order::OrderArgs),
    /// Try a version again that was rolled back
    Retry(order::ForwardArgs),
    History(list::HistoryArgs),
    Exposure(exposure::ExposureArgs),
    Explain(explain::ExplainArgs),
    Samples(samples::SamplesArgs),
    Audit(audit::AuditArgs),
    Oncall(list::OncallArgs),
    Notify(notify::NotifyArgs),
    Key(key::KeyArgs),
    Provider(provider::ProviderArgs),
    /// Print the description of the HTTP API (OpenAPI, JSON)
    Openapi,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Every TLS connection of this process uses it; an error means that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            told::print(&anyhow::Error::new(error).context("could not start"));
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            told::print(&error);
            Exit::Failed.into()
        }
    }
}

async fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Demo(args) => demo::run(&args).await,
        Command::Serve(args) => serve::run(&args).await,
        Command::Init(args) => init::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Render(args) => render::run(&args).await,
        Command::Lint(args) => lint::run(&args).await,
        Command::Check(args) => check::run(&args).await,
        Command::Schema(args) => Ok(schema::run(&args)),
        Command::Diff(args) => diff::run(&args).await,
        Command::Plan(args) => plan::run(&args).await,
        Command::Simulate(args) => simulate::run(&args).await,
        Command::Analyze(args) => analyze::run(&args),
        Command::Apply(args) => apply::run(&args).await,
        Command::Get(args) => list::get(&args).await,
        Command::Status(args) => status::run(&args).await,
        Command::Pause(args) => order::run("pause", &args).await,
        Command::Resume(args) => order::run("resume", &args).await,
        Command::Approve(args) => order::forward("approve", &args).await,
        Command::Promote(args) => order::promote(&args).await,
        Command::Rollback(args) => order::run("rollback", &args).await,
        Command::Retry(args) => order::forward("retry", &args).await,
        Command::Exposure(args) => exposure::run(&args).await,
        Command::History(args) => list::history(&args).await,
        Command::Explain(args) => explain::run(&args).await,
        Command::Samples(args) => samples::run(&args).await,
        Command::Audit(args) => audit::audit(&args).await,
        Command::Oncall(args) => list::oncall(&args).await,
        Command::Notify(args) => notify::run(&args).await,
        Command::Key(args) => key::run(&args).await,
        Command::Provider(args) => provider::run(&args).await,
        Command::Openapi => {
            println!("{}", serve::openapi());
            Ok(Exit::Done)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "serin", &mut std::io::stdout());
            Ok(Exit::Done)
        }
    }
}
