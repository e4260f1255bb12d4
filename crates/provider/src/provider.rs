//! A stand-in that listens.

use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::reach::{Reach, TlsError, Versions};
use crate::script::Script;
use crate::stand_in::StandIn;

/// A stand-in provider that listens on an address.
///
/// It is used like the [`StandIn`] that it holds. It stops when it is dropped; connections
/// that are open then are closed.
pub struct Provider {
    stand_in: StandIn,
    addr: SocketAddr,
    accepted: Arc<AtomicU64>,
    /// A change asks the connections that are open to end.
    goodbye: watch::Sender<()>,
    serving: JoinHandle<()>,
}

/// A provider that could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not one of this machine's.
    #[error("could not listen on {addr} for the stand-in provider")]
    Listen {
        /// The address that was tried.
        addr: SocketAddr,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Its certificate cannot be used.
    #[error("could not set up TLS for the stand-in provider")]
    Tls(#[source] TlsError),
}

impl Provider {
    /// Listens on `listen` without TLS and answers by the script; port 0 takes a free port.
    pub async fn start(script: Script, listen: SocketAddr) -> Result<Provider, StartError> {
        Provider::start_with(script, listen, &Reach::default()).await
    }

    /// The same, reached in another way.
    pub async fn start_with(
        script: Script,
        listen: SocketAddr,
        reach: &Reach,
    ) -> Result<Provider, StartError> {
        let failed = |source| StartError::Listen { addr: listen, source };
        let tls = reach.tls.as_ref().map(|tls| tls.server(reach.versions)).transpose();
        let tls = tls.map_err(StartError::Tls)?.map(|config| TlsAcceptor::from(Arc::new(config)));
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let stand_in = StandIn::new(script);
        let accepted = Arc::new(AtomicU64::new(0));
        let goodbye = watch::Sender::new(());
        let service = Service { router: stand_in.router(), tls, http: http(reach.versions) };
        let serving = tokio::spawn(serve(listener, service, Arc::clone(&accepted), goodbye.clone()));
        Ok(Provider { stand_in, addr, accepted, goodbye, serving })
    }

    /// Returns the number of connections that were opened to it.
    pub fn connections(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Asks the connections that are open to end once the requests on them are answered: with GOAWAY over HTTP/2.
    pub fn say_goodbye(&self) {
        self.goodbye.send_replace(());
    }

    /// Returns the address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the stand-in, which outlives the listener.
    pub fn stand_in(&self) -> &StandIn {
        &self.stand_in
    }

    /// Stops listening, closes every connection, and returns when the port is free.
    pub async fn shutdown(mut self) {
        self.serving.abort();
        // The only error is the abort itself.
        let _ = (&mut self.serving).await;
    }
}

impl Deref for Provider {
    type Target = StandIn;

    fn deref(&self) -> &StandIn {
        &self.stand_in
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// How each connection is served.
#[derive(Clone)]
struct Service {
    router: Router,
    tls: Option<TlsAcceptor>,
    http: auto::Builder<TokioExecutor>,
}

fn http(versions: Versions) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    match versions {
        Versions::Http1 => builder.http1_only(),
        Versions::Http2 => builder.http2_only(),
        Versions::Both => builder,
    }
}

/// Accepts connections for ever; they end with this future.
async fn serve(
    mut listener: TcpListener,
    service: Service,
    accepted: Arc<AtomicU64>,
    goodbye: watch::Sender<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        accepted.fetch_add(1, Ordering::Relaxed);
        connections.spawn(service.clone().connection(stream, goodbye.subscribe()));
    }
}

impl Service {
    async fn connection(self, stream: TcpStream, goodbye: watch::Receiver<()>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY on a connection: {error}");
        }
        match self.tls.clone() {
            None => self.requests(stream, goodbye).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => self.requests(stream, goodbye).await,
                Err(error) => tracing::debug!(%error, "a connection did not come to speak TLS: {error}"),
            },
        }
    }

    async fn requests<S>(self, stream: S, mut goodbye: watch::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router);
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            Ok(()) = goodbye.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early: {error}");
        }
    }
}
