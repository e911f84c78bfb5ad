//! The request body of a declared provider: `raw`, or a JSON document with placeholders. Cut into pieces here, once, so
//! that filling it later only puts whole JSON values between them.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Parsed, Wrong, text};
use crate::config::node::Node;
use crate::config::resolved::{Placeholder, Pointer, RequestBody, Segment, Template};

/// How deep a template may nest.
const MAX_DEPTH: usize = 32;

/// The whole body: the text `raw`, or a JSON object or array.
pub(in crate::config) fn request_body(node: &Node) -> Parsed<RequestBody> {
    let text = text(node)?;
    if text == "raw" {
        return Ok(RequestBody::Raw);
    }
    template(&text).map(RequestBody::Json)
}

/// A JSON pointer (RFC 6901) to a member of an answer.
pub(in crate::config) fn pointer(node: &Node) -> Parsed<Pointer> {
    let text = text(node)?;
    let fix = "write the way to the member: \"/result/stdout\"; \"\" is the whole answer";
    let wrong = |reason: &str| Err(Wrong::new(format!("{text:?} {reason}"), fix));
    if !text.is_empty() && !text.starts_with('/') {
        return wrong("is not a JSON pointer: it does not start with a slash");
    }
    // "~" only as "~0" or "~1".
    if text.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
        return wrong("is not a JSON pointer: ~ is written ~0, and / inside a name ~1");
    }
    Ok(Pointer(text))
}

fn template(text: &str) -> Parsed<Template> {
    let fix = "write \"raw\", or a JSON document such as '{\"source\": \"{text}\"}'";
    let whole: &RawValue = serde_json::from_str(text)
        .map_err(|error| Wrong::new(format!("it is neither raw nor a JSON document: {error}"), fix))?;
    if !whole.get().starts_with(['{', '[']) {
        return Err(Wrong::new("it is a JSON value, and not an object or a list", fix));
    }
    let mut cutter = Cutter::default();
    cutter.value(whole, "", 0)?;
    Ok(cutter.finish())
}

/// Writes the document again, without white space, and cuts it at the placeholders.
#[derive(Default)]
struct Cutter {
    done: Vec<Segment>,
    text: Vec<u8>,
}

impl Cutter {
    fn value(&mut self, raw: &RawValue, at: &str, depth: usize) -> Result<(), Wrong> {
        if depth > MAX_DEPTH {
            let reason = format!("it nests deeper than {MAX_DEPTH} levels");
            return Err(Wrong::new(reason, "write a flatter document"));
        }
        // The text was accepted as JSON already, so what fails below is what JSON leaves open, such as a name twice.
        let refused = |error: serde_json::Error| Wrong::new(format!("at {at:?}: {error}"), "correct it");
        match raw.get().as_bytes().first() {
            Some(b'{') => {
                let Members(members) = serde_json::from_str(raw.get()).map_err(refused)?;
                self.text.push(b'{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        self.text.push(b',');
                    }
                    let at = format!("{at}/{name}");
                    if let Some(found) = placeholder_in(name) {
                        let reason =
                            format!("{{{found}}} at {at:?} is in a name, and only values are filled in");
                        return Err(Wrong::new(reason, "write the name itself"));
                    }
                    self.string(name);
                    self.text.push(b':');
                    self.value(value, &at, depth + 1)?;
                }
                self.text.push(b'}');
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(refused)?;
                self.text.push(b'[');
                for (index, value) in items.iter().enumerate() {
                    if index > 0 {
                        self.text.push(b',');
                    }
                    self.value(value, &format!("{at}/{index}"), depth + 1)?;
                }
                self.text.push(b']');
            }
            Some(b'"') => {
                let string: String = serde_json::from_str(raw.get()).map_err(refused)?;
                match whole_placeholder(&string, at)? {
                    Some(placeholder) => self.place(placeholder),
                    None => self.string(&string),
                }
            }
            _ => self.text.extend_from_slice(raw.get().as_bytes()),
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.text.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }

