//! What proves a payment, what proves that there is none, and what proves nothing.

use super::fake::{Fake, GENESIS, TOKEN, chain, settings};
use crate::chain::{Chain, ChainError, Proof, Since, Sought, Unpaid};
use crate::clock::Clock;
use crate::money::Amount;
use crate::sandbox::ledger::OPENING_BALANCE;
use crate::sandbox::{self, Sandbox};
use crate::x402::abi::{self, TokenEvent};
use crate::x402::{Address, Authorization, B256, fixtures};

const PAYER: Address = Address::repeat_byte(1);
const SHOP: Address = Address::repeat_byte(2);
const THIEF: Address = Address::repeat_byte(3);
const NONCE: B256 = B256::repeat_byte(4);
const OTHER: B256 = B256::repeat_byte(5);
const PAYMENT: B256 = B256::repeat_byte(6);

/// Asked for in block 200, and lapsed in block 400.
fn sought() -> Sought {
    Sought {
        asset: TOKEN,
        from: PAYER,
        nonce: NONCE,
        to: SHOP,
        value: Amount::new(10),
        valid_before: GENESIS + 800,
        since: Since::Block(200),
    }
}

fn used(nonce: B256) -> TokenEvent {
    TokenEvent::AuthorizationUsed { authorizer: PAYER, nonce }
}

fn moved(to: Address, units: u128) -> TokenEvent {
    TokenEvent::Transfer { from: PAYER, to, value: Amount::new(units) }
}

fn cancelled() -> TokenEvent {
    TokenEvent::AuthorizationCanceled { authorizer: PAYER, nonce: NONCE }
}

/// What one endpoint proves whose newest block is `newest`, the ten before it being not final, and in whose block
/// `block` these events happened.
async fn proved(newest: u64, block: u64, events: &[TokenEvent]) -> Result<Proof, ChainError> {
    let fake = Fake::start(newest).await;
    fake.says.lock().transactions = vec![(PAYMENT, block, events.to_vec())];
    chain(&[&fake], newest).0.prove(&sought()).await
}

fn paid(block: u64) -> Result<Proof, ChainError> {
    Ok(Proof::Paid { transaction: PAYMENT, block, is_final: true })
}

fn is_open(proof: &Result<Proof, ChainError>, final_block: u64) -> bool {
    matches!(proof, Ok(Proof::Open { as_of }) if as_of.number == final_block)
}

fn without_evidence(proof: &Result<Proof, ChainError>) -> bool {
    matches!(proof, Err(ChainError::NoEvidence(_)))
}

#[tokio::test]
async fn a_payment_is_proved_by_the_transfer_beside_its_nonce() {
    let made = [used(NONCE), moved(SHOP, 10)];
    assert_eq!(proved(300, 250, &made).await, paid(250));
    assert_eq!(proved(300, 290, &made).await, paid(290));
    for block in [291, 300] {
        let not_final = Proof::Paid { transaction: PAYMENT, block, is_final: false };
        assert_eq!(proved(300, block, &made).await, Ok(not_final));
    }
    assert!(is_open(&proved(300, 301, &made).await, 290));
    // Long ago, so that more than one range is looked through.
    assert_eq!(proved(2_000, 390, &made).await, paid(390));
}

#[tokio::test]
async fn in_a_transaction_of_many_each_nonce_has_the_transfer_behind_it() {
    let other_first = [used(OTHER), moved(THIEF, 10), used(NONCE), moved(SHOP, 10)];
    assert_eq!(proved(300, 250, &other_first).await, paid(250));
    // The payer spends our nonce on himself beside another payment to us of the same amount.
    let stolen = [used(OTHER), moved(SHOP, 10), used(NONCE), moved(THIEF, 10)];
    assert_eq!(proved(300, 250, &stolen).await, Ok(Proof::Unpaid(Unpaid::Elsewhere)));
    let stolen = [used(NONCE), moved(THIEF, 10), used(OTHER), moved(SHOP, 10)];
    assert_eq!(proved(300, 250, &stolen).await, Ok(Proof::Unpaid(Unpaid::Elsewhere)));
    let too_little = [used(NONCE), moved(SHOP, 9)];
    assert_eq!(proved(300, 250, &too_little).await, Ok(Proof::Unpaid(Unpaid::Elsewhere)));
    for odd in [
        &[moved(SHOP, 10), used(NONCE)][..],
        &[used(NONCE), used(OTHER), moved(SHOP, 10)],
        &[used(NONCE)],
        &[used(NONCE), TokenEvent::Transfer { from: THIEF, to: SHOP, value: Amount::new(10) }],
    ] {
        assert!(without_evidence(&proved(300, 250, odd).await), "{odd:?}");
    }
}

