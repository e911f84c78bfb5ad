use super::super::testing::{self, FakeProvider, MemoryStore, NOW, store_ask};
use super::*;
use crate::clock::Clock;

fn parts() -> (Clock, Arc<MemoryStore>) {
    let clock = Clock::manual(NOW);
    (clock.clone(), MemoryStore::new(clock))
}

#[tokio::test]
async fn the_usual_prices_are_there_before_anybody_asks() {
    let (clock, store) = parts();
    let provider = FakeProvider::new("a", 1_000);
    let cache = testing::cache(&[&provider], &store, &clock).await;
    cache.round(&mut Backoff::default()).await;
    // Files and JSON, for a while and for good; nobody runs programs here.
    assert_eq!(cache.quotes().len(), 4);
    assert!(cache.lookup(&store_ask(10), NOW).is_some());
    cache.round(&mut Backoff::default()).await;
    assert_eq!(provider.probes(), 4);
}

#[tokio::test]
async fn a_quote_in_use_is_renewed_before_it_ends_and_an_idle_one_is_not() {
    let (clock, store) = parts();
    let provider = FakeProvider::new("a", 1_000);
    let cache = testing::cache(&[&provider], &store, &clock).await;
    let mut backoff = Backoff::default();
    cache.round(&mut backoff).await;
    let (used, large) = (store_ask(10), store_ask(2_000_000));
    cache.fetch(&large).await.unwrap();
    provider.set_price(2_000);
    clock.advance(239_999);
    cache.round(&mut backoff).await;
    assert_eq!(provider.probes(), 5);
    clock.advance(1);
    cache.round(&mut backoff).await;
    assert_eq!(provider.probes(), 10);
    // Before its end, without a gap.
    let renewed = cache.lookup(&used, clock.now_millis()).unwrap();
    assert_eq!(renewed.prices[0].amount.units(), 2_400);
    // The large one was not asked for again since, so it is let go.
    clock.advance(240_000);
    cache.round(&mut backoff).await;
    assert_eq!(provider.probes(), 14);
    clock.advance(60_000);
    assert!(cache.lookup(&large, clock.now_millis()).is_none());
    assert!(cache.lookup(&used, clock.now_millis()).is_some());
}

#[tokio::test]
async fn failing_probes_are_spaced_out_and_leave_the_old_quote_alone() {
    let (clock, store) = parts();
    let provider = FakeProvider::new("a", 1_000);
    let cache = testing::cache(&[&provider], &store, &clock).await;
    let mut backoff = Backoff::default();
    cache.round(&mut backoff).await;
    provider.set_broken(true);
    clock.advance(240_000);
    let mut tried = Vec::new();
    for second in 0..70u64 {
        let before = provider.probes();
        cache.round(&mut backoff).await;
        if provider.probes() > before {
            tried.push(second);
        }
        if second < 60 {
            assert!(cache.lookup(&store_ask(10), clock.now_millis()).is_some(), "{second}");
        }
        clock.advance(1_000);
    }
    assert_eq!(tried, [0, 1, 3, 7, 15, 31, 63]);
    provider.set_broken(false);
    clock.advance(60_000);
    cache.round(&mut backoff).await;
    assert!(cache.lookup(&store_ask(10), clock.now_millis()).is_some());
}

#[tokio::test(start_paused = true)]
async fn who_was_late_is_asked_again_soon() {
    let (clock, store) = parts();
    let (slow, dear) = (FakeProvider::gated("slow", 1_000), FakeProvider::new("dear", 50_000));
    let cache = testing::cache(&[&slow, &dear], &store, &clock).await;
    let mut backoff = Backoff::default();
    let seller = || cache.lookup(&store_ask(10), clock.now_millis()).unwrap().terms.provider.clone();
    let mut tried = Vec::new();
    for second in 0..16u64 {
        let before = slow.probes();
        cache.round(&mut backoff).await;
        if slow.probes() > before {
            tried.push(second);
        }
        assert_eq!(seller(), "dear");
        clock.advance(1_000);
    }
    assert_eq!(tried, [0, 1, 3, 7, 15]);
    slow.release();
    clock.advance(16_000);
    cache.round(&mut backoff).await;
    assert_eq!(seller(), "slow");
    // Now all are heard, so it is good until its end.
    let asked = slow.probes();
    clock.advance(200_000);
    cache.round(&mut backoff).await;
    assert_eq!(slow.probes(), asked);
}

#[tokio::test]
async fn it_stops_when_told_even_while_a_provider_is_silent() {
    let (clock, store) = parts();
    let provider = FakeProvider::gated("a", 1_000);
    let cache = testing::cache(&[&provider], &store, &clock).await;
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(cache.run(stopped));
    while provider.probes() == 0 {
        tokio::task::yield_now().await;
    }
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
}
