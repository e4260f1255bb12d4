//! `serin get`, `history` and `oncall`: everything else that can be read.

use serin_core::ids::PackName;
use serin_server::api::types::{
    ClosestView, OncallCanary, OncallCommand, OncallView, PackList, RolloutList, RolloutSummary, VersionList,
    WorstView,
};

use crate::api::{Client, ServerArgs};
use crate::status::pack_name;
use crate::status_view::{percent, phase_style, plural};
use crate::terminal::{BAD, Cell, LOOK, OutputFlag, QUIET, STRONG, TRIAL, Table, ago, duration, paint};
use crate::told::Exit;

/// List packs, versions or rollouts
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// All packs with their versions
    #[command(visible_alias = "pack")]
    Packs {
        #[command(flatten)]
        output: OutputFlag,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// The versions of a pack, newest first
    #[command(visible_alias = "version")]
    Versions {
        /// The pack
        #[arg(value_parser = pack_name)]
        pack: PackName,
        #[command(flatten)]
        output: OutputFlag,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Rollouts, newest first
    #[command(visible_alias = "rollout")]
    Rollouts {
        /// Only those under way
        #[arg(long)]
        active: bool,
        #[command(flatten)]
        output: OutputFlag,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Lists packs or rollouts.
pub(crate) async fn get(args: &GetArgs) -> anyhow::Result<Exit> {
    match &args.what {
        What::Packs { output, server } => output.print(&Client::new(server)?.packs().await?, packs)?,
        What::Versions { pack, output, server } => {
            output.print(&Client::new(server)?.versions(pack).await?, versions)?;
        }
        What::Rollouts { active, output, server } => {
            output.print(&Client::new(server)?.rollouts(*active, None).await?, rollouts)?;
        }
    }
    Ok(Exit::Done)
}

fn packs(list: &PackList) -> String {
    if list.packs.is_empty() {
        return "no packs yet: `serin apply -f` publishes the first one".to_owned();
    }
    let mut table = Table::new(&["PACK", "STABLE", "CANARY", "PHASE", "WEIGHT>", "HOLDS", "OWNER"]);
    for pack in &list.packs {
        let phase = pack.phase.map_or(Cell::left("-").style(QUIET), |phase| {
            Cell::left(phase.as_str()).style(phase_style(phase))
        });
        let holds = if pack.forced { "forced to stable".to_owned() } else { pack.holds.join(", ") };
        table.row([
            Cell::left(&pack.name).style(STRONG),
            Cell::left(&pack.stable),
            Cell::left(pack.canary.as_deref().unwrap_or("-")).style(TRIAL),
            phase,
            Cell::right(format!("{}%", percent(pack.weight))),
            Cell::left(or_dash(&holds)).style(LOOK),
            Cell::left(pack.owner.as_deref().unwrap_or("-")),
        ]);
    }
    table.to_string()
}

fn versions(list: &VersionList) -> String {
    let now = jiff::Timestamp::now();
    let mut table = Table::new(&["VERSION", "ROLE", "PUBLISHED", "BY", "CONTENT"]);
    for version in &list.versions {
        let digest = version.content_digest.get(..12).unwrap_or(&version.content_digest);
        table.row([
            Cell::left(&version.version).style(STRONG),
            Cell::left(&version.role),
            Cell::left(ago(version.published_at, now)),
            Cell::left(&version.published_by),
            Cell::left(digest).style(QUIET),
        ]);
    }
    table.to_string()
}

fn rollouts(list: &RolloutList) -> String {
    rollout_table(&list.rollouts)
}

fn rollout_table(rollouts: &[RolloutSummary]) -> String {
    if rollouts.is_empty() {
        return "no rollouts".to_owned();
    }
    let now = jiff::Timestamp::now();
    let mut table = Table::new(&[
        "ROLLOUT", "KIND", "FROM", "TO", "PHASE", "WEIGHT>", "STARTED", "LASTED>", "EXPOSED>", "BY", "NOTE",
    ]);
    for rollout in rollouts {
        let note = match &rollout.end {
            Some(end) if end.how.as_str() == "completed" => end.how.to_string(),
            Some(end) => format!("{}: {}", end.how, end.reason),
            None => rollout.holds.join(", "),
        };
        let until = rollout.end.as_ref().map_or(now, |end| end.at);
        let exposed =
            rollout.exposure.map_or_else(|| "-".to_owned(), |seen| plural(seen.sessions, "session"));
        table.row([
            Cell::left(&rollout.id).style(STRONG),
            Cell::left(rollout.kind.as_str()),
            Cell::left(&rollout.stable),
            Cell::left(&rollout.canary).style(TRIAL),
            Cell::left(rollout.phase.as_str()).style(phase_style(rollout.phase)),
            Cell::right(format!("{}%", percent(rollout.weight))),
            Cell::left(ago(rollout.started_at, now)),
            Cell::right(duration(until.duration_since(rollout.started_at).as_secs())),
            Cell::right(exposed),
            Cell::left(&rollout.started_by),
            Cell::left(or_dash(&note)),
        ]);
    }
    table.to_string()
}

pub(crate) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Show the rollouts of a pack with how many saw each, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// The pack
    #[arg(value_parser = pack_name)]
    pack: PackName,
    #[command(flatten)]
    output: OutputFlag,
    #[command(flatten)]
    server: ServerArgs,
}

/// Lists the rollouts of one pack.
pub(crate) async fn history(args: &HistoryArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    // Asking for the pack tells whether it exists.
    client.pack(&args.pack).await?;
    let mut list = client.rollouts(false, Some(&args.pack)).await?;
    list.rollouts.retain(|rollout| rollout.pack == args.pack.as_str());
    args.output.print(&list, rollouts)?;
    Ok(Exit::Done)
}

/// Show what is in canary now, and what was rolled back lately
#[derive(Debug, clap::Args)]
pub(crate) struct OncallArgs {
    #[command(flatten)]
    output: OutputFlag,
    #[command(flatten)]
    server: ServerArgs,
}

/// Shows what on-call needs to know.
pub(crate) async fn oncall(args: &OncallArgs) -> anyhow::Result<Exit> {
    let view = Client::new(&args.server)?.oncall().await?;
    args.output.print(&view, on_call)?;
    Ok(Exit::Done)
}

fn on_call(view: &OncallView) -> String {
    let mut text = String::new();
    if !view.forced.is_empty() {
        text.push_str(&format!("{} {}\n\n", paint(BAD, "forced to stable:"), view.forced.join(", ")));
    }
    text.push_str(&format!("{}\n", paint(STRONG, "in canary now")));
    if view.canaries.is_empty() {
        text.push_str("  nothing\n");
    }
    for canary in &view.canaries {
        text.push_str(&in_canary(canary, view.as_of));
    }
    text.push_str(&format!("\n{}\n", paint(STRONG, "ended within 24 hours")));
    if view.ended.is_empty() {
        text.push_str("  nothing\n");
    } else {
        text.push_str(&rollout_table(&view.ended));
    }
    text
}

/// One rollout under way: where it is, since when, who can help, what is wrong, what to run.
fn in_canary(canary: &OncallCanary, now: jiff::Timestamp) -> String {
    let mut text = format!(
        "  {} {} → {}   {} at {}%, {}, by {}: {}\n",
        paint(STRONG, &canary.pack),
        canary.stable,
        paint(TRIAL, &canary.canary),
        paint(phase_style(canary.phase), canary.phase.as_str()),
        percent(canary.weight),
        ago(canary.started_at, now),
        canary.started_by,
        canary.reason,
    );
    let mut line = |name: &str, value: String| text.push_str(&format!("    {name:<16} {value}\n"));
    for hold in &canary.holds {
        let since = ago(hold.since, now);
        let hold = format!("{} since {since}: {}; cleared by {}", hold.shown, hold.reason, hold.cleared_by);
        line("on hold", paint(LOOK, hold));
    }
    if let Some(worst) = &canary.worst {
        let WorstView { metric, status, stable_shown, canary_shown, .. } = worst;
        line("worst metric", format!("{metric} {status}: {canary_shown}, stable {stable_shown}"));
    }
    if let Some(closest) = &canary.closest {
        let ClosestView { metric, rule, state, how_sure } = closest;
        let sure = percent((how_sure * 100.0).round());
        line("closest gate", format!("{metric} {rule}: {state}, {sure}% of the evidence that fails it"));
    }
    if let Some(check) = &canary.last_check {
        line("last check", format!("{} {}: {}", check.outcome, ago(check.at, now), check.summary));
    }
    line("owner", canary.owner.clone().unwrap_or_else(|| "-".to_owned()));
    line("escalate to", canary.escalation.clone().unwrap_or_else(|| "-".to_owned()));
    for OncallCommand { what, command } in &canary.commands {
        line(&what.to_lowercase(), command.clone());
    }
    text
}
