//! What is written at once, what before something happens, and what need not be waited for.

use super::trap::Trick;
use super::*;

#[tokio::test(start_paused = true)]
async fn one_record_before_the_provider_and_one_before_the_client_is_charged() {
    let (brokered, unpaid) = (vec![PAY], vec![]);
    for (upfront, steps, written) in [
        (false, &brokered, &[&["verified", "signed"][..], &["answered"], &["settled"]][..]),
        (false, &unpaid, &[&["verified", "answered"], &["settled"]]),
        (true, &brokered, &[&["settle_first"], &["settled"], &["signed"], &["answered"]]),
    ] {
        let stage = Stage::new();
        let sale = if upfront { stage.upfront(1, steps) } else { stage.sale(1, steps) };
        assert_eq!(stage.sell(sale).await.status, 200);
        assert_eq!(*stage.store.appends.lock(), written);
        assert_eq!(stage.events(1).await, written.concat(), "and the journal has each");
        assert_eq!(stage.state(1).await, State::Completed);
    }
}

/// Whoever signs a second time has the first on record by then.
#[tokio::test(start_paused = true)]
async fn each_signature_is_recorded_by_itself() {
    let stage = Stage::new();
    let said = stage.sell(stage.sale(1, &[Do::Pay("upload", 4_000), Do::Pay("pin", 4_000)])).await;
    assert_eq!(said.status, 200, "{said:?}");
    let written = [&["verified", "signed"][..], &["signed"], &["answered"], &["settled"]];
    assert_eq!(*stage.store.appends.lock(), written);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_record_of_the_settlement() {
    let stage = Stage::new();
    let (guard, written) = tokio::sync::oneshot::channel::<()>();
    let until = Arc::new(Notify::new());
    stage.store.trap("settled", &[Trick::Held(Arc::clone(&until))]);
    let said = Said::of(Arc::clone(&stage.broker).sell(Box::new(stage.sale(1, &[PAY])), guard).await);
    assert_eq!((said.reason, said.body.as_str(), said.receipt), (Reason::Paid, "run 1", Some(Version::V2)));
    // What it was charged for is on record before that.
    assert_eq!(stage.state(1).await, State::Settling);

    // Who presents it again has its answer, and nobody takes the job for an orphan.
    let began = tokio::time::Instant::now();
    let again = stage.sell(stage.sale(1, &[PAY])).await;
    assert_eq!((again.reason, again.body.as_str()), (Reason::Replayed, "run 1"));
    stage.recover().await;
    assert!(began.elapsed() < Duration::from_millis(25), "it waited for the store");
    assert_eq!((stage.facilitator.asked(), stage.state(1).await), (1, State::Settling));

    // Who asks for its state is told what is on record, and waits a moment for that to be the end.
    let id = stage.job(1).await.id;
    assert_eq!(stage.broker.job(id).await.unwrap().unwrap().state, State::Settling);
    let broker = Arc::clone(&stage.broker);
    let asking = tokio::spawn(async move { broker.job(id).await.unwrap().unwrap().state });
    until.notify_one();
    assert_eq!(asking.await.unwrap(), State::Completed);
    assert!(written.await.is_err(), "whoever waits for the end of it is told");
    assert_eq!(stage.state(1).await, State::Completed);
    assert_eq!(stage.events(1).await, ["verified", "signed", "answered", "settled"]);
}

/// Memory and store agree on where the job stands, however often the first record of it is lost.
#[tokio::test(start_paused = true)]
async fn what_was_noted_is_written_once_however_the_store_fails() {
    for trick in [Trick::Before, Trick::After] {
        let stage = Stage::new();
        stage.store.trap("signed", &[trick.clone(), trick]);
        assert_eq!(stage.sell(stage.sale(1, &[PAY])).await.status, 200);
        assert_eq!(stage.events(1).await, ["verified", "signed", "answered", "settled"]);
    }
}
