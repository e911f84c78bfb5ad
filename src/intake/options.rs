//! The options of brokered work: what each may be, whichever form of request it came in.

use http::HeaderValue;
use serde_json::json;

use super::Wanted;
use crate::reason::{Problem, Reason};

/// The longest `ttl` that is taken, in seconds: a year.
pub const MAX_TTL: u64 = 31_536_000;

/// Options of `/run` that clients are known to send and that nobody sells.
pub(super) const UNSOLD: [&str; 8] =
    ["gpu", "gpuType", "gpu_type", "gpuCount", "gpu_count", "timeout", "onDemand", "on_demand"];

/// Bytes of a file name at most, as on most file systems.
const MAX_FILENAME: usize = 255;

/// Bytes of a language name at most; it is part of the key that quotes are kept under.
const MAX_LANGUAGE: usize = 32;

/// Bytes of a media type at most.
const MAX_MEDIA_TYPE: usize = 255;

/// A file name: a label, so nothing that could be taken for a path or break a header.
pub(super) fn filename(name: &str) -> Result<String, Problem> {
    let wrong = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_FILENAME {
        "it is longer than 255 bytes"
    } else if name.chars().any(|c| c.is_control() || c == '/' || c == '\\') || name == "." || name == ".." {
        "it is a name, not a path: it has no slashes, backslashes or control characters"
    } else {
        return Ok(name.to_owned());
    };
    Err(invalid("filename", wrong))
}

/// A media type with parameters, fit for a header field.
pub(super) fn content_type(field: &str, text: &str) -> Result<String, Problem> {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let fits = text.len() <= MAX_MEDIA_TYPE && text.is_ascii() && HeaderValue::from_str(text).is_ok();
    if fits && is_media_type(essence) {
        Ok(text.to_owned())
    } else {
        Err(invalid(field, "it is not a media type such as image/png"))
    }
}

/// Whether the text is `type/subtype`, both tokens (RFC 9110 8.3.1).
pub(super) fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

/// A language name, in lower case.
pub(super) fn language(name: &str) -> Result<String, Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+#._-".contains(&b);
    if name.is_empty() || name.len() > MAX_LANGUAGE || !name.bytes().all(plain) {
        return Err(invalid("language", "it is not the name of a language, such as python"));
    }
    Ok(name.to_ascii_lowercase())
}

/// `permanent` in a query.
pub(super) fn permanent(text: &str) -> Result<bool, Problem> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(invalid("permanent", "it is true or false")),
    }
}

/// `ttl`, in whole seconds.
pub(super) fn ttl(text: &str) -> Result<u64, Problem> {
    match digits(text) {
        Some(seconds @ 1..=MAX_TTL) => Ok(seconds),
        _ => Err(invalid("ttl", format!("it is a whole number of seconds from 1 to {MAX_TTL}"))),
    }
}

/// `size` in a query, in bytes.
pub(super) fn size(text: &str) -> Result<u64, Problem> {
    digits(text).ok_or_else(|| invalid("size", "it is a whole number of bytes"))
}

/// `files` in a query: how many there are in the form.
pub(super) fn files(text: &str, most: u16) -> Result<u16, Problem> {
    match digits(text).and_then(|files| u16::try_from(files).ok()) {
        Some(files) if (1..=most).contains(&files) => Ok(files),
        _ if most == 1 => Err(invalid("files", "several files in one form are not taken here")),
        _ => Err(invalid("files", format!("it is a whole number of files from 1 to {most}"))),
    }
}

/// A store with these options.
pub(super) fn store(permanent: bool, ttl: Option<u64>) -> Result<Wanted, Problem> {
    if permanent && ttl.is_some() {
        return Err(invalid("ttl", "what is permanent has no ttl; send one of the two"));
    }
    Ok(Wanted::Store { permanent, ttl })
}

/// A run in this language.
pub(super) fn run(language: Option<String>) -> Wanted {
    Wanted::Run { language: language.unwrap_or_else(|| "python".to_owned()) }
}

/// Refuses an option that nobody sells, unless its value asks for nothing: front ends send their defaults.
pub(super) fn refuse_unsold(name: &str, value: &str) -> Result<(), Problem> {
    if matches!(value, "" | "\"\"" | "null" | "false" | "0") {
        return Ok(());
    }
    let value = excerpt(value);
    Err(Problem::new(Reason::NotSold)
        .message(format!("no provider sells the option {name}"))
        .details(json!({ "option": name, "value": value })))
}

/// A refused field: `field` is its name as the client knows it, `why` a sentence about it.
pub(super) fn invalid(field: &str, why: impl std::fmt::Display) -> Problem {
    Problem::new(Reason::InvalidField)
        .message(format!("{field} is not valid: {why}"))
        .details(json!({ "field": field }))
}

/// The start of a client's text, short enough to be repeated in an answer.
pub(super) fn excerpt(text: &str) -> String {
    const MOST: usize = 64;
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(MOST).collect();
    if chars.next().is_some() { start + "…" } else { start }
}

/// Decimal digits only: no sign, point or space.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}
