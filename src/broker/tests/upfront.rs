//! Settled before the work: who has paid, and is not served, is owed.

use super::*;
use crate::jobs::ValueStore as _;

#[tokio::test(start_paused = true)]
async fn settles_before_the_work() {
    let stage = Stage::new();
    let said = stage.sell(stage.upfront(1, &[PAY])).await;
    assert_eq!(said.reason, Reason::Paid);
    assert_eq!(stage.events(1).await, ["settle_first", "settled", "signed", "answered"]);
    assert_eq!(stage.facilitator.verified.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn work_that_fails_after_it_was_paid_for_is_a_refund_due_and_stays_one() {
    for steps in [vec![Do::Fail(Reason::ProviderFailed)], vec![PAY, Do::Hang]] {
        let stage = Stage::new();
        for _ in 0..3 {
            let said = stage.sell(stage.upfront(1, &steps)).await;
            assert!(said.is(Reason::RefundDue, Charged::Yes) && said.receipt.is_some(), "{said:?}");
        }
        assert_eq!(stage.state(1).await, State::RefundDue);
        assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn no_work_without_the_money() {
    let stage = Stage::new();
    stage.facilitator.says(&[Settle::No("insufficient_funds")]);
    let said = stage.sell(stage.upfront(1, &[PAY])).await;
    assert!(said.is(Reason::PaymentRejected, Charged::No), "{said:?}");
    assert_eq!(stage.state(1).await, State::Voided);

    *stage.facilitator.for_ever.lock() = Some(Settle::Silent);
    let said = stage.sell(stage.upfront(2, &[PAY])).await;
    assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
    assert_eq!((stage.log.runs(), stage.state(2).await), (0, State::SettlingUpfront));
}

/// Between verifying and settling a wallet can be emptied. That is one provider's bill; it must not be a business.
#[tokio::test(start_paused = true)]
async fn a_payer_who_left_the_bill_to_us_pays_first_from_then_on() {
    let stage = Stage::new();
    stage.facilitator.says(&[Settle::No("insufficient_funds"), Settle::No("insufficient_funds")]);
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert!(said.is(Reason::Uncollected, Charged::No), "{said:?}");
    assert_eq!(stage.log.paid(), 1);

    let said = stage.sell(stage.sale(2, &[PAY])).await;
    assert!(said.is(Reason::PaymentRejected, Charged::No), "{said:?}");
    assert_eq!((stage.log.runs(), stage.log.paid()), (1, 1), "the provider was paid for a debtor");

    let said = stage.sell(stage.sale(3, &[PAY])).await;
    assert_eq!(said.reason, Reason::Paid);
    assert_eq!(stage.events(3).await[..2], ["settle_first", "settled"]);
}

/// Whoever is taken for a debtor (a store that cannot tell counts so) and is none any more when the payment comes again.
#[tokio::test(start_paused = true)]
async fn what_began_upfront_goes_on_upfront() {
    let stage = Stage::new();
    let payer = presented(1).authorization.from.to_string();
    stage.store.put("debtors", &payer, b"", Some(Duration::from_secs(10))).await.unwrap();
    *stage.facilitator.for_ever.lock() = Some(Settle::Silent);
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
    assert_eq!((stage.log.runs(), stage.state(1).await), (0, State::SettlingUpfront));

    stage.clock.advance(20_000);
    *stage.facilitator.for_ever.lock() = None;
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert_eq!(said.reason, Reason::Paid, "{said:?}");
    assert_eq!(stage.events(1).await, ["settle_first", "settled", "signed", "answered"]);
    assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1));
}
