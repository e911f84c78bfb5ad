//! One payment, presented often: one piece of work, one answer, and only to whom it belongs.

use super::trap::Trick;
use super::*;

fn by_v1(mut sale: Sale) -> Sale {
    sale.payment.version = Version::V1;
    sale.payment.quote_id = None;
    sale
}

fn route(path: &str) -> NamedRoute {
    NamedRoute::new(&http::Method::POST, "a.example", path)
}

fn without_body(mut sale: Sale) -> Sale {
    sale.payment.has_body = false;
    sale
}

fn with_quote(mut sale: Sale, quote: &str) -> Sale {
    sale.payment.quote_id = Some(quote.into());
    sale
}

#[tokio::test(start_paused = true)]
async fn fifty_at_once_are_one_sale() {
    let stage = Stage::new();
    let all: Vec<_> = (0..50).map(|_| stage.start(stage.sale(1, &[PAY, Do::Wait]))).collect();
    stage.log.begun.notified().await;
    stage.log.gate.notify_one();
    let mut fresh = 0;
    for one in all {
        let said = one.await.unwrap();
        assert_eq!((said.status, said.body.as_str()), (200, "run 1"), "{said:?}");
        assert!(said.receipt.is_some());
        fresh += usize::from(said.reason == Reason::Paid);
    }
    assert_eq!((fresh, stage.log.runs(), stage.log.paid(), stage.facilitator.moved()), (1, 1, 1, 1));
}

/// Two copies, and the price rose for one of them: whichever is claimed first decides for both.
#[tokio::test(start_paused = true)]
async fn who_is_told_to_pay_anew_is_not_charged_for_a_copy() {
    let withdrawn = |stage: &Stage| {
        let mut sale = stage.sale(1, &[PAY]);
        sale.work = Box::new(Withdrawn(Reason::QuoteWithdrawn));
        sale
    };
    let stage = Stage::new();
    let said = stage.sell(withdrawn(&stage)).await;
    assert!(said.is(Reason::QuoteWithdrawn, Charged::No) && said.status == 402, "{said:?}");
    for _ in 0..2 {
        let said = stage.sell(stage.sale(1, &[PAY])).await;
        assert!(said.is(Reason::QuoteWithdrawn, Charged::No) && said.status == 402, "{said:?}");
    }
    assert_eq!((stage.log.runs(), stage.facilitator.asked()), (0, 0));
    assert_eq!(stage.state(1).await, State::Voided);

    let stage = Stage::new();
    let selling = stage.start(stage.sale(1, &[PAY, Do::Wait]));
    stage.log.begun.notified().await;
    let copy = stage.start(withdrawn(&stage));
    stage.log.gate.notify_one();
    for said in [selling.await.unwrap(), copy.await.unwrap()] {
        assert_eq!((said.status, said.body.as_str()), (200, "run 1"), "{said:?}");
    }
    assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1));

    // Upfront, and nobody knows whether it has settled: it goes on, and no 402 is told.
    let stage = Stage::new();
    *stage.facilitator.for_ever.lock() = Some(Settle::Silent);
    let said = stage.sell(stage.upfront(1, &[PAY])).await;
    assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
    let mut copy = stage.upfront(1, &[PAY]);
    copy.work = Box::new(Withdrawn(Reason::QuoteWithdrawn));
    let said = stage.sell(copy).await;
    assert!(said.status == 503 && said.charged == Some(Charged::Unknown), "{said:?}");
}

/// It failed, and may be sent again; then its quote is over for one who sends it, and not for a copy.
#[tokio::test(start_paused = true)]
async fn who_is_refused_after_a_failure_is_not_charged_for_a_copy() {
    let stage = Stage::new();
    let said = stage.sell(stage.sale(1, &[Do::Fail(Reason::ProviderFailed)])).await;
    assert!(said.is(Reason::ProviderFailed, Charged::No), "{said:?}");
    let known = async |reason| stage.broker.known(&presented(1), reason).await.unwrap().map(Said::of);
    // Not now, and maybe later.
    assert_eq!(known(Reason::NoProvider).await, None);
    assert_eq!(stage.state(1).await, State::Voided);
    let refused = |said: &Said| said.is(Reason::QuoteExpired, Charged::No) && said.status == 402;
    let said = known(Reason::QuoteExpired).await.unwrap();
    assert!(refused(&said), "{said:?}");
    for _ in 0..2 {
        let said = stage.sell(stage.sale(1, &[PAY])).await;
        assert!(refused(&said), "{said:?}");
        // Whatever it would be refused for by now.
        for reason in [Reason::PaymentExpired, Reason::NoProvider] {
            let said = known(reason).await.unwrap();
            assert!(refused(&said), "{said:?}");
        }
    }
    assert_eq!((stage.log.runs(), stage.log.paid(), stage.facilitator.moved()), (1, 0, 0));
    assert_eq!(stage.events(1).await.last_chunk(), Some(&["reopened".to_owned(), "rejected".to_owned()]));

    // The same, where the provider's price has risen meanwhile.
    stage.sell(stage.sale(2, &[Do::Fail(Reason::ProviderFailed)])).await;
    let mut dearer = stage.sale(2, &[PAY]);
    dearer.work = Box::new(Withdrawn(Reason::QuoteWithdrawn));
    for sale in [dearer, stage.sale(2, &[PAY])] {
        let said = stage.sell(sale).await;
        assert!(said.is(Reason::QuoteWithdrawn, Charged::No) && said.status == 402, "{said:?}");
    }
    // A refusal that cannot be recorded is none.
    stage.sell(stage.sale(3, &[Do::Fail(Reason::ProviderFailed)])).await;
    stage.store.trap("rejected", &[Trick::Before, Trick::Before, Trick::Before]);
    let said = Said::of(stage.broker.known(&presented(3), Reason::QuoteExpired).await.unwrap().unwrap());
    assert!(said.is(Reason::StoreAway, Charged::Unknown), "{said:?}");
    assert_eq!(stage.job(3).await.attempt, 1);
}

