//! What goes wrong on a chain and with its endpoints, and what is right all the same. After each, things go on.

use galaksio::facilitator::FacilitatorError;
use galaksio::x402::B256;
use tokio::task::JoinHandle;

use super::*;
use crate::between::{Between, Fault};

const GWEI: u128 = 1_000_000_000;
const STRANGER: Address = Address::repeat_byte(0x55);

#[track_caller]
fn pending(settlement: Settlement) -> Option<B256> {
    match settlement {
        Settlement::Pending(receipt) => {
            assert_eq!(
                (receipt.success, receipt.error_reason.as_deref()),
                (false, Some("settlement_pending"))
            );
            receipt.transaction.parse().ok()
        }
        other => panic!("not pending: {other:?}"),
    }
}

impl Rig {
    /// Settles in the background.
    fn settling(&self, payment: &Payment) -> JoinHandle<Settlement> {
        let (facilitator, request) = (Arc::clone(&self.facilitator), payment.v2());
        tokio::spawn(async move { facilitator.settle(&request).await.unwrap() })
    }

    /// Waits until so many transactions wait for a block.
    async fn wait_in_pool(&self, count: u64) {
        until(async || self.chain.waiting().await >= count).await;
    }

    /// The one transaction of the gas account that waits.
    async fn waiting_transaction(&self) -> B256 {
        self.wait_in_pool(1).await;
        let pool = self.chain.rpc("txpool_content", json!([])).await;
        let mine = |(from, _): &(&String, &Value)| from.parse() == Ok(self.gas_account);
        let (_, transactions) = pool["pending"].as_object().unwrap().iter().find(mine).unwrap();
        transactions.as_object().unwrap().values().next().unwrap()["hash"].as_str().unwrap().parse().unwrap()
    }

    /// Makes blocks until the answer is there.
    async fn mining(&self, answer: JoinHandle<Settlement>) -> Settlement {
        until(async || {
            self.chain.mine(1).await;
            answer.is_finished()
        })
        .await;
        answer.await.unwrap()
    }

    /// A fresh payment settles, and the payee has this much in all.
    async fn goes_on(&self, before: u64) {
        let payment = self.payment(1, 1).await;
        settled(self.mining(self.settling(&payment)).await);
        assert_eq!(self.chain.balance(PAYEE).await, before + 1);
    }
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    let patience = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), patience).await.expect("it does not come to pass");
}

/// A chain that makes blocks only when told, behind a relay.
async fn behind_relay(settings: &str) -> (Rig, Between) {
    let chain = Chain::start(Settings::every(3600)).await;
    let between = Between::start(&chain.url).await;
    let (gas_key, gas_account) = chain.gas_key().await;
    let facilitator = facilitator(&between.url, &gas_key, settings);
    (Rig { chain, gas_key, gas_account, facilitator }, between)
}

