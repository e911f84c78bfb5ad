//! What the chain proves about one EIP-3009 authorization.
//!
//! Paid is an `AuthorizationUsed` log of its nonce with its transfer beside it in the same transaction. Unpaid is a
//! cancellation, a transfer that is another one, or an untouched nonce at a final block after the authorization has
//! lapsed: nothing that comes later can change these. Whatever else there is, or is not, proves nothing. A nonce that
//! merely reads as used may be either, so a missing log is never taken for a "no".

use std::ops::RangeInclusive;

use alloy::rpc::client::RpcClient;
use alloy::rpc::types::Log;
use futures_util::future::join_all;

use super::heads::{Head, Heads};
use super::rpc::{self, quantity};
use super::{Chain, ChainError};
use crate::clock::UnixSeconds;
use crate::money::Amount;
use crate::x402::abi::{self, TokenEvent, TokenRead};
use crate::x402::{Address, B256};

/// Ranges of blocks looked through for one log, at most.
const MAX_RANGES: usize = 96;

/// Ranges before the start that are looked through: a nonce may have been used before anybody asked us for anything.
const RANGES_BEFORE: u64 = 8;

/// A payment in one of so many blocks before the height that was noted still counts as made after it: the chain may
/// have been reorganised since.
const REORGANISED: u64 = 12;

/// How far our clock may be ahead of a chain's.
const SKEW: UnixSeconds = 60;

/// The authorization that is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Sought {
    /// The token.
    pub asset: Address,
    /// The payer.
    pub from: Address,
    /// Its nonce.
    pub nonce: B256,
    /// The payee.
    pub to: Address,
    /// Atomic units.
    pub value: Amount,
    /// When it lapses.
    pub valid_before: UnixSeconds,
    /// What was mined before does not count: it was not paid for this.
    pub since: Since,
}

/// The beginning of the time in which a payment counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// A height that was the newest then.
    Block(u64),
    /// A time by our clock.
    Time(UnixSeconds),
}

impl Since {
    /// The height, where it is one.
    pub fn height(self) -> Option<u64> {
        match self {
            Since::Block(height) => Some(height),
            Since::Time(_) => None,
        }
    }
}

/// What is proven. That nothing is known at all is a [`ChainError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The transfer was made.
    Paid {
        /// Its transaction.
        transaction: B256,
        /// The height of its block.
        block: u64,
        /// Whether that block is final; until then it may, rarely, be undone.
        is_final: bool,
    },
    /// The transfer was not made, and can never be made any more.
    Unpaid(Unpaid),
    /// Not made up to this final block, and it may still be.
    Open {
        /// The final block.
        as_of: Head,
    },
}

/// Why a payment is out of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpaid {
    /// Its signer made it worthless.
    #[error("the payer cancelled the authorization")]
    Canceled,
    /// Nobody used it in time.
    #[error("the authorization has lapsed unused")]
    Lapsed,
    /// The nonce was spent on another transfer.
    #[error("the payer spent the nonce on another transfer")]
    Elsewhere,
    /// The transfer was made before this was asked for, so for something else.
    #[error("the authorization was spent before it was presented here")]
    Before,
}

impl Chain {
    /// What the chain proves about `sought`. All endpoints that are fit are asked, and must agree.
    pub async fn prove(&self, sought: &Sought) -> Result<Proof, ChainError> {
        let heads = self.heads().await?;
        let fit = heads.fit.iter().filter_map(|at| self.endpoints.get(*at));
        let asked = join_all(fit.map(|endpoint| async {
            self.examine(&endpoint.client, &heads, sought).await.map_err(|why| why.of(&endpoint.name))
        }))
        .await;
        let mut agreed: Option<Proof> = None;
        let mut why = ChainError::Away("none was asked".to_owned());
        for found in asked {
            agreed = Some(match (agreed, found) {
                (None, Ok(proof)) => proof,
                (Some(proof), Ok(same)) if proof == same => proof,
                // About blocks that are not final yet they need not agree: the one that has seen less is right.
                (Some(Proof::Paid { is_final: false, .. }), Ok(open @ Proof::Open { .. }))
                | (Some(open @ Proof::Open { .. }), Ok(Proof::Paid { is_final: false, .. })) => open,
                (Some(Proof::Paid { is_final: false, .. }), Ok(Proof::Paid { is_final: false, .. })) => {
                    Proof::Open { as_of: heads.last_final }
                }
                (Some(_), Ok(_)) => return Err(ChainError::Contradict(heads.last_final.number)),
                (agreed, Err(error)) => {
                    why = error;
                    match agreed {
                        Some(proof) => proof,
                        None => continue,
                    }
                }
            });
        }
        agreed.ok_or(why)
    }

