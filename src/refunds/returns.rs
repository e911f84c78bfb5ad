//! What providers send back: some settle first and return what was not used (Merit Systems), with a transfer of their own. The
//! gateway looks for those in the blocks that are final, and books them. Nothing is decided by it, so the first endpoint
//! that answers is believed.
//!
//! Only what comes from an address that the wallet pays is income; what the operator sends is not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::chain::{ChainError, Prove};
use crate::jobs::{StoreError, ValueStore};
use crate::money::Amount;
use crate::providers::Returned;
use crate::telemetry::Metrics;
use crate::wallet::Payees;
use crate::x402::{Address, Asset};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(30);
/// Questions asked in one look, for each token: after a long pause it takes several looks to catch up.
const STEPS: u64 = 32;

/// The background service.
pub struct Returns {
    /// Where sums are kept.
    pub store: Arc<dyn ValueStore>,
    /// Who is asked.
    pub chains: Arc<dyn Prove>,
    /// The sums are shown here.
    pub metrics: Arc<Metrics>,
    /// Whom the operator named to be paid; else those that are pinned are asked for.
    pub named: Vec<Address>,
    /// The wallet.
    pub wallet: Address,
    /// What it pays in, and how many blocks may be asked for at once.
    pub assets: Vec<(Asset, u64)>,
}

