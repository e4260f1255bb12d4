//! Lengths of time and points in time.
//!
//! Points in time are [`jiff::Timestamp`]; core never asks what time it is.

use std::fmt;
use std::time::Duration;

pub use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A length of time, never negative, in whole milliseconds; written `90s`, `5m`, `1h30m`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HoldFor(u64);

/// Why a length of time was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// A bare number, which could be seconds or minutes.
    #[error("{0:?} has no unit")]
    NoUnit(String),
    /// Something else than `90s`, `5m`, `1h30m`, `1d`.
    #[error("{0:?} is no duration such as 90s, 5m, 1h30m or 1d")]
    Malformed(String),
    /// More than ten years.
    #[error("{0:?} is longer than ten years")]
    TooLong(String),
}

const UNITS: [(&str, u64); 5] = [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
const TEN_YEARS_MS: u64 = 3_652 * 86_400_000;

impl HoldFor {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A length of `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// A length of `secs` seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000)
    }

    /// A length of `mins` minutes.
    pub const fn from_mins(mins: u64) -> Self {
        Self(mins * 60_000)
    }

    /// A length of `hours` hours.
    pub const fn from_hours(hours: u64) -> Self {
        Self(hours * 3_600_000)
    }

    /// Reads `90s`, `5m`, `24h`, `1d`, `1h30m`, `250ms`; units from large to small, each at most once.
    ///
    /// # Errors
    /// [`InvalidDuration`] tells what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidDuration> {
        let malformed = || InvalidDuration::Malformed(text.to_owned());
        let mut rest = text.trim();
        if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidDuration::NoUnit(text.to_owned()));
        }
        let mut total: u64 = 0;
        let mut smallest_so_far = u64::MAX;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| malformed())?;
            rest = &rest[digits..];
            let &(name, unit_ms) =
                UNITS.iter().find(|(name, _)| rest.starts_with(name)).ok_or_else(malformed)?;
            if unit_ms >= smallest_so_far {
                return Err(malformed());
            }
            smallest_so_far = unit_ms;
            rest = &rest[name.len()..];
            total = number
                .checked_mul(unit_ms)
                .and_then(|ms| total.checked_add(ms))
                .filter(|ms| *ms <= TEN_YEARS_MS)
                .ok_or_else(|| InvalidDuration::TooLong(text.to_owned()))?;
        }
        if smallest_so_far == u64::MAX { Err(malformed()) } else { Ok(Self(total)) }
    }

    /// The length in milliseconds.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// The length in seconds, with its fraction.
    pub fn secs_f64(self) -> f64 {
        Duration::from_millis(self.0).as_secs_f64()
    }

    /// The same length as the standard library has it.
    pub const fn as_std(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// This length `n` times.
    #[must_use]
    pub fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n).min(TEN_YEARS_MS))
    }

    /// The sum of both lengths.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(TEN_YEARS_MS))
    }

    /// This length less the other, at least nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// The time from `start` to `end`, or nothing when `end` lies before `start`.
    pub fn between(start: Timestamp, end: Timestamp) -> Self {
        let ms = end.as_millisecond().saturating_sub(start.as_millisecond());
        Self(u64::try_from(ms).unwrap_or(0))
    }

    /// The point in time this long after `start`.
    pub fn after(self, start: Timestamp) -> Timestamp {
        start.checked_add(self.as_std()).unwrap_or(Timestamp::MAX)
    }

    /// The point in time this long before `end`.
    pub fn before(self, end: Timestamp) -> Timestamp {
        end.checked_sub(self.as_std()).unwrap_or(Timestamp::MIN)
    }
}

impl fmt::Display for HoldFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        let mut text = String::new();
        let mut rest = self.0;
        for (name, unit_ms) in [UNITS[1], UNITS[2], UNITS[3], UNITS[4], UNITS[0]] {
            let whole = rest / unit_ms;
            rest %= unit_ms;
            if whole > 0 {
                text.push_str(&format!("{whole}{name}"));
            }
        }
        f.pad(&text)
    }
}

impl From<HoldFor> for String {
    fn from(length: HoldFor) -> Self {
        length.to_string()
    }
}

impl TryFrom<String> for HoldFor {
    type Error = InvalidDuration;
    fn try_from(text: String) -> Result<Self, InvalidDuration> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, ms) in [
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("1d", 86_400_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("0s", 0),
            ("90s", 90_000),
        ] {
            assert_eq!(HoldFor::parse(text).map(HoldFor::millis), Ok(ms), "{text}");
        }
        assert_eq!(HoldFor::from_secs(90).to_string(), "1m30s");
        assert_eq!(HoldFor::from_hours(24).to_string(), "1d");
        assert_eq!(HoldFor::ZERO.to_string(), "0s");
    }

    #[test]
    fn a_bare_number_is_no_duration() {
        let refused = |text: &str| HoldFor::parse(text).unwrap_err().to_string();
        assert_eq!(refused("5"), "\"5\" has no unit");
        assert_eq!(refused("-5m"), "\"-5m\" is no duration such as 90s, 5m, 1h30m or 1d");
        assert_eq!(refused("5m1h"), "\"5m1h\" is no duration such as 90s, 5m, 1h30m or 1d");
        assert_eq!(refused(""), "\"\" is no duration such as 90s, 5m, 1h30m or 1d");
        assert_eq!(refused("PT5M"), "\"PT5M\" is no duration such as 90s, 5m, 1h30m or 1d");
        assert_eq!(refused("99999d"), "\"99999d\" is longer than ten years");
    }
}
