//! Answered before it is paid for: how the payment is settled behind the answer, and who is not trusted any more.

use super::Settle::*;
use super::trap::Trick;
use super::*;
use crate::chain::Unpaid;
use crate::config::resolved::Limits as Money;
use crate::guard::Switch;

/// Room for three answers at one time, two of one payer, and two that are never paid for.
fn stage() -> Stage {
    Stage::guarded(64, |store, clock, metrics| {
        let limits = Money {
            spend_per_hour: 1 << 40,
            provider_spend_per_hour: 1 << 40,
            exposure: 1 << 40,
            payer_exposure: 1 << 40,
            loss_per_hour: 1 << 40,
            quote_loss_per_hour: 0,
            profit_floor: None,
            unsettled: 30_000,
            payer_unsettled: 20_000,
            uncollected_per_hour: 20_000,
        };
        let switch = Switch::Store(Arc::clone(&store));
        let guards = Guards::new(store, clock, metrics, &limits, switch);
        guards.assume_well();
        guards
    })
}

impl Stage {
    /// A sale of the app's own work that is answered first.
    fn after(&self, number: u8, steps: &[Do]) -> Sale {
        let mut sale = self.sale(number, steps);
        (sale.after, sale.offer, sale.kind) = (true, None, JobKind::App);
        (sale.sold.provider, sale.sold.cost) = ("app".into(), Amount::ZERO);
        sale
    }

    /// The same for another payer.
    fn after_for(&self, payer: u8, number: u8) -> Sale {
        let mut sale = self.after(number, &[]);
        sale.payment.authorization.from = Address::repeat_byte(payer);
        sale
    }

