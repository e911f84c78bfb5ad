//! What is verified and settled, what is refused, and for which reason.

use super::*;
use crate::token::authorization;
use galaksio::clock::Clock;
use galaksio::x402::B256;

fn invalid(verdict: Verdict) -> String {
    match verdict {
        Verdict::Invalid { reason, .. } => reason,
        Verdict::Valid => panic!("it was found valid"),
    }
}

#[tokio::test]
#[ignore = "needs node packages; `make test` runs it"]
async fn a_payment_of_either_version_is_verified_and_settled_once() {
    let rig = Rig::start(Settings::default()).await;
    for (version, network) in [(Version::V1, "base-sepolia"), (Version::V2, "eip155:84532")] {
        let payment = rig.payment(5000, 1000).await;
        let before = rig.chain.balance(PAYEE).await;
        let request = payment.request(version);
        assert_eq!(rig.verify(&request).await, Verdict::Valid);
        let receipt = settled(rig.settle(&request).await);
        assert!(receipt.success);
        assert_eq!(receipt.network, network);
        assert_eq!(receipt.payer, Some(payment.authorization.from.to_string()));
        assert!(rig.chain.mined(receipt.transaction.parse().unwrap()).await);
        assert_eq!(rig.chain.balance(PAYEE).await, before + 1000);
        // Again, it is the same settlement.
        assert_eq!(settled(rig.settle(&request).await), receipt);
        assert_eq!(rig.chain.balance(PAYEE).await, before + 1000);
        assert_eq!(invalid(rig.verify(&request).await), "invalid_exact_evm_nonce_already_used");
    }
    assert_eq!(rig.chain.sent(rig.gas_account).await, 2);
}

#[tokio::test]
#[ignore = "needs node packages; `make test` runs it"]
async fn a_settled_payment_is_known_after_a_restart() {
    let mut rig = Rig::start(Settings::default()).await;
    let payment = rig.payment(1000, 1000).await;
    let receipt = settled(rig.settle(&payment.v2()).await);
    rig.restart();
    assert_eq!(settled(rig.settle(&payment.v2()).await), receipt);
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.sent(rig.gas_account).await), (1000, 1));
    // What is public on the chain is not for everybody to show as his own.
    let mut stolen = payment.clone();
    stolen.signature[40] ^= 1;
    assert_eq!(refused(rig.settle(&stolen.v2()).await), "invalid_exact_evm_signature");
}

#[tokio::test]
#[ignore = "needs node packages; `make test` runs it"]
async fn what_is_wrong_with_a_payment_is_said_in_the_words_of_the_official_facilitator() {
    let rig = Rig::start(Settings::default()).await;
    let good = rig.payment(1000, 1000).await;
    let now = Clock::system().now();
    let change = |change: fn(&mut Payment, u64)| {
        let mut payment = good.clone();
        change(&mut payment, now);
        payment
    };
    let other_token = "0x4200000000000000000000000000000000000006";
    let cases: Vec<(&str, PaymentRequest)> = vec![
        (
            "invalid_exact_evm_recipient_mismatch",
            change(|p, _| p.requirement.pay_to = Address::repeat_byte(1)).v2(),
        ),
        (
            "invalid_exact_evm_payload_authorization_valid_before",
            change(|p, now| p.authorization.valid_before = now + 5).signed().v2(),
        ),
        (
            "invalid_exact_evm_payload_authorization_valid_after",
            change(|p, now| p.authorization.valid_after = now + 60).signed().v2(),
        ),
        (
            "invalid_exact_evm_payload_authorization_value_mismatch",
            change(|p, _| p.requirement.amount = units(999)).v2(),
        ),
        (
            "invalid_exact_evm_authorization_value",
            change(|p, _| p.requirement.amount = units(999)).request(Version::V1),
        ),
        (
            "invalid_exact_evm_insufficient_balance",
            change(|p, _| {
                p.authorization.value = units(1001);
                p.requirement.amount = units(1001);
            })
            .signed()
            .v2(),
        ),
        ("invalid_exact_evm_signature", change(|p, _| p.signature[40] ^= 1).v2()),
        ("invalid_exact_evm_signature", change(|p, _| p.signature.truncate(64)).v2()),
        ("invalid_exact_evm_signature", change(|p, _| p.authorization.nonce = B256::ZERO).v2()),
        (
            "invalid_exact_evm_token_name_mismatch",
            change(|p, _| p.requirement.asset.name = "USD Coin".to_owned()).signed().v2(),
        ),
        (
            "invalid_exact_evm_token_version_mismatch",
            change(|p, _| p.requirement.asset.version = "1".to_owned()).signed().v2(),
        ),
        (
            "asset_not_deployed_contract",
            change(|p, _| {
                p.requirement.asset.address = "0x4200000000000000000000000000000000000006".parse().unwrap()
            })
            .signed()
            .v2(),
        ),
        (
            "invalid_exact_evm_eip3009_not_supported",
            change(|p, _| {
                p.requirement.asset.address = "0xcA11bde05977b3631167028862bE2a173976CA11".parse().unwrap()
            })
            .signed()
            .v2(),
        ),
        (
            "invalid_exact_evm_network_mismatch",
            good.asking(
                Version::V1,
                json!({ "scheme": "exact", "network": "base", "maxAmountRequired": "1000",
                "asset": other_token, "payTo": PAYEE, "extra": { "name": "USDC", "version": "2" } }),
            ),
        ),
        (
            "invalid_exact_evm_missing_eip712_domain",
            good.asking(
                Version::V1,
                json!({ "scheme": "exact", "network": "base-sepolia",
                "maxAmountRequired": "1000", "asset": other_token, "payTo": PAYEE }),
            ),
        ),
        (
            "invalid_exact_evm_scheme",
            good.asking(
                Version::V1,
                json!({ "scheme": "upto", "network": "base-sepolia",
                "maxAmountRequired": "1000", "asset": other_token, "payTo": PAYEE }),
            ),
        ),
    ];
    for (reason, request) in cases {
        assert_eq!(invalid(rig.verify(&request).await), reason);
        assert_eq!(refused(rig.settle(&request).await), reason);
    }
    rig.chain.cancel(&good.key, good.authorization.from, good.authorization.nonce).await;
    rig.chain.mine(1).await;
    assert_eq!(invalid(rig.verify(&good.v2()).await), "invalid_exact_evm_nonce_already_used");
    assert_eq!(refused(rig.settle(&good.v2()).await), "invalid_exact_evm_nonce_already_used");
    assert_eq!(rig.chain.sent(rig.gas_account).await, 0, "nothing of this was worth gas");
}

