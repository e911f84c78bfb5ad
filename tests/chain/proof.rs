//! What `galaksio::chain` proves about payments on a real chain.

use std::time::Duration;

use alloy::primitives::{Bytes, address};
use alloy::sol_types::SolCall;
use galaksio::chain::{Chain as Reader, ChainError, Proof, Since, Sought, Unpaid};
use galaksio::clock::Clock;
use galaksio::config::resolved;
use galaksio::x402::{Address, Authorization, B256};

use crate::anvil::{Chain, NETWORK, Settings};
use crate::token::abi::transferWithAuthorizationCall;
use crate::token::{authorization, sign};

const SHOP: Address = Address::repeat_byte(0x77);
const STRANGER: Address = Address::repeat_byte(0x55);
const MULTICALL3: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");

alloy::sol! {
    struct Call3 { address target; bool allowFailure; bytes callData; }
    function aggregate3(Call3[] calls) returns (bytes);
}

/// The settings of a reader of these endpoints, which takes blocks for final that have two on top, and does not mind a
/// chain whose clock was set.
pub(crate) fn settings(urls: &[&str]) -> resolved::Chain {
    resolved::Chain {
        network: NETWORK,
        rpc: urls.iter().map(|url| (*url).to_owned().into()).collect(),
        final_blocks: Some(2),
        timeout: Duration::from_secs(5),
        max_head_age: Duration::from_secs(365 * 86_400),
        log_range: 50,
        poll: Duration::from_millis(20),
        allow_plain_http: false,
    }
}

/// What a reader that has seen nothing yet proves.
pub(crate) async fn prove(chain: &Chain, sought: &Sought) -> Result<Proof, ChainError> {
    Reader::new(&settings(&[&chain.url]), Clock::system()).unwrap().prove(sought).await
}

/// What is asked about `payment`, presented when `height` was the newest block.
pub(crate) fn sought(chain: &Chain, payment: &Authorization, height: u64) -> Sought {
    Sought {
        asset: chain.asset().address,
        from: payment.from,
        nonce: payment.nonce,
        to: payment.to,
        value: payment.value,
        valid_before: payment.valid_before,
        since: Since::Block(height),
    }
}

