//! What chains, payers, strangers and facilitators do to a payment, and that each job ends as the chain says.
//!
//! A gateway sells a route of its app; its facilitator does on a real chain what a test tells it to, and may say
//! something else; between the gateway and the chain stands a relay that breaks.

use std::collections::VecDeque;
use std::io;
use std::process::Command;
use std::sync::Arc;

use galaksio::x402::{Address, Authorization, B256, Version};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::anvil::{Chain, Settings};
use crate::between::{Between, Fault};
use crate::client::{Answer, Client, Request as Ask};
use crate::gateway::Gateway;
use crate::payer::{Payer, Payment};
use crate::rig::{PAY_TO, Setup, Stage, eventually};

const STRANGER: Address = Address::repeat_byte(0x55);

/// What the report costs, in atomic units, and what the payer has.
const PRICE: u64 = 1_000;
const PURSE: u64 = 5_000;

/// What a call of `/settle` does, and is answered with.
#[derive(Clone, Copy, Debug)]
enum Do {
    /// Settles, and says so.
    Settle,
    /// A stranger submits the transfer first; "nonce already used".
    Stranger,
    /// The payer cancels; "transaction failed".
    Cancel,
    /// The payer moves all he has; "insufficient funds".
    Empty,
    /// Nothing, and "settled".
    Lie,
    /// Settles, and the answer is lost.
    Lost,
    /// Settles, in a block that two later is none; the answer is lost.
    Reorganised,
    /// Nothing; "nonce already used".
    Refuse,
}

/// A facilitator that does what it is told to, and then refuses.
#[derive(Clone)]
struct Facilitator {
    chain: Arc<Chain>,
    plan: Arc<Mutex<VecDeque<Do>>>,
    payer_key: Arc<Mutex<String>>,
}

impl Facilitator {
    async fn start(self) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = self.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| this.clone().answer(request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        url
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let answer = match path.as_str() {
            "/supported" => json!({ "kinds": [
                { "x402Version": 2, "scheme": "exact", "network": "eip155:84532" },
                { "x402Version": 1, "scheme": "exact", "network": "base-sepolia" },
            ]}),
            "/verify" => json!({ "isValid": true }),
            _ => {
                let request: Value = serde_json::from_slice(&body).unwrap();
                match self.settle(&request["paymentPayload"]["payload"]).await {
                    Some(answer) => answer,
                    None => return Err(io::Error::other("hangs up, as told")),
                }
            }
        };
        Ok(Response::new(Full::new(answer.to_string().into())))
    }

    async fn settle(&self, payload: &Value) -> Option<Value> {
        let told = self.plan.lock().pop_front().unwrap_or(Do::Refuse);
        let authorization: Authorization = serde_json::from_value(payload["authorization"].clone()).unwrap();
        let signature: alloy::primitives::Bytes =
            serde_json::from_value(payload["signature"].clone()).unwrap();
        let chain = &self.chain;
        let submit = async |by| {
            let transaction = chain.submit(by, &authorization, &signature).await;
            assert!(chain.mined(transaction).await, "{told:?}: it reverted");
            transaction
        };
        let settled = |transaction: B256| json!({ "success": true, "transaction": transaction, "network": "eip155:84532" });
        let refused = |why: &str| json!({ "success": false, "errorReason": why, "transaction": "", "network": "eip155:84532" });
        match told {
            Do::Settle => Some(settled(submit(PAY_TO.parse().unwrap()).await)),
            Do::Stranger => {
                submit(STRANGER).await;
                Some(refused("invalid_exact_evm_nonce_already_used"))
            }
            Do::Cancel => {
                let key = self.payer_key.lock().clone();
                let transaction = chain.cancel(&key, authorization.from, authorization.nonce).await;
                assert!(chain.mined(transaction).await);
                Some(refused("invalid_exact_evm_transaction_failed"))
            }
            Do::Empty => {
                let all = chain.balance(authorization.from).await;
                let transaction = chain.transfer(authorization.from, STRANGER, all).await;
                assert!(chain.mined(transaction).await);
                Some(refused("insufficient_funds"))
            }
            Do::Lie => Some(settled(B256::repeat_byte(0x11))),
            Do::Lost => {
                submit(PAY_TO.parse().unwrap()).await;
                None
            }
            Do::Reorganised => {
                chain.pause().await;
                let transaction = chain.submit(STRANGER, &authorization, &signature).await;
                chain.mine(1).await;
                assert!(chain.mined(transaction).await);
                chain.reorg(2).await;
                chain.drop_transaction(transaction).await;
                assert!(!chain.is_used(authorization.from, authorization.nonce).await);
                chain.resume().await;
                None
            }
            Do::Refuse => Some(refused("invalid_exact_evm_nonce_already_used")),
        }
    }
}

