//! Providers that are asked over HTTP/2.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::Response;
use http_body_util::BodyExt;
use serde_json::json;
use serin_core::observation::ErrorKind;
use serin_provider::{Reach, Versions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::tls::Authority;
use super::world::{Builder, CHAT, MESSAGES, RESPONSES, World, prompted, prompted_at, send, world};
use crate::gateway::{BaseUrl, Http2, UpstreamSettings};

const ALL: [&str; 3] = [CHAT, RESPONSES, MESSAGES];

/// A world whose provider speaks TLS and these versions.
fn over_tls(script: &str, versions: Versions) -> Builder {
    let authority = Authority::new("ours");
    let roots = authority.roots();
    world(script)
        .reach(Reach { tls: Some(authority.stand_in()), versions })
        .upstream(move |upstream| upstream.roots = Some(roots))
}

fn http2(http2: Http2) -> impl FnOnce(&mut UpstreamSettings) {
    move |upstream| upstream.http2 = http2
}

fn counted(world: &World, name: &str) -> u64 {
    let upstream = world.gateway.upstreams().iter().next().unwrap();
    upstream.counted().into_iter().find(|(counter, _, _)| *counter == name).unwrap().2
}

/// The connections that were opened, and those of them over HTTP/2.
fn connections(world: &World) -> (u64, u64) {
    (counted(world, "connections"), counted(world, "http2_connections"))
}

/// Sends so many requests at once, and returns the answers as soon as each has begun.
async fn begun(
    world: &World,
    n_requests: usize,
    more: serde_json::Value,
) -> Vec<Response<hyper::body::Incoming>> {
    let body = prompted(more).to_string();
    let requests = (0..n_requests).map(|_| send(world.addr, "POST", CHAT, &[], body.clone()));
    futures_util::future::join_all(requests).await
}

#[tokio::test]
async fn a_provider_that_chooses_http2_over_tls_is_asked_over_it_in_every_protocol() {
    let mut world = over_tls("{}", Versions::Both).start().await;
    for path in ALL {
        for stream in [false, true] {
            let answer = world.ask(path, &[], &prompted_at(path, json!({ "stream": stream }))).await;
            assert_eq!((answer.status.as_u16(), answer.is_complete), (200, true), "{path} {answer:?}");
            let seen = world.seen().await;
            assert_eq!(seen.success, Some(true), "{path} {stream} {seen:?}");
            assert!(seen.output_tokens.is_some(), "{path} {stream} {seen:?}");
        }
    }
    let passed = send(world.addr, "GET", "/v1/models", &[], "").await;
    assert_eq!((passed.status(), passed.version()), (http::StatusCode::OK, http::Version::HTTP_11));
    assert_eq!((connections(&world), world.provider.connections()), ((1, 1), 1));
}

#[tokio::test]
async fn what_a_provider_speaks_and_what_is_set_decide_on_the_version() {
    let always = "could not connect to the provider at ";
    for (is_tls, speaks, set, expected) in [
        (true, Versions::Both, Http2::Auto, Ok(1)),
        (true, Versions::Both, Http2::Always, Ok(1)),
        (true, Versions::Both, Http2::Never, Ok(0)),
        (true, Versions::Http1, Http2::Auto, Ok(0)),
        (true, Versions::Http1, Http2::Always, Err(("provider_tls", always))),
        (true, Versions::Http2, Http2::Auto, Ok(1)),
        (false, Versions::Both, Http2::Auto, Ok(0)),
        (false, Versions::Both, Http2::Always, Ok(1)),
        (false, Versions::Both, Http2::Never, Ok(0)),
        (false, Versions::Http1, Http2::Always, Err(("provider_unreachable", "got no answer from"))),
    ] {
        let case = format!("tls: {is_tls}, {speaks:?}, {set:?}");
        let builder = if is_tls {
            over_tls("{}", speaks)
        } else {
            world("{}").reach(Reach { tls: None, versions: speaks })
        };
        let world = builder.upstream(http2(set)).start().await;
        let answer = world.chat(&[], &prompted(json!({}))).await;
        match expected {
            Ok(n_http2) => {
                assert_eq!(answer.status, 200, "{case}: {answer:?}");
                assert_eq!(connections(&world), (1, n_http2), "{case}");
            }
            Err((expected, start)) => {
                let (code, message) = answer.error();
                assert_eq!((answer.status.as_u16(), code.as_str()), (502, expected), "{case}: {message}");
                assert!(message.starts_with(start), "{case}: {message}");
                assert!(message.contains("`http2`"), "{case}: {message}");
            }
        }
    }
}

#[tokio::test]
async fn a_hundred_requests_share_a_connection_and_clients_that_leave_cancel_theirs_alone() {
    let world = over_tls("default: {fault: hang}", Versions::Both).start().await;
    let answers = begun(&world, 100, json!({"stream": true})).await;
    assert_eq!(world.provider.stats_when(|stats| stats.in_flight == 100).await.requests, 100);
    assert_eq!((world.provider.connections(), connections(&world)), (1, (1, 1)));
    // One more has no place.
    let more = begun(&world, 1, json!({"stream": true})).await;
    assert_eq!(world.provider.connections(), 2);
    drop(answers);
    let stats = world.provider.stats_when(|stats| stats.cancelled == 100).await;
    assert_eq!((stats.in_flight, stats.dropped), (1, 0));
    drop(more);
    world.provider.stats_when(|stats| stats.in_flight == 0).await;
    let again = begun(&world, 100, json!({"stream": true})).await;
    assert_eq!((again.len(), world.provider.connections()), (100, 2), "both are used again");
}

#[tokio::test]
async fn a_request_that_is_given_up_before_its_answer_is_cancelled_and_its_connection_goes_on() {
    let timeout = Duration::from_millis(500);
    let world = over_tls("{}", Versions::Both).first_byte_timeout(timeout).start().await;
    let never = ("x-stand-in-script", r#"{"latency_ms": {"fixed": 3600000}}"#);
    for (headers, status) in [(&[][..], 200), (&[never], 504), (&[], 200)] {
        let answer = world.chat(headers, &prompted(json!({}))).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    }
    let stats = world.provider.stats_when(|stats| stats.cancelled == 1).await;
    assert_eq!((stats.requests, stats.completed, world.provider.connections()), (3, 2, 1));
}

#[tokio::test]
async fn what_goes_wrong_over_http2_tells_the_same_as_over_http1() {
    for (script, stream) in [
        ("default: {drop_rate: 1, replies: [a b c d]}", true),
        ("default: {drop_rate: 1, replies: [a b c d]}", false),
        ("default: {fault: hang}", true),
        ("default: {fault: hang}", false),
        ("default: {fault: garbage}", true),
        ("default: {fault: half_json}", false),
        ("default: {failure_rate: 1, failure: {status: 429, retry_after: 7}}", false),
        ("default: {failure_rate: 1, failure: {at: middle}}", true),
        ("default: {refusal_rate: 1}", true),
        ("default: {replies: [naïve café], frame_bytes: 1}", true),
    ] {
        let mut told = Vec::new();
        for version in [Http2::Never, Http2::Always] {
            let stall = Duration::from_millis(60);
            let builder = world(script).stall_timeout(stall).upstream(http2(version));
            let mut world = builder.start().await;
            let body = prompted(json!({ "stream": stream }));
            let answer = world.chat(&[("x-stand-in-key", "k")], &body).await;
            let mut seen = world.seen().await;
            (seen.latency_ms, seen.ttft_ms) = (None, None);
            let retry_after = answer.header("retry-after").map(ToOwned::to_owned);
            told.push((answer.status, answer.is_complete, retry_after, answer.body.len(), seen));
        }
        assert_eq!(told[0], told[1], "{script} {stream}");
    }
}

#[tokio::test]
async fn a_provider_that_closes_its_connections_under_traffic_loses_no_request() {
    let world = over_tls("default: {chunk_interval_ms: 1, replies: [a b c d]}", Versions::Both).start().await;
    let body = prompted(json!({"stream": true}));
    let client = || async {
        for _ in 0..25 {
            let answer = world.chat(&[], &body).await;
            assert_eq!((answer.status.as_u16(), answer.is_complete), (200, true), "{answer:?}");
        }
    };
    let clients = futures_util::future::join_all((0..8).map(|_| client()));
    let closing = async {
        for n_requests in [20, 50, 80, 110, 140, 170] {
            world.provider.stats_when(|stats| stats.requests >= n_requests).await;
            world.provider.say_goodbye();
        }
    };
    tokio::join!(clients, closing);
    assert_eq!(world.provider.stats().completed, 200, "each was answered once");
    let (opened, over_http2) = connections(&world);
    assert_eq!(opened, over_http2);
    assert!((2..=14).contains(&opened), "{opened}");
}

#[tokio::test]
async fn clients_that_do_not_read_stop_nobody_else_on_their_connection() {
    let script = format!("default: {{replies: ['{}'], frame_bytes: 65536}}", "x".repeat(12 << 20));
    let world = world(&script).upstream(http2(Http2::Always)).start().await;
    let stalled = begun(&world, 4, json!({})).await;
    let answer = world.chat(&[], &prompted(json!({}))).await;
    assert!(answer.is_complete && answer.body.len() > 12 << 20);
    assert_eq!((world.provider.connections(), stalled.len()), (1, 4));
    // They get the rest when they read on.
    for answer in stalled {
        assert!(answer.into_body().collect().await.unwrap().to_bytes().len() > 12 << 20);
    }
}

#[tokio::test]
async fn many_requests_to_a_provider_that_is_down_fail_together_and_not_one_after_the_other() {
    let tried = Duration::from_millis(50);
    let world = over_tls("{}", Versions::Both).provider_down().start().await;
    let started = tokio::time::Instant::now();
    let answers = begun(&world, 50, json!({})).await;
    assert!(answers.iter().all(|answer| answer.status() == 502));
    // Each attempt waits 50 ms before its second try.
    assert!(started.elapsed() < 20 * tried, "{:?}", started.elapsed());
}

/// What a provider does with a request.
#[derive(Clone, Copy)]
enum Fate {
    Answer,
    Reset(h2::Reason),
    /// It is the last that is worked on, and the connection ends all the same.
    GoAway,
    /// The connection ends without it.
    GoAwayBefore,
}

/// A provider without TLS whose requests meet these fates one after the other; each that it read is told.
async fn fateful(fates: &'static [Fate]) -> (SocketAddr, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (told, requests) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut next = fates.iter().enumerate().peekable();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Some((number, Fate::GoAwayBefore)) = next.peek() {
                let _ = told.send(*number).await;
                next.next();
                go_away(stream).await;
            } else {
                meet(stream, &mut next, &told).await;
            }
        }
    });
    (addr, requests)
}

