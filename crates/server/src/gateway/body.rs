//! A JSON body, read and changed by byte ranges.
//!
//! The gateway looks at a few members of a body and leaves every other byte as it is. So nothing here
//! builds a tree: values are found as ranges of bytes, and changes are spliced in between.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use memchr::memchr2;

/// How deep values may be nested.
pub(super) const DEEPEST: u32 = 128;
/// The first bytes of a string, which are looked at one by one.
const SHORT: usize = 16;

/// Bytes that are no JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at}")]
pub(super) struct SyntaxError {
    /// Where, counted from 0.
    pub(super) at: usize,
    /// What is wrong there.
    pub(super) problem: &'static str,
}

/// One member of an object, as ranges of the bytes it was found in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// The key between its quotes, escapes as written.
    pub(super) key: Range<usize>,
    /// The value.
    pub(super) value: Range<usize>,
}

impl Member {
    /// The key; bytes that are not the text of any key of ours stay as they are.
    pub(super) fn name<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let raw = &bytes[self.key.clone()];
        if !raw.contains(&b'\\') {
            return Cow::Borrowed(raw);
        }
        let quoted = self.key.start - 1..self.key.end + 1;
        match text(bytes, &quoted) {
            Some(decoded) => Cow::Owned(decoded.into_owned().into_bytes()),
            None => Cow::Borrowed(raw),
        }
    }

    /// The key with its quotes, the colon and the value.
    pub(super) fn range(&self) -> Range<usize> {
        self.key.start - 1..self.value.end
    }
}

/// The members of an object in their order; ends after the first error.
#[derive(Debug)]
pub(super) struct Members<'a> {
    bytes: &'a [u8],
    at: usize,
    place: Place,
}

/// The elements of an array in their order, as ranges; ends after the first error.
#[derive(Debug)]
pub(super) struct Elements<'a> {
    bytes: &'a [u8],
    at: usize,
    place: Place,
}

/// Where an iterator stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    Later,
    Over,
}

impl<'a> Members<'a> {
    /// The members of the object in a range; nothing when the value there is no object.
    pub(super) fn of(bytes: &'a [u8], value: &Range<usize>) -> Option<Self> {
        (bytes.get(value.start) == Some(&b'{')).then(|| Self {
            bytes: &bytes[..value.end],
            at: value.start + 1,
            place: Place::First,
        })
    }

    fn member(&mut self) -> Result<Option<Member>, SyntaxError> {
        let Some(start) = next_item(self.bytes, &mut self.at, &mut self.place, b'}')? else {
            return Ok(None);
        };
        let (key, value) = key_and_colon(self.bytes, start)?;
        let end = skip_value(self.bytes, value)?;
        self.at = end;
        Ok(Some(Member { key, value: value..end }))
    }
}

impl Iterator for Members<'_> {
    type Item = Result<Member, SyntaxError>;

    fn next(&mut self) -> Option<Self::Item> {
        let member = self.member();
        if member.is_err() {
            self.place = Place::Over;
        }
        member.transpose()
    }
}

impl<'a> Elements<'a> {
    /// The elements of the array in a range; nothing when the value there is no array.
    pub(super) fn of(bytes: &'a [u8], value: &Range<usize>) -> Option<Self> {
        (bytes.get(value.start) == Some(&b'[')).then(|| Self {
            bytes: &bytes[..value.end],
            at: value.start + 1,
            place: Place::First,
        })
    }

    fn element(&mut self) -> Result<Option<Range<usize>>, SyntaxError> {
        let Some(start) = next_item(self.bytes, &mut self.at, &mut self.place, b']')? else {
            return Ok(None);
        };
        self.at = skip_value(self.bytes, start)?;
        Ok(Some(start..self.at))
    }
}

impl Iterator for Elements<'_> {
    type Item = Result<Range<usize>, SyntaxError>;

    fn next(&mut self) -> Option<Self::Item> {
        let element = self.element();
        if element.is_err() {
            self.place = Place::Over;
        }
        element.transpose()
    }
}

