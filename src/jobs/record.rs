//! Job records and journal entries as the bytes a store keeps: JSON, with the schema version of the writer.
//!
//! Both stores write these same bytes. A record of a newer schema is refused, never half understood.
//! What a record says must not reach an error or a log: it holds signed payments and answers.

use serde::{Deserialize, Serialize};

use super::job::{Answer, Job, Kept, SCHEMA};
use super::store::{Step, StoreError};
use super::transition::Event;
use crate::clock::UnixMillis;

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
        match serde_json::from_slice::<Job>(record) {
            Ok(job) if job.schema == SCHEMA => Ok(job),
            Ok(job) => Err(other_schema(job.schema)),
            // A newer record may well have another shape; then its schema is the news, not the shape.
            Err(error) => match serde_json::from_slice::<SchemaOnly>(record) {
                Ok(SchemaOnly { schema }) if schema != SCHEMA => Err(other_schema(schema)),
                _ => Err(damaged("a job record", &error)),
            },
        }
    }
}

impl Entry {
    /// The line of a step. The body of an answer stays out: the record has it, and a journal with it would keep every
    /// answer twice.
    pub(super) fn line(step: &Step<'_>) -> Vec<u8> {
        let Step { event, at } = *step;
        let Event::Answered { answer } = event else {
            return json(&Written { at, event });
        };
        let headers = answer.headers.clone();
        let answer = Answer { status: answer.status, headers, body: Kept::Not };
        json(&Written { at, event: &Event::Answered { answer } })
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

fn other_schema(schema: u16) -> StoreError {
    StoreError::Unreadable(format!("it is of schema {schema}; this version reads {SCHEMA}"))
}

/// The place of the damage, without serde's words: they quote what was found there.
fn damaged(what: &str, error: &serde_json::Error) -> StoreError {
    let (line, column) = (error.line(), error.column());
    StoreError::Unreadable(format!("{what} is damaged at line {line}, column {column}"))
}

#[cfg(test)]
mod tests;
