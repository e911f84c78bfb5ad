//! Counts what the journals of this process record: money in, money out, what is exposed, what came to rest.
//!
//! The counts are for watching: they start at nothing with the process. The guards hear of the same things, and decide by
//! them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::guard::Guards;
use crate::jobs::job::{Fate, ProviderPayment};
use crate::jobs::{ClaimKey, Event, Job, State};
use crate::money::Amount;
use crate::telemetry::Metrics;
use crate::x402::Asset;

/// One for the broker, shared by its journals.
pub(super) struct Tally {
    metrics: Arc<Metrics>,
    guards: Arc<Guards>,
    exposed: Mutex<HashMap<ClaimKey, Vec<(Asset, Amount)>>>,
}

impl Tally {
    pub(super) fn new(metrics: Arc<Metrics>, guards: Arc<Guards>) -> Self {
        Tally { metrics, guards, exposed: Mutex::default() }
    }

    /// A job is ours to go on with: what it has exposed counts from now on.
    pub(super) fn taken(&self, job: &Job) {
        let exposure = exposure(job);
        self.guards.adopt(&job.claim, job.requester, &exposure);
        if job.answered_first() {
            let requirement = &job.client.requirement;
            self.guards.credited(&job.claim, job.requester, &requirement.asset, requirement.amount);
        }
        self.expose(&job.claim, exposure);
    }

    /// `event` happened to a job, which is `job` after it.
    pub(super) fn recorded(&self, event: &Event, job: &Job) {
        match event {
            Event::Signed { payment } => {
                self.metrics.spent(&payment.provider, &payment.asset, payment.amount);
            }
            Event::Settled { .. } => {
                let requirement = &job.client.requirement;
                self.metrics.earned(&requirement.asset, requirement.amount);
            }
            _ => {}
        }
        for payment in lost(event, job) {
            self.guards.lost(&payment.asset, payment.amount);
        }
        if job.state.is_decided() {
            let requirement = &job.client.requirement;
            let never_paid = job.trusted && matches!(event, Event::Refused { .. });
            let lost = never_paid.then_some((&requirement.asset, requirement.amount));
            self.guards.collected(&job.claim, lost);
        }
        let proven = matches!(event, Event::ProvedSpent { .. } | Event::ProvedUnspent);
        let ended = matches!(job.state, State::RefundDue | State::Refunded | State::Uncollected);
        // What is proven of a job in which the client's side has ended already ends it no second time.
        if job.state.at_rest() && !(proven && ended) {
            self.metrics.job_ended(job.kind, job.state);
        }
        self.expose(&job.claim, exposure(job));
    }

    /// The jobs that have exposed something, or were answered before they were paid for, as far as this process knows: also
    /// those for which something was taken to be signed, and whether that was recorded was never known here.
    pub(super) fn exposed(&self) -> Vec<ClaimKey> {
        let mut exposed: BTreeSet<ClaimKey> = self.exposed.lock().keys().cloned().collect();
        exposed.extend(self.guards.exposing());
        exposed.extend(self.guards.uncollected());
        exposed.into_iter().collect()
    }

    /// A job, as the store has it: if it no longer exposes anything, somebody else saw to that.
    pub(super) fn seen(&self, claim: &ClaimKey, job: Option<&Job>) {
        if job.is_none_or(|job| exposure(job).is_empty()) {
            self.expose(claim, Vec::new());
        }
        if job.is_none_or(|job| job.state.is_decided()) {
            self.guards.collected(claim, None);
        }
    }

    fn expose(&self, claim: &ClaimKey, amounts: Vec<(Asset, Amount)>) {
        if amounts.is_empty() {
            self.guards.settled(claim);
        }
        let mut exposed = self.exposed.lock();
        let changed = amounts.clone();
        let before = match amounts.is_empty() {
            true => exposed.remove(claim),
            false => exposed.insert(claim.clone(), amounts),
        };
        for (asset, _) in before.into_iter().flatten().chain(changed) {
            let sum = exposed.values().flatten().filter(|(of, _)| *of == asset);
            let sum = sum.fold(0u128, |sum, (_, amount)| sum.saturating_add(amount.units()));
            self.metrics.exposed(&asset, Amount::new(sum));
        }
    }
}