    /// What one endpoint shows.
    async fn examine(&self, client: &RpcClient, heads: &Heads, sought: &Sought) -> Result<Proof, ChainError> {
        let as_of = heads.last_final;
        if self.is_gone(client, sought, &quantity(as_of.number)).await? {
            let since = self.last_before(client, sought, as_of).await?;
            let log = self.find(client, sought, since, as_of).await?;
            let log = log.ok_or(ChainError::NoEvidence("no log of it was found"))?;
            return self.judge(client, sought, &log, since, as_of.number).await;
        }
        // The token takes an authorization in blocks older than validBefore only, and no later block is older.
        if as_of.time >= sought.valid_before {
            return Ok(Proof::Unpaid(Unpaid::Lapsed));
        }
        // An endpoint that cannot say what is newest has still said what is final.
        let newest = self.not_final(client, heads, sought).await.unwrap_or_default();
        Ok(newest.unwrap_or(Proof::Open { as_of }))
    }

    /// The payment, if it is in one of the blocks that are not final yet. Whatever else is there can be undone, and
    /// then the payment made after all.
    async fn not_final(
        &self,
        client: &RpcClient,
        heads: &Heads,
        sought: &Sought,
    ) -> Result<Option<Proof>, ChainError> {
        if !self.is_gone(client, sought, "latest").await? {
            return Ok(None);
        }
        let since = self.last_before(client, sought, heads.newest).await?;
        let from = heads.newest.number.saturating_sub(self.log_range / 2).max(heads.last_final.number + 1);
        let Some(log) = self.log_in(client, sought, from..=u64::MAX).await? else { return Ok(None) };
        Ok(match self.judge(client, sought, &log, since, u64::MAX).await? {
            Proof::Paid { transaction, block, .. } => {
                Some(Proof::Paid { transaction, block, is_final: false })
            }
            Proof::Unpaid(_) | Proof::Open { .. } => None,
        })
    }

    /// Whether the nonce is used or cancelled as of block `at`.
    async fn is_gone(&self, client: &RpcClient, sought: &Sought, at: &str) -> Result<bool, ChainError> {
        let input = TokenRead::AuthorizationState(sought.from, sought.nonce).encode();
        let output = rpc::read(client, sought.asset, input, at).await?;
        abi::decode_bool(&output)
            .ok_or_else(|| ChainError::Away(format!("the token {} does not answer", sought.asset)))
    }

    /// The last block before payments count.
    async fn last_before(&self, client: &RpcClient, sought: &Sought, last: Head) -> Result<u64, ChainError> {
        match sought.since {
            Since::Block(height) => Ok(height.saturating_sub(REORGANISED)),
            Since::Time(time) => self.block_before(client, time.saturating_sub(SKEW), last).await,
        }
    }

    /// The last block that is older than `time`; the first block, if none is.
    async fn block_before(
        &self,
        client: &RpcClient,
        time: UnixSeconds,
        last: Head,
    ) -> Result<u64, ChainError> {
        let (mut older, mut younger) = (0, last.number);
        while younger > older + 1 {
            let middle = older + (younger - older) / 2;
            let block = rpc::block(client, &quantity(middle)).await?;
            let block = block.ok_or_else(|| ChainError::Away(format!("it has no block {middle}")))?;
            if block.head().time < time { older = middle } else { younger = middle }
        }
        Ok(older)
    }

    /// The log of the nonce's use or cancellation: first where it must be if it counts, then after, then before.
    async fn find(
        &self,
        client: &RpcClient,
        sought: &Sought,
        since: u64,
        last: Head,
    ) -> Result<Option<Log>, ChainError> {
        let lapsed = if last.number.saturating_sub(since) <= self.log_range || last.time < sought.valid_before
        {
            last.number
        } else {
            (self.block_before(client, sought.valid_before, last).await? + 1).min(last.number)
        };
        let before = since.saturating_sub(RANGES_BEFORE.saturating_mul(self.log_range));
        let ranges = self
            .ranges(since..=lapsed)
            .chain(self.ranges(before..=since))
            .chain(self.ranges(lapsed.saturating_add(1)..=last.number));
        for blocks in ranges.take(MAX_RANGES) {
            if let Some(log) = self.log_in(client, sought, blocks).await? {
                return Ok(Some(log));
            }
        }
        Ok(None)
    }

