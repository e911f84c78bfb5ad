//! Settling one payment: once, however often and by however many it is asked for, and by whomever it was submitted.
//!
//! Each settlement runs in a task of its own, so it ends though nobody waits any more; who asks for the same in the
//! meantime waits for the same end. After a restart the chain is what remembers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy::primitives::keccak256;
use alloy::rpc::types::Log;
use moka::sync::Cache;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::account::Terms;
use super::contracts::{self, Claimed, Shown};
use super::order::{No, Order, reason};
use super::rpc::{self, Away, Batch};
use super::sent::{Fate, Item};
use super::verify::{self, Facts, Reader, Trial};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::x402::abi::TokenEvent;
use crate::x402::{Address, B256};

/// How long a settled payment is known without asking the chain, and how many are.
const REMEMBERED: Duration = Duration::from_secs(600);
const REMEMBERED_MOST: u64 = 100_000;

/// Settlements running at once at most.
const RUNNING_MOST: usize = 10_000;

/// What a token's transfer costs is measured again after this long.
const GAS_FRESH: Duration = Duration::from_secs(600);

/// More gas than any transfer has a right to; a wallet's code may ask for anything.
const GAS_MOST: u64 = 1_500_000;

/// How many ranges of blocks are searched for the transaction that used an authorization.
const RANGES: u64 = 20;

/// Settles on one chain.
pub(super) struct Settler {
    chain: Chain,
    reader: Arc<Reader>,
    clock: Clock,
    terms: Terms,
    log_range: u64,
    account: mpsc::UnboundedSender<Item>,
    running: Mutex<HashMap<B256, Running>>,
    settled: Cache<B256, (B256, Found)>,
    told: Cache<B256, ()>,
    gas: Cache<Address, u64>,
    counts: Counts,
}

/// How many settlements ended how.
#[derive(Debug, Default)]
struct Counts {
    settled: AtomicU64,
    refused: AtomicU64,
}

/// A settlement that runs: its transaction so far, and its end.
#[derive(Clone)]
struct Running {
    sent: watch::Receiver<Option<B256>>,
    end: watch::Receiver<Option<End>>,
}

/// How a settlement ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Paid, in this transaction.
    Paid(B256, Found),
    /// Not paid, and what was tried.
    No(No, Option<B256>),
    /// Nobody answered; nothing was sent.
    Away(Away),
    /// Nobody knows.
    Unknown(String),
    /// It goes on; this is its transaction if there is one yet.
    Pending(Option<B256>),
}

/// When the transaction of a payment was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It came while the payment was being settled here.
    Now,
    /// It was there before anybody asked.
    Before,
}

impl Settler {
    pub(super) fn new(
        chain: Chain,
        reader: Arc<Reader>,
        account: mpsc::UnboundedSender<Item>,
        clock: Clock,
        terms: Terms,
        log_range: u64,
    ) -> Self {
        Settler {
            chain,
            reader,
            clock,
            terms,
            log_range,
            account,
            running: Mutex::default(),
            settled: Cache::builder().max_capacity(REMEMBERED_MOST).time_to_live(REMEMBERED).build(),
            told: Cache::builder().max_capacity(REMEMBERED_MOST).time_to_live(REMEMBERED * 2).build(),
            gas: Cache::builder().max_capacity(1_024).time_to_live(GAS_FRESH).build(),
            counts: Counts::default(),
        }
    }

