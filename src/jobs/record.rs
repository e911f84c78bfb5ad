//! Job records and journal entries as the bytes a store keeps: JSON, with the schema version of the writer.
//!
//! A record is whole ([`Job::encode`]), or in [`Parts`] where each is written by itself: most of a job never changes once
//! it is claimed. A record of a newer schema is refused, never half understood.
//! What a record says must not reach an error or a log: it holds signed payments and answers.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::job::{
    Answer, ClientLeg, Failure, Fingerprint, Job, JobKind, Kept, ProviderPayment, Refund, SCHEMA, Shortfall,
    Sold,
};
use super::store::{Step, StoreError};
use super::transition::Event;
use super::{ClaimKey, State};
use crate::clock::UnixMillis;
use crate::ids::JobId;
use crate::x402::{Address, Receipt};

/// A line of a job's journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// When the event was applied, [`Job::updated`] of the record it made.
    pub at: UnixMillis,
    /// What happened.
    pub event: Event,
}

impl Job {
    /// The record of this job.
    pub fn encode(&self) -> Vec<u8> {
        json(self)
    }

    /// The job of a record; [`StoreError::Unreadable`] if it is damaged or of another schema.
    pub fn decode(record: &[u8]) -> Result<Job, StoreError> {
        of_our_schema(record, |job: &Job| job.schema)
    }
}

/// A job in three parts, for a store that can write one of them without the others.
pub(super) enum Parts {}

/// What [`Job::apply`] never changes.
#[derive(Serialize, Deserialize)]
struct Fixed<'a> {
    id: JobId,
    claim: Cow<'a, ClaimKey>,
    fingerprint: Fingerprint,
    kind: JobKind,
    requester: Address,
    created: UnixMillis,
    client: Cow<'a, ClientLeg>,
}

/// All that it may change, but for the answer.
#[derive(Serialize, Deserialize)]
struct Changing<'a> {
    schema: u16,
    updated: UnixMillis,
    version: u64,
    attempt: u32,
    state: State,
    quote: Cow<'a, Sold>,
    provider: Cow<'a, [ProviderPayment]>,
    /// Whether there is an answer.
    answered: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    trusted: bool,
    receipt: Option<Cow<'a, Receipt>>,
    failure: Option<Cow<'a, Failure>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shortfall: Option<Cow<'a, Shortfall>>,
    #[serde(default, skip_serializing_if = "<[Refund]>::is_empty")]
    refunds: Cow<'a, [Refund]>,
}

impl Parts {
    /// What stays as it was claimed.
    pub(super) fn fixed(job: &Job) -> Vec<u8> {
        let Job { id, fingerprint, kind, requester, created, .. } = *job;
        let (claim, client) = (Cow::Borrowed(&job.claim), Cow::Borrowed(&*job.client));
        json(&Fixed { id, claim, fingerprint, kind, requester, created, client })
    }

    /// Where it stands.
    pub(super) fn record(job: &Job) -> Vec<u8> {
        let Job { schema, updated, version, attempt, state, trusted, .. } = *job;
        json(&Changing {
            schema,
            updated,
            version,
            attempt,
            state,
            quote: Cow::Borrowed(&job.quote),
            provider: Cow::Borrowed(&job.provider),
            answered: job.answer.is_some(),
            trusted,
            receipt: job.receipt.as_ref().map(Cow::Borrowed),
            failure: job.failure.as_ref().map(Cow::Borrowed),
            shortfall: job.shortfall.as_ref().map(Cow::Borrowed),
            refunds: Cow::Borrowed(&job.refunds),
        })
    }

