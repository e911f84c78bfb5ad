//! Appending: in order, once, by the holder of the lease only.

use galaksio::jobs::{Appended, Event, Job, Kept, Lease, State, Step};

use crate::sample::{answered, append, failed, job, paid_run, signed, text, win};
use crate::subject::{LONG, Subject};

pub(crate) async fn a_job_lives_and_its_journal_tells(s: &Subject) {
    let (mut at, lease) = win(&*s.store, &job(1, s.now()), LONG).await;
    for (n, event) in paid_run(&at).into_iter().enumerate() {
        let now = at.updated + 1 + n as u64;
        let next = at.apply(&event, now).unwrap();
        assert_eq!(s.client(n).append(&lease, &event, &next).await.unwrap(), Appended::Written);
        assert_eq!(text(&s.other.by_claim(&at.claim).await.unwrap().unwrap()), text(&next));
        at = next;
    }
    assert_eq!(at.state, State::Completed);
    assert_eq!(text(&s.store.by_id(at.id).await.unwrap().unwrap()), text(&at));

    let journal = s.other.journal(&at.claim).await.unwrap();
    let names: Vec<_> = journal.iter().map(|entry| entry.event.name()).collect();
    assert_eq!(names, ["verified", "signed", "answered", "settled"]);
    assert!(journal.is_sorted_by(|a, b| a.at < b.at));
    assert_eq!(journal.last().unwrap().at, at.updated);
    let Event::Answered { answer } = &journal[2].event else { panic!("{:?}", journal[2]) };
    assert_eq!((answer.status, &answer.body), (200, &Kept::Not));
    assert!(matches!(&journal[1].event, Event::Signed { payment } if payment.step == "snippet"));
}

pub(crate) async fn a_wrong_version_is_fenced(s: &Subject) {
    let (at, lease) = win(&*s.store, &job(1, s.now()), LONG).await;
    let verified = append(&*s.store, &lease, &Event::Verified, &at).await;
    let signed = signed(&verified);
    let right = verified.apply(&signed, verified.updated).unwrap();
    for version in [0, 1, 3, u64::MAX] {
        let wrong = Job { version, ..right.clone() };
        let outcome = s.store.append(&lease, &signed, &wrong).await.unwrap();
        assert_eq!(outcome, Appended::Fenced, "version {version}");
    }
    let unknown = Lease::new(job(2, s.now()).claim, 1);
    assert_eq!(s.store.append(&unknown, &signed, &right).await.unwrap(), Appended::Fenced);
    assert_eq!(s.store.renew(&unknown, LONG).await.unwrap(), Appended::Fenced);
    s.store.release(&unknown).await.unwrap();
    let (_, another) = win(&*s.store, &job(3, s.now()), LONG).await;
    let same_version = Lease::new(another.claim, lease.epoch);
    assert_eq!(s.store.append(&same_version, &signed, &right).await.unwrap(), Appended::Fenced);
    let first = at.apply(&Event::Verified, at.updated).unwrap();
    assert_eq!(s.store.append(&same_version, &Event::Verified, &first).await.unwrap(), Appended::Fenced);
    for epoch in [0, 2] {
        let other = Lease::new(lease.claim.clone(), epoch);
        assert_eq!(s.store.append(&other, &signed, &right).await.unwrap(), Appended::Fenced);
    }
    // Nothing of it was written, and the right one still is.
    assert_eq!(text(&s.store.by_claim(&at.claim).await.unwrap().unwrap()), text(&verified));
    assert_eq!(s.store.journal(&at.claim).await.unwrap().len(), 1);
    assert_eq!(s.store.append(&lease, &signed, &right).await.unwrap(), Appended::Written);
}

pub(crate) async fn a_repeated_append_is_written_once(s: &Subject) {
    let (mut at, lease) = win(&*s.store, &job(1, s.now()), LONG).await;
    for event in paid_run(&at) {
        let next = at.apply(&event, at.updated).unwrap();
        for _ in 0..3 {
            assert_eq!(s.store.append(&lease, &event, &next).await.unwrap(), Appended::Written);
        }
        at = next;
    }
    assert_eq!(s.store.journal(&at.claim).await.unwrap().len(), 4);
    assert_eq!(s.store.due(10).await.unwrap(), []);
}

