//! The hostile battery: whatever providers and facilitators answer, as a table. No client is charged for nothing or asked to
//! pay anew while it may have paid, and no provider has more than one payment.
//!
//! What is read of such an answer, word by word, is in the unit tests of `x402`, `providers` and `facilitator`; here it
//! arrives over sockets at a whole gateway, and the money is counted. Payers and strangers are in `tests/chain/faults.rs`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use galaksio::x402::Version;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Request};
use crate::payer::Payer;
use crate::rig::{Books, Setup, eventually};
use crate::seller::{PAYEE, Reply, Seen, Seller, terms};
use crate::sold::{RUN, RUN_COST};

/// What the provider of a language of its own asks for.
const PRICE: u64 = 280;

fn provider(seller: &Seller) -> String {
    format!(
        "[[provider]]\nname = \"acme\"\nkind = \"run\"\nlanguages = [\"forth\"]\nurl = \"{}\"\n\
         body = '{{\"code\": \"{{text}}\"}}'\nresult = {{ stdout = \"/out\" }}\n",
        seller.url()
    )
}

fn forth() -> Request {
    Request::json("/run", &json!({ "code": "1 2 + .", "language": "forth" }))
}

fn asks(change: impl FnOnce(&mut Value)) -> Reply {
    let mut terms = terms(PRICE, PAYEE);
    change(&mut terms["accepts"]);
    Reply::Json(402, terms)
}

/// The entry that can be paid, behind so many in a token nobody has.
fn behind(others: usize) -> Reply {
    asks(|accepts| {
        let good = accepts[0].clone();
        let mut other = good.clone();
        other["asset"] = PAYEE.into();
        let mut entries = vec![other; others];
        entries.push(good);
        *accepts = entries.into();
    })
}

