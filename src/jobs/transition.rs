//! The transition table: every event that can happen to a job, and where it may happen.
//!
//! This is the only place that knows it. Stores persist what comes out and check versions; the
//! broker and recovery ask for an event and get a typed refusal if it is not allowed there.
//!
//! ```text
//!            Verified            Signed*           Answered            Settled
//!  Claimed ───────────▶ Working ────────▶ Working ──────────▶ Settling ─────────▶ Completed
//!     │                    │ WorkFailed                          │ Refused ▶ Uncollected (provider paid)
//!     │ Rejected           │   no signature open ▶ Voided        │           Voided      (it was not)
//!     ▼                    │   a signature open  ▶ Held ─ ProvedSpent ▶ ProviderLost
//!   Voided ◀───────────────┘                          ├── ProvedUnspent ▶ Voided
//!                                                     └── Answered ▶ Settling (written late)
//!     └─ Reopened ▶ Claimed (attempt + 1; not where the client was told to pay anew)
//!
//!  upfront:  Claimed ─SettleFirst▶ SettlingUpfront ─Settled▶ WorkingSettled ─Answered▶ Completed
//!                                        └ Refused ▶ Voided        └ WorkFailed ▶ RefundDue
//!  streamed: Settled ▶ Delivering ─HandedOut▶ Completed      (an answer that the record does not hold)
//!                          └ WorkFailed ▶ RefundDue          (it broke off, or its process is gone)
//!            Completed ─WorkFailed▶ RefundDue                (it was left for its client to collect, and broke off)
//!  refunds:  RefundDue ─RefundSigned▶ RefundDue ─Refunded▶ Refunded
//!                                         └ RefundLapsed ▶ RefundDue (the next may be signed)
//! ```
//!
//! Of work in several parts some may be done: AnsweredInPart is Answered, and leads to RefundDue where that leads to Completed.
//!
//! A payment to a provider may be open in RefundDue, Refunded and Uncollected as in Held: the chain proves it there too, and the
//! state stays.
//!
//! Work that failed before anybody was paid may turn to another provider, in `Working` and in `WorkingSettled`: Turned.
//!
//! Trusted, in `Working`: the client gets the answer before its payment is settled. Only where nobody was paid for the work. A
//! refusal then leaves `Uncollected` too: the client has the answer, and did not pay.
//!
//! All of it, line by line; a test holds these lines against the code.
//!
//! | from | event | to |
//! |---|---|---|
//! | claimed | verified | working |
//! | claimed | settle_first | settling_upfront |
//! | claimed | rejected | voided |
//! | claimed | work_failed | voided |
//! | working | signed | working |
//! | working | turned | working |
//! | working | trusted | working |
//! | working | answered | settling |
//! | working | answered_in_part | settling |
//! | working | work_failed | voided |
//! | working | work_failed | held |
//! | settling_upfront | settled | working_settled |
//! | settling_upfront | refused | voided |
//! | working_settled | signed | working_settled |
//! | working_settled | turned | working_settled |
//! | working_settled | answered | completed |
//! | working_settled | answered | delivering |
//! | working_settled | answered_in_part | refund_due |
//! | working_settled | work_failed | refund_due |
//! | delivering | handed_out | completed |
//! | delivering | work_failed | refund_due |
//! | completed | work_failed | refund_due |
//! | refund_due | refund_signed | refund_due |
//! | refund_due | refund_lapsed | refund_due |
//! | refund_due | refunded | refunded |
//! | settling | settled | completed |
//! | settling | settled | delivering |
//! | settling | settled | refund_due |
//! | settling | refused | uncollected |
//! | settling | refused | voided |
//! | held | answered | settling |
//! | held | answered_in_part | settling |
//! | held | proved_spent | provider_lost |
//! | held | proved_unspent | voided |
//! | held | settled | refund_due |
//! | refund_due | proved_spent | refund_due |
//! | refund_due | proved_unspent | refund_due |
//! | refunded | proved_spent | refunded |
//! | refunded | proved_unspent | refunded |
//! | uncollected | proved_spent | uncollected |
//! | uncollected | proved_unspent | uncollected |
//! | voided | reopened | claimed |

