//! When all is quiet: every atomic unit that moved, against what the journals say of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use galaksio::jobs::job::Fate;
use galaksio::jobs::{Job, JobKind, JobStore, Kept, State};
use galaksio::ledger::{self, Account};
use galaksio::providers::{StockOutcome, stock_purchases};
use galaksio::sandbox::ledger::{OPENING_BALANCE, Transfer};
use galaksio::sandbox::{Service, pay_to};
use galaksio::x402::{Address, B256};

use super::client::{Order, REPORT};
use super::settings::PAY_TO;
use super::shopper::Outcome;
use super::site::{Site, settled};

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Jobs by the state they ended in.
    pub(crate) ended: BTreeMap<&'static str, usize>,
    /// Payments that no gateway ever took.
    pub(crate) unclaimed: usize,
    /// Atomic units taken from clients.
    pub(crate) income: u128,
    /// Atomic units paid to providers for jobs.
    pub(crate) cost: u128,
    /// Of those, for work no client paid for.
    pub(crate) lost: u128,
    /// Atomic units paid for stock.
    pub(crate) stock: u128,
    /// Atomic units that providers sent back.
    pub(crate) sent_back: u128,
    /// Atomic units owed back to clients.
    pub(crate) refunds_due: u128,
    /// Atomic units that were owed to clients, and paid back.
    pub(crate) refunded: u128,
    /// Of the jobs for several files, those for which some were stored and some were not.
    pub(crate) in_part: usize,
    /// Jobs that were answered first, and never paid for.
    pub(crate) unpaid: usize,
}

impl Site {
    /// Holds every transfer against a job, and every job against the ledger and what its client was told.
    pub(crate) async fn audit(&self, store: &dyn JobStore, outcomes: &[Outcome]) -> Books {
        let mut books = Books::default();
        let mut transfers: BTreeMap<(Address, B256), Transfer> = BTreeMap::new();
        for transfer in self.sandbox.ledger.transfers() {
            if transfer.from == Address::ZERO {
                // What the accounts began with.
                continue;
            }
            let Some(nonce) = transfer.nonce else {
                // The one who moves money by itself: a provider that sends back what it was paid for nothing.
                assert_eq!(
                    (transfer.from, transfer.to),
                    (pay_to(Service::Merit), self.spender),
                    "{transfer:?}"
                );
                books.sent_back += transfer.value.units();
                continue;
            };
            let twice = transfers.insert((transfer.from, nonce), transfer);
            assert!(twice.is_none(), "one authorization moved money twice: {transfer:?}");
        }
        for outcome in outcomes {
            let purchase = &outcome.purchase;
            let key = (purchase.authorization.from, purchase.authorization.nonce);
            let charged = transfers.remove(&key);
            let Some(job) = store.by_claim(&purchase.claim).await.unwrap() else {
                assert!(charged.is_none(), "charged without a job: {}", outcome.story());
                assert!(outcome.bought.is_empty(), "sold without a job: {}", outcome.story());
                books.unclaimed += 1;
                continue;
            };
            client_leg(&job, charged, outcome, &mut books);
            provider_leg(&job, self.spender, &mut transfers, outcome, &mut books);
            refund_leg(&job, self.spender, &mut transfers, outcome, &mut books);
            *books.ended.entry(job.state.name()).or_default() += 1;
        }
        for transfer in transfers.into_values() {
            let stock = transfer.from == self.spender && transfer.to == pay_to(Service::XCache);
            assert!(stock, "money moved that belongs to no job: {transfer:#?}");
            books.stock += transfer.value.units();
        }
        self.balances(&books);
        self.ledger(store, &books).await;
        books
    }

