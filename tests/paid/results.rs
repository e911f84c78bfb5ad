//! Results that are too large for the job store: passed on while they arrive, kept by the gateway that gave them, given again
//! whole or in part to the same payment, and never half as if they were whole.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::{Receipt, Version};
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;

use crate::client::{Answer, Client, HOST, Request};
use crate::follow::Events;
use crate::payer::{Payer, Payment};
use crate::redis_server::RedisServer;
use crate::rig::{PATIENCE, Setup, eventually};
use crate::seller::{PAYEE, Reply, Seller, terms};

const KIB: usize = 1 << 10;
/// More than the tests' job store keeps of an answer.
const LARGE: usize = 300 * KIB;

/// Makes an answer stop in the middle until a test has seen that it did.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap());
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 251) as u8).collect()
}

/// How a result goes over the wire.
#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Length,
    Chunks,
}

/// A seller of results of `length` bytes. `cut`: it sends so many of them only. `gate`: half of them first.
fn seller(framing: Framing, length: usize, cut: usize, gate: Option<Gate>) -> Seller {
    Seller::start(move |seen, _| {
        let gate = gate.clone();
        match seen.payment {
            None => Reply::Json(402, terms(280, PAYEE)),
            Some(_) => Reply::Script(Box::new(move |stream| send(stream, framing, length, cut, gate))),
        }
    })
}

fn send(
    stream: &mut TcpStream,
    framing: Framing,
    length: usize,
    cut: usize,
    gate: Option<Gate>,
) -> std::io::Result<()> {
    let bytes = bytes(length);
    let framed = match framing {
        Framing::Length => format!("content-length: {length}"),
        Framing::Chunks => "transfer-encoding: chunked".to_owned(),
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: video/mp4\r\nset-cookie: a=b\r\nconnection: close\r\n{framed}\r\n\r\n"
    )?;
    let mut gate = gate;
    for (at, piece) in bytes[..cut].chunks(10 * KIB).enumerate() {
        if at * 10 * KIB >= length / 2
            && let Some(gate) = gate.take()
        {
            stream.flush()?;
            gate.pass();
        }
        match framing {
            Framing::Length => stream.write_all(piece)?,
            Framing::Chunks => {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            }
        }
    }
    if framing == Framing::Chunks && cut == length {
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

/// A gateway that sells it, and keeps little in its store.
fn setup(seller: &Seller, max_result: &str) -> Setup {
    let provider = format!(
        "[[provider]]\nname = \"acme\"\nkind = \"run\"\nlanguages = [\"forth\"]\nurl = \"{}\"\nbody = \"raw\"\n\
         answer = \"raw\"\nmax_result = \"{max_result}\"\n",
        seller.url()
    );
    Setup::new().provider(&provider).text("paid", "result_max", "64KiB")
}

fn forth(code: &str) -> Request {
    Request::json("/run", &json!({ "code": code, "language": "forth" }))
}

/// Where the job of an answer is, and its result.
fn job_url(answer: &Answer) -> String {
    answer.field("content-location").unwrap().strip_prefix(&format!("http://{HOST}")).unwrap().to_owned()
}

fn shown(url: &str, payment: &Payment) -> Request {
    let (name, value) = payment.header();
    Request::get(url).header(name, &value)
}

async fn state(client: &Client, url: &str) -> String {
    client.send(&Request::get(url)).await.json()["state"].as_str().unwrap().to_owned()
}

#[test]
fn it_is_passed_on_while_it_arrives_and_charged_for_at_its_head() {
    for (framing, version) in [(Framing::Length, Version::V1), (Framing::Chunks, Version::V2)] {
        let gate = Gate::default();
        let seller = seller(framing, LARGE, LARGE, Some(gate.clone()));
        let stage = setup(&seller, "1MiB").start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let payment = client.sign(&forth("1"), &payer, version).await;
            let paid = forth("1").paid(&payment);
            let mut answer = client.open(&paid).await;
            assert_eq!(answer.status(), 200);
            assert!(Receipt::from_headers(answer.headers()).unwrap().success);
            assert_eq!(stage.sales(), 1, "charged when it began well");
            for (name, value) in [
                ("content-type", Some("video/mp4")),
                ("x-content-type-options", Some("nosniff")),
                ("cache-control", Some("private, no-store")),
                ("set-cookie", None),
            ] {
                assert_eq!(answer.headers().get(name).map(|value| value.to_str().unwrap()), value, "{name}");
            }
            let length =
                answer.headers().get("content-length").map(|length| length.to_str().unwrap().to_owned());
            assert_eq!(length, (framing == Framing::Length).then(|| LARGE.to_string()));
            let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
            // The same payment meanwhile gets the same, as far as it is there.
            let meanwhile = tokio::spawn({
                let (client, paid) = (client.clone(), paid.clone());
                async move { client.send(&paid).await }
            });
            gate.open();
            let rest = answer.into_body().collect().await.unwrap().to_bytes();
            assert!([first, rest].concat() == bytes(LARGE));
            let meanwhile = meanwhile.await.unwrap();
            assert!(
                (meanwhile.status, &meanwhile.body[..]) == (200, &bytes(LARGE)[..]),
                "{:?}",
                meanwhile.headers
            );
        });
        assert_eq!((stage.sales(), seller.payments()), (1, 1));
    }
}

