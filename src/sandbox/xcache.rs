//! xCache: a paid `POST /create`, then plain key-value calls while the cache's operations last.
//!
//! What is not known of the real service is chosen here: error bodies, the value limit, and 403 once
//! the operations are used up.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::faults::Fault;
use super::serve::{Body, Handler, json, read};
use super::till::{Item, Till};
use crate::clock::{Clock, UnixSeconds};
use crate::config::resolved::SetShape;
use crate::money::Amount;

/// 0.50 dollars for a cache, or for topping one up.
const PRICE: Amount = Amount::new(500_000);
const DEFAULT_TTL: u64 = 3600;

pub(super) struct XCache {
    pub(super) till: Till,
    pub(super) clock: Clock,
    pub(super) shape: SetShape,
    /// That come with a cache, and with a top-up.
    pub(super) operations: u64,
    /// Bytes of a request body at most.
    pub(super) max_value: usize,
    pub(super) caches: Mutex<HashMap<String, Cache>>,
}

pub(super) struct Cache {
    /// Left.
    operations: u64,
    items: BTreeMap<String, Entry>,
}

struct Entry {
    value: Value,
    ttl: u64,
    expires: UnixSeconds,
}

#[async_trait]
impl Handler for XCache {
    async fn handle(&self, request: Request<Incoming>, fault: Option<Fault>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = match read(body, self.max_value).await {
            Ok(body) => body,
            Err(answer) => return *answer,
        };
        let path = head.uri.path();
        let segments: Option<Vec<String>> = path
            .split('/')
            .skip(1)
            .map(|segment| percent_decode_str(segment).decode_utf8().ok().map(Into::into))
            .collect();
        let segments = segments.unwrap_or_default();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let query = head.uri.query();
        match (&head.method, segments.as_slice()) {
            (&Method::POST, ["create"]) => self.sell(&head, fault, |caches| {
                let id = uuid::Uuid::new_v4().to_string();
                caches.insert(id.clone(), Cache { operations: self.operations, items: BTreeMap::new() });
                Some(json!({ "id": id }))
            }),
            (&Method::POST, ["topup", id]) => self.sell(&head, fault, |caches| {
                let cache = caches.get_mut(*id)?;
                cache.operations += self.operations;
                Some(json!({ "id": id, "operations": cache.operations }))
            }),
            (&Method::GET, [id]) => self.with(id, 0, |cache| {
                let keys: Vec<&String> = cache.items.keys().collect();
                Ok(json!({ "keys": keys, "count": keys.len(), "operations": cache.operations }))
            }),
            (&Method::PUT, [id, key]) => self.put(id, key, query, &body),
            (&Method::GET, [id, key]) => self.with(id, 1, |cache| {
                let Entry { value, ttl, .. } = cache.items.get(*key).ok_or(KEY_NOT_FOUND)?;
                Ok(json!({ "key": key, "value": value, "ttl": ttl }))
            }),
            (&Method::DELETE, [id, key]) => self.with(id, 1, |cache| {
                cache.items.remove(*key).ok_or(KEY_NOT_FOUND)?;
                Ok(json!({ "message": "Key deleted" }))
            }),
            (&Method::GET, [id, key, "ttl"]) => self.with(id, 1, |cache| {
                let left =
                    cache.items.get(*key).ok_or(KEY_NOT_FOUND)?.expires.saturating_sub(self.clock.now());
                Ok(json!({ "key": key, "ttl": left, "unit": "seconds" }))
            }),
            (&Method::PUT, [id, key, "ttl"]) => {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let ttl = body["ttl"].as_u64().or_else(|| ttl_of(query));
                self.with(id, 1, |cache| {
                    let ttl = ttl.filter(|ttl| *ttl > 0).ok_or(BAD_TTL)?;
                    let entry = cache.items.get_mut(*key).ok_or(KEY_NOT_FOUND)?;
                    (entry.ttl, entry.expires) = (ttl, self.clock.now().saturating_add(ttl));
                    Ok(json!({ "key": key, "ttl": ttl }))
                })
            }
            _ => json(StatusCode::NOT_FOUND, &json!({ "error": "Not found" })),
        }
    }
}

type Refusal = (StatusCode, &'static str);

const KEY_NOT_FOUND: Refusal = (StatusCode::NOT_FOUND, "Key not found");
const BAD_TTL: Refusal = (StatusCode::BAD_REQUEST, "ttl must be a positive number of seconds");

impl XCache {
    /// A 402-gated call; `make` says `None` for a cache that is not there, which costs nothing.
    fn sell(
        &self,
        head: &http::request::Parts,
        fault: Option<Fault>,
        make: impl FnOnce(&mut HashMap<String, Cache>) -> Option<Value>,
    ) -> Response<Body> {
        let item = Item { price: PRICE, path: head.uri.path(), description: "xCache operations" };
        let payment = match self.till.admit(&head.headers, &item) {
            Ok(payment) => payment,
            Err(challenge) => return *challenge,
        };
        if fault == Some(Fault::WorkFails) {
            return json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": "Internal server error" }));
        }
        let Some(made) = make(&mut self.caches.lock()) else {
            return json(StatusCode::NOT_FOUND, &json!({ "error": "Cache not found" }));
        };
        self.till.collect(&payment, &item, fault, json(StatusCode::OK, &made))
    }

    fn put(&self, id: &str, key: &str, query: Option<&str>, body: &Bytes) -> Response<Body> {
        let body: Option<Value> = serde_json::from_slice(body).ok();
        self.with(id, 1, |cache| {
            let mut body = body.ok_or((StatusCode::BAD_REQUEST, "Invalid JSON"))?;
            let (value, ttl) = match self.shape {
                SetShape::Body => {
                    let ttl = body.get("ttl").map_or(Some(DEFAULT_TTL), Value::as_u64);
                    let value = body.get_mut("value").map(Value::take);
                    (value.ok_or((StatusCode::BAD_REQUEST, "value is required"))?, ttl)
                }
                SetShape::Query => (body, ttl_of(query).or(Some(DEFAULT_TTL))),
            };
            let ttl = ttl.filter(|ttl| *ttl > 0).ok_or(BAD_TTL)?;
            let answer = json!({ "key": key, "value": value, "ttl": ttl });
            let expires = self.clock.now().saturating_add(ttl);
            cache.items.insert(key.to_owned(), Entry { value, ttl, expires });
            Ok(answer)
        })
    }

    /// A plain call on a cache, which uses up `operations` of it whether it succeeds or not.
    fn with(
        &self,
        id: &str,
        operations: u64,
        call: impl FnOnce(&mut Cache) -> Result<Value, Refusal>,
    ) -> Response<Body> {
        let now = self.clock.now();
        let mut caches = self.caches.lock();
        let result = match caches.get_mut(id) {
            None => Err((StatusCode::NOT_FOUND, "Cache not found")),
            Some(cache) if cache.operations < operations => {
                Err((StatusCode::FORBIDDEN, "No operations remaining"))
            }
            Some(cache) => {
                cache.operations -= operations;
                cache.items.retain(|_, entry| now < entry.expires);
                call(cache)
            }
        };
        match result {
            Ok(value) => json(StatusCode::OK, &value),
            Err((status, error)) => json(status, &json!({ "error": error })),
        }
    }
}

fn ttl_of(query: Option<&str>) -> Option<u64> {
    query?.split('&').find_map(|pair| pair.strip_prefix("ttl=")?.parse().ok())
}
