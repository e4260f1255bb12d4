//! Settings of the conversation samples.

use std::cell::RefCell;

use serin_core::manifest::{Node, Value};
use serin_core::redact::Redactor;
use serin_core::units::HoldFor;
use serin_core::weight::Weight;

use super::read::Reader;
use super::{bytes, count, duration};
use crate::samples::SampleSettings;

/// The longest time that a sample is kept.
const LONGEST: HoldFor = HoldFor::from_hours(90 * 24);

/// The share of the sessions that a settings file records, without looking at anything else in it.
///
/// # Errors
/// What is wrong with the file.
pub fn sample_rate(yaml: &str) -> Result<Weight, String> {
    let root = Node::read(yaml).map_err(|error| error.message)?;
    let member = |node: &Node, name: &str| match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| entry.node.clone()),
        Value::Null | Value::Scalar(_) | Value::List(_) => None,
    };
    let rate = member(&root, "samples").and_then(|samples| member(&samples, "rate"));
    match rate.map(|node| node.value) {
        Some(Value::Scalar(scalar)) => Weight::parse(&scalar.text).map_err(|error| error.to_string()),
        Some(Value::Null | Value::List(_) | Value::Map(_)) | None => Ok(Weight::ZERO),
    }
}

/// Reads the section `samples`.
pub(super) fn read(reader: &mut Reader<'_>) -> SampleSettings {
    let redactor = RefCell::new(Redactor::default());
    let rate = reader.value("samples.rate", None, "0%", |text| {
        Weight::parse(text).map_err(|error| format!("is no share of sessions such as 5%: {error}"))
    });
    let limit = reader.value("samples.limit", None, "500", |text| count(text, 1, 100_000));
    let max_bytes = reader.value("samples.maxBytes", None, "16KiB", |text| match bytes(text)? {
        length if length <= 256 << 10 => Ok(length),
        _ => Err("is more than 256KiB".to_owned()),
    });
    let expiry = reader.value("samples.expiry", None, "7d", |text| {
        let expiry = duration(text)?;
        let fits = expiry >= HoldFor::from_mins(1) && expiry <= LONGEST;
        if fits { Ok(expiry) } else { Err("is outside 1m to 90d".to_owned()) }
    });
    reader.list("samples.redact", |text| redactor.borrow_mut().add(text).map_err(|error| error.to_string()));
    SampleSettings { rate, limit, max_bytes, expiry, redactor: redactor.into_inner() }
}
