//! Sessions of clients that send no key: the response that they name, or the conversation that they send again.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::world::{Answer, CHAT, MESSAGES, RESPONSES, World, prompted_at, world};

const SCRIPT: &str = "default: {replies: ['answer to {user}']}";

fn session(answer: &Answer) -> String {
    answer.header("x-serin-session").expect("the answer names its session").to_owned()
}

/// What the model said, in the form in which a client sends it again.
fn said(path: &str, stream: bool, answer: &Answer) -> Value {
    if stream {
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let pieces = events.filter_map(|data| serde_json::from_str::<Value>(data).ok()).map(|event| {
            let place = match path {
                CHAT => &event["choices"][0]["delta"]["content"],
                _ => &event["delta"]["text"],
            };
            place.as_str().unwrap_or_default().to_owned()
        });
        return json!({"role": "assistant", "content": pieces.collect::<String>()});
    }
    match path {
        CHAT => answer.json()["choices"][0]["message"].clone(),
        _ => json!({"role": "assistant", "content": answer.json()["content"]}),
    }
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

async fn say(world: &World, path: &str, messages: &[Value], stream: bool) -> Answer {
    let answer =
        world.ask(path, &[], &prompted_at(path, json!({"messages": messages, "stream": stream}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

#[tokio::test]
async fn a_conversation_that_is_sent_again_keeps_its_session_and_version_whatever_the_weight() {
    for path in [CHAT, MESSAGES] {
        for stream in [false, true] {
            let world = world(SCRIPT).canary_at(50.0).start().await;
            let mut versions = Vec::new();
            for number in 0..8 {
                let mut messages = vec![user(&format!("h\u{e9}llo {number}"))];
                let first = say(&world, path, &messages, stream).await;
                for turn in 0..3 {
                    let before = if turn == 0 { said(path, stream, &first) } else { user("never") };
                    if turn == 0 {
                        messages.push(before);
                    }
                    messages.push(user(&format!("and {turn}?")));
                    let next = say(&world, path, &messages, stream).await;
                    assert_eq!(session(&next), session(&first), "{path} {stream} {number} {turn}");
                    assert_eq!(next.header("x-serin-version"), first.header("x-serin-version"));
                    messages.push(said(path, stream, &next));
                }
                versions.push(first.header("x-serin-version").unwrap().to_owned());
            }
            versions.sort();
            versions.dedup();
            assert_eq!(versions.len(), 2, "both versions were given out");
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            assert_eq!(count(&world.gateway.counts().sessions_by_answer), 24);
            assert_eq!(count(&world.gateway.counts().history_without_session), 0);
        }
    }
}

#[tokio::test]
async fn a_call_of_a_tool_leads_back_to_its_session() {
    let world = world("default: {tool_call_rate: 1, tool_calls: [{name: search}]}").start().await;
    let first = say(&world, CHAT, &[user("hi")], false).await;
    let call = said(CHAT, false, &first);
    let result = json!({"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "1"});
    let next = say(&world, CHAT, &[user("hi"), call, result], false).await;
    assert_eq!(session(&next), session(&first));
    let first = say(&world, MESSAGES, &[user("hi")], true).await;
    let text = String::from_utf8(first.body.to_vec()).unwrap();
    let id = text.split("\"toolu_").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let id = format!("toolu_{id}");
    let call = json!({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "search", "input": {}}]});
    let result =
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "1"}]});
    let next = say(&world, MESSAGES, &[user("hi"), call, result], true).await;
    assert_eq!(session(&next), session(&first));
}

#[tokio::test]
async fn a_response_that_a_request_names_leads_to_its_session_along_the_whole_chain() {
    for stream in [false, true] {
        let world = world("{}").canary_at(50.0).start().await;
        let mut previous: Option<String> = None;
        let mut sessions = Vec::new();
        for _ in 0..5 {
            let body = json!({"stream": stream, "previous_response_id": previous});
            let answer = world.ask(RESPONSES, &[], &prompted_at(RESPONSES, body)).await;
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            let id = text.split("\"resp_").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            previous = Some(format!("resp_{id}"));
            sessions.push((session(&answer), answer.header("x-serin-version").unwrap().to_owned()));
        }
        assert!(sessions.iter().all(|other| *other == sessions[0]), "{sessions:?}");
        assert_eq!(world.gateway.counts().sessions_by_response.load(Ordering::Relaxed), 4);
        let lost = prompted_at(RESPONSES, json!({"previous_response_id": "resp_unknown"}));
        assert_ne!(session(&world.ask(RESPONSES, &[], &lost).await), sessions[0].0);
        assert_eq!(world.gateway.counts().history_without_session.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_question_that_is_asked_again_is_seen_with_and_without_the_history() {
    let mut world = world("{}").start().await;
    let headers = [("x-serin-session", "s")];
    for (question, repeated) in [("Where is it?", false), ("where IS it", true), ("And now?", false)] {
        world.ask(CHAT, &headers, &prompted_at(CHAT, json!({"messages": [user(question)]}))).await;
        assert_eq!(world.seen().await.repeated_question, Some(repeated), "{question}");
    }
    let history = |last: &str| json!({"messages": [user("Where is it?"), {"role": "assistant", "content": "There."}, user(last)]});
    for (last, repeated) in [("Where is it", true), ("Thanks", false)] {
        world.ask(CHAT, &[("x-serin-session", "t")], &prompted_at(CHAT, history(last))).await;
        assert_eq!(world.seen().await.repeated_question, Some(repeated), "{last}");
    }
    let result = json!({"messages": [user("x"), {"role": "tool", "tool_call_id": "c", "content": "1"}]});
    world.ask(CHAT, &[("x-serin-session", "u")], &prompted_at(CHAT, result)).await;
    assert_eq!(world.seen().await.repeated_question, None, "a tool's result is no question");
}