/// Provider money that a job has signed, and may have spent, while its client's payment has not settled.
fn exposure(job: &Job) -> Vec<(Asset, Amount)> {
    if job.receipt.is_some() || job.state.at_rest() {
        return Vec::new();
    }
    let signed = job.provider.iter().filter(|payment| payment.fate != Fate::Unspent);
    signed.map(|payment| (payment.asset.clone(), payment.amount)).collect()
}

/// What `event` made a loss: provider payments whose client does not pay. Those that may have been made count as
/// made: a guard that waited for proof would let the same be lost again and again meanwhile.
fn lost<'a>(event: &Event, job: &'a Job) -> impl Iterator<Item = &'a ProviderPayment> {
    let fate = match (event, job.state) {
        (Event::WorkFailed { .. }, State::Held) => Some(Fate::Open),
        (Event::Refused { .. }, State::Uncollected) => Some(Fate::Spent),
        _ => None,
    };
    job.provider.iter().filter(move |payment| Some(payment.fate) == fate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::jobs::memory::MemoryStore;
    use crate::jobs::sample::{answer, failure, job, payment, receipt};

    /// A tally, and the job it watches.
    struct Watched {
        metrics: Arc<Metrics>,
        tally: Tally,
        job: Job,
    }

    impl Watched {
        fn new(number: u64) -> Self {
            let metrics = Arc::new(Metrics::new());
            let clock = Clock::manual(1_700_000_000_000);
            let guards = Guards::lax(MemoryStore::new(clock.clone()), clock, Arc::clone(&metrics));
            Watched { tally: Tally::new(Arc::clone(&metrics), guards), metrics, job: job(number) }
        }

        fn record(&mut self, event: Event) {
            self.job = self.job.apply(&event, self.job.updated).unwrap();
            self.tally.recorded(&event, &self.job);
        }

        fn sign(&mut self, step: &str, nonce: u8) {
            self.record(Event::Signed { payment: payment(step, 1, nonce) });
        }

        fn value(&self, name: &str) -> Option<u64> {
            let text = self.metrics.exposition().unwrap();
            let line = text.lines().find(|line| line.starts_with(&format!("galaksio_{name}")))?;
            line.rsplit(' ').next()?.parse().ok()
        }
    }

    #[test]
    fn what_is_signed_is_exposed_until_the_client_has_paid() {
        let mut watched = Watched::new(1);
        watched.record(Event::Verified);
        watched.sign("a", 1);
        watched.sign("b", 2);
        assert_eq!(watched.value("exposure_atomic"), Some(20_000));
        assert_eq!(watched.value("provider_cost_atomic_total"), Some(20_000));
        watched.record(Event::Answered { answer: answer(b"{}") });
        assert_eq!((watched.value("exposure_atomic"), watched.value("client_income")), (Some(20_000), None));
        watched.record(Event::Settled { receipt: receipt() });
        assert_eq!(watched.value("exposure_atomic"), Some(0));
        assert_eq!(watched.value("client_income_atomic_total"), Some(12_000));
        assert_eq!(watched.value("jobs_total"), Some(1));
        assert!(watched.tally.exposed().is_empty());
    }

    #[test]
    fn work_that_the_client_has_paid_for_before_exposes_nothing() {
        let mut watched = Watched::new(1);
        watched.record(Event::SettleFirst);
        watched.record(Event::Settled { receipt: receipt() });
        watched.sign("a", 1);
        assert_eq!(watched.value("exposure_atomic"), None);
        assert_eq!(watched.value("provider_cost_atomic_total"), Some(10_000));
    }

    #[test]
    fn jobs_add_up_and_one_that_rests_is_taken_off() {
        let mut watched = Watched::new(1);
        watched.record(Event::Verified);
        watched.sign("a", 1);
        let mut other = job(2);
        other.provider = vec![payment("a", 1, 1)];
        other.state = crate::jobs::State::Working;
        // As found by recovery, twice.
        watched.tally.taken(&other);
        watched.tally.taken(&other);
        assert_eq!(watched.value("exposure_atomic"), Some(20_000));
        watched.record(Event::WorkFailed { failure: failure() });
        assert_eq!(watched.value("exposure_atomic"), Some(10_000));

        watched.tally.seen(&other.claim, Some(&other));
        assert_eq!(watched.tally.exposed(), [other.claim.clone()]);
        watched.tally.seen(&other.claim, None);
        assert_eq!(watched.value("exposure_atomic"), Some(0));
    }
}
