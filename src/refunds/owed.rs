//! Which jobs owe their clients money, and whether the chain bears it out.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Payer;
use crate::chain::{ChainError, Proof, Prove, Since, Sought, Unpaid};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::jobs::{ClaimKey, Event, Job, JobStore, State, StoreError};
use crate::wallet::REFUND_STEP;
use crate::x402::{Address, B256, Network, Payment};

/// Jobs listed at most; the rest is listed when these are paid.
const MOST: usize = 10_000;
/// Refunds signed for one job at most. Each before the last is looked for on the chain again.
const MOST_NUMBERS: u32 = 16;
/// Jobs read at once.
const TOGETHER: usize = 16;

/// A job that owes its client what it paid.
#[derive(Clone, Debug)]
pub struct Owed {
    /// The job, `refund_due`.
    pub job: Job,
    /// Since when.
    pub since: UnixMillis,
}

/// Why a refund that is due by its record is not paid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpayable {
    /// Somebody changed the record, or we have a fault.
    #[error("its record and the payment that it keeps do not fit together: {0} differs")]
    Record(&'static str),
    /// It went to somebody who is not the operator, as far as the configuration says.
    #[error("it was paid to {0}, which is in no [[accepts]] now; pay it by hand, or add that address")]
    Payee(Address),
    /// The wallet has no such token.
    #[error("the wallet does not pay in this token; add its network to wallet.networks")]
    Asset,
    /// Nobody can be asked.
    #[error("nothing can be proved on {0}; add a [[chains]] table for it")]
    NoChain(Network),
    /// Nothing was paid, so nothing is owed.
    #[error("nothing is owed: the chain shows that the client's payment was never made: {0}")]
    NeverPaid(Unpaid),
    /// Its record hides that.
    #[error("the client has its money back, by {0}, whatever the record says")]
    PaidBefore(B256),
    /// Something is wrong with whoever settles, or with the record.
    #[error(
        "{MOST_NUMBERS} refunds of this job were signed, and none was paid; look into that, and pay it by hand"
    )]
    TooMany,
    /// The client's payment may still be undone.
    #[error("the client's payment is in no final block yet; try again later")]
    NotFinal,
    /// Whoever was asked does not say.
    #[error("the chain does not say whether the client has paid: {0}")]
    Unknown(#[from] ChainError),
}

/// What is owed, what has been due the longest first.
pub async fn owed(jobs: &dyn JobStore) -> Result<Vec<Owed>, StoreError> {
    let ids = jobs.in_state(State::RefundDue, MOST).await?;
    let read = stream::iter(ids).map(|id| async move {
        // One that has moved on or was forgotten in between is left out.
        let Some(job) = jobs.by_id(id).await?.filter(|job| job.state == State::RefundDue) else {
            return Ok(None);
        };
        let journal = jobs.journal(&job.claim).await?;
        let ends = |event: &Event| matches!(event, Event::WorkFailed { .. } | Event::AnsweredInPart { .. });
        let failed = journal.iter().rfind(|entry| ends(&entry.event));
        let since = failed.map_or(job.updated, |entry| entry.at);
        Ok::<_, StoreError>(Some(Owed { job, since }))
    });
    let mut found: Vec<Owed> =
        read.buffer_unordered(TOGETHER).try_filter_map(|found| async { Ok(found) }).try_collect().await?;
    found.sort_by_key(|owed| (owed.since, owed.job.id));
    Ok(found)
}

impl Payer {
    /// Whether this is to be paid: the record says what the client signed, it signed for one of our addresses, and its money
    /// is there.
    pub(super) async fn examine(&self, job: &Job) -> Result<(), Unpayable> {
        let requirement = &job.client.requirement;
        fits(job)?;
        let payee = (requirement.asset.clone(), requirement.pay_to);
        if !self.payees.contains(&payee) {
            return Err(Unpayable::Payee(requirement.pay_to));
        }
        self.wallet.cap(&requirement.asset).map_err(|_| Unpayable::Asset)?;
        has_paid(&*self.chains, job).await?;
        self.not_paid_back(job).await
    }

