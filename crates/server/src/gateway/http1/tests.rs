use super::*;

use axum::body::Body;
use futures_util::StreamExt as _;
use http_body_util::{Either, Full};
use std::future::poll_fn;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

/// A connection, and the provider's end of it.
fn line() -> (Line<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(1 << 20);
    (Line::new(ours), theirs)
}

fn whole(body: &'static str) -> RequestBody {
    Either::Left(Full::new(Bytes::from_static(body.as_bytes())))
}

fn request(method: Method, body: RequestBody) -> Request<RequestBody> {
    Request::builder().method(method).uri("/v1/x").header("host", "p").body(body).unwrap()
}

async fn head(line: &mut Line<DuplexStream>) -> Result<Response<()>, Http1Error> {
    poll_fn(|context| line.poll_head(context)).await
}

/// The rest of an answer, and how it broke off.
async fn body(line: &mut Line<DuplexStream>) -> (Vec<u8>, Option<Http1Error>) {
    let mut body = Vec::new();
    loop {
        match poll_fn(|context| line.poll_data(context)).await {
            Some(Ok(data)) => body.extend_from_slice(&data),
            Some(Err(error)) => return (body, Some(error)),
            None => return (body, None),
        }
    }
}

/// Asks a provider that writes `answer` in pieces and closes; head, body, how it broke off, whether another may follow.
async fn asked(
    method: Method,
    pieces: &[&[u8]],
) -> (Result<Response<()>, Http1Error>, Vec<u8>, Option<Http1Error>, bool) {
    let (mut line, mut theirs) = line();
    line.send(&mut request(method, whole("?")));
    let (left, right) = tokio::join!(
        async {
            let head = head(&mut line).await;
            if head.is_err() {
                return (head, Vec::new(), None);
            }
            let (body, error) = body(&mut line).await;
            (head, body, error)
        },
        async {
            for piece in pieces {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            // A connection that stays open tells more: an answer that waits for its close would never end.
            theirs
        }
    );
    let usable = line.is_usable();
    drop(right);
    (left.0, left.1, left.2, usable)
}

/// The same for a provider that closes behind its answer.
async fn asked_and_closed(answer: &str) -> (Result<Response<()>, Http1Error>, Vec<u8>, Option<Http1Error>) {
    let (mut line, mut theirs) = line();
    line.send(&mut request(Method::POST, whole("?")));
    theirs.write_all(answer.as_bytes()).await.unwrap();
    theirs.shutdown().await.unwrap();
    let head = head(&mut line).await;
    if head.is_err() {
        return (head, Vec::new(), None);
    }
    let (body, error) = body(&mut line).await;
    assert!(!line.is_usable(), "nothing follows on a closed connection");
    (head, body, error)
}

#[tokio::test]
async fn answers_of_every_framing_arrive_wherever_their_pieces_end() {
    for (text, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "hello"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "hello"),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
            "",
        ),
        ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", "ok"),
    ] {
        for size in [1, 2, 3, 7, text.len()] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let (head, body, error, usable) = asked(Method::POST, &pieces).await;
            assert!(head.unwrap().status().is_success());
            assert_eq!(
                (&*body, error.is_none(), usable),
                (expected.as_bytes(), true, true),
                "{text:?} by {size}"
            );
        }
    }
}

#[tokio::test]
async fn chunks_that_arrived_together_are_one_piece() {
    let (mut line, mut theirs) = line();
    line.send(&mut request(Method::POST, whole("?")));
    let text =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", "1\r\na\r\n".repeat(20));
    theirs.write_all(text.as_bytes()).await.unwrap();
    head(&mut line).await.unwrap();
    let piece = poll_fn(|context| line.poll_data(context)).await.unwrap().unwrap();
    assert_eq!((&*piece, line.is_over()), (&[b'a'; 20][..], true), "and its end is known with it");
}

