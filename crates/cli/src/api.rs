//! The control plane, as a client sees it.
//!
//! The types of the answers are the server's own, so both sides agree by construction.

use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serin_core::audit::Noted;
use serin_core::ids::PackName;
use serin_core::manifest::Node;
use serin_core::parse;
use serin_core::policy::Policy;
use serin_core::prompt::Pack;
use serin_server::api::guard::ACTOR;
use serin_server::api::types::{
    AppliedView, AuditPage, AuditVerified, CarriedView, CommandRequest, ContentChange, DeadLetters,
    ExplainView, ExposedPage, ExposureView, KeyCreated, KeyList, KeyRequest, KeyView, OncallView, PackDetail,
    PackList, PolicyView, ProblemDetails, ProblemSeverity, ReceiverList, ReplayView, RetriedView,
    RolloutList, RolloutView, SamplesView, TestedView, VersionDetail, VersionList,
};

use crate::key_file::{self, Key};
use crate::terminal::{BAD, GOOD, paint};
use crate::told::{Detail, Severity, Told};

/// Where a server listens unless told otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8981";

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long an answer may take that is read in pieces.
const LONG_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The most characters of a value that a difference shows.
const DIFF_WIDTH: usize = 2_000;

/// Which server, and with which key.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    /// The control plane of the server
    #[arg(long, env = "SERIN_SERVER", default_value = DEFAULT_SERVER, value_name = "URL", global = true)]
    pub(crate) server: String,
    /// The key for the control plane; on the server's own machine it is found in its data directory
    #[arg(long, env = "SERIN_KEY", hide_env_values = true, value_name = "KEY", global = true)]
    pub(crate) key: Option<String>,
    /// Who you are, for the audit log; the name of the account when left out
    #[arg(long, env = "SERIN_ACTOR", value_name = "NAME", global = true)]
    pub(crate) actor: Option<String>,
}

/// A connection to the control plane.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Key,
    actor: Option<HeaderValue>,
}

/// How a manifest is to be applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ApplyOptions<'a> {
    /// Whether only to say what would happen.
    pub(crate) dry_run: bool,
    /// Whether a rollout of the same version is to begin anew.
    pub(crate) restart: bool,
    /// Why.
    pub(crate) reason: Option<&'a str>,
    /// Why rules of the policy are set aside.
    pub(crate) override_policy: Option<&'a str>,
}

impl Client {
    /// A client for the server that the flags name.
    ///
    /// # Errors
    /// [`Told`] when the address is none.
    pub(crate) fn new(args: &ServerArgs) -> Result<Self, Told> {
        let not_usable = |reason: String| {
            Told::new(format!("server address {:?} cannot be used: {reason}", args.server))
                .hint(format!("write it as {DEFAULT_SERVER}, with --server or SERIN_SERVER"))
        };
        let base = Url::parse(&args.server).map_err(|error| not_usable(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(not_usable("it is no http or https URL".to_owned()));
        }
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .user_agent(concat!("serin/", env!("CARGO_PKG_VERSION")));
        // A proxy of the environment has no business with a server on this machine.
        let is_local =
            base.host_str().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]"));
        let http = if is_local { http.no_proxy() } else { http };
        let http = http.build().map_err(|error| not_usable(error.to_string()))?;
        let account = || std::env::var("USER").ok().filter(|name| !name.is_empty());
        let actor = match args.actor.clone().or_else(account) {
            Some(name) => Some(HeaderValue::from_bytes(name.as_bytes()).map_err(|_| {
                Told::new(format!("actor {name:?} cannot be sent: it holds a control character"))
            })?),
            None => None,
        };
        let given = args.key.clone().filter(|key| !key.is_empty());
        let key = match given {
            Some(key) => Key::Given(key),
            None if is_local => key_file::find(),
            None => Key::None,
        };
        Ok(Self { http, base, key, actor })
    }

    /// All packs.
    pub(crate) async fn packs(&self) -> Result<PackList, Told> {
        self.get("packs", &[]).await
    }

    /// One pack.
    pub(crate) async fn pack(&self, pack: &PackName) -> Result<PackDetail, Told> {
        self.get(&format!("packs/{pack}"), &[]).await
    }

    /// The versions of a pack.
    pub(crate) async fn versions(&self, pack: &PackName) -> Result<VersionList, Told> {
        self.get(&format!("packs/{pack}/versions"), &[]).await
    }

    /// One version; nothing when it was never published.
    pub(crate) async fn version(
        &self,
        pack: &PackName,
        version: &str,
    ) -> Result<Option<VersionDetail>, Told> {
        self.find(&format!("packs/{pack}/versions/{version}")).await
    }

