//! The table, explored: every state and set of provider payments that any sequence of events can reach,
//! with up to three attempts of two steps.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::jobs::sample;

const ATTEMPTS: u32 = 3;
const STEPS: [&str; 2] = ["a", "b"];
const REFUNDS: usize = 2;
const NOW: UnixMillis = 1_700_000_001_000;

/// The nonce a wallet derives for a step of an attempt.
fn nonce(step: &str, attempt: u32) -> u8 {
    let step = if step == STEPS[0] { 0 } else { 1 };
    u8::try_from(attempt * 2 + step).unwrap()
}

/// Every event that could be tried on a job, the wrong ones too: each step, in this attempt and the ones
/// beside it, already marked spent, and with the nonce of another step.
fn tries(job: &Job) -> Vec<Event> {
    let mut events = Vec::new();
    for step in STEPS {
        for attempt in [job.attempt - 1, job.attempt, job.attempt + 1] {
            events.push(sample::payment(step, attempt, nonce(step, attempt)));
        }
        let mut spent = sample::payment(step, job.attempt, nonce(step, job.attempt));
        spent.fate = Fate::Spent;
        events.push(spent);
        for earlier in &job.provider {
            let mut reused = sample::payment(step, job.attempt, 0);
            reused.nonce = earlier.nonce;
            events.push(reused);
        }
    }
    let mut events: Vec<Event> = events.into_iter().map(|payment| Event::Signed { payment }).collect();
    for steps in [&STEPS[..1], &STEPS[1..], &STEPS] {
        events.push(in_part(sample::shortfall(steps)));
    }
    // Nothing is owed, or all of it.
    for owed in [Amount::ZERO, job.client.requirement.amount] {
        events.push(in_part(Shortfall { owed, ..sample::shortfall(&["a"]) }));
    }
    let open = job.provider.iter().filter(|payment| payment.fate == Fate::Open);
    events.extend(open.map(|payment| Event::ProvedSpent { unspent: vec![payment.nonce] }));
    let others = sample::events(sample::payment(STEPS[0], job.attempt, 99));
    events.extend(others.into_iter().filter(|event| {
        let reopens_too_often = job.attempt == ATTEMPTS && matches!(event, Event::Reopened { .. });
        let refunds_too_often = matches!(event, Event::RefundSigned { .. });
        !matches!(event, Event::Signed { .. }) && !reopens_too_often && !refunds_too_often
    }));
    if job.refunds.len() < REFUNDS {
        let mut refunds = Vec::new();
        for attempt in 0..=3 {
            refunds.push(sample::refund(attempt, 200 + u8::try_from(attempt).unwrap()));
        }
        let next = u32::try_from(job.refunds.len()).unwrap() + 1;
        refunds.push(Refund { fate: Fate::Spent, ..sample::refund(next, 210) });
        let nonces = job.provider.iter().map(|payment| payment.nonce);
        for nonce in nonces.chain(job.refunds.iter().map(|refund| refund.nonce)) {
            refunds.push(Refund { nonce, ..sample::refund(next, 0) });
        }
        events.extend(refunds.into_iter().map(|refund| Event::RefundSigned { refund }));
    }
    events
}

fn in_part(shortfall: Shortfall) -> Event {
    Event::AnsweredInPart { answer: sample::answer(b"{}"), shortfall }
}

