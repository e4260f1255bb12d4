//! `serin plan` and `serin analyze` as people call them.

#[expect(dead_code, reason = "each test program uses its own part")]
mod support;

use support::{Place, Ran, repository};

async fn plan(manifest: &str, flags: &str) -> Ran {
    let path = repository(&format!("examples/{manifest}"));
    Place::empty().run(&format!("plan -f {} {flags}", path.display())).await
}

#[tokio::test]
async fn a_plan_shows_its_timeline_and_what_its_gates_see() {
    let ran = plan("support-prompts.yaml", "--sessions-per-second 1.7").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("plan_at_1_7_per_second", ran.out);
}

#[tokio::test]
async fn at_low_traffic_a_plan_proposes_steps_that_fit() {
    let ran = plan("support-prompts.yaml", "--sessions-per-day 200 --requests-per-session 4").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("plan_at_200_a_day", ran.out);
}

#[tokio::test]
async fn segments_and_windows_have_their_rows() {
    let shares = "--share internal_users=2% --share beta_users=8%";
    let ran = plan("full.yaml", &format!("--sessions-per-second 1 {shares}")).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("plan_of_segments_and_windows", ran.out);
    let unknown = plan("full.yaml", "--sessions-per-second 1 --share nobody=2%").await;
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("its segments are internal_users, beta_users, all_users"), "{unknown:?}");
}

#[tokio::test]
async fn a_plan_as_data_holds_what_the_table_shows() {
    let json = plan("support-prompts.yaml", "--sessions-per-second 10 -o json").await.json();
    assert_eq!(json["forecast"]["expected_length"], "45m");
    assert_eq!(json["forecast"]["steps"].as_array().map(Vec::len), Some(9));
    assert_eq!(json["forecast"]["gates"][0]["at_first"]["shown"], "63% or lower");
    assert_eq!(json["proposed"][0]["weight"], "5%");
    let yaml = plan("support-prompts.yaml", "--sessions-per-second 10 -o yaml").await;
    assert!(yaml.code == 0 && yaml.out.contains("expected_length: 45m"), "{yaml:?}");
}

#[tokio::test]
async fn a_judged_gate_counts_the_sessions_that_its_judge_reads_and_says_so() {
    let few = plan("judged.yaml", "--sessions-per-day 5000").await;
    assert!(few.out.contains("sessions count after 30m, of which its judge reads 20%\n"), "{few:?}");
    // At 5 sessions/s, 20 % would be 3 600 in an hour; its budget is 500.
    let many = plan("judged.yaml", "--sessions-per-second 5").await;
    assert!(many.out.contains("sessions count after 30m, of which its judge reads 2.778%\n"), "{many:?}");
}

#[tokio::test]
async fn without_a_rate_and_without_a_server_a_plan_says_what_is_missing() {
    let ran = plan("support-prompts.yaml", "--server http://127.0.0.1:9").await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("name the traffic with --sessions-per-second or --sessions-per-day"), "{ran:?}");
    for flags in [
        "--sessions-per-second 0",
        "--sessions-per-day=-4",
        "--sessions-per-second 1 --requests-per-session 0.2",
    ] {
        assert_eq!(plan("support-prompts.yaml", flags).await.code, 1, "{flags}");
    }
    assert_eq!(plan("support-prompts.yaml", "--sessions-per-second 1 --sessions-per-day 2").await.code, 2);
}

async fn analyze(text: &str, flags: &str) -> Ran {
    let place = Place::empty();
    place.write("counts.json", text);
    place.run(&format!("analyze counts.json {flags}")).await
}

const COUNTS: &str = r#"{"confidence": 0.95, "gates": [
  {"name": "success", "test": "stable", "baseline": {"mean": 0.06, "sd": 0.237},
   "counts": [{"weight": 10, "step": 1, "canary": {"sessions": 400, "bad": 44}, "stable": {"sessions": 3600, "bad": 210}},
              {"weight": 20, "step": 2, "canary": {"sessions": 800, "bad": 96}, "stable": {"sessions": 3200, "bad": 200}}]},
  {"name": "slow", "test": "threshold", "limit": 0.01, "bad": 9, "good": 1191}
]}"#;

#[tokio::test]
async fn counts_from_elsewhere_are_judged() {
    let ran = analyze(COUNTS, "").await;
    assert_eq!(ran.code, 0, "a failed verdict is an answer and no error: {ran:?}");
    insta::assert_snapshot!("analyze", ran.out);
    let json = analyze(COUNTS, "-o json").await.json();
    assert_eq!(json["combined"]["verdict"], "fail");
    assert_eq!(json["culprits"], serde_json::json!(["success"]));
    assert!((json["gates"][1]["logE"].as_f64().unwrap() - -1.186_578_344_1).abs() < 1e-9, "{json}");
    let nothing = analyze(r#"{"gates": []}"#, "-o json").await.json();
    assert_eq!(nothing["combined"]["verdict"], "no_data");
}

#[tokio::test]
async fn counts_that_cannot_be_judged_are_shown_with_their_place() {
    for (name, text) in [
        ("syntax", "{\"gates\": [{\"name\": \"a\",,}]}".to_owned()),
        ("two_mistakes", COUNTS.replace("\"bad\": 44", "\"bda\": 44").replace("threshold", "treshold")),
        ("limit", COUNTS.replace("0.01", "1.4")),
        ("more_bad_than_sessions", COUNTS.replace("\"bad\": 44", "\"bad\": 4400")),
        ("confidence", COUNTS.replace("0.95", "95")),
        ("same_name", COUNTS.replace("slow", "success")),
        ("no_gates", "{\"confidence\": 0.9}".to_owned()),
    ] {
        let ran = analyze(&text, "").await;
        assert_eq!(ran.code, 1, "{name}: {ran:?}");
        insta::assert_snapshot!(format!("analyze_{name}"), ran.err);
    }
    let missing = Place::empty().run("analyze nowhere.json").await;
    assert_eq!(missing.code, 1, "{missing:?}");
}

/// Each pattern of the examples on the calendar, without a traffic and without a server.
#[tokio::test]
async fn every_pattern_of_the_examples_compiles_to_this_calendar() {
    let mut calendars = String::new();
    for name in ["simple-ramp", "nights-first", "staff-first", "approval", "evidence"] {
        let ran = plan(&format!("patterns/{name}.yaml"), "--from 2026-12-01T12:00Z").await;
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{name}");
        calendars.push_str(&format!("---- {name}\n{}\n", ran.out));
    }
    insta::assert_snapshot!("plan_of_the_patterns", calendars);
}

#[tokio::test]
async fn segments_and_windows_are_shown_on_the_calendar() {
    let ran = plan("full.yaml", "--from '2026-12-01T23:00[Europe/Berlin]'").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("plan_from_a_time", ran.out);
    let json = plan("full.yaml", "--from 2026-12-01T22:00Z -o json").await.json();
    assert_eq!(json["timetable"][0]["at"], "2026-12-01T22:00:00Z");
    assert_eq!(json.get("forecast"), None, "no traffic was given");
    let both = plan("full.yaml", "--from 2026-12-01T22:00Z --sessions-per-second 1 -o json").await.json();
    assert!(both["timetable"].is_array() && both["forecast"].is_object(), "{both}");
    let wrong = plan("full.yaml", "--from 2026-12-01T22:00").await;
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("is no time such as 2026-12-01T22:00Z"), "{wrong:?}");
}