/// Steps over the comma before the next item; nothing, and `at` behind the bracket, at the end of the list.
fn next_item(
    bytes: &[u8],
    at: &mut usize,
    place: &mut Place,
    close: u8,
) -> Result<Option<usize>, SyntaxError> {
    if *place == Place::Over {
        return Ok(None);
    }
    let start = skip_space(bytes, *at);
    if bytes.get(start) == Some(&close) {
        *at = start + 1;
        *place = Place::Over;
        return Ok(None);
    }
    if *place == Place::First {
        *place = Place::Later;
        return Ok(Some(start));
    }
    if bytes.get(start) != Some(&b',') {
        return Err(SyntaxError { at: start, problem: "expected ',' or the end of the list" });
    }
    Ok(Some(skip_space(bytes, start + 1)))
}

/// A whole body that is one object.
#[derive(Debug)]
pub(super) struct Object {
    /// Its members in their order, also those whose key comes again.
    pub(super) members: Vec<Member>,
    /// The position behind its opening brace.
    pub(super) open: usize,
}

impl Object {
    /// Scans a body.
    ///
    /// # Errors
    /// [`SyntaxError`] when it is no JSON object, or nested deeper than [`DEEPEST`].
    pub(super) fn scan(bytes: &[u8]) -> Result<Self, SyntaxError> {
        let start = skip_space(bytes, 0);
        let Some(mut iterator) = Members::of(bytes, &(start..bytes.len())) else {
            return Err(SyntaxError { at: start, problem: "expected '{'" });
        };
        let mut members = Vec::with_capacity(16);
        while let Some(member) = iterator.member()? {
            members.push(member);
        }
        let end = skip_space(bytes, iterator.at);
        if end != bytes.len() {
            return Err(SyntaxError { at: end, problem: "expected nothing after the object" });
        }
        Ok(Self { members, open: start + 1 })
    }
}

/// The text of a string value, escapes resolved; nothing when it is no string, or no Unicode.
pub(super) fn text<'a>(bytes: &'a [u8], value: &Range<usize>) -> Option<Cow<'a, str>> {
    let whole = &bytes[value.clone()];
    let inner = whole.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(whole).ok().map(Cow::Owned)
}

/// The whole number that a value holds; nothing when it is none.
pub(super) fn whole_number(bytes: &[u8], value: &Range<usize>) -> Option<u64> {
    std::str::from_utf8(&bytes[value.clone()]).ok()?.parse().ok()
}

/// Characters of a string value, and whether any of them leaves a mark; nothing when it is no string.
///
/// Counts without decoding, so that long answers cost no memory.
pub(super) fn count_chars(bytes: &[u8], value: &Range<usize>) -> Option<(u64, bool)> {
    let inner = bytes[value.clone()].strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let plain = memchr::memchr(b'\\', inner).unwrap_or(inner.len());
    let (plain, mut rest) = inner.split_at(plain);
    let begins = |byte: &&u8| !matches!(byte, 0x80..=0xbf);
    let mut chars = plain.iter().filter(begins).count() as u64;
    let mut has_ink = plain.iter().filter(begins).any(|byte| !byte.is_ascii_whitespace());
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after.first()) {
            (b'\\', Some(b'u')) => {
                // The second half of a surrogate pair belongs to the character of the first.
                let is_low_half = matches!(after.get(1..3), Some([b'd' | b'D', b'c'..=b'f' | b'C'..=b'F']));
                chars += u64::from(!is_low_half);
                has_ink = true;
                rest = after.get(5..).unwrap_or_default();
            }
            (b'\\', escaped) => {
                chars += 1;
                has_ink |= !matches!(escaped, Some(b'n' | b'r' | b't') | None);
                rest = after.get(1..).unwrap_or_default();
            }
            (0x80..=0xbf, _) => {}
            (byte, _) => {
                chars += 1;
                has_ink |= !byte.is_ascii_whitespace();
            }
        }
    }
    Some((chars, has_ink))
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// From the opening quote to behind the closing one.
fn skip_string(bytes: &[u8], at: usize) -> Result<usize, SyntaxError> {
    let mut from = at + 1;
    // Keys and most values are so short that starting a search costs more than looking at each byte.
    let short = bytes.get(from..bytes.len().min(from + SHORT)).unwrap_or_default();
    match short.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        Some(n) if short[n] == b'"' => return Ok(from + n + 1),
        Some(n) => from += n,
        None => from += short.len(),
    }
    loop {
        let rest = bytes.get(from..).unwrap_or_default();
        match memchr2(b'"', b'\\', rest) {
            None => return Err(SyntaxError { at, problem: "a string without an end" }),
            Some(n) if rest[n] == b'"' => return Ok(from + n + 1),
            Some(n) => from += n + 2,
        }
    }
}

