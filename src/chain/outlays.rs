//! What an account paid in a range of blocks, and under which nonces.

use std::ops::RangeInclusive;

use alloy::primitives::B256;
use alloy::providers::Provider;
use serde::{Deserialize, Serialize};

use super::rpc::{self, quantity};
use super::{Chain, ChainError};
use crate::money::Amount;
use crate::x402::Address;
use crate::x402::abi::TokenEvent;

/// Ranges asked for at once, at most.
const MAX_RANGES: u64 = 16;

/// A transfer of a token from an account. Never of nothing: anybody can make such a one in anybody's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlay {
    /// Its transaction.
    pub transaction: B256,
    /// The height of its block.
    pub block: u64,
    /// Who was paid.
    pub to: Address,
    /// Atomic units.
    pub value: Amount,
    /// The nonce of the authorization that was spent for it; `None` where there was none.
    pub nonce: Option<B256>,
}

impl Chain {
    /// The transfers of the token `asset` from `account` in these blocks, in order, and the last block that was looked
    /// through: of more blocks than can be asked for at once, these are the oldest. From the first endpoint that answers.
    pub async fn outlays(
        &self,
        asset: Address,
        account: Address,
        blocks: RangeInclusive<u64>,
    ) -> Result<(Vec<Outlay>, u64), ChainError> {
        let span = self.log_range.max(1).saturating_mul(MAX_RANGES);
        let last = (*blocks.end()).min(blocks.start().saturating_add(span - 1));
        let topic = |event: TokenEvent| event.encode().0.first().copied().unwrap_or_default();
        let transfer = TokenEvent::Transfer { from: account, to: account, value: Amount::ZERO };
        let used = TokenEvent::AuthorizationUsed { authorizer: account, nonce: B256::ZERO };
        // Both events name the payer first.
        let topics = [vec![topic(transfer), topic(used)], vec![account.into_word()], Vec::new()];
        let mut found = Vec::new();
        for range in self.ranges(*blocks.start()..=last) {
            let to = quantity(*range.end());
            let logs = rpc::logs(self.provider.client(), asset, topics.clone(), *range.start(), &to).await?;
            // The token writes a transfer behind the log of its nonce, in the same transaction: each nonce stands for the
            // next transfer, and for no other.
            let mut spent: Option<(B256, B256)> = None;
            for log in logs.iter().filter(|log| !log.removed && log.address() == asset) {
                let (Some(transaction), Some(block)) = (log.transaction_hash, log.block_number) else {
                    continue;
                };
                if !range.contains(&block) {
                    continue;
                }
                match TokenEvent::decode(log.topics(), &log.data().data) {
                    Some(TokenEvent::AuthorizationUsed { authorizer, nonce }) if authorizer == account => {
                        spent = Some((transaction, nonce));
                    }
                    Some(TokenEvent::Transfer { from, to, value }) if from == account => {
                        let nonce = spent.take().filter(|(of, _)| *of == transaction).map(|(_, nonce)| nonce);
                        if value > Amount::ZERO {
                            found.push(Outlay { transaction, block, to, value, nonce });
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok((found, last))
    }
}
