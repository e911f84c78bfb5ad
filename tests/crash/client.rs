//! A client: asks, signs what it is asked for, and presents the same payment as often as it is told to.

use std::net::SocketAddr;

use bytes::Bytes;
use galaksio::ids::JobId;
use galaksio::jobs::ClaimKey;
use galaksio::sandbox::NETWORK;
use galaksio::wallet::Wallet;
use galaksio::x402::{Address, Asset, Authorization, B256, Challenge, Version};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// The private key of every client.
pub(crate) const CLIENT_KEY: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// The length of a [`Order::Report`].
pub(crate) const REPORT: usize = 2 << 20;

/// What is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// `/run`, by Merit Systems.
    Run,
    /// The same on a route that settles upfront.
    RunUpfront,
    /// `/store` of a file for good, by OpenX402: upload, then pin.
    StorePinned,
    /// `/store` for a time, by xCache: no payment of the job's own.
    StoreCached,
    /// `/store` of two files in one form for good: each its own upload and pin.
    StoreTwo,
    /// The same of three.
    StoreThree,
    /// A priced route of the app.
    App,
    /// The same on a route that settles upfront.
    AppUpfront,
    /// The same on a route that answers before it settles.
    AppAfter,
    /// An answer of the app that is too large for the record of its job.
    Large,
    /// The same, and not so large that there is no room for it on the way.
    Report,
}

impl Order {
    /// How many files are bought at once, where it is several.
    pub(crate) fn files(self) -> Option<u128> {
        match self {
            Order::StoreTwo => Some(2),
            Order::StoreThree => Some(3),
            _ => None,
        }
    }

    /// Its content type and body; both empty without one.
    fn body(self) -> (&'static str, String) {
        match self.request() {
            (_, _, Value::Null) => ("", String::new()),
            (_, _, Value::String(form)) => ("multipart/form-data; boundary=b", form),
            (_, _, json) => ("application/json", json.to_string()),
        }
    }

    fn request(self) -> (Method, &'static str, Value) {
        match self {
            Order::StoreTwo => (Method::POST, "/store?files=2&permanent=true", form(&["one", "two"]).into()),
            Order::StoreThree => {
                (Method::POST, "/store?files=3&permanent=true", form(&["one", "two", "three"]).into())
            }
            Order::Run => (Method::POST, "/run", json!({ "code": "print(1)" })),
            Order::RunUpfront => (Method::POST, "/prepaid/run", json!({ "code": "print(2)" })),
            Order::StorePinned => {
                let options = json!({ "permanent": true });
                (Method::POST, "/store", json!({ "data": "a text, not base64", "options": options }))
            }
            Order::StoreCached => {
                let options = json!({ "ttl": 600 });
                (Method::POST, "/store", json!({ "data": "a text, not base64", "options": options }))
            }
            Order::App => (Method::GET, "/premium/report", Value::Null),
            Order::AppUpfront => (Method::GET, "/hello", Value::Null),
            Order::AppAfter => (Method::POST, "/echo", json!({ "say": "hello" })),
            Order::Large => (Method::GET, "/large?bytes=67108864", Value::Null),
            Order::Report => (Method::GET, "/large?bytes=2097152", Value::Null),
        }
    }
}

/// A form of files whose content is their name.
fn form(names: &[&str]) -> String {
    let file = |name: &&str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{name}\r\n")
    };
    names.iter().map(file).collect::<String>() + "--b--\r\n"
}

/// A complete answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A signed payment and the request it is for.
#[derive(Clone, Debug)]
pub(crate) struct Purchase {
    pub(crate) order: Order,
    pub(crate) version: Version,
    header: (HeaderName, HeaderValue),
    pub(crate) authorization: Authorization,
    pub(crate) claim: ClaimKey,
    /// The id in the challenge: for version 2, the job's.
    pub(crate) job: JobId,
}

/// Somebody with a key and dollars.
#[derive(Clone)]
pub(crate) struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    wallet: std::sync::Arc<Wallet>,
    pub(crate) asset: Asset,
}

