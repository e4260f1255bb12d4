//! What tokens cost.

use std::collections::BTreeMap;

/// Prices of one model, in US dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Of the prompt, as far as it does not come from a cache.
    pub input: f64,
    /// Of the prompt's tokens that come from a cache.
    pub cached: f64,
    /// Of the answer.
    pub output: f64,
}

impl Price {
    /// The price of an answer in US dollars.
    pub fn of(&self, input: f64, cached: f64, output: f64) -> f64 {
        let cached = cached.min(input);
        ((input - cached) * self.input + cached * self.cached + output * self.output) / 1e6
    }
}

/// Prices by model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices(BTreeMap<String, Price>);

impl Prices {
    /// The price of a model: under its own name, else under the longest name that it continues after a `-`, as
    /// dated names do (`gpt-5-mini-2026-01-31` is a `gpt-5-mini`).
    pub fn of(&self, model: &str) -> Option<Price> {
        if let Some(price) = self.0.get(model) {
            return Some(*price);
        }
        let mut ends = model.rmatch_indices('-').map(|(end, _)| end);
        ends.find_map(|end| self.0.get(&model[..end]).copied())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, Price)> for Prices {
    fn from_iter<I: IntoIterator<Item = (String, Price)>>(prices: I) -> Self {
        Self(prices.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dated_name_has_the_price_of_its_model() {
        let price = |input| Price { input, cached: 0.1, output: 2.0 };
        let prices: Prices = [("gpt-5", price(1.0)), ("gpt-5-mini", price(0.5))]
            .map(|(name, price)| (name.to_owned(), price))
            .into_iter()
            .collect();
        let input = |model: &str| prices.of(model).map(|price| price.input);
        assert_eq!(input("gpt-5"), Some(1.0));
        assert_eq!(input("gpt-5-mini-2026-01-31"), Some(0.5));
        assert_eq!(input("gpt-5-2026-01-31"), Some(1.0));
        assert_eq!((input("gpt-50"), input("o9")), (None, None));
    }

    #[test]
    fn cached_tokens_have_a_price_of_their_own() {
        let price = Price { input: 10.0, cached: 1.0, output: 100.0 };
        assert_eq!(price.of(1_000_000.0, 400_000.0, 10_000.0), 6.0 + 0.4 + 1.0);
    }
}
