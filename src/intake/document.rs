//! JSON documents that clients store: kept as written, number spelling and key order included, and never so
//! deep that a provider's parser, or ours, could fall over them.

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::reason::{Problem, Reason};

/// Nesting levels at most. Below the 128 at which common parsers give up, so that a document still fits
/// inside the object an adapter wraps it in.
pub(super) const MAX_DEPTH: usize = 100;

/// The document without insignificant white space. `json` is valid JSON and a slice of `body`; if it has no such
/// white space, nothing is copied.
pub(super) fn compact(body: &Bytes, json: &str) -> Result<Bytes, Problem> {
    let mut length = 0;
    refuse_deep(walk(json.as_bytes(), |run| length += run.len()))?;
    if length == json.len() {
        return Ok(body.slice_ref(json.as_bytes()));
    }
    let mut compact = Vec::with_capacity(length);
    walk(json.as_bytes(), |run| compact.extend_from_slice(run));
    Ok(compact.into())
}

/// Whether the bytes are a JSON object or array.
pub(super) fn is_document(bytes: &[u8]) -> bool {
    begins(bytes) && check(bytes).is_ok()
}

/// Whether bytes that begin so may be a JSON object or array.
pub(super) fn begins(bytes: &[u8]) -> bool {
    let first = bytes.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    matches!(first, Some(b'{' | b'['))
}

/// Whether the bytes are any JSON value, and if not, where they stop being one.
pub(super) fn check(bytes: &[u8]) -> Result<(), Problem> {
    let invalid = |why: &dyn std::fmt::Display| {
        Problem::new(Reason::InvalidJson)
            .message(format!("a .json file must hold JSON, and this one does not: {why}"))
    };
    // The parser skips strings without looking at their encoding, hence the check of UTF-8 first.
    let text = str::from_utf8(bytes).map_err(|error| invalid(&error))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| invalid(&error))?;
    refuse_deep(walk(bytes, |_| {}))
}

fn refuse_deep(depth: usize) -> Result<(), Problem> {
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    let message = format!("the document is nested {depth} levels deep; at most {MAX_DEPTH} are taken");
    Err(Problem::new(Reason::InvalidJson).message(message))
}

/// Hands out the stretches between insignificant white space, and returns the depth of the nesting.
fn walk<'a>(json: &'a [u8], mut run: impl FnMut(&'a [u8])) -> usize {
    let (mut start, mut at) = (0, 0);
    let (mut depth, mut deepest) = (0usize, 0usize);
    while let Some(&byte) = json.get(at) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                if start < at {
                    run(&json[start..at]);
                }
                start = at + 1;
            }
            b'"' => at = string_end(json, at),
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    if start < json.len() {
        run(&json[start..]);
    }
    deepest
}

/// Where the string that opens at `open` closes.
fn string_end(json: &[u8], open: usize) -> usize {
    let mut from = open + 1;
    while let Some(found) = json.get(from..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        if json[from + found] == b'"' {
            return from + found;
        }
        from += found + 2;
    }
    json.len()
}
