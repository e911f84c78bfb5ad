//! `[[provider]]`: any x402 endpoint as a provider.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, HeaderValue, Method};

use super::providers::encrypted;
use crate::config::document::Section;
use crate::config::node::{Node, Value};
use crate::config::parse::{self, Parsed, Wrong};
use crate::config::resolved::{
    Condition, Declared, DeclaredKind, Keeping, Placeholder, RequestBody, ResultMapping, ResumeClass,
};

/// Names that mean something else in records and metrics.
const TAKEN: [&str; 5] = ["app", "xcache", "openx402", "merit", "merit-systems"];

/// Bytes of a name at most: it is a label of metrics.
const MAX_NAME: usize = 32;

/// Prices of what is kept for a time are asked for with this time.
const LEAST_TTL: Duration = Duration::from_secs(3600);

/// Fields that are ours to send, or that carry what does not belong in a configuration file.
const OURS: [HeaderName; 8] =
    [HOST, CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING, TE, TRAILER, UPGRADE, EXPECT];
const SECRET: [HeaderName; 3] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];
const PAYMENT: [&str; 4] = ["payment-signature", "x-payment", "x402-payment", "payment-required"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    StoreJson,
    StoreFile,
    Run,
}

/// Every `[[provider]]`. `plain_http`: `providers.allow_plain_http`.
pub(super) fn declared(sections: &[Section<'_>], plain_http: bool) -> Option<Vec<Declared>> {
    let read: Vec<Option<Declared>> = sections.iter().map(|section| provider(section, plain_http)).collect();
    for (index, (section, provider)) in sections.iter().zip(&read).enumerate() {
        let Some(name) = provider.as_ref().map(|provider| &provider.name) else { continue };
        let earlier = read.iter().take(index).flatten();
        if earlier.map(|earlier| &earlier.name).any(|earlier| earlier == name) {
            let reason = format!("{name:?} is declared above; records and metrics could not tell them apart");
            section.mistake("name", reason, "choose another name");
        }
    }
    read.into_iter().collect()
}

fn provider(section: &Section<'_>, plain_http: bool) -> Option<Declared> {
    let name = section.required("name", name);
    let kind = section.required("kind", kind);
    let url = section.required("url", parse::base_url);
    let method = section.setting("method", "POST", method);
    let headers = section.optional("headers", headers);
    let body = section.required("body", parse::request_body);
    let sample = section.optional("sample", parse::name);
    let languages = section.list("languages", vec![], language);
    let permanent = section.setting("permanent", false, parse::boolean);
    let max_ttl = section.optional("max_ttl", parse::duration);
    let max_size = section.setting("max_size", "1MiB", parse::size);
    let pay_to = section.optional("pay_to", parse::address);
    let timeout = section.setting("timeout", "60s", parse::duration);
    let resume = section.setting("resume", "none", resume);
    let raw = section.setting("answer", "json", raw);
    let max_result = section.setting("max_result", "64MiB", parse::size);
    let result_table = section.table("result");
    let result = result(&result_table);
    let success = success(&section.table("success"));
    section.finish();

    if let Some(url) = &url {
        encrypted(section, url, plain_http, "providers.allow_plain_http");
    }
    let kind = kind?;
    let does = match kind {
        Kind::Run => {
            unused(section, &["permanent", "max_ttl"], "what is run");
            if languages.as_ref().is_some_and(Vec::is_empty) {
                section.mistake("languages", "nothing says what it runs", "write languages = [\"python\"]");
            }
            DeclaredKind::Run { languages: languages.unwrap_or_default() }
        }
        Kind::StoreJson | Kind::StoreFile => {
            unused(section, &["languages"], "what is stored");
            let keeping = match (permanent.unwrap_or_default(), max_ttl.flatten()) {
                (true, Some(_)) => {
                    let reason = "what is stored for good has no time to live";
                    section.mistake("max_ttl", reason, "keep `permanent` or `max_ttl`, not both");
                    Keeping::Permanent
                }
                (true, None) => Keeping::Permanent,
                (false, Some(longest)) => Keeping::UpTo(longest),
                (false, None) => Keeping::Unspecified,
            };
            match kind {
                Kind::StoreJson => DeclaredKind::StoreJson(keeping),
                _ => DeclaredKind::StoreFile(keeping),
            }
        }
    };
    if let Some(body) = &body {
        body_fits(section, &does, body);
    }
    let result = match raw {
        Some(true) => {
            is_raw(section, &does);
            max_result.map(|max| ResultMapping::Raw { max })
        }
        _ => {
            unused(section, &["max_result"], "an answer that is JSON");
            result.and_then(|members| mapping(&result_table, section, &does, members))
        }
    };
    let sample = sample.map(|sample| sample.map_or(Bytes::from_static(usual_sample(kind)), Bytes::from));
    if let Some(sample) = &sample {
        sample_fits(section, &does, sample);
    }
    // What is wrong is noted by now: nobody uses the rest of a file with a mistake in it.
    Some(Declared {
        sample: sample?,
        name: name?,
        kind: does,
        url: url?,
        method: method?,
        headers: headers?.unwrap_or_default(),
        body: body?,
        result: result?,
        success: success?,
        max_size: max_size?,
        pay_to: pay_to?,
        timeout: timeout?,
        resume: resume?,
    })
}

/// What an answer that is the result itself cannot have.
fn is_raw(section: &Section<'_>, kind: &DeclaredKind) {
    unused(section, &["result", "success"], "an answer that is the result itself");
    if !matches!(kind, DeclaredKind::Run { .. }) {
        let reason =
            "what is stored must be named, and nothing is read of an answer that is the result itself";
        section.mistake("answer", reason, "write \"json\", and where the name is in result");
    }
}

/// Short, and what such a provider takes.
fn usual_sample(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::StoreJson => b"{}",
        Kind::StoreFile | Kind::Run => b"0",
    }
}

