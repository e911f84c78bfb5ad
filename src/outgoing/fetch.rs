//! Calling what a client's URL names, at public addresses only: to fetch what is there, or to tell it something.
//!
//! The address is checked where it is connected to, after the name was resolved, so neither a name that resolves to a
//! private address, nor one that resolves differently the second time, nor a redirect leads inside. No connection is
//! used twice; nothing of the client's is sent along, and no proxy of the environment is used.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::public::{Exceptions, PublicNames, is_allowed, is_refused};
use super::{AGENT, JSON, MAX_HEAD};

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Bytes of a URL at most.
const MAX_URL: usize = 2048;
/// Resolving, connecting, and the head of an answer, wherever redirects lead.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A source that sends nothing for so long is given up.
const PAUSE: Duration = Duration::from_secs(15);

/// Fetches. Clones share nothing that matters.
#[derive(Clone)]
pub struct Fetch {
    client: Client<HttpsConnector<HttpConnector<PublicNames>>, Full<Bytes>>,
    exceptions: Exceptions,
}

/// What is at a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub content_type: Option<String>,
}

/// Bytes on their way from a URL.
#[derive(Debug)]
pub struct Fetched {
    body: Incoming,
    /// How many they are.
    pub size: u64,
}

/// Why there is nothing. The texts tell a client no more about our network than it knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It is not to be fetched.
    #[error("{0}")]
    Refused(&'static str),
    /// It cannot be fetched.
    #[error("{0}")]
    Failed(String),
}

const NOT_A_URL: FetchError =
    FetchError::Refused("it is not an http or https URL of at most 2048 characters, without a user name");
const NOT_PUBLIC: FetchError = FetchError::Refused("it is not at a public address");

impl Fetch {
    /// Fetches from public addresses and `exceptions`.
    pub fn new(exceptions: Exceptions) -> Result<Self, rustls::Error> {
        Fetch::by(PublicNames::new(Arc::clone(&exceptions)), exceptions)
    }

    fn by(names: PublicNames, exceptions: Exceptions) -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new_with_resolver(names);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(HEAD_TIME));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_max_idle_per_host(0)
            .http1_max_buf_size(MAX_HEAD)
            .build(connector);
        Ok(Fetch { client, exceptions })
    }

    /// What is at this URL, by `HEAD`; by the head of a `GET` where that tells nothing.
    pub async fn find(&self, url: &str) -> Result<Found, FetchError> {
        for method in [Method::HEAD, Method::GET] {
            let last = method == Method::GET;
            match self.open(method, url).await {
                Ok(response) => match found(&response) {
                    Ok(found) => return Ok(found),
                    Err(error) if last => return Err(error),
                    Err(_) => {}
                },
                Err(error @ FetchError::Refused(_)) => return Err(error),
                Err(error) if last => return Err(error),
                Err(_) => {}
            }
        }
        Err(FetchError::Failed("it tells no size".to_owned()))
    }

    /// The bytes at this URL.
    pub async fn get(&self, url: &str) -> Result<Fetched, FetchError> {
        let response = self.open(Method::GET, url).await?;
        let size = found(&response)?.size;
        Ok(Fetched { body: response.into_body(), size })
    }

    /// Posts JSON to this URL, with these header fields beside it. No redirect is followed: whoever is told is named whole.
    pub async fn post(&self, url: &str, headers: HeaderMap, json: Bytes) -> Result<StatusCode, FetchError> {
        let mut request = Request::new(Full::new(json));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.check(url)?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(CONTENT_TYPE, JSON);
        Ok(self.send(request).await?.status())
    }

    async fn open(&self, method: Method, url: &str) -> Result<Response<Incoming>, FetchError> {
        let late = |_| FetchError::Failed("it does not answer in time".to_owned());
        timeout(HEAD_TIME, self.follow(method, url)).await.map_err(late)?
    }

    async fn follow(&self, method: Method, url: &str) -> Result<Response<Incoming>, FetchError> {
        let mut url = self.check(url)?;
        for _ in 0..=REDIRECTS {
            let mut request = Request::new(Full::default());
            *request.method_mut() = method.clone();
            *request.uri_mut() = url.clone();
            let response = self.send(request).await?;
            match (response.status(), response.headers().get(LOCATION)) {
                (StatusCode::OK, _) => return Ok(response),
                (status, Some(location)) if status.is_redirection() => {
                    let location = location.to_str().map_err(|_| NOT_A_URL)?;
                    url = self.check(&resolved(&url, location))?;
                }
                (status, _) => return Err(FetchError::Failed(format!("it answers {}", status.as_u16()))),
            }
        }
        Err(FetchError::Failed("it redirects too often".to_owned()))
    }

    /// The head of the answer.
    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, FetchError> {
        request.headers_mut().insert(USER_AGENT, AGENT);
        let response = timeout(HEAD_TIME, self.client.request(request)).await;
        let response = response.map_err(|_| FetchError::Failed("it does not answer in time".to_owned()))?;
        response.map_err(|error| match is_refused(&error) {
            true => NOT_PUBLIC,
            false => FetchError::Failed("it cannot be reached".to_owned()),
        })
    }

    /// The URL, if what it says itself is allowed. What its name says is found out on the way.
    pub fn check(&self, url: &str) -> Result<Uri, FetchError> {
        let plain = url.len() <= MAX_URL && url.bytes().all(|byte| byte.is_ascii_graphic());
        let uri: Uri = url.parse().ok().filter(|_| plain).ok_or(NOT_A_URL)?;
        let web = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.host().filter(|host| web && !host.is_empty()).ok_or(NOT_A_URL)?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(NOT_A_URL);
        }
        // The connector does not resolve what is an address already.
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match literal.parse::<IpAddr>() {
            Ok(address) if !is_allowed(address, &self.exceptions) => Err(NOT_PUBLIC),
            _ => Ok(uri),
        }
    }
}

impl Fetched {
    /// The next bytes.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let frame = timeout(PAUSE, self.body.frame()).await;
            let frame = frame.map_err(|_| FetchError::Failed("it sends no more".to_owned()))?;
            match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err(FetchError::Failed("it breaks off".to_owned())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

fn found(response: &Response<Incoming>) -> Result<Found, FetchError> {
    let text = |name| response.headers().get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let size = text(CONTENT_LENGTH).and_then(|size| size.parse().ok());
    let size = size.ok_or_else(|| FetchError::Failed("it tells no size (Content-Length)".to_owned()))?;
    Ok(Found { size, content_type: text(CONTENT_TYPE).map(str::to_owned) })
}

/// Where a `Location` leads from `base` (RFC 3986 section 5.2, as far as servers use it).
fn resolved(base: &Uri, location: &str) -> String {
    let (scheme, authority) =
        (base.scheme_str().unwrap_or_default(), base.authority().map_or("", |a| a.as_str()));
    if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    }
}

#[cfg(test)]
mod tests;
