//! What the adapters' tests share: orders, challenges, a purse and a wallet that write down what they are asked.

use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::exchange::Line;
use super::{
    InventoryOrder, InventoryWallet, Offer, Operation, Order, PaymentHeader, Provider, Purse, PurseError,
};
use crate::ids::JobId;
use crate::intake::{Ask, Content, Encoding, Kind, Wanted};
pub(super) use crate::jobs::memory::MemoryStore;
use crate::money::Amount;
use crate::outgoing::stub::{Reply, Seen, Stub};
use crate::outgoing::{Outgoing, Settings};
use crate::x402::{Address, Asset, Challenge, Network};

pub(super) const SOON: Duration = Duration::from_millis(150);
pub(super) const LATER: Duration = Duration::from_secs(10);
/// How long a price is waited for, and whatever else has to come to something in time: a machine with other work has pauses.
pub(super) const PAUSES: Duration = Duration::from_secs(3);
const PAYEE: &str = "0x209693bc6afc0c5328ba36faf03c514ef312287c";

pub(super) fn asset() -> Asset {
    Asset::default_for(Network(84_532)).unwrap()
}

pub(super) fn line() -> Line {
    let settings = Settings { connect_timeout: LATER, allow_plain_http: false };
    Line::new(Outgoing::new(settings).unwrap(), &[asset()]).with_probe_deadline(PAUSES)
}

pub(super) fn offer(cost: u128) -> Offer {
    Offer { cost: Amount::new(cost), asset: asset(), pay_to: PAYEE.parse().unwrap() }
}

/// A v1 challenge, with fields nobody documents.
pub(super) fn challenge(amount: &str) -> Value {
    json!({"x402Version": 1, "error": "Payment Required", "surprise": [1], "accepts": [
        {"scheme": "exact", "network": "base-sepolia", "maxAmountRequired": amount,
         "resource": "http://127.0.0.1:1/e2b/execute", "description": "", "mimeType": "application/json",
         "payTo": PAYEE, "maxTimeoutSeconds": 1000, "asset": asset().address.to_string(),
         "outputSchema": {"x": 1}, "extra": {"name": "USDC", "version": "2"},
         "type": "x", "version": "y", "recipient": PAYEE, "currency": "USDC", "discoverable": true},
    ]})
}

pub(super) fn payment_required(amount: &str) -> Reply {
    Reply::json(402, &challenge(amount))
}

pub(super) fn is_paid(seen: &Seen) -> bool {
    seen.headers.contains_key("x-payment")
}

pub(super) fn store_ask(kind: Kind, permanent: bool, ttl: Option<u64>, size: u64) -> Ask {
    Ask { wanted: Wanted::Store { permanent, ttl }, kind, size, files: 1 }
}

pub(super) fn run_ask(language: &str, size: u64) -> Ask {
    Ask { wanted: Wanted::Run { language: language.into() }, kind: Kind::Code, size, files: 1 }
}

pub(super) fn order(operation: Operation, mut ask: Ask, bytes: &[u8]) -> Order {
    ask.size = bytes.len() as u64;
    Order {
        job: JobId::new(),
        attempt: 1,
        part: 0,
        operation: operation.into(),
        ask,
        content: Content {
            data: bytes::Bytes::from(bytes.to_vec()).into(),
            digest: [0; 32],
            encoding: Encoding::Raw,
            filename: Some("note.bin".into()),
            content_type: Some("application/x-note".into()),
        },
        offer: offer(280),
        deadline: LATER,
    }
}

/// Every request carries what we put there and nothing else: no client's header, no credential.
pub(super) fn assert_only_our_headers(seen: &[Seen]) {
    const OURS: [&str; 6] = ["accept", "content-length", "content-type", "host", "user-agent", "x-payment"];
    for name in seen.iter().flat_map(|seen| seen.headers.keys()) {
        assert!(OURS.contains(&name.as_str()), "{name} was sent");
    }
}