/// A payer can sign one nonce for two amounts. What is settled is what was claimed, so nothing else is ever worked for.
#[tokio::test(start_paused = true)]
async fn another_authorization_with_the_same_nonce_is_another_payment() {
    let changes: [fn(&mut Sale); 3] = [
        |sale| {
            let more = Amount::new(sale.payment.authorization.value.units() * 10);
            (sale.payment.authorization.value, sale.requirement.amount, sale.sold.price) = (more, more, more);
        },
        |sale| sale.payment.authorization.valid_before += 60,
        |sale| sale.payment.authorization.to = Address::repeat_byte(9),
    ];
    for change in changes {
        let stage = Stage::new();
        let said = stage.sell(stage.sale(1, &[Do::Fail(Reason::ProviderFailed)])).await;
        assert!(said.is(Reason::ProviderFailed, Charged::No), "{said:?}");
        let mut forged = stage.sale(1, &[PAY]);
        change(&mut forged);
        let payment = forged.payment.clone();
        let said = stage.sell(forged).await;
        assert!(said.is(Reason::PaymentReused, Charged::No) && said.status == 409, "{said:?}");
        let said = Said::of(stage.broker.known(&payment, Reason::QuoteExpired).await.unwrap().unwrap());
        assert!(said.is(Reason::PaymentReused, Charged::No), "{said:?}");
        assert_eq!((stage.log.paid(), stage.facilitator.moved()), (0, 0));
        // The first is as good as it was.
        assert_eq!(stage.sell(stage.sale(1, &[PAY])).await.reason, Reason::Paid);
    }
}

