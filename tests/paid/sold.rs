//! What is sold is delivered, and everybody has exactly the money he should have.

use galaksio::sandbox::{Service, pay_to};
use galaksio::x402::{PaymentFlow, Receipt, Version};
use serde_json::{Value, json};

use crate::client::{Answer, Client, Request};
use crate::payer::Payer;
use crate::rig::{Books, Setup, Stage, asset};

/// The price of running a program: 280 and 20 percent of it.
pub(crate) const RUN: i128 = 336;
/// What is left with Merit Systems, which sends back what a program did not use.
pub(crate) const RUN_COST: i128 = 28;
/// A pin costs 10000.
pub(crate) const PIN: i128 = 12_000;
pub(crate) const PIN_COST: i128 = 10_000;
/// A share of a cache costs 100.
pub(crate) const SET: i128 = 120;
pub(crate) const PREMIUM: i128 = 1_000;

/// Bytes that are neither text nor JSON.
pub(crate) fn file() -> Vec<u8> {
    (0..5_000u32).map(|i| (i * 7 % 251) as u8).chain([0xff, 0xfe, 0x00]).collect()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

#[test]
fn a_program_is_run() {
    each_version(|version| {
        let sale = Sale::new(version);
        let answer = sale.buy(&Request::run("print('hello')"));
        ran(&answer.json(), "print('hello')");
        let expected =
            Books { payer: -RUN, payee: RUN, wallet: -RUN_COST, merit: RUN_COST, ..Books::default() };
        assert_eq!(sale.changes(), expected);
        sale.receipt_is_true(&answer, RUN);
    });
}

#[test]
fn an_exception_of_the_program_is_work_done() {
    let sale = Sale::new(Version::V2);
    let answer = sale.buy(&Request::run("raise ValueError('no')"));
    let result = &answer.json()["result"];
    assert_eq!(result["exitCode"], 1);
    assert!(result["stderr"].as_str().unwrap().contains("ValueError: no"), "{result}");
    assert_eq!(sale.changes().payee, RUN);
}

#[test]
fn a_file_is_kept_for_a_time() {
    each_version(|version| {
        let sale = Sale::new(version);
        let body = json!({ "data": base64(&file()), "filename": "a.bin", "options": { "ttl": 600 } });
        let answer = sale.buy(&Request::json("/store", &body));
        let result = &answer.json()["result"];
        stored(&answer.json(), "xcache", file().len(), 0.000_12);
        assert_eq!(result["encoding"], "base64");
        // It was in stock.
        assert_eq!(sale.changes(), Books { payer: -SET, payee: SET, ..Books::default() });
        sale.receipt_is_true(&answer, SET);
        let url = result["url"].as_str().unwrap();
        let read = sale.read(url);
        read_back(&read, &file());
        // A second store needs no second cache.
        let before = sale.stage.books(sale.payer.address());
        let again = sale.buy(&Request::post("/store?ttl=60", "application/octet-stream", file()));
        assert_ne!(again.json()["result"]["url"], url);
        let expected = Books { payer: -SET, payee: SET, ..Books::default() };
        assert_eq!(sale.stage.books(sale.payer.address()).since(before), expected);
    });
}

#[test]
fn a_file_is_pinned_for_good() {
    each_version(|version| {
        let sale = Sale::new(version);
        let request = Request::post("/store?permanent=true&filename=a.png", "image/png", file());
        let answer = sale.buy(&request);
        stored(&answer.json(), "openx402", file().len(), 0.012);
        let expected =
            Books { payer: -PIN, payee: PIN, wallet: -PIN_COST, openx402: PIN_COST, ..Books::default() };
        assert_eq!(sale.changes(), expected);
        let pinned = sale.pinned(&answer.json());
        assert_eq!(pinned.body, file());
        assert_eq!(pinned.field("content-type"), Some("image/png"));
    });
}

#[test]
fn as_large_as_it_may_be() {
    let sale = Sale::new(Version::V2);
    let bytes = file().repeat(3_000)[..10 << 20].to_vec();
    let answer = sale.buy(&Request::post("/store?permanent=true", "application/octet-stream", bytes.clone()));
    stored(&answer.json(), "openx402", bytes.len(), 0.012);
    assert_eq!(sale.pinned(&answer.json()).body, bytes);
    // As JSON it is a third longer, and so is what it may hold.
    let bytes = &bytes[..7 << 20];
    let body = json!({ "data": base64(bytes), "options": { "permanent": true } });
    let answer = sale.buy(&Request::json("/store", &body));
    assert_eq!(sale.pinned(&answer.json()).body, bytes);
}

#[test]
fn a_document_is_pinned_for_good() {
    each_version(|version| {
        let sale = Sale::new(version);
        let document = json!({ "b": [1, 2.50, "ü"], "a": { "c": null } });
        let body = json!({ "data": document, "options": { "permanent": true } });
        let answer = sale.buy(&Request::json("/store", &body));
        stored(&answer.json(), "openx402", document.to_string().len(), 0.012);
        assert_eq!(answer.json()["result"]["endpoint"], "/pin/json");
        assert_eq!(sale.changes().openx402, PIN_COST);
        assert_eq!(sale.pinned(&answer.json()).json(), document);
        assert_eq!(sale.stage.sandbox().requests.count(Service::OpenX402, "/upload"), 0);
    });
}

#[test]
fn a_route_of_the_app_is_sold() {
    each_version(|version| {
        let sale = Sale::new(version);
        let answer = sale.buy(&Request::get("/premium/report"));
        assert_eq!(answer.json()["title"], "Monthly report");
        let expected = Books { payer: -PREMIUM, payee: PREMIUM, ..Books::default() };
        assert_eq!(sale.changes(), expected);
        sale.receipt_is_true(&answer, PREMIUM);
        // The body of a request gets there, too.
        let answer = sale.buy(&Request::post("/echo", "text/plain", "to be repeated"));
        assert_eq!(answer.body, "to be repeated");
        assert_eq!(answer.field("content-type"), Some("text/plain"));
    });
}

#[test]
fn paid_before_the_work_where_the_route_says_so() {
    let routes = "[[routes]]\npath = \"/run\"\nmethods = [\"POST\"]\nwork = \"run\"\nsettle = \"upfront\"\n";
    let stage = Setup::new().routes(routes).start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("1");
        let answer = client.buy(&request, &payer, Version::V2).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let transfers = stage.sandbox().ledger.transfers();
        assert_eq!(transfers[0].from, payer.address(), "the client pays first");
        // And if the work fails, he is owed.
        let fault = galaksio::sandbox::faults::Fault::WorkFails;
        let payment = client.sign(&request, &payer, Version::V1).await;
        stage.sandbox().faults.add(Service::Merit, galaksio::sandbox::faults::Rule::always(fault));
        let failed = client.send(&request.paid(&payment)).await;
        failed.expect(502, "refund_due", Some("yes"), Some("never"));
        assert!(failed.receipt().success);
        assert_eq!(stage.sales(), 2);
    });
}