/// Reads `"key" :` and returns the key between its quotes and where the value starts.
fn key_and_colon(bytes: &[u8], at: usize) -> Result<(Range<usize>, usize), SyntaxError> {
    if bytes.get(at) != Some(&b'"') {
        return Err(SyntaxError { at, problem: "expected a key" });
    }
    let end = skip_string(bytes, at)?;
    let colon = skip_space(bytes, end);
    if bytes.get(colon) != Some(&b':') {
        return Err(SyntaxError { at: colon, problem: "expected ':'" });
    }
    Ok((at + 1..end - 1, skip_space(bytes, colon + 1)))
}

fn skip_number(bytes: &[u8], at: usize) -> Result<usize, SyntaxError> {
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let problem = "expected a digit";
    let whole = if bytes[at] == b'-' { at + 1 } else { at };
    let mut end = digits(whole);
    if end == whole {
        return Err(SyntaxError { at: end, problem });
    }
    if bytes[whole] == b'0' && end > whole + 1 {
        return Err(SyntaxError { at: whole, problem: "a number starts with 0" });
    }
    if bytes.get(end) == Some(&b'.') {
        let fraction = end + 1;
        end = digits(fraction);
        if end == fraction {
            return Err(SyntaxError { at: end, problem });
        }
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = end + 1 + sign;
        end = digits(exponent);
        if end == exponent {
            return Err(SyntaxError { at: end, problem });
        }
    }
    Ok(end)
}

fn skip_word(bytes: &[u8], at: usize, word: &[u8]) -> Result<usize, SyntaxError> {
    let end = at + word.len();
    if bytes.get(at..end) == Some(word) {
        Ok(end)
    } else {
        Err(SyntaxError { at, problem: "expected a value" })
    }
}

/// From the first byte of a value to behind its last one.
fn skip_value(bytes: &[u8], mut at: usize) -> Result<usize, SyntaxError> {
    // One bit for each open bracket: 1 is an object, 0 an array; the innermost is the lowest.
    let (mut open, mut depth) = (0_u128, 0_u32);
    loop {
        let opened = match bytes.get(at) {
            Some(b'"') => {
                at = skip_string(bytes, at)?;
                None
            }
            Some(b'-' | b'0'..=b'9') => {
                at = skip_number(bytes, at)?;
                None
            }
            Some(b't') => {
                at = skip_word(bytes, at, b"true")?;
                None
            }
            Some(b'f') => {
                at = skip_word(bytes, at, b"false")?;
                None
            }
            Some(b'n') => {
                at = skip_word(bytes, at, b"null")?;
                None
            }
            Some(b'{') => Some(b'}'),
            Some(b'[') => Some(b']'),
            Some(_) | None => return Err(SyntaxError { at, problem: "expected a value" }),
        };
        if let Some(close) = opened {
            if depth == DEEPEST {
                return Err(SyntaxError { at, problem: "nested deeper than 128 levels" });
            }
            at = skip_space(bytes, at + 1);
            if bytes.get(at) == Some(&close) {
                at += 1;
            } else {
                depth += 1;
                open = open << 1 | u128::from(close == b'}');
                if close == b'}' {
                    at = key_and_colon(bytes, at)?.1;
                }
                continue;
            }
        }
        // Behind a value: on to the next one, or out of as many brackets as close here.
        loop {
            if depth == 0 {
                return Ok(at);
            }
            at = skip_space(bytes, at);
            let is_object = open & 1 == 1;
            match bytes.get(at) {
                Some(b',') => {
                    at = skip_space(bytes, at + 1);
                    if is_object {
                        at = key_and_colon(bytes, at)?.1;
                    }
                    break;
                }
                Some(b'}') if is_object => {}
                Some(b']') if !is_object => {}
                Some(_) | None => {
                    return Err(SyntaxError { at, problem: "expected ',' or a closing bracket" });
                }
            }
            depth -= 1;
            open >>= 1;
            at += 1;
        }
    }
}

