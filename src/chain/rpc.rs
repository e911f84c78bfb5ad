//! The questions asked of one endpoint, and their answers: only the fields that every chain has.

use alloy::primitives::{Address, B256, Bytes, U64};
use alloy::rpc::client::RpcClientInner;
use alloy::rpc::types::Log;
use alloy::transports::TransportError;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ChainError, Head};

/// A block, with the hashes of its transactions.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Block {
    number: U64,
    hash: B256,
    timestamp: U64,
    #[serde(default)]
    pub(super) transactions: Vec<B256>,
}

impl Block {
    pub(super) fn head(&self) -> Head {
        Head { number: self.number.to(), hash: self.hash, time: self.timestamp.to() }
    }
}

/// `eth_chainId`.
pub(super) async fn chain_id(client: &RpcClientInner) -> Result<u64, ChainError> {
    client.request_noparams::<U64>("eth_chainId").await.map(|id| id.to()).map_err(failed)
}

/// The block a tag or a number names; `None` where the endpoint has none of that name.
pub(super) async fn block(client: &RpcClientInner, name: &str) -> Result<Option<Block>, ChainError> {
    client.request("eth_getBlockByNumber", (name.to_owned(), false)).await.map_err(failed)
}

/// What the contract at `to` returns for `input`, as of block `at`.
pub(super) async fn read(
    client: &RpcClientInner,
    to: Address,
    input: Vec<u8>,
    at: &str,
) -> Result<Bytes, ChainError> {
    let call = serde_json::json!({ "to": to, "input": Bytes::from(input) });
    client.request("eth_call", (call, at.to_owned())).await.map_err(failed)
}

/// The code of the contract at `address`; empty where there is none.
pub(super) async fn code(client: &RpcClientInner, address: Address) -> Result<Bytes, ChainError> {
    client.request("eth_getCode", (address, "latest")).await.map_err(failed)
}

/// The logs of one contract in these blocks, by their first topics.
pub(super) async fn logs(
    client: &RpcClientInner,
    address: Address,
    topics: [Vec<B256>; 3],
    from: u64,
    to: &str,
) -> Result<Vec<Log>, ChainError> {
    let filter = serde_json::json!({
        "address": address, "topics": topics, "fromBlock": quantity(from), "toBlock": to,
    });
    client.request("eth_getLogs", (filter,)).await.map_err(failed)
}

/// What became of a transaction, as far as proof needs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Receipt {
    pub(super) status: U64,
    pub(super) block_number: U64,
    pub(super) block_hash: B256,
    pub(super) logs: Vec<Log>,
}

/// The receipt of a mined transaction.
pub(super) async fn receipt(
    client: &RpcClientInner,
    transaction: B256,
) -> Result<Option<Receipt>, ChainError> {
    client.request("eth_getTransactionReceipt", (transaction,)).await.map_err(failed)
}

/// A number, as JSON-RPC writes it.
pub(super) fn quantity(number: u64) -> String {
    format!("{number:#x}")
}

/// An answer that is none. What an endpoint says of it is kept short: it may be a page of HTML.
pub(super) fn failed(error: TransportError<Box<RawValue>>) -> ChainError {
    let text = match &error {
        TransportError::ErrorResp(payload) if !payload.is_retry_err() => {
            let message: String = payload.message.chars().take(160).collect();
            return ChainError::Refused(format!("{message} ({})", payload.code));
        }
        TransportError::DeserError { .. } => "the answer has another shape than it should".to_owned(),
        TransportError::NullResp => "the answer is empty".to_owned(),
        other => other.to_string(),
    };
    ChainError::Away(text)
}
