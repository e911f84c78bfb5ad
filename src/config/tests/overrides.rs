//! Environment variables that override the file.

use super::mistakes::PAYABLE;
use super::{KEY, environment};
use crate::config::{Place, load_text};

#[test]
fn the_environment_overrides_and_is_named_in_mistakes() {
    let good = environment(&[
        ("KEY", KEY),
        ("PORT", "9999"),
        ("BROKER_WALLET", "0x0000000000000000000000000000000000000dEaD"),
        ("X402_FACILITATOR_URL", "https://f.example"),
        ("XCACHE_BASE_URL", ""),
        ("MERIT_SYSTEMS_URL", "https://m.example/run/"),
        ("OPENX402_BASE_URL", "https://o.example"),
    ]);
    let bad = good.clone();
    let mistakes = load_text("t.toml", PAYABLE, &bad).unwrap_err().0;
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert_eq!(mistakes[0].place, Place::Environment("BROKER_WALLET"));
    assert!(mistakes[0].to_string().starts_with("environment BROKER_WALLET: accepts[0].pay_to: "));

    let mut good = good;
    good.insert("BROKER_WALLET".into(), "0x000000000000000000000000000000000000dEaD".into());
    let loaded = load_text("t.toml", PAYABLE, &good).unwrap();
    let overrides: Vec<_> = loaded.overrides.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        overrides,
        [
            ("BROKER_WALLET", "accepts[0].pay_to"),
            ("MERIT_SYSTEMS_URL", "providers.merit.url"),
            ("PORT", "edge.listen"),
            ("X402_FACILITATOR_URL", "facilitator.url"),
        ]
    );
    // That provider is not in the file, so its variable does nothing: said, not silently so.
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert_eq!(loaded.warnings[0].place, Place::Environment("OPENX402_BASE_URL"));
    assert!(loaded.config.providers.openx402.is_none());
    assert_eq!(loaded.config.edge.listen[0].to_string(), "0.0.0.0:9999");
    assert_eq!(loaded.config.facilitator.url, "https://f.example");
    assert_eq!(loaded.config.providers.merit.unwrap().url, "https://m.example/run");
    assert_eq!(loaded.config.providers.xcache.unwrap().url, "https://api.xcache.io");

    let port = environment(&[("KEY", KEY), ("PORT", "http")]);
    let mistakes = load_text("t.toml", PAYABLE, &port).unwrap_err().0;
    assert_eq!(mistakes.len(), 1);
    assert_eq!(mistakes[0].place, Place::Environment("PORT"));
}
