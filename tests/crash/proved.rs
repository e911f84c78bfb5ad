//! What a crash leaves undecided, decided by what the chain proves.

use futures_util::future::join_all;
use galaksio::jobs::State;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::Rule;
use galaksio::x402::Receipt;
use galaksio::x402::abi::sign_cancel;

use super::client::{CLIENT_KEY, Order, Purchase};
use super::money::Money;
use super::redis_server::RedisServer;
use super::rig::{First, Rig, Store, until};
use super::table::Effect;

/// A crash, and the end that proof brings it to.
struct Row {
    name: &'static str,
    order: Order,
    /// The service whose call is stalled, how its path begins, which of those.
    stalled: (Service, &'static str, First),
    effect: Effect,
    killed_in: State,
    /// While the gateway is dead.
    meanwhile: Meanwhile,
    /// What the chain's proof makes of the job.
    proved: State,
    /// The same payment is answered with this, and the reason code.
    then: (u16, Option<&'static str>),
    ends: State,
    journal: &'static [&'static str],
    charged: usize,
    provider: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// The client cancels its authorization.
    Cancelled,
}

const ROWS: &[Row] = &[
    Row {
        name: "run: signed, the provider paid",
        order: Order::Run,
        stalled: (Service::Merit, "/", First::Paid(0)),
        effect: Effect::Done,
        killed_in: State::Working,
        // Else it is lost only once the client's payment has lapsed.
        meanwhile: Meanwhile::Cancelled,
        proved: State::ProviderLost,
        then: (502, Some("provider_lost")),
        ends: State::ProviderLost,
        journal: &["verified", "signed", "work_failed", "proved_spent"],
        charged: 0,
        provider: 1,
    },
    Row {
        name: "store: signed, pinned",
        order: Order::StorePinned,
        stalled: (Service::OpenX402, "/pin/", First::Paid(0)),
        effect: Effect::Done,
        killed_in: State::Working,
        // Else it is lost only once the client's payment has lapsed.
        meanwhile: Meanwhile::Cancelled,
        proved: State::ProviderLost,
        then: (502, Some("provider_lost")),
        ends: State::ProviderLost,
        journal: &["verified", "signed", "work_failed", "proved_spent"],
        charged: 0,
        provider: 1,
    },
    // Two files: what the first has cost is lost, once it is known that the other has cost nothing.
    Row {
        name: "files: one stored, the other signed, not pinned",
        order: Order::StoreTwo,
        stalled: (Service::OpenX402, "/pin/", First::Paid(1)),
        effect: Effect::Never,
        killed_in: State::Working,
        meanwhile: Meanwhile::Cancelled,
        proved: State::ProviderLost,
        then: (502, Some("provider_lost")),
        ends: State::ProviderLost,
        journal: &["verified", "signed", "signed", "work_failed", "proved_spent"],
        charged: 0,
        provider: 1,
    },
    // Once the signature has lapsed, and that is final. The client may have been told to pay anew: the same payment buys nothing.
    Row {
        name: "run: signed, the provider not reached",
        order: Order::Run,
        stalled: (Service::Merit, "/", First::Paid(0)),
        effect: Effect::Never,
        killed_in: State::Working,
        meanwhile: Meanwhile::Nothing,
        proved: State::Voided,
        then: (502, Some("provider_lost")),
        ends: State::Voided,
        journal: &["verified", "signed", "work_failed", "proved_unspent"],
        charged: 0,
        provider: 0,
    },
    Row {
        name: "run: settling, settled",
        order: Order::Run,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Effect::Done,
        killed_in: State::Settling,
        meanwhile: Meanwhile::Nothing,
        proved: State::Completed,
        then: (200, None),
        ends: State::Completed,
        journal: &["verified", "signed", "answered", "settled"],
        charged: 1,
        provider: 1,
    },
    Row {
        name: "app: settling, settled",
        order: Order::App,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Effect::Done,
        killed_in: State::Settling,
        meanwhile: Meanwhile::Nothing,
        proved: State::Completed,
        then: (200, None),
        ends: State::Completed,
        journal: &["verified", "answered", "settled"],
        charged: 1,
        provider: 0,
    },
    Row {
        name: "run: settling, then cancelled",
        order: Order::Run,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Effect::Never,
        killed_in: State::Settling,
        meanwhile: Meanwhile::Cancelled,
        proved: State::Uncollected,
        then: (402, Some("uncollected")),
        ends: State::Uncollected,
        journal: &["verified", "signed", "answered", "refused"],
        charged: 0,
        provider: 1,
    },
    Row {
        name: "app: settling, then cancelled",
        order: Order::App,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Effect::Never,
        killed_in: State::Settling,
        meanwhile: Meanwhile::Cancelled,
        proved: State::Voided,
        then: (402, Some("settlement_refused")),
        ends: State::Voided,
        journal: &["verified", "answered", "refused"],
        charged: 0,
        provider: 0,
    },
    // Its client has the answer.
    Row {
        name: "app after: answered, settled",
        order: Order::AppAfter,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Effect::Done,
        killed_in: State::Settling,
        meanwhile: Meanwhile::Nothing,
        proved: State::Completed,
        then: (200, None),
        ends: State::Completed,
        journal: &["verified", "trusted", "answered", "settled"],
        charged: 1,
        provider: 0,
    },
    Row {
        name: "app after: answered, then cancelled",
        order: Order::AppAfter,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Effect::Never,
        killed_in: State::Settling,
        meanwhile: Meanwhile::Cancelled,
        proved: State::Uncollected,
        then: (402, Some("uncollected")),
        ends: State::Uncollected,
        journal: &["verified", "trusted", "answered", "refused"],
        charged: 0,
        provider: 0,
    },
    // Left to whoever has paid, who may still come for the work.
    Row {
        name: "app upfront: settling, settled",
        order: Order::AppUpfront,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Effect::Done,
        killed_in: State::SettlingUpfront,
        meanwhile: Meanwhile::Nothing,
        proved: State::SettlingUpfront,
        then: (200, None),
        ends: State::Completed,
        journal: &["settle_first", "settled", "answered"],
        charged: 1,
        provider: 0,
    },
    // The client is owed its money, and the books want to know what the work cost.
    Row {
        name: "run upfront: settled, the provider paid",
        order: Order::RunUpfront,
        stalled: (Service::Merit, "/", First::Paid(0)),
        effect: Effect::Done,
        killed_in: State::WorkingSettled,
        meanwhile: Meanwhile::Nothing,
        proved: State::RefundDue,
        then: (502, Some("refund_due")),
        ends: State::RefundDue,
        journal: &["settle_first", "settled", "signed", "work_failed", "proved_spent"],
        charged: 1,
        provider: 1,
    },
    Row {
        name: "run upfront: settled, the provider not reached",
        order: Order::RunUpfront,
        stalled: (Service::Merit, "/", First::Paid(0)),
        effect: Effect::Never,
        killed_in: State::WorkingSettled,
        meanwhile: Meanwhile::Nothing,
        proved: State::RefundDue,
        then: (502, Some("refund_due")),
        ends: State::RefundDue,
        journal: &["settle_first", "settled", "signed", "work_failed", "proved_unspent"],
        charged: 1,
        provider: 0,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn every_row_on_the_embedded_store() {
    join_all(ROWS.iter().map(|row| killed(row, Store::Embedded))).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; make test runs it"]
async fn every_row_on_redis() {
    let server = RedisServer::start(&[]);
    let store = |number| Store::Redis { url: server.url(), prefix: format!("proved{number}") };
    join_all(ROWS.iter().enumerate().map(|(number, row)| killed(row, store(number)))).await;
}

async fn killed(row: &'static Row, store: Store) {
    let mut rig = Rig::proving(store).await;
    let purchase = rig.sign(row.order).await;
    let before = rig.money(&purchase);
    let (service, path, first) = row.stalled;
    let struck =
        rig.stall(service, path, first, if row.effect == Effect::Done { Rule::after } else { |rule| rule });
    let client = rig.client.presenting(rig.gateway().edge, &purchase);
    rig.until_struck(service, struck).await;
    rig.until_state(purchase.job, row.killed_in).await;
    if row.effect == Effect::Done {
        until(&format!("{}: its effect", row.name), async || (rig.money(&purchase) != before).then_some(()))
            .await;
    }
    if row.order == Order::AppAfter {
        assert_eq!(client.await.unwrap().expect("an answer before the kill").status, 200, "{}", row.name);
        rig.kill();
    } else {
        rig.kill();
        client.await.unwrap().expect_err("an answer from a process that was killed");
    }
    let settles = rig.sandbox.requests.count(Service::Facilitator, "/settle");
    let doubted = service == Service::Facilitator;
    if row.meanwhile == Meanwhile::Cancelled {
        cancel(&rig, &purchase);
    }
    rig.sandbox.faults.clear(service);
    // Whatever becomes of it, no facilitator has a say in it.
    let deaf = doubted && row.proved != State::SettlingUpfront;
    if deaf {
        rig.stall(Service::Facilitator, "/settle", First::Call(0), |rule| rule);
    }

    rig.restart().await;
    rig.until_state(purchase.job, row.proved).await;
    if row.proved == State::RefundDue {
        rig.until_proven(purchase.job, row.proved).await;
    }
    if deaf && row.effect == Effect::Done {
        assert_eq!(rig.sandbox.requests.count(Service::Facilitator, "/settle"), settles, "{}", row.name);
    }
    rig.sandbox.faults.clear(Service::Facilitator);
    let first = rig.settled(rig.gateway().edge, &purchase).await;
    assert_eq!((first.status.as_u16(), first.json()["code"].as_str()), row.then, "{}: {first:?}", row.name);
    let paid = Receipt::from_headers(&first.headers).is_some_and(|receipt| receipt.success);
    assert_eq!(paid, row.charged == 1, "{}", row.name);

    let (job, journal) = rig.autopsy(&purchase).await;
    assert_eq!((job.state, journal.as_slice()), (row.ends, row.journal), "{}", row.name);
    assert!(job.client.height.is_some(), "{}: the chain's height was not noted", row.name);
    let money = Money { charged: row.charged, provider: row.provider, ..before };
    assert_eq!(rig.money(&purchase), money, "{}", row.name);
    rig.sandbox.stop().await;
}

fn cancel(rig: &Rig, purchase: &Purchase) {
    let (from, nonce) = (purchase.authorization.from, purchase.authorization.nonce);
    let key = CLIENT_KEY.parse().unwrap();
    let signature = sign_cancel(&rig.client.asset, from, nonce, &key).unwrap();
    rig.sandbox.ledger.cancel_authorization(from, nonce, &signature).unwrap();
}
