//! `[facilitator]` and `[providers]`: the services that are paid through and bought from.

use http::Uri;

use crate::config::document::{Document, Section};
use crate::config::parse::{self, Wrong};
use crate::config::resolved::{Cdp, Facilitator, Fallback, Merit, OpenX402, Providers, SetShape, XCache};
use crate::config::{Secrets, cdp};

use super::local;

/// The facilitator that a gateway without the setting uses: of test networks only.
const TEST_FACILITATOR: &str = "https://x402.org/facilitator";
/// Coinbase's, where `[facilitator.cdp]` has a key for it.
const CDP_FACILITATOR: &str = "https://api.cdp.coinbase.com/platform/v2/x402";

pub(super) fn facilitator(
    document: &Document<'_>,
    section: &Section<'_>,
    secrets: Secrets,
) -> Option<Facilitator> {
    let url = section.setting("url", TEST_FACILITATOR, parse::base_url);
    let local = local::local(document, section, secrets);
    let cdp_table = section.table("cdp");
    let cdp = cdp(document, &cdp_table, secrets);
    let allow_plain_http = section.setting("allow_plain_http", false, parse::boolean);
    let verify_timeout = section.setting("verify_timeout", "10s", parse::duration);
    let settle_timeout = section.setting("settle_timeout", "30s", parse::duration);
    let unknown_hold = section.setting("unknown_hold", "30s", parse::duration);
    let hedge_after = section.setting("hedge_after", "1s", parse::duration);
    let fallback = fallback(document, section, secrets, allow_plain_http.unwrap_or(true));
    section.finish();
    let (mut url, allow_plain_http) = (url?, allow_plain_http?);
    if cdp_table.is_present() && url == TEST_FACILITATOR {
        url = Uri::from_static(CDP_FACILITATOR);
    }
    encrypted(section, &url, allow_plain_http, "facilitator.allow_plain_http");
    let fallback = fallback?;
    let mut urls = vec![&url];
    for (read, table) in &fallback {
        if urls.contains(&&read.url) {
            table.mistake("url", "this facilitator is already asked", "remove one, or name another");
        }
        urls.push(&read.url);
    }
    Some(Facilitator {
        fallback: fallback.into_iter().map(|(read, _)| read).collect(),
        hedge_after: hedge_after?,
        url,
        allow_plain_http,
        cdp: cdp?,
        local: local?,
        verify_timeout: verify_timeout?,
        settle_timeout: settle_timeout?,
        unknown_hold: unknown_hold?,
    })
}

fn fallback<'a>(
    document: &Document<'_>,
    section: &Section<'a>,
    secrets: Secrets,
    allow_plain_http: bool,
) -> Option<Vec<(Fallback, Section<'a>)>> {
    let mut whole = true;
    let mut read = Vec::new();
    for table in section.tables("fallback") {
        let cdp_table = table.table("cdp");
        let cdp = cdp(document, &cdp_table, secrets);
        let url = match cdp_table.is_present() {
            true => table
                .optional("url", parse::base_url)
                .map(|url| url.unwrap_or_else(|| Uri::from_static(CDP_FACILITATOR))),
            false => table.required("url", parse::base_url),
        };
        table.finish();
        let (Some(url), Some(cdp)) = (url, cdp) else {
            whole = false;
            continue;
        };
        encrypted(&table, &url, allow_plain_http, "facilitator.allow_plain_http");
        read.push((Fallback { url, cdp }, table));
    }
    whole.then_some(read)
}

fn cdp(document: &Document<'_>, section: &Section<'_>, secrets: Secrets) -> Option<Option<Cdp>> {
    let key_id = section.optional("key_id", parse::name);
    let key_id_env = section.setting("key_id_env", "CDP_API_KEY_ID", parse::name);
    let secret_file = section.optional("secret_file", parse::path);
    let secret_env = section.setting("secret_env", "CDP_API_KEY_SECRET", parse::name);
    section.finish();
    if !section.is_present() {
        return Some(None);
    }
    let (key_id, key_id_env, secret_file, secret_env) = (key_id?, key_id_env?, secret_file?, secret_env?);
    for (value, variable) in [("key_id", "key_id_env"), ("secret_file", "secret_env")] {
        if section.has(value) && section.has(variable) {
            section.mistake(variable, "it is named twice", format!("keep {value} or {variable}, not both"));
            return None;
        }
    }
    let in_environment = |name: &str| document.environment.get(name).filter(|text| !text.trim().is_empty());
    let missing = |setting: &str, wrong: Wrong| {
        if secrets == Secrets::MayBeAbsent {
            let reason = format!("{}; `serve` will not start without it", wrong.reason);
            section.warning(setting, reason, wrong.fix);
            return Some(None);
        }
        section.mistake(setting, wrong.reason, wrong.fix);
        None
    };
    let Some(key_id) = key_id.or_else(|| in_environment(&key_id_env).map(|id| id.trim().to_owned())) else {
        let reason = format!("the environment variable {key_id_env} is not set, and key_id is not written");
        return missing("key_id", Wrong::new(reason, "write key_id, or export the variable"));
    };
    let (setting, present, key) = match &secret_file {
        Some(path) => ("secret_file", path.exists(), cdp::from_file(path)),
        None => {
            let present = in_environment(&secret_env).is_some();
            ("secret_env", present, cdp::from_environment(&secret_env, document.environment))
        }
    };
    match key {
        Ok(key) => Some(Some(Cdp { key_id, key })),
        Err(wrong) if !present => missing(setting, wrong),
        Err(wrong) => {
            section.mistake(setting, wrong.reason, wrong.fix);
            None
        }
    }
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
