//! Which transfer was made under which nonce.

use super::fake::{Fake, TOKEN, chain};
use crate::money::Amount;
use crate::x402::abi::TokenEvent;
use crate::x402::{Address, B256};

const WALLET: Address = Address::repeat_byte(1);
const SHOP: Address = Address::repeat_byte(2);

fn used(authorizer: Address, nonce: u8) -> TokenEvent {
    TokenEvent::AuthorizationUsed { authorizer, nonce: B256::repeat_byte(nonce) }
}

fn transfer(from: Address, value: u128) -> TokenEvent {
    TokenEvent::Transfer { from, to: SHOP, value: Amount::new(value) }
}

#[tokio::test]
async fn each_nonce_stands_for_the_transfer_behind_it_and_no_other() {
    let fake = Fake::start(2_000).await;
    let cancelled = TokenEvent::AuthorizationCanceled { authorizer: WALLET, nonce: B256::repeat_byte(9) };
    fake.says.lock().transactions = vec![
        (B256::repeat_byte(1), 10, vec![used(WALLET, 1), transfer(WALLET, 11)]),
        // Of two in one transaction, one was signed for.
        (B256::repeat_byte(2), 11, vec![used(WALLET, 2), transfer(WALLET, 12), transfer(WALLET, 13)]),
        (B256::repeat_byte(3), 12, vec![transfer(WALLET, 14), used(WALLET, 3), transfer(WALLET, 15)]),
        // A nonce of another transaction, another account's, or one that was not spent stands for nothing.
        (B256::repeat_byte(4), 13, vec![used(WALLET, 4)]),
        (B256::repeat_byte(5), 13, vec![used(SHOP, 5), cancelled, transfer(WALLET, 16)]),
        // Anybody may transfer nothing from anybody; others' money is not ours.
        (B256::repeat_byte(6), 14, vec![transfer(WALLET, 0), transfer(SHOP, 17)]),
        (B256::repeat_byte(7), 15, vec![used(WALLET, 7), transfer(WALLET, 0), transfer(WALLET, 18)]),
        (B256::repeat_byte(8), 1_699, vec![transfer(WALLET, 19)]),
        (B256::repeat_byte(9), 1_701, vec![transfer(WALLET, 20)]),
    ];
    for heedless in [false, true] {
        fake.says.lock().heedless = heedless;
        let (chain, _) = chain(&[&fake], 2_000);
        let first = chain.outlays(TOKEN, WALLET, 10..=50).await.unwrap();
        let brief: Vec<_> = first.0.iter().map(|out| (out.value.units(), out.nonce.map(|n| n[0]))).collect();
        let right =
            [(11, Some(1)), (12, Some(2)), (13, None), (14, None), (15, Some(3)), (16, None), (18, None)];
        assert_eq!((brief.as_slice(), first.1), (right.as_slice(), 50));
        assert_eq!((first.0[0].block, first.0[0].to), (10, SHOP));
        // More than can be asked for at once: the oldest, and where that ends.
        let (found, last) = chain.outlays(TOKEN, WALLET, 100..=1_900).await.unwrap();
        assert_eq!((found.len(), last), (1, 1_699));
        let (found, last) = chain.outlays(TOKEN, WALLET, last + 1..=1_900).await.unwrap();
        assert_eq!((found.len(), last), (1, 1_900));
    }
}
