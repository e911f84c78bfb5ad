//! Books over random lives, and over records that somebody has tampered with.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::Clock;
use crate::jobs::sample::{self, payment};
use crate::jobs::{Claim, Embedded, Event, JobStore, ValueStore};
use crate::providers::Offer;
use crate::x402::Address;

const NOW: u64 = 1_700_000_000_000;

/// A life: the events that were possible, of those that were picked.
fn live(number: u64, picks: &[(usize, u8)]) -> (Job, Vec<Entry>) {
    let mut job = sample::job(number);
    let mut journal = Vec::new();
    for (pick, step) in picks {
        let nonce = u8::try_from(journal.len()).unwrap();
        let mut signed = payment(&step.to_string(), job.attempt, 0);
        signed.nonce = B256::from_slice(&[&[number as u8, nonce], &[7; 30][..]].concat());
        signed.amount = Amount::new(1_000 + u128::from(*step));
        let mut events = sample::events(signed);
        for event in &mut events {
            if let Event::AnsweredInPart { shortfall, .. } = event {
                shortfall.steps = vec![step.to_string()];
            }
            if let Event::RefundSigned { refund } = event {
                refund.attempt = job.next_refund().unwrap_or(9);
                refund.nonce = B256::from_slice(&[&[number as u8, nonce], &[8; 30][..]].concat());
            }
        }
        let event = &events[pick % events.len()];
        // Also as earlier builds lived them.
        if let Ok(next) = job.replay(event, job.updated) {
            job = next;
            journal.push(Entry { at: job.updated, event: event.clone() });
        }
    }
    (job, journal)
}

/// The balances of the one token, by account.
fn balances(books: &Books) -> BTreeMap<Account, i128> {
    books.accounts.iter().map(|((_, account), sides)| (*account, sides.balance().unwrap())).collect()
}

fn books(lives: &[(Job, Vec<Entry>)]) -> Books {
    let mut books = Books::default();
    for (job, journal) in lives {
        books.post(job, journal);
    }
    books
}

/// A life by the names of its events.
fn told(number: u64, names: &[&str]) -> (Job, Vec<Entry>) {
    let events = sample::events(payment("execute", 1, 1));
    let picks: Vec<_> = names
        .iter()
        .map(|name| (events.iter().position(|event| event.name() == *name).unwrap(), 1))
        .collect();
    let life = live(number, &picks);
    assert_eq!(life.1.len(), names.len(), "{names:?} is no life");
    life
}

/// Two files, paid for; the second is not there, and nobody knows whether its payment was taken.
#[test]
fn what_is_owed_for_a_part_is_owed_and_the_rest_is_earned() {
    let event = |name: &str| {
        sample::events(payment("", 1, 1)).into_iter().find(|event| event.name() == name).unwrap()
    };
    let nonce = B256::repeat_byte(2);
    let mut events = vec![
        event("verified"),
        Event::Signed { payment: payment("pin/1", 1, 1) },
        Event::Signed { payment: payment("pin/2", 1, 2) },
        Event::AnsweredInPart { answer: sample::answer(b"{}"), shortfall: sample::shortfall(&["pin/2"]) },
        event("settled"),
    ];
    let mut books_after = |event: Option<Event>| {
        events.extend(event);
        let (mut job, mut journal) = (sample::job(1), Vec::new());
        for event in &events {
            job = job.apply(event, job.updated).unwrap();
            journal.push(Entry { at: job.updated, event: event.clone() });
        }
        let books = books(&[(job, journal)]);
        assert_eq!(books.check(), []);
        balances(&books).into_iter().filter(|(_, sum)| *sum != 0).collect::<Vec<_>>()
    };
    use Account::*;
    let due = |wallet, more: &[(Account, i128)]| {
        let mut due = vec![(Received, 12_000), (Wallet, wallet), (ProviderCost, 10_000), (Income, -8_000)];
        due.extend(more);
        due.sort();
        due
    };
    // Until it is known it is a loss, and if it was not taken it is none.
    assert_eq!(books_after(None), due(-20_000, &[(Losses, 10_000), (RefundsDue, -4_000)]));
    assert_eq!(books_after(Some(Event::ProvedUnspent)), due(-10_000, &[(RefundsDue, -4_000)]));
    let refund = sample::refund(1, 0xf1);
    let signed = books_after(Some(Event::RefundSigned { refund }));
    assert_eq!(signed, due(-14_000, &[(Exposure, 4_000), (RefundsDue, -4_000)]));
    assert_eq!(books_after(Some(Event::Refunded { transaction: nonce })), due(-14_000, &[]));
}

