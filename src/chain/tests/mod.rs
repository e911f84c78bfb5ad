//! The endpoints of a chain, well and unwell.

mod check;
mod fake;
mod income;
mod outlays;
mod proof;

use std::time::Duration;

use alloy::providers::Provider;

use self::fake::{Fake, Mood, chain, settings};
use super::{Chain, ChainError};
use crate::clock::Clock;
use crate::outgoing::stub::closed_url;
use crate::x402::B256;

impl Chain {
    /// Asks anew, however fresh the last look is.
    async fn forget(&self) {
        *self.last_look.lock().await = None;
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_next_endpoint_is_asked_where_one_does_not_answer() {
    for mood in [Mood::Html, Mood::Unavailable, Mood::Limited, Mood::Silent] {
        let (first, second) = (Fake::start(100).await, Fake::start(100).await);
        first.says.lock().mood = mood;
        let (chain, _) = chain(&[&first, &second], 100);
        assert_eq!(chain.provider().get_block_number().await.unwrap(), 100, "{mood:?}");
        // The first is asked last for a while.
        assert_eq!(chain.provider().get_block_number().await.unwrap(), 100, "{mood:?}");
        assert_eq!((first.asked().len(), second.asked().len()), (1, 2), "{mood:?}");
        assert_eq!(chain.newest().await.unwrap().number, 100, "{mood:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_a_refusal_is_not_asked_for_twice() {
    let (first, second) = (Fake::start(100).await, Fake::start(100).await);
    first.says.lock().finalized = None;
    let (chain, _) = chain(&[&first, &second], 100);
    let finalized = alloy::eips::BlockNumberOrTag::Finalized;
    assert!(chain.provider().get_block_by_number(finalized).await.is_err());
    assert_eq!((first.asked().len(), second.asked().len()), (1, 0));
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_said() {
    let silent = Fake::start(100).await;
    silent.says.lock().mood = Mood::Silent;
    let urls = [closed_url("/key-s3cret").await.to_string(), silent.url()];
    let chain = Chain::new(&settings(&urls), Clock::system()).unwrap();
    let error = chain.newest().await.unwrap_err();
    assert!(matches!(&error, ChainError::Away(_)), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    assert!(!format!("{chain:?}").contains("s3cret"));
    let error = chain.provider().get_block_number().await.unwrap_err().to_string();
    assert!(!error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn an_endpoint_of_another_chain_is_left_out() {
    let (first, second) = (Fake::start(7_000).await, Fake::start(100).await);
    first.says.lock().chain_id = 1;
    let (both, _) = chain(&[&first, &second], 100);
    assert_eq!(both.newest().await.unwrap().number, 100);
    assert_eq!(both.provider().get_block_number().await.unwrap(), 100);
    let (alone, _) = chain(&[&first], 7_000);
    let error = alone.newest().await.unwrap_err();
    assert!(matches!(&error, ChainError::Unfit(why) if why.contains("of chain 1")), "{error}");
    assert!(alone.provider().get_block_number().await.is_err());
}

#[tokio::test]
async fn a_stale_endpoint_is_left_out_until_it_has_caught_up() {
    let (stale, fresh) = (Fake::start(60).await, Fake::start(100).await);
    let (chain, clock) = chain(&[&stale, &fresh], 100);
    assert_eq!(chain.newest().await.unwrap().number, 100);
    assert_eq!(chain.provider().get_block_number().await.unwrap(), 100);

    // A head that stands still goes stale by the clock alone.
    clock.advance(62_000);
    stale.says.lock().newest = 131;
    stale.says.lock().finalized = Some(121);
    chain.forget().await;
    assert_eq!(chain.newest().await.unwrap().number, 131);
    assert_eq!(chain.provider().get_block_number().await.unwrap(), 131);
}

#[tokio::test]
async fn a_block_from_the_future_is_not_believed() {
    let fake = Fake::start(100).await;
    let (chain, _) = chain(&[&fake], 60);
    let error = chain.newest().await.unwrap_err();
    assert!(matches!(&error, ChainError::Unfit(why) if why.contains("80 s off")), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_is_behind_is_not_asked_what_is_newest() {
    let (behind, ahead) = (Fake::start(68).await, Fake::start(99).await);
    let (chain, _) = chain(&[&behind, &ahead], 80);
    let newest = chain.newest().await.unwrap();
    assert_eq!(newest.number, 99);
    assert_eq!(chain.provider().get_block_number().await.unwrap(), 99);
    // But it has its say about what is final: that is the older of the two.
    assert_eq!(chain.last_final().await.unwrap().number, 58);
}

#[tokio::test]
async fn an_endpoint_that_names_another_final_block_than_most_is_left_out() {
    let fakes = [Fake::start(100).await, Fake::start(101).await, Fake::start(102).await];
    fakes[0].says.lock().fork = Some(50);
    let (chain, _) = chain(&[&fakes[0], &fakes[1], &fakes[2]], 100);
    assert_eq!(chain.last_final().await.unwrap().number, 90);
    assert_eq!(chain.last_final().await.unwrap().hash, fakes[1].says.lock().hash(90));
    assert_eq!(chain.provider().get_block_number().await.unwrap(), 101);
}

#[tokio::test]
async fn two_endpoints_that_disagree_are_both_not_believed() {
    let (one, other) = (Fake::start(100).await, Fake::start(100).await);
    one.says.lock().fork = Some(90);
    let (chain, _) = chain(&[&one, &other], 100);
    assert_eq!(chain.newest().await.unwrap_err(), ChainError::Disagree(90));
    // A fork above what is final is the chain's daily life.
    one.says.lock().fork = Some(91);
    chain.forget().await;
    assert_eq!(chain.last_final().await.unwrap().number, 90);
}

#[tokio::test]
async fn what_is_final_may_be_counted_in_blocks() {
    let fake = Fake::start(100).await;
    fake.says.lock().finalized = None;
    let (by_tag, clock) = chain(&[&fake], 100);
    assert!(matches!(by_tag.last_final().await, Err(ChainError::Away(_))));
    let mut settings = settings(&[fake.url()]);
    settings.final_blocks = Some(3);
    let counted = Chain::new(&settings, clock).unwrap();
    assert_eq!(counted.last_final().await.unwrap().number, 97);
}

#[tokio::test]
async fn a_transaction_is_known_soon_after_its_block_for_everybody_who_waits() {
    let fake = Fake::start(100).await;
    let early = B256::repeat_byte(1);
    let late = B256::repeat_byte(2);
    fake.says.lock().transactions = vec![(early, 100, Vec::new()), (late, 103, Vec::new())];
    let (chain, _) = chain(&[&fake], 100);
    // Mined before anybody waited for it.
    assert_eq!(chain.mined(early, PATIENCE).await.unwrap().block_number, Some(100));

    let wait = || {
        let chain = chain.clone();
        tokio::spawn(async move { chain.mined(late, PATIENCE).await })
    };
    let waiting: Vec<_> = (0..20).map(|_| wait()).collect();
    let impatient = chain.mined(late, Duration::from_millis(100)).await;
    assert!(impatient.is_none());
    fake.says.lock().newest = 104;
    let mined = tokio::time::Instant::now();
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap().unwrap().block_number, Some(103));
    }
    assert!(mined.elapsed() < Duration::from_secs(4), "{:?}", mined.elapsed());
    // One question for all of them, once for what came before and once for the block.
    let receipts = fake.asked().iter().filter(|method| *method == "eth_getTransactionReceipt").count();
    assert!(receipts <= 4, "{receipts} questions");
    // Nobody waits, so nobody asks.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = fake.asked().len();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(fake.asked().len(), asked);
}
