//! The chain as its JSON-RPC endpoint shows it.

use serde_json::{Value, json};

use crate::sandbox::testing::{Bench, NOW, Payer, asset, hex_of};
use crate::x402::Address;
use crate::x402::abi::{TokenEvent, TokenRead};

const SHOP: Address = Address::repeat_byte(0x51);

impl Bench {
    async fn rpc(&self, method: &str, params: Value) -> Value {
        let call = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let answer = self.post(&self.sandbox.urls.rpc, &call).await.json();
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(7)));
        answer.get("result").cloned().unwrap_or_else(|| answer["error"]["code"].clone())
    }

    async fn token(&self, read: TokenRead, block: &str) -> String {
        let call = json!({ "to": asset().address, "input": hex_of(&read.encode()) });
        self.rpc("eth_call", json!([call, block])).await.as_str().unwrap().to_owned()
    }
}

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}

#[tokio::test]
async fn a_settled_payment_is_proved_by_state_logs_and_receipt() {
    let bench = Bench::new().await;
    let payer = Payer::new(1);
    let before = number(&bench.rpc("eth_blockNumber", json!([])).await);
    let (authorization, signature) = payer.authorize(SHOP, 10_000, NOW);
    let mined = bench.sandbox.ledger.transfer_with_authorization(&authorization, &signature).unwrap();
    let (from, nonce) = (authorization.from, authorization.nonce);

    let used = TokenRead::AuthorizationState(from, nonce);
    assert!(bench.token(used, "latest").await.ends_with('1'));
    assert!(bench.token(used, &format!("{before:#x}")).await.ends_with('0'));
    // Not final yet: the newest final block is two behind.
    assert!(bench.token(used, "finalized").await.ends_with('0'));
    bench.clock.advance(4_000);
    assert!(bench.token(used, "finalized").await.ends_with('1'));
    assert_eq!(bench.token(TokenRead::BalanceOf(SHOP), "latest").await, format!("0x{:064x}", 100_010_000));

    let topic = TokenEvent::AuthorizationUsed { authorizer: from, nonce }.encode().0;
    let filter = json!({ "address": asset().address, "fromBlock": format!("{before:#x}"), "topics": topic });
    let logs = bench.rpc("eth_getLogs", json!([filter])).await;
    assert_eq!(logs.as_array().unwrap().len(), 1);
    assert_eq!(logs[0]["transactionHash"], json!(mined.hash));
    let other = json!({ "fromBlock": format!("{before:#x}"), "topics": [null, [SHOP.into_word(), from.into_word()]] });
    assert_eq!(bench.rpc("eth_getLogs", json!([other])).await.as_array().unwrap().len(), 2);
    let none = json!({ "fromBlock": format!("{before:#x}"), "topics": [null, SHOP.into_word()] });
    assert_eq!(bench.rpc("eth_getLogs", json!([none])).await, json!([]));

    let receipt = bench.rpc("eth_getTransactionReceipt", json!([mined.hash])).await;
    assert_eq!((&receipt["status"], number(&receipt["blockNumber"])), (&json!("0x1"), mined.block.number));
    assert_eq!(receipt["logs"][1]["topics"].as_array().unwrap().len(), 3);
    assert_eq!(receipt["logs"][0], logs[0]);
    let block = bench.rpc("eth_getBlockByNumber", json!([receipt["blockNumber"], false])).await;
    assert_eq!((&block["hash"], &block["transactions"][0]), (&receipt["blockHash"], &json!(mined.hash)));
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn the_chain_is_base_sepolia_and_its_blocks_go_on() {
    let bench = Bench::new().await;
    assert_eq!(bench.rpc("eth_chainId", json!([])).await, "0x14a34");
    let latest = bench.rpc("eth_getBlockByNumber", json!(["latest", false])).await;
    bench.clock.advance(10_000);
    let later = bench.rpc("eth_getBlockByNumber", json!(["latest", false])).await;
    let last = bench.rpc("eth_getBlockByNumber", json!(["finalized", false])).await;
    assert_eq!(number(&later["number"]), number(&latest["number"]) + 5);
    assert_eq!((number(&later["timestamp"]), number(&last["timestamp"])), (NOW + 10, NOW + 6));
    let next = format!("{:#x}", number(&later["number"]) + 1);
    assert_eq!(bench.rpc("eth_getBlockByNumber", json!([next, false])).await, Value::Null);

    let token = asset();
    let separator = bench.token(TokenRead::DomainSeparator, "latest").await;
    assert_eq!(separator, "0x71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818");
    assert!(bench.token(TokenRead::Name, "latest").await.contains(&hex::encode(token.name)));
    assert!(bench.token(TokenRead::Decimals, "latest").await.ends_with('6'));
    assert_ne!(bench.rpc("eth_getCode", json!([token.address, "latest"])).await, "0x");
    assert_eq!(bench.rpc("eth_getCode", json!([SHOP, "latest"])).await, "0x");
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn what_it_cannot_answer_is_an_error() {
    let bench = Bench::new().await;
    let call = json!({ "to": asset().address, "data": "0xdeadbeef" });
    assert_eq!(bench.rpc("eth_call", json!([call, "latest"])).await, 3);
    assert_eq!(bench.rpc("eth_sendRawTransaction", json!(["0x"])).await, -32_601);
    assert_eq!(bench.rpc("eth_getLogs", json!([{ "fromBlock": "0x0" }])).await, -32_614);
    assert_eq!(bench.rpc("eth_getBlockByNumber", json!(["newest", false])).await, -32_602);
    let batch = json!([{ "id": 1, "method": "eth_chainId" }, { "id": 2 }]);
    let answers = bench.post(&bench.sandbox.urls.rpc, &batch).await.json();
    assert_eq!((&answers[0]["result"], &answers[1]["error"]["code"]), (&json!("0x14a34"), &json!(-32_600)));
    let garbage = bench.send(http::Method::POST, &bench.sandbox.urls.rpc, &[], "{").await.json();
    assert_eq!(garbage["error"]["code"], -32_700);
    bench.sandbox.stop().await;
}
