//! Server-sent events, read from bytes that arrive in pieces of any size.
//!
//! An event that lies within one piece is read where it lies. Only what is cut by the end of a piece
//! is copied, into buffers that are kept and bounded.

use std::ops::Range;

use memchr::memchr2;

/// The most bytes of one event that are read; a longer one is passed over.
pub(super) const LONGEST_EVENT: usize = 256 * 1024;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event<'e> {
    /// Its data, lines joined by line feeds; empty for a comment or a blank line.
    pub(super) data: &'e [u8],
    /// Whether its type is `error`.
    pub(super) is_error: bool,
    /// Whether it was longer than [`LONGEST_EVENT`], and is not shown therefore.
    pub(super) is_oversized: bool,
    /// The position in the piece behind the blank line that ends it.
    pub(super) end: usize,
}

/// Reads events from pieces.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The beginning of the line that the last piece ended in.
    line: Vec<u8>,
    /// The data of the event so far.
    data: Vec<u8>,
    has_data: bool,
    is_error: bool,
    is_oversized: bool,
    /// Whether the last piece ended in a carriage return, whose line feed may come.
    after_return: bool,
    has_begun: bool,
}

/// A line, and where it lies when that is inside of the piece.
struct Line<'l> {
    bytes: &'l [u8],
    at: Option<usize>,
}

