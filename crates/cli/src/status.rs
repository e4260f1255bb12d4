//! `serin status`: where a rollout stands, once or for as long as somebody watches.

use std::time::Duration;

use serin_core::ids::PackName;
use serin_server::api::types::PackDetail;

use crate::api::{Client, ServerArgs};
use crate::apply::{duration, outcome};
use crate::live::Live;
use crate::status_view::{self, Depth, plural};
use crate::terminal::{Output, OutputFlag, QUIET, paint};
use crate::told::{Exit, Told};
use crate::wait::wait;

/// Show where a pack and its rollout stand
///
/// Shows what is served, what each gate reads against its threshold and on how many sessions, every
/// metric side by side, and what holds the rollout. With --wait the exit code tells how it ended:
/// 0 completed, 10 rolled back or superseded, 11 on hold, 12 timed out, 1 any other error.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// The pack
    #[arg(value_parser = pack_name)]
    pack: PackName,
    /// Draw it again every second until it is over; one line for each change where there is no terminal
    #[arg(long, short)]
    watch: bool,
    /// Wait until the rollout is over, or needs a person
    #[arg(long)]
    wait: bool,
    /// How long to watch or wait at most, such as 90s, 45m or 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    output: OutputFlag,
    #[command(flatten)]
    server: ServerArgs,
}

/// Reads the name of a pack.
pub(crate) fn pack_name(text: &str) -> Result<PackName, String> {
    PackName::parse(text).map_err(|error| error.to_string())
}

/// Shows, watches or waits.
pub(crate) async fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    if args.watch && args.output.output == Output::Table {
        return Ok(watch(args, &client).await?);
    }
    if args.wait || args.watch {
        let seen = wait(&client, &args.pack, None, args.timeout, |_| {}).await?;
        let exit = seen.exit.unwrap_or(Exit::TimedOut);
        args.output.print(&seen.pack, |pack| outcome(pack, exit))?;
        return Ok(exit);
    }
    let pack = client.pack(&args.pack).await?;
    args.output.print(&pack, shown)?;
    Ok(Exit::Done)
}

fn shown(pack: &PackDetail) -> String {
    let mut text = match &pack.rollout {
        Some(rollout) => status_view::rollout(rollout, Depth::Full),
        None => status_view::idle(pack),
    };
    for draining in &pack.draining {
        let left = draining
            .sessions_left
            .map_or_else(String::new, |left| format!("{} left, ", plural(left, "session")));
        text.push_str(&format!("  draining  {}: {left}until {:.0}\n", draining.version, draining.until));
    }
    if !pack.orders.is_empty() {
        text.push_str(&format!("  {} {}\n", paint(QUIET, "orders   "), pack.orders.join(", ")));
    }
    text
}

/// Watches until the rollout is over; a hold is watched on unless `--wait` says to stop there.
async fn watch(args: &StatusArgs, client: &Client) -> Result<Exit, Told> {
    let in_place = Live::is_possible();
    let mut live = Live::default();
    let mut last = String::new();
    let mut show = |pack: &PackDetail| {
        if in_place {
            live.draw(&shown(pack));
            return;
        }
        let line = match &pack.rollout {
            Some(rollout) => status_view::line(rollout),
            None => status_view::idle(pack),
        };
        // Values change all the time: they are told with whatever else has changed.
        if line != last {
            let gates = pack.rollout.as_ref().map_or_else(String::new, status_view::gates_in_line);
            anstream::println!("{}{gates}", line.trim_end());
            last = line;
        }
    };
    let started = std::time::Instant::now();
    loop {
        let left = args.timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let seen = wait(client, &args.pack, None, left, &mut show).await?;
        match seen.exit {
            Some(Exit::OnHold) if !args.wait && left.is_none_or(|left| !left.is_zero()) => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Some(exit) if args.wait => return Ok(exit),
            Some(_) | None => return Ok(Exit::Done),
        }
    }
}