/// A gateway that sells, and all that it depends on.
struct Shop {
    // In the order in which they are to go.
    gateway: Gateway,
    _stage: Stage,
    rpc: Between,
    chain: Arc<Chain>,
    payer: Payer,
    plan: Arc<Mutex<VecDeque<Do>>>,
    runtime: Runtime,
}

const REPORT: &str = "/premium/report";

impl Shop {
    /// With this setting of `[[chains]]`.
    fn open(plan: &[Do], chains: &str) -> Shop {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let chain = Arc::new(runtime.block_on(Chain::start(Settings::default())));
        let rpc = runtime.block_on(Between::start(&chain.url));
        let payer = Payer::new();
        runtime.block_on(chain.mint(payer.address(), PURSE));
        let plan = Arc::new(Mutex::new(plan.iter().copied().collect::<VecDeque<_>>()));
        let payer_key = Arc::new(Mutex::new(payer.key()));
        let facilitator = Facilitator { chain: Arc::clone(&chain), plan: Arc::clone(&plan), payer_key };
        let url = runtime.block_on(facilitator.start());
        let tables = format!(
            "[[routes]]\npath = \"/premium/*\"\nprice = \"$0.001\"\n\
             [[chains]]\nnetwork = \"base-sepolia\"\nrpc = [{:?}]\nfinal_blocks = 2\n{chains}\n",
            rpc.url
        );
        let setup = Setup::new().routes(&tables).text("facilitator", "url", &url);
        let stage = setup.text("facilitator", "unknown_hold", "8s").start();
        let gateway = stage.cold_gateway();
        Shop { gateway, _stage: stage, rpc, chain, payer, plan, runtime }
    }

    fn run<F: Future>(&self, part: F) -> F::Output {
        self.runtime.block_on(part)
    }

    fn client(&self) -> Client {
        self.gateway.client()
    }

    fn sign(&self) -> Payment {
        self.run(self.client().sign(&Ask::get(REPORT), &self.payer, Version::V2))
    }

    fn present(&self, payment: &Payment) -> Answer {
        self.run(self.client().send(&Ask::get(REPORT).paid(payment)))
    }

    /// What the payer has left, and what the payee got.
    #[track_caller]
    fn books(&self, payer: u64, payee: u64) {
        let found = self.run(async {
            (
                self.chain.balance(self.payer.address()).await,
                self.chain.balance(PAY_TO.parse().unwrap()).await,
            )
        });
        assert_eq!(found, (payer, payee), "payer, payee");
    }

    /// The one transfer that paid for it.
    fn transaction(&self, payment: &Payment) -> String {
        let nonces = self.run(self.chain.spent_since(0, self.payer.address()));
        assert_eq!(nonces, [payment.authorization.nonce]);
        let transfers = self.run(self.chain.transfers_since(0));
        let payee: Address = PAY_TO.parse().unwrap();
        let of_this: Vec<_> = transfers.iter().filter(|transfer| transfer.to == payee).collect();
        assert_eq!(of_this.len(), 1, "{transfers:?}");
        of_this[0].transaction.to_string()
    }

