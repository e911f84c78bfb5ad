//! Connections to the app, kept for the next request: HTTP/1.1, one request at a time on each.
//!
//! Every worker has a pool of its own, whose lock is therefore never waited for. The connection used last is used next:
//! the app is the least likely to have closed it.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tower_service::Service;

use super::body::{Body, BoxError};

/// Idle connections to the app are closed after this: sooner than apps close them (Node after five
/// seconds), so that a request rarely meets a connection that is just being closed.
const IDLE: Duration = Duration::from_secs(4);

/// A worker's connections to the app.
#[derive(Debug)]
pub(super) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: HttpsConnector<HttpConnector>,
    app: Uri,
    max_idle: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// In the order of their last use.
    idle: Vec<Idle>,
    /// Whether somebody closes those that are idle for too long.
    swept: bool,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// A connection whose answer is being read; goes back into the pool when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<Inner>,
    sender: Option<SendRequest<Body>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("cannot connect to the app: {0}")]
    Connect(#[source] BoxError),
    #[error("no answer of the app: {0}")]
    Send(#[from] hyper::Error),
}

impl Pool {
    /// Of connections to `app`, which names a scheme and an authority.
    pub(super) fn new(connector: HttpsConnector<HttpConnector>, app: Uri, max_idle: usize) -> Self {
        Pool(Arc::new(Inner { connector, app, max_idle, kept: Mutex::default() }))
    }

    /// Sends a request with an origin-form target and a `Host`. It is sent again only if the connection it was given
    /// to had died before any of it was written.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        loop {
            let kept = self.0.take();
            let fresh = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => Box::pin(self.0.connect()).await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok((response, Lease { pool: Arc::clone(&self.0), sender: Some(sender) }));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        }
    }
}

impl Inner {
    async fn connect(&self) -> Result<SendRequest<Body>, SendError> {
        let mut connector = self.connector.clone();
        poll_fn(|cx| connector.poll_ready(cx)).await.map_err(SendError::Connect)?;
        let io = connector.call(self.app.clone()).await.map_err(SendError::Connect)?;
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(async move {
            // Whoever waits for an answer on it hears of the error.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    fn take(&self) -> Option<SendRequest<Body>> {
        let mut kept = self.kept.lock();
        while let Some(Idle { sender, since }) = kept.idle.pop() {
            if since.elapsed() >= IDLE {
                // So are those before it.
                kept.idle.clear();
                return None;
            }
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(self: &Arc<Self>, sender: SendRequest<Body>) {
        let mut kept = self.kept.lock();
        if kept.idle.len() >= self.max_idle {
            return;
        }
        kept.idle.push(Idle { sender, since: Instant::now() });
        if !kept.swept
            && let Ok(runtime) = Handle::try_current()
        {
            kept.swept = true;
            runtime.spawn(sweep(Arc::downgrade(self)));
        }
    }
}

/// Closes what is idle for too long, until nothing is idle.
async fn sweep(pool: Weak<Inner>) {
    loop {
        tokio::time::sleep(IDLE / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut kept = pool.kept.lock();
        kept.idle.retain(|idle| idle.since.elapsed() < IDLE && !idle.sender.is_closed());
        if kept.idle.is_empty() {
            kept.swept = false;
            return;
        }
    }
}

impl Lease {
    /// `None`, and back in the pool, if the connection has no more to say about this answer.
    pub(super) fn unless_free(self) -> Option<Lease> {
        self.sender.as_ref().is_some_and(|sender| !sender.is_ready()).then_some(self)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut sender) = self.sender.take() else { return };
        if sender.is_ready() {
            self.pool.keep(sender);
        } else if !sender.is_closed()
            // Bodies may be dropped after the runtime has ended.
            && let Ok(runtime) = Handle::try_current()
        {
            let pool = Arc::clone(&self.pool);
            runtime.spawn(async move {
                if sender.ready().await.is_ok() {
                    pool.keep(sender);
                }
            });
        }
    }
}
