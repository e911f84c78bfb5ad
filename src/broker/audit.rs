//! The settlement audit: what a facilitator says is settled is looked for on the chain.
//!
//! A facilitator that says "settled" and settles nothing would have everything for free. Each payment it says so of is
//! looked for once its block must be final; the first that is not there ends the trust in it. It is told by its nonce: the transaction
//! that the facilitator names may be another payment's, here or at another gateway. What is not looked at when
//! a process ends is looked at by another, which finds it in the records: see `marks`.

mod marks;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use parking_lot::Mutex;
use tracing::{error, warn};

use super::Broker;
use super::settlement::payment_request;
use crate::chain::{Head, Proof, Sought, Spent};
use crate::clock::UnixSeconds;
use crate::ids::JobId;
use crate::jobs::Job;
use crate::telemetry::Audited;
use crate::x402::{Address, Network};

use marks::Marks;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(5);

/// A payment that is in no final block younger than its settlement by this much is missing: no facilitator says
/// "settled" of a transaction that takes this long to be in a block.
const GRACE: UnixSeconds = 60;

/// Payments that wait to be looked for, at most: the oldest are given up then.
const MOST: usize = 100_000;

/// Payments that nobody asked for, kept for those who may yet, at most.
const MOST_SPENT: usize = 100_000;

/// Payments looked for one by one at once.
const TOGETHER: usize = 8;

/// A payment that somebody says was made.
#[derive(Clone, Debug)]
struct Settled {
    job: JobId,
    network: Network,
    sought: Sought,
    transaction: String,
    /// Who says so, by its name in the pool.
    facilitator: Option<String>,
    at: UnixSeconds,
}

/// The payments that are still to be looked for.
#[derive(Debug, Default)]
pub(super) struct Audits(Mutex<Vec<Settled>>);

/// The background service that looks for them.
pub struct Audit {
    broker: Arc<Broker>,
    marks: Marks,
    payees: HashMap<Payee, Seen>,
}

/// A token on a network, and who is paid in it.
type Payee = (Network, Address, Address);

/// What a payee received of those who are said to have paid.
#[derive(Debug)]
struct Seen {
    /// Up to this block.
    last: u64,
    spent: Vec<Spent>,
}

/// What is made of one payment.
enum Verdict {
    There,
    Missing(String),
    NotYet,
}

impl Broker {
    /// Remembers to look for a payment that is said to be settled, where somebody can be asked.
    pub(super) async fn look_for(&self, job: &Job, transaction: &str) {
        self.look_for_since(job, transaction, self.clock.now()).await;
    }

    /// The same, of one that was settled `at` this time or before.
    async fn look_for_since(&self, job: &Job, transaction: &str, at: UnixSeconds) {
        let network = job.client.requirement.asset.network;
        let Some(sought) = self.sought(job).filter(|_| self.chains.knows(network)) else { return };
        let facilitator = self.facilitator.settler(&payment_request(job)).await;
        let settled =
            Settled { job: job.id, network, sought, transaction: transaction.to_owned(), facilitator, at };
        self.audits.put(vec![settled]);
    }
}

impl Audits {
    fn put(&self, settled: Vec<Settled>) {
        let mut waiting = self.0.lock();
        waiting.extend(settled);
        let over = waiting.len().saturating_sub(MOST);
        if over > 0 {
            warn!(over, "more payments are settled than can be looked for");
            waiting.drain(..over);
        }
    }

    pub(super) fn jobs(&self) -> HashSet<JobId> {
        self.0.lock().iter().map(|settled| settled.job).collect()
    }

