//! A TOML value with the place it was written at, so that a mistake found late can still name its line.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a node was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Byte range of the file.
    File(Range<usize>),
    /// An environment variable that overrides the file.
    Environment(&'static str),
    /// Nowhere: it is the default.
    Default,
}

/// A value and its origin.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// A key of a table, and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Range<usize>,
    pub(super) node: Node,
}

/// The values a setting can have. Floats and dates are kept by name only: no setting is either.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(BTreeMap<String, Entry>),
    Other(&'static str),
}

impl Node {
    pub(super) fn from_document(value: &Spanned<DeValue<'_>>) -> Node {
        let converted = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Other("a number that does not fit 64 bits"),
            },
            DeValue::Boolean(flag) => Value::Boolean(*flag),
            DeValue::Array(items) => Value::Array(items.iter().map(Node::from_document).collect()),
            DeValue::Table(table) => Value::Table(entries(table)),
            DeValue::Float(_) => Value::Other("a float"),
            DeValue::Datetime(_) => Value::Other("a date"),
        };
        Node { origin: Origin::File(value.span()), value: converted }
    }

    pub(super) fn from_default(value: &toml::Value) -> Node {
        let value = match value {
            toml::Value::String(text) => Value::Text(text.clone()),
            toml::Value::Integer(number) => Value::Integer(*number),
            toml::Value::Boolean(flag) => Value::Boolean(*flag),
            toml::Value::Array(items) => Value::Array(items.iter().map(Node::from_default).collect()),
            toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => {
                Value::Other("not a default")
            }
        };
        Node { origin: Origin::Default, value }
    }

    pub(super) fn from_environment(name: &'static str, text: &str) -> Node {
        Node { origin: Origin::Environment(name), value: Value::Text(text.to_owned()) }
    }
}

/// The keys of `table` with their places.
pub(super) fn entries(table: &DeTable<'_>) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    for (key, value) in table {
        let entry = Entry { key: key.span(), node: Node::from_document(value) };
        entries.insert(key.get_ref().to_string(), entry);
    }
    entries
}

impl Value {
    /// What it is, for "expected a text, found …".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Integer(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(name) => name,
        }
    }
}
