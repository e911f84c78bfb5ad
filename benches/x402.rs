//! What one payment costs in processor time: `cargo bench --bench x402`.
//!
//! The payments are those the official clients made for `tests/clients/vectors/challenge.json`.

#![expect(clippy::expect_used, missing_docs, reason = "not an API, and all its data is committed")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use galaksio::money::Amount;
use galaksio::wallet::Wallet;
use galaksio::x402::{
    Asset, Authorization, B256, Challenge, Domain, Network, Payment, PaymentFlow, Requirement, Window, check,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// When the payments were made.
const NOW: u64 = 1_800_000_000;

const KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

fn vector(text: &str) -> Value {
    serde_json::from_str(text).expect("a committed file")
}

fn payment_headers(version: &str) -> HeaderMap {
    let payments = vector(include_str!("../tests/clients/vectors/payments.json"));
    let text = |key: &str| payments[version][key].as_str().expect("a header").to_owned();
    let name: HeaderName = text("name").parse().expect("a header name");
    let value: HeaderValue = text("value").parse().expect("a header value");
    HeaderMap::from_iter([(name, value)])
}

fn usdc() -> Asset {
    Asset::default_for(Network(84_532)).expect("a known network")
}

fn requirement() -> Requirement {
    Requirement {
        asset: usdc(),
        amount: Amount::new(10_000),
        pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().expect("an address"),
        max_timeout_seconds: 300,
        flow: PaymentFlow::Upfront,
    }
}

fn decode(headers: &HeaderMap) -> Payment {
    Payment::from_headers(headers, 32 * 1024).expect("a payment").expect("a header")
}

fn seller(c: &mut Criterion) {
    let (v1, v2) = (payment_headers("v1"), payment_headers("v2"));
    c.bench_function("decode v1", |b| b.iter(|| decode(black_box(&v1))));
    c.bench_function("decode v2", |b| b.iter(|| decode(black_box(&v2))));

    let asset = usdc();
    let domain = Domain::new(&asset);
    let payment = decode(&v2);
    let authorization = payment.authorization();
    let signature: &[u8; 65] = payment.signature().try_into().expect("65 bytes");
    c.bench_function("domain", |b| b.iter(|| Domain::new(black_box(&asset))));
    c.bench_function("digest", |b| b.iter(|| domain.digest(black_box(authorization))));
    c.bench_function("recover", |b| b.iter(|| domain.recover(black_box(authorization), signature)));

    let requirement = requirement();
    let window = Window { now: NOW, needed: 60 };
    c.bench_function("decode and check v2", |b| {
        b.iter(|| {
            check(&decode(black_box(&v2)), &requirement, &domain, window)
                .map(|it| it.signature())
                .expect("a right payment")
        });
    });
}

fn buyer(c: &mut Criterion) {
    let fixture = vector(include_str!("../tests/clients/vectors/challenge.json"));
    let body = fixture["v1"].to_string();
    let header = base64_simd::STANDARD.encode_to_string(fixture["v2"].to_string());
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static("payment-required"),
        HeaderValue::try_from(header).expect("a header value"),
    )]);
    c.bench_function("challenge v1", |b| {
        b.iter(|| Challenge::from_response(&HeaderMap::new(), black_box(body.as_bytes())));
    });
    c.bench_function("challenge v2", |b| b.iter(|| Challenge::from_response(black_box(&headers), b"")));

    let wallet = Wallet::new(KEY.into(), "0.05", vec![usdc()]).expect("a key");
    let asset = usdc();
    let authorization = Authorization {
        from: wallet.address(),
        to: requirement().pay_to,
        value: Amount::new(10_000),
        valid_after: 0,
        valid_before: NOW + 300,
        nonce: B256::repeat_byte(1),
    };
    c.bench_function("sign", |b| b.iter(|| wallet.sign(&asset, black_box(&authorization))));
}

criterion_group!(benches, seller, buyer);
criterion_main!(benches);
