//! An HTTP client that says exactly what a test wants, and reads answers as an x402 client does.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use galaksio::clock::Clock;
use galaksio::x402::{Challenge, Receipt, Version};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;

use crate::payer::{Payer, Payment};

/// What gateways are known as: the same for all, whatever their ports, as behind a balancer.
pub(crate) const HOST: &str = "shop.example";

/// A test that waits longer for an answer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request, before it is paid.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn new(method: Method, path: &str) -> Request {
        let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static(HOST))]);
        Request { method, path: path.to_owned(), headers, body: Bytes::new() }
    }

    pub(crate) fn get(path: &str) -> Request {
        Request::new(Method::GET, path)
    }

    pub(crate) fn post(path: &str, content_type: &str, body: impl Into<Bytes>) -> Request {
        let mut request = Request::new(Method::POST, path).header("content-type", content_type);
        request.body = body.into();
        request
    }

    pub(crate) fn json(path: &str, body: &Value) -> Request {
        Request::post(path, "application/json", body.to_string())
    }

    /// A program to run.
    pub(crate) fn run(code: &str) -> Request {
        Request::json("/run", &serde_json::json!({ "code": code }))
    }

    /// With one more header line.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        self
    }

    /// Paid.
    pub(crate) fn paid(self, payment: &Payment) -> Request {
        let (name, value) = payment.header();
        self.header(name, &value)
    }
}

/// A client of one gateway.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Client {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .http1_max_buf_size(1 << 20)
            .build_http();
        Client { address, http }
    }

    pub(crate) async fn send(&self, request: &Request) -> Answer {
        tokio::time::timeout(PATIENCE, async {
            let (head, body) = self.open(request).await.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer { status: head.status.as_u16(), headers: head.headers, body }
        })
        .await
        .expect("no answer")
    }

    /// The same over a connection of HTTP/2.
    pub(crate) async fn send_http2(&self, request: &Request) -> Answer {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.unwrap();
        let connection = tokio::spawn(connection);
        let mut out = http::Request::new(Full::new(request.body.clone()));
        *out.method_mut() = request.method.clone();
        *out.uri_mut() = format!("http://{HOST}{}", request.path).parse().unwrap();
        *out.headers_mut() = request.headers.clone();
        out.headers_mut().remove(http::header::HOST);
        let (head, body) = sender.send_request(out).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        drop(sender);
        connection.await.unwrap().unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// The head of the answer, its body still to be read.
    pub(crate) async fn open(&self, request: &Request) -> http::Response<hyper::body::Incoming> {
        let mut out = http::Request::new(Full::new(request.body.clone()));
        *out.method_mut() = request.method.clone();
        *out.uri_mut() = format!("http://{}{}", self.address, request.path).parse().unwrap();
        *out.headers_mut() = request.headers.clone();
        self.http.request(out).await.unwrap()
    }

    /// The status of an answer whose body nobody wants.
    pub(crate) async fn send_head(&self, request: &Request) -> u16 {
        self.open(request).await.status().as_u16()
    }

    /// The challenge for a request that is not paid. A gateway waits two seconds for a first price, and says then when to
    /// ask again: on a busy machine that is what it may come to.
    pub(crate) async fn challenge(&self, request: &Request) -> Answer {
        self.challenge_in_time(request, || ()).await
    }

    /// The same by a clock that stands still otherwise: a provider that was too slow is asked again a second later.
    pub(crate) async fn challenge_by(&self, clock: &Clock, request: &Request) -> Answer {
        self.challenge_in_time(request, || clock.advance(1_000)).await
    }

    async fn challenge_in_time(&self, request: &Request, wait: impl Fn()) -> Answer {
        let answer = crate::rig::eventually("a price", async || {
            let answer = self.send(request).await;
            let later = answer.code() == "no_provider" && answer.field("retry-after").is_some();
            if later {
                wait();
            }
            (!later).then_some(answer)
        })
        .await;
        assert_eq!(answer.status, 402, "{answer:?}");
        assert_eq!(answer.code(), "payment_required");
        answer
    }

    /// A payment for a request.
    pub(crate) async fn sign(&self, request: &Request, payer: &Payer, version: Version) -> Payment {
        payer.pay(&self.challenge(request).await.offer(version))
    }

    /// Asks, signs, and presents the payment.
    pub(crate) async fn buy(&self, request: &Request, payer: &Payer, version: Version) -> Answer {
        let payment = self.sign(request, payer, version).await;
        self.send(&request.clone().paid(&payment)).await
    }
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The challenge in it, as a client of this version reads it.
    pub(crate) fn offer(&self, version: Version) -> Challenge {
        let none = HeaderMap::new();
        let headers = if version == Version::V2 { &self.headers } else { &none };
        let challenge = Challenge::from_response(headers, &self.body).unwrap();
        assert_eq!(challenge.version, version);
        challenge
    }

    /// Whether a payment can be made from it.
    pub(crate) fn is_challenge(&self) -> bool {
        self.headers.contains_key("payment-required")
    }

    pub(crate) fn receipt(&self) -> Receipt {
        Receipt::from_headers(&self.headers).unwrap_or_else(|| panic!("no receipt: {self:?}"))
    }

    /// Status, code, `charged` and `retry` at once.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16, code: &str, charged: Option<&str>, retry: Option<&str>) {
        let body = self.json();
        let found = (self.status, body["code"].as_str(), body["charged"].as_str(), body["retry"].as_str());
        assert_eq!(found, (status, Some(code), charged, retry), "{self:?}");
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{self:?}");
        assert_eq!(self.field("cache-control"), Some("no-store"), "{self:?}");
    }
}

/// Base64 of a JSON document, as x402 puts documents in headers.
pub(crate) fn encode(document: &Value) -> String {
    base64_simd::STANDARD.encode_to_string(document.to_string())
}

/// The document in a header.
pub(crate) fn decode(value: &HeaderValue) -> Value {
    serde_json::from_slice(&base64_simd::STANDARD.decode_to_vec(value).unwrap()).unwrap()
}
