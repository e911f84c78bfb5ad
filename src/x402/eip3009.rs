//! EIP-3009: what a payer signs, and who signed it. Externally owned accounts only.
//!
//! Source: EIP-712, EIP-3009, and the x402 `exact` scheme for EVM. No I/O, no clock: whether an
//! authorization may be spent now is its holder's question.

use alloy::primitives::U256;
use alloy::sol_types::SolStruct;

use super::abi::{domain, recover_digest, sign_digest};
use super::{Address, Asset, Authorization, B256};

alloy::sol! {
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }
}

/// The EIP-712 digest of `authorization` under the token's domain.
pub fn digest(asset: &Asset, authorization: &Authorization) -> B256 {
    TransferWithAuthorization {
        from: authorization.from,
        to: authorization.to,
        value: U256::from(authorization.value.units()),
        validAfter: U256::from(authorization.valid_after),
        validBefore: U256::from(authorization.valid_before),
        nonce: authorization.nonce,
    }
    .eip712_signing_hash(&domain(asset))
}

/// Who made `signature` over `authorization`: 65 bytes `r || s || v`, `v` of 27, 28, 0 or 1, `s` in
/// the lower half, as the token demands. `None` for anything else.
pub fn recover(asset: &Asset, authorization: &Authorization, signature: &[u8]) -> Option<Address> {
    recover_digest(&digest(asset, authorization), signature)
}

/// The 65-byte signature of `authorization` by a private key; `None` if `key` is not one.
pub fn sign(asset: &Asset, authorization: &Authorization, key: &B256) -> Option<[u8; 65]> {
    sign_digest(&digest(asset, authorization), key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Amount;
    use crate::x402::Network;
    use alloy::primitives::b256;
    use alloy::signers::local::PrivateKeySigner;

    #[test]
    fn domain_separator_of_base_sepolia_usdc() {
        let asset = Asset::default_for(Network(84_532)).unwrap();
        let expected = b256!("71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818");
        assert_eq!(domain(&asset).separator(), expected);
    }

    #[test]
    fn the_signer_is_recovered_and_nobody_else() {
        let asset = Asset::default_for(Network(84_532)).unwrap();
        let key = B256::repeat_byte(7);
        let from = PrivateKeySigner::from_bytes(&key).unwrap().address();
        let authorization = Authorization {
            from,
            to: Address::repeat_byte(2),
            value: Amount::new(10_000),
            valid_after: 0,
            valid_before: 9,
            nonce: B256::repeat_byte(1),
        };
        let signature = sign(&asset, &authorization, &key).unwrap();
        assert_eq!(recover(&asset, &authorization, &signature), Some(from));

        let other = Authorization { value: Amount::new(10_001), ..authorization };
        assert_ne!(recover(&asset, &other, &signature), Some(from));
        assert_eq!(recover(&asset, &authorization, &signature[..64]), None);
        let mut bad_v = signature;
        bad_v[64] = 29;
        assert_eq!(recover(&asset, &authorization, &bad_v), None);
    }
}
