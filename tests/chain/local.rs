//! A facilitator of our own, against a real chain: every answer is held against the balances.

mod faults;
mod many;
mod served;
mod verdicts;

use std::sync::Arc;
use std::time::Duration;

use galaksio::clock::Clock;
use galaksio::config::{Environment, load_text};
use galaksio::facilitator::local::LocalFacilitator;
use galaksio::facilitator::{Facilitator, PaymentRequest, Settlement, Verdict};
use galaksio::money::Amount;
use galaksio::x402::{Address, Authorization, PaymentFlow, Receipt, Requirement, Resource, Version};
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};

use crate::anvil::{Chain, Settings};
use crate::token::{authorization, sign};

const PAYEE: Address = Address::repeat_byte(0x77);

/// A chain, and a facilitator that settles on it.
struct Rig {
    chain: Chain,
    gas_key: String,
    gas_account: Address,
    facilitator: Arc<LocalFacilitator>,
}

impl Rig {
    async fn start(settings: Settings) -> Rig {
        Rig::with(Chain::start(settings).await, "").await
    }

    /// With more settings of `[facilitator]`, one a line.
    async fn with(chain: Chain, settings: &str) -> Rig {
        let (gas_key, gas_account) = chain.gas_key().await;
        let facilitator = facilitator(&chain.url, &gas_key, settings);
        Rig { chain, gas_key, gas_account, facilitator }
    }

    /// Another life of the same facilitator.
    fn restart(&mut self) {
        self.facilitator = facilitator(&self.chain.url, &self.gas_key, "");
    }

    /// A payer with this much, and one payment of `units` of his.
    async fn payment(&self, has: u64, units: u64) -> Payment {
        let (key, payer) = self.chain.payer(has).await;
        Payment::new(&self.chain, key, authorization(payer, PAYEE, units))
    }

    async fn verify(&self, request: &PaymentRequest) -> Verdict {
        self.facilitator.verify(request).await.unwrap()
    }

    async fn settle(&self, request: &PaymentRequest) -> Settlement {
        self.facilitator.settle(request).await.unwrap()
    }
}

/// A payment, before it is put into a request.
#[derive(Clone)]
struct Payment {
    key: String,
    requirement: Requirement,
    authorization: Authorization,
    signature: Vec<u8>,
}

impl Payment {
    fn new(chain: &Chain, key: String, authorization: Authorization) -> Payment {
        let signature = sign(&chain.asset(), &key, &authorization).to_vec();
        let requirement = Requirement {
            asset: chain.asset(),
            amount: authorization.value,
            pay_to: authorization.to,
            max_timeout_seconds: 300,
            flow: PaymentFlow::Authorization,
        };
        Payment { key, requirement, authorization, signature }
    }

    /// Signed anew after a change.
    fn signed(mut self) -> Payment {
        self.signature = sign(&self.requirement.asset, &self.key, &self.authorization).to_vec();
        self
    }

    fn request(&self, version: Version) -> PaymentRequest {
        let resource = Resource {
            url: "https://shop.example/thing".to_owned(),
            description: String::new(),
            mime_type: "application/json".to_owned(),
        };
        let requirement = match version {
            Version::V1 => self.requirement.to_v1(&resource).unwrap(),
            Version::V2 => self.requirement.to_v2(&Map::new()),
        };
        self.asking(version, requirement)
    }

    fn v2(&self) -> PaymentRequest {
        self.request(Version::V2)
    }

    /// With this requirement, whatever it is.
    fn asking(&self, version: Version, requirement: Value) -> PaymentRequest {
        let signature = alloy::primitives::hex::encode_prefixed(&self.signature);
        let exact = json!({ "authorization": self.authorization, "signature": signature });
        let payload = match version {
            Version::V1 => {
                json!({ "x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": exact })
            }
            Version::V2 => json!({ "x402Version": 2, "accepted": requirement, "payload": exact }),
        };
        PaymentRequest {
            x402_version: version,
            payment_payload: to_raw_value(&payload).unwrap().into(),
            payment_requirements: to_raw_value(&requirement).unwrap().into(),
            payer: None,
            network: None,
        }
    }
}

fn configuration(url: &str, settings: &str) -> String {
    format!(
        r#"
[app]
url = "http://127.0.0.1:1"
[[accepts]]
network = "base-sepolia"
pay_to = "{PAYEE}"
[[chains]]
network = "base-sepolia"
rpc = ["{url}"]
poll = "20ms"
max_head_age = "3650d"
[facilitator]
kind = "local"
gas_key_env = "GAS"
{settings}
"#
    )
}

fn facilitator(url: &str, gas_key: &str, settings: &str) -> Arc<LocalFacilitator> {
    let environment = Environment::from([("GAS".to_owned(), gas_key.to_owned())]);
    let loaded = load_text("t.toml", &configuration(url, settings), &environment);
    let loaded = loaded.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    Arc::new(LocalFacilitator::new(&loaded.config, Clock::system()).unwrap())
}

#[track_caller]
fn settled(settlement: Settlement) -> Receipt {
    match settlement {
        Settlement::Settled(receipt) => receipt,
        other => panic!("not settled: {other:?}"),
    }
}

#[track_caller]
fn refused(settlement: Settlement) -> String {
    match settlement {
        Settlement::Refused(receipt) => receipt.error_reason.unwrap(),
        other => panic!("not refused: {other:?}"),
    }
}

fn units(amount: u64) -> Amount {
    Amount::new(amount.into())
}
