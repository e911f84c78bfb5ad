use super::*;
use crate::money::Amount;
use crate::x402::Network;
use alloy::primitives::{address, b256};
use proptest::prelude::*;

fn base_sepolia() -> Asset {
    Asset::default_for(Network(84_532)).unwrap()
}

fn signer() -> PrivateKeySigner {
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d".parse().unwrap()
}

fn authorization(from: Address) -> Authorization {
    Authorization {
        from,
        to: address!("70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        value: Amount::new(10_000),
        valid_after: 0,
        valid_before: 1_800_000_300,
        nonce: B256::repeat_byte(7),
    }
}

#[test]
fn domain_separator_is_the_one_on_chain() {
    let expected = b256!("71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818");
    assert_eq!(Domain::new(&base_sepolia()).0, expected);
    let mainnet = Asset { name: "USD Coin".into(), ..base_sepolia() };
    assert_ne!(Domain::new(&mainnet).0, expected);
}

#[test]
fn type_hash_is_that_of_the_message() {
    let message = message::TransferWithAuthorization {
        from: Address::ZERO,
        to: Address::ZERO,
        value: U256::ZERO,
        validAfter: U256::ZERO,
        validBefore: U256::ZERO,
        nonce: B256::ZERO,
    };
    assert_eq!(message.eip712_type_hash(), TYPE_HASH);
    let digest = Domain::new(&base_sepolia()).hash(message.eip712_hash_struct());
    let authorization = Authorization {
        from: Address::ZERO,
        to: Address::ZERO,
        value: Amount::ZERO,
        valid_after: 0,
        valid_before: 0,
        nonce: B256::ZERO,
    };
    assert_eq!(Domain::new(&base_sepolia()).digest(&authorization), digest);
}

#[test]
fn only_signatures_a_token_takes_are_recovered() {
    let (domain, signer) = (Domain::new(&base_sepolia()), signer());
    let authorization = authorization(signer.address());
    let good = domain.sign(&signer, &authorization).unwrap();
    assert_eq!(domain.recover(&authorization, &good), Ok(signer.address()));

    let mut bare = good;
    bare[64] -= 27;
    assert_eq!(domain.recover(&authorization, &bare), Ok(signer.address()));

    for v in (2..27).chain(29..=255) {
        let mut odd = good;
        odd[64] = v;
        assert_eq!(domain.recover(&authorization, &odd), Err(SignatureError::Parity), "v = {v}");
    }

    // The other signature of the same message: (r, n - s) with the parity flipped.
    let mirrored_s: U256 = order() - U256::from_be_slice(&good[32..64]);
    let mut mirrored = good;
    mirrored[32..64].copy_from_slice(&mirrored_s.to_be_bytes::<32>());
    mirrored[64] = if good[64] == 27 { 28 } else { 27 };
    assert_eq!(domain.recover(&authorization, &mirrored), Err(SignatureError::HighS));

    assert_eq!(domain.recover(&authorization, &[0; 65]), Err(SignatureError::NotOnCurve));
}

#[test]
fn largest_s_is_half_the_order() {
    let half: U256 = (order() - U256::from(1)) >> 1;
    assert_eq!(MAX_S, half);
}

/// The order of secp256k1 (SEC 2, 2.4.1).
fn order() -> U256 {
    "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141".parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn signing_is_deterministic_low_s_and_recoverable(
        key in any::<[u8; 32]>(), value in any::<u128>(), before in any::<u64>(), nonce in any::<[u8; 32]>(),
    ) {
        let Ok(signer) = PrivateKeySigner::from_slice(&key) else { return Ok(()) };
        let domain = Domain::new(&base_sepolia());
        let authorization = Authorization {
            value: Amount::new(value),
            valid_before: before,
            nonce: nonce.into(),
            ..authorization(signer.address())
        };
        let signature = domain.sign(&signer, &authorization).unwrap();
        prop_assert_eq!(signature, domain.sign(&signer, &authorization).unwrap());
        prop_assert!(U256::from_be_slice(&signature[32..64]) <= MAX_S);
        prop_assert!(matches!(signature[64], 27 | 28));
        prop_assert_eq!(domain.recover(&authorization, &signature), Ok(signer.address()));
    }
}
