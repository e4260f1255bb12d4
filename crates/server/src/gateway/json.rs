//! JSON that is read where it lies.
//!
//! It is checked first, in one pass; what reads it afterwards can rely on that. A reader looks for the few values that
//! matter, each where it stands, and everything else is stepped over. So nothing here builds a tree.

mod check;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

use memchr::memchr2;

pub(super) use check::SyntaxError;

/// Bytes of a string that are looked at a few at a time: most strings are so short that starting a search costs more.
const SHORT: usize = 32;

/// An object in JSON that was checked.
#[derive(Debug)]
pub(super) struct Json<'b> {
    bytes: &'b [u8],
    /// Where its brace opens.
    start: usize,
    /// Where the value that was read last begins and ends, so that nobody looks for its end again.
    last: Cell<(usize, usize)>,
}

/// A value in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'j, 'b> {
    json: &'j Json<'b>,
    at: usize,
}

/// A member of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'j, 'b> {
    /// The key between its quotes, escapes as written.
    pub(super) key: &'b [u8],
    /// The value.
    pub(super) value: Node<'j, 'b>,
    has_escapes: bool,
}

/// Where a member of an object lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemberPlace {
    /// The key between its quotes, escapes as written.
    pub(super) key: Range<usize>,
    /// The value.
    pub(super) value: Range<usize>,
    has_escapes: bool,
}

/// A string, as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'b> {
    /// With its quotes.
    quoted: &'b [u8],
    has_escapes: bool,
}

impl<'b> Json<'b> {
    /// Checks bytes that shall be one object and nothing else.
    ///
    /// # Errors
    /// [`SyntaxError`] when they are not, or nested too deeply.
    pub(super) fn whole(bytes: &'b [u8]) -> Result<Self, SyntaxError> {
        Self::whole_with(bytes, |_| {})
    }

    /// The same, and tells of each member where it lies.
    ///
    /// # Errors
    /// As [`Json::whole`].
    pub(super) fn whole_with(bytes: &'b [u8], member: impl FnMut(MemberPlace)) -> Result<Self, SyntaxError> {
        let start = skip_space(bytes, 0);
        let end = skip_space(bytes, check::object(bytes, start, member)?);
        if end != bytes.len() {
            return Err(SyntaxError { at: end, problem: "expected nothing after the object" });
        }
        Ok(Self::checked(bytes, start))
    }

    /// Checks an object that bytes shall begin with, whatever comes behind it.
    ///
    /// # Errors
    /// [`SyntaxError`] when there is none, or it is nested too deeply.
    pub(super) fn beginning(bytes: &'b [u8]) -> Result<Self, SyntaxError> {
        check::object(bytes, 0, |_| {})?;
        Ok(Self::checked(bytes, 0))
    }

    /// Bytes that were checked before, with an object that begins here.
    pub(super) fn checked(bytes: &'b [u8], start: usize) -> Self {
        Self { bytes, start, last: Cell::new((usize::MAX, usize::MAX)) }
    }

    /// The object.
    pub(super) fn root(&self) -> Node<'_, 'b> {
        Node { json: self, at: self.start }
    }

    /// The value that lies in a range.
    pub(super) fn node(&self, range: &Range<usize>) -> Node<'_, 'b> {
        self.last.set((range.start, range.end));
        Node { json: self, at: range.start }
    }
}

