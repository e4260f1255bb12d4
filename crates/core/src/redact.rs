//! Takes personal data and secrets out of texts before they are kept.
//!
//! What a pattern finds becomes `[redacted:NAME]`. The built-in patterns are always on and err on the side of
//! taking out too much; numbers of cards and accounts must pass their check digits, so that order numbers stay
//! readable.

use std::fmt;

use regex::Regex;

/// Takes out what its patterns find.
#[derive(Debug, Clone)]
pub struct Redactor {
    patterns: Vec<Pattern>,
}

/// What is taken out under one name.
#[derive(Debug, Clone)]
struct Pattern {
    name: String,
    /// Finds candidates; what its first group catches is taken out, or all of it when it has none.
    regex: Regex,
    /// How much of a candidate is meant; nothing when it is none after all.
    judge: fn(&str) -> Option<usize>,
}

/// A text without what the patterns found in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    /// The text, with `[redacted:NAME]` where something was.
    pub text: String,
    /// How many places were taken out.
    pub count: u32,
    /// Whether the text goes on beyond the length that was asked for.
    pub is_cut: bool,
}

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It has no name.
    #[error("has no name; write NAME=REGEX, such as employee=EMP-\\d+")]
    NoName,
    /// The name has other characters than it may have, or too many.
    #[error("has a name other than up to 32 of a-z, 0-9, _ and -")]
    Name,
    /// The name is one of a built-in pattern.
    #[error("has the name of a built-in pattern")]
    BuiltIn,
    /// The regular expression cannot be read.
    #[error("is no regular expression: {0}")]
    Regex(String),
    /// It finds the empty text, which is everywhere.
    #[error("finds the empty text, which is everywhere")]
    Empty,
}

/// The names of the built-in patterns.
pub const BUILT_IN: [&str; 5] = ["email", "key", "card", "iban", "phone"];

/// The longest compiled pattern, in bytes.
const LARGEST_PATTERN: usize = 4 << 20;

/// The longest candidate that is looked into when it was no match, in bytes: cards, accounts, telephone numbers.
const LONGEST_NUMBER: usize = 80;

/// Addresses with `@`, also as a URL writes it.
const EMAIL: &str = r"[\w.%+\-]*[\w+\-](?:@|%40)[\w\-]+(?:\.[\w\-]+)+";
/// Keys and tokens by the form that their makers gave them, and private keys up to their end or the text's.
const KEY_FORMS: &str = r"(?s:-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z))|(?-u:\b(?:(?:sk|pk|rk)[-_][\w\-]{12,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w\-]{12,}|xox[a-z]-[\w\-]{8,}|(?:AKIA|ASIA)[A-Z0-9]{12,}|AIza[\w\-]{20,}|ya29\.[\w\-]{16,}|hf_\w{16,}|npm_\w{20,}|eyJ[\w\-]{8,}\.[\w\-]{8,}(?:\.[\w\-]*)?))";
/// What is called a secret by the words before it; the words stay.
const KEY_NAMED: &str = r#"(?i)(?:\bbearer +|(?:api[ _\-]?key|access[ _\-]?key|token|secret|password|passwd|passphrase)["']?\s*(?:[:=]|\bis\b:?)\s*["']?)([^\s"',;]{6,})"#;
/// Long runs of hexadecimal digits.
const KEY_HEX: &str = r"(?-u:\b[0-9a-fA-F]{32,}\b)";
/// Long runs of letters and digits that no word has.
const KEY_BASE64: &str = r"[A-Za-z0-9+/_\-]{40,}={0,2}";
const CARD: &str = r"(?-u:\b\d(?:[ \-.]?\d){12,18}\b)";
const IBAN: &str = r"(?i-u:\b[a-z]{2}\d{2}(?:[ \-]?[a-z0-9]){11,30}\b)";
/// Numbers with a plus, North American ones, and others with a leading 0 and a separator.
const PHONE: &str = r"(?-u:\+\d[\d .()/\-]{5,20}\d|\(\d{2,5}\) ?\d[\d .\-]{4,12}\d|\b(?:1[ .\-])?\d{3}[ .\-]\d{3}[ .\-]\d{4}\b|\b0\d{1,5}[ /.\-]\d[\d /.\-]{3,12}\d\b)";

