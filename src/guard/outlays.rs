//! The watch over the wallet: what leaves it on a chain must be what somebody signed here, or the wallet is frozen.
//!
//! Only final blocks are looked through, each of them once: the place is in the store, so that a restart goes on there and
//! gateways on one store share the work. A transfer is known by the nonce that was spent for it: one that was noted when it
//! was signed, one of a journal, or one of the stock. One that is not known is doubted for [`DOUBT`], and looked for
//! again, before the wallet is frozen for it: a journal may be written late.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, warn};

use super::{Frozen, Guards, SwitchError, nonces};
use crate::chain::{ChainError, Chains, Head, Outlay};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::jobs::{ClaimKey, JobStore, StoreError, ValueStore};
use crate::providers::stock_steps;
use crate::wallet::Wallet;
use crate::x402::{Address, Asset, B256, Network};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// One gateway looks for all on its store; the next may begin after this.
const TURN: Duration = Duration::from_secs(9);
/// How long a transfer that nobody knows is looked for again.
const DOUBT: Duration = Duration::from_secs(30);
/// Jobs asked for in one part of a scan.
const PART: usize = 256;

/// The store's space: by network, token and wallet, the [`Place`].
const SPACE: &str = "wallet.outlays";

/// Whoever can say what an account paid: the chains that are configured, or a test.
#[async_trait]
pub trait Outlays: Send + Sync {
    /// The newest block, and one that is final.
    async fn heads(&self, network: Network) -> Result<(Head, Head), ChainError>;

    /// See [`crate::chain::Chain::outlays`].
    async fn outlays(
        &self,
        asset: &Asset,
        account: Address,
        blocks: RangeInclusive<u64>,
    ) -> Result<(Vec<Outlay>, u64), ChainError>;
}

#[async_trait]
impl Outlays for Chains {
    async fn heads(&self, network: Network) -> Result<(Head, Head), ChainError> {
        let chain = self.of(network).ok_or_else(|| nobody(network))?;
        Ok((chain.newest().await?, chain.last_final().await?))
    }

    async fn outlays(
        &self,
        asset: &Asset,
        account: Address,
        blocks: RangeInclusive<u64>,
    ) -> Result<(Vec<Outlay>, u64), ChainError> {
        let chain = self.of(asset.network).ok_or_else(|| nobody(asset.network))?;
        chain.outlays(asset.address, account, blocks).await
    }
}

fn nobody(network: Network) -> ChainError {
    ChainError::Away(format!("{network} has no [[chains]]"))
}

/// The background service.
pub struct OutlayWatch {
    guards: Arc<Guards>,
    jobs: Arc<dyn JobStore>,
    wallet: Arc<Wallet>,
    chains: Arc<dyn Outlays>,
    /// The tokens that are watched, each on a network that can be asked.
    assets: Vec<Asset>,
    /// How long the store remembers a finished job, where it forgets them by itself.
    memory: Option<Duration>,
}

/// How far a token was looked through.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    /// The first block that was not.
    next: u64,
    /// The time of the last final block when all of them were.
    time: UnixSeconds,
    /// What was found before it that nobody knows yet.
    doubts: Vec<Doubt>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Doubt {
    outlay: Outlay,
    since: UnixMillis,
}

/// Why there was no look. The next one begins at the same place.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Switch(#[from] SwitchError),
    #[error("the stock's purchases cannot be read: {0}")]
    Stock(String),
}

impl OutlayWatch {
    /// The watch over `wallet` in those of `assets` whose network can be asked. `memory`: how long the store remembers a
    /// finished job, where it forgets them by itself.
    pub fn new(
        guards: Arc<Guards>,
        jobs: Arc<dyn JobStore>,
        wallet: Arc<Wallet>,
        chains: Arc<dyn Outlays>,
        assets: Vec<Asset>,
        memory: Option<Duration>,
    ) -> OutlayWatch {
        guards.nonces.keep();
        OutlayWatch { guards, jobs, wallet, chains, assets, memory }
    }

