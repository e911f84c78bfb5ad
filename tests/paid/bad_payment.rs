//! Payments that are wrong: refused with a code and a fresh challenge, unclaimed, uncharged, and nobody is asked.

use galaksio::clock::Clock;
use galaksio::sandbox::Service;
use galaksio::x402::{Address, Authorization, Challenge, Version};
use serde_json::{Value, json};

use crate::client::{Client, HOST, Request, encode};
use crate::payer::{Payer, Payment};
use crate::rig::{Setup, Stage};

const STRANGER: Address = Address::repeat_byte(0x77);

/// A payment, and the code it is refused with.
type Case = (&'static str, Payment, &'static str);

#[test]
fn refused_with_a_fresh_challenge() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let client = gateway.client();
    let payer = Payer::new();
    let request = Request::run("print(1)");
    stage.run(async {
        let (v1, v2) = both(&client, &request).await;
        let elsewhere = client.challenge(&Request::get("/premium/report")).await;
        let mut cases = signed(&payer, &v1, &v2);
        cases.extend(spoiled(&payer, &v1, &v2));
        cases.push(("another route's, v1", payer.pay(&elsewhere.offer(Version::V1)), "payment_amount"));
        cases.push(("another route's, v2", payer.pay(&elsewhere.offer(Version::V2)), "quote_invalid"));
        refused(&stage, &client, &request, cases).await;
    });
    gateway.end();
    assert!(stage.jobs().is_empty(), "{:?}", stage.jobs());
}

/// Truly signed, by the payer: but not what was asked for.
fn signed(payer: &Payer, v1: &Challenge, v2: &Challenge) -> Vec<Case> {
    let now = Clock::system().now();
    let mut cases = Vec::new();
    for challenge in [v1, v2] {
        let mut case = |name, code, change: &dyn Fn(&mut Authorization)| {
            cases.push((name, payer.pay_as(challenge, |authorization| change(authorization)), code));
        };
        case("one unit less", "payment_amount", &|a| a.value = amount(335));
        case("one unit more", "payment_amount", &|a| a.value = amount(337));
        case("nothing", "payment_amount", &|a| a.value = amount(0));
        case("to a stranger", "payment_payee", &|a| a.to = STRANGER);
        case("expired", "payment_expired", &|a| a.valid_before = now - 1);
        case("expires before it is done", "payment_expired", &|a| a.valid_before = now + 30);
        case("for the future", "payment_not_yet_valid", &|a| a.valid_after = now + 60);
        case("for ever", "payment_window_too_long", &|a| a.valid_before = now + 86_400);
    }
    cases
}

/// Changed after it was signed.
fn spoiled(payer: &Payer, v1: &Challenge, v2: &Challenge) -> Vec<Case> {
    let mut cases = Vec::new();
    for challenge in [v1, v2] {
        let good = payer.pay(challenge);
        let spoil = |pointer: &str, value: Value| good.with(pointer, value);
        let signature = good.document["payload"]["signature"].as_str().unwrap();
        let flipped = flip(signature, 10);
        let other = Payer::new().pay(challenge).document["payload"]["signature"].clone();
        let nonce = good.document["payload"]["authorization"]["nonce"].as_str().unwrap();
        cases.extend([
            ("a flipped signature", spoil("/payload/signature", flipped.into()), "payment_signature"),
            ("somebody else's", spoil("/payload/signature", other), "payment_signature"),
            ("no signature", spoil("/payload/signature", "0x".into()), "payment_signature"),
            (
                "a changed nonce",
                spoil("/payload/authorization/nonce", flip(nonce, 30).into()),
                "payment_signature",
            ),
            (
                "another payer",
                spoil("/payload/authorization/from", STRANGER.to_string().into()),
                "payment_signature",
            ),
            ("a number for a text", spoil("/payload/authorization/value", 336.into()), "payment_malformed"),
            ("version 3", spoil("/x402Version", 3.into()), "payment_version"),
            (
                "another way to pay",
                {
                    let mut payment = good.clone();
                    payment.document["payload"]["permit2Authorization"] = json!({});
                    payment
                },
                "payment_scheme",
            ),
        ]);
    }
    let good = payer.pay(v1);
    cases.extend([
        ("another scheme", good.with("/scheme", "upto"), "payment_scheme"),
        ("another network", good.with("/network", "base"), "payment_network"),
        ("an unknown network", good.with("/network", "solana"), "payment_network"),
        ("version 2 in the wrong header", good.with("/x402Version", 2), "payment_version"),
    ]);
    let good = payer.pay(v2);
    let token = good.document["accepted"]["extra"]["quoteId"].as_str().unwrap().to_owned();
    let ends = [0, token.len() / 2, token.len() - 2];
    for at in ends {
        let payment = good.with("/accepted/extra/quoteId", flip(&token, at));
        cases.push(("a flipped quote", payment, "quote_invalid"));
    }
    cases.extend([
        ("another amount accepted", good.with("/accepted/amount", "1"), "quote_invalid"),
        ("another time accepted", good.with("/accepted/maxTimeoutSeconds", 60), "quote_invalid"),
        ("another payee accepted", good.with("/accepted/payTo", STRANGER.to_string()), "payment_payee"),
        ("another token accepted", good.with("/accepted/asset", STRANGER.to_string()), "payment_asset"),
        ("another network accepted", good.with("/accepted/network", "eip155:8453"), "payment_network"),
        ("another scheme accepted", good.with("/accepted/scheme", "upto"), "payment_scheme"),
        (
            "no quote",
            good.with("/accepted/extra", json!({ "name": "USDC", "version": "2" })),
            "quote_invalid",
        ),
        ("no requirement", good.with("/accepted", Value::Null), "payment_malformed"),
    ]);
    cases
}

