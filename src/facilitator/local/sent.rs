//! Transfers and the transactions that carry them: alone or several together, signed, and told what became of them.

use std::collections::VecDeque;
use std::sync::Arc;

use alloy::primitives::Bytes;
use alloy::signers::local::PrivateKeySigner;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::contracts::{self, Call, Claimed, Shown};
use super::fees::Fee;
use super::order::Order;
use super::rpc::Mined;
use super::transaction;
use crate::x402::{Address, B256};

/// A transaction of no effect costs less than this on every chain.
const FILLER_GAS: u64 = 100_000;

/// A transfer to be made.
pub(super) struct Item {
    pub(super) order: Arc<Order>,
    pub(super) call: Call,
    pub(super) gas: u64,
    /// It must not share its transaction: a contract's code decides what it costs.
    pub(super) alone: bool,
    /// Told the hash of each transaction that carries it.
    pub(super) sent: Arc<watch::Sender<Option<B256>>>,
    pub(super) fate: oneshot::Sender<Fate>,
}

/// What became of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its transaction is as deep in the chain as was asked for, and its logs show this.
    Mined(B256, Shown),
    /// Its authorization lapsed before.
    Lapsed,
}

/// A transaction under a number. Without hashes it is not ours, and only known to be there.
pub(super) struct Sent {
    pub(super) items: Vec<Item>,
    pub(super) call: Call,
    pub(super) gas: u64,
    pub(super) fee: Fee,
    pub(super) hashes: Vec<B256>,
    pub(super) raw: Bytes,
    /// How often it was sent.
    pub(super) tries: u32,
    /// A node has it, as far as is known.
    pub(super) arrived: bool,
    /// The block since which it could have been mined.
    pub(super) since: Option<u64>,
    pub(super) mined: bool,
    /// Since when its number is used in the chain, and not by it.
    pub(super) missing: Option<Instant>,
}

impl Sent {
    pub(super) fn new(items: Vec<Item>, call: Call, gas: u64, fee: Fee) -> Self {
        Sent {
            items,
            call,
            gas,
            fee,
            hashes: Vec::new(),
            raw: Bytes::new(),
            tries: 0,
            arrived: false,
            since: None,
            mined: false,
            missing: None,
        }
    }

    /// Somebody else's, or of an earlier life. To be replaced, it is replaced by nothing.
    pub(super) fn unknown(account: Address) -> Self {
        let nothing = Call { to: account, input: Bytes::new() };
        Sent { arrived: true, ..Sent::new(Vec::new(), nothing, FILLER_GAS, Fee::default()) }
    }

    /// Signs it at this fee; earlier versions of it may still be the one that is mined.
    pub(super) fn sign(&mut self, signer: &PrivateKeySigner, chain: u64, number: u64, fee: Fee) {
        match transaction::sign(signer, chain, number, fee, &self.call, self.gas) {
            Ok((hash, raw)) => {
                self.fee = fee;
                self.hashes.push(hash);
                self.raw = raw;
                self.arrived = false;
                for item in &self.items {
                    item.sent.send_replace(Some(hash));
                }
            }
            Err(error) => tracing::error!(%error, "a transaction could not be signed"),
        }
    }
}

/// The next transfers that go together.
pub(super) fn next_group(queue: &mut VecDeque<Item>, together: usize) -> Option<Vec<Item>> {
    let first = queue.pop_front()?;
    let mut group = vec![first];
    if group[0].alone || together < 2 {
        return Some(group);
    }
    for item in std::mem::take(queue) {
        if item.alone || group.len() >= together {
            queue.push_back(item);
        } else {
            group.push(item);
        }
    }
    Some(group)
}

/// The call that makes these transfers, and its gas.
pub(super) fn carry(group: &[Item]) -> (Call, u64) {
    match group {
        [item] => (item.call.clone(), item.gas),
        items => {
            let gas: u64 = items.iter().map(|item| item.gas).sum();
            // One call keeps a 64th of its gas from those it makes.
            (contracts::aggregate(items.iter().map(|item| (&item.call, true))), gas + gas / 32 + 50_000)
        }
    }
}

/// Tells each transfer what the logs of its transaction show of it.
pub(super) fn tell_fates(items: Vec<Item>, mined: &Mined) {
    let mut claimed = Claimed::default();
    for item in items {
        let Order { asset, authorization, .. } = &*item.order;
        let shown = contracts::shows(&mined.logs, asset.address, authorization, &mut claimed);
        // Whoever asked may be gone.
        let _ = item.fate.send(Fate::Mined(mined.transaction_hash, shown));
    }
}
