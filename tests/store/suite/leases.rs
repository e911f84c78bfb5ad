//! Leases: who may write, until when, and what happens after.

use galaksio::jobs::{Appended, Event, Lease, State};

use crate::sample::{append, failed, job, signed, text, win};
use crate::subject::{LONG, SHORT, Subject};

pub(crate) async fn a_held_job_is_not_taken_over(s: &Subject) {
    let (at, lease) = win(&*s.store, &job(1, s.now()), LONG).await;
    assert!(s.other.take_over(&at.claim, LONG).await.unwrap().is_none());
    assert_eq!(s.other.due(10).await.unwrap(), []);
    append(&*s.store, &lease, &Event::Verified, &at).await;
    assert!(s.other.take_over(&at.claim, LONG).await.unwrap().is_none());
    assert_eq!(s.other.due(10).await.unwrap(), []);
}

pub(crate) async fn an_ended_lease_can_be_taken_over_once(s: &Subject) {
    let (at, _) = win(&*s.store, &job(1, s.now()), SHORT).await;
    s.pass(SHORT).await;
    assert_eq!(s.other.due(10).await.unwrap(), std::slice::from_ref(&at.claim));
    let takers = (0..16).map(|n| {
        let (store, claim) = (s.client(n), at.claim.clone());
        tokio::spawn(async move { store.take_over(&claim, LONG).await.unwrap() })
    });
    let mut taken = Vec::new();
    for taker in takers.collect::<Vec<_>>() {
        taken.extend(taker.await.unwrap());
    }
    let [(job, lease)] = taken.as_slice() else { panic!("taken over {} times", taken.len()) };
    assert_eq!((text(job), lease.epoch), (text(&at), 2));
    assert_eq!(s.store.due(10).await.unwrap(), []);
}

pub(crate) async fn a_zombie_is_fenced(s: &Subject) {
    let (at, zombie) = win(&*s.store, &job(1, s.now()), SHORT).await;
    let at = append(&*s.store, &zombie, &Event::Verified, &at).await;
    s.pass(SHORT).await;
    let (taken, heir) = s.other.take_over(&at.claim, LONG).await.unwrap().unwrap();
    assert_eq!(text(&taken), text(&at));

    let event = signed(&at);
    let next = at.apply(&event, at.updated).unwrap();
    assert_eq!(s.store.append(&zombie, &event, &next).await.unwrap(), Appended::Fenced);
    assert_eq!(s.store.renew(&zombie, LONG).await.unwrap(), Appended::Fenced);
    s.store.release(&zombie).await.unwrap();
    assert!(s.store.take_over(&at.claim, LONG).await.unwrap().is_none(), "the heir's lease was released");

    // Even the very event that the heir wrote is not the zombie's: it must stop, not go on.
    let next = append(&*s.other, &heir, &event, &at).await;
    assert_eq!(s.store.append(&zombie, &event, &next).await.unwrap(), Appended::Fenced);
    assert_eq!(s.store.journal(&at.claim).await.unwrap().len(), 2);
}

pub(crate) async fn a_late_holder_goes_on_if_nobody_took_over(s: &Subject) {
    let (at, lease) = win(&*s.store, &job(1, s.now()), SHORT).await;
    s.pass(SHORT).await;
    let at = append(&*s.store, &lease, &Event::Verified, &at).await;
    assert_eq!(
        s.store.due(10).await.unwrap(),
        std::slice::from_ref(&at.claim),
        "an append does not prolong the lease"
    );
    assert_eq!(s.store.renew(&lease, LONG).await.unwrap(), Appended::Written);
    assert_eq!(s.store.due(10).await.unwrap(), []);
    assert!(s.store.take_over(&at.claim, LONG).await.unwrap().is_none());
}

pub(crate) async fn a_renewed_lease_lasts(s: &Subject) {
    let (at, lease) = win(&*s.store, &job(1, s.now()), SHORT).await;
    assert_eq!(s.other.renew(&lease, LONG).await.unwrap(), Appended::Written);
    s.pass(SHORT).await;
    assert!(s.other.take_over(&at.claim, LONG).await.unwrap().is_none());
    assert_eq!(s.other.due(10).await.unwrap(), []);
}

pub(crate) async fn a_released_lease_writes_nothing(s: &Subject) {
    let (at, lease) = win(&*s.store, &job(1, s.now()), LONG).await;
    s.store.release(&lease).await.unwrap();
    assert_eq!(s.store.due(10).await.unwrap(), std::slice::from_ref(&at.claim));
    let next = at.apply(&Event::Verified, at.updated).unwrap();
    assert_eq!(s.store.append(&lease, &Event::Verified, &next).await.unwrap(), Appended::Fenced);
    assert_eq!(s.store.renew(&lease, LONG).await.unwrap(), Appended::Fenced);
    s.store.release(&lease).await.unwrap();
    let (_, heir) = s.other.take_over(&at.claim, LONG).await.unwrap().unwrap();
    assert_eq!(heir, Lease::new(at.claim.clone(), 2));
    append(&*s.other, &heir, &Event::Verified, &at).await;
}

pub(crate) async fn due_jobs_are_listed_oldest_first(s: &Subject) {
    let mut claims = Vec::new();
    for n in 0..5 {
        // The last one claimed is the first to be due.
        let (at, _) = win(&*s.store, &job(n, s.now()), s.brief() / 2 * (5 - n as u32)).await;
        claims.insert(0, at.claim);
    }
    win(&*s.store, &job(9, s.now()), LONG).await;
    s.pass(s.brief() / 2 * 5).await;
    assert_eq!(s.other.due(10).await.unwrap(), claims);
    assert_eq!(s.other.due(2).await.unwrap(), claims[..2]);
    assert_eq!(s.other.due(0).await.unwrap(), []);
}

pub(crate) async fn a_voided_job_starts_again(s: &Subject) {
    let (at, lease) = win(&*s.store, &job(1, s.now()), SHORT).await;
    let voided = append(&*s.store, &lease, &failed(), &at).await;
    s.pass(SHORT).await;
    assert_eq!(s.store.due(10).await.unwrap(), [], "a job at rest is not due");

    // At rest, it can be had at once; while somebody has it, nobody else can.
    let (again, lease) = s.other.take_over(&at.claim, s.brief()).await.unwrap().unwrap();
    assert_eq!((text(&again), lease.epoch), (text(&voided), 2));
    assert!(s.store.take_over(&at.claim, SHORT).await.unwrap().is_none());
    s.pass(s.brief()).await;
    assert_eq!(s.store.due(10).await.unwrap(), [], "taken over, not yet started again");

    let reopened = append(&*s.other, &lease, &crate::sample::reopened(), &again).await;
    assert_eq!((reopened.state, reopened.attempt), (State::Claimed, 2));
    assert_eq!(s.store.due(10).await.unwrap(), [at.claim], "its lease has ended, and it is not at rest");
}
