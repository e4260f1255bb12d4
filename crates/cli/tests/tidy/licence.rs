//! Which licences the dependencies may have, and what must not be among them.

/// What `deny.toml` says.
pub(crate) struct Policy<'t> {
    /// The licences that are allowed.
    pub(crate) licences: Vec<&'t str>,
    /// The crates that must not come in, not even through others, each with the reason.
    pub(crate) banned: Vec<(&'t str, &'t str)>,
}

impl<'t> Policy<'t> {
    /// Reads the lists `allow` and `deny`: one item a line, in quotes.
    pub(crate) fn read(text: &'t str) -> Self {
        let list = |name: &str| -> Vec<&'t str> {
            let head = format!("{name} = [");
            let items = text.lines().skip_while(|line| *line != head).skip(1);
            items.take_while(|line| *line != "]").collect()
        };
        let quoted = |line: &'t str| line.split('"').skip(1).step_by(2).collect::<Vec<_>>();
        let licences: Vec<&str> = list("allow").into_iter().map(|line| quoted(line)[0]).collect();
        let banned: Vec<_> =
            list("deny").into_iter().map(|line| (quoted(line)[0], quoted(line)[1])).collect();
        assert!(licences.len() > 5 && banned.len() > 3, "the lists of deny.toml are not read");
        Self { licences, banned }
    }
}

/// Whether an SPDX expression can be met by allowed licences alone (the old `A/B` means `A OR B`).
pub(crate) fn permits(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut tokens = spaced.split_whitespace().collect::<Vec<_>>().into_iter().peekable();
    let permitted = any_of(&mut tokens, allowed);
    permitted && tokens.next().is_none()
}

type Tokens<'t> = std::iter::Peekable<std::vec::IntoIter<&'t str>>;

fn any_of(tokens: &mut Tokens<'_>, allowed: &[&str]) -> bool {
    let mut permitted = all_of(tokens, allowed);
    while tokens.next_if_eq(&"OR").is_some() {
        permitted |= all_of(tokens, allowed);
    }
    permitted
}

fn all_of(tokens: &mut Tokens<'_>, allowed: &[&str]) -> bool {
    let mut permitted = one(tokens, allowed);
    while tokens.next_if_eq(&"AND").is_some() {
        permitted &= one(tokens, allowed);
    }
    permitted
}

fn one(tokens: &mut Tokens<'_>, allowed: &[&str]) -> bool {
    if tokens.next_if_eq(&"(").is_some() {
        let permitted = any_of(tokens, allowed);
        return tokens.next_if_eq(&")").is_some() && permitted;
    }
    let mut licence = tokens.next().unwrap_or_default().to_owned();
    if tokens.next_if_eq(&"WITH").is_some() {
        licence = format!("{licence} WITH {}", tokens.next().unwrap_or_default());
    }
    allowed.contains(&licence.as_str())
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
    for (expression, expected) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-2.0 OR MIT", true),
        ("GPL-2.0 AND MIT", false),
        ("(GPL-2.0 OR MIT) AND Apache-2.0", true),
        ("(GPL-2.0 OR MIT) AND ISC", false),
        ("GPL-2.0 OR MIT AND ISC", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("MIT WITH LLVM-exception", false),
        ("", false),
        ("MIT)", false),
    ] {
        assert_eq!(permits(expression, &allowed), expected, "{expression:?}");
    }
}
