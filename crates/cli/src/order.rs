//! `serin pause`, `resume`, `approve`, `promote`, `rollback`, `retry`: orders to a rollout.

use serin_core::ids::PackName;
use serin_server::api::types::CarriedView;

use crate::api::{Client, ServerArgs};
use crate::status::pack_name;
use crate::status_view;
use crate::terminal::{GOOD, LOOK, OutputFlag, paint};
use crate::told::Exit;

/// The pack, and why; every order takes these.
#[derive(Debug, clap::Args)]
pub(crate) struct OrderArgs {
    /// The pack
    #[arg(value_parser = pack_name)]
    pack: PackName,
    /// Why; kept in the audit log
    #[arg(long, short, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputFlag,
    #[command(flatten)]
    server: ServerArgs,
}

/// What `promote` takes besides.
#[derive(Debug, clap::Args)]
pub(crate) struct PromoteArgs {
    /// Make the canary stable now, instead of entering the next step
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    order: OrderArgs,
}

/// Orders the next step, or the end.
pub(crate) async fn promote(args: &PromoteArgs) -> anyhow::Result<Exit> {
    give("promote", &args.order, args.full).await
}

/// Gives an order without more to it.
pub(crate) async fn run(order: &str, args: &OrderArgs) -> anyhow::Result<Exit> {
    give(order, args, false).await
}

async fn give(order: &str, args: &OrderArgs, full: bool) -> anyhow::Result<Exit> {
    let carried = Client::new(&args.server)?.order(&args.pack, order, &args.reason, full).await?;
    args.output.print(&carried, table)?;
    Ok(Exit::Done)
}

fn table(carried: &CarriedView) -> String {
    let style = if carried.recorded { GOOD } else { LOOK };
    let mut text = paint(style, &carried.message);
    if let Some(rollout) = &carried.rollout {
        text.push_str(&format!("\n{}", status_view::line(rollout)));
    }
    text
}
