//! Payers and a small HTTP client for the sandbox's own tests.

use crate::money::Amount;
use crate::x402::{Address, Asset, Authorization, B256, Network, abi, eip3009};

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
        eip3009::sign(&asset(), authorization, &self.key).unwrap().to_vec()
    }

    pub(super) fn sign_cancel_for(&self, authorizer: Address, nonce: B256) -> Vec<u8> {
        abi::sign_cancel(&asset(), authorizer, nonce, &self.key).unwrap().to_vec()
    }
}
