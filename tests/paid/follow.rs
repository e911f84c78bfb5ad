//! Following a job: long polls, and server-sent events, on whichever gateway.

use std::time::{Duration, Instant};

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::bodies::{Raw, head};
use crate::client::{Client, Request};
use crate::payer::Payer;
use crate::redis_server::RedisServer;
use crate::rig::{PATIENCE, Setup};

/// An event, as a browser reads it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<u64>,
    pub(crate) data: Value,
}

/// A stream of events that is being read.
pub(crate) struct Events {
    body: hyper::body::Incoming,
    text: String,
}

impl Events {
    pub(crate) async fn open(client: &Client, id: &str, last: Option<u64>) -> Events {
        let mut request = Request::get(&format!("/jobs/{id}/events"));
        if let Some(last) = last {
            request = request.header("last-event-id", &last.to_string());
        }
        let (head, body) = client.open(&request).await.into_parts();
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["content-type"], "text/event-stream");
        assert_eq!(head.headers["cache-control"], "no-store");
        Events { body, text: String::new() }
    }

    /// The next one; `None` once the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
                    return Some(Event {
                        name: name.to_owned(),
                        id: field("id: ").map(|id| id.parse().unwrap()),
                        data: serde_json::from_str(data).unwrap(),
                    });
                }
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("no event")?;
            self.text += std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap();
        }
    }

    pub(crate) async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

#[test]
fn events_tell_of_every_state_to_the_end_and_go_on_where_they_were() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let settle = Rule::next(1, Fault::Held).at("/settle");
        stage.sandbox().faults.add(Service::Facilitator, settle);
        let request = Request::run("print(1)");
        let payment = client.sign(&request, &payer, Version::V2).await;
        let paid = request.clone().header("prefer", "respond-async").paid(&payment);
        let id = client.send(&paid).await.json()["jobId"].as_str().unwrap().to_owned();
        let mut following = Events::open(&client, &id, None).await;
        let mut events = Vec::new();
        while events.last().is_none_or(|event: &Event| event.data["state"] != "settling") {
            events.push(following.next().await.expect("it ends before it is settled"));
        }
        stage.sandbox().faults.let_go(Service::Facilitator);
        events.extend(following.rest().await);
        let (end, before) = events.split_last().unwrap();
        assert!(!before.is_empty() && before.iter().all(|event| event.name == "state"), "{events:?}");
        assert!(events.is_sorted_by(|a, b| a.id < b.id), "{events:?}");
        assert!(before.iter().all(|event| event.data["status"] == "running"), "{events:?}");
        // While it settles nobody knows.
        let settling = before.iter().find(|event| event.data["state"] == "settling").unwrap();
        assert_eq!(settling.data["charged"], "unknown");
        assert_eq!((end.name.as_str(), &end.data["status"]), ("end", &json!("completed")));
        assert_eq!(end.data["charged"], "yes");
        assert!(events.iter().all(|event| !event.data.to_string().contains("print")), "{events:?}");

        let resumed = Events::open(&client, &id, settling.id).await.rest().await;
        assert_eq!(resumed, std::slice::from_ref(end));
        // Who has seen the end is told not to come back.
        let over = Request::get(&format!("/jobs/{id}/events"));
        let over = client.send(&over.header("last-event-id", &end.id.unwrap().to_string())).await;
        assert_eq!((over.status, over.body.len()), (204, 0));
        let nobody = Request::get(&format!("/jobs/{}/events", uuid::Uuid::now_v7()));
        client.send(&nobody).await.expect(404, "job_unknown_or_unpaid", None, None);
    });
}

