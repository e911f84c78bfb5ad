//! One service on one loopback listener: accepting, recording, striking with faults, stopping.
//!
//! A request runs in a task of its own, so that, as with the real services, its effect happens even
//! if the client has gone by then.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::Service;
use super::faults::{Fault, Faults, When};
use super::requests::Requests;

/// How long open connections may take to finish when the sandbox stops.
const GRACE: Duration = Duration::from_secs(1);

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a service does with a request.
#[async_trait]
pub(super) trait Handler: Send + Sync + 'static {
    /// Answers; `fault` is one that only the service itself can show, such as [`Fault::Lie`].
    async fn handle(&self, request: Request<Incoming>, fault: Option<Fault>) -> Response<Body>;
}

/// What all services share: their switchboard and their record.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) faults: Arc<Faults>,
    pub(super) requests: Arc<Requests>,
}

/// Held by every task: tells it to stop, and tells the sandbox when the last one has.
#[derive(Clone, Debug)]
pub(super) struct Running {
    stop: watch::Receiver<()>,
    _done: mpsc::Sender<()>,
}

/// The other end of all [`Running`]s. Dropping it stops them too, without waiting.
#[derive(Debug)]
pub(super) struct Stopper {
    stop: watch::Sender<()>,
    done: mpsc::Receiver<()>,
}

/// A pair that belongs together.
pub(super) fn running() -> (Running, Stopper) {
    let (stop, stopped) = watch::channel(());
    let (sender, done) = mpsc::channel(1);
    (Running { stop: stopped, _done: sender }, Stopper { stop, done })
}

impl Running {
    /// Returns when the sandbox stops.
    pub(super) async fn stopped(&mut self) {
        // An error means that the sandbox was dropped, which is a stop.
        let _ = self.stop.changed().await;
    }
}

impl Stopper {
    /// Tells every task to stop, and waits until the last has.
    pub(super) async fn stop(mut self) {
        let _ = self.stop.send(());
        // Nothing is ever sent: this returns when all senders are gone.
        let _ = self.done.recv().await;
    }
}

/// Binds a free loopback port and serves it in the background.
pub(super) async fn listen(
    service: Service,
    shared: Arc<Shared>,
    running: Running,
) -> io::Result<(SocketAddr, impl FnOnce(Arc<dyn Handler>))> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let start = move |handler| {
        tokio::spawn(accept(listener, service, handler, shared, running));
    };
    Ok((address, start))
}

async fn accept(
    listener: TcpListener,
    service: Service,
    handler: Arc<dyn Handler>,
    shared: Arc<Shared>,
    mut running: Running,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = running.stopped() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: let others close theirs.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        tokio::spawn(connection(stream, service, handler.clone(), shared.clone(), running.clone()));
    }
}

async fn connection(
    stream: TcpStream,
    service: Service,
    handler: Arc<dyn Handler>,
    shared: Arc<Shared>,
    mut running: Running,
) {
    let for_requests = running.clone();
    let answer = service_fn(move |request| {
        let task = request_task(request, service, handler.clone(), shared.clone());
        let mut running = for_requests.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                answer = task => answer,
                () = running.stopped() => Err(Hangup),
            }
        });
        async move { task.await.unwrap_or(Err(Hangup)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        // An error is the client's doing, or a fault we were asked for.
        _ = &mut connection => {}
        () = running.stopped() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GRACE, connection).await;
        }
    }
}

/// Makes hyper close the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox hung up")]
struct Hangup;

async fn request_task(
    request: Request<Incoming>,
    service: Service,
    handler: Arc<dyn Handler>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Hangup> {
    let (head, body) = request.into_parts();
    shared.requests.record(service, &head);
    let paid = ["x-payment", "payment-signature"].iter().any(|name| head.headers.contains_key(*name));
    let struck = shared.faults.strike(service, head.uri.path(), paid);
    if let Some((fault, When::Before)) = struck
        && let Some(answer) = strike(fault, service, &shared).await
    {
        return answer;
    }
    let fault = struck.map(|(fault, _)| fault);
    let answer = handler.handle(Request::from_parts(head, body), fault).await;
    match struck {
        Some((Fault::Truncate, _)) => Ok(truncated(answer).await),
        Some((fault, When::After)) => strike(fault, service, &shared).await.unwrap_or(Ok(answer)),
        _ => Ok(answer),
    }
}

/// The answer a fault of the transport gives in place of the real one, if it does.
async fn strike(fault: Fault, service: Service, shared: &Shared) -> Option<Result<Response<Body>, Hangup>> {
    match fault {
        Fault::Held => {
            shared.faults.held(service).await;
            None
        }
        Fault::Slow(time) => {
            tokio::time::sleep(time).await;
            None
        }
        Fault::Status(code) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Some(Ok(json(status, &json!({ "error": "Internal server error" }))))
        }
        Fault::Garbage => {
            let page = "<!doctype html><html><body><h1>Welcome</h1></body></html>";
            Some(Ok(answer(StatusCode::OK, "text/html", page)))
        }
        Fault::Drop => Some(Err(Hangup)),
        Fault::Truncate | Fault::Pending | Fault::Lie | Fault::AskAgain | Fault::WorkFails => None,
    }
}

/// The same head, half of the body, and then the end of the connection.
async fn truncated(answer: Response<Body>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    head.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    let half = bytes.slice(..bytes.len() / 2);
    let frames = stream::unfold(Some(half), |half| async {
        match half {
            Some(half) if !half.is_empty() => Some((Ok(Frame::data(half)), Some(Bytes::new()))),
            Some(_) => {
                // What was written so far is sent when there is nothing more to write just now.
                tokio::task::yield_now().await;
                Some((Err(io::Error::other("truncated")), None))
            }
            None => None,
        }
    });
    Response::from_parts(head, BodyExt::boxed_unsync(StreamBody::new(frames)))
}

/// An answer with these bytes.
pub(super) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    answer
}

/// An answer with this JSON.
pub(super) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    answer(status, "application/json", value.to_string())
}

/// A body of these bytes.
pub(super) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The whole body of a request, or the answer to one that is too long or was cut off.
pub(super) async fn read(body: Incoming, limit: usize) -> Result<Bytes, Box<Response<Body>>> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Box::new(json(
            StatusCode::PAYLOAD_TOO_LARGE,
            &json!({ "error": "request entity too large" }),
        ))),
        Err(_) => Err(Box::new(json(StatusCode::BAD_REQUEST, &json!({ "error": "request aborted" })))),
    }
}