    pub(super) fn ranges(
        &self,
        blocks: RangeInclusive<u64>,
    ) -> impl Iterator<Item = RangeInclusive<u64>> + use<> {
        let (step, last) = (self.log_range.max(1), *blocks.end());
        let mut from = *blocks.start();
        std::iter::from_fn(move || {
            let to = from.saturating_add(step - 1).min(last);
            let range = (from <= to).then_some(from..=to);
            from = to.saturating_add(1).max(from);
            range
        })
    }

    async fn log_in(
        &self,
        client: &RpcClient,
        sought: &Sought,
        blocks: RangeInclusive<u64>,
    ) -> Result<Option<Log>, ChainError> {
        let (authorizer, nonce) = (sought.from, sought.nonce);
        let first = |event: TokenEvent| event.encode().0.first().copied().unwrap_or_default();
        let topics = [
            vec![
                first(TokenEvent::AuthorizationUsed { authorizer, nonce }),
                first(TokenEvent::AuthorizationCanceled { authorizer, nonce }),
            ],
            vec![authorizer.into_word()],
            vec![nonce],
        ];
        let to = if *blocks.end() == u64::MAX { "latest".to_owned() } else { quantity(*blocks.end()) };
        let logs = rpc::logs(client, sought.asset, topics, *blocks.start(), &to).await?;
        // A filter that was not heeded must not pass for a proof.
        Ok(logs.into_iter().find(|log| {
            !log.removed
                && log.address() == sought.asset
                && log.block_number.is_some_and(|number| blocks.contains(&number))
                && matches!(event(log),
                    Some(TokenEvent::AuthorizationUsed { authorizer: a, nonce: n }
                        | TokenEvent::AuthorizationCanceled { authorizer: a, nonce: n })
                        if a == authorizer && n == nonce)
        }))
    }

    /// What the log of the nonce means: its transaction tells which transfer belongs to it.
    async fn judge(
        &self,
        client: &RpcClient,
        sought: &Sought,
        log: &Log,
        since: u64,
        last: u64,
    ) -> Result<Proof, ChainError> {
        if let Some(TokenEvent::AuthorizationCanceled { .. }) = event(log) {
            return Ok(Proof::Unpaid(Unpaid::Canceled));
        }
        let odd = ChainError::NoEvidence("its log and its transaction do not fit together");
        let (Some(transaction), Some(block), Some(place)) =
            (log.transaction_hash, log.block_number, log.log_index)
        else {
            return Err(odd);
        };
        let receipt = rpc::receipt(client, transaction).await?;
        let receipt = receipt.ok_or(ChainError::NoEvidence("its transaction has no receipt"))?;
        if receipt.status.to::<u64>() != 1
            || receipt.block_number.to::<u64>() != block
            || Some(receipt.block_hash) != log.block_hash
            || block > last
        {
            return Err(odd);
        }
        // One transaction may hold many transfers, also some of the same payer. The token writes each of them right
        // behind the log of its nonce; any other transfer belongs to another nonce.
        let mut of_token = receipt.logs.iter().filter(|log| log.address() == sought.asset);
        of_token.find(|log| log.log_index == Some(place)).ok_or(odd)?;
        match of_token.next().and_then(event) {
            Some(TokenEvent::Transfer { from, to, value }) if from == sought.from => {
                if (to, value) != (sought.to, sought.value) {
                    Ok(Proof::Unpaid(Unpaid::Elsewhere))
                } else if block <= since {
                    Ok(Proof::Unpaid(Unpaid::Before))
                } else {
                    Ok(Proof::Paid { transaction, block, is_final: true })
                }
            }
            _ => Err(ChainError::NoEvidence("no transfer follows its log")),
        }
    }
}

fn event(log: &Log) -> Option<TokenEvent> {
    TokenEvent::decode(log.topics(), &log.data().data)
}
