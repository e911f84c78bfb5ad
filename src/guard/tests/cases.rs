//! Limits, case by case: all of one can be had and no more, and what is not used comes back.

use super::super::level::IDLE;
use super::super::rate::{HOLD, HOUR, USE};
use super::*;

const LIMIT: u64 = 1_000;

#[tokio::test]
async fn all_of_a_limit_can_be_spent_and_no_more() {
    // Large enough for several sales in a slice.
    const LIMIT: u64 = 64_000;
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let rates: Vec<_> =
        (0..3).map(|_| Rate::new(store.clone(), clock.clone(), "spend".to_owned(), LIMIT)).collect();
    let mut spent = 0;
    for rate in rates.iter().cycle().take(440) {
        rate.take(7).await.unwrap().spend(7);
        spent += 7;
    }
    // Most sales ask nobody.
    assert!(store.inner.writes() < 160, "{} writes", store.inner.writes());
    for rate in rates.iter().cycle().take(9_000) {
        if let Ok(mut allowance) = rate.take(7).await {
            allowance.spend(7);
            spent += 7;
        }
    }
    assert!((LIMIT - 3 * 7..=LIMIT).contains(&spent), "{spent}");
    assert!(rates.iter().all(|rate| rate.lacks(7) && !rate.lacks(6)));

    clock.advance(u64::try_from((USE + HOLD + HOUR).as_millis()).unwrap());
    for rate in &rates {
        rate.tend().await;
        assert!(!rate.lacks(7), "there is enough again");
    }
}

#[tokio::test]
async fn dying_again_and_again_does_not_use_a_limit_up() {
    const LIMIT: u64 = 64_000;
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let rate = || Rate::new(store.clone(), clock.clone(), "spend".to_owned(), LIMIT);
    for _ in 0..500 {
        // Gone without a word, as in a kill: it had spent one unit.
        rate().take(1).await.unwrap().spend(1);
    }
    drop(rate().take(LIMIT / 2).await.unwrap());
}

#[tokio::test]
async fn what_is_not_spent_goes_back() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let rate = |_| Rate::new(store.clone(), clock.clone(), "spend".to_owned(), LIMIT);
    let [a, b] = [0, 1].map(rate);
    for _ in 0..50 {
        drop(a.take(LIMIT).await.unwrap());
    }
    assert_eq!(b.take(1).await.err(), Some(Refused::Spent), "it is in another's hand");
    a.give_back().await;
    drop(b.take(LIMIT).await.unwrap());
    b.give_back().await;
    assert_eq!(store.inner.drawn(SPACE, "spend").await.unwrap(), 0);
    // One that does nothing gives back in time, but for what it spent.
    a.take(400).await.unwrap().spend(300);
    clock.advance(millis(USE));
    a.tend().await;
    assert_eq!(store.inner.drawn(SPACE, "spend").await.unwrap(), 300);
}

#[tokio::test]
async fn a_lost_answer_draws_no_second_slice() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let rate = Rate::new(store.clone(), clock.clone(), "spend".to_owned(), LIMIT);
    store.luck.lock().extend([Luck::Unanswered; 20]);
    for _ in 0..20 {
        assert!(matches!(rate.take(400).await, Err(Refused::Away(_))));
    }
    let _kept = rate.take(400).await.unwrap();
    assert_eq!(store.inner.drawn(SPACE, "spend").await.unwrap(), 400);
}

#[tokio::test]
async fn a_sum_over_the_whole_limit_stops_nobody_else() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let guards = guards(&store, &clock).await;
    assert_eq!(reserve(&guards, "merit", 1, 5_000, None).await.err(), Some(Reason::BudgetSpent));
    assert_eq!(reserve(&guards, "merit", 1, u128::MAX, None).await.err(), Some(Reason::BudgetSpent));
    assert!(guards.refuses("merit", 10).is_none());
    assert!(reserve(&guards, "merit", 1, 10, None).await.is_ok());
}

