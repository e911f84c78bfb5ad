//! `[facilitator]` and `[providers]`: the services that are paid through and bought from.

use http::Uri;

use crate::config::document::Section;
use crate::config::parse::{self, Wrong};
use crate::config::resolved::{Facilitator, Merit, OpenX402, Providers, SetShape, XCache};

pub(super) fn facilitator(section: &Section<'_>) -> Option<Facilitator> {
    let url = section.setting("url", "https://x402.org/facilitator", parse::base_url);
    let allow_plain_http = section.setting("allow_plain_http", false, parse::boolean);
    let verify_timeout = section.setting("verify_timeout", "10s", parse::duration);
    let settle_timeout = section.setting("settle_timeout", "30s", parse::duration);
    let unknown_hold = section.setting("unknown_hold", "30s", parse::duration);
    section.finish();
    let url = url?;
    encrypted(section, &url, allow_plain_http?, "facilitator.allow_plain_http");
    Some(Facilitator {
        url,
        verify_timeout: verify_timeout?,
        settle_timeout: settle_timeout?,
        unknown_hold: unknown_hold?,
    })
}

pub(super) fn providers(section: &Section<'_>) -> Option<Providers> {
    let connect_timeout = section.setting("connect_timeout", "3s", parse::duration);
    let allow_plain_http = section.setting("allow_plain_http", false, parse::boolean);
    let plain = allow_plain_http.unwrap_or(true);
    let xcache = xcache(&section.table("xcache"), plain);
    let openx402 = openx402(&section.table("openx402"), plain);
    let merit = merit(&section.table("merit"), plain);
    section.finish();
    Some(Providers {
        xcache: xcache?,
        openx402: openx402?,
        merit: merit?,
        declared: Vec::new(),
        connect_timeout: connect_timeout?,
        allow_plain_http: allow_plain_http?,
    })
}

fn xcache(section: &Section<'_>, plain_http: bool) -> Option<Option<XCache>> {
    let url = section.setting("url", "https://api.xcache.io", parse::base_url);
    let region = section.setting("region", "us-east-1", parse::name);
    let set_shape = section.setting("set_shape", "body", |node| match parse::text(node)?.as_str() {
        "body" => Ok(SetShape::Body),
        "query" => Ok(SetShape::Query),
        other => Err(Wrong::new(format!("{other:?} is not a shape"), "write \"body\" or \"query\"")),
    });
    let max_value = section.setting("max_value", "1MiB", parse::size);
    let operations_per_store = section.setting("operations_per_store", 10, parse::count);
    let operations_per_cache = section.setting("operations_per_cache", 50_000, parse::count);
    let low_water = section.setting("low_water", 1_000, parse::count);
    let daily_budget = section.setting("daily_budget", "$5", parse::price);
    section.finish();
    let xcache = XCache {
        url: url?,
        region: region?,
        set_shape: set_shape?,
        max_value: max_value?,
        operations_per_store: operations_per_store?,
        operations_per_cache: operations_per_cache?,
        low_water: low_water?,
        daily_budget: daily_budget?,
    };
    encrypted(section, &xcache.url, plain_http, "providers.allow_plain_http");
    if xcache.low_water >= xcache.operations_per_cache {
        let reason =
            "a new cache would be bought at once, again and again: it must be less than operations_per_cache";
        section.mistake("low_water", reason, "write less");
    }
    if xcache.operations_per_store > xcache.operations_per_cache {
        let reason = "one store would use up more than a whole cache";
        section.mistake("operations_per_store", reason, "write less than operations_per_cache");
    }
    Some(section.is_present().then_some(xcache))
}

fn openx402(section: &Section<'_>, plain_http: bool) -> Option<Option<OpenX402>> {
    let url = section.setting("url", "https://ipfs.openx402.ai", parse::base_url);
    let max_file = section.setting("max_file", "100MB", parse::size);
    section.finish();
    let openx402 = OpenX402 { url: url?, max_file: max_file? };
    encrypted(section, &openx402.url, plain_http, "providers.allow_plain_http");
    Some(section.is_present().then_some(openx402))
}

fn merit(section: &Section<'_>, plain_http: bool) -> Option<Option<Merit>> {
    let url =
        section.setting("url", "https://echo.router.merit.systems/resource/e2b/execute", parse::base_url);
    let max_code = section.setting("max_code", "1MiB", parse::size);
    section.finish();
    let merit = Merit { url: url?, max_code: max_code? };
    encrypted(section, &merit.url, plain_http, "providers.allow_plain_http");
    Some(section.is_present().then_some(merit))
}

/// Signed payments and prices must not cross a network where they can be read or changed.
pub(super) fn encrypted(section: &Section<'_>, url: &Uri, allowed: bool, switch: &str) {
    if !allowed && !parse::is_private(url) {
        let reason = format!(
            "{url} is not encrypted and not on this machine; payments sent there can be read and changed"
        );
        section.mistake(
            "url",
            reason,
            format!("use https://, or write {switch} = true if the network is yours alone"),
        );
    }
}
