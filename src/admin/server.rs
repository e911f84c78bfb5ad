//! The listener of the admin pages: bound first, so that port 0 is known before anything runs; stopped by a future.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{io, net};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::pages::Pages;

/// Connections at once; scrapers and probes need a few. Further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;

/// A request head must be complete within this time; an idle connection is closed after it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long answers that are being written may take to end once the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a request head at most.
const MAX_HEAD: usize = 16 * 1024;

/// A bound listener that does not answer yet.
#[derive(Debug)]
pub struct Admin {
    listener: net::TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Binds `address`; port 0 takes a free one.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Admin { listener, address })
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is ready, then lets answers in progress end, for five seconds at most.
    /// Must be called within a tokio runtime; an error means that its reactor refused the socket.
    pub async fn serve(self, pages: Pages, stop: impl Future<Output = ()>) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let (stopping, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        tokio::select! {
            () = accept(&listener, Arc::new(pages), &mut connections, stopped) => {}
            () = stop => {}
        }
        drop((listener, stopping));
        let ended = async { while connections.join_next().await.is_some() {} };
        // What is left after that is cut when the set is dropped.
        let _ = timeout(STOP_TIMEOUT, ended).await;
        Ok(())
    }
}

async fn accept(
    listener: &TcpListener,
    pages: Arc<Pages>,
    connections: &mut JoinSet<()>,
    stopped: watch::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: trying again at once would only burn the processor.
                tracing::warn!(%error, "the admin listener cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (pages, stopped) = (Arc::clone(&pages), stopped.clone());
        connections.spawn(async move {
            serve_connection(stream, pages, stopped).await;
            drop(place);
        });
        // Tasks that have ended are collected here, so the set does not grow.
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(stream: TcpStream, pages: Arc<Pages>, mut stopped: watch::Receiver<()>) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(pages.answer(request.method(), request.uri()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // The sender is dropped when the server stops.
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}