#[tokio::test(start_paused = true)]
async fn another_request_with_the_same_payment_is_refused() {
    let stage = Stage::new();
    let other = || {
        let mut sale = stage.sale(1, &[PAY]);
        sale.payment.fingerprint = Fingerprint([8; 32]);
        sale
    };
    let selling = stage.start(stage.sale(1, &[PAY, Do::Wait]));
    stage.log.begun.notified().await;
    let said = stage.sell(other()).await;
    assert!(said.is(Reason::PaymentReused, Charged::Unknown) && said.status == 409, "{said:?}");
    stage.log.gate.notify_one();
    selling.await.unwrap();
    let said = stage.sell(other()).await;
    assert!(said.is(Reason::PaymentReused, Charged::Yes), "{said:?}");
    assert_eq!(stage.log.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_result_is_released_to_whoever_shows_more_than_the_chain_does() {
    type Change = fn(Sale) -> Sale;
    let same: Change = |sale| sale;
    let stolen: Change = |sale| with_quote(sale, "q-2");
    // (Bought by, presented by, whether the content is given)
    let table: [(Change, Change, bool); 8] = [
        (same, same, true),
        (same, stolen, false),
        (same, by_v1, false),
        (by_v1, by_v1, true),
        (by_v1, same, true),
        (|sale| without_body(by_v1(sale)), |sale| without_body(by_v1(sale)), false),
        (|sale| without_body(by_v1(sale)), without_body, false),
        (without_body, without_body, true),
    ];
    for (row, (bought, presented, released)) in table.into_iter().enumerate() {
        let stage = Stage::new();
        let said = stage.sell(bought(stage.sale(1, &[PAY]))).await;
        assert_eq!((said.reason, said.body.as_str()), (Reason::Paid, "run 1"));
        let again = presented(stage.sale(1, &[PAY]));
        let version = again.payment.version;
        let said = stage.sell(again).await;
        assert_eq!(said.reason, Reason::Replayed);
        assert_eq!(said.body == "run 1", released, "row {row}: {said:?}");
        assert_eq!(said.receipt, Some(version), "row {row}: the receipt is not where this client looks");
        assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn of_racers_for_a_voided_job_one_runs() {
    let stage = Stage::new();
    stage.sell(stage.sale(1, &[Do::Fail(Reason::ProviderFailed)])).await;
    assert_eq!(stage.state(1).await, State::Voided);
    let racers: Vec<_> = (0..8).map(|_| stage.start(stage.sale(1, &[PAY, Do::Wait]))).collect();
    stage.log.begun.notified().await;
    stage.log.gate.notify_one();
    for racer in racers {
        assert_eq!(racer.await.unwrap().body, "run 2");
    }
    let job = stage.job(1).await;
    assert_eq!((job.attempt, job.state, stage.log.runs()), (2, State::Completed, 2));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_answer_takes_nobody_elses_place() {
    let stage = Stage::with_jobs(2);
    let first = stage.start(stage.sale(1, &[PAY, Do::Wait]));
    stage.log.begun.notified().await;
    let waiting: Vec<_> = (0..5).map(|_| stage.start(stage.sale(1, &[PAY]))).collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.sell(stage.sale(2, &[])).await.reason, Reason::Paid);

    let second = stage.start(stage.sale(3, &[Do::Wait]));
    stage.log.begun.notified().await;
    let said = stage.sell(stage.sale(4, &[])).await;
    assert!(said.is(Reason::Overloaded, Charged::No), "{said:?}");
    // An answer that is there is given however much is going on, and never as "not charged".
    assert_eq!(stage.sell(stage.sale(2, &[])).await.reason, Reason::Replayed);

    stage.log.gate.notify_waiters();
    for one in waiting.into_iter().chain([first, second]) {
        let said = one.await.unwrap();
        assert_eq!(said.status, 200, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_to_pay_anew_while_the_store_cannot_say() {
    let stage = Stage::new();
    stage.sell(stage.sale(1, &[PAY])).await;
    stage.store.go_away(true);
    let claim = presented(1).claim();
    assert_eq!(stage.broker.claimed(&claim).await.unwrap_err().reason, Reason::StoreAway);
    let Err(problem) = stage.broker.known(&presented(1), Reason::NoProvider).await else { panic!("known") };
    assert_eq!((problem.reason, problem.charged), (Reason::StoreAway, Some(Charged::Unknown)));
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert!(said.is(Reason::StoreAway, Charged::Unknown), "{said:?}");
    stage.store.go_away(false);
    let known = stage.broker.known(&presented(1), Reason::NoProvider).await.unwrap().unwrap();
    assert_eq!(Said::of(known).body, "run 1");
    assert!(stage.broker.known(&presented(2), Reason::QuoteExpired).await.unwrap().is_none());
}

/// Clients sign anew for a new call, so a key of theirs is all that tells that they may have paid.
#[tokio::test(start_paused = true)]
async fn an_unpaid_request_with_the_key_of_an_unresolved_job_is_not_asked_to_pay() {
    let stage = Stage::new();
    let key = |path, key: &str| Some(IdempotencyKey::new(&route(path), key.as_bytes()));
    let (ours, elsewhere, other) = (key("/run", "k"), key("/store", "k"), key("/run", "l"));
    *stage.facilitator.for_ever.lock() = Some(Settle::Silent);
    let said = stage.sell(Sale { key: ours.clone(), ..stage.sale(1, &[PAY]) }).await;
    assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");

    let unresolved = async |key: &Option<IdempotencyKey>| {
        let found = stage.broker.unresolved(key.as_ref().unwrap()).await;
        found.map(|found| found.map(Said::of))
    };
    let said = unresolved(&ours).await.unwrap().unwrap();
    assert!(said.is(Reason::SettlementUnknown, Charged::Unknown) && said.status == 503, "{said:?}");
    assert_eq!(unresolved(&elsewhere).await.unwrap(), None);
    assert_eq!(unresolved(&other).await.unwrap(), None);
    stage.store.go_away(true);
    assert_eq!(unresolved(&ours).await.unwrap_err().reason, Reason::StoreAway);
    stage.store.go_away(false);

    *stage.facilitator.for_ever.lock() = None;
    stage.recover().await;
    assert_eq!(unresolved(&ours).await.unwrap(), None);
}

/// A key that cannot be remembered would not be found again: nothing is spent for it.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_remembered_spends_nothing() {
    let stage = Stage::new();
    let key = Some(IdempotencyKey::new(&route("/run"), b"k"));
    stage.store.refuse_values(true);
    let said = stage.sell(Sale { key, ..stage.sale(1, &[PAY]) }).await;
    assert!(said.is(Reason::StoreAway, Charged::Unknown), "{said:?}");
    assert_eq!((stage.log.runs(), stage.facilitator.moved()), (0, 0));
}
