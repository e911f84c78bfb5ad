use proptest::prelude::*;
use serde_json::json;

use super::super::testing;
use super::*;
use crate::config::resolved::Accept;
use crate::intake::Kind;
use crate::money::Amount;
use crate::quote_cache::Dollars;
use crate::quote_cache::key::Work;
use crate::quote_cache::token::Token;
use crate::reason::Reason;
use crate::x402::{Address, Asset, Network};

const NOW: UnixMillis = 1_800_000_000_000;
const EXPIRES_AT: UnixSeconds = 1_800_000_300;

fn price(network: u64, asset: u8, amount: u128) -> Price {
    let asset = Asset {
        network: Network(network),
        address: Address::repeat_byte(asset),
        name: "USD \"Coin\" ₮".to_owned(),
        version: "2".to_owned(),
        decimals: 6,
    };
    Price { accept: Accept { asset, pay_to: Address::repeat_byte(0xcd) }, amount: Amount::new(amount) }
}

fn terms(provider: &str) -> Terms {
    Terms {
        provider: provider.to_owned(),
        operation: "set".to_owned(),
        cost: Dollars { units: Amount::new(280), decimals: 6 },
        bound: 1_000_000,
    }
}

fn key() -> QuoteKey<'static> {
    QuoteKey {
        work: Work::Store { permanent: false, ttl: false },
        kind: Kind::File,
        bucket: 1_000_000,
        files: 1,
    }
}

fn listing<'a>(terms: &'a Terms, key: Option<&'a QuoteKey<'a>>, prices: &'a [Price]) -> Listing<'a> {
    Listing {
        terms,
        key,
        prices,
        max_timeout_seconds: 300,
        charging: PaymentFlow::Authorization.into(),
        description: "Keeps \"it\"",
        mime_type: "application/json",
    }
}