#[test]
fn a_body_is_followed_while_it_arrives() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let bytes = vec![7u8; 3 << 20];
        let path = "/store?permanent=true";
        let asking = head(path, "image/png", bytes.len(), crate::bodies::EXPECT);
        let (_, answer, body) = Raw::asked(gateway.address, asking).await;
        assert!(answer.starts_with("HTTP/1.1 402 "), "{answer}");
        let offered = galaksio::x402::Challenge::from_response(&fields(&answer), &body).unwrap();
        let id = serde_json::from_slice::<Value>(&body).unwrap()["jobId"].as_str().unwrap().to_owned();
        client.send(&Request::get(&format!("/jobs/{id}/events"))).await.expect(
            404,
            "job_unknown_or_unpaid",
            None,
            None,
        );
        let (name, value) = payer.pay(&offered).header();
        let mut raw = Raw::open(gateway.address).await;
        raw.send(head(path, "image/png", bytes.len(), &format!("{name}: {value}\r\n"))).await;
        let (first, rest) = bytes.split_at(1 << 20);
        raw.send(first).await;
        // It is there once the gateway has seen that the payment is good.
        let mut events = crate::rig::eventually("a stream", async || {
            let request = Request::get(&format!("/jobs/{id}/events"));
            match client.send_head(&request).await {
                200 => Some(Events::open(&client, &id, None).await),
                _ => None,
            }
        })
        .await;
        let mut seen = 0;
        while seen < first.len() as u64 {
            let event = events.next().await.unwrap();
            assert_eq!((event.name.as_str(), &event.data["size"]), ("progress", &json!(bytes.len())));
            let received = event.data["received"].as_u64().unwrap();
            assert!(received >= seen && received <= first.len() as u64 && event.id.is_none(), "{event:?}");
            seen = received;
        }
        raw.send(rest).await;
        let (answer, _) = raw.answer().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let events = events.rest().await;
        let end = events.last().unwrap();
        assert_eq!((end.name.as_str(), &end.data["status"]), ("end", &json!("completed")));
    });
}

/// The header fields of an answer.
fn fields(head: &str) -> http::HeaderMap {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

#[test]
fn so_many_may_wait_and_no_more_and_none_is_in_the_way_of_the_end() {
    let stage = Setup::new().number("paid", "max_watchers", 2).text("edge", "drain_timeout", "60s").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        stage.sandbox().faults.add(Service::Facilitator, Rule::next(1, Fault::Held).at("/verify"));
        let request = Request::run("print(1)");
        let payment = client.sign(&request, &payer, Version::V2).await;
        let paid = request.header("prefer", "respond-async").paid(&payment);
        let id = client.send(&paid).await.json()["jobId"].as_str().unwrap().to_owned();
        let _one = Events::open(&client, &id, None).await;
        let two = Events::open(&client, &id, None).await;
        let full = client.send(&Request::get(&format!("/jobs/{id}/events"))).await;
        full.expect(503, "overloaded", None, None);
        let wait = Request::get(&format!("/jobs/{id}?wait=20"));
        client.send(&wait).await.expect(503, "overloaded", None, None);
        // Whoever does not wait is told.
        let now = client.send(&Request::get(&format!("/jobs/{id}"))).await;
        assert_eq!((now.status, now.field("retry-after")), (200, Some("2")), "{now:?}");
        drop(two);
        crate::rig::eventually("a place", async || {
            let answer = client.send(&Request::get(&format!("/jobs/{id}?wait=1"))).await;
            (answer.status == 200).then_some(())
        })
        .await;
        stage.sandbox().faults.let_go(Service::Facilitator);
    });
    let began = Instant::now();
    gateway.end();
    assert!(began.elapsed() < Duration::from_secs(20), "a stream keeps the process from ending");
}

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn a_job_is_followed_from_another_gateway() {
    let server = RedisServer::start(&[]);
    let stage = Setup::new().redis(&server.url()).start();
    let (one, other) = (stage.process(), stage.process());
    let (client, elsewhere, payer) = (one.client(), other.client(), Payer::new());
    stage.run(async {
        let request = Request::run("print(1)");
        let offered = crate::rig::eventually("a price", async || {
            let answer = client.send(&request).await;
            (answer.status == 402).then_some(answer)
        })
        .await;
        stage.sandbox().faults.add(Service::Facilitator, Rule::next(1, Fault::Held).at("/verify"));
        let payment = payer.pay(&offered.offer(Version::V2));
        let paid = request.header("prefer", "respond-async").paid(&payment);
        let id = client.send(&paid).await.json()["jobId"].as_str().unwrap().to_owned();
        let mut events = Events::open(&elsewhere, &id, None).await;
        let wait = Request::get(&format!("/jobs/{id}?wait=30"));
        let follow = async {
            assert_eq!(events.next().await.unwrap().data["status"], "running");
            stage.sandbox().faults.let_go(Service::Facilitator);
            events.rest().await
        };
        let (done, events) = tokio::join!(elsewhere.send(&wait), follow);
        assert_eq!(done.json()["status"], "completed");
        assert_eq!(events.last().unwrap().data["charged"], "yes");
        let (name, value) = payment.header();
        let result = elsewhere.send(&Request::get(&format!("/jobs/{id}")).header(name, &value)).await;
        crate::sold::ran(&result.json(), "print(1)");
    });
    assert_eq!((stage.sales(), stage.purchases(Service::Merit)), (1, 1));
}
