//! Every official client buys every kind of work from the gateway, through each facilitator, and the chain is asked
//! who paid whom, to the atomic unit. What came of it is the table in the README.

use std::fmt::Write as _;
use std::path::Path;

use galaksio::sandbox::{Service, pay_to};
use galaksio::x402::{Address, Authorization, B256};
use http::HeaderMap;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::runtime::{Builder, Runtime};

use crate::anvil::{Chain, Settings};
use crate::gateway::Gateway;
use crate::peers::{CLIENTS, Client, Peer};
use crate::rig::{PAY_TO, Setup, Stage};

/// What a payer starts with, in atomic units.
const PURSE: u64 = 100_000;

/// Something that is sold, and what it costs.
struct Route {
    name: &'static str,
    method: &'static str,
    /// What the client pays, in atomic units.
    price: u64,
    /// Who does the work for the gateway, and for how much.
    provider: Option<(Service, u64)>,
}

const ROUTES: [Route; 3] = [
    Route { name: "/store", method: "POST", price: 12_000, provider: Some((Service::OpenX402, 10_000)) },
    Route { name: "/run", method: "POST", price: 336, provider: Some((Service::Merit, 280)) },
    Route { name: "/premium/report", method: "GET", price: 1_000, provider: None },
];

/// Who settles for the gateway.
#[derive(Clone, Copy)]
enum Facilitator {
    Official,
    Ours,
}

impl Facilitator {
    const ALL: [Facilitator; 2] = [Facilitator::Official, Facilitator::Ours];

    fn name(self) -> &'static str {
        match self {
            Facilitator::Official => "`@x402/core` + `@x402/evm` 2.27",
            Facilitator::Ours => "`kind = \"local\"`",
        }
    }
}

/// What the gateway sells, before the chain that its own facilitator needs.
const SOLD: &str = r#"
[[routes]]
path = "/store"
methods = ["POST"]
work = "store"
[[routes]]
path = "/run"
methods = ["POST"]
work = "run"
[[routes]]
path = "/premium/*"
methods = ["GET"]
price = "$0.001"
"#;

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn every_client_buys_everything_through_every_facilitator() {
    // Each facilitator has a chain of its own, so that balances tell of one purchase at a time.
    let rows = std::thread::scope(|scope| {
        let shops = Facilitator::ALL.map(|facilitator| scope.spawn(move || Shop::open(facilitator).sell()));
        shops.map(|shop| shop.join().unwrap()).concat()
    });
    let table = table(&rows);
    println!("{table}");
    in_readme("matrix", &table);
}

/// A gateway in front of its providers, paid on a chain.
struct Shop {
    // In the order in which they are to go.
    gateway: Gateway,
    stage: Stage,
    _official: Option<Peer>,
    _gas_key: NamedTempFile,
    chain: Chain,
    runtime: Runtime,
    facilitator: Facilitator,
}

/// One client's purchases, as a line of the table.
type Row = Vec<String>;

impl Shop {
    fn open(facilitator: Facilitator) -> Shop {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let chain = runtime.block_on(Chain::start(Settings::default()));
        let (key, _) = runtime.block_on(chain.gas_key());
        let gas_key = NamedTempFile::new().unwrap();
        std::fs::write(gas_key.path(), key).unwrap();
        let (mut setup, mut official) = (Setup::new(), None);
        match facilitator {
            Facilitator::Official => {
                let peer = runtime.block_on(Peer::facilitator(&chain, None));
                setup = setup.routes(SOLD).text("facilitator", "url", &peer.url);
                official = Some(peer);
            }
            Facilitator::Ours => {
                let tables =
                    format!("{SOLD}[[chains]]\nnetwork = \"base-sepolia\"\nrpc = [{:?}]\n", chain.url);
                let key_file = gas_key.path().to_str().unwrap();
                setup = setup.routes(&tables).text("facilitator", "kind", "local");
                setup = setup.text("facilitator", "gas_key_file", key_file);
            }
        }
        let stage = setup.start();
        runtime.block_on(chain.mint(stage.wallet(), PURSE));
        let gateway = stage.gateway();
        Shop { gateway, stage, _official: official, _gas_key: gas_key, chain, runtime, facilitator }
    }

    fn sell(&self) -> Vec<Row> {
        CLIENTS.into_iter().map(|client| self.runtime.block_on(self.sell_to(client))).collect()
    }

    async fn sell_to(&self, client: Client) -> Row {
        let mut row = vec![format!("`{}`", client.name), format!("v{}", client.version)];
        row.push(self.facilitator.name().to_owned());
        for route in &ROUTES {
            row.push(self.purchase(client, route).await);
        }
        row
    }

