//! Answers that are handed out beside their record: given whole, or owed, and never both.

use super::*;

/// What a client got of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Got {
    Whole,
    /// The first stream of it broke off.
    Broke,
    /// What was kept of it did.
    Short,
    Left,
    /// No body.
    Said(Reason),
}

fn keeping(seed: u64, gateways: usize, folder: &tempfile::TempDir) -> World {
    keeping_on(Stage::new(), seed, gateways, folder)
}

/// On a stage of its own.
pub(super) fn keeping_on(stage: Stage, seed: u64, gateways: usize, folder: &tempfile::TempDir) -> World {
    let together = [0, 9, 20, 1 << 20][seed as usize % 4];
    let change = |broker: Broker, trap: &Arc<Trap>| {
        let limits = ResultLimits {
            folder: folder.path().to_owned(),
            largest: together,
            together,
            retention: RETENTION,
            linger: Duration::from_secs(5),
        };
        let clock = broker.clock.clone();
        broker.keeping(Results::new(limits, clock, Arc::default(), Some(trap.clone())))
    };
    World::on(stage, seed, gateways, true, Guards::lax, change)
}

impl World {
    /// Presents it and reads what comes, or leaves in the middle.
    pub(super) fn read(
        &self,
        sale: Sale,
        within: u64,
        got: &Arc<Mutex<Vec<(u8, Got)>>>,
    ) -> tokio::task::JoinHandle<()> {
        let number = sale.payment.authorization.nonce[0];
        let (broker, got) = (Arc::clone(&self.gateway().broker), Arc::clone(got));
        let (pause, leaves, slow) = (self.any(within), self.any(4) == 0, self.any(800));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let (guard, written) = tokio::sync::oneshot::channel::<()>();
            let delivery = tokio::time::timeout(EVER, broker.sell(Box::new(sale), guard)).await.unwrap();
            let (body, broke) = match delivery.body {
                DeliveryBody::Stream(body) => (Some(body), Got::Broke),
                DeliveryBody::Kept(kept) => (Some(kept.whole()), Got::Short),
                _ => (None, Got::Short),
            };
            let mut what = Got::Said(delivery.reason);
            if let Some(mut body) = body {
                let mut read = 0;
                what = loop {
                    match body.frame().await {
                        None if read == 9 => break Got::Whole,
                        None | Some(Err(_)) => break broke,
                        Some(Ok(frame)) => read += frame.into_data().unwrap().len(),
                    }
                    tokio::time::sleep(Duration::from_millis(slow)).await;
                    if leaves && read < 9 {
                        break Got::Left;
                    }
                };
            }
            got.lock().push((number, what));
            let _ = tokio::time::timeout(EVER, written).await.expect("never written");
        })
    }
}

async fn handed_out(seed: u64, gateways: usize, hard: bool) {
    let _of = Of("handed out", seed);
    let folder = tempfile::tempdir().unwrap();
    let world = keeping(seed, gateways, &folder);
    let numbers = [1, 2, 3];
    let got: Arc<Mutex<Vec<(u8, Got)>>> = Arc::default();
    let within = world.one_of(&[1, 500, 3_000]);
    let breaks: Vec<bool> = (0..4).map(|_| world.any(3) == 0).collect();
    let flow = world.one_of(&[once::Flow::Success, once::Flow::Upfront, once::Flow::After]);
    for _ in 0..world.any(2) {
        world.stage.facilitator.says(&[world.one_of(&[Settle::Lost, Settle::Silent])]);
    }
    let mut tasks = Vec::new();
    for _ in 0..4 {
        for number in numbers {
            let parts = Do::Parts { breaks: breaks[number as usize] };
            let steps = if flow == once::Flow::After { vec![parts] } else { vec![PAY, parts] };
            tasks.push(world.read(world.bought(number, flow, &steps), within, &got));
        }
    }
    for _ in 0..world.any(5) {
        tasks.push(world.sweep(4_000));
    }
    if hard {
        for _ in 0..world.any(3) {
            tasks.push(world.stand_still(world.one_of(&[16, 61]), 4_000));
        }
        if world.any(2) == 0 {
            tasks.push(world.cut_off(3_000, world.one_of(&[1, 20])));
        }
    }
    world.all(tasks).await;
    if !hard {
        world.check_quiet(&numbers).await;
    }
    for _ in 0..2 {
        // What broke off after its job was given back.
        for gateway in &world.gateways {
            gateway.broker.owe_broken(&|| Some(())).await;
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    if !hard {
        for number in numbers {
            let state = world.found(number).await.unwrap().state;
            let got: Vec<Got> =
                got.lock().iter().filter(|(of, _)| *of == number).map(|(_, got)| *got).collect();
            if got.contains(&Got::Whole) {
                assert_ne!(state, State::RefundDue, "order {seed}: {number} {got:?}");
            } else if got.contains(&Got::Broke) && flow != once::Flow::After {
                assert_eq!(state, State::RefundDue, "order {seed}: {number} {got:?}");
            }
        }
    }
    world.rest().await;
    for number in numbers {
        world.check_again(number).await;
    }
    world.check(&numbers).await;
}

#[tokio::test(start_paused = true)]
async fn answers_are_given_or_owed_on_one_gateway() {
    for seed in 0..15 {
        handed_out(seed, 1, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_given_or_owed_on_two_gateways() {
    for seed in 0..15 {
        handed_out(seed, 2, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn answers_of_gateways_that_stand_still_end_once() {
    for seed in 0..15 {
        handed_out(seed, 2, true).await;
    }
}