async fn meet(
    stream: TcpStream,
    fates: &mut impl Iterator<Item = (usize, &'static Fate)>,
    told: &mpsc::Sender<usize>,
) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (number, fate) = fates.next().expect("a fate is left");
        drop(request);
        let _ = told.send(number).await;
        match fate {
            Fate::Answer => answer(&mut respond),
            Fate::Reset(reason) => respond.send_reset(*reason),
            Fate::GoAwayBefore => unreachable!("it needs a connection of its own"),
            Fate::GoAway => {
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                let _ = poll_fn(|context| connection.poll_closed(context)).await;
                return;
            }
        }
    }
}

/// Waits for a request and says that none was read.
async fn go_away(mut stream: TcpStream) {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// The last stream is 0, the reason is none.
    const GO_AWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    stream.write_all(SETTINGS).await.unwrap();
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
        stream.read_exact(&mut payload).await.unwrap();
        let (is_data, ends_stream) = (kind == 0, flags & 1 == 1);
        if is_data && ends_stream {
            break;
        }
    }
    stream.write_all(GO_AWAY).await.unwrap();
    // The client closes the connection when it has read that.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

fn answer(respond: &mut SendResponse<Bytes>) {
    let choice =
        json!({"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}});
    let body = json!({"id": "c-1", "object": "chat.completion", "model": "small", "choices": [choice]});
    let head = Response::builder().header("content-type", "application/json").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    stream.send_data(body.to_string().into(), true).unwrap();
}

#[tokio::test]
async fn a_request_is_sent_again_only_if_the_provider_says_that_it_did_not_read_it() {
    use h2::Reason;
    for (fates, retries, status, n_sent) in [
        (&[Fate::Reset(Reason::REFUSED_STREAM), Fate::Answer][..], 1, 200, 2),
        (&[Fate::Reset(Reason::REFUSED_STREAM)], 0, 502, 1),
        (&[Fate::Reset(Reason::REFUSED_STREAM), Fate::Reset(Reason::REFUSED_STREAM)], 1, 502, 2),
        (&[Fate::Reset(Reason::INTERNAL_ERROR)], 1, 502, 1),
        (&[Fate::Reset(Reason::CANCEL)], 1, 502, 1),
        (&[Fate::Reset(Reason::NO_ERROR)], 1, 502, 1),
        (&[Fate::GoAway], 1, 502, 1),
        (&[Fate::GoAwayBefore, Fate::GoAwayBefore, Fate::Answer], 0, 200, 3),
    ] {
        let (addr, mut sent) = fateful(fates).await;
        let url = BaseUrl::parse(&format!("http://{addr}")).unwrap();
        let world = world("{}")
            .upstream(move |upstream| {
                upstream.base_url = url;
                upstream.connect_retries = retries;
                upstream.http2 = Http2::Always;
            })
            .start()
            .await;
        let answer = world.chat(&[], &prompted(json!({}))).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        let mut numbers = Vec::new();
        while let Ok(number) = sent.try_recv() {
            numbers.push(number);
        }
        assert_eq!(numbers.len(), n_sent);
        assert_eq!(counted(&world, "retries"), n_sent as u64 - 1);
    }
}

/// A provider without TLS that begins an answer on its first connection and reads nothing from then on, so that it
/// answers no ping either; on every later one it answers.
async fn falling_silent() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
        let head = Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
        let _open = respond.send_response(head, false).unwrap();
        // Once more, so that the head goes out.
        poll_fn(|context| {
            let _ = connection.poll_closed(context);
            Poll::Ready(())
        })
        .await;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                answer(&mut respond);
            }
        }
    });
    addr
}

