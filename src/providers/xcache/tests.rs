//! The adapter against a cache service that behaves as the real one does.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::json;

use super::super::testing::*;
use super::*;
use crate::intake::Kind;
use crate::outgoing::stub::{Reply, Seen, Stub};

pub(super) const CREATE_PRICE: &str = "2000000";

pub(super) fn config(url: http::Uri) -> resolved::XCache {
    resolved::XCache {
        url,
        region: "eu-west-1".into(),
        set_shape: SetShape::Body,
        max_value: 1000,
        operations_per_store: 4,
        operations_per_cache: 50_000,
        low_water: 100,
        daily_budget: "5".into(),
    }
}

/// The service: sells caches, keeps values in either or both shapes.
pub(super) struct Service {
    pub(super) takes: &'static [SetShape],
    /// Takes any body as the value itself, as a server of the query shape may.
    pub(super) takes_anything: bool,
    values: Mutex<HashMap<String, Value>>,
    sold: Mutex<u32>,
}

impl Service {
    pub(super) fn new(takes: &'static [SetShape]) -> Self {
        Service { takes, takes_anything: false, values: Mutex::default(), sold: Mutex::new(0) }
    }

    pub(super) fn answer(&self, seen: &Seen) -> Reply {
        let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
        match (seen.method.as_str(), path) {
            ("POST", "/create") if is_paid(seen) => {
                let mut sold = self.sold.lock();
                *sold += 1;
                Reply::json(200, &json!({"id": format!("secret-cache-{}", *sold), "region": "eu-west-1"}))
            }
            ("POST", "/create") => payment_required(CREATE_PRICE),
            ("PUT", _) => self.set(path, query, &serde_json::from_slice(&seen.body).unwrap()),
            _ => match self.values.lock().get(path) {
                Some(value) => Reply::json(200, &json!({"key": "k", "value": value, "ttl": 5})),
                None => Reply::json(404, &json!({"message": "not found"})),
            },
        }
    }

    fn set(&self, path: &str, query: &str, body: &Value) -> Reply {
        let key = path.rsplit('/').next().unwrap();
        let (value, ttl) = match query.strip_prefix("ttl=") {
            Some(ttl) if self.takes.contains(&SetShape::Query) => (body.clone(), ttl.parse().unwrap()),
            None if self.takes.contains(&SetShape::Body) => {
                (body["value"].clone(), body["ttl"].as_u64().unwrap())
            }
            None if self.takes_anything => (body.clone(), 1),
            _ => return Reply::json(400, &json!({"error": "what?"})),
        };
        self.values.lock().insert(path.to_owned(), value.clone());
        Reply::json(200, &json!({"key": key, "value": value, "ttl": ttl, "extra": 1}))
    }
}

/// A gateway with one cache in stock.
fn stocked(config: resolved::XCache) -> XCache {
    let store = MemoryStore::new(Clock::system());
    let record = json!({"id": "secret-cache-0", "region": "eu-west-1", "operations": 50_000, "bought": 1,
        "used_up": false});
    store.set_json(inventory::CACHES, "1", &record);
    XCache::new(line(), config, store, Arc::new(FakeWallet::default()), Clock::manual(86_400_000))
}

pub(super) fn note(ttl: Option<u64>) -> Order {
    order(SET, store_ask(Kind::File, false, ttl, 0), b"\x00\xffnote")
}

