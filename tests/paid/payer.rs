//! Somebody with a key, and the payments he signs: honest ones, and others.

use galaksio::clock::Clock;
use galaksio::wallet::Wallet;
use galaksio::x402::{Address, Authorization, B256, Challenge, Version};
use secrecy::SecretString;
use serde_json::Value;

use crate::client::{decode, encode};
use crate::rig::asset;

/// A client's wallet. Each has 100 dollars on the sandbox's ledger.
pub(crate) struct Payer {
    wallet: Wallet,
    key: String,
    clock: Clock,
}

impl Payer {
    pub(crate) fn new() -> Payer {
        Payer::by(Clock::system())
    }

    /// Somebody with this clock.
    pub(crate) fn by(clock: Clock) -> Payer {
        let key = format!("{:064x}", uuid::Uuid::new_v4().as_u128());
        let wallet = Wallet::new(SecretString::from(key.clone()), "1000", vec![asset()]).unwrap();
        Payer { wallet, key, clock }
    }

    pub(crate) fn address(&self) -> Address {
        self.wallet.address()
    }

    /// The private key, as programs want it.
    pub(crate) fn key(&self) -> String {
        format!("0x{}", self.key)
    }

    /// Pays what is asked.
    pub(crate) fn pay(&self, challenge: &Challenge) -> Payment {
        self.pay_as(challenge, |_| {})
    }

    /// Signs an authorization that `change` was made to.
    pub(crate) fn pay_as(&self, challenge: &Challenge, change: impl FnOnce(&mut Authorization)) -> Payment {
        let offered = challenge.accepts.first().expect("nothing is offered");
        let now = self.clock.now();
        let mut authorization = Authorization {
            from: self.address(),
            to: offered.pay_to,
            value: offered.amount,
            valid_after: now - 60,
            valid_before: now + offered.max_timeout_seconds,
            nonce: nonce(),
        };
        change(&mut authorization);
        let signature = self.wallet.sign(&asset(), &authorization).unwrap();
        let (_, value) = challenge.payment(offered, &authorization, &signature);
        Payment { version: challenge.version, authorization, document: decode(&value) }
    }
}

/// A signed payment, open to changes.
#[derive(Clone, Debug)]
pub(crate) struct Payment {
    pub(crate) version: Version,
    pub(crate) authorization: Authorization,
    pub(crate) document: Value,
}

impl Payment {
    /// The header line it is sent in.
    pub(crate) fn header(&self) -> (&'static str, String) {
        let name = match self.version {
            Version::V1 => "x-payment",
            Version::V2 => "payment-signature",
        };
        (name, encode(&self.document))
    }

    /// With the value at a JSON pointer replaced, and no new signature.
    pub(crate) fn with(&self, pointer: &str, value: impl Into<Value>) -> Payment {
        let mut changed = self.clone();
        *changed.document.pointer_mut(pointer).expect(pointer) = value.into();
        changed
    }

    /// The same authorization and signature as a version 1 payment.
    pub(crate) fn as_v1(&self) -> Payment {
        let payload = self.document["payload"].clone();
        let document = serde_json::json!({
            "x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": payload
        });
        Payment { version: Version::V1, authorization: self.authorization, document }
    }
}

fn nonce() -> B256 {
    let mut nonce = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut nonce).unwrap();
    B256::from(nonce)
}