#[tokio::test]
#[ignore = "needs node packages; `make test` runs it"]
async fn smart_wallets_pay_by_their_own_word() {
    let rig = Rig::start(Settings::default()).await;
    let (key, owner) = rig.chain.gas_key().await;
    let wallet = rig.chain.wallet_of(owner).await;
    rig.chain.mint(wallet, 3000).await;
    let unborn = Payment::new(&rig.chain, key.clone(), authorization(wallet, PAYEE, 1000));
    assert_eq!(invalid(rig.verify(&unborn.v2()).await), "invalid_exact_evm_signature");

    // Made by a factory that is not on the list, it is not made.
    let mut wrapped = unborn.clone();
    wrapped.signature = Chain::signature_6492(owner, &unborn.signature);
    assert_eq!(invalid(rig.verify(&wrapped.v2()).await), "eip6492_factory_not_allowed");
    assert_eq!(refused(rig.settle(&wrapped.v2()).await), "eip6492_factory_not_allowed");
    let factory = "wallet_factories = [\"0xfafafafafafafafafafafafafafafafafafafafa\"]";
    let rig = Rig::with(rig.chain, factory).await;
    assert_eq!(rig.verify(&wrapped.v2()).await, Verdict::Valid);
    let receipt = settled(rig.settle(&wrapped.v2()).await);
    assert!(!rig.chain.code(wallet).await.is_empty());
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.balance(wallet).await), (1000, 2000));
    assert_eq!(settled(rig.settle(&wrapped.v2()).await), receipt);

    // Now that it is there, it is asked, wrapped or not.
    let mut second = Payment::new(&rig.chain, key.clone(), authorization(wallet, PAYEE, 1000));
    assert_eq!(rig.verify(&second.v2()).await, Verdict::Valid);
    second.signature = Chain::signature_6492(owner, &second.signature);
    settled(rig.settle(&second.v2()).await);
    let third = Payment::new(&rig.chain, key.clone(), authorization(wallet, PAYEE, 1000));
    settled(rig.settle(&third.v2()).await);
    assert_eq!((rig.chain.balance(PAYEE).await, rig.chain.balance(wallet).await), (3000, 0));

    // Without Multicall3 nothing would be done, and nothing is what a call of nobody does well.
    let (key2, owner2) = rig.chain.gas_key().await;
    let wallet2 = rig.chain.wallet_of(owner2).await;
    rig.chain.mint(wallet2, 10).await;
    let mut wrapped = Payment::new(&rig.chain, key2, authorization(wallet2, PAYEE, 10));
    wrapped.signature = Chain::signature_6492(owner2, &wrapped.signature);
    assert_eq!(rig.verify(&wrapped.v2()).await, Verdict::Valid);
    let multicall = "0xcA11bde05977b3631167028862bE2a173976CA11".parse().unwrap();
    let code = rig.chain.code(multicall).await;
    rig.chain.set_code(multicall, &[]).await;
    assert_eq!(invalid(rig.verify(&wrapped.v2()).await), "eip6492_factory_not_allowed");
    rig.chain.set_code(multicall, &code).await;

    // Another's payment, shown as that of a wallet that the factory could make, is not his.
    let ordinary = rig.payment(10, 10).await;
    settled(rig.settle(&ordinary.v2()).await);
    let mut stolen = ordinary.clone();
    stolen.signature = Chain::signature_6492(owner, &[1; 65]);
    assert_eq!(refused(rig.settle(&stolen.v2()).await), "invalid_exact_evm_nonce_already_used");
    assert!(invalid(rig.verify(&stolen.v2()).await).contains("invalid_exact_evm"));

    // Its owner's account is another payer than the wallet, and a stranger is nobody.
    let (stranger, _) = rig.chain.gas_key().await;
    let forged = Payment::new(&rig.chain, stranger, authorization(wallet, PAYEE, 0));
    assert_eq!(invalid(rig.verify(&forged.v2()).await), "invalid_exact_evm_signature");
    assert_eq!(refused(rig.settle(&forged.v2()).await), "invalid_exact_evm_signature");
}