impl Client {
    pub(crate) fn new() -> Client {
        let asset = Asset::default_for(NETWORK).unwrap();
        let wallet = Wallet::new(CLIENT_KEY.to_owned().into(), "10", vec![asset.clone()]).unwrap();
        // A connection of its own for each request: one that was cut must not break the next.
        let http = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Client { http, wallet: wallet.into(), asset }
    }

    pub(crate) fn address(&self) -> Address {
        self.wallet.address()
    }

    /// Asks for `order` without a payment.
    pub(crate) async fn ask(&self, edge: SocketAddr, order: Order) -> Result<Answer, Cut> {
        self.send(edge, order, None).await
    }

    /// Signs the challenge that `order` was answered with.
    pub(crate) fn accept(&self, challenge: &Answer, order: Order, version: Version) -> Purchase {
        let headers = match version {
            Version::V1 => HeaderMap::new(),
            Version::V2 => challenge.headers.clone(),
        };
        let job = challenge.json()["jobId"].as_str().unwrap().parse().unwrap();
        let challenge = Challenge::from_response(&headers, &challenge.body).unwrap();
        assert_eq!(challenge.version, version);
        let offered = &challenge.accepts[0];
        let now = galaksio::clock::Clock::system().now();
        let authorization = Authorization {
            from: self.address(),
            to: offered.pay_to,
            value: offered.amount,
            valid_after: now - 60,
            valid_before: now + offered.max_timeout_seconds,
            nonce: nonce(),
        };
        let signature = self.wallet.sign(&self.asset, &authorization).unwrap();
        let header = challenge.payment(offered, &authorization, &signature);
        let claim = ClaimKey::new(&self.asset, authorization.from, authorization.nonce);
        Purchase { order, version, header, authorization, claim, job }
    }

    /// Presents the payment with its request.
    pub(crate) async fn present(&self, edge: SocketAddr, purchase: &Purchase) -> Result<Answer, Cut> {
        self.send(edge, purchase.order, Some(&purchase.header)).await
    }

    /// Presents it in the background.
    pub(crate) fn presenting(
        &self,
        edge: SocketAddr,
        purchase: &Purchase,
    ) -> tokio::task::JoinHandle<Result<Answer, Cut>> {
        let (client, purchase) = (self.clone(), purchase.clone());
        tokio::spawn(async move { client.present(edge, &purchase).await })
    }

    /// The bytes of the request that presents the payment, for a client that never reads its answer.
    pub(crate) fn raw(&self, purchase: &Purchase) -> Vec<u8> {
        let (method, path, _) = purchase.order.request();
        let (content_type, body) = purchase.order.body();
        let (name, value) = &purchase.header;
        let value = value.to_str().unwrap();
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nhost: gateway.test\r\ncontent-type: {content_type}\r\n\
             {name}: {value}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    pub(crate) async fn get(&self, at: SocketAddr, path: &str) -> Result<Answer, Cut> {
        self.exchange(Request::get(format!("http://{at}{path}")).body(Full::default()).unwrap()).await
    }

    async fn send(
        &self,
        edge: SocketAddr,
        order: Order,
        payment: Option<&(HeaderName, HeaderValue)>,
    ) -> Result<Answer, Cut> {
        let (method, path, _) = order.request();
        let (content_type, body) = order.body();
        let mut request = Request::builder().method(method).uri(format!("http://{edge}{path}"));
        if let Some((name, value)) = payment {
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.header("content-type", content_type);
        }
        self.exchange(request.body(Full::new(body.into())).unwrap()).await
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Cut> {
        let cut = |error: &dyn std::fmt::Debug| Cut(format!("{error:?}"));
        let response = self.http.request(request).await.map_err(|error| cut(&error))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| cut(&error))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// The connection ended before the answer did.
#[derive(Debug)]
pub(crate) struct Cut(#[expect(dead_code, reason = "shown by a failed expectation")] String);

fn nonce() -> B256 {
    let half = || *uuid::Uuid::new_v4().as_bytes();
    B256::from_slice(&[half(), half()].concat())
}
