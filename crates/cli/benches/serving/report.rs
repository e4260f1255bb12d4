//! Numbers as people read them.

/// Prints the title of a part.
pub(crate) fn title(text: &str) {
    println!("\n{text}");
}

/// Prints a name and its value.
pub(crate) fn row(name: &str, value: &str) {
    println!("  {name:<46}{value:>14}");
}

/// The middle value; the lower one of two.
pub(crate) fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value that so many of all are not above.
pub(crate) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a small count is a small count"
    )]
    let rank = (values.len() as f64 * share).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}