fn is_paid(proof: &Result<Proof, ChainError>, hash: B256, last: bool) -> bool {
    matches!(proof, Ok(Proof::Paid { transaction, is_final, .. }) if *transaction == hash && *is_final == last)
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn a_payment_is_proved_whoever_submitted_it() {
    let chain = Chain::start(Settings::instant()).await;
    let (key, payer) = chain.payer(5_000).await;
    let payment = authorization(payer, SHOP, 1_000);
    let height = chain.head().await.number;
    let sought = sought(&chain, &payment, height);
    chain.mine(3).await;
    assert!(matches!(prove(&chain, &sought).await, Ok(Proof::Open { .. })));

    let transaction = chain.submit(STRANGER, &payment, &sign(&chain.asset(), &key, &payment)).await;
    assert!(chain.mined(transaction).await);
    let proof = prove(&chain, &sought).await;
    assert!(is_paid(&proof, transaction, false), "{proof:?}");
    chain.mine(2).await;
    let proof = prove(&chain, &sought).await;
    assert!(is_paid(&proof, transaction, true), "{proof:?}");
    // It stays proved when it is old, and past its time.
    chain.mine(200).await;
    chain.travel(3_600).await;
    chain.mine(3).await;
    let proof = prove(&chain, &sought).await;
    assert!(is_paid(&proof, transaction, true), "{proof:?}");
    // By the time alone, without a height.
    let by_time = Sought { since: Since::Time(payment.valid_before - 600), ..sought };
    let proof = prove(&chain, &by_time).await;
    assert!(is_paid(&proof, transaction, true), "{proof:?}");
    // It was not paid for what was asked for a hundred blocks later.
    let late = Sought { since: Since::Block(height + 100), ..sought };
    assert_eq!(prove(&chain, &late).await, Ok(Proof::Unpaid(Unpaid::Before)));
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn a_payment_is_found_in_a_batch_and_told_from_its_neighbours() {
    let chain = Chain::start(Settings::instant()).await;
    let (key, payer) = chain.payer(5_000).await;
    let height = chain.head().await.number;
    let ours = authorization(payer, SHOP, 1_000);
    // The payer signs another transfer with the same nonce, to himself, and hides it behind one to the shop.
    let stolen = authorization(payer, SHOP, 1_000);
    let instead = Authorization { to: payer, ..stolen };
    let beside = authorization(payer, SHOP, 1_000);
    let call = |payment: &Authorization| {
        let signature = sign(&chain.asset(), &key, payment);
        let call_data = transferWithAuthorizationCall::from((payment, signature.as_slice())).abi_encode();
        Call3 { target: chain.asset().address, allowFailure: false, callData: Bytes::from(call_data) }
    };
    let batch = aggregate3Call { calls: vec![call(&beside), call(&instead), call(&ours)] };
    let transaction = chain.send_as(STRANGER, MULTICALL3, &batch.abi_encode()).await;
    assert!(chain.mined(transaction).await);
    chain.mine(2).await;
    assert_eq!(chain.balance(SHOP).await, 2_000);
    let proof = prove(&chain, &sought(&chain, &ours, height)).await;
    assert!(is_paid(&proof, transaction, true), "{proof:?}");
    let proof = prove(&chain, &sought(&chain, &beside, height)).await;
    assert!(is_paid(&proof, transaction, true), "{proof:?}");
    let proof = prove(&chain, &sought(&chain, &stolen, height)).await;
    assert_eq!(proof, Ok(Proof::Unpaid(Unpaid::Elsewhere)));
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn a_cancelled_or_lapsed_authorization_is_proved_unpaid_when_that_is_final() {
    let chain = Chain::start(Settings::instant()).await;
    let (key, payer) = chain.payer(5_000).await;
    let height = chain.head().await.number;
    let [cancelled, idle] = [(); 2].map(|()| authorization(payer, SHOP, 1_000));
    let transaction = chain.cancel(&key, payer, cancelled.nonce).await;
    assert!(chain.mined(transaction).await);
    let (cancelled, idle) = (sought(&chain, &cancelled, height), sought(&chain, &idle, height));
    assert!(matches!(prove(&chain, &cancelled).await, Ok(Proof::Open { .. })));
    chain.mine(2).await;
    assert_eq!(prove(&chain, &cancelled).await, Ok(Proof::Unpaid(Unpaid::Canceled)));

    chain.travel(601).await;
    chain.mine(1).await;
    // The newest block is past the time, but the one that is final is not.
    assert!(matches!(prove(&chain, &idle).await, Ok(Proof::Open { .. })));
    chain.mine(1).await;
    assert_eq!(prove(&chain, &idle).await, Ok(Proof::Unpaid(Unpaid::Lapsed)));
    assert_eq!(prove(&chain, &cancelled).await, Ok(Proof::Unpaid(Unpaid::Canceled)));
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn what_a_reorganisation_undoes_was_never_final() {
    let chain = Chain::start(Settings::instant()).await;
    let (key, payer) = chain.payer(5_000).await;
    let payment = authorization(payer, SHOP, 1_000);
    let sought = sought(&chain, &payment, chain.head().await.number);
    chain.mine(5).await;
    let signature = sign(&chain.asset(), &key, &payment);
    let lost = chain.submit(STRANGER, &payment, &signature).await;
    chain.mine(1).await;
    assert!(is_paid(&prove(&chain, &sought).await, lost, false));
    chain.reorg(2).await;
    assert!(matches!(prove(&chain, &sought).await, Ok(Proof::Open { .. })));
    let again = chain.submit(SHOP, &payment, &signature).await;
    assert!(chain.mined(again).await);
    chain.mine(2).await;
    assert!(is_paid(&prove(&chain, &sought).await, again, true));
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn the_chains_own_final_block_counts_where_no_number_is_set() {
    // `finalized` is two blocks behind.
    let chain = Chain::start(Settings::instant()).await;
    let (key, payer) = chain.payer(5_000).await;
    let payment = authorization(payer, SHOP, 1_000);
    let sought = sought(&chain, &payment, chain.head().await.number);
    chain.mine(5).await;
    let by_tag = resolved::Chain { final_blocks: None, ..settings(&[&chain.url]) };
    let reader = || Reader::new(&by_tag, Clock::system()).unwrap();
    let transaction = chain.submit(STRANGER, &payment, &sign(&chain.asset(), &key, &payment)).await;
    assert!(chain.mined(transaction).await);
    assert!(is_paid(&reader().prove(&sought).await, transaction, false));
    chain.mine(2).await;
    assert!(is_paid(&reader().prove(&sought).await, transaction, true));
    assert_eq!(reader().last_final().await.unwrap().number + 2, chain.head().await.number);
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn receipts_come_with_their_block() {
    let chain = Chain::start(Settings::every(3_600)).await;
    let (key, payer) = chain.payer(50_000).await;
    let reader = Reader::new(&settings(&[&chain.url]), Clock::system()).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let payment = authorization(payer, SHOP, 10);
        let hash = chain.submit(STRANGER, &payment, &sign(&chain.asset(), &key, &payment)).await;
        let reader = reader.clone();
        waiting.push((hash, tokio::spawn(async move { reader.mined(hash, Duration::from_secs(60)).await })));
    }
    assert!(reader.mined(B256::repeat_byte(9), Duration::from_millis(100)).await.is_none());
    chain.mine(1).await;
    let mined = std::time::Instant::now();
    for (hash, receipt) in waiting {
        let receipt = receipt.await.unwrap().unwrap();
        assert_eq!((receipt.transaction_hash, receipt.status()), (hash, true));
    }
    // Not the seconds of a polling interval.
    assert!(mined.elapsed() < Duration::from_secs(4), "{:?}", mined.elapsed());
}
