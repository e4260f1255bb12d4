//! Answers of a provider that have no body.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::app::TestApp;

#[tokio::test]
async fn an_answer_without_a_body_gets_no_length_that_its_provider_did_not_tell() {
    let provider = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}/v1", provider.local_addr().unwrap());
    let app = TestApp::start_with(&[("SERIN_PROVIDER_BASE_URL", &base_url)]).await;
    for (method, head, length) in [
        ("HEAD", "200 OK\r\ncontent-length: 7", Some("7")),
        ("HEAD", "200 OK\r\ntransfer-encoding: chunked", None),
        ("GET", "200 OK\r\ncontent-length: 0", Some("0")),
        ("GET", "204 No Content", None),
        ("GET", "304 Not Modified\r\netag: \"1\"", None),
    ] {
        let provider = provider.try_clone().unwrap();
        let answering = tokio::task::spawn_blocking(move || {
            let (mut stream, _) = provider.accept().unwrap();
            let (mut seen, mut byte) = (Vec::new(), [0]);
            while !seen.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                seen.extend_from_slice(&byte);
            }
            let answer = format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let answer = app.send(app.server.data_addr(), method, "/v1/models", &[], "").await;
        answering.await.unwrap();
        let told = answer.headers.get("content-length").map(|value| value.to_str().unwrap());
        assert_eq!(told, length, "{method} {head}");
    }
}