    /// The prompts of a version, of stable when none is named.
    pub(crate) async fn pack_content(&self, pack: &str, version: Option<&str>) -> Result<Value, Told> {
        let pack = PackName::parse(pack).map_err(|error| Told::new(error.to_string()))?;
        let version = match version {
            Some(version) => version.to_owned(),
            None => self.pack(&pack).await?.stable,
        };
        let detail: VersionDetail = self.get(&format!("packs/{pack}/versions/{version}"), &[]).await?;
        detail.content.ok_or_else(|| {
            Told::new(format!("version {version} of {pack} has no prompts of its own"))
                .hint("it was published without `spec.source`: its prompts are held by the app")
        })
    }

    /// The prompts that are stable now; nothing for an unknown pack, and for one without prompts of its own.
    pub(crate) async fn stable_prompts(&self, pack: &PackName) -> Result<Option<Pack>, Told> {
        let Some(detail): Option<PackDetail> = self.find(&format!("packs/{pack}")).await? else {
            return Ok(None);
        };
        let version = self.version(pack, &detail.stable).await?;
        // What was published could be read; a newer server may know more.
        Ok(version.and_then(|version| version.content).and_then(|content| Pack::from_value(content).ok()))
    }

    /// The policy of the server; one that knows of none has none.
    pub(crate) async fn policy(&self) -> Result<Policy, Told> {
        let Some(view): Option<PolicyView> = self.find("policy").await? else { return Ok(Policy::NONE) };
        let rules = Value::Array(view.rules).to_string();
        let read = Node::read(&rules).map_err(|error| error.message);
        read.and_then(|node| parse::policy(&node).map_err(|problems| problems.to_string())).map_err(|why| {
            Told::new(format!("could not read the policy of {}: {why}", self.base))
                .hint("is the server newer than this `serin`?")
        })
    }

    /// Applies a manifest with its prompts inline.
    pub(crate) async fn apply(
        &self,
        manifest: &Value,
        options: ApplyOptions<'_>,
    ) -> Result<AppliedView, Told> {
        let flag = |on: bool| if on { "true" } else { "false" };
        let mut query = vec![("dryRun", flag(options.dry_run)), ("restart", flag(options.restart))];
        query.extend(options.reason.map(|reason| ("reason", reason)));
        query.extend(options.override_policy.map(|reason| ("overridePolicy", reason)));
        self.send(Method::PUT, "packs", &query, Some(manifest)).await
    }

    /// The current or latest rollout; nothing when the pack never had one.
    pub(crate) async fn rollout(&self, pack: &PackName) -> Result<Option<RolloutView>, Told> {
        let detail = self.pack(pack).await?;
        Ok(detail.rollout)
    }

    /// Rollouts, newest first.
    pub(crate) async fn rollouts(&self, active: bool, pack: Option<&PackName>) -> Result<RolloutList, Told> {
        let mut query = Vec::new();
        if active {
            query.push(("active", "true"));
        }
        query.extend(pack.map(|pack| ("pack", pack.as_str())));
        self.get("rollouts", &query).await
    }

    /// The newest rollouts, as many as the server lists at once.
    pub(crate) async fn newest_rollouts(&self, pack: Option<&PackName>) -> Result<RolloutList, Told> {
        let mut query = vec![("limit", "200")];
        query.extend(pack.map(|pack| ("pack", pack.as_str())));
        self.get("rollouts", &query).await
    }

    /// Who saw the canary of a rollout.
    pub(crate) async fn exposure(&self, rollout: &str) -> Result<ExposureView, Told> {
        self.get(&format!("rollouts/{rollout}/exposure"), &[]).await
    }

    /// Sessions that were assigned to the canary of a rollout, after a place in the list.
    pub(crate) async fn exposed_sessions(
        &self,
        rollout: &str,
        after: Option<&str>,
    ) -> Result<ExposedPage, Told> {
        let query: Vec<(&str, &str)> = after.map(|after| ("after", after)).into_iter().collect();
        self.get(&format!("rollouts/{rollout}/exposure/sessions"), &query).await
    }

    /// Repeats the checks and decisions of a rollout.
    pub(crate) async fn replay(&self, rollout: &str) -> Result<ReplayView, Told> {
        self.get(&format!("rollouts/{rollout}/replay"), &[]).await
    }

    /// Gives an order to the rollout of a pack.
    pub(crate) async fn order(
        &self,
        pack: &PackName,
        order: &str,
        request: &CommandRequest,
    ) -> Result<CarriedView, Told> {
        let body = serde_json::to_value(request).expect("an order holds text and a flag only");
        self.send(Method::POST, &format!("packs/{pack}/rollout/{order}"), &[], Some(&body)).await
    }

