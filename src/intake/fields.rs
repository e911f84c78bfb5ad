//! The members of a JSON object that has known names only: each at most once, none ignored, none copied.
//!
//! Values come out as slices of the body, checked for syntax and not decoded. The scan does not recurse,
//! so depth costs a byte a level and no stack.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::json;
use serde_json::value::RawValue;

use super::options::{UNSOLD, excerpt, invalid};
use crate::reason::{Problem, Reason};

/// A body that is UTF-8 text; knows where in it a value stands.
#[derive(Clone, Copy)]
pub(super) struct Source<'a>(&'a str, Option<Hole>);

/// Where something was cut out of a body, within a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    place: Place,
    /// Bytes that were.
    pub(super) removed: usize,
}

/// A place in a body, both counted from 1, columns in bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    line: usize,
    column: usize,
}

impl<'a> Source<'a> {
    /// The body as text.
    pub(super) fn new(body: &'a [u8]) -> Result<Self, Problem> {
        Source::without(body, None)
    }

    /// The body as text, of which something was cut out.
    pub(super) fn without(body: &'a [u8], hole: Option<Hole>) -> Result<Self, Problem> {
        str::from_utf8(body).map(|text| Source(text, hole)).map_err(|error| {
            let place = Place::after(body.get(..error.valid_up_to()).unwrap_or_default());
            place.problem(Reason::InvalidJson, "the body is not valid JSON: it is not UTF-8")
        })
    }

    /// The members of the object that is the whole body, in the order of `names`.
    pub(super) fn members<const N: usize>(
        self,
        names: &[&'static str; N],
    ) -> Result<[Option<Value<'a>>; N], Problem> {
        self.read(self.0, "", names)
    }

    /// The members of an object within the body. `prefix` is its own name and a dot.
    pub(super) fn inner<const N: usize>(
        self,
        object: Value<'a>,
        prefix: &str,
        names: &[&'static str; N],
    ) -> Result<[Option<Value<'a>>; N], Problem> {
        self.read(object.raw, prefix, names)
    }

    /// `problem`, with the place of `value` in its details.
    pub(super) fn at(self, value: Value<'a>, mut problem: Problem) -> Problem {
        let place = self.place(value.raw);
        let details = problem.details.get_or_insert_with(|| json!({}));
        details["line"] = place.line.into();
        details["column"] = place.column.into();
        problem
    }

    /// The text of a string; `None` if the value is not one. Copied only if it has escapes.
    pub(super) fn text(self, value: Value<'a>) -> Result<Option<Cow<'a, str>>, Problem> {
        let Some(inner) = value.raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Ok(None);
        };
        if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
            return Ok(Some(Cow::Borrowed(inner)));
        }
        // The scan passed escapes by their form; half a surrogate pair is found only when decoding.
        let decoded: String =
            serde_json::from_str(value.raw).map_err(|error| self.invalid_json(value.raw, &error))?;
        Ok(Some(Cow::Owned(decoded)))
    }

    fn read<const N: usize>(
        self,
        text: &'a str,
        prefix: &str,
        names: &[&'static str; N],
    ) -> Result<[Option<Value<'a>>; N], Problem> {
        let mut refused = None;
        let mut parser = serde_json::Deserializer::from_str(text);
        let read = Members { names, refused: &mut refused }
            .deserialize(&mut parser)
            .and_then(|values| parser.end().map(|()| values));
        read.map_err(|error| match (refused, error.classify()) {
            (Some(refused), _) => self.error_place(text, &error).refusal(&refused, prefix, names),
            (None, Category::Data) if prefix.is_empty() => {
                self.error_place(text, &error).problem(Reason::InvalidJson, "the body is not a JSON object")
            }
            (None, Category::Data) => {
                let problem = invalid(prefix.trim_end_matches('.'), "it is not an object");
                self.at(Value { raw: text }, problem)
            }
            (None, _) => self.invalid_json(text, &error),
        })
    }

    fn invalid_json(self, part: &str, error: &serde_json::Error) -> Problem {
        let place = self.error_place(part, error);
        let text = error.to_string();
        // The parser's own place is relative to `part`.
        let what = text.split(" at line ").next().unwrap_or_default();
        place.problem(Reason::InvalidJson, &format!("the body is not valid JSON: {what}"))
    }

    /// The place of an error that the parser met in `part`.
    fn error_place(self, part: &str, error: &serde_json::Error) -> Place {
        let start = self.place_in_rest(part);
        let line = error.line().max(1);
        let column = if line == 1 { start.column + error.column().max(1) - 1 } else { error.column().max(1) };
        self.before_the_cut(Place { line: start.line + line - 1, column })
    }

    /// The place of a slice of the body.
    fn place(self, part: &str) -> Place {
        self.before_the_cut(self.place_in_rest(part))
    }

    /// A place as it was before anything was cut out.
    fn before_the_cut(self, mut place: Place) -> Place {
        if let Some(hole) = self.1
            && place.line == hole.place.line
            && place.column > hole.place.column
        {
            place.column = place.column.saturating_add(hole.removed);
        }
        place
    }

    fn place_in_rest(self, part: &str) -> Place {
        let offset = (part.as_ptr() as usize).saturating_sub(self.0.as_ptr() as usize);
        Place::after(self.0.as_bytes().get(..offset).unwrap_or_default())
    }
}

impl Hole {
    /// Behind these bytes.
    pub(super) fn new(before: &[u8]) -> Self {
        Hole { place: Place::after(before), removed: 0 }
    }

    /// `problem`, found in what was cut out.
    pub(super) fn problem(&self, problem: Problem) -> Problem {
        let details = json!({ "field": "data", "line": self.place.line, "column": self.place.column });
        problem.details(details)
    }
}

impl Place {
    fn after(before: &[u8]) -> Self {
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        Place { line, column: before.len() - line_start + 1 }
    }

    fn problem(self, reason: Reason, message: &str) -> Problem {
        Problem::new(reason)
            .message(format!("{message} (line {}, column {})", self.line, self.column))
            .details(json!({ "line": self.line, "column": self.column }))
    }

    fn refusal(self, refused: &Refused, prefix: &str, accepted: &[&str]) -> Problem {
        let name = format!("{prefix}{}", refused.name);
        let message = if refused.repeated {
            format!("the field {name} is there more than once")
        } else {
            format!("there is no field {name}")
        };
        // Options that are known but not sold are no advice.
        let sold = accepted.iter().filter(|name| !UNSOLD.contains(name));
        let accepted: Vec<String> = sold.map(|name| format!("{prefix}{name}")).collect();
        let details =
            json!({ "field": name, "accepted": accepted, "line": self.line, "column": self.column });
        self.problem(Reason::InvalidField, &message).details(details)
    }
}

/// A JSON value as it stands in the body: syntactically valid, without white space around it.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    raw: &'a str,
}

impl<'a> Value<'a> {
    /// The value as written.
    pub(super) fn raw(self) -> &'a str {
        self.raw
    }