fn sample_fits(section: &Section<'_>, kind: &DeclaredKind, sample: &[u8]) {
    let json = matches!(kind, DeclaredKind::StoreJson(_));
    if json && serde_json::from_slice::<serde_json::Value>(sample).is_err() {
        section.mistake("sample", "it is not a JSON document", "write one such as '{}'");
    }
}

fn unused(section: &Section<'_>, keys: &[&'static str], of: &str) {
    for key in keys.iter().filter(|key| section.has(key)) {
        section.mistake(key, format!("`{key}` means nothing for {of}"), "remove it");
    }
}

/// Whether the body carries the content in a form that it can have, and everything that the client may choose.
fn body_fits(section: &Section<'_>, kind: &DeclaredKind, body: &RequestBody) {
    let mistake = |reason: &str, fix: &str| section.mistake("body", reason, fix);
    let RequestBody::Json(template) = body else {
        match kind {
            DeclaredKind::Run { languages } if languages.len() > 1 => {
                let fix = "write a JSON body with \"{language}\", or declare one provider for each language";
                mistake("a raw body does not say which of the languages it is", fix);
            }
            DeclaredKind::StoreJson(Keeping::UpTo(_)) | DeclaredKind::StoreFile(Keeping::UpTo(_)) => {
                mistake(
                    "a raw body does not say how long it is to be kept",
                    "write a JSON body with \"{ttl}\"",
                );
            }
            _ => {}
        }
        return;
    };
    let has = |placeholder| template.has(placeholder);
    if ![Placeholder::Text, Placeholder::Base64, Placeholder::Json].into_iter().any(has) {
        mistake(
            "the content has no place in it",
            "write \"{text}\", \"{base64}\" or \"{json}\" as one of its values",
        );
    }
    let wrong_place = |name: &str, why: &str, instead: &str| {
        let reason = format!("{{{name}}} cannot be filled: {why}");
        section.mistake("body", reason, format!("write \"{{{instead}}}\" instead"));
    };
    let mut keeping = None;
    match kind {
        DeclaredKind::Run { languages } => {
            if has(Placeholder::Json) {
                wrong_place("json", "a program is no JSON document", "text");
            }
            if languages.len() > 1 && !has(Placeholder::Language) {
                let fix = "write \"{language}\" as one of its values";
                mistake("which of the languages the program is in has no place in it", fix);
            }
        }
        DeclaredKind::StoreFile(how) => {
            keeping = Some(*how);
            for (name, placeholder) in [("text", Placeholder::Text), ("json", Placeholder::Json)] {
                if has(placeholder) {
                    wrong_place(name, "a file may be any bytes", "base64");
                }
            }
        }
        DeclaredKind::StoreJson(how) => keeping = Some(*how),
    }
    let foreign = |names: &[(&str, Placeholder)], why: &str| {
        for (name, _) in names.iter().filter(|(_, placeholder)| has(*placeholder)) {
            let reason = format!("{{{name}}} cannot be filled: {why}");
            section.mistake("body", reason, "remove it");
        }
    };
    match keeping {
        None => foreign(
            &[("ttl", Placeholder::Ttl), ("permanent", Placeholder::Permanent)],
            "a program is not kept",
        ),
        Some(how) => {
            foreign(&[("language", Placeholder::Language)], "what is stored is in no language");
            let until = matches!(how, Keeping::UpTo(_));
            if until && !has(Placeholder::Ttl) {
                mistake(
                    "how long it is to be kept has no place in it",
                    "write \"{ttl}\" as one of its values",
                );
            } else if !until {
                foreign(&[("ttl", Placeholder::Ttl)], "without `max_ttl` nothing is kept for a given time");
            }
        }
    }
    if let Keeping::UpTo(longest) = keeping.unwrap_or(Keeping::Unspecified)
        && longest < LEAST_TTL
    {
        let reason = "prices are asked for one hour, so less than that would never be sold";
        section.mistake("max_ttl", reason, "write \"1h\" or more");
    }
}

