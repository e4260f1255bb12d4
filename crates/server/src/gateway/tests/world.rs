//! A gateway with one pack, the provider behind it, and a client in front of it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use serin_core::ids::{PackName, ProviderName, RolloutId, SegmentName, SessionKey, Version};
use serin_core::observation::{Fact, Response as Seen};
use serin_core::plan::{Matcher, Segment, SegmentWeight, SessionPolicy};
use serin_core::prompt::Pack;
use serin_core::routing::{Cohort, CohortId, Cohorts, Route, SegmentSplit, Split, Stamp, Turn, Variant};
use serin_core::weight::Weight;
use serin_provider::{Provider, Reach, Script};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::clock::{Clock, ManualClock};
use crate::gateway::{
    BaseUrl, Gateway, GatewaySettings, Ids, Secret, UpstreamSettings, Upstreams, UpstreamsSettings,
};
use crate::pins::PinTable;
use crate::resolve::{Resolved, Resolver, Visit};
use crate::segments::Segments;
use crate::signal::{self, Signal, Signals};
use crate::snapshot::PackSnapshot;

pub(in crate::gateway) fn pack_name() -> PackName {
    PackName::parse("support").unwrap()
}

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

/// Version 1.0.0 is stable; 2.0.0 is the canary at `percent` of the sessions, and may go to another provider.
fn pack(percent: f64, provider_of_canary: Option<&str>) -> PackSnapshot {
    let prompts = [("1.0.0", None), ("2.0.0", provider_of_canary)].map(|(text, provider)| {
        let prompt = json!({
            "id": "answer", "name": "Answer", "version": text,
            "system_template": format!("You are support {text} for {{{{name}}}}."),
            "variables": [{"name": "name", "type": "string", "required": true}],
            "parameters": {"temperature": 0.2},
        });
        let pack = json!({
            "id": "support", "name": "Support", "version": text,
            "template_engine": {"version": "v1", "syntax": "{{variable}}"},
            "prompts": {"answer": prompt},
            "metadata": {"provider": provider},
        });
        (version(text), Arc::new(Pack::from_value(pack).unwrap()))
    });
    let weight = Weight::from_percent(percent).unwrap();
    let rollout = RolloutId::parse("support-r1").unwrap();
    let stamp = Stamp {
        rollout: rollout.clone(),
        revision: 1,
        step: 1,
        start: 1,
        segment: 0,
        weight,
        observing: false,
    };
    let mut cohorts = Cohorts::default();
    for (id, variant, text, stamp) in [
        (0, Variant::Stable, "1.0.0", None),
        (1, Variant::Stable, "1.0.0", Some(stamp.clone())),
        (2, Variant::Canary, "2.0.0", Some(stamp)),
    ] {
        cohorts.insert(Arc::new(Cohort { id: CohortId(id), version: version(text), variant, stamp }));
    }
    let segment = |name: &str, weight| SegmentSplit {
        name: SegmentName::parse(name).unwrap(),
        weight,
        changing: None,
        stable: CohortId(1),
        canary: CohortId(2),
    };
    let full = Weight::from_percent(100.0).unwrap();
    let split = Split {
        rollout,
        salt: "salt".to_owned(),
        canary: version("2.0.0"),
        segments: vec![segment("internal", full), segment("everyone", weight)],
    };
    let of_plan = |name: &str, matcher| Segment {
        name: SegmentName::parse(name).unwrap(),
        matcher,
        weight: SegmentWeight::Progressive,
        duration: None,
    };
    let segments = Segments::of(&[
        of_plan("internal", Matcher::NamedByAttribute),
        of_plan("everyone", Matcher::Everyone),
    ]);
    PackSnapshot {
        segments: Arc::new(segments.unwrap()),
        name: Arc::new(pack_name()),
        route: Route {
            pack: pack_name(),
            stable: version("1.0.0"),
            base: CohortId(0),
            split: Some(split),
            draining: Vec::new(),
            forced: false,
            sessions: SessionPolicy::default(),
            cohorts,
        },
        prompts: BTreeMap::from(prompts),
        revision: 1,
        custom: Vec::new(),
    }
}

/// A resolver that knows the pack, and what it and the gateway tell.
pub(in crate::gateway) fn resolver(percent: f64) -> (Arc<Resolver>, Signals) {
    resolver_of(pack(percent, None))
}

