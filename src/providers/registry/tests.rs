use std::time::Duration;

use proptest::prelude::*;

use super::super::testing::{FakeWallet, MemoryStore, asset, offer, run_ask, store_ask};
use super::*;
use crate::config::resolved::{self, SetShape};
use crate::intake::Kind;
use crate::outgoing::Settings;

fn config() -> resolved::Providers {
    let url = |host: &str| format!("https://{host}.example").parse().unwrap();
    resolved::Providers {
        xcache: Some(resolved::XCache {
            url: url("xcache"),
            region: "us-east-1".into(),
            set_shape: SetShape::Body,
            max_value: 100,
            operations_per_store: 2,
            operations_per_cache: 50_000,
            low_water: 10,
            daily_budget: "1".into(),
        }),
        openx402: Some(resolved::OpenX402 { url: url("openx402"), max_file: 1000 }),
        merit: Some(resolved::Merit { url: url("merit"), max_code: 50 }),
        connect_timeout: Duration::from_secs(1),
        allow_plain_http: false,
    }
}

fn registry(config: &resolved::Providers) -> Registry {
    let settings = Settings { connect_timeout: Duration::from_secs(1), allow_plain_http: false };
    let around = Surroundings {
        outgoing: Outgoing::new(settings).unwrap(),
        assets: vec![asset()],
        store: MemoryStore::new(Clock::system()),
        wallet: Arc::new(FakeWallet::default()),
        clock: Clock::manual(0),
    };
    Registry::from_config(config, &around)
}

fn names(sellers: Result<Vec<Seller>, NotSold>) -> Vec<(&'static str, Operation)> {
    sellers.unwrap().iter().map(|(provider, operation)| (provider.name(), *operation)).collect()
}

#[test]
fn finds_everyone_who_sells_it() {
    let registry = registry(&config());
    let sellers = |ask| names(registry.sellers(&ask));
    assert_eq!(sellers(store_ask(Kind::File, false, None, 100)), [("xcache", "set"), ("openx402", "pin")]);
    assert_eq!(sellers(store_ask(Kind::File, true, None, 100)), [("openx402", "pin")]);
    assert_eq!(sellers(store_ask(Kind::Json, false, None, 1000)), [("openx402", "pin_json")]);
    assert_eq!(sellers(store_ask(Kind::Json, false, Some(60), 1)), [("xcache", "set")]);
    assert_eq!(sellers(run_ask("python", 50)), [("merit-systems", "execute")]);
    assert!(registry.get("merit-systems").is_some() && registry.get("merit").is_none());
    assert_eq!(registry.iter().count(), 3);
}

#[test]
fn says_the_most_helpful_reason_why_nobody_does() {
    let everyone = registry(&config());
    let why = |ask| everyone.sellers(&ask).err().unwrap();
    // Not "no permanent stores" nor "it runs programs": a smaller file would do.
    assert_eq!(
        why(store_ask(Kind::File, true, None, 1001)),
        NotSold::Size { provider: "openx402", limit: 1000 }
    );
    // The larger of two limits.
    assert_eq!(
        why(store_ask(Kind::File, false, None, 1001)),
        NotSold::Size { provider: "openx402", limit: 1000 }
    );
    assert!(matches!(why(run_ask("ruby", 1)), NotSold::Option { provider: "merit-systems", .. }));
    let none = registry(&resolved::Providers { xcache: None, openx402: None, merit: None, ..config() });
    let reason = none.sellers(&run_ask("python", 1)).err().unwrap();
    assert_eq!(reason, NotSold::Operation { provider: "this gateway" });
}

#[test]
fn the_cheapest_wins_and_the_first_among_equals() {
    let costs = |costs: &[u128]| {
        let offers: Vec<_> = costs.iter().map(|cost| offer(*cost)).collect();
        cheapest(&offers)
    };
    assert_eq!(costs(&[]), None);
    assert_eq!(costs(&[3, 2, 2, 9]), Some(1));
    assert_eq!(costs(&[0, 0]), Some(0));
}

#[test]
fn dollars_are_compared_not_units() {
    let in_decimals = |cost, decimals| {
        let mut offer = offer(cost);
        offer.asset.decimals = decimals;
        offer
    };
    let cent = in_decimals(10_000, 6);
    let dearer = in_decimals(10_000_000_000_000_001, 18);
    let same = in_decimals(1, 2);
    assert_eq!(cheapest([&dearer, &cent]), Some(1));
    assert_eq!(cheapest([&same, &cent]), Some(0));
    // Neither fits once scaled: a tie, and still no panic.
    let huge = in_decimals(u128::MAX, 0);
    let absurd = in_decimals(1, u8::MAX);
    assert_eq!(cheapest([&huge, &absurd]), Some(1));
}

proptest! {
    #[test]
    fn nothing_is_cheaper_than_the_cheapest(costs in proptest::collection::vec(any::<u128>(), 1..20)) {
        let offers: Vec<_> = costs.iter().map(|cost| offer(*cost)).collect();
        let best = cheapest(&offers).unwrap();
        prop_assert_eq!(Some(&costs[best]), costs.iter().min());
        prop_assert!(costs[..best].iter().all(|cost| *cost > costs[best]));
    }
}
