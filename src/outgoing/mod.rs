//! The HTTP client for calls to providers and the facilitator, with a deadline and a size limit for everything.
//!
//! It knows nothing of payments, but tells apart what paying needs told apart: a call that provably never
//! left ([`OutgoingError::was_sent`] is false), and one whose effect is unknown. It follows no redirects, keeps no
//! cookies, and sends the header fields it is given plus `Host`, `User-Agent`, `Accept` and `Content-Length`.

mod answer;
mod body;
mod connect;
mod error;
mod fetch;
mod public;
#[cfg(test)]
pub(crate) mod stub;
#[cfg(test)]
mod tests;

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::by_runtime::ByRuntime;
pub use answer::Opened;
use body::Outbound;
pub use body::{BoxError, Frames, Parts, Stream, Streamed};
pub use error::OutgoingError;
pub use fetch::{Fetch, FetchError, Fetched, Found};
pub use public::Exceptions;

/// Bytes of an answer's body at most, unless the call says otherwise.
pub const DEFAULT_MAX_ANSWER: usize = 1 << 20;

/// A response head may be this large: twice the largest payment header in use, with room for the rest.
const MAX_HEAD: usize = 64 << 10;

/// Node's servers close an idle connection after five seconds. A request that meets that close has an unknown
/// outcome, so ours are given up before.
const IDLE: Duration = Duration::from_secs(4);

const AGENT: HeaderValue = HeaderValue::from_static(concat!("galaksio/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The settings of a client.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Allows `http://` to any host. Loopback may always be called without TLS.
    pub allow_plain_http: bool,
}

/// A pooled HTTP/1.1 and HTTP/2 client. Clones share the pools, of which each runtime has one.
///
/// It may be used from several tokio runtimes. A connection is driven by the runtime that opened it, and a call
/// running on one that is shut down ends in [`OutgoingError::Broken`]: a runtime ends after the paid work on it.
#[derive(Clone, Debug)]
pub struct Outgoing {
    clients: Arc<ByRuntime<Client<connect::Connector, Outbound>>>,
    allow_plain_http: bool,
}

/// One call: what is sent, and the limits it is held to.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    url: Uri,
    headers: HeaderMap,
    body: Parts,
    max_answer: usize,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Outgoing {
    /// A client that trusts the Mozilla roots. Fails only if the TLS library offers no protocol version.
    pub fn new(settings: Settings) -> Result<Self, rustls::Error> {
        let connector = connect::Connector::new(settings.connect_timeout)?;
        let client = move || {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .http1_max_buf_size(MAX_HEAD)
                .http2_max_header_list_size(MAX_HEAD as u32)
                .build(connector.clone())
        };
        let clients = Arc::new(ByRuntime::new(client));
        Ok(Outgoing { clients, allow_plain_http: settings.allow_plain_http })
    }

    /// Makes the call. `deadline` bounds all of it: connecting, sending, and reading the last byte of the answer.
    /// Any status is an answer.
    pub async fn send(&self, mut call: Call, deadline: Duration) -> Result<Answer, OutgoingError> {
        let body = std::mem::take(&mut call.body);
        self.send_body(call, Outbound::Parts(body), deadline).await
    }

    /// Makes the call with this body in place of its own, as it arrives. If the stream ends in an error, the other side
    /// never gets the last byte.
    pub async fn stream(
        &self,
        call: Call,
        body: Streamed,
        deadline: Duration,
    ) -> Result<Answer, OutgoingError> {
        self.send_body(call, Outbound::Streamed(body), deadline).await
    }

    /// Makes the call, and gives its answer's body as it arrives: at most so many bytes as the call says, and never nothing
    /// for long. `deadline` bounds everything up to the answer's head.
    pub async fn open(&self, mut call: Call, deadline: Duration) -> Result<Opened, OutgoingError> {
        let (body, limit) = (std::mem::take(&mut call.body), call.max_answer);
        let open = |response| ready(answer::open(response, limit));
        self.exchange(call, Outbound::Parts(body), deadline, open).await
    }

    async fn send_body(
        &self,
        call: Call,
        body: Outbound,
        deadline: Duration,
    ) -> Result<Answer, OutgoingError> {
        let limit = call.max_answer;
        self.exchange(call, body, deadline, |response| answer::read(response, limit)).await
    }

    /// The call, and of its answer what `take` takes, all before the deadline.
    async fn exchange<T, F>(
        &self,
        call: Call,
        body: Outbound,
        deadline: Duration,
        take: impl FnOnce(http::Response<hyper::body::Incoming>) -> F,
    ) -> Result<T, OutgoingError>
    where
        F: Future<Output = Result<T, OutgoingError>>,
    {
        self.check_scheme(&call.url)?;
        let mut request = call.into_request(body);
        let connection = capture_connection(&mut request);
        // The connection is noted before the first byte of the request is written.
        let connected = || connection.connection_metadata().is_some();
        let exchange = async {
            let response = self.clients.here().request(request).await;
            take(response.map_err(|error| OutgoingError::from_client(&error, connected()))?).await
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(outcome) => outcome,
            Err(_) if connected() => Err(OutgoingError::Timeout),
            Err(_) => Err(OutgoingError::ConnectTimeout),
        }
    }

    fn check_scheme(&self, url: &Uri) -> Result<(), OutgoingError> {
        let allowed = match (url.scheme_str(), url.host()) {
            (Some("https"), Some(_)) => true,
            (Some("http"), Some(host)) => self.allow_plain_http || is_loopback(host),
            _ => false,
        };
        if allowed { Ok(()) } else { Err(OutgoingError::NotAllowed) }
    }
}

impl Call {
    /// A `GET`.
    pub fn get(url: Uri) -> Self {
        Call::new(Method::GET, url, Parts::default())
    }

    /// A request with this body of JSON.
    pub fn json(method: Method, url: Uri, body: impl Into<Bytes>) -> Self {
        Call::new(method, url, Parts::from(body.into())).header(CONTENT_TYPE, JSON)
    }

    /// A request with this body; `Content-Length` is its length.
    pub fn new(method: Method, url: Uri, body: Parts) -> Self {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(USER_AGENT, AGENT);
        headers.insert(ACCEPT, JSON);
        Call { method, url, headers, body, max_answer: DEFAULT_MAX_ANSWER }
    }

    /// With this header field.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With another limit on the answer's body, in bytes.
    #[must_use]
    pub fn max_answer(mut self, bytes: usize) -> Self {
        self.max_answer = bytes;
        self
    }

    fn into_request(self, body: Outbound) -> Request<Outbound> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.url;
        *request.headers_mut() = self.headers;
        request
    }
}

/// Whether `host`, as written in a URL, is this machine. `localhost` counts (RFC 6761 section 6.3).
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match address.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}