#[test]
fn a_short_one_is_read_before_it_is_charged_for_and_kept_in_the_store() {
    let seller = seller(Framing::Chunks, 50 * KIB, 50 * KIB, None);
    let stage = setup(&seller, "1MiB").start();
    let (payment, answer) = {
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let payment = client.sign(&forth("1"), &payer, Version::V2).await;
            let answer = client.send(&forth("1").paid(&payment)).await;
            assert!((answer.status, &answer.body[..]) == (200, &bytes(50 * KIB)[..]), "{:?}", answer.headers);
            (payment, answer)
        })
    };
    // Another gateway has it too.
    let gateway = stage.cold_gateway();
    let client = gateway.client();
    stage.run(async {
        assert_eq!(client.send(&forth("1").paid(&payment)).await.body, answer.body);
        let part = client.send(&shown(&job_url(&answer), &payment).header("range", "bytes=-5")).await;
        assert!((part.status, &part.body[..]) == (206, &bytes(50 * KIB)[50 * KIB - 5..]), "{part:?}");
    });
    assert_eq!((stage.sales(), seller.payments()), (1, 1));
}

#[test]
fn the_same_payment_collects_it_again_whole_or_in_parts() {
    let seller = seller(Framing::Chunks, LARGE, LARGE, None);
    let stage = setup(&seller, "1MiB").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let payment = client.sign(&forth("1"), &payer, Version::V2).await;
        let first = client.send(&forth("1").paid(&payment)).await;
        let (url, whole) = (job_url(&first), bytes(LARGE));
        assert!(first.body[..] == whole[..]);
        let again = client.send(&forth("1").paid(&payment)).await;
        assert!((again.status, &again.body[..]) == (200, &whole[..]));
        assert_eq!(again.receipt(), first.receipt());

        let collected = client.send(&shown(&url, &payment)).await;
        assert!((collected.status, &collected.body[..]) == (200, &whole[..]));
        assert_eq!(collected.receipt(), first.receipt());
        assert_eq!(collected.field("content-length"), Some(LARGE.to_string().as_str()));
        assert_eq!(collected.field("accept-ranges"), Some("bytes"));
        let etag = first.field("etag").unwrap();
        for name in ["etag", "content-type", "x-content-type-options", "cache-control"] {
            assert_eq!(collected.field(name), first.field(name), "{name}");
        }
        for (range, from, to) in [
            ("bytes=0-0", 0, 0),
            ("bytes=100000-", 100_000, LARGE - 1),
            ("bytes=65530-65545", 65_530, 65_545),
            ("bytes=-7", LARGE - 7, LARGE - 1),
        ] {
            for condition in [None, Some(etag)] {
                let mut request = shown(&url, &payment).header("range", range);
                if let Some(condition) = condition {
                    request = request.header("if-range", condition);
                }
                let part = client.send(&request).await;
                assert!(
                    (part.status, &part.body[..]) == (206, &whole[from..=to]),
                    "{range} {:?}",
                    part.headers
                );
                assert_eq!(part.field("content-range"), Some(format!("bytes {from}-{to}/{LARGE}").as_str()));
                assert_eq!(part.field("content-length"), Some((to - from + 1).to_string().as_str()));
                assert_eq!((part.field("etag"), part.receipt()), (Some(etag), first.receipt()));
            }
        }
        let other = shown(&url, &payment).header("range", "bytes=0-0").header("if-range", "\"other\"");
        assert!(client.send(&other).await.body[..] == whole[..]);
        let beyond = client.send(&shown(&url, &payment).header("range", "bytes=300000-")).await;
        assert_eq!(beyond.status, 206, "there are as many");
        let beyond = client.send(&shown(&url, &payment).header("range", &format!("bytes={LARGE}-"))).await;
        assert_eq!((beyond.status, beyond.code().as_str()), (416, "range_not_satisfiable"));
        assert_eq!(beyond.field("content-range"), Some(format!("bytes */{LARGE}").as_str()));
        let known = client.send(&shown(&url, &payment).header("if-none-match", etag)).await;
        assert_eq!((known.status, known.body.len(), known.field("etag")), (304, 0, Some(etag)));
        // A range is of what GET gives.
        let posted = client.send(&forth("1").paid(&payment).header("range", "bytes=0-0")).await;
        assert_eq!((posted.status, posted.body.len()), (200, LARGE));
        // Nobody else gets any of it.
        for request in [Request::get(&url), shown(&url, &payment.as_v1())] {
            let told = client.send(&request.header("range", "bytes=0-9")).await;
            assert_eq!((told.status, told.json()["state"].as_str()), (200, Some("completed")));
            assert!(told.field("etag").is_none() && told.field("accept-ranges").is_none());
        }
    });
    assert_eq!((stage.sales(), seller.payments()), (1, 1));
}

