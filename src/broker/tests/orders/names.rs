//! Several payments for one request, by one name or two.

use super::*;

const NAMES: [(NameSort, &[u8]); 4] = [
    (NameSort::PaymentIdentifier, b"pay_0123456789abcdef"),
    (NameSort::IdempotencyKey, b"a-key"),
    (NameSort::PaymentIdentifier, b"pay_0123456789abcdeg"),
    (NameSort::IdempotencyKey, b"another-key"),
];

fn named(mut sale: Sale, names: &[usize]) -> Sale {
    let route = NamedRoute::new(&http::Method::POST, "shop.example", "/run");
    let name = |which: &usize| {
        let (sort, name) = NAMES[*which];
        RequestName::new(sort, Address::repeat_byte(0xbb), &route, name)
    };
    sale.names = names.iter().map(name).collect();
    sale.payment.authorization.valid_before = NOW + 900;
    sale
}

async fn named_alike(seed: u64, gateways: usize, crosswise: bool, hard: bool) {
    let _of = Of("named alike", seed);
    let mut world = World::new(seed, gateways, true);
    world.together = true;
    let no = || Err(FacilitatorError::Unknown("502".into()));
    for _ in 0..world.any(4) {
        world.stage.facilitator.verdicts.lock().push_back(no());
    }
    let within = world.one_of(&[1, 50, 3_000]);
    // What each payment calls the request stays what it is.
    let lists: &[&[usize]] = match crosswise {
        true => &[&[0, 1], &[1, 0], &[0], &[1], &[2, 1], &[0, 3]],
        false => &[&[0, 1]],
    };
    let names: Vec<&[usize]> = (0..4).map(|_| world.one_of(lists)).collect();
    let mut tasks = Vec::new();
    for _ in 0..10 {
        let number = 1 + world.any(3) as u8;
        let steps = if world.any(5) == 0 { vec![Do::Fail(Reason::ProviderFailed)] } else { vec![PAY] };
        let sale = named(world.stage.sale(number, &steps), names[number as usize]);
        tasks.push(world.present(sale, within));
    }
    for _ in 0..world.any(3) {
        tasks.push(world.sweep(5_000));
    }
    if hard {
        for _ in 0..world.any(3) {
            tasks.push(world.stand_still(world.one_of(&[6, 16, 61]), 5_000));
        }
    }
    world.all(tasks).await;
    // Nobody is locked out once it is quiet, but for the minute in which a claim may come.
    world.stage.facilitator.verdicts.lock().clear();
    let connected =
        names[1..].iter().all(|list| list.contains(&0)) || names[1..].iter().all(|list| list.contains(&1));
    let mut last = Vec::new();
    for round in 0..2 {
        for number in [1, 2, 3] {
            if round == 0 {
                world.stage.clock.advance(61_000);
            }
            let names = names[number as usize];
            let sale = named(world.stage.sale(number, &[PAY]), names);
            let answer = Arc::clone(&world.gateway().broker).sell(Box::new(sale), ());
            let said = Said::of(tokio::time::timeout(EVER, answer).await.unwrap());
            let waits = round > 0 && names.len() == 1 && said.reason == Reason::JobRunning;
            // Whoever stood still when its provider was paid may find that its job is held: it buys nothing any more.
            let held = hard && said.reason == Reason::ProviderLost && world.is_held(number).await;
            last.push((number, names, said));
            assert!(last.last().unwrap().2.status == 200 || waits || held, "order {seed}: {last:?}");
        }
    }
    let (paid, moved) = (world.stage.log.given().len(), world.stage.facilitator.moved());
    if connected {
        // Where one was paid and stood still, another may be paid by a payment that is safe.
        assert!(moved == 1 && (paid == 1 || hard), "order {seed}: {paid}, {moved}: {last:?}");
    }
    // Of one that is held it is known what became of it once nobody can settle its payment any more.
    world.stage.clock.advance(600_000);
    world.rest().await;
    world.check(&[1, 2, 3]).await;
}

#[tokio::test(start_paused = true)]
async fn three_payments_by_two_names() {
    for seed in 0..12 {
        named_alike(seed, 1, false, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn three_payments_by_two_names_on_two_gateways() {
    for seed in 0..12 {
        named_alike(seed, 2, false, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn three_payments_by_names_held_crosswise() {
    for seed in 0..12 {
        named_alike(seed, 1 + seed as usize % 2, true, false).await;
    }
}
