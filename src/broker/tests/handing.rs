//! Answers that are handed out beside their record: how that ends is recorded, once, whatever becomes of who hands them out.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use http_body::Frame;

use super::parts::paid;
use super::trap::Trick;
use super::*;
use crate::jobs::{Claim, Event};
use crate::outgoing::OutgoingError;

const RETENTION: Duration = Duration::from_secs(3600);

/// A gateway that keeps such answers in files, and says so in the store.
fn keeping(stage: &Stage, folder: &tempfile::TempDir) -> Results {
    let limits = ResultLimits {
        folder: folder.path().to_owned(),
        largest: 1 << 20,
        together: 1 << 20,
        retention: RETENTION,
        linger: Duration::from_secs(60),
    };
    let values: Arc<dyn crate::jobs::ValueStore> = stage.store.clone();
    Results::new(limits, stage.clock.clone(), Arc::default(), Some(values))
}

impl Stage {
    /// Buys, and returns with the answer's body while it arrives.
    async fn opened(&self, broker: &Arc<Broker>, sale: Sale) -> BodyStream {
        let delivery = Arc::clone(broker).sell(Box::new(sale), ()).await;
        let DeliveryBody::Stream(mut body) = delivery.body else { panic!("{:?}", delivery.reason) };
        self.arrives(b"half");
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "half");
        self.until(1, State::Delivering).await;
        body
    }

    /// The store was asked to take this.
    async fn begun(&self, event: &'static str) {
        while !self.store.appends.lock().iter().flatten().any(|begun| *begun == event) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn arrives(&self, bytes: &'static [u8]) {
        let arriving = self.log.arriving.lock();
        arriving.as_ref().unwrap().send(Ok(Frame::data(Bytes::from_static(bytes)))).unwrap();
    }

    /// The answer is at its end.
    fn whole(&self) {
        *self.log.arriving.lock() = None;
    }

    fn breaks_off(&self) {
        self.fails("reset".into());
    }

    fn fails(&self, error: crate::outgoing::BoxError) {
        self.log.arriving.lock().take().unwrap().send(Err(error)).unwrap();
    }

    /// What the same payment collects meanwhile.
    async fn collected(&self, broker: &Arc<Broker>) -> KeptAnswer {
        let delivery = Arc::clone(broker).sell(Box::new(self.sale(1, &[])), ()).await;
        let DeliveryBody::Kept(kept) = delivery.body else { panic!("{:?}", delivery.reason) };
        kept
    }

    /// Another gateway takes the job, and leaves it as it was.
    async fn taken_for_a_while(&self) {
        self.clock.advance(61_000);
        let lease = Duration::from_secs(15);
        let taken = self.store.take_over(&presented(1).claim(), lease).await.unwrap();
        self.store.release(&taken.unwrap().1).await.unwrap();
    }

    /// As often as wanted, by a gateway that finds what others left.
    async fn swept_by(&self, broker: &Arc<Broker>) {
        Recovery::new(Arc::clone(broker), Duration::from_secs(15)).sweep(&|| Some(())).await;
    }
}

const SOLD: [&str; 4] = ["verified", "signed", "answered", "settled"];

