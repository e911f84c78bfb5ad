//! `[facilitator]` with `kind = "local"`: the gateway settles by itself, from an account that pays for gas.

use crate::config::document::{Document, Section};
use crate::config::parse::{self, Wrong};
use crate::config::resolved::{Chain, Facilitator, LocalFacilitator};
use crate::config::{Secrets, key};

use super::money::ReadAccept;

/// The settings that only a facilitator of our own has.
const SETTINGS: [&str; 6] =
    ["gas_key_file", "gas_key_env", "max_fee", "confirmations", "max_batch", "wallet_factories"];

/// Who settles.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A service under a URL.
    Http,
    /// The gateway itself.
    Local,
}

pub(super) fn local(
    document: &Document<'_>,
    section: &Section<'_>,
    secrets: Secrets,
) -> Option<Option<LocalFacilitator>> {
    let kind = section.setting("kind", "http", |node| match parse::text(node)?.as_str() {
        "http" => Ok(Kind::Http),
        "local" => Ok(Kind::Local),
        other => Err(Wrong::new(format!("{other:?} is not a facilitator"), "write \"http\" or \"local\"")),
    });
    let key_file = section.optional("gas_key_file", parse::path);
    let key_env = section.optional("gas_key_env", parse::name);
    let max_fee = section.setting("max_fee", "5gwei", parse::gas_price);
    let confirmations = section.setting("confirmations", 1, parse::count);
    let max_batch = section.setting("max_batch", 32, parse::count);
    let wallet_factories = section.list("wallet_factories", vec![], parse::address);
    let unused = |keys: &[&str], who: &str| {
        for key in keys.iter().filter(|key| section.has(key)) {
            section.mistake(key, format!("`{key}` means nothing to {who}"), "remove it");
        }
    };
    if kind? == Kind::Http {
        unused(&SETTINGS, "a facilitator under a URL");
        return Some(None);
    }
    unused(&["url", "cdp"], "the gateway's own facilitator");
    let (key_file, key_env) = (key_file?, key_env?);
    let (setting, present, found) = match (&key_file, &key_env) {
        (Some(path), None) => ("gas_key_file", path.exists(), key::from_file(path)),
        (None, Some(name)) => {
            let present = document.environment.get(name).is_some_and(|text| !text.trim().is_empty());
            ("gas_key_env", present, key::from_environment(name, document.environment))
        }
        (Some(_), Some(_)) => {
            section.mistake(
                "gas_key_env",
                "the key is named twice",
                "keep gas_key_file or gas_key_env, not both",
            );
            return None;
        }
        (None, None) => {
            let fix = "set gas_key_file or gas_key_env: the key of an account that has some of the chain's own coin, \
                       and is used for nothing else";
            section.mistake("kind", "settling costs gas, and there is no key to pay for it", fix);
            return None;
        }
    };
    match found {
        Ok(gas_key) => Some(Some(LocalFacilitator {
            gas_key,
            max_fee: max_fee?,
            confirmations: confirmations?,
            max_batch: max_batch?,
            wallet_factories: wallet_factories?,
        })),
        Err(wrong) if !present && secrets == Secrets::MayBeAbsent => {
            let reason = format!("{}; `serve` will not start without it", wrong.reason);
            section.warning(setting, reason, wrong.fix);
            Some(None)
        }
        Err(wrong) => {
            section.mistake(setting, wrong.reason, wrong.fix);
            None
        }
    }
}

/// What the gateway's own facilitator needs beside its own settings: an endpoint of each chain it is to settle on, and
/// that nobody is paid at the account that pays for gas.
pub(super) fn can_settle(
    section: &Section<'_>,
    facilitator: &Facilitator,
    accepts: &[ReadAccept<'_>],
    chains: &[Chain],
) {
    let Some(local) = &facilitator.local else { return };
    for read in accepts {
        let network = read.accept.asset.network;
        if !chains.iter().any(|chain| chain.network == network) {
            let reason = format!(
                "payments on {network} are to be settled here, and no endpoint of that chain is known"
            );
            section.mistake(
                "kind",
                reason,
                format!("add [[chains]] with network = \"{network}\" and its rpc"),
            );
        }
        if key::address(&local.gas_key) == Some(read.accept.pay_to) {
            let reason = format!(
                "{} is the account that pays for gas; income must not lie at a hot key",
                read.accept.pay_to
            );
            read.section.mistake(
                "pay_to",
                reason,
                "be paid at another address, best one whose key is offline",
            );
        }
    }
}