proptest! {
    #[test]
    fn books_of_any_lives_balance(
        lives in prop::collection::vec(prop::collection::vec((0usize..64, 0u8..4), 0..40), 0..12),
    ) {
        let lives: Vec<_> = lives.iter().enumerate().map(|(n, picks)| live(n as u64, picks)).collect();
        let books = books(&lives);
        prop_assert_eq!(books.check(), []);
        let sum: i128 = balances(&books).values().sum();
        prop_assert_eq!(sum, 0);
        // Nothing is owed or spent that no job says.
        let signed: u128 = lives
            .iter()
            .flat_map(|(job, _)| &job.provider)
            .filter(|payment| payment.fate != Fate::Unspent)
            .map(|payment| payment.amount.units())
            .sum();
        let refunded = |job: &Job| {
            let refunds = job.refunds.iter().filter(|refund| refund.fate != Fate::Unspent);
            refunds.count() as u128 * job.owed().units()
        };
        let signed = signed + lives.iter().map(|(job, _)| refunded(job)).sum::<u128>();
        prop_assert_eq!(-balances(&books).get(&Account::Wallet).copied().unwrap_or(0), signed as i128);
    }

    #[test]
    fn a_record_that_was_changed_is_found(
        picks in prop::collection::vec((0usize..64, 0u8..4), 12..60), what in 0usize..5,
    ) {
        let (mut job, mut journal) = live(1, &picks);
        match what {
            0 => prop_assume!(journal.pop().is_some()),
            1 => {
                prop_assume!(!job.provider.is_empty());
                job.provider[0].amount = Amount::new(1);
            }
            2 => {
                prop_assume!(!job.provider.is_empty());
                job.provider.pop();
            }
            3 => {
                prop_assume!(job.receipt.is_some());
                job.receipt = None;
            }
            _ => {
                prop_assume!(job.state != State::Completed);
                job.state = State::Completed;
            }
        }
        prop_assert!(!books(&[(job, journal)]).check().is_empty());
    }
}

#[test]
fn each_end_of_a_job_is_in_its_account() {
    for (names, expected) in [
        (
            &["verified", "signed", "answered", "settled"][..],
            [
                (Account::Received, 12_000),
                (Account::Income, -12_000),
                (Account::ProviderCost, 1_001),
                (Account::Wallet, -1_001),
            ],
        ),
        (
            &["settle_first", "settled", "signed", "work_failed"],
            [
                (Account::Received, 12_000),
                (Account::RefundsDue, -12_000),
                (Account::Losses, 1_001),
                (Account::Wallet, -1_001),
            ],
        ),
        (
            &["settle_first", "settled", "work_failed", "refund_signed"],
            [
                (Account::Received, 12_000),
                (Account::RefundsDue, -12_000),
                (Account::Exposure, 12_000),
                (Account::Wallet, -12_000),
            ],
        ),
        (
            &["settle_first", "settled", "work_failed", "refund_signed", "refund_lapsed"],
            [
                (Account::Received, 12_000),
                (Account::RefundsDue, -12_000),
                (Account::Exposure, 0),
                (Account::Wallet, 0),
            ],
        ),
        (
            &["settle_first", "settled", "signed", "work_failed", "refund_signed", "refunded"],
            [
                (Account::Received, 12_000),
                (Account::RefundsDue, 0),
                (Account::Losses, 1_001),
                (Account::Wallet, -13_001),
            ],
        ),
        (
            &["settle_first", "settled", "signed", "work_failed", "proved_spent"],
            [
                (Account::Received, 12_000),
                (Account::RefundsDue, -12_000),
                (Account::Losses, 1_001),
                (Account::Wallet, -1_001),
            ],
        ),
        (
            &["settle_first", "settled", "signed", "work_failed", "proved_unspent"],
            [
                (Account::Received, 12_000),
                (Account::RefundsDue, -12_000),
                (Account::Losses, 0),
                (Account::Wallet, 0),
            ],
        ),
        (
            &["settle_first", "settled", "signed"],
            [
                (Account::Received, 12_000),
                (Account::Unearned, -12_000),
                (Account::Exposure, 1_001),
                (Account::Wallet, -1_001),
            ],
        ),
        (
            &["verified", "signed", "answered", "refused"],
            [
                (Account::Losses, 1_001),
                (Account::Wallet, -1_001),
                (Account::Income, 0),
                (Account::ProviderCost, 0),
            ],
        ),
        (
            &["verified", "signed", "work_failed"],
            [
                (Account::Exposure, 1_001),
                (Account::Wallet, -1_001),
                (Account::Losses, 0),
                (Account::Received, 0),
            ],
        ),
        (
            &["verified", "signed", "work_failed", "proved_spent"],
            [
                (Account::Losses, 1_001),
                (Account::Wallet, -1_001),
                (Account::Exposure, 0),
                (Account::Received, 0),
            ],
        ),
        (
            &["verified", "signed", "work_failed", "proved_unspent"],
            [(Account::Losses, 0), (Account::Wallet, 0), (Account::Exposure, 0), (Account::Received, 0)],
        ),
    ] {
        let books = books(&[told(1, names)]);
        let found = balances(&books);
        for (account, balance) in expected {
            assert_eq!(found.get(&account).copied().unwrap_or(0), balance, "{names:?}: {}", account.name());
        }
        assert_eq!(books.check(), []);
    }
}

