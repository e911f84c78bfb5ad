//! What an account has of a token.

use alloy::providers::Provider;

use super::{Chain, ChainError, rpc};
use crate::money::Amount;
use crate::x402::abi::TokenRead;
use crate::x402::{Address, Asset};

impl Chain {
    /// The balance of `account` in `asset`, as of the newest block of the first endpoint that answers. For watching:
    /// nothing is proven by it.
    pub async fn balance(&self, asset: &Asset, account: Address) -> Result<Amount, ChainError> {
        let input = TokenRead::BalanceOf(account).encode();
        let output = rpc::read(self.provider.client(), asset.address, input, "latest").await?;
        let not_one = || ChainError::Away("the token's balance is no number of 128 bits".to_owned());
        let (high, low) = output.split_first_chunk::<16>().ok_or_else(not_one)?;
        let low: [u8; 16] = low.try_into().map_err(|_| not_one())?;
        match u128::from_be_bytes(*high) {
            0 => Ok(Amount::new(u128::from_be_bytes(low))),
            _ => Err(not_one()),
        }
    }
}
