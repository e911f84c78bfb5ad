use super::super::QuoteError;
use super::super::testing::*;
use super::*;
use crate::clock::Clock;
use crate::money::Amount;

fn dollars(units: u128) -> Dollars {
    Dollars { units: Amount::new(units), decimals: 6 }
}

async fn named(cache: &QuoteCache, without: &[&str], limit: u128) -> Option<(&'static str, u128)> {
    let found = cache.substitute(&store_ask(10), without, dollars(limit)).await?;
    assert_eq!(found.operation, "set");
    Some((found.provider.name(), found.offer.cost.units()))
}

#[tokio::test]
async fn the_cheapest_of_the_others_that_is_paid_for() {
    let clock = Clock::manual(NOW);
    let [a, b, c] = [("a", 100), ("b", 300), ("c", 200)].map(|(name, price)| FakeProvider::new(name, price));
    let small = FakeProvider::limited("small", 1, 5);
    let cache = cache(&[&a, &b, &c, &small], &MemoryStore::new(clock.clone()), &clock).await;
    assert_eq!(named(&cache, &["a"], 300).await, Some(("c", 200)));
    assert_eq!(named(&cache, &["a", "c"], 300).await, Some(("b", 300)));
    assert_eq!(named(&cache, &["a", "c"], 299).await, None, "dearer than the payment");
    assert_eq!(named(&cache, &["a", "b", "c"], 300).await, None);
    c.set_broken(true);
    clock.advance(61_000);
    assert_eq!(named(&cache, &["a"], 300).await, Some(("b", 300)), "a price of long ago is none");
    c.set_broken(false);
    clock.advance(1_100);
    assert_eq!(named(&cache, &["a"], 300).await, Some(("c", 200)), "nor is a failure");
    let probes = b.probes();
    assert_eq!(named(&cache, &["a", "c"], 300).await, Some(("b", 300)));
    assert_eq!(b.probes(), probes, "terms that are fresh are not asked for again");
}

#[tokio::test]
async fn who_fails_again_and_again_is_left_alone_for_a_while() {
    let clock = Clock::manual(NOW);
    let (a, b) = (FakeProvider::new("a", 100), FakeProvider::new("b", 300));
    let cache = cache(&[&a, &b], &MemoryStore::new(clock.clone()), &clock).await;
    let ask = store_ask(10);
    let sold_by = async || cache.fetch(&ask).await.unwrap().terms.provider.clone();
    let shown = || cache.lookup(&ask, clock.now_millis()).map(|quote| quote.terms.provider.clone());
    assert_eq!(sold_by().await, "a");
    for fault in [Fault::Refused, Fault::Internal, Fault::Broken, Fault::Timeout] {
        cache.attempting("a").ended(Some(fault));
    }
    assert_eq!(shown().as_deref(), Some("a"), "twice its own fault, and twice not");
    // Dropped, as when its time is over.
    drop(cache.attempting("a"));
    assert_eq!(shown(), None, "its quotes are shown no more");
    assert!(cache.terms("a", "set", &ask).await.is_err(), "nor is anything ordered of it");
    assert_eq!(named(&cache, &["b"], 1000).await, None);
    assert_eq!(sold_by().await, "b");
    assert_eq!(shown().as_deref(), Some("b"));

    // With nobody left there is no challenge, whatever was shown before.
    for _ in 0..3 {
        cache.attempting("b").ended(Some(Fault::Unreachable));
    }
    assert!(shown().is_none() && matches!(cache.fetch(&ask).await, Err(QuoteError::NoOffer)));

    clock.advance(10_000);
    assert_eq!(named(&cache, &["b"], 1000).await, Some(("a", 100)), "it is tried again");
    cache.attempting("a").ended(Some(Fault::Broken));
    clock.advance(19_999);
    assert_eq!(named(&cache, &["b"], 1000).await, None, "and left alone for longer");
    clock.advance(1);
    cache.attempting("a").ended(None);
    cache.attempting("a").ended(Some(Fault::Broken));
    assert_eq!(named(&cache, &["b"], 1000).await, Some(("a", 100)), "a success clears it");
}