    /// Looks again and again until `stopped`, then writes what this process signed.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
            self.write_nonces().await;
            match self.jobs.put_new(SPACE, "turn", b"taken", Some(TURN)).await {
                Ok(None) => self.round().await,
                Ok(Some(_)) => {}
                Err(away) => warn!(%away, "what leaves the wallet is not watched"),
            }
        }
        self.write_nonces().await;
    }

    /// One look at every token.
    pub async fn round(&self) {
        for asset in &self.assets {
            if let Err(why) = self.look(asset).await {
                warn!(network = %asset.network, %why, "what leaves the wallet is not watched");
            }
        }
    }

    /// Makes what this process signed known to the others.
    pub async fn write_nonces(&self) {
        if let Err(away) = self.guards.nonces.write(&*self.jobs).await {
            warn!(%away, "what was signed is not noted yet");
        }
    }

    async fn look(&self, asset: &Asset) -> Result<(), WatchError> {
        let account = self.wallet.address();
        let key = format!("{}/{:#x}/{account:#x}", asset.network, asset.address);
        let (newest, last_final) = self.chains.heads(asset.network).await?;
        let now = self.guards.clock.now();
        let begin = Place { next: newest.number + 1, time: now, doubts: Vec::new() };
        let mut moved = false;
        let mut place = match self.jobs.get(SPACE, &key).await? {
            None => {
                self.jobs.put_new(SPACE, &key, &encode(&begin), None).await?;
                begin
            }
            Some(written) => {
                let place: Place = serde_json::from_slice(&written).map_err(|_| {
                    StoreError::Unreadable("the place of the watch over the wallet".to_owned())
                })?;
                // What was signed so long ago nobody remembers: all of it would look like a thief's.
                match self.memory.filter(|memory| place.time.saturating_add(memory.as_secs()) < now) {
                    None => place,
                    Some(_) => {
                        error!(network = %asset.network, from = place.next, to = newest.number,
                            "the watch over the wallet was away for longer than jobs are kept (paid.retention); what \
                             left the wallet in these blocks is not looked at");
                        moved = true;
                        begin
                    }
                }
            }
        };
        if place.next <= last_final.number {
            let blocks = place.next..=last_final.number;
            let (found, last) = self.chains.outlays(asset, account, blocks).await?;
            let since = self.guards.clock.now_millis();
            place.doubts.extend(found.into_iter().map(|outlay| Doubt { outlay, since }));
            place.next = last + 1;
            if last == last_final.number {
                place.time = place.time.max(last_final.time);
            }
            moved = true;
        }
        if !place.doubts.is_empty() {
            self.settle(asset, &mut place.doubts).await?;
            moved = true;
        }
        if moved {
            self.jobs.put(SPACE, &key, &encode(&place), None).await?;
        }
        self.guards.metrics.watched(asset, place.next.saturating_sub(1));
        Ok(())
    }

    /// Takes out what is known by now; and what was doubted for long enough, for which the wallet is frozen.
    async fn settle(&self, asset: &Asset, doubts: &mut Vec<Doubt>) -> Result<(), WatchError> {
        let mut unknown: HashSet<B256> = doubts.iter().filter_map(|doubt| doubt.outlay.nonce).collect();
        self.find(&mut unknown).await?;
        doubts.retain(|doubt| doubt.outlay.nonce.is_none_or(|nonce| unknown.contains(&nonce)));
        let now = self.guards.clock.now_millis();
        let is_old = |doubt: &Doubt| now >= doubt.since.saturating_add(super::millis(DOUBT));
        let (foreign, young): (Vec<Doubt>, _) = std::mem::take(doubts).into_iter().partition(is_old);
        *doubts = young;
        let Some(first) = foreign.first() else { return Ok(()) };
        for Doubt { outlay, .. } in &foreign {
            error!(network = %asset.network, transaction = %outlay.transaction, block = outlay.block,
                to = %outlay.to, value = %outlay.value, "money left the wallet that nobody here signed for");
        }
        let Outlay { transaction, to, value, .. } = first.outlay;
        let others = match foreign.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let reason = format!(
            "transaction {transaction} on {} paid {} {} to {to}, and no journal knows of it{others}; \
             if the key leaked, move what is left to another wallet",
            asset.network,
            value.to_decimal(asset.decimals),
            asset.name,
        );
        // Before the place says that these were dealt with: a freeze that could not be written is made again.
        self.guards
            .freeze(Frozen { reason, by: "gateway".to_owned(), since: self.guards.clock.now() })
            .await?;
        self.guards.metrics.foreign_outlays(foreign.len());
        Ok(())
    }

    /// Takes out of `unknown` what was signed here: as noted, else by the stock's records, else by the journals.
    async fn find(&self, unknown: &mut HashSet<B256>) -> Result<(), WatchError> {
        if unknown.is_empty() {
            return Ok(());
        }
        for nonce in nonces::written(&*self.jobs).await? {
            unknown.remove(&nonce);
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let steps = stock_steps(&*self.jobs).await.map_err(|error| WatchError::Stock(error.to_string()))?;
        for (scope, step, attempt) in steps {
            unknown.remove(&self.wallet.nonce(&ClaimKey::inventory(&scope), step, attempt));
        }
        let mut after: Option<String> = None;
        while !unknown.is_empty() {
            let (part, mark) = self.jobs.scan(after.as_deref(), PART).await?;
            for id in part {
                if let Some(job) = self.jobs.by_id(id).await? {
                    let refunds = job.refunds.iter().map(|refund| refund.nonce);
                    for nonce in job.provider.iter().map(|payment| payment.nonce).chain(refunds) {
                        unknown.remove(&nonce);
                    }
                }
            }
            let Some(mark) = mark else { break };
            after = Some(mark);
        }
        Ok(())
    }
}

/// Up to when everything that left the wallet was looked at, in all of these tokens. `None` where the watch has not begun.
pub async fn looked_until(
    store: &dyn ValueStore,
    account: Address,
    assets: &[Asset],
) -> Result<Option<UnixSeconds>, StoreError> {
    let mut until = Some(UnixSeconds::MAX);
    for asset in assets {
        let key = format!("{}/{:#x}/{account:#x}", asset.network, asset.address);
        let written = store.get(SPACE, &key).await?;
        let place = written.and_then(|written| serde_json::from_slice::<Place>(&written).ok());
        until = until.zip(place).map(|(until, place)| until.min(place.time));
    }
    Ok(until)
}

fn encode(place: &Place) -> Vec<u8> {
    serde_json::to_vec(place).unwrap_or_default()
}