fn with(event: &'static str) -> Vec<&'static str> {
    SOLD.into_iter().chain([event]).collect()
}

#[tokio::test(start_paused = true)]
async fn it_is_completed_once_it_is_handed_out() {
    let stage = Stage::new();
    let mut body = stage.opened(&stage.broker, stage.sale(1, &[PAY, Do::Arriving])).await;
    // Its owner is there: nobody takes it for given up, and whoever asks is told that it is done.
    stage.clock.advance(10_000);
    tokio::time::sleep(Duration::from_secs(10)).await;
    stage.clock.advance(10_000);
    assert!(stage.store.due(10).await.unwrap().is_empty());
    let again = stage.sell(stage.sale(1, &[PAY])).await;
    assert!(again.is(Reason::NotKept, Charged::Yes), "{again:?}");
    assert_eq!(stage.job(1).await.outer(), "completed");
    stage.whole();
    assert!(body.frame().await.is_none());
    assert_eq!(stage.state(1).await, State::Delivering, "the client may not have it yet");
    drop(body);
    stage.until(1, State::Completed).await;
    assert_eq!(stage.events(1).await, with("handed_out"));
}

#[tokio::test(start_paused = true)]
async fn settled_before_the_work_it_is_the_same() {
    let stage = Stage::new();
    let body = stage.opened(&stage.broker, stage.upfront(1, &[PAY, Do::Arriving])).await;
    drop(body);
    stage.until(1, State::Completed).await;
    assert_eq!(stage.events(1).await, ["settle_first", "settled", "signed", "answered", "handed_out"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_breaks_off_is_owed_at_once() {
    for kept in [false, true] {
        let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
        let broker =
            stage.another(|broker| if kept { broker.keeping(keeping(&stage, &folder)) } else { broker });
        let mut body = stage.opened(&broker, stage.sale(1, &[PAY, Do::Arriving])).await;
        stage.breaks_off();
        assert!(body.frame().await.unwrap().is_err());
        stage.until(1, State::RefundDue).await;
        assert_eq!(stage.events(1).await, with("work_failed"));
        // And nobody looks for it any more.
        drop(body);
        let nothing = tokio::time::timeout(Duration::from_secs(1), broker.broken.wait()).await;
        assert!(nothing.is_err(), "noted twice");
    }
}

/// One that is kept is handed out when both its client and its source are done with it.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_what_is_kept_does_not_end_it() {
    for breaks in [false, true] {
        let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
        let broker = stage.another(|broker| broker.keeping(keeping(&stage, &folder)));
        drop(stage.opened(&broker, stage.sale(1, &[PAY, Do::Arriving])).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(stage.state(1).await, State::Delivering);
        if breaks {
            stage.breaks_off();
            stage.until(1, State::RefundDue).await;
        } else {
            stage.arrives(b"whole");
            stage.whole();
            stage.until(1, State::Completed).await;
        }
    }
}

/// What is cut off with its process is no client that goes away.
#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_at_the_end_of_its_process_is_owed() {
    let stage = Stage::new();
    let broker = stage.another(|broker| broker.ending_when(|| true));
    drop(stage.opened(&broker, stage.sale(1, &[PAY, Do::Arriving])).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.state(1).await, State::Delivering);
    // It was given back at once.
    stage.swept_by(&stage.broker).await;
    assert_eq!(stage.state(1).await, State::RefundDue);
}

/// Its source goes on, and nobody is there to collect what comes: the drain does not wait for it.
#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_and_kept_holds_up_no_drain() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
    let broker = stage.another(|broker| broker.keeping(keeping(&stage, &folder)).ending_when(|| true));
    let (guard, ended) = tokio::sync::oneshot::channel::<()>();
    let sale = Box::new(stage.sale(1, &[PAY, Do::Arriving]));
    let delivery = Arc::clone(&broker).sell(sale, guard).await;
    stage.arrives(b"half");
    drop(delivery);
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap_err();
    assert_eq!(stage.state(1).await, State::Delivering);
}

/// Two look for what a third left, and that one was not dead. Who has the epoch decides, and it stays so.
#[tokio::test(start_paused = true)]
async fn of_many_that_record_its_end_one_does() {
    for ends in [Stage::whole as fn(&Stage), Stage::breaks_off] {
        let stage = Stage::new();
        let (first, second) = (stage.another(|broker| broker), stage.another(|broker| broker));
        let body = stage.opened(&stage.broker, stage.sale(1, &[PAY, Do::Arriving])).await;
        stage.clock.advance(61_000);
        tokio::join!(stage.swept_by(&first), stage.swept_by(&second));
        stage.until(1, State::RefundDue).await;
        ends(&stage);
        let _ = body.collect().await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        stage.recover().await;
        assert_eq!(stage.state(1).await, State::RefundDue);
        assert_eq!(stage.events(1).await, with("work_failed"));
        let again = stage.sell(stage.sale(1, &[PAY])).await;
        assert!(again.is(Reason::RefundDue, Charged::Yes), "{again:?}");
    }
}

/// The same payment finds what a crash left without waiting for a sweep.
#[tokio::test(start_paused = true)]
async fn the_same_payment_is_told_of_its_refund() {
    let stage = Stage::new();
    let other = stage.another(|broker| broker);
    let _body = stage.opened(&other, stage.sale(1, &[PAY, Do::Arriving])).await;
    stage.clock.advance(61_000);
    let again = stage.sell(stage.sale(1, &[PAY])).await;
    assert!(again.is(Reason::RefundDue, Charged::Yes), "{again:?}");
}

/// As long as another gateway has it whole there is nothing to owe, and it says so itself.
#[tokio::test(start_paused = true)]
async fn one_that_another_gateway_has_is_not_owed_while_that_is_there() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
    let owner = stage.another(|broker| broker.keeping(keeping(&stage, &folder)));
    let other_folder = tempfile::tempdir().unwrap();
    let other = stage.another(|broker| broker.keeping(keeping(&stage, &other_folder)));
    let _body = stage.opened(&owner, stage.sale(1, &[PAY, Do::Arriving])).await;
    // It cannot renew its lease, and is there all the same.
    stage.clock.advance(20_000);
    stage.swept_by(&other).await;
    assert_eq!(stage.state(1).await, State::Delivering);
    // It is not.
    stage.clock.advance(61_000);
    stage.swept_by(&other).await;
    assert_eq!(stage.state(1).await, State::RefundDue);
}

/// Who settles for another that is gone takes nobody's word for it that the answer was handed out: for a while the store says
/// of who has just died that he has it.
#[tokio::test(start_paused = true)]
async fn one_that_was_left_unsettled_is_not_handed_out_by_being_settled() {
    for dead in [true, false] {
        let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
        let [owner, other] =
            [(); 2].map(|()| stage.another(|broker| broker.keeping(keeping(&stage, &folder))));
        *stage.facilitator.for_ever.lock() = Some(Settle::Silent);
        let sale = Box::new(stage.sale(1, &[PAY, Do::Stream]));
        let said = Said::of(Arc::clone(&owner).sell(sale, ()).await);
        assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
        stage.chain.says(paid());
        stage.clock.advance(20_000);
        stage.swept_by(&other).await;
        stage.until(1, State::Delivering).await;
        stage.clock.advance(61_000);
        stage.swept_by(if dead { &other } else { &owner }).await;
        let (ends, event) =
            if dead { (State::RefundDue, "work_failed") } else { (State::Completed, "handed_out") };
        stage.until(1, ends).await;
        assert_eq!(stage.events(1).await, with(event));
    }
}

/// The other came as far as this one had come, and not to the end.
#[tokio::test(start_paused = true)]
async fn what_another_has_recorded_meanwhile_is_not_recorded_again() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
    let [owner, other] = [(); 2].map(|()| stage.another(|broker| broker.keeping(keeping(&stage, &folder))));
    let until = Arc::new(Notify::new());
    stage.store.trap("settled", &[Trick::Held(Arc::clone(&until))]);
    let delivery = Arc::clone(&owner).sell(Box::new(stage.sale(1, &[PAY, Do::Arriving])), ()).await;
    let DeliveryBody::Stream(body) = delivery.body else { panic!("{:?}", delivery.reason) };
    stage.arrives(b"half");
    stage.begun("settled").await;
    stage.chain.says(paid());
    stage.clock.advance(20_000);
    stage.swept_by(&other).await;
    stage.until(1, State::Delivering).await;
    until.notify_one();
    stage.whole();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "half");
    // It is the other's for a while yet.
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.clock.advance(61_000);
    stage.until(1, State::Completed).await;
    assert_eq!(stage.events(1).await, with("handed_out"));
}

