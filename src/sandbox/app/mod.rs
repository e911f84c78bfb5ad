//! A small existing app, the one behind the gateway: something of each kind that a proxy must pass on.
//!
//! `/`, `/hello`, `/echo`, `/premium/report`, `/events` (SSE), `/ws` (upgrade), `/slow?ms=`,
//! `/status/{code}`, `/headers`, `/large?bytes=`. It knows nothing of payments.

mod tunnel;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::json;

use super::faults::Fault;
use super::serve::{Body, Handler, Running, answer, json};
use crate::clock::Clock;

/// Bytes of one piece of `/large`.
const PIECE: usize = 64 << 10;

pub(super) struct App {
    pub(super) clock: Clock,
    pub(super) running: Running,
}

#[async_trait]
impl Handler for App {
    async fn handle(&self, request: Request<Incoming>, _: Option<Fault>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (_, "/ws") => tunnel::open(request, self.running.clone()),
            (&Method::GET | &Method::HEAD, path) => self.get(path, &request).await,
            (&Method::POST | &Method::PUT | &Method::PATCH, "/echo") => echo(request),
            (method, path) => match path.strip_prefix("/status/") {
                Some(code) => status(code),
                None if method == Method::DELETE => json(StatusCode::OK, &json!({ "deleted": path })),
                None => not_found(path),
            },
        }
    }
}

impl App {
    async fn get(&self, path: &str, request: &Request<Incoming>) -> Response<Body> {
        let number = |name: &str, default: u64| parameter(request.uri().query(), name).unwrap_or(default);
        match path {
            "/" => answer(StatusCode::OK, "text/plain; charset=utf-8", "The app behind the gateway.\n"),
            "/hello" => answer(StatusCode::OK, "text/plain; charset=utf-8", "Hello.\n"),
            "/premium/report" => json(StatusCode::OK, &self.report()),
            "/headers" => json(StatusCode::OK, &json!(by_name(request.headers()))),
            "/events" => events(number("count", 5), Duration::from_millis(number("ms", 100))),
            "/large" => large(number("bytes", 1 << 20)),
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(number("ms", 1000))).await;
                answer(StatusCode::OK, "text/plain; charset=utf-8", "At last.\n")
            }
            _ => path.strip_prefix("/status/").map_or_else(|| not_found(path), status),
        }
    }

    fn report(&self) -> serde_json::Value {
        let rows = [("compute", 41_250), ("storage", 18_900), ("traffic", 7_325)];
        let rows: Vec<_> = rows.iter().map(|(item, cents)| json!({ "item": item, "cents": cents })).collect();
        json!({ "title": "Monthly report", "madeAt": self.clock.now(), "rows": rows, "totalCents": 67_475 })
    }
}

fn parameter(query: Option<&str>, name: &str) -> Option<u64> {
    query?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn by_name(headers: &HeaderMap) -> BTreeMap<&str, Vec<String>> {
    let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        names.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    names
}

/// The body as it comes, trailers included.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut answer = Response::new(body.map_err(std::io::Error::other).boxed_unsync());
    if let Some(content_type) = head.headers.get(header::CONTENT_TYPE) {
        answer.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    }
    answer
}

fn status(code: &str) -> Response<Body> {
    let code = code.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok());
    match code.filter(|code| !code.is_informational()) {
        Some(code @ (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)) => answer(code, "text/plain", ""),
        Some(code) => json(code, &json!({ "status": code.as_u16() })),
        None => json(StatusCode::BAD_REQUEST, &json!({ "error": "not a final status code" })),
    }
}

fn not_found(path: &str) -> Response<Body> {
    json(StatusCode::NOT_FOUND, &json!({ "error": "not found", "path": path }))
}

/// `count` server-sent events, `interval` apart, the first at once.
fn events(count: u64, interval: Duration) -> Response<Body> {
    let events = stream::unfold(0, move |number| async move {
        if number == count {
            return None;
        }
        if number > 0 {
            tokio::time::sleep(interval).await;
        }
        let event = format!("id: {number}\ndata: {{\"number\":{number}}}\n\n");
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(event))), number + 1))
    });
    let mut answer = streamed("text/event-stream", events);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// So many bytes, of known length, made as they are read.
fn large(bytes: u64) -> Response<Body> {
    let piece = Bytes::from_iter((0..PIECE).map(|index| b'a' + (index % 23) as u8));
    let pieces = stream::unfold(bytes, move |left| {
        let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let piece = piece.slice(..length);
        async move { (length > 0).then(|| (Ok::<_, Infallible>(Frame::data(piece)), left - length as u64)) }
    });
    let mut answer = streamed("application/octet-stream", pieces);
    answer.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
    answer
}

fn streamed(
    content_type: &'static str,
    frames: impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static,
) -> Response<Body> {
    let body = StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
