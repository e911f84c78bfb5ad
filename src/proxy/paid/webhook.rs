//! `?webhook=` and `Webhook-Secret`: where a client wants to be told that its job is done, whatever form its request has.
//!
//! They are taken from the head before anything else reads it: they say nothing about what is asked, or what it costs, and
//! the same request without them is the same request.

use std::sync::Arc;

use http::header::HeaderName;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::Inner;
use super::request::Asked;
use crate::broker::{Webhook, WebhookRoom, WebhookSecret};
use crate::config::resolved;
use crate::outgoing::{Fetch, FetchError};
use crate::proxy::peer::is_trusted;
use crate::reason::{Problem, Reason};

const OPTION: &str = "webhook";
const SECRET: HeaderName = HeaderName::from_static("webhook-secret");

/// Which webhooks are taken.
pub struct Hooks {
    hosts: Vec<String>,
    fetch: Fetch,
    room: WebhookRoom,
}

impl Hooks {
    /// Those that the operator lets be told.
    pub fn new(paid: &resolved::Paid, room: WebhookRoom) -> Result<Hooks, rustls::Error> {
        let private = paid.webhook_private.clone();
        let fetch = Fetch::new(Arc::new(move |address| is_trusted(&private, address)))?;
        Ok(Hooks { hosts: paid.webhook_hosts.clone(), fetch, room })
    }

    /// What calls them: it knows which addresses may be called.
    pub fn fetch(&self) -> Fetch {
        self.fetch.clone()
    }

    fn check(&self, url: &str) -> Result<(), Problem> {
        let uri = self.fetch.check(url).map_err(|error| match error {
            FetchError::Refused(why) => refused(why),
            FetchError::Failed(_) => refused("it is not a URL"),
        })?;
        let host = uri.host().unwrap_or_default();
        if !self.hosts.is_empty() && !self.hosts.iter().any(|allowed| covers(allowed, host)) {
            return Err(refused("its host is not one that is told from here"));
        }
        match self.room.is_there() {
            true => Ok(()),
            false => Err(Problem::new(Reason::Overloaded)
                .message("too many webhooks wait to be heard; send the request without one, or later")
                .retry_after(60)),
        }
    }
}

impl Inner {
    /// Takes the webhook from the head of a request. One that would not be told is refused before anybody pays.
    pub(super) fn take_webhook(&self, asked: &mut Asked) {
        let url = take(&mut asked.parts);
        // Mostly there is none; to compare the few names there are costs less than to hash one.
        let has_secret = asked.parts.headers.keys().any(|name| *name == SECRET);
        let secret = if has_secret { asked.parts.headers.remove(SECRET) } else { None };
        asked.webhook = match (url, secret) {
            (Ok(None), None) => None,
            (url, secret) => Some(Box::new(url.and_then(|url| self.webhook(url, secret)))),
        };
    }

    fn webhook(&self, url: Option<String>, secret: Option<HeaderValue>) -> Result<Webhook, Problem> {
        let (url, secret) = match (url, secret) {
            (Some(url), Some(secret)) => (url, secret),
            (Some(_), None) => return Err(invalid(OPTION, NO_SECRET)),
            (None, _) => {
                return Err(invalid(SECRET.as_str(), "there is no ?webhook= that it is the secret of"));
            }
        };
        let unsupported = || Problem::new(Reason::NotSupported).message("webhooks are not told from here");
        self.parts.hooks.as_ref().ok_or_else(unsupported)?.check(&url)?;
        let secret = secret.to_str().ok().and_then(|text| WebhookSecret::parse(text).ok());
        let secret = secret.ok_or_else(|| invalid(SECRET.as_str(), NO_SECRET))?;
        Ok(Webhook { url, secret })
    }
}

const NO_SECRET: &str = "send a secret of yours that it is signed by, as Webhook-Secret: whsec_ and 24 to 64 random bytes in base64";

/// Takes the option out of the query.
fn take(parts: &mut Parts) -> Result<Option<String>, Problem> {
    let is_option = |pair: &str| pair.split('=').next() == Some(OPTION);
    let Some(query) = parts.uri.query().filter(|query| query.split('&').any(is_option)) else {
        return Ok(None);
    };
    let (ours, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| is_option(pair));
    let [one] = ours.as_slice() else { return Err(invalid(OPTION, "the option is there more than once")) };
    let value = one.split_once('=').map_or("", |(_, value)| value);
    let decoded = percent_decode_str(value).decode_utf8();
    let url = decoded.map_err(|_| invalid(OPTION, "it is not percent-encoded UTF-8"))?.into_owned();
    let path = parts.uri.path();
    let target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| Reason::Internal)?);
    parts.uri = Uri::from_parts(uri).map_err(|_| Reason::Internal)?;
    Ok(Some(url))
}

fn covers(allowed: &str, host: &str) -> bool {
    match allowed.strip_prefix("*.") {
        Some(parent) => {
            host.len().checked_sub(parent.len() + 1).and_then(|at| host.split_at_checked(at)).is_some_and(
                |(_, end)| end.strip_prefix('.').is_some_and(|end| end.eq_ignore_ascii_case(parent)),
            )
        }
        None => allowed.eq_ignore_ascii_case(host),
    }
}

fn refused(why: &str) -> Problem {
    let text = Reason::UrlRefused.text();
    Problem::new(Reason::UrlRefused).message(format!("{text}: {why}")).details(json!({ "field": OPTION }))
}

fn invalid(field: &str, why: &str) -> Problem {
    Problem::new(Reason::InvalidField)
        .message(format!("{field} is not valid: {why}"))
        .details(json!({ "field": field }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(target: &str) -> (Result<Option<String>, Reason>, String) {
        let (mut parts, ()) = http::Request::builder().uri(target).body(()).unwrap().into_parts();
        let taken = take(&mut parts).map_err(|problem| problem.reason);
        (taken, parts.uri.to_string())
    }

    #[test]
    fn it_is_taken_from_the_query_and_nothing_else_is() {
        let url = || Ok(Some("https://a.example/x?y=1&z".to_owned()));
        let option = "webhook=https%3A%2F%2Fa.example%2Fx%3Fy=1%26z";
        for (target, expected, left) in [
            (format!("/run?{option}"), url(), "/run"),
            (format!("/run?a=1&{option}&b=%20"), url(), "/run?a=1&b=%20"),
            (format!("http://shop.example/run?{option}"), url(), "http://shop.example/run"),
            ("/run?webhooks=1&a".to_owned(), Ok(None), "/run?webhooks=1&a"),
            ("/run?webhook".to_owned(), Ok(Some(String::new())), "/run"),
            ("/run".to_owned(), Ok(None), "/run"),
            ("/run?webhook=a&webhook=b".to_owned(), Err(Reason::InvalidField), "/run?webhook=a&webhook=b"),
            ("/run?webhook=%ff".to_owned(), Err(Reason::InvalidField), "/run?webhook=%ff"),
        ] {
            assert_eq!(taken(&target), (expected, left.to_owned()), "{target}");
        }
    }

    #[test]
    fn a_list_of_hosts_is_held_to() {
        for (allowed, host, is) in [
            ("hooks.example.com", "hooks.example.com", true),
            ("hooks.example.com", "HOOKS.example.com", true),
            ("hooks.example.com", "a.hooks.example.com", false),
            ("*.example.com", "hooks.example.com", true),
            ("*.example.com", "a.b.Example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
            ("*.example.com", "example.com.evil.org", false),
        ] {
            assert_eq!(covers(allowed, host), is, "{allowed} {host}");
        }
    }
}
