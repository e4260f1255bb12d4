//! A stand-in that listens.

use std::net::SocketAddr;
use std::ops::Deref;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::script::Script;
use crate::stand_in::StandIn;

/// A stand-in provider that listens on an address.
///
/// It is used like the [`StandIn`] that it holds. It stops when it is dropped; connections
/// that are open then are closed.
pub struct Provider {
    stand_in: StandIn,
    addr: SocketAddr,
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
}

impl Provider {
    /// Listens on `listen` and answers by the script; port 0 takes a free port.
    pub async fn start(script: Script, listen: SocketAddr) -> Result<Provider, StartError> {
        let failed = |source| StartError::Listen { addr: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let stand_in = StandIn::new(script);
        let serving = tokio::spawn(serve(listener, stand_in.router()));
        Ok(Provider { stand_in, addr, serving })
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

/// Accepts connections for ever; they end with this future.
async fn serve(mut listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY on a connection: {error}");
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early: {error}");
            }
        });
    }
}
