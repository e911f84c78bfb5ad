//! `[[accepts]]`, `[pricing]` and `[wallet]`: who is paid, how much, and what we pay with.

use crate::config::document::{Document, Section};
use crate::config::parse::{self, Parsed, Wrong};
use crate::config::resolved::{Accept, Action, Pricing, Wallet};
use crate::config::{Secrets, key};
use crate::money::Amount;
use crate::x402::{Address, Asset, Network};

use super::routes::ReadRoute;

/// One way to pay with the table it was read from.
pub(super) struct ReadAccept<'a> {
    pub(super) accept: Accept,
    pub(super) section: Section<'a>,
}

pub(super) fn accepts<'a>(sections: Vec<Section<'a>>) -> Option<Vec<ReadAccept<'a>>> {
    let mut accepts: Vec<ReadAccept<'a>> = Vec::with_capacity(sections.len());
    let mut whole = true;
    for section in sections {
        let Some(accept) = accept(&section) else {
            whole = false;
            continue;
        };
        let same = |earlier: &ReadAccept<'_>| {
            let (a, b) = (&earlier.accept.asset, &accept.asset);
            a.network == b.network && a.address == b.address
        };
        if accepts.iter().any(same) {
            section.mistake("network", "this asset of this network is already accepted above", "remove one");
        }
        accepts.push(ReadAccept { accept, section });
    }
    whole.then_some(accepts)
}

fn accept(section: &Section<'_>) -> Option<Accept> {
    let network = section.required("network", parse::network);
    let pay_to = section.required("pay_to", parse::address);
    let address = section.optional("asset", parse::address);
    let name = section.optional("name", parse::name);
    let version = section.optional("version", parse::name);
    let decimals = section.optional("decimals", decimals);
    let usd_pegged = section.setting("usd_pegged", false, parse::boolean);
    section.finish();

    let network = network?;
    let (address, name, version, decimals) = (address?, name?, version?, decimals?);
    let asset = match known(network, address) {
        Some(asset) => {
            for key in ["name", "version", "decimals"].iter().filter(|key| section.has(key)) {
                let same = match *key {
                    "name" => name.as_deref() == Some(asset.name.as_str()),
                    "version" => version.as_deref() == Some(asset.version.as_str()),
                    _ => decimals == Some(asset.decimals),
                };
                if !same {
                    let reason = format!(
                        "{} is known: name {:?}, version {:?}, {} decimals",
                        asset.address, asset.name, asset.version, asset.decimals
                    );
                    section.mistake(key, reason, format!("remove `{key}`"));
                }
            }
            asset
        }
        None => unknown_asset(section, network, address, (name, version, decimals), usd_pegged?)?,
    };
    Some(Accept { asset, pay_to: pay_to? })
}

fn known(network: Network, address: Option<Address>) -> Option<Asset> {
    Asset::default_for(network).filter(|asset| address.is_none_or(|address| address == asset.address))
}

/// An asset the program has no entry for: everything about it must be said.
fn unknown_asset(
    section: &Section<'_>,
    network: Network,
    address: Option<Address>,
    (name, version, decimals): (Option<String>, Option<String>, Option<u8>),
    usd_pegged: bool,
) -> Option<Asset> {
    let Some(address) = address else {
        let reason = format!("no dollar token is known on {network}");
        section.mistake("network", reason, "name one: asset, name, version, decimals, usd_pegged = true");
        return None;
    };
    let missing: Vec<&str> =
        [("name", name.is_none()), ("version", version.is_none()), ("decimals", decimals.is_none())]
            .into_iter()
            .filter_map(|(key, missing)| missing.then_some(key))
            .collect();
    if !missing.is_empty() {
        let reason = format!("{address} is not a known token, and its {} not written", enumerate(&missing));
        section.mistake("asset", reason, "read them from the token's contract (EIP-712 name and version)");
    }
    if !usd_pegged {
        let reason = format!("{address} is not known to be worth a dollar, and prices are in dollars");
        section.mistake(
            "asset",
            reason,
            "if it is, write usd_pegged = true; other assets cannot be sold for",
        );
    }
    let asset = Asset { network, address, name: name?, version: version?, decimals: decimals? };
    usd_pegged.then_some(asset)
}

fn enumerate(keys: &[&str]) -> String {
    let verb = if keys.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", keys.join(", "))
}

fn decimals(node: &crate::config::node::Node) -> Parsed<u8> {
    match parse::count::<u8>(node)? {
        decimals @ 1..=18 => Ok(decimals),
        decimals => {
            Err(Wrong::new(format!("{decimals} decimals are not supported"), "dollar tokens have 6 to 18"))
        }
    }
}

/// Every price must be exact in every accepted asset.
pub(super) fn prices_fit(accepts: &[ReadAccept<'_>], routes: &[ReadRoute<'_>]) {
    for read in routes {
        let Action::Priced { price, .. } = &read.route.action else { continue };
        for accept in accepts {
            let asset = &accept.accept.asset;
            if Amount::from_decimal(price, asset.decimals).is_none() {
                let reason =
                    format!("${price} has more places than the {} of {}", asset.decimals, asset.name);
                read.section.mistake("price", reason, "round the price");
            }
        }
    }
}