use super::State;
use super::job::{Answer, Failure, Fate, Job, Kept, ProviderPayment, Refund, SCHEMA, Shortfall, Sold};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::money::Amount;
use crate::reason::{Reason, Retry};
use crate::x402::{B256, Receipt};
use serde::{Deserialize, Serialize};

/// Something that happened to a job. The journal is the list of these.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The client payment was vouched for; the work starts.
    Verified,
    /// The client payment was found worthless before anything was spent.
    Rejected {
        /// Why.
        failure: Failure,
    },
    /// The route settles upfront: `/settle` may be called from now on.
    SettleFirst,
    /// We signed a provider payment; it may be sent from now on.
    Signed {
        /// The payment.
        payment: ProviderPayment,
    },
    /// Nobody was paid, and another provider does the work.
    Turned {
        /// What is sold instead, for the same price.
        sold: Sold,
    },
    /// The client gets the answer, once there is one, before its payment is settled.
    Trusted,
    /// The work succeeded. From `Working`, `/settle` may be called from now on.
    Answered {
        /// What the client gets once settled.
        answer: Answer,
    },
    /// A part of the work succeeded, and no more of it will. From `Working`, `/settle` may be called from now on.
    AnsweredInPart {
        /// What the client gets once settled.
        answer: Answer,
        /// What it is owed for the rest.
        shortfall: Shortfall,
    },
    /// The work failed, or can no longer be finished.
    WorkFailed {
        /// Why.
        failure: Failure,
    },
    /// An answer that is not in the record was handed out to its end, or its client went away before.
    HandedOut,
    /// The client payment was settled.
    Settled {
        /// The proof.
        receipt: Receipt,
    },
    /// The client payment provably will not settle.
    Refused {
        /// Why.
        failure: Failure,
    },
    /// The chain proved that an open provider signature was spent. All that are open are booked as spent, but for those it
    /// proved otherwise of: a loss is never counted too small.
    ProvedSpent {
        /// The nonces of those that were not spent, and never will be. A record from before work had parts names none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unspent: Vec<B256>,
    },
    /// The chain proved that no open provider signature was or can be spent.
    ProvedUnspent,
    /// The same payment starts the next attempt of a voided job.
    Reopened {
        /// What is sold this time; the provider may be another.
        sold: Sold,
    },
    /// We signed a payment that gives the client its money back; it may be sent from now on.
    RefundSigned {
        /// The payment.
        refund: Refund,
    },
    /// The chain proved that the open refund was not paid, and never will be.
    RefundLapsed,
    /// The chain proved that the open refund was paid.
    Refunded {
        /// By this transaction.
        transaction: B256,
    },
}

impl Event {
    /// The name in the journal and in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Verified => "verified",
            Event::Rejected { .. } => "rejected",
            Event::SettleFirst => "settle_first",
            Event::Signed { .. } => "signed",
            Event::Turned { .. } => "turned",
            Event::Trusted => "trusted",
            Event::Answered { .. } => "answered",
            Event::AnsweredInPart { .. } => "answered_in_part",
            Event::WorkFailed { .. } => "work_failed",
            Event::HandedOut => "handed_out",
            Event::Settled { .. } => "settled",
            Event::Refused { .. } => "refused",
            Event::ProvedSpent { .. } => "proved_spent",
            Event::ProvedUnspent => "proved_unspent",
            Event::Reopened { .. } => "reopened",
            Event::RefundSigned { .. } => "refund_signed",
            Event::RefundLapsed => "refund_lapsed",
            Event::Refunded { .. } => "refunded",
        }
    }
}

/// The event is not allowed in the job's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {} cannot take the event {event}", state.name())]
pub struct Illegal {
    /// Where the job stands.
    pub state: State,
    /// What was to happen to it.
    pub event: &'static str,
}

