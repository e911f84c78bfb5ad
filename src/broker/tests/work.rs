//! Work that pays, hangs, panics and is cut off.

use super::trap::Trick;
use super::*;
use crate::jobs::job::Fate;
use crate::providers::PurseError;

#[tokio::test(start_paused = true)]
async fn a_second_payment_for_a_step_is_the_first_one() {
    let stage = Stage::new();
    let said = stage.sell(stage.sale(1, &[PAY, PAY])).await;
    assert_eq!(said.reason, Reason::Paid);
    {
        let purse = stage.log.purse.lock();
        assert_eq!(purse[0].as_ref().unwrap(), purse[1].as_ref().unwrap());
    }
    assert_eq!(stage.job(1).await.provider.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn further_steps_stay_within_what_the_client_pays() {
    // The price is 10,000: the first may be all of it, both together may not be more.
    for (second, fits) in [(2_000, true), (2_001, false), (COST, false)] {
        let stage = Stage::new();
        stage.sell(stage.sale(1, &[PAY, Do::Pay("more", second)])).await;
        assert_eq!(stage.log.paid(), if fits { 2 } else { 1 }, "{second}");
        let expected = if fits { State::Completed } else { State::Held };
        assert_eq!(stage.state(1).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_other_decimals_are_compared_as_dollars() {
    // $0.008 each in a token of 18 places: once is within the client's $0.01, twice is not.
    let cost = COST * 1_000_000_000_000;
    let stage = Stage::new();
    let mut sale = stage.sale(1, &[Do::PayFine("execute", cost), Do::PayFine("more", cost)]);
    sale.offer = Some(offer(fine(), cost));
    stage.sell(sale).await;
    assert_eq!(stage.log.paid(), 1);

    // And the other way round: a client that pays in the fine token has not paid for a million dollars.
    let mut sale = stage.sale(2, &[PAY, Do::Pay("more", COST)]);
    (sale.payment.asset, sale.requirement.asset) = (fine(), fine());
    let price = Amount::new(PRICE * 1_000_000_000_000);
    (sale.payment.authorization.value, sale.requirement.amount) = (price, price);
    stage.sell(sale).await;
    assert_eq!(stage.log.paid(), 2);

    let mut sale = stage.sale(3, &[Do::PayFine("execute", cost), Do::PayFine("more", cost / 4)]);
    sale.offer = Some(offer(fine(), cost));
    stage.sell(sale).await;
    assert_eq!(stage.log.paid(), 4);
}

/// A signature that has lapsed may have been spent before.
#[tokio::test(start_paused = true)]
async fn a_lapsed_signature_still_counts() {
    let stage = Stage::new();
    let selling = stage.start(stage.sale(1, &[PAY, Do::Wait, Do::Pay("more", COST)]));
    stage.log.begun.notified().await;
    stage.clock.advance(61_000);
    stage.log.gate.notify_one();
    selling.await.unwrap();
    let purse = stage.log.purse.lock();
    assert!(matches!(purse[1], Err(PurseError::Terms(_))), "{purse:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_leaves_the_job_to_recovery() {
    for (number, steps, state) in
        [(1, vec![Do::Panic], State::Voided), (2, vec![PAY, Do::Panic], State::Held)]
    {
        let stage = Stage::new();
        assert!(stage.start(stage.sale(number, &steps)).await.is_err());
        stage.recover().await;
        assert_eq!(stage.state(number).await, state);
        assert_eq!(stage.facilitator.moved(), 0);
        let said = stage.sell(stage.sale(number, &[PAY])).await;
        if state == State::Voided {
            assert_eq!((said.reason, stage.job(number).await.attempt), (Reason::Paid, 2));
        } else {
            // Nothing is ever run for it again, so nobody is told to send it again.
            assert!(said.is(Reason::ProviderLost, Charged::No), "{said:?}");
            assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn work_is_cut_off_at_its_deadline_and_not_charged() {
    for (number, steps, state, reason) in [
        (1, vec![Do::Hang], State::Voided, Reason::ProviderTimeout),
        (2, vec![PAY, Do::Hang], State::Held, Reason::ProviderLost),
    ] {
        let stage = Stage::new();
        let said = stage.sell(stage.sale(number, &steps)).await;
        assert!(said.is(reason, Charged::No), "{said:?}");
        assert_eq!((stage.state(number).await, stage.facilitator.moved()), (state, 0));
    }
}

/// The work is dropped while its signature is being written: what is written and what is remembered must agree.
#[tokio::test(start_paused = true)]
async fn a_signature_in_flight_at_the_deadline_is_not_forgotten() {
    let stage = Stage::new();
    let written = Arc::new(Notify::new());
    stage.store.trap("signed", &[Trick::Held(Arc::clone(&written))]);
    let selling = stage.start(stage.sale(1, &[PAY]));
    let later = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(125)).await;
        written.notify_one();
    });
    let said = selling.await.unwrap();
    later.await.unwrap();
    assert!(said.is(Reason::ProviderLost, Charged::No), "{said:?}");
    assert_eq!(stage.log.paid(), 0);
    let job = stage.job(1).await;
    assert_eq!((job.state, job.provider.len()), (State::Held, 1));
    assert_eq!(stage.events(1).await, ["verified", "signed", "work_failed"]);
}

#[tokio::test(start_paused = true)]
async fn too_little_time_is_too_little() {
    // (Seconds the authorization has left, work begun and paid for): 30 are for settling.
    for (left, runs, paid) in [(30, 0, 0), (20, 0, 0), (31, 1, 1), (45, 1, 1)] {
        let stage = Stage::new();
        let mut sale = stage.sale(1, &[PAY]);
        sale.payment.authorization.valid_before = NOW + left;
        let said = stage.sell(sale).await;
        assert_eq!((stage.log.runs(), stage.log.paid()), (runs, paid), "{left} s");
        if paid == 0 {
            assert_eq!(said.charged, Some(Charged::No));
            assert_eq!(stage.state(1).await, State::Voided);
        }
        if runs == 0 {
            assert!(said.is(Reason::PaymentExpired, Charged::No), "{said:?}");
        }
        for payment in &stage.job(1).await.provider {
            // A provider collects within 10 seconds after the work's end: long before the client's payment lapses.
            assert!(payment.valid_before <= NOW + left - 30 + 10);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failed_work_whose_provider_was_paid_is_held_for_good() {
    let stage = Stage::new();
    for _ in 0..3 {
        let said = stage.sell(stage.sale(1, &[PAY, Do::Fail(Reason::ProviderFailed)])).await;
        assert!(said.is(Reason::ProviderLost, Charged::No), "{said:?}");
    }
    let job = stage.job(1).await;
    assert_eq!((job.state, job.provider[0].fate), (State::Held, Fate::Open));
    assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_for_one_connection_is_given_once() {
    let stage = Stage::new();
    let cookie = ("set-cookie".to_owned(), "session=1".to_owned());
    let first = stage.sell(stage.sale(1, &[Do::Cookie])).await;
    assert!(first.headers.contains(&cookie));
    let again = stage.sell(stage.sale(1, &[Do::Cookie])).await;
    assert_eq!((again.reason, again.body), (Reason::Replayed, first.body));
    assert!(!again.headers.contains(&cookie));
    assert!(!format!("{:?}", stage.job(1).await).contains("session=1"));
}
