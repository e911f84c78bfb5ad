//! The official parts deal with each other on the test chain: what works there without us is what we are held to.

use galaksio::x402::{Address, Authorization};
use serde_json::{Value, json};

use crate::anvil::{Chain, Settings};
use crate::peers::{CLIENTS, Client, Peer};
use crate::token::{FACTORY, authorization, sign};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn official_clients_buy_from_official_servers() {
    let chain = Chain::start(Settings::default()).await;
    let facilitator = Peer::facilitator(&chain, None).await;
    let (v1, v2) = (Address::repeat_byte(0x71), Address::repeat_byte(0x72));
    let legacy = Peer::server_v1(&facilitator.url, v1, "$0.002");
    let modern = Peer::server_v2(&facilitator.url, v2, "$0.003");
    let buy = async |client: Client, server: &Peer, payee: Address, price: u64| {
        let (key, payer) = chain.payer(100_000).await;
        let before = chain.balance(payee).await;
        let body = json!({ "job": client.name });
        let answer = client.buy(&key, "POST", &format!("{}/work", server.url), Some(&body)).await;
        assert_eq!(answer["status"], 200, "{}: {answer}", client.name);
        assert_eq!(answer["body"]["body"], body);
        assert_eq!(answer["receipt"]["success"], true, "{answer}");
        let hash = answer["receipt"]["transaction"].as_str().unwrap().parse().unwrap();
        assert!(chain.mined(hash).await);
        assert_eq!(chain.balance(payer).await, 100_000 - price);
        assert_eq!(chain.balance(payee).await, before + price);
    };
    // The newer clients speak version 1 too, if they are told how; ours to buy with are as they come.
    for client in CLIENTS {
        match client.version {
            1 => buy(client, &legacy, v1, 2000).await,
            _ => buy(client, &modern, v2, 3000).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn the_official_facilitator_knows_why_not() {
    let chain = Chain::start(Settings::default()).await;
    let facilitator = Peer::facilitator(&chain, Some(FACTORY)).await;
    let payee = Address::repeat_byte(0x73);
    let (key, payer) = chain.payer(1000).await;
    let ask = async |operation: &str,
                     from: Address,
                     units: u64,
                     signature: Option<&[u8]>,
                     known: Option<Authorization>| {
        let authorization = known.unwrap_or_else(|| authorization(from, payee, units));
        let signed = sign(&chain.asset(), &key, &authorization);
        let signature = signature.unwrap_or(&signed);
        let (payload, requirement) = call(&chain, &authorization, signature, units);
        let body = json!({ "x402Version": 2, "paymentPayload": payload, "paymentRequirements": requirement });
        chain.post(&format!("{}/{operation}", facilitator.url), &body).await
    };

    let good = authorization(payer, payee, 1000);
    assert_eq!(ask("verify", payer, 1000, None, Some(good)).await["isValid"], true);
    let rich = ask("verify", payer, 1001, None, None).await;
    assert_eq!(rich["invalidReason"], "invalid_exact_evm_insufficient_balance");
    let forged = ask("verify", Address::repeat_byte(9), 1, None, None).await;
    assert_eq!(forged["invalidReason"], "invalid_exact_evm_signature");
    let settled = ask("settle", payer, 1000, None, Some(good)).await;
    assert_eq!(settled["success"], true, "{settled}");
    assert_eq!((chain.balance(payer).await, chain.balance(payee).await), (0, 1000));
    let again = ask("verify", payer, 1000, None, Some(good)).await;
    assert_eq!(again["invalidReason"], "invalid_exact_evm_nonce_already_used");

    // A wallet that is a contract, and one that is not there yet.
    let wallet = chain.wallet_of(payer).await;
    chain.mint(wallet, 500).await;
    let payment = authorization(wallet, payee, 200);
    let wrapped = Chain::signature_6492(payer, &sign(&chain.asset(), &key, &payment));
    let settled = ask("settle", wallet, 200, Some(&wrapped), Some(payment)).await;
    assert_eq!(settled["success"], true, "{settled}");
    assert!(!chain.code(wallet).await.is_empty());
    let settled = ask("settle", wallet, 300, None, None).await;
    assert_eq!(settled["success"], true, "{settled}");
    assert_eq!((chain.balance(wallet).await, chain.balance(payee).await), (0, 1500));
}

fn call(chain: &Chain, authorization: &Authorization, signature: &[u8], units: u64) -> (Value, Value) {
    let asset = chain.asset();
    let requirement = json!({
        "scheme": "exact",
        "network": asset.network,
        "amount": units.to_string(),
        "asset": asset.address.to_string(),
        "payTo": authorization.to.to_string(),
        "maxTimeoutSeconds": 300,
        "extra": { "name": asset.name, "version": asset.version },
    });
    let signature = alloy::primitives::hex::encode_prefixed(signature);
    let payload = json!({
        "x402Version": 2,
        "payload": { "authorization": authorization, "signature": signature },
        "accepted": requirement,
    });
    (payload, requirement)
}