impl Event {
    /// The answer, if it brings one.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Event::Answered { answer } | Event::AnsweredInPart { answer, .. } => Some(answer),
            _ => None,
        }
    }
}

impl Job {
    /// The job after `event`, or why the event cannot happen to it.
    pub fn apply(&self, event: &Event, now: UnixMillis) -> Result<Job, Illegal> {
        if self.buys_nothing() {
            return Err(Illegal { state: self.state, event: event.name() });
        }
        self.replay(event, now)
    }

    /// The same for an event that did happen. Earlier builds took payments again that this one would not.
    pub fn replay(&self, event: &Event, now: UnixMillis) -> Result<Job, Illegal> {
        let next = self.next_state(event).ok_or(Illegal { state: self.state, event: event.name() })?;
        let mut job = self.clone();
        job.state = next;
        job.version += 1;
        job.updated = now.max(self.updated);
        match event {
            Event::Signed { payment } => job.provider.push(payment.clone()),
            Event::Turned { sold } => job.quote = sold.clone(),
            Event::Trusted => job.trusted = true,
            Event::Answered { answer } => {
                job.answer = Some(answer.clone());
                job.failure = None;
                // The adapter vouches for the work of every step, so each of their payments was taken.
                job.resolve_open(Fate::Spent, |_| true);
            }
            Event::AnsweredInPart { answer, shortfall } => {
                job.answer = Some(answer.clone());
                job.failure = None;
                // Nobody vouches for those of the parts that were not done.
                let attempt = self.attempt;
                job.resolve_open(Fate::Spent, |payment| {
                    payment.attempt != attempt || !shortfall.steps.contains(&payment.step)
                });
                job.shortfall = Some(shortfall.clone());
            }
            Event::Settled { receipt } => job.receipt = Some(receipt.clone()),
            Event::WorkFailed { failure } | Event::Rejected { failure } | Event::Refused { failure } => {
                job.failure = Some(failure.clone());
            }
            Event::ProvedSpent { unspent } => {
                job.resolve_open(Fate::Unspent, |payment| unspent.contains(&payment.nonce));
                job.resolve_open(Fate::Spent, |_| true);
            }
            Event::ProvedUnspent => job.resolve_open(Fate::Unspent, |_| true),
            Event::Reopened { sold } => {
                job.attempt += 1;
                job.quote = sold.clone();
                job.failure = None;
            }
            Event::RefundSigned { refund } => job.refunds.push(refund.clone()),
            Event::RefundLapsed => job.resolve_refund(Fate::Unspent, None),
            Event::Refunded { transaction } => job.resolve_refund(Fate::Spent, Some(*transaction)),
            Event::Verified | Event::SettleFirst | Event::HandedOut => {}
        }
        if job.state == State::Delivering {
            // Gateways from before there was this do not know what it means.
            job.schema = SCHEMA;
        }
        if job.state == State::Voided {
            // Nobody paid for it: the next attempt must not be answered with it.
            (job.answer, job.trusted, job.shortfall) = (None, false, None);
        } else if job.state == State::RefundDue && matches!(event, Event::WorkFailed { .. }) {
            // It was never given whole.
            (job.answer, job.trusted) = (None, false);
        }
        Ok(job)
    }

    /// One refund at a time, each under a number of its own: whatever was signed before it is provably worthless.
    fn may_refund(&self, refund: &Refund) -> bool {
        refund.fate == Fate::Open
            && refund.transaction.is_none()
            && Some(refund.attempt) == self.next_refund()
            && !self.refunds.iter().any(|earlier| earlier.nonce == refund.nonce)
            && !self.provider.iter().any(|earlier| earlier.nonce == refund.nonce)
    }

    /// The refund that is signed, and of which nobody knows yet whether it was paid.
    pub fn open_refund(&self) -> Option<&Refund> {
        self.refunds.iter().find(|refund| refund.fate == Fate::Open)
    }

