//! Posts to receivers: one short connection each, no redirects, limits on time and size.
//!
//! **Invariant:** a receiver that may not be internal is never connected to at an internal address, whatever
//! its name resolves to: the addresses are judged after the name is resolved, and only those that were
//! judged are connected to.

use std::error::Error;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serin_core::units::HoldFor;
use tokio::net::TcpStream;
use tower_service::Service;

use super::receiver::Endpoint;
use crate::errors::Chain;
use crate::trust::{self, Offer};

/// The longest time from opening the connection to the end of the answer.
const WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read; what follows is of no interest.
const MOST_ANSWER: usize = 16 << 10;
/// Characters of an answer that are shown.
const MOST_SHOWN: usize = 200;
/// The longest wait that a receiver may ask for.
const MOST_RETRY_AFTER: HoldFor = HoldFor::from_hours(1);

/// One request to a receiver.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where it goes.
    pub to: Endpoint,
    /// The media type of the body.
    pub media: &'static str,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

/// Why a receiver did not take a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undelivered {
    /// It may take it later: it was not reached, or said so.
    Later {
        /// What happened.
        problem: String,
        /// The wait that it asked for.
        after: Option<HoldFor>,
    },
    /// It does not want it as it is.
    Refused {
        /// What it said.
        problem: String,
    },
}

impl Undelivered {
    /// What happened, in words.
    pub fn problem(&self) -> &str {
        match self {
            Self::Later { problem, .. } | Self::Refused { problem } => problem,
        }
    }
}

/// Whether a receiver may be on this machine or in a private network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses only.
    Public,
    /// Any address.
    Any,
}

/// Posts to receivers.
#[derive(Clone)]
pub struct Client {
    public: Pool<HttpsConnector<Guarded>, Full<Bytes>>,
    any: Pool<HttpsConnector<Guarded>, Full<Bytes>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A client that opens no connection yet.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { public: pool(Reach::Public)?, any: pool(Reach::Any)? })
    }

    /// Posts one request.
    ///
    /// # Errors
    /// [`Undelivered`] unless the answer is a 2xx.
    pub async fn post(&self, outgoing: &Outgoing, reach: Reach) -> Result<(), Undelivered> {
        let pool = match reach {
            Reach::Public => &self.public,
            Reach::Any => &self.any,
        };
        let later = |problem| Undelivered::Later { problem, after: None };
        match tokio::time::timeout(WITHIN, exchange(pool, outgoing)).await {
            Ok(done) => done,
            Err(_) => Err(later(format!(
                "{} did not answer within {} seconds",
                outgoing.to.shown(),
                WITHIN.as_secs()
            ))),
        }
    }
}

fn pool(reach: Reach) -> std::io::Result<Pool<HttpsConnector<Guarded>, Full<Bytes>>> {
    let connector = trust::https(None, Offer::Http1, Guarded { reach })?;
    // A connection that is kept would outlive the judgement of its address.
    Ok(Pool::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

async fn exchange(
    pool: &Pool<HttpsConnector<Guarded>, Full<Bytes>>,
    outgoing: &Outgoing,
) -> Result<(), Undelivered> {
    let to = &outgoing.to;
    let mut request = Request::post(to.uri().clone())
        .header(CONTENT_TYPE, outgoing.media)
        .header(USER_AGENT, concat!("serin/", env!("CARGO_PKG_VERSION")));
    if let Some(authority) = to.uri().authority() {
        request = request.header(HOST, authority.as_str());
    }
    for (name, value) in &outgoing.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(outgoing.body.clone())).expect("address and headers are valid");
    let answer = pool.request(request).await.map_err(|error| unsent(to, &error))?;
    let (head, body) = answer.into_parts();
    let status = head.status.as_u16();
    if head.status.is_success() {
        return Ok(());
    }
    let after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let after = after.map(|seconds| HoldFor::from_secs(seconds).min(MOST_RETRY_AFTER));
    let said = match Limited::new(body, MOST_ANSWER).collect().await {
        Ok(body) => shown(&body.to_bytes()),
        Err(_) => String::new(),
    };
    let colon = if said.is_empty() { "" } else { ": " };
    let problem = format!("{} answered {status}{colon}{said}", to.shown());
    Err(match status {
        408 | 425 | 429 | 500.. => Undelivered::Later { problem, after },
        300..=399 => Undelivered::Refused { problem: format!("{problem} (redirects are not followed)") },
        _ => Undelivered::Refused { problem },
    })
}

/// What became of a request that got no answer.
fn unsent<'e>(to: &Endpoint, error: &'e (dyn Error + 'static)) -> Undelivered {
    let internal =
        std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| Error::source(*error))
            .find_map(|error| error.downcast_ref::<Internal>());
    match internal {
        Some(internal) => Undelivered::Refused { problem: internal.to_string() },
        None => Undelivered::Later {
            problem: format!("could not reach {}: {}", to.shown(), Chain(error)),
            after: None,
        },
    }
}

