//! `[store]` and `[paid]`: where jobs live, and the deadlines and sizes of paid work.

use secrecy::SecretString;

use crate::config::document::Section;
use crate::config::node::{Node, Value};
use crate::config::parse::{self, Parsed, Wrong};
use crate::config::resolved::{Archive, LARGEST_KEPT, Paid, Pricing, Store};

/// Files in one form that `max_files` may allow.
const MOST_FILES: u16 = 64;

/// The legal kinds of `store.kind`.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Embedded,
    Redis,
}

pub(super) fn store(section: &Section<'_>) -> Option<Store> {
    let kind = section.setting("kind", "embedded", |node| match parse::text(node)?.as_str() {
        "embedded" => Ok(Kind::Embedded),
        "redis" => Ok(Kind::Redis),
        other => Err(Wrong::new(format!("{other:?} is not a store"), "write \"embedded\" or \"redis\"")),
    });
    let path = section.setting("path", "data/galaksio.redb", parse::path);
    let url = section.optional("url", |node| {
        let text = parse::text(node)?;
        // The text may hold a password, so it is not repeated.
        let known = ["redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://"]
            .iter()
            .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
        let fix = "write \"redis://host:6379/0\", or \"rediss://user:password@host:6379/0\" for TLS, or \
            \"redis+sentinel://host:26379,host:26379/service/0\"";
        if known { Ok(SecretString::from(text)) } else { Err(Wrong::new("this is not a Redis URL", fix)) }
    });
    let prefix = section.setting("prefix", "galaksio", parse::name);
    section.finish();
    let (kind, path, url, prefix) = (kind?, path?, url?, prefix?);
    let unused: &[&str] = match kind {
        Kind::Embedded => &["url", "prefix"],
        Kind::Redis => &["path"],
    };
    for key in unused.iter().filter(|key| section.has(key)) {
        let (here, there) = if kind == Kind::Redis { ("redis", "embedded") } else { ("embedded", "redis") };
        let reason = format!("`{key}` means nothing to the {here} store");
        section.mistake(key, reason, format!("remove it, or write kind = {there:?}"));
    }
    match (kind, url) {
        (Kind::Embedded, _) => Some(Store::Embedded { path }),
        (Kind::Redis, Some(url)) => Some(Store::Redis { url, prefix }),
        (Kind::Redis, None) => {
            section.mistake("kind", "a Redis store needs `url`", "add url = \"redis://host:6379/0\"");
            None
        }
    }
}

pub(super) fn paid(section: &Section<'_>) -> Option<Paid> {
    let max_json_body = section.setting("max_json_body", "140MiB", parse::size);
    let max_document = section.setting("max_document", "10MiB", parse::size);
    let max_raw_body = section.setting("max_raw_body", "100MiB", parse::size);
    let max_files = section.setting("max_files", 16, parse::count);
    let max_spool = section.setting("max_spool", "2GiB", parse::size);
    let spool_dir = section.setting("spool_dir", "/tmp", parse::path);
    let max_body_memory = section.setting("max_body_memory", "256MiB", parse::size);
    let fetch_urls = section.setting("fetch_urls", false, parse::boolean);
    let fetch_private = section.list("fetch_private", vec![], parse::ip_block);
    let webhooks = section.setting("webhooks", false, parse::boolean);
    let webhook_hosts = section.list("webhook_hosts", vec![], parse::host);
    let webhook_private = section.list("webhook_private", vec![], parse::ip_block);
    let max_timeout = section.setting("max_timeout", "5m", parse::duration);
    let work_timeout = section.setting("work_timeout", "2m", parse::duration);
    let settle_margin = section.setting("settle_margin", "30s", parse::duration);
    let upfront_above = section.optional("upfront_above", super::limits::micros);
    let retention = section.setting("retention", "1d", parse::duration);
    let archive = section.optional("archive", |node| match parse::text(node)?.as_str() {
        "" => Ok(Archive::Off),
        folder => Ok(Archive::At(folder.into())),
    });
    let result_max = section.setting("result_max", "1MiB", parse::size);
    let result_file_max = section.setting("result_file_max", "64MiB", size_or_none);
    let result_files = section.setting("result_files", "1GiB", parse::size);
    let lease = section.setting("lease", "15s", parse::duration);
    let max_jobs = section.setting("max_jobs", 256, parse::count);
    let max_payment_header = section.setting("max_payment_header", "32KiB", parse::memory_size);
    let status_path = section.setting("status_path", "/status", parse::own_segment);
    let job_path = section.setting("job_path", "/job", parse::own_segment);
    let files_path = section.setting("files_path", "/files", parse::own_segment);
    let jobs_path = section.setting("jobs_path", "/jobs", parse::own_segment);
    let max_watchers = section.setting("max_watchers", 1000, parse::count);
    section.finish();
    let paid = Paid {
        max_json_body: max_json_body?,
        max_document: max_document?,
        max_raw_body: max_raw_body?,
        max_files: max_files?,
        max_spool: max_spool?,
        spool_dir: spool_dir?,
        max_body_memory: max_body_memory?,
        fetch_urls: fetch_urls?,
        fetch_private: fetch_private?,
        webhooks: webhooks?,
        webhook_hosts: webhook_hosts?,
        webhook_private: webhook_private?,
        max_timeout: max_timeout?,
        work_timeout: work_timeout?,
        settle_margin: settle_margin?,
        upfront_above: upfront_above?,
        retention: retention?,
        archive: archive?.unwrap_or(Archive::Usual),
        result_max: result_max?,
        result_file_max: result_file_max?,
        result_files: result_files?,
        lease: lease?,
        max_jobs: max_jobs?,
        max_payment_header: max_payment_header?,
        status_path: status_path?,
        job_path: job_path?,
        files_path: files_path?,
        jobs_path: jobs_path?,
        max_watchers: max_watchers?,
    };
    sizes(section, &paid);
    deadlines(section, &paid);
    Some(paid)
}

