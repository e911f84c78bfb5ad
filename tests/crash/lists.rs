//! What waits for a look at the chain is listed for the operator, with all that such a look needs.

use galaksio::jobs::State;
use galaksio::sandbox::faults::Rule;
use galaksio::sandbox::{Service, pay_to};
use galaksio::x402::B256;
use serde_json::Value;

use super::client::Order;
use super::rig::{First, Rig, Store, until};

impl Rig {
    async fn listed(&self, state: &str) -> Vec<Value> {
        let answer = self.client.get(self.gateway().admin, &format!("/jobs?state={state}")).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        assert_eq!((&json["state"], &json["more"]), (&state.into(), &false.into()));
        json["jobs"].as_array().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn held_and_settling_jobs_are_listed() {
    let mut rig = Rig::start(Store::Embedded).await;
    let held = rig.sign(Order::Run).await;
    let settling = rig.sign(Order::StorePinned).await;
    rig.stall(Service::Merit, "/", First::Paid(0), Rule::after);
    rig.stall(Service::Facilitator, "/settle", First::Call(0), Rule::after);
    let clients = [&held, &settling].map(|purchase| rig.client.presenting(rig.gateway().edge, purchase));
    until("both providers to be paid, and one settlement", async || {
        let transfers = rig.sandbox.ledger.transfers();
        let paid = |to| transfers.iter().any(|t| t.to == to);
        let settled = transfers.iter().any(|t| t.nonce == Some(settling.authorization.nonce));
        (paid(pay_to(Service::Merit)) && paid(pay_to(Service::OpenX402)) && settled).then_some(())
    })
    .await;
    rig.kill();
    for client in clients {
        client.await.unwrap().unwrap_err();
    }
    rig.sandbox.faults.clear(Service::Merit);
    rig.sandbox.faults.clear(Service::Facilitator);
    rig.restart().await;
    rig.until_state(held.job, State::Held).await;

    let list = rig.listed("held").await;
    assert_eq!(list.len(), 1, "{list:#?}");
    assert_eq!(list[0]["jobId"], held.job.to_string());
    assert_eq!(list[0]["failure"], "provider_lost");
    let payment = &list[0]["provider"][0];
    assert_eq!((&payment["name"], &payment["fate"]), (&"merit-systems".into(), &"open".into()));
    // The nonce leads to the money.
    let nonce: B256 = payment["nonce"].as_str().unwrap().parse().unwrap();
    assert!(rig.sandbox.ledger.used(rig.spender, nonce));

    let list = rig.listed("settling").await;
    assert_eq!(list.len(), 1, "{list:#?}");
    assert_eq!(list[0]["jobId"], settling.job.to_string());
    let nonce: B256 = list[0]["client"]["nonce"].as_str().unwrap().parse().unwrap();
    let payer = list[0]["client"]["payer"].as_str().unwrap().parse().unwrap();
    assert!(rig.sandbox.ledger.used(payer, nonce));
    assert!(rig.listed("completed").await.is_empty());

    let wrong = rig.client.get(rig.gateway().admin, "/jobs?state=lost").await.unwrap();
    assert_eq!(wrong.status, 400);
}