    /// The number of the refund that may be signed next; `None` while one is open, or if none is due.
    pub fn next_refund(&self) -> Option<u32> {
        let none_can_be_paid = self.refunds.iter().all(|refund| refund.fate == Fate::Unspent);
        let last = self.refunds.last().map_or(0, |refund| refund.attempt);
        (self.state == State::RefundDue && none_can_be_paid).then(|| last.checked_add(1)).flatten()
    }

    /// Whether a provider signature of this job is out and may still be spent, at `now`.
    pub fn signature_spendable(&self, now: UnixSeconds) -> bool {
        self.provider.iter().any(|payment| payment.fate == Fate::Open && payment.valid_before > now)
    }

    /// The sum of this job's signatures that may still be spent at `now`; `None` on overflow.
    pub fn spendable(&self, now: UnixSeconds) -> Option<Amount> {
        self.provider
            .iter()
            .filter(|payment| payment.fate == Fate::Open && payment.valid_before > now)
            .try_fold(Amount::ZERO, |sum, payment| sum.checked_add(payment.amount))
    }

    /// The payment already signed for `step` in the current attempt.
    pub fn signed_for(&self, step: &str) -> Option<&ProviderPayment> {
        self.provider.iter().find(|payment| payment.attempt == self.attempt && payment.step == step)
    }

    fn next_state(&self, event: &Event) -> Option<State> {
        use State::*;
        Some(match (self.state, event) {
            (Claimed, Event::Verified) => Working,
            (Claimed, Event::SettleFirst) => SettlingUpfront,
            (Claimed, Event::Rejected { .. }) => Voided,
            (Claimed, Event::WorkFailed { .. }) => Voided,

            (Working, Event::Signed { payment }) if self.may_sign(payment) => Working,
            (Working, Event::Turned { sold }) if self.may_turn(sold) => Working,
            (Working, Event::Trusted) if self.costs_nothing() && !self.trusted => Working,
            (Working, Event::Answered { .. }) => Settling,
            (Working, Event::AnsweredInPart { shortfall, .. }) if self.may_fall_short(shortfall) => Settling,
            (Working, Event::WorkFailed { .. }) if self.signature_open() => Held,
            (Working, Event::WorkFailed { .. }) => Voided,

            (SettlingUpfront, Event::Settled { .. }) => WorkingSettled,
            (SettlingUpfront, Event::Refused { .. }) => Voided,
            (WorkingSettled, Event::Signed { payment }) if self.may_sign(payment) => WorkingSettled,
            (WorkingSettled, Event::Turned { sold }) if self.may_turn(sold) => WorkingSettled,
            (WorkingSettled, Event::Answered { answer }) if answer.body == Kept::Not => Delivering,
            (WorkingSettled, Event::Answered { .. }) => Completed,
            (WorkingSettled, Event::AnsweredInPart { shortfall, .. }) if self.may_fall_short(shortfall) => {
                RefundDue
            }
            (WorkingSettled, Event::WorkFailed { .. }) => RefundDue,

            (Delivering, Event::HandedOut) => Completed,
            // It was only ever on its way.
            (Delivering, Event::WorkFailed { .. }) => RefundDue,
            (Completed, Event::WorkFailed { .. }) if self.is_given_once() => RefundDue,

            (Settling, Event::Settled { .. }) if self.shortfall.is_some() => RefundDue,
            (Settling, Event::Settled { .. }) if self.is_given_once() => Delivering,
            (Settling, Event::Settled { .. }) => Completed,
            (Settling, Event::Refused { .. }) if !self.costs_nothing() || self.trusted => Uncollected,
            (Settling, Event::Refused { .. }) => Voided,

            // Whoever did the work could not write it down before the job was taken for given up.
            (Held, Event::Answered { .. }) => Settling,
            (Held, Event::AnsweredInPart { shortfall, .. }) if self.may_fall_short(shortfall) => Settling,
            (Held, Event::ProvedSpent { unspent }) if self.is_spent_but_for(unspent) => ProviderLost,
            (Held, Event::ProvedUnspent) => Voided,
            // Settled by whoever did the work, who never came back to write it down.
            (Held, Event::Settled { .. }) => RefundDue,
            // What is owed to the client stays as it is; what the work cost becomes known.
            (RefundDue | Refunded | Uncollected, Event::ProvedSpent { unspent })
                if self.is_spent_but_for(unspent) =>
            {
                self.state
            }
            (RefundDue | Refunded | Uncollected, Event::ProvedUnspent) if self.signature_open() => self.state,

            (RefundDue, Event::RefundSigned { refund }) if self.may_refund(refund) => RefundDue,
            (RefundDue, Event::RefundLapsed) if self.open_refund().is_some() => RefundDue,
            (RefundDue, Event::Refunded { .. }) if self.open_refund().is_some() => Refunded,

            (Voided, Event::Reopened { sold }) if self.may_reopen(sold) => Claimed,
            _ => return None,
        })
    }