#[tokio::test]
async fn each_limit_stops_what_it_is_for_and_nothing_is_kept_of_a_refusal() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let guards = guards(&store, &clock).await;
    let until = Some(NOW / 1000 + 60);
    let sign = |mut reserved: Reserved, number, amount| {
        reserved.sign(&claim(number), B256::ZERO, &usdc(), Amount::new(amount), MINUTE);
    };
    // One payer, then all payers.
    sign(reserve(&guards, "a", 1, 300, until).await.unwrap(), 1, 300);
    assert_eq!(reserve(&guards, "a", 1, 1, until).await.err(), Some(Reason::ExposureLimit));
    sign(reserve(&guards, "b", 2, 200, until).await.unwrap(), 2, 200);
    assert_eq!(reserve(&guards, "b", 3, 1, until).await.err(), Some(Reason::ExposureLimit));
    assert_eq!(guards.refuses("b", 1).map(|problem| problem.reason), Some(Reason::ExposureLimit));
    // What has settled exposes nothing, and what is paid upfront never did.
    guards.settled(&claim(2));
    assert!(reserve(&guards, "b", 3, 200, until).await.is_ok());
    guards.tend().await;
    assert!(guards.refuses("b", 1).is_none());
    // One provider, then all of them: 300 are spent with a, 200 with b.
    sign(reserve(&guards, "a", 4, 300, None).await.unwrap(), 4, 300);
    assert_eq!(reserve(&guards, "a", 4, 1, None).await.err(), Some(Reason::BudgetSpent));
    assert_eq!(guards.refuses("a", 1).map(|problem| problem.reason), Some(Reason::BudgetSpent));
    assert!(guards.refuses("b", 1).is_none());
    sign(reserve(&guards, "b", 4, 200, None).await.unwrap(), 4, 200);
    assert_eq!(reserve(&guards, "c", 4, 1, None).await.err(), Some(Reason::BudgetSpent));
    let text = guards.metrics.exposition().unwrap();
    for guard in ["spend", "provider_spend", "exposure", "payer_exposure"] {
        assert!(text.contains(&format!("guard_refusals_total{{guard=\"{guard}\"}}")), "{text}");
    }
}

#[tokio::test]
async fn a_dead_process_exposes_until_its_payments_lapse() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let dead = guards(&store, &clock).await;
    let mut reserved = reserve(&dead, "a", 1, 300, Some(NOW / 1000 + 60)).await.unwrap();
    reserved.sign(&claim(1), B256::ZERO, &usdc(), Amount::new(300), MINUTE);
    std::mem::forget((dead, reserved));

    let heir = guards(&store, &clock).await;
    let until = |clock: &Clock| Some(clock.now() + 60);
    assert_eq!(reserve(&heir, "b", 1, 300, until(&clock)).await.err(), Some(Reason::ExposureLimit));
    clock.advance(400_000);
    assert!(reserve(&heir, "b", 1, 300, until(&clock)).await.is_ok());
    // A job that is taken over is out here, even where there is no room for it.
    heir.adopt(&claim(2), Address::repeat_byte(1), &[(usdc(), Amount::new(450))]);
    assert_eq!(reserve(&heir, "b", 1, 1, until(&clock)).await.err(), Some(Reason::ExposureLimit));
    heir.settled(&claim(2));
    assert!(reserve(&heir, "b", 1, 300, until(&clock)).await.is_ok());
}

#[tokio::test]
async fn room_is_given_back_and_what_is_out_is_kept_alive() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let guards = guards(&store, &clock).await;
    let until = Some(NOW / 1000 + 60);
    let mut reserved = reserve(&guards, "a", 1, 100, until).await.unwrap();
    reserved.sign(&claim(1), B256::ZERO, &usdc(), Amount::new(60), MINUTE);
    drop(reserved);
    let drawn = async || {
        let all = store.inner.drawn(SPACE, "exposure").await.unwrap();
        let key = format!("exposure/{:#x}", Address::repeat_byte(1));
        (all, store.inner.drawn(SPACE, &key).await.unwrap())
    };
    assert!(drawn().await > (60, 60));
    clock.advance(millis(IDLE));
    guards.tend().await;
    assert_eq!(drawn().await, (60, 60));
    // The settlement hangs, long after the payment has lapsed.
    for _ in 0..20 {
        clock.advance(60_000);
        guards.tend().await;
        assert_eq!(drawn().await, (60, 60));
    }
    guards.settled(&claim(1));
    clock.advance(millis(IDLE));
    guards.tend().await;
    assert_eq!(drawn().await, (0, 0));
    assert_eq!(guards.exposure.payers(), 0, "payers are forgotten");
}

#[tokio::test]
async fn nothing_is_spent_while_the_store_is_away() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let guards = guards(&store, &clock).await;
    let until = Some(NOW / 1000 + 60);
    drop(reserve(&guards, "a", 1, 10, until).await.unwrap());
    store.away.store(true, Ordering::SeqCst);
    // From slices that are in hand, at most as long as they last.
    assert!(reserve(&guards, "a", 1, 10, until).await.is_ok());
    assert_eq!(reserve(&guards, "a", 2, 10, until).await.err(), Some(Reason::StoreAway));
    assert_eq!(reserve(&guards, "b", 1, 10, None).await.err(), Some(Reason::StoreAway));
    clock.advance(millis(USE));
    assert_eq!(reserve(&guards, "a", 1, 10, None).await.err(), Some(Reason::StoreAway));
}

