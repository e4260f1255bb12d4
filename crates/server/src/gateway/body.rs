//! A JSON body, changed by byte ranges.
//!
//! The gateway looks at a few members of a body and leaves every other byte as it is: what is changed is spliced in
//! between.

use std::ops::Range;

use bytes::Bytes;

use super::json::{Json, MemberPlace, SyntaxError};

/// A whole body that is one object.
#[derive(Debug)]
pub(super) struct Object {
    /// Its members in their order, also those whose key comes again.
    pub(super) members: Vec<MemberPlace>,
    /// The position behind its opening brace.
    pub(super) open: usize,
}

impl Object {
    /// Scans a body.
    ///
    /// # Errors
    /// [`SyntaxError`] when it is no JSON object, or nested too deeply.
    pub(super) fn scan(bytes: &[u8]) -> Result<Self, SyntaxError> {
        let mut members = Vec::with_capacity(16);
        let json = Json::whole_with(bytes, |member| members.push(member))?;
        Ok(Self { members, open: json.root().start() + 1 })
    }

    /// The same object, to be read; `bytes` are those that were scanned.
    pub(super) fn json<'b>(&self, bytes: &'b [u8]) -> Json<'b> {
        Json::checked(bytes, self.open - 1)
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
///
/// Prompts are long and most of their bytes stay as they are: those are copied many at a time.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    const AT_A_TIME: usize = 32;
    out.reserve(text.len() + 2);
    out.push(b'"');
    for bytes in text.as_bytes().chunks(AT_A_TIME) {
        // All of them are looked at, which takes fewer steps than to stop at the first.
        if bytes.iter().fold(true, |stay, byte| stay & !matches!(byte, 0..=0x1f | b'"' | b'\\')) {
            out.extend_from_slice(bytes);
        } else {
            bytes.iter().for_each(|byte| write_escaped(out, *byte));
        }
    }
    out.push(b'"');
}

fn write_escaped(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend([b'\\', byte]),
        b'\n' => out.extend(b"\\n"),
        b'\r' => out.extend(b"\\r"),
        b'\t' => out.extend(b"\\t"),
        0x08 => out.extend(b"\\b"),
        0x0c => out.extend(b"\\f"),
        0..=0x1f => {
            out.extend(b"\\u00");
            out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        0x20.. => out.push(byte),
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
