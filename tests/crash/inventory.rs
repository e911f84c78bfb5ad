//! Killed while a cache is bought for the operator's stock: no second one is paid for beside it.

use futures_util::future::join_all;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::sandbox::{Service, pay_to};

use super::client::Order;
use super::rig::{FOREVER, Rig, Store, until};

#[tokio::test(flavor = "multi_thread")]
async fn one_purchase_is_not_made_twice() {
    let case = async |arrives: bool| {
        let stall = move |rig: &Rig| {
            let rule = Rule::always(Fault::Slow(FOREVER)).at("/create").paid();
            rig.sandbox.faults.add(Service::XCache, if arrives { rule.after() } else { rule });
        };
        let mut rig = Rig::unstocked(Store::Embedded, stall).await;
        let bought = |rig: &Rig| {
            let transfers = rig.sandbox.ledger.transfers();
            transfers.iter().filter(|t| t.to == pay_to(Service::XCache)).count()
        };
        let paid = |rig: &Rig| {
            let seen = rig.sandbox.requests.seen(Service::XCache);
            seen.iter().filter(|seen| seen.headers.contains_key("x-payment")).count()
        };
        until("the paid request", async || (paid(&rig) == 1).then_some(())).await;
        until("its effect", async || (bought(&rig) == usize::from(arrives)).then_some(())).await;
        rig.kill();
        rig.sandbox.faults.clear(Service::XCache);
        rig.restart().await;
        // Others sell what a cache would; for a time only xCache does, and it has no cache to sell from.
        for _ in 0..5 {
            let answer = rig.ask(Order::StoreCached).await;
            assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (503, &"no_provider".into()));
            rig.client.challenge(rig.gateway().edge, Order::StorePinned).await;
        }
        assert_eq!((paid(&rig), bought(&rig)), (1, usize::from(arrives)), "bought again at once");
        rig.stop().await;
        let store = rig.open_store().await;
        assert_eq!(store.list("xcache.purchases").await.unwrap().len(), 1);
    };
    join_all([case(false), case(true)]).await;
}