#[tokio::test]
async fn a_long_answer_arrives_unchanged() {
    for framing in ["content-length: 3000000", "transfer-encoding: chunked"] {
        let text: Vec<u8> = (0_u32..3_000_000).map(|n| n.to_le_bytes()[0]).collect();
        let (mut line, mut theirs) = line();
        line.send(&mut request(Method::POST, whole("?")));
        let writing = async {
            theirs.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes()).await.unwrap();
            for piece in text.chunks(300_000) {
                if framing.starts_with('t') {
                    theirs.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
                }
                theirs.write_all(piece).await.unwrap();
                if framing.starts_with('t') {
                    theirs.write_all(b"\r\n").await.unwrap();
                }
            }
            if framing.starts_with('t') {
                theirs.write_all(b"0\r\n\r\n").await.unwrap();
            }
        };
        let reading = async {
            head(&mut line).await.unwrap();
            body(&mut line).await
        };
        let ((), (seen, error)) = tokio::join!(writing, reading);
        assert!(seen == text && error.is_none(), "{framing}: {} bytes, {error:?}", seen.len());
        assert!(line.is_usable());
    }
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_its_connection() {
    let (head, body, error) = asked_and_closed("HTTP/1.1 200 OK\r\n\r\nall of it").await;
    assert_eq!((head.unwrap().status(), &*body), (StatusCode::OK, &b"all of it"[..]));
    assert!(error.is_none(), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_is_cut_arrives_so_far_and_is_told() {
    for rest in ["content-length: 5\r\n\r\nhe", "transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n"] {
        let (head, body, error) = asked_and_closed(&format!("HTTP/1.1 200 OK\r\n{rest}")).await;
        assert_eq!((head.is_ok(), &*body), (true, &b"he"[..]), "{rest:?}");
        assert!(matches!(error, Some(Http1Error::Closed)), "{error:?}");
    }
    for rest in ["", "HTTP/1.1 20", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let (head, ..) = asked_and_closed(rest).await;
        assert!(matches!(head, Err(Http1Error::Closed)), "{rest:?}: {head:?}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_as_that() {
    for (text, expected) in [
        ("220 mail.example ESMTP\r\n", "does not begin"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "two different content lengths",
        ),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", "switches protocols"),
    ] {
        let (head, ..) = asked_and_closed(text).await;
        let told = head.unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nnonsense";
    let (_, body, error) = asked_and_closed(chunked).await;
    assert_eq!(&*body, b"ok", "what came before the nonsense arrives");
    assert!(matches!(error, Some(Http1Error::Framing("a chunk without a length"))), "{error:?}");
}

#[tokio::test]
async fn a_connection_serves_again_only_if_both_sides_are_done_and_say_so() {
    for (text, usable) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x, Close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", false),
    ] {
        let (head, _, _, seen) = asked(Method::POST, &[text.as_bytes()]).await;
        assert_eq!((head.is_ok(), seen), (true, usable), "{text:?}");
    }
    let (mut line, theirs) = line();
    assert!(line.is_usable());
    drop(theirs);
    assert!(!line.is_usable(), "the provider has closed it");
}

#[tokio::test]
async fn an_answer_to_head_has_a_length_and_no_body() {
    let text = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    let (head, body, error, usable) = asked(Method::HEAD, &[text]).await;
    assert_eq!(head.unwrap().headers()["content-length"], "5");
    assert!(body.is_empty() && error.is_none() && usable);
}

#[tokio::test]
async fn a_request_is_written_whole_or_in_chunks() {
    let (mut line, mut theirs) = line();
    let (more, rest) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    let rest = futures_util::stream::unfold(rest, async |mut rest| Some((rest.recv().await?, rest)));
    line.send(&mut request(Method::POST, Either::Right(Body::from_stream(rest.boxed()))));
    let answering = async {
        let mut seen = Vec::new();
        // Each piece arrives before the next one is there.
        for (piece, chunk) in [("hello", "5\r\nhello\r\n"), (" you", "4\r\n you\r\n")] {
            more.send(Ok(Bytes::from_static(piece.as_bytes()))).await.unwrap();
            while !seen.ends_with(chunk.as_bytes()) {
                assert!(theirs.read_buf(&mut seen).await.unwrap() > 0);
            }
        }
        drop(more);
        while !seen.ends_with(b"0\r\n\r\n") {
            assert!(theirs.read_buf(&mut seen).await.unwrap() > 0);
        }
        theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(seen).unwrap()
    };
    let (head, seen) = tokio::join!(head(&mut line), answering);
    assert!(head.is_ok() && line.is_usable());
    assert!(
        seen.starts_with("POST /v1/x HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked\r\n\r\n"),
        "{seen}"
    );
}

#[tokio::test]
async fn an_early_answer_to_a_long_request_arrives_and_its_connection_ends() {
    let (ours, mut theirs) = duplex(64);
    let mut line = Line::new(ours);
    let long: &'static str = "x".repeat(1_000).leak();
    line.send(&mut request(Method::POST, whole(long)));
    let answering = async {
        theirs.read_exact(&mut [0; 8]).await.unwrap();
        theirs.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        theirs
    };
    let asking = async {
        let head = head(&mut line).await.unwrap();
        (head.status(), body(&mut line).await.0)
    };
    let ((status, body), _theirs) = tokio::join!(asking, answering);
    assert_eq!((status, &*body), (StatusCode::PAYLOAD_TOO_LARGE, &b"no"[..]));
    assert!(!line.is_usable(), "the request was not written to its end");
}

#[tokio::test]
async fn a_request_of_which_nothing_was_written_can_be_sent_again() {
    for streamed in [false, true] {
        let (mut line, theirs) = line();
        drop(theirs);
        let body = if streamed { Either::Right(Body::from("abc")) } else { whole("abc") };
        let mut request = request(Method::POST, body);
        line.send(&mut request);
        head(&mut line).await.unwrap_err();
        assert!(line.give_back(&mut request));
        let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
        assert_eq!(body, "abc", "streamed: {streamed}");
    }
    let (mut line, mut theirs) = line();
    let mut request = request(Method::POST, whole("abc"));
    line.send(&mut request);
    let closing = async {
        theirs.read_exact(&mut [0; 4]).await.unwrap();
        drop(theirs);
    };
    let (head, ()) = tokio::join!(head(&mut line), closing);
    head.unwrap_err();
    assert!(!line.give_back(&mut request), "the provider may have acted on it");
}

#[tokio::test]
async fn a_client_that_breaks_off_its_request_ends_it_at_once() {
    let (mut line, theirs) = line();
    let broken =
        futures_util::stream::iter([Ok(Bytes::from_static(b"a")), Err(std::io::Error::other("gone"))]);
    line.send(&mut request(Method::POST, Either::Right(Body::from_stream(broken))));
    let told = head(&mut line).await.unwrap_err();
    assert!(matches!(told, Http1Error::Request(_)), "{told:?}");
    drop(theirs);
}

proptest::proptest! {
    #[test]
    fn arbitrary_answers_never_panic_or_hang(bytes: Vec<u8>, prefix in 0_usize..3, size in 1_usize..30) {
        let prefix = ["", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\n"][prefix];
        let answer = [prefix.as_bytes(), &bytes].concat();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let (mut line, mut theirs) = line();
            line.send(&mut request(Method::POST, whole("?")));
            let writing = async {
                for piece in answer.chunks(size) {
                    theirs.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                drop(theirs);
            };
            let reading = async {
                if head(&mut line).await.is_ok() {
                    body(&mut line).await;
                }
                // Whoever hangs up early shall not break the writer.
                line
            };
            tokio::join!(writing, reading);
        });
    }
}
