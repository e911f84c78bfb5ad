//! The store fails at each record of a sale, before or after its effect; then it is back, and the client comes again.

use super::trap::Trick;
use super::*;

const TRIES: usize = 3;

/// What must hold however it went.
async fn hold(stage: &Stage, row: &str, said: &Said, again: &Said) {
    let job = stage.job(1).await;
    let moved = stage.facilitator.moved();
    assert!(moved <= 1, "{row}: charged twice");
    assert!(
        stage.log.runs() == 1 || job.attempt as usize >= stage.log.runs(),
        "{row}: run {}",
        stage.log.runs()
    );
    for answer in [said, again] {
        if answer.status == 402 || answer.charged == Some(Charged::No) {
            assert_eq!(moved, 0, "{row}: charged, and told otherwise: {answer:?}");
        }
    }
    if moved == 1 {
        let owed = matches!(job.state, State::RefundDue);
        let served = again.status == 200 || said.status == 200;
        assert!(owed || served, "{row}: charged for nothing: {job:?}");
        assert_eq!(job.receipt.is_some(), job.state == State::Completed || owed, "{row}");
    }
    assert!(job.provider.len() >= stage.log.paid(), "{row}: a payment was handed out and not written");
    let nonces: std::collections::HashSet<_> = job.provider.iter().map(|payment| payment.nonce).collect();
    assert_eq!(nonces.len(), job.provider.len(), "{row}");
    assert!(job.state.at_rest(), "{row}: {:?}", job.state);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_at_any_record_costs_nobody() {
    let events = ["verified", "settle_first", "signed", "answered", "settled", "work_failed"];
    for upfront in [false, true] {
        for steps in [vec![PAY], vec![], vec![PAY, Do::Fail(Reason::ProviderFailed)]] {
            for event in events {
                for (name, trick) in [("before", Trick::Before), ("after", Trick::After)] {
                    for times in [1, TRIES, 4 * TRIES] {
                        let row = format!("upfront {upfront}, {steps:?}, {event}, {name}, {times}");
                        let stage = Stage::new();
                        stage.store.trap(event, &vec![trick.clone(); times]);
                        let sale =
                            |steps| if upfront { stage.upfront(1, steps) } else { stage.sale(1, steps) };
                        let said = stage.sell(sale(&steps)).await;
                        stage.store.spring();
                        // What is carried is written within a second of the store's return.
                        tokio::time::sleep(Duration::from_secs(5)).await;
                        stage.recover().await;
                        let again = stage.sell(sale(&[PAY])).await;
                        hold(&stage, &row, &said, &again).await;
                    }
                }
            }
        }
    }
}

/// The client's payment may lapse before the store is back, and the provider has its money. The answer waits for the record.
#[tokio::test(start_paused = true)]
async fn once_the_provider_is_paid_the_client_is_charged_without_a_store() {
    let stage = Stage::new();
    let (guard, mut dropped) = tokio::sync::oneshot::channel::<()>();
    let broker = Arc::clone(&stage.broker);
    let sale = stage.sale(1, &[PAY, Do::Wait]);
    let selling = tokio::spawn(async move { Said::of(broker.sell(Box::new(sale), guard).await) });
    stage.log.begun.notified().await;
    stage.store.go_away(true);
    stage.log.gate.notify_one();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(stage.facilitator.moved(), 1);
    assert!(!selling.is_finished(), "answered from memory");
    assert_eq!(stage.state(1).await, State::Working);
    assert!(dropped.try_recv().is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Empty));

    stage.store.go_away(false);
    let said = selling.await.unwrap();
    assert_eq!((said.reason, said.body.as_str(), said.receipt), (Reason::Paid, "run 1", Some(Version::V2)));
    assert!(dropped.await.is_err(), "whoever waits for the end of it is told");
    assert_eq!(stage.state(1).await, State::Completed);
    assert_eq!(stage.events(1).await, ["verified", "signed", "answered", "settled"]);
    assert_eq!(stage.sell(stage.sale(1, &[PAY])).await.body, "run 1");
}

/// Without a record of the work, a restart would forget it, and the client had paid.
#[tokio::test(start_paused = true)]
async fn work_that_cost_nothing_is_not_settled_without_a_record() {
    let stage = Stage::new();
    let selling = stage.start(stage.sale(1, &[Do::Wait]));
    stage.log.begun.notified().await;
    stage.store.go_away(true);
    stage.log.gate.notify_one();
    let said = selling.await.unwrap();
    assert!(said.is(Reason::StoreAway, Charged::Unknown), "{said:?}");
    assert_eq!(stage.facilitator.moved(), 0);
    stage.store.go_away(false);
    stage.recover().await;
    assert_eq!(stage.sell(stage.sale(1, &[])).await.body, "run 2");
    assert_eq!(stage.facilitator.moved(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_lost_the_lease_spends_nothing_more() {
    for event in ["verified", "signed", "answered", "settle_first"] {
        let stage = Stage::new();
        stage.store.trap(event, &[Trick::Stolen]);
        let upfront = event == "settle_first";
        let said = stage.sell(if upfront { stage.upfront(1, &[PAY]) } else { stage.sale(1, &[PAY]) }).await;
        assert!(said.is(Reason::JobRunning, Charged::Unknown), "{event}: {said:?}");
        assert_eq!(stage.facilitator.moved(), 0, "{event}");
        assert_eq!(stage.log.paid(), usize::from(event == "answered"), "{event}");
    }
}

/// The money has come: the client gets what it paid for, whoever has the lease.
#[tokio::test(start_paused = true)]
async fn a_lease_lost_after_settling_does_not_keep_the_answer_back() {
    let stage = Stage::new();
    stage.store.trap("settled", &[Trick::Stolen]);
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert_eq!((said.reason, said.body.as_str(), said.receipt), (Reason::Paid, "run 1", Some(Version::V2)));
}

#[tokio::test(start_paused = true)]
async fn a_signature_that_was_not_recorded_is_not_handed_out() {
    for trick in [Trick::Before, Trick::After] {
        let stage = Stage::new();
        stage.store.trap("signed", &vec![trick; TRIES]);
        let said = stage.sell(stage.sale(1, &[PAY])).await;
        assert_eq!((stage.log.paid(), stage.facilitator.moved()), (0, 0));
        // It may be in the store, so it is accounted for as if it were out.
        assert_eq!(said.charged, Some(Charged::No), "{said:?}");
        assert_eq!(stage.state(1).await, State::Held);
    }
    // While that is in memory only, another may void the job and take the payment again: nobody is told to pay anew.
    let stage = Stage::new();
    stage.store.trap("signed", &vec![Trick::Before; 2 * TRIES]);
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert!(said.is(Reason::StoreAway, Charged::Unknown), "{said:?}");
    assert_eq!((stage.log.paid(), stage.facilitator.moved()), (0, 0));
}
