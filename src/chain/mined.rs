//! Waiting for transactions to be mined: one look at the newest block serves everybody who waits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::B256;
use alloy::providers::{Provider, RootProvider};
use alloy::rpc::types::TransactionReceipt;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::rpc::{self, quantity};

/// Blocks looked through at once, after a gap. A transaction in an older one is found by asking for it.
const MAX_GAP: u64 = 32;

/// Each transaction is asked for by its hash this often, whatever the blocks say: a reorganisation, or a change of
/// endpoint, may hide the block it is in.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Receipts asked for at once.
const TOGETHER: usize = 16;

/// The transactions that are waited for. Looks only while somebody waits.
#[derive(Debug)]
pub(super) struct Mined {
    provider: RootProvider,
    every: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    for_hash: HashMap<B256, Vec<oneshot::Sender<TransactionReceipt>>>,
    /// Not yet asked for by hash: they may have been mined before anybody waited.
    fresh: HashSet<B256>,
    looking: bool,
}

impl Mined {
    pub(super) fn new(provider: RootProvider, every: Duration) -> Self {
        Mined { provider, every, waiting: Mutex::default() }
    }

    /// The receipt of `transaction`, as soon as it is in a block; `None` if it is in none within `patience`.
    pub(super) async fn wait(
        self: &Arc<Self>,
        transaction: B256,
        patience: Duration,
    ) -> Option<TransactionReceipt> {
        let (sender, receipt) = oneshot::channel();
        let start = {
            let mut waiting = self.waiting.lock();
            waiting.for_hash.entry(transaction).or_default().push(sender);
            waiting.fresh.insert(transaction);
            !std::mem::replace(&mut waiting.looking, true)
        };
        if start {
            tokio::spawn(Arc::clone(self).look());
        }
        tokio::time::timeout(patience, receipt).await.ok()?.ok()
    }

    /// Looks until nobody waits any more.
    async fn look(self: Arc<Self>) {
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen: Option<u64> = None;
        let mut asked_all = Instant::now();
        loop {
            tick.tick().await;
            let mut wanted = {
                let mut waiting = self.waiting.lock();
                waiting.for_hash.retain(|_, waiters| {
                    waiters.retain(|waiter| !waiter.is_closed());
                    !waiters.is_empty()
                });
                if waiting.for_hash.is_empty() {
                    waiting.looking = false;
                    waiting.fresh.clear();
                    return;
                }
                std::mem::take(&mut waiting.fresh)
            };
            if asked_all.elapsed() >= ASK_AGAIN {
                wanted.extend(self.waiting.lock().for_hash.keys());
                asked_all = Instant::now();
            }
            // What fails here is asked again: the waiters have their own patience.
            if let Ok(newest) = self.provider.get_block_number().await
                && seen != Some(newest)
            {
                let first = seen.map_or(newest, |seen| seen + 1).max(newest.saturating_sub(MAX_GAP));
                for number in first..=newest {
                    let Ok(Some(block)) = rpc::block(self.provider.client(), &quantity(number)).await else {
                        continue;
                    };
                    let waiting = self.waiting.lock();
                    wanted.extend(
                        block.transactions.iter().filter(|hash| waiting.for_hash.contains_key(*hash)),
                    );
                }
                seen = Some(newest);
            }
            stream::iter(wanted).for_each_concurrent(TOGETHER, |hash| self.ask(hash)).await;
        }
    }

    async fn ask(&self, transaction: B256) {
        let Ok(Some(receipt)) = self.provider.get_transaction_receipt(transaction).await else { return };
        // Some endpoints show a receipt of what is still pending.
        if receipt.block_number.is_none() {
            return;
        }
        for waiter in self.waiting.lock().for_hash.remove(&transaction).unwrap_or_default() {
            // Whoever waited may have gone.
            let _ = waiter.send(receipt.clone());
        }
    }
}
