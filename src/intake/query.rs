//! Options by name, from a query string or the fields of a form: each taken once; what is left over is refused.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::json;

use super::options::{self, excerpt};
use crate::reason::{Problem, Reason};

/// The options that have not been taken yet: of a query, or of the fields of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// More pairs than there are options.
const MAX_PAIRS: usize = 32;

impl<'a> Query<'a> {
    /// Splits a query as HTML forms write it: pairs joined by `&`, `+` for a space, percent-encoded UTF-8.
    pub(super) fn parse(query: &'a str) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name)?, decode(value)?));
            if pairs.len() > MAX_PAIRS {
                return Err(Problem::new(Reason::InvalidField).message("the query has too many options"));
            }
        }
        Ok(Query { pairs })
    }

    /// The fields of a form, each name there once. An empty field asks for nothing: forms send those nobody filled in.
    pub(super) fn of_fields(fields: &'a [(String, String)]) -> Self {
        let given = fields.iter().filter(|(_, value)| !value.is_empty());
        Query { pairs: given.map(|(name, value)| (name.into(), value.into())).collect() }
    }

    /// The value of an option, which may be there once.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(at) = self.pairs.iter().position(|(given, _)| given == name) else { return Ok(None) };
        let (_, value) = self.pairs.swap_remove(at);
        if self.pairs.iter().any(|(given, _)| given == name) {
            return Err(options::invalid(name, "the option is there more than once"));
        }
        Ok(Some(value.into_owned()))
    }

    /// What was not taken yet, as text.
    pub(super) fn rest(&self) -> Vec<(String, String)> {
        self.pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    /// Refuses the request if anything was not taken: an option is never ignored.
    pub(super) fn refuse_rest(&self, place: &str, why: &str) -> Result<(), Problem> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        let name = excerpt(name);
        Err(Problem::new(Reason::InvalidField)
            .message(format!("the {place} has an option {name:?}: {why}"))
            .details(json!({ "field": name })))
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    let refuse = || Problem::new(Reason::InvalidField).message("the query is not percent-encoded UTF-8");
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| refuse())?;
        return Ok(Cow::Owned(decoded.into_owned()));
    }
    percent_decode_str(text).decode_utf8().map_err(|_| refuse())
}
