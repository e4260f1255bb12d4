//! Several providers by name, and how many requests each gets at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use serin_core::observation::ErrorKind;
use serin_provider::{Provider, Script};
use tokio::net::TcpListener;

use super::world::{ANTHROPIC, CHAT, MESSAGES, exchange, prompted, prompted_at, world};
use crate::gateway::{BaseUrl, Secret, Speaks, UpstreamSettings};

async fn other(script: &str) -> (Provider, UpstreamSettings) {
    let provider =
        Provider::start(Script::parse(script).unwrap(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .unwrap();
    let url = BaseUrl::parse(&format!("http://{}/v1", provider.addr())).unwrap();
    (provider, UpstreamSettings::new(url))
}

#[tokio::test]
async fn a_version_goes_to_the_provider_that_it_names_and_the_others_to_the_default() {
    let (second, mut settings) = other("require_key: true").await;
    settings.key = Some(Secret::new("second-key"));
    let world = world("{}").canary_at(50.0).canary_goes_to("second").and("second", settings).start().await;
    let mut served = [0, 0];
    for n in 0..20 {
        let session = format!("s-{n}");
        let answer = world.chat(&[("x-serin-session", &session)], &prompted(json!({}))).await;
        assert_eq!(answer.status, 200);
        served[usize::from(answer.header("x-serin-variant") == Some("canary"))] += 1;
    }
    assert!(served.iter().all(|n| *n > 0), "{served:?}");
    assert_eq!([world.provider.stats().requests, second.stats().requests], served);
    let headers = second.last_request().unwrap().headers.clone();
    assert_eq!(headers["authorization"], "Bearer second-key");
    assert_eq!(headers["host"], second.addr().to_string());
    assert!(!world.provider.last_request().unwrap().headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_request_may_name_the_provider_where_its_version_names_none() {
    let (second, settings) = other("{}").await;
    let world = world("{}").canary_at(100.0).canary_goes_to("second").and("second", settings).start().await;
    exchange(world.addr, "GET", "/v1/models", &[("x-serin-provider", "second")], "").await;
    assert_eq!((world.provider.stats().requests, second.stats().requests), (0, 1));
    assert!(!second.last_request().unwrap().headers.contains_key("x-serin-provider"));
    // The version has the last word.
    world.chat(&[("x-serin-provider", "default")], &prompted(json!({}))).await;
    assert_eq!((world.provider.stats().requests, second.stats().requests), (0, 2));
    let refused = exchange(world.addr, "GET", "/v1/models", &[("x-serin-provider", "secnd")], "").await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.error(),
        (
            "unknown_provider".to_owned(),
            "x-serin-provider names \"secnd\", which is no provider; hint: did you mean second?".to_owned()
        )
    );
}

#[tokio::test]
async fn a_version_whose_provider_left_the_settings_is_told_so_and_fails_by_its_provider() {
    let mut world = world("{}").canary_at(100.0).canary_goes_to("gone").start().await;
    let answer = world.chat(&[], &prompted(json!({}))).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (502, "unknown_provider"));
    assert_eq!(world.seen().await.error, Some(ErrorKind::Provider));
    assert_eq!(world.provider.stats().requests, 0);
}

#[tokio::test]
async fn a_provider_is_asked_by_its_own_protocol_and_shown_its_key_as_it_takes_it() {
    let (claude, mut settings) = other("{}").await;
    settings.speaks = Speaks::Anthropic;
    settings.key = Some(Secret::new("claude-key"));
    let only_openai = |upstream: &mut UpstreamSettings| upstream.speaks = Speaks::OpenAi;
    let mut world = world("{}").upstream(only_openai).and("claude", settings).start().await;
    let to_claude = [("x-serin-provider", "claude")];
    for (path, headers) in [(CHAT, &to_claude[..]), (MESSAGES, &[])] {
        let refused = world.ask(path, headers, &prompted_at(path, json!({}))).await;
        assert_eq!(refused.status, 400, "{path}");
        assert!(String::from_utf8_lossy(&refused.body).contains("wrong_protocol"), "{refused:?}");
        assert_eq!(world.seen().await.error, Some(ErrorKind::Request), "it is the caller's mistake");
    }
    assert_eq!(world.ask(MESSAGES, &to_claude, &prompted_at(MESSAGES, json!({}))).await.status, 200);
    exchange(world.addr, "GET", "/v1/models", &[to_claude[0], ANTHROPIC], "").await;
    let headers = claude.last_request().unwrap().headers.clone();
    assert_eq!((&headers["x-api-key"], headers.get("authorization")), (&"claude-key".parse().unwrap(), None));
}

#[tokio::test]
async fn beyond_the_limit_requests_wait_and_beyond_that_they_are_refused_with_a_hint() {
    let limits = |upstream: &mut UpstreamSettings| {
        (upstream.max_requests, upstream.max_waiting) = (1, 1);
        upstream.connect_timeout = Duration::from_secs(60);
    };
    let world = world("default: {latency_ms: {fixed: 200}}").upstream(limits).start().await;
    let body = prompted(json!({}));
    let asked = [0, 1, 2].map(|_| world.chat(&[], &body));
    let [a, b, c] = asked;
    let (a, b, c) = tokio::join!(a, b, c);
    let mut answers = [a, b, c];
    answers.sort_by_key(|answer| answer.status);
    assert_eq!([200, 200, 503], answers.each_ref().map(|answer| answer.status.as_u16()));
    assert_eq!(answers[2].header("retry-after"), Some("1"));
    let (code, message) = answers[2].error();
    assert_eq!(code, "provider_busy");
    assert!(
        message.ends_with("hint: try again later, or raise its `maxRequests` or `maxWaiting`"),
        "{message}"
    );
    assert_eq!(world.gateway.counts().busy.load(Ordering::Relaxed), 1);
    let upstream = world.gateway.upstreams().iter().next().unwrap();
    assert_eq!(upstream.in_flight(), (0, 0), "every place is free again");
    let counted = upstream.counted().map(|(name, _, value)| (name, value));
    assert!(counted.contains(&("waited", 1)) && counted.contains(&("busy", 1)), "{counted:?}");
}

#[tokio::test]
async fn a_request_that_was_never_sent_is_tried_again_until_a_connection_opens() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let url = BaseUrl::parse(&format!("http://{addr}")).unwrap();
    let settings = UpstreamSettings { connect_retries: 5, ..UpstreamSettings::new(url) };
    let world = world("{}").canary_at(100.0).canary_goes_to("late").and("late", settings).start().await;
    let body = prompted(json!({}));
    let asking = world.chat(&[], &body);
    let starting = async {
        // The first attempt has failed by then.
        let late =
            || world.gateway.upstreams().iter().find(|upstream| upstream.name().as_str() == "late").unwrap();
        while !late().counted().map(|(name, _, value)| (name, value)).contains(&("retries", 1)) {
            tokio::task::yield_now().await;
        }
        Provider::start(Script::parse("{}").unwrap(), addr).await.unwrap()
    };
    let (answer, late) = tokio::join!(asking, starting);
    assert_eq!((answer.status.as_u16(), late.stats().requests), (200, 1));
}