#[test]
fn a_report_of_the_app_is_given_again_in_parts() {
    let stage = Setup::new().text("paid", "result_max", "64KiB").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        // One that the store keeps, and one that it does not.
        for length in [50 * KIB, LARGE] {
            let path = format!("/large?bytes={length}");
            let request = Request::get(&path);
            let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
            let whole = client.send(&paid).await;
            assert_eq!((whole.status, whole.body.len()), (200, length));
            assert_eq!(whole.field("accept-ranges"), Some("bytes"));
            let etag = whole.field("etag").unwrap().to_owned();
            let again = client.send(&paid).await;
            assert_eq!(crate::once::same(&again), crate::once::same(&whole));
            let part = paid.clone().header("range", "bytes=1000-1999").header("if-range", &etag);
            let part = client.send(&part).await;
            assert!((part.status, &part.body[..]) == (206, &whole.body[1000..2000]), "{:?}", part.headers);
            assert_eq!(part.field("content-type"), whole.field("content-type"));
            assert_eq!(part.receipt(), whole.receipt());
            let beyond = client.send(&paid.clone().header("range", &format!("bytes={length}-"))).await;
            assert_eq!((beyond.status, beyond.receipt()), (416, whole.receipt()));
            // The payment is for the request, in parts too: by itself it buys nothing else.
            let mut other = paid.clone().header("range", "bytes=0-9");
            other.path = format!("/large?bytes={}", length - 1);
            client.send(&other).await.expect(409, "payment_reused", Some("yes"), Some("new_payment"));
        }
    });
    assert_eq!((stage.sales(), stage.sandbox().requests.count(Service::App, "/large")), (2, 2));
}

#[test]
fn a_client_that_goes_away_finds_the_rest() {
    let gate = Gate::default();
    let seller = seller(Framing::Length, LARGE, LARGE, Some(gate.clone()));
    let stage = setup(&seller, "1MiB").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let payment = client.sign(&forth("1"), &payer, Version::V2).await;
        let paid = forth("1").paid(&payment);
        let mut answer = client.open(&paid).await;
        let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        let url = answer.headers()["content-location"].to_str().unwrap().to_owned();
        let url = url.strip_prefix(&format!("http://{HOST}")).unwrap().to_owned();
        drop(answer);
        // What comes is waited for, even where it begins behind what is there.
        let range = format!("bytes={}-", first.len());
        let rest = tokio::spawn({
            let (client, request) = (client.clone(), shown(&url, &payment).header("range", &range));
            async move { client.send(&request).await }
        });
        gate.open();
        let rest = rest.await.unwrap();
        assert_eq!(rest.status, 206, "{rest:?}");
        assert!([first, rest.body].concat() == bytes(LARGE));
    });
    assert_eq!((stage.sales(), seller.payments()), (1, 1));
}

