//! What a facilitator says is settled, and is or is not there.

use super::*;
use crate::chain::Unpaid;

/// The hash that the facilitator names.
const NAMED: &str = "0xfeed";

impl Stage {
    /// A stage whose chain was asked at `NOW`, and a final block of that time.
    fn audited() -> Stage {
        let stage = Stage::new();
        stage.chain.says(open_at(80, NOW));
        stage.final_block(80, NOW);
        stage
    }

    fn final_block(&self, number: u64, time: u64) {
        *self.chain.last.lock() = Some(Head { number, hash: B256::ZERO, time });
    }

    fn exposition(&self) -> String {
        self.broker.metrics.exposition().unwrap()
    }

    #[track_caller]
    fn shows(&self, found: u32, missing: u32, waiting: u32) {
        let text = self.exposition();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).map(|line| line.rsplit(' ').next());
            line.map_or(0, |value| value.unwrap().parse().unwrap())
        };
        let audited = "galaksio_settlements_audited_total{outcome=";
        let values = (
            value(&format!("{audited}\"found\"}}")),
            value(&format!("{audited}\"missing\"}}")),
            value("galaksio_settlements_to_be_audited"),
        );
        assert_eq!(values, (found, missing, waiting), "found, missing, waiting");
    }
}

fn open_at(number: u64, time: u64) -> Result<Proof, ChainError> {
    Ok(Proof::Open { as_of: Head { number, hash: B256::ZERO, time } })
}

fn named() -> B256 {
    B256::repeat_byte(0xfe)
}

fn received(number: u8) -> Spent {
    Spent { from: Address::repeat_byte(0xbb), nonce: B256::repeat_byte(number), value: Amount::new(PRICE) }
}

/// A facilitator that names a whole hash.
fn settles(stage: &Stage) {
    stage.facilitator.names.lock().replace(named().to_string());
}

#[tokio::test(start_paused = true)]
async fn what_was_received_is_found_with_one_question() {
    let stage = Stage::audited();
    settles(&stage);
    let mut audit = Audit::new(Arc::clone(&stage.broker));
    for number in 1..=5 {
        assert_eq!(stage.sell(stage.sale(number, &[])).await.reason, Reason::Paid);
        stage.chain.spent.lock().push((82, received(number)));
    }
    audit.round().await;
    // Nothing is final yet.
    stage.shows(0, 0, 5);
    stage.final_block(82, NOW + 4);
    audit.round().await;
    stage.shows(5, 0, 0);
    assert!(stage.chain.asked.lock().is_empty(), "each was asked for on its own");
    assert!(stage.facilitator.distrusted.lock().is_empty());
}

/// A gateway that sells before it has looked at the chain does not know from where to read: such a payment is proved.
#[tokio::test(start_paused = true)]
async fn a_payment_of_no_known_height_is_found_though_it_is_final_already() {
    let stage = Stage::audited();
    settles(&stage);
    stage.chain.unseen.store(true, Ordering::Relaxed);
    assert_eq!(stage.sell(stage.sale(1, &[])).await.reason, Reason::Paid);
    stage.chain.spent.lock().push((81, received(1)));
    stage.final_block(90, NOW + 4);
    let mut audit = Audit::new(Arc::clone(&stage.broker));
    audit.round().await;
    stage.shows(0, 0, 1);
    stage.chain.says(Ok(Proof::Paid { transaction: named(), block: 81, is_final: true }));
    audit.round().await;
    stage.shows(1, 0, 0);
}

