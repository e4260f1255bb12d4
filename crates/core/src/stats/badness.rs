//! The one scale on which every metric is judged.

use serde::{Deserialize, Serialize};

/// How bad the value of one session is: 0 (best) to 1 (worst).
///
/// Rates are 0 or 1 or the session's share of bad requests, means `min(x, cap)/cap`, ratings `(5 - r)/4`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Badness(f64);

/// A badness below 0, above 1 or not a number.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is no badness; it must lie between 0 and 1")]
pub struct InvalidBadness(pub f64);

impl Badness {
    /// Nothing bad happened.
    pub const BEST: Self = Self(0.0);
    /// As bad as it gets.
    pub const WORST: Self = Self(1.0);

    /// Takes a badness between 0 and 1.
    ///
    /// # Errors
    /// [`InvalidBadness`] outside of that range and for NaN.
    pub fn new(badness: f64) -> Result<Self, InvalidBadness> {
        if (0.0..=1.0).contains(&badness) { Ok(Self(badness)) } else { Err(InvalidBadness(badness)) }
    }

    /// The number between 0 and 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Badness {
    type Error = InvalidBadness;

    fn try_from(badness: f64) -> Result<Self, InvalidBadness> {
        Self::new(badness)
    }
}

impl From<Badness> for f64 {
    fn from(badness: Badness) -> Self {
        badness.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badness_lies_between_0_and_1() {
        assert_eq!(Badness::new(0.0), Ok(Badness::BEST));
        assert_eq!(Badness::new(1.0), Ok(Badness::WORST));
        assert!(Badness::new(1.000_001).is_err());
        assert!(Badness::new(-0.1).is_err());
        assert!(Badness::new(f64::NAN).is_err());
    }
}