impl Default for Redactor {
    /// The built-in patterns.
    fn default() -> Self {
        let pattern = |name: &str, regex: &str, judge| {
            let regex = compiled(regex).expect("the built-in patterns are tested");
            Pattern { name: name.to_owned(), regex, judge }
        };
        Self {
            patterns: vec![
                pattern("email", EMAIL, all),
                pattern("key", KEY_FORMS, all),
                pattern("key", KEY_NAMED, all),
                pattern("key", KEY_HEX, all),
                pattern("key", KEY_BASE64, if_mixed),
                pattern("card", CARD, if_luhn),
                pattern("iban", IBAN, while_iban),
                pattern("phone", PHONE, if_phone),
            ],
        }
    }
}

impl Redactor {
    /// Adds a pattern of one's own, written `NAME=REGEX`; where it has a group, only what the first one catches goes.
    ///
    /// # Errors
    /// [`InvalidPattern`] tells what is wrong with it.
    pub fn add(&mut self, text: &str) -> Result<(), InvalidPattern> {
        let (name, regex) = text.split_once('=').ok_or(InvalidPattern::NoName)?;
        let name = name.trim();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 32 || !name.chars().all(fits) {
            return Err(InvalidPattern::Name);
        }
        if BUILT_IN.contains(&name) {
            return Err(InvalidPattern::BuiltIn);
        }
        let regex = compiled(regex.trim()).map_err(|error| InvalidPattern::Regex(one_line(&error)))?;
        if regex.is_match("") {
            return Err(InvalidPattern::Empty);
        }
        // One's own patterns know better what something is called.
        self.patterns.insert(0, Pattern { name: name.to_owned(), regex, judge: all });
        Ok(())
    }

    /// The names of all patterns, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for pattern in &self.patterns {
            if !names.contains(&pattern.name.as_str()) {
                names.push(&pattern.name);
            }
        }
        names
    }

    /// Takes out what the patterns find, and keeps what begins within the first `keep` bytes.
    ///
    /// What begins there is found in full where the text goes on far enough, so that no part of it is kept.
    pub fn redact(&self, text: &str, keep: usize) -> Redacted {
        let end = floor(text, keep);
        let mut redacted = Redacted { text: String::new(), count: 0, is_cut: end < text.len() };
        let mut from = 0;
        for found in self.find(text) {
            if found.start >= end {
                break;
            }
            redacted.text.push_str(&text[from..found.start]);
            redacted.text.push_str("[redacted:");
            redacted.text.push_str(found.name);
            redacted.text.push(']');
            redacted.count += 1;
            from = found.end;
        }
        if from < end {
            redacted.text.push_str(&text[from..end]);
        }
        redacted
    }

    /// What is to be taken out, in the order of the text; places that overlap are one.
    fn find(&self, text: &str) -> Vec<Found<'_>> {
        let mut all: Vec<Found<'_>> = Vec::new();
        for pattern in &self.patterns {
            pattern.find(text, &mut all);
        }
        // A stable sort: of two that begin together the first pattern gives the name.
        all.sort_by_key(|found| found.start);
        let mut joined: Vec<Found<'_>> = Vec::with_capacity(all.len());
        for found in all {
            match joined.last_mut() {
                Some(last) if found.start < last.end => last.end = last.end.max(found.end),
                Some(_) | None => joined.push(found),
            }
        }
        joined
    }
}

/// A place that is taken out.
#[derive(Debug)]
struct Found<'n> {
    start: usize,
    end: usize,
    name: &'n str,
}