/// Why one token was not looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLooked {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl Returns {
    /// Looks again and again, until dropped.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look().await;
        }
    }

    /// One look at every token.
    pub async fn look(&self) {
        for (asset, blocks) in &self.assets {
            if let Err(why) = self.look_at(asset, (*blocks).max(1)).await {
                warn!(network = %asset.network, %why, "what providers sent back is not up to date");
            }
        }
    }

    async fn look_at(&self, asset: &Asset, blocks: u64) -> Result<(), NotLooked> {
        let Some(last) = self.chains.last_final(asset.network).await else { return Ok(()) };
        let last = last?.number;
        let mut kept = match Returned::read(&*self.store, asset, self.wallet).await? {
            Some(kept) => kept,
            // What came before the first look was never ours to count.
            None => Returned::since(asset.clone(), self.wallet, last).begin(&*self.store).await?,
        };
        let payees = self.payees(asset).await?;
        for _ in 0..STEPS {
            if kept.upto >= last {
                break;
            }
            let upto = last.min(kept.upto.saturating_add(blocks));
            let range = kept.upto + 1..=upto;
            let asked = self.chains.income(asset.network, asset.address, self.wallet, range).await;
            let Some(income) = asked else { return Ok(()) };
            let mut next = Returned { upto, ..kept.clone() };
            for income in income?.iter().filter(|income| payees.contains(&income.from)) {
                let sum = next.senders.entry(income.from).or_default();
                sum.amount = Amount::new(sum.amount.units().saturating_add(income.value.units()));
                sum.transfers = sum.transfers.saturating_add(1);
                info!(from = %income.from, amount = %income.value, transaction = %income.transaction,
                    "a provider sent money back");
            }
            // Another gateway may be ahead, with the same sums.
            kept = match Returned::read(&*self.store, asset, self.wallet).await? {
                Some(other) if other.upto >= upto => other,
                _ => {
                    next.write(&*self.store).await?;
                    next
                }
            };
        }
        self.metrics.returned(asset, kept.total());
        Ok(())
    }

    /// Who may send back: whoever is paid in this token.
    async fn payees(&self, asset: &Asset) -> Result<BTreeSet<Address>, StoreError> {
        if !self.named.is_empty() {
            return Ok(self.named.iter().copied().collect());
        }
        let token = format!("/{}/{:#x}", asset.network, asset.address);
        let pinned = Payees::list(&*self.store).await?;
        Ok(pinned.into_iter().filter(|(key, _)| key.ends_with(&token)).map(|(_, payee)| payee).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::chain::{Head, Income, Proof, Sought};
    use crate::clock::Clock;
    use crate::jobs::memory::MemoryStore;
    use crate::providers::returned;
    use crate::x402::fixtures::usdc;
    use crate::x402::{B256, Network};

    const WALLET: Address = Address::repeat_byte(0xee);
    const MERIT: Address = Address::repeat_byte(0xdd);
    const STRANGER: Address = Address::repeat_byte(0x66);

    /// Transfers to the wallet by block, and the final one.
    #[derive(Default)]
    struct Blocks {
        last: Mutex<u64>,
        transfers: Mutex<Vec<(u64, Address, u128)>>,
        asked: Mutex<Vec<RangeInclusive<u64>>>,
        away: Mutex<bool>,
    }

    #[async_trait]
    impl Prove for Blocks {
        async fn prove(&self, _: Network, _: &Sought) -> Option<Result<Proof, ChainError>> {
            None
        }

        async fn last_final(&self, _: Network) -> Option<Result<Head, ChainError>> {
            Some(Ok(Head { number: *self.last.lock(), hash: B256::ZERO, time: 0 }))
        }

        async fn income(
            &self,
            _: Network,
            asset: Address,
            to: Address,
            blocks: RangeInclusive<u64>,
        ) -> Option<Result<Vec<Income>, ChainError>> {
            assert_eq!((asset, to), (usdc().address, WALLET));
            if *self.away.lock() {
                return Some(Err(ChainError::Away("as told".into())));
            }
            let transfers = self.transfers.lock();
            let found = transfers.iter().filter(|(block, ..)| blocks.contains(block));
            let found = found.map(|(block, from, value)| Income {
                transaction: B256::repeat_byte(*block as u8),
                from: *from,
                value: Amount::new(*value),
            });
            self.asked.lock().push(blocks.clone());
            Some(Ok(found.collect()))
        }

        fn height(&self, _: Network) -> Option<u64> {
            None
        }

        fn knows(&self, _: Network) -> bool {
            true
        }
    }

    struct Stage {
        blocks: Arc<Blocks>,
        store: Arc<MemoryStore>,
    }

    impl Stage {
        async fn new(last: u64) -> Stage {
            let store = MemoryStore::new(Clock::manual(0));
            let payees = Payees::new(store.clone(), Vec::new());
            payees.check("merit", &usdc(), MERIT).await.unwrap();
            let blocks = Arc::new(Blocks::default());
            *blocks.last.lock() = last;
            Stage { blocks, store }
        }

        /// A gateway.
        fn returns(&self) -> Returns {
            Returns {
                store: self.store.clone(),
                chains: self.blocks.clone(),
                metrics: Arc::new(Metrics::new()),
                named: Vec::new(),
                wallet: WALLET,
                assets: vec![(usdc(), 10)],
            }
        }

        fn comes(&self, block: u64, from: Address, value: u128) {
            self.blocks.transfers.lock().push((block, from, value));
        }

        fn last(&self, last: u64) {
            *self.blocks.last.lock() = last;
        }

        /// Sum, transfers, and the block they go up to.
        async fn kept(&self) -> (u128, u64, u64) {
            let all = returned(&*self.store).await.unwrap();
            let [one] = &all[..] else { panic!("{all:?}") };
            let transfers = one.senders.values().map(|sum| sum.transfers).sum();
            (one.total().units(), transfers, one.upto)
        }
    }

    #[tokio::test]
    async fn what_a_provider_sends_back_is_booked_once() {
        let stage = Stage::new(100).await;
        stage.comes(100, MERIT, 1_000_000);
        let returns = stage.returns();
        returns.look().await;
        assert_eq!(stage.kept().await, (0, 0, 100), "what came before is not counted");
        // Two in one block, one alike; and what is not a provider's.
        stage.comes(101, MERIT, 5);
        stage.comes(101, MERIT, 5);
        stage.comes(103, STRANGER, 7_000);
        stage.comes(105, MERIT, 11);
        stage.last(104);
        for _ in 0..3 {
            returns.look().await;
        }
        assert_eq!(stage.kept().await, (10, 2, 104), "what is not final waits");
        stage.last(105);
        // By two gateways, and by one that has just started.
        let (first, second) = (stage.returns(), stage.returns());
        tokio::join!(first.look(), second.look());
        stage.returns().look().await;
        assert_eq!(stage.kept().await, (21, 3, 105));
        let text = first.metrics.exposition().unwrap();
        assert!(
            text.lines()
                .any(|line| line.starts_with("galaksio_provider_returned_atomic{") && line.ends_with(" 21"))
        );
        let mut books = crate::ledger::Books::default();
        returned(&*stage.store).await.unwrap().iter().for_each(|one| books.returned(one));
        assert_eq!(books.check(), []);
        assert_eq!(books.balance(&usdc(), crate::ledger::Account::Returned), Some(-21));
        assert_eq!(books.balance(&usdc(), crate::ledger::Account::Wallet), Some(21));
    }

    #[tokio::test]
    async fn a_pause_is_caught_up_with_in_steps() {
        let stage = Stage::new(100).await;
        stage.returns().look().await;
        stage.comes(111, MERIT, 1);
        stage.comes(400, MERIT, 2);
        stage.comes(500, MERIT, 4);
        stage.last(500);
        stage.returns().look().await;
        assert_eq!(stage.kept().await, (3, 2, 420));
        assert!(stage.blocks.asked.lock().iter().all(|range| range.end() - range.start() < 10));
        stage.returns().look().await;
        assert_eq!(stage.kept().await, (7, 3, 500));
    }

    #[tokio::test]
    async fn what_was_not_seen_is_not_passed_over() {
        let stage = Stage::new(100).await;
        stage.returns().look().await;
        stage.comes(101, MERIT, 1);
        stage.last(101);
        *stage.blocks.away.lock() = true;
        stage.returns().look().await;
        assert_eq!(stage.kept().await, (0, 0, 100));
        *stage.blocks.away.lock() = false;
        stage.store.fail(true);
        stage.returns().look().await;
        stage.store.fail(false);
        assert_eq!(stage.kept().await, (0, 0, 100));
        stage.returns().look().await;
        assert_eq!(stage.kept().await, (1, 1, 101));
    }

    #[tokio::test]
    async fn named_payees_are_the_only_ones() {
        let stage = Stage::new(100).await;
        let returns = Returns { named: vec![STRANGER], ..stage.returns() };
        returns.look().await;
        stage.comes(101, MERIT, 1);
        stage.comes(101, STRANGER, 2);
        stage.last(101);
        returns.look().await;
        assert_eq!(stage.kept().await, (2, 1, 101));
    }
}