#[tokio::test]
async fn a_set_value_is_read_back_byte_for_byte() {
    let both = [SetShape::Body, SetShape::Query];
    // Configured right, configured wrong, and wrong in a way the server does not notice.
    for (shape, takes, takes_anything, requests) in [
        (SetShape::Body, &[SetShape::Body][..], false, 1),
        (SetShape::Query, &[SetShape::Query][..], false, 1),
        (SetShape::Body, &[SetShape::Query][..], false, 2),
        (SetShape::Query, &[SetShape::Body][..], false, 2),
        (SetShape::Body, &[SetShape::Query][..], true, 2),
    ] {
        assert!(both.contains(&shape));
        let service = Service { takes_anything, ..Service::new(takes) };
        let stub = Stub::start(move |seen| service.answer(seen)).await;
        let xcache = stocked(resolved::XCache { set_shape: shape, ..config(stub.url("")) });
        let purse = FakePurse::default();
        let done = xcache.perform(&note(Some(60)), &purse).await.unwrap();

        assert_eq!(stub.seen().len(), requests);
        assert_only_our_headers(&stub.seen());
        assert!(purse.paid().is_empty());
        let expected = json!({"success": true, "provider": "xcache", "size": 6, "endpoint": "/{id}/{key}",
            "ttl": 60});
        assert_eq!(Value::Object(done.result), expected);

        let stored = done.stored.unwrap();
        assert_eq!((stored.size, stored.content_type.as_deref()), (6, Some("application/x-note")));
        assert_eq!(xcache.read_back(&stored).await.unwrap().bytes, b"\x00\xffnote"[..]);
    }
}

#[tokio::test]
async fn a_store_without_a_ttl_gets_an_hour() {
    let service = Service::new(&[SetShape::Body]);
    let stub = Stub::start(move |seen| service.answer(seen)).await;
    let done = stocked(config(stub.url(""))).perform(&note(None), &FakePurse::default()).await.unwrap();
    assert_eq!(done.result["ttl"], 3600);
}

#[tokio::test]
async fn two_stores_have_different_keys() {
    let service = Service::new(&[SetShape::Body]);
    let stub = Stub::start(move |seen| service.answer(seen)).await;
    let xcache = stocked(config(stub.url("")));
    for _ in 0..2 {
        xcache.perform(&note(None), &FakePurse::default()).await.unwrap();
    }
    assert_ne!(stub.seen()[0].target, stub.seen()[1].target);
}

#[tokio::test]
async fn an_answer_that_only_looks_like_success_is_a_failure() {
    let set = |body: Value| {
        move |seen: &Seen| {
            let key = seen.target.split(['/', '?']).nth(2).unwrap();
            let text = body.to_string().replace("KEY", key);
            Reply::json(200, &serde_json::from_str(&text).unwrap())
        }
    };
    type Answer = Box<dyn Fn(&Seen) -> Reply + Send + Sync>;
    let table: Vec<(&str, Fault, usize, Answer)> = vec![
        ("another key", Fault::Broken, 1, Box::new(set(json!({"key": "x", "ttl": 60})))),
        ("no key", Fault::Broken, 1, Box::new(set(json!({"message": "ok"})))),
        ("a shorter ttl", Fault::Refused, 1, Box::new(set(json!({"key": "KEY", "ttl": 30})))),
        ("both shapes refused", Fault::Refused, 2, Box::new(|_| Reply::html(422))),
        ("too large", Fault::Refused, 1, Box::new(|_| Reply::html(413))),
        ("too often", Fault::Refused, 1, Box::new(|_| Reply::html(429))),
        ("500", Fault::Broken, 1, Box::new(|_| Reply::html(500))),
        ("HTML", Fault::Broken, 1, Box::new(|_| Reply::html(200))),
        ("no operations left", Fault::Broken, 1, Box::new(|_| payment_required("1"))),
        ("no such cache", Fault::Broken, 1, Box::new(|_| Reply::html(404))),
        ("drop", Fault::Unreachable, 1, Box::new(|_| Reply::drop())),
    ];
    for (row, fault, requests, answer) in table {
        let stub = Stub::start(answer).await;
        let outcome = stocked(config(stub.url(""))).perform(&note(Some(60)), &FakePurse::default()).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.fault, stub.seen().len()), (fault, requests), "{row}: {error}");
        assert!(!error.to_string().contains("secret-cache"), "{row}");
    }
}