/// The members of `result`, whichever kind they are of.
type Members = [Option<crate::config::resolved::Pointer>; RESULT.len()];

const RESULT: [&str; 7] = ["stdout", "stderr", "exit_code", "execution_time", "text", "cid", "url"];

fn result(section: &Section<'_>) -> Option<Members> {
    let read = RESULT.map(|key| section.optional(key, parse::pointer));
    section.finish();
    let mut members = Members::default();
    for (member, read) in members.iter_mut().zip(read) {
        *member = read?;
    }
    Some(members)
}

fn mapping(
    table: &Section<'_>,
    section: &Section<'_>,
    kind: &DeclaredKind,
    members: Members,
) -> Option<ResultMapping> {
    let runs = matches!(kind, DeclaredKind::Run { .. });
    let foreign = if runs { &RESULT[5..] } else { &RESULT[..5] };
    let of = if runs { "the result of a run" } else { "the result of a store" };
    unused(table, foreign, of);
    let [stdout, stderr, exit_code, execution_time, text, cid, url] = members;
    match (runs, stdout, &cid, &url) {
        (true, Some(stdout), ..) => {
            Some(ResultMapping::Run { stdout, stderr, exit_code, execution_time, text })
        }
        (true, None, ..) => {
            let fix = "add result = { stdout = \"/…\" }, a JSON pointer into the answer";
            section.mistake("result", "nothing says where a program's output is", fix);
            None
        }
        (false, _, None, None) => {
            let fix = "add result = { url = \"/…\" }, or cid, a JSON pointer into the answer";
            section.mistake("result", "nothing says where the name of what is stored is", fix);
            None
        }
        (false, ..) => Some(ResultMapping::Store { cid, url }),
    }
}

fn success(section: &Section<'_>) -> Option<Option<Condition>> {
    if !section.is_present() {
        // So that they are known, and described.
        let _ = (section.optional("at", parse::pointer), section.optional("equals", constant));
        return Some(None);
    }
    let at = section.required("at", parse::pointer);
    let equals = section.optional("equals", constant);
    section.finish();
    Some(Some(Condition { at: at?, equals: equals? }))
}

fn constant(node: &Node) -> Parsed<serde_json::Value> {
    match &node.value {
        Value::Text(text) => Ok(text.clone().into()),
        Value::Integer(number) => Ok((*number).into()),
        Value::Boolean(flag) => Ok((*flag).into()),
        other => {
            let reason = format!("expected a text, a whole number, true or false, found {}", other.kind());
            Err(Wrong::new(reason, "write what a good answer has there"))
        }
    }
}