impl<'j, 'b> Node<'j, 'b> {
    /// As it is written.
    pub(super) fn raw(self) -> &'b [u8] {
        &self.json.bytes[self.range()]
    }

    /// Where it begins.
    pub(super) fn start(self) -> usize {
        self.at
    }

    /// Where it lies.
    pub(super) fn range(self) -> Range<usize> {
        self.at..self.end()
    }

    /// Whether it is an object.
    pub(super) fn is_object(self) -> bool {
        self.json.bytes.get(self.at) == Some(&b'{')
    }

    /// Whether it is an array.
    pub(super) fn is_array(self) -> bool {
        self.json.bytes.get(self.at) == Some(&b'[')
    }

    /// Whether it is `null`.
    pub(super) fn is_null(self) -> bool {
        self.raw() == b"null"
    }

    /// The string that it is; nothing when it is none.
    pub(super) fn text(self) -> Option<Text<'b>> {
        let (text, _) = Text::leading(self.json.bytes.get(self.at..)?)?;
        self.json.last.set((self.at, self.at + text.len()));
        Some(text)
    }

    /// The same without escapes; nothing when it is no string, or no Unicode.
    pub(super) fn decoded(self) -> Option<Cow<'b, str>> {
        self.text()?.decoded()
    }

    /// The whole number that it is; nothing when it is none.
    pub(super) fn whole_number(self) -> Option<u64> {
        std::str::from_utf8(self.raw()).ok()?.parse().ok()
    }

    /// The members of the object that it is, in their order; none when it is no object.
    pub(super) fn members(self) -> Members<'j, 'b> {
        Members(Items::of(self, b'{'))
    }

    /// The elements of the array that it is; none when it is no array.
    pub(super) fn elements(self) -> Elements<'j, 'b> {
        Elements(Items::of(self, b'['))
    }

    /// The value of the last member of this name, which is the one that counts; nothing when it has none.
    pub(super) fn member(self, name: &[u8]) -> Option<Node<'j, 'b>> {
        self.members().filter(|member| *member.name() == *name).last().map(|member| member.value)
    }

    fn end(self) -> usize {
        match self.json.last.get() {
            (start, end) if start == self.at => end,
            _ => {
                let end = value_end(self.json.bytes, self.at);
                self.json.last.set((self.at, end));
                end
            }
        }
    }
}

impl<'b> Member<'_, 'b> {
    /// The key without escapes; one that is no Unicode stays as it is.
    pub(super) fn name(&self) -> Cow<'b, [u8]> {
        name(self.key, self.has_escapes)
    }
}

impl MemberPlace {
    /// The key without escapes; one that is no Unicode stays as it is.
    pub(super) fn name<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        name(&bytes[self.key.clone()], self.has_escapes)
    }

    /// From the quote before the key to behind the value.
    pub(super) fn range(&self) -> Range<usize> {
        self.key.start - 1..self.value.end
    }
}

fn name(key: &[u8], has_escapes: bool) -> Cow<'_, [u8]> {
    if !has_escapes {
        return Cow::Borrowed(key);
    }
    let decoded = serde_json::from_slice::<String>(&[b"\"", key, b"\""].concat());
    decoded.map_or(Cow::Borrowed(key), |name| Cow::Owned(name.into_bytes()))
}

impl<'b> Text<'b> {
    /// The string that bytes begin with, and what comes behind it.
    pub(super) fn leading(bytes: &'b [u8]) -> Option<(Self, &'b [u8])> {
        if bytes.first() != Some(&b'"') {
            return None;
        }
        let (end, has_escapes) = string_end(bytes, 1)?;
        let (quoted, rest) = bytes.split_at(end);
        Some((Self { quoted, has_escapes }, rest))
    }

    /// Its bytes as they are written, quotes included.
    pub(super) fn len(self) -> usize {
        self.quoted.len()
    }

    /// Without escapes; nothing when it is no Unicode.
    pub(super) fn decoded(self) -> Option<Cow<'b, str>> {
        if self.has_escapes {
            serde_json::from_slice::<String>(self.quoted).ok().map(Cow::Owned)
        } else {
            std::str::from_utf8(self.inner()).ok().map(Cow::Borrowed)
        }
    }

    /// Its characters, and whether any of them leaves a mark.
    ///
    /// Counts without decoding, so that long answers cost no memory.
    pub(super) fn count_chars(self) -> (u64, bool) {
        let inner = self.inner();
        let plain = if self.has_escapes { memchr::memchr(b'\\', inner) } else { None };
        let (plain, mut rest) = inner.split_at(plain.unwrap_or(inner.len()));
        let begins = |byte: &&u8| !matches!(byte, 0x80..=0xbf);
        let mut chars = plain.iter().filter(begins).count() as u64;
        let mut has_ink = plain.iter().filter(begins).any(|byte| !byte.is_ascii_whitespace());
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            match (first, after.first()) {
                (b'\\', Some(b'u')) => {
                    // The second half of a surrogate pair belongs to the character of the first.
                    let is_low_half =
                        matches!(after.get(1..3), Some([b'd' | b'D', b'c'..=b'f' | b'C'..=b'F']));
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
        (chars, has_ink)
    }

    fn inner(self) -> &'b [u8] {
        &self.quoted[1..self.quoted.len() - 1]
    }
}

/// The items of a list, whether of members or of elements.
///
/// What was read of an item is not gone through again: a list that was read to its end says where that is.
#[derive(Debug)]
struct Items<'j, 'b> {
    json: &'j Json<'b>,
    /// Where the list opens.
    start: usize,
    /// The value that was handed out last, or the position behind the bracket.
    at: usize,
    is_begun: bool,
}

