//! Listening: connections with limits, and an orderly end.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// What one listener takes of its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections that are served at a time; more wait to be accepted.
    pub connections: usize,
    /// Connections of one address; more are closed at once, so that no client takes the place of all others.
    pub of_one_address: usize,
    /// The longest time that a client may take to send the head of a request.
    pub head_within: Duration,
    /// The largest head of a request, in bytes.
    pub head_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            of_one_address: 5_000,
            head_within: Duration::from_secs(30),
            head_bytes: 64 << 10,
        }
    }
}

/// What is counted of connections.
#[derive(Debug, Default)]
pub struct ListenCounts {
    /// Connections that were accepted.
    pub accepted: AtomicU64,
    /// Connections that were closed because their address had too many.
    pub refused: AtomicU64,
}

/// How long accepting pauses after it failed, for instance because no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// An address that is listened on, and not served yet.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on an address; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let address = tcp.local_addr()?;
        Ok(Self { tcp, address })
    }

    /// The address with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` turns true, then lets requests under way end for at most `drain`.
    pub async fn serve(
        self,
        router: Router,
        limits: Limits,
        counts: Arc<ListenCounts>,
        mut stop: watch::Receiver<bool>,
        drain: Duration,
    ) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.head_within).max_buf_size(limits.head_bytes);
        let connections = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(limits.connections));
        let by_address = ByAddress::default();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = accept(&self.tcp, &room) => accepted,
            };
            let (stream, peer, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "could not accept a connection on {}", self.address);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            counts.accepted.fetch_add(1, Ordering::Relaxed);
            let Some(place) = by_address.place(peer.ip(), limits.of_one_address) else {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let service = TowerToHyperService::new(router.clone());
            let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
            tokio::spawn(async move {
                // A client that breaks off is its own business.
                let _ = connection.await;
                drop((permit, place));
            });
        }
        drop(self.tcp);
        if tokio::time::timeout(drain, connections.shutdown()).await.is_err() {
            tracing::warn!(address = %self.address, "requests on {} were still under way when their time to end was over", self.address);
        }
    }
}

async fn accept(
    tcp: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.expect("nobody closes the semaphore");
    let (stream, peer) = tcp.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

/// How many connections each address has.
#[derive(Debug, Clone, Default)]
struct ByAddress(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl ByAddress {
    /// A place for one more connection, held until it is dropped; nothing where there are `most` already.
    fn place(&self, address: IpAddr, most: usize) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { of: self.clone(), address })
    }
}

/// The place of one connection.
#[derive(Debug)]
struct Place {
    of: ByAddress,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(counts.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests;
