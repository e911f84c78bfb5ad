//! Properties: a request reads the same here as through a plain JSON parser and a plain base64 decoder,
//! however it is spelled, and nothing panics.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::store;
use crate::config::resolved::BrokeredWork;
use crate::intake::{Encoding, Kind, Wanted, measure_json};

/// A decoder that a reader can check by eye: whole groups, standard alphabet, zero trailing bits.
pub(super) fn plain_base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let groups: Vec<&[u8]> = text.as_bytes().chunks(4).collect();
    for (at, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|b| **b == b'=').count();
        if group.len() != 4 || padding > 2 || (padding > 0 && at + 1 != groups.len()) {
            return None;
        }
        let mut bits = 0u32;
        for byte in &group[..4 - padding] {
            bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|known| known == byte)?).ok()?;
        }
        bits <<= 6 * padding;
        let bytes = bits.to_be_bytes();
        if bytes[4 - padding..].iter().any(|byte| *byte != 0) {
            return None;
        }
        out.extend_from_slice(&bytes[1..4 - padding]);
    }
    Some(out)
}

/// A JSON text with white space and escapes as chance has it; `choices` feeds the chance.
fn spell(value: &Value, choices: &mut impl Iterator<Item = u8>, out: &mut String) {
    let mut space = |out: &mut String| match choices.next().unwrap_or(0) % 8 {
        0 => out.push(' '),
        1 => out.push_str("\n\t"),
        2 => out.push_str("\r\n "),
        _ => {}
    };
    match value {
        Value::Object(members) => {
            out.push('{');
            for (at, (name, member)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                spell(&Value::String(name.clone()), choices, out);
                out.push(':');
                spell(member, choices, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                spell(item, choices, out);
            }
            out.push(']');
        }
        Value::String(text) => {
            space(out);
            out.push('"');
            for c in text.chars() {
                let chance = choices.next().unwrap_or(0) % 16;
                match c {
                    '"' => out.push_str("\\\""),
                    '\\' => out.push_str("\\\\"),
                    '/' if chance < 4 => out.push_str("\\/"),
                    c if (c as u32) < 0x20 || chance == 5 => {
                        for unit in c.encode_utf16(&mut [0; 2]) {
                            out.push_str(&format!("\\u{unit:04X}"));
                        }
                    }
                    c => out.push(c),
                }
            }
            out.push('"');
        }
        other => {
            space(out);
            out.push_str(&other.to_string());
        }
    }
    match choices.next().unwrap_or(0) % 6 {
        0 => out.push(' '),
        1 => out.push('\n'),
        _ => {}
    }
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ]
}

fn document() -> impl Strategy<Value = Value> {
    let tree = leaf().prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    let url = |value: &Value| value.as_object().is_some_and(|o| o.len() == 1 && o.contains_key("url"));
    tree.prop_filter("an object or array, not a url", move |value| {
        (value.is_object() || value.is_array()) && !url(value)
    })
}

fn data() -> impl Strategy<Value = Value> {
    prop_oneof![
        ".{1,60}".prop_map(Value::from),
        "[A-Za-z0-9+/]{1,12}={0,2}".prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 1..200)
            .prop_map(|bytes| Value::from(base64_simd::STANDARD.encode_to_string(bytes))),
        document().prop_map(|document| Value::from(document.to_string())),
        document(),
    ]
}

proptest! {
    #![proptest_config(super::cases(512))]

    #[test]
    fn a_request_reads_as_a_plain_parser_reads_it(
        data in data(),
        name in prop::option::of("[a-z]{1,8}\\.(txt|png|bin)"),
        ttl in prop::option::of(1u64..31_536_000),
        choices in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut body = serde_json::Map::new();
        body.insert("data".into(), data.clone());
        body.insert("filename".into(), name.clone().into());
        if let Some(ttl) = ttl {
            body.insert("options".into(), serde_json::json!({ "ttl": ttl }));
        }
        let mut spelled = String::new();
        spell(&Value::Object(body), &mut choices.into_iter(), &mut spelled);
        // The plain parser agrees that this is what was spelled.
        let plain: Value = serde_json::from_str(&spelled).unwrap();
        let (bytes, encoding) = match &plain["data"] {
            Value::String(text) => match plain_base64(text) {
                Some(bytes) => (bytes, Encoding::Base64),
                None => (text.clone().into_bytes(), Encoding::Utf8),
            },
            document => (document.to_string().into_bytes(), Encoding::Json),
        };

        let (ask, content) = store(&spelled).unwrap();
        if encoding == Encoding::Json {
            // Escapes stay as the client wrote them, so the documents are equal, not their bytes.
            prop_assert_eq!(&serde_json::from_slice::<Value>(content.data.memory().unwrap()).unwrap(), &plain["data"]);
            prop_assert_eq!(ask.kind, Kind::Json);
        } else {
            prop_assert_eq!(&content.data.memory().unwrap()[..], &bytes[..]);
            let parsed = serde_json::from_slice::<Value>(&bytes);
            let json = parsed.is_ok_and(|value| value.is_object() || value.is_array());
            prop_assert_eq!(ask.kind, if json { Kind::Json } else { Kind::File });
        }
        prop_assert_eq!(content.encoding, encoding);
        prop_assert_eq!(ask.size, content.data.size());
        prop_assert_eq!(content.digest, *blake3::hash(content.data.memory().unwrap()).as_bytes());
        prop_assert_eq!(content.filename, name);
        prop_assert_eq!(ask.wanted, Wanted::Store { permanent: false, ttl });
    }

    #[test]
    fn documents_lose_their_white_space_and_nothing_else(
        document in document(),
        choices in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut spelled = String::new();
        spell(&document, &mut choices.into_iter(), &mut spelled);
        let (_, content) = store(&format!("{{\"data\":{spelled}}}")).unwrap();
        let (mut expected, mut in_text, mut escaped) = (String::new(), false, false);
        for c in spelled.chars() {
            if in_text || !c.is_ascii_whitespace() {
                expected.push(c);
            }
            if c == '"' && !escaped {
                in_text = !in_text;
            }
            escaped = c == '\\' && !escaped;
        }
        prop_assert_eq!(super::text(&content), expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), run in any::<bool>()) {
        let work = if run { BrokeredWork::Run } else { BrokeredWork::Store };
        let _ = measure_json(&Bytes::from(bytes), work);
    }

    #[test]
    fn near_misses_never_panic(
        body in "[\\{\\}\\[\\]\":,\\\\ a-z0-9\\n]{0,40}",
        cut in 0usize..80,
    ) {
        let whole = format!("{{\"data\":{body},\"options\":{{\"ttl\":1}}}}");
        let cut: String = whole.chars().take(cut).collect();
        for text in [whole, cut] {
            for work in [BrokeredWork::Store, BrokeredWork::Run] {
                let _ = measure_json(&Bytes::from(text.clone()), work);
            }
        }
    }
}
