//! Asks outside providers what gates want to know.
//!
//! **Invariant:** nothing here fails a check. What keeps a provider from answering makes a metric unmeasured, which
//! holds the rollout until the provider answers again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::Value;
use serin_core::ids::PackName;
use serin_core::metric::MetricName;
use serin_core::outside::{Outside, query};
use serin_core::plan::{Gate, GateRule, Plan};
use serin_core::rollout::Rollout;
use serin_core::routing::Variant;

use crate::errors::root_cause;
use crate::trust::{self, Offer};

/// The largest answer of a provider, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// An outside provider of metrics, as the settings name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricProvider {
    /// The address of a Prometheus server, with a path in front of `/api/v1/query` where there is one.
    pub url: Uri,
    /// The longest time that one query may take.
    pub timeout: Duration,
}

/// Asks outside providers.
pub struct Measurer {
    providers: BTreeMap<String, MetricProvider>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl fmt::Debug for Measurer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measurer").field("providers", &self.providers).finish_non_exhaustive()
    }
}

/// Why a provider did not answer a query.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("the settings name no metric provider {0:?}")]
    Unknown(String),
    #[error("the gate has no query")]
    NoQuery,
    #[error("{url} did not answer within {within:?}")]
    Timeout { url: Uri, within: Duration },
    #[error("could not reach {url}: {why}")]
    Unreachable { url: Uri, why: String },
    #[error("{url} answered {status}: {why}")]
    Refused { url: Uri, status: u16, why: String },
    #[error("{url} answered something else than one number: {why}")]
    NoNumber { url: Uri, why: String },
}

