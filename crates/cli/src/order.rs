//! `serin pause`, `resume`, `approve`, `promote`, `rollback`, `retry`: orders to a rollout.

use serin_core::ids::PackName;
use serin_server::api::types::{CarriedView, CommandRequest};

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

/// What an order takes that moves a rollout on.
#[derive(Debug, clap::Args)]
pub(crate) struct ForwardArgs {
    /// Do it although rules of the policy say no, and why; for admins, kept in the audit log
    #[arg(long, value_name = "TEXT")]
    override_policy: Option<String>,
    #[command(flatten)]
    order: OrderArgs,
}

/// What `promote` takes besides.
#[derive(Debug, clap::Args)]
pub(crate) struct PromoteArgs {
    /// Make the canary stable now, instead of entering the next step
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    forward: ForwardArgs,
}

/// Orders the next step, or the end.
pub(crate) async fn promote(args: &PromoteArgs) -> anyhow::Result<Exit> {
    let ForwardArgs { override_policy, order } = &args.forward;
    give("promote", order, args.full, override_policy.as_deref()).await
}

/// Orders what moves a rollout on, without more to it.
pub(crate) async fn forward(order: &str, args: &ForwardArgs) -> anyhow::Result<Exit> {
    give(order, &args.order, false, args.override_policy.as_deref()).await
}

/// Gives an order without more to it.
pub(crate) async fn run(order: &str, args: &OrderArgs) -> anyhow::Result<Exit> {
    give(order, args, false, None).await
}

async fn give(
    order: &str,
    args: &OrderArgs,
    full: bool,
    override_policy: Option<&str>,
) -> anyhow::Result<Exit> {
    let request = CommandRequest {
        reason: Some(args.reason.clone()),
        full,
        override_policy: override_policy.map(ToOwned::to_owned),
    };
    let carried = Client::new(&args.server)?.order(&args.pack, order, &request).await?;
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