#[tokio::test]
async fn what_was_paid_before_it_was_presented_is_not_paid_for_this() {
    let made = [used(NONCE), moved(SHOP, 10)];
    assert_eq!(proved(300, 188, &made).await, Ok(Proof::Unpaid(Unpaid::Before)));
    // A chain that was reorganised since must not turn a payment into none.
    assert_eq!(proved(300, 189, &made).await, paid(189));
    // So long ago that its log is not looked for: that it is missing proves nothing.
    let fake = Fake::start(3_000).await;
    fake.says.lock().transactions = vec![(PAYMENT, 100, made.to_vec())];
    let (chain, _) = chain(&[&fake], 3_000);
    let sought = Sought { since: Since::Block(2_500), ..sought() };
    assert!(without_evidence(&chain.prove(&sought).await));
    // Not final yet, it proves nothing for now.
    let fake = Fake::start(205).await;
    fake.says.lock().transactions = vec![(PAYMENT, 199, made.to_vec())];
    let late = Sought { since: Since::Block(215), ..sought };
    assert!(is_open(&super::chain(&[&fake], 205).0.prove(&late).await, 195));
}

#[tokio::test]
async fn the_time_it_was_presented_will_do_where_no_height_was_noted() {
    let fake = Fake::start(2_000).await;
    fake.says.lock().transactions = vec![(PAYMENT, 390, vec![used(NONCE), moved(SHOP, 10)])];
    let (chain, _) = chain(&[&fake], 2_000);
    let at = |time| Sought { since: Since::Time(GENESIS + time), ..sought() };
    assert_eq!(chain.prove(&at(700)).await, paid(390));
    // A minute for clocks that differ.
    assert_eq!(chain.prove(&at(780 + 60)).await, paid(390));
    assert_eq!(chain.prove(&at(780 + 63)).await, Ok(Proof::Unpaid(Unpaid::Before)));
    assert_eq!(chain.prove(&at(0)).await, paid(390));
}

#[tokio::test]
async fn a_cancelled_authorization_is_not_paid() {
    assert_eq!(proved(300, 290, &[cancelled()]).await, Ok(Proof::Unpaid(Unpaid::Canceled)));
    // A cancellation can still be undone, and the payment made.
    assert!(is_open(&proved(300, 291, &[cancelled()]).await, 290));
    assert_eq!(proved(500, 450, &[cancelled()]).await, Ok(Proof::Unpaid(Unpaid::Canceled)));
}

#[tokio::test]
async fn an_untouched_nonce_is_unpaid_once_a_final_block_is_past_its_time() {
    assert!(is_open(&proved(300, 1_000, &[]).await, 290));
    // The newest block is past it, but what is before that may be replaced.
    assert!(is_open(&proved(409, 1_000, &[]).await, 399));
    assert_eq!(proved(410, 1_000, &[]).await, Ok(Proof::Unpaid(Unpaid::Lapsed)));
    // Used in the last block that would take it.
    assert_eq!(proved(410, 399, &[used(NONCE), moved(SHOP, 10)]).await, paid(399));
}

#[tokio::test]
async fn what_an_endpoint_does_not_show_proves_nothing() {
    let (chain, fake) = {
        let fake = Fake::start(500).await;
        fake.says.lock().transactions = vec![(PAYMENT, 250, vec![used(NONCE), moved(SHOP, 10)])];
        (chain(&[&fake], 500).0, fake)
    };
    fake.says.lock().without_logs = true;
    assert!(without_evidence(&chain.prove(&sought()).await));
    fake.says.lock().without_logs = false;
    assert_eq!(chain.prove(&sought()).await, paid(250));
    // A filter that is not heeded: the first log is another's.
    fake.says.lock().heedless = true;
    fake.says.lock().transactions.insert(0, (OTHER, 249, vec![used(OTHER), moved(THIEF, 1)]));
    assert_eq!(chain.prove(&sought()).await, paid(250));
    // Where there is no token nothing is unused.
    fake.says.lock().without_code = true;
    assert!(matches!(chain.prove(&sought()).await, Err(ChainError::Away(_))));
}

