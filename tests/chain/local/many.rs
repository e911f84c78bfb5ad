//! Many settlements from one gas account: none lost, none doubled.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use galaksio::x402::B256;

use super::*;

/// Payments of distinct amounts, 1 to `count` units, of a payer for each ten, who has exactly what they come to.
async fn payments(chain: &Chain, count: u64) -> Vec<Payment> {
    let mut payments = Vec::new();
    let amounts: Vec<u64> = (1..=count).collect();
    for ten in amounts.chunks(10) {
        let (key, payer) = chain.payer(ten.iter().sum()).await;
        for units in ten {
            payments.push(Payment::new(chain, key.clone(), authorization(payer, PAYEE, *units)));
        }
    }
    payments
}

/// Settles all, so many at once, and holds every answer against the chain, to the unit. The transactions.
async fn settle_all(rig: &Rig, payments: &[Payment], at_once: usize) -> BTreeSet<B256> {
    let first = rig.chain.head().await.number + 1;
    let answers: Vec<Settlement> = stream::iter(payments)
        .map(|payment| async { rig.settle(&payment.v2()).await })
        .buffered(at_once)
        .collect()
        .await;
    let transfers = rig.chain.transfers_since(first).await;
    assert_eq!(transfers.len(), payments.len(), "each payment moved money once");
    let mut transactions = BTreeSet::new();
    for (payment, answer) in payments.iter().zip(answers) {
        let transaction = settled(answer).transaction.parse().unwrap();
        let Authorization { from, to, value, .. } = payment.authorization;
        let mine: Vec<_> = transfers
            .iter()
            .filter(|transfer| (transfer.from, transfer.to, transfer.value) == (from, to, value))
            .collect();
        assert_eq!(mine.len(), 1);
        assert_eq!(mine[0].transaction, transaction, "the receipt names another transaction");
        assert_eq!(rig.chain.balance(from).await, 0);
        transactions.insert(transaction);
    }
    let total: u128 = payments.iter().map(|payment| payment.authorization.value.units()).sum();
    assert_eq!(u128::from(rig.chain.balance(PAYEE).await), total);
    transactions
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn two_hundred_payments_are_settled_sixty_four_at_once_in_the_blocks_it_takes() {
    let chain = Chain::start(Settings::instant()).await;
    let payments = payments(&chain, 200).await;
    chain.rpc("evm_setAutomine", json!([false])).await;
    let rig = Rig::with(chain, "").await;
    let (start, first) = (Instant::now(), rig.chain.head().await.number);
    // A block a second, if there is something for it: how long all the rest takes is no matter of blocks.
    let miner = async {
        loop {
            while rig.chain.waiting().await == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            rig.chain.mine(1).await;
        }
    };
    let transactions = tokio::select! {
        transactions = settle_all(&rig, &payments, 64) => transactions,
        () = miner => unreachable!(),
    };
    let blocks = rig.chain.head().await.number - first;
    println!(
        "200 settlements, 64 at once: {:?}, {blocks} blocks, {} transactions",
        start.elapsed(),
        transactions.len()
    );
    // Four rounds of 64, the block that was being made, and some that a slow machine splits: a block is made a second
    // after the first that waits for it.
    assert!(blocks <= 12, "{blocks} blocks");
    assert!(transactions.len() < 100, "{} transactions: those that waited did not share", transactions.len());
    assert_eq!(rig.chain.sent(rig.gas_account).await, transactions.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn blocks_at_once_and_no_batches_are_no_trouble_either() {
    let rig = Rig::with(Chain::start(Settings::default()).await, "max_batch = 1").await;
    let payments = payments(&rig.chain, 60).await;
    let transactions = settle_all(&rig, &payments, 30).await;
    assert_eq!((transactions.len(), rig.chain.sent(rig.gas_account).await), (60, 60));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn the_same_payment_asked_for_by_many_at_once_is_one_settlement() {
    let rig = Rig::start(Settings::every(1)).await;
    let payment = rig.payment(5000, 1000).await;
    let asked = (0..20).map(|at| {
        // Also as the other version, which is another request about the same money.
        let version = if at % 4 == 0 { Version::V1 } else { Version::V2 };
        let request = payment.request(version);
        let facilitator = Arc::clone(&rig.facilitator);
        async move { settled(facilitator.settle(&request).await.unwrap()).transaction }
    });
    let answers: BTreeSet<String> = futures_util::future::join_all(asked).await.into_iter().collect();
    assert_eq!(answers.len(), 1);
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.sent(rig.gas_account).await), (1000, 1));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn one_that_fails_in_a_shared_transaction_fails_alone() {
    let rig = Rig::start(Settings::every(3600)).await;
    // Three payments of the same amount, and money for two: which of them fails is for the chain to say.
    let (key, payer) = rig.chain.payer(2000).await;
    let payment = |_| Payment::new(&rig.chain, key.clone(), authorization(payer, PAYEE, 1000));
    let mut payments: Vec<Payment> = (0..3).map(payment).collect();
    payments.push(rig.payment(7, 7).await);
    payments.push(rig.payment(70, 70).await);
    let miner = async {
        while rig.chain.waiting().await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            rig.chain.mine(1).await;
        }
    };
    let settling = futures_util::future::join_all(
        payments.iter().map(|payment| async { rig.settle(&payment.v2()).await }),
    );
    let answers = tokio::select! {
        answers = settling => answers,
        () = miner => unreachable!(),
    };
    let reasons: Vec<String> = answers
        .iter()
        .filter_map(|answer| match answer {
            Settlement::Refused(receipt) => receipt.error_reason.clone(),
            Settlement::Settled(_) => None,
            Settlement::Pending(receipt) => panic!("{receipt:?}"),
        })
        .collect();
    assert_eq!(reasons, ["invalid_exact_evm_insufficient_balance"]);
    assert_eq!(rig.chain.balance(PAYEE).await, 2077);
}
