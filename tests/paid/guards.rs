//! What the wallet may not do is not sold: 503 before anybody signs. The app's own routes go on.

use galaksio::clock::Clock;
use galaksio::guard::Frozen;
use galaksio::money::Amount;
use galaksio::sandbox::Service;
use galaksio::sandbox::ledger::OPENING_BALANCE;
use galaksio::x402::{Address, Version};
use serde_json::json;

use crate::client::{Answer, Client, Request};
use crate::gateway::Gateway;
use crate::payer::Payer;
use crate::rig::{Setup, Stage, eventually};

/// Waits until `/run` is answered so.
async fn eventually_run(gateway: &Gateway, status: u16, code: &str) {
    let client = gateway.client();
    eventually(code, async || {
        let answer = client.send(&Request::run("1")).await;
        (answer.status == status && answer.code() == code).then_some(())
    })
    .await;
}

/// Free and priced routes of the app are served, and so is what was paid before.
async fn the_app_goes_on(gateway: &Gateway) {
    let client = gateway.client();
    assert_eq!(client.send(&Request::get("/hello")).await.status, 200);
    let answer = client.buy(&Request::get("/premium/report"), &Payer::new(), Version::V2).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn wallet_check(gateway: &Gateway) -> (u16, serde_json::Value) {
    let ready = Client::new(gateway.admin).send(&Request::get("/ready")).await;
    let checks = ready.json()["checks"].as_array().unwrap().clone();
    let wallet = checks.into_iter().find(|check| check["name"] == "wallet");
    (ready.status, wallet.unwrap_or_default())
}

#[test]
fn a_frozen_wallet_sells_nothing_that_it_would_pay_for() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let request = Request::run("print(1)");
    let switch = stage.switch();
    stage.run(async {
        let used = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        let answer = client.send(&used).await;
        assert_eq!(answer.status, 200);
        let unused = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);

        let frozen = Frozen { reason: "a key leaked".into(), by: "operator".into(), since: 1 };
        switch.throw(&frozen).await.unwrap();
        eventually_run(&gateway, 503, "wallet_frozen").await;
        let bought = stage.purchases(Service::Merit);
        client.send(&unused).await.expect(503, "wallet_frozen", Some("no"), Some("same_payment"));
        let store = Request::json("/store", &json!({ "data": "x", "ttl": 60 }));
        client.send(&store).await.expect(503, "wallet_frozen", None, None);
        // What was paid for is still given.
        assert_eq!(client.send(&used).await.body, answer.body);
        the_app_goes_on(&gateway).await;
        assert_eq!(stage.purchases(Service::Merit), bought);
        let (status, wallet) = eventually("/ready says so", async || {
            let seen = wallet_check(&gateway).await;
            (seen.1["ok"] == false).then_some(seen)
        })
        .await;
        assert_eq!((status, &wallet["reason"]), (200, &json!("frozen by the operator: a key leaked")));
        assert_eq!(wallet["only_for"], "brokered routes");

        switch.release().await.unwrap();
        eventually_run(&gateway, 402, "payment_required").await;
        assert_eq!(client.send(&unused).await.status, 200, "the payment was not used up");
    });
}

#[test]
fn a_spent_budget_closes_what_costs_money() {
    // A program costs $0.00028.
    let stage = Setup::new()
        .text("wallet", "max_payment", "$0.01")
        .text("limits", "provider_spend_per_hour", "$0.01")
        .text("limits", "spend_per_hour", "$5")
        .text("limits", "exposure", "$1")
        .text("limits", "payer_exposure", "$1")
        .start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        eventually_run(&gateway, 402, "payment_required").await;
        let mut sold = 0;
        let last = loop {
            let answer = client.buy(&Request::run(&sold.to_string()), &payer, Version::V2).await;
            match answer.status {
                200 => sold += 1,
                _ => break answer,
            }
            assert!(sold < 1_000, "there is no limit");
        };
        last.expect(503, "budget_spent", Some("no"), Some("same_payment"));
        let spent = paid_by_the_wallet(&stage, Service::Merit);
        assert!(
            spent.units() <= 10_000 && spent.units() > 9_000 && stage.sales() == sold,
            "{spent} for {sold}"
        );
        // From now on nobody is asked to pay.
        client.send(&Request::run("1")).await.expect(503, "budget_spent", None, None);
        the_app_goes_on(&gateway).await;
    });
}

#[test]
fn an_empty_wallet_promises_nothing() {
    let stage = Setup::new().asking_the_chain().start();
    stage.sandbox().ledger.set_balance(stage.wallet(), Amount::new(1));
    let gateway = stage.cold_gateway();
    stage.run(async {
        eventually_run(&gateway, 503, "wallet_low").await;
        the_app_goes_on(&gateway).await;
        let metrics = Client::new(gateway.admin).send(&Request::get("/metrics")).await;
        let metrics = text(&metrics);
        let line = metrics.lines().find(|line| line.starts_with("galaksio_wallet_balance_atomic")).unwrap();
        assert!(line.ends_with(" 1"), "{line}");
        let paid = [Service::Merit, Service::XCache].map(|provider| paid_by_the_wallet(&stage, provider));
        assert_eq!((stage.sales(), paid), (1, [Amount::ZERO; 2]), "only the app's own sale");
    });
}

