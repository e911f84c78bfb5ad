//! `proxy.toml` documents the code: every setting is in it, with the default the code has.

use std::collections::BTreeMap;

use super::{KEY, environment};
use crate::config::document::Document;
use crate::config::resolved::{Action, Store};
use crate::config::{Secrets, load_text, read};

const PROXY_TOML: &str = include_str!("../../../proxy.toml");

/// Settings of routes and declared providers, whose defaults a comment describes and whose values are the demo's.
const EXAMPLES: &[&str] = &["routes.methods", "routes.description", "provider.languages"];

/// `proxy.toml` with the # of every commented setting and table removed.
fn uncommented() -> String {
    let is_setting = |line: &&str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
    };
    let lines = PROXY_TOML.lines().map(|line| if is_setting(&line) { &line[1..] } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// Every setting the code reads: path without indices -> default.
fn declared() -> BTreeMap<String, Option<toml::Value>> {
    let text = uncommented();
    let environment = environment(&[]);
    let (document, root) = Document::parse("proxy.toml", &text, &environment);
    let _ = read::config(&document, &root, Secrets::MayBeAbsent);
    let plain = |path: &str| path.split(['[', ']']).step_by(2).collect::<String>();
    document.declared.borrow().iter().map(|(path, default)| (plain(path), default.clone())).collect()
}

fn lookup<'a>(document: &'a toml::Value, path: &str) -> Vec<&'a toml::Value> {
    path.split('.').fold(vec![document], |found, key| {
        let step = |value: &'a toml::Value| match value {
            toml::Value::Array(items) => items.iter().filter_map(|item| item.get(key)).collect(),
            value => value.get(key).into_iter().collect::<Vec<_>>(),
        };
        found.into_iter().flat_map(step).collect()
    })
}

#[test]
fn every_setting_is_documented_with_its_default() {
    let document: toml::Value = toml::from_str(&uncommented()).unwrap();
    let declared = declared();
    assert!(declared.len() > 70, "only {} settings were read", declared.len());
    for (path, default) in declared {
        let written = lookup(&document, &path);
        assert!(!written.is_empty(), "{path} is not in proxy.toml");
        if let Some(default) = default.filter(|_| !EXAMPLES.contains(&path.as_str())) {
            assert!(
                written.iter().all(|value| **value == default),
                "{path}: {written:?}, in the code {default:?}"
            );
        }
    }
}

#[test]
fn nothing_else_is_documented() {
    let text = uncommented();
    let environment = environment(&[]);
    let (document, root) = Document::parse("proxy.toml", &text, &environment);
    let _ = read::config(&document, &root, Secrets::MayBeAbsent);
    let unknown: Vec<_> =
        document.findings().mistakes.into_iter().filter(|m| m.reason.contains("is not a setting")).collect();
    assert_eq!(unknown, []);
}

#[test]
fn optional_settings_are_commented_out_and_required_ones_are_not() {
    let as_it_stands: toml::Value = toml::from_str(PROXY_TOML).unwrap();
    for required in ["app.url", "routes.path", "accepts.network", "accepts.pay_to"] {
        assert!(!lookup(&as_it_stands, required).is_empty(), "{required}");
    }
    for optional in ["edge.public_url", "edge.tls", "edge.threads", "wallet.key_file", "store.url"] {
        assert!(lookup(&as_it_stands, optional).is_empty(), "{optional}");
    }
}

#[test]
fn the_file_is_valid_as_it_stands() {
    let loaded = load_text("proxy.toml", PROXY_TOML, &environment(&[("GALAKSIO_WALLET_KEY", KEY)])).unwrap();
    assert_eq!(loaded.overrides, []);
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    assert_eq!(config.routes.len(), 3);
    assert!(matches!(&config.routes[2].action, Action::Priced { price, .. } if price == "0.001"));
    assert_eq!(config.accepts[0].asset.network.0, 84_532);
    assert_eq!(config.pricing.markup_bps, 2_000);
    assert!(matches!(config.store, Store::Embedded { .. }));
    assert_eq!(config.wallet.unwrap().assets, [config.accepts[0].asset.clone()]);
}
