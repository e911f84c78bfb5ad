//! Where a job may stand, and what that means to stores, to clients and to whoever waits.

use serde::{Deserialize, Serialize};

/// Where a job stands. Final states replay their answer; see the table in [`super::transition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The client payment is registered; nothing else happened.
    Claimed,
    /// The facilitator (or, upfront, settlement) vouched for the payment; the work may be running.
    Working,
    /// The client payment is being settled before the work (`settle = "upfront"`).
    SettlingUpfront,
    /// Settled before the work; the work may be running.
    WorkingSettled,
    /// The work succeeded, its answer is recorded, and the client payment may be settled at any moment.
    Settling,
    /// Settled and done, and its answer, which is not in this record, is on its way to the client. Whoever hands it out holds the
    /// lease: if he is gone, so is the answer.
    Delivering,
    /// Settled and done. Final, unless its answer was too large to keep and broke off.
    Completed,
    /// Settled, but the work failed, or a part of it: the client is owed the price, or its share.
    RefundDue,
    /// The client has its money back, which is proven. Final.
    Refunded,
    /// The client's settlement failed for good, and the provider was paid, or the client has the answer. Final.
    Uncollected,
    /// The work failed after a provider signature went out: the client is not charged, our money may
    /// be gone. Held until the chain proves which.
    Held,
    /// Like `Held`, proven spent. Final.
    ProviderLost,
    /// Client unpaid and no signature spendable. The same payment may start the next attempt, unless its client was told to pay anew.
    Voided,
}

impl State {
    /// Whether jobs in it are archived, once they are old: money was moved for them, and none of it is outstanding.
    pub fn is_archived(self) -> bool {
        matches!(self, State::Completed | State::Refunded)
    }

    /// Every state, for tables and metrics.
    pub const ALL: [State; 13] = [
        State::Claimed,
        State::Working,
        State::SettlingUpfront,
        State::WorkingSettled,
        State::Settling,
        State::Delivering,
        State::Completed,
        State::RefundDue,
        State::Refunded,
        State::Uncollected,
        State::Held,
        State::ProviderLost,
        State::Voided,
    ];

    /// Whether what became of the work and of its payment is known: at rest, or its answer is still being handed out.
    pub fn is_decided(self) -> bool {
        self.at_rest() || self == State::Delivering
    }

    /// As clients are told: that its answer is on its way is no news to who gets it, and none of anybody else's business.
    pub fn shown(self) -> State {
        if self == State::Delivering { State::Completed } else { self }
    }

    /// Whether nothing more will happen by itself: duplicates of the payment get the stored outcome.
    pub fn at_rest(self) -> bool {
        matches!(
            self,
            State::Completed
                | State::RefundDue
                | State::Refunded
                | State::Uncollected
                | State::ProviderLost
                | State::Held
                | State::Voided
        )
    }

    /// The outer state clients see: `running`, `completed` or `failed`.
    pub fn outer(self) -> &'static str {
        match self {
            State::Completed | State::Delivering => "completed",
            State::Claimed
            | State::Working
            | State::SettlingUpfront
            | State::WorkingSettled
            | State::Settling => "running",
            State::RefundDue
            | State::Refunded
            | State::Uncollected
            | State::Held
            | State::ProviderLost
            | State::Voided => "failed",
        }
    }

    /// The name in records, metrics and the admin list.
    pub fn name(self) -> &'static str {
        match self {
            State::Claimed => "claimed",
            State::Working => "working",
            State::SettlingUpfront => "settling_upfront",
            State::WorkingSettled => "working_settled",
            State::Settling => "settling",
            State::Delivering => "delivering",
            State::Completed => "completed",
            State::RefundDue => "refund_due",
            State::Refunded => "refunded",
            State::Uncollected => "uncollected",
            State::Held => "held",
            State::ProviderLost => "provider_lost",
            State::Voided => "voided",
        }
    }
}
