//! Clients that are slow, loud or many do not stop the others.

use std::time::Instant;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// A listener with narrow limits.
struct House {
    address: SocketAddr,
    counts: Arc<ListenCounts>,
    _stop: watch::Sender<bool>,
}

async fn open(limits: Limits) -> House {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address();
    let (sender, stop) = watch::channel(false);
    let counts = Arc::new(ListenCounts::default());
    let router = Router::new().route("/", get(async || "hello").post(async |body: String| body));
    tokio::spawn(listener.serve(router, limits, Arc::clone(&counts), stop, Duration::from_secs(1)));
    House { address, counts, _stop: sender }
}

const NARROW: Limits = Limits {
    connections: 400,
    of_one_address: 300,
    head_within: Duration::from_millis(300),
    head_bytes: 16 << 10,
};

async fn said(address: SocketAddr, bytes: &[u8]) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // What the other side does not want to read any more breaks off.
    let _ = stream.write_all(bytes).await;
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).await.unwrap_or(0);
    let text = String::from_utf8_lossy(&answer[..read]).into_owned();
    (stream, text)
}

#[tokio::test]
async fn a_head_that_takes_too_long_ends_the_connection() {
    let house = open(NARROW).await;
    let begun = Instant::now();
    let (_, answer) = said(house.address, b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let house = open(NARROW).await;
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "a".repeat(64 << 10));
    let (_, answer) = said(house.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    let fits = format!("GET / HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "a".repeat(8 << 10));
    assert!(said(house.address, fits.as_bytes()).await.1.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_address_with_too_many_connections_gets_no_more_until_it_lets_go() {
    let house = open(Limits { of_one_address: 3, head_within: Duration::from_secs(20), ..NARROW }).await;
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..3 {
        let (stream, answer) = said(house.address, request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        held.push(stream);
    }
    assert_eq!(said(house.address, request).await.1, "");
    assert_eq!(house.counts.refused.load(Ordering::Relaxed), 1);
    drop(held);
    let begun = Instant::now();
    while !said(house.address, request).await.1.starts_with("HTTP/1.1 200") {
        assert!(begun.elapsed() < Duration::from_secs(10), "the places are free again");
    }
}

/// The numbers of docs/security.md: 100 clients that never end their head, 100 that never end their body and 50 with
/// heads of 1 MiB, against one that asks 200 times.
#[tokio::test]
async fn slow_and_loud_clients_do_not_stop_the_others() {
    let house = open(Limits { head_within: Duration::from_secs(20), ..NARROW }).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut slow = TcpStream::connect(house.address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
        held.push(slow);
        let mut body = TcpStream::connect(house.address).await.unwrap();
        body.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\na").await.unwrap();
        held.push(body);
    }
    for _ in 0..50 {
        tokio::spawn(async move {
            let head = format!("GET / HTTP/1.1\r\nx-large: {}", "a".repeat(1 << 20));
            said(house.address, head.as_bytes()).await
        });
    }
    let mut took = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        let (_, answer) = said(house.address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        took.push(begun.elapsed());
    }
    took.sort();
    println!("median {:?}, 99th of 100 {:?}, longest {:?}", took[100], took[198], took[199]);
    assert!(took[198] < Duration::from_secs(2), "{took:?}");
}
