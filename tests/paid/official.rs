//! The official clients, unmodified, buy everything that is sold.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use galaksio::x402::{Receipt, Version};
use serde_json::{Value, json};

use crate::batch::form;
use crate::bodies::FORM;
use crate::client::Request;
use crate::gateway::Gateway;
use crate::payer::Payer;
use crate::rig::{Books, Setup, Stage, eventually};
use crate::sold::*;

#[test]
#[ignore = "needs node; `make test` runs it"]
fn x402_fetch_2_buys_everything() {
    Shopper::new("pay-v2.mjs", Version::V2).buys_everything();
}

#[test]
#[ignore = "needs node; `make test` runs it"]
fn legacy_x402_fetch_buys_everything() {
    Shopper::new("pay-v1.mjs", Version::V1).buys_everything();
}

/// An answer that comes before its settlement has no receipt, and the clients do not mind.
#[test]
#[ignore = "needs node; `make test` runs it"]
fn official_clients_take_an_answer_without_a_receipt() {
    let routes = "[[routes]]\npath = \"/premium/*\"\nprice = \"$0.001\"\nsettle = \"after\"\n";
    for (program, version) in [("pay-v2.mjs", Version::V2), ("pay-v1.mjs", Version::V1)] {
        let stage = Setup::new().routes(routes).start();
        let gateway = stage.cold_gateway();
        let shopper = Shopper::at(stage, gateway, program, version);
        let before = shopper.stage.books(shopper.payer.address());
        let answer = shopper.says(&["--url", &shopper.url("/premium/report")]);
        assert_eq!(
            (&answer["status"], &answer["body"]["title"]),
            (&json!(200), &json!("Monthly report")),
            "{answer}"
        );
        assert_eq!(answer["receipt"], Value::Null, "{answer}");
        // Paid for once, right after.
        let sale = Books { payer: -PREMIUM, payee: PREMIUM, ..Books::default() };
        let books = || shopper.stage.books(shopper.payer.address()).since(before);
        shopper.stage.run(eventually("it is paid for", async || (books() == sale).then_some(())));
    }
}

/// A client that signs anew by the same `payment-identifier` is not charged again.
#[test]
#[ignore = "needs node; `make test` runs it"]
fn x402_fetch_2_pays_once_for_what_it_names() {
    let shopper = Shopper::new("pay-v2.mjs", Version::V2);
    shopper.priced(&Request::run("print(1)"));
    let url = shopper.url("/run");
    let ask = |code: &str, sale: Books| {
        let body = json!({ "code": code }).to_string();
        let id = ["--payment-id", "pay_7d5d747be160e280504c099d984bcfe0"];
        let rest = ["--url", &url, "--method", "POST", "--content-type", "application/json", "--body", &body];
        shopper.ask(&[id.as_slice(), &rest].concat(), sale)
    };
    let sale = Books { payer: -RUN, payee: RUN, wallet: -RUN_COST, merit: RUN_COST, ..Books::default() };
    let first = ask("print(1)", sale);
    assert_eq!(first["status"], 200, "{first}");
    let again = ask("print(1)", Books::default());
    assert_eq!((&again["status"], &again["body"]["status"]), (&json!(200), &json!("completed")), "{again}");
    assert_eq!(again["body"]["jobId"], first["body"]["jobId"]);
    assert_eq!(again["receipt"], first["receipt"]);
    assert_ne!(again["payment"], first["payment"], "it did sign anew");
    let other = ask("print(2)", Books::default());
    assert_eq!(
        (&other["status"], &other["body"]["code"]),
        (&json!(409), &json!("identifier_reused")),
        "{other}"
    );
}

/// A program of `tests/clients`, and the shop it goes to.
struct Shopper {
    program: PathBuf,
    version: Version,
    payer: Payer,
    gateway: Gateway,
    stage: Stage,
}

impl Shopper {
    fn new(program: &str, version: Version) -> Shopper {
        let stage = Setup::new().start();
        let gateway = stage.gateway();
        Shopper::at(stage, gateway, program, version)
    }

    fn at(stage: Stage, gateway: Gateway, program: &str, version: Version) -> Shopper {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        assert!(
            folder.join("node_modules").is_dir(),
            "run `npm ci --ignore-scripts` in {}",
            folder.display()
        );
        Shopper { program: folder.join(program), version, payer: Payer::new(), gateway, stage }
    }

    fn buys_everything(&self) {
        self.store_a_file_as_json();
        self.store_raw_bytes();
        self.store_a_document();
        self.store_several_files();
        self.run_a_program();
        self.read_a_report();
    }

