//! The gas account of one chain: the one task that owns its transaction numbers.
//!
//! ```text
//! settlements ─▶ queue ─▶ send: all that wait become transactions, up to `max_batch` transfers in each (Multicall3),
//!                         numbered, signed, and sent in one round trip
//!                look: a new block? receipts of what is out; each transfer is told its fate by its own logs
//!                      never arrived, or dropped      ─▶ the same bytes again
//!                      priced out, or late            ─▶ the same number at a higher fee, up to `max_fee`
//!                      refused before a pool took it  ─▶ number given back, a gap filled, the transfers sent anew
//!                      number used by somebody else   ─▶ the transfers sent anew
//!                      taken back by a reorg          ─▶ the same bytes again
//! ```
//!
//! However often a transfer is sent, the token takes its authorization once. So nothing here can pay twice, and the
//! worst that a mistake of a node's costs is gas.

mod look;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Bytes, U256};
use alloy::rpc::client::Waiter;
use alloy::signers::local::PrivateKeySigner;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::fees::Fee;
use super::numbers::Numbers;
use super::rpc::Batch;
use super::sent::{Item, Sent, carry, next_group};
use super::transaction::{self, Word};
use crate::chain::Chain;
use crate::x402::B256;

/// Transactions not yet mined at once. Nodes keep few of one account; what comes on top waits, and is batched.
const MAX_OUT: usize = 16;

/// For each transaction that is out, the next waits this much longer for others to share it. All of them together
/// so last for two seconds, a block of a fast chain.
const PACE: Duration = Duration::from_millis(16);

/// What is known of fees is good for this long; a base fee takes twelve seconds to double on a fast chain.
const FEES_FRESH: Duration = Duration::from_secs(30);

/// The first look after something was sent; it is doubled from there.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// What a node refused is sent again with the next block, or after this.
const HOLD: Duration = Duration::from_secs(1);

/// How the account spends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The most for a unit of gas, in wei.
    pub(super) max_fee: u128,
    /// Blocks that a transfer must be in, its own among them.
    pub(super) confirmations: u64,
    /// Transfers in one transaction at most.
    pub(super) max_batch: usize,
    /// Between two looks for a new block.
    pub(super) poll: Duration,
}

/// What is known of the account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Wei for gas, as of the last block looked at.
    pub(super) balance: U256,
    /// Transfers not yet sent.
    pub(super) waiting: usize,
    /// Transactions not yet done with.
    pub(super) out: usize,
}

/// The newest block that was looked at.
#[derive(Clone, Copy, Debug)]
struct Head {
    number: u64,
    time: u64,
    base_fee: u128,
}

/// What is known once the chain was asked.
struct Known {
    numbers: Numbers<Sent>,
    head: Head,
    tip: u128,
    multicall: bool,
    looked: Instant,
    /// The number above the highest that was seen mined.
    floor: u64,
}

pub(super) struct Account {
    chain: Chain,
    signer: PrivateKeySigner,
    terms: Terms,
    inbox: mpsc::UnboundedReceiver<Item>,
    queue: VecDeque<Item>,
    known: Option<Known>,
    /// Mined lately, for the case that a reorg takes them back.
    kept: BTreeMap<u64, Sent>,
    held: Option<Instant>,
    last_sent: Instant,
    /// The next look goes into detail even without a new block.
    closely: bool,
    /// What was said last, so that it is said once: nobody answers; gas is too dear.
    away: bool,
    dear: bool,
    status: Arc<Mutex<Status>>,
}

/// Starts the task. It ends when the sender is gone and nothing is out any more.
pub(super) fn start(
    chain: Chain,
    signer: PrivateKeySigner,
    terms: Terms,
) -> (mpsc::UnboundedSender<Item>, Arc<Mutex<Status>>) {
    let (sender, inbox) = mpsc::unbounded_channel();
    let status = Arc::<Mutex<Status>>::default();
    let account = Account {
        chain,
        signer,
        terms,
        inbox,
        queue: VecDeque::new(),
        known: None,
        kept: BTreeMap::new(),
        held: None,
        last_sent: Instant::now(),
        closely: false,
        away: false,
        dear: false,
        status: Arc::clone(&status),
    };
    tokio::spawn(account.run());
    (sender, status)
}

impl Account {
    async fn run(mut self) {
        let mut pause = FIRST_LOOK;
        let mut next_look = Instant::now();
        let mut open = true;
        loop {
            let idle =
                self.queue.is_empty() && self.known.as_ref().is_none_or(|known| known.numbers.is_empty());
            if idle && !open {
                return;
            }
            let send_at = self.send_at();
            tokio::select! {
                item = self.inbox.recv(), if open => match item {
                    Some(item) => self.queue.push_back(item),
                    // Nobody can ask any more, but what is out must come home.
                    None => open = false,
                },
                () = sleep_until(next_look), if !idle => {}
                () = sleep_until(send_at.unwrap_or(next_look)), if send_at.is_some() => {}
            }
            while let Ok(item) = self.inbox.try_recv() {
                self.queue.push_back(item);
            }
            let fresh = self.known.as_ref().is_some_and(|known| known.looked.elapsed() < FEES_FRESH);
            if (!idle && Instant::now() >= next_look) || !fresh {
                self.look_and_say().await;
                pause = (pause * 2).min(self.terms.poll);
                next_look = Instant::now() + pause;
            }
            if self.send_at().is_some_and(|at| at <= Instant::now()) && self.send_waiting().await {
                pause = FIRST_LOOK;
                next_look = Instant::now() + pause;
            }
            self.tell_status();
        }
    }