#[test]
fn a_wallet_that_has_enough_sells_by_the_chains_word() {
    let stage = Setup::new().asking_the_chain().start();
    let gateway = stage.gateway();
    stage.run(async {
        let answer = gateway.client().buy(&Request::run("1"), &Payer::new(), Version::V2).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    });
}

#[test]
fn a_profit_below_the_floor_is_not_made() {
    let stage = Setup::new().text("limits", "profit_floor", "$1").start();
    let gateway = stage.cold_gateway();
    stage.run(async {
        // Before there is a price, and after.
        eventually_run(&gateway, 503, "no_provider").await;
        not_sold_because_of(&gateway, "profit_floor").await;
        the_app_goes_on(&gateway).await;
    });
}

/// `/run` is not sold, and once its price is known, that is because of this guard.
async fn not_sold_because_of(gateway: &Gateway, guard: &str) {
    let (client, admin) = (gateway.client(), Client::new(gateway.admin));
    let line = format!("galaksio_guard_refusals_total{{guard={guard:?}}}");
    eventually(&line, async || {
        client.send(&Request::run("1")).await.expect(503, "no_provider", None, None);
        let metrics = text(&admin.send(&Request::get("/metrics")).await);
        metrics.contains(&line).then_some(())
    })
    .await;
}

#[test]
fn providers_that_are_not_named_are_not_paid() {
    // Nobody's address.
    let named = Address::repeat_byte(0x77).to_string();
    let stage = Setup::new().list("wallet", "payees", &[&named]).start();
    let gateway = stage.cold_gateway();
    stage.run(async {
        eventually_run(&gateway, 503, "no_provider").await;
        not_sold_because_of(&gateway, "payee").await;
        the_app_goes_on(&gateway).await;
    });
    assert_eq!(stage.purchases(Service::Merit) + stage.purchases(Service::XCache), 0);
}

#[test]
fn the_books_are_those_of_the_chain() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let payer = Payer::new();
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            let answer = gateway.client().buy(&Request::run("1"), &payer, version).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        the_app_goes_on(&gateway).await;
        let books = ledger(&gateway).await;
        assert!(books.contains("the books balance"), "{books}");
        let received =
            (stage.balance(crate::rig::PAY_TO.parse().unwrap()) - OPENING_BALANCE.units() as i128) as u128;
        let decimal = |amount: Amount| amount.to_decimal(6);
        assert_eq!(dollars(&books, "received"), decimal(Amount::new(received)), "{books}");
        assert_eq!(dollars(&books, "income"), format!("-{}", dollars(&books, "received")), "{books}");
        let merit = paid_by_the_wallet(&stage, Service::Merit);
        assert_eq!(dollars(&books, "provider_cost"), decimal(merit), "{books}");
        let xcache = paid_by_the_wallet(&stage, Service::XCache);
        assert_eq!(dollars(&books, "inventory"), decimal(xcache), "{books}");
    });
}

#[test]
fn the_books_of_what_was_sold_long_ago_are_the_same() {
    let clock = Clock::manual(Clock::system().now_millis());
    let stage = Setup::new().clock(&clock).text("paid", "retention", "1h").start();
    let gateway = stage.gateway();
    let accounts = |books: &str| -> Vec<String> {
        let lines = books.lines().skip(1).take_while(|line| !line.starts_with("the books"));
        lines.map(str::to_owned).collect()
    };
    let before = stage.run(async {
        gateway.client().challenge_by(&clock, &Request::run("0")).await;
        for number in 0..3 {
            let (request, payer) = (Request::run(&number.to_string()), Payer::by(clock.clone()));
            let answer = gateway.client().buy(&request, &payer, Version::V2).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        ledger(&gateway).await
    });
    assert!(before.contains("; 0 of the jobs are archived"), "{before}");
    assert_eq!(stage.archived(), 0);
    gateway.end();
    clock.advance(2 * 3_600_000);
    let gateway = stage.cold_gateway();
    stage.run(async {
        let books = eventually("old jobs to be archived", async || {
            let books = ledger(&gateway).await;
            books.contains("; 3 of the jobs are archived").then_some(books)
        });
        let books = books.await;
        assert!(books.contains("the books balance"), "{books}");
        assert_eq!(accounts(&books), accounts(&before));
        assert_eq!(stage.archived(), 3);
    });
}

/// The books, once the last answer's record is written: that follows it.
pub(crate) async fn ledger(gateway: &Gateway) -> String {
    let client = Client::new(gateway.admin);
    eventually("every job to be at rest", async || {
        let settling = client.send(&Request::get("/jobs?state=settling")).await.json();
        settling["jobs"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    let answer = client.send(&Request::get("/ledger?check")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    text(&answer)
}

/// The balance of an account, as the books say it.
pub(crate) fn dollars(books: &str, account: &str) -> String {
    let line = books.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{account} ")));
    line.unwrap().split_whitespace().next().unwrap().to_owned()
}

/// All that the gateway paid this provider, by the chain.
fn paid_by_the_wallet(stage: &Stage, provider: Service) -> Amount {
    let (wallet, provider) = (stage.wallet(), galaksio::sandbox::pay_to(provider));
    let transfers = stage.sandbox().ledger.transfers();
    let paid = transfers.iter().filter(|transfer| transfer.from == wallet && transfer.to == provider);
    Amount::new(paid.map(|transfer| transfer.value.units()).sum())
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}