impl Measurer {
    /// Asks these providers, by the names that manifests use.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(providers: BTreeMap<String, MetricProvider>) -> std::io::Result<Self> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let connector = trust::https(None, Offer::Http1, http)?;
        Ok(Self { providers, client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// What the outside gates of a plan read right now, all asked at once.
    pub(super) async fn measure(
        &self,
        pack: &PackName,
        plan: &Plan,
        rollout: &Rollout,
    ) -> BTreeMap<MetricName, Outside> {
        let gates = plan.analysis.gates.iter().filter(|gate| gate.is_outside());
        // Gates of one metric share what it measured, so that one which compares must not miss stable.
        let compares = |metric: &MetricName| {
            plan.analysis.gates.iter().any(|gate| {
                gate.metric.name == *metric && matches!(gate.rule, GateRule::NotWorseThanStable { .. })
            })
        };
        let readings = gates.map(async |gate| {
            let outside = match self.gate(pack, gate, compares(&gate.metric.name), rollout).await {
                Ok(measured) => measured,
                Err(why) => {
                    tracing::warn!(%pack, metric = %gate.metric.name, provider = gate.provider, %why, "could not measure {}", gate.metric.name);
                    Outside::Unmeasured(why.to_string())
                }
            };
            (gate.metric.name.clone(), outside)
        });
        join_all(readings).await.into_iter().collect()
    }

    async fn gate(
        &self,
        pack: &PackName,
        gate: &Gate,
        compares: bool,
        rollout: &Rollout,
    ) -> Result<Outside, Unanswered> {
        let Some(provider) = self.providers.get(&gate.provider) else {
            return Err(Unanswered::Unknown(gate.provider.clone()));
        };
        let Some(template) = &gate.query else { return Err(Unanswered::NoQuery) };
        let of =
            async |side| provider.ask(&self.client, &query(template, pack.as_str(), rollout, side)).await;
        let canary = of(Variant::Canary).await?;
        let stable = if compares { Some(of(Variant::Stable).await?) } else { None };
        Ok(Outside::Measured { stable, canary })
    }
}

impl MetricProvider {
    /// Asks for the value of a query at this moment.
    async fn ask(
        &self,
        client: &Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
        query: &str,
    ) -> Result<f64, Unanswered> {
        let url = || self.url.clone();
        let address = format!("{}/api/v1/query", self.url.to_string().trim_end_matches('/'));
        let body = Full::new(Bytes::from(format!("query={}", encoded(query))));
        let request =
            Request::post(address).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        let unreachable = |why: String| Unanswered::Unreachable { url: url(), why };
        let request = request.map_err(|error| unreachable(error.to_string()))?;
        let answered = tokio::time::timeout(self.timeout, async {
            let response = client.request(request).await.map_err(|error| unreachable(root_cause(&error)))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
            let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
            Ok((status, body))
        });
        let (status, body) =
            answered.await.map_err(|_| Unanswered::Timeout { url: url(), within: self.timeout })??;
        match value(&body) {
            Ok(value) if status == 200 => Ok(value),
            Ok(_) => Err(Unanswered::Refused { url: url(), status, why: "no success".to_owned() }),
            Err(why) if status == 200 => Err(Unanswered::NoNumber { url: url(), why }),
            Err(why) => Err(Unanswered::Refused { url: url(), status, why }),
        }
    }
}

/// The answer of a Prometheus server to an instant query.
#[derive(Deserialize)]
struct Answer {
    status: String,
    error: Option<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

/// The one finite number of an answer.
fn value(body: &[u8]) -> Result<f64, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|error| format!("no answer to a query: {error}"))?;
    let data = match answer {
        Answer { status, data: Some(data), .. } if status == "success" => data,
        Answer { error, .. } => {
            return Err(
                error.map_or_else(|| "no reason given".to_owned(), |why| why.chars().take(200).collect())
            );
        }
    };
    let sample = match (data.result_type.as_str(), &data.result) {
        ("scalar", sample) => sample,
        ("vector", Value::Array(samples)) => match samples.as_slice() {
            [one] => &one["value"],
            [] => return Err("no sample; is the series there, and scraped?".to_owned()),
            several => return Err(format!("{} samples; join them with sum() or max()", several.len())),
        },
        (other, _) => return Err(format!("a {other}; write an instant query")),
    };
    let number: Option<f64> = sample[1].as_str().and_then(|text| text.parse().ok());
    match number {
        Some(number) if number.is_finite() => Ok(number),
        Some(number) => Err(number.to_string()),
        None => Err("no value".to_owned()),
    }
}

/// Text as a form holds it.
fn encoded(text: &str) -> String {
    let mut form = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            form.push(char::from(byte));
        } else {
            form.push_str(&format!("%{byte:02X}"));
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    use jiff::Timestamp;
    use serin_core::ids::{Actor, RolloutId, Version};
    use serin_core::parse::parse;
    use serin_core::rollout::{End, Ended, RolloutKind, State};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const TWO_GATES: &str = r#"
apiVersion: omnia.altairalabs.ai/v1alpha1
kind: PromptPack
metadata: {name: support}
spec:
  version: 1.1.0
  rollout:
    analysis:
      metrics:
        - {name: success_rate, compareTo: stable, maxRegression: 2pp, provider: prometheus, query: 'e{version="{{version}}"}'}
        - {name: success_rate, threshold: 90%, comparison: ">=", provider: prometheus, query: 'e{version="{{version}}"}'}
"#;

    fn ended() -> Rollout {
        let pack = PackName::parse("support").unwrap();
        let (now, actor) = (Timestamp::UNIX_EPOCH, Actor::named("ana"));
        let how = End::Completed;
        let ended =
            Ended { at: now, how, actor: actor.clone(), reason: String::new(), step: 0, baseline: None };
        Rollout {
            id: RolloutId::of(&pack, 1),
            attempt: 1,
            kind: RolloutKind::Canary,
            stable: Version::parse("1.0.0").unwrap(),
            canary: Version::parse("1.1.0").unwrap(),
            salt: "salt".to_owned(),
            started_by: actor,
            started_with: None,
            reason: String::new(),
            started_at: now,
            revision: 1,
            spans: Vec::new(),
            overridden: Vec::new(),
            state: State::Ended(ended),
        }
    }

    /// Answers every query with the number three.
    async fn three(listener: TcpListener) {
        let body = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}"#;
        let answer =
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"%7D") {
                connection.read_buf(&mut request).await.unwrap();
            }
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_gate_that_compares_has_stable_whatever_other_gates_of_the_metric_ask() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(three(listener));
        let provider = MetricProvider { url, timeout: Duration::from_secs(30) };
        let measurer = Measurer::new([("prometheus".to_owned(), provider)].into()).unwrap();
        let plan = parse(TWO_GATES).unwrap_or_else(|problems| panic!("{problems}")).plan;
        let pack = PackName::parse("support").unwrap();
        let measured = measurer.measure(&pack, &plan, &ended()).await;
        let success = MetricName::parse("success_rate").unwrap();
        assert_eq!(measured[&success], Outside::Measured { stable: Some(3.0), canary: 3.0 });
    }

    #[test]
    fn only_one_finite_number_is_an_answer() {
        let told = |json: &str| value(json.as_bytes());
        let vector = |samples: &str| {
            told(&format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#))
        };
        let sample = |text: &str| format!(r#"{{"metric":{{"a":"b"}},"value":[1.5,"{text}"]}}"#);
        assert_eq!(vector(&sample("0.25")), Ok(0.25));
        assert_eq!(told(r#"{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}"#), Ok(3.0));
        for wrong in [
            vector(""),
            vector(&sample("NaN")),
            vector(&sample("+Inf")),
            vector(&format!("{},{}", sample("1"), sample("2"))),
            told(r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#),
            told(r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#),
            told("<html>"),
        ] {
            assert!(wrong.is_err(), "{wrong:?}");
        }
    }
}
