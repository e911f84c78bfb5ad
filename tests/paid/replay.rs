//! A payment that is presented again, later: its first answer, to whom it belongs; and nobody pays twice.

use galaksio::clock::Clock;
use galaksio::sandbox::Service;
use galaksio::x402::Version;
use serde_json::json;

use crate::client::Request;
use crate::once::same;
use crate::payer::Payer;
use crate::rig::{Setup, Stage, eventually};

#[test]
fn a_used_payment_gets_its_first_answer() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let request = Request::run("print(1)");
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            let paid = request.clone().paid(&client.sign(&request, &payer, version).await);
            let first = client.send(&paid).await;
            let before = stage.movements();
            for _ in 0..3 {
                assert_eq!(same(&client.send(&paid).await), same(&first));
            }
            assert_eq!(stage.movements(), before);
        }
    });
}

#[test]
fn another_spelling_of_the_same_request_is_the_same_request() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::json("/run", &json!({ "code": "print(1)", "language": "python" }));
        let payment = client.sign(&request, &payer, Version::V2).await;
        let first = client.send(&request.paid(&payment)).await;
        assert_eq!(first.status, 200);
        let respelled = Request::post(
            "/run",
            "application/json",
            "{ \"language\" : \"Python\",\n\"code\":\"\\u0070rint(1)\" }",
        );
        assert_eq!(same(&client.send(&respelled.paid(&payment)).await), same(&first));
        // Nor does the case of an address make another payment.
        let upper = payment.authorization.from.to_string().to_uppercase().replace("0X", "0x");
        let recased = payment.with("/payload/authorization/from", upper);
        let again = client.send(&Request::run("print(1)").paid(&recased)).await;
        assert_eq!(same(&again), same(&first));
    });
    assert_eq!((stage.sales(), stage.purchases(Service::Merit)), (1, 1));
}

#[test]
fn a_used_payment_buys_nothing_else() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            let request = Request::run("print(1)");
            let payment = client.sign(&request, &payer, version).await;
            assert_eq!(client.send(&request.paid(&payment)).await.status, 200);
            let before = stage.movements();
            let other = client.send(&Request::run("print(2)").paid(&payment)).await;
            other.expect(409, "payment_reused", Some("yes"), Some("new_payment"));
            assert!(!other.is_challenge());
            assert!(!String::from_utf8_lossy(&other.body).contains("print(1)"));
            assert_eq!(stage.movements(), before);
        }
    });
}

/// A settled payment is public on chain: whoever reads it there has no quote id.
#[test]
fn a_payment_read_from_the_chain_shows_no_content() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("print('secret')");
        let payment = client.sign(&request, &payer, Version::V2).await;
        let first = client.send(&request.clone().paid(&payment)).await;
        assert_eq!(first.status, 200);
        let replayed = client.send(&request.clone().paid(&payment.as_v1())).await;
        assert_eq!(replayed.status, 200, "{replayed:?}");
        assert_eq!(replayed.json(), json!({ "jobId": first.json()["jobId"], "status": "completed" }));
        assert_eq!(replayed.receipt().transaction, first.receipt().transaction);

        // Another quote's id is no proof either.
        let other = client.challenge(&request).await.offer(Version::V2);
        let other = payer.pay(&other).document["accepted"].clone();
        let forged = client.send(&request.clone().paid(&payment.with("/accepted", other))).await;
        assert_eq!(forged.json()["result"], serde_json::Value::Null, "{forged:?}");

        // By version 1, a request without a body has nothing secret in it.
        let report = Request::get("/premium/report");
        let payment = client.sign(&report, &payer, Version::V1).await;
        let first = client.send(&report.clone().paid(&payment)).await;
        assert_eq!(first.json()["title"], "Monthly report");
        let again = client.send(&report.paid(&payment)).await;
        assert_eq!(again.json()["status"], "completed");
        assert_eq!(again.json().get("title"), None);
        assert_eq!(again.receipt().transaction, first.receipt().transaction);
    });
    assert_eq!(stage.sales(), 2);
}

#[test]
fn the_answer_outlives_the_gateway_and_its_quotes() {
    let mut stage = Setup::new().start();
    let gateway = stage.gateway();
    let payer = Payer::new();
    let request = Request::run("print(1)");
    let bought: Vec<_> = [Version::V1, Version::V2]
        .into_iter()
        .map(|version| {
            stage.run(async {
                let payment = gateway.client().sign(&request, &payer, version).await;
                let paid = request.clone().paid(&payment);
                let answer = gateway.client().send(&paid).await;
                assert_eq!(answer.status, 200);
                (paid, answer)
            })
        })
        .collect();
    let unused =
        [Version::V1, Version::V2].map(|version| stage.run(gateway.client().sign(&request, &payer, version)));
    gateway.end();
    let before = stage.movements();

    let gateway = stage.gateway();
    stage.run(async {
        for (paid, answer) in &bought {
            assert_eq!(same(&gateway.client().send(paid).await), same(answer));
        }
        assert_eq!(stage.movements(), before);
        // What was shown before is still good.
        for payment in unused {
            let answer = gateway.client().send(&request.clone().paid(&payment)).await;
            assert_eq!(answer.status, 200, "{:?}: {answer:?}", payment.version);
        }
    });
    gateway.end();
    let before = stage.movements();

    // A gateway that would not take such a payment any more still knows that it did.
    stage.change("pricing", "markup", "50%");
    let gateway = stage.gateway();
    stage.run(async {
        for (paid, answer) in &bought {
            assert_eq!(same(&gateway.client().send(paid).await), same(answer));
        }
        assert_eq!(
            gateway.client().challenge(&request).await.json()["accepts"][0]["maxAmountRequired"],
            "420"
        );
    });
    assert_eq!(stage.movements(), before);
}