#[tokio::test]
async fn a_slow_cache_is_a_timeout() {
    let stub = Stub::start(|_| Reply::Stall(b"")).await;
    let order = Order { deadline: SOON, ..note(None) };
    let error = stocked(config(stub.url(""))).perform(&order, &FakePurse::default()).await.unwrap_err();
    assert_eq!(error.fault, Fault::Timeout);
}

#[tokio::test]
async fn what_cannot_be_read_back_exactly_is_not_served() {
    let handle = |handle: &str| StoredHandle {
        provider: NAME.into(),
        handle: handle.into(),
        content_type: None,
        size: 3,
    };
    let value = |data: &str| json!({"galaksio": 1, "encoding": "base64", "data": data, "contentType": null});
    let good = r#"{"cache":"a","key":"b"}"#;
    let table = [
        (good, Reply::json as fn(u16, &Value) -> Reply, 200, json!({"value": value("Zm9v")}), None),
        (good, Reply::json, 200, json!({"value": value("Zm9vYmFy")}), Some(Fault::Broken)),
        (good, Reply::json, 200, json!({"value": "foo"}), Some(Fault::Broken)),
        (good, Reply::json, 200, json!({}), Some(Fault::Broken)),
        (good, Reply::json, 404, json!({"message": "gone"}), Some(Fault::Refused)),
        (good, Reply::json, 500, json!({}), Some(Fault::Broken)),
        (
            r#"{"cache":"..","key":"b"}"#,
            Reply::json,
            200,
            json!({"value": value("Zm9v")}),
            Some(Fault::Internal),
        ),
        ("a/b", Reply::json, 200, json!({"value": value("Zm9v")}), Some(Fault::Internal)),
    ];
    for (row, (text, reply, status, body, fault)) in table.into_iter().enumerate() {
        let stub = Stub::start(move |_| reply(status, &body)).await;
        let outcome = stocked(config(stub.url(""))).read_back(&handle(text)).await;
        match fault {
            None => assert_eq!(outcome.unwrap().bytes, "foo"),
            Some(fault) => assert_eq!(outcome.unwrap_err().fault, fault, "row {row}"),
        }
    }
}

#[tokio::test]
async fn offers_a_share_of_what_a_cache_costs() {
    let service = Service::new(&[SetShape::Body]);
    let stub = Stub::start(move |seen| service.answer(seen)).await;
    let ask = store_ask(Kind::File, false, None, 10);
    let share = |part, whole| {
        let config = resolved::XCache {
            operations_per_store: part,
            operations_per_cache: whole,
            ..config(stub.url(""))
        };
        let xcache = stocked(config);
        let ask = ask.clone();
        async move { xcache.offer(SET, &ask).await }
    };
    let expected = |cost| Ok(Offer { pay_to: NOBODY, ..offer(cost) });
    assert_eq!(share(4, 50_000).await, expected(160));
    assert_eq!(share(1, 30_000).await, expected(67));
    assert_eq!(share(1, 0).await.unwrap_err().fault, Fault::Terms);
    assert_no_offer_from_others(|url| stocked(config(url)), SET, &ask).await;
}

#[test]
fn sells_stores_that_may_end() {
    let xcache = stocked(config("https://cache.example/".parse().unwrap()));
    for ttl in [None, Some(60)] {
        assert_eq!(xcache.sells(&store_ask(Kind::Json, false, ttl, 1000)), Ok(SET));
    }
    let size = NotSold::Size { provider: NAME, limit: 1000 };
    assert_eq!(xcache.sells(&store_ask(Kind::File, false, None, 1001)), Err(size));
    let option = NotSold::Option { provider: NAME, option: "permanent true".into() };
    assert_eq!(xcache.sells(&store_ask(Kind::File, true, None, 1)), Err(option));
    assert_eq!(xcache.sells(&run_ask("python", 1)), Err(NotSold::Operation { provider: NAME }));
}
