//! The token's rules one by one, and that money is neither made nor lost by any sequence of them.

use proptest::prelude::*;

use super::*;
use crate::sandbox::testing::{NOW, Payer, asset};

fn ledger() -> (Ledger, Clock) {
    let clock = Clock::manual(NOW * 1000);
    (Ledger::new(asset(), clock.clone()), clock)
}

#[test]
fn an_authorization_moves_money_once() {
    let (ledger, _) = ledger();
    let payer = Payer::new(1);
    let to = Address::repeat_byte(0xaa);
    let (authorization, signature) = payer.authorize(to, 10_000, NOW);

    let transaction = ledger.transfer_with_authorization(&authorization, &signature).unwrap();
    assert_eq!(transaction.hash, ledger.transaction_hash(&authorization));
    assert_eq!(ledger.balance(payer.address()).units(), 99_990_000);
    assert_eq!(ledger.balance(to).units(), 100_010_000);
    assert!(ledger.used(authorization.from, authorization.nonce));

    let again = ledger.transfer_with_authorization(&authorization, &signature);
    assert_eq!(again, Err(TokenError::UsedOrCanceled));
    assert_eq!(ledger.transfers().len(), 1);
    assert_eq!(ledger.transfers()[0].nonce, Some(authorization.nonce));
}

#[test]
fn the_window_is_open_at_both_ends() {
    let (ledger, clock) = ledger();
    let payer = Payer::new(2);
    let mut authorization = payer.authorize(Address::repeat_byte(1), 1, NOW).0;
    authorization.valid_after = NOW;
    authorization.valid_before = NOW + 2;
    let signature = payer.sign(&authorization);
    assert_eq!(ledger.simulate(&authorization, &signature), Err(TokenError::NotYetValid));
    clock.advance(1000);
    assert_eq!(ledger.simulate(&authorization, &signature), Ok(()));
    clock.advance(1000);
    assert_eq!(ledger.simulate(&authorization, &signature), Err(TokenError::Expired));
}

#[test]
fn forged_short_and_high_s_signatures_are_refused() {
    let (ledger, _) = ledger();
    let payer = Payer::new(3);
    let (authorization, signature) = payer.authorize(Address::repeat_byte(1), 1, NOW);
    let forged = Payer::new(4).sign(&authorization);
    assert_eq!(ledger.simulate(&authorization, &forged), Err(TokenError::Signature));
    assert_eq!(ledger.simulate(&authorization, &signature[..64]), Err(TokenError::Signature));
    assert_eq!(ledger.simulate(&authorization, &high_s(&signature)), Err(TokenError::Signature));
    assert_eq!(ledger.simulate(&authorization, &signature), Ok(()));
}

