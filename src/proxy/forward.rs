//! To the app and back: a pool of HTTP/1.1 connections per worker, a deadline on every step.
//!
//! A request is sent once, or again if its pooled connection had died before any of it was written; whatever has been written may have been done by the app.

use std::cell::Cell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version, request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;

use super::body::{AppBody, Body};
use super::headers::{self, Strip};
use super::idle::Timers;
use super::peer::Peer;
use super::pool::{Lease, Pool, SendError};
use super::request_body::{Progress, RequestBodyError};
use super::tunnel::Tunnels;
use crate::config::resolved::App;
use crate::reason::{Problem, Reason};

/// How long a client that sent `Expect: 100-continue` waits for an app that does not know it.
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// The way to the app. Cheap to share.
#[derive(Debug)]
pub struct Forward {
    id: usize,
    workers: Vec<Worker>,
    /// How many threads have sent something.
    threads: AtomicUsize,
    body_timeout: Duration,
}

/// What one thread sends by. What is counted by reference is one thread's alone.
#[derive(Debug)]
struct Worker {
    pool: Pool,
    /// For requests that name no host.
    host: HeaderValue,
    timers: Timers,
}

/// Why there is no way to the app.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The URL lacks a scheme or host.
    #[error("the app's URL must be http:// or https:// with a host")]
    Url,
    /// The certificates to check an `https://` app by are missing.
    #[error("no root certificates to check the app's by: {0}")]
    Roots(std::io::Error),
}

impl Forward {
    /// `body_timeout`: how long the app may be silent in the middle of an answer. `workers`: the number of
    /// threads that will send.
    pub fn new(app: &App, body_timeout: Duration, workers: usize) -> Result<Self, ForwardError> {
        static FORWARDS: AtomicUsize = AtomicUsize::new(1);
        let (Some(scheme), Some(authority)) = (app.url.scheme(), app.url.authority()) else {
            return Err(ForwardError::Url);
        };
        let connector = connector(app, scheme)?;
        // Without the user, who is nobody's business.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let worker = |_| {
            let host = HeaderValue::from_str(host).map_err(|_| ForwardError::Url)?;
            let timers = Timers::new(app.response_timeout, app.max_idle);
            Ok(Worker { pool: Pool::new(connector.clone(), app.url.clone(), app.max_idle), host, timers })
        };
        let workers = (0..workers.max(1)).map(worker).collect::<Result<_, ForwardError>>()?;
        let id = FORWARDS.fetch_add(1, Ordering::Relaxed);
        Ok(Forward { id, workers, threads: AtomicUsize::new(0), body_timeout })
    }

    /// Sends a request to the app. The target's path and query, the method and the end-to-end header fields
    /// are kept; the body is the one given, whatever the header says of its length.
    ///
    /// The answer has no informational predecessors and is never a 101.
    pub async fn send(
        &self,
        mut parts: request::Parts,
        body: Body,
        peer: &Peer,
        strip: Strip,
    ) -> Result<Response<Body>, Problem> {
        headers::to_app(&mut parts, peer, strip, false);
        let (response, lease) = self.exchange(parts, body).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(invalid_answer("the app switched protocols unasked"));
        }
        Ok(self.answer(response, lease, strip))
    }

    /// As [`Forward::send`] with [`Strip::Nothing`], for requests that may become a WebSocket.
    pub(super) async fn pass(
        &self,
        parts: request::Parts,
        body: Body,
        peer: &Peer,
        tunnels: &Tunnels,
    ) -> Result<Response<Body>, Problem> {
        if headers::wants_websocket(&parts) {
            // Rare, so that it is not part of every request's future.
            return Box::pin(self.upgrade(parts, body, peer, tunnels)).await;
        }
        self.send(parts, body, peer, Strip::Nothing).await
    }

    async fn upgrade(
        &self,
        mut parts: request::Parts,
        body: Body,
        peer: &Peer,
        tunnels: &Tunnels,
    ) -> Result<Response<Body>, Problem> {
        let client_side = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        headers::to_app(&mut parts, peer, Strip::Nothing, true);
        let (mut response, lease) = self.exchange(parts, body).await?;
        match client_side {
            Some(client_side) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                tunnels.open(client_side, hyper::upgrade::on(&mut response));
                headers::to_client_upgraded(response.headers_mut());
                *response.version_mut() = Version::HTTP_11;
                Ok(response.map(|_| Body::Empty))
            }
            None if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Err(invalid_answer("the app switched protocols unasked"))
            }
            _ => Ok(self.answer(response, lease, Strip::Nothing)),
        }
    }

    async fn exchange(
        &self,
        mut parts: request::Parts,
        mut body: Body,
    ) -> Result<(Response<Incoming>, Lease), Problem> {
        let worker = self.worker();
        origin_form(&mut parts.uri);
        parts.version = Version::HTTP_11;
        if !parts.headers.contains_key(HOST) {
            parts.headers.insert(HOST, worker.host.clone());
        }
        let key = frame(&mut parts, &mut body);
        let progress = match &body {
            Body::Client(body) => body.progress().cloned(),
            _ => None,
        };
        let mut request = Request::from_parts(parts, body);
        if let Some(key) = key {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    key.turn();
                }
            });
        }
        let mut response = pin!(worker.pool.send(request));
        let mut sent = progress.as_ref().map_or(0, |progress| progress.bytes());
        let mut timer = worker.timers.start();
        loop {
            let answered = poll_fn(|cx| match response.as_mut().poll(cx) {
                Poll::Ready(answered) => Poll::Ready(Some(answered)),
                Poll::Pending => timer.poll_expired(cx).map(|()| None),
            });
            match answered.await {
                Some(Ok((response, lease))) => return Ok((sound(response)?, lease)),
                Some(Err(error)) => return Err(problem(&error)),
                None if still_sending(progress.as_ref(), &mut sent) => timer.moved(),
                None => return Err(Reason::AppTimeout.into()),
            }
        }
    }

    /// The app's answer as the client may have it.
    fn answer(&self, response: Response<Incoming>, lease: Lease, strip: Strip) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        headers::to_client(&mut parts.headers, strip);
        // An HTTP/1.0 app must not make us speak 1.0 to a newer client.
        parts.version = Version::HTTP_11;
        let body = if body.is_end_stream() {
            Body::Empty
        } else {
            Body::App(AppBody::new(body, self.body_timeout, lease.unless_free()))
        };
        Response::from_parts(parts, body)
    }

    /// This thread's, so that threads do not wait for each other's pool.
    fn worker(&self) -> &Worker {
        thread_local! {
            /// A forward, and this thread's place in it.
            static PLACE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
        }
        let (id, mut place) = PLACE.get();
        if id != self.id {
            place = self.threads.fetch_add(1, Ordering::Relaxed) % self.workers.len();
            PLACE.set((self.id, place));
        }
        #[expect(clippy::indexing_slicing, reason = "a remainder by the length, which is not zero")]
        &self.workers[place]
    }
}

