//! `serin exposure`: who saw the canary of a rollout, as a summary or as a list of sessions to export.

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;
use serin_server::api::types::{ExposedSessionView, ExposureView};

use crate::api::{Client, ServerArgs};
use crate::status_view::{percent, plural, thousands};
use crate::terminal::{Cell, QUIET, STRONG, Table, paint};
use crate::told::Exit;

/// Show who saw the canary of a rollout, or export the list of sessions
#[derive(Debug, clap::Args)]
pub(crate) struct ExposureArgs {
    /// The rollout, such as support-r3
    rollout: String,
    /// A summary, or the sessions one by one
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// How many, for how long, at which weights.
    #[default]
    Table,
    /// The same and every session, as JSON.
    Json,
    /// Every session in a line of CSV.
    Csv,
}

/// The summary with every session.
#[derive(Debug, Serialize)]
struct Everyone {
    rollout: String,
    exposure: ExposureView,
    sessions: Vec<ExposedSessionView>,
}

/// Shows or exports the exposure of a rollout.
pub(crate) async fn run(args: &ExposureArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    match args.output {
        Format::Table => {
            let exposure = client.exposure(&args.rollout).await?;
            anstream::println!("{}", summary(&args.rollout, &exposure).trim_end());
        }
        Format::Json => {
            let exposure = client.exposure(&args.rollout).await?;
            let mut everyone = Everyone { rollout: args.rollout.clone(), exposure, sessions: Vec::new() };
            each_page(&client, &args.rollout, |sessions| everyone.sessions.extend(sessions)).await?;
            let text =
                serde_json::to_string_pretty(&everyone).context("could not write the answer as JSON")?;
            println!("{text}");
        }
        Format::Csv => {
            println!("{}", ExposedSessionView::CSV_HEAD);
            let print = |sessions: Vec<ExposedSessionView>| {
                for session in sessions {
                    println!("{}", session.csv());
                }
            };
            each_page(&client, &args.rollout, print).await?;
        }
    }
    Ok(Exit::Done)
}

async fn each_page(
    client: &Client,
    rollout: &str,
    mut take: impl FnMut(Vec<ExposedSessionView>),
) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let page = client.exposed_sessions(rollout, after.as_deref()).await?;
        take(page.sessions);
        after = page.next_after;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn summary(rollout: &str, exposure: &ExposureView) -> String {
    let mut text = format!(
        "{}   {} and {} met the canary in {}\n",
        paint(STRONG, rollout),
        plural(exposure.sessions, "session"),
        plural(exposure.requests, "request"),
        exposure.lasted,
    );
    let until = exposure.until.map_or_else(|| "now".to_owned(), |until| format!("{until:.0}"));
    text.push_str(&format!("  {} {:.0} to {until}\n\n", paint(QUIET, "from"), exposure.since));
    let mut table = Table::new(&["WEIGHT>", "LASTED>", "SESSIONS>"]).indented();
    for at in &exposure.by_weight {
        table.row([
            Cell::right(format!("{}%", percent(at.weight))),
            Cell::right(at.lasted.to_string()),
            Cell::right(thousands(at.sessions)),
        ]);
    }
    format!("{text}{table}")
}
