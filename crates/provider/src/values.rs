//! The values that a script is made of: each is checked once, when it is made.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// A value of a script that is out of its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// A fraction outside 0..=1.
    #[error("{0} is not a fraction; hint: write a number from 0 to 1, such as 0.05")]
    Fraction(f64),
    /// A spread that is negative, too large, or whose 99th percentile is below its median.
    #[error(
        "{what}; hint: write {{fixed: 250}}, or {{median: 400, p99: 1800}} with 0 < median <= p99 <= 3600000"
    )]
    Spread {
        /// What is wrong with it.
        what: String,
    },
    /// A failure status that is no HTTP error.
    #[error("{0} is not an HTTP error status; hint: write a number from 400 to 599")]
    FailureStatus(u16),
}

/// A number from 0 to 1: a rate of occurrence, or a quality.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Deserialize)]
#[serde(try_from = "f64")]
pub struct Fraction(f64);

impl Fraction {
    /// 0: never.
    pub const ZERO: Fraction = Fraction(0.0);
    /// 1: always.
    pub const ONE: Fraction = Fraction(1.0);

    /// Accepts a number from 0 to 1.
    pub fn new(value: f64) -> Result<Fraction, ValueError> {
        if (0.0..=1.0).contains(&value) { Ok(Fraction(value)) } else { Err(ValueError::Fraction(value)) }
    }

    /// Returns the number, from 0 to 1.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Returns half of the fraction.
    pub(crate) fn halved(self) -> Fraction {
        Fraction(self.0 / 2.0)
    }
}

impl TryFrom<f64> for Fraction {
    type Error = ValueError;

    fn try_from(value: f64) -> Result<Fraction, ValueError> {
        Fraction::new(value)
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A distribution of amounts from 0 to 3 600 000 (milliseconds, or tokens).
///
/// Written as `{fixed: 250}` or as `{median: 400, p99: 1800}`, which is log-normal: most
/// values near the median, a long tail of slow ones.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "WrittenSpread")]
pub struct Spread(SpreadKind);

#[derive(Debug, Clone, Copy, PartialEq)]
enum SpreadKind {
    Fixed(f64),
    LogNormal { median: f64, sigma: f64 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSpread {
    fixed: Option<f64>,
    median: Option<f64>,
    p99: Option<f64>,
}

/// The 99th percentile of the standard normal distribution.
const Z99: f64 = 2.326_347_874_040_841;

impl Spread {
    /// The largest amount that a spread can give: one hour in milliseconds.
    pub const MAX: f64 = 3_600_000.0;

    /// Always zero.
    pub const ZERO: Spread = Spread(SpreadKind::Fixed(0.0));

    /// Always the same amount.
    pub fn fixed(amount: f64) -> Result<Spread, ValueError> {
        if (0.0..=Self::MAX).contains(&amount) {
            Ok(Spread(SpreadKind::Fixed(amount)))
        } else {
            Err(ValueError::Spread { what: format!("the fixed amount {amount} is out of range") })
        }
    }

    /// A log-normal distribution with this median and 99th percentile.
    pub fn log_normal(median: f64, p99: f64) -> Result<Spread, ValueError> {
        if median > 0.0 && median <= p99 && p99 <= Self::MAX {
            let sigma = (p99 / median).ln() / Z99;
            Ok(Spread(SpreadKind::LogNormal { median, sigma }))
        } else {
            Err(ValueError::Spread { what: format!("median {median} with p99 {p99} is no distribution") })
        }
    }

    /// Returns the amount that belongs to a draw from the standard normal distribution.
    ///
    /// The draw is only asked for where the amount varies.
    pub(crate) fn at(self, standard_normal: impl FnOnce() -> f64) -> f64 {
        match self.0 {
            SpreadKind::Fixed(amount) => amount,
            SpreadKind::LogNormal { median, sigma } => {
                (median * (sigma * standard_normal()).exp()).min(Self::MAX)
            }
        }
    }
}

impl TryFrom<WrittenSpread> for Spread {
    type Error = ValueError;

    fn try_from(written: WrittenSpread) -> Result<Spread, ValueError> {
        match (written.fixed, written.median, written.p99) {
            (Some(amount), None, None) => Spread::fixed(amount),
            (None, Some(median), Some(p99)) => Spread::log_normal(median, p99),
            (Some(_), _, _) => {
                Err(ValueError::Spread { what: "`fixed` excludes `median` and `p99`".to_owned() })
            }
            (None, _, _) => Err(ValueError::Spread { what: "`median` and `p99` belong together".to_owned() }),
        }
    }
}

/// Converts an amount in milliseconds to a duration.
pub(crate) fn milliseconds(amount: f64) -> Duration {
    Duration::from_secs_f64(amount / 1000.0)
}

/// The status of a scripted failure, from 400 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub struct FailureStatus(u16);

impl FailureStatus {
    /// 500, the provider's own fault.
    pub const SERVER_ERROR: FailureStatus = FailureStatus(500);

    /// Accepts a status from 400 to 599.
    pub fn new(status: u16) -> Result<FailureStatus, ValueError> {
        if (400..=599).contains(&status) {
            Ok(FailureStatus(status))
        } else {
            Err(ValueError::FailureStatus(status))
        }
    }

    /// Returns the status code.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for FailureStatus {
    type Error = ValueError;

    fn try_from(status: u16) -> Result<FailureStatus, ValueError> {
        FailureStatus::new(status)
    }
}

/// Text that goes out as it stands, written as a string or as the JSON value it shall hold.
///
/// A string can hold what is not JSON, which is how a script makes a model that writes
/// broken arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "serde_json::Value")]
pub struct Payload(String);

impl Payload {
    /// Takes the text as it stands.
    pub fn raw(text: impl Into<String>) -> Payload {
        Payload(text.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<serde_json::Value> for Payload {
    fn from(value: serde_json::Value) -> Payload {
        match value {
            serde_json::Value::String(text) => Payload(text),
            other => Payload(other.to_string()),
        }
    }
}

impl Default for Payload {
    fn default() -> Payload {
        Payload("{}".to_owned())
    }
}
