//! What the chain says about what is out, and what is made of it: ended, sent again, offered more for, or taken back.
//!
//! Sends nothing of its own: what is to be sent goes through [`Account::broadcast`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use alloy::primitives::{U64, U128, U256};
use alloy::rpc::client::Waiter;
use tokio::time::Instant;

use super::{Account, FEES_FRESH, Head, Known};
use crate::facilitator::local::contracts::MULTICALL3;
use crate::facilitator::local::fees::Fee;
use crate::facilitator::local::numbers::Numbers;
use crate::facilitator::local::rpc::{self, Away, Batch, Block, Mined};
use crate::facilitator::local::sent::{Fate, Item, Sent, tell_fates};

/// A transaction that could have been mined for this many blocks and was not is offered more for.
const LATE: u64 = 3;

/// A number that is used, by a transaction without a receipt, is somebody else's after this long: endpoints may know
/// of blocks before they know of receipts.
const MISSING: Duration = Duration::from_secs(2);

/// Mined transactions kept for a reorg.
const KEPT: usize = 64;

impl Account {
    /// Looks for a new block, and at what it says about what is out.
    pub(super) async fn look(&mut self) -> Result<(), Away> {
        let Some(known) = &self.known else { return self.look_first().await };
        let mut batch = Batch::new(&self.chain);
        let number: Waiter<U64> = batch.ask("eth_blockNumber", ())?;
        batch.send().await?;
        let moved = rpc::answer(number).await?.to::<u64>() != known.head.number;
        let lost = known.numbers.iter().any(|(_, sent)| !sent.arrived && !sent.mined);
        if moved || lost || self.closely || known.looked.elapsed() >= FEES_FRESH {
            self.look_closely().await?;
        }
        Ok(())
    }

    /// Where the account stands, as the chain and the node's pool have it: also after a restart.
    async fn look_first(&mut self) -> Result<(), Away> {
        let address = self.signer.address();
        let mut batch = Batch::new(&self.chain);
        let id: Waiter<U64> = batch.ask("eth_chainId", ())?;
        let count: Waiter<U64> = batch.ask("eth_getTransactionCount", (address, "latest"))?;
        let pending: Waiter<U64> = batch.ask("eth_getTransactionCount", (address, "pending"))?;
        let block = batch.newest()?;
        let multicall = batch.code(MULTICALL3)?;
        batch.send().await?;
        let (id, network) = (rpc::answer(id).await?.to::<u64>(), self.chain.network());
        if id != network.0 {
            return Err(Away(format!("the RPC endpoint is of chain {id}, not of {network}")));
        }
        let count = rpc::answer(count).await?.to::<u64>();
        let pending = rpc::answer(pending).await?.to::<u64>().max(count);
        let head = Head::of(&rpc::answer(block).await?);
        let mut numbers = Numbers::new(count);
        // Of an earlier life of ours. They are not resent, for they are not known; should they be stuck, they are
        // replaced, and whoever still wants what they carried asks again.
        for number in count..pending {
            numbers.put(number, Sent::unknown(self.signer.address()));
        }
        self.known = Some(Known {
            numbers,
            head,
            tip: 0,
            multicall: !rpc::answer(multicall).await?.is_empty(),
            looked: Instant::now(),
            floor: count,
        });
        self.look_closely().await
    }

    async fn look_closely(&mut self) -> Result<(), Away> {
        let Some(known) = &mut self.known else { return Ok(()) };
        let address = self.signer.address();
        let mut batch = Batch::new(&self.chain);
        let block = batch.newest()?;
        let count: Waiter<U64> = batch.ask("eth_getTransactionCount", (address, "latest"))?;
        let balance: Waiter<U256> = batch.ask("eth_getBalance", (address, "latest"))?;
        let tip: Waiter<U128> = batch.ask("eth_maxPriorityFeePerGas", ())?;
        let mut receipts = Vec::new();
        for (number, sent) in known.numbers.iter() {
            for hash in &sent.hashes {
                receipts.push((number, batch.receipt(*hash)?));
            }
        }
        batch.send().await?;
        let count = rpc::answer(count).await?.to::<u64>();
        let head = Head::of(&rpc::answer(block).await?);
        if head.number != known.head.number {
            self.held = None;
        }
        known.head = head;
        known.looked = Instant::now();
        // Chains without priority fees do not know the question.
        known.tip = tip.await.map_or(known.tip, |tip| tip.to());
        self.status.lock().balance = rpc::answer(balance).await?;
        let mut found: BTreeMap<u64, Mined> = BTreeMap::new();
        for (number, receipt) in receipts {
            if let Some(mined) = rpc::answer(receipt).await?.filter(|mined| mined.block_number.is_some()) {
                found.insert(number, mined);
            }
        }
        self.closely = false;
        self.come_home(&found, count);
        self.lapse();
        let again = self.mend(count);
        self.broadcast(again).await;
        Ok(())
    }

