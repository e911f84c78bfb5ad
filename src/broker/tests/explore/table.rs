//! The real transition table, asked once for each job and event: a job is a number here, so that worlds are small.

use std::collections::HashMap;

use crate::broker::purse::within_what_the_client_pays;
use crate::broker::stop::failure;
use crate::jobs::job::ProviderPayment;
use crate::jobs::{Event, Job, Kept, State, sample};
use crate::money::Amount;
use crate::reason::Reason;
use crate::x402::B256;

/// The number of a job in the table.
pub(super) type Ix = u16;

/// What may happen to a job, without what does not matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Ev {
    Verified,
    Rejected,
    SettleFirst,
    /// A payment for this step.
    Signed(u8),
    Turned,
    Trusted,
    Answered,
    /// All but the last step.
    AnsweredInPart,
    WorkFailed,
    Settled,
    HandedOut,
    Refused,
    /// But for the payments in these places, a bit for each.
    ProvedSpent(u8),
    ProvedUnspent,
    Reopened,
}

/// Every job that was reached so far.
pub(super) struct Table {
    /// Answers are beside their records.
    once: bool,
    jobs: Vec<Job>,
    known: HashMap<Vec<u8>, Ix>,
    applied: HashMap<(Ix, Ev), Option<Ix>>,
}

impl Table {
    /// The number of a fresh claim is 0.
    pub(super) fn new(once: bool) -> Table {
        let mut table = Table { once, jobs: Vec::new(), known: HashMap::new(), applied: HashMap::new() };
        table.number(sample::job(1));
        table
    }

    pub(super) fn job(&self, ix: Ix) -> &Job {
        &self.jobs[usize::from(ix)]
    }

    /// How many there are.
    pub(super) fn jobs(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn state(&self, ix: Ix) -> State {
        self.job(ix).state
    }

    /// The job after an event, by the code that ships.
    pub(super) fn apply(&mut self, ix: Ix, ev: Ev) -> Option<Ix> {
        if let Some(known) = self.applied.get(&(ix, ev)) {
            return *known;
        }
        let job = self.job(ix);
        let mut event = event(job, ev);
        if let Event::Answered { answer } = &mut event
            && self.once
        {
            answer.body = Kept::Not;
        }
        let next = job.apply(&event, job.updated).ok();
        let next = next.map(|job| self.number(job));
        self.applied.insert((ix, ev), next);
        next
    }

    /// Whether the purse would sign for this step, by the code that ships.
    pub(super) fn may_sign(&self, ix: Ix, step: u8) -> bool {
        let job = self.job(ix);
        job.signed_for(name(step)).is_none() && within_what_the_client_pays(job, &payment(job, step)).is_ok()
    }

    /// Two jobs are one only if all of their records is the same.
    fn number(&mut self, job: Job) -> Ix {
        let jobs = &mut self.jobs;
        *self.known.entry(job.encode()).or_insert_with(|| {
            jobs.push(job);
            Ix::try_from(jobs.len() - 1).unwrap()
        })
    }
}

const STEPS: [&str; 2] = ["first", "second"];

/// The place of a signature among those that a world knows.
pub(super) fn slot(payment: &ProviderPayment) -> usize {
    (payment.attempt as usize - 1) * 2 + usize::from(payment.step == name(1))
}

fn name(step: u8) -> &'static str {
    STEPS[usize::from(step)]
}

/// Both steps together are all that the client pays.
fn payment(job: &Job, step: u8) -> ProviderPayment {
    let mut payment = sample::payment(name(step), job.attempt, 0);
    payment.amount = Amount::new([7_000, 5_000][usize::from(step)]);
    // As the wallet derives it: from the claim, the step and the attempt.
    payment.nonce = B256::repeat_byte(u8::try_from(slot(&payment) + 1).unwrap());
    payment
}

/// The event as the broker records it.
fn event(job: &Job, ev: Ev) -> Event {
    let because = |reason: Reason| failure(reason, "explored");
    match ev {
        Ev::Verified => Event::Verified,
        Ev::Rejected => Event::Rejected { failure: because(Reason::PaymentRejected) },
        Ev::SettleFirst => Event::SettleFirst,
        Ev::Signed(step) => Event::Signed { payment: payment(job, step) },
        Ev::Turned => {
            let mut sold = job.quote.clone();
            sold.provider = "another".to_owned();
            Event::Turned { sold }
        }
        Ev::Trusted => Event::Trusted,
        Ev::Answered => Event::Answered { answer: sample::answer(b"{}") },
        Ev::AnsweredInPart => {
            // The second was not stored: its payment is on record, or nobody was asked to make one.
            let steps = job.signed_for(name(1)).map_or(&[][..], |_| &STEPS[1..]);
            Event::AnsweredInPart { answer: sample::answer(b"{}"), shortfall: sample::shortfall(steps) }
        }
        Ev::WorkFailed if job.signature_open() => {
            Event::WorkFailed { failure: because(Reason::ProviderLost) }
        }
        Ev::WorkFailed => Event::WorkFailed { failure: because(Reason::Interrupted) },
        Ev::HandedOut => Event::HandedOut,
        Ev::Settled => Event::Settled { receipt: sample::receipt() },
        Ev::Refused => {
            let reason = match job.state {
                State::SettlingUpfront => Reason::PaymentRejected,
                _ => Reason::SettlementRefused,
            };
            Event::Refused { failure: because(reason) }
        }
        Ev::ProvedSpent(lapsed) => {
            let unspent = job.provider.iter().filter(|payment| lapsed & (1 << slot(payment)) != 0);
            Event::ProvedSpent { unspent: unspent.map(|payment| payment.nonce).collect() }
        }
        Ev::ProvedUnspent => Event::ProvedUnspent,
        Ev::Reopened => Event::Reopened { sold: sample::sold() },
    }
}
