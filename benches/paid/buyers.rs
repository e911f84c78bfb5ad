//! Who pays: each request with a challenge and a payment of its own, all signed before anything is measured.

use std::net::SocketAddr;

use bytes::Bytes;
use galaksio::clock::Clock;
use galaksio::wallet::Wallet;
use galaksio::x402::{Authorization, B256, Challenge};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::SecretString;

use crate::http1::Message;
use crate::load::exchange;
use crate::rig::asset;

/// Buyers take turns.
const BUYERS: u64 = 16;
/// Connections that challenges are asked for on, by each thread that signs.
const ASKING: usize = 4;

/// What every seller is asked for.
const BODY: &str = r#"{"code":"print(sum(range(1000)))  #######","language":"python"}"#;

/// Some wallets.
pub(crate) struct Buyers(Vec<Wallet>);

impl Buyers {
    pub(crate) fn new() -> Buyers {
        let key = |_| format!("{:064x}", uuid::Uuid::new_v4().as_u128());
        let wallet = |key| Wallet::new(SecretString::from(key), "1000", vec![asset()]).unwrap();
        Buyers((0..BUYERS).map(key).map(wallet).collect())
    }

    /// So many paid requests for `path`, as bytes.
    pub(crate) fn sign(&self, address: SocketAddr, path: &str, count: usize) -> Vec<Bytes> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let shares = (0..threads).map(|thread| (count + thread) / threads);
            let signing: Vec<_> =
                shares.map(|share| scope.spawn(move || self.sign_share(address, path, share))).collect();
            signing.into_iter().flat_map(|share| share.join().unwrap()).collect()
        })
    }

    fn sign_share(&self, address: SocketAddr, path: &str, count: usize) -> Vec<Bytes> {
        let unpaid = vec![unpaid(address, path); count];
        let (_, challenges) = exchange(address, unpaid, ASKING, |message, _| challenge(message));
        let turns = self.0.iter().cycle();
        challenges.iter().zip(turns).map(|(challenge, buyer)| pay(buyer, challenge, address, path)).collect()
    }
}

/// What is asked before it is paid for.
pub(crate) fn unpaid(address: SocketAddr, path: &str) -> Bytes {
    Bytes::from(request(address, path, ""))
}

fn challenge(message: &Message) -> Challenge {
    assert_eq!(message.status(), 402, "{}", String::from_utf8_lossy(message.body()));
    let fields = message
        .field("payment-required")
        .map(|value| (HeaderName::from_static("payment-required"), HeaderValue::from_str(value).unwrap()));
    Challenge::from_response(&HeaderMap::from_iter(fields), message.body()).unwrap()
}

fn pay(buyer: &Wallet, challenge: &Challenge, address: SocketAddr, path: &str) -> Bytes {
    let (offered, now) = (challenge.accepts.first().expect("nothing is offered"), Clock::system().now());
    let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
    let authorization = Authorization {
        from: buyer.address(),
        to: offered.pay_to,
        value: offered.amount,
        valid_after: now - 60,
        valid_before: now + offered.max_timeout_seconds,
        nonce: B256::from_slice(&random.map(uuid::Uuid::into_bytes).concat()),
    };
    let signature = buyer.sign(&asset(), &authorization).unwrap();
    let (name, value) = challenge.payment(offered, &authorization, &signature);
    Bytes::from(request(address, path, &format!("{name}: {}\r\n", value.to_str().unwrap())))
}

fn request(address: SocketAddr, path: &str, payment: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{payment}\r\n{BODY}",
        BODY.len()
    )
}
