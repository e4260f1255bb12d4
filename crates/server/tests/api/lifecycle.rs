//! Applying, watching and ordering, as people and pipelines do it.

use http_body_util::BodyExt;
use serde_json::json;
use serin_server::api::types::{
    AppliedView, AuditPage, AuditVerified, CarriedView, CheckList, DiffView, ExposureView, OncallView,
    OverviewView, PackDetail, PackList, Phase, ReplayView, RolloutList, RolloutView, SeriesView,
    TimelineView, VersionDetail, VersionList,
};

use crate::app::{TestApp, canary, stable};

#[tokio::test]
async fn the_first_version_is_stable_and_the_next_one_a_canary() {
    let app = TestApp::start().await;
    insta::assert_snapshot!("apply_first", app.apply(&stable()).await.shown());
    assert_eq!(app.get("/api/v1/packs/support-prompts/rollout").await.status, 404);

    let asked: AppliedView = app.put("/api/v1/packs?dryRun=true", &canary()).await.read();
    assert!(asked.dry_run);
    assert!(app.get("/api/v1/packs/support-prompts").await.read::<PackDetail>().rollout.is_none());

    insta::assert_snapshot!("apply_second", app.apply(&canary()).await.shown());
    insta::assert_snapshot!(
        "rollout_at_start",
        app.get("/api/v1/packs/support-prompts/rollout").await.shown()
    );
    insta::assert_snapshot!("packs", app.get("/api/v1/packs").await.shown());

    let again: AppliedView = app.apply(&canary()).await.read();
    assert_eq!(again.message, "version 2.4.0 is being rolled out already");
}

#[tokio::test]
async fn a_manifest_may_be_json() {
    let app = TestApp::start().await;
    let manifest = json!({
        "apiVersion": "omnia.altairalabs.ai/v1alpha1", "kind": "PromptPack",
        "metadata": {"name": "tiny"}, "spec": {"version": "1.0.0"},
    });
    let applied: AppliedView = app.apply(&manifest.to_string()).await.read();
    assert_eq!((applied.pack.as_str(), applied.version.as_str()), ("tiny", "1.0.0"));
}

#[tokio::test]
async fn the_rollout_moves_with_the_clock_and_shows_where_it_is() {
    let app = TestApp::start().await.with_canary().await;
    app.pass(5).await;
    let view: RolloutView = app.get("/api/v1/rollouts/support-prompts-r1").await.read();
    let progress = view.progress.unwrap();
    assert_eq!((view.phase, view.weight, progress.step), (Phase::Observing, 10.0, 0));
    assert_eq!(progress.in_step.to_string(), "5s");
    assert_eq!(progress.next.at.unwrap().to_string(), "2026-11-02T09:05:00Z");
    assert_eq!(view.steps.len(), usize::from(progress.of));
    assert_eq!(view.as_of, app.clock.now());
}

#[tokio::test]
async fn at_low_traffic_the_rollout_says_what_it_cannot_see() {
    let app = TestApp::start().await.with_canary().await;
    for n in 0..12 {
        let session = json!({"pack": "support-prompts", "session": format!("s{n}")});
        assert_eq!(app.data("/v1/resolve", &session).await.status, 200);
        app.pass(100).await;
    }
    assert!(app.server.control().resolver().signals.barrier().await);
    let pack: PackDetail = app.get("/api/v1/packs/support-prompts").await.read();
    let rate = pack.sessions_per_second.expect("twelve sessions have a rate");
    assert!((rate - 0.01).abs() < 0.001, "{rate}");
    let notes = pack.rollout.unwrap().notes;
    assert!(
        notes[0].starts_with("At this traffic Serin can catch a collapse, not a small decline"),
        "{notes:?}"
    );
}