/// Changes to a body, collected and then made at once.
#[derive(Debug, Default)]
pub(super) struct Edits {
    cuts: Vec<Cut>,
    texts: Vec<u8>,
}

/// A range of the body, and the range of the collected texts that takes its place.
#[derive(Debug)]
struct Cut {
    range: Range<usize>,
    text: Range<usize>,
}

/// Text to be written into a body.
pub(super) type Write<'w> = &'w dyn Fn(&mut Vec<u8>);

/// What happens to a list of members or elements.
pub(super) struct ListEdit<'e> {
    /// The position behind the opening bracket.
    pub(super) open: usize,
    /// Which items go, by their index.
    pub(super) removed: &'e dyn Fn(usize) -> bool,
    /// Written before the first item that stays; no comma.
    pub(super) prefix: Option<Write<'e>>,
    /// Written after the last item that stays; no comma.
    pub(super) suffix: Option<Write<'e>>,
}

impl Edits {
    /// Whether nothing is to be changed.
    pub(super) fn is_empty(&self) -> bool {
        self.cuts.is_empty()
    }

    /// Puts text in place of a range.
    pub(super) fn replace(&mut self, range: Range<usize>, write: Write<'_>) {
        let start = self.texts.len();
        write(&mut self.texts);
        self.cuts.push(Cut { range, text: start..self.texts.len() });
    }

    /// Changes a list whose items lie at these ranges, and keeps its commas right.
    pub(super) fn list(&mut self, items: &[Range<usize>], edit: &ListEdit<'_>) {
        let last_kept = (0..items.len()).rev().find(|index| !(edit.removed)(*index));
        if let Some(prefix) = edit.prefix {
            let is_followed = last_kept.is_some() || edit.suffix.is_some();
            self.replace(edit.open..edit.open, &|out| {
                prefix(out);
                if is_followed {
                    out.push(b',');
                }
            });
        }
        for index in 0..last_kept.unwrap_or(0) {
            if (edit.removed)(index) {
                self.replace(items[index].start..items[index + 1].start, &|_| {});
            }
        }
        // The items behind the last one that stays go together with the comma before them.
        let tail_start = last_kept.map_or(edit.open, |index| items[index].end);
        let first_of_tail = last_kept.map_or(0, |index| index + 1);
        let tail_end = if first_of_tail < items.len() { items[items.len() - 1].end } else { tail_start };
        match edit.suffix {
            Some(suffix) => self.replace(tail_start..tail_end, &|out| {
                if last_kept.is_some() {
                    out.push(b',');
                }
                suffix(out);
            }),
            None if tail_end > tail_start => self.replace(tail_start..tail_end, &|_| {}),
            None => {}
        }
    }

    /// Makes the changes; without any, the body itself comes back.
    ///
    /// Changes inside of a range that goes are dropped with it.
    pub(super) fn apply(mut self, source: &Bytes) -> Bytes {
        if self.is_empty() {
            return source.clone();
        }
        self.cuts.sort_by_key(|cut| cut.range.start);
        let mut out = Vec::with_capacity(source.len() + self.texts.len());
        let mut from = 0;
        for cut in &self.cuts {
            if cut.range.start < from {
                continue;
            }
            out.extend_from_slice(&source[from..cut.range.start]);
            out.extend_from_slice(&self.texts[cut.text.clone()]);
            from = cut.range.end;
        }
        out.extend_from_slice(&source[from..]);
        Bytes::from(out)
    }
}

/// Writes a text as a JSON string.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("text is always writable to memory");
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
