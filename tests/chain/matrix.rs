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
use crate::client::Request;
use crate::gateway::Gateway;
use crate::peers::{CLIENTS, Client, Peer};
use crate::rig::{PAY_TO, Setup, Stage};

/// What a payer starts with, in atomic units.
const PURSE: u64 = 100_000;
/// What the gateway's wallet has: it buys its stock before anything is sold, too.
const FLOAT: u64 = 10_000_000;

/// Something that is sold.
struct Route {
    /// As in the table.
    title: &'static str,
    path: &'static str,
    /// The language of a program to run.
    language: &'static str,
    /// What the client pays, in atomic units.
    price: u64,
    worker: Worker,
}

/// Who does the work, and what the gateway pays for it, in atomic units.
#[derive(Clone, Copy)]
enum Worker {
    App,
    /// A stand-in for a provider, with a ledger of its own.
    Sandbox(Service, u64),
    /// A server of the official middleware, which is paid on the same chain.
    Official(Address, u64),
}

/// Who is paid by [`Worker::Official`].
const MODERN: Address = Address::repeat_byte(0x72);
const LEGACY: Address = Address::repeat_byte(0x71);

const ROUTES: [Route; 5] = [
    Route {
        title: "`/store`",
        path: "/store",
        language: "",
        price: 12_000,
        worker: Worker::Sandbox(Service::OpenX402, 10_000),
    },
    Route {
        title: "`/run`",
        path: "/run",
        language: "python",
        price: 336,
        worker: Worker::Sandbox(Service::Merit, 280),
    },
    Route {
        title: "`/run` by `@x402/express` 2.27",
        path: "/run",
        language: "modern",
        price: 1_200,
        worker: Worker::Official(MODERN, 1_000),
    },
    Route {
        title: "`/run` by `x402-express` 1.2",
        path: "/run",
        language: "legacy",
        price: 2_400,
        worker: Worker::Official(LEGACY, 2_000),
    },
    Route {
        title: "`/premium/report`",
        path: "/premium/report",
        language: "",
        price: 1_000,
        worker: Worker::App,
    },
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

/// A server of the official middleware, as an operator would declare it.
fn declared(name: &str, shop: &Peer) -> String {
    format!(
        "[[provider]]\nname = {name:?}\nkind = \"run\"\nlanguages = [{name:?}]\nurl = \"{}/work\"\n\
         body = '{{\"code\": \"{{text}}\"}}'\nresult = {{ stdout = \"/body/code\" }}\n",
        shop.url
    )
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
    /// The facilitator of the shops, and of the gateway where it has none; the shops.
    _peers: [Peer; 3],
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
        let official = runtime.block_on(Peer::facilitator(&chain, None));
        let modern = Peer::server_v2(&official.url, MODERN, "$0.001");
        let legacy = Peer::server_v1(&official.url, LEGACY, "$0.002");
        let mut tables = SOLD.to_owned() + &declared("modern", &modern) + &declared("legacy", &legacy);
        let mut setup = Setup::new();
        match facilitator {
            Facilitator::Official => setup = setup.text("facilitator", "url", &official.url),
            Facilitator::Ours => {
                write!(tables, "[[chains]]\nnetwork = \"base-sepolia\"\nrpc = [{:?}]\n", chain.url).unwrap();
                let key_file = gas_key.path().to_str().unwrap();
                setup =
                    setup.text("facilitator", "kind", "local").text("facilitator", "gas_key_file", key_file);
            }
        }
        let _peers = [official, modern, legacy];
        let stage = setup.routes(&tables).start();
        runtime.block_on(chain.mint(stage.wallet(), FLOAT));
        let gateway = stage.gateway();
        Shop { gateway, stage, _peers, _gas_key: gas_key, chain, runtime, facilitator }
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
        let what = format!("{} buys {} through {}", client.name, route.title, self.facilitator.name());
        let (key, payer) = self.chain.payer(PURSE).await;
        let since = self.chain.head().await.number + 1;
        let before = self.books(payer, route.worker).await;
        let seen = self.paid(route.worker).len();

        let url = format!("http://{}{}", self.gateway.address, route.path);
        let body = body(route);
        // A price that is asked for the first time may come too late, and the client does not ask again.
        let priced =
            body.as_ref().map_or_else(|| Request::get(route.path), |body| Request::json(route.path, body));
        self.gateway.client().challenge(&priced).await;
        let method = if body.is_some() { "POST" } else { "GET" };
        let answer = client.buy(&key, method, &url, body.as_ref()).await;
        assert_eq!(answer["status"], 200, "{what}: {answer}");
        assert_eq!(answer["receipt"]["success"], true, "{what}: {answer}");
        delivered(route, &answer["body"]);

        // The client's payment, which the facilitator settled; and the gateway's, if its provider is on this chain.
        let mut transfers = self.chain.transfers_since(since).await;
        let payee = PAY_TO.parse().unwrap();
        let client_leg = transfers.iter().position(|transfer| transfer.from == payer);
        let transfer = transfers.remove(client_leg.expect(&what));
        let price = u128::from(route.price);
        assert_eq!((transfer.to, transfer.value.units()), (payee, price), "{what}");
        assert_eq!(answer["receipt"]["transaction"], transfer.transaction.to_string(), "{what}");
        let others = matches!(route.worker, Worker::Official(..));
        assert_eq!(transfers.len(), usize::from(others), "{what}: {transfers:?}");

        if let Worker::Sandbox(..) = route.worker {
            // The stand-in booked the gateway's payment on a ledger. Anybody may hand it to the chain, which takes it
            // if the signature is what the token wants.
            let payments = self.paid(route.worker).split_off(seen);
            assert_eq!(payments.len(), 1, "{what}");
            let (authorization, signature) = &payments[0];
            let transaction = self.chain.submit(Address::repeat_byte(1), authorization, signature).await;
            assert!(self.chain.mined(transaction).await, "{what}: the provider's payment is void");
        }

        let mut expected = before;
        expected.payer -= route.price;
        expected.payee += route.price;
        let cost = match route.worker {
            Worker::App => 0,
            Worker::Sandbox(_, cost) | Worker::Official(_, cost) => cost,
        };
        expected.wallet -= cost;
        expected.provider += cost;
        assert_eq!(self.books(payer, route.worker).await, expected, "{what}");
        if cost == 0 { route.price.to_string() } else { format!("{} / {cost}", route.price) }
    }

    async fn books(&self, payer: Address, worker: Worker) -> Books {
        let provider = match worker {
            Worker::App => Address::ZERO,
            Worker::Sandbox(service, _) => pay_to(service),
            Worker::Official(payee, _) => payee,
        };
        Books {
            payer: self.chain.balance(payer).await,
            payee: self.chain.balance(PAY_TO.parse().unwrap()).await,
            wallet: self.chain.balance(self.stage.wallet()).await,
            provider: self.chain.balance(provider).await,
        }
    }

    /// What a stand-in was paid with so far, each payment once.
    fn paid(&self, worker: Worker) -> Vec<(Authorization, Vec<u8>)> {
        let Worker::Sandbox(service, _) = worker else { return Vec::new() };
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

const PROGRAM: &str = "print(6 * 7)";

fn body(route: &Route) -> Option<Value> {
    match route.path {
        "/store" => Some(json!({ "data": { "order": 7 }, "options": { "permanent": true } })),
        "/run" => Some(json!({ "code": PROGRAM, "language": route.language })),
        _ => None,
    }
}

fn delivered(route: &Route, body: &Value) {
    match (route.path, route.worker) {
        ("/store", _) => assert!(body["result"]["cid"].is_string(), "{body}"),
        (_, Worker::Official(..)) => assert_eq!(body["result"]["stdout"], PROGRAM, "{body}"),
        ("/run", _) => assert!(body["result"]["stdout"].is_string(), "{body}"),
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
        write!(table, " {} |", route.title).unwrap();
    }
    table += "\n|---|---|---|---|---|---|---|---|\n";
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