/// What fails before it is charged for is not charged for; what breaks off later is never taken for whole, and is owed.
#[test]
fn one_that_is_not_whole_is_never_given_as_if_it_were() {
    for (framing, length, cut) in
        [(Framing::Length, 50 * KIB, 40 * KIB), (Framing::Chunks, 50 * KIB, 40 * KIB)]
    {
        let seller = seller(framing, length, cut, None);
        let stage = setup(&seller, "1MiB").start();
        let gateway = stage.gateway();
        stage.run(async {
            let answer = gateway.client().buy(&forth("1"), &Payer::new(), Version::V2).await;
            answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
        });
        assert_eq!((stage.sales(), seller.payments()), (0, 1));
    }
    for framing in [Framing::Length, Framing::Chunks] {
        let seller = seller(framing, LARGE, LARGE - 50 * KIB, None);
        let stage = setup(&seller, "1MiB").start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let paid = forth("1").paid(&client.sign(&forth("1"), &payer, Version::V2).await);
            let answer = client.open(&paid).await;
            assert_eq!(answer.status(), 200);
            assert!(answer.into_body().collect().await.is_err(), "a client must see that it is not whole");
            let again = eventually("a refund that is due", async || {
                let again = client.send(&paid).await;
                (again.code() == "refund_due").then_some(again)
            })
            .await;
            again.expect(502, "refund_due", Some("yes"), Some("never"));
            assert!(again.receipt().success);
            let url = format!("/jobs/{}", again.json()["jobId"].as_str().unwrap());
            let job = client.send(&Request::get(&url)).await.json();
            assert_eq!(
                (&job["state"], &job["refund"]["state"]),
                (&json!("refund_due"), &json!("due")),
                "{job}"
            );
        });
        assert_eq!((stage.sales(), seller.payments()), (1, 1));
        gateway.end();
        assert_eq!(stage.jobs().into_iter().collect::<Vec<_>>(), [("refund_due", 1)]);
    }
}

/// The same of the app's own answers.
#[test]
fn an_answer_of_the_app_that_breaks_off_is_owed() {
    let stage = Setup::new().text("paid", "result_max", "64KiB").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::get(&format!("/large?bytes={LARGE}"));
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        stage.sandbox().faults.add(Service::App, Rule::always(Fault::Truncate));
        let answer = client.open(&paid).await;
        assert_eq!(answer.status(), 200);
        assert!(answer.into_body().collect().await.is_err());
        eventually("a refund that is due", async || {
            (client.send(&paid).await.code() == "refund_due").then_some(())
        })
        .await;
    });
    assert_eq!(stage.sales(), 1);
}

/// Its client is charged, and its answer was with a process that is no more.
#[test]
fn one_that_is_lost_with_its_process_is_owed() {
    let seller = seller(Framing::Length, LARGE, LARGE, None);
    let stage = setup(&seller, "1MiB").asking_the_chain().start();
    let gateway = stage.process();
    let payer = Payer::new();
    let paid = stage.run(async {
        let client = gateway.client();
        let offered = eventually("a price", async || {
            let answer = client.send(&forth("1")).await;
            (answer.status == 402).then_some(answer)
        })
        .await;
        let paid = forth("1").paid(&payer.pay(&offered.offer(Version::V2)));
        let settle = Rule::next(1, Fault::Slow(Duration::from_secs(600))).at("/settle").after();
        stage.sandbox().faults.add(Service::Facilitator, settle);
        let going = tokio::spawn({
            let (client, paid) = (client.clone(), paid.clone());
            async move { client.open(&paid).await.status() }
        });
        eventually("a settlement", async || (stage.sales() == 1).then_some(())).await;
        going.abort();
        paid
    });
    gateway.kill();
    let gateway = stage.process();
    stage.run(async {
        owed(&gateway.client(), &paid).await;
    });
    assert_eq!((stage.sales(), seller.payments()), (1, 1));
}

