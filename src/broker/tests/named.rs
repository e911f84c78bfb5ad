//! Names of requests: signed for twice, paid for once.

use super::*;

/// Orders in which the steps of several meet.
const ORDERS: u64 = 200;
const ID: &[u8] = b"pay_0123456789abcdef";

fn name(sort: NameSort, payer: u8, path: &str, id: &[u8]) -> RequestName {
    let route = NamedRoute::new(&http::Method::POST, "shop.example", path);
    RequestName::new(sort, Address::repeat_byte(payer), &route, id)
}

/// By the payer's one name for it.
fn named(mut sale: Sale) -> Sale {
    sale.names = vec![name(NameSort::PaymentIdentifier, 0xbb, "/run", ID)];
    sale
}

fn for_another_request(mut sale: Sale) -> Sale {
    sale.payment.fingerprint = Fingerprint([8; 32]);
    sale
}

fn with_quote(mut sale: Sale, quote: &str) -> Sale {
    sale.payment.quote_id = Some(quote.into());
    sale
}

async fn claimed(stage: &Stage, number: u8) -> bool {
    stage.store.inner.by_claim(&presented(number).claim()).await.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_second_payment_for_the_same_is_not_taken() {
    let stage = Stage::new();
    let first = stage.sell(named(stage.sale(1, &[PAY]))).await;
    assert_eq!(first.reason, Reason::Paid);
    // By the same quote: the whole answer, with the receipt of the first payment.
    let again = stage.sell(named(stage.sale(2, &[PAY]))).await;
    assert_eq!((again.reason, &again.body, again.receipt), (Reason::Replayed, &first.body, first.receipt));
    // By another quote it is not known who asks: the receipt and the state, never the content.
    let other = stage.sell(with_quote(named(stage.sale(3, &[PAY])), "q-2")).await;
    assert_eq!((other.reason, other.status, other.receipt), (Reason::Replayed, 200, first.receipt));
    assert!(!other.body.contains("run") && other.body.contains("completed"), "{other:?}");
    assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1));
    assert!(!claimed(&stage, 2).await && !claimed(&stage, 3).await);
}

#[tokio::test(start_paused = true)]
async fn the_same_name_for_something_else_is_refused() {
    let stage = Stage::new();
    stage.sell(named(stage.sale(1, &[PAY]))).await;
    let said = stage.sell(for_another_request(named(stage.sale(2, &[PAY])))).await;
    assert!(said.is(Reason::IdentifierReused, Charged::No) && said.status == 409, "{said:?}");
    assert!(!claimed(&stage, 2).await);
    // What is said of the money is true of a payment that was taken by another name.
    stage.sell(stage.sale(3, &[PAY])).await;
    let said = stage.sell(for_another_request(named(stage.sale(3, &[PAY])))).await;
    assert!(said.is(Reason::IdentifierReused, Charged::Yes), "{said:?}");
    // Nor while the first one runs.
    let stage = Stage::new();
    let selling = stage.start(named(stage.sale(1, &[PAY, Do::Wait])));
    stage.log.begun.notified().await;
    let said = stage.sell(for_another_request(named(stage.sale(2, &[PAY])))).await;
    assert!(said.is(Reason::IdentifierReused, Charged::No), "{said:?}");
    stage.log.gate.notify_one();
    assert_eq!(selling.await.unwrap().reason, Reason::Paid);
}