    /// Whether no refund before the one that is open, or due next, was paid: by the nonces that this wallet signs them under,
    /// not by what the record says of them.
    async fn not_paid_back(&self, job: &Job) -> Result<(), Unpayable> {
        let requirement = &job.client.requirement;
        let network = requirement.asset.network;
        let open = job.open_refund().map(|refund| refund.attempt);
        let number = open.or(job.next_refund()).ok_or(Unpayable::Record("its refunds"))?;
        if number > MOST_NUMBERS {
            return Err(Unpayable::TooMany);
        }
        for earlier in 1..number {
            let sought = Sought {
                asset: requirement.asset.address,
                from: self.wallet.address(),
                nonce: self.wallet.nonce(&job.claim, REFUND_STEP, earlier),
                to: job.requester,
                value: job.owed(),
                // Also in blocks that are not final yet.
                valid_before: UnixSeconds::MAX,
                since: since(job),
            };
            match self.chains.prove(network, &sought).await {
                None => return Err(Unpayable::NoChain(network)),
                Some(Err(error)) => return Err(Unpayable::Unknown(error)),
                Some(Ok(Proof::Paid { transaction, .. })) => return Err(Unpayable::PaidBefore(transaction)),
                Some(Ok(Proof::Open { .. } | Proof::Unpaid(Unpaid::Lapsed | Unpaid::Canceled))) => {}
                Some(Ok(Proof::Unpaid(Unpaid::Elsewhere | Unpaid::Before))) => {
                    return Err(Unpayable::Record("its refunds"));
                }
            }
        }
        Ok(())
    }
}

/// When the client's payment was presented: what was mined before has nothing to do with it.
fn since(job: &Job) -> Since {
    job.client.height.map_or(Since::Time(job.created / 1000), Since::Block)
}

/// Whether the record is about the payment that the client signed.
fn fits(job: &Job) -> Result<(), Unpayable> {
    let (leg, requirement) = (&job.client, &job.client.requirement);
    let payment = Payment::from_json(&leg.payload, leg.version).map_err(|_| Unpayable::Record("its form"))?;
    let signed = payment.authorization();
    let asset = &requirement.asset;
    let differs = [
        ("the network", payment.network() != asset.network),
        ("the token", payment.accepted().is_some_and(|accepted| accepted.asset != asset.address)),
        ("the payer", signed.from != job.requester),
        ("the payee", signed.to != requirement.pay_to),
        ("the amount", signed.value != requirement.amount),
        ("what is owed", job.owed() > requirement.amount),
        ("the time it lapses", signed.valid_before != leg.valid_before),
        ("the nonce", ClaimKey::new(asset, signed.from, signed.nonce) != job.claim),
    ];
    match differs.into_iter().find(|(_, differs)| *differs) {
        Some((what, _)) => Err(Unpayable::Record(what)),
        None => Ok(()),
    }
}

/// Whether the chain shows, in a final block, that the client has paid.
async fn has_paid(chains: &dyn Prove, job: &Job) -> Result<(), Unpayable> {
    let requirement = &job.client.requirement;
    let network = requirement.asset.network;
    let sought = Sought {
        asset: requirement.asset.address,
        from: job.requester,
        nonce: job.claim.nonce().ok_or(Unpayable::Record("the nonce"))?,
        to: requirement.pay_to,
        value: requirement.amount,
        valid_before: job.client.valid_before,
        since: since(job),
    };
    match chains.prove(network, &sought).await {
        None => Err(Unpayable::NoChain(network)),
        Some(Err(error)) => Err(Unpayable::Unknown(error)),
        Some(Ok(Proof::Paid { is_final: true, .. })) => Ok(()),
        Some(Ok(Proof::Paid { .. } | Proof::Open { .. })) => Err(Unpayable::NotFinal),
        Some(Ok(Proof::Unpaid(why))) => Err(Unpayable::NeverPaid(why)),
    }
}
