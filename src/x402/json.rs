//! JSON that money depends on: bounded in depth and keys, and with one reading only.
//!
//! Facilitators are written in many languages. Given `{"value":"1","value":"2"}` some take the first,
//! some the last; given `{"value":"1","Value":"2"}` Go takes either. So an object in which two keys
//! are equal when case is ignored is refused, and numbers have one spelling.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How deep a document may nest. Payments use five levels; bazaar schemas some ten.
const MAX_DEPTH: usize = 64;

/// How many keys one object may have.
const MAX_KEYS: usize = 64;

/// Why a document was not understood, for the answer's `error`. Repeats no more than the beginning of what
/// was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Malformed(what.into())
    }
}

/// One JSON object, its values not yet looked into.
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Reads a whole document. This bounds the depth, so it comes before any other reading.
    pub(super) fn document(text: &'a str) -> Result<Self, Malformed> {
        if deeper_than(MAX_DEPTH, text) {
            return Err(Malformed(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        serde_json::from_str(text).map_err(|error| Malformed(format!("not a JSON object: {}", short(&error))))
    }

    /// Reads the value of `key`, which must be an object.
    pub(super) fn inner(value: &'a RawValue, key: &str) -> Result<Self, Malformed> {
        serde_json::from_str(value.get()).map_err(|error| Malformed(format!("{key}: {}", short(&error))))
    }

    /// The value of `key`; `null` is as good as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(k, v)| k == key && v.get() != "null").map(|(_, value)| *value)
    }

    /// The object under `key`, if there is one.
    pub(super) fn object(&self, key: &str) -> Result<Option<Object<'a>>, Malformed> {
        self.get(key).map(|value| Object::inner(value, key)).transpose()
    }

    /// The object under `key`, which must be there.
    pub(super) fn required_object(&self, key: &str) -> Result<Object<'a>, Malformed> {
        self.object(key)?.ok_or_else(|| missing(key))
    }

    /// The string under `key`, if there is one.
    pub(super) fn text(&self, key: &str) -> Result<Option<Cow<'a, str>>, Malformed> {
        let text = |value: &'a RawValue| {
            serde_json::from_str::<Text<'a>>(value.get())
                .map_err(|_| Malformed(format!("{key} must be a string")))
        };
        Ok(self.get(key).map(text).transpose()?.map(|text| text.0))
    }

    /// The string under `key`, which must be there.
    pub(super) fn required_text(&self, key: &str) -> Result<Cow<'a, str>, Malformed> {
        self.text(key)?.ok_or_else(|| missing(key))
    }

    /// The whole number under `key`: digits, without sign, point or exponent.
    pub(super) fn required_integer<T: FromStr>(&self, key: &str) -> Result<T, Malformed> {
        let value = self.get(key).ok_or_else(|| missing(key))?;
        digits(value.get())
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| Malformed(format!("{key} must be a whole number")))
    }

    /// The fixed bytes under `key`: `0x` and two hex digits, of either case, for each.
    pub(super) fn required_hex<const N: usize>(&self, key: &str) -> Result<[u8; N], Malformed> {
        let text = self.required_text(key)?;
        let mut bytes = [0; N];
        text.strip_prefix("0x")
            .and_then(|digits| hex::decode_to_slice(digits, &mut bytes).ok())
            .map(|()| bytes)
            .ok_or_else(|| Malformed(format!("{key} must be 0x and {} hex digits", 2 * N)))
    }

    /// Its keys, in order; also of nulls.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_ref())
    }

    /// Whether every key is one of `known`.
    pub(super) fn has_only(&self, known: &[&str]) -> bool {
        self.keys().all(|key| known.contains(&key))
    }
}

/// The text if it is a number in its one spelling: digits, and no leading zero.
pub(super) fn digits(text: &str) -> Option<&str> {
    let plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    plain.then_some(text)
}

/// The beginning of a text from outside, for an error.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The parser's words, which may repeat a whole string of the document.
fn short(error: &serde_json::Error) -> String {
    error.to_string().chars().take(160).collect()
}

