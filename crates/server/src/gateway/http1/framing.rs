//! Where the body of an answer ends, RFC 9112 sections 6.3 and 7.1.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::head::listed;

/// Bytes of chunk extensions and trailers of one body at most; nobody reads them.
const MOST_EXTRAS: usize = 16 * 1024;
/// Digits of the length of one chunk at most.
const MOST_DIGITS: u32 = 15;

/// What is left of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing: an answer of its kind has none, whatever length it tells.
    Bodiless,
    /// So many bytes.
    Length(u64),
    /// Chunks, each with its length before it.
    Chunked(Chunked),
    /// Everything until the connection closes.
    UntilClose,
}

/// The place in a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunked {
    place: Place,
    n_extras: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the length of a chunk, of which so many digits were read.
    Size { size: u64, n_digits: u32 },
    /// Behind it, where nobody reads.
    Extension { size: u64 },
    /// Before the line feed that ends it.
    SizeFeed { size: u64 },
    /// In the data of a chunk, of which so much is left.
    Data(u64),
    /// Before the carriage return that ends a chunk.
    DataReturn,
    /// Before the line feed that ends a chunk.
    DataFeed,
    /// At the start of a line of the trailer.
    TrailerStart,
    /// In a line of the trailer.
    Trailer,
    /// Before the line feed of such a line.
    TrailerFeed,
    /// Before the last line feed.
    LastFeed,
    /// Behind the end.
    Over,
}

/// What a piece of a body holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// The number of bytes of data, which are at its beginning now.
    pub(super) data: usize,
    /// Whether there is more in it than this body.
    pub(super) has_surplus: bool,
    /// What is wrong behind the data.
    pub(super) problem: Option<&'static str>,
}

impl Framing {
    /// How the body of an answer is framed, by its head; takes off a length that does not count.
    ///
    /// # Errors
    /// What is wrong with the head.
    pub(super) fn of(
        method: &Method,
        status: StatusCode,
        version: Version,
        headers: &mut HeaderMap,
    ) -> Result<Self, &'static str> {
        let is_bodiless = *method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || *method == Method::CONNECT && status.is_success();
        if is_bodiless {
            return Ok(Self::Bodiless);
        }
        if let Some(last) = listed(headers, &TRANSFER_ENCODING).last() {
            if version < Version::HTTP_11 {
                return Err("a transfer encoding in HTTP/1.0");
            }
            let framing = if last.eq_ignore_ascii_case(b"chunked") {
                Self::Chunked(Chunked { place: Place::START, n_extras: 0 })
            } else {
                Self::UntilClose
            };
            // Whoever believed it would see another end of the answer.
            headers.remove(CONTENT_LENGTH);
            return Ok(framing);
        }
        let (mut length, mut n_told) = (None, 0);
        for told in listed(headers, &CONTENT_LENGTH) {
            let this = digits(told).ok_or("a content length that is no number")?;
            if length.is_some_and(|other| other != this) {
                return Err("two different content lengths");
            }
            (length, n_told) = (Some(this), n_told + 1);
        }
        if let Some(length) = length.filter(|_| n_told > 1) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok(length.map_or(Self::UntilClose, Self::Length))
    }

    /// Whether the body is over.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Bodiless => true,
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.place == Place::Over,
            Self::UntilClose => false,
        }
    }

    /// Moves the data of a piece to its beginning, where several chunks then lie in a row.
    pub(super) fn take(&mut self, piece: &mut [u8]) -> Taken {
        match self {
            Self::Bodiless => Taken { data: 0, has_surplus: !piece.is_empty(), problem: None },
            Self::Length(left) => {
                let data = piece.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data as u64;
                Taken { data, has_surplus: data < piece.len(), problem: None }
            }
            Self::Chunked(chunked) => chunked.take(piece),
            Self::UntilClose => Taken { data: piece.len(), has_surplus: false, problem: None },
        }
    }
}