async fn still() -> Rig {
    Rig::start(Settings::every(3600)).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn an_answer_lost_after_the_transaction_was_taken_costs_nothing() {
    let (rig, between) = behind_relay("").await;
    let payment = rig.payment(1000, 1000).await;
    between.set(Fault::Unanswered("eth_sendRawTransaction"));
    let answer = rig.settling(&payment);
    between.struck(2).await;
    between.set(Fault::None);
    settled(rig.mining(answer).await);
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.sent(rig.gas_account).await), (1000, 1));
    rig.goes_on(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn an_endpoint_that_is_down_at_send_makes_the_payment_wait() {
    let (rig, between) = behind_relay("settle_timeout = \"500ms\"").await;
    let payment = rig.payment(1000, 1000).await;
    between.set(Fault::Lost("eth_sendRawTransaction"));
    assert!(pending(rig.settle(&payment.v2()).await).is_some());
    between.set(Fault::Down);
    between.struck(5).await;
    assert!(pending(rig.settle(&payment.v2()).await).is_some());
    // Down before anything was asked: certainly nothing happened.
    let other = rig.payment(5, 5).await;
    assert!(matches!(rig.facilitator.settle(&other.v2()).await, Err(FacilitatorError::NotSent(_))));
    assert!(matches!(rig.facilitator.verify(&other.v2()).await, Err(FacilitatorError::NotSent(_))));
    assert!(matches!(rig.facilitator.supported().await, Err(FacilitatorError::NotSent(_))));
    between.set(Fault::None);
    rig.wait_in_pool(1).await;
    settled(rig.mining(rig.settling(&payment)).await);
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.sent(rig.gas_account).await), (1000, 1));
    rig.goes_on(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn gas_over_the_limit_makes_payments_wait_until_it_falls() {
    let chain = Chain::start(Settings::every(3600)).await;
    let rig = Rig::with(chain, "settle_timeout = \"300ms\"").await;
    rig.chain.set_base_fee(100 * GWEI).await;
    rig.chain.mine(1).await;
    let payment = rig.payment(1000, 1000).await;
    rig.chain.set_base_fee(100 * GWEI).await;
    rig.chain.mine(1).await;
    assert_eq!(pending(rig.settle(&payment.v2()).await), None, "nothing is sent at this price");
    assert_eq!(rig.chain.waiting().await, 0);
    rig.chain.set_base_fee(GWEI).await;
    rig.chain.mine(1).await;
    rig.wait_in_pool(1).await;
    settled(rig.mining(rig.settling(&payment)).await);
    assert_eq!(rig.chain.balance(PAYEE).await, 1000);
    rig.goes_on(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn a_transaction_that_is_priced_out_is_offered_more_for_up_to_the_limit() {
    let rig = still().await;
    let payment = rig.payment(1000, 1000).await;
    let answer = rig.settling(&payment);
    let first = rig.waiting_transaction().await;
    // Far over the limit nothing is offered, and no node keeps it.
    rig.chain.set_base_fee(100 * GWEI).await;
    rig.chain.mine(1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.chain.waiting().await, 0);
    // Over what it offers, below the limit: it takes its own place.
    rig.chain.set_base_fee(4 * GWEI).await;
    rig.chain.mine(1).await;
    until(async || rig.waiting_transaction().await != first).await;
    rig.chain.set_base_fee(4 * GWEI).await;
    let receipt = settled(rig.mining(answer).await);
    assert_ne!(receipt.transaction.parse(), Ok(first));
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.sent(rig.gas_account).await), (1000, 1));
    rig.goes_on(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn a_transaction_the_pool_forgot_is_sent_again() {
    let rig = still().await;
    let payment = rig.payment(1000, 1000).await;
    let answer = rig.settling(&payment);
    let forgotten = rig.waiting_transaction().await;
    rig.chain.drop_transaction(forgotten).await;
    assert_eq!(rig.chain.waiting().await, 0);
    settled(rig.mining(answer).await);
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.sent(rig.gas_account).await), (1000, 1));
    rig.goes_on(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn money_that_is_gone_between_verify_and_settle_is_not_sent_for() {
    let rig = Rig::start(Settings::default()).await;
    let payment = rig.payment(1000, 1000).await;
    assert_eq!(rig.verify(&payment.v2()).await, Verdict::Valid);
    rig.chain.burn(payment.authorization.from, 1).await;
    assert_eq!(refused(rig.settle(&payment.v2()).await), "invalid_exact_evm_insufficient_balance");
    assert_eq!(rig.chain.sent(rig.gas_account).await, 0);
    // With the money back, the same payment is good again.
    rig.chain.mint(payment.authorization.from, 1).await;
    settled(rig.settle(&payment.v2()).await);
    rig.goes_on(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn a_payment_cancelled_while_it_is_sent_is_refused() {
    let rig = still().await;
    let payment = rig.payment(1000, 1000).await;
    let answer = rig.settling(&payment);
    let ours = rig.waiting_transaction().await;
    rig.chain.drop_transaction(ours).await;
    rig.chain.cancel(&payment.key, payment.authorization.from, payment.authorization.nonce).await;
    rig.chain.mine(1).await;
    assert_eq!(refused(rig.mining(answer).await), "invalid_exact_evm_nonce_already_used");
    assert_eq!(rig.chain.balance(PAYEE).await, 0);
    rig.goes_on(0).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn a_payment_that_somebody_else_submitted_is_paid() {
    let rig = still().await;
    // While ours is on its way.
    let payment = rig.payment(1000, 1000).await;
    let answer = rig.settling(&payment);
    let ours = rig.waiting_transaction().await;
    rig.chain.drop_transaction(ours).await;
    let theirs = rig.chain.submit(STRANGER, &payment.authorization, &payment.signature).await;
    rig.chain.mine(1).await;
    let receipt = settled(rig.mining(answer).await);
    assert_eq!(receipt.transaction.parse(), Ok(theirs));
    assert_eq!(rig.chain.balance(PAYEE).await, 1000);

    // Before it was asked for.
    let payment = rig.payment(1000, 1000).await;
    let theirs = rig.chain.submit(STRANGER, &payment.authorization, &payment.signature).await;
    rig.chain.mine(1).await;
    let sent = rig.chain.sent(rig.gas_account).await;
    assert_eq!(settled(rig.settle(&payment.v2()).await).transaction.parse(), Ok(theirs));
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.sent(rig.gas_account).await), (2000, sent));

    // To another payee it is no payment of this.
    let mut elsewhere = rig.payment(1000, 1000).await;
    elsewhere.authorization.to = STRANGER;
    elsewhere = elsewhere.signed();
    rig.chain.submit(STRANGER, &elsewhere.authorization, &elsewhere.signature).await;
    rig.chain.mine(1).await;
    assert_eq!(refused(rig.settle(&elsewhere.v2()).await), "invalid_exact_evm_recipient_mismatch");
    let mut twice = elsewhere.clone();
    twice.authorization.to = PAYEE;
    assert_eq!(refused(rig.settle(&twice.signed().v2()).await), "invalid_exact_evm_nonce_already_used");
    rig.goes_on(2000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn a_restart_with_transactions_in_the_pool_pays_nobody_twice() {
    let mut rig = still().await;
    let (one, two) = (rig.payment(1000, 1000).await, rig.payment(500, 500).await);
    // The first life, on a runtime of its own, which is cut off.
    let life = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (url, key, request) = (rig.chain.url.clone(), rig.gas_key.clone(), one.v2());
    life.spawn(async move { facilitator(&url, &key, "").settle(&request).await });
    let transaction = rig.waiting_transaction().await;
    life.shutdown_background();

    rig.restart();
    let (again, other) = (rig.settling(&one), rig.settling(&two));
    rig.wait_in_pool(2).await;
    let receipt = settled(rig.mining(again).await);
    assert_eq!(receipt.transaction.parse(), Ok(transaction));
    settled(rig.mining(other).await);
    assert_eq!(rig.chain.balance(PAYEE).await, 1500);
    rig.goes_on(1500).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn what_a_reorg_takes_back_is_sent_again() {
    let rig = still().await;
    let payment = rig.payment(1000, 1000).await;
    settled(rig.mining(rig.settling(&payment)).await);
    assert_eq!(rig.chain.balance(PAYEE).await, 1000);
    rig.chain.mine(1).await;
    let head = rig.chain.head().await.number;
    let mut depth = 1;
    while rig.chain.is_used(payment.authorization.from, payment.authorization.nonce).await {
        rig.chain.reorg(depth).await;
        depth += 1;
        assert!(depth < head);
    }
    // Nobody asks for it again; the next one settled brings it back.
    let other =
        Payment::new(&rig.chain, payment.key.clone(), authorization(payment.authorization.from, PAYEE, 0));
    settled(rig.mining(rig.settling(&other)).await);
    until(async || {
        rig.chain.mine(1).await;
        rig.chain.is_used(payment.authorization.from, payment.authorization.nonce).await
    })
    .await;
    assert_eq!(rig.chain.balance(PAYEE).await, 1000);
    rig.goes_on(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn somebody_else_with_the_same_key_does_not_stop_it() {
    let rig = still().await;
    rig.goes_on(0).await;
    for _ in 0..3 {
        rig.chain.send_as(rig.gas_account, STRANGER, &[]).await;
        rig.chain.mine(1).await;
    }
    rig.goes_on(1).await;
    rig.goes_on(2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn an_empty_gas_account_is_told_of_before_and_payments_wait_for_it_to_be_filled() {
    let rig = Rig::with(Chain::start(Settings::every(1)).await, "settle_timeout = \"500ms\"").await;
    assert_eq!(rig.facilitator.problems().await, Vec::<String>::new());
    let payment = rig.payment(1000, 1000).await;
    rig.chain.set_wei(rig.gas_account, alloy::primitives::U256::from(1)).await;
    let problems = rig.facilitator.problems().await;
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("less than one transfer costs"), "{problems:?}");
    assert!(matches!(rig.facilitator.supported().await, Err(FacilitatorError::NotSent(_))));
    pending(rig.settle(&payment.v2()).await);
    rig.chain.set_wei(rig.gas_account, crate::anvil::ether(1)).await;
    until(async || matches!(rig.settle(&payment.v2()).await, Settlement::Settled(_))).await;
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.sent(rig.gas_account).await), (1000, 1));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn a_number_that_was_refused_does_not_hold_up_those_above_it() {
    let (rig, between) = behind_relay("max_batch = 1").await;
    let mut payments = Vec::new();
    for _ in 0..6 {
        payments.push(rig.payment(1000, 1000).await);
    }
    between.set(Fault::RefusedFirst("eth_sendRawTransaction"));
    let answers: Vec<_> = payments.iter().map(|payment| rig.settling(payment)).collect();
    between.struck(1).await;
    for answer in answers {
        settled(rig.mining(answer).await);
    }
    // The seventh has no effect: it filled the gap.
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.sent(rig.gas_account).await), (6000, 7));
    rig.goes_on(6000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn a_payment_counts_when_it_is_as_deep_as_was_asked_for() {
    let rig = Rig::with(Chain::start(Settings::every(3600)).await, "confirmations = 3").await;
    let payment = rig.payment(1000, 1000).await;
    let answer = rig.settling(&payment);
    rig.waiting_transaction().await;
    rig.chain.mine(2).await;
    assert_eq!(rig.chain.balance(PAYEE).await, 1000);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!answer.is_finished(), "it is two blocks deep");
    // A reorg takes both blocks, and the transaction with them: it is sent again, and counted from there.
    rig.chain.reorg(2).await;
    assert_eq!(rig.chain.balance(PAYEE).await, 0);
    rig.chain.mine(1).await;
    rig.waiting_transaction().await;
    rig.chain.mine(1).await;
    let included = rig.chain.head().await.number;
    settled(rig.mining(answer).await);
    assert!(rig.chain.head().await.number >= included + 2);
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.sent(rig.gas_account).await), (1000, 1));
    rig.goes_on(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn a_payment_that_lapses_on_the_way_is_refused() {
    let rig = still().await;
    let mut payment = rig.payment(1000, 1000).await;
    payment.authorization.valid_before = Clock::system().now() + 30;
    let payment = payment.signed();
    let answer = rig.settling(&payment);
    let ours = rig.waiting_transaction().await;
    rig.chain.drop_transaction(ours).await;
    rig.chain.travel(60).await;
    // The chain's clock says so before ours does, or ours as well.
    let reason = refused(answer.await.unwrap());
    let said = [
        "invalid_exact_evm_transaction_simulation_failed",
        "invalid_exact_evm_payload_authorization_valid_before",
    ];
    assert!(said.contains(&reason.as_str()), "{reason}");
    assert_eq!(rig.chain.balance(PAYEE).await, 0);
    rig.goes_on(0).await;
}
