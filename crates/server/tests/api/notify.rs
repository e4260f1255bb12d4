//! Telling people: in order, once per id, and not lost while they cannot be reached.

use serde_json::{Value, json};
use serin_server::api::types::{AuditPage, DeadLetters, ReceiverList, RetriedView, TestedView};

use crate::app::TestApp;
use crate::receiver::{Inbox, Letter, Mood};

impl TestApp {
    /// Lets time pass in steps of ten seconds, in which everything is looked at.
    async fn minutes(&self, minutes: u64) {
        for _ in 0..minutes * 6 {
            self.clock.set(self.clock.now() + std::time::Duration::from_secs(10));
            self.server.control().look().await;
            self.server.notifier().look().await;
        }
    }

    async fn post(&self, path: &str) -> crate::app::Answer {
        self.send(self.server.control_addr(), "POST", path, &[("x-serin-actor", "ana")], "").await
    }

    async fn receiver(&self) -> serin_server::api::types::ReceiverView {
        self.get("/api/v1/notify/receivers").await.read::<ReceiverList>().receivers.remove(0)
    }
}

fn ids(letters: &[Letter]) -> Vec<String> {
    letters.iter().map(|letter| letter.body["id"].as_str().unwrap().to_owned()).collect()
}

/// The identities of the entries of the audit log, in order.
async fn audited(app: &TestApp) -> Vec<String> {
    let page: AuditPage = app.get("/api/v1/audit?limit=1000").await.read();
    page.entries.iter().map(|entry| format!("{}-{}", entry.seq, &entry.hash[..16])).collect()
}

#[tokio::test]
async fn a_receiver_that_was_down_for_ten_minutes_gets_everything_in_order_once_per_id() {
    let inbox = Inbox::open().await;
    let app = TestApp::start_with_file(&inbox.settings("")).await;
    inbox.is_now(Mood::IsDown);
    let app = app.with_canary().await;
    app.minutes(5).await;
    app.order("pause", r#"{"reason": "looking"}"#).await;
    app.order("resume", r#"{"reason": "looked"}"#).await;
    app.minutes(5).await;
    let first = inbox.letters()[0].body["id"].clone();
    let attempts = inbox.letters();
    let id = format!("msg_{}", first.as_str().unwrap());
    assert!(attempts.iter().all(|letter| letter.path == "/hook" && letter.headers["webhook-id"] == *id));
    assert!(attempts.iter().all(|letter| letter.body["id"] == first), "later ones wait behind the first");
    assert!((5..=20).contains(&attempts.len()), "{} attempts in ten minutes", attempts.len());
    let standing = app.receiver().await;
    assert!(standing.failures >= 5 && standing.problem.unwrap().contains("answered 503"));

    inbox.is_now(Mood::Takes);
    app.minutes(6).await;
    let audited = audited(&app).await;
    assert!(audited.len() >= 6, "{audited:?}");
    assert_eq!(ids(&inbox.taken()), audited, "everything, in order, once");
    let standing = app.receiver().await;
    assert_eq!((standing.behind, standing.failures, standing.problem), (0, 0, None));
    assert_eq!(standing.delivered, audited.len() as u64);
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let inbox = Inbox::open().await;
    let app = TestApp::start_with_file(&inbox.settings("")).await.with_canary().await;
    app.server.notifier().look().await;
    let before = inbox.taken().len();
    inbox.is_now(Mood::IsDown);
    app.order("pause", r#"{"reason": "looking"}"#).await;
    app.server.notifier().look().await;
    inbox.is_now(Mood::Takes);
    let app = app.restart().await;
    app.minutes(1).await;
    let taken = inbox.taken();
    assert!(taken.len() > before);
    assert_eq!(ids(&taken), audited(&app).await);
}

#[tokio::test]
async fn what_is_refused_again_and_again_becomes_a_dead_letter_that_can_be_sent_later() {
    let inbox = Inbox::open().await;
    let app = TestApp::start_with_file(&inbox.settings(", events: [rollout_started]")).await;
    inbox.is_now(Mood::Refuses);
    let app = app.with_canary().await;
    app.minutes(2).await;
    assert_eq!(inbox.letters().len(), 5, "five refusals are enough");
    let dead = app.get("/api/v1/notify/dead").await.read::<DeadLetters>().letters;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].receiver.as_str(), dead[0].attempts), ("oncall", 5));
    assert!(dead[0].problem.ends_with("answered 400: no such thing"), "{}", dead[0].problem);
    let standing = app.receiver().await;
    assert_eq!((standing.behind, standing.buried), (0, 1), "what comes later does not wait for it");

    let retried: RetriedView = app.post("/api/v1/notify/dead/retry").await.read();
    assert_eq!((retried.delivered, retried.failed), (0, 1));
    inbox.is_now(Mood::Takes);
    let retried: RetriedView = app.post("/api/v1/notify/dead/retry").await.read();
    assert_eq!((retried.delivered, retried.failed), (1, 0));
    assert!(app.get("/api/v1/notify/dead").await.read::<DeadLetters>().letters.is_empty());
    assert_eq!(inbox.taken().len(), 1);
    assert_eq!(inbox.taken()[0].body["type"], "serin.rollout_started");
}