/// The same payment is told that its money is owed, once that is found out.
async fn owed(client: &Client, paid: &Request) {
    let again = eventually("a refund that is due", async || {
        let again = client.send(paid).await;
        (again.code() == "refund_due").then_some(again)
    })
    .await;
    again.expect(502, "refund_due", Some("yes"), Some("never"));
}

/// Its provider has sent a half, which its client has, when the process is killed: with a file of it, or without.
#[test]
fn one_that_a_kill_breaks_off_is_owed() {
    for kept in ["64MiB", ""] {
        let gate = Gate::default();
        let seller = seller(Framing::Length, LARGE, LARGE, Some(gate.clone()));
        let stage = setup(&seller, "1MiB").text("paid", "result_file_max", kept).start();
        let gateway = stage.process();
        let paid = stage.run(async {
            let client = gateway.client();
            let offered = eventually("a price", async || {
                let answer = client.send(&forth("1")).await;
                (answer.status == 402).then_some(answer)
            })
            .await;
            let paid = forth("1").paid(&Payer::new().pay(&offered.offer(Version::V2)));
            let answer = client.open(&paid).await;
            assert_eq!(answer.status(), 200);
            // To its client it is what it was: done, and on its way.
            let url = answer.headers()["content-location"].to_str().unwrap().to_owned();
            let url = url.strip_prefix(&format!("http://{HOST}")).unwrap();
            assert_eq!(state(&client, &format!("{url}?wait=10")).await, "completed");
            gateway.kill();
            assert!(answer.into_body().collect().await.is_err());
            paid
        });
        gate.open();
        let gateway = stage.process();
        stage.run(async {
            owed(&gateway.client(), &paid).await;
        });
        assert_eq!((stage.sales(), seller.payments()), (1, 1));
    }
}

#[test]
fn one_larger_than_its_provider_may_give_is_refused_or_cut_off() {
    for (framing, sales) in [(Framing::Length, 0), (Framing::Chunks, 1)] {
        let seller = seller(framing, LARGE, LARGE, None);
        let stage = setup(&seller, "200KiB").start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        let paid = stage.run(async {
            let paid = forth("1").paid(&client.sign(&forth("1"), &payer, Version::V2).await);
            match framing {
                Framing::Length => {
                    client.send(&paid).await.expect(502, "provider_lost", Some("no"), Some("new_payment"));
                }
                Framing::Chunks => {
                    let answer = client.open(&paid).await;
                    assert!(answer.into_body().collect().await.is_err());
                    // As the operator said it would be.
                    client.send(&paid).await.expect(410, "not_kept", Some("yes"), Some("never"));
                }
            }
            paid
        });
        assert_eq!((stage.sales(), seller.payments()), (sales, 1));
        // And so it stays, once that is on record.
        gateway.end();
        let (at_rest, status, code) = match framing {
            Framing::Length => ("held", 502, "provider_lost"),
            Framing::Chunks => ("completed", 410, "not_kept"),
        };
        assert_eq!(stage.jobs().into_iter().collect::<Vec<_>>(), [(at_rest, 1)]);
        let gateway = stage.cold_gateway();
        stage.run(async {
            let again = gateway.client().send(&paid).await;
            assert_eq!((again.status, again.code().as_str()), (status, code), "{again:?}");
        });
    }
}