    /// `null`, which for an optional field means that it is absent.
    pub(super) fn is_null(self) -> bool {
        self.raw == "null"
    }

    /// Whether it is an object.
    pub(super) fn is_object(self) -> bool {
        self.raw.starts_with('{')
    }

    /// Whether it is an object or an array.
    pub(super) fn is_document(self) -> bool {
        self.raw.starts_with(['{', '['])
    }
}

/// A member that stops the reading.
struct Refused {
    name: String,
    repeated: bool,
}

struct Members<'n, const N: usize> {
    names: &'n [&'static str; N],
    refused: &'n mut Option<Refused>,
}

impl<'de, const N: usize> DeserializeSeed<'de> for Members<'_, N> {
    type Value = [Option<Value<'de>>; N];

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<Value<'de>>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        while let Some(name) = map.next_key_seed(Name { names: self.names })? {
            let refused = match name {
                Ok(at) if values[at].is_none() => {
                    let raw: &'de RawValue = map.next_value()?;
                    values[at] = Some(Value { raw: raw.get() });
                    continue;
                }
                Ok(at) => Refused { name: self.names[at].to_owned(), repeated: true },
                Err(unknown) => Refused { name: unknown, repeated: false },
            };
            *self.refused = Some(refused);
            return Err(A::Error::custom("refused"));
        }
        Ok(values)
    }
}

/// The index of a member's name, or the start of an unknown one.
struct Name<'n, const N: usize> {
    names: &'n [&'static str; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for Name<'_, N> {
    type Value = Result<usize, String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<const N: usize> Visitor<'_> for Name<'_, N> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.names.iter().position(|known| *known == name).ok_or_else(|| excerpt(name)))
    }
}
