use std::time::Duration;

use super::super::testing::{FakeWallet, MemoryStore, asset, run_ask, store_ask};
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
        declared: Vec::new(),
        connect_timeout: Duration::from_secs(10),
        allow_plain_http: false,
    }
}

fn around() -> Surroundings {
    let settings = Settings { connect_timeout: Duration::from_secs(10), allow_plain_http: false };
    Surroundings {
        outgoing: Outgoing::new(settings).unwrap(),
        assets: vec![asset()],
        store: MemoryStore::new(Clock::system()),
        wallet: Arc::new(FakeWallet::default()),
        clock: Clock::manual(0),
    }
}

fn registry(config: &resolved::Providers) -> Registry {
    Registry::from_config(config, &around())
}

#[test]
fn finds_everyone_who_sells_it() {
    let registry = registry(&config());
    let sellers = |ask| {
        let sold = |provider: &Arc<dyn Provider>| Some((provider.name(), provider.sells(&ask).ok()?));
        registry.iter().filter_map(sold).collect::<Vec<_>>()
    };
    assert_eq!(sellers(store_ask(Kind::File, false, None, 100)), [("xcache", "set"), ("openx402", "pin")]);
    assert_eq!(sellers(store_ask(Kind::File, true, None, 100)), [("openx402", "pin")]);
    assert_eq!(sellers(store_ask(Kind::Json, false, None, 1000)), [("openx402", "pin_json")]);
    assert_eq!(sellers(store_ask(Kind::Json, false, Some(60), 1)), [("xcache", "set")]);
    assert_eq!(sellers(run_ask("python", 50)), [("merit-systems", "execute")]);
    assert!(registry.get("merit-systems").is_some() && registry.get("merit").is_none());
    assert_eq!(registry.iter().count(), 3);
}

#[test]
fn those_left_out_are_not_there() {
    let some = registry(&resolved::Providers { xcache: None, ..config() });
    assert!(some.get("xcache").is_none() && some.get("openx402").is_some());
    let none = resolved::Providers { xcache: None, openx402: None, merit: None, ..config() };
    assert_eq!(registry(&none).iter().count(), 0);
}
