//! Whether the wallet has what it is to pay: by the chain where it can be asked, by what providers say otherwise.
//!
//! A balance is what the chain said last, less what this process has signed since and may still be taken. It is for
//! refusing in time: what protects the money is the balance itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use tracing::warn;

use super::micros;
use crate::chain::{ChainError, Chains};
use crate::jobs::ClaimKey;
use crate::money::Amount;
use crate::telemetry::Metrics;
use crate::x402::{Address, Asset, Network};

/// Between two looks at the chain.
const EVERY: Duration = Duration::from_secs(15);
/// A balance older than this is not known any more.
const OLD: Duration = Duration::from_secs(300);
/// What a provider has taken is on the chain by then.
const TAKEN: Duration = Duration::from_secs(10);
/// How long a provider's word that the wallet is empty counts.
const REFUSED: Duration = Duration::from_secs(60);

/// Whoever knows balances: the chains that are configured, or a test.
#[async_trait]
pub trait Balance: Send + Sync {
    /// What `account` has; `None` where nobody can be asked.
    async fn balance(&self, asset: &Asset, account: Address) -> Option<Result<Amount, ChainError>>;

    /// Whether there is somebody to ask about this network.
    fn knows(&self, network: Network) -> bool;
}

#[async_trait]
impl Balance for Chains {
    async fn balance(&self, asset: &Asset, account: Address) -> Option<Result<Amount, ChainError>> {
        Some(self.of(asset.network)?.balance(asset, account).await)
    }

    fn knows(&self, network: Network) -> bool {
        self.of(network).is_some()
    }
}

/// The wallet, and who knows what it has.
pub struct Watched {
    /// Its address.
    pub account: Address,
    /// What it pays in.
    pub assets: Vec<Asset>,
    /// Who is asked.
    pub chains: Arc<dyn Balance>,
}

pub(super) struct Balances {
    watched: Watched,
    purses: Mutex<Vec<Purse>>,
    /// The most that any token has left, in millionths of a dollar; [`u64::MAX`] where that is not known. Every challenge
    /// reads it, so it is kept apart from the lock, and brought up to date with every change and by `tend`.
    most: AtomicU64,
}

/// One token.
struct Purse {
    asset: Asset,
    balance: Option<(Amount, Instant)>,
    signed: Vec<Signed>,
    refused: Option<Instant>,
}

/// A payment that was signed and may still be taken.
struct Signed {
    claim: ClaimKey,
    amount: Amount,
    lapses: Instant,
    /// When its job was done with it.
    done: Option<Instant>,
}

impl Balances {
    pub(super) fn new(watched: Watched) -> Balances {
        let purse =
            |asset: &Asset| Purse { asset: asset.clone(), balance: None, signed: Vec::new(), refused: None };
        let purses = watched.assets.iter().map(purse).collect();
        Balances { purses: Mutex::new(purses), watched, most: AtomicU64::new(u64::MAX) }
    }