impl Chunked {
    fn take(&mut self, piece: &mut [u8]) -> Taken {
        let (mut at, mut data) = (0, 0);
        while at < piece.len() {
            match self.place {
                Place::Data(left) => {
                    let here = (piece.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX));
                    piece.copy_within(at..at + here, data);
                    (at, data) = (at + here, data + here);
                    let left = left - here as u64;
                    self.place = if left == 0 { Place::DataReturn } else { Place::Data(left) };
                }
                Place::Over => return Taken { data, has_surplus: true, problem: None },
                place => match self.step(place, piece[at]) {
                    Ok(next) => (self.place, at) = (next, at + 1),
                    Err(problem) => return Taken { data, has_surplus: true, problem: Some(problem) },
                },
            }
        }
        Taken { data, has_surplus: false, problem: None }
    }

    /// The place behind one byte that is no data.
    fn step(&mut self, place: Place, byte: u8) -> Result<Place, &'static str> {
        match (place, byte) {
            (Place::Size { n_digits: MOST_DIGITS, .. }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                Err("a chunk whose length has too many digits")
            }
            (Place::Size { size, n_digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Ok(Place::Size { size: size << 4 | u64::from(digit), n_digits: n_digits + 1 })
            }
            (Place::Size { n_digits: 0, .. }, _) => Err("a chunk without a length"),
            (Place::Size { size, .. } | Place::Extension { size }, b'\r') => Ok(Place::SizeFeed { size }),
            (Place::Size { size, .. }, b';' | b' ' | b'\t') => Ok(Place::Extension { size }),
            (Place::Size { .. }, _) => Err("a chunk whose length is no number"),
            (Place::Extension { .. }, b'\n') => Err("a line feed without a carriage return"),
            (Place::Extension { size }, _) => self.extra().map(|()| Place::Extension { size }),
            (Place::SizeFeed { size: 0 }, b'\n') => Ok(Place::TrailerStart),
            (Place::SizeFeed { size }, b'\n') => Ok(Place::Data(size)),
            (Place::DataReturn, b'\r') => Ok(Place::DataFeed),
            (Place::DataFeed, b'\n') => Ok(Place::START),
            (Place::DataReturn | Place::DataFeed, _) => Err("a chunk that is longer than its length"),
            (Place::TrailerStart, b'\r') => Ok(Place::LastFeed),
            (Place::Trailer, b'\r') => Ok(Place::TrailerFeed),
            (Place::TrailerStart | Place::Trailer, b'\n') => Err("a line feed without a carriage return"),
            (Place::TrailerStart | Place::Trailer, _) => self.extra().map(|()| Place::Trailer),
            (Place::TrailerFeed, b'\n') => Ok(Place::TrailerStart),
            (Place::LastFeed, b'\n') => Ok(Place::Over),
            (Place::SizeFeed { .. } | Place::TrailerFeed | Place::LastFeed, _) => {
                Err("a carriage return without a line feed")
            }
            (Place::Data(_) | Place::Over, _) => Ok(place),
        }
    }

    fn extra(&mut self) -> Result<(), &'static str> {
        self.n_extras += 1;
        if self.n_extras > MOST_EXTRAS { Err("too much beside the data of the chunks") } else { Ok(()) }
    }
}

impl Place {
    const START: Self = Self::Size { size: 0, n_digits: 0 };
}

