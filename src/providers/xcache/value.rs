//! The form a file takes as an xCache value: JSON that gives back the exact bytes.
//!
//! Every value is wrapped, JSON documents too: the cache stores JSON and may write it differently than it came.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::intake::Content;

/// Marks our values, and their version.
const MARK: &str = "galaksio";

/// `content`, of these bytes, as a value.
pub(super) fn encode(content: &Content, bytes: &[u8]) -> Value {
    json!({
        MARK: 1,
        "encoding": "base64",
        "data": base64_simd::STANDARD.encode_to_string(bytes),
        "contentType": content.content_type,
    })
}

/// The bytes of a value; `None` if it is none of ours.
pub(super) fn decode(value: Value) -> Option<Bytes> {
    let wrapped = unwrap(value)?;
    if wrapped.get(MARK)? != 1 || wrapped.get("encoding")? != "base64" {
        return None;
    }
    let data = wrapped.get("data")?.as_str()?;
    base64_simd::STANDARD.decode_to_vec(data).ok().map(Bytes::from)
}

/// Whether an echoed value is `{"value": ours, "ttl": n}`: a server that takes the body itself as the value
/// was sent the other shape, and has lost the ttl.
pub(super) fn is_nested(echo: &Value) -> bool {
    echo.get(MARK).is_none() && echo.get("value").is_some_and(|inner| inner.get(MARK).is_some())
}

/// A server may keep JSON as text.
fn unwrap(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        Value::String(text) => serde_json::from_str(&text).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::Encoding;
    use proptest::prelude::*;

    fn content(bytes: Vec<u8>) -> Content {
        Content {
            data: Bytes::from(bytes).into(),
            digest: [0; 32],
            encoding: Encoding::Raw,
            filename: None,
            content_type: Some("text/plain".into()),
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in any::<Vec<u8>>()) {
            let value = encode(&content(vec![]), &bytes);
            let expected = Some(Bytes::from(bytes));
            prop_assert_eq!(decode(value.clone()), expected.clone());
            prop_assert_eq!(decode(Value::String(value.to_string())), expected);
        }
    }

    #[test]
    fn other_values_are_not_ours() {
        let mut changed = encode(&content(vec![]), b"x");
        changed["encoding"] = "hex".into();
        let newer = json!({"galaksio": 2, "encoding": "base64", "data": ""});
        let garbled = json!({"galaksio": 1, "encoding": "base64", "data": "%"});
        for value in [changed, newer, garbled, Value::Null, json!([]), json!("text"), json!({"data": "eA=="})]
        {
            assert_eq!(decode(value.clone()), None, "{value}");
        }
    }

    #[test]
    fn a_nested_echo_is_seen() {
        let value = encode(&content(vec![]), b"");
        assert!(is_nested(&json!({"value": value, "ttl": 60})));
        assert!(!is_nested(&value));
        assert!(!is_nested(&Value::Null));
    }
}
