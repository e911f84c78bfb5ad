//! The options in a query string, each taken once; what is left over is refused.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::json;

use super::options::{self, excerpt};
use crate::reason::{Problem, Reason};

/// The pairs of a query that have not been taken yet, still encoded.
pub(super) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, &'a str)>,
}

/// More pairs than there are options.
const MAX_PAIRS: usize = 32;

impl<'a> Query<'a> {
    /// Splits a query as HTML forms write it: pairs joined by `&`, `+` for a space, percent-encoded UTF-8.
    pub(super) fn parse(query: &'a str) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name)?, value));
            if pairs.len() > MAX_PAIRS {
                return Err(Problem::new(Reason::InvalidField).message("the query has too many options"));
            }
        }
        Ok(Query { pairs })
    }

    /// The value of an option, which may be there once.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(at) = self.pairs.iter().position(|(given, _)| given == name) else { return Ok(None) };
        let (_, value) = self.pairs.swap_remove(at);
        if self.pairs.iter().any(|(given, _)| given == name) {
            return Err(options::invalid(name, "the option is there more than once"));
        }
        decode(value).map(|value| Some(value.into_owned()))
    }

    /// Refuses the request if anything was not taken: an option is never ignored.
    pub(super) fn refuse_rest(&self, why: &str) -> Result<(), Problem> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        let name = excerpt(name);
        Err(Problem::new(Reason::InvalidField)
            .message(format!("the query has an option {name:?}: {why}"))
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