impl Scanner {
    /// Reads one piece and hands over each event that ends in it.
    pub(super) fn feed(&mut self, piece: &[u8], mut take: impl FnMut(Event<'_>)) {
        let mut at = 0;
        if self.after_return && !piece.is_empty() {
            self.after_return = false;
            at = usize::from(piece[0] == b'\n');
        }
        // The data of the event so far, when it is one line of this piece.
        let mut in_piece: Option<Range<usize>> = None;
        while at < piece.len() {
            let Some(length) = memchr2(b'\n', b'\r', &piece[at..]) else {
                self.keep_line(&piece[at..]);
                break;
            };
            let end = at + length;
            let mut next = end + 1;
            if piece[end] == b'\r' {
                match piece.get(next) {
                    Some(b'\n') => next += 1,
                    Some(_) => {}
                    None => self.after_return = true,
                }
            }
            if self.line.is_empty() {
                let line = Line { bytes: &piece[at..end], at: Some(at) };
                self.line(&line, piece, &mut in_piece, next, &mut take);
            } else {
                self.keep_line(&piece[at..end]);
                let mut kept = std::mem::take(&mut self.line);
                self.line(&Line { bytes: &kept, at: None }, piece, &mut in_piece, next, &mut take);
                kept.clear();
                self.line = kept;
            }
            at = next;
        }
        if let Some(range) = in_piece {
            self.keep_data(&piece[range]);
        }
    }

    /// Tells of an event that the stream ended in without a blank line.
    pub(super) fn finish(&mut self, take: impl FnMut(Event<'_>)) {
        if self.has_data || !self.line.is_empty() {
            self.feed(b"\n\n", take);
        }
    }

    fn line(
        &mut self,
        line: &Line<'_>,
        piece: &[u8],
        in_piece: &mut Option<Range<usize>>,
        next: usize,
        take: &mut impl FnMut(Event<'_>),
    ) {
        let bytes = line.bytes;
        if bytes.is_empty() {
            let data = match in_piece.take() {
                Some(range) => &piece[range],
                None => &self.data[..],
            };
            let (is_error, is_oversized) = (self.is_error, self.is_oversized);
            let data = if is_oversized { &[][..] } else { data };
            take(Event { data, is_error, is_oversized, end: next });
            self.data.clear();
            (self.has_data, self.is_error, self.is_oversized) = (false, false, false);
            return;
        }
        let (bytes, skipped) = match bytes.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if !self.has_begun => (rest, 3),
            Some(_) | None => (bytes, 0),
        };
        self.has_begun = true;
        let colon = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
        let value = bytes.get(colon + 1..).unwrap_or_default();
        let space = usize::from(value.first() == Some(&b' '));
        let value = &value[space..];
        match &bytes[..colon] {
            b"data" => {
                if let Some(range) = in_piece.take() {
                    self.keep_data(&piece[range]);
                }
                match line.at {
                    Some(start) if !self.has_data => {
                        self.has_data = true;
                        // A line that is only the name of the field has no value to point at.
                        let from = (start + skipped + colon + 1 + space).min(start + skipped + bytes.len());
                        *in_piece = Some(from..start + skipped + bytes.len());
                    }
                    Some(_) | None => {
                        if self.has_data {
                            self.keep_data(b"\n");
                        }
                        self.has_data = true;
                        self.keep_data(value);
                    }
                }
            }
            b"event" => self.is_error = value == b"error",
            _ => {}
        }
    }

    fn keep_line(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() > LONGEST_EVENT {
            self.is_oversized = true;
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn keep_data(&mut self, bytes: &[u8]) {
        if self.data.len() + bytes.len() > LONGEST_EVENT {
            self.is_oversized = true;
        } else {
            self.data.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = (String, bool, bool);

    /// All events of a stream that arrives in pieces of `size` bytes.
    fn events(stream: &[u8], size: usize) -> Vec<Seen> {
        let mut scanner = Scanner::default();
        let mut seen = Vec::new();
        let mut take = |event: Event<'_>| {
            if !event.data.is_empty() || event.is_oversized {
                seen.push((
                    String::from_utf8(event.data.to_vec()).unwrap(),
                    event.is_error,
                    event.is_oversized,
                ));
            }
        };
        for piece in stream.chunks(size) {
            scanner.feed(piece, &mut take);
        }
        scanner.finish(&mut take);
        seen
    }

    fn data(text: &str) -> Seen {
        (text.to_owned(), false, false)
    }

    /// Checks a stream in pieces of every size from one byte to all of it.
    fn check(stream: &str, expected: &[Seen]) {
        for size in 1..=stream.len() {
            assert_eq!(events(stream.as_bytes(), size), expected, "pieces of {size} in {stream:?}");
        }
    }

    #[test]
    fn events_are_the_same_wherever_the_pieces_end() {
        check("data: a\n\ndata:b\n\ndata:  c\n\n", &[data("a"), data("b"), data(" c")]);
        check("data: a\r\n\r\ndata: b\r\n\r\n", &[data("a"), data("b")]);
        check("data: a\r\rdata: b\r\r", &[data("a"), data("b")]);
        check("data: {\"x\":\"hé😀\"}\n\ndata: [DONE]\n\n", &[data("{\"x\":\"hé😀\"}"), data("[DONE]")]);
    }

    #[test]
    fn lines_of_data_join_and_other_fields_are_passed_over() {
        check(": ping\n\nid: 7\nretry: 3\ndata: a\ndata\ndata: b\n\n", &[data("a\n\nb")]);
        check("\u{feff}data: a\n\n", &[data("a")]);
        check("data\n\n", &[]);
    }

    #[test]
    fn the_type_error_is_told_of_its_own_event_only() {
        check("event: error\ndata: a\n\ndata: b\n\n", &[("a".to_owned(), true, false), data("b")]);
    }

    #[test]
    fn an_event_without_a_blank_line_is_told_at_the_end() {
        check("data: a\n\ndata: [DONE]\n", &[data("a"), data("[DONE]")]);
        check("data: a\n\ndata: [DONE]", &[data("a"), data("[DONE]")]);
    }

    #[test]
    fn an_event_beyond_the_limit_is_passed_over_and_told() {
        let long = format!("data: {}\n\ndata: b\n\n", "x".repeat(LONGEST_EVENT + 1));
        assert_eq!(events(long.as_bytes(), 1000), [(String::new(), false, true), data("b")]);
        let lines = format!("{}\ndata: b\n\n", "data: 0123456789abcdef\n".repeat(LONGEST_EVENT / 16));
        assert_eq!(events(lines.as_bytes(), 1000), [(String::new(), false, true), data("b")]);
    }

    #[test]
    fn ends_are_positions_behind_the_blank_line() {
        let mut scanner = Scanner::default();
        let mut ends = Vec::new();
        scanner.feed(b"data: a\n\n: x\n\nda", |event| ends.push(event.end));
        scanner.feed(b"ta: b\n\n", |event| ends.push(event.end));
        assert_eq!(ends, [9, 14, 7]);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_pieces_never_matter(stream: Vec<u8>, size in 1_usize..40) {
            let whole = collect(&stream, stream.len().max(1));
            proptest::prop_assert_eq!(collect(&stream, size), whole);
        }
    }

    fn collect(stream: &[u8], size: usize) -> Vec<Vec<u8>> {
        let mut scanner = Scanner::default();
        let mut seen = Vec::new();
        for piece in stream.chunks(size) {
            scanner.feed(piece, |event| seen.push(event.data.to_vec()));
        }
        seen
    }
}
