//! From a field's text to its bytes: base64 or text, and what kind of bytes they are.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Encoding, Kind, document, options};
use crate::reason::{Problem, Reason};

/// How a text without an `encoding` is read where base64 and plain text are both possible.
#[derive(Clone, Copy)]
pub(super) enum Reading {
    /// Base64 wherever it is valid base64.
    Any,
    /// Base64 only where that gives JSON: the name says that JSON it is.
    Json,
    /// Base64 only where that gives a text. Short programs can look like base64: `exit` decodes to three
    /// bytes, none of which anybody wants run.
    Code,
}

/// The bytes of a text. Base64 is the standard alphabet, padded, canonical, and nothing else: no line breaks, no
/// URL alphabet. Text without escapes is not copied: it stays a slice of `body`.
pub(super) fn decode(
    body: &Bytes,
    field: &str,
    text: Cow<'_, str>,
    encoding: Option<Encoding>,
    reading: Reading,
) -> Result<(Bytes, Encoding), Problem> {
    if encoding != Some(Encoding::Utf8) {
        match base64_simd::STANDARD.decode_to_vec(text.as_bytes()) {
            Ok(bytes) if encoding.is_some() || reading.makes_sense_of(&bytes) => {
                return Ok((bytes.into(), Encoding::Base64));
            }
            Err(_) if encoding.is_some() => return Err(not_base64(field)),
            _ => {}
        }
    }
    let bytes = match text {
        Cow::Borrowed(text) => body.slice_ref(text.as_bytes()),
        Cow::Owned(text) => text.into(),
    };
    Ok((bytes, Encoding::Utf8))
}

/// What a store's bytes are: a `.json` name decides, then the content. A `.json` that is not JSON is refused here,
/// before a provider would refuse it for money.
pub(super) fn kind(filename: Option<&str>, bytes: &[u8]) -> Result<Kind, Problem> {
    if is_json_name(filename) {
        document::check(bytes)?;
        return Ok(Kind::Json);
    }
    Ok(if document::is_document(bytes) { Kind::Json } else { Kind::File })
}

/// Whether a name promises JSON.
pub(super) fn is_json_name(filename: Option<&str>) -> bool {
    let ending = filename.and_then(|name| name.as_bytes().last_chunk::<5>());
    ending.is_some_and(|ending| ending.eq_ignore_ascii_case(b".json"))
}

/// Programs are text.
pub(super) fn refuse_binary_code(bytes: &[u8]) -> Result<(), Problem> {
    if str::from_utf8(bytes).is_ok() {
        return Ok(());
    }
    Err(options::invalid("code", "a program is UTF-8 text"))
}

impl Reading {
    fn makes_sense_of(self, bytes: &[u8]) -> bool {
        match self {
            Reading::Any => true,
            Reading::Json => document::check(bytes).is_ok(),
            Reading::Code => str::from_utf8(bytes).is_ok_and(|text| {
                text.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\x0c'))
            }),
        }
    }
}

pub(super) fn not_base64(field: &str) -> Problem {
    Problem::new(Reason::InvalidBase64)
        .message(format!(
            "encoding is base64, and {field} is not: it takes the standard alphabet (+ and /), padded with =, \
             without line breaks"
        ))
        .details(serde_json::json!({ "field": field }))
}