    fn store_a_file_as_json(&self) {
        let body = json!({ "data": base64(&file()), "filename": "photo.png", "options": { "ttl": 600 } });
        let sale = Books { payer: -SET, payee: SET, ..Books::default() };
        let answer = self.post("/store", "application/json", body.to_string().as_bytes(), sale);
        stored(&answer, "xcache", file().len(), 0.000_12);
        let address = format!("http://{}", self.gateway.address);
        let path = answer["result"]["url"].as_str().unwrap().strip_prefix(address.as_str()).unwrap();
        assert!(path.starts_with("/files/"), "{path}");
        let read = self.stage.run(self.gateway.client().send(&Request::get(path)));
        read_back(&read, &file());
        assert_eq!(read.field("content-type"), Some("image/png"));
    }

    fn store_raw_bytes(&self) {
        let sale =
            Books { payer: -PIN, payee: PIN, wallet: -PIN_COST, openx402: PIN_COST, ..Books::default() };
        // As many as are taken: they are sent twice, the first time for nothing but the price.
        let bytes = file().repeat(3_000)[..10 << 20].to_vec();
        let answer = self.post("/store?permanent=true", "application/octet-stream", &bytes, sale);
        stored(&answer, "openx402", bytes.len(), 0.012);
        assert_eq!(pinned(&self.stage, &answer).body, bytes);
    }

    fn store_a_document(&self) {
        let document = json!({ "name": "a document", "list": [1, 2, 3] });
        let body = json!({ "data": document, "options": { "permanent": true } });
        let sale =
            Books { payer: -PIN, payee: PIN, wallet: -PIN_COST, openx402: PIN_COST, ..Books::default() };
        let answer = self.post("/store", "application/json", body.to_string().as_bytes(), sale);
        stored(&answer, "openx402", document.to_string().len(), 0.012);
        assert_eq!(pinned(&self.stage, &answer).json(), document);
    }

    fn store_several_files(&self) {
        let sale = Books {
            payer: -2 * PIN,
            payee: 2 * PIN,
            wallet: -2 * PIN_COST,
            openx402: 2 * PIN_COST,
            ..Books::default()
        };
        let files = [("a.png", file()), ("b.png", b"another".to_vec())];
        let answer = self.post("/store?files=2&permanent=true", FORM, &form(&files), sale);
        assert_eq!(answer["result"]["success"], true, "{answer}");
        for ((name, bytes), result) in files.iter().zip(answer["result"]["results"].as_array().unwrap()) {
            assert_eq!(result["filename"], *name);
            assert_eq!(pinned(&self.stage, &json!({ "result": result })).body, bytes);
        }
    }

    fn run_a_program(&self) {
        let sale = Books { payer: -RUN, payee: RUN, wallet: -RUN_COST, merit: RUN_COST, ..Books::default() };
        let body = json!({ "code": "print(6 * 7)", "language": "python" }).to_string();
        ran(&self.post("/run", "application/json", body.as_bytes(), sale), "print(6 * 7)");
    }

    fn read_a_report(&self) {
        let sale = Books { payer: -PREMIUM, payee: PREMIUM, ..Books::default() };
        let report = self.buy(&["--url", &self.url("/premium/report")], sale);
        assert_eq!(report["title"], "Monthly report");
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address)
    }

    /// Waits until the price is known: the first time it may come too late, and the programs do not ask again.
    fn priced(&self, request: &Request) {
        self.stage.run(self.gateway.client().challenge(request));
    }

    fn post(&self, path: &str, content_type: &str, body: &[u8], sale: Books) -> Value {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), body).unwrap();
        self.priced(&Request::post(path, content_type, body.to_vec()));
        let (url, body) = (self.url(path), format!("@{}", file.path().display()));
        let arguments = ["--url", &url, "--method", "POST", "--content-type", content_type, "--body", &body];
        self.buy(&arguments, sale)
    }

    /// Buys; `sale` is what it must do to the books. Returns the body of the answer.
    fn buy(&self, arguments: &[&str], sale: Books) -> Value {
        let mut answer = self.ask(arguments, sale);
        assert_eq!(answer["status"], 200, "{arguments:?}: {answer}");
        let receipt: Receipt = serde_json::from_value(answer["receipt"].take()).unwrap();
        receipt_is_true(&self.stage, &receipt, self.version, &self.payer, sale.payee);
        let header = match self.version {
            Version::V1 => "x-payment",
            Version::V2 => "payment-signature",
        };
        assert_eq!(answer["payment"]["name"], header);
        answer["body"].take()
    }

    /// Asks, and pays if asked to; `sale` is what that must do to the books. Returns what the program says.
    fn ask(&self, arguments: &[&str], sale: Books) -> Value {
        let before = self.stage.books(self.payer.address());
        let answer = self.says(arguments);
        assert_eq!(self.stage.books(self.payer.address()).since(before), sale, "{arguments:?}: {answer}");
        answer
    }

    /// What the program says.
    fn says(&self, arguments: &[&str]) -> Value {
        let output = Command::new("node")
            .arg(&self.program)
            .args(["--key", &self.payer.key()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("these tests need node in the PATH; `make test` installs it");
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}