/// To who follows its job it is done once, whenever that it was handed out is on record.
#[test]
fn its_end_is_told_once() {
    let gate = Gate::default();
    let seller = seller(Framing::Length, LARGE, LARGE, Some(gate.clone()));
    let stage = setup(&seller, "1MiB").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let paid = forth("1").paid(&client.sign(&forth("1"), &payer, Version::V2).await);
        let answer = client.open(&paid).await;
        let url = answer.headers()["content-location"].to_str().unwrap().to_owned();
        let id = url.rsplit('/').next().unwrap();
        let end = async || Events::open(&client, id, None).await.rest().await.pop().unwrap();
        let first = end().await;
        assert_eq!((first.name.as_str(), &first.data["state"]), ("end", &json!("completed")));
        gate.open();
        answer.into_body().collect().await.unwrap();
        let later = eventually("that it was handed out", async || {
            let later = end().await;
            (later.id > first.id).then_some(later)
        })
        .await;
        assert_eq!(later.data["state"], first.data["state"]);
        let again = Request::get(&format!("/jobs/{id}/events"));
        let again = again.header("last-event-id", &first.id.unwrap().to_string());
        assert_eq!(client.send(&again).await.status, 204);
    });
    assert_eq!((stage.sales(), seller.payments()), (1, 1));
}

#[test]
fn one_that_nobody_waits_for_is_whole_before_it_is_charged_for() {
    for cut in [0, 50 * KIB] {
        let seller = seller(Framing::Chunks, 20 << 20, (20 << 20) - cut, None);
        let stage = setup(&seller, "32MiB").start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let payment = client.sign(&forth("1"), &payer, Version::V2).await;
            stage.sandbox().faults.add(Service::Facilitator, Rule::next(1, Fault::Held).at("/verify"));
            let answer = client.send(&forth("1").header("prefer", "respond-async").paid(&payment)).await;
            assert_eq!(answer.status, 202, "{answer:?}");
            let url = job_url(&answer);
            stage.sandbox().faults.let_go(Service::Facilitator);
            let done = client.send(&Request::get(&format!("{url}?wait=30"))).await.json();
            if cut > 0 {
                assert_eq!((&done["state"], &done["charged"]), (&json!("held"), &json!("no")), "{done}");
                return;
            }
            assert_eq!((&done["state"], &done["charged"]), (&json!("completed"), &json!("yes")), "{done}");
            let collected = client.send(&shown(&url, &payment)).await;
            assert!((collected.status, &collected.body[..]) == (200, &bytes(20 << 20)[..]));
        });
        assert_eq!(stage.sales(), usize::from(cut == 0));
    }
}

/// A restart loses what only the process had. It says so.
#[test]
fn after_a_restart_it_says_that_it_is_done_and_not_there() {
    let seller = seller(Framing::Length, LARGE, LARGE, None);
    let stage = setup(&seller, "1MiB").start();
    let gateway = stage.gateway();
    let payment = stage.run(async {
        let client = gateway.client();
        let payment = client.sign(&forth("1"), &Payer::new(), Version::V2).await;
        assert_eq!(client.send(&forth("1").paid(&payment)).await.status, 200);
        payment
    });
    gateway.end();
    let gateway = stage.cold_gateway();
    stage.run(async {
        let answer = gateway.client().send(&forth("1").paid(&payment)).await;
        answer.expect(410, "not_kept", Some("yes"), Some("never"));
        assert_eq!(answer.json()["details"], json!({ "status": "completed" }));
        assert!(answer.receipt().success);
        let id = answer.json()["jobId"].as_str().unwrap().to_owned();
        let collected = gateway.client().send(&shown(&format!("/jobs/{id}"), &payment)).await;
        collected.expect(410, "not_kept", Some("yes"), Some("never"));
        assert_eq!(state(&gateway.client(), &format!("/jobs/{id}")).await, "completed");
    });
    assert_eq!((stage.sales(), seller.payments()), (1, 1));
}

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn another_gateway_says_that_it_is_not_the_one_that_has_it() {
    let server = RedisServer::start(&[]);
    let seller = seller(Framing::Length, LARGE, LARGE, None);
    let stage = setup(&seller, "1MiB").redis(&server.url()).start();
    let (one, other) = (stage.process(), stage.process());
    let (here, there, payer) = (one.client(), other.client(), Payer::new());
    stage.run(async {
        let offered = eventually("a price", async || {
            let answer = here.send(&forth("1")).await;
            (answer.status == 402).then_some(answer)
        })
        .await;
        let payment = payer.pay(&offered.offer(Version::V2));
        let paid = forth("1").paid(&payment);
        let answer = here.send(&paid).await;
        assert_eq!((answer.status, answer.body.len()), (200, LARGE));
        let url = job_url(&answer);
        for request in [paid.clone(), shown(&url, &payment)] {
            // The record of the settlement comes after the answer.
            let elsewhere = eventually("its end", async || {
                let told = there.send(&request).await;
                (told.code() != "settlement_unknown" && told.status != 200).then_some(told)
            })
            .await;
            elsewhere.expect(503, "kept_elsewhere", Some("yes"), Some("same_payment"));
            assert_eq!(elsewhere.json()["details"], json!({ "status": "completed" }));
            assert!(elsewhere.receipt().success && elsewhere.field("retry-after").is_some());
            assert!(here.send(&request).await.body == answer.body);
        }
        assert_eq!(state(&there, &url).await, "completed");
    });
    assert_eq!((stage.sales(), seller.payments()), (1, 1));
}

