//! What cannot be seen through the trait; the rest is in `tests/store`.

use redb::{ReadableDatabase, ReadableTableMetadata, TableDefinition};

use super::tables::{COUNTS, DUE, HEADS, IDS, JOURNAL, RECORDS, STATES, VALUES};
use super::*;
use crate::jobs::{Event, sample};

const NOW: UnixMillis = 1_700_000_000_000;
const LONG: Duration = Duration::from_secs(3600);

fn open(directory: &tempfile::TempDir, clock: &Clock) -> Embedded {
    Embedded::open(&directory.path().join("jobs.redb"), Duration::from_secs(60), clock.clone()).unwrap()
}

async fn claim_and_void(store: &Embedded, number: u64) -> Job {
    let Claim::Won(job, lease) = store.claim(&sample::job(number), LONG).await.unwrap() else {
        panic!("claimed before")
    };
    let failed = Event::WorkFailed { failure: sample::failure() };
    let voided = job.apply(&failed, NOW).unwrap();
    assert_eq!(store.append(&lease, &failed, &voided).await.unwrap(), Appended::Written);
    voided
}

fn rows(store: &Embedded) -> [u64; 7] {
    let view = store.database.begin_read().unwrap();
    [
        view.open_table(HEADS).unwrap().len().unwrap(),
        view.open_table(RECORDS).unwrap().len().unwrap(),
        view.open_table(JOURNAL).unwrap().len().unwrap(),
        view.open_table(IDS).unwrap().len().unwrap(),
        view.open_table(DUE).unwrap().len().unwrap(),
        view.open_table(STATES).unwrap().len().unwrap(),
        view.open_table(VALUES).unwrap().len().unwrap(),
    ]
}

#[tokio::test]
async fn expired_rows_leave_every_table_a_few_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let store = open(&directory, &clock);
    let mut keep_until = 0;
    for number in 0..6 {
        let job = claim_and_void(&store, number).await;
        keep_until = job.keep_until(store.retention).unwrap();
        store.put("quotes", &number.to_string(), b"1", Some(LONG)).await.unwrap();
    }
    store.put("keys", "hmac", b"1", None).await.unwrap();
    assert_eq!(rows(&store), [6, 6, 6, 6, 0, 6, 7]);

    clock.advance(keep_until - NOW - 1);
    store.add("spent", "today", 1).await.unwrap();
    assert_eq!(rows(&store)[..6], [6, 6, 6, 6, 0, 6], "swept too early");

    clock.advance(3_600_000);
    // A batch of one operation sweeps two; an idle sweep may come in between.
    for _ in 0..3 {
        let before = rows(&store)[0];
        store.add("spent", "today", 1).await.unwrap();
        assert!(rows(&store)[0] <= before.saturating_sub(2));
    }
    assert_eq!(rows(&store), [0, 0, 0, 0, 0, 0, 1]);
    let view = store.database.begin_read().unwrap();
    assert_eq!(view.open_table(COUNTS).unwrap().get("voided").unwrap().unwrap().value(), 0);
}

#[tokio::test]
async fn a_claim_past_its_time_is_free_before_it_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let store = open(&directory, &clock);
    let keep_until = claim_and_void(&store, 1).await.keep_until(store.retention).unwrap();
    clock.advance(keep_until - NOW);
    let claimed = store.claim(&sample::job(1), LONG).await.unwrap();
    assert!(matches!(claimed, Claim::Won(..)));
    assert_eq!(rows(&store), [1, 1, 0, 1, 1, 1, 0]);
}

#[tokio::test]
async fn a_failed_transaction_is_an_unknown_outcome_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, &Clock::manual(NOW));
    let failed: Result<(), StoreError> = store
        .writer
        .write(|tables| {
            tables.put("keys", "half", b"1", None)?;
            Err(Fault::File(redb::Error::Corrupted("as if".into())))
        })
        .await;
    assert!(matches!(failed, Err(StoreError::Away(_))), "{failed:?}");
    assert_eq!(store.get("keys", "half").await.unwrap(), None);
    store.put("keys", "whole", b"1", None).await.unwrap();
}

#[test]
fn a_newer_layout_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.redb");
    let meta = TableDefinition::<&str, u64>::new("meta");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(meta).unwrap().insert("layout", 2).unwrap();
    transaction.commit().unwrap();
    drop(database);

    let Err(refused) = Embedded::open(&path, LONG, Clock::system()) else { panic!("opened") };
    assert!(matches!(refused, OpenError::Newer { found: 2, .. }), "{refused:?}");
    let view = Database::open(&path).unwrap().begin_read().unwrap();
    assert_eq!(view.list_tables().unwrap().count(), 1);
}