/// One transfer vouches for one payment, though the facilitator names its hash for both.
#[tokio::test(start_paused = true)]
async fn the_first_payment_that_is_missing_ends_the_trust() {
    let stage = Stage::audited();
    settles(&stage);
    let mut audit = Audit::new(Arc::clone(&stage.broker));
    for number in 1..=2 {
        assert_eq!(stage.sell(stage.sale(number, &[])).await.reason, Reason::Paid);
    }
    stage.chain.spent.lock().push((82, received(1)));
    stage.final_block(82, NOW + 4);
    audit.round().await;
    stage.shows(1, 0, 1);
    // Time for a transaction that is slow, then none.
    stage.final_block(100, NOW + 60);
    stage.chain.says(open_at(100, NOW + 60));
    audit.round().await;
    stage.shows(1, 0, 1);
    stage.final_block(101, NOW + 61);
    stage.chain.says(open_at(101, NOW + 61));
    audit.round().await;
    stage.shows(1, 1, 0);
    let distrusted = stage.facilitator.distrusted.lock().clone();
    assert_eq!(distrusted.len(), 1);
    assert!(distrusted[0].contains("final block 101"), "{distrusted:?}");
    audit.round().await;
    assert_eq!(stage.facilitator.distrusted.lock().len(), 1, "told once");
}

/// Each gateway sees a transfer that was made, and a transaction that is named: only one of them sold what it paid for.
#[tokio::test(start_paused = true)]
async fn one_transfer_vouches_for_one_payment_at_all_gateways() {
    let stage = Stage::audited();
    settles(&stage);
    let other = stage.another(|broker| broker);
    assert_eq!(stage.sell(stage.sale(1, &[])).await.reason, Reason::Paid);
    let said = Said::of(Arc::clone(&other).sell(Box::new(stage.sale(2, &[])), ()).await);
    assert_eq!(said.reason, Reason::Paid);
    stage.chain.spent.lock().push((82, received(1)));
    stage.final_block(101, NOW + 61);
    stage.chain.says(open_at(101, NOW + 61));
    Audit::new(Arc::clone(&stage.broker)).round().await;
    stage.shows(1, 0, 0);
    Audit::new(other).round().await;
    let distrusted = stage.facilitator.distrusted.lock().clone();
    assert!(distrusted.len() == 1 && distrusted[0].contains(&stage.job(2).await.id.to_string()));
}

