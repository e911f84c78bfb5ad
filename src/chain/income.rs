//! What a payee received in a range of blocks: many payments looked for with one question.

use std::ops::RangeInclusive;

use alloy::providers::Provider;

use super::rpc::{self, quantity};
use super::{Chain, ChainError};
use crate::money::Amount;
use crate::x402::abi::TokenEvent;
use crate::x402::{Address, B256};

/// Ranges asked for at once, at most. Whoever needs more looks for single payments.
const MAX_RANGES: usize = 16;

/// Payers in one question, at most.
const MOST_PAYERS: usize = 100;

/// A transfer of a token to a payee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Income {
    /// Its transaction.
    pub transaction: B256,
    /// Who paid.
    pub from: Address,
    /// Atomic units.
    pub value: Amount,
}

/// A transfer of a token to a payee, and the authorization that was spent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spent {
    /// Who paid.
    pub from: Address,
    /// Its nonce.
    pub nonce: B256,
    /// Atomic units.
    pub value: Amount,
}

impl Chain {
    /// The transfers of the token `asset` to `to` in these blocks, in order; of the newest, if there are too many. From the
    /// first endpoint that answers: good enough to skip what is plainly there, not to prove that something is not.
    pub async fn income(
        &self,
        asset: Address,
        to: Address,
        blocks: RangeInclusive<u64>,
    ) -> Result<Vec<Income>, ChainError> {
        let nobody = Address::ZERO;
        let event = TokenEvent::Transfer { from: nobody, to, value: Amount::ZERO };
        let topics = event.encode().0.first().copied().unwrap_or_default();
        let first = blocks.end().saturating_sub(self.log_range.saturating_mul(MAX_RANGES as u64));
        let mut found = Vec::new();
        for range in self.ranges(*blocks.start().max(&first)..=*blocks.end()) {
            let wanted = [vec![topics], Vec::new(), vec![to.into_word()]];
            let last = quantity(*range.end());
            let logs = rpc::logs(self.provider.client(), asset, wanted, *range.start(), &last).await?;
            for log in logs.iter().filter(|log| !log.removed && log.address() == asset) {
                let decoded = TokenEvent::decode(log.topics(), &log.data().data);
                if let (Some(transaction), Some(TokenEvent::Transfer { from, to: payee, value })) =
                    (log.transaction_hash, decoded)
                    && payee == to
                {
                    found.push(Income { transaction, from, value });
                }
            }
        }
        Ok(found)
    }

    /// The authorizations that `payers` spent on transfers of the token `asset` to `to` in these blocks; of the newest, if there
    /// are too many. As good as [`Chain::income`], from the first endpoint that answers.
    pub async fn spent(
        &self,
        asset: Address,
        to: Address,
        payers: &[Address],
        blocks: RangeInclusive<u64>,
    ) -> Result<Vec<Spent>, ChainError> {
        let nobody = Address::ZERO;
        let topic = |event: TokenEvent| event.encode().0.first().copied().unwrap_or_default();
        let transfer = topic(TokenEvent::Transfer { from: nobody, to, value: Amount::ZERO });
        let used = topic(TokenEvent::AuthorizationUsed { authorizer: nobody, nonce: B256::ZERO });
        let first = blocks.end().saturating_sub(self.log_range.saturating_mul(MAX_RANGES as u64));
        let mut found = Vec::new();
        for range in self.ranges(*blocks.start().max(&first)..=*blocks.end()) {
            for payers in payers.chunks(MOST_PAYERS) {
                // Both events name the payer first.
                let payers: Vec<B256> = payers.iter().map(|payer| payer.into_word()).collect();
                let wanted = [vec![transfer, used], payers, Vec::new()];
                let last = quantity(*range.end());
                let logs = rpc::logs(self.provider.client(), asset, wanted, *range.start(), &last).await?;
                // The token writes a transfer behind the log of its nonce, in the same transaction: each nonce stands for
                // the next transfer, and for no other.
                let mut open: Option<(B256, Address, B256)> = None;
                for log in logs.iter().filter(|log| !log.removed && log.address() == asset) {
                    let Some(transaction) = log.transaction_hash else { continue };
                    match TokenEvent::decode(log.topics(), &log.data().data) {
                        Some(TokenEvent::AuthorizationUsed { authorizer, nonce }) => {
                            open = Some((transaction, authorizer, nonce));
                        }
                        Some(TokenEvent::Transfer { from, to: payee, value }) => {
                            let its =
                                open.take().filter(|(of, payer, _)| (*of, *payer) == (transaction, from));
                            if let Some((_, _, nonce)) = its.filter(|_| payee == to) {
                                found.push(Spent { from, nonce, value });
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(found)
    }
}