    /// When what waits is sent; `None` while it cannot be. The more transactions are out, the longer it is waited for
    /// more to share the next: those few that a node takes must do until there is a block.
    fn send_at(&self) -> Option<Instant> {
        let known = self.known.as_ref()?;
        let out = known.numbers.iter().filter(|(_, sent)| !sent.mined).count();
        if self.queue.is_empty() || out >= MAX_OUT || known.head.base_fee > self.terms.max_fee {
            return None;
        }
        let paced = if self.queue.len() >= self.terms.max_batch || !known.multicall {
            self.last_sent
        } else {
            self.last_sent + PACE * u32::try_from(out).unwrap_or(0)
        };
        Some(self.held.map_or(paced, |held| held.max(paced)))
    }

    async fn look_and_say(&mut self) {
        let looked = self.look().await;
        let network = self.chain.network();
        match (&looked, self.away) {
            (Err(why), false) => tracing::warn!(%network, %why, "settling waits for the chain"),
            (Ok(()), true) => tracing::info!(%network, "the chain answers again"),
            _ => {}
        }
        self.away = looked.is_err();
        let base_fee = self.known.as_ref().map_or(0, |known| known.head.base_fee);
        let dear = base_fee > self.terms.max_fee;
        if dear != self.dear {
            let max_fee = self.terms.max_fee;
            tracing::warn!(%network, base_fee, max_fee, waits = dear, "settling waits while gas is over max_fee");
        }
        self.dear = dear;
    }

    /// Makes transactions of what waits, and sends them. Whether anything was sent.
    async fn send_waiting(&mut self) -> bool {
        let mut fresh = Vec::new();
        while let Some(known) = &mut self.known {
            let Some(fee) = Fee::at(known.head.base_fee, known.tip, self.terms.max_fee) else { break };
            if known.numbers.iter().filter(|(_, sent)| !sent.mined).count() >= MAX_OUT {
                break;
            }
            let together = if known.multicall { self.terms.max_batch } else { 1 };
            let Some(group) = next_group(&mut self.queue, together) else { break };
            let (call, gas) = carry(&group);
            let signer = &self.signer;
            let id = self.chain.network().0;
            fresh.push(known.numbers.take(|number| {
                let mut sent = Sent::new(group, call, gas, fee);
                sent.sign(signer, id, number, fee);
                sent
            }));
        }
        let any = !fresh.is_empty();
        if any {
            self.last_sent = Instant::now();
        }
        self.broadcast(fresh).await;
        any
    }

    /// Sends what is under these numbers, in one round trip, and acts on what the node says.
    async fn broadcast(&mut self, numbers: Vec<u64>) {
        let Some(known) = &mut self.known else { return };
        let mut batch = Batch::new(&self.chain);
        let mut asked: Vec<(u64, Waiter<B256>)> = Vec::with_capacity(numbers.len());
        for number in numbers {
            let Some(sent) = known.numbers.get_mut(number).filter(|sent| !sent.raw.is_empty()) else {
                continue;
            };
            sent.tries += 1;
            if let Ok(waiter) = batch.ask("eth_sendRawTransaction", (sent.raw.clone(),)) {
                asked.push((number, waiter));
            }
        }
        if asked.is_empty() {
            return;
        }
        // Without an answer each may have arrived or not: they are sent again until one is known to have.
        if let Err(why) = batch.send().await {
            tracing::warn!(network = %self.chain.network(), %why, "transactions were sent, and nobody answered");
            return;
        }
        let mut heard = Vec::with_capacity(asked.len());
        for (number, waiter) in asked {
            heard.push((number, transaction::word(waiter.await)));
        }
        // The last first: numbers given back from the end of the row leave no gap.
        for (number, word) in heard.into_iter().rev() {
            self.hear(number, word);
        }
    }

    fn hear(&mut self, number: u64, word: Word) {
        let Some(known) = &mut self.known else { return };
        let Some(sent) = known.numbers.get_mut(number) else { return };
        let first = sent.tries == 1 && sent.hashes.len() == 1;
        match word {
            Word::Taken => sent.arrived = true,
            Word::Unknown(why) => tracing::debug!(number, why, "a transaction may not have arrived"),
            Word::TooLow => {
                sent.arrived = true;
                self.closely = true;
            }
            Word::Occupied if first => {
                tracing::warn!(number, "another transaction of this account has this number");
                self.queue.extend(std::mem::take(&mut sent.items));
                sent.hashes.clear();
                sent.raw = Bytes::new();
                sent.arrived = true;
            }
            Word::Refused(why) if first => {
                tracing::warn!(number, why, "a transaction was refused");
                self.held = Some(Instant::now() + HOLD);
                self.closely = true;
                if let Some(sent) = known.numbers.give_back(number) {
                    self.queue.extend(sent.items);
                }
            }
            // What an earlier version of it, or an earlier try, came to is not known by this.
            Word::Occupied | Word::Refused(_) => sent.arrived = true,
        }
    }

    fn tell_status(&self) {
        let mut status = self.status.lock();
        status.waiting = self.queue.len();
        status.out = self.known.as_ref().map_or(0, |known| known.numbers.iter().count());
    }
}