    /// The gateway's own books say the same.
    async fn ledger(&self, store: &dyn JobStore, books: &Books) {
        let kept = ledger::collect(store, None).await.unwrap();
        assert_eq!(kept.check(), [], "the ledger does not balance, or is not what the records say");
        let holds = |account| kept.balance(&self.client.asset, account).unwrap();
        let is = |sum: u128| i128::try_from(sum).unwrap();
        assert_eq!(holds(Account::Received), is(books.income));
        assert_eq!(holds(Account::RefundsDue), -is(books.refunds_due));
        assert_eq!(holds(Account::Unearned), 0);
        // What was signed for the stock, and lapsed without an answer, is booked as lost whether it was taken or not.
        let purchases = stock_purchases(store).await.unwrap();
        let stock = |outcome| {
            let of = purchases.iter().filter(|one| one.outcome == outcome);
            is(of.map(|one| one.offer.cost.units()).sum())
        };
        let [bought, lost, open] = [StockOutcome::Bought, StockOutcome::Lost, StockOutcome::Open].map(stock);
        let moved = is(books.stock);
        assert!(bought <= moved && moved <= bought + lost + open, "{bought}, {lost}, {open}: {moved} moved");
        assert_eq!(holds(Account::Inventory), bought);
        assert_eq!(holds(Account::Exposure), open);
        assert_eq!(holds(Account::ProviderCost), is(books.cost - books.lost));
        assert_eq!(holds(Account::Losses), is(books.lost) + lost);
        assert_eq!(holds(Account::Wallet), -is(books.cost + books.refunded) - bought - lost - open);
    }

    /// The accounts hold what they began with and what the books say moved.
    fn balances(&self, books: &Books) {
        let ledger = &self.sandbox.ledger;
        let balance = |account| ledger.balance(account).units();
        let payee: Address = PAY_TO.parse().unwrap();
        assert_eq!(balance(payee), OPENING_BALANCE.units() + books.income, "income");
        assert_eq!(
            balance(self.spender),
            self.opened.units() + books.sent_back - books.cost - books.stock - books.refunded,
            "spending"
        );
        let clients = self.opened.units() - books.income + books.refunded;
        assert_eq!(balance(self.client.address()), clients, "clients");
    }
}

fn client_leg(job: &Job, charged: Option<Transfer>, outcome: &Outcome, books: &mut Books) {
    let say = |what: &str| format!("{what}: job {} is {}\n{}", job.id, job.state.name(), outcome.story());
    assert!(settled(job.state), "{}", say("not at rest"));
    match job.state {
        State::Completed | State::RefundDue | State::Refunded => {
            let charged = charged.unwrap_or_else(|| panic!("{}", say("not charged")));
            assert_eq!(charged.to, PAY_TO.parse::<Address>().unwrap());
            assert_eq!(charged.value, job.quote.price, "{}", say("charged another price"));
            assert_eq!(charged.value, outcome.purchase.authorization.value);
            let receipt = job.receipt.as_ref().unwrap_or_else(|| panic!("{}", say("no receipt")));
            assert_eq!(
                receipt.transaction.parse::<B256>().unwrap(),
                charged.transaction,
                "{}",
                say("another transaction")
            );
            books.income += charged.value.units();
            if job.state == State::RefundDue {
                books.refunds_due += job.owed().units();
            }
            several_files(job, outcome, books);
        }
        _ => assert!(charged.is_none(), "{}", say("charged")),
    }
    if !outcome.bought.is_empty() {
        // Also where the store was away and the gateway that answered was killed, unless it is too large to be kept.
        match job.state {
            State::Completed => {}
            // For a part of it, and the rest is owed.
            State::RefundDue | State::Refunded if job.shortfall.is_some() => {}
            // It had all of it, and the gateway that knew was killed.
            State::RefundDue | State::Refunded if outcome.purchase.order == Order::Report => {}
            // Answered first, and the facilitator failed until the payment had lapsed.
            State::Uncollected if job.trusted => books.unpaid += 1,
            _ => panic!("{}", say("answered")),
        }
        // To a request without a body, paid by version 1, a repetition gets the job's state: it shows no secret.
        let state = |body: &&Bytes| job.kind == JobKind::App && body.starts_with(b"{\"jobId\":");
        let mut contents = outcome.bought.iter().filter(|body| !state(body));
        let first = contents.next();
        assert!(contents.all(|body| Some(body) == first), "{}", say("two answers to one payment"));
    }
    // What the record does not hold its client has, whole, or is owed.
    if job.is_given_once() && job.state == State::Completed && outcome.reads && !outcome.was_sent_away() {
        let whole = outcome.bought.iter().any(|body| body.len() == REPORT);
        assert!(whole, "{}", say("completed, and its client has a part of its answer"));
    }
    // Told to pay anew, the client does: so the first payment must never be taken.
    if outcome.asked_again {
        assert!(charged.is_none(), "{}", say("told to pay anew, and charged"));
    }
    if outcome.charged_for_nothing {
        assert!(charged.is_some(), "{}", say("told it was charged, and it was not"));
    }
}

