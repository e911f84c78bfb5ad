use serde_json::{Value, json};

use super::super::testing::*;
use super::*;
use crate::outgoing::Settings;
use crate::outgoing::stub::{Reply, Stub};
use crate::x402::Network;

fn read(body: &Value) -> Challenge {
    Challenge::from_response(&http::HeaderMap::new(), body.to_string().as_bytes()).unwrap()
}

fn client() -> Outgoing {
    Outgoing::new(Settings { connect_timeout: LATER, allow_plain_http: false }).unwrap()
}

#[tokio::test]
async fn a_paid_call_that_never_left_is_sent_once_more() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Every TLS handshake fails, so no request is ever written.
    let url: Uri = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let (line, purse) = (line(), FakePurse::default());
    let exchange = line.open(LATER);
    let challenge = read(&challenge("1"));
    let paying = exchange.paid(&purse, "step", &challenge, Call::get(url));
    let mut connections = 0;
    let counting = async {
        while let Ok((stream, _)) = listener.accept().await {
            connections += 1;
            drop(stream);
        }
    };
    let error = tokio::select! {
        outcome = paying => outcome.unwrap_err(),
        () = counting => unreachable!("the listener stays open"),
    };
    assert_eq!((error.fault, connections), (Fault::Unreachable, 2));
    assert_eq!(purse.paid().len(), 1, "the same payment both times");
}

#[tokio::test]
async fn a_challenge_in_the_header_comes_before_the_body() {
    let body = json!({"x402Version": 2, "resource": {"url": "https://x"}, "accepts": [
        {"scheme": "exact", "network": "eip155:84532", "amount": "7", "payTo": offer(0).pay_to,
         "asset": asset().address, "maxTimeoutSeconds": 60, "extra": {"name": "USDC", "version": "2"}},
    ]});
    let text = base64_simd::STANDARD.encode_to_string(body.to_string());
    let stub = Stub::start(move |_| {
        let headers = vec![("payment-required", text.clone())];
        Reply::Http(402, headers, challenge("9").to_string().into())
    })
    .await;
    assert_eq!(line().offer(Call::get(stub.url("/"))).await, Ok(offer(7)));
}

#[test]
fn the_best_asset_is_chosen_and_its_cheapest_entry() {
    let base = Asset::default_for(Network(8453)).unwrap();
    let mut body = challenge("5");
    let entry = body["accepts"][0].clone();
    let with = |amount: &str, network: &str, asset: &Asset| {
        let mut entry = entry.clone();
        entry["maxAmountRequired"] = amount.into();
        entry["network"] = network.into();
        entry["extra"]["name"] = asset.name.as_str().into();
        entry["asset"] = asset.address.to_string().into();
        entry
    };
    body["accepts"] = json!([
        with("1", "base", &base),
        with("10", "base-sepolia", &asset()),
        with("8", "base-sepolia", &asset()),
        // The token of one network is a stranger on another.
        with("1", "base-sepolia", &base),
    ]);
    let challenge = read(&body);
    let cost =
        |assets: &[Asset]| Line::new(client(), assets).choose(&challenge).map(|offer| offer.cost.units());
    assert_eq!(cost(&[asset(), base.clone()]), Ok(8));
    assert_eq!(cost(&[base, asset()]), Ok(1));
    assert_eq!(cost(&[]).unwrap_err().fault, Fault::Terms);
}

#[test]
fn ids_cannot_lead_elsewhere() {
    for good in ["a", "96ad0856-03b1-4ee7-9666-e81abd0349e1", "quote_request", &"x".repeat(128)] {
        assert!(is_plain_id(good), "{good}");
    }
    for bad in ["", ".", "..", "a/b", "a?b", "a#b", "a%2fb", "ä", " ", &"x".repeat(129)] {
        assert!(!is_plain_id(bad), "{bad}");
    }
}

#[test]
fn paths_follow_the_base() {
    for base in ["http://h", "http://h/", "http://h:1/v1", "http://h:1/v1/"] {
        let url = at(&base.parse().unwrap(), "/create?x=1").unwrap().to_string();
        assert_eq!(url, format!("{}/create?x=1", base.trim_end_matches('/')));
    }
}

#[tokio::test]
async fn terms_that_never_come_leave_time_for_another() {
    let stub = Stub::start(|_| Reply::Stall(b"HTTP/1.1 402 X\r\n")).await;
    let line = line().with_ask_deadline(SOON);
    let exchange = line.open(LATER);
    let error = exchange.challenge(Call::get(stub.url("/"))).await.unwrap_err();
    assert_eq!(error.fault, Fault::Timeout);
    assert!(exchange.left() > LATER / 2);
}
