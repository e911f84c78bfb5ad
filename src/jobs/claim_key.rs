//! What makes a client's payment one: the key under which a store claims it.

use serde::{Deserialize, Serialize};

use crate::x402::{Address, Asset, B256};

/// What makes a client payment unique: `eip155:84532/0x<asset>/0x<from>/0x<nonce>`, lower case.
/// The same authorization presented as v1 or v2, in any hex case, has the same key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClaimKey(String);

impl ClaimKey {
    /// The key of an authorization on this asset.
    pub fn new(asset: &Asset, from: Address, nonce: B256) -> Self {
        // `{:#x}` of alloy's fixed bytes is lower-case hex, unlike the checksummed `Display`.
        ClaimKey(format!("{}/{:#x}/{:#x}/{:#x}", asset.network, asset.address, from, nonce))
    }

    /// The key of a purchase of the operator's own, `inventory/...`: never that of a client's payment, which begins
    /// with its network.
    pub fn inventory(scope: &str) -> Self {
        ClaimKey(format!("inventory/{}", scope.strip_prefix("inventory/").unwrap_or(scope)))
    }

    /// A key that [`ClaimKey::as_str`] gave to a store.
    pub(super) fn stored(text: &str) -> Self {
        ClaimKey(text.to_owned())
    }

    /// The nonce of the client payment it is the key of.
    pub fn nonce(&self) -> Option<B256> {
        self.0.rsplit('/').next()?.parse().ok()
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::x402::Network;

    fn usdc() -> Asset {
        Asset::default_for(Network(84_532)).unwrap()
    }

    #[test]
    fn claim_key_is_lower_case_hex_in_full() {
        let from = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse().unwrap();
        assert_eq!(
            ClaimKey::new(&usdc(), from, B256::repeat_byte(0xAB)).as_str(),
            "eip155:84532/0x036cbd53842c5426634e7929541ec2318f3dcf7e\
             /0x70997970c51812dc3a010c7d01b50e0d17dc79c8\
             /0xabababababababababababababababababababababababababababababababab"
        );
        assert_eq!(
            ClaimKey::new(&usdc(), from, B256::repeat_byte(0xAB)).nonce(),
            Some(B256::repeat_byte(0xAB))
        );
        assert_eq!(ClaimKey::inventory("xcache").nonce(), None);
    }

    proptest! {
        #[test]
        fn claim_keys_differ_where_payments_do(
            a in any::<([u8; 20], [u8; 32])>(), b in any::<([u8; 20], [u8; 32])>(),
        ) {
            let key = |(from, nonce): ([u8; 20], [u8; 32])| ClaimKey::new(&usdc(), from.into(), nonce.into());
            prop_assert_eq!(key(a) == key(b), a == b);
        }
    }
}