#[tokio::test]
async fn an_order_is_carried_out_recorded_and_told() {
    let app = TestApp::start().await.with_canary().await;
    let paused: CarriedView = app.order("pause", r#"{"reason": "lunch"}"#).await.read();
    assert_eq!((paused.recorded, paused.message.as_str()), (true, "support-prompts is paused at 10%"));
    let holds = paused.rollout.unwrap().holds;
    assert_eq!((holds[0].reason.as_str(), holds[0].actor.as_str()), ("lunch", "ana"));
    assert_eq!(holds[0].cleared_by, "serin resume");

    let resumed: CarriedView = app.order("resume", r#"{"reason": "back"}"#).await.read();
    assert!(resumed.rollout.unwrap().holds.is_empty());
    let promoted: CarriedView = app.order("promote", r#"{"reason": "looks good"}"#).await.read();
    assert_eq!(promoted.rollout.unwrap().progress.unwrap().step, 1);
    let back: CarriedView = app.order("rollback", r#"{"reason": "it swears"}"#).await.read();
    assert_eq!(back.message, "support-prompts is back on stable 2.3.1");
    let end = back.rollout.unwrap().end.unwrap();
    assert_eq!((end.how.as_str(), end.reason.as_str()), ("rolled back by order", "it swears"));

    let retried: CarriedView = app.order("retry", r#"{"reason": "fixed upstream"}"#).await.read();
    assert_eq!(retried.rollout.unwrap().id, "support-prompts-r2");
    let full: CarriedView = app.order("promote", r#"{"reason": "now", "full": true}"#).await.read();
    assert_eq!(full.message, "support-prompts 2.4.0 is stable for everyone");

    let actions: Vec<String> = app
        .get("/api/v1/audit")
        .await
        .read::<AuditPage>()
        .entries
        .into_iter()
        .map(|entry| format!("{} {}", entry.actor, entry.action))
        .collect();
    insta::assert_snapshot!(actions.join("\n"));
    let verified: AuditVerified = app.get("/api/v1/audit/verify").await.read();
    assert_eq!((verified.intact, verified.entries), (true, Some(u64::try_from(actions.len()).unwrap())));
}

#[tokio::test]
async fn everything_that_can_be_read_reads_as_the_type_that_is_documented() {
    let app = TestApp::start().await.with_canary().await;
    let pack = "/api/v1/packs/support-prompts";
    app.order("promote", r#"{"reason": "go on"}"#).await;
    app.order("rollback", r#"{"reason": "stop"}"#).await;

    assert_eq!(app.get("/api/v1/packs").await.read::<PackList>().packs.len(), 1);
    let detail: PackDetail = app.get(pack).await.read();
    assert_eq!(detail.orders, ["retry"]);
    assert_eq!(detail.rolled_back, ["2.4.0"]);
    let versions: VersionList = app.get(&format!("{pack}/versions")).await.read();
    let roles: Vec<_> = versions.versions.iter().map(|v| (v.version.as_str(), v.role.as_str())).collect();
    assert_eq!(roles, [("2.4.0", "rolled back"), ("2.3.1", "stable")]);
    let version: VersionDetail = app.get(&format!("{pack}/versions/2.4.0")).await.read();
    assert_eq!(version.content.unwrap()["id"], "support-prompts");
    let diff: DiffView = app.get(&format!("{pack}/diff?from=2.3.1&to=2.4.0")).await.read();
    assert!(!diff.changes.is_empty());
    let none: DiffView = app.get(&format!("{pack}/diff?from=2.4.0&to=2.4.0")).await.read();
    assert!(none.changes.is_empty());

    let listed: RolloutList = app.get("/api/v1/rollouts?active=false&pack=support-prompts").await.read();
    assert_eq!(listed.rollouts[0].id, "support-prompts-r1");
    assert!(app.get("/api/v1/rollouts?active=true").await.read::<RolloutList>().rollouts.is_empty());
    let rollout = "/api/v1/rollouts/support-prompts-r1";
    let timeline: TimelineView = app.get(&format!("{rollout}/timeline")).await.read();
    assert_eq!(timeline.spans.len(), 2);
    assert_eq!(timeline.spans[1].to, Some(app.clock.now()));
    assert_eq!(timeline.entries.last().unwrap().action, "rolled_back");
    app.get(&format!("{rollout}/checks")).await.read::<CheckList>();
    app.get(&format!("{rollout}/series")).await.read::<SeriesView>();
    let replay: ReplayView = app.get(&format!("{rollout}/replay")).await.read();
    assert_eq!((replay.checks, replay.differences), (0, vec![]), "no check was due yet");
    let exposure: ExposureView = app.get(&format!("{rollout}/exposure")).await.read();
    assert_eq!((exposure.largest_weight, exposure.until), (10.0, Some(app.clock.now())));
    let oncall: OncallView = app.get("/api/v1/oncall").await.read();
    assert_eq!((oncall.active.len(), oncall.ended.len(), oncall.forced.len()), (0, 1, 0));
}

#[tokio::test]
async fn the_audit_log_is_read_page_by_page() {
    let app = TestApp::start().await.with_canary().await;
    let all: AuditPage = app.get("/api/v1/audit").await.read();
    let mut paged = Vec::new();
    let mut after = 0;
    loop {
        let page: AuditPage = app.get(&format!("/api/v1/audit?after={after}&limit=1")).await.read();
        paged.extend(page.entries);
        match page.next_after {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(paged, all.entries);
}

#[tokio::test]
async fn the_audit_log_is_read_from_its_end_and_by_what_happened() {
    let app = TestApp::start().await.with_canary().await;
    app.order("pause", r#"{"reason": "look"}"#).await;
    let mut backwards = app.get("/api/v1/audit").await.read::<AuditPage>().entries;
    backwards.reverse();
    let newest: AuditPage = app.get("/api/v1/audit?order=newest&limit=2").await.read();
    assert_eq!(newest.entries, backwards[..2]);
    assert_eq!(newest.next_after, None);
    let before = newest.next_before.expect("there are older entries");
    let rest: AuditPage = app.get(&format!("/api/v1/audit?order=newest&before={before}")).await.read();
    assert_eq!((rest.entries.as_slice(), rest.next_before), (&backwards[2..], None));
    let found =
        async |query: &str| app.get(&format!("/api/v1/audit?{query}")).await.read::<AuditPage>().entries;
    assert_eq!(found("action=hold_set").await, backwards[..1]);
    assert_eq!(found("actor=nobody").await, []);
    assert_eq!(found("rollout=support-prompts-r1&action=hold_set").await, backwards[..1]);
}

#[tokio::test]
async fn an_answer_that_may_be_old_is_never_from_before_the_last_change() {
    let app = TestApp::start().await.with_canary().await;
    let old = [("cache-control", "max-age=10")];
    let overview = async || {
        let response = app.open(app.server.control_addr(), "GET", "/api/v1/overview", &old, "").await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<OverviewView>(&body).unwrap().packs.remove(0)
    };
    let before = overview().await;
    let active = before.active.expect("a rollout is under way");
    assert_eq!((active.holds.len(), before.orders.contains(&"pause".to_owned())), (0, true));
    app.order("pause", r#"{"reason": "look"}"#).await;
    let paused = overview().await.active.expect("it still is");
    assert_eq!(paused.holds[0].reason, "look");
    assert_eq!(paused.last_decision.map(|decision| decision.action).as_deref(), Some("hold_set"));
    app.order("rollback", r#"{"reason": "bad"}"#).await;
    let after = overview().await;
    assert_eq!(after.active, None);
    assert_eq!(after.last.and_then(|last| last.end).map(|end| end.reason).as_deref(), Some("bad"));
}

#[tokio::test]
async fn a_change_is_streamed_and_the_stream_ends_with_the_server() {
    let app = TestApp::start().await.with_canary().await;
    let response =
        app.open(app.server.control_addr(), "GET", "/api/v1/stream?pack=support-prompts", &[], "").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame, ": open\n\n", "something is sent at once, so that a proxy passes the answer on");
    app.order("pause", r#"{"reason": "look"}"#).await;
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let text = String::from_utf8(frame.to_vec()).unwrap();
    assert_eq!(
        text,
        "event: change\ndata: {\"pack\":\"support-prompts\",\"revision\":3,\"actions\":[\"hold_set\"]}\n\n"
    );
    app.server.shutdown().await;
    assert!(body.frame().await.is_none(), "the stream ends");
}

#[tokio::test]
async fn the_break_glass_file_shows_everywhere() {
    let app = TestApp::start().await.with_canary().await;
    std::fs::write(app.data_dir().join("force-stable"), "support-prompts\n").unwrap();
    app.server.control().look_at_force_file();
    app.pass(1).await;
    let view: RolloutView = app.get("/api/v1/packs/support-prompts/rollout").await.read();
    assert!(view.forced);
    assert_eq!(app.get("/api/v1/oncall").await.read::<OncallView>().forced, ["support-prompts"]);
    let resolved = app.data("/v1/resolve", &json!({"pack": "support-prompts", "session": "s"})).await;
    assert_eq!(resolved.json()["reason"], "DISABLED");
}