#[tokio::test]
async fn losses_add_up_over_processes_and_are_forgotten_in_an_hour() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let (a, b) = (guards(&store, &clock).await, guards(&store, &clock).await);
    a.lost(&usdc(), Amount::new(60));
    b.lost(&usdc(), Amount::new(30));
    a.lost(&usdc(), Amount::new(9));
    for guards in [&a, &b, &a, &b] {
        guards.tend().await;
        assert!(!guards.losses_spent());
    }
    clock.advance(120_000);
    a.lost(&usdc(), Amount::new(1));
    assert!(a.losses_spent(), "at once, where it happened");
    store.away.store(true, Ordering::SeqCst);
    a.tend().await;
    assert!(a.losses_spent());
    store.away.store(false, Ordering::SeqCst);
    a.tend().await;
    b.tend().await;
    assert!(b.losses_spent(), "and everywhere, soon");
    let late = guards(&store, &clock).await;
    assert!(late.losses_spent(), "a new process knows of it");
    clock.advance(millis(HOUR));
    for guards in [&a, &b, &late] {
        guards.tend().await;
        assert!(!guards.losses_spent());
    }
}

#[tokio::test]
async fn until_losses_are_known_clients_pay_upfront() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    store.away.store(true, Ordering::SeqCst);
    let guards = guards(&store, &clock).await;
    assert!(guards.losses_spent());
    store.away.store(false, Ordering::SeqCst);
    guards.tend().await;
    assert!(!guards.losses_spent());
}

#[tokio::test]
async fn a_loss_on_quotes_is_borne_within_its_limit() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let guards = guards(&store, &clock).await;
    drop(guards.bear(50).await.unwrap());
    guards.bear(45).await.unwrap().made();
    assert!(guards.bear(6).await.is_none());
    drop(guards.bear(5).await.unwrap());
}

#[tokio::test]
async fn what_is_taken_in_time_and_spent_late_counts_for_an_hour_from_then() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let rate = |_| Rate::new(store.clone(), clock.clone(), "spend".to_owned(), LIMIT);
    let [a, b] = [0, 1].map(rate);
    drop(a.take(900).await.unwrap());
    clock.advance(millis(USE) - 1);
    let mut late = a.take(900).await.unwrap();
    clock.advance(millis(HOLD) - 1);
    assert!(late.is_good());
    late.spend(900);
    // It dies here, having told the store nothing.
    clock.advance(millis(HOUR) - 1);
    assert_eq!(b.take(101).await.err(), Some(Refused::Spent));
    clock.advance(millis(USE));
    assert!(b.take(LIMIT).await.is_ok());
    assert!(!late.is_good());
}

#[tokio::test]
async fn what_comes_back_of_an_old_slice_is_not_put_into_a_new_one() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let rate = Rate::new(store.clone(), clock.clone(), "spend".to_owned(), LIMIT);
    let old = rate.take(500).await.unwrap();
    clock.advance(millis(USE));
    rate.take(500).await.unwrap().spend(500);
    drop(old);
    assert_eq!(rate.take(501).await.err(), Some(Refused::Spent));
    // But it can be had of the limit: nobody spent it.
    rate.take(500).await.unwrap().spend(500);
    assert_eq!(rate.take(1).await.err(), Some(Refused::Spent));
}

#[tokio::test]
async fn what_comes_back_of_an_old_slice_is_for_others_too() {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let rate = |_| Rate::new(store.clone(), clock.clone(), "spend".to_owned(), LIMIT);
    let [a, b] = [0, 1].map(rate);
    let (mut first, second) = (a.take(600).await.unwrap(), a.take(400).await.unwrap());
    first.spend(100);
    drop((first, second));
    // The second is back in its slice, the rest of the first belongs to one that is gone.
    assert_eq!(b.take(1).await.err(), Some(Refused::Spent));
    a.tend().await;
    assert_eq!(b.take(501).await.err(), Some(Refused::Spent));
    b.take(500).await.unwrap().spend(500);
    clock.advance(millis(USE));
    a.tend().await;
    assert_eq!(b.take(401).await.err(), Some(Refused::Spent));
    assert!(b.take(400).await.is_ok());
}