/// What tells two explored jobs apart.
type Key = (&'static str, u32, Vec<(String, u32, Fate)>, [bool; 4], Vec<Fate>, Option<Vec<String>>);

fn key(job: &Job) -> Key {
    let mut payments: Vec<_> = job.provider.iter().map(|p| (p.step.clone(), p.attempt, p.fate)).collect();
    payments.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let refunds = job.refunds.iter().map(|refund| refund.fate).collect();
    let is = [job.answer.is_some(), job.receipt.is_some(), job.trusted, job.is_given_once()];
    let missing = job.shortfall.as_ref().map(|shortfall| shortfall.steps.clone());
    (job.state.name(), job.attempt, payments, is, refunds, missing)
}

fn is_final(job: &Job) -> bool {
    match job.state {
        State::ProviderLost => true,
        // What was only passed on may have broken off.
        State::Completed => !job.is_given_once(),
        // What it cost may have to be proven yet.
        State::Refunded | State::Uncollected => !job.signature_open(),
        State::Voided => job.buys_nothing(),
        _ => false,
    }
}

/// What must hold of a job however it got there.
fn check_job(job: &Job) {
    use State::*;
    for (n, payment) in job.provider.iter().enumerate() {
        for later in &job.provider[n + 1..] {
            assert!(
                (&payment.step, payment.attempt) != (&later.step, later.attempt),
                "two signatures for one step and attempt: {job:?}"
            );
            assert_ne!(payment.nonce, later.nonce, "one nonce signed twice: {job:?}");
        }
    }
    let has = |fate| job.provider.iter().any(|payment| payment.fate == fate);
    if matches!(job.state, Voided | Claimed | SettlingUpfront) {
        assert!(!has(Fate::Open), "started again, or given up, with a spendable signature: {job:?}");
        assert!(!has(Fate::Spent), "the money spent on it is forgotten: {job:?}");
    }
    if matches!(job.state, Claimed | SettlingUpfront) {
        assert!(job.provider.is_empty(), "begun again, after a provider may have been paid: {job:?}");
    }
    if matches!(job.state, Held) {
        assert!(has(Fate::Open), "held for nothing: {job:?}");
    }
    if job.trusted {
        assert!(!has(Fate::Open) && !has(Fate::Spent), "trusted with what a provider was paid for: {job:?}");
        assert!(matches!(job.state, Working | Settling | Delivering | Completed | Uncollected), "{job:?}");
    }
    if job.state == ProviderLost || (job.state == Uncollected && !job.trusted) {
        // Of several payments the one for what was not done may be all there was, and turn out not to have been taken.
        assert!(has(Fate::Spent) || job.shortfall.is_some(), "a loss without a payment: {job:?}");
    }
    if job.state == Delivering {
        assert!(job.is_given_once() && job.shortfall.is_none() && job.schema == SCHEMA, "{job:?}");
    }
    if matches!(job.state, Delivering | Completed | ProviderLost) {
        assert!(!has(Fate::Open), "what it cost is not known, and nobody will ask: {job:?}");
    }
    if matches!(job.state, Working | Held) {
        assert!(!has(Fate::Spent), "{job:?}");
    }
    assert_eq!(
        job.receipt.is_some(),
        matches!(job.state, WorkingSettled | Delivering | Completed | RefundDue | Refunded),
        "charged, or not, where it must not be: {job:?}"
    );
    assert_eq!(
        job.answer.is_some(),
        matches!(job.state, Settling | Completed | Uncollected) || job.is_answered(),
        "an answer is kept while it may be owed, and only then: {job:?}"
    );
    assert_eq!(
        job.failure.is_some(),
        matches!(job.state, RefundDue | Refunded | Uncollected | Held | ProviderLost | Voided)
            && !job.is_answered(),
        "{job:?}"
    );
    assert!(
        job.shortfall.is_none() || matches!(job.state, Settling | RefundDue | Refunded | Uncollected),
        "something is owed for work that was done, or was not: {job:?}"
    );
    let owed = job.owed();
    assert!(Amount::ZERO < owed && owed <= job.client.requirement.amount, "{job:?}");
    let refunds = |fate| job.refunds.iter().filter(|refund| refund.fate == fate).count();
    assert_eq!(refunds(Fate::Spent), usize::from(job.state == Refunded), "given back once: {job:?}");
    assert!(refunds(Fate::Open) <= usize::from(job.state == RefundDue), "two could be paid: {job:?}");
    assert!(job.refunds.is_empty() || matches!(job.state, RefundDue | Refunded), "{job:?}");
    for (n, refund) in job.refunds.iter().enumerate() {
        assert_eq!(refund.attempt as usize, n + 1, "{job:?}");
        assert_eq!(refund.transaction.is_some(), refund.fate == Fate::Spent, "{job:?}");
        let earlier = job.refunds[..n].iter().map(|earlier| earlier.nonce);
        let mut earlier = earlier.chain(job.provider.iter().map(|payment| payment.nonce));
        assert!(earlier.all(|nonce| nonce != refund.nonce), "one nonce signed twice: {job:?}");
    }
}

/// What must hold of a step from one job to the next.
fn check_step(from: &Job, event: &Event, to: &Job) {
    use State::*;
    assert!(!is_final(from), "{} took {}", from.state.name(), event.name());
    assert_eq!(to.version, from.version + 1);
    assert!(to.updated >= from.updated);
    if matches!(event, Event::Settled { .. }) {
        assert!(from.receipt.is_none(), "charged twice: {from:?}");
        assert!(from.state != Voided, "charged for nothing: {from:?}");
        assert!(from.state != Held || to.state == RefundDue, "charged for nothing: {from:?}");
    }
    if matches!(event, Event::Answered { .. } | Event::AnsweredInPart { .. }) {
        assert!(!matches!(from.state, Voided), "answered without work: {from:?}");
    }
    if from.state == Completed {
        assert_eq!(to.state, RefundDue, "what is done is undone: {to:?}");
    }
    if from.state == Delivering {
        assert!(matches!(to.state, Completed | RefundDue), "what is done is undone: {to:?}");
    }
    if to.state == Completed && to.is_given_once() {
        assert_eq!(from.state, Delivering, "done, and nobody knows whether its client has it: {to:?}");
    }
    if let Event::AnsweredInPart { shortfall, .. } = event {
        for (before, after) in from.provider.iter().zip(&to.provider) {
            let missing = before.attempt == from.attempt && shortfall.steps.contains(&before.step);
            let vouched = before.fate == Fate::Open && !missing;
            assert_eq!(after.fate, if vouched { Fate::Spent } else { before.fate }, "{to:?}");
        }
    }
    if from.shortfall.is_some() && to.shortfall != from.shortfall {
        assert_eq!(to.state, Voided, "what is owed for a part has changed: {to:?}");
    }
    if from.state == RefundDue {
        assert!(matches!(to.state, RefundDue | Refunded), "what is owed is forgotten: {to:?}");
    }
    if matches!(event, Event::ProvedSpent { .. } | Event::ProvedUnspent) {
        assert!(!to.signature_open(), "proven, and open: {to:?}");
    }
    let kept = from.provider.iter().zip(&to.provider).all(|(a, b)| {
        let resolved = a.fate == Fate::Open || a.fate == b.fate;
        a.nonce == b.nonce && a.step == b.step && a.attempt == b.attempt && resolved
    });
    assert!(kept && to.provider.len() >= from.provider.len(), "a payment was lost or unresolved: {to:?}");
    let kept = from
        .refunds
        .iter()
        .zip(&to.refunds)
        .all(|(a, b)| a.nonce == b.nonce && a.attempt == b.attempt && (a.fate == Fate::Open || a == b));
    assert!(kept && to.refunds.len() >= from.refunds.len(), "a refund was lost or changed: {to:?}");
    assert_eq!((from.id, &from.claim, from.fingerprint), (to.id, &to.claim, to.fingerprint));
}

struct Explored {
    /// One job for each key, and the keys it leads to.
    jobs: HashMap<Key, (Job, Vec<Key>)>,
    /// Every edge between states that was seen.
    edges: BTreeSet<(String, String, String)>,
}

fn explore() -> Explored {
    let mut jobs: HashMap<Key, (Job, Vec<Key>)> = HashMap::new();
    let mut edges = BTreeSet::new();
    let mut queue = VecDeque::from([sample::job(1)]);
    while let Some(job) = queue.pop_front() {
        if jobs.contains_key(&key(&job)) {
            continue;
        }
        check_job(&job);
        let mut next = Vec::new();
        for event in tries(&job) {
            match job.apply(&event, NOW) {
                Ok(to) => {
                    check_step(&job, &event, &to);
                    let names = [job.state.name(), event.name(), to.state.name()].map(str::to_owned);
                    edges.insert(names.into());
                    next.push(key(&to));
                    queue.push_back(to);
                }
                Err(illegal) => assert_eq!(illegal, Illegal { state: job.state, event: event.name() }),
            }
        }
        jobs.insert(key(&job), (job, next));
    }
    Explored { jobs, edges }
}

#[test]
fn every_reachable_job_keeps_the_promises() {
    let explored = explore();
    // The exploration is not smaller than it says: every state is reached in the last attempt too.
    for state in State::ALL {
        let last = explored.jobs.values().any(|(job, _)| job.state == state && job.attempt == ATTEMPTS);
        assert!(last, "{} is never reached", state.name());
    }
    for (job, next) in explored.jobs.values() {
        let bounded = match job.state {
            State::Voided => job.attempt == ATTEMPTS,
            State::RefundDue => {
                job.refunds.len() == REFUNDS && job.open_refund().is_none() && !job.signature_open()
            }
            _ => false,
        };
        assert_eq!(next.is_empty(), is_final(job) || bounded, "{job:?}");
    }
}

#[test]
fn every_job_can_come_to_rest() {
    let explored = explore();
    let mut back: HashMap<Key, Vec<Key>> = HashMap::new();
    for (from, (_, next)) in &explored.jobs {
        for to in next {
            back.entry(to.clone()).or_default().push(from.clone());
        }
    }
    let at_rest = explored.jobs.values().filter(|(job, _)| job.state.at_rest());
    let mut queue: VecDeque<Key> = at_rest.map(|(job, _)| key(job)).collect();
    let mut can_rest = HashSet::new();
    while let Some(at) = queue.pop_front() {
        if can_rest.insert(at.clone()) {
            queue.extend(back.get(&at).cloned().unwrap_or_default());
        }
    }
    for (key, (job, _)) in &explored.jobs {
        assert!(can_rest.contains(key), "stuck: {job:?}");
    }
}

#[test]
fn the_table_in_the_documentation_is_the_code() {
    let rows = include_str!("../transition.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let mut documented = BTreeSet::new();
    for row in rows.filter(|row| !row.starts_with("from ")) {
        let mut cells = row.trim_end_matches(" |").split(" | ").map(str::to_owned);
        let (Some(from), Some(event), Some(to), None) =
            (cells.next(), cells.next(), cells.next(), cells.next())
        else {
            panic!("not a row of three: {row}");
        };
        assert!(documented.insert((from, event, to)), "twice: {row}");
    }
    assert_eq!(documented, explore().edges);
}

#[test]
fn a_signature_is_spendable_until_it_lapses_or_is_resolved() {
    let at = |job: &Job, event: &Event| job.apply(event, NOW).unwrap();
    let working = at(&sample::job(1), &Event::Verified);
    let signed = at(&working, &Event::Signed { payment: sample::payment("a", 1, 1) });
    let lapses = signed.provider[0].valid_before;
    assert!(!working.signature_spendable(0));
    assert!(signed.signature_spendable(lapses - 1));
    assert!(!signed.signature_spendable(lapses));
    assert_eq!(signed.signed_for("a"), Some(&signed.provider[0]));
    assert_eq!(signed.signed_for("b"), None);

    let held = at(&signed, &Event::WorkFailed { failure: sample::failure() });
    assert!(held.signature_spendable(lapses - 1));
    let voided = at(&held, &Event::ProvedUnspent);
    assert!(!voided.signature_spendable(0), "a cancelled signature is dead before it lapses");
}

#[test]
fn who_was_told_to_pay_anew_is_not_charged_for_this_payment() {
    let reopened = Event::Reopened { sold: sample::sold() };
    let failed = |reason: Reason| Failure {
        code: reason.code().to_owned(),
        message: reason.text().to_owned(),
        status: reason.status(),
    };
    for reason in Reason::ALL {
        let voided = sample::job(1).apply(&Event::Rejected { failure: failed(*reason) }, NOW).unwrap();
        let told = reason.retry() == Retry::NewPayment;
        assert_eq!(voided.apply(&reopened, NOW).is_err(), told, "{}", reason.code());
        // At another price than what its client signed.
        let dearer = Sold { price: Amount::new(12_001), ..sample::sold() };
        assert!(voided.apply(&Event::Reopened { sold: dearer }, NOW).is_err());
    }
    // While it was held its client was told so, whatever the work failed by.
    let mut job = sample::job(1);
    for event in [
        Event::Verified,
        Event::Signed { payment: sample::payment("a", 1, 1) },
        Event::WorkFailed { failure: failed(Reason::Interrupted) },
        Event::ProvedUnspent,
    ] {
        job = job.apply(&event, NOW).unwrap();
    }
    assert_eq!(job.state, State::Voided);
    assert!(job.apply(&reopened, NOW).is_err());
}

#[test]
fn a_reopened_job_forgets_the_answer_nobody_paid_for() {
    let mut job = sample::job(1);
    for event in [
        Event::Verified,
        Event::Answered { answer: sample::answer(b"secret") },
        Event::Refused { failure: sample::failure() },
        Event::Reopened { sold: sample::sold() },
    ] {
        job = job.apply(&event, NOW).unwrap();
    }
    assert_eq!((job.state, job.attempt, &job.answer), (State::Claimed, 2, &None));
}

#[test]
fn time_never_runs_backwards_in_a_record() {
    let job = sample::job(1);
    assert_eq!(job.apply(&Event::Verified, 0).unwrap().updated, job.updated);
}

proptest! {
    /// The same promises on long random walks, through more attempts than the exploration allows.
    #[test]
    fn random_walks_keep_the_promises(choices in prop::collection::vec(any::<prop::sample::Index>(), 1..80)) {
        let mut job = sample::job(1);
        for choice in choices {
            let mut tried = tries(&job);
            if job.attempt == ATTEMPTS {
                tried.push(Event::Reopened { sold: sample::sold() });
            }
            let legal: Vec<_> = tried.iter().filter(|event| job.apply(event, NOW).is_ok()).collect();
            if legal.is_empty() {
                prop_assert!(is_final(&job) || job.refunds.len() == REFUNDS);
                break;
            }
            let event = legal[choice.index(legal.len())];
            let next = job.apply(event, NOW).unwrap();
            check_step(&job, event, &next);
            check_job(&next);
            job = next;
        }
    }
}
