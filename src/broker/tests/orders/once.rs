//! One payment, presented often, on one gateway and on several: one piece of work, one charge.

use super::Settle::*;
use super::*;

/// How a sale is paid for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Flow {
    Success,
    Upfront,
    After,
}

impl World {
    pub(super) fn bought(&self, number: u8, flow: Flow, steps: &[Do]) -> Sale {
        let mut sale = self.stage.sale(number, steps);
        match flow {
            Flow::Success => {}
            Flow::Upfront => sale.requirement.flow = PaymentFlow::Upfront,
            Flow::After => {
                (sale.after, sale.offer, sale.kind) = (true, None, JobKind::App);
                (sale.sold.provider, sale.sold.cost) = ("app".into(), Amount::ZERO);
            }
        }
        sale
    }

    fn steps(&self, flow: Flow) -> Vec<Do> {
        let fails = Do::Fail(Reason::ProviderFailed);
        match (flow, self.any(6)) {
            (Flow::After, 0) => vec![fails],
            (Flow::After, _) => vec![],
            (_, 0) => vec![fails],
            (_, 1) => vec![PAY, fails],
            (_, 2) => vec![PAY, PAY],
            _ => vec![PAY],
        }
    }
}

async fn presented_often(seed: u64, gateways: usize, hard: bool) {
    let _of = Of("presented often", seed);
    let knows = seed.is_multiple_of(2);
    let world = World::new(seed, gateways, knows);
    let flow = world.one_of(&[Flow::Success, Flow::Upfront, Flow::After]);
    let no = || Err(FacilitatorError::Unknown("502".into()));
    for _ in 0..world.any(3) {
        world.stage.facilitator.verdicts.lock().push_back(no());
    }
    for _ in 0..world.any(3) {
        let one = world.one_of(&[
            Lost,
            Silent,
            NotSent,
            No("insufficient_funds"),
            Pending,
            No("nonce_already_used"),
        ]);
        world.stage.facilitator.says(&[one]);
    }
    let within = world.one_of(&[1, 50, 3_000]);
    let mut tasks = Vec::new();
    for _ in 0..10 {
        let steps = world.steps(flow);
        tasks.push(world.present(world.bought(1, flow, &steps), within));
    }
    for _ in 0..world.any(4) {
        tasks.push(world.sweep(5_000));
    }
    if hard {
        for _ in 0..world.any(3) {
            tasks.push(world.stand_still(world.one_of(&[6, 16, 61]), 5_000));
        }
        if world.any(2) == 0 {
            tasks.push(world.cut_off(3_000, world.one_of(&[1, 8, 40])));
        }
    }
    world.all(tasks).await;
    if !hard {
        world.check_quiet(&[1]).await;
    }
    world.rest().await;
    world.check_again(1).await;
    world.check(&[1]).await;
}

#[tokio::test(start_paused = true)]
async fn on_one_gateway() {
    for seed in 0..20 {
        presented_often(seed, 1, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn on_two_gateways() {
    for seed in 0..20 {
        presented_often(seed, 2, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn on_gateways_that_stand_still_and_lose_their_store() {
    for seed in 0..20 {
        presented_often(seed, 2, true).await;
    }
}
