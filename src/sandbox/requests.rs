//! What the services were asked: for tests of what reached whom, and how often.

use std::collections::{HashMap, VecDeque};

use http::{HeaderMap, Method, request};
use parking_lot::Mutex;

use super::Service;

/// Requests kept, over all services; older ones are forgotten.
const KEPT: usize = 10_000;

/// A request, as it arrived: its head.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Who was asked.
    pub service: Service,
    /// Its method.
    pub method: Method,
    /// Its path, as sent.
    pub path: String,
    /// Its query, without the question mark.
    pub query: Option<String>,
    /// Its header fields, all of them.
    pub headers: HeaderMap,
}

/// The record of all requests.
#[derive(Debug, Default)]
pub struct Requests(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seen: VecDeque<Seen>,
    counts: HashMap<(Service, String), u64>,
}

impl Requests {
    /// The last requests to a service (of the last 10,000 to all), oldest first.
    pub fn seen(&self, service: Service) -> Vec<Seen> {
        self.0.lock().seen.iter().filter(|seen| seen.service == service).cloned().collect()
    }

    /// How many requests a service got for exactly this path since the start, struck by a fault or
    /// not. Only the first 10,000 paths are counted.
    pub fn count(&self, service: Service, path: &str) -> u64 {
        self.0.lock().counts.get(&(service, path.to_owned())).copied().unwrap_or(0)
    }

    pub(super) fn record(&self, service: Service, head: &request::Parts) {
        let seen = Seen {
            service,
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: head.headers.clone(),
        };
        let mut state = self.0.lock();
        let key = (service, seen.path.clone());
        if state.counts.len() < KEPT || state.counts.contains_key(&key) {
            *state.counts.entry(key).or_default() += 1;
        }
        if state.seen.len() == KEPT {
            state.seen.pop_front();
        }
        state.seen.push_back(seen);
    }
}