fn sizes(section: &Section<'_>, paid: &Paid) {
    let bodies = [("max_document", paid.max_document), ("result_max", paid.result_max)];
    for (key, size) in bodies {
        if size > paid.max_body_memory {
            let reason = "one of this size would not fit max_body_memory, so none would ever be taken";
            section.mistake(key, reason, "write less, or raise max_body_memory");
        }
    }
    if paid.max_raw_body > paid.max_spool {
        let reason = "one of this size would not fit max_spool, so none would ever be taken";
        section.mistake("max_raw_body", reason, "write less, or raise max_spool");
    }
    if paid.max_files > MOST_FILES {
        let reason = "each file of a form may be a payment to a provider of its own, one after the other";
        section.mistake("max_files", reason, format!("write {MOST_FILES} or less"));
    }
    if paid.result_max > LARGEST_KEPT {
        let reason = "results are kept in the job store, which is not made for values over 16MiB";
        section.mistake("result_max", reason, "write 16MiB or less; larger ones are for result_file_max");
    }
    if let Some(largest) = paid.result_file_max {
        if largest > paid.result_files {
            let reason = "one of this size would not fit result_files, so none would ever be kept";
            section.mistake("result_file_max", reason, "write less, or raise result_files");
        }
        if largest <= paid.result_max {
            let reason = "answers up to result_max are kept in the store, so none would be kept in a file";
            section.mistake("result_file_max", reason, "write more, or \"\" for none");
        }
    }
}

/// A size, or `""`.
fn size_or_none(node: &Node) -> Parsed<Option<u64>> {
    match &node.value {
        Value::Text(text) if text.is_empty() => Ok(None),
        _ => parse::size(node).map(Some),
    }
}

fn deadlines(section: &Section<'_>, paid: &Paid) {
    if paid.max_timeout.subsec_nanos() != 0 {
        section.mistake("max_timeout", "x402 counts this in whole seconds", "write whole seconds");
    }
    let least = paid.work_timeout.saturating_add(paid.settle_margin);
    if least >= paid.max_timeout {
        let reason = format!(
            "work_timeout + settle_margin ({}s) must be less than max_timeout ({}s), or work ends too late to be paid for",
            least.as_secs(),
            paid.max_timeout.as_secs()
        );
        let key = ["work_timeout", "settle_margin"]
            .into_iter()
            .find(|key| section.has(key))
            .unwrap_or("max_timeout");
        section.mistake(key, reason, "raise max_timeout, or lower the other two");
    }
    if paid.retention < paid.max_timeout {
        let reason = "a job would be forgotten while its payment can still be presented";
        section.mistake("retention", reason, "write at least max_timeout; a day is usual");
    }
    if paid.lease.as_millis() < 1_000 {
        let reason = "a job whose process pauses this briefly would be taken over while it runs";
        section.mistake("lease", reason, "write at least 1s; 15s is usual");
    }
}

/// What `[paid]` takes must be sold, and what it holds must fit the request head.
pub(super) fn fits(section: &Section<'_>, paid: &Paid, pricing: &Pricing, max_header_bytes: usize) {
    if let Some(largest) = pricing.buckets.last().filter(|largest| **largest < paid.max_raw_body) {
        let reason = format!("bodies over the last of pricing.buckets ({largest} bytes) have no price");
        section.mistake("max_raw_body", reason, "write less, or add a bucket");
    }
    if paid.max_payment_header >= max_header_bytes {
        let reason = "a payment this large would not fit edge.max_header_bytes, all headers together";
        section.mistake("max_payment_header", reason, "write less, or raise edge.max_header_bytes");
    }
}