#[tokio::test]
async fn a_connection_whose_provider_answers_no_ping_is_given_up_and_a_new_request_gets_a_new_one() {
    let url = BaseUrl::parse(&format!("http://{}", falling_silent().await)).unwrap();
    let hour = Duration::from_secs(3_600);
    let mut world = world("{}")
        .stall_timeout(hour)
        .upstream(move |upstream| {
            upstream.base_url = url;
            upstream.http2 = Http2::Always;
            upstream.ping = Duration::from_millis(50);
        })
        .start()
        .await;
    let body = prompted(json!({"stream": true})).to_string();
    let begun = send(world.addr, "POST", CHAT, &[], body).await;
    assert_eq!(begun.status(), 200);
    // Nothing but a ping without an answer can end it.
    let ended = tokio::time::timeout(Duration::from_secs(20), begun.into_body().collect()).await;
    assert!(ended.expect("it ends long before an hour").is_err(), "it broke off");
    let seen = world.seen().await;
    assert_eq!((seen.success, seen.error), (Some(false), Some(ErrorKind::Provider)));
    let answer = world.chat(&[], &prompted(json!({}))).await;
    assert_eq!((answer.status.as_u16(), answer.is_complete), (200, true), "{answer:?}");
    assert_eq!(connections(&world), (2, 2));
}
