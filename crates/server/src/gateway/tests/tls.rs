//! Providers that are asked over TLS, with a certificate authority of our own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use serin_core::observation::ErrorKind;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::world::{World, prompted, world};
use crate::gateway::{BaseUrl, UpstreamSettings};
use crate::trust::Roots;

/// A certificate authority, with its certificate in a file.
pub(super) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    pub(super) fn roots(&self) -> Roots {
        Roots::read(&self.dir.path().join("ca.pem").display().to_string()).unwrap()
    }

    /// A certificate of this authority with its key.
    fn certificate(&self, host: &str, until: i32) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (vec![certificate.der().clone()], key)
    }

    /// The same for the stand-in.
    pub(super) fn stand_in(&self) -> serin_provider::Tls {
        let (certificates, key) = self.certificate("localhost", 2100);
        serin_provider::Tls::new(certificates, key)
    }

    /// The TLS of a server with a certificate of this authority.
    fn server(&self, host: &str, until: i32) -> rustls::ServerConfig {
        let (certificates, key) = self.certificate(host, until);
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap()
    }
}

/// Answers every request over TLS with one complete chat answer.
async fn provider(tls: rustls::ServerConfig) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(async |_: Request<Incoming>| {
                    let choice = json!({"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}});
                    let body = json!({"id": "c-1", "object": "chat.completion", "model": "small", "choices": [choice]});
                    let answer = Response::builder().header("content-type", "application/json");
                    Ok::<_, std::convert::Infallible>(
                        answer.body(Full::new(Bytes::from(body.to_string()))).unwrap(),
                    )
                });
                // A client that is gone is no matter of this test.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    addr
}

/// A gateway whose versions go to a provider at `https://localhost`.
async fn gateway(addr: SocketAddr, roots: Option<Roots>) -> World {
    let url = BaseUrl::parse(&format!("https://localhost:{}/v1", addr.port())).unwrap();
    let settings = UpstreamSettings { roots, ..UpstreamSettings::new(url) };
    world("{}").canary_at(100.0).canary_goes_to("secure").and("secure", settings).start().await
}

fn counted(world: &World, name: &str) -> u64 {
    let secure =
        world.gateway.upstreams().iter().find(|upstream| upstream.name().as_str() == "secure").unwrap();
    secure.counted().into_iter().find(|(counter, _, _)| *counter == name).unwrap().2
}

#[tokio::test]
async fn a_provider_with_a_certificate_of_a_ca_in_ca_file_is_asked_over_tls() {
    let authority = Authority::new("ours");
    let addr = provider(authority.server("localhost", 2100)).await;
    let mut world = gateway(addr, Some(authority.roots())).await;
    for _ in 0..2 {
        let answer = world.chat(&[], &prompted(json!({}))).await;
        assert_eq!((answer.status.as_u16(), world.seen().await.success), (200, Some(true)), "{answer:?}");
    }
    assert_eq!(counted(&world, "connections"), 1, "the connection is used again");
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_is_told_and_a_failure_of_the_provider() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    for (tls, roots, told, hint) in [
        (ours.server("localhost", 2100), None, "is of an issuer that is not trusted", "caFile"),
        (
            ours.server("localhost", 2100),
            Some(other.roots()),
            "is of an issuer that is not trusted",
            "caFile",
        ),
        (ours.server("localhost", 2021), Some(ours.roots()), "has expired", "renewed"),
        (ours.server("api.example", 2100), Some(ours.roots()), "is for another host", "baseUrl"),
    ] {
        let addr = provider(tls).await;
        let mut world = gateway(addr, roots).await;
        let answer = world.chat(&[], &prompted(json!({}))).await;
        let (code, message) = answer.error();
        assert_eq!((answer.status.as_u16(), code.as_str()), (502, "provider_tls"), "{message}");
        let start = format!(
            "could not connect to the provider at https://localhost:{}/v1: its certificate {told}; hint: ",
            addr.port()
        );
        assert!(message.starts_with(&start) && message.contains(hint), "{message}");
        let seen = world.seen().await;
        assert_eq!((seen.success, seen.error), (Some(false), Some(ErrorKind::Provider)));
        assert_eq!((counted(&world, "tls_failures"), counted(&world, "retries")), (1, 0));
    }
}

#[tokio::test]
async fn a_provider_that_does_not_speak_tls_is_told() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let world = gateway(addr, None).await;
    let (code, message) = world.chat(&[], &prompted(json!({}))).await.error();
    assert_eq!(code, "provider_tls");
    assert!(message.ends_with("hint: check that the address in `baseUrl` speaks TLS there"), "{message}");
}

#[test]
fn a_ca_file_without_a_certificate_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty.pem").display().to_string();
    assert!(Roots::read(&path).unwrap_err().starts_with("could not be read"), "there is no file");
    std::fs::write(&path, "no certificate\n").unwrap();
    assert_eq!(Roots::read(&path).unwrap_err(), "holds no certificate in PEM form");
}
