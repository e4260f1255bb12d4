//! Shares of sessions, in basis points.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A share of new sessions in basis points, 0 to 10 000 (100 %).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Weight(u16);

/// Why a weight was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidWeight {
    /// The number is below 0 % or above 100 %.
    #[error("weight {0} % is outside 0 to 100 %")]
    OutOfRange(f64),
    /// The number has more digits than basis points can hold.
    #[error("weight {0} % is finer than 0.01 %")]
    TooFine(f64),
    /// The text is no number, with or without `%`.
    #[error("{0:?} is no weight such as 10 or 10%")]
    NotANumber(String),
}

impl Weight {
    /// No session.
    pub const ZERO: Self = Self(0);
    /// Half of the sessions; from here on a ramp is Completing.
    pub const HALF: Self = Self(5_000);
    /// Every session.
    pub const FULL: Self = Self(10_000);

    /// A weight from basis points.
    ///
    /// # Errors
    /// [`InvalidWeight::OutOfRange`] above 10 000.
    pub fn from_bp(bp: u16) -> Result<Self, InvalidWeight> {
        if bp <= 10_000 { Ok(Self(bp)) } else { Err(InvalidWeight::OutOfRange(f64::from(bp) / 100.0)) }
    }

    /// A weight from percent, 0 to 100 with at most two decimals.
    ///
    /// # Errors
    /// [`InvalidWeight`] when it is outside that range or finer.
    pub fn from_percent(percent: f64) -> Result<Self, InvalidWeight> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(InvalidWeight::OutOfRange(percent));
        }
        let bp = (percent * 100.0).round();
        if (percent * 100.0 - bp).abs() > 1e-6 {
            return Err(InvalidWeight::TooFine(percent));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to lie in 0..=10 000"
        )]
        Ok(Self(bp as u16))
    }

    /// A weight as people write it: `10`, `10%`, `0.5 %`.
    ///
    /// # Errors
    /// [`InvalidWeight`] tells what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidWeight> {
        let number = text.trim().trim_end_matches('%').trim_end();
        let percent: f64 = number.parse().map_err(|_| InvalidWeight::NotANumber(text.to_owned()))?;
        Self::from_percent(percent)
    }

    /// The share in basis points, 0 to 10 000.
    pub fn bp(self) -> u16 {
        self.0
    }

    /// The share as a number from 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// The share in percent, 0 to 100.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// This weight plus another, at most 100 %.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(10_000))
    }

    /// This weight less another, at least 0 %.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", self.percent()))
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl TryFrom<u16> for Weight {
    type Error = InvalidWeight;
    fn try_from(bp: u16) -> Result<Self, InvalidWeight> {
        Self::from_bp(bp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_as_people_write_them() {
        let read = |text: &str| Weight::parse(text).map(Weight::bp).map_err(|e| e.to_string());
        assert_eq!(read("10"), Ok(1_000));
        assert_eq!(read("10%"), Ok(1_000));
        assert_eq!(read("0.01 %"), Ok(1));
        assert_eq!(read("100%"), Ok(10_000));
        assert_eq!(read("140"), Err("weight 140 % is outside 0 to 100 %".to_owned()));
        assert_eq!(read("-1"), Err("weight -1 % is outside 0 to 100 %".to_owned()));
        assert_eq!(read("0.001"), Err("weight 0.001 % is finer than 0.01 %".to_owned()));
        assert_eq!(read("ten"), Err("\"ten\" is no weight such as 10 or 10%".to_owned()));
        assert_eq!(read("NaN"), Err("weight NaN % is outside 0 to 100 %".to_owned()));
    }
}