pub(super) fn pricing(section: &Section<'_>) -> Option<Pricing> {
    let markup_bps = section.setting("markup", "20%", parse::percent);
    let fee = section.setting("fee", "$0", parse::dollars);
    let buckets = section.list("buckets", vec!["1MiB", "10MiB", "100MiB"], parse::size);
    let quote_ttl = section.setting("quote_ttl", "5m", parse::duration);
    let refresh_before = section.setting("refresh_before", "30s", parse::duration);
    let terms_max_age = section.setting("terms_max_age", "60s", parse::duration);
    let probe_timeout = section.setting("probe_timeout", "1500ms", parse::duration);
    let quote_loss_limit = section.setting("quote_loss_limit", "$0.05", parse::dollars);
    section.finish();
    let pricing = Pricing {
        markup_bps: markup_bps?,
        fee: fee?,
        buckets: buckets?,
        quote_ttl: quote_ttl?,
        refresh_before: refresh_before?,
        terms_max_age: terms_max_age?,
        probe_timeout: probe_timeout?,
        quote_loss_limit: quote_loss_limit?,
    };

    if pricing.buckets.is_empty() {
        section.mistake(
            "buckets",
            "without a bucket no size is sold",
            "write at least one, such as \"10MiB\"",
        );
    }
    if !pricing.buckets.is_sorted_by(|smaller, larger| smaller < larger) {
        section.mistake("buckets", "the buckets are not in ascending order", "sort them, smallest first");
    }
    if pricing.refresh_before >= pricing.quote_ttl {
        let reason = "quotes would be refreshed before they are made: it must be less than quote_ttl";
        section.mistake("refresh_before", reason, "write less, such as a tenth of quote_ttl");
    }
    if pricing.probe_timeout >= pricing.quote_ttl {
        section.mistake(
            "probe_timeout",
            "a probe could outlast the quote it is for",
            "write less than quote_ttl",
        );
    }
    if pricing.quote_ttl.as_secs() == 0 {
        section.mistake("quote_ttl", "quotes expire at whole seconds", "write at least \"1s\"");
    }
    Some(pricing)
}

pub(super) fn wallet(
    document: &Document<'_>,
    section: &Section<'_>,
    accepts: &[ReadAccept<'_>],
    secrets: Secrets,
) -> Option<Option<Wallet>> {
    let key_file = section.optional("key_file", parse::path);
    let key_env = section.optional("key_env", parse::name);
    let max_payment = section.setting("max_payment", "$1", parse::price);
    let networks = section.optional("networks", wallet_networks);
    let payees = section.list("payees", Vec::new(), parse::address);
    section.finish();
    if !section.is_present() {
        return Some(None);
    }
    let (key_file, key_env) = (key_file?, key_env?);
    let (setting, found) = match (&key_file, &key_env) {
        (Some(path), None) => ("key_file", key::from_file(path)),
        (None, Some(name)) => ("key_env", key::from_environment(name, document.environment)),
        (Some(_), Some(_)) => {
            section.mistake("key_env", "the key is named twice", "keep key_file or key_env, not both");
            return None;
        }
        (None, None) => {
            section.mistake("key_file", "the wallet has no key", "set key_file, or key_env");
            return None;
        }
    };
    let present = match setting {
        "key_file" => key_file.is_some_and(|path| path.exists()),
        _ => key_env.is_some_and(|name| document.environment.contains_key(&name)),
    };
    let key = match found {
        Ok(key) => key,
        Err(wrong) if !present && secrets == Secrets::MayBeAbsent => {
            let reason = format!("{}; `serve` will not start without it", wrong.reason);
            section.warning(setting, reason, wrong.fix);
            return networks.and(max_payment).map(|_| None);
        }
        Err(wrong) => {
            section.mistake(setting, wrong.reason, wrong.fix);
            return None;
        }
    };
    if let Some(own) = key::address(&key) {
        for read in accepts.iter().filter(|read| read.accept.pay_to == own) {
            let reason =
                format!("{own} is the wallet that pays providers; income and spending money must not mix");
            read.section.mistake(
                "pay_to",
                reason,
                "be paid at another address, best one whose key is offline",
            );
        }
    }
    let assets = match networks? {
        Some(assets) => assets,
        None => accepts.iter().map(|read| read.accept.asset.clone()).collect(),
    };
    Some(Some(Wallet { key, max_payment: max_payment?, assets, payees: payees? }))
}

fn wallet_networks(node: &crate::config::node::Node) -> Parsed<Vec<Asset>> {
    let fix = "write a list of networks: [\"base\"]";
    let crate::config::node::Value::Array(items) = &node.value else {
        return Err(Wrong::new(format!("expected a list, found {}", node.value.kind()), fix));
    };
    if items.is_empty() {
        return Err(Wrong::new("the wallet could pay nobody", fix));
    }
    let asset = |item| {
        let network = parse::network(item)?;
        Asset::default_for(network)
            .ok_or_else(|| Wrong::new(format!("no dollar token is known on {network}"), fix))
    };
    items.iter().map(asset).collect()
}