    /// As a crash does.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.take();
    }

    fn oldest(&self) -> Option<UnixSeconds> {
        self.0.lock().iter().map(|settled| settled.at).min()
    }

    fn take(&self) -> Vec<Settled> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Audit {
    /// The audit of what `broker` settles.
    pub fn new(broker: Arc<Broker>) -> Self {
        let marks = Marks::new(Arc::clone(&broker));
        Audit { broker, marks, payees: HashMap::new() }
    }

    /// Looks again and again, until dropped.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.round().await;
            self.keep().await;
        }
    }

    /// Says how far it is, for whoever goes on if this process ends, and goes on where others ended.
    pub(super) async fn keep(&mut self) {
        self.marks.keep().await;
    }

    /// One look for everything that waits.
    pub(super) async fn round(&mut self) {
        let mut by_payee: HashMap<Payee, Vec<Settled>> = HashMap::new();
        for settled in self.broker.audits.take() {
            let payee = (settled.network, settled.sought.asset, settled.sought.to);
            by_payee.entry(payee).or_default().push(settled);
        }
        // Nobody waits for what they received.
        self.payees.retain(|payee, _| by_payee.contains_key(payee));
        for (payee, waiting) in by_payee {
            let rest = match self.broker.chains.last_final(payee.0).await {
                Some(Ok(last)) => self.look(payee, waiting, last).await,
                Some(Err(why)) => {
                    warn!(network = %payee.0, %why, "settled payments cannot be looked for");
                    waiting
                }
                None => Vec::new(),
            };
            self.broker.audits.put(rest);
        }
        self.broker.metrics.to_be_audited(self.broker.audits.0.lock().len());
    }

    /// Looks for the payments to one payee up to block `last`, and returns those that are to be looked for again.
    async fn look(&mut self, payee: Payee, waiting: Vec<Settled>, last: Head) -> Vec<Settled> {
        let (network, asset, to) = payee;
        let height = waiting.iter().filter_map(|settled| settled.sought.since.height()).min();
        let seen = self
            .payees
            .entry(payee)
            .or_insert_with(|| Seen { last: height.unwrap_or(last.number), spent: Vec::new() });
        if seen.last < last.number {
            let payers: BTreeSet<Address> = waiting.iter().map(|settled| settled.sought.from).collect();
            let payers: Vec<Address> = payers.into_iter().collect();
            let blocks = seen.last + 1..=last.number;
            match self.broker.chains.spent(network, asset, to, &payers, blocks).await {
                Some(Ok(spent)) => {
                    seen.last = last.number;
                    seen.spent.extend(spent);
                    let over = seen.spent.len().saturating_sub(MOST_SPENT);
                    seen.spent.drain(..over);
                }
                Some(Err(why)) => warn!(%network, %why, "what was received cannot be read"),
                None => {}
            }
        }
        let mut rest = Vec::new();
        let mut doubtful = Vec::new();
        for settled in waiting {
            let Sought { from, nonce, value, .. } = settled.sought;
            let place = seen.spent.iter().position(|spent| *spent == Spent { from, nonce, value });
            match place {
                Some(place) => {
                    seen.spent.swap_remove(place);
                    self.broker.metrics.audited(Audited::Found);
                }
                // Without a height, what was read may begin behind it.
                None if settled.sought.since.height().is_none()
                    || last.time > settled.at.saturating_add(GRACE) =>
                {
                    doubtful.push(settled);
                }
                None => rest.push(settled),
            }
        }
        let broker = &self.broker;
        let judged = stream::iter(doubtful).map(|settled| async move {
            let verdict = broker.judge(&settled).await;
            (settled, verdict)
        });
        let judged: Vec<_> = judged.buffer_unordered(TOGETHER).collect().await;
        for (settled, verdict) in judged {
            match verdict {
                Verdict::There => self.broker.metrics.audited(Audited::Found),
                Verdict::NotYet => rest.push(settled),
                Verdict::Missing(why) => self.broker.missing(&settled, &why).await,
            }
        }
        rest
    }
}

impl Broker {
    /// What the chain proves of one payment that is not plainly there.
    async fn judge(&self, settled: &Settled) -> Verdict {
        match self.chains.prove(settled.network, &settled.sought).await {
            Some(Ok(Proof::Paid { is_final: true, .. })) => Verdict::There,
            Some(Ok(Proof::Unpaid(why))) => Verdict::Missing(why.to_string()),
            Some(Ok(Proof::Open { as_of })) if as_of.time > settled.at.saturating_add(GRACE) => {
                Verdict::Missing(format!("up to final block {} the payment was not made", as_of.number))
            }
            Some(Ok(Proof::Paid { is_final: false, .. } | Proof::Open { .. })) => Verdict::NotYet,
            Some(Err(why)) => {
                warn!(job = %settled.job, %why, "a settled payment cannot be looked for");
                Verdict::NotYet
            }
            None => Verdict::NotYet,
        }
    }

    /// A payment that is said to be settled is not on the chain.
    async fn missing(&self, settled: &Settled, why: &str) {
        let facilitator = settled.facilitator.as_deref().unwrap_or("unknown");
        error!(job = %settled.job, transaction = settled.transaction, facilitator, why,
            "a payment that was said to be settled is not on the chain");
        self.metrics.audited(Audited::Missing);
        if let Some(name) = &settled.facilitator {
            let why = format!("job {}: it said settled, but {why}", settled.job);
            self.facilitator.distrust(name, &why).await;
        }
    }
}
