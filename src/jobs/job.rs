//! The job: one paid piece of work, and the durable record of both its legs.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ClaimKey, State};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::ids::JobId;
use crate::money::Amount;
use crate::x402::{Address, Asset, Authorization, B256, Receipt, Requirement, Version};

/// The newest shape of this record. A reader refuses newer ones, and reads those before: [`Job::reads`].
pub const SCHEMA: u16 = 3;

/// The shape of a record of work in one part. Gateways from before there was other work read it, and take no part for the whole.
pub const ONE_PART: u16 = 1;

/// The shape of a record of work in several parts.
pub const PARTS: u16 = 2;

/// What a payment was presented for: SHA-256 over method, canonical path, host, canonical options and
/// the digest of the decoded data. Multipart boundaries and JSON white space do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(#[serde(with = "hex::serde")] pub [u8; 32]);

/// One paid piece of work. Changed by [`Job::apply`] only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// [`ONE_PART`], [`PARTS`] where the work has several, or [`SCHEMA`] once its answer was handed out and not kept in it.
    pub schema: u16,
    /// The public id.
    pub id: JobId,
    /// The client payment it belongs to.
    pub claim: ClaimKey,
    /// What that payment was first presented for.
    pub fingerprint: Fingerprint,
    /// `store`, `run` or `app`.
    pub kind: JobKind,
    /// The paying wallet.
    pub requester: Address,
    /// When the claim was made.
    pub created: UnixMillis,
    /// When the last event was applied.
    pub updated: UnixMillis,
    /// How many events were applied; the version a store's append expects.
    pub version: u64,
    /// 1, or more once a voided job was started again.
    pub attempt: u32,
    /// Where it stands.
    pub state: State,
    /// The payment we take.
    pub client: Arc<ClientLeg>,
    /// What was sold.
    pub quote: Sold,
    /// Every payment we signed for it, in order. Entries are never removed.
    pub provider: Vec<ProviderPayment>,
    /// The answer: there while it may still be owed (`settling`, `delivering`, `completed`, `uncollected`; `refund_due` and `refunded` with a
    /// shortfall), and only then.
    pub answer: Option<Answer>,
    /// The client has the answer, or may have it, once there is one: before its payment is settled. A record from before
    /// there was this has it not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trusted: bool,
    /// The proof of settlement.
    pub receipt: Option<Receipt>,
    /// Why it failed, when it did.
    pub failure: Option<Failure>,
    /// What was not done of the work, where the answer is about the rest of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<Shortfall>,
    /// Every payment we signed to give the client its money back, in order. Entries are never removed. A record from before
    /// there were refunds has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refunds: Vec<Refund>,
}

/// What was not done of work in several parts. The client pays for all of it, since its payment has one amount, and is owed this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// How much of the price: more than nothing, and less than all of it.
    pub owed: Amount,
    /// The steps of the parts that were not done. What was signed for one of them in this attempt may have been taken or not.
    pub steps: Vec<String>,
}

/// What kind of work a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// `POST /store`.
    Store,
    /// `POST /run`.
    Run,
    /// A priced route of the app.
    App,
}

/// The client's payment, with all that a repeated settle needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientLeg {
    /// Which version it came in; the receipt goes back in the same.
    pub version: Version,
    /// What it pays.
    pub requirement: Requirement,
    /// When the authorization lapses.
    pub valid_before: UnixSeconds,
    /// The decoded payload, verbatim, for the facilitator.
    pub payload: Arc<RawValue>,
    /// The requirement as the facilitator is to be shown it, verbatim.
    pub requirements: Arc<RawValue>,
    /// The unguessable quote id that a v2 payment echoed; never published on chain.
    pub quote_id: Option<String>,
    /// The chain's height when it was claimed, where that was known: a payment is looked for from there on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
}

impl ClientLeg {
    /// Whether this is what the client signed, as far as money goes. A payer can sign a nonce twice, and only what was claimed is ever
    /// settled.
    pub fn is_of(&self, signed: &Authorization) -> bool {
        let Requirement { pay_to, amount, .. } = self.requirement;
        (signed.to, signed.value, signed.valid_before) == (pay_to, amount, self.valid_before)
    }
}

/// What was sold to the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sold {
    /// The provider's name, or `app`.
    pub provider: String,
    /// The provider's operation, or the route's path.
    pub operation: String,
    /// What the client pays.
    pub price: Amount,
    /// What we expected to pay, at most.
    pub cost: Amount,
    /// Decoded bytes.
    pub size: u64,
    /// Who was to do it before, and failed unpaid, in order. A record from before there was this has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOver>,
}

/// A provider that was to do the work, and could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Its name.
    pub provider: String,
    /// The class of its fault, as in metrics.
    pub fault: String,
}

/// A payment we signed to a provider. Written before the signature leaves the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderPayment {
    /// The adapter's name for the step.
    pub step: String,
    /// The job's attempt it was signed in.
    pub attempt: u32,
    /// Who is paid.
    pub provider: String,
    /// The token.
    pub asset: Asset,
    /// The payee.
    pub pay_to: Address,
    /// How much.
    pub amount: Amount,
    /// The derived nonce.
    pub nonce: B256,
    /// Which wallet signed it: keys change. `None` in records from before it was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
    /// When the signature lapses.
    pub valid_before: UnixSeconds,
    /// What is known of it.
    pub fate: Fate,
}

