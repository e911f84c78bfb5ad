//! The test chain and its token are what they are taken for.

use std::net::TcpStream;

use alloy::primitives::U256;
use alloy::sol_types::SolCall;
use galaksio::x402::{Address, Authorization};

use crate::anvil::{Chain, Settings, ether};
use crate::token::abi::transferWithAuthorizationCall;
use crate::token::{authorization, sign};

const PAYEE: Address = Address::repeat_byte(0x77);
const STRANGER: Address = Address::repeat_byte(0x55);

/// `DOMAIN_SEPARATOR()` of USDC on Base Sepolia.
const SEPARATOR: &str = "0x71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818";

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn the_token_cannot_be_told_from_the_real_one() {
    let chain = Chain::start(Settings::instant()).await;
    assert_eq!(chain.rpc("eth_chainId", serde_json::json!([])).await, "0x14a34");
    assert_eq!(chain.asset().address.to_string(), "0x036CbD53842c5426634e7929541eC2318f3dCF7e");
    assert_eq!(chain.domain_separator().await.to_string(), SEPARATOR);

    let (key, payer) = chain.payer(5000).await;
    let start = chain.head().await.number;
    let payment = authorization(payer, PAYEE, 1000);
    assert!(!chain.is_used(payer, payment.nonce).await);
    let transaction = chain.submit(STRANGER, &payment, &sign(&chain.asset(), &key, &payment)).await;
    assert!(chain.mined(transaction).await);
    assert!(chain.is_used(payer, payment.nonce).await);
    assert_eq!((chain.balance(payer).await, chain.balance(PAYEE).await), (4000, 1000));
    let transfers = chain.transfers_since(start + 1).await;
    assert_eq!(transfers.len(), 1);
    assert_eq!((transfers[0].from, transfers[0].to, transfers[0].value), (payer, PAYEE, payment.value));
    assert_eq!((transfers[0].transaction, transfers[0].block), (transaction, start + 1));
    assert_eq!(chain.spent_since(0, payer).await, [payment.nonce]);
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn the_token_refuses_in_the_words_of_circle() {
    let chain = Chain::start(Settings::instant()).await;
    let (key, payer) = chain.payer(1000).await;
    let good = authorization(payer, PAYEE, 1000);
    let refused = async |payment: &Authorization, signature: &[u8]| {
        let call = transferWithAuthorizationCall::from((payment, signature)).abi_encode();
        let error = chain.call(chain.asset().address, &call).await.expect_err("it was not refused");
        error.message.strip_prefix("execution reverted: ").expect(&error.message).to_owned()
    };
    let signed =
        async |payment: Authorization| refused(&payment, &sign(&chain.asset(), &key, &payment)).await;

    let early = Authorization { valid_after: good.valid_before, ..good };
    assert_eq!(signed(early).await, "FiatTokenV2: authorization is not yet valid");
    let late = Authorization { valid_before: good.valid_after, ..good };
    assert_eq!(signed(late).await, "FiatTokenV2: authorization is expired");
    let rich = authorization(payer, PAYEE, 1001);
    assert_eq!(signed(rich).await, "ERC20: transfer amount exceeds balance");
    let others = authorization(STRANGER, PAYEE, 0);
    assert_eq!(signed(others).await, "FiatTokenV2: invalid signature");
    assert_eq!(refused(&good, &[1; 64]).await, "FiatTokenV2: invalid signature");

    let cancelled = chain.cancel(&key, payer, good.nonce).await;
    assert!(chain.mined(cancelled).await);
    assert_eq!(signed(good).await, "FiatTokenV2: authorization is used or canceled");
    assert_eq!(chain.balance(payer).await, 1000);
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn accounts_that_are_contracts_pay_by_their_owners_signature() {
    let chain = Chain::start(Settings::instant()).await;
    let (key, owner) = chain.gas_key().await;
    let wallet = chain.wallet_of(owner).await;
    chain.mint(wallet, 1000).await;
    let payment = authorization(wallet, PAYEE, 1000);
    let signature = sign(&chain.asset(), &key, &payment);
    let before = chain.submit(STRANGER, &payment, &signature).await;
    assert!(!chain.mined(before).await, "nobody is there yet who could say that he signed");
    assert_eq!(chain.create_wallet(owner).await, wallet);
    assert!(!chain.code(wallet).await.is_empty());
    let after = chain.submit(STRANGER, &payment, &signature).await;
    assert!(chain.mined(after).await);
    assert_eq!(chain.balance(PAYEE).await, 1000);
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn blocks_come_when_they_are_told_to() {
    let chain = Chain::start(Settings::every(3600)).await;
    let (_, payer) = chain.payer(5000).await;
    let start = chain.head().await;

    // Nothing moves before there is a block.
    let transaction = chain.transfer(payer, PAYEE, 1000).await;
    assert_eq!((chain.receipt(transaction).await, chain.waiting().await), (None, 1));
    assert_eq!(chain.balance(PAYEE).await, 0);
    chain.mine(1).await;
    assert!(chain.mined(transaction).await);
    assert_eq!((chain.balance(PAYEE).await, chain.waiting().await), (1000, 0));
    assert_eq!(chain.head().await.number, start.number + 1);
    assert_eq!(chain.balance_at(PAYEE, "earliest").await, 0);

    // What waits can be forgotten.
    let forgotten = chain.transfer(payer, PAYEE, 2000).await;
    chain.drop_transaction(forgotten).await;
    chain.mine(1).await;
    assert_eq!((chain.receipt(forgotten).await, chain.balance(PAYEE).await), (None, 1000));

    // A branch that lost takes its transfers with it.
    let lost = chain.transfer(payer, PAYEE, 500).await;
    chain.mine(2).await;
    assert_eq!(chain.balance(PAYEE).await, 1500);
    let before = chain.head().await.number;
    chain.reorg(2).await;
    assert_eq!((chain.receipt(lost).await, chain.balance(PAYEE).await), (None, 1000));
    assert_eq!(chain.head().await.number, before);

    let snapshot = chain.snapshot().await;
    chain.burn(PAYEE, 1000).await;
    assert_eq!(chain.balance(PAYEE).await, 0);
    chain.revert(&snapshot).await;
    assert_eq!(chain.balance(PAYEE).await, 1000);

    let now = chain.head().await.timestamp;
    chain.travel(86_400).await;
    assert!(chain.head().await.timestamp >= now + 86_400);

    // A fee nobody expected.
    chain.set_base_fee(0x65d_0000_0000).await;
    chain.mine(1).await;
    let block = chain.rpc("eth_getBlockByNumber", serde_json::json!(["latest", false])).await;
    assert_eq!(block["baseFeePerGas"], "0x65d00000000");
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn blocks_stop_and_go_on() {
    let chain = Chain::start(Settings::default()).await;
    let (key, address) = chain.gas_key().await;
    assert_eq!((key.len(), chain.wei(address).await), (66, ether(10)));
    let (_, payer) = chain.payer(5000).await;
    chain.pause().await;
    let transaction = chain.transfer(payer, PAYEE, 1000).await;
    let stopped = chain.head().await.number;
    assert_eq!((chain.receipt(transaction).await, chain.head().await.number), (None, stopped));
    chain.resume().await;
    assert!(chain.mined(transaction).await);
    assert_eq!(chain.balance(PAYEE).await, 1000);
    chain.set_wei(address, U256::ZERO).await;
    assert_eq!(chain.wei(address).await, U256::ZERO);
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn nothing_is_left_of_it() {
    let chain = Chain::start(Settings::default()).await;
    let address = chain.url.strip_prefix("http://").unwrap().to_owned();
    TcpStream::connect(&address).unwrap();
    let failed = tokio::spawn(async move {
        assert_eq!(chain.balance(PAYEE).await, 1, "on purpose: a test that fails");
    });
    assert!(failed.await.unwrap_err().is_panic());
    assert!(TcpStream::connect(&address).is_err());
}
