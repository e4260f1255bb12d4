//! The heads of requests and answers.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use super::Http1Error;

/// Header lines of an answer at most.
pub(super) const MOST_HEADERS: usize = 128;
/// Bytes of the head of an answer at most.
pub(super) const LONGEST_HEAD: usize = 64 * 1024;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// Its status.
    pub(super) status: StatusCode,
    /// HTTP/1.0 or HTTP/1.1.
    pub(super) version: Version,
    /// What stands behind the status, if that is not what always stands there.
    pub(super) reason: Option<ReasonPhrase>,
    /// Its headers, which share one copy of the head.
    pub(super) headers: HeaderMap,
    /// The number of bytes that it takes.
    pub(super) length: usize,
}

/// How the body of a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// In so many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// Writes the head of a request, whose address is a path.
pub(super) fn write<B>(request: &Request<B>, form: BodyForm) -> Vec<u8> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let method = request.method();
    let headers = request.headers();
    let length: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut head = Vec::with_capacity(length + method.as_str().len() + path.len() + 64);
    for part in [method.as_str(), " ", path, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    for (name, value) in headers {
        line(&mut head, name, value.as_bytes());
    }
    match form {
        // Without a body that is what these methods mean anyway.
        BodyForm::Length(0) if matches!(*method, Method::GET | Method::HEAD | Method::CONNECT) => {}
        BodyForm::Length(length) => line(&mut head, &CONTENT_LENGTH, length.to_string().as_bytes()),
        BodyForm::Chunked => line(&mut head, &TRANSFER_ENCODING, b"chunked"),
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn line(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

/// Reads the head of an answer; nothing when its end is not there yet.
///
/// # Errors
/// [`Http1Error`] when it is none, or too large.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Head>, Http1Error> {
    let mut space = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut parsed, bytes, &mut space) {
        Ok(httparse::Status::Complete(length)) if length <= LONGEST_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Ok(None),
        Ok(httparse::Status::Complete(_) | httparse::Status::Partial)
        | Err(httparse::Error::TooManyHeaders) => return Err(Http1Error::HeadTooLarge),
        Err(error) => return Err(Http1Error::Head(error)),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Http1Error::Head(httparse::Error::Status))?;
    let reason = parsed.reason.filter(|reason| Some(*reason) != status.canonical_reason());
    let shared = Bytes::copy_from_slice(&bytes[..length]);
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + 4);
    for header in &*parsed.headers {
        let start = header.value.as_ptr().addr() - bytes.as_ptr().addr();
        let value = HeaderValue::from_maybe_shared(shared.slice(start..start + header.value.len()));
        let name = HeaderName::from_bytes(header.name.as_bytes());
        match (name, value) {
            (Ok(name), Ok(value)) => headers.append(name, value),
            (Err(_), _) => return Err(Http1Error::Head(httparse::Error::HeaderName)),
            (_, Err(_)) => return Err(Http1Error::Head(httparse::Error::HeaderValue)),
        };
    }
    Ok(Some(Head {
        status,
        version: if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 },
        reason: reason.and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok()),
        headers,
        length,
    }))
}

/// What a header lists, whether in one line or in several.
pub(in crate::gateway) fn listed<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    let values = headers.get_all(name).iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Whether a header lists this word.
pub(super) fn lists(headers: &HeaderMap, name: &HeaderName, word: &[u8]) -> bool {
    listed(headers, name).any(|listed| listed.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_its_receiver_reads_it() {
        let request = Request::post("/v1/x?y=1").header("host", "a:1").header("x-tag", "b").body(()).unwrap();
        let text = |form| String::from_utf8(write(&request, form)).unwrap();
        assert_eq!(
            text(BodyForm::Length(3)),
            "POST /v1/x?y=1 HTTP/1.1\r\nhost: a:1\r\nx-tag: b\r\ncontent-length: 3\r\n\r\n"
        );
        assert!(
            text(BodyForm::Length(0)).contains("content-length: 0\r\n"),
            "an empty body of a POST is told"
        );
        assert!(text(BodyForm::Chunked).contains("transfer-encoding: chunked\r\n"));
        let get = Request::get("/").body(()).unwrap();
        assert_eq!(write(&get, BodyForm::Length(0)), b"GET / HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text =
            "HTTP/1.1 404 Nothing here\r\nContent-Type: text/plain\r\nX-Tag: one\r\nx-tag:two \r\n\r\nrest";
        let end = text.len() - 4;
        for length in 0..end {
            assert!(read(&text.as_bytes()[..length]).unwrap().is_none(), "{length} bytes");
        }
        let head = read(text.as_bytes()).unwrap().unwrap();
        assert_eq!((head.status.as_u16(), head.version, head.length), (404, Version::HTTP_11, end));
        assert_eq!(head.reason.unwrap().as_bytes(), b"Nothing here");
        assert_eq!(head.headers["content-type"], "text/plain");
        let tags: Vec<_> = head.headers.get_all("x-tag").iter().collect();
        assert_eq!(tags, ["one", "two"]);
    }

    #[test]
    fn what_is_no_head_or_too_large_is_refused() {
        for text in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 99x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
        ] {
            assert!(matches!(read(text.as_bytes()), Err(Http1Error::Head(_))), "{text:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(LONGEST_HEAD));
        assert!(matches!(read(long.as_bytes()), Err(Http1Error::HeadTooLarge)));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(MOST_HEADERS + 1));
        assert!(matches!(read(many.as_bytes()), Err(Http1Error::HeadTooLarge)));
    }
}
