//! Several gateways that work with one limit: never more than that, and all of it is back in the end.

use super::*;
use crate::broker::tests::trap::Trick;
use crate::config::resolved::Limits as Money;
use crate::guard::Switch;

const MUCH: u64 = 1 << 40;

fn limited(seed: u64, exposure: u64, spend: u64) -> World {
    let limits = Money {
        spend_per_hour: spend,
        provider_spend_per_hour: spend,
        exposure,
        payer_exposure: exposure,
        loss_per_hour: MUCH,
        quote_loss_per_hour: 0,
        profit_floor: None,
        unsettled: exposure,
        payer_unsettled: exposure,
        uncollected_per_hour: MUCH,
    };
    let guards = move |store: Arc<dyn crate::jobs::ValueStore>, clock, metrics| {
        let switch = Switch::Store(Arc::clone(&store));
        let guards = Guards::new(store, clock, metrics, &limits, switch);
        guards.assume_well();
        guards
    };
    World::with(seed, 2, true, guards, |broker, _| broker)
}

impl World {
    /// What is out of these: paid for, and neither settled nor at rest.
    async fn out(&self, numbers: &[u8]) -> u64 {
        let mut out = 0;
        for number in numbers {
            let Some(job) = self.found(*number).await else { continue };
            if !job.state.at_rest() && !self.stage.facilitator.has_moved(*number) {
                out += job.provider.len() as u64 * COST as u64;
                out += u64::from(job.answered_first()) * PRICE as u64;
            }
        }
        out
    }
}

async fn sold_at_once(seed: u64, exposure: u64, spend: u64, hard: bool) {
    let _of = Of("sold at once", seed);
    let world = limited(seed, exposure, spend);
    let numbers: Vec<u8> = (1..=10).collect();
    let after = world.any(3) == 0;
    for _ in 0..world.any(3) {
        let one = world.one_of(&[Settle::Lost, Settle::Silent, Settle::No("insufficient_funds")]);
        world.stage.facilitator.says(&[one]);
    }
    let within = world.one_of(&[1, 500, 3_000]);
    let mut tasks = Vec::new();
    for number in numbers.iter().chain(&numbers) {
        let flow = if after { once::Flow::After } else { once::Flow::Success };
        let steps = match (after, world.any(4)) {
            (_, 0) => vec![Do::Fail(Reason::ProviderFailed)],
            (true, _) => vec![],
            (false, _) => vec![PAY],
        };
        tasks.push(world.present(world.bought(*number, flow, &steps), within));
    }
    for _ in 0..world.any(4) {
        tasks.push(world.sweep(3_000));
    }
    if hard {
        for _ in 0..2 {
            tasks.push(world.stand_still(world.one_of(&[16, 61]), 20_000));
            tasks.push(world.cut_off(1_000, world.one_of(&[1, 20, 40])));
            tasks.push(world.sweep(30_000));
        }
    }
    for _ in 0..40 {
        let out = world.out(&numbers).await;
        assert!(out <= exposure || hard, "order {seed}: {out} is out");
        tokio::time::sleep(Duration::from_millis(world.any(200))).await;
        if world.any(4) == 0 {
            world.gateway().broker.guards().tend().await;
        }
    }
    world.all(tasks).await;
    if !hard {
        world.check_quiet(&numbers).await;
    }
    let paid = world.stage.log.given().len() as u64 * COST as u64;
    assert!(paid <= spend, "order {seed}: {paid} was spent");
    world.rest().await;
    world.check(&numbers).await;
    if !hard {
        let drawn = world.stage.store.inner.drawn("limits", "spend").await.unwrap();
        assert_eq!(drawn, paid, "order {seed}: drawn, and spent");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_out_is_within_the_limit() {
    for seed in 0..8 {
        sold_at_once(seed, 20_000, MUCH, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_spent_is_within_the_limit() {
    for seed in 0..8 {
        sold_at_once(seed, MUCH, 40_000, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn all_is_back_though_gateways_lose_their_store() {
    for seed in 0..8 {
        sold_at_once(seed, 40_000, MUCH, true).await;
    }
}

/// The store goes away while a payment is signed. Whether that was recorded is never known here, and another ends the job.
#[tokio::test(start_paused = true)]
async fn what_was_never_recorded_is_back_once_another_has_ended_the_job() {
    let world = limited(0, 20_000, MUCH);
    let here = &world.gateways[0];
    here.trap.trap("signed", &[Trick::Before, Trick::Before, Trick::Before, Trick::Stolen]);
    let (guard, written) = tokio::sync::oneshot::channel::<()>();
    let sale = Box::new(world.stage.sale(1, &[PAY]));
    let said = Said::of(Arc::clone(&here.broker).sell(sale, guard).await);
    assert!(said.is(Reason::JobRunning, Charged::Unknown), "{said:?}");
    here.trap.go_away(true);
    world.stage.clock.advance(61_000);
    world.gateways[1].recovery.sweep(&|| Some(())).await;
    assert_eq!(world.stage.state(1).await, State::Voided);
    here.trap.go_away(false);
    assert!(written.await.is_err());
    world.rest().await;
    world.check(&[1]).await;
}
