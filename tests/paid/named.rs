//! Requests that clients name: signed for twice, paid for once. Over sockets, on both stores.

use futures_util::future::join_all;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;
use serde_json::json;

use crate::client::{Answer, Client, Request};
use crate::once::same;
use crate::payer::{Payer, Payment};
use crate::redis_server::RedisServer;
use crate::rig::{Setup, Stage, eventually};

const ID: &str = "pay_7d5d747be160e280504c099d984bcfe0";

/// With the identifier a client adds, in the extension as it was advertised.
fn identified(payment: &Payment, id: &str) -> Payment {
    let mut payment = payment.clone();
    payment.document["extensions"]["payment-identifier"]["info"]["id"] = id.into();
    payment
}

/// A payment by version 2 of a challenge of its own.
async fn pay(client: &Client, request: &Request, payer: &Payer) -> Payment {
    client.sign(request, payer, Version::V2).await
}

async fn buy(client: &Client, request: &Request, payer: &Payer, id: &str) -> Answer {
    let payment = identified(&pay(client, request, payer).await, id);
    client.send(&request.clone().paid(&payment)).await
}

#[test]
fn a_payment_is_named_by_its_extension() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    by_extension(&stage, &[gateway.client()]);
}

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn a_payment_is_named_by_its_extension_across_two_processes_on_one_redis() {
    let server = RedisServer::start(&[]);
    let stage = Setup::new().redis(&server.url()).start();
    let (one, other) = (stage.process(), stage.process());
    by_extension(&stage, &[one.client(), other.client()]);
}

fn by_extension(stage: &Stage, clients: &[Client]) {
    let (one, other) = (&clients[0], &clients[clients.len() - 1]);
    let payer = Payer::new();
    stage.run(async {
        let request = Request::run("print(1)");
        let challenge = one.challenge(&request).await;
        let advertised = crate::client::decode(&challenge.headers["payment-required"]);
        assert_eq!(advertised["extensions"]["payment-identifier"]["info"], json!({ "required": false }));

        // The same payment: the same answer, as without a name.
        let payment = identified(&payer.pay(&challenge.offer(Version::V2)), ID);
        let paid = request.clone().paid(&payment);
        let first = one.send(&paid).await;
        assert_eq!(first.status, 200, "{first:?}");
        assert_eq!(same(&other.send(&paid).await), same(&first));
        let after = (stage.sales(), stage.purchases(Service::Merit), stage.balance(payer.address()));

        // Signed anew, by the same quote: the same answer, and the new payment is not taken.
        let again = identified(&payer.pay(&challenge.offer(Version::V2)), ID);
        let answer = other.send(&request.clone().paid(&again)).await;
        assert_eq!(same(&answer), same(&first));
        // By a quote of its own: the state and the first payment's receipt.
        let answer = buy(other, &request, &payer, ID).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json(), json!({ "jobId": first.json()["jobId"], "status": "completed" }));
        assert_eq!(answer.receipt().transaction, first.receipt().transaction);
        // For something else: refused, and not taken either.
        let answer = buy(one, &Request::run("print(2)"), &payer, ID).await;
        answer.expect(409, "identifier_reused", Some("no"), Some("never"));
        assert!(!answer.is_challenge());
        assert_eq!((stage.sales(), stage.purchases(Service::Merit), stage.balance(payer.address())), after);

        // Somebody else's name, and the name on another route, are other names.
        let report = Request::get("/premium/report");
        assert_eq!(buy(other, &report, &payer, ID).await.status, 200);
        let stranger = Payer::new();
        let theirs = buy(one, &request, &stranger, ID).await;
        assert_eq!(theirs.status, 200, "{theirs:?}");
        assert_ne!(theirs.json()["jobId"], first.json()["jobId"]);
        assert_eq!(stage.sales(), after.0 + 2);

        // Ten payments at once for one thing.
        let request = Request::run("print(10)");
        let payments = join_all((0..10).map(|i| {
            let (client, request, payer) = (clients[i % clients.len()].clone(), request.clone(), &payer);
            async move { identified(&pay(&client, &request, payer).await, "order-0000000000010") }
        }));
        let payments = payments.await;
        let before = (stage.sales(), stage.purchases(Service::Merit));
        let answers = join_all(payments.iter().enumerate().map(|(i, payment)| {
            let (client, paid) = (clients[i % clients.len()].clone(), request.clone().paid(payment));
            async move { client.send(&paid).await }
        }))
        .await;
        let whole = answers.iter().filter(|answer| answer.json()["result"]["stdout"].is_string()).count();
        assert_eq!(whole, 1, "the others have other quotes: {answers:?}");
        for answer in &answers {
            assert_eq!((answer.status, &answer.json()["jobId"]), (200, &answers[0].json()["jobId"]));
        }
        assert_eq!((stage.sales(), stage.purchases(Service::Merit)), (before.0 + 1, before.1 + 1));
    });
}

#[test]
fn a_request_is_named_by_its_header() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            let key = format!("order {version:?}");
            let request = Request::run("print(1)").header("idempotency-key", &key);
            let first = client.buy(&request, &payer, version).await;
            assert_eq!(first.status, 200, "{first:?}");
            let sales = stage.sales();
            let again = client.buy(&request, &payer, version).await;
            assert_eq!((again.status, &again.json()["jobId"]), (200, &first.json()["jobId"]), "{again:?}");
            assert_eq!(again.receipt().transaction, first.receipt().transaction);
            // By version 1 the content is the proof; by version 2 it is the quote, which this one has not.
            assert_eq!(again.json()["result"].is_object(), version == Version::V1);
            let other = Request::run("print(2)").header("idempotency-key", &key);
            let other = client.buy(&other, &payer, version).await;
            other.expect(409, "identifier_reused", Some("no"), Some("never"));
            assert_eq!(stage.sales(), sales);
        }
    });
}

