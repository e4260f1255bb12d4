//! `serin notify`: who is told what happened, whether messages arrive, and what could not be told.

use serin_server::api::types::{DeadLetters, ReceiverList, RetriedView, TestedView};

use crate::api::{Client, ServerArgs};
use crate::terminal::{BAD, Cell, GOOD, LOOK, OutputFlag, QUIET, STRONG, Table, ago, paint};
use crate::told::Exit;

/// Show who is told what happened, and try whether messages arrive
#[derive(Debug, clap::Args)]
pub(crate) struct NotifyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The receivers, and how far each of them is
    Receivers {
        #[command(flatten)]
        output: OutputFlag,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Send a receiver a message that says that nothing happened
    Test {
        /// The receiver, as the settings name it
        receiver: String,
        #[command(flatten)]
        output: OutputFlag,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// What could not be told
    Dead {
        /// Try the oldest 100 again, once
        #[arg(long)]
        retry: bool,
        #[command(flatten)]
        output: OutputFlag,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Shows or tries; a test that does not arrive and a retry that fails again exit with 1.
pub(crate) async fn run(args: &NotifyArgs) -> anyhow::Result<Exit> {
    let done = match &args.what {
        What::Receivers { output, server } => {
            output.print(&Client::new(server)?.receivers().await?, receivers)?;
            true
        }
        What::Test { receiver, output, server } => {
            let tested = Client::new(server)?.test_receiver(receiver).await?;
            output.print(&tested, test)?;
            tested.delivered
        }
        What::Dead { retry: false, output, server } => {
            output.print(&Client::new(server)?.dead_letters().await?, dead)?;
            true
        }
        What::Dead { retry: true, output, server } => {
            let retried = Client::new(server)?.retry_dead_letters().await?;
            output.print(&retried, again)?;
            retried.failed == 0
        }
    };
    Ok(if done { Exit::Done } else { Exit::Failed })
}

fn receivers(list: &ReceiverList) -> String {
    if list.receivers.is_empty() {
        return "nobody is told: name receivers under `notify.receivers` in the settings".to_owned();
    }
    let now = jiff::Timestamp::now();
    let mut table =
        Table::new(&["RECEIVER", "TYPE", "AT", "FROM", "PACKS", "EVENTS", "BEHIND>", "DEAD>", "STATE"]);
    let words = |words: &[String]| if words.is_empty() { "all".to_owned() } else { words.join(", ") };
    for receiver in &list.receivers {
        let state = match (&receiver.problem, receiver.failing_since) {
            (Some(problem), Some(since)) => {
                Cell::left(format!("fails since {}: {problem}", ago(since, now))).style(BAD)
            }
            (Some(_), None) | (None, _) => Cell::left("ok").style(GOOD),
        };
        table.row([
            Cell::left(&receiver.name).style(STRONG),
            Cell::left(&receiver.kind),
            Cell::left(&receiver.at).style(QUIET),
            Cell::left(&receiver.min_severity),
            Cell::left(words(&receiver.packs)),
            Cell::left(words(&receiver.events)),
            Cell::right(receiver.behind.to_string()),
            Cell::right(receiver.buried.to_string()).style(if receiver.buried > 0 { LOOK } else { QUIET }),
            state,
        ]);
    }
    table.to_string()
}

fn test(tested: &TestedView) -> String {
    let TestedView { receiver, took_ms, .. } = tested;
    match &tested.problem {
        None => paint(GOOD, format!("{receiver} took the message after {took_ms} ms")),
        Some(problem) => paint(BAD, format!("{receiver} did not take the message: {problem}")),
    }
}

fn dead(list: &DeadLetters) -> String {
    if list.letters.is_empty() {
        return "nothing: everything that happened was told, or still waits for its turn".to_owned();
    }
    let now = jiff::Timestamp::now();
    let mut table = Table::new(&["RECEIVER", "ENTRY>", "GIVEN UP", "ATTEMPTS>", "WHY"]);
    for letter in &list.letters {
        table.row([
            Cell::left(&letter.receiver).style(STRONG),
            Cell::right(letter.seq.to_string()),
            Cell::left(ago(letter.given_up_at, now)),
            Cell::right(letter.attempts.to_string()),
            Cell::left(&letter.problem).style(BAD),
        ]);
    }
    table.to_string()
}

fn again(retried: &RetriedView) -> String {
    let RetriedView { delivered, failed } = retried;
    format!("{delivered} taken this time, {failed} not")
}
