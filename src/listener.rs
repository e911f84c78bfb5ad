//! A small HTTP/1.1 listener for what is not the edge: the admin pages, and the facilitator for others.
//!
//! Bound before anything runs, so that port 0 is known and a taken port is an error of the start; stopped by a future.
//! It bounds connections, heads and waiting; what a body may be is for whoever answers. The edge has its own.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Bytes of a request head at most.
const MAX_HEAD: usize = 16 * 1024;

/// A request head must be complete within this time; an idle connection is closed after it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// A bound listener that does not answer yet.
#[derive(Debug)]
pub struct Listener {
    listener: net::TcpListener,
    address: SocketAddr,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let bind = || {
            let listener = net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Listener { listener, address })
        };
        bind().map_err(|source| ListenError { address, source })
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers with `answer`, on so many connections at once (further ones wait in the kernel's queue), until `stop` is
    /// ready; then lets answers in progress end, for `grace` at most. Must be called within a tokio runtime; an error
    /// means that its reactor refused the socket.
    pub async fn serve<A, F>(
        self,
        connections: usize,
        answer: A,
        stop: impl Future<Output = ()>,
        grace: Duration,
    ) -> io::Result<()>
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = TcpListener::from_std(self.listener)?;
        let (stopping, stopped) = watch::channel(());
        let mut open = JoinSet::new();
        tokio::select! {
            () = accept(&listener, connections, &answer, &mut open, stopped) => {}
            () = stop => {}
        }
        drop((listener, stopping));
        let ended = async { while open.join_next().await.is_some() {} };
        // What is left after that is cut when the set is dropped.
        let _ = timeout(grace, ended).await;
        Ok(())
    }
}

async fn accept<A, F>(
    listener: &TcpListener,
    connections: usize,
    answer: &A,
    open: &mut JoinSet<()>,
    stopped: watch::Receiver<()>,
) where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(connections));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: trying again at once would only burn the processor.
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (answer, stopped) = (answer.clone(), stopped.clone());
        open.spawn(async move {
            serve_connection(stream, answer, stopped).await;
            drop(place);
        });
        // Tasks that have ended are collected here, so the set does not grow.
        while open.try_join_next().is_some() {}
    }
}

async fn serve_connection<A, F>(stream: TcpStream, answer: A, mut stopped: watch::Receiver<()>)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    // Answers are small, and somebody waits for each.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
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
        tracing::debug!(%error, "a connection ended early");
    }
}
