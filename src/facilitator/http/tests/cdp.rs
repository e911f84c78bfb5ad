//! Against a stand-in for CDP that checks every token as CDP does: signature, claims, and that it is for this call.

use std::collections::HashSet;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use secrecy::{ExposeSecret, SecretSlice};

use super::super::cdp::host;
use super::*;
use crate::config::resolved::{Cdp, CdpKey};
use crate::outgoing::stub::Seen;

const KEY_ID: &str = "organizations/11/apiKeys/22";
const BASE: &str = "/platform/v2/x402";

/// A key pair: what we sign with, what CDP checks with.
struct Pair {
    key: CdpKey,
    public: Vec<u8>,
    algorithm: Algorithm,
}

fn pairs() -> [Pair; 2] {
    let random = SystemRandom::new();
    let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let ed_public = Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap().public_key().as_ref().to_vec();
    let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let ec_pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap();
    [
        Pair {
            key: CdpKey::Ed25519(SecretSlice::from(ed.as_ref().to_vec())),
            public: ed_public,
            algorithm: Algorithm::EdDSA,
        },
        Pair {
            key: CdpKey::Es256(SecretSlice::from(ec.as_ref().to_vec())),
            public: ec_pair.public_key().as_ref().to_vec(),
            algorithm: Algorithm::ES256,
        },
    ]
}

/// What CDP looks at before it takes a call.
struct Guard {
    public: Vec<u8>,
    algorithm: Algorithm,
    nonces: Mutex<HashSet<String>>,
}

impl Guard {
    fn check(&self, seen: &Seen) -> Result<(), &'static str> {
        let text = |name| seen.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = text("authorization").strip_prefix("Bearer ").ok_or("no token")?;
        let context = text("correlation-context");
        if !["sdk_version=", ",sdk_language=rust", ",source=galaksio"]
            .iter()
            .all(|part| context.contains(part))
        {
            return Err("no correlation context");
        }
        let key = match self.algorithm {
            Algorithm::EdDSA => DecodingKey::from_ed_der(&self.public),
            _ => DecodingKey::from_ec_der(&self.public),
        };
        let mut validation = Validation::new(self.algorithm);
        validation.set_issuer(&["cdp"]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "sub"]);
        (validation.leeway, validation.validate_nbf, validation.sub) = (0, true, Some(KEY_ID.into()));
        let claims =
            jsonwebtoken::decode::<Value>(token, &key, &validation).map_err(|_| "a bad token")?.claims;
        if claims["uris"] != json!([format!("{} {}{}", seen.method, text("host"), seen.target)]) {
            return Err("a token for another call");
        }
        if claims["exp"].as_u64() != claims["nbf"].as_u64().map(|from| from + 120) {
            return Err("a token that lives too long");
        }
        let header = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(token.split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        if header["kid"] != KEY_ID || header["typ"] != "JWT" {
            return Err("a header without the key's id");
        }
        let nonce = header["nonce"].as_str().filter(|nonce| nonce.len() == 32).ok_or("no nonce")?;
        if self.nonces.lock().insert(nonce.to_owned()) { Ok(()) } else { Err("a nonce that was seen") }
    }

    fn answer(&self, seen: &Seen) -> Served {
        match (self.check(seen), seen.target.strip_prefix(BASE)) {
            (Err(why), _) => Served::json(401, &json!({ "errorType": "unauthorized", "errorMessage": why })),
            (Ok(()), Some("/verify")) => Served::json(200, &json!({ "isValid": true, "payer": PAYER })),
            (Ok(()), Some("/settle")) => {
                Served::json(200, &json!({ "success": true, "transaction": HASH, "payer": PAYER }))
            }
            _ => Served::json(200, &json!({ "kinds": [] })),
        }
    }
}

async fn stand_in(public: Vec<u8>, algorithm: Algorithm) -> Stub {
    let guard = Guard { public, algorithm, nonces: Mutex::default() };
    Stub::start(move |seen| guard.answer(seen)).await
}