fn name(node: &Node) -> Parsed<String> {
    let text = parse::text(node)?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(plain) {
        let reason = format!("{text:?} is not a provider's name");
        return Err(Wrong::new(reason, format!("write up to {MAX_NAME} lower-case letters, digits and -")));
    }
    if TAKEN.contains(&text.as_str()) {
        return Err(Wrong::new(format!("{text:?} is the name of a built-in one"), "choose another name"));
    }
    Ok(text)
}

fn kind(node: &Node) -> Parsed<Kind> {
    match parse::text(node)?.as_str() {
        "store-json" => Ok(Kind::StoreJson),
        "store-file" => Ok(Kind::StoreFile),
        "run" => Ok(Kind::Run),
        other => Err(Wrong::new(
            format!("{other:?} is not something a provider can do here"),
            "write \"store-json\" (JSON documents), \"store-file\" (any bytes) or \"run\" (programs)",
        )),
    }
}

/// Whether an answer is the result itself.
fn raw(node: &Node) -> Parsed<bool> {
    match parse::text(node)?.as_str() {
        "json" => Ok(false),
        "raw" => Ok(true),
        other => Err(Wrong::new(
            format!("{other:?} is no answer that can be read here"),
            "write \"json\" (with the result in it, as `result` says) or \"raw\" (the result itself)",
        )),
    }
}

fn method(node: &Node) -> Parsed<Method> {
    match parse::text(node)?.as_str() {
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        other => Err(Wrong::new(
            format!("{other:?} carries no content"),
            "write \"POST\", \"PUT\" or \"PATCH\", in capitals",
        )),
    }
}

/// A language as clients name it, which is in lower case when it gets here.
fn language(node: &Node) -> Parsed<String> {
    let text = parse::text(node)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+#._-".contains(&b);
    if text.is_empty() || text.len() > 32 || !text.bytes().all(plain) {
        let reason = format!("{text:?} is not the name of a language");
        return Err(Wrong::new(reason, "write it in lower case: \"python\""));
    }
    Ok(text)
}

fn resume(node: &Node) -> Parsed<ResumeClass> {
    match parse::text(node)?.as_str() {
        "none" => Ok(ResumeClass::None),
        "idempotent" => Ok(ResumeClass::Idempotent),
        other => Err(Wrong::new(
            format!("{other:?} is not a way to go on"),
            "write \"none\", or \"idempotent\" if it answers an identical request, paid identically, as it did before",
        )),
    }
}

/// A table of header fields. Told as one: the first that is wrong.
fn headers(node: &Node) -> Parsed<Vec<(HeaderName, HeaderValue)>> {
    let fix = "write headers = { \"x-version\" = \"2\" }";
    let Value::Table(fields) = &node.value else {
        return Err(Wrong::new(format!("expected a table, found {}", node.value.kind()), fix));
    };
    let mut headers = Vec::with_capacity(fields.len());
    for (key, entry) in fields {
        let name = HeaderName::from_bytes(key.as_bytes())
            .map_err(|_| Wrong::new(format!("{key:?} is not the name of a header field"), fix))?;
        if OURS.contains(&name) || PAYMENT.contains(&name.as_str()) {
            return Err(Wrong::new(
                format!("{name} is sent by the gateway itself"),
                format!("remove {name}"),
            ));
        }
        if SECRET.contains(&name) {
            let reason = format!("{name} is a secret, and whoever is paid by x402 needs none");
            return Err(Wrong::new(reason, format!("remove {name}")));
        }
        let text = parse::text(&entry.node)?;
        let value = HeaderValue::from_str(&text)
            .map_err(|_| Wrong::new(format!("the value of {name} cannot be sent in a header"), fix))?;
        if headers.iter().any(|(earlier, _)| *earlier == name) {
            return Err(Wrong::new(format!("{name} is there twice"), "keep one"));
        }
        headers.push((name, value));
    }
    Ok(headers)
}
