//! What is none of the gateway's business.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::world::{CHAT, exchange, world};

#[tokio::test]
async fn other_paths_pass_through_untouched_and_unobserved() {
    let mut world = world("models: [small]").start().await;
    let embed = r#"{ "model": "e", "input": ["one"], "prompt": {"id": "support/answer"} }"#;
    for (method, path, body) in [
        ("GET", "/v1/models", ""),
        ("POST", "/v1/embeddings?x=1", embed),
        ("DELETE", "/v1/files/f-1", ""),
        ("GET", "/v1/chat/completions", ""),
        ("GET", "/stand-in/stats", ""),
    ] {
        let headers = [("x-tag", "t"), ("accept-encoding", "gzip"), ("x-request-id", "r")];
        let through = exchange(world.addr, method, path, &headers, body).await;
        if path != "/stand-in/stats" {
            let received = world.provider.last_request().unwrap();
            assert_eq!((received.method.as_str(), received.uri.to_string().as_str()), (method, path));
            assert_eq!(received.body, body);
            assert_eq!(received.headers["accept-encoding"], "gzip");
            let direct = exchange(world.provider.addr(), method, path, &headers, body).await;
            assert_eq!((through.status, &through.body), (direct.status, &direct.body), "{path}");
        }
        assert!(through.header("x-serin-version").is_none());
    }
    assert!(world.signals.try_recv().is_err(), "nothing is told");
    assert_eq!(world.gateway.counts().passed.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn chat_requests_without_a_prompt_of_ours_pass_through_untouched() {
    let mut world = world("{}").start().await;
    let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
    for body in [
        format!(r#"{{ "model":"small", {messages} }}"#),
        format!(r#"{{"model":"small",{messages},"prompt":{{"id":"pmpt_12","version":"3"}}}}"#),
        format!(r#"{{"model":"small",{messages},"prompt":{{"id":"sales/answer"}},"stream":true}}"#),
        format!(r#"{{"model":"small",{messages},"prompt":"support"}}"#),
        "not JSON".to_owned(),
        String::new(),
    ] {
        let answer = exchange(world.addr, "POST", CHAT, &[], body.clone()).await;
        assert_eq!(world.provider.last_request().unwrap().body, body);
        assert!(answer.header("x-serin-session").is_none());
        let is_json = body.starts_with('{');
        assert_eq!(answer.status.as_u16(), if is_json { 200 } else { 400 }, "{body}");
    }
    assert!(world.signals.try_recv().is_err(), "nothing is told");
}

#[tokio::test]
async fn a_large_body_of_another_path_streams_through_whatever_the_limit() {
    let world = world("{}").settings(|settings| settings.body_limit = 10).start().await;
    let body = json!({"model": "e", "input": "x".repeat(3 << 20)}).to_string();
    let answer = exchange(world.addr, "POST", "/v1/embeddings", &[], body.clone()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.provider.last_request().unwrap().body, body);
}