/// Of several files, what its client has and what it is owed for the others are all that it paid for, and each that it has was
/// bought.
fn several_files(job: &Job, outcome: &Outcome, books: &mut Books) {
    let say = |what: &str| format!("{what}: job {} is {}\n{}", job.id, job.state.name(), outcome.story());
    let Some(files) = outcome.purchase.order.files() else {
        return assert!(job.shortfall.is_none(), "{}", say("a part of one thing"));
    };
    if !job.is_answered() {
        // Where it was charged first, as whoever owes is: for nothing, and all of it is owed.
        return assert_eq!(job.owed(), job.quote.price, "{}", say("owed otherwise than charged"));
    }
    let Some(Kept::Whole(body)) = job.answer.as_ref().map(|answer| &answer.body) else {
        panic!("{}", say("no answer"));
    };
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap();
    let results = answer["result"]["results"].as_array().unwrap();
    assert_eq!(results.len() as u128, files, "{}", say("another number of files"));
    let missing = results.iter().filter(|result| result["success"] == false).count() as u128;
    let owed = if missing == 0 { 0 } else { job.owed().units() };
    assert_eq!(job.shortfall.is_some(), missing > 0, "{}", say("owed otherwise than not stored"));
    assert!(missing < files && owed * files == job.quote.price.units() * missing, "{}", say("another share"));
    let paid =
        job.provider.iter().filter(|payment| job.is_paid_for(payment) && payment.attempt == job.attempt);
    assert_eq!(paid.count() as u128, files - missing, "{}", say("stored and not bought, or bought twice"));
    books.in_part += usize::from(missing > 0);
}

/// Every payment signed for the job, against the ledger.
fn provider_leg(
    job: &Job,
    spender: Address,
    transfers: &mut BTreeMap<(Address, B256), Transfer>,
    outcome: &Outcome,
    books: &mut Books,
) {
    for payment in &job.provider {
        let moved = transfers.remove(&(spender, payment.nonce));
        let say = |what: &str| {
            format!("{what}: {payment:?}\njob {} is {}\n{}", job.id, job.state.name(), outcome.story())
        };
        let Some(moved) = moved else {
            assert_eq!(payment.fate, Fate::Unspent, "{}", say("booked otherwise than not taken"));
            assert!(!job.is_paid_for(payment), "{}", say("work was done, and nobody paid for it"));
            continue;
        };
        assert_eq!(payment.fate, Fate::Spent, "{}", say("booked otherwise than taken"));
        assert_eq!((moved.to, moved.value), (payment.pay_to, payment.amount), "{}", say("paid otherwise"));
        books.cost += moved.value.units();
        match job.state {
            _ if job.is_paid_for(payment) => {}
            State::RefundDue | State::Refunded | State::ProviderLost | State::Uncollected => {
                books.lost += moved.value.units()
            }
            _ => panic!("{}", say("a provider was paid, and nobody booked it")),
        }
    }
}

/// Every payment signed to give the client its money back, against the ledger: one was made, of what is owed.
fn refund_leg(
    job: &Job,
    spender: Address,
    transfers: &mut BTreeMap<(Address, B256), Transfer>,
    outcome: &Outcome,
    books: &mut Books,
) {
    let say = |what: &str| format!("{what}: job {} is {}\n{}", job.id, job.state.name(), outcome.story());
    let mut paid = 0;
    for refund in &job.refunds {
        let moved = transfers.remove(&(spender, refund.nonce));
        assert_eq!(moved.is_some(), refund.fate == Fate::Spent, "{}", say("booked otherwise than paid back"));
        let Some(moved) = moved else { continue };
        assert_eq!((moved.to, moved.value), (job.requester, job.owed()), "{}", say("paid back otherwise"));
        assert_eq!(Some(moved.transaction), refund.transaction, "{}", say("another transaction"));
        paid += 1;
        books.refunded += moved.value.units();
    }
    assert_eq!(paid, usize::from(job.state == State::Refunded), "{}", say("paid back not once"));
}
