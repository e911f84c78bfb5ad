//! The primary of a Redis dies in the middle of paid work, with all that its replica never got, and Sentinels put the replica in
//! its place.

use galaksio::jobs::State;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;

use super::client::Order;
use super::rig::{Rig, Store};
use super::sentinels::Sentinels;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; make test runs it"]
async fn a_job_goes_on_with_the_new_primary_and_ends_once() {
    for (service, rule, state) in [
        (Service::Merit, Rule::always(Fault::Held).paid().after(), State::Working),
        (Service::Facilitator, Rule::always(Fault::Held).at("/settle").after(), State::Settling),
    ] {
        let mut sentinels = Sentinels::start().await;
        let rig = Rig::start(Store::Redis { url: sentinels.url(), prefix: "sentinel".to_owned() }).await;
        let second = rig.second().await;
        for edge in [rig.gateway().edge, second.edge] {
            rig.client.challenge(edge, Order::Run).await;
        }
        let purchase = rig.client.sign(rig.gateway().edge, Order::Run, Version::V2).await;
        let before = rig.money(&purchase);
        sentinels.cut_off().await;
        let struck = rig.sandbox.faults.fired(service);
        rig.sandbox.faults.add(service, rule);
        let client = rig.client.presenting(rig.gateway().edge, &purchase);
        rig.until_struck(service, struck + 1).await;
        rig.until_told(&second, &purchase, state).await;
        rig.sandbox.faults.clear(service);

        sentinels.fail_over().await;
        // The new one was told, by the gateway that has it in hand.
        rig.until_told(&second, &purchase, state).await;
        for _ in struck..rig.sandbox.faults.fired(service) {
            rig.sandbox.faults.let_go(service);
        }
        let answer = client.await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.json());
        let other = rig.answered(&second, &purchase).await;
        assert_eq!((other.status, &other.body), (answer.status, &answer.body));
        rig.ends_once(second, &purchase, before, 1, &super::forgets::LINES).await;
    }
}
