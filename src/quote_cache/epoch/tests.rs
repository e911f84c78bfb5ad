use super::super::testing::{self, FakeProvider, MemoryStore, NOW, store_ask};
use super::*;
use crate::quote_cache::{Buckets, QuoteCache};

const TTL: u64 = 300_000;

async fn shown(provider: &Arc<FakeProvider>, store: &Arc<MemoryStore>, clock: &Clock) -> Arc<QuoteCache> {
    let cache = testing::cache(&[provider], store, clock).await;
    cache.fetch(&store_ask(10)).await.unwrap();
    cache
}

fn matched(epochs: &Epochs, size: u64, value: u128, now: UnixMillis) -> Option<Terms> {
    let (ask, buckets) = (store_ask(size), Buckets::new(&[1_000_000, 10_000_000], []));
    let key = QuoteKey::of(&ask, &buckets).unwrap();
    let asset = testing::asset();
    epochs.match_v1(&key, asset.network, asset.address, Amount::new(value), now).cloned()
}

#[tokio::test]
async fn a_price_is_matched_exactly_and_only_for_its_key() {
    let (clock, provider) = (Clock::manual(NOW), FakeProvider::new("a", 1_000));
    let cache = shown(&provider, &MemoryStore::new(clock.clone()), &clock).await;
    let epochs = cache.epochs();
    assert_eq!(matched(&epochs, 999, 1_200, NOW).unwrap().provider, "a");
    assert_eq!(matched(&epochs, 999, 1_199, NOW), None);
    assert_eq!(matched(&epochs, 999, 1_201, NOW), None);
    assert_eq!(matched(&epochs, 1_000_001, 1_200, NOW), None);
    let key = QuoteKey { kind: crate::intake::Kind::Json, ..cache.quotes()[0].key.clone().unwrap() };
    let asset = testing::asset();
    assert_eq!(epochs.match_v1(&key, asset.network, asset.address, Amount::new(1_200), NOW), None);
}

#[tokio::test]
async fn an_old_price_stands_until_its_last_challenge_lapses() {
    let clock = Clock::manual(NOW);
    let (provider, store) = (FakeProvider::new("a", 1_000), MemoryStore::new(clock.clone()));
    let cache = shown(&provider, &store, &clock).await;
    // Shown for the last time just before the quote expires, so honoured for twice its time, and the grace.
    let last = NOW + 2 * TTL + 30_000;
    provider.set_price(2_000);
    clock.advance(TTL);
    cache.fetch(&store_ask(10)).await.unwrap();
    assert!(matched(&cache.epochs(), 10, 1_200, last).is_some());
    assert!(matched(&cache.epochs(), 10, 2_400, last).is_some());
    assert!(matched(&cache.epochs(), 10, 1_200, last + GRAIN * 1000 + 1_000).is_none());
}

#[tokio::test]
async fn prices_of_other_replicas_and_of_the_time_before_a_restart_are_honoured() {
    let clock = Clock::manual(NOW);
    let (provider, store) = (FakeProvider::new("a", 1_000), MemoryStore::new(clock.clone()));
    let idle = testing::cache(&[&provider], &store, &clock).await;
    let first = shown(&provider, &store, &clock).await;
    drop(first);
    let restarted = testing::cache(&[&provider], &store, &clock).await;
    assert!(matched(&restarted.epochs(), 10, 1_200, NOW).is_some());
    assert!(matched(&idle.epochs(), 10, 1_200, NOW).is_none());
    idle.catch_up().await.unwrap();
    assert!(matched(&idle.epochs(), 10, 1_200, NOW).is_some());
}

#[tokio::test]
async fn one_write_for_a_price_none_for_its_repetition() {
    let clock = Clock::manual(NOW);
    let (provider, store) = (FakeProvider::new("a", 1_000), MemoryStore::new(clock.clone()));
    let cache = shown(&provider, &store, &clock).await;
    let before = store.writes();
    for _ in 0..50 {
        cache.fetch(&store_ask(10)).await.unwrap();
    }
    assert_eq!(store.writes(), before);
    // A second replica that shows the same price writes the same record.
    let other = shown(&provider, &store, &clock).await;
    assert_eq!(store.list(SPACE).await.unwrap().len(), 1);
    assert_eq!(matched(&other.epochs(), 10, 1_200, NOW), matched(&cache.epochs(), 10, 1_200, NOW));
    // The price goes on: a later end.
    clock.advance(TTL);
    cache.fetch(&store_ask(10)).await.unwrap();
    assert_eq!(store.list(SPACE).await.unwrap().len(), 2);
    // And records end by themselves.
    clock.advance(3 * TTL);
    assert_eq!(store.list(SPACE).await.unwrap().len(), 0);
}

#[tokio::test]
async fn many_unmatched_payments_read_the_store_once() {
    let clock = Clock::manual(NOW);
    let (provider, store) = (FakeProvider::new("a", 1_000), MemoryStore::new(clock.clone()));
    let cache = testing::cache(&[&provider], &store, &clock).await;
    store.fail(true);
    let asked = futures_util::future::join_all((0..20).map(|_| cache.catch_up()));
    let outcomes = tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap();
    // The failure is everybody's, and nobody repeated it.
    assert!(outcomes.iter().all(Result::is_err));
    let last_read = cache.epochs.last_read_at().await;
    store.fail(false);
    cache.catch_up().await.unwrap();
    assert!(cache.epochs.last_read_at().await.unwrap() >= last_read.unwrap() + CATCH_UP_EVERY);
}