impl Pattern {
    fn find<'n>(&'n self, text: &str, found: &mut Vec<Found<'n>>) {
        let mut at = 0;
        while let Some(captures) = self.regex.captures_at(text, at) {
            let Some(whole) = captures.get(0) else { return };
            let meant = captures.get(1).unwrap_or(whole);
            match (self.judge)(meant.as_str()) {
                Some(length) if length > 0 => {
                    let end = meant.start() + length;
                    found.push(Found { start: meant.start(), end, name: &self.name });
                    at = end;
                }
                // Something may begin inside of a number that was none after all.
                Some(_) | None if whole.len() <= LONGEST_NUMBER => at = whole.start() + 1,
                Some(_) | None => at = whole.end(),
            }
            at = ceil(text, at);
            if at > text.len() {
                return;
            }
        }
    }
}

impl fmt::Display for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(", "))
    }
}

fn compiled(regex: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(regex).size_limit(LARGEST_PATTERN).build()
}

/// The last line of an error about a regular expression; those before it draw a picture.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}

/// The last position up to `at` between two characters.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The first position from `at` on between two characters; behind the text where there is none.
fn ceil(text: &str, at: usize) -> usize {
    (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(at.max(text.len()))
}

fn all(text: &str) -> Option<usize> {
    Some(text.len())
}

fn digits(text: &str) -> impl DoubleEndedIterator<Item = u32> {
    text.chars().filter_map(|c| c.to_digit(10))
}

/// Letters of both cases and a digit together, as words hardly have them.
fn if_mixed(text: &str) -> Option<usize> {
    let count = |is: fn(&u8) -> bool| text.as_bytes().iter().filter(|byte| is(byte)).count();
    let letters = count(u8::is_ascii_uppercase).min(count(u8::is_ascii_lowercase));
    (letters >= 3 && count(u8::is_ascii_digit) >= 1).then_some(text.len())
}

/// The check digit of cards (Luhn).
fn if_luhn(text: &str) -> Option<usize> {
    let sum: u32 = digits(text)
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => digit,
            (_, doubled) => doubled / 10 + doubled % 10,
        })
        .sum();
    (sum.is_multiple_of(10) && digits(text).any(|digit| digit != 0)).then_some(text.len())
}

/// The longest beginning that has the check digits of an account number (ISO 13616).
fn while_iban(text: &str) -> Option<usize> {
    let ends = text.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()).map(|(at, _)| at + 1);
    let mut ends: Vec<usize> = ends.collect();
    while ends.len() >= 15 {
        let end = ends.pop()?;
        if ends.len() < 34 && is_iban(&text[..end]) {
            return Some(end);
        }
    }
    None
}

fn is_iban(text: &str) -> bool {
    let compact: Vec<char> = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let (head, rest) = compact.split_at(4);
    let value = |remainder: u32, c: &char| {
        let digit = c.to_digit(36).unwrap_or(0);
        (remainder * if digit < 10 { 10 } else { 100 } + digit) % 97
    };
    rest.iter().chain(head).fold(0, value) == 1
}