    /// Waits until the job of this number is so.
    pub(super) async fn until(&self, number: u8, state: State) {
        for _ in 0..200 {
            if self.state(number).await == state {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("it is {}", self.state(number).await.name());
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_comes_before_the_settlement() {
    let stage = stage();
    *stage.facilitator.for_ever.lock() = Some(NotSent);
    let said = stage.sell(stage.after(1, &[])).await;
    assert_eq!((said.reason, said.body.as_str(), said.receipt), (Reason::Trusted, "run 1", None));
    assert_eq!((stage.facilitator.moved(), stage.state(1).await), (0, State::Settling));
    // The same payment again gets the same answer, and is not settled twice for it.
    let said = stage.sell(stage.after(1, &[])).await;
    assert_eq!((said.reason, said.body.as_str(), said.receipt), (Reason::Replayed, "run 1", None));
    *stage.facilitator.for_ever.lock() = None;
    stage.until(1, State::Completed).await;
    assert_eq!(stage.events(1).await, ["verified", "trusted", "answered", "settled"]);
    // What leads to the answer is one record.
    assert_eq!(stage.store.appends.lock()[0], ["verified", "trusted", "answered"]);
    let said = stage.sell(stage.after(1, &[])).await;
    assert_eq!(
        (said.reason, said.body.as_str(), said.receipt),
        (Reason::Replayed, "run 1", Some(Version::V2))
    );
    assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1));
}

/// The client has nothing yet, and may try again.
#[tokio::test(start_paused = true)]
async fn nothing_is_answered_without_a_record() {
    let stage = stage();
    stage.store.trap("answered", &[Trick::Before, Trick::Before, Trick::Before]);
    let said = stage.sell(stage.after(1, &[])).await;
    assert!(said.is(Reason::StoreAway, Charged::Unknown), "{said:?}");
    assert_eq!((stage.facilitator.asked(), stage.state(1).await), (0, State::Claimed));
    stage.recover().await;
    assert_eq!(stage.sell(stage.after(1, &[])).await.body, "run 2");
    stage.until(1, State::Completed).await;
    // Work that fails is charged to nobody, as ever.
    let said = stage.sell(stage.after(2, &[Do::Fail(Reason::AppFailed)])).await;
    assert!(said.is(Reason::AppFailed, Charged::No), "{said:?}");
    assert_eq!((stage.state(2).await, stage.job(2).await.trusted), (State::Voided, false));
}

#[tokio::test(start_paused = true)]
async fn a_payer_who_did_not_pay_once_pays_first_from_then_on() {
    let stage = stage();
    stage.facilitator.says(&[No("insufficient_funds")]);
    assert_eq!(stage.sell(stage.after(1, &[])).await.reason, Reason::Trusted);
    stage.until(1, State::Uncollected).await;
    // It has the answer, and is not given it again.
    let said = stage.sell(stage.after(1, &[])).await;
    assert!(said.is(Reason::Uncollected, Charged::No) && said.status == 402, "{said:?}");

    stage.facilitator.says(&[No("insufficient_funds")]);
    let said = stage.sell(stage.after(2, &[])).await;
    assert!(said.is(Reason::PaymentRejected, Charged::No), "{said:?}");
    assert_eq!(stage.log.runs(), 1, "no work without the money");
    let said = stage.sell(stage.after(3, &[])).await;
    assert_eq!((said.reason, said.receipt), (Reason::Paid, Some(Version::V2)));
    // Others are trusted as before.
    assert_eq!(stage.sell(stage.after_for(0xbc, 4)).await.reason, Reason::Trusted);
}

#[tokio::test(start_paused = true)]
async fn when_too_much_is_out_it_is_settled_first_again() {
    let stage = stage();
    *stage.facilitator.for_ever.lock() = Some(Silent);
    for number in [1, 2] {
        assert_eq!(stage.sell(stage.after(number, &[])).await.reason, Reason::Trusted);
    }
    // One payer has his two answers out.
    let said = stage.sell(stage.after(3, &[])).await;
    assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
    assert!(!stage.job(3).await.trusted);
    // And all together have three.
    assert_eq!(stage.sell(stage.after_for(0xbc, 4)).await.reason, Reason::Trusted);
    assert_eq!(stage.sell(stage.after_for(0xbd, 5)).await.reason, Reason::SettlementUnknown);
    // What is settled makes room, also where recovery did it.
    *stage.facilitator.for_ever.lock() = None;
    stage.recover().await;
    stage.until(1, State::Completed).await;
    stage.until(2, State::Completed).await;
    stage.broker.guards().tend().await;
    assert_eq!(stage.sell(stage.after(6, &[])).await.reason, Reason::Trusted);
}

#[tokio::test(start_paused = true)]
async fn when_too_much_was_never_paid_for_nobody_is_trusted_for_a_while() {
    let stage = stage();
    for payer in [1, 2] {
        stage.facilitator.says(&[No("insufficient_funds")]);
        let sale = stage.after_for(payer, payer);
        assert_eq!(stage.sell(sale).await.reason, Reason::Trusted);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(stage.sell(stage.after_for(3, 3)).await.reason, Reason::Paid);
    stage.broker.guards().tend().await;
    assert_eq!(stage.sell(stage.after_for(4, 4)).await.reason, Reason::Paid);
    stage.clock.advance(3_700_000);
    stage.broker.guards().tend().await;
    stage.broker.guards().assume_well();
    let mut sale = stage.after_for(5, 5);
    sale.payment.authorization.valid_before += 3_700;
    assert_eq!(stage.sell(sale).await.reason, Reason::Trusted);
}

/// The process ends behind the answer: recovery finds out what became of the payment.
#[tokio::test(start_paused = true)]
async fn what_is_not_settled_behind_the_answer_is_for_recovery() {
    for (proof, ends) in [
        (Proof::Paid { transaction: B256::repeat_byte(9), block: 80, is_final: true }, State::Completed),
        (Proof::Unpaid(Unpaid::Canceled), State::Uncollected),
    ] {
        let stage = stage();
        *stage.facilitator.for_ever.lock() = Some(Silent);
        assert_eq!(stage.sell(stage.after(1, &[])).await.reason, Reason::Trusted);
        // The hold is over, and nobody knows.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.state(1).await, State::Settling);
        let said = stage.sell(stage.after(1, &[])).await;
        assert_eq!((said.reason, said.body.as_str()), (Reason::Replayed, "run 1"));
        stage.chain.says(Ok(proof));
        stage.recover().await;
        assert_eq!(stage.state(1).await, ends);
    }
}

/// What the wallet pays for is never answered first, whatever the sale says.
#[tokio::test(start_paused = true)]
async fn brokered_work_is_never_answered_first() {
    let stage = stage();
    let mut sale = stage.sale(1, &[PAY]);
    sale.after = true;
    assert_eq!(stage.sell(sale).await.reason, Reason::Paid);
    assert!(!stage.job(1).await.trusted);
}