/// Another has come to another end: it is the store that is asked, though the answer still goes out here.
#[tokio::test(start_paused = true)]
async fn who_was_overruled_says_nothing_of_the_job_any_more() {
    let stage = Stage::new();
    let other = stage.another(|broker| broker);
    let until = Arc::new(Notify::new());
    stage.store.trap("settled", &[Trick::Held(Arc::clone(&until))]);
    let delivery = stage.broker.clone().sell(Box::new(stage.sale(1, &[PAY, Do::Arriving])), ()).await;
    let DeliveryBody::Stream(_body) = delivery.body else { panic!("{:?}", delivery.reason) };
    stage.arrives(b"half");
    stage.begun("settled").await;
    stage.chain.says(paid());
    stage.clock.advance(20_000);
    stage.swept_by(&other).await;
    stage.until(1, State::RefundDue).await;
    until.notify_one();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let again = stage.sell(stage.sale(1, &[PAY])).await;
    assert!(again.is(Reason::RefundDue, Charged::Yes), "{again:?}");
}

/// What is owed for a part stays what it is.
#[tokio::test(start_paused = true)]
async fn a_part_that_is_handed_out_owes_the_rest_alone() {
    let stage = Stage::new();
    stage.sell(stage.sale(1, &[PAY, Do::InPart("other"), Do::Stream])).await;
    let job = stage.job(1).await;
    assert_eq!((job.state, job.owed()), (State::RefundDue, OWED));
}

/// The store goes away while it is handed out, and is back later.
#[tokio::test(start_paused = true)]
async fn how_it_ended_is_written_once_the_store_is_back() {
    let stage = Stage::new();
    let body = stage.opened(&stage.broker, stage.sale(1, &[PAY, Do::Arriving])).await;
    stage.store.go_away(true);
    drop(body);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(stage.state(1).await, State::Delivering);
    stage.store.go_away(false);
    stage.until(1, State::Completed).await;
}

