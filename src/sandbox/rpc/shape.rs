//! Blocks, receipts and logs as JSON-RPC writes them: every field that typed clients insist on.

use serde_json::{Value, json};

use crate::sandbox::hash;
use crate::sandbox::ledger::{Block, Transaction};
use crate::x402::{Address, B256};

/// Keccak-256 of an empty list in RLP: the hash of "no uncles".
const NO_UNCLES: &str = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347";

/// What every transaction is said to use.
const GAS: u64 = 85_000;

/// A number.
pub(super) fn quantity(number: u64) -> Value {
    format!("{number:#x}").into()
}

/// Bytes.
pub(super) fn hex_bytes(bytes: &[u8]) -> Value {
    format!("0x{}", hex::encode(bytes)).into()
}

/// The bytes in a hex string.
pub(super) fn bytes(value: &Value) -> Option<Vec<u8>> {
    hex::decode(value.as_str()?.strip_prefix("0x")?).ok()
}

fn block_hash(number: u64) -> B256 {
    hash(&[b"block", &number.to_be_bytes()])
}

/// 2048 bits: none where nothing was logged, else all, which says "look inside".
fn bloom(any: bool) -> Value {
    hex_bytes(&[if any { 0xff } else { 0 }; 256])
}

/// A block, with the hashes of its transactions.
pub(super) fn block(block: Block, transactions: &[Transaction]) -> Value {
    let Block { number, timestamp } = block;
    let hashes: Vec<B256> = transactions.iter().map(|transaction| transaction.hash).collect();
    let root = hash(&[b"root", &number.to_be_bytes()]);
    json!({
        "number": quantity(number),
        "hash": block_hash(number),
        "parentHash": block_hash(number.saturating_sub(1)),
        "timestamp": quantity(timestamp),
        "transactions": hashes,
        "nonce": "0x0000000000000000",
        "sha3Uncles": NO_UNCLES,
        "uncles": [],
        "logsBloom": bloom(!hashes.is_empty()),
        "transactionsRoot": root,
        "stateRoot": root,
        "receiptsRoot": root,
        "mixHash": B256::ZERO,
        "miner": Address::ZERO,
        "difficulty": "0x0",
        "extraData": "0x",
        "size": "0x400",
        "gasLimit": quantity(60_000_000),
        "gasUsed": quantity(GAS * hashes.len() as u64),
        "baseFeePerGas": "0xf4240",
    })
}

/// The receipt of a transaction.
pub(super) fn receipt(transaction: &Transaction, sender: Address, asset: Address) -> Value {
    let logs: Vec<Value> = logs(transaction, asset).map(|log| log.json).collect();
    json!({
        "transactionHash": transaction.hash,
        "transactionIndex": "0x0",
        "blockHash": block_hash(transaction.block.number),
        "blockNumber": quantity(transaction.block.number),
        "from": sender,
        "to": asset,
        "contractAddress": null,
        "status": "0x1",
        "type": "0x2",
        "gasUsed": quantity(GAS),
        "cumulativeGasUsed": quantity(GAS),
        "effectiveGasPrice": "0xf4240",
        "logsBloom": bloom(true),
        "logs": logs,
    })
}

/// A log: its topics, to filter by, and the whole of it.
pub(super) struct Log {
    pub(super) topics: Vec<B256>,
    pub(super) json: Value,
}

/// The logs of a transaction, in order.
pub(super) fn logs(transaction: &Transaction, asset: Address) -> impl Iterator<Item = Log> {
    let Block { number, timestamp } = transaction.block;
    transaction.events.iter().enumerate().map(move |(index, event)| {
        let (topics, data) = event.encode();
        let json = json!({
            "address": asset,
            "topics": topics,
            "data": hex_bytes(&data),
            "blockNumber": quantity(number),
            "blockHash": block_hash(number),
            "blockTimestamp": quantity(timestamp),
            "transactionHash": transaction.hash,
            "transactionIndex": "0x0",
            "logIndex": quantity(index as u64),
            "removed": false,
        });
        Log { topics, json }
    })
}
