//! The questions asked of one endpoint, and their answers: only the fields that every chain has.

use alloy::primitives::{B256, U64};
use alloy::rpc::client::RpcClientInner;
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

/// A number, as JSON-RPC writes it.
pub(super) fn quantity(number: u64) -> String {
    format!("{number:#x}")
}

/// An answer that is none. What an endpoint says of it is kept short: it may be a page of HTML.
pub(super) fn failed(error: TransportError<Box<RawValue>>) -> ChainError {
    let text = match &error {
        TransportError::ErrorResp(payload) => {
            let message: String = payload.message.chars().take(160).collect();
            format!("{message} ({})", payload.code)
        }
        TransportError::DeserError { .. } => "the answer has another shape than it should".to_owned(),
        TransportError::NullResp => "the answer is empty".to_owned(),
        other => other.to_string(),
    };
    ChainError::Away(text)
}