    /// Which version a session, or any new one, gets, and why.
    pub(crate) async fn explain(&self, pack: &PackName, query: &[(&str, &str)]) -> Result<ExplainView, Told> {
        self.get(&format!("packs/{pack}/explain"), query).await
    }

    /// Recorded conversations of a pack, newest first.
    pub(crate) async fn samples(&self, pack: &PackName, query: &[(&str, &str)]) -> Result<SamplesView, Told> {
        self.get(&format!("packs/{pack}/samples"), query).await
    }

    /// A part of the audit log.
    pub(crate) async fn audit(&self, pack: Option<&PackName>, after: Option<u64>) -> Result<AuditPage, Told> {
        let after = after.map(|after| after.to_string());
        let mut query = Vec::new();
        query.extend(pack.map(|pack| ("pack", pack.as_str())));
        query.extend(after.as_deref().map(|after| ("after", after)));
        self.get("audit", &query).await
    }

    /// Checks the audit log, also against an entry that was noted elsewhere.
    pub(crate) async fn audit_verify(&self, noted: Option<Noted>) -> Result<AuditVerified, Told> {
        let noted = noted.map(|noted| noted.to_string());
        let query: Vec<_> = noted.as_deref().map(|noted| ("noted", noted)).into_iter().collect();
        self.get("audit/verify", &query).await
    }

