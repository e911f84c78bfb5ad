//! Payers and a small HTTP client for the sandbox's own tests.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::{Sandbox, Settings};
use crate::clock::Clock;
use crate::money::Amount;
use crate::x402::{Address, Asset, Authorization, B256, Network, abi};

/// The sandbox's token.
pub(super) fn asset() -> Asset {
    Asset::default_for(Network(84_532)).unwrap()
}

/// Somebody with a key.
pub(super) struct Payer {
    key: B256,
    address: Address,
}

impl Payer {
    pub(super) fn new(number: u8) -> Self {
        // His address is whatever the signature of an arbitrary message recovers to.
        let (key, nobody) = (B256::repeat_byte(number), Address::ZERO);
        let signature = abi::sign_cancel(&asset(), nobody, B256::ZERO, &key).unwrap();
        let address = abi::recover_cancel(&asset(), nobody, B256::ZERO, &signature).unwrap();
        Payer { key, address }
    }

    pub(super) fn address(&self) -> Address {
        self.address
    }

    /// A payment to `to`, valid for a minute around `now`, with a random nonce.
    pub(super) fn authorize(&self, to: Address, value: u128, now: u64) -> (Authorization, Vec<u8>) {
        let authorization = Authorization {
            from: self.address(),
            to,
            value: Amount::new(value),
            valid_after: now - 60,
            valid_before: now + 60,
            nonce: super::hash(&[uuid::Uuid::new_v4().as_bytes()]),
        };
        (authorization, self.sign(&authorization))
    }

    pub(super) fn sign(&self, authorization: &Authorization) -> Vec<u8> {
        abi::sign_transfer(&asset(), authorization, &self.key).unwrap().to_vec()
    }

    pub(super) fn sign_cancel_for(&self, authorizer: Address, nonce: B256) -> Vec<u8> {
        abi::sign_cancel(&asset(), authorizer, nonce, &self.key).unwrap().to_vec()
    }
}

/// When tests begin.
pub(super) const NOW: u64 = 1_800_000_000;

/// A sandbox, its clock, and somebody who talks to it.
pub(super) struct Bench {
    pub(super) sandbox: Sandbox,
    pub(super) clock: Clock,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The JSON in a base64 header.
    pub(super) fn header_json(&self, name: &str) -> Value {
        let bytes = base64_simd::STANDARD.decode_to_vec(self.headers[name].as_bytes()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }
}

impl Bench {
    pub(super) async fn new() -> Bench {
        Bench::with(Settings::default()).await
    }

    pub(super) async fn with(settings: Settings) -> Bench {
        let clock = Clock::manual(NOW * 1000);
        let sandbox = Sandbox::start(Settings { clock: clock.clone(), ..settings }).await.unwrap();
        // Every request on a connection of its own: one that was dropped must not break the next.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Bench { sandbox, clock, client }
    }

    pub(super) async fn try_send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, body) = self.client.request(request.body(Full::new(body.into()))?).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    pub(super) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.try_send(method, url, headers, body).await.unwrap()
    }

    pub(super) async fn get(&self, url: &str) -> Answer {
        self.send(Method::GET, url, &[], "").await
    }

    pub(super) async fn post(&self, url: &str, body: &Value) -> Answer {
        self.send(Method::POST, url, &[("content-type", "application/json")], body.to_string()).await
    }

    /// An `X-PAYMENT` header for the first entry of a v1 challenge.
    pub(super) fn v1_payment(&self, payer: &Payer, challenge: &Answer) -> String {
        assert_eq!(challenge.status, StatusCode::PAYMENT_REQUIRED, "{challenge:?}");
        let body = challenge.json();
        assert_eq!(body["x402Version"], 1);
        let accept = &body["accepts"][0];
        let amount = accept["maxAmountRequired"].as_str().unwrap().parse().unwrap();
        let to = accept["payTo"].as_str().unwrap().parse().unwrap();
        v1_header(&payer.authorize(to, amount, self.clock.now()))
    }

    /// A `PAYMENT-SIGNATURE` header for the first entry of a v2 challenge.
    pub(super) fn v2_payment(&self, payer: &Payer, challenge: &Answer) -> String {
        assert_eq!(challenge.status, StatusCode::PAYMENT_REQUIRED, "{challenge:?}");
        let required = challenge.header_json("payment-required");
        assert_eq!(required["x402Version"], 2);
        let mut accepted = required["accepts"][0].clone();
        accepted["extra"]["note"] = "clients may add to extra".into();
        let amount = accepted["amount"].as_str().unwrap().parse().unwrap();
        let to = accepted["payTo"].as_str().unwrap().parse().unwrap();
        let (authorization, signature) = payer.authorize(to, amount, self.clock.now());
        let payload = json!({ "authorization": authorization, "signature": hex_of(&signature) });
        let payment = json!({ "x402Version": 2, "payload": payload, "accepted": accepted });
        base64_simd::STANDARD.encode_to_string(payment.to_string())
    }
}

/// The v1 payload of a signed authorization.
pub(super) fn v1_payload((authorization, signature): &(Authorization, Vec<u8>)) -> Value {
    json!({
        "x402Version": 1,
        "scheme": "exact",
        "network": "base-sepolia",
        "payload": { "authorization": authorization, "signature": hex_of(signature) },
    })
}

/// The same as an `X-PAYMENT` header.
pub(super) fn v1_header(signed: &(Authorization, Vec<u8>)) -> String {
    base64_simd::STANDARD.encode_to_string(v1_payload(signed).to_string())
}

pub(super) fn hex_of(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}
