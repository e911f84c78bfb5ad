//! What is forgotten, what never is, and the counts.

use std::time::Duration;

use galaksio::ids::JobId;
use galaksio::jobs::{Claim, Event, Job, State};

use crate::sample::{answered, append, failed, job, paid_run, settled, signed, win};
use crate::subject::{LONG, RETENTION, Subject};

/// A record is kept this much longer than its payment and its retention.
const MARGIN: Duration = Duration::from_secs(600);

/// A job last changed so long ago that it expires [`Subject::brief`] from now, if it expires.
fn aged(number: u64, s: &Subject) -> Job {
    let age = u64::try_from((RETENTION + MARGIN - s.brief()).as_millis()).unwrap();
    job(number, s.now() - age)
}

pub(crate) async fn finished_jobs_are_forgotten_in_time(s: &Subject) {
    let (mut paid, lease) = win(&*s.store, &aged(1, s), LONG).await;
    for event in paid_run(&paid) {
        paid = append(&*s.store, &lease, &event, &paid).await;
    }
    let (voided, lease) = win(&*s.store, &aged(2, s), LONG).await;
    let voided = append(&*s.store, &lease, &failed(), &voided).await;
    for job in [&paid, &voided] {
        assert!(s.store.by_claim(&job.claim).await.unwrap().is_some(), "forgotten too early");
    }
    s.pass(s.brief()).await;
    for job in [&paid, &voided] {
        assert!(s.store.by_claim(&job.claim).await.unwrap().is_none());
        assert!(s.store.by_id(job.id).await.unwrap().is_none());
        assert!(s.store.take_over(&job.claim, LONG).await.unwrap().is_none());
        assert!(s.store.in_state(job.state, 10).await.unwrap().is_empty());
    }
    let Claim::Won(..) = s.store.claim(&job(1, s.now()), LONG).await.unwrap() else {
        panic!("the claim is not free")
    };
    assert!(s.store.journal(&paid.claim).await.unwrap().is_empty(), "the new job has the old one's journal");
}

pub(crate) async fn money_outstanding_is_never_forgotten(s: &Subject) {
    let lives: [&[Event]; 3] = [&[Event::SettleFirst, settled(), failed()], &[Event::Verified], &[]];
    let mut claims = Vec::new();
    for (n, life) in lives.into_iter().enumerate() {
        let (mut at, lease) = win(&*s.store, &aged(n as u64, s), LONG).await;
        for event in life {
            at = append(&*s.store, &lease, event, &at).await;
        }
        claims.push(at.claim);
    }
    s.pass(s.brief()).await;
    for claim in &claims {
        assert!(s.store.by_claim(claim).await.unwrap().is_some());
    }
    assert_eq!(s.store.in_state(State::RefundDue, 10).await.unwrap().len(), 1);
}

pub(crate) async fn a_reopened_job_does_not_expire(s: &Subject) {
    let (at, lease) = win(&*s.store, &aged(1, s), LONG).await;
    append(&*s.store, &lease, &failed(), &at).await;
    let (voided, lease) = s.store.take_over(&at.claim, LONG).await.unwrap().unwrap();
    append(&*s.store, &lease, &crate::sample::reopened(), &voided).await;
    s.pass(s.brief()).await;
    assert_eq!(s.store.by_id(at.id).await.unwrap().unwrap().attempt, 2);
    assert_eq!(s.store.journal(&at.claim).await.unwrap().len(), 2);
}

pub(crate) async fn a_job_at_rest_is_forgotten_when_told(s: &Subject) {
    let (at, lease) = win(&*s.store, &job(1, s.now()), LONG).await;
    assert!(!s.store.forget(&at).await.unwrap(), "somebody works on it");
    let mut paid = at;
    for event in paid_run(&paid) {
        paid = append(&*s.store, &lease, &event, &paid).await;
    }
    let earlier = Job { version: paid.version - 1, ..paid.clone() };
    assert!(!s.store.forget(&earlier).await.unwrap(), "it has moved on");
    // Somebody may have taken it over to write more.
    let (_, lease) = s.other.take_over(&paid.claim, LONG).await.unwrap().unwrap();
    assert!(!s.store.forget(&paid).await.unwrap());
    s.other.release(&lease).await.unwrap();
    // Or he may have died before he could.
    assert!(s.other.take_over(&paid.claim, s.brief()).await.unwrap().is_some());
    assert!(!s.store.forget(&paid).await.unwrap());
    s.pass(s.brief()).await;
    assert!(s.store.forget(&paid).await.unwrap());
    assert!(!s.store.forget(&paid).await.unwrap(), "it is gone");
    assert!(s.other.by_claim(&paid.claim).await.unwrap().is_none());
    assert!(s.other.by_id(paid.id).await.unwrap().is_none());
    assert!(s.other.in_state(paid.state, 10).await.unwrap().is_empty());
    assert!(s.other.count_by_state().await.unwrap().iter().all(|(_, count)| *count == 0));
    let Claim::Won(..) = s.other.claim(&job(1, s.now()), LONG).await.unwrap() else { panic!("not free") };
    assert!(s.other.journal(&paid.claim).await.unwrap().is_empty(), "the new job has the old one's journal");
}