fn resolver_of(pack: PackSnapshot) -> (Arc<Resolver>, Signals) {
    let (signals, receiver) = signal::queue(1_000);
    let clock = Clock::Manual(ManualClock::at(Timestamp::from_second(1_800_000_000).unwrap()));
    let resolver = Resolver::new(PinTable::with_capacity_limit(1_000), clock, signals);
    resolver.publish(Arc::new(pack));
    (Arc::new(resolver), receiver)
}

/// One session of the pack with its version.
pub(in crate::gateway) async fn resolved(resolver: &Resolver) -> Resolved {
    let session = SessionKey::parse("session-1").unwrap();
    let own_key = || unreachable!("the session has a key");
    let visit = Visit {
        pack: &pack_name(),
        session: Some(&session),
        own_key: &own_key,
        segment: 1,
        turn: Turn::User,
        version: None,
    };
    resolver.resolve(visit).await.unwrap()
}

/// The response that was told next.
pub(in crate::gateway) async fn next_response(signals: &mut Signals) -> Seen {
    loop {
        match signals.recv().await.expect("the gateway lives") {
            Signal::Fact(fact) => match fact.fact {
                Fact::Response(response) => return response,
                Fact::Started | Fact::Outcome(_) => {}
            },
            Signal::Contact(_) | Signal::Barrier(_) => {}
        }
    }
}

/// A gateway that listens, with the provider behind it.
pub(super) struct World {
    pub(super) provider: Provider,
    pub(super) gateway: Arc<Gateway>,
    pub(super) addr: SocketAddr,
    pub(super) signals: Signals,
    pub(super) resolver: Arc<Resolver>,
    _serving: JoinSet<()>,
}

/// Changes the way to the provider.
type Change = Box<dyn FnOnce(&mut UpstreamSettings)>;

/// A world in the making.
pub(super) struct Builder {
    script: String,
    percent: f64,
    settings: GatewaySettings,
    changes: Vec<Change>,
    provider_of_canary: Option<&'static str>,
    others: BTreeMap<ProviderName, UpstreamSettings>,
    provider_is_down: bool,
    reach: Reach,
}

/// A world whose provider answers by a script.
pub(super) fn world(script: &str) -> Builder {
    let ids = AtomicU64::new(1);
    let ids = Ids::new(move || u128::from(ids.fetch_add(1, Ordering::Relaxed)));
    Builder {
        script: script.to_owned(),
        percent: 0.0,
        settings: GatewaySettings::new(ids),
        changes: Vec::new(),
        provider_of_canary: None,
        others: BTreeMap::new(),
        provider_is_down: false,
        reach: Reach::default(),
    }
}

impl Builder {
    pub(super) fn canary_at(self, percent: f64) -> Self {
        Self { percent, ..self }
    }

    pub(super) fn settings(mut self, change: impl FnOnce(&mut GatewaySettings)) -> Self {
        change(&mut self.settings);
        self
    }

    pub(super) fn provider_key(self, key: &'static str) -> Self {
        self.upstream(move |upstream| upstream.key = Some(Secret::new(key)))
    }

    pub(super) fn first_byte_timeout(self, timeout: std::time::Duration) -> Self {
        self.upstream(move |upstream| upstream.first_byte_timeout = timeout)
    }

    pub(super) fn stall_timeout(self, timeout: std::time::Duration) -> Self {
        self.upstream(move |upstream| upstream.stall_timeout = timeout)
    }

    /// Changes the way to the provider.
    pub(super) fn upstream(mut self, change: impl FnOnce(&mut UpstreamSettings) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// A further provider.
    pub(super) fn and(mut self, name: &str, settings: UpstreamSettings) -> Self {
        self.others.insert(ProviderName::parse(name).unwrap(), settings);
        self
    }

    /// Version 2.0.0 names a provider.
    pub(super) fn canary_goes_to(self, provider: &'static str) -> Self {
        Self { provider_of_canary: Some(provider), ..self }
    }

    pub(super) fn provider_down(self) -> Self {
        Self { provider_is_down: true, ..self }
    }

    /// The provider is reached in another way; with TLS at `localhost`.
    pub(super) fn reach(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    pub(super) async fn start(self) -> World {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let script = Script::parse(&self.script).unwrap();
        let provider = Provider::start_with(script, any_port, &self.reach).await.unwrap();
        let provider_addr = if self.provider_is_down {
            // A port that was free a moment ago.
            TcpListener::bind(any_port).await.unwrap().local_addr().unwrap()
        } else {
            provider.addr()
        };
        let base_url = match &self.reach.tls {
            None => format!("http://{provider_addr}"),
            Some(_) => format!("https://localhost:{}", provider_addr.port()),
        };
        let mut upstream = UpstreamSettings::new(BaseUrl::parse(&base_url).unwrap());
        self.changes.into_iter().for_each(|change| change(&mut upstream));
        let (resolver, signals) = resolver_of(pack(self.percent, self.provider_of_canary));
        let mut upstreams = UpstreamsSettings::one(upstream);
        upstreams.by_name.extend(self.others);
        let upstreams = Upstreams::new(&upstreams).unwrap();
        let gateway = Arc::new(Gateway::new(Arc::clone(&resolver), upstreams, self.settings));
        let listener = TcpListener::bind(any_port).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&gateway)));
        World { provider, gateway, addr, signals, resolver, _serving: serving }
    }
}