    /// Exports the audit log behind an entry, in pieces.
    pub(crate) async fn audit_export(&self, after: u64) -> Result<Pieces<'_>, Told> {
        let request = self.request(Method::GET, "audit/export", &[("after", &after.to_string())])?;
        let response =
            request.timeout(LONG_TIMEOUT).send().await.map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            let status = response.status();
            let text = response.text().await.map_err(|error| self.unreachable(&error))?;
            return Err(self.refused(status, &text));
        }
        Ok(Pieces { client: self, response })
    }

    /// All keys.
    pub(crate) async fn keys(&self) -> Result<KeyList, Told> {
        self.get("keys", &[]).await
    }

    /// Makes a key.
    pub(crate) async fn create_key(&self, request: &KeyRequest) -> Result<KeyCreated, Told> {
        let body = serde_json::to_value(request).expect("a key is described by text and flags only");
        self.send(Method::POST, "keys", &[], Some(&body)).await
    }

    /// Revokes a key by its name or id.
    pub(crate) async fn revoke_key(&self, name: &str, reason: Option<&str>) -> Result<KeyView, Told> {
        // The name is one segment of the path, whatever it holds.
        let mut path = Url::parse("http://serin/").expect("this is an address");
        path.path_segments_mut().expect("an http address has a path").push(name);
        let name = path.path().trim_start_matches('/');
        let query: Vec<_> = reason.map(|reason| ("reason", reason)).into_iter().collect();
        self.send(Method::DELETE, &format!("keys/{name}"), &query, None).await
    }

    /// What on-call needs to know.
    pub(crate) async fn oncall(&self) -> Result<OncallView, Told> {
        self.get("oncall", &[]).await
    }

    /// The receivers of notifications.
    pub(crate) async fn receivers(&self) -> Result<ReceiverList, Told> {
        self.get("notify/receivers", &[]).await
    }

    /// Sends a receiver a message that says that nothing happened.
    pub(crate) async fn test_receiver(&self, receiver: &str) -> Result<TestedView, Told> {
        // A name holds letters, digits, `-` and `_` only; any other one would ask for something else.
        let is_name = receiver.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !is_name || receiver.is_empty() {
            return Err(Told::new(format!("{receiver:?} is no name of a receiver"))
                .hint("`serin notify receivers` lists them"));
        }
        self.send(Method::POST, &format!("notify/receivers/{receiver}/test"), &[], None).await
    }

    /// What could not be told.
    pub(crate) async fn dead_letters(&self) -> Result<DeadLetters, Told> {
        self.get("notify/dead", &[("limit", "1000")]).await
    }

    /// Tries again what could not be told.
    pub(crate) async fn retry_dead_letters(&self) -> Result<RetriedView, Told> {
        self.send(Method::POST, "notify/dead/retry", &[], None).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Told> {
        self.send(Method::GET, path, query, None).await
    }

    /// Asks for something that may not exist.
    async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Told> {
        let (status, text) = self.exchange(Method::GET, path, &[], None).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status => self.read(status, &text).map(Some),
        }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<T, Told> {
        let (status, text) = self.exchange(method, path, query, body).await?;
        self.read(status, &text)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<(StatusCode, String), Told> {
        let mut request = self.request(method, path, query)?;
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        Ok((status, text))
    }

    /// A request with the key and the name of whoever asks.
    fn request(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<reqwest::RequestBuilder, Told> {
        let base = self.base.as_str().trim_end_matches('/');
        let mut url = Url::parse(&format!("{base}/api/v1/{path}"))
            .map_err(|error| Told::new(format!("could not ask for {path:?}: {error}")))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(key) = self.key.text() {
            request = request.bearer_auth(key);
        }
        if let Some(actor) = &self.actor {
            request = request.header(ACTOR, actor);
        }
        Ok(request)
    }

    fn refused(&self, status: StatusCode, text: &str) -> Told {
        let mut told = refused(status, text);
        if status == StatusCode::UNAUTHORIZED {
            told.hints = vec![self.key.hint()];
        }
        told
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, text: &str) -> Result<T, Told> {
        if !status.is_success() {
            return Err(self.refused(status, text));
        }
        serde_json::from_str(text).map_err(|error| {
            Told::new(format!("could not read the answer of {}: {error}", self.base))
                .hint("is it a Serin server, and of this version?")
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Told {
        let server = self.base.as_str().trim_end_matches('/');
        if error.is_timeout() {
            return Told::new(format!("server {server} did not answer within {} s", TIMEOUT.as_secs()));
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Told::new(format!("could not reach server {server}: {cause}"))
            .hint("start one with `serin serve`, or name yours with --server or SERIN_SERVER")
    }
}

/// An answer that is read in pieces.
pub(crate) struct Pieces<'c> {
    client: &'c Client,
    response: reqwest::Response,
}

impl Pieces<'_> {
    /// The next piece; nothing at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Told> {
        let piece = self.response.chunk().await;
        piece.map(|piece| piece.map(Vec::from)).map_err(|error| {
            let told = self.client.unreachable(&error);
            Told::new(format!("the answer broke off: {}", told.message))
                .hint("the server's log tells why; nothing that was written is complete")
        })
    }
}

/// The problem details of an answer, as an error of ours.
fn refused(status: StatusCode, text: &str) -> Told {
    let Ok(problem) = serde_json::from_str::<ProblemDetails>(text) else {
        let told = Told::new(format!("the server answered {status}"));
        return match status {
            StatusCode::NOT_FOUND => told.hint("is --server the control plane of a Serin server?"),
            _ => told,
        };
    };
    let message = problem.detail.unwrap_or(problem.title);
    let details = problem.problems.into_iter().map(|field| Detail {
        rule: field.rule,
        severity: match field.severity {
            ProblemSeverity::Error => Severity::Error,
            ProblemSeverity::Warning => Severity::Warning,
        },
        message: field.message,
        // What was sent has other lines than what was written.
        file: String::new(),
        path: field.path,
        line: 0,
        column: 0,
        excerpt: None,
        hint: field.hint,
    });
    let mut told = Told { message, details: details.collect(), hints: Vec::new() };
    if !problem.diff.is_empty() {
        told.message.push('\n');
        told.message.push_str(changes(&problem.diff).trim_end());
    }
    told.hints.extend(problem.hint);
    told
}

/// Differences as people read them: the place, then what went and what came.
pub(crate) fn changes(changes: &[ContentChange]) -> String {
    let mut text = String::new();
    for change in changes {
        text.push_str(&format!("{}\n", change.path));
        match (&change.before, &change.after) {
            (Some(before), Some(after)) if before.contains('\n') || after.contains('\n') => {
                let (before, after): (Vec<&str>, Vec<&str>) =
                    (before.lines().collect(), after.lines().collect());
                let same_start = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
                let rest = before.len().min(after.len()) - same_start;
                let same_end = before
                    .iter()
                    .rev()
                    .zip(after.iter().rev())
                    .take(rest)
                    .take_while(|(a, b)| a == b)
                    .count();
                for line in &before[same_start..before.len() - same_end] {
                    text.push_str(&format!("  {}\n", paint(BAD, format!("- {}", clipped(line)))));
                }
                for line in &after[same_start..after.len() - same_end] {
                    text.push_str(&format!("  {}\n", paint(GOOD, format!("+ {}", clipped(line)))));
                }
            }
            (before, after) => {
                for line in before.iter().flat_map(|text| text.lines()) {
                    text.push_str(&format!("  {}\n", paint(BAD, format!("- {}", clipped(line)))));
                }
                for line in after.iter().flat_map(|text| text.lines()) {
                    text.push_str(&format!("  {}\n", paint(GOOD, format!("+ {}", clipped(line)))));
                }
            }
        }
    }
    text
}

fn clipped(line: &str) -> String {
    match line.char_indices().nth(DIFF_WIDTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