#[tokio::test(start_paused = true)]
async fn what_is_paid_by_another_transaction_is_there_and_what_was_cancelled_is_not() {
    let paid = Ok(Proof::Paid { transaction: B256::repeat_byte(9), block: 81, is_final: true });
    let table = [
        (paid, (1, 0, 0)),
        (Ok(Proof::Paid { transaction: B256::repeat_byte(9), block: 81, is_final: false }), (0, 0, 1)),
        (Err(ChainError::Away("as told".into())), (0, 0, 1)),
        (Err(ChainError::Contradict(81)), (0, 0, 1)),
        (Ok(Proof::Unpaid(Unpaid::Canceled)), (0, 1, 0)),
        (Ok(Proof::Unpaid(Unpaid::Elsewhere)), (0, 1, 0)),
    ];
    for (proof, (found, missing, waiting)) in table {
        let stage = Stage::audited();
        // A hash that is none.
        stage.facilitator.names.lock().replace(NAMED.to_owned());
        assert_eq!(stage.sell(stage.sale(1, &[])).await.reason, Reason::Paid);
        stage.final_block(101, NOW + 61);
        stage.chain.says(proof);
        Audit::new(Arc::clone(&stage.broker)).round().await;
        stage.shows(found, missing, waiting);
        assert_eq!(stage.facilitator.distrusted.lock().len(), missing as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_chain_nothing_is_looked_for_and_while_it_is_away_nothing_is_forgotten() {
    let stage = Stage::new();
    assert_eq!(stage.sell(stage.sale(1, &[])).await.reason, Reason::Paid);
    let mut audit = Audit::new(Arc::clone(&stage.broker));
    audit.round().await;
    stage.shows(0, 0, 0);

    let stage = Stage::audited();
    settles(&stage);
    assert_eq!(stage.sell(stage.sale(1, &[])).await.reason, Reason::Paid);
    let mut audit = Audit::new(Arc::clone(&stage.broker));
    *stage.chain.last.lock() = None;
    audit.round().await;
    stage.shows(0, 0, 1);
    stage.chain.spent.lock().push((90, received(1)));
    stage.final_block(100, NOW + 100);
    audit.round().await;
    stage.shows(1, 0, 0);
}

/// A payment that was found by proof, in a block that is not final, is looked for again: that block may be undone.
#[tokio::test(start_paused = true)]
async fn a_payment_that_was_proved_before_it_was_final_is_looked_for_again() {
    let stage = Stage::audited();
    stage.chain.says(Ok(Proof::Paid { transaction: named(), block: 81, is_final: false }));
    stage.facilitator.says(&[Settle::Silent]);
    assert_eq!(stage.sell(stage.sale(1, &[])).await.reason, Reason::Paid);
    let mut audit = Audit::new(Arc::clone(&stage.broker));
    audit.round().await;
    stage.shows(0, 0, 1);
    stage.chain.spent.lock().push((81, received(1)));
    stage.final_block(82, NOW + 4);
    audit.round().await;
    stage.shows(1, 0, 0);
}

impl Stage {
    /// A sale whose job's id was made when the stage's clock began.
    pub(super) fn timed(&self, number: u8, steps: &[Do]) -> Sale {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&(NOW * 1000).to_be_bytes()[2..]);
        (bytes[6], bytes[8], bytes[15]) = (0x70, 0x80, number);
        let job = JobId::from_bytes(bytes);
        assert_eq!(job.made(), NOW);
        Sale { job: Some(job), ..self.sale(number, steps) }
    }
}

/// What a process has not looked for yet when it ends is looked for by another, once.
#[tokio::test(start_paused = true)]
async fn what_a_process_leaves_behind_is_looked_for_by_another() {
    let stage = Stage::audited();
    settles(&stage);
    let mut dead = Audit::new(Arc::clone(&stage.broker));
    dead.keep().await;
    for number in 1..=2 {
        assert_eq!(stage.sell(stage.timed(number, &[])).await.reason, Reason::Paid);
    }
    // Nobody has paid for this one: there is nothing to be looked for.
    stage.sell(stage.timed(3, &[Do::Fail(Reason::ProviderFailed)])).await;
    dead.round().await;
    stage.shows(0, 0, 2);
    // It dies before it marks again.
    stage.broker.audits.forget();
    let mut next = Audit::new(Arc::clone(&stage.broker));
    stage.clock.advance(60_000);
    next.keep().await;
    next.round().await;
    stage.shows(0, 0, 0);
    stage.clock.advance(61_000);
    next.keep().await;
    next.round().await;
    stage.shows(0, 0, 2);
    // Nor does another find them once more.
    stage.clock.advance(31_000);
    Audit::new(Arc::clone(&stage.broker)).keep().await;
    assert_eq!(stage.broker.audits.jobs().len(), 2);

    // One is there, and the other was never made.
    stage.chain.spent.lock().push((82, received(1)));
    stage.final_block(101, NOW + 61);
    stage.chain.says(open_at(101, NOW + 61));
    next.round().await;
    stage.shows(1, 1, 0);
    assert_eq!(stage.facilitator.distrusted.lock().len(), 1);
}

/// The second death: what was taken over is marked before the first mark is dropped.
#[tokio::test(start_paused = true)]
async fn what_was_taken_over_is_left_behind_again() {
    let stage = Stage::audited();
    settles(&stage);
    assert_eq!(stage.sell(stage.timed(1, &[])).await.reason, Reason::Paid);
    Audit::new(Arc::clone(&stage.broker)).keep().await;
    for _ in 0..3 {
        stage.broker.audits.forget();
        stage.clock.advance(121_000);
        Audit::new(Arc::clone(&stage.broker)).keep().await;
        assert_eq!(stage.broker.audits.jobs().len(), 1);
    }
}

/// While it is away nothing is dropped.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_asked_again_for_what_others_left() {
    let stage = Stage::audited();
    settles(&stage);
    assert_eq!(stage.sell(stage.timed(1, &[])).await.reason, Reason::Paid);
    Audit::new(Arc::clone(&stage.broker)).keep().await;
    stage.broker.audits.forget();
    stage.clock.advance(121_000);
    let mut next = Audit::new(Arc::clone(&stage.broker));
    stage.store.go_away(true);
    next.keep().await;
    assert_eq!(stage.broker.audits.jobs().len(), 0);
    stage.store.go_away(false);
    next.keep().await;
    assert_eq!(stage.broker.audits.jobs().len(), 1);
}