#[tokio::test]
async fn endpoints_that_contradict_each_other_prove_nothing() {
    let made = vec![(PAYMENT, 250, vec![used(NONCE), moved(SHOP, 10)])];
    let (honest, liar) = (Fake::start(500).await, Fake::start(500).await);
    honest.says.lock().transactions = made.clone();
    let (chain, _) = chain(&[&honest, &liar], 500);
    // One has the payment; the other has not, and the time is up.
    assert_eq!(chain.prove(&sought()).await, Err(ChainError::Contradict(490)));
    // One invents a payment.
    liar.says.lock().transactions = vec![(PAYMENT, 250, vec![used(NONCE), moved(THIEF, 10)])];
    assert_eq!(chain.prove(&sought()).await, Err(ChainError::Contradict(490)));
    liar.says.lock().transactions = made;
    assert_eq!(chain.prove(&sought()).await, paid(250));
    // The one that cannot say does not stand in the way of the one that can.
    liar.says.lock().without_logs = true;
    assert_eq!(chain.prove(&sought()).await, paid(250));
    liar.says.lock().mood = super::Mood::Unavailable;
    assert_eq!(chain.prove(&sought()).await, paid(250));
    honest.says.lock().mood = super::Mood::Unavailable;
    chain.forget().await;
    assert!(matches!(chain.prove(&sought()).await, Err(ChainError::Away(_))));
}

#[tokio::test]
async fn of_what_is_not_final_the_endpoint_that_has_seen_less_is_right() {
    let (ahead, behind) = (Fake::start(300).await, Fake::start(299).await);
    ahead.says.lock().transactions = vec![(PAYMENT, 300, vec![used(NONCE), moved(SHOP, 10)])];
    let (chain, _) = chain(&[&ahead, &behind], 300);
    assert!(is_open(&chain.prove(&sought()).await, 289));
    behind.says.lock().newest = 300;
    behind.says.lock().transactions = vec![(PAYMENT, 300, vec![used(NONCE), moved(SHOP, 10)])];
    let proof = chain.prove(&sought()).await;
    assert_eq!(proof, Ok(Proof::Paid { transaction: PAYMENT, block: 300, is_final: false }));
}

/// The same over the sandbox's chain, whose token and endpoint are not of this module's making.
#[tokio::test]
async fn the_sandboxs_chain_proves_what_its_ledger_did() {
    let clock = Clock::manual(fixtures::NOW * 1000);
    let sandbox = Sandbox::start(sandbox::Settings { clock: clock.clone(), ..Default::default() });
    let sandbox = sandbox.await.unwrap();
    let chain = Chain::new(&settings(std::slice::from_ref(&sandbox.urls.rpc)), clock.clone()).unwrap();
    let asset = sandbox.ledger.asset().clone();
    let start = chain.newest().await.unwrap().number;
    let authorization = |nonce| Authorization { nonce, ..fixtures::authorization(&fixtures::requirement()) };
    let sought = |of: &Authorization| Sought {
        asset: asset.address,
        from: of.from,
        nonce: of.nonce,
        to: of.to,
        value: of.value,
        valid_before: of.valid_before,
        since: Since::Block(start),
    };
    let key = fixtures::KEY.parse().unwrap();
    let [made, killed, idle] = [1, 2, 3].map(B256::repeat_byte).map(authorization);
    let signature = abi::sign_transfer(&asset, &made, &key).unwrap();
    let mined = sandbox.ledger.transfer_with_authorization(&made, &signature).unwrap();
    let cancel = abi::sign_cancel(&asset, killed.from, killed.nonce, &key).unwrap();
    sandbox.ledger.cancel_authorization(killed.from, killed.nonce, &cancel).unwrap();
    assert_eq!(sandbox.ledger.balance(made.to), OPENING_BALANCE.checked_add(made.value).unwrap());

    chain.forget().await;
    let proof = chain.prove(&sought(&made)).await.unwrap();
    assert!(matches!(proof, Proof::Paid { is_final: false, transaction, .. } if transaction == mined.hash));
    assert!(matches!(chain.prove(&sought(&killed)).await, Ok(Proof::Open { .. })));

    clock.advance(10_000);
    chain.forget().await;
    let (transaction, block) = (mined.hash, mined.block.number);
    assert_eq!(chain.prove(&sought(&made)).await, Ok(Proof::Paid { transaction, block, is_final: true }));
    assert_eq!(chain.prove(&sought(&killed)).await, Ok(Proof::Unpaid(Unpaid::Canceled)));
    assert!(matches!(chain.prove(&sought(&idle)).await, Ok(Proof::Open { .. })));

    clock.advance(300_000);
    chain.forget().await;
    assert_eq!(chain.prove(&sought(&idle)).await, Ok(Proof::Unpaid(Unpaid::Lapsed)));
    assert_eq!(chain.prove(&sought(&made)).await, Ok(Proof::Paid { transaction, block, is_final: true }));
    sandbox.stop().await;
}
