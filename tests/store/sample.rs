//! Jobs, and the events of their lives: those of the unit tests, at times that are given.

// Not every binary that shares this file uses all of it.
#![allow(dead_code)]

#[path = "../../src/jobs/sample.rs"]
mod base;

use std::sync::Arc;

use galaksio::clock::UnixMillis;
use galaksio::jobs::{Claim, Event, Job, JobStore, Lease};

/// A fresh claim made at `now`, whose payment is told apart by `number`.
pub(crate) fn job(number: u64, now: UnixMillis) -> Job {
    let mut job = base::job(number);
    (job.created, job.updated) = (now, now);
    Arc::make_mut(&mut job.client).valid_before = now / 1000;
    job
}

pub(crate) fn reopened() -> Event {
    Event::Reopened { sold: base::sold() }
}

pub(crate) fn signed(job: &Job) -> Event {
    let mut payment = base::payment("snippet", job.attempt, u8::try_from(job.attempt).unwrap());
    payment.valid_before = job.client.valid_before;
    Event::Signed { payment }
}

pub(crate) fn answered(body: &[u8]) -> Event {
    Event::Answered { answer: base::answer(body) }
}

pub(crate) fn settled() -> Event {
    Event::Settled { receipt: base::receipt() }
}

pub(crate) fn failed() -> Event {
    Event::WorkFailed { failure: base::failure() }
}

/// The whole life of a paid job, from its claim on.
pub(crate) fn paid_run(job: &Job) -> [Event; 4] {
    [Event::Verified, signed(job), answered(br#"{"stdout":"42\n"}"#), settled()]
}

/// Claims `job`, which must be new.
pub(crate) async fn win(store: &dyn JobStore, job: &Job, lease: std::time::Duration) -> (Job, Lease) {
    match store.claim(job, lease).await.unwrap() {
        Claim::Won(job, lease) => (job, lease),
        Claim::Taken(job) => panic!("claimed before: {job:?}"),
    }
}

/// Appends `event`, which must be allowed, and returns the job after it.
pub(crate) async fn append(store: &dyn JobStore, lease: &Lease, event: &Event, job: &Job) -> Job {
    let next = job.apply(event, job.updated).unwrap();
    let appended = store.append(lease, event, &next).await.unwrap();
    assert_eq!(appended, galaksio::jobs::Appended::Written, "{event:?}");
    next
}

/// Every field, as text: jobs have no equality of their own.
pub(crate) fn text(job: &Job) -> String {
    format!("{job:?}")
}