async fn refused(stage: &Stage, client: &Client, request: &Request, cases: Vec<Case>) {
    let before = stage.movements();
    for (name, payment, code) in cases {
        let answer = client.send(&request.clone().paid(&payment)).await;
        let name = format!("{name}, {:?}", payment.version);
        assert_eq!((answer.status, answer.code().as_str()), (402, code), "{name}: {answer:?}");
        answer.expect(402, code, Some("no"), Some("new_payment"));
        // What comes with it can be paid.
        assert_eq!(answer.offer(Version::V1).accepts.len(), 1, "{name}");
        assert_eq!(answer.offer(Version::V2).accepts.len(), 1, "{name}");
    }
    assert_eq!(stage.movements(), before, "money moved");
    // Junk never leaves the house.
    assert_eq!(stage.sandbox().requests.count(Service::Facilitator, "/verify"), 0);
    assert_eq!(stage.sandbox().requests.count(Service::Facilitator, "/settle"), 0);
}

#[test]
fn headers_that_are_no_payment() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let client = gateway.client();
    let good = stage.run(client.sign(&Request::run("1"), &Payer::new(), Version::V2));
    let nested = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let garbage = [
        "".to_owned(),
        "garbage".to_owned(),
        "e30".to_owned(),
        "////".to_owned(),
        encode(&json!({})),
        encode(&json!([])),
        encode(&json!(null)),
        base64_simd::STANDARD.encode_to_string(nested),
        base64_simd::STANDARD.encode_to_string([0xff, 0xfe]),
        base64_simd::STANDARD.encode_to_string(format!("{}{{", good.document)),
        base64_simd::STANDARD
            .encode_to_string(good.document.to_string().replace("\"payload\"", "\"payload\":{},\"payload\"")),
        base64_simd::URL_SAFE_NO_PAD.encode_to_string(good.document.to_string()),
    ];
    stage.run(async {
        for text in garbage {
            for name in ["payment-signature", "x-payment", "x402-payment"] {
                let answer = client.send(&Request::run("1").header(name, &text)).await;
                answer.expect(402, "payment_malformed", Some("no"), Some("new_payment"));
                assert!(answer.is_challenge(), "{name}: {text}");
            }
        }
    });
    assert_eq!(stage.sandbox().requests.count(Service::Facilitator, "/verify"), 0);
}

#[test]
fn a_repeated_payment_header_is_never_a_guess() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let request = Request::run("1");
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            let payment = client.sign(&request, &payer, version).await;
            let twice = request.clone().paid(&payment).paid(&payment);
            let answer = client.send(&twice).await;
            answer.expect(400, "repeated_payment_header", Some("no"), Some("never"));
            // None of them was used up.
            assert_eq!(client.send(&request.clone().paid(&payment)).await.status, 200);
        }
        let payment = client.sign(&request, &payer, Version::V1).await;
        let (_, value) = payment.header();
        let both = request.clone().paid(&payment).header("x402-payment", &value);
        client.send(&both).await.expect(400, "repeated_payment_header", Some("no"), Some("never"));
        // Its alias alone is as good as the header.
        let alias = request.clone().header("x402-payment", &value);
        assert_eq!(client.send(&alias).await.status, 200);
    });
    assert_eq!(stage.sales(), 3);
}

#[test]
fn a_quote_buys_no_more_than_it_was_made_for() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let store =
        |bytes: usize, query: &str| Request::post(&format!("/store{query}"), "image/png", vec![7; bytes]);
    stage.run(async {
        let small = client.sign(&store(100, ""), &payer, Version::V2).await;
        let before = stage.movements();
        for other in [
            store((1 << 20) + 1, ""),
            store(100, "?permanent=true"),
            store(100, "?ttl=31536000"),
            Request::json("/store", &json!({ "data": { "a": 1 }, "options": { "permanent": true } })),
        ] {
            // So that its price is known.
            client.challenge(&other).await;
            let answer = client.send(&other.clone().paid(&small)).await;
            if answer.status == 200 {
                // The same price by the same provider: the same quote.
                panic!("{} was sold by another quote: {answer:?}", other.path);
            }
            answer.expect(402, "quote_invalid", Some("no"), Some("new_payment"));
        }
        assert_eq!(stage.movements(), before);
        // In its own class of size it is good.
        assert_eq!(client.send(&store(90_000, "").paid(&small)).await.status, 200);
    });
}

#[test]
fn the_size_is_held_to_what_was_declared() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let client = gateway.client();
    let request = Request::post("/store?size=5", "image/png", "sixsix");
    stage.run(async {
        client.send(&request).await.expect(400, "invalid_field", None, None);
    });
    assert_eq!(stage.sales(), 0, "{HOST}");
}

fn amount(units: u128) -> galaksio::money::Amount {
    galaksio::money::Amount::new(units)
}

/// The same text with the character at `at` changed to another that may stand there.
fn flip(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
    String::from_utf8(bytes).unwrap()
}

async fn both(client: &Client, request: &Request) -> (Challenge, Challenge) {
    let answer = client.challenge(request).await;
    (answer.offer(Version::V1), answer.offer(Version::V2))
}