    /// Settlements that ended well, and that were refused.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.counts.settled.load(Ordering::Relaxed), self.counts.refused.load(Ordering::Relaxed))
    }

    /// Whether nobody was told yet that this authorization is settled. From now on somebody was.
    pub(super) fn tell_first(&self, order: &Order) -> bool {
        let Order { asset, authorization, .. } = order;
        let key = [asset.address.as_slice(), authorization.from.as_slice(), authorization.nonce.as_slice()]
            .concat();
        is_first(&self.told, keccak256(key))
    }

    /// Settles `order`, or joins its settlement, and waits for the end this long.
    pub(super) async fn settle(self: &Arc<Self>, order: Order, patience: Duration) -> End {
        let key = order.key();
        if let Some((transaction, found)) = self.settled.get(&key) {
            return End::Paid(transaction, found);
        }
        let Some(mut running) = self.join(key, order) else {
            return End::Away(Away("too many settlements are running".to_owned()));
        };
        match timeout(patience, running.end.wait_for(Option::is_some)).await {
            Ok(Ok(end)) => (*end).clone().unwrap_or(End::Pending(None)),
            // Its task is gone without a word: the process is ending.
            Ok(Err(_)) => End::Unknown("the settlement was cut off".to_owned()),
            Err(_) => End::Pending(*running.sent.borrow()),
        }
    }

    fn join(self: &Arc<Self>, key: B256, order: Order) -> Option<Running> {
        let mut running = self.running.lock();
        // One whose task is gone without a word is begun again.
        if let Some(same) = running.get(&key).filter(|same| same.end.has_changed().is_ok()) {
            return Some(same.clone());
        }
        if running.len() >= RUNNING_MOST {
            return None;
        }
        let (sent, sent_seen) = watch::channel(None);
        let (ended, end) = watch::channel(None);
        let new = Running { sent: sent_seen, end };
        running.insert(key, new.clone());
        drop(running);
        let settler = Arc::clone(self);
        tokio::spawn(async move {
            let end = settler.run(order, Arc::new(sent)).await;
            match &end {
                End::Paid(transaction, found) => {
                    settler.counts.settled.fetch_add(1, Ordering::Relaxed);
                    settler.settled.insert(key, (*transaction, *found));
                }
                End::No(..) => {
                    settler.counts.refused.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
            // Remembered before it is taken off the list: at no time is it on neither.
            settler.running.lock().remove(&key);
            ended.send_replace(Some(end));
        });
        Some(new)
    }

    /// From the request to the end. What is asked of the chain first sends nothing, so it may fail without a doubt.
    async fn run(&self, order: Order, sent: Arc<watch::Sender<Option<B256>>>) -> End {
        if order.recovered
            && let Err(no) = order.check_money()
        {
            return End::No(no, None);
        }
        let order = Arc::new(order);
        let (item, fate) = match self.prepare(&order, &sent, false).await {
            Ok(prepared) => prepared,
            Err(end) => return end,
        };
        let first = match self.send(item, fate).await {
            Ok(Fate::Mined(transaction, Shown::Transfer)) => return End::Paid(transaction, Found::Now),
            Ok(fate) => fate,
            Err(end) => return end,
        };
        // It failed, or the money went elsewhere, or time ran out. The chain says which; what can still be paid is
        // tried once more, alone.
        if let Fate::Mined(transaction, Shown::UsedWithoutTransfer) = first {
            return End::No(No::because(reason::EVENTS), Some(transaction));
        }
        let tried = match first {
            Fate::Mined(transaction, _) => Some(transaction),
            Fate::Lapsed => None,
        };
        self.gas.invalidate(&order.asset.address);
        let (item, fate) = match self.prepare(&order, &sent, true).await {
            Ok(prepared) => prepared,
            // Somebody else was faster, while ours was on its way.
            Err(End::Paid(transaction, _)) => return End::Paid(transaction, Found::Now),
            Err(End::No(no, None)) => return End::No(no, tried),
            // Something was sent before, so this is not the certainty that nothing was.
            Err(End::Away(away)) => return End::Unknown(away.0),
            Err(end) => return end,
        };
        match self.send(item, fate).await {
            Ok(Fate::Mined(transaction, Shown::Transfer)) => End::Paid(transaction, Found::Now),
            Ok(Fate::Mined(transaction, Shown::UsedWithoutTransfer)) => {
                End::No(No::because(reason::EVENTS), Some(transaction))
            }
            Ok(Fate::Mined(transaction, Shown::Nothing)) => self.last_word(&order, Some(transaction)).await,
            Ok(Fate::Lapsed) => self.last_word(&order, tried).await,
            Err(end) => end,
        }
    }

    /// Looks at the order as the chain has it now, and makes it ready to be sent, unless that is the end of it.
    async fn prepare(
        &self,
        order: &Arc<Order>,
        sent: &Arc<watch::Sender<Option<B256>>>,
        alone: bool,
    ) -> Result<(Item, oneshot::Receiver<Fate>), End> {
        let token = order.asset.address;
        let known = self.gas.get(&token).filter(|_| order.recovered && order.deployment.is_none() && !alone);
        let trial = if known.is_some() { Trial::None } else { Trial::Gas };
        let mut facts = self.read(order, trial).await?;
        self.already(order, &facts).await?;
        if facts.payer_has_code && facts.tried.is_none() {
            facts = self.read(order, Trial::Gas).await?;
        }
        match self.reader.judge(order, &facts, self.clock.now()).await {
            Ok(Ok(())) => {}
            Ok(Err(no)) => return Err(End::No(no, None)),
            Err(away) => return Err(End::Away(away)),
        }
        let ordinary = order.recovered && !facts.payer_has_code && facts.factory_allowed.is_none();
        let gas = match (known, facts.tried) {
            (Some(gas), None) => gas,
            (_, Some(Ok(estimate))) => {
                // A first payment to a payee costs more than the next.
                let gas = estimate + estimate / 4 + 20_000;
                if ordinary {
                    self.gas.insert(token, gas);
                }
                gas
            }
            (_, Some(Err(why))) => return Err(End::No(No::saying(reason::SIMULATION, why), None)),
            (None, None) => return Err(End::Away(Away("the gas it needs is not known".to_owned()))),
        };
        if gas > GAS_MOST {
            let message = format!("it would take {gas} gas; at most {GAS_MOST} are paid for");
            return Err(End::No(No::saying(reason::FAILED, message), None));
        }
        let (fate, receiver) = oneshot::channel();
        let item = Item {
            order: Arc::clone(order),
            call: verify::call(order, facts.factory_allowed.is_some()),
            gas,
            alone: alone || !ordinary,
            sent: Arc::clone(sent),
            fate,
        };
        Ok((item, receiver))
    }

    async fn send(&self, item: Item, fate: oneshot::Receiver<Fate>) -> Result<Fate, End> {
        let gone = || End::Unknown("the gas account's task has ended".to_owned());
        self.account.send(item).map_err(|_| gone())?;
        fate.await.map_err(|_| gone())
    }

    async fn read(&self, order: &Order, trial: Trial) -> Result<Facts, End> {
        self.reader.read(order, trial).await.map_err(End::Away)
    }

    /// The end, if the authorization is used: whoever submitted it, the payee may have the money.
    async fn already(&self, order: &Order, facts: &Facts) -> Result<(), End> {
        if !facts.is_used() {
            return Ok(());
        }
        // What is public on the chain proves nothing about who asks; the signature does. A wallet that is not there
        // cannot say whose it is, and has not paid.
        if facts.factory_allowed.is_some() {
            return Err(End::No(No::because(reason::USED), None));
        }
        verify::judge_signature(order, facts).map_err(|no| End::No(no, None))?;
        order.check_money().map_err(|no| End::No(no, None))?;
        match self.look_up(order).await {
            Ok(Some(end)) => Err(end),
            Ok(None) => Err(End::Unknown(format!(
                "the authorization is used, and not in the last {} blocks",
                self.log_range.saturating_mul(RANGES)
            ))),
            Err(away) => Err(End::Unknown(away.0)),
        }
    }

    /// What is to be said when there is nothing more to try.
    async fn last_word(&self, order: &Order, tried: Option<B256>) -> End {
        let facts = match self.read(order, Trial::Call).await {
            Ok(facts) => facts,
            Err(_) => return End::Unknown("it was sent, and nobody says what became of it".to_owned()),
        };
        match self.already(order, &facts).await {
            Ok(()) => {}
            Err(End::Paid(transaction, _)) => return End::Paid(transaction, Found::Now),
            Err(end) => return end,
        }
        match self.reader.judge(order, &facts, self.clock.now()).await {
            Ok(Err(no)) => End::No(no, tried),
            Ok(Ok(())) => End::No(No::because(reason::FAILED), tried),
            Err(away) => End::Unknown(away.0),
        }
    }

    /// What used the authorization, as the logs have it; `None` if they do not go back far enough.
    async fn look_up(&self, order: &Order) -> Result<Option<End>, Away> {
        let (payer, nonce) = (order.authorization.from, order.authorization.nonce);
        let (used, _) = TokenEvent::AuthorizationUsed { authorizer: payer, nonce }.encode();
        let (cancelled, _) = TokenEvent::AuthorizationCanceled { authorizer: payer, nonce }.encode();
        let mut batch = Batch::new(&self.chain);
        let newest = batch.newest()?;
        batch.send().await?;
        let mut last = rpc::answer(newest).await?.number.to::<u64>();
        for _ in 0..RANGES {
            let first = (last + 1).saturating_sub(self.log_range.max(1));
            let topics = json!([[used[0], cancelled[0]], used[1], used[2]]);
            let filter = json!({
                "address": order.asset.address,
                "fromBlock": format!("{first:#x}"),
                "toBlock": format!("{last:#x}"),
                "topics": topics,
            });
            let mut batch = Batch::new(&self.chain);
            let logs = batch.ask::<Vec<Log>>("eth_getLogs", (filter,))?;
            batch.send().await?;
            let logs = rpc::answer(logs).await?;
            if logs.iter().any(|log| log.topics().first() == cancelled.first()) {
                return Ok(Some(End::No(No::saying(reason::USED, "the payer cancelled it"), None)));
            }
            if let Some(transaction) = logs.iter().find_map(|log| log.transaction_hash) {
                return self.confirm(order, transaction).await.map(Some);
            }
            if first == 0 {
                break;
            }
            last = first - 1;
        }
        Ok(None)
    }

    /// Waits until the transaction that used the authorization is deep enough, and says what it shows.
    async fn confirm(&self, order: &Order, transaction: B256) -> Result<End, Away> {
        loop {
            let mut batch = Batch::new(&self.chain);
            let newest = batch.newest()?;
            let receipt = batch.receipt(transaction)?;
            batch.send().await?;
            let newest = rpc::answer(newest).await?.number.to::<u64>();
            let Some(mined) = rpc::answer(receipt).await? else {
                return Err(Away("the transaction that used the authorization is gone".to_owned()));
            };
            let deep = mined.block_number.is_some_and(|block| {
                newest.saturating_add(1) >= block.to::<u64>().saturating_add(self.terms.confirmations)
            });
            if deep {
                let shown = contracts::shows(
                    &mined.logs,
                    order.asset.address,
                    &order.authorization,
                    &mut Claimed::default(),
                );
                return Ok(match shown {
                    Shown::Transfer => End::Paid(transaction, Found::Before),
                    Shown::UsedWithoutTransfer | Shown::Nothing => {
                        End::No(No::because(reason::USED), Some(transaction))
                    }
                });
            }
            sleep(self.terms.poll).await;
        }
    }
}

/// Whether `key` was not in `cache`; it is from now on. Of many who ask at once, one is the first.
fn is_first(cache: &Cache<B256, ()>, key: B256) -> bool {
    // `or_insert` looks and inserts in two steps; only `or_insert_with` lets one of many in.
    cache.entry(key).or_insert_with(|| ()).is_fresh()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn of_many_who_ask_at_once_one_is_the_first() {
        const KEYS: usize = 5_000;
        const ASKING: usize = 4;
        let told = Cache::new(REMEMBERED_MOST);
        let together = Barrier::new(ASKING);
        let ask = || {
            (0..KEYS)
                .filter(|key| {
                    if key % 64 == 0 {
                        together.wait();
                    }
                    is_first(&told, keccak256(key.to_be_bytes()))
                })
                .count()
        };
        let firsts: usize = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..ASKING).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(firsts, KEYS);
    }
}