    /// Its answer, if it is of these steps, and not of earlier ones.
    pub(super) fn answer(job: &Job, steps: &[Step<'_>]) -> Option<Vec<u8>> {
        let answered = steps
            .iter()
            .any(|step| matches!(step.event, Event::Answered { .. } | Event::AnsweredInPart { .. }));
        job.answer.as_ref().filter(|_| answered).map(json)
    }

    /// The job of these parts. An answer that it no longer has is not looked at.
    pub(super) fn join(fixed: &[u8], record: &[u8], answer: Option<&[u8]>) -> Result<Job, StoreError> {
        let at: Changing<'_> = of_our_schema(record, |at: &Changing<'_>| at.schema)?;
        let fixed: Fixed<'_> =
            serde_json::from_slice(fixed).map_err(|error| damaged("a job record", &error))?;
        let answer = match (at.answered, answer) {
            (false, _) => None,
            (true, Some(answer)) => {
                Some(serde_json::from_slice(answer).map_err(|error| damaged("an answer", &error))?)
            }
            (true, None) => return Err(StoreError::Unreadable("a job without its answer".to_owned())),
        };
        Ok(Job {
            schema: at.schema,
            id: fixed.id,
            claim: fixed.claim.into_owned(),
            fingerprint: fixed.fingerprint,
            kind: fixed.kind,
            requester: fixed.requester,
            created: fixed.created,
            updated: at.updated,
            version: at.version,
            attempt: at.attempt,
            state: at.state,
            client: Arc::new(fixed.client.into_owned()),
            quote: at.quote.into_owned(),
            provider: at.provider.into_owned(),
            answer,
            trusted: at.trusted,
            receipt: at.receipt.map(Cow::into_owned),
            failure: at.failure.map(Cow::into_owned),
            shortfall: at.shortfall.map(Cow::into_owned),
            refunds: at.refunds.into_owned(),
        })
    }
}

impl Entry {
    /// The line of a step. The body of an answer stays out: the record has it, and a journal with it would keep every
    /// answer twice.
    pub(super) fn line(step: &Step<'_>) -> Vec<u8> {
        let Step { event, at } = *step;
        let without_body = |answer: &Answer| {
            let headers = answer.headers.clone();
            Answer { status: answer.status, headers, body: Kept::Not }
        };
        let event = match event {
            Event::Answered { answer } => &Event::Answered { answer: without_body(answer) },
            Event::AnsweredInPart { answer, shortfall } => {
                &Event::AnsweredInPart { answer: without_body(answer), shortfall: shortfall.clone() }
            }
            other => other,
        };
        json(&Written { at, event })
    }

    /// The entry of a line.
    pub(super) fn decode(line: &[u8]) -> Result<Entry, StoreError> {
        serde_json::from_slice(line).map_err(|error| damaged("a journal entry", &error))
    }
}

/// [`Entry`], borrowed.
#[derive(Serialize)]
struct Written<'a> {
    at: UnixMillis,
    event: &'a Event,
}

#[derive(Deserialize)]
struct SchemaOnly {
    schema: u16,
}

#[expect(
    clippy::expect_used,
    reason = "serde_json fails on maps without string keys and on I/O: neither is here"
)]
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records are plain JSON")
}

/// Reads what says its schema, if that is ours.
fn of_our_schema<T: DeserializeOwned>(record: &[u8], schema: impl Fn(&T) -> u16) -> Result<T, StoreError> {
    match serde_json::from_slice::<T>(record) {
        Ok(read) if Job::reads(schema(&read)) => Ok(read),
        Ok(read) => Err(other_schema(schema(&read))),
        // A newer record may well have another shape; then its schema is the news, not the shape.
        Err(error) => match serde_json::from_slice::<SchemaOnly>(record) {
            Ok(SchemaOnly { schema }) if !Job::reads(schema) => Err(other_schema(schema)),
            _ => Err(damaged("a job record", &error)),
        },
    }
}

fn other_schema(schema: u16) -> StoreError {
    StoreError::Unreadable(format!("it is of schema {schema}; this version reads up to {SCHEMA}"))
}

/// The place of the damage, without serde's words: they quote what was found there.
fn damaged(what: &str, error: &serde_json::Error) -> StoreError {
    let (line, column) = (error.line(), error.column());
    StoreError::Unreadable(format!("{what} is damaged at line {line}, column {column}"))
}

#[cfg(test)]
mod tests;