fn missing(key: &str) -> Malformed {
    Malformed(format!("{key} is missing"))
}

/// Whether brackets nest deeper than `limit`. Counts those outside strings; whether they match is
/// the parser's business.
fn deeper_than(limit: usize, text: &str) -> bool {
    // No deeper than there are opening brackets anywhere, and mostly there are few: counting takes no branch a byte.
    if text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count() <= limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Equal when case is ignored, in the sense of Go's `encoding/json`: by simple Unicode folding.
fn same_key(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    // U+017F, the long s, folds to `s` but is a lower-case letter of its own.
    let fold = |c: char| if c == 'ſ' { 's' } else { c };
    a.chars().map(fold).flat_map(char::to_lowercase).eq(b.chars().map(fold).flat_map(char::to_lowercase))
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut entries: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::with_capacity(8);
        while let Some((Text(key), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            if entries.len() == MAX_KEYS {
                return Err(A::Error::custom(format_args!("more than {MAX_KEYS} keys in one object")));
            }
            if entries.iter().any(|(earlier, _)| same_key(earlier, &key)) {
                return Err(A::Error::custom(format_args!("the key {:?} is repeated", excerpt(&key))));
            }
            entries.push((key, value));
        }
        Ok(Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Object::document(text).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn two_readings_are_refused() {
        for text in [
            r#"{"value":1,"value":1}"#,
            r#"{"value":1,"Value":2}"#,
            r#"{"value":1,"v\u0061lue":2}"#,
            r#"{"asset":1,"aſſet":2}"#,
            "{\"network\":1,\"networ\u{212a}\":2}",
        ] {
            assert!(refusal(text).contains("repeated"), "{text}: {}", refusal(text));
        }
        assert!(Object::document(r#"{"a":{"b":1},"c":{"b":1}}"#).is_ok());
    }

    #[test]
    fn depth_and_keys_are_bounded() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n - 1), "]".repeat(n - 1));
        assert!(Object::document(&nested(MAX_DEPTH)).is_ok());
        assert!(refusal(&nested(MAX_DEPTH + 1)).contains("deeper"));
        assert!(refusal(&nested(1_000_000)).contains("deeper"));
        // Brackets in strings do not count.
        let text = format!(r#"{{"a":"\"{}"}}"#, "[".repeat(1000));
        assert!(Object::document(&text).is_ok());

        let keys =
            |n: usize| format!("{{{}}}", (0..n).map(|i| format!("\"{i}\":1")).collect::<Vec<_>>().join(","));
        assert!(Object::document(&keys(MAX_KEYS)).is_ok());
        assert!(refusal(&keys(MAX_KEYS + 1)).contains("keys"));
    }

    #[test]
    fn errors_do_not_repeat_the_document() {
        let long = "x".repeat(10_000);
        for text in
            [format!("\"{long}\""), format!("{{\"{long}\":1,\"{long}\":1}}"), format!("{{\"a\":{long}}}")]
        {
            let error = refusal(&text);
            assert!(!error.is_empty() && error.len() < 256, "{error}");
        }
    }

    #[test]
    fn values_have_one_spelling() {
        let object = Object::document(
            r#"{"n":"01","i":10,"f":1.0,"e":1e3,"m":-1,"z":null,"h":"0xAb","h2":"0Xab","h3":"ab"}"#,
        )
        .unwrap();
        assert_eq!(digits("0"), Some("0"));
        for bad in ["", "01", "00", "+1", "1_0", "１", " 1"] {
            assert_eq!(digits(bad), None, "{bad:?}");
        }
        assert_eq!(object.required_integer::<u8>("i"), Ok(10));
        for key in ["n", "f", "e", "m", "z", "absent"] {
            assert!(object.required_integer::<u64>(key).is_err(), "{key}");
        }
        assert_eq!(object.required_hex::<1>("h"), Ok([0xab]));
        for key in ["h2", "h3", "z", "i"] {
            assert!(object.required_hex::<1>(key).is_err(), "{key}");
        }
        assert!(object.required_hex::<2>("h").is_err());
    }
}