/// A length in digits only.
fn digits(told: &[u8]) -> Option<u64> {
    let is_number = told.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(told).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    use http::HeaderName;
    use proptest::prelude::*;

    fn chunked() -> Framing {
        Framing::Chunked(Chunked { place: Place::START, n_extras: 0 })
    }

    /// The data of a body that comes in pieces of `size` bytes, what is wrong with it, and whether it is over.
    fn data(mut framing: Framing, body: &[u8], size: usize) -> (Vec<u8>, Option<&'static str>, bool) {
        let mut data = Vec::new();
        for piece in body.chunks(size.max(1)) {
            let mut piece = piece.to_vec();
            let taken = framing.take(&mut piece);
            data.extend_from_slice(&piece[..taken.data]);
            if taken.problem.is_some() {
                return (data, taken.problem, framing.is_over());
            }
        }
        (data, None, framing.is_over())
    }

    fn framing(
        method: &Method,
        status: u16,
        headers: &[(&str, &str)],
    ) -> Result<(Framing, HeaderMap), &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        Framing::of(method, status, Version::HTTP_11, &mut map).map(|framing| (framing, map))
    }

    #[test]
    fn the_head_says_where_the_body_ends() {
        let of = |status, headers: &[(&str, &str)]| {
            framing(&Method::POST, status, headers).map(|(framing, _)| framing)
        };
        assert_eq!(of(200, &[("content-length", "5")]), Ok(Framing::Length(5)));
        for lengths in
            [&[("content-length", "5"), ("content-length", "5, 5")][..], &[("content-length", "5, 5")]]
        {
            let (several, headers) = framing(&Method::POST, 200, lengths).unwrap();
            let told: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes).collect();
            assert_eq!((several, told), (Framing::Length(5), vec![&b"5"[..]]), "it is passed on once");
        }
        assert_eq!(of(200, &[]), Ok(Framing::UntilClose));
        assert_eq!(of(200, &[("transfer-encoding", "gzip, Chunked ")]), Ok(chunked()));
        assert_eq!(of(200, &[("transfer-encoding", "chunked, gzip")]), Ok(Framing::UntilClose));
        for status in [204, 304] {
            assert_eq!(of(status, &[("content-length", "5")]), Ok(Framing::Bodiless), "{status}");
        }
        let (head, headers) = framing(&Method::HEAD, 200, &[("content-length", "5")]).unwrap();
        assert_eq!((head, headers.len()), (Framing::Bodiless, 1), "the length of a HEAD stays in its head");
    }

    #[test]
    fn of_two_ends_the_chunks_count_and_lengths_that_contradict_are_refused() {
        let both = [("content-length", "5"), ("transfer-encoding", "chunked")];
        let (both, headers) = framing(&Method::GET, 200, &both).unwrap();
        assert_eq!((both, headers.contains_key(CONTENT_LENGTH)), (chunked(), false));
        for lengths in ["5, 6", "+5", "-1", "0x5", "", "5 5", "99999999999999999999"] {
            assert!(framing(&Method::GET, 200, &[("content-length", lengths)]).is_err(), "{lengths:?}");
        }
        let two = [("content-length", "5"), ("content-length", "6")];
        assert_eq!(framing(&Method::GET, 200, &two), Err("two different content lengths"));
        let mut old = HeaderMap::from_iter([(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))]);
        assert!(Framing::of(&Method::GET, StatusCode::OK, Version::HTTP_10, &mut old).is_err());
    }

    #[test]
    fn chunks_lie_in_a_row_wherever_the_pieces_end() {
        let body = b"4\r\nWiki\r\n6;a=\"b\"\r\npedia \r\nE \r\nin \r\n\r\nchunks.\r\n0\r\nx: y\r\n\r\n";
        for size in 1..=body.len() {
            let expected = (b"Wikipedia in \r\n\r\nchunks.".to_vec(), None, true);
            assert_eq!(data(chunked(), body, size), expected, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_told_behind_the_data_before_it() {
        for (rest, problem) in [
            ("x", "a chunk without a length"),
            ("1x\r\n", "a chunk whose length is no number"),
            ("1\n", "a chunk whose length is no number"),
            ("1;\n", "a line feed without a carriage return"),
            ("1\r1", "a carriage return without a line feed"),
            ("1\r\nab", "a chunk that is longer than its length"),
            ("1\r\na\ra", "a chunk that is longer than its length"),
            ("0000000000000001\r\n", "a chunk whose length has too many digits"),
            ("0\r\n\n", "a line feed without a carriage return"),
        ] {
            let body = format!("2\r\nok\r\n{rest}");
            let (seen, told, _) = data(chunked(), body.as_bytes(), body.len());
            assert_eq!((&seen[..2], told), (&b"ok"[..], Some(problem)), "{rest:?}");
        }
        let trailer = format!("0\r\n{}", "a".repeat(MOST_EXTRAS + 1));
        let told = data(chunked(), trailer.as_bytes(), 1_000).1;
        assert_eq!(told, Some("too much beside the data of the chunks"));
    }

    #[test]
    fn bytes_behind_the_end_are_no_data() {
        for (mut framing, body) in [(Framing::Length(2), "abX"), (chunked(), "2\r\nab\r\n0\r\n\r\nX")] {
            let mut piece = body.as_bytes().to_vec();
            let taken = framing.take(&mut piece);
            assert_eq!(taken, Taken { data: 2, has_surplus: true, problem: None });
            assert!(framing.is_over());
        }
    }

    proptest! {
        #[test]
        fn chunks_are_read_as_they_were_written(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), size in 1_usize..60
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(data(chunked(), &body, size), (chunks.concat(), None, true));
        }

        #[test]
        fn arbitrary_bytes_mean_the_same_in_pieces_of_any_size(
            body in "[0-9a-f\r\n;x]{0,60}", size in 1_usize..20
        ) {
            let body = body.as_bytes();
            prop_assert_eq!(data(chunked(), body, size), data(chunked(), body, body.len()));
        }
    }
}
