//! A client that shows exactly what a provider sent.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use serin_provider::{Provider, Script};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no header {name} in {:?}", self.headers));
        value.to_str().expect("the header is text")
    }

    pub(crate) fn content(&self) -> String {
        let json = self.json();
        let content = &json["choices"][0]["message"]["content"];
        content.as_str().expect("the message has content").to_owned()
    }

    /// The data of the events; the last is the text `[DONE]` where that was sent.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.text
            .split_terminator("\n\n")
            .map(|event| event.strip_prefix("data: ").expect("an event has data"))
            .map(|data| match data {
                "[DONE]" => data.into(),
                json => serde_json::from_str(json).expect("an event is JSON"),
            })
            .collect()
    }
}

/// Starts a provider on a free port.
pub(crate) async fn start(script: &str) -> Provider {
    let script = Script::parse(script).expect("the script is valid");
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Provider::start(script, any_port).await.expect("a port is free")
}

/// A chat request with one system and one user message.
pub(crate) fn chat(system: &str, user: &str) -> Value {
    json!({
        "model": "small",
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": user},
        ],
    })
}

/// Sends a request on a connection of its own.
pub(crate) async fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> hyper::Result<Response<Incoming>> {
    let stream = TcpStream::connect(addr).await.expect("the provider listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "provider");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("the request is valid");
    sender.send_request(request).await
}

/// Sends a request and reads the answer.
pub(crate) async fn exchange(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let response = send(addr, method, path, headers, body).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a complete body").to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8(bytes.to_vec()).expect("the body is text"),
    }
}

/// Sends a chat request and reads the answer.
pub(crate) async fn ask(addr: SocketAddr, headers: &[(&str, &str)], body: &Value) -> Answer {
    exchange(addr, "POST", "/v1/chat/completions", headers, body.to_string()).await
}

/// Sends a chat request and returns every byte that came back until the connection closed.
pub(crate) async fn raw_bytes(addr: SocketAddr, behaviour: &str, body: &Value) -> String {
    let mut stream = raw_request(addr, behaviour, body).await;
    let mut received = Vec::new();
    // A reset instead of an orderly close is an end as well.
    let _ = stream.read_to_end(&mut received).await;
    String::from_utf8(received).expect("the answer is text")
}

/// Sends a chat request and leaves the answer unread.
pub(crate) async fn raw_request(addr: SocketAddr, behaviour: &str, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.expect("the provider listens");
    let body = body.to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: provider\r\nx-stand-in-script: {behaviour}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("the provider reads");
    stream
}