    /// Asks the chains again and again, until dropped.
    pub(super) async fn watch(&self, metrics: &Metrics) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look(metrics).await;
        }
    }

    /// Asks the chains.
    pub(super) async fn look(&self, metrics: &Metrics) {
        for asset in &self.watched.assets {
            let began = Instant::now();
            match self.watched.chains.balance(asset, self.watched.account).await {
                None => {}
                Some(Err(error)) => {
                    warn!(network = %asset.network, %error, "the wallet's balance is not known")
                }
                Some(Ok(balance)) => {
                    metrics.balance(asset, balance);
                    self.change(|purses| {
                        if let Some(purse) = purses.iter_mut().find(|purse| purse.asset == *asset) {
                            purse.balance = Some((balance, began));
                            purse.signed.retain(|signed| signed.is_out(began));
                        }
                    });
                }
            }
        }
    }

    /// As if everything so far had been that much earlier.
    #[cfg(test)]
    pub(super) fn age(&self, by: Duration) {
        self.change(|purses| {
            for purse in purses {
                let back = |at: Instant| at.checked_sub(by).unwrap_or(at);
                purse.balance = purse.balance.map(|(balance, at)| (balance, back(at)));
                purse.refused = purse.refused.map(back);
                for signed in &mut purse.signed {
                    (signed.lapses, signed.done) = (back(signed.lapses), signed.done.map(back));
                }
            }
        });
    }

    /// A payment was signed that lapses in `lapses`.
    pub(super) fn signed(&self, claim: &ClaimKey, asset: &Asset, amount: Amount, lapses: Duration) {
        // Where nobody is asked what became of it, it would only be kept.
        if !self.watched.chains.knows(asset.network) {
            return;
        }
        self.change(|purses| {
            if let Some(purse) = purses.iter_mut().find(|purse| purse.asset == *asset) {
                let lapses = Instant::now() + lapses;
                purse.signed.push(Signed { claim: claim.clone(), amount, lapses, done: None });
            }
        });
    }

    /// A job is done with what it signed.
    pub(super) fn done(&self, claim: &ClaimKey) {
        for purse in self.purses.lock().iter_mut() {
            for signed in purse.signed.iter_mut().filter(|signed| signed.claim == *claim) {
                signed.done.get_or_insert_with(Instant::now);
            }
        }
    }

    /// A provider says that there is not enough.
    pub(super) fn refused(&self, asset: &Asset) {
        self.change(|purses| {
            if let Some(purse) = purses.iter_mut().find(|purse| purse.asset == *asset) {
                purse.refused = Some(Instant::now());
            }
        });
    }

    /// Notices what time alone has changed: old balances, refusals and signatures count no more.
    pub(super) fn tend(&self) {
        self.change(|_| {});
    }

    fn change(&self, change: impl FnOnce(&mut [Purse])) {
        let mut purses = self.purses.lock();
        change(&mut purses);
        self.most.store(purses.iter().map(Purse::worth).max().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether there is less than `amount`, as far as anybody knows.
    pub(super) fn lacks(&self, asset: &Asset, amount: Amount) -> bool {
        let purses = self.purses.lock();
        purses.iter().find(|purse| purse.asset == *asset).is_some_and(|purse| purse.lacks(amount))
    }

    /// Whether there is less than this, in millionths of a dollar, in every token. Takes no lock.
    pub(super) fn all_lack(&self, cost: u64) -> bool {
        self.most.load(Ordering::Relaxed) < cost.max(1)
    }

    /// What each token has left, as far as it is known.
    pub(super) fn left(&self) -> Vec<(Asset, Option<Amount>)> {
        self.purses.lock().iter().map(|purse| (purse.asset.clone(), purse.left())).collect()
    }
}

impl Purse {
    fn left(&self) -> Option<Amount> {
        let (balance, _) = self.balance.filter(|(_, at)| at.elapsed() < OLD)?;
        let now = Instant::now();
        let out = self.signed.iter().filter(|signed| signed.lapses > now);
        let out = out.fold(0u128, |sum, signed| sum.saturating_add(signed.amount.units()));
        Some(Amount::new(balance.units().saturating_sub(out)))
    }

    /// What can be paid with it, in millionths of a dollar; no end to it where that is not known.
    fn worth(&self) -> u64 {
        match (self.is_refused(), self.left()) {
            (true, _) => 0,
            (false, Some(left)) => micros(left, &self.asset),
            (false, None) => u64::MAX,
        }
    }

    /// A provider knows less of our balance than the chain does.
    fn is_refused(&self) -> bool {
        let since = self.balance.map(|(_, at)| at);
        self.refused.is_some_and(|at| at.elapsed() < REFUSED && since.is_none_or(|balance| balance < at))
    }

    fn lacks(&self, amount: Amount) -> bool {
        self.is_refused() || self.left().is_some_and(|left| left < amount)
    }
}

impl Signed {
    /// Whether a look at the chain that began at `look` may not have seen it.
    fn is_out(&self, look: Instant) -> bool {
        self.lapses > look && self.done.is_none_or(|done| done + TAKEN > look)
    }
}
