//! The embedded store: the suite, and what a file promises.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use galaksio::clock::Clock;
use galaksio::jobs::ValueStore as _;
use galaksio::jobs::embedded::{Embedded, OpenError};
use galaksio::jobs::{Claim, Event, JobStore};

use crate::sample::{append, job, text, win};
use crate::subject::{LONG, RETENTION, Subject};
use crate::suite::conformance;

conformance!(super::embedded::subject);

const START: u64 = 1_800_000_000_000;

pub(crate) async fn subject() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let store: Arc<dyn JobStore> = Arc::new(open(&directory.path().join("jobs.redb"), &clock));
    Subject { other: Arc::clone(&store), store, clock, manual: true, _keep: Box::new(directory) }
}

fn open(path: &Path, clock: &Clock) -> Embedded {
    Embedded::open(path, RETENTION, clock.clone()).unwrap()
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.redb");
    let clock = Clock::manual(START);
    let store = open(&path, &clock);
    let (at, lease) = win(&store, &job(1, START), LONG).await;
    let at = append(&store, &lease, &Event::Verified, &at).await;
    store.put("keys", "hmac", b"secret", None).await.unwrap();
    store.add("spent", "today", 7).await.unwrap();
    drop(store);

    let store = open(&path, &clock);
    assert_eq!(text(&store.by_id(at.id).await.unwrap().unwrap()), text(&at));
    assert_eq!(store.journal(&at.claim).await.unwrap().len(), 1);
    assert_eq!(store.get("keys", "hmac").await.unwrap().as_deref(), Some(&b"secret"[..]));
    assert_eq!(store.add("spent", "today", 0).await.unwrap(), 7);
    // The lease outlives the process, and so does the right to write by it.
    assert!(store.take_over(&at.claim, LONG).await.unwrap().is_none());
    append(&store, &lease, &crate::sample::signed(&at), &at).await;
    let Claim::Taken(_) = store.claim(&job(1, START), LONG).await.unwrap() else { panic!("claimed twice") };
}

#[tokio::test]
async fn the_file_is_the_owners_alone_and_its_directories_are_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data/deep/jobs.redb");
    let _store = open(&path, &Clock::system());
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}

#[test]
fn a_second_opening_is_refused_in_plain_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.redb");
    let store = open(&path, &Clock::system());
    let Err(refused) = Embedded::open(&path, RETENTION, Clock::system()) else { panic!("opened twice") };
    assert!(matches!(&refused, OpenError::InUse(at) if *at == path), "{refused:?}");
    assert!(refused.to_string().contains("open in another process"), "{refused}");
    drop(store);
    open(&path, &Clock::system());
}

#[test]
fn what_is_no_job_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.redb");
    std::fs::write(&path, "not a database".repeat(1000)).unwrap();
    let Err(refused) = Embedded::open(&path, RETENTION, Clock::system()) else { panic!("opened") };
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
    let Err(refused) = Embedded::open(directory.path(), RETENTION, Clock::system()) else { panic!("opened") };
    assert!(matches!(refused, OpenError::Io { .. }), "{refused:?}");
}