async fn serve(listener: TcpListener, gateway: Arc<Gateway>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let gateway = Arc::clone(&gateway);
        let service = service_fn(move |request: Request<Incoming>| {
            let gateway = Arc::clone(&gateway);
            async move { Ok::<_, std::convert::Infallible>(gateway.handle(request.map(Body::new)).await) }
        });
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// An answer read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) is_complete: bool,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The code and the message of an error of the gateway's own.
    pub(super) fn error(&self) -> (String, String) {
        let error = &self.json()["error"];
        assert_eq!(error["type"], "serin_gateway_error", "{error}");
        (error["code"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
    }
}

/// Sends a request on a connection of its own.
pub(super) async fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response<Incoming> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "gateway");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
}

/// Sends a request and reads the answer as far as it comes.
pub(super) async fn exchange(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let (parts, mut body) = send(addr, method, path, headers, body).await.into_parts();
    let mut bytes = Vec::new();
    let mut is_complete = true;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => is_complete = false,
        }
    }
    Answer { status: parts.status, headers: parts.headers, body: bytes.into(), is_complete }
}

pub(super) const CHAT: &str = "/v1/chat/completions";
pub(super) const RESPONSES: &str = "/v1/responses";
pub(super) const MESSAGES: &str = "/v1/messages";

/// What Anthropic's clients send with every request.
pub(super) const ANTHROPIC: (&str, &str) = ("anthropic-version", "2023-06-01");

/// A request of any protocol with a prompt of the pack and one user message.
pub(super) fn prompted_at(path: &str, more: Value) -> Value {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let mut body = match path {
        RESPONSES => json!({"input": "hi"}),
        MESSAGES => json!({"messages": messages, "max_tokens": 1_000}),
        _ => json!({ "messages": messages }),
    };
    let fields = body.as_object_mut().unwrap();
    fields.insert("model".to_owned(), json!("small"));
    fields.insert("prompt".to_owned(), json!({"id": "support/answer", "variables": {"name": "Ann"}}));
    fields.extend(more.as_object().unwrap().clone());
    body
}

/// A chat request with a prompt of the pack and one user message.
pub(super) fn prompted(more: Value) -> Value {
    let mut body = json!({
        "model": "small",
        "prompt": {"id": "support/answer", "variables": {"name": "Ann"}},
        "messages": [{"role": "user", "content": "hi"}],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

impl World {
    /// Sends a chat request through the gateway.
    pub(super) async fn chat(&self, headers: &[(&str, &str)], body: &Value) -> Answer {
        exchange(self.addr, "POST", CHAT, headers, body.to_string()).await
    }

    /// Sends a request of any protocol through the gateway.
    pub(super) async fn ask(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let headers = [headers, &[ANTHROPIC]].concat();
        exchange(self.addr, "POST", path, &headers, body.to_string()).await
    }

    /// Sends what the provider received last to it directly.
    pub(super) async fn directly(&self, headers: &[(&str, &str)]) -> Answer {
        let last = self.provider.last_request().expect("a request arrived");
        let headers = [headers, &[ANTHROPIC]].concat();
        exchange(self.provider.addr(), "POST", last.uri.path(), &headers, last.body.clone()).await
    }

    /// The body that the provider received last.
    pub(super) fn received(&self) -> Value {
        serde_json::from_slice(&self.provider.last_request().expect("a request arrived").body).unwrap()
    }

    /// The response that was told next.
    pub(super) async fn seen(&mut self) -> Seen {
        next_response(&mut self.signals).await
    }
}