    /// Ends what was mined deep enough; takes back what somebody else's transaction took the number of.
    fn come_home(&mut self, found: &BTreeMap<u64, Mined>, count: u64) {
        let Some(known) = &mut self.known else { return };
        let mut gone = Vec::new();
        for (number, sent) in known.numbers.iter_mut() {
            let was_mined = std::mem::replace(&mut sent.mined, found.contains_key(&number));
            if was_mined && !sent.mined {
                // A reorg took it back. Nodes put it into their pools again, mostly.
                (sent.arrived, sent.since) = (false, None);
            }
            let deep = found.get(&number).and_then(|mined| mined.block_number).is_some_and(|block| {
                known.head.number.saturating_add(1)
                    >= block.to::<u64>().saturating_add(self.terms.confirmations)
            });
            if sent.mined || number >= count {
                sent.missing = None;
            } else {
                let since = *sent.missing.get_or_insert_with(Instant::now);
                let others = sent.hashes.is_empty() || since.elapsed() >= MISSING;
                self.closely |= !others;
                if others {
                    gone.push(number);
                }
            }
            if deep {
                gone.push(number);
            }
        }
        for number in gone {
            let Some(mut sent) = known.numbers.finish(number) else { continue };
            match found.get(&number) {
                Some(mined) => {
                    known.floor = known.floor.max(number + 1);
                    tell_fates(std::mem::take(&mut sent.items), mined);
                    self.kept.insert(number, sent);
                }
                None => {
                    if !sent.items.is_empty() {
                        tracing::warn!(number, "somebody else uses the gas account: a number was taken");
                    }
                    self.queue.extend(sent.items);
                }
            }
        }
        while self.kept.len() > KEPT {
            self.kept.pop_first();
        }
        known.numbers.raise(count);
    }

    /// What can no longer be paid by anybody is not waited for.
    fn lapse(&mut self) {
        let Some(known) = &mut self.known else { return };
        let now = known.head.time;
        let lapsed = |item: &mut Item| item.order.authorization.valid_before <= now;
        let mut ended: Vec<Item> = Vec::new();
        for (_, sent) in known.numbers.iter_mut().filter(|(_, sent)| !sent.mined) {
            ended.extend(sent.items.extract_if(.., lapsed));
        }
        let (out, waiting) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition::<VecDeque<Item>, _>(|item| item.order.authorization.valid_before <= now);
        self.queue = waiting;
        for item in ended.into_iter().chain(out) {
            // Whoever asked may be gone.
            let _ = item.fate.send(Fate::Lapsed);
        }
    }

    /// Signs anew what is priced out or late, and fills gaps. The numbers of what is to be sent again.
    fn mend(&mut self, count: u64) -> Vec<u64> {
        let Some(known) = &mut self.known else { return Vec::new() };
        let (head, tip, max) = (known.head, known.tip, self.terms.max_fee);
        let id = self.chain.network().0;
        let mut again = Vec::new();
        for (number, sent) in
            known.numbers.iter_mut().filter(|(number, sent)| !sent.mined && *number >= count)
        {
            let since = *sent.since.get_or_insert(head.number);
            let late = head.number >= since + LATE;
            let priced_out = !sent.hashes.is_empty() && !sent.fee.suffices(head.base_fee);
            if !late && !priced_out {
                if !sent.arrived {
                    again.push(number);
                }
                continue;
            }
            if let Some(fee) = sent.fee.raised(head.base_fee, tip, max) {
                tracing::info!(number, cap = fee.cap, tip = fee.tip, "a transaction is offered more for");
                sent.sign(&self.signer, id, number, fee);
            }
            sent.since = Some(head.number);
            again.push(number);
        }
        let gaps = known.numbers.gaps();
        // Blocks may wait for what is above a gap, so it is not to wait for a block.
        self.closely |= !gaps.is_empty();
        let held = self.held.is_some_and(|until| Instant::now() < until);
        if let Some(fee) = Fee::at(head.base_fee, tip, max).filter(|_| !held) {
            for number in gaps {
                tracing::info!(number, "a gap in the account's numbers is filled");
                let mut filler = Sent::unknown(self.signer.address());
                filler.sign(&self.signer, id, number, fee);
                known.numbers.put(number, filler);
                again.push(number);
            }
        }
        // The chain has fewer of ours than were seen in it: a reorg. Nodes put them back into their pools, mostly.
        for number in count..known.floor {
            if let Some(mut lost) = self.kept.remove(&number) {
                tracing::warn!(number, "a mined transaction is gone from the chain, and sent again");
                (lost.arrived, lost.mined, lost.since) = (false, false, Some(head.number));
                known.numbers.put(number, lost);
                again.push(number);
            }
        }
        known.floor = known.floor.min(count);
        again
    }
}

impl Head {
    fn of(block: &Block) -> Self {
        Head { number: block.number.to(), time: block.timestamp.to(), base_fee: block.base_fee() }
    }
}