/// The other valid ECDSA signature of the same message: `s` becomes `n - s`, `v` flips.
fn high_s(signature: &[u8]) -> Vec<u8> {
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    let mut twin = signature.to_vec();
    let mut borrow = 0i32;
    for i in (0..32).rev() {
        let difference = i32::from(order[i]) - i32::from(signature[32 + i]) - borrow;
        borrow = i32::from(difference < 0);
        twin[32 + i] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    twin[64] = if signature[64] == 27 { 28 } else { 27 };
    twin
}

#[test]
fn a_cancelled_authorization_is_worthless_but_not_used() {
    let (ledger, _) = ledger();
    let payer = Payer::new(5);
    let (authorization, signature) = payer.authorize(Address::repeat_byte(1), 1, NOW);
    let (from, nonce) = (authorization.from, authorization.nonce);
    let stranger = Payer::new(6).sign_cancel_for(from, nonce);
    assert_eq!(ledger.cancel_authorization(from, nonce, &stranger), Err(TokenError::Signature));
    ledger.cancel_authorization(from, nonce, &payer.sign_cancel_for(from, nonce)).unwrap();
    assert_eq!(ledger.authorization(from, nonce), Some(NonceState::Canceled));
    assert!(!ledger.used(from, nonce));
    assert_eq!(ledger.simulate(&authorization, &signature), Err(TokenError::UsedOrCanceled));
}

#[test]
fn blocks_pass_with_time_and_history_can_be_asked() {
    let (ledger, clock) = ledger();
    let start = ledger.head();
    clock.advance(7_000);
    assert_eq!(ledger.head(), Block { number: start.number + 3, timestamp: NOW + 6 });
    let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
    let mined = ledger.transfer(a, b, Amount::new(5)).unwrap().block;
    assert_eq!(mined, Block { number: start.number + 4, timestamp: NOW + 7 });
    assert_eq!(ledger.block(mined.number), Some(mined));
    assert_eq!(ledger.block(mined.number + 1), None);
    assert_eq!(ledger.block(start.number + 1).unwrap().timestamp, NOW + 2);
    assert_eq!(ledger.block(start.number - 1).unwrap().timestamp, NOW - 2);
    ledger.transfer(b, b, Amount::new(9)).unwrap();
    ledger.set_balance(b, Amount::new(1));
    assert_eq!(ledger.balance_at(b, start.number), OPENING_BALANCE);
    assert_eq!(ledger.balance_at(b, mined.number).units(), 100_000_005);
    assert_eq!(ledger.balance(b).units(), 1);
    assert_eq!(ledger.transactions_between(mined.number, mined.number).len(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Authorize { payer: u8, to: u8, value: u128, nonce: u8 },
    Transfer { from: u8, to: u8, value: u128 },
    Set { account: u8, balance: u128 },
    Cancel { payer: u8, nonce: u8 },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![0u128..200_000_000, Just(100_000_000)];
    prop_oneof![
        4 => (1u8..4, 1u8..5, value.clone(), 0u8..3)
            .prop_map(|(payer, to, value, nonce)| Step::Authorize { payer, to, value, nonce }),
        2 => (1u8..5, 0u8..5, value.clone()).prop_map(|(from, to, value)| Step::Transfer { from, to, value }),
        1 => (1u8..5, value).prop_map(|(account, balance)| Step::Set { account, balance }),
        1 => (1u8..4, 0u8..3).prop_map(|(payer, nonce)| Step::Cancel { payer, nonce }),
        1 => (0u64..5_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn money_is_conserved_and_a_nonce_spends_once(steps in proptest::collection::vec(step(), 1..40)) {
        let (ledger, clock) = ledger();
        let payers: Vec<Payer> = (1..5).map(Payer::new).collect();
        let payer = |n: u8| &payers[usize::from(n) - 1];
        let person = |n: u8| if n == 0 { Address::ZERO } else { payer(n).address() };
        let mut spent = std::collections::HashSet::new();
        for step in steps {
            let before = ledger.transfers().len();
            let head = ledger.head();
            match step {
                Step::Authorize { payer: number, to, value, nonce } => {
                    let payer = payer(number);
                    let (mut authorization, _) = payer.authorize(person(to), value, clock.now());
                    authorization.nonce = B256::repeat_byte(nonce);
                    let signature = payer.sign(&authorization);
                    let funded = ledger.balance(payer.address()).units() >= value;
                    let fresh = ledger.authorization(payer.address(), authorization.nonce).is_none();
                    let moved = ledger.transfer_with_authorization(&authorization, &signature).is_ok();
                    prop_assert_eq!(moved, funded && fresh);
                    if moved {
                        prop_assert!(spent.insert((payer.address(), authorization.nonce)));
                    }
                }
                Step::Transfer { from, to, value } => {
                    let funded = ledger.balance(person(from)).units() >= value;
                    let moved = ledger.transfer(person(from), person(to), Amount::new(value)).is_ok();
                    prop_assert_eq!(moved, funded && to != 0);
                }
                Step::Set { account, balance } => {
                    ledger.set_balance(person(account), Amount::new(balance));
                    prop_assert_eq!(ledger.balance(person(account)).units(), balance);
                }
                Step::Cancel { payer: number, nonce } => {
                    let payer = payer(number);
                    let nonce = B256::repeat_byte(nonce);
                    let signature = payer.sign_cancel_for(payer.address(), nonce);
                    let fresh = ledger.authorization(payer.address(), nonce).is_none();
                    let done = ledger.cancel_authorization(payer.address(), nonce, &signature).is_ok();
                    prop_assert_eq!(done, fresh);
                }
                Step::Wait(millis) => clock.advance(millis),
            }
            let (balances, issued) = ledger.totals();
            prop_assert_eq!(balances, issued);
            prop_assert!(ledger.transfers().len() <= before + 1);
            let now = ledger.head();
            prop_assert!(now.number >= head.number && now.timestamp >= head.timestamp);
        }
        // Undoing every transfer leads back to where everybody started.
        for n in 1..5 {
            prop_assert_eq!(ledger.balance_at(person(n), 0), OPENING_BALANCE);
        }
    }
}