/// A payment we signed to give a client its money back. Written before the signature leaves the process. How much, in what
/// and to whom is not in it: the job says what the client is owed ([`Job::owed`]), and who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// 1 for the first; one more than the last, which has provably lapsed unpaid, for each after it.
    pub attempt: u32,
    /// The derived nonce.
    pub nonce: B256,
    /// Which wallet signed it: keys change.
    pub from: Address,
    /// When the signature lapses.
    pub valid_before: UnixSeconds,
    /// The chain's height when it was signed: it is looked for from there on.
    pub height: u64,
    /// What is known of it.
    pub fate: Fate,
    /// The transaction that paid it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<B256>,
}

/// What is known of a payment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Signed; it may have been sent, and may be spent until it lapses.
    Open,
    /// The provider did the work for it, or the chain shows the transfer.
    Spent,
    /// Proven: it was not spent, and can no longer be.
    Unspent,
}

/// An answer to a client, kept so that the same payment gets the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header fields in order, without hop-by-hop and payment fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Kept,
}

/// Whether an answer's body was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kept", content = "body")]
pub enum Kept {
    /// The whole body, base64 in the record.
    Whole(#[serde(with = "base64_bytes")] Vec<u8>),
    /// It was streamed and was too large to keep.
    Not,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The reason code, as in the client's answer and the metric.
    pub code: String,
    /// In words.
    pub message: String,
    /// HTTP status the client was answered with.
    pub status: u16,
}

/// How much longer than its payment and its retention a record is kept: clocks differ, and a chain's
/// differs most.
const EXPIRY_MARGIN: Duration = Duration::from_secs(600);

/// How long a store keeps what is finished, and what becomes of it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// After the last event.
    pub time: Duration,
    /// Jobs that money was moved for are not forgotten, but wait to be archived.
    pub archived: bool,
}

impl From<Duration> for Retention {
    fn from(time: Duration) -> Self {
        Retention { time, archived: false }
    }
}

impl Job {
    /// Whether records of this schema are understood.
    pub fn reads(schema: u16) -> bool {
        (ONE_PART..=SCHEMA).contains(&schema)
    }

    /// What the client gets back, where anything is owed: all that it paid, or the share of what was not done.
    pub fn owed(&self) -> Amount {
        self.shortfall.as_ref().map_or(self.client.requirement.amount, |shortfall| shortfall.owed)
    }

    /// Whether its client has an answer: for all of the work, or for a part of it and money for the rest.
    pub fn is_answered(&self) -> bool {
        match self.state {
            State::Completed | State::Delivering => true,
            State::RefundDue | State::Refunded => self.shortfall.is_some(),
            _ => false,
        }
    }

    /// Whether the client pays for the work that this payment was for, or will: not, if that was not done.
    pub fn is_paid_for(&self, payment: &ProviderPayment) -> bool {
        let done = |shortfall: &Shortfall| {
            payment.attempt == self.attempt && !shortfall.steps.contains(&payment.step)
        };
        self.is_answered() && self.shortfall.as_ref().is_none_or(done)
    }

    /// Whether both records say the same of what became of this job: what its client has, and what it is owed.
    pub fn ends_as(&self, other: &Job) -> bool {
        (self.state.shown(), &self.shortfall) == (other.state.shown(), &other.shortfall)
    }

    /// The outer state clients see.
    pub fn outer(&self) -> &'static str {
        if self.is_answered() { State::Completed.outer() } else { self.state.outer() }
    }

    /// When a store may forget this job by itself. `None`: never, because it is unfinished, somebody's money is
    /// outstanding, or it is to be archived first. A record outlives its payment, so a forgotten payment is an expired one.
    pub fn keep_until(&self, retention: impl Into<Retention>) -> Option<UnixMillis> {
        let retention = retention.into();
        match self.state {
            State::Completed | State::Refunded if retention.archived => None,
            State::Completed | State::Refunded | State::Voided => Some(self.old_at(retention.time)),
            // No money was moved for it. That its payer owes is remembered by itself.
            State::Uncollected if self.trusted => Some(self.old_at(retention.time)),
            State::Claimed
            | State::Working
            | State::SettlingUpfront
            | State::WorkingSettled
            | State::Settling
            | State::Delivering
            | State::RefundDue
            | State::Uncollected
            | State::Held
            | State::ProviderLost => None,
        }
    }

    /// Whether the client gets the answer though its payment is not settled yet.
    pub fn answered_first(&self) -> bool {
        self.trusted && self.state == State::Settling
    }

    /// When this job may go to the archive; `None`: never, because it is unfinished, somebody's money is outstanding, or
    /// none was moved for it.
    pub fn archive_at(&self, retention: Duration) -> Option<UnixMillis> {
        self.state.is_archived().then(|| self.old_at(retention))
    }

    fn old_at(&self, retention: Duration) -> UnixMillis {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let kept = self.updated.saturating_add(millis(retention));
        let payable = self.client.valid_before.saturating_mul(1000);
        kept.max(payable).saturating_add(millis(EXPIRY_MARGIN))
    }
}

mod base64_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64_simd::STANDARD.encode_to_string(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        base64_simd::STANDARD.decode_to_vec(text.as_bytes()).map_err(D::Error::custom)
    }
}