    /// A client with fresh money buys once; the chain must show that, and nothing else.
    async fn purchase(&self, client: Client, route: &Route) -> String {
        let what = format!("{} buys {} through {}", client.name, route.name, self.facilitator.name());
        let (key, payer) = self.chain.payer(PURSE).await;
        let since = self.chain.head().await.number + 1;
        let before = self.books(payer, route).await;
        let seen = self.paid(route).len();

        let url = format!("http://{}{}", self.gateway.address, route.name);
        let answer = client.buy(&key, route.method, &url, body(route).as_ref()).await;
        assert_eq!(answer["status"], 200, "{what}: {answer}");
        assert_eq!(answer["receipt"]["success"], true, "{what}: {answer}");
        delivered(route, &answer["body"]);

        // The client's payment, which the facilitator settled.
        let payee = PAY_TO.parse().unwrap();
        let transfers = self.chain.transfers_since(since).await;
        assert_eq!(transfers.len(), 1, "{what}: {transfers:?}");
        let transfer = transfers[0];
        let price = u128::from(route.price);
        assert_eq!((transfer.from, transfer.to, transfer.value.units()), (payer, payee, price), "{what}");
        assert_eq!(answer["receipt"]["transaction"], transfer.transaction.to_string(), "{what}");

        // The gateway's own payment. The provider's stand-in booked it on a ledger of its own; anybody may hand it to
        // the chain, which takes it if the signature is what the token wants.
        let payments = self.paid(route).split_off(seen);
        assert_eq!(payments.len(), usize::from(route.provider.is_some()), "{what}");
        for (authorization, signature) in payments {
            let transaction = self.chain.submit(Address::repeat_byte(1), &authorization, &signature).await;
            assert!(self.chain.mined(transaction).await, "{what}: the provider's payment is void");
        }

        let mut expected = before;
        expected.payer -= route.price;
        expected.payee += route.price;
        if let Some((_, cost)) = route.provider {
            expected.wallet -= cost;
            expected.provider += cost;
        }
        assert_eq!(self.books(payer, route).await, expected, "{what}");
        match route.provider {
            Some((_, cost)) => format!("{} / {cost}", route.price),
            None => route.price.to_string(),
        }
    }

    async fn books(&self, payer: Address, route: &Route) -> Books {
        let provider = route.provider.map_or(Address::ZERO, |(service, _)| pay_to(service));
        Books {
            payer: self.chain.balance(payer).await,
            payee: self.chain.balance(PAY_TO.parse().unwrap()).await,
            wallet: self.chain.balance(self.stage.wallet()).await,
            provider: self.chain.balance(provider).await,
        }
    }

    /// What the route's provider was paid with so far, each payment once.
    fn paid(&self, route: &Route) -> Vec<(Authorization, Vec<u8>)> {
        let Some((service, _)) = route.provider else { return Vec::new() };
        let requests = self.stage.sandbox().requests.seen(service);
        let mut payments: Vec<_> = requests.iter().filter_map(|request| payment(&request.headers)).collect();
        let mut known: Vec<B256> = Vec::new();
        payments.retain(|(authorization, _)| {
            let new = !known.contains(&authorization.nonce);
            known.push(authorization.nonce);
            new
        });
        payments
    }
}

/// Balances on the chain, in atomic units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Books {
    payer: u64,
    payee: u64,
    wallet: u64,
    provider: u64,
}

fn body(route: &Route) -> Option<Value> {
    match route.name {
        "/store" => Some(json!({ "data": { "order": 7 }, "options": { "permanent": true } })),
        "/run" => Some(json!({ "code": "print(6 * 7)", "language": "python" })),
        _ => None,
    }
}

fn delivered(route: &Route, body: &Value) {
    match route.name {
        "/store" => assert!(body["result"]["cid"].is_string(), "{body}"),
        "/run" => assert!(body["result"]["stdout"].is_string(), "{body}"),
        _ => assert_eq!(body["title"], "Monthly report", "{body}"),
    }
}

/// The payment of a request of either version.
fn payment(headers: &HeaderMap) -> Option<(Authorization, Vec<u8>)> {
    let header = headers.get("payment-signature").or_else(|| headers.get("x-payment"))?;
    let payment: Value =
        serde_json::from_slice(&base64_simd::STANDARD.decode_to_vec(header).unwrap()).unwrap();
    let payload = &payment["payload"];
    let signature = alloy::primitives::hex::decode(payload["signature"].as_str().unwrap()).unwrap();
    Some((serde_json::from_value(payload["authorization"].clone()).unwrap(), signature))
}

fn table(rows: &[Row]) -> String {
    let mut table = "\n| client | x402 | facilitator |".to_owned();
    for route in &ROUTES {
        write!(table, " `{}` |", route.name).unwrap();
    }
    table += "\n|---|---|---|---|---|---|\n";
    for row in rows {
        writeln!(table, "| {} |", row.join(" | ")).unwrap();
    }
    table + "\n"
}

/// The README shows this table, between marks of its name; with `GALAKSIO_WRITE_DOCS=1` it does from now on.
pub(crate) fn in_readme(name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- the {name} begins -->\n"), format!("<!-- the {name} ends -->"));
    let (before, rest) = readme.split_once(&begin).unwrap();
    let (shown, after) = rest.split_once(&end).unwrap();
    if std::env::var_os("GALAKSIO_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(shown, table, "the README's table is out of date; run this with GALAKSIO_WRITE_DOCS=1");
    }
}
