//! The gateway buys, as a payer, from the servers of the ecosystem: each is a provider by a `[[provider]]` table alone, and
//! the chain says who paid whom.

use std::fmt::Write as _;
use std::time::Duration;

use galaksio::outgoing::{Call, Outgoing, Settings as OutgoingSettings};
use galaksio::x402::{Address, Version};
use serde_json::{Value, json};

use crate::anvil::{Chain, Settings};
use crate::client::Request;
use crate::matrix::in_readme;
use crate::payer::Payer;
use crate::peers::Peer;
use crate::rig::{PAY_TO, Setup};

/// What the shops take, and what a client pays for it, in atomic units.
const COST: u64 = 1_000;
const PRICE: u64 = 1_200;
const PURSE: u64 = 100_000;

/// A server, told apart by the language that only it runs.
struct Shop {
    name: &'static str,
    /// As it is published, and the version it speaks.
    what: [&'static str; 2],
    payee: Address,
    peer: Peer,
}

#[test]
#[ignore = "needs node, anvil and x402-axum; `make test` runs it"]
fn every_official_server_sells_to_the_gateway() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let chain = runtime.block_on(Chain::start(Settings::default()));
    let facilitator = runtime.block_on(Peer::facilitator(&chain, None));
    let shop = |name, what, number, start: &dyn Fn(Address) -> Peer| {
        let payee = Address::repeat_byte(number);
        Shop { name, what, payee, peer: start(payee) }
    };
    let at = facilitator.url.as_str();
    let shops = [
        shop("express-v2", ["@x402/express 2.27", "v2"], 0xe2, &|payee| Peer::server_v2(at, payee, "$0.001")),
        shop("express-v1", ["x402-express 1.2", "v1"], 0xe1, &|payee| Peer::server_v1(at, payee, "$0.001")),
        shop("axum-v2", ["x402-axum 2.0", "v2"], 0xa2, &|payee| Peer::server_axum(at, payee, 2)),
        shop("axum-v1", ["x402-axum 2.0", "v1"], 0xa1, &|payee| Peer::server_axum(at, payee, 1)),
    ];
    let mut declared = String::new();
    for Shop { name, peer, payee, .. } in &shops {
        write!(
            declared,
            r#"
[[provider]]
name = "{name}"
kind = "run"
languages = ["{name}"]
url = "{}/work"
body = '{{"source": "{{text}}", "id": "{{request_id}}"}}'
result = {{ stdout = "/body/source" }}
success = {{ at = "/method", equals = "POST" }}
pay_to = "{payee}"
"#,
            peer.url
        )
        .unwrap();
    }
    let stage = Setup::new().text("facilitator", "url", at).provider(&declared).start();
    runtime.block_on(chain.mint(stage.wallet(), PURSE));
    let gateway = stage.gateway();
    let client = gateway.client();

    let mut table =
        "\n| server | x402 | client pays by v1 | client pays by v2 |\n|---|---|---|---|\n".to_owned();
    runtime.block_on(async {
        for shop in &shops {
            write!(table, "| `{}` | {} |", shop.what[0], shop.what[1]).unwrap();
            for (version, sold) in [(Version::V1, 1), (Version::V2, 2)] {
                let (payer, code) = (Payer::new(), format!("{} says \"hé\"}}", shop.name));
                chain.mint(payer.address(), PURSE).await;
                let request = Request::json("/run", &json!({ "code": code, "language": shop.name }));
                let since = chain.head().await.number + 1;
                let before = [
                    chain.balance(stage.wallet()).await,
                    chain.balance(shop.payee).await,
                    chain.balance(PAY_TO.parse().unwrap()).await,
                ];

                let answer = client.buy(&request, &payer, version).await;
                assert_eq!(answer.status, 200, "{} by {version:?}: {answer:?}", shop.name);
                let result = &answer.json()["result"];
                assert_eq!((&result["provider"], &result["stdout"]), (&json!(shop.name), &json!(code)));

                // Two transfers, and no other: to the shop, and then from the client.
                let transfers = chain.transfers_since(since).await;
                let moved: Vec<_> =
                    transfers.iter().map(|paid| (paid.from, paid.to, paid.value.units())).collect();
                let legs = [
                    (stage.wallet(), shop.payee, u128::from(COST)),
                    (payer.address(), PAY_TO.parse().unwrap(), u128::from(PRICE)),
                ];
                assert_eq!(moved, legs, "{} by {version:?}", shop.name);
                let after = [
                    chain.balance(stage.wallet()).await,
                    chain.balance(shop.payee).await,
                    chain.balance(PAY_TO.parse().unwrap()).await,
                ];
                assert_eq!(after, [before[0] - COST, before[1] + COST, before[2] + PRICE]);
                let (charged, paid) = (after[2] - before[2], after[1] - before[1]);
                assert_eq!(chain.balance(payer.address()).await, PURSE - PRICE);
                assert_eq!(shop.done().await, sold, "{} worked once for each", shop.name);
                write!(table, " {charged} / {paid} |").unwrap();
            }
            table.push('\n');
        }
    });
    table.push('\n');
    println!("{table}");
    in_readme("table of servers", &table);
}

impl Shop {
    /// How often it worked.
    async fn done(&self) -> u64 {
        let url = format!("{}/done", self.peer.url).parse().unwrap();
        let settings = OutgoingSettings { connect_timeout: Duration::from_secs(5), allow_plain_http: false };
        let call = Outgoing::new(settings).unwrap().send(Call::get(url), Duration::from_secs(30)).await;
        let said: Value = serde_json::from_slice(&call.unwrap().body).unwrap();
        said["done"].as_u64().unwrap()
    }
}