#[test]
fn paid_before_the_work_above_a_price() {
    each_version(|version| {
        let (client_first, provider_first) = (true, false);
        // What it costs, and a millionth of a dollar less.
        for (limit, order) in [("$0.000336", provider_first), ("$0.000335", client_first)] {
            let stage = Setup::new().text("paid", "upfront_above", limit).start();
            let gateway = stage.cold_gateway();
            let (client, payer) = (gateway.client(), Payer::new());
            stage.run(async {
                let request = Request::run("1");
                let challenge = client.challenge(&request).await;
                let offered = &challenge.offer(version).accepts[0];
                assert_eq!(offered.amount.units(), 336, "{limit}");
                let announced =
                    if order == client_first { PaymentFlow::Upfront } else { PaymentFlow::Authorization };
                assert_eq!(offered.flow, announced, "{version:?}, {limit}");
                let answer = client.buy(&request, &payer, version).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                let transfers = stage.sandbox().ledger.transfers();
                let sold = transfers.iter().position(|transfer| transfer.from == payer.address());
                let bought = transfers.iter().position(|transfer| transfer.to == pay_to(Service::Merit));
                assert!(sold.is_some() && bought.is_some(), "{transfers:?}");
                assert_eq!(sold < bought, order, "{version:?}, {limit}");
                // And if the work fails after that, he is owed.
                let rule =
                    galaksio::sandbox::faults::Rule::always(galaksio::sandbox::faults::Fault::WorkFails);
                let payment = client.sign(&request, &payer, version).await;
                stage.sandbox().faults.add(Service::Merit, rule);
                let failed = client.send(&request.paid(&payment)).await;
                assert_eq!(failed.code() == "refund_due", order, "{failed:?}");
                assert_eq!(failed.json()["charged"], if order == client_first { "yes" } else { "no" });
            });
        }
    });
}

/// One client, and the books before his first purchase.
pub(crate) struct Sale {
    client: Client,
    pub(crate) payer: Payer,
    version: Version,
    before: Books,
    // Ends before the stage does.
    _gateway: crate::gateway::Gateway,
    pub(crate) stage: Stage,
}

impl Sale {
    fn new(version: Version) -> Sale {
        let stage = Setup::new().start();
        let gateway = stage.gateway();
        let payer = Payer::new();
        let before = stage.books(payer.address());
        Sale { client: gateway.client(), payer, version, before, _gateway: gateway, stage }
    }

