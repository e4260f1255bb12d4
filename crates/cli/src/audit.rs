//! `serin audit`: what happened, whether the log is intact, and whether every decision can be repeated.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serin_core::audit::{Noted, Verifier};
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
/// Bytes of an export that may lie between two line ends.
const LONGEST_LINE: u64 = 64 << 20;

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
    /// Check that the log is the one that was written: the server's, or offline the one of an exported file
    Verify(VerifyArgs),
    /// Export the log with everything that its hashes cover, for a check without the server
    Export(ExportArgs),
    /// Repeat every automatic decision from the evidence that is stored with it, and tell each difference
    Replay(ReplayArgs),
}

/// Which log is checked, against what
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// A file that `audit export` wrote; no server is asked then
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The last entry as an earlier check told it; a log that was written anew does not hold it
    #[arg(long, value_name = "NUMBER:HASH", value_parser = noted)]
    noted: Option<Noted>,
    #[command(flatten)]
    output: OutputFlag,
}

/// What is exported, and to where
#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// The file to write; without it the export goes to standard output
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only entries after this number
    #[arg(id = "export_after", long = "after", value_name = "NUMBER", default_value_t = 0)]
    after: u64,
}

fn noted(text: &str) -> Result<Noted, String> {
    Noted::parse(text).ok_or_else(|| "write it as `audit verify` tells it: NUMBER:HASH".to_owned())
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

/// Shows the log, verifies or exports it, or repeats what it tells; a broken log or a difference fails.
pub(crate) async fn audit(args: &AuditArgs) -> anyhow::Result<Exit> {
    match &args.what {
        Some(AuditWhat::Verify(VerifyArgs { file: Some(file), noted, output })) => {
            let verified = verify_file(file, *noted)?;
            output.print(&verified, verdict)?;
            return Ok(if verified.intact { Exit::Done } else { Exit::Failed });
        }
        Some(AuditWhat::Verify(VerifyArgs { file: None, noted, output })) => {
            let verified = Client::new(&args.server)?.audit_verify(*noted).await?;
            output.print(&verified, verdict)?;
            return Ok(if verified.intact { Exit::Done } else { Exit::Failed });
        }
        Some(AuditWhat::Export(export_args)) => {
            return export(&Client::new(&args.server)?, export_args).await;
        }
        Some(AuditWhat::Replay(replay_args)) => {
            return replay(&Client::new(&args.server)?, replay_args).await;
        }
        None => {}
    }
    let client = Client::new(&args.server)?;
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

/// Checks an exported file line by line.
fn verify_file(path: &Path, noted: Option<Noted>) -> anyhow::Result<AuditVerified> {
    let unreadable = || format!("could not read {}", path.display());
    let mut file = BufReader::new(File::open(path).with_context(unreadable)?);
    let mut verifier = Verifier::new(noted);
    let mut line = Vec::new();
    let exported = loop {
        line.clear();
        let mut part = (&mut file).take(LONGEST_LINE);
        if part.read_until(b'\n', &mut line).with_context(unreadable)? == 0 {
            break verifier.finish();
        }
        if let Err(problem) = verifier.line(&line) {
            break Err(problem);
        }
    };
    Ok(match exported {
        Ok(exported) => AuditVerified {
            intact: true,
            entries: Some(exported.entries()),
            last: Some(exported.last.to_string()),
            problem: None,
        },
        Err(problem) => {
            AuditVerified { intact: false, entries: None, last: None, problem: Some(problem.to_string()) }
        }
    })
}

/// Writes an export as it comes; a file gets its name only once it is whole.
async fn export(client: &Client, args: &ExportArgs) -> anyhow::Result<Exit> {
    let mut pieces = client.audit_export(args.after).await?;
    let Some(path) = &args.file else {
        let mut out = std::io::stdout().lock();
        while let Some(piece) = pieces.next().await? {
            out.write_all(&piece).context("could not write the export")?;
        }
        return Ok(Exit::Done);
    };
    let unwritable = || format!("could not write {}", path.display());
    let next = path.with_added_extension("part");
    let mut file = File::create(&next).with_context(unwritable)?;
    while let Some(piece) = pieces.next().await? {
        file.write_all(&piece).with_context(unwritable)?;
    }
    file.sync_all().with_context(unwritable)?;
    std::fs::rename(&next, path).with_context(unwritable)?;
    let verified = verify_file(path, None)?;
    anstream::eprintln!("{}: {}", path.display(), verdict(&verified));
    Ok(if verified.intact { Exit::Done } else { Exit::Failed })
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
    if let Some(problem) = &verified.problem {
        return paint(BAD, format!("the audit log is broken: {problem}"));
    }
    let entries = match verified.entries.unwrap_or(0) {
        1 => "1 entry".to_owned(),
        n => format!("{} entries", thousands(n)),
    };
    let intact = paint(GOOD, format!("the audit log is intact: {entries}"));
    match &verified.last {
        Some(last) => format!("{intact}\n{}", paint(QUIET, format!("last {last}"))),
        None => intact,
    }
}