/// How much there is, is often its client's to choose.
#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_stays_charged() {
    for kept in [false, true] {
        let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
        let broker =
            stage.another(|broker| if kept { broker.keeping(keeping(&stage, &folder)) } else { broker });
        let mut body = stage.opened(&broker, stage.sale(1, &[PAY, Do::Arriving])).await;
        stage.fails(OutgoingError::TooLarge { limit: 4 }.into());
        assert!(body.frame().await.unwrap().is_err());
        drop(body);
        stage.until(1, State::Completed).await;
        assert_eq!(stage.events(1).await, with("handed_out"));
        let nothing = tokio::time::timeout(Duration::from_secs(1), broker.broken.wait()).await;
        assert!(nothing.is_err(), "noted as broken");
    }
}

/// It has the answer, and keeps one stream of it open, to be cut off.
#[tokio::test(start_paused = true)]
async fn one_that_was_collected_whole_is_handed_out() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
    let broker = stage.another(|broker| broker.keeping(keeping(&stage, &folder)));
    let body = stage.opened(&broker, stage.sale(1, &[PAY, Do::Arriving])).await;
    stage.arrives(b"whole");
    stage.whole();
    let collect = async |body: BodyStream| body.collect().await.unwrap().to_bytes();
    let kept = stage.collected(&broker).await;
    for (part, is) in [(0..=2, "hal"), (8..=8, "e")] {
        assert_eq!(collect(kept.part(part)).await, is);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.state(1).await, State::Delivering, "nobody has all of it");
    assert_eq!(collect(kept.whole()).await, "halfwhole");
    stage.until(1, State::Completed).await;
    // What becomes of the other is no news.
    drop(body);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.events(1).await, with("handed_out"));
}

#[tokio::test(start_paused = true)]
async fn one_that_was_collected_in_parts_is_handed_out() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
    let broker = stage.another(|broker| broker.keeping(keeping(&stage, &folder)));
    let _body = stage.opened(&broker, stage.sale(1, &[PAY, Do::Arriving])).await;
    stage.arrives(b"whole");
    stage.whole();
    let kept = stage.collected(&broker).await;
    // Its first half is with the client.
    for part in [4..=6, 7..=8] {
        kept.part(part).collect().await.unwrap();
    }
    stage.until(1, State::Completed).await;
}

/// It left by itself: what comes of it until the drain it may collect, and nobody waits for more.
#[tokio::test(start_paused = true)]
async fn one_that_its_client_left_before_the_drain_is_not_owed() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
    let drain = Arc::new(AtomicBool::new(false));
    let started = Arc::clone(&drain);
    let broker = stage.another(|broker| {
        broker.keeping(keeping(&stage, &folder)).ending_when(move || started.load(Ordering::SeqCst))
    });
    drop(stage.opened(&broker, stage.sale(1, &[PAY, Do::Arriving])).await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.state(1).await, State::Delivering);
    drain.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.state(1).await, State::Completed, "the drain does not wait for it");
}

/// The other had it for as long as this one did not answer.
#[tokio::test(start_paused = true)]
async fn how_it_ended_is_recorded_by_who_takes_the_job_back() {
    let stage = Stage::new();
    let body = stage.opened(&stage.broker, stage.sale(1, &[PAY, Do::Arriving])).await;
    stage.taken_for_a_while().await;
    stage.whole();
    let _ = body.collect().await;
    stage.until(1, State::Completed).await;
    assert_eq!(stage.events(1).await, with("handed_out"));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_taken_back_is_kept() {
    let (stage, lease_for) = (Stage::new(), Duration::from_secs(15));
    let fresh = stage.broker.fresh_job(&stage.sale(1, &[]));
    let Ok(Claim::Won(job, lease)) = stage.store.claim(&fresh, lease_for).await else { panic!("taken") };
    let journal = stage.broker.journal(job, lease);
    let work = async {
        stage.taken_for_a_while().await;
        // It is heard that the lease is lost.
        tokio::time::sleep(lease_for).await;
        journal.insist(Event::SettleFirst).await.unwrap();
        assert!(journal.written_within(lease_for, lease_for).await);
        for _ in 0..6 {
            stage.clock.advance(5_000);
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        assert!(stage.store.take_over(&fresh.claim, lease_for).await.unwrap().is_none());
    };
    journal.keeping(lease_for, work).await;
}