/// An answer with this status and a header of so many bytes, beside the usual terms.
fn with_header(status: u16, name: &str, bytes: usize) -> Reply {
    let body = terms(PRICE, PAYEE).to_string();
    let (value, length) = ("a".repeat(bytes), body.len());
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n");
    Reply::Raw(format!("{head}{name}: {value}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes())
}

/// "Ask over there", where nobody outside is to be let.
fn redirect(status: u16, to: &str) -> Reply {
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\nlocation: {to}\r\n");
    Reply::Raw(format!("{head}content-length: 0\r\n\r\n").into_bytes())
}

/// What a provider answers; it is told where something private listens.
type Answers = fn(&str) -> Reply;

/// What it makes of the question for its price. `Some` is the price that clients are told, in atomic units.
const PRICES: [(&str, Answers, Option<&str>); 11] = [
    ("what is due", |_| Reply::Json(402, terms(PRICE, PAYEE)), Some("336")),
    ("forty entries, the last of which can be paid", |_| behind(39), Some("336")),
    ("more than forty entries", |_| behind(40), None),
    ("a megabyte of header", |_| with_header(402, "x-large", 1 << 20), None),
    ("a megabyte of challenge in a header", |_| with_header(402, "payment-required", 1 << 20), None),
    ("a redirect to a private address", |private| redirect(302, private), None),
    ("a redirect that keeps the method", |private| redirect(307, private), None),
    ("no entry", |_| asks(|accepts| *accepts = json!([])), None),
    ("a negative price", |_| asks(|accepts| accepts[0]["maxAmountRequired"] = "-280".into()), None),
    ("more than there is", |_| asks(|accepts| accepts[0]["maxAmountRequired"] = "9".repeat(80).into()), None),
    ("a price without a 402", |_| Reply::Json(200, terms(PRICE, PAYEE)), None),
];

#[test]
fn whatever_a_provider_says_of_its_price() {
    for (row, answers, price) in PRICES {
        let private = Seller::start(|_, _| Reply::Json(402, terms(1, PAYEE)));
        let url = private.url();
        let seller = Seller::start(move |_, _| answers(&url));
        let stage = Setup::new().provider(&provider(&seller)).start();
        let gateway = stage.gateway();
        stage.run(async {
            match price {
                Some(price) => {
                    let answer = gateway.client().challenge(&forth()).await;
                    assert_eq!(answer.json()["accepts"][0]["maxAmountRequired"], price, "{row}");
                }
                None => {
                    let answer = gateway.client().send(&forth()).await;
                    assert!(answer.status >= 500 && !answer.is_challenge(), "{row}: {answer:?}");
                }
            }
        });
        assert_eq!((seller.payments(), private.seen().len()), (0, 0), "{row}: paid, or led elsewhere");
    }
}

/// What it makes of the purchase after it told the right price, and where the job is then. Paid is nobody in the first
/// part of the table, and in the second once.
const UNPAID: [(&str, Answers); 8] = [
    ("ten times the price", |_| asks(|accepts| accepts[0]["maxAmountRequired"] = "2800".into())),
    ("a deadline that is over", |_| asks(|accepts| accepts[0]["maxTimeoutSeconds"] = 0.into())),
    ("more than forty entries", |_| behind(40)),
    ("another payee behind the same words", |_| {
        asks(|accepts| accepts[0]["payTo"] = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F".into())
    }),
    ("a token of another name", |_| asks(|accepts| accepts[0]["extra"]["name"] = "USD Coin".into())),
    ("a megabyte of header", |_| with_header(402, "x-large", 1 << 20)),
    ("a redirect to a private address", |private| redirect(302, private)),
    ("a redirect that keeps the method", |private| redirect(307, private)),
];
const PAID: [(&str, Answers); 5] = [
    ("a 402 for ever", |_| Reply::Json(402, terms(PRICE, PAYEE))),
    ("a 402 for ten times as much", |_| asks(|accepts| accepts[0]["maxAmountRequired"] = "2800".into())),
    ("a redirect to a private address", |private| redirect(307, private)),
    ("a megabyte of header", |_| with_header(200, "x-large", 1 << 20)),
    ("a page", |_| with_header(200, "x-small", 1)),
];

#[test]
fn whatever_a_provider_does_when_it_is_bought_from() {
    let unpaid = UNPAID.map(|(row, answers)| (row, answers, false));
    let paid = PAID.map(|(row, answers)| (row, answers, true));
    for (row, answers, is_paid) in unpaid.into_iter().chain(paid) {
        let private = Seller::start(|_, _| Reply::Json(200, json!({ "out": "3" })));
        let (url, turned) = (private.url(), Arc::new(AtomicUsize::new(0)));
        let now = Arc::clone(&turned);
        let seller = Seller::start(move |seen, _| {
            let strikes = if is_paid { seen.payment.is_some() } else { now.load(Ordering::SeqCst) == 1 };
            if strikes { answers(&url) } else { Reply::Json(402, terms(PRICE, PAYEE)) }
        });
        let stage = Setup::new().provider(&provider(&seller)).start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let paid = forth().paid(&client.sign(&forth(), &payer, Version::V2).await);
            turned.store(1, Ordering::SeqCst);
            let before = stage.movements();
            let (code, retry, state) = match is_paid {
                true => ("provider_lost", "new_payment", "held"),
                false => ("provider_failed", "same_payment", "voided"),
            };
            for _ in 0..2 {
                let answer = client.send(&paid).await;
                answer.expect(502, code, Some("no"), Some(retry));
                assert_eq!(job(&client, &answer).await["state"], state, "{row}");
            }
            assert_eq!(stage.movements(), before, "{row}: charged");
        });
        assert_eq!(seller.payments(), usize::from(is_paid), "{row}: payments that left");
        assert!(private.seen().is_empty(), "{row}: led elsewhere");
    }
}

/// What a facilitator answers in place of the truth; `None` is nothing at all.
type Lies = fn(Value) -> Option<Reply>;

fn with(mut answer: Value, changes: Value) -> Option<Reply> {
    for (name, value) in changes.as_object().unwrap() {
        answer[name] = value.clone();
    }
    Some(Reply::Json(200, answer))
}

fn page() -> Reply {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n";
    Reply::Raw(format!("{head}content-length: 15\r\n\r\n<html>ok</html>").into_bytes())
}

/// What it does with a settlement, and whether the money moved. Whatever it says, it says every time.
const SETTLEMENTS: [(&str, bool, Lies); 9] = [
    ("settles, and then 502", true, |_| Some(Reply::Json(502, json!({ "error": "bad gateway" })))),
    ("settles, and then a page", true, |_| Some(page())),
    ("settles, and hangs up", true, |_| Some(Reply::Drop)),
    ("settles, and never says", true, |_| None),
    ("settles, and is pending for ever", true, |truth| {
        with(truth, json!({ "success": false, "errorReason": "settlement_pending" }))
    }),
    ("settles, and says that it failed", true, |truth| {
        with(truth, json!({ "success": false, "errorReason": "transaction_failed" }))
    }),
    ("settles, for another payer", true, |truth| with(truth, json!({ "payer": PAYEE }))),
    ("settles, on another network", true, |truth| with(truth, json!({ "network": "eip155:8453" }))),
    ("is pending for ever, and does nothing", false, |_| {
        let hash = format!("0x{}", "5e".repeat(32));
        with(json!({ "success": false, "transaction": hash }), json!({ "errorReason": "settlement_pending" }))
    }),
];

#[test]
fn whatever_a_facilitator_says_of_a_settlement() {
    for (row, settles, lies) in SETTLEMENTS {
        // Nobody can be asked: it stays unknown. With a chain to ask it is what the chain says.
        for asks_chain in [false, true] {
            let mut setup = Setup::new().text("facilitator", "unknown_hold", "1s");
            setup = setup.text("facilitator", "settle_timeout", "1s");
            let mut stage = if asks_chain { setup.asking_the_chain() } else { setup }.start();
            let honest = stage.sandbox().urls.facilitator.clone();
            let between = Seller::start(move |seen, _| {
                if seen.path != "/settle" {
                    let (status, answer) = forward(&honest, seen);
                    return Reply::Json(status, answer);
                }
                let truth = if settles { forward(&honest, seen).1 } else { Value::Null };
                lies(truth).unwrap_or_else(|| {
                    std::thread::sleep(Duration::from_millis(1_500));
                    Reply::Drop
                })
            });
            stage.change("facilitator", "url", &between.base());
            let gateway = stage.gateway();
            let (client, payer) = (gateway.client(), Payer::new());
            let request = Request::run("1");
            stage.run(async {
                let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
                let before = stage.books(payer.address());
                let charged = if settles { RUN } else { 0 };
                for _ in 0..2 {
                    let answer = client.send(&paid).await;
                    if settles && asks_chain {
                        assert_eq!(answer.status, 200, "{row}: {answer:?}");
                        let transaction = answer.receipt().transaction.parse().unwrap();
                        assert!(stage.sandbox().ledger.transaction(transaction).is_some(), "{row}");
                    } else {
                        answer.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
                        assert!(!answer.is_challenge(), "{row}");
                    }
                    // A gateway that has waited long enough does not know how far the facilitator is.
                    eventually("the settlement", async || {
                        (stage.books(payer.address()).since(before).payer == -charged).then_some(())
                    })
                    .await;
                    let money = stage.books(payer.address()).since(before);
                    assert_eq!((money.payer, money.payee), (-charged, charged), "{row}");
                    let bought = Books { merit: RUN_COST, wallet: -RUN_COST, ..Books::default() };
                    assert_eq!(Books { payer: 0, payee: 0, ..money }, bought, "{row}: the provider");
                }
            });
        }
    }
}

/// The same request to the one that does as it should.
fn forward(base: &str, seen: &Seen) -> (u16, Value) {
    let address = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("{} {} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n", seen.method, seen.path);
    let head = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n", seen.body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&seen.body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// The job that an answer is about.
async fn job(client: &Client, answer: &Answer) -> Value {
    let id = answer.json()["jobId"].as_str().expect("no job").to_owned();
    client.send(&Request::get(&format!("/job/{id}"))).await.json()
}