    /// Whether the client was told to pay anew, and so may have: no copy of this payment is taken any more. What a provider
    /// may have been paid for was held first, and its client was told so.
    pub fn buys_nothing(&self) -> bool {
        let code = self.failure.as_ref().map(|failure| failure.code.as_str());
        let told = code.and_then(Reason::from_code).map(Reason::retry);
        self.state == State::Voided && (told == Some(Retry::NewPayment) || !self.provider.is_empty())
    }

    /// What is sold in the next attempt is paid by the payment that was claimed: its amount is the price.
    fn may_reopen(&self, sold: &Sold) -> bool {
        sold.price == self.client.requirement.amount && self.attempt < u32::MAX
    }

    /// One signature per step and attempt: a second would be a second spend.
    fn may_sign(&self, payment: &ProviderPayment) -> bool {
        payment.attempt == self.attempt
            && payment.fate == Fate::Open
            && !self.trusted
            && self.signed_for(&payment.step).is_none()
            && !self.provider.iter().any(|earlier| earlier.nonce == payment.nonce)
    }

    /// Another may do it only while no payment for it is out, and the client's price stays what it was.
    fn may_turn(&self, sold: &Sold) -> bool {
        self.costs_nothing() && sold.price == self.quote.price
    }

    /// Nobody was paid for it, or may be.
    fn costs_nothing(&self) -> bool {
        !self.signature_open() && !self.paid_provider()
    }

    /// A part that was not done has a price of its own, and so has what was done.
    fn may_fall_short(&self, shortfall: &Shortfall) -> bool {
        !self.trusted && Amount::ZERO < shortfall.owed && shortfall.owed < self.client.requirement.amount
    }

    /// Whether something is open that is not among these: else nothing is spent.
    fn is_spent_but_for(&self, unspent: &[B256]) -> bool {
        self.provider.iter().any(|payment| payment.fate == Fate::Open && !unspent.contains(&payment.nonce))
    }

    /// Whether a provider signature of this job is out, and nothing is known of it.
    // Over all attempts, not this one alone: a voided job has no open signature (each was proven unspent),
    // so an open one is of this attempt, and if that ever broke, money would still be looked for.
    pub fn signature_open(&self) -> bool {
        self.provider.iter().any(|payment| payment.fate == Fate::Open)
    }

    /// Whether its answer is too large for this record: whoever passes it on has it, and nobody else.
    pub fn is_given_once(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.body == Kept::Not)
    }

    fn paid_provider(&self) -> bool {
        self.provider.iter().any(|payment| payment.fate == Fate::Spent)
    }

    fn resolve_open(&mut self, fate: Fate, of: impl Fn(&ProviderPayment) -> bool) {
        let open = |payment: &&mut ProviderPayment| payment.fate == Fate::Open && of(payment);
        for payment in self.provider.iter_mut().filter(open) {
            payment.fate = fate;
        }
    }

    fn resolve_refund(&mut self, fate: Fate, transaction: Option<B256>) {
        for refund in self.refunds.iter_mut().filter(|refund| refund.fate == Fate::Open) {
            (refund.fate, refund.transaction) = (fate, transaction);
        }
    }
}

#[cfg(test)]
mod tests;
