//! Signed links: one rollout, one action, one use.

use serin_server::api::types::{AuditPage, OncallView, PackDetail};

use crate::app::{Answer, TestApp};
use crate::receiver::Inbox;

impl TestApp {
    /// A server whose receiver was just sent a link to the rollout under way, and the path of that link.
    async fn with_link(inbox: &Inbox) -> (Self, String) {
        let settings = format!(
            "{}control: {{publicUrl: 'https://serin.example/'}}\n",
            inbox.settings(", events: [rollout_started]")
        );
        let app = Self::start_with_file(&settings).await.with_canary().await;
        app.server.notifier().look().await;
        let link = inbox.taken()[0].body["data"]["rollbackLink"].as_str().unwrap().to_owned();
        (app, link.strip_prefix("https://serin.example").unwrap().to_owned())
    }

    async fn press(&self, path: &str) -> Answer {
        // As a browser sends the form, through the name that the link has.
        let headers = [("host", "serin.example"), ("origin", "https://serin.example")];
        self.send(self.server.control_addr(), "POST", path, &headers, "").await
    }

    async fn stands_on(&self) -> String {
        let pack: PackDetail = self.get("/api/v1/packs/support-prompts").await.read();
        format!("{} {}", pack.stable, pack.rollout.map_or("none", |rollout| rollout.phase.as_str()))
    }
}

#[tokio::test]
async fn a_link_shows_what_it_would_do_and_its_button_does_it_once() {
    let inbox = Inbox::open().await;
    let (app, path) = TestApp::with_link(&inbox).await;
    for _ in 0..3 {
        let page = app.get(&path).await;
        assert_eq!(page.status, 200);
        assert!(page.text().contains("Roll back support-prompts to 2.3.1</button>"), "{}", page.text());
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!page.text().contains("<script"));
        assert_eq!(page.headers["cache-control"], "no-store");
    }
    assert_eq!(app.stands_on().await, "2.3.1 Observing", "looking changes nothing");

    let done = app.press(&path).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(app.stands_on().await, "2.3.1 RolledBack");
    let audit: AuditPage = app.get("/api/v1/audit?limit=1000").await.read();
    let last = audit.entries.iter().rfind(|entry| entry.action == "rolled_back").unwrap();
    assert_eq!(last.actor, "link to webhook:oncall");

    for again in [app.press(&path).await, app.get(&path).await] {
        assert_eq!(again.status, 410);
        assert!(again.text().contains("This link was used already"), "{}", again.text());
    }
    app.order("retry", r#"{"reason": "fixed"}"#).await;
    assert_eq!(app.press(&path).await.status, 410);
    assert_eq!(app.stands_on().await, "2.3.1 Observing", "the next rollout is none of its business");
}

#[tokio::test]
async fn a_link_cannot_undo_what_is_completed() {
    let inbox = Inbox::open().await;
    let (app, path) = TestApp::with_link(&inbox).await;
    app.order("promote", r#"{"reason": "good", "full": true}"#).await;
    assert_eq!(app.stands_on().await, "2.4.0 Completed");
    let page = app.press(&path).await;
    assert_eq!(page.status, 410);
    assert!(page.text().contains("Nothing to do"), "{}", page.text());
    assert_eq!(app.stands_on().await, "2.4.0 Completed");
}

#[tokio::test]
async fn a_link_that_expired_or_was_changed_says_so_and_does_nothing() {
    let inbox = Inbox::open().await;
    let (app, path) = TestApp::with_link(&inbox).await;
    let changed = format!("{}x", &path[..path.len() - 1]);
    for answer in [app.get(&changed).await, app.press(&changed).await, app.press("/link/none").await] {
        assert_eq!(answer.status, 403);
        assert!(answer.text().contains("This link is not valid"), "{}", answer.text());
    }
    app.clock.set(app.clock.now() + jiff::SignedDuration::from_hours(24));
    for answer in [app.get(&path).await, app.press(&path).await] {
        assert_eq!(answer.status, 410);
        assert!(answer.text().contains("This link has expired"), "{}", answer.text());
    }
    let foreign = [("host", "serin.example"), ("origin", "https://evil.example")];
    let answer = app.send(app.server.control_addr(), "POST", &path, &foreign, "").await;
    assert_eq!(answer.status, 403, "a page of another site cannot press the button");
}

#[tokio::test]
async fn on_call_sees_who_can_help_and_what_to_run() {
    let app = TestApp::start().await.with_canary().await;
    app.order("pause", r#"{"reason": "looking"}"#).await;
    let view: OncallView = app.get("/api/v1/oncall").await.read();
    assert_eq!(view.canaries.len(), 1);
    let canary = &view.canaries[0];
    assert_eq!((canary.pack.as_str(), canary.started_by.as_str()), ("support-prompts", "ana"));
    assert_eq!(canary.owner.as_deref(), Some("support-team"));
    assert_eq!(canary.holds[0].reason, "looking");
    let commands: Vec<&str> = canary.commands.iter().map(|command| command.command.as_str()).collect();
    assert_eq!(
        commands,
        [
            "serin status support-prompts",
            "serin rollback support-prompts --reason \"…\"",
            "serin resume support-prompts --reason \"…\""
        ]
    );
}