/// Who pays anew for what a used payment did not buy has not paid by that name before.
#[tokio::test(start_paused = true)]
async fn a_payment_that_was_used_for_something_else_gives_the_name_up() {
    let stage = Stage::new();
    assert_eq!(stage.sell(stage.sale(1, &[PAY])).await.reason, Reason::Paid);
    let used = stage.sell(named(for_another_request(stage.sale(1, &[PAY])))).await;
    assert!(used.is(Reason::PaymentReused, Charged::Yes), "{used:?}");
    let said = stage.sell(named(for_another_request(stage.sale(2, &[PAY])))).await;
    assert_eq!(said.reason, Reason::Paid, "{said:?}");
    let used = stage.sell(named(for_another_request(stage.sale(1, &[PAY])))).await;
    assert!(used.is(Reason::PaymentReused, Charged::Yes), "{used:?}");
    assert_eq!((stage.log.runs(), stage.facilitator.moved()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn names_of_others_and_for_other_routes_are_other_names() {
    let stage = Stage::new();
    let names = [
        name(NameSort::PaymentIdentifier, 0xbb, "/run", ID),
        name(NameSort::PaymentIdentifier, 0xbc, "/run", ID),
        name(NameSort::PaymentIdentifier, 0xbb, "/store", ID),
        name(NameSort::IdempotencyKey, 0xbb, "/run", ID),
        name(NameSort::PaymentIdentifier, 0xbb, "/run", b"pay_0123456789abcdeg"),
    ];
    for (number, name) in (1..).zip(names) {
        let mut sale = for_another_request(stage.sale(number, &[PAY]));
        sale.names = vec![name];
        assert_eq!(stage.sell(sale).await.reason, Reason::Paid);
    }
    let route = |host| NamedRoute::new(&http::Method::POST, host, "/run");
    let by = |host| RequestName::new(NameSort::IdempotencyKey, Address::ZERO, &route(host), ID);
    assert_eq!(by("Shop.Example"), by("shop.example"));
    assert_ne!(by("shop.example"), by("shop.example:80"));
}

#[tokio::test(start_paused = true)]
async fn ten_payments_at_once_are_one_sale() {
    let stage = Stage::new();
    let all: Vec<_> = (1..=10).map(|n| stage.start(named(stage.sale(n, &[PAY, Do::Wait])))).collect();
    stage.log.begun.notified().await;
    stage.log.gate.notify_one();
    let mut fresh = 0;
    for one in all {
        let said = one.await.unwrap();
        assert_eq!((said.status, said.body.as_str()), (200, "run 1"), "{said:?}");
        fresh += usize::from(said.reason == Reason::Paid);
    }
    assert_eq!((fresh, stage.log.runs(), stage.facilitator.moved()), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_payment_that_bought_nothing_gives_the_name_up() {
    let stage = Stage::new();
    let no = || Err(FacilitatorError::Unknown("502".into()));
    // Of itself it may try again, as often as it likes.
    for _ in 0..80 {
        stage.facilitator.verdicts.lock().push_back(no());
        let said = stage.sell(named(stage.sale(1, &[PAY]))).await;
        assert!(said.is(Reason::FacilitatorAway, Charged::No), "{said:?}");
    }
    let sold = stage.sell(named(stage.sale(2, &[PAY]))).await;
    assert_eq!(sold.reason, Reason::Paid);
    // And then it is too late.
    let late = stage.sell(named(stage.sale(1, &[PAY]))).await;
    assert_eq!((late.reason, late.body), (Reason::Replayed, sold.body));
    assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1));
    assert_eq!(stage.state(1).await, State::Voided);
}

#[tokio::test(start_paused = true)]
async fn what_the_client_is_owed_is_not_sold_again() {
    let stage = Stage::new();
    let said = stage.sell(named(stage.upfront(1, &[Do::Fail(Reason::ProviderFailed)]))).await;
    assert_eq!(said.reason, Reason::RefundDue);
    let again = stage.sell(named(stage.upfront(2, &[PAY]))).await;
    assert!(again.is(Reason::RefundDue, Charged::Yes), "{again:?}");
    // Nor while nobody knows.
    let stage = Stage::new();
    *stage.facilitator.for_ever.lock() = Some(Settle::Silent);
    for number in [1, 2] {
        let said = stage.sell(named(stage.sale(number, &[PAY]))).await;
        assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
    }
    assert_eq!(stage.log.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_never_claimed_is_waited_for_and_then_passed_over() {
    let stage = Stage::new();
    let lost = named(stage.sale(1, &[PAY]));
    // It got the name, and its process died.
    assert!(stage.broker.hold_names(&mut { lost }).await.is_none());
    let said = stage.sell(named(stage.sale(2, &[PAY]))).await;
    assert!(said.is(Reason::JobRunning, Charged::No), "{said:?}");
    stage.clock.advance(60_000);
    let sold = stage.sell(named(stage.sale(2, &[PAY]))).await;
    assert_eq!(sold.reason, Reason::Paid);
    let late = stage.sell(named(stage.sale(1, &[PAY]))).await;
    assert_eq!((late.reason, late.body), (Reason::Replayed, sold.body));
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_finds_that_it_was_passed_over() {
    let stage = Stage::new();
    let mut slow = named(stage.sale(1, &[PAY]));
    assert!(stage.broker.hold_names(&mut slow).await.is_none());
    assert!(!stage.broker.lost_a_name(&slow.names).await.unwrap());
    stage.clock.advance(60_000);
    let mut quick = named(stage.sale(2, &[PAY]));
    assert!(stage.broker.hold_names(&mut quick).await.is_none());
    assert!(stage.broker.lost_a_name(&slow.names).await.unwrap());
    assert!(!stage.broker.lost_a_name(&quick.names).await.unwrap());
}

/// In whatever order they meet: a payment that bought nothing comes back while another takes its name.
#[tokio::test(start_paused = true)]
async fn payments_that_race_for_a_name_never_both_buy() {
    for seed in 0..ORDERS {
        let stage = Stage::new();
        stage.facilitator.verdicts.lock().push_back(Err(FacilitatorError::Unknown("502".into())));
        let said = stage.sell(named(stage.sale(1, &[PAY]))).await;
        assert_eq!(said.reason, Reason::FacilitatorAway);
        stage.store.shuffle(seed);
        let all = [1, 2, 1, 2, 1].map(|number| stage.start(named(stage.sale(number, &[PAY]))));
        for one in all {
            let said = one.await.unwrap();
            assert!(
                matches!(
                    said.reason,
                    Reason::Paid | Reason::Replayed | Reason::Interrupted | Reason::JobRunning
                ),
                "seed {seed}: {said:?}"
            );
        }
        assert!(stage.log.runs() <= 1, "seed {seed}");
        // Whatever they were told, they may ask again.
        for number in [1, 2] {
            let said = stage.sell(named(stage.sale(number, &[PAY]))).await;
            assert_eq!(said.status, 200, "seed {seed}: {said:?}");
        }
        assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_no_reason_to_sell_twice() {
    let stage = Stage::new();
    stage.sell(named(stage.sale(1, &[PAY]))).await;
    stage.store.go_away(true);
    let said = stage.sell(named(stage.sale(2, &[PAY]))).await;
    assert!(said.is(Reason::StoreAway, Charged::Unknown), "{said:?}");
    stage.store.go_away(false);
    assert_eq!(stage.sell(named(stage.sale(2, &[PAY]))).await.reason, Reason::Replayed);
}

/// What a provider is told a payment is called says nothing of the client's names, and is the same whenever it is repeated.
#[tokio::test(start_paused = true)]
async fn providers_get_names_of_our_own() {
    let stage = Stage::new();
    let twice = Do::Pay("pin", COST / 2);
    stage.sell(named(stage.sale(1, &[Do::Pay("execute", COST / 2), twice.clone(), twice]))).await;
    stage.sell(stage.sale(2, &[PAY])).await;
    let ids: Vec<String> = stage
        .log
        .purse
        .lock()
        .iter()
        .map(|said| {
            let payment = base64_simd::STANDARD.decode_to_vec(said.as_ref().unwrap()).unwrap();
            let payment: serde_json::Value = serde_json::from_slice(&payment).unwrap();
            let info = &payment["extensions"]["payment-identifier"]["info"];
            assert_eq!(info["required"], true);
            info["id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(ids[1], ids[2]);
    assert!(ids[0] != ids[1] && ids[0] != ids[3] && ids[1] != ids[3], "{ids:?}");
    let plain = |id: &String| id.len() == 36 && id.starts_with("pay_") && id.as_bytes() != ID;
    assert!(ids.iter().all(plain), "{ids:?}");
}
