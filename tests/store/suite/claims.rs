//! The claim: first wins, and the record it writes.

use std::collections::HashSet;

use galaksio::ids::JobId;
use galaksio::jobs::{Claim, Event, Job, StoreError};

use crate::sample::{job, text, win};
use crate::subject::{LONG, SHORT, Subject};

pub(crate) async fn one_of_64_claims_wins(s: &Subject) {
    let now = s.now();
    let claimants = (0..64).map(|n| {
        let store = s.client(n);
        tokio::spawn(async move { store.claim(&job(1, now), LONG).await.unwrap() })
    });
    let mut won = Vec::new();
    let mut taken = HashSet::new();
    for claimant in claimants.collect::<Vec<_>>() {
        match claimant.await.unwrap() {
            Claim::Won(job, lease) => won.push((job, lease)),
            Claim::Taken(job) => {
                taken.insert(job.id);
            }
        }
    }
    let [(winner, lease)] = won.as_slice() else { panic!("{} winners", won.len()) };
    assert_eq!(taken, HashSet::from([winner.id]), "the others see another job");
    assert_eq!((lease.epoch, &lease.claim), (1, &winner.claim));
}

pub(crate) async fn different_payments_do_not_meet(s: &Subject) {
    for n in 0..8 {
        let store = s.client(n);
        let (_, lease) = win(&*store, &job(n as u64, s.now()), LONG).await;
        assert_eq!(lease.epoch, 1);
    }
}

pub(crate) async fn a_claimed_job_is_found(s: &Subject) {
    let fresh = job(1, s.now());
    assert!(s.store.by_claim(&fresh.claim).await.unwrap().is_none());
    assert!(s.store.by_id(fresh.id).await.unwrap().is_none());
    assert!(s.store.journal(&fresh.claim).await.unwrap().is_empty());
    assert!(s.store.take_over(&fresh.claim, SHORT).await.unwrap().is_none());

    let (written, _) = win(&*s.store, &fresh, LONG).await;
    assert_eq!(text(&written), text(&fresh));
    let by_claim = s.other.by_claim(&fresh.claim).await.unwrap().unwrap();
    let by_id = s.other.by_id(fresh.id).await.unwrap().unwrap();
    assert_eq!((text(&by_claim), text(&by_id)), (text(&fresh), text(&fresh)));
    let Claim::Taken(taken) = s.other.claim(&job(1, s.now()), LONG).await.unwrap() else {
        panic!("claimed twice")
    };
    assert_eq!(text(&taken), text(&fresh));
    assert!(s.store.journal(&fresh.claim).await.unwrap().is_empty());
}

pub(crate) async fn a_taken_id_is_replaced(s: &Subject) {
    let first = job(1, s.now());
    let second = Job { id: first.id, ..job(2, s.now()) };
    let (first, _) = win(&*s.store, &first, LONG).await;
    let (second, lease) = win(&*s.store, &second, LONG).await;
    assert_ne!(first.id, second.id);
    let claims = async |id: JobId| s.store.by_id(id).await.unwrap().unwrap().claim;
    assert_eq!((claims(first.id).await, claims(second.id).await), (first.claim, second.claim.clone()));
    let next = crate::sample::append(&*s.store, &lease, &Event::Verified, &second).await;
    assert_eq!(text(&s.store.by_id(second.id).await.unwrap().unwrap()), text(&next));
}

pub(crate) async fn a_newer_record_is_refused(s: &Subject) {
    let newer = Job { schema: 4, ..job(1, s.now()) };
    win(&*s.store, &newer, SHORT).await;
    s.pass(SHORT).await;
    let refused = |outcome: Result<(), StoreError>| {
        assert!(
            matches!(&outcome, Err(StoreError::Unreadable(why)) if why.contains("schema 4")),
            "{outcome:?}"
        );
    };
    refused(s.store.by_claim(&newer.claim).await.map(drop));
    refused(s.store.by_id(newer.id).await.map(drop));
    refused(s.store.claim(&job(1, s.now()), LONG).await.map(drop));
    // The gateway that can read it must be able to take it: this one takes no lease it cannot use.
    refused(s.store.take_over(&newer.claim, LONG).await.map(drop));
    refused(s.store.take_over(&newer.claim, LONG).await.map(drop));
    assert_eq!(s.store.due(10).await.unwrap(), [newer.claim]);
}