#[tokio::test]
async fn what_cannot_be_told_for_a_day_is_given_up() {
    let inbox = Inbox::open().await;
    let settings =
        format!("{}  giveUpAfter: 1h\n", inbox.settings(", events: [first_stable, version_published]"));
    let app = TestApp::start_with_file(&settings).await;
    inbox.is_now(Mood::IsDown);
    let app = app.with_canary().await;
    app.minutes(150).await;
    let dead = app.get("/api/v1/notify/dead").await.read::<DeadLetters>().letters;
    assert!(!dead.is_empty());
    assert!(dead.iter().all(|letter| letter.problem.contains("answered 503")), "{dead:?}");
    assert!(dead[0].attempts >= 12, "about every five minutes: {}", dead[0].attempts);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let inbox = Inbox::open().await;
    let app = TestApp::start_with_file(&inbox.settings("")).await;
    inbox.is_now(Mood::Redirects);
    let tested: TestedView = app.post("/api/v1/notify/receivers/oncall/test").await.read();
    assert!(!tested.delivered);
    assert!(tested.problem.unwrap().contains("302 (redirects are not followed)"));
    assert_eq!(inbox.letters().len(), 1);
}

#[tokio::test]
async fn an_internal_receiver_is_refused_unless_it_is_allowed() {
    let inbox = Inbox::open().await;
    let settings = inbox.settings("").replace("allowInternal: true", "allowInternal: false");
    let app = TestApp::start_with_file(&settings).await;
    let tested: TestedView = app.post("/api/v1/notify/receivers/oncall/test").await.read();
    assert!(tested.problem.unwrap().contains("127.0.0.1, which is internal; set `allowInternal: true`"));
    assert!(inbox.letters().is_empty(), "nothing was sent");
    insta::assert_snapshot!(
        "unknown_receiver",
        app.post("/api/v1/notify/receivers/pager/test").await.shown()
    );
}

#[tokio::test]
async fn a_receiver_is_told_of_its_packs_and_events_only() {
    let inbox = Inbox::open().await;
    let settings = inbox.settings(", events: ['hold_set.*', rolled_back.person], packs: ['support-*']");
    let app = TestApp::start_with_file(&settings).await.with_canary().await;
    app.order("pause", r#"{"reason": "looking"}"#).await;
    app.order("rollback", r#"{"reason": "wrong tone"}"#).await;
    app.minutes(1).await;
    let types: Vec<Value> = inbox.taken().iter().map(|letter| letter.body["type"].clone()).collect();
    assert_eq!(types, [json!("serin.hold_set.paused"), json!("serin.rolled_back.person")]);
}

#[tokio::test]
async fn the_first_line_says_what_to_do_and_the_rest_what_to_know() {
    let inbox = Inbox::open().await;
    let app = TestApp::start_with_file(&inbox.settings(", events: [hold_set, rolled_back]")).await;
    let app = app.with_canary().await;
    app.minutes(3).await;
    // Told at once, so that the text does not depend on who looks first.
    app.order("pause", r#"{"reason": "looking"}"#).await;
    app.server.notifier().look().await;
    app.minutes(2).await;
    app.order("rollback", r#"{"reason": "wrong tone"}"#).await;
    app.server.notifier().look().await;
    let texts: Vec<String> =
        inbox.taken().iter().map(|letter| letter.body["data"]["text"].as_str().unwrap().to_owned()).collect();
    insta::assert_snapshot!("messages", texts.join("\n"));
}

#[tokio::test]
async fn a_hold_that_lasts_all_night_is_an_event_of_its_own_once() {
    let inbox = Inbox::open().await;
    let settings = format!(
        "{}  severities: {{hold_lasts: page}}\n  holdLasts: 8h\n",
        inbox.settings(", events: [hold_lasts]")
    );
    let app = TestApp::start_with_file(&settings).await.with_canary().await;
    app.order("pause", r#"{"reason": "over night"}"#).await;
    let after = "8h".parse::<jiff::SignedDuration>().unwrap();
    let after_eight_hours = serin_core::units::HoldFor::from_hours(8);
    app.clock.set(app.clock.now() + after - jiff::SignedDuration::from_secs(1));
    app.server.control().remind(after_eight_hours).await;
    app.server.notifier().look().await;
    assert!(inbox.taken().is_empty(), "it does not last that long yet");
    for _ in 0..3 {
        app.clock.set(app.clock.now() + jiff::SignedDuration::from_secs(1));
        app.server.control().remind(after_eight_hours).await;
        app.server.notifier().look().await;
    }
    let taken = inbox.taken();
    assert_eq!(taken.len(), 1, "it is told once");
    assert_eq!(taken[0].body["type"], "serin.hold_lasts.paused");
    assert_eq!(taken[0].body["data"]["severity"], "page");
    let headline = "Act now: support-prompts 2.4.0 has been on hold (paused) for 8h: over night";
    assert_eq!(taken[0].body["data"]["headline"], headline);
}
