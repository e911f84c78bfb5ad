//! EIP-3009 `TransferWithAuthorization` under EIP-712: the digest that is signed, who signed it,
//! and signing it. What is accepted here is what a token contract accepts: OpenZeppelin's and
//! Circle's `ECRecover` refuse a high `s`, so a payment with one could never settle.

use alloy::primitives::{Address, B256, Keccak256, Signature, U256, b256, keccak256};
#[cfg(test)]
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::{Eip712Domain, SolStruct};

use super::{Asset, Authorization};

/// Half the order of secp256k1, rounded down: the largest `s` a token takes (EIP-2).
const MAX_S: U256 = U256::from_be_slice(&[
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d,
    0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
]);

/// `TRANSFER_WITH_AUTHORIZATION_TYPEHASH` of EIP-3009. The library computes it for each message.
const TYPE_HASH: B256 = b256!("7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267");

mod message {
    alloy::sol! {
        /// The message, as EIP-3009 names and orders its fields.
        struct TransferWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }
    }
}

/// Why a signature is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// `v` is none of 27, 28, 0, 1.
    #[error("the signature's v is none of 27, 28, 0 and 1")]
    Parity,
    /// `s` is in the upper half of the order.
    #[error("the signature's s is not in the lower half of the curve's order")]
    HighS,
    /// No public key fits.
    #[error("the signature is not on the curve")]
    NotOnCurve,
}

/// The EIP-712 domain separator of a token. Computing it costs four hashes: keep it where an asset is
/// signed or checked for again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(B256);

impl Domain {
    /// The domain `{name, version, chainId, verifyingContract}` of `asset`.
    pub fn new(asset: &Asset) -> Self {
        let domain = Eip712Domain {
            name: Some(asset.name.clone().into()),
            version: Some(asset.version.clone().into()),
            chain_id: Some(U256::from(asset.network.0)),
            verifying_contract: Some(asset.address),
            salt: None,
        };
        Domain(domain.separator())
    }

    /// The digest that is signed: `keccak256(0x1901 ‖ separator ‖ hashStruct(message))`.
    pub fn digest(&self, authorization: &Authorization) -> B256 {
        let message = message::TransferWithAuthorization {
            from: authorization.from,
            to: authorization.to,
            value: U256::from(authorization.value.units()),
            validAfter: U256::from(authorization.valid_after),
            validBefore: U256::from(authorization.valid_before),
            nonce: authorization.nonce,
        };
        let mut hasher = Keccak256::new();
        hasher.update(TYPE_HASH);
        hasher.update(message.eip712_encode_data());
        self.hash(hasher.finalize())
    }

    /// The EIP-712 digest of another message to the same token.
    pub(super) fn hash(&self, struct_hash: B256) -> B256 {
        let mut preimage = [0; 66];
        preimage[..2].copy_from_slice(&[0x19, 0x01]);
        preimage[2..34].copy_from_slice(self.0.as_slice());
        preimage[34..].copy_from_slice(struct_hash.as_slice());
        keccak256(preimage)
    }

    /// `DOMAIN_SEPARATOR()` of the token.
    pub fn separator(&self) -> B256 {
        self.0
    }

    /// Who signed `authorization`: `signature` is r, s and v, 65 bytes.
    pub fn recover(
        &self,
        authorization: &Authorization,
        signature: &[u8; 65],
    ) -> Result<Address, SignatureError> {
        recover(&self.digest(authorization), signature)
    }

    /// Signs `authorization`. Deterministic (RFC 6979), low `s`, `v` of 27 or 28.
    #[cfg(test)]
    pub(crate) fn sign(
        &self,
        signer: &PrivateKeySigner,
        authorization: &Authorization,
    ) -> Result<[u8; 65], alloy::signers::Error> {
        Ok(signer.sign_hash_sync(&self.digest(authorization))?.as_bytes())
    }
}

/// The address that signs with this private key; `None` if the curve has no such key.
pub fn address_of(key: &[u8; 32]) -> Option<Address> {
    PrivateKeySigner::from_slice(key).ok().map(|signer| signer.address())
}

/// Who signed `digest`: `signature` is r, s and v, 65 bytes.
pub(super) fn recover(digest: &B256, signature: &[u8; 65]) -> Result<Address, SignatureError> {
    let parity = match signature[64] {
        0 | 27 => false,
        1 | 28 => true,
        _ => return Err(SignatureError::Parity),
    };
    let signature = Signature::from_bytes_and_parity(signature, parity);
    // The library would normalise a high s and recover the payer all the same.
    if signature.s() > MAX_S {
        return Err(SignatureError::HighS);
    }
    signature.recover_address_from_prehash(digest).map_err(|_| SignatureError::NotOnCurve)
}

#[cfg(test)]
mod tests;