/// The beginning of an answer as one line of text.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_SHOWN).collect();
    text.trim().to_owned()
}

/// Opens connections to addresses that have been judged.
#[derive(Debug, Clone, Copy)]
struct Guarded {
    reach: Reach,
}

/// A receiver that may not be internal resolves to an internal address.
#[derive(Debug, thiserror::Error)]
#[error(
    "{host} is at {address}, which is internal; set `allowInternal: true` for this receiver if that is meant"
)]
struct Internal {
    host: String,
    address: IpAddr,
}

type Opening = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, Box<dyn Error + Send + Sync>>> + Send>>;

impl Service<Uri> for Guarded {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Opening;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Opening {
        let reach = self.reach;
        Box::pin(async move {
            let host = to.host().ok_or("the address names no host")?;
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let port = to.port_u16().unwrap_or(if to.scheme_str() == Some("https") { 443 } else { 80 });
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port)).await?.collect();
            if reach == Reach::Public
                && let Some(address) = addresses.iter().map(SocketAddr::ip).find(|ip| is_internal(*ip))
            {
                return Err(Internal { host, address }.into());
            }
            let stream = TcpStream::connect(&addresses[..]).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Whether an address belongs to this machine or to a private network, or to nobody in particular.
fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_internal_v4(address),
        IpAddr::V6(address) => {
            let segments = address.segments();
            // Addresses of IPv4 that are written, translated or tunnelled as IPv6.
            let low = Ipv4Addr::from(u32::from(segments[6]) << 16 | u32::from(segments[7]));
            let from_6to4 = Ipv4Addr::from(u32::from(segments[1]) << 16 | u32::from(segments[2]));
            match segments {
                [0, 0, 0, 0, 0, 0xffff | 0, _, _] => is_internal_v4(low) || address.is_loopback(),
                [0x64, 0xff9b, 0, 0, 0, 0, _, _] => is_internal_v4(low),
                [0x64, 0xff9b, 1, ..] => true,
                [0x2002, ..] => is_internal_v4(from_6to4),
                // Unique local, link local, site local, multicast; Teredo and documentation lead nowhere good.
                [first, second, ..] => {
                    first & 0xfe00 == 0xfc00
                        || first & 0xff80 == 0xfe80
                        || first & 0xff00 == 0xff00
                        || (first == 0x2001 && (second == 0 || second == 0xdb8))
                }
            }
        }
    }
}

fn is_internal_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public_are_internal_in_every_way_of_writing_them() {
        for address in [
            "127.0.0.1",
            "127.255.0.9",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "198.18.0.1",
            "192.0.0.8",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:0:1::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fdff::1",
            "ff02::1",
        ] {
            assert!(is_internal(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "169.253.0.1",
            "223.255.255.1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(!is_internal(address.parse().unwrap()), "{address}");
        }
    }

    fn request(url: &str) -> Outgoing {
        let to = Endpoint::parse(url).unwrap();
        Outgoing { to, media: "application/json", headers: vec![], body: Bytes::from_static(b"{}") }
    }

    #[tokio::test]
    async fn an_internal_receiver_is_refused_before_anything_is_sent_to_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = Client::new().unwrap();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
            let refused = client.post(&request(&format!("http://{host}:{port}/x")), Reach::Public).await;
            match refused.unwrap_err() {
                Undelivered::Refused { problem } => assert!(problem.contains("internal"), "{problem}"),
                // Not every resolver takes a bare number for an address.
                Undelivered::Later { problem, .. } => assert_eq!(host, "2130706433", "{problem}"),
            }
        }
        let nobody = listener.accept().unwrap_err();
        assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock, "somebody connected");
    }
}