pub(crate) async fn jobs_are_listed_and_counted_by_state(s: &Subject) {
    let mut working = Vec::new();
    for n in 0..4 {
        let (at, lease) = win(&*s.store, &job(n, s.now()), LONG).await;
        if n > 0 {
            append(&*s.store, &lease, &Event::Verified, &at).await;
            working.push(at.id);
        }
    }
    let mut listed = s.other.in_state(State::Working, 10).await.unwrap();
    listed.sort();
    working.sort();
    assert_eq!(listed, working);
    assert_eq!(s.other.in_state(State::Working, 2).await.unwrap().len(), 2);
    assert_eq!(s.other.in_state(State::Held, 10).await.unwrap(), []);

    let counts = s.other.count_by_state().await.unwrap();
    assert_eq!(counts.iter().map(|(state, _)| *state).collect::<Vec<_>>(), State::ALL);
    for (state, count) in counts {
        let expected = match state {
            State::Claimed => 1,
            State::Working => 3,
            _ => 0,
        };
        assert_eq!(count, expected, "{}", state.name());
    }
}

/// Everything a scan finds, `about` at a time; `between` happens after each part.
async fn scan(s: &Subject, about: usize, mut between: impl AsyncFnMut()) -> Vec<JobId> {
    let (mut found, mut after) = (Vec::new(), None);
    for _ in 0..200 {
        let (part, mark) = s.other.scan(after.as_deref(), about).await.unwrap();
        found.extend(part);
        between().await;
        match mark {
            Some(mark) => after = Some(mark),
            None => {
                found.sort();
                found.dedup();
                return found;
            }
        }
    }
    panic!("a scan without an end");
}

pub(crate) async fn a_scan_finds_every_job(s: &Subject) {
    assert_eq!(scan(s, 10, async || {}).await, []);
    let mut jobs = Vec::new();
    for n in 0..25 {
        let (at, lease) = win(&*s.store, &job(n, s.now()), LONG).await;
        let life: &[Event] = match n % 5 {
            0 => &[],
            1 => &[Event::Verified],
            2 => &[failed()],
            3 => &[Event::SettleFirst, settled(), failed()],
            _ => &paid_run(&at),
        };
        let mut now = at;
        for event in life {
            now = append(&*s.store, &lease, event, &now).await;
        }
        jobs.push(now.id);
    }
    jobs.sort();
    for about in [1, 7, 25, 1_000] {
        assert_eq!(scan(s, about, async || {}).await, jobs, "{about} at a time");
    }
    assert!(s.store.scan(Some("no such mark"), 10).await.is_err());
}

pub(crate) async fn a_scan_misses_no_job_that_moves_on(s: &Subject) {
    let mut held = Vec::new();
    for n in 0..12 {
        held.push(win(&*s.store, &job(n, s.now()), LONG).await);
    }
    let mut all: Vec<JobId> = held.iter().map(|(at, _)| at.id).collect();
    all.sort();
    // After each part, one job goes a step further on its way.
    let mut step = 0;
    let found = scan(s, 2, async || {
        let (at, lease) = &mut held[step % 12];
        step += 1;
        let life = paid_run(at);
        if let Some(event) = life.get(usize::try_from(at.version).unwrap()) {
            *at = append(&*s.store, lease, event, at).await;
        }
    });
    assert_eq!(found.await, all);
}

pub(crate) async fn a_scan_misses_no_job_that_is_held_no_more(s: &Subject) {
    let mut held = Vec::new();
    for n in 0..12 {
        let (mut at, lease) = win(&*s.store, &job(n, s.now()), LONG).await;
        for event in [Event::Verified, signed(&at), failed()] {
            at = append(&*s.store, &lease, &event, &at).await;
        }
        assert_eq!(at.state, State::Held);
        held.push(at);
    }
    let mut all: Vec<JobId> = held.iter().map(|at| at.id).collect();
    all.sort();
    // After each part, what became of one job turns out.
    let mut left = held.iter();
    let found = scan(s, 2, async || {
        if let Some(at) = left.next() {
            let (mut at, lease) = s.store.take_over(&at.claim, LONG).await.unwrap().unwrap();
            for event in [answered(b"{}"), settled()] {
                at = append(&*s.store, &lease, &event, &at).await;
            }
        }
    });
    assert_eq!(found.await, all);
}
