//! From method and path to what becomes of a request.
//!
//! A path is matched as it is spelled. If an app could read it as another one (see [`super::path`]) and the
//! readings disagree about a sold route, the request is refused: it is neither sold as something the app
//! does not see nor passed free to something that has a price. Where nothing sold is concerned, any
//! spelling passes untouched: an app may well use `//` or `%2F`. A table that sells nothing refuses nothing.
//!
//! What this cannot know is an app's own aliases: an app that serves `/report` also as `/report.json` has two
//! paths to price.

use http::header::HeaderName;
use http::{HeaderMap, Method};

use super::path::{Shape, fold, readings, shape};
use crate::config::resolved::{Action, Route};
use crate::ids::{FileId, JobId};

/// The rules, ready to be matched.
#[derive(Debug)]
pub struct Router {
    rules: Vec<Rule>,
    sells: bool,
    own: OwnPaths,
}

/// First path segments of the gateway's own endpoints; `None` leaves the path to the app.
#[derive(Clone, Debug, Default)]
pub struct OwnPaths {
    /// `GET /status/{job}`.
    pub status: Option<String>,
    /// `GET /job/{job}`.
    pub job: Option<String>,
    /// `GET /files/{file}`.
    pub files: Option<String>,
    /// `GET /jobs/{job}` and `GET /jobs/{job}/events`.
    pub jobs: Option<String>,
}

#[derive(Debug)]
struct Rule {
    /// As written, without the `/*`.
    path: String,
    prefix: bool,
    folded: Vec<u8>,
    methods: Vec<Method>,
    sold: bool,
    brokered: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the app; the index of the rule that said so, if one did.
    Free(Option<usize>),
    /// For money; the index of its rule.
    Sold(usize),
    /// `OPTIONS` of a sold path that asks what a browser may send.
    Preflight(usize),
    /// `OPTIONS` of a brokered path: there is no app to ask.
    Options(usize),
    /// One of the gateway's own endpoints.
    Own(Own),
    /// `OPTIONS` of one of them.
    OwnOptions(Own),
    /// The path has a reading that is sold, and another that is not.
    Ambiguous,
}

/// One of the gateway's own endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Own {
    /// `/status/{job}`.
    Status(JobId),
    /// `/job/{job}`.
    Job(JobId),
    /// `/files/{file}`.
    File(FileId),
    /// `/jobs/{job}`.
    Watch(JobId),
    /// `/jobs/{job}/events`.
    Events(JobId),
}

const REQUEST_METHOD: HeaderName = http::header::ACCESS_CONTROL_REQUEST_METHOD;
/// Fields by which some frameworks let a client name another method than the request line's.
static METHOD_OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];
/// Fields by which some let it name another path.
static PATH_OVERRIDES: [HeaderName; 2] =
    [HeaderName::from_static("x-original-url"), HeaderName::from_static("x-rewrite-url")];

impl Router {
    /// Rules in order; the first that matches wins.
    pub fn new(routes: &[Route], own: OwnPaths) -> Self {
        let rules: Vec<Rule> = routes.iter().map(Rule::new).collect();
        let sells = rules.iter().any(|rule| rule.sold);
        Router { rules, sells, own }
    }

    /// Whether anything is sold.
    pub fn sells(&self) -> bool {
        self.sells
    }

    /// What becomes of a request with this head. `path` is the request target's, without the query.
    pub fn target(&self, method: &Method, path: &str, headers: &HeaderMap) -> Target {
        if let Some(own) = self.own.find(method, path) {
            return if *method == Method::OPTIONS { Target::OwnOptions(own) } else { Target::Own(own) };
        }
        if !self.sells {
            return Target::Free(self.first(|rule| rule.takes(method) && rule.is(path)));
        }
        // A browser's preflight asks about another request than itself.
        let free = *method == Method::OPTIONS;
        let asked = if free { headers.get(REQUEST_METHOD) } else { None };
        let asked = asked.and_then(|wanted| Method::from_bytes(wanted.as_bytes()).ok());
        let exact = self.find(asked.as_ref().unwrap_or(method), free, path);
        match (exact, free) {
            (Found::Ambiguous, _) => Target::Ambiguous,
            (Found::Rule(index), true) if self.sold(index) => {
                if asked.is_some() {
                    Target::Preflight(index)
                } else if self.rules.get(index).is_some_and(|rule| rule.brokered) {
                    Target::Options(index)
                } else {
                    Target::Free(Some(index))
                }
            }
            (Found::Rule(index), false) if self.sold(index) => Target::Sold(index),
            _ if self.overridden(path, headers) => Target::Ambiguous,
            (Found::Rule(index), _) => Target::Free(Some(index)),
            (Found::Nothing, _) => Target::Free(None),
        }
    }