/// Payments are taken that last for eight seconds yet.
fn hurried(clock: &Clock) -> Stage {
    let setup = Setup::new().text("paid", "work_timeout", "5s").text("paid", "settle_margin", "3s");
    setup.clock(clock).start()
}

#[test]
fn the_answer_outlives_the_payment() {
    // Signed for nine seconds.
    let clock = Clock::manual(Clock::system().now_millis());
    let stage = hurried(&clock);
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::by(clock.clone()));
    let request = Request::run("print(1)");
    stage.run(async {
        let offers = client.challenge_by(&clock, &request).await;
        let until = clock.now() + 9;
        let sign = |version| {
            payer.pay_as(&offers.offer(version), |authorization| authorization.valid_before = until)
        };
        let bought = [Version::V1, Version::V2].map(|version| request.clone().paid(&sign(version)));
        let unused = request.clone().paid(&sign(Version::V2));
        let mut answers = Vec::new();
        for paid in &bought {
            answers.push(client.send(paid).await);
            assert_eq!(answers.last().unwrap().status, 200, "{answers:?}");
        }
        clock.advance(2_000);
        let refused = client.send(&unused).await;
        refused.expect(402, "payment_expired", Some("no"), Some("new_payment"));
        for (paid, answer) in bought.iter().zip(&answers) {
            assert_eq!(same(&client.send(paid).await), same(answer));
        }
    });
    assert_eq!(stage.sales(), 2);
}

#[test]
fn the_answer_outlives_the_token() {
    let mut stage = Setup::new().start();
    let gateway = stage.gateway();
    let (request, payer) = (Request::get("/premium/report"), Payer::new());
    let sign = || stage.run(gateway.client().sign(&request, &payer, Version::V2));
    let (paid, unused) = (request.clone().paid(&sign()), request.clone().paid(&sign()));
    let answer = stage.run(gateway.client().send(&paid));
    assert_eq!(answer.status, 200);
    gateway.end();

    stage.change_token(
        "asset = \"0x1111111111111111111111111111111111111111\"\nname = \"Other\"\nversion = \"1\"\ndecimals = 6\nusd_pegged = true\n",
    );
    let gateway = stage.cold_gateway();
    let client = gateway.client();
    stage.run(async {
        assert_eq!(same(&client.send(&paid).await), same(&answer));
        client.send(&unused).await.expect(402, "payment_asset", Some("no"), Some("new_payment"));
    });
    assert_eq!(stage.sales(), 1);
}

/// Only the chain can tell whether a smart wallet has signed. What became of its payment is on record all the same.
#[test]
fn a_smart_wallets_payment_is_known_too_after_its_time() {
    let clock = Clock::manual(Clock::system().now_millis());
    let stage = hurried(&clock);
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::by(clock.clone()));
    let request = Request::run("print(1)");
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            let offers = client.challenge_by(&clock, &request).await;
            let until = clock.now() + 9;
            let payment = payer.pay_as(&offers.offer(version), |it| it.valid_before = until);
            let paid =
                request.clone().paid(&payment.with("/payload/signature", format!("0x{}", "5a".repeat(96))));
            // The sandbox has no smart wallets.
            let answer = client.send(&paid).await;
            answer.expect(402, "payment_rejected", Some("no"), Some("new_payment"));
            clock.advance(2_000);
            let again = client.send(&paid).await;
            assert_eq!(again.json()["details"], answer.json()["details"], "{again:?}");
            again.expect(402, "payment_rejected", Some("no"), Some("new_payment"));
        }
    });
    gateway.end();
    assert_eq!(stage.jobs().into_iter().collect::<Vec<_>>(), [("voided", 2)]);
}

#[test]
fn an_old_price_is_honoured() {
    let stage =
        Setup::new().text("pricing", "quote_ttl", "4s").text("pricing", "refresh_before", "3s").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let request = Request::run("print(1)");
    stage.run(async {
        let payments = [
            client.sign(&request, &payer, Version::V1).await,
            client.sign(&request, &payer, Version::V2).await,
        ];
        stage.sandbox().faults.set_price(Service::Merit, 20_000);
        let price = eventually("the new price", async || {
            let price = client.challenge(&request).await.json()["accepts"][0]["maxAmountRequired"].clone();
            (price != "336").then_some(price)
        });
        assert_eq!(price.await, "672");
        for payment in payments {
            let answer = client.send(&request.clone().paid(&payment)).await;
            assert_eq!(answer.status, 200, "{:?}: {answer:?}", payment.version);
        }
    });
    assert_eq!(stage.balance(payer.address()), 100_000_000 - 2 * 336);
}