fn decoded(header: &[u8]) -> Value {
    let json = base64_simd::STANDARD.decode_to_vec(header).unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[test]
fn every_402_fits_its_slot() {
    for reason in Reason::ALL.iter().filter(|reason| reason.status() == 402) {
        let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
        let text = reason.text();
        assert!(text.len() <= MAX_ERROR && text.bytes().all(plain), "{}", reason.code());
    }
}

#[test]
fn first_challenge_has_both_versions_and_the_fields_of_the_api() {
    let (terms, key, prices) = (terms("xcache"), key(), [testing::price(10_000)]);
    let template = Template::new(&listing(&terms, Some(&key), &prices)).unwrap();
    let (keys, job) = (Keys::of([1; 32]), JobId::new());
    let url = ResourceUrl::new("https", "api.example.com", "/store");
    let fill = Fill {
        problem: &Problem::new(Reason::PaymentRequired),
        url: &url,
        method: &Method::POST,
        path: "/store",
        job,
        size: 1234,
        expires: EXPIRES_AT,
        now: NOW,
    };
    let encoded = template.encode(&keys, &fill);
    let header = decoded(&encoded.header);
    let token = header["accepts"][0]["extra"]["quoteId"].as_str().unwrap();
    let asset = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
    let pay_to = testing::accept().pay_to.to_string();
    assert_eq!(
        header,
        json!({
            "x402Version": 2,
            "error": "Payment required",
            "resource": {
                "url": "https://api.example.com/store",
                "description": "Keeps \"it\"",
                "mimeType": "application/json"
            },
            "accepts": [{
                "scheme": "exact", "network": "eip155:84532", "amount": "10000", "asset": asset,
                "payTo": pay_to, "maxTimeoutSeconds": 300,
                "extra": {
                    "name": "USDC", "version": "2", "quoteId": token, "quoteExpires": EXPIRES_AT
                }
            }],
            "extensions": { "payment-identifier": {
                "info": { "required": false },
                "schema": {
                    "$schema": "https://json-schema.org/draft/2020-12/schema",
                    "type": "object",
                    "properties": {
                        "required": { "type": "boolean" },
                        "id": {
                            "type": "string", "minLength": 16, "maxLength": 128,
                            "pattern": "^[a-zA-Z0-9_-]+$"
                        }
                    },
                    "required": ["required"]
                }
            } }
        })
    );
    let body: Value = serde_json::from_slice(&encoded.body).unwrap();
    assert_eq!(
        body,
        json!({
            "x402Version": 1,
            "error": "Payment required",
            "code": "payment_required",
            "jobId": job.to_string(),
            "provider": "xcache",
            "price_usd": 0.01,
            "file_size_bytes": 1234,
            "quoteExpires": EXPIRES_AT,
            "accepts": [{
                "scheme": "exact", "network": "base-sepolia", "maxAmountRequired": "10000",
                "resource": "https://api.example.com/store", "description": "Keeps \"it\"",
                "mimeType": "application/json", "payTo": pay_to, "maxTimeoutSeconds": 300,
                "asset": asset, "extra": { "name": "USDC", "version": "2" }
            }],
            "payment": { "accepts": [{
                "scheme": "exact", "network": "base-sepolia", "payTo": pay_to, "asset": asset,
                "maxAmountRequired": "10000"
            }] }
        })
    );
    let counted = template.header_len("Payment required".len(), url.as_str().len());
    assert_eq!(counted, encoded.header.len(), "the header's buffer was sized wrong");
    let target = Target { method: &Method::POST, path: "/store" };
    let read = Token::verify(token, &keys, Some(&key), &testing::money(10_000), target, NOW).unwrap();
    assert_eq!(read, Token { terms, job, expires: EXPIRES_AT });
}

#[test]
fn legacy_clients_see_only_networks_they_know_and_one_token_of_each() {
    let prices = [price(1, 1, 5), price(8453, 2, 5), price(8453, 3, 5), price(84_532, 4, 5)];
    let terms = terms("xcache");
    let template = Template::new(&listing(&terms, None, &prices)).unwrap();
    let url = ResourceUrl::new("https", "h", "/");
    let fill = Fill {
        problem: &Problem::new(Reason::PaymentAmount).charged(Charged::No).message("a \"b\"\n"),
        url: &url,
        method: &Method::GET,
        path: "/",
        job: JobId::new(),
        size: 0,
        expires: EXPIRES_AT,
        now: NOW,
    };
    let encoded = template.encode(&Keys::of([1; 32]), &fill);
    let body: Value = serde_json::from_slice(&encoded.body).unwrap();
    let entries = body["accepts"].as_array().unwrap();
    let entries: Vec<_> = entries.iter().map(|entry| (&entry["network"], &entry["asset"])).collect();
    assert_eq!(
        entries,
        [
            (&json!("base"), &json!(Address::repeat_byte(2).to_string())),
            (&json!("base-sepolia"), &json!(Address::repeat_byte(4).to_string())),
        ]
    );
    assert_eq!(body["error"], "a \"b\"\n");
    assert_eq!((&body["charged"], &body["retry"]), (&json!("no"), &json!("new_payment")));
    assert!(body.get("file_size_bytes").is_none());
    assert_eq!(decoded(&encoded.header)["accepts"].as_array().unwrap().len(), 4);
}

#[test]
fn a_challenge_that_would_not_reach_every_client_is_refused() {
    let prices: Vec<Price> = (0..30).map(|n| price(8453 + n, 1, 5)).collect();
    let terms = terms("xcache");
    let error = Template::new(&listing(&terms, None, &prices)).unwrap_err();
    assert!(matches!(error, TemplateError::TooLong(len) if len > MAX_HEADER));
    let long = Terms { operation: "x".repeat(256), ..terms };
    assert_eq!(Template::new(&listing(&long, None, &prices)).unwrap_err(), TemplateError::Name);
}

proptest! {
    /// Whatever the lengths, what comes out is base64 of JSON with the values that went in.
    #[test]
    fn slots_are_aligned_for_every_length(
        provider in "[a-z]{0,9}",
        description in ".{0,12}",
        host in "[a-z]{1,9}",
        path in "/[a-z]{0,9}",
        amounts in proptest::collection::vec(1u128..1 << 90, 1..4),
        expires in 1u64..1_000_000_000_000,
        size: u64,
        reason in proptest::sample::select(Reason::ALL.to_vec()),
        upfront: bool,
        limit in proptest::option::of(1u128..1 << 90),
    ) {
        prop_assume!(reason.status() == 402);
        let terms = terms(&provider);
        let prices: Vec<Price> =
            amounts.iter().enumerate().map(|(at, amount)| price(8453 + at as u64, 7, *amount)).collect();
        let (key, job, keys) = (key(), JobId::new(), Keys::of([1; 32]));
        let flow = if upfront { PaymentFlow::Upfront } else { PaymentFlow::Authorization };
        let upfront_above = limit.map(|limit| Dollars { units: Amount::new(limit), decimals: 6 });
        let charging = Charging { flow, upfront_above };
        let listing = Listing { description: &description, charging, ..listing(&terms, Some(&key), &prices) };
        let template = Template::new(&listing).unwrap();
        let url = ResourceUrl::new("https", &host, &path);
        let problem = Problem::new(reason);
        let fill = Fill {
            problem: &problem, url: &url, method: &Method::POST, path: &path, job, size, expires, now: NOW,
        };
        let encoded = template.encode(&keys, &fill);
        prop_assert!(encoded.header.len() <= MAX_HEADER);
        prop_assert_eq!(template.header_len(reason.text().len(), url.as_str().len()), encoded.header.len());

        let header = decoded(&encoded.header);
        let mut accepts = Vec::new();
        for (at, price) in prices.iter().enumerate() {
            let token = header["accepts"][at]["extra"]["quoteId"].as_str().unwrap();
            let target = Target { method: &Method::POST, path: &path };
            let read = Token::verify(token, &keys, Some(&key), &listing.money(price), target, NOW).unwrap();
            prop_assert_eq!(read, Token { terms: terms.clone(), job, expires });
            let mut extra = json!({
                "name": price.accept.asset.name, "version": "2", "quoteId": token, "quoteExpires": expires
            });
            if upfront || limit.is_some_and(|limit| price.amount.units() > limit) {
                extra["paymentFlow"] = "upfront".into();
            }
            accepts.push(json!({
                "scheme": "exact", "network": price.accept.asset.network, "amount": price.amount,
                "asset": price.accept.asset.address.to_string(), "payTo": price.accept.pay_to.to_string(),
                "maxTimeoutSeconds": 300, "extra": extra
            }));
        }
        let expected = json!({
            "x402Version": 2, "error": reason.text(),
            "resource": {
                "url": url.as_str(), "description": description, "mimeType": "application/json"
            },
            "accepts": accepts, "extensions": serde_json::from_str::<Value>(EXTENSIONS).unwrap()
        });
        prop_assert_eq!(header, expected);

        let body: Value = serde_json::from_slice(&encoded.body).unwrap();
        prop_assert_eq!(&body["jobId"], &json!(job.to_string()));
        prop_assert_eq!(&body["file_size_bytes"], &json!(size));
        prop_assert_eq!(&body["quoteExpires"], &json!(expires));
        prop_assert_eq!(&body["code"], &json!(reason.code()));
        prop_assert_eq!(&body["payment"]["accepts"][0]["maxAmountRequired"], &json!(prices[0].amount));
    }
}