fn outgoing() -> Outgoing {
    Outgoing::new(Settings { connect_timeout: LATER, allow_plain_http: false }).unwrap()
}

fn caller(stub: &Stub, key: &CdpKey, clock: &Clock) -> HttpFacilitator {
    let cdp = Cdp { key_id: KEY_ID.into(), key: key.clone() };
    HttpFacilitator::new(outgoing(), &config(LATER), (&stub.url(BASE), Some(&cdp)), clock).unwrap()
}

#[tokio::test]
async fn every_call_has_a_token_of_its_own() {
    for Pair { key, public, algorithm } in pairs() {
        let stub = stand_in(public, algorithm).await;
        let facilitator = caller(&stub, &key, &Clock::system());
        for _ in 0..2 {
            assert_eq!(facilitator.verify(&payment()).await, Ok(Verdict::Valid), "{algorithm:?}");
            assert!(matches!(facilitator.settle(&payment()).await, Ok(Settlement::Settled(_))));
            assert_eq!(facilitator.supported().await, Ok(Vec::new()));
        }
        // The stand-in does refuse: one operation's token opens no other, and none opens twice.
        let seen = stub.seen();
        assert_eq!(seen[0].target, "/platform/v2/x402/verify");
        for target in ["/settle", "/verify"] {
            let mut call =
                Call::json(Method::POST, stub.url(&format!("{BASE}{target}")), seen[0].body.clone());
            for name in ["authorization", "correlation-context"] {
                call = call.header(http::HeaderName::from_static(name), seen[0].headers[name].clone());
            }
            let answer = outgoing().send(call, LATER).await.unwrap();
            assert_eq!(answer.status, 401, "{target}");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_not_taken_is_said_and_proves_nothing() {
    let [ed, _] = pairs();
    let [other, _] = pairs();
    let stub = stand_in(ed.public, ed.algorithm).await;
    let outcome = caller(&stub, &other.key, &Clock::system()).settle(&payment()).await;
    let Err(FacilitatorError::Unknown(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("401") && why.contains("[facilitator.cdp]"), "{why}");
    // A clock that is off by more than the token lives.
    let slow = Clock::manual(Clock::system().now_millis() - 121_000);
    let outcome = caller(&stub, &ed.key, &slow).verify(&payment()).await;
    assert!(matches!(outcome, Err(FacilitatorError::Unknown(_))), "{outcome:?}");
}

#[tokio::test]
async fn the_key_is_in_no_debug_form_and_on_no_wire() {
    for Pair { key, public, algorithm } in pairs() {
        let stub = stand_in(public, algorithm).await;
        let facilitator = caller(&stub, &key, &Clock::system());
        facilitator.verify(&payment()).await.unwrap();
        let (CdpKey::Ed25519(bytes) | CdpKey::Es256(bytes)) = &key;
        let secret = match algorithm {
            Algorithm::EdDSA => &bytes.expose_secret()[16..48],
            _ => &bytes.expose_secret()[36..68],
        };
        let shown = format!("{facilitator:?} {key:?} {:?}", stub.seen());
        let lists = [format!("{secret:?}"), format!("{:?}", bytes.expose_secret())];
        let spellings = [hex::encode(secret), base64_simd::STANDARD.encode_to_string(secret)];
        for form in lists.iter().chain(&spellings) {
            assert!(!shown.contains(form.trim_matches(['[', ']'])), "{algorithm:?}");
        }
    }
}

#[test]
fn the_host_is_that_of_the_host_header() {
    let table = [
        ("https://api.cdp.coinbase.com/x", "api.cdp.coinbase.com"),
        ("https://api.cdp.coinbase.com:443/x", "api.cdp.coinbase.com"),
        ("https://api.cdp.coinbase.com:8443/x", "api.cdp.coinbase.com:8443"),
        ("http://127.0.0.1:80/x", "127.0.0.1"),
        ("http://127.0.0.1:443/x", "127.0.0.1:443"),
    ];
    for (url, expected) in table {
        assert_eq!(host(&url.parse().unwrap()), expected);
    }
}
