//! The wallet: the one key that pays providers. It signs what the caps allow, with nonces derived from
//! the client payment that the spending is for, and knows no provider, store or network.
//!
//! Nothing here remembers: that a signature is durable before it is handed out is the caller's duty.

mod payees;
mod refund;
mod spend;

use std::fmt;

use alloy::primitives::Signature;
use ring::hmac;
use secp256k1::{Message, SECP256K1, SecretKey};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

pub use payees::{PayeeError, Payees};
pub use refund::REFUND_STEP;
pub use spend::{COLLECT, Signed, Spend, select};

use crate::jobs::ClaimKey;
use crate::money::Amount;
use crate::x402::{Address, Asset, Authorization, B256, Domain, address_of};

/// Separates the nonce secret from every other use of the key. Changing it would let a payment that is
/// repeated after an upgrade be signed under a second nonce, and so be spent twice.
const NONCE_CONTEXT: &[u8] = b"galaksio provider nonce v1";

/// A hot wallet. Its `Debug` form shows the address alone.
pub struct Wallet {
    key: SecretKey,
    address: Address,
    nonces: hmac::Key,
    purses: Vec<Allowed>,
}

/// A token the wallet may pay in.
struct Allowed {
    asset: Asset,
    domain: Domain,
    cap: Amount,
}

/// Why there is no wallet, or no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalletError {
    /// The key is not a private key. Says nothing of what it was.
    #[error("the wallet's key must be 32 bytes of hex, and a private key of secp256k1")]
    Key,
    /// The cap is not an amount of the asset.
    #[error("max_payment {0:?} is not an amount in dollars")]
    Cap(String),
    /// A token that is not in the wallet's list.
    #[error("the wallet does not pay in {0} on {1}")]
    Asset(Address, crate::x402::Network),
    /// More than one payment may be.
    #[error("{amount} is over the cap of {cap} for one provider payment")]
    OverCap {
        /// What was to be signed.
        amount: Amount,
        /// The cap.
        cap: Amount,
    },
    /// The message is another account's.
    #[error("the authorization is not from this wallet")]
    NotOurs,
}

impl Wallet {
    /// The wallet of a private key (64 hex digits, `0x` or not), which may pay up to `max_payment` dollars at
    /// once in each of `assets`.
    pub fn new(key: SecretString, max_payment: &str, assets: Vec<Asset>) -> Result<Wallet, WalletError> {
        let secret = decode_key(&key)?;
        let key = SecretKey::from_byte_array(*secret).map_err(|_| WalletError::Key)?;
        let address = address_of(&secret).ok_or(WalletError::Key)?;
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice());
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, NONCE_CONTEXT).as_ref());
        let allow = |asset: Asset| {
            let cap = Amount::from_decimal(max_payment, asset.decimals)
                .ok_or_else(|| WalletError::Cap(max_payment.to_owned()))?;
            Ok(Allowed { domain: Domain::new(&asset), cap, asset })
        };
        let purses = assets.into_iter().map(allow).collect::<Result<_, _>>()?;
        Ok(Wallet { key, address, nonces, purses })
    }

    /// The paying address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The most one payment in `asset` may be; an error if the wallet does not pay in it.
    pub fn cap(&self, asset: &Asset) -> Result<Amount, WalletError> {
        self.allowed(asset).map(|allowed| allowed.cap)
    }

    /// The nonce of a step of an attempt at the work that `claim` pays for. The same for every replica and
    /// every provider: a token takes a nonce once, so however often and to whomever a step is paid, at most
    /// one of the payments can be collected.
    pub fn nonce(&self, claim: &ClaimKey, step: &str, attempt: u32) -> B256 {
        let mut context = hmac::Context::with_key(&self.nonces);
        for part in [claim.as_str().as_bytes(), step.as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.update(&attempt.to_be_bytes());
        B256::from_slice(context.sign().as_ref())
    }

    /// What a provider is told that this payment is, where it asks for a `payment-identifier`: the same whenever it is
    /// paid again, and nothing to whoever has not this wallet's secret.
    pub fn identifier(&self, claim: &ClaimKey, step: &str, attempt: u32) -> String {
        let mut context = hmac::Context::with_key(&self.nonces);
        for part in [b"payment-identifier".as_slice(), claim.as_str().as_bytes(), step.as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.update(&attempt.to_be_bytes());
        format!("pay_{}", hex::encode(&context.sign().as_ref()[..16]))
    }

    /// Signs a payment in `asset`, if it is from this wallet and within the cap: 65 bytes, r, s and v. The same
    /// authorization always gets the same signature.
    pub fn sign(&self, asset: &Asset, authorization: &Authorization) -> Result<[u8; 65], WalletError> {
        let allowed = self.allowed(asset)?;
        if authorization.from != self.address() {
            return Err(WalletError::NotOurs);
        }
        if authorization.value > allowed.cap {
            return Err(WalletError::OverCap { amount: authorization.value, cap: allowed.cap });
        }
        Ok(self.signature(&allowed.domain, authorization))
    }

    /// Deterministic (RFC 6979), low `s`, `v` of 27 or 28.
    fn signature(&self, domain: &Domain, authorization: &Authorization) -> [u8; 65] {
        let message = Message::from_digest(domain.digest(authorization).0);
        Signature::from(SECP256K1.sign_ecdsa_recoverable(message, &self.key)).as_bytes()
    }

    fn allowed(&self, asset: &Asset) -> Result<&Allowed, WalletError> {
        self.purses
            .iter()
            .find(|allowed| allowed.asset == *asset)
            .ok_or(WalletError::Asset(asset.address, asset.network))
    }
}

impl Drop for Wallet {
    fn drop(&mut self) {
        self.key.non_secure_erase();
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet").field("address", &self.address()).finish_non_exhaustive()
    }
}

fn decode_key(key: &SecretString) -> Result<Zeroizing<[u8; 32]>, WalletError> {
    let text = key.expose_secret().trim();
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, secret.as_mut_slice()).map_err(|_| WalletError::Key)?;
    Ok(secret)
}

#[cfg(test)]
mod tests;
