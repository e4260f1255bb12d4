//! What the evidence does not hold is said where the evidence is shown, while prompts go on.

use serde_json::{Value, json};
use serin_server::api::types::RolloutView;

use crate::app::{Answer, TestApp};

async fn chat(app: &TestApp, session: Option<&str>, messages: Value) -> Answer {
    let body = json!({
        "model": "stand-in", "messages": messages,
        "prompt": {"id": "support-prompts/support", "variables": {"company": "Acme"}},
    });
    let named = session.map(|session| ("x-serin-session", session));
    let headers: Vec<_> = [("content-type", "application/json")].into_iter().chain(named).collect();
    app.send(app.server.data_addr(), "POST", "/v1/chat/completions", &headers, body.to_string()).await
}

fn question() -> Value {
    json!([{"role": "user", "content": "Where is my order?"}])
}

async fn notes(app: &TestApp) -> Vec<String> {
    app.get("/api/v1/packs/support-prompts/rollout").await.read::<RolloutView>().notes
}

/// The value of a counter without labels.
async fn counted(app: &TestApp, name: &str) -> u64 {
    let text = app.get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn with_the_disk_full_prompts_go_on_and_the_rollout_says_that_its_numbers_are_old() {
    let app = TestApp::start().await.with_canary().await;
    assert!(notes(&app).await.iter().all(|note| !note.contains("store")));
    // The database may not grow by a single page from now on.
    let app = app.restart_on_disk_of(1).await;
    let mut served = 0;
    while !app.server.ingest_counts().is_failing() {
        served += 1;
        assert!(served < 5_000, "the disk is never full");
        let answer = chat(&app, Some(&format!("s-{served}")), question()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for n in 0..20 {
        let answer = chat(&app, Some(&format!("later-{n}")), question()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.headers.contains_key("x-serin-version"));
    }
    assert!(counted(&app, "serin_ingest_failures_total").await > 0);
    let notes = notes(&app).await;
    assert!(notes[0].starts_with("The store does not take what is measured: "), "{notes:?}");
    // Whoever reports an outcome is told that it was not stored, and can send it again.
    let event = json!({"id": "e", "pack": "support-prompts", "session": "later-1", "name": "task_completion", "value": true});
    let told = app.data("/v1/events", &json!({"events": [event]})).await;
    assert_eq!(told.status, 503, "{}", told.text());
}

#[tokio::test]
async fn with_the_store_stopped_prompts_go_on_and_what_they_tell_waits() {
    let app = TestApp::start().await.with_canary().await;
    app.server.control().store().close().await;
    for n in 0..50 {
        let answer = chat(&app, Some(&format!("s-{n}")), question()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    while counted(&app, "serin_ingest_failures_total").await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(counted(&app, "serin_gateway_succeeded_total").await, 50);
    assert_eq!(counted(&app, "serin_packs_unread").await, 1, "the evidence cannot be read, and that shows");
}

#[tokio::test]
async fn a_conversation_without_a_session_is_counted_and_warned_about_with_what_to_do() {
    let app = TestApp::start().await.with_canary().await;
    let history = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "an answer that is none of ours"},
        {"role": "user", "content": "Where is my order?"},
    ]);
    assert_eq!(chat(&app, Some("named"), history.clone()).await.status, 200);
    assert_eq!(chat(&app, None, question()).await.status, 200, "a first turn needs no session");
    assert!(notes(&app).await.iter().all(|note| !note.contains("no session")));
    for _ in 0..3 {
        assert_eq!(chat(&app, None, history.clone()).await.status, 200);
    }
    let notes = notes(&app).await;
    assert!(
        notes[0].starts_with("3 requests brought the history of a conversation and no session")
            && notes[0].ends_with("Send x-serin-session; docs/clients.md shows how."),
        "{notes:?}"
    );
    assert_eq!(counted(&app, "serin_gateway_history_without_session_total").await, 3);
}

/// Calls of a tool that nobody can judge are neither right nor wrong; without a word they would only be fewer.
#[tokio::test]
async fn tool_calls_that_nobody_can_judge_are_counted_and_told() {
    let app = TestApp::start().await.with_canary().await;
    // Of the tools, `small` has a schema, and that of `large` has more than 64 KiB.
    let tool = |name: &str, description: String| {
        let schema = json!({"type": "object", "description": description});
        json!({"type": "function", "function": {"name": name, "parameters": schema}})
    };
    let tools = json!([tool("small", String::new()), tool("large", "x".repeat(64 << 10))]);
    let ask = async |call: Value| {
        let script = json!({"tool_call_rate": 1, "tool_calls": call}).to_string();
        let headers = [
            ("content-type", "application/json"),
            ("x-serin-session", "s"),
            ("x-stand-in-script", script.as_str()),
        ];
        let body = json!({
            "model": "stand-in", "messages": question(), "tools": tools,
            "prompt": {"id": "support-prompts/support", "variables": {"company": "Acme"}},
        });
        let to = app.server.data_addr();
        let answer = app.send(to, "POST", "/v1/chat/completions", &headers, body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let told = async || {
        let by_schema = counted(&app, "serin_gateway_tools_unjudged_by_schema_total").await;
        let by_size = counted(&app, "serin_gateway_tools_unjudged_by_size_total").await;
        let notes = notes(&app).await;
        (by_schema, by_size, notes.into_iter().find(|note| note.contains("called tools")))
    };
    ask(json!([{"name": "small", "arguments": {}}])).await;
    ask(json!([{"name": "small", "arguments": "no JSON"}])).await;
    // One that is wrong is enough to tell that the answer is.
    ask(json!([{"name": "large", "arguments": {}}, {"name": "none", "arguments": {}}])).await;
    assert_eq!(told().await, (0, 0, None));
    ask(json!([{"name": "large", "arguments": {}}])).await;
    ask(json!(vec![json!({"name": "small", "arguments": {}}); 129])).await;
    let (by_schema, by_size, note) = told().await;
    assert_eq!((by_schema, by_size), (1, 1));
    let note = note.expect("it is told");
    assert!(note.starts_with("2 answers called tools in a way that could not be judged"), "{note}");
}
