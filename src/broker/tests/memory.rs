//! What happens while the store cannot be written to, and what is made of it when it can: a job goes on from memory.

use super::Settle::*;
use super::trap::Trick;
use super::*;
use crate::jobs::{Event, Failure, JobStore};

/// The store goes away while a job is at work, and comes back when its lease has ended: what the record says is less
/// than what happened, and this process knows better.
#[tokio::test(start_paused = true)]
async fn a_job_that_goes_on_from_memory_is_no_orphan() {
    let stage = Stage::new();
    let selling = stage.start(stage.sale(1, &[PAY, Do::Wait]));
    stage.log.begun.notified().await;
    stage.store.go_away(true);
    stage.log.gate.notify_one();
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.store.go_away(false);
    stage.recover().await;
    assert_eq!(stage.state(1).await, State::Working, "taken for an orphan");
    assert_eq!(selling.await.unwrap().reason, Reason::Paid);
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert_eq!((said.reason, said.body.as_str()), (Reason::Replayed, "run 1"));
    // What is carried is written within a second of the store's return.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.events(1).await, ["verified", "signed", "answered", "settled"]);
}

/// The same, but another gateway was quicker, which knows no better.
#[tokio::test(start_paused = true)]
async fn what_was_settled_from_memory_wins_over_who_took_the_job_for_an_orphan() {
    let stage = Stage::new();
    let selling = stage.start(stage.sale(1, &[PAY, Do::Wait]));
    stage.log.begun.notified().await;
    stage.store.go_away(true);
    stage.log.gate.notify_one();
    tokio::time::sleep(Duration::from_secs(5)).await;

    stage.taken_for_an_orphan().await;
    assert_eq!(stage.state(1).await, State::Held);

    stage.store.go_away(false);
    let said = selling.await.unwrap();
    assert_eq!((said.reason, said.body.as_str()), (Reason::Paid, "run 1"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let job = stage.job(1).await;
    assert_eq!((job.state, job.failure), (State::Completed, None));
    assert_eq!(stage.events(1).await, ["verified", "signed", "work_failed", "answered", "settled"]);
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert_eq!((said.reason, said.body.as_str()), (Reason::Replayed, "run 1"));
    assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1));
}

/// A refusal proves nothing once somebody else had the job: he may have settled. Until it is written nobody is told of it.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_was_not_written_gives_way_to_who_took_the_job_over() {
    for (steps, flow, state) in [
        (vec![], PaymentFlow::Authorization, State::Settling),
        (vec![], PaymentFlow::Upfront, State::SettlingUpfront),
    ] {
        let stage = Stage::new();
        stage.facilitator.says(&[No("insufficient_funds")]);
        stage.store.trap("refused", &[Trick::Before, Trick::Before, Trick::Before, Trick::Stolen]);
        let mut sale = stage.sale(1, &steps);
        sale.requirement.flow = flow;
        let said = stage.sell(sale).await;
        assert!(said.is(Reason::StoreAway, Charged::Unknown) && said.status == 503, "{said:?}");
        // Whoever took it over settles, and is not done yet when the first comes back to write.
        stage.clock.advance(16_000);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(stage.state(1).await, state, "the refusal was written over another's job");
    }
    // Where nobody took it, it stands.
    let stage = Stage::new();
    stage.facilitator.says(&[No("insufficient_funds")]);
    stage.store.trap("refused", &[Trick::Before, Trick::Before, Trick::Before]);
    stage.sell(stage.sale(1, &[])).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.state(1).await, State::Voided);
}

/// The lease is lost at the very last record: the answer is out, and the record follows.
#[tokio::test(start_paused = true)]
async fn a_settlement_is_written_though_the_lease_was_lost() {
    let stage = Stage::new();
    stage.store.trap("settled", &[Trick::Stolen]);
    let said = stage.sell(stage.sale(1, &[PAY])).await;
    assert_eq!((said.reason, said.body.as_str()), (Reason::Paid, "run 1"));
    // Until whoever has it lets go of it.
    stage.clock.advance(16_000);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.state(1).await, State::Completed);
}

/// Of a process that dies now, all that is left is a client that was charged for nothing. So it has no answer either.
#[tokio::test(start_paused = true)]
async fn an_answer_is_not_given_out_before_there_is_a_record_of_it() {
    for flow in [PaymentFlow::Authorization, PaymentFlow::Upfront] {
        let stage = Stage::new();
        let sale = || {
            let mut sale = stage.sale(1, &[PAY]);
            sale.requirement.flow = flow;
            sale
        };
        stage.store.trap("answered", &vec![Trick::Before; 1_000]);
        let first = stage.start(sale());
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(stage.facilitator.moved() == 1 && stage.log.runs() == 1 && !first.is_finished());
        // Whoever presents the payment beside it gets no more.
        let second = stage.start(sale());
        let said = first.await.unwrap();
        assert!(said.is(Reason::StoreAway, Charged::Yes), "{said:?}");
        assert_eq!((said.status, said.receipt), (503, Some(Version::V2)));
        let said = second.await.unwrap();
        assert!(said.is(Reason::JobRunning, said.charged.unwrap()), "{said:?}");

        stage.store.spring();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(stage.state(1).await, State::Completed);
        assert_eq!(stage.sell(sale()).await.body, "run 1");
        assert_eq!((stage.log.runs(), stage.facilitator.moved()), (1, 1));
    }
}

/// What is too large to keep would be lost, and its client has paid.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_given_out_when_it_has_waited_long_enough() {
    let stage = Stage::new();
    stage.store.trap("answered", &vec![Trick::Before; 1_000]);
    let said = stage.sell(stage.upfront(1, &[PAY, Do::Stream])).await;
    assert_eq!((said.reason, said.body.as_str()), (Reason::Paid, "a stream"));
    stage.store.spring();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.state(1).await, State::Completed);
}

/// Another gateway took the job over while the store was away for this one: what it owes by now is not given out beside it.
#[tokio::test(start_paused = true)]
async fn what_is_owed_by_now_is_not_given_out() {
    let stage = Stage::new();
    stage.store.trap("answered", &vec![Trick::Before; 1_000]);
    let selling = stage.start(stage.upfront(1, &[PAY]));
    // Not after five: its lease is renewed then, and whoever was there first would have it.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(stage.log.runs(), 1);
    stage.taken_for_an_orphan().await;
    stage.store.spring();
    let said = selling.await.unwrap();
    assert!(said.is(Reason::StoreAway, Charged::Yes), "{said:?}");
    assert_eq!(stage.state(1).await, State::RefundDue);
    let said = stage.sell(stage.upfront(1, &[PAY])).await;
    assert!(said.is(Reason::RefundDue, Charged::Yes), "{said:?}");
}

impl Stage {
    /// Another gateway takes the job for an orphan, and knows no better than that its work is lost.
    async fn taken_for_an_orphan(&self) {
        self.clock.advance(61_000);
        let (store, clock) = (Arc::clone(&self.store.inner), self.clock.clone());
        let handle = tokio::runtime::Handle::current();
        let another = async move {
            let lease = Duration::from_secs(15);
            let (job, lease) = store.take_over(&presented(1).claim(), lease).await.unwrap().unwrap();
            let failure = Failure { code: "provider_failed".into(), message: String::new(), status: 502 };
            let event = Event::WorkFailed { failure };
            let failed = job.apply(&event, clock.now_millis()).unwrap();
            store.append(&lease, &event, &failed).await.unwrap();
        };
        // On a thread that may block, or paused time would run on, past all patience, while the disk is waited for.
        tokio::task::spawn_blocking(move || handle.block_on(another)).await.unwrap();
    }
}