    fn place(&mut self, placeholder: Placeholder) {
        self.cut();
        self.done.push(Segment::Value(placeholder));
    }

    fn cut(&mut self) {
        if !self.text.is_empty() {
            self.done.push(Segment::Text(Bytes::from(std::mem::take(&mut self.text))));
        }
    }

    fn finish(mut self) -> Template {
        self.cut();
        Template(self.done)
    }
}

/// The placeholder that a string is, if it is one.
fn whole_placeholder(string: &str, at: &str) -> Result<Option<Placeholder>, Wrong> {
    if let Some(name) = string.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'))
        && is_name(name)
    {
        let known = Placeholder::ALL.iter().find(|(known, _)| *known == name);
        return known.map(|(_, placeholder)| Some(*placeholder)).ok_or_else(|| {
            let reason = format!("{string} at {at:?} is not a placeholder");
            let all = Placeholder::ALL.map(|(name, _)| format!("{{{name}}}")).join(", ");
            Wrong::new(reason, format!("write one of {all}"))
        });
    }
    match placeholder_in(string) {
        Some(found) => {
            let reason = format!("{{{found}}} at {at:?} is inside a longer text");
            let fix = format!("write \"{{{found}}}\" alone: a placeholder is filled with a whole JSON value");
            Err(Wrong::new(reason, fix))
        }
        None => Ok(None),
    }
}

/// The first known placeholder that is written somewhere in a text.
fn placeholder_in(text: &str) -> Option<&'static str> {
    Placeholder::ALL.iter().map(|(name, _)| *name).find(|name| text.contains(&format!("{{{name}}}")))
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// An object's members in the order written; a name that comes twice is an error.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Self::Value = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    if members.iter().any(|(name, _)| *name == member.0) {
                        return Err(A::Error::custom(format!("the name {:?} is there twice", member.0)));
                    }
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(InOrder).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(text: &str) -> Vec<Segment> {
        template(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}")).0
    }

    fn literal(text: &'static str) -> Segment {
        Segment::Text(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn documents_are_cut_at_whole_values_only() {
        use Placeholder::{Base64, Filename, Size, Text};
        assert_eq!(
            segments(
                r#" { "z": 1e400, "code": "{text}", "a": ["{size}", {"n": "{filename}"}, "{}", "{ text }"] } "#
            ),
            [
                literal(r#"{"z":1e400,"code":"#),
                Segment::Value(Text),
                literal(r#","a":["#),
                Segment::Value(Size),
                literal(r#",{"n":"#),
                Segment::Value(Filename),
                literal(r#"},"{}","{ text }"]}"#),
            ]
        );
        // An escape in the template is no way around it, and a text that only looks like JSON stays one.
        assert_eq!(segments(r#"["{base\u00364}"]"#)[1], Segment::Value(Base64));
        assert_eq!(segments(r#"{"a\"b":"\",\"x\":\""}"#), [literal(r#"{"a\"b":"\",\"x\":\""}"#)]);
    }

    #[test]
    fn what_cannot_be_filled_is_told() {
        for (text, reason, fix) in [
            ("{text}", "neither raw nor a JSON", "raw"),
            (r#"{"a": "{text}"} x"#, "neither raw nor a JSON", "raw"),
            (r#""{text}""#, "not an object or a list", "raw"),
            (r#"{"a": {"b": "{txt}"}}"#, r#"{txt} at "/a/b" is not a placeholder"#, "{text}, {base64}"),
            (r#"{"a": ["x{text}"]}"#, r#"at "/a/0" is inside a longer text"#, "alone"),
            (r#"{"{text}": 1}"#, "is in a name", "the name itself"),
            (r#"{"a": 1, "a": "{text}"}"#, "there twice", "correct"),
        ] {
            let wrong = template(text).expect_err(text);
            assert!(wrong.reason.contains(reason), "{text}: {wrong:?}");
            assert!(wrong.fix.contains(fix), "{text}: {wrong:?}");
        }
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(template(&deep).is_err());
    }
}