    /// It is sold, by the transfer on the chain, and again.
    #[track_caller]
    fn is_sold(&self, payment: &Payment, answer: &Answer) {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.receipt().transaction, self.transaction(payment));
        self.books(PURSE - PRICE, PRICE);
        let again = self.present(payment);
        assert_eq!((again.status, &again.receipt().transaction), (200, &answer.receipt().transaction));
    }
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn a_payment_that_a_stranger_submitted_first_is_a_payment() {
    let shop = Shop::open(&[Do::Stranger], "");
    let payment = shop.sign();
    let answer = shop.present(&payment);
    shop.is_sold(&payment, &answer);
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn a_payment_that_is_cancelled_between_verify_and_settle_is_none() {
    let shop = Shop::open(&[Do::Cancel], "");
    let answer = shop.present(&shop.sign());
    answer.expect(402, "settlement_refused", Some("no"), Some("new_payment"));
    assert_eq!(answer.json()["details"]["message"], "the payer cancelled the authorization");
    shop.books(PURSE, 0);
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn a_payer_who_moves_his_money_between_verify_and_settle_gets_nothing() {
    let shop = Shop::open(&[Do::Empty], "");
    let answer = shop.present(&shop.sign());
    answer.expect(402, "settlement_refused", Some("no"), Some("new_payment"));
    shop.books(0, 0);
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn a_settlement_without_an_answer_is_found_on_the_chain() {
    let shop = Shop::open(&[Do::Lost], "");
    let payment = shop.sign();
    let answer = shop.present(&payment);
    shop.is_sold(&payment, &answer);
    // It was not asked to settle again, or its refusal would be used up.
    assert!(shop.plan.lock().is_empty());
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn a_payment_that_a_reorganisation_undid_is_settled_again() {
    let shop = Shop::open(&[Do::Reorganised, Do::Settle], "");
    let payment = shop.sign();
    let answer = shop.present(&payment);
    shop.is_sold(&payment, &answer);
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn while_the_endpoint_is_down_nothing_is_decided() {
    let shop = Shop::open(&[Do::Lost], "");
    let payment = shop.sign();
    shop.rpc.set(Fault::Down);
    let answer = shop.present(&payment);
    answer.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
    shop.books(PURSE - PRICE, PRICE);
    shop.rpc.set(Fault::None);
    let answer = known(&shop, &payment);
    shop.is_sold(&payment, &answer);
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn an_endpoint_that_is_too_slow_decides_nothing_and_holds_nobody_longer() {
    let shop = Shop::open(&[Do::Lost], "timeout = \"500ms\"");
    let payment = shop.sign();
    shop.rpc.set(Fault::Slow(std::time::Duration::from_secs(5)));
    let began = std::time::Instant::now();
    let answer = shop.present(&payment);
    answer.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
    // Eight seconds by the configuration, and one more question.
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    shop.rpc.set(Fault::None);
    let answer = known(&shop, &payment);
    shop.is_sold(&payment, &answer);
}

/// It knows the state and not how it came about: that is no proof either way.
#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn while_the_endpoint_has_no_logs_nothing_is_decided() {
    let shop = Shop::open(&[Do::Lost], "timeout = \"1s\"");
    let payment = shop.sign();
    shop.rpc.set(Fault::Unanswered("eth_getLogs"));
    let answer = shop.present(&payment);
    answer.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
    shop.rpc.set(Fault::None);
    let answer = known(&shop, &payment);
    shop.is_sold(&payment, &answer);
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn a_head_that_stands_still_proves_nothing() {
    // Longer than a block takes on a machine under load, shorter than the client is held.
    let shop = Shop::open(&[Do::Lost], "max_head_age = \"5s\"");
    let payment = shop.sign();
    // The chain stops before the payment is in a block that the endpoint shows, and its head grows old.
    shop.run(async {
        shop.chain.pause().await;
        let head = shop.chain.head().await.timestamp;
        eventually("a stale head", async || {
            (galaksio::clock::Clock::system().now() > head + 6).then_some(())
        })
        .await;
    });
    shop.plan.lock().push_front(Do::Refuse);
    let answer = shop.present(&payment);
    answer.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
    shop.books(PURSE, 0);
    shop.run(shop.chain.resume());
    shop.run(async {
        let signature: alloy::primitives::Bytes =
            serde_json::from_value(payment.document["payload"]["signature"].clone()).unwrap();
        let transaction = shop.chain.submit(STRANGER, &payment.authorization, &signature).await;
        assert!(shop.chain.mined(transaction).await);
    });
    let answer = known(&shop, &payment);
    shop.is_sold(&payment, &answer);
}

/// The same payment again, until somebody knows. Recovery may have looked a moment too early, and waits for a minute.
fn known(shop: &Shop, payment: &Payment) -> Answer {
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(120);
    loop {
        let answer = shop.present(payment);
        if answer.status != 503 {
            return answer;
        }
        assert!(std::time::Instant::now() < give_up, "nobody ever knows: {answer:?}");
    }
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn a_facilitator_that_settles_nothing_is_found_out_and_nothing_more_is_sold() {
    let shop = Shop::open(&[Do::Lie], "max_head_age = \"1d\"");
    let answer = shop.present(&shop.sign());
    // It is believed at first.
    assert_eq!(answer.status, 200, "{answer:?}");
    shop.books(PURSE, 0);
    shop.run(async {
        shop.chain.travel(120).await;
        shop.chain.mine(3).await;
        let closed = async || {
            let answer = shop.client().send(&Ask::get(REPORT)).await;
            (answer.status == 503).then_some(answer)
        };
        let answer = eventually("the shop to close", closed).await;
        answer.expect(503, "facilitator_away", None, None);
        let metrics = Client::new(shop.gateway.admin).send(&Ask::get("/metrics")).await;
        let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
        let missing = "galaksio_settlements_audited_total{outcome=\"missing\"} 1";
        assert!(metrics.lines().any(|line| line == missing), "{metrics}");
    });
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn a_facilitator_that_settles_is_found_honest() {
    let shop = Shop::open(&[Do::Settle], "max_head_age = \"1d\"");
    let payment = shop.sign();
    let answer = shop.present(&payment);
    shop.is_sold(&payment, &answer);
    shop.run(eventually("the payment to be found", async || {
        let metrics = Client::new(shop.gateway.admin).send(&Ask::get("/metrics")).await;
        let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
        let found = "galaksio_settlements_audited_total{outcome=\"found\"} 1";
        metrics.lines().any(|line| line == found).then_some(())
    }));
}

/// What the configuration says, and what `check --online` and `serve` make of it on this chain.
#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn another_chain_and_another_token_are_told_before_anything_is_sold() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let chain = runtime.block_on(Chain::start(Settings::instant()));
    let other = Address::repeat_byte(0x70);
    runtime.block_on(chain.place_token(other, "Other Dollar", "3"));
    let accept = |asset: Address, name: &str| {
        format!("asset = \"{asset}\"\nname = \"{name}\"\nversion = \"3\"\ndecimals = 6\nusd_pegged = true\n")
    };
    let (nobody, elsewhere) = (Address::repeat_byte(0x71), "base");
    let table = [
        ("base-sepolia", String::new(), ""),
        ("base-sepolia", accept(other, "Other Dollar"), ""),
        (
            "base-sepolia",
            accept(other, "Dollar"),
            "says that its name is \"Other Dollar\" and its version \"3\"",
        ),
        ("base-sepolia", accept(nobody, "Dollar"), "there is no contract at 0x7171"),
        (elsewhere, String::new(), "is of chain 84532, not of eip155:8453"),
    ];
    let folder = tempfile::TempDir::new().unwrap();
    for (number, (network, asset, wrong)) in table.into_iter().enumerate() {
        let path = folder.path().join(format!("{number}.toml"));
        let toml = format!(
            "[edge]\nlisten = [\"127.0.0.1:0\"]\n[app]\nurl = \"http://127.0.0.1:1\"\n\
             [[routes]]\npath = \"/premium/*\"\nprice = \"$0.001\"\n\
             [[accepts]]\nnetwork = \"{network}\"\npay_to = \"{PAY_TO}\"\n{asset}\
             [[chains]]\nnetwork = \"{network}\"\nrpc = [{:?}]\n[store]\npath = {:?}\n[admin]\nlisten = \"\"\n",
            chain.url,
            folder.path().join("jobs.redb"),
        );
        std::fs::write(&path, toml).unwrap();
        let said = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_galaksio"));
            let output = command.args(arguments).arg("--config").arg(&path).env_clear().output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        // Offline the file is right.
        assert_eq!(said(&["check"]).0, Some(0), "{number}");
        let (code, text) = said(&["check", "--online"]);
        assert_eq!(code, Some(if wrong.is_empty() { 0 } else { 78 }), "{number}: {text}");
        if !wrong.is_empty() {
            assert!(text.contains(wrong) && text.contains("fix: correct"), "{number}: {text}");
            let (code, text) = said(&["serve"]);
            assert_eq!(code, Some(1), "{number}: {text}");
            assert!(text.contains(wrong), "{number}: {text}");
        }
    }
}
