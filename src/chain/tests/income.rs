//! Which authorizations were spent on a payee.

use super::fake::{Fake, TOKEN, chain};
use crate::money::Amount;
use crate::x402::abi::TokenEvent;
use crate::x402::{Address, B256};

const PAYER: Address = Address::repeat_byte(1);
const OTHER: Address = Address::repeat_byte(2);
const PAYEE: Address = Address::repeat_byte(3);

fn used(authorizer: Address, nonce: u8) -> TokenEvent {
    TokenEvent::AuthorizationUsed { authorizer, nonce: B256::repeat_byte(nonce) }
}

fn transfer(from: Address, to: Address, value: u128) -> TokenEvent {
    TokenEvent::Transfer { from, to, value: Amount::new(value) }
}

#[tokio::test]
async fn a_payment_is_known_by_its_nonce() {
    let fake = Fake::start(2_000).await;
    fake.says.lock().transactions = vec![
        (B256::repeat_byte(1), 10, vec![used(PAYER, 1), transfer(PAYER, PAYEE, 11)]),
        // Two in one transaction, of two payers.
        (
            B256::repeat_byte(2),
            11,
            vec![used(PAYER, 2), transfer(PAYER, PAYEE, 12), used(OTHER, 3), transfer(OTHER, PAYEE, 13)],
        ),
        // Spent on somebody else, beside a transfer to the payee that was spent under another nonce, or under none.
        (
            B256::repeat_byte(3),
            12,
            vec![used(PAYER, 4), transfer(PAYER, OTHER, 14), transfer(PAYER, PAYEE, 14)],
        ),
        (B256::repeat_byte(4), 13, vec![used(PAYER, 5), transfer(OTHER, PAYEE, 15)]),
        (B256::repeat_byte(5), 14, vec![used(PAYER, 6)]),
        (B256::repeat_byte(6), 15, vec![transfer(PAYER, PAYEE, 16)]),
        // Of whom nobody has asked.
        (B256::repeat_byte(7), 16, vec![used(PAYEE, 7), transfer(PAYEE, PAYEE, 17)]),
    ];
    let (chain, _) = chain(&[&fake], 2_000);
    let found = chain.spent(TOKEN, PAYEE, &[PAYER, OTHER], 10..=50).await.unwrap();
    let brief: Vec<_> = found.iter().map(|spent| (spent.from, spent.nonce[0], spent.value.units())).collect();
    assert_eq!(brief, [(PAYER, 1, 11), (PAYER, 2, 12), (OTHER, 3, 13)]);
    // More payers than one question names.
    let many: Vec<Address> = (0..150u8).map(Address::repeat_byte).collect();
    let found = chain.spent(TOKEN, PAYEE, &many, 10..=15).await.unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(chain.spent(TOKEN, PAYEE, &[PAYER], 11..=50).await.unwrap().len(), 1);
}
