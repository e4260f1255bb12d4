//! `serin explain`: which version a session, or any new one, gets, why, and what comes next.

use serde_json::{Map, Value};
use serin_core::ids::PackName;
use serin_server::api::types::{ExplainView, PinView, SegmentAnswer};

use crate::api::{Client, ServerArgs};
use crate::status::pack_name;
use crate::status_view::percent;
use crate::terminal::{OutputFlag, QUIET, STRONG, TRIAL, paint};
use crate::told::Exit;

/// Tell which version a session, or any new one, gets, why, and what comes next
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// The pack
    #[arg(value_parser = pack_name)]
    pack: PackName,
    /// A session, as the app names it
    #[arg(long, short, value_name = "SESSION")]
    session: Option<String>,
    /// A response instead, by the id in its body: its session is explained
    #[arg(long, short, value_name = "ID", conflicts_with = "session")]
    response: Option<String>,
    /// An attribute that the session sends; numbers, true, false, lists and objects as JSON, anything
    /// else is text. Without a session: which version any new one with it would get
    #[arg(long = "attribute", short, value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, Value)>,
    #[command(flatten)]
    output: OutputFlag,
    #[command(flatten)]
    server: ServerArgs,
}

/// Reads `name=value`.
fn attribute(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            Ok((name.to_owned(), value))
        }
        Some(_) | None => Err(format!("{text:?} is no NAME=VALUE, such as tier=beta")),
    }
}

/// Explains a session, or any new one.
pub(crate) async fn run(args: &ExplainArgs) -> anyhow::Result<Exit> {
    let attributes: Map<String, Value> = args.attributes.iter().cloned().collect();
    let attributes = (!attributes.is_empty()).then(|| Value::Object(attributes).to_string());
    let mut query = Vec::new();
    query.extend(args.session.as_deref().map(|session| ("session", session)));
    query.extend(args.response.as_deref().map(|response| ("response", response)));
    query.extend(attributes.as_deref().map(|attributes| ("attributes", attributes)));
    let explained = Client::new(&args.server)?.explain(&args.pack, &query).await?;
    args.output.print(&explained, explanation)?;
    Ok(Exit::Done)
}

fn explanation(view: &ExplainView) -> String {
    let mut text = String::new();
    let gets = match (&view.version, &view.variant) {
        (Some(version), Some(variant)) => format!("gets {} ({variant})", paint(TRIAL, version)),
        (Some(version), None) => format!("gets {}", paint(TRIAL, version)),
        (None, _) => {
            let share = |share: &serin_server::api::types::ShareView| {
                format!("{} ({}) {}%", paint(TRIAL, &share.version), share.variant, percent(share.share))
            };
            format!("gets {}", view.new_sessions.iter().map(share).collect::<Vec<_>>().join(" or "))
        }
    };
    match &view.session {
        Some(session) => {
            text.push_str(&format!("session {} of {} {gets}\n", paint(STRONG, session), view.pack));
        }
        None => text.push_str(&format!("a new session of {} {gets}\n", paint(STRONG, &view.pack))),
    }
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<9} {value}\n"));
    line("because", format!("{} [{}]", view.message, view.reason));
    if let Some(response) = &view.response {
        let by = match (&response.version, &response.variant) {
            (Some(version), Some(variant)) => format!("was given by {version} ({variant})"),
            (Some(version), None) => format!("was given by {version}, which its caller named"),
            (None, _) => "belongs to the session by what telemetry told".to_owned(),
        };
        line("response", format!("{} {by}", response.id));
    }
    for (index, segment) in view.segments.iter().enumerate() {
        let answer = match segment.answer {
            SegmentAnswer::Matches => paint(STRONG, "matches"),
            SegmentAnswer::Differs => "does not match".to_owned(),
            SegmentAnswer::Unreadable => {
                "does not match: an attribute is missing or of another type".to_owned()
            }
            SegmentAnswer::NotAsked => paint(QUIET, "not asked, an earlier one matches"),
        };
        let name = if index == 0 { "segments" } else { "" };
        line(name, format!("{} {answer} ({})", segment.name, segment.members));
    }
    if let Some(rollout) = &view.rollout {
        let of = match &view.segment {
            Some(segment) if segment != "everyone" => format!(" of {segment}"),
            Some(_) | None => String::new(),
        };
        line("rollout", format!("{rollout} at {}% of the new sessions{of}", percent(view.weight)));
    }
    if let Some(bucket) = view.bucket {
        let side =
            if f64::from(bucket) < view.weight * 100.0 { "below the weight" } else { "not below the weight" };
        line("bucket", format!("{:.2}% of 100%, {side}", f64::from(bucket) / 100.0));
    }
    if let Some(pin) = &view.pin {
        line("pin", pinned(pin));
    }
    if let Some(next) = &view.next {
        line("next", next.message.clone());
    }
    text
}

fn pinned(pin: &PinView) -> String {
    let weight = pin.weight.map_or_else(String::new, |weight| format!(" at {}%", percent(weight)));
    let expired = if pin.expired { ", expired" } else { "" };
    format!("{}{weight}, {} old{expired}", pin.version, pin.age)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_attribute_is_json_where_it_reads_as_json_and_text_otherwise() {
        let value = |text: &str| attribute(text).unwrap().1;
        assert_eq!(value("tier=beta"), json!("beta"));
        assert_eq!(value("seats=10"), json!(10));
        assert_eq!(value("seats=\"10\""), json!("10"));
        assert_eq!(value("groups=[\"a\"]"), json!(["a"]));
        assert_eq!(value("note=a=b"), json!("a=b"));
        assert_eq!(value("empty="), json!(""));
        assert_eq!(attribute("beta").unwrap_err(), "\"beta\" is no NAME=VALUE, such as tier=beta");
    }
}
