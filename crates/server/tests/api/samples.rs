//! Conversation samples: opt-in, redacted before anything is kept, bounded, gone at their expiry.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use serin_core::units::HoldFor;
use serin_server::api::types::{SampleSignal, SamplesView, Variant};

use crate::app::{Answer, TestApp};

const ADDRESS: &str = "ann.lee@customers.example";
const KEY: &str = "sk-planted-0123456789abcdef";

/// A server that records everybody, with both versions of the example.
async fn recording(variables: &[(&str, &str)]) -> TestApp {
    let all = [&[("SERIN_SAMPLES_RATE", "100%")], variables].concat();
    let all = all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    TestApp::start_scripted("default: {replies: [\"{user}\"]}", all).await.with_canary().await
}

async fn chat(app: &TestApp, session: &str, text: &str, more: Value) -> Answer {
    let mut body = json!({
        "model": "stand-in",
        "messages": [
            {"role": "user", "content": "earlier turn"},
            {"role": "assistant", "content": "earlier answer"},
            {"role": "user", "content": text},
        ],
        "prompt": {"id": "support-prompts/support", "variables": {"company": "Acme"}},
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let headers = [
        ("content-type", "application/json"),
        ("x-serin-session", session),
        ("authorization", "Bearer sk-test"),
    ];
    let to = app.server.data_addr();
    let answer = app.send(to, "POST", "/v1/chat/completions", &headers, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

async fn samples(app: &TestApp, query: &str) -> SamplesView {
    app.get(&format!("/api/v1/packs/support-prompts/samples?{query}")).await.read()
}

/// Everything in the data directory, as bytes.
fn stored(app: &TestApp) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(app.data_dir()).unwrap() {
        bytes.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_planted_address_or_key_reaches_neither_the_database_nor_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // For the whole process, since no other test here has a log: with one for this thread alone, what other threads
    // meet first would stay unheard.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let app = recording(&[("SERIN_SAMPLES_REDACT", r"ticket=T-\d+")]).await;
    let text = format!("I am {ADDRESS}, my key is {KEY}, ticket T-4711, card 4111 1111 1111 1111.");
    // The stand-in repeats what the user says, so the answers hold it too, once in one piece and once in chunks.
    chat(&app, "one", &text, json!({})).await;
    chat(&app, "two", &text, json!({"stream": true})).await;
    let seen = samples(&app, "").await.samples;
    assert_eq!(seen.len(), 2);
    for sample in &seen {
        let expected = "I am [redacted:email], my key is [redacted:key], ticket [redacted:ticket], card [redacted:card].";
        assert_eq!(sample.messages.len(), 1, "{sample:?}");
        assert_eq!((sample.messages[0].role.as_str(), sample.messages[0].text.as_str()), ("user", expected));
        assert!(sample.answer.contains(expected), "{}", sample.answer);
        assert_eq!(sample.redactions, 8);
    }
    let app = app.restart().await;
    let (stored, logged) = (stored(&app), log.0.lock().unwrap().clone());
    assert!(holds(&stored, "[redacted:email]"), "what was redacted is stored");
    assert!(holds(&logged, "serving on"), "the log was heard");
    for planted in [ADDRESS, "ann.lee", KEY, "T-4711", "4111 1111"] {
        assert!(!holds(&stored, planted), "{planted:?} is in the data directory");
        assert!(!holds(&logged, planted), "{planted:?} is in the log");
    }
    // Neither are texts that needed no redaction anything for the log, nor turns before the last for the store.
    assert!(!holds(&logged, "my key is") && !holds(&stored, "earlier turn"));
}

#[tokio::test]
async fn nothing_is_stored_unless_recording_is_switched_on() {
    let app = TestApp::start().await.with_canary().await;
    chat(&app, "one", "a rather remarkable sentence", json!({})).await;
    let view = samples(&app, "").await;
    assert!(!view.recording.on && view.samples.is_empty(), "{view:?}");
    let app = app.restart().await;
    assert!(!holds(&stored(&app), "remarkable"), "nothing of it is stored");
}

#[tokio::test]
async fn sessions_are_recorded_whole_or_not_at_all() {
    let app = TestApp::start_with(&[("SERIN_SAMPLES_RATE", "40%")]).await.with_canary().await;
    for turn in 0..3 {
        for session in 0..20 {
            chat(&app, &format!("s-{session}"), &format!("turn {turn}"), json!({})).await;
        }
    }
    let view = samples(&app, "limit=200").await;
    assert_eq!((view.recording.on, view.recording.rate_percent), (true, 40.0));
    let mut turns = std::collections::BTreeMap::<String, u32>::new();
    for sample in view.samples {
        *turns.entry(sample.session).or_default() += 1;
    }
    assert!(!turns.is_empty() && turns.len() < 20, "{turns:?}");
    assert!(turns.values().all(|turns| *turns == 3), "{turns:?}");
}

#[tokio::test]
async fn the_oldest_go_when_there_are_too_many_of_a_version() {
    let app = recording(&[("SERIN_SAMPLES_LIMIT", "3")]).await;
    for n in 0..60 {
        app.clock.set(app.clock.now() + Duration::from_secs(1));
        chat(&app, &format!("s-{n}"), "hello", json!({})).await;
    }
    let view = samples(&app, "limit=200").await;
    let of = |variant| view.samples.iter().filter(|sample| sample.variant == Some(variant)).count();
    assert_eq!((of(Variant::Stable), of(Variant::Canary)), (3, 3));
    assert_eq!(view.samples[0].session, "s-59", "newest first");
    let metrics = app.get("/metrics").await.text();
    for line in
        ["serin_samples_stored_total 60", "serin_samples_displaced_total 54", "serin_samples_dropped_total 0"]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn samples_are_gone_at_their_expiry_and_a_shorter_one_holds_for_all() {
    let app = recording(&[("SERIN_SAMPLES_EXPIRY", "2h")]).await;
    chat(&app, "one", "hello", json!({})).await;
    assert_eq!(samples(&app, "").await.samples.len(), 1);
    let start = app.clock.now();
    let after = |minutes| HoldFor::from_mins(minutes).after(start);
    app.clock.set(after(119));
    assert_eq!(samples(&app, "").await.samples.len(), 1);
    app.clock.set(after(120));
    assert_eq!(samples(&app, "").await.samples.len(), 0, "not shown even before it is swept");
    let pack = serin_core::ids::PackName::parse("support-prompts").unwrap();
    let kept = async |app: &TestApp| {
        let filter = serin_server::store::SampleFilter { limit: 10, ..Default::default() };
        app.server.control().store().samples(&pack, &filter, start).await.unwrap().len()
    };
    assert_eq!(kept(&app).await, 1);
    app.server.control().sweep_once(HoldFor::from_hours(24)).await;
    assert_eq!(kept(&app).await, 0);

    chat(&app, "two", "hello", json!({})).await;
    let app = app.restart_with(&[("SERIN_SAMPLES_RATE", "0%"), ("SERIN_SAMPLES_EXPIRY", "1h")]).await;
    app.clock.set(after(120 + 59));
    assert_eq!(samples(&app, "").await.samples.len(), 1);
    app.clock.set(after(120 + 60));
    assert_eq!(samples(&app, "").await.samples.len(), 0);
}

#[tokio::test]
async fn a_text_is_cut_to_the_limit_and_the_answer_keeps_at_least_half() {
    let app = recording(&[("SERIN_SAMPLES_MAX_BYTES", "1KiB")]).await;
    chat(&app, "one", &"word ".repeat(2_000), json!({})).await;
    let sample = samples(&app, "").await.samples.remove(0);
    assert_eq!(sample.messages[0].text.len(), 512 + '…'.len_utf8());
    assert!(sample.messages[0].text.ends_with('…'));
    assert!((512..=1024).contains(&sample.answer.len()), "{}", sample.answer.len());
}

#[tokio::test]
async fn a_list_can_be_narrowed_and_goes_on_where_it_ended() {
    let app = recording(&[]).await;
    for n in 0..30 {
        app.clock.set(app.clock.now() + Duration::from_secs(1));
        chat(&app, &format!("s-{n}"), "hello", json!({})).await;
    }
    chat(&app, "tool", "call it", json!({"tools": []})).await;
    let outcome = |session: &str, value: bool| json!({"pack": "support-prompts", "session": session, "name": "task_completion", "value": value});
    let events = json!({"events": [outcome("s-1", true), outcome("s-2", false)]});
    assert_eq!(app.data("/v1/events", &events).await.status, 202);

    let canary = samples(&app, "variant=canary&limit=200").await.samples;
    let stable = samples(&app, "variant=stable&limit=200").await.samples;
    assert_eq!(canary.len() + stable.len(), 31);
    assert!(!canary.is_empty() && canary.iter().all(|sample| sample.version == "2.4.0"));
    assert!(stable.iter().all(|sample| sample.version == "2.3.1" && sample.prompt == "support"));
    let failed = samples(&app, "outcome=task_completion:0").await.samples;
    assert_eq!(failed.iter().map(|sample| sample.session.as_str()).collect::<Vec<_>>(), ["s-2"]);
    assert_eq!(failed[0].outcomes["task_completion"], 0.0);
    assert_eq!(samples(&app, "outcome=task_completion").await.samples.len(), 2);
    assert_eq!(samples(&app, "signal=refusal").await.samples.len(), 0);
    assert_eq!(samples(&app, "segment=nobody").await.samples.len(), 0);

    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = samples(&app, &format!("limit=7{after}")).await;
        all.extend(page.samples.into_iter().map(|sample| sample.session));
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(all.len(), 31);
    assert_eq!((all[0].as_str(), all[30].as_str()), ("tool", "s-0"));

    let of_rollout: SamplesView = app.get("/api/v1/rollouts/support-prompts-r1/samples?limit=1").await.read();
    assert!(of_rollout.next.is_some());
    for (query, expected) in [
        ("variant=blue", "variant \"blue\" is not stable or canary"),
        ("after=x", "after \"x\" is not the `next` of a list"),
        ("outcome=a:b", "outcome \"b\" is not a name, or a name and a number such as task_completion:0"),
    ] {
        let refused = app.get(&format!("/api/v1/packs/support-prompts/samples?{query}")).await;
        assert_eq!((refused.status, &refused.json()["detail"]), (400, &json!(expected)));
    }
    assert_eq!(app.get("/api/v1/packs/nothing/samples").await.status, 404);
    assert_eq!(app.get("/api/v1/rollouts/support-prompts-r9/samples").await.status, 404);
}

#[tokio::test]
async fn what_stands_out_about_an_answer_is_told() {
    let app = recording(&[]).await;
    chat(&app, "cut", "a sentence of more than three words", json!({"max_tokens": 3})).await;
    let sample = samples(&app, "signal=truncated").await.samples.remove(0);
    assert_eq!((sample.session.as_str(), sample.signals), ("cut", vec![SampleSignal::Truncated]));
    let mut answer = app.get("/api/v1/packs/support-prompts/samples").await.json();
    // How long the machine took is another thing each time.
    assert!(answer["samples"][0]["latency_ms"].take().is_f64());
    insta::assert_snapshot!("samples", format!("{answer:#}"));
}
