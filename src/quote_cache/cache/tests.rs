use futures_util::future::join_all;

use super::super::APP;
use super::super::price::PriceError;
use super::super::testing::{self, FakeProvider, MemoryStore, NOW, store_ask};
use super::*;
use crate::reason::{Problem, Reason};

fn parts() -> (Clock, Arc<MemoryStore>) {
    let clock = Clock::manual(NOW);
    (clock.clone(), MemoryStore::new(clock))
}

fn price(quote: &Quote) -> u128 {
    quote.prices[0].amount.units()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_at_once_probe_once_and_write_once() {
    let (clock, store) = parts();
    let provider = FakeProvider::gated("a", 1_000);
    let cache = testing::cache(&[&provider], &store, &clock).await;
    let writes = store.writes();
    let asks: Vec<Ask> = (0..100).map(store_ask).collect();
    let all = join_all(asks.iter().map(|ask| cache.fetch(ask)));
    let release = async {
        while provider.probes() == 0 {
            tokio::task::yield_now().await;
        }
        provider.release();
    };
    let (quotes, ()) = tokio::join!(all, release);
    assert_eq!(provider.probes(), 1);
    assert_eq!(store.writes(), writes + 1);
    assert!(quotes.iter().all(|quote| price(quote.as_ref().unwrap()) == 1_200));
}

#[tokio::test(start_paused = true)]
async fn the_cheapest_wins_and_equals_are_ordered_by_name() {
    let (clock, store) = parts();
    let dear = FakeProvider::new("a", 2_000);
    let (later, first) = (FakeProvider::new("c", 1_000), FakeProvider::new("b", 1_000));
    let cache = testing::cache(&[&dear, &later, &first], &store, &clock).await;
    let quote = cache.fetch(&store_ask(10)).await.unwrap();
    assert_eq!((quote.terms.provider.as_str(), price(&quote)), ("b", 1_200));
    assert_eq!(quote.terms.bound, 1_000_000);
    let found = cache.lookup(&store_ask(999_999), NOW).unwrap();
    assert!(Arc::ptr_eq(&found, &quote));
    assert!(cache.lookup(&store_ask(1_000_001), NOW).is_none());
}

#[tokio::test(start_paused = true)]
async fn who_fails_or_is_late_is_left_out() {
    let (clock, store) = parts();
    let (broken, silent) = (FakeProvider::new("a", 1), FakeProvider::gated("b", 2));
    let good = FakeProvider::new("c", 1_000);
    broken.set_broken(true);
    let cache = testing::cache(&[&broken, &silent, &good], &store, &clock).await;
    let started = tokio::time::Instant::now();
    let quote = cache.fetch(&store_ask(10)).await.unwrap();
    // The silent one's own time limit is 20 s.
    assert!(started.elapsed() <= PATIENCE + Duration::from_millis(20), "{:?}", started.elapsed());
    const { assert!(PATIENCE.as_millis() < 2_000) };
    assert_eq!(quote.terms.provider, "c");
    assert_eq!(silent.probes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_not_repeated_for_a_second() {
    let (clock, store) = parts();
    let provider = FakeProvider::new("a", 1_000);
    provider.set_broken(true);
    let cache = testing::cache(&[&provider], &store, &clock).await;
    for _ in 0..20 {
        assert!(matches!(cache.fetch(&store_ask(10)).await, Err(QuoteError::NoOffer)));
    }
    assert_eq!(provider.probes(), 1);
    provider.set_broken(false);
    clock.advance(999);
    assert!(cache.fetch(&store_ask(10)).await.is_err());
    clock.advance(1);
    assert_eq!(price(&cache.fetch(&store_ask(10)).await.unwrap()), 1_200);
}

#[tokio::test(start_paused = true)]
async fn a_price_that_was_not_recorded_is_not_shown() {
    let (clock, store) = parts();
    let provider = FakeProvider::new("a", 1_000);
    let cache = testing::cache(&[&provider], &store, &clock).await;
    store.fail(true);
    assert!(matches!(cache.fetch(&store_ask(10)).await, Err(QuoteError::Store(_))));
    assert!(cache.lookup(&store_ask(10), NOW).is_none());
    store.fail(false);
    clock.advance(1_000);
    cache.fetch(&store_ask(10)).await.unwrap();

    // The new price cannot be recorded: the old one stays until it expires, and then there is none.
    store.fail(true);
    provider.set_price(2_000);
    clock.advance(250_000);
    let key = QuoteKey::of(&store_ask(10), cache.buckets()).unwrap().into_owned();
    assert!(cache.refresh(&key, clock.now_millis()).await.is_err());
    assert_eq!(price(&cache.lookup(&store_ask(10), clock.now_millis()).unwrap()), 1_200);
    clock.advance(50_000);
    assert!(cache.lookup(&store_ask(10), clock.now_millis()).is_none());
    assert!(matches!(cache.fetch(&store_ask(10)).await, Err(QuoteError::Store(_))));
}

#[tokio::test(start_paused = true)]
async fn a_quote_ends_when_its_time_is_over() {
    let (clock, store) = parts();
    let provider = FakeProvider::new("a", 1_000);
    let cache = testing::cache(&[&provider], &store, &clock).await;
    let quote = cache.fetch(&store_ask(10)).await.unwrap();
    assert_eq!((quote.fetched_at, quote.expires_at), (NOW, NOW + 300_000));
    assert!(cache.lookup(&store_ask(10), NOW + 299_999).is_some());
    assert!(cache.lookup(&store_ask(10), NOW + 300_000).is_none());
    clock.advance(300_000);
    provider.set_price(5_000);
    assert_eq!(price(&cache.fetch(&store_ask(10)).await.unwrap()), 6_000);
    assert_eq!(provider.probes(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_sells_is_refused_before_anybody_is_asked() {
    let (clock, store) = parts();
    let provider = FakeProvider::limited("a", 1_000, 2_000_000);
    let cache = testing::cache(&[&provider], &store, &clock).await;
    let run = Ask { wanted: Wanted::Run { language: "cobol".into() }, kind: Kind::Code, size: 1, files: 1 };
    let too_long = Ask { wanted: Wanted::Store { permanent: false, ttl: Some(86_401) }, ..store_ask(10) };
    for ask in [&run, &too_long] {
        let error = cache.fetch(ask).await.unwrap_err();
        assert!(matches!(error, QuoteError::NotSold(_)), "{error}");
        assert_eq!(Problem::from(&error).reason, Reason::NotSold);
    }
    let error = cache.fetch(&store_ask(2_000_001)).await.unwrap_err();
    assert!(matches!(error, QuoteError::TooLarge(TooLarge { limit: 2_000_000 })), "{error}");
    let error = cache.fetch(&store_ask(10_000_001)).await.unwrap_err();
    assert!(matches!(error, QuoteError::TooLarge(TooLarge { limit: 10_000_000 })), "{error}");
    assert_eq!(provider.probes(), 0);
    // Its limit lies inside a bucket, and it sells up to it all the same.
    assert_eq!(cache.fetch(&store_ask(2_000_000)).await.unwrap().terms.bound, 2_000_000);
    // A quote for the options in general is not one for a value its seller refuses.
    let short = Ask { wanted: Wanted::Store { permanent: false, ttl: Some(60) }, ..store_ask(10) };
    cache.fetch(&short).await.unwrap();
    assert!(cache.lookup(&short, NOW).is_some());
    assert!(cache.lookup(&too_long, NOW).is_none());
}

#[tokio::test(start_paused = true)]
async fn terms_are_asked_for_again_when_they_are_old() {
    let (clock, store) = parts();
    let provider = FakeProvider::new("a", 1_000);
    let cache = testing::cache(&[&provider], &store, &clock).await;
    cache.fetch(&store_ask(10)).await.unwrap();
    provider.set_price(3_000);
    clock.advance(59_999);
    assert_eq!(cache.terms("a", "set", &store_ask(10)).await.unwrap().cost, Amount::new(1_000));
    clock.advance(1);
    assert_eq!(cache.terms("a", "set", &store_ask(10)).await.unwrap().cost, Amount::new(3_000));
    assert_eq!(provider.probes(), 2);
    // The quote stands nevertheless.
    assert_eq!(price(&cache.lookup(&store_ask(10), clock.now_millis()).unwrap()), 1_200);
    assert!(cache.terms("b", "set", &store_ask(10)).await.is_err());
    assert!(cache.terms("a", "pin", &store_ask(10)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn work_that_costs_nothing_has_a_quote_and_no_challenge() {
    let (clock, store) = parts();
    let provider = FakeProvider::new("a", 0);
    let cache = testing::cache(&[&provider], &store, &clock).await;
    let writes = store.writes();
    let quote = cache.fetch(&store_ask(10)).await.unwrap();
    assert!(quote.is_free());
    assert!(quote.template(RouteId(0)).is_none());
    assert_eq!(store.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_priced_route_has_a_quote_from_the_start() {
    let (clock, store) = parts();
    let cache = testing::cache(&[], &store, &clock).await;
    let quote = cache.fixed(RouteId(2)).unwrap();
    assert_eq!((price(quote), quote.terms.provider.as_str()), (250_000, APP));
    assert!(quote.template(RouteId(2)).is_some());
    assert!(cache.fixed(RouteId(0)).is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_accepted_is_an_error_not_a_gift() {
    let (clock, store) = parts();
    let (routes, pricing) = (testing::routes(), testing::pricing());
    let settings = Settings {
        routes: &routes,
        accepts: &[],
        pricing: &pricing,
        max_timeout: Duration::from_secs(1),
        upfront_above: None,
    };
    let error = QuoteCache::open(settings, Vec::new(), store, clock, Arc::default()).await.err().unwrap();
    assert!(matches!(error, OpenError::Price(PriceError::NoAccepts)), "{error}");
}
