//! What ends with time: quotes, prices, payments, and the memory of them. By a clock that a test moves.

use galaksio::clock::Clock;
use galaksio::sandbox::Service;
use galaksio::x402::Version;

use crate::client::Request;
use crate::once::same;
use crate::payer::Payer;
use crate::rig::{Setup, eventually};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 24 * 60 * MINUTE;

fn clock() -> Clock {
    Clock::manual(Clock::system().now_millis())
}

#[test]
fn a_quote_is_good_for_its_time_and_no_longer() {
    let clock = clock();
    let stage = Setup::new().clock(&clock).start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::by(clock.clone()));
    let request = Request::run("print(1)");
    stage.run(async {
        let offered = client.challenge_by(&clock, &request).await;
        stage.sandbox().faults.set_price(Service::Merit, 20_000);
        // Five minutes, and half of one for clocks that differ.
        clock.advance(5 * MINUTE + 20 * SECOND);
        for version in [Version::V1, Version::V2] {
            let answer = client.send(&request.clone().paid(&payer.pay(&offered.offer(version)))).await;
            assert_eq!(answer.status, 200, "{version:?}: {answer:?}");
        }
        // A quote of version 1 is its price. That could be shown until the gateway's own quote ended, which nobody
        // but the client can tell from a price that was shown at its beginning.
        for (version, later, code) in
            [(Version::V2, 20 * SECOND, "quote_expired"), (Version::V1, 8 * MINUTE, "payment_amount")]
        {
            clock.advance(later);
            // So that the new price is known.
            client.challenge_by(&clock, &request).await;
            let before = stage.movements();
            let answer = client.send(&request.clone().paid(&payer.pay(&offered.offer(version)))).await;
            answer.expect(402, code, Some("no"), Some("new_payment"));
            assert_eq!(answer.json()["accepts"][0]["maxAmountRequired"], "672", "{version:?}");
            assert_eq!(stage.movements(), before);
        }
    });
    assert_eq!(stage.balance(payer.address()), 100_000_000 - 2 * 336);
}

#[test]
fn an_answer_outlives_quote_and_payment() {
    let clock = clock();
    let stage = Setup::new().clock(&clock).start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::by(clock.clone()));
    let request = Request::run("print(1)");
    let bought = stage.run(async {
        client.challenge_by(&clock, &request).await;
        let mut bought = Vec::new();
        for version in [Version::V1, Version::V2] {
            let paid = request.clone().paid(&client.sign(&request, &payer, version).await);
            let answer = client.send(&paid).await;
            assert_eq!(answer.status, 200);
            bought.push((paid, answer));
        }
        let unused = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        clock.advance(60 * MINUTE);
        let answer = client.send(&unused).await;
        answer.expect(402, "quote_expired", Some("no"), Some("new_payment"));
        bought
    });
    let again = |gateway: &crate::gateway::Gateway| {
        let client = gateway.client();
        stage.run(async {
            for (paid, answer) in &bought {
                assert_eq!(same(&client.send(paid).await), same(answer));
                let other = Request { body: Request::run("print(2)").body, ..paid.clone() };
                client.send(&other).await.expect(409, "payment_reused", Some("yes"), Some("new_payment"));
            }
        });
    };
    again(&gateway);
    gateway.end();
    let gateway = stage.gateway();
    again(&gateway);
    assert_eq!(stage.sales(), 2);
}

/// What is forgotten cannot be bought by again: it has expired long before.
#[test]
fn a_forgotten_payment_is_an_expired_one() {
    let clock = clock();
    let stage = Setup::new().clock(&clock).start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::by(clock.clone()));
    let request = Request::get("/premium/report");
    let paid = stage.run(async {
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V1).await);
        assert_eq!(client.send(&paid).await.status, 200);
        paid
    });
    clock.advance(2 * DAY);
    gateway.end();
    let gateway = stage.gateway();
    stage.run(async {
        // As soon as it is archived.
        let answer = eventually("it to be forgotten", async || {
            let answer = gateway.client().send(&paid).await;
            (answer.status != 200).then_some(answer)
        });
        answer.await.expect(402, "payment_expired", Some("no"), Some("new_payment"));
    });
    assert_eq!(stage.sales(), 1);
}
