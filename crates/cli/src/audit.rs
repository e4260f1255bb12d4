//! `serin audit`: what happened, whether the log is intact, and whether every decision can be repeated.

use serde::Serialize;
use serin_core::ids::PackName;
use serin_server::api::types::{AuditEntryView, AuditPage, AuditVerified, ReplayView};

use crate::api::{Client, ServerArgs};
use crate::list::or_dash;
use crate::status::pack_name;
use crate::status_view::{plural, thousands};
use crate::terminal::{BAD, Cell, GOOD, OutputFlag, QUIET, STRONG, Table, paint};
use crate::told::Exit;

/// The most entries of the audit log that are shown at once.
const MOST_ENTRIES: usize = 10_000;

/// Show the audit log, or check that it is intact
#[derive(Debug, clap::Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    what: Option<AuditWhat>,
    /// Only entries of this pack
    #[arg(long, value_parser = pack_name, value_name = "PACK")]
    pack: Option<PackName>,
    /// Only entries after this number
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    #[command(flatten)]
    output: OutputFlag,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Subcommand)]
enum AuditWhat {
    /// Check the hash chain from the first entry to the last
    Verify {
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Repeat every automatic decision from the evidence that is stored with it, and tell each difference
    Replay(ReplayArgs),
}

/// Which rollouts are repeated
#[derive(Debug, clap::Args)]
struct ReplayArgs {
    /// One rollout, such as support-r3; without it the newest 200, of --pack if given
    #[arg(value_name = "ROLLOUT", conflicts_with = "of_pack")]
    rollout: Option<String>,
    /// Only rollouts of this pack
    #[arg(id = "of_pack", long = "pack", value_parser = pack_name, value_name = "PACK")]
    pack: Option<PackName>,
    #[command(flatten)]
    output: OutputFlag,
}

/// Shows the log, verifies it, or repeats what it tells; a broken log or a difference fails.
pub(crate) async fn audit(args: &AuditArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    match &args.what {
        Some(AuditWhat::Verify { output }) => {
            let verified = client.audit_verify().await?;
            output.print(&verified, verdict)?;
            return Ok(if verified.intact { Exit::Done } else { Exit::Failed });
        }
        Some(AuditWhat::Replay(args)) => return replay(&client, args).await,
        None => {}
    }
    let mut all = AuditPage { entries: Vec::new(), next_after: args.after, next_before: None };
    loop {
        let page = client.audit(args.pack.as_ref(), all.next_after).await?;
        all.entries.extend(page.entries);
        all.next_after = page.next_after;
        if all.next_after.is_none() || all.entries.len() >= MOST_ENTRIES {
            break;
        }
    }
    args.output.print(&all, |page| entries(&page.entries))?;
    Ok(Exit::Done)
}

/// Repeats one rollout, or many; a difference fails.
async fn replay(client: &Client, args: &ReplayArgs) -> anyhow::Result<Exit> {
    let ids = match &args.rollout {
        Some(id) => vec![id.clone()],
        None => {
            if let Some(pack) = &args.pack {
                // Asking for the pack tells whether it exists.
                client.pack(pack).await?;
            }
            let list = client.newest_rollouts(args.pack.as_ref()).await?;
            list.rollouts.into_iter().map(|rollout| rollout.id).collect()
        }
    };
    let mut repeated = Repeated { rollouts: Vec::with_capacity(ids.len()) };
    for id in &ids {
        repeated.rollouts.push(client.replay(id).await?);
    }
    args.output.print(&repeated, repetitions)?;
    let differs = repeated.rollouts.iter().any(|rollout| !rollout.differences.is_empty());
    Ok(if differs { Exit::Failed } else { Exit::Done })
}

/// Rollouts that were repeated, newest first.
#[derive(Debug, Serialize)]
struct Repeated {
    rollouts: Vec<ReplayView>,
}

fn repetitions(repeated: &Repeated) -> String {
    if repeated.rollouts.is_empty() {
        return "no rollouts".to_owned();
    }
    let mut table = Table::new(&["ROLLOUT", "CHECKS>", "DECISIONS>", "RESULT"]);
    let mut differences = String::new();
    for rollout in &repeated.rollouts {
        let (result, style) = match rollout.differences.len() {
            0 => ("the same to the last bit".to_owned(), GOOD),
            n => (plural(n as u64, "difference"), BAD),
        };
        table.row([
            Cell::left(&rollout.rollout).style(STRONG),
            Cell::right(thousands(rollout.checks)),
            Cell::right(thousands(rollout.decisions)),
            Cell::left(result).style(style),
        ]);
        for difference in &rollout.differences {
            differences.push_str(&format!("{}: {difference}\n", rollout.rollout));
        }
    }
    if differences.is_empty() { table.to_string() } else { format!("{table}\n{differences}") }
}

/// Entries of the audit log, one in a line.
pub(crate) fn entries(entries: &[AuditEntryView]) -> String {
    if entries.is_empty() {
        return "no entries".to_owned();
    }
    let mut table = Table::new(&["#>", "AT", "PACK", "WHAT", "BY", "WHY"]);
    for entry in entries {
        let style = match entry.action.as_str() {
            "rolled_back" | "check_failed" => BAD,
            "completed" | "first_stable" => GOOD,
            _ => clap::builder::styling::Style::new(),
        };
        table.row([
            Cell::right(entry.seq.to_string()).style(QUIET),
            Cell::left(format!("{:.0}", entry.at)),
            Cell::left(&entry.pack),
            Cell::left(entry.action.replace('_', " ")).style(style),
            Cell::left(&entry.actor),
            Cell::left(or_dash(&entry.reason)),
        ]);
    }
    table.to_string()
}

fn verdict(verified: &AuditVerified) -> String {
    match (verified.intact, verified.entries, &verified.problem) {
        (true, Some(entries), _) => paint(GOOD, format!("the audit log is intact: {entries} entries")),
        (true, None, _) => paint(GOOD, "the audit log is intact"),
        (false, _, Some(problem)) => paint(BAD, format!("the audit log is broken: {problem}")),
        (false, _, None) => paint(BAD, "the audit log is broken"),
    }
}