/// Everything that is not a readable 402 in an asset of ours is no offer.
pub(super) async fn assert_no_offer_from_others<P: Provider>(
    make: impl Fn(Uri) -> P,
    operation: Operation,
    ask: &Ask,
) {
    type Row = (&'static str, fn() -> Reply);
    let table: [Row; 12] = [
        ("404", || Reply::html(404)),
        ("500", || Reply::json(500, &json!({"error": "x"}))),
        ("200", || Reply::json(200, &challenge("1"))),
        ("302", || Reply::Http(302, vec![("location", "/".into())], vec![])),
        ("HTML 402", || Reply::html(402)),
        ("402 in another asset", || {
            let mut other = challenge("1");
            other["accepts"][0]["asset"] = PAYEE.into();
            Reply::json(402, &other)
        }),
        ("402 on another network", || {
            let mut other = challenge("1");
            other["accepts"][0]["network"] = "base".into();
            Reply::json(402, &other)
        }),
        ("402 for a token of another name", || {
            let mut other = challenge("1");
            other["accepts"][0]["extra"]["name"] = "USD Coin".into();
            Reply::json(402, &other)
        }),
        ("402 without entries", || Reply::json(402, &json!({"x402Version": 1, "accepts": []}))),
        ("garbage", || Reply::Raw(b"garbage\r\n\r\n".to_vec())),
        ("drop", Reply::drop),
        ("timeout", || Reply::Stall(b"HTTP/1.1 402 X\r\n")),
    ];
    for (row, reply) in table {
        let stub = Stub::start(move |_| reply()).await;
        let outcome = make(stub.url("")).offer(operation, ask).await;
        assert!(outcome.is_err(), "{row}: {outcome:?}");
        assert_eq!(stub.seen().len(), 1, "{row}: a probe is sent once");
    }
}

/// Pays with a header that says what for.
#[derive(Default)]
pub(super) struct FakePurse {
    pub(super) refuses: Option<PurseError>,
    paid: Mutex<Vec<(&'static str, Amount)>>,
}

impl FakePurse {
    pub(super) fn refusing(error: PurseError) -> Self {
        FakePurse { refuses: Some(error), ..FakePurse::default() }
    }

    /// Steps and amounts, in order.
    pub(super) fn paid(&self) -> Vec<(&'static str, Amount)> {
        self.paid.lock().clone()
    }
}

#[async_trait]
impl Purse for FakePurse {
    async fn pay(&self, step: &str, challenge: &Challenge) -> Result<PaymentHeader, PurseError> {
        if let Some(error) = &self.refuses {
            return Err(error.clone());
        }
        self.paid.lock().push((step.to_owned().leak(), challenge.accepts[0].amount));
        Ok(header(format!("payment for {step}")))
    }
}

/// Signs with the scope as the signature, so that tests see which purchase was sent.
#[derive(Default)]
pub(super) struct FakeWallet {
    pub(super) signed: Mutex<Vec<InventoryOrder>>,
    pub(super) refuses: Mutex<bool>,
}

#[async_trait]
impl InventoryWallet for FakeWallet {
    async fn sign(&self, order: &InventoryOrder, _: &Challenge) -> Result<PaymentHeader, PurseError> {
        if *self.refuses.lock() {
            let amount = order.offer.cost;
            return Err(PurseError::OverCap { amount, cap: Amount::ZERO });
        }
        self.signed.lock().push(order.clone());
        Ok(header(format!("{} until {}", order.scope, order.valid_before)))
    }
}

fn header(text: String) -> PaymentHeader {
    PaymentHeader { name: HeaderName::from_static("x-payment"), value: HeaderValue::try_from(text).unwrap() }
}

/// The JSON documents in a store.
pub(super) trait Documents {
    fn json(&self, space: &str, key: &str) -> Option<Value>;
    fn set_json(&self, space: &str, key: &str, value: &Value);
}

impl Documents for MemoryStore {
    fn json(&self, space: &str, key: &str) -> Option<Value> {
        self.bytes(space, key).map(|bytes| serde_json::from_slice(&bytes).unwrap())
    }

    fn set_json(&self, space: &str, key: &str, value: &Value) {
        self.set(space, key, value.to_string().into_bytes());
    }
}

/// Nobody is paid.
pub(super) const NOBODY: Address = Address::ZERO;
