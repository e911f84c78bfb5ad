//! `[limits]`: what the wallet may spend, lose and have out.

use crate::config::document::Section;
use crate::config::node::Node;
use crate::config::parse::{self, DOLLAR_DECIMALS, Parsed, Wrong};
use crate::config::resolved::{Action, Limits, Settle, Wallet};
use crate::money::Amount;

use super::routes::ReadRoute;

/// As much as a store counts exactly.
const MOST: u64 = (1 << 53) - 1;

pub(super) fn limits(section: &Section<'_>) -> Option<Limits> {
    let spend_per_hour = section.setting("spend_per_hour", "$20", above_zero);
    let provider_spend_per_hour = section.setting("provider_spend_per_hour", "$10", above_zero);
    let exposure = section.setting("exposure", "$5", above_zero);
    let payer_exposure = section.setting("payer_exposure", "$2", above_zero);
    let loss_per_hour = section.setting("loss_per_hour", "$1", above_zero);
    let quote_loss_per_hour = section.setting("quote_loss_per_hour", "$0.5", micros);
    let profit_floor = section.optional("profit_floor", micros);
    let unsettled = section.setting("unsettled", "$1", above_zero);
    let payer_unsettled = section.setting("payer_unsettled", "$0.1", above_zero);
    let uncollected_per_hour = section.setting("uncollected_per_hour", "$1", above_zero);
    section.finish();
    let limits = Limits {
        spend_per_hour: spend_per_hour?,
        provider_spend_per_hour: provider_spend_per_hour?,
        exposure: exposure?,
        payer_exposure: payer_exposure?,
        loss_per_hour: loss_per_hour?,
        quote_loss_per_hour: quote_loss_per_hour?,
        profit_floor: profit_floor?,
        unsettled: unsettled?,
        payer_unsettled: payer_unsettled?,
        uncollected_per_hour: uncollected_per_hour?,
    };
    let parts = [
        ("provider_spend_per_hour", limits.provider_spend_per_hour, "spend_per_hour", limits.spend_per_hour),
        ("payer_exposure", limits.payer_exposure, "exposure", limits.exposure),
        ("payer_unsettled", limits.payer_unsettled, "unsettled", limits.unsettled),
    ];
    for (part, size, whole, limit) in parts {
        if size > limit {
            let reason = format!("{part} is more than {whole}, so it would limit nothing");
            let key = if section.has(part) { part } else { whole };
            section.mistake(key, reason, format!("write {part} of {whole} at most"));
        }
    }
    Some(limits)
}

/// A payment that is allowed must fit what may be out, or no provider is ever paid as much.
pub(super) fn fits(section: &Section<'_>, limits: &Limits, wallet: &Wallet) {
    let largest = Amount::from_decimal(&wallet.max_payment, DOLLAR_DECIMALS)
        .and_then(|amount| amount.micros(DOLLAR_DECIMALS))
        .unwrap_or(u64::MAX);
    let parts = [
        ("provider_spend_per_hour", limits.provider_spend_per_hour),
        ("payer_exposure", limits.payer_exposure),
    ];
    for (key, limit) in parts {
        if limit < largest {
            let reason =
                format!("a payment of wallet.max_payment (${}) would never be made", wallet.max_payment);
            section.mistake(key, reason, "write max_payment at least, or lower wallet.max_payment");
        }
    }
}

/// An answer that is to be given before it is paid for must fit what may be out, or it never is.
pub(super) fn trusts(limits: &Limits, routes: &[ReadRoute<'_>]) {
    for read in routes {
        let Action::Priced { price, settle: Settle::After, .. } = &read.route.action else { continue };
        let micros =
            Amount::from_decimal(price, DOLLAR_DECIMALS).and_then(|price| price.micros(DOLLAR_DECIMALS));
        if micros.is_none_or(|micros| micros > limits.payer_unsettled) {
            let reason = "its price is more than limits.payer_unsettled, so it would always be settled before the answer";
            read.section.mistake("settle", reason, "write \"success\", or raise limits.payer_unsettled");
        }
    }
}

/// Dollars, in millionths.
pub(super) fn micros(node: &Node) -> Parsed<u64> {
    let text = parse::dollars(node)?;
    Amount::from_decimal(&text, DOLLAR_DECIMALS)
        .and_then(|amount| amount.micros(DOLLAR_DECIMALS))
        .filter(|micros| *micros <= MOST)
        .ok_or_else(|| Wrong::new(format!("${text} is more than can be counted"), "write a smaller limit"))
}

fn above_zero(node: &Node) -> Parsed<u64> {
    match micros(node)? {
        0 => Err(Wrong::new("a limit of nothing would refuse everything", "write more than $0")),
        micros => Ok(micros),
    }
}