/// As many digits as a telephone number has.
fn if_phone(text: &str) -> Option<usize> {
    (7..=15).contains(&digits(text).count()).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        Redactor::default().redact(text, usize::MAX).text
    }

    #[test]
    fn each_kind_is_taken_out_and_named() {
        for (text, expected) in [
            ("write to Ann.Lee+x@mail.example.co.uk.", "write to [redacted:email]."),
            ("?to=ann%40example.com&x", "?to=[redacted:email]&x"),
            ("jürgen@bücher.example", "[redacted:email]"),
            ("<a@b.example>,c@d.example", "<[redacted:email]>,[redacted:email]"),
            ("call +49 (30) 901820 now", "call [redacted:phone] now"),
            ("call (030) 901-820", "call [redacted:phone]"),
            ("call 555-010-9999 or 1-212-555-0100", "call [redacted:phone] or [redacted:phone]"),
            ("Tel. 0171/2345678", "Tel. [redacted:phone]"),
            ("card 4111 1111 1111 1111, thanks", "card [redacted:card], thanks"),
            ("card 5500005555555559", "card [redacted:card]"),
            ("to DE89 3704 0044 0532 0130 00 please", "to [redacted:iban] please"),
            ("gb82west12345698765432", "[redacted:iban]"),
            ("sk-proj-abcdef0123456789", "[redacted:key]"),
            ("ghp_0123456789abcdefghij", "[redacted:key]"),
            ("AKIAIOSFODNN7EXAMPLE", "[redacted:key]"),
            ("Authorization: Bearer abc.def-123", "Authorization: Bearer [redacted:key]"),
            ("my password is hunter22!", "my password is [redacted:key]"),
            ("{\"api_key\": \"x1y2z3w4\"}", "{\"api_key\": \"[redacted:key]\"}"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig_nature", "[redacted:key]"),
            ("9e107d9d372bb6826bd81d3542a419d6", "[redacted:key]"),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1", "[redacted:key]"),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- x", "[redacted:key] x"),
            ("-----BEGIN PRIVATE KEY-----\nMIIE", "[redacted:key]"),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in [
            "Where is order 4711-0815? I paid 19.99 on 2026-11-02 at 18:30.",
            "Order 1234567890123456 has no check digit of a card.",
            "version 2.4.0, build 20261102, 10.0.0.1, 3 x 200 ms",
            "a@b is no address, and neither is @home",
            "the token ring of https://example.com/a-rather-long-path-that-goes-on-and-on-and-on",
            "GB82 WEST 1234 5698 7654 33 has the wrong check digits",
            "the secret of good bread",
            "",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn what_begins_before_the_cut_goes_in_full() {
        let text = "aa ann@example.com bb";
        let redact = |keep| Redactor::default().redact(text, keep);
        for keep in 4..=18 {
            let cut = redact(keep);
            assert_eq!(
                (cut.text.as_str(), cut.count, cut.is_cut),
                ("aa [redacted:email]", 1, true),
                "{keep}"
            );
        }
        assert_eq!(redact(3).text, "aa ");
        assert_eq!(
            redact(text.len()),
            Redacted { text: "aa [redacted:email] bb".to_owned(), count: 1, is_cut: false }
        );
        assert_eq!(Redactor::default().redact("é", 1).text, "", "no character is cut in two");
    }

    #[test]
    fn patterns_of_ones_own_come_first_and_may_name_a_part() {
        let mut redactor = Redactor::default();
        redactor.add(r"employee=EMP-\d+").unwrap();
        redactor.add(r"city=lives in (\w+)").unwrap();
        let text = "EMP-007 lives in Rome, EMP-8@x.example";
        let expected = "[redacted:employee] lives in [redacted:city], [redacted:employee]";
        assert_eq!(redactor.redact(text, usize::MAX).text, expected);
        let refused = |text: &str| Redactor::default().add(text).unwrap_err().to_string();
        assert_eq!(refused(r"EMP-\d+"), "has no name; write NAME=REGEX, such as employee=EMP-\\d+");
        assert_eq!(refused("A b=x"), "has a name other than up to 32 of a-z, 0-9, _ and -");
        assert_eq!(refused("email=x"), "has the name of a built-in pattern");
        assert_eq!(refused("x=("), "is no regular expression: unclosed group");
        assert_eq!(refused("x=a*"), "finds the empty text, which is everywhere");
        assert_eq!(redactor.names(), ["city", "employee", "email", "key", "card", "iban", "phone"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_no_planted_address_survives(before in ".{0,40}", after in ".{0,40}", keep in 0_usize..120) {
            static REDACTOR: std::sync::LazyLock<Redactor> = std::sync::LazyLock::new(Redactor::default);
            let text = format!("{before} ann.lee@example.com {after}");
            let redacted = REDACTOR.redact(&text, keep);
            proptest::prop_assert!(!redacted.text.contains("ann.lee"), "{}", redacted.text);
            proptest::prop_assert!(!redacted.text.contains("example.com"), "{}", redacted.text);
        }
    }
}