    /// The rule on which all readings of the path agree.
    ///
    /// Only the path as spelled and its widest forms are looked at, not what lies between: an app may merge
    /// some slashes and not others. That is enough. A form in between folds to the same widest form, so a sold
    /// rule that covers it covers that too; and it begins with the same plain segments, so a rule that covers
    /// the path as spelled covers it too. Hence a free rule in front of a sold one counts only if it covers
    /// both ends.
    fn find(&self, method: &Method, any_method: bool, path: &str) -> Found {
        let takes = |rule: &Rule| rule.takes(method) || (any_method && rule.sold);
        let spelled = self.first(|rule| takes(rule) && rule.is(path));
        let spelled_sold = spelled.is_some_and(|index| self.sold(index));
        let agrees = |covers: &dyn Fn(&Rule) -> bool| {
            self.first(|rule| takes(rule) && covers(rule)) == spelled
                || !(spelled_sold || self.rules.iter().any(|rule| rule.sold && takes(rule) && covers(rule)))
        };
        let agreed = match shape(path) {
            Shape::Broken => false,
            // The operator's word on exactly this spelling.
            Shape::Plain if spelled.is_some_and(|index| !self.is_prefix(index)) => true,
            Shape::Plain => agrees(&|rule| rule.is_folded_plain(path)),
            Shape::Odd => readings(path).is_some_and(|readings| {
                readings.iter().all(|reading| agrees(&|rule| rule.is_folded(reading)))
            }),
        };
        match (agreed, spelled) {
            (false, _) => Found::Ambiguous,
            (true, Some(index)) => Found::Rule(index),
            (true, None) => Found::Nothing,
        }
    }

    /// Whether a header field would lead some app from this free request to a sold one.
    fn overridden(&self, path: &str, headers: &HeaderMap) -> bool {
        // Nearly never; one pass over the names costs less than five look-ups.
        if !headers.keys().any(|name| METHOD_OVERRIDES.contains(name) || PATH_OVERRIDES.contains(name)) {
            return false;
        }
        let reaches = |path: &str| match shape(path) {
            Shape::Broken => true,
            Shape::Plain => self.rules.iter().any(|rule| rule.sold && rule.is_folded_plain(path)),
            Shape::Odd => readings(path).is_none_or(|readings| {
                readings
                    .iter()
                    .any(|reading| self.rules.iter().any(|rule| rule.sold && rule.is_folded(reading)))
            }),
        };
        if METHOD_OVERRIDES.iter().any(|name| headers.contains_key(name)) && reaches(path) {
            return true;
        }
        PATH_OVERRIDES.iter().flat_map(|name| headers.get_all(name)).any(|value| {
            let Ok(target) = value.to_str() else { return true };
            let path = target.split(['?', '#']).next().unwrap_or_default();
            reaches(path)
        })
    }

    fn first(&self, matches: impl Fn(&Rule) -> bool) -> Option<usize> {
        self.rules.iter().position(matches)
    }

    fn sold(&self, index: usize) -> bool {
        self.rules.get(index).is_some_and(|rule| rule.sold)
    }

    fn is_prefix(&self, index: usize) -> bool {
        self.rules.get(index).is_some_and(|rule| rule.prefix)
    }

    /// The methods of a rule; empty: all.
    pub(super) fn methods(&self, index: usize) -> &[Method] {
        self.rules.get(index).map_or(&[], |rule| &rule.methods)
    }
}

enum Found {
    Rule(usize),
    Nothing,
    Ambiguous,
}

impl Rule {
    fn new(route: &Route) -> Self {
        let (path, prefix) = match route.path.strip_suffix("/*") {
            Some(base) => (base, true),
            None => (route.path.as_str(), false),
        };
        // The configuration holds canonical paths, which fold.
        let folded = fold(path.as_bytes()).unwrap_or_else(|| path.as_bytes().to_vec());
        Rule {
            path: path.to_owned(),
            prefix,
            folded,
            methods: route.methods.clone(),
            sold: !matches!(route.action, Action::Free),
            brokered: matches!(route.action, Action::Brokered { .. }),
        }
    }

    /// `HEAD` is `GET` without the content (RFC 9110 section 9.3.2), so it is sold where `GET` is.
    fn takes(&self, method: &Method) -> bool {
        let listed = |wanted: &Method| self.methods.iter().any(|method| method == wanted);
        self.methods.is_empty()
            || listed(method)
            || (self.sold && *method == Method::HEAD && listed(&Method::GET))
    }

    /// A prefix covers its base: `/api/*` is `/api` too.
    fn is(&self, path: &str) -> bool {
        match path.strip_prefix(self.path.as_str()) {
            Some("") => true,
            Some(rest) => self.prefix && rest.starts_with('/'),
            None => false,
        }
    }

    fn is_folded(&self, reading: &[u8]) -> bool {
        match reading.strip_prefix(self.folded.as_slice()) {
            Some([]) => true,
            Some(rest) => self.prefix && rest.first() == Some(&b'/'),
            None => false,
        }
    }

    /// [`Rule::is_folded`] of a plain path, without making its folded form.
    fn is_folded_plain(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/').as_bytes();
        let Some((start, rest)) = path.split_at_checked(self.folded.len()) else { return false };
        start.eq_ignore_ascii_case(&self.folded)
            && (rest.is_empty() || self.prefix && rest.first() == Some(&b'/'))
    }
}

impl OwnPaths {
    fn find(&self, method: &Method, path: &str) -> Option<Own> {
        if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return None;
        }
        let (first, id) = path.strip_prefix('/')?.split_once('/')?;
        let is = |own: &Option<String>| own.as_deref().is_some_and(|own| own.trim_matches('/') == first);
        if is(&self.status) {
            id.parse().ok().map(Own::Status)
        } else if is(&self.job) {
            id.parse().ok().map(Own::Job)
        } else if is(&self.files) {
            id.parse().ok().map(Own::File)
        } else if is(&self.jobs) {
            match id.strip_suffix("/events") {
                Some(id) => id.parse().ok().map(Own::Events),
                None => id.parse().ok().map(Own::Watch),
            }
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