impl<'j, 'b> Items<'j, 'b> {
    fn of(node: Node<'j, 'b>, open: u8) -> Self {
        let Node { json, at: start } = node;
        // Behind the last byte there are no items.
        let is_list = json.bytes.get(start) == Some(&open);
        Self { json, start, at: if is_list { start + 1 } else { json.bytes.len() }, is_begun: false }
    }

    /// Where the next item begins.
    fn next(&mut self) -> Option<usize> {
        let Self { json, start, at, is_begun } = *self;
        let behind = if is_begun { Node { json, at }.end() } else { at };
        self.is_begun = true;
        let at = skip_space(json.bytes, behind);
        match json.bytes.get(at)? {
            b',' => Some(skip_space(json.bytes, at + 1)),
            b'}' | b']' => {
                json.last.set((start, at + 1));
                self.at = json.bytes.len();
                None
            }
            _ => Some(at),
        }
    }

    fn hand_out(&mut self, at: usize) -> Node<'j, 'b> {
        self.at = at;
        Node { json: self.json, at }
    }
}

/// The members of an object.
#[derive(Debug)]
pub(super) struct Members<'j, 'b>(Items<'j, 'b>);

impl<'j, 'b> Iterator for Members<'j, 'b> {
    type Item = Member<'j, 'b>;

    fn next(&mut self) -> Option<Member<'j, 'b>> {
        let quote = self.0.next()?;
        let bytes = self.0.json.bytes;
        let (end, has_escapes) = string_end(bytes, quote + 1)?;
        let colon = skip_space(bytes, end);
        let value = self.0.hand_out(skip_space(bytes, colon + 1));
        Some(Member { key: &bytes[quote + 1..end - 1], value, has_escapes })
    }
}

/// The elements of an array.
#[derive(Debug)]
pub(super) struct Elements<'j, 'b>(Items<'j, 'b>);

impl<'j, 'b> Iterator for Elements<'j, 'b> {
    type Item = Node<'j, 'b>;

    fn next(&mut self) -> Option<Node<'j, 'b>> {
        let at = self.0.next()?;
        Some(self.0.hand_out(at))
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    // Most JSON has none, and everything that is none is beyond the space.
    while bytes.get(at).is_some_and(|byte| *byte <= b' ') && matches!(bytes[at], b' ' | b'\t' | b'\n' | b'\r')
    {
        at += 1;
    }
    at
}

/// From behind the opening quote of a string to behind the closing one, and whether there are escapes in between;
/// nothing when it does not end.
#[inline]
fn string_end(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let rest = bytes.get(at..)?;
    // Most keys end within eight bytes, which are looked at without a loop.
    let length = rest.first_chunk().and_then(quote_or_backslash_in);
    match length {
        Some(length) if rest[length] == b'"' => Some((at + length + 1, false)),
        Some(_) | None => long_string_end(bytes, at),
    }
}

// Apart, so that looking at the first eight bytes becomes part of its callers.
#[inline(never)]
fn long_string_end(bytes: &[u8], mut at: usize) -> Option<(usize, bool)> {
    let mut has_escapes = false;
    loop {
        at += quote_or_backslash(bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some((at + 1, has_escapes));
        }
        has_escapes = true;
        at += 2;
    }
}

/// Where the first quote or backslash is.
fn quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < SHORT
        && let Some(eight) = bytes[at..].first_chunk()
    {
        if let Some(more) = quote_or_backslash_in(eight) {
            return Some(at + more);
        }
        at += 8;
    }
    memchr2(b'"', b'\\', &bytes[at..]).map(|more| at + more)
}

fn quote_or_backslash_in(eight: &[u8; 8]) -> Option<usize> {
    let eight = u64::from_le_bytes(*eight);
    let found = bytes_that_are(b'"', eight) | bytes_that_are(b'\\', eight);
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

/// Marks the highest bit of each of eight bytes that is `wanted`; only the lowest mark is sure.
fn bytes_that_are(wanted: u8, eight: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let zero_where_wanted = eight ^ (ONES * u64::from(wanted));
    zero_where_wanted.wrapping_sub(ONES) & !zero_where_wanted & (ONES << 7)
}

/// From the first byte of a value that was checked to behind its last one.
fn value_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at + 1).map_or(bytes.len(), |(end, _)| end),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            // Behind a number or a word: what follows belongs to the list around it.
            b'}' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    at
}