    fn buy(&self, request: &Request) -> Answer {
        let answer = self.stage.run(self.client.buy(request, &self.payer, self.version));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.field("cache-control"), Some("private, no-store"));
        assert!(answer.field("access-control-expose-headers").unwrap().contains("PAYMENT-RESPONSE"));
        answer
    }

    fn changes(&self) -> Books {
        self.stage.books(self.payer.address()).since(self.before)
    }

    /// Reads a URL of the gateway's own.
    fn read(&self, url: &str) -> Answer {
        let path = url.strip_prefix("http://shop.example").expect(url);
        self.stage.run(self.client.send(&Request::get(path)))
    }

    /// What an IPFS gateway shows of a stored result.
    fn pinned(&self, answer: &Value) -> Answer {
        pinned(&self.stage, answer)
    }

    fn receipt_is_true(&self, answer: &Answer, amount: i128) {
        let name = match self.version {
            Version::V1 => "x-payment-response",
            Version::V2 => "payment-response",
        };
        assert!(answer.headers.contains_key(name));
        receipt_is_true(&self.stage, &answer.receipt(), self.version, &self.payer, amount);
    }
}

/// The receipt names the transaction that paid, as its version names networks.
pub(crate) fn receipt_is_true(
    stage: &Stage,
    receipt: &Receipt,
    version: Version,
    payer: &Payer,
    amount: i128,
) {
    assert!(receipt.success);
    let network = asset().network;
    match version {
        Version::V1 => assert_eq!(receipt.network, network.v1_name().unwrap()),
        Version::V2 => assert_eq!(receipt.network, network.to_string()),
    }
    assert_eq!(receipt.payer.as_ref().unwrap().to_lowercase(), payer.address().to_string().to_lowercase());
    let transfer = stage.sandbox().ledger.transaction(receipt.transaction.parse().unwrap());
    let transfer = transfer.expect("no such transaction").transfer().unwrap();
    assert_eq!((transfer.from, transfer.value.units()), (payer.address(), amount.try_into().unwrap()));
}

/// The result of a program that the sandbox did not run.
pub(crate) fn ran(answer: &Value, code: &str) {
    assert_eq!(answer["status"], "completed", "{answer}");
    assert!(answer["jobId"].is_string(), "{answer}");
    let result = &answer["result"];
    assert!(result["stdout"].as_str().unwrap().contains(code), "{result}");
    assert_eq!(result["stderr"], "");
    assert_eq!(result["exitCode"], 0);
    assert!(result["executionTime"].is_number(), "{result}");
    assert_eq!(result["provider"], "merit-systems");
    assert_eq!(result["priceUsd"].as_f64(), Some(0.000_336));
}

/// The result of a store.
pub(crate) fn stored(answer: &Value, provider: &str, size: usize, price: f64) {
    assert_eq!(answer["status"], "completed", "{answer}");
    let result = &answer["result"];
    assert_eq!(result["success"], true, "{result}");
    assert_eq!(result["provider"], provider, "{result}");
    assert_eq!(result["size"], size, "{result}");
    assert_eq!(result["priceUsd"].as_f64(), Some(price), "{result}");
    assert!(result["endpoint"].is_string(), "{result}");
    assert!(result["url"].as_str().unwrap().starts_with("http://"), "{result}");
    if provider == "openx402" {
        assert_eq!(result["cid"], result["ipfsHash"], "{result}");
        assert_eq!(result["url"], result["ipfsUrl"], "{result}");
        assert!(result["url"].as_str().unwrap().contains(result["cid"].as_str().unwrap()), "{result}");
    }
}

/// What an IPFS gateway shows of a stored result.
pub(crate) fn pinned(stage: &Stage, answer: &Value) -> Answer {
    let base = &stage.sandbox().urls.openx402;
    let path = answer["result"]["ipfsUrl"].as_str().unwrap().strip_prefix(base.as_str()).unwrap();
    let ipfs = Client::new(base.strip_prefix("http://").unwrap().parse().unwrap());
    let found = stage.run(ipfs.send(&Request::get(path)));
    assert_eq!(found.status, 200);
    found
}

/// A stored file: the same bytes, and nothing in them can run on the operator's origin.
pub(crate) fn read_back(read: &Answer, bytes: &[u8]) {
    assert_eq!(read.status, 200, "{read:?}");
    assert_eq!(read.body, bytes);
    assert_eq!(read.field("x-content-type-options"), Some("nosniff"));
    let policy = read.field("content-security-policy").unwrap();
    assert!(policy.contains("sandbox") && policy.contains("default-src 'none'"), "{policy}");
}

fn each_version(test: impl Fn(Version)) {
    test(Version::V1);
    test(Version::V2);
}