#[test]
fn what_is_no_name_is_refused_before_it_costs_anything() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("print(1)");
        for bad in [json!("too-short"), json!("x".repeat(129)), json!("pay 0123456789abcdef"), json!(7)] {
            let mut payment = pay(&client, &request, &payer).await;
            payment.document["extensions"]["payment-identifier"]["info"]["id"] = bad.clone();
            let answer = client.send(&request.clone().paid(&payment)).await;
            answer.expect(400, "identifier_invalid", Some("no"), Some("never"));
            assert!(!answer.is_challenge(), "{bad}");
        }
        let payment = pay(&client, &request, &payer).await;
        let twice = request.clone().header("idempotency-key", "a").header("idempotency-key", "a");
        for bad in [
            request.clone().header("idempotency-key", &"x".repeat(256)),
            request.clone().header("idempotency-key", ""),
            twice,
        ] {
            client.send(&bad.clone().paid(&payment)).await.expect(
                400,
                "identifier_invalid",
                Some("no"),
                Some("never"),
            );
            assert_eq!(client.send(&bad).await.code(), "identifier_invalid");
        }
        // Nothing of it was used up.
        assert_eq!(client.send(&request.paid(&payment)).await.status, 200);
    });
    assert_eq!(stage.sales(), 1);
}

/// Whoever has no signature of the payer learns nothing by a name.
#[test]
fn a_name_is_looked_up_after_the_signature() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("print(1)");
        let first = buy(&client, &request, &payer, ID).await;
        assert_eq!(first.status, 200);
        let forged = identified(&pay(&client, &request, &Payer::new()).await, ID)
            .with("/payload/authorization/from", payer.address().to_string());
        for request in [Request::run("print(1)"), Request::run("print(2)")] {
            let answer = client.send(&request.paid(&forged)).await;
            answer.expect(402, "payment_signature", Some("no"), Some("new_payment"));
            assert!(!String::from_utf8_lossy(&answer.body).contains(first.json()["jobId"].as_str().unwrap()));
        }
    });
    assert_eq!(stage.sales(), 1);
}

#[test]
fn a_named_request_waits_for_the_one_in_flight_and_takes_over_from_one_that_failed() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let faults = &stage.sandbox().faults;
    stage.run(async {
        let request = Request::run("print(1)");
        let challenge = client.challenge(&request).await;
        let sign = || identified(&payer.pay(&challenge.offer(Version::V2)), ID);
        let (one, other) = (request.clone().paid(&sign()), request.clone().paid(&sign()));
        let slow = std::time::Duration::from_millis(700);
        faults.add(Service::Facilitator, Rule::next(1, Fault::Slow(slow)).at("/verify"));
        let running = tokio::spawn({
            let (client, one) = (client.clone(), one.clone());
            async move { client.send(&one).await }
        });
        eventually("the first is verified", async || {
            (stage.sandbox().requests.count(Service::Facilitator, "/verify") > 0).then_some(())
        })
        .await;
        let second = client.send(&other).await;
        assert_eq!(same(&second), same(&running.await.unwrap()));

        // One that was not verified bought nothing: the next payment by its name does.
        let request = Request::run("print(3)");
        let id = "order-0000000000003";
        faults.add(Service::Facilitator, Rule::next(1, Fault::Status(500)).at("/verify"));
        let away = buy(&client, &request, &payer, id).await;
        away.expect(503, "facilitator_away", Some("no"), Some("same_payment"));
        assert_eq!(buy(&client, &request, &payer, id).await.status, 200);
    });
    assert_eq!((stage.sales(), stage.purchases(Service::Merit)), (2, 2));
}

/// An unpaid request by the key of a job nobody knows the outcome of is not told to pay; nor does a new payment by it buy.
#[test]
fn a_key_of_an_unresolved_job_is_never_answered_with_a_price() {
    let stage = Setup::new().text("facilitator", "unknown_hold", "1s").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let faults = &stage.sandbox().faults;
    stage.run(async {
        let request = Request::run("print(1)").header("idempotency-key", "order-7");
        let payments = [pay(&client, &request, &payer).await, pay(&client, &request, &payer).await];
        faults.add(Service::Facilitator, Rule::always(Fault::Drop).at("/settle"));
        let answer = client.send(&request.clone().paid(&payments[0])).await;
        answer.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
        let unpaid = client.send(&request).await;
        unpaid.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
        assert!(!unpaid.is_challenge());
        faults.clear(Service::Facilitator);
        // A new payment by the key has the first one settled, and is not taken itself. As long as somebody else settles it,
        // nobody knows.
        let answer = eventually("an answer that knows", async || {
            let answer = client.send(&request.clone().paid(&payments[1])).await;
            (answer.code() != "settlement_unknown").then_some(answer)
        });
        assert_eq!(answer.await.status, 200);
        assert_eq!(client.send(&request).await.status, 402, "it is resolved");
    });
    assert_eq!((stage.sales(), stage.purchases(Service::Merit)), (1, 1));
}
