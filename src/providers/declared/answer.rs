//! Their answer in our words, and whether it says that the work was done. Pure.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderName, StatusCode};
use serde_json::{Map, Value};

use crate::config::resolved::{Condition, Declared, Pointer, ResultMapping};
use crate::outgoing::Opened;
use crate::providers::exchange::{is_plain_id, is_web_url};
use crate::providers::{Fault, Passed, PassedBody, ProviderError};

/// Bytes of a field of theirs that is passed on, at most.
const MAX_FIELD: usize = 256;

/// The members of a result that a successful answer holds.
pub(super) fn read(body: &[u8], config: &Declared) -> Result<Map<String, Value>, ProviderError> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| broken("the answer is not JSON"))?;
    if let Some(condition) = &config.success
        && !holds(condition, &answer)
    {
        return Err(broken(format!("the answer does not say success at {:?}", condition.at.0)));
    }
    match &config.result {
        ResultMapping::Run { stdout, stderr, exit_code, execution_time, text } => {
            let mut result = Map::new();
            result.insert("stdout".into(), output(&answer, stdout)?.ok_or_else(|| missing(stdout))?.into());
            let stderr = stderr.as_ref().map(|at| output(&answer, at)).transpose()?.flatten();
            result.insert("stderr".into(), stderr.unwrap_or_default().into());
            let whole = |value: &Value| value.is_i64() || value.is_u64();
            let exit_code = optional(&answer, exit_code.as_ref(), "a whole number", whole)?;
            result.insert("exitCode".into(), exit_code.unwrap_or_else(|| 0.into()));
            for (name, value) in [
                ("executionTime", optional(&answer, execution_time.as_ref(), "a number", Value::is_number)?),
                ("text", optional(&answer, text.as_ref(), "a text", Value::is_string)?),
            ] {
                result.extend(value.map(|value| (name.to_owned(), value)));
            }
            Ok(result)
        }
        ResultMapping::Store { cid, url } => {
            let mut result = Map::from_iter([("success".to_owned(), Value::Bool(true))]);
            if let Some(at) = cid {
                let cid = named(&answer, at, "an identifier", is_plain_id)?;
                result.insert("cid".into(), cid.into());
                result.insert("ipfsHash".into(), cid.into());
            }
            if let Some(at) = url {
                result.insert("url".into(), named(&answer, at, "a web address", is_web_url)?.into());
            }
            Ok(result)
        }
        // It is not read.
        ResultMapping::Raw { .. } => Err(broken("the answer is the result itself")),
    }
}

/// An answer that is the result itself. It must be all of it, and something.
pub(super) fn pass_on(answer: Opened) -> Result<Passed, ProviderError> {
    let Opened { status, headers, length, body } = answer;
    if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
        return Err(broken(format!("status {} has no result with it", status.as_u16())));
    }
    let text = |name: HeaderName| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.filter(|value| value.len() <= MAX_FIELD).map(str::to_owned)
    };
    Ok(Passed {
        content_type: text(CONTENT_TYPE),
        content_encoding: text(CONTENT_ENCODING),
        body: PassedBody::Arriving(body, length),
    })
}

fn holds(condition: &Condition, answer: &Value) -> bool {
    let found = at(answer, &condition.at);
    match &condition.equals {
        Some(expected) => found == Some(expected),
        None => found.is_some_and(|found| *found != Value::Bool(false)),
    }
}

/// What is there; `null` is nothing.
fn at<'a>(answer: &'a Value, pointer: &Pointer) -> Option<&'a Value> {
    answer.pointer(&pointer.0).filter(|value| !value.is_null())
}

/// A text, or a list of texts, which are one text in pieces.
fn output(answer: &Value, pointer: &Pointer) -> Result<Option<String>, ProviderError> {
    let other = || broken(format!("at {:?} is neither a text nor a list of texts", pointer.0));
    match at(answer, pointer) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(pieces)) => {
            let pieces = pieces.iter().map(|piece| piece.as_str().ok_or_else(other));
            pieces.collect::<Result<String, _>>().map(Some)
        }
        Some(_) => Err(other()),
    }
}

fn optional(
    answer: &Value,
    pointer: Option<&Pointer>,
    what: &str,
    is_right: impl Fn(&Value) -> bool,
) -> Result<Option<Value>, ProviderError> {
    let Some((pointer, found)) = pointer.and_then(|pointer| Some((pointer, at(answer, pointer)?))) else {
        return Ok(None);
    };
    match is_right(found) {
        true => Ok(Some(found.clone())),
        false => Err(broken(format!("at {:?} is not {what}", pointer.0))),
    }
}

/// The name of what is stored: without it nothing was, whatever the status says.
fn named<'a>(
    answer: &'a Value,
    pointer: &Pointer,
    what: &str,
    is_right: impl Fn(&str) -> bool,
) -> Result<&'a str, ProviderError> {
    let found = at(answer, pointer).ok_or_else(|| missing(pointer))?;
    let found = found.as_str().filter(|text| is_right(text));
    found.ok_or_else(|| broken(format!("at {:?} is not {what}", pointer.0)))
}

fn missing(pointer: &Pointer) -> ProviderError {
    broken(format!("the answer has nothing at {:?}", pointer.0))
}

fn broken(what: impl Into<String>) -> ProviderError {
    ProviderError::new(Fault::Broken, what)
}