/// Kept or not, whatever its size.
#[test]
fn memory_stays_flat_while_results_go_through() {
    let length = Arc::new(AtomicUsize::new(1 << 20));
    let chunked = |mib: usize| matches!(mib, 8 | 40);
    let made = Arc::clone(&length);
    let seller = Seller::start(move |seen, _| match seen.payment {
        None => Reply::Json(402, terms(280, PAYEE)),
        Some(_) => {
            let length = made.load(Ordering::SeqCst);
            Reply::Script(Box::new(move |stream| {
                let piece = vec![7; 64 * KIB];
                let (framing, before, after, end) = match chunked(length >> 20) {
                    true => ("transfer-encoding: chunked".to_owned(), "10000\r\n", "\r\n", "0\r\n\r\n"),
                    false => (format!("content-length: {length}"), "", "", ""),
                };
                write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n{framing}\r\n\r\n")?;
                for _ in 0..length / piece.len() {
                    stream.write_all(before.as_bytes())?;
                    stream.write_all(&piece)?;
                    stream.write_all(after.as_bytes())?;
                }
                stream.write_all(end.as_bytes())
            }))
        }
    });
    let stage = setup(&seller, "1GiB").start();
    let gateway = stage.process();
    let (client, payer) = (gateway.client(), Payer::new());
    let growth = stage.run(async {
        let mut growth = 0;
        let mut idle = 0;
        // The first is for everything that is made once; those of 40 and 48 MiB are kept, the last is not.
        for mib in [8, 40, 48, 96] {
            length.store(mib << 20, Ordering::SeqCst);
            let code = mib.to_string();
            let offered = eventually("a price", async || {
                let answer = client.send(&forth(&code)).await;
                (answer.status == 402).then_some(answer)
            })
            .await;
            let paid = forth(&code).paid(&payer.pay(&offered.offer(Version::V2)));
            for again in [false, true] {
                if again && mib == 96 {
                    continue;
                }
                let mut body = client.open(&paid).await.into_body();
                let mut read = 0;
                while let Some(frame) = body.frame().await {
                    let before = read;
                    read += frame.unwrap().into_data().unwrap().len();
                    if mib > 8 && before >> 23 != read >> 23 {
                        growth = growth.max(gateway.resident().saturating_sub(idle));
                    }
                }
                assert_eq!(read, mib << 20);
            }
            if mib == 8 {
                idle = gateway.resident();
            }
        }
        growth
    });
    println!("resident memory grew by {} KiB", growth / 1024);
    // What the allocator holds back for each of the threads that a file is written and read by comes and goes.
    assert!(growth < 32 << 20, "memory grew by {} KiB", growth / 1024);
}

#[test]
fn what_is_asked_of_a_head_is_the_head() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let mut request = Request::get("/large?bytes=1000");
        request.method = Method::HEAD;
        // A challenge to HEAD has no body; its header says it all.
        let offered = client.send(&request).await.offer(Version::V2);
        let paid = request.paid(&payer.pay(&offered));
        let first = client.send(&paid).await;
        assert_eq!((first.status, first.body.len(), first.field("content-length")), (200, 0, Some("1000")));
        assert_eq!(crate::once::same(&client.send(&paid).await), crate::once::same(&first));
    });
}