pub(crate) async fn several_steps_are_written_at_once_or_not_at_all(s: &Subject) {
    let (at, lease) = win(&*s.store, &job(1, s.now()), LONG).await;
    let mut jobs = vec![at.clone()];
    let events = paid_run(&at);
    for (n, event) in events.iter().enumerate() {
        let last = jobs.last().unwrap();
        jobs.push(last.apply(event, at.updated + 1 + n as u64).unwrap());
    }
    let step = |n: usize| Step { event: &events[n], at: jobs[n + 1].updated };
    let signed = [step(0), step(1)];
    assert_eq!(s.store.append_all(&lease, &[], &jobs[0]).await.unwrap(), Appended::Fenced);
    // As many steps as versions: with one too few, or too many, they were made from something else.
    for (steps, job) in [(&signed[..1], &jobs[2]), (&signed[..], &jobs[1]), (&signed[..], &jobs[3])] {
        assert_eq!(s.store.append_all(&lease, steps, job).await.unwrap(), Appended::Fenced);
    }
    let stolen = Lease::new(lease.claim.clone(), 2);
    assert_eq!(s.store.append_all(&stolen, &signed, &jobs[2]).await.unwrap(), Appended::Fenced);
    assert_eq!(text(&s.store.by_claim(&at.claim).await.unwrap().unwrap()), text(&at));
    assert!(s.store.journal(&at.claim).await.unwrap().is_empty(), "half of it was written");

    for (steps, job) in [(signed, &jobs[2]), ([step(2), step(3)], &jobs[4])] {
        // A repeat of the same is written once.
        for n in 0..3 {
            assert_eq!(s.client(n).append_all(&lease, &steps, job).await.unwrap(), Appended::Written);
        }
        assert_eq!(text(&s.other.by_claim(&at.claim).await.unwrap().unwrap()), text(job));
    }
    let journal = s.other.journal(&at.claim).await.unwrap();
    let found: Vec<_> = journal.iter().map(|entry| (entry.event.name(), entry.at - at.updated)).collect();
    assert_eq!(found, [("verified", 1), ("signed", 2), ("answered", 3), ("settled", 4)]);
    let Event::Answered { answer } = &journal[2].event else { panic!("{:?}", journal[2]) };
    assert_eq!(answer.body, Kept::Not);
    assert!(s.store.due(10).await.unwrap().is_empty(), "it came to rest");
}

/// The first half was written by itself, by whoever took the job over: the whole must not be, on top of it.
pub(crate) async fn steps_that_were_written_in_part_are_fenced(s: &Subject) {
    let (at, lease) = win(&*s.store, &job(1, s.now()), LONG).await;
    let verified = append(&*s.store, &lease, &Event::Verified, &at).await;
    let signing = signed(&verified);
    let both = verified.apply(&signing, verified.updated).unwrap();
    let steps = [Step { event: &Event::Verified, at: at.updated }, Step { event: &signing, at: at.updated }];
    assert_eq!(s.store.append_all(&lease, &steps, &both).await.unwrap(), Appended::Fenced);
    assert_eq!(s.store.journal(&at.claim).await.unwrap().len(), 1);
    append(&*s.store, &lease, &signing, &verified).await;
}

pub(crate) async fn one_of_two_appends_wins(s: &Subject) {
    // Two tasks with the same lease: the version is what tells them apart.
    for round in 0..16 {
        let (at, lease) = win(&*s.store, &job(round, s.now()), LONG).await;
        let at = append(&*s.store, &lease, &Event::Verified, &at).await;
        let events = [failed(), answered(b"{}")];
        let next = events.each_ref().map(|event| at.apply(event, at.updated).unwrap());
        let (a, b) = tokio::join!(
            s.store.append(&lease, &events[0], &next[0]),
            s.other.append(&lease, &events[1], &next[1]),
        );
        let written = match (a.unwrap(), b.unwrap()) {
            (Appended::Written, Appended::Fenced) => 0,
            (Appended::Fenced, Appended::Written) => 1,
            both => panic!("{both:?}"),
        };
        let stored = s.store.by_claim(&at.claim).await.unwrap().unwrap();
        assert_eq!(text(&stored), text(&next[written]));
        let journal = s.store.journal(&at.claim).await.unwrap();
        assert_eq!(journal.last().unwrap().event.name(), events[written].name());
        assert_eq!(journal.len(), 2);
    }
}

pub(crate) async fn nothing_follows_rest_without_a_new_lease(s: &Subject) {
    let (at, lease) = win(&*s.store, &job(1, s.now()), LONG).await;
    let voided = append(&*s.store, &lease, &failed(), &at).await;
    let reopened = voided.apply(&crate::sample::reopened(), voided.updated).unwrap();
    let outcome = s.store.append(&lease, &crate::sample::reopened(), &reopened).await.unwrap();
    assert_eq!(outcome, Appended::Fenced, "the lease ended with the job");
    assert_eq!(s.store.renew(&lease, LONG).await.unwrap(), Appended::Fenced);
    assert_eq!(text(&s.store.by_claim(&at.claim).await.unwrap().unwrap()), text(&voided));
}

pub(crate) async fn a_large_answer_comes_back(s: &Subject) {
    let body: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    let (at, lease) = win(&*s.store, &job(1, s.now()), LONG).await;
    let at = append(&*s.store, &lease, &Event::Verified, &at).await;
    let at = append(&*s.store, &lease, &answered(&body), &at).await;
    let stored = s.other.by_id(at.id).await.unwrap().unwrap();
    assert_eq!(stored.answer.unwrap().body, Kept::Whole(body));
}
