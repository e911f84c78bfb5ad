//! The wallet's limits, its switch and its payees, where the broker spends.

use super::*;
use crate::config::resolved::Limits as Money;
use crate::guard::{Frozen, Switch};
use crate::jobs::ValueStore;

/// Room for one piece of work at a time, and two in an hour.
fn tight() -> Money {
    Money {
        spend_per_hour: 2 * 8_000,
        provider_spend_per_hour: 2 * 8_000,
        exposure: 12_000,
        payer_exposure: 12_000,
        loss_per_hour: 8_000,
        quote_loss_per_hour: 0,
        profit_floor: None,
        unsettled: 30_000,
        payer_unsettled: 20_000,
        uncollected_per_hour: 20_000,
    }
}

fn stage(limits: Money) -> Stage {
    Stage::guarded(64, move |store, clock, metrics| {
        let switch = Switch::Store(Arc::clone(&store));
        let guards = Guards::new(store, clock, metrics, &limits, switch);
        guards.assume_well();
        guards
    })
}

async fn freeze(stage: &Stage) {
    let frozen = Frozen { reason: "a test".into(), by: "operator".into(), since: 1 };
    stage.broker.guards().freeze(frozen).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_costs_the_client_nothing_and_the_payment_stays_good() {
    let stage = stage(tight());
    for number in [1, 2] {
        assert_eq!(stage.sell(stage.sale(number, &[PAY])).await.reason, Reason::Paid);
    }
    for sale in [stage.sale(3, &[PAY]), stage.upfront(4, &[PAY])] {
        let said = stage.sell(sale).await;
        assert!(said.is(Reason::BudgetSpent, Charged::No), "{said:?}");
    }
    assert_eq!((stage.log.runs(), stage.log.paid(), stage.facilitator.moved()), (2, 2, 2));
    assert_eq!([stage.state(3).await, stage.state(4).await], [State::Voided; 2]);

    stage.clock.advance(2 * 3_600_000);
    let mut later = stage.sale(5, &[PAY]);
    later.payment.authorization.valid_before = NOW + 8_000;
    assert_eq!(stage.sell(later).await.reason, Reason::Paid);
}

#[tokio::test(start_paused = true)]
async fn what_was_reserved_and_not_signed_can_be_spent_by_others() {
    let stage = stage(tight());
    for number in 1..20 {
        let said = stage.sell(stage.sale(number, &[Do::Fail(Reason::ProviderFailed)])).await;
        assert!(said.is(Reason::ProviderFailed, Charged::No), "{said:?}");
    }
    for number in [20, 21] {
        assert_eq!(stage.sell(stage.sale(number, &[PAY])).await.reason, Reason::Paid);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_exposed_is_out_until_the_client_has_paid() {
    let stage = stage(tight());
    let first = stage.start(stage.sale(1, &[PAY, Do::Wait]));
    stage.log.begun.notified().await;
    let said = stage.sell(stage.sale(2, &[PAY])).await;
    assert!(said.is(Reason::ExposureLimit, Charged::No), "{said:?}");
    // Paid upfront, it exposes nothing.
    assert_eq!(stage.sell(stage.upfront(3, &[PAY])).await.reason, Reason::Paid);
    stage.log.gate.notify_one();
    assert_eq!(first.await.unwrap().reason, Reason::Paid);
    let said = stage.sell(stage.sale(2, &[PAY])).await;
    assert!(said.is(Reason::BudgetSpent, Charged::No), "the exposure is gone, the budget too: {said:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unsettled_job_stays_exposed_and_a_settled_one_does_not() {
    let stage = stage(Money { spend_per_hour: 1 << 40, provider_spend_per_hour: 1 << 40, ..tight() });
    *stage.facilitator.for_ever.lock() = Some(Settle::Silent);
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
    assert!(stage.sell(stage.sale(2, &[PAY])).await.is(Reason::ExposureLimit, Charged::No));
    *stage.facilitator.for_ever.lock() = None;
    stage.recover().await;
    assert_eq!(stage.state(1).await, State::Completed);
    assert_eq!(stage.sell(stage.sale(2, &[PAY])).await.reason, Reason::Paid);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_wallet_signs_nothing() {
    let stage = stage(tight());
    freeze(&stage).await;
    for sale in [stage.sale(1, &[PAY]), stage.upfront(2, &[PAY])] {
        let said = stage.sell(sale).await;
        assert!(said.is(Reason::WalletFrozen, Charged::No), "{said:?}");
    }
    assert_eq!((stage.log.runs(), stage.facilitator.moved()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_freeze_stops_work_that_has_begun_before_it_pays() {
    let stage = stage(tight());
    let begun = stage.start(stage.sale(1, &[Do::Wait, PAY]));
    stage.log.begun.notified().await;
    freeze(&stage).await;
    stage.log.gate.notify_one();
    let said = begun.await.unwrap();
    assert!(said.is(Reason::WalletFrozen, Charged::No), "{said:?}");
    assert_eq!((stage.log.paid(), stage.state(1).await), (0, State::Voided));
    assert_eq!(stage.events(1).await, ["verified", "work_failed"]);
}

#[tokio::test(start_paused = true)]
async fn a_freeze_stops_a_signature_that_was_recorded_from_being_handed_out_again() {
    let stage = stage(tight());
    let begun = stage.start(stage.sale(1, &[PAY, Do::Wait, PAY]));
    stage.log.begun.notified().await;
    freeze(&stage).await;
    stage.log.gate.notify_one();
    let said = begun.await.unwrap();
    assert!(said.is(Reason::ProviderLost, Charged::No), "{said:?}");
    assert_eq!((stage.log.paid(), stage.state(1).await), (1, State::Held));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_asks_to_be_paid_elsewhere_is_not_paid() {
    let stage = Stage::new();
    let elsewhere = format!("{:#x}", Address::repeat_byte(0xee));
    let key = format!("merit/{}/{:#x}", usdc().network, usdc().address);
    stage.store.put("payees", &key, elsewhere.as_bytes(), None).await.unwrap();
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert!(said.is(Reason::PayeeChanged, Charged::No), "{said:?}");
    assert_eq!((stage.log.paid(), stage.state(1).await), (0, State::Voided));
    assert_eq!(stage.events(1).await, ["verified", "work_failed"]);
}

#[tokio::test(start_paused = true)]
async fn once_too_much_is_lost_clients_are_charged_first() {
    let stage = stage(Money { spend_per_hour: 1 << 40, provider_spend_per_hour: 1 << 40, ..tight() });
    // Paid a provider, and then the work failed: held, so it may be gone.
    let lost = stage.sell(stage.sale(1, &[PAY, Do::Fail(Reason::ProviderFailed)])).await;
    assert!(lost.is(Reason::ProviderLost, Charged::No), "{lost:?}");
    assert_eq!(stage.sell(stage.sale(2, &[PAY])).await.reason, Reason::Paid);
    assert_eq!(stage.events(2).await, ["settle_first", "settled", "signed", "answered"]);
    // What is not bought costs us nothing: it is done as the client signed it.
    let mut own = stage.sale(3, &[]);
    own.offer = None;
    assert_eq!(stage.sell(own).await.reason, Reason::Paid);
    assert_eq!(stage.events(3).await[0], "verified");
    // An hour later it is forgiven.
    stage.broker.guards().tend().await;
    stage.clock.advance(3_660_000);
    stage.broker.guards().tend().await;
    let mut late = stage.sale(4, &[PAY]);
    late.payment.authorization.valid_before = NOW + 4_000;
    assert_eq!(stage.sell(late).await.reason, Reason::Paid);
    assert_eq!(stage.events(4).await[0], "verified");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_collected_is_a_loss() {
    let stage = stage(tight());
    stage.facilitator.says(&[Settle::No("insufficient_funds")]);
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert!(said.is(Reason::Uncollected, Charged::No), "{said:?}");
    assert!(stage.broker.guards().losses_spent());
}

#[tokio::test(start_paused = true)]
async fn a_second_payment_is_taken_from_the_limits_too() {
    let stage = stage(Money { spend_per_hour: 9_000, provider_spend_per_hour: 9_000, ..tight() });
    let said = stage.sell(stage.sale(1, &[Do::Pay("a", 8_000), Do::Pay("b", 1_500)])).await;
    assert_eq!(stage.log.paid(), 1, "{said:?}");
    assert_eq!(stage.sell(stage.sale(2, &[Do::Pay("a", 1_000)])).await.reason, Reason::BudgetSpent);
}