#[test]
fn a_nonce_that_was_signed_twice_is_found() {
    let life = ["verified", "signed"];
    let (first, mut second) = (told(1, &life), told(2, &life));
    let nonce = first.0.provider[0].nonce;
    second.0.provider[0].nonce = nonce;
    let Event::Signed { payment } = &mut second.1[1].event else { panic!() };
    payment.nonce = nonce;
    let found = books(&[first.clone(), second.clone()]).check();
    assert_eq!(found, [Discrepancy::Nonce { job: second.0.id, other: first.0.id }]);
}

#[test]
fn stock_is_worth_what_it_cost_until_it_is_lost() {
    let asset = sample::payment("a", 1, 1).asset;
    let mut books = Books::default();
    for (outcome, cost) in [(StockOutcome::Bought, 5), (StockOutcome::Lost, 7), (StockOutcome::Open, 11)] {
        let offer = Offer { cost: Amount::new(cost), asset: asset.clone(), pay_to: Address::ZERO };
        books.stock(&StockPurchase { offer, outcome });
    }
    let found = balances(&books);
    let of = |account| found[&account];
    assert_eq!(
        [Account::Inventory, Account::Losses, Account::Exposure, Account::Wallet].map(of),
        [5, 7, 11, -23]
    );
    assert_eq!(books.check(), []);
    let report = Report::new(&books, Some(&[])).to_string();
    assert!(report.contains("inventory              0.000005  stock bought ahead"), "{report}");
    assert!(report.contains("wallet                -0.000023"), "{report}");
    assert!(report.contains("the books balance"), "{report}");
}

#[test]
fn sums_that_cannot_be_counted_are_said_to_be() {
    let (mut job, mut journal) = told(1, &["verified", "signed"]);
    job.provider[0].amount = Amount::new(u128::MAX);
    let Event::Signed { payment } = &mut journal[1].event else { panic!() };
    payment.amount = Amount::new(u128::MAX);
    let found = books(&[(job.clone(), journal)]).check();
    assert!(found.contains(&Discrepancy::Overflow { job: job.id }), "{found:?}");
}

#[tokio::test]
async fn the_books_of_a_store_are_those_of_its_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, keep) = (Clock::manual(NOW), Duration::from_secs(3600));
    let store = Arc::new(Embedded::open(&folder.path().join("jobs.redb"), keep, clock).unwrap());
    for number in 0..40 {
        let mut job = sample::job(number);
        (job.created, job.updated) = (NOW, NOW);
        let Claim::Won(mut job, lease) = store.claim(&job, keep).await.unwrap() else { panic!("taken") };
        let mut signed = payment("execute", 1, u8::try_from(number).unwrap());
        signed.amount = Amount::new(10_000);
        let life = [
            Event::Verified,
            Event::Signed { payment: signed },
            Event::Answered { answer: sample::answer(b"{}") },
            Event::Settled { receipt: sample::receipt() },
        ];
        for event in life.iter().take(usize::try_from(number % 5).unwrap()) {
            let next = job.apply(event, NOW).unwrap();
            store.append(&lease, event, &next).await.unwrap();
            job = next;
        }
    }
    let books = collect(&*store, None).await.unwrap();
    assert_eq!((books.jobs, books.events), (40, 80));
    assert_eq!(books.check(), []);
    let found = balances(&books);
    assert_eq!(found[&Account::Income], -8 * 12_000);
    assert_eq!(found[&Account::ProviderCost], 16 * 10_000);
    assert_eq!(found[&Account::Exposure], 8 * 10_000);

    store.put("xcache.purchases", "1", b"half", None).await.unwrap();
    assert!(matches!(collect(&*store, None).await, Err(CollectError::Stock(_))));
}