/// Leaves the path and query of a target, which it nearly always consists of.
fn origin_form(target: &mut Uri) {
    if target.authority().is_none() && target.path_and_query().is_some() {
        return;
    }
    let path = target.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *target = Uri::from(path);
}

fn connector(app: &App, scheme: &Scheme) -> Result<HttpsConnector<HttpConnector>, ForwardError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(app.connect_timeout));
    let provider = rustls::crypto::ring::default_provider();
    let tls = if *scheme == Scheme::HTTPS {
        HttpsConnectorBuilder::new().with_provider_and_native_roots(provider).map_err(ForwardError::Roots)?
    } else {
        HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider)
            .map_err(|error| ForwardError::Roots(std::io::Error::other(error)))?
    };
    Ok(tls.https_or_http().enable_http1().wrap_connector(tcp))
}

/// Sets the framing of the request to that of its body, and shuts the body if the client waits to be asked
/// for it.
fn frame(parts: &mut request::Parts, body: &mut Body) -> Option<super::request_body::Key> {
    let expected = parts.headers.remove(EXPECT);
    match body.size_hint().exact() {
        // hyper would send a GET of unknown length without its content.
        None => {
            parts.headers.remove(CONTENT_LENGTH);
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        Some(0) if !parts.headers.contains_key(CONTENT_LENGTH) && !has_content(&parts.method) => {}
        Some(length) => {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    let expected = expected.filter(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))?;
    match body {
        Body::Client(body) if !body.is_end_stream() => {
            parts.headers.insert(EXPECT, expected);
            Some(body.shut(EXPECT_PATIENCE))
        }
        _ => None,
    }
}

/// Whether an empty request with this method says `Content-Length: 0` (RFC 9110 section 8.6).
fn has_content(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Whether the time since the last look went into sending the request: the client is slow (its own deadline
/// is watched elsewhere), or the app took some of it.
fn still_sending(progress: Option<&Arc<Progress>>, sent: &mut u64) -> bool {
    let Some(progress) = progress else { return false };
    let before = std::mem::replace(sent, progress.bytes());
    (!progress.ended() && progress.starved()) || before != *sent
}

/// Refuses answers whose content we could not hand on as it is.
fn sound(response: Response<Incoming>) -> Result<Response<Incoming>, Problem> {
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(response),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(response),
        _ => Err(invalid_answer("the app used an unknown transfer coding")),
    }
}

fn invalid_answer(why: &'static str) -> Problem {
    tracing::warn!(why, "invalid answer of the app");
    Problem::new(Reason::AppUnreachable).message("the service behind the gateway gave no valid answer")
}

fn problem(error: &SendError) -> Problem {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(body) = error.downcast_ref::<RequestBodyError>() {
            return body.reason().into();
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::TimedOut
        {
            return Reason::AppTimeout.into();
        }
        cause = error.source();
    }
    tracing::debug!(error = error as &dyn Error, "the app is unreachable");
    if matches!(error, SendError::Connect(_)) {
        Reason::AppUnreachable.into()
    } else {
        Problem::new(Reason::AppUnreachable).message("the service behind the gateway gave no valid answer")
    }
}
