//! Questions to a chain, several in one round trip, and the difference between "it reverts" and "nobody answered".

use alloy::primitives::{Bytes, U64, U128};
use alloy::providers::Provider;
use alloy::rpc::client::{BatchRequest, Waiter};
use alloy::rpc::json_rpc::{ErrorPayload, RpcRecv, RpcSend};
use alloy::rpc::types::Log;
use alloy::transports::{RpcError, TransportError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::contracts::Call;
use crate::chain::Chain;
use crate::x402::{Address, B256};

/// Error codes by which nodes say that a call ran and reverted: the standard's, and Parity's.
const REVERT_CODES: [i64; 2] = [3, -32_015];

/// The words by which the others say it. A node that is at its limit must not be taken for a revert.
const REVERT_WORDS: [&str; 4] = ["revert", "invalid opcode", "out of gas", "bad instruction"];

/// What a node says is kept short: it may be a page of HTML.
const MAX_WORDS: usize = 200;

/// Nobody answered. What was asked is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Away(pub(super) String);

/// Several questions, asked at once.
pub(super) struct Batch<'a>(BatchRequest<'a>);

/// What is known of a block.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Block {
    pub(super) number: U64,
    pub(super) timestamp: U64,
    base_fee_per_gas: Option<U128>,
}

/// What is known of a transaction that was mined. One that failed has no logs, so those say all there is to know.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mined {
    pub(super) transaction_hash: B256,
    /// Absent in what some nodes show of a transaction that is still pending.
    pub(super) block_number: Option<U64>,
    pub(super) logs: Vec<Log>,
}

impl Block {
    pub(super) fn base_fee(&self) -> u128 {
        self.base_fee_per_gas.unwrap_or_default().to()
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(chain: &'a Chain) -> Self {
        Batch(BatchRequest::new(chain.provider().client()))
    }

    pub(super) fn ask<T: RpcRecv>(
        &mut self,
        method: &'static str,
        params: impl RpcSend,
    ) -> Result<Waiter<T>, Away> {
        self.0.add_call(method, &params).map_err(away)
    }

    /// The code at `address`.
    pub(super) fn code(&mut self, address: Address) -> Result<Waiter<Bytes>, Away> {
        self.ask("eth_getCode", (address, "latest"))
    }

    /// What `call` would come to now, if `from` made it.
    pub(super) fn call(&mut self, from: Address, call: &Call) -> Result<Waiter<Bytes>, Away> {
        self.ask("eth_call", (transaction(from, call), "latest"))
    }

    /// The gas that `call` would need now.
    pub(super) fn estimate(&mut self, from: Address, call: &Call) -> Result<Waiter<U64>, Away> {
        self.ask("eth_estimateGas", (transaction(from, call), "latest"))
    }

    pub(super) fn newest(&mut self) -> Result<Waiter<Block>, Away> {
        self.ask("eth_getBlockByNumber", ("latest", false))
    }

    pub(super) fn receipt(&mut self, transaction: B256) -> Result<Waiter<Option<Mined>>, Away> {
        self.ask("eth_getTransactionReceipt", (transaction,))
    }

    /// Asks. The answers are the waiters'.
    pub(super) async fn send(self) -> Result<(), Away> {
        self.0.send().await.map_err(away)
    }
}

/// The answer to a question that has no other answers.
pub(super) async fn answer<T: RpcRecv>(waiter: Waiter<T>) -> Result<T, Away> {
    waiter.await.map_err(away)
}

/// The answer to a call, or why it reverts.
pub(super) async fn outcome<T: RpcRecv>(waiter: Waiter<T>) -> Result<Result<T, String>, Away> {
    match waiter.await {
        Ok(answer) => Ok(Ok(answer)),
        Err(RpcError::ErrorResp(error)) if is_revert(&error) => Ok(Err(words(&error.message))),
        Err(error) => Err(away(error)),
    }
}

/// What a node says of an error.
pub(super) fn words(text: &str) -> String {
    text.chars().take(MAX_WORDS).collect()
}

pub(super) fn away(error: TransportError) -> Away {
    Away(match &error {
        RpcError::ErrorResp(error) => format!("{} ({})", words(&error.message), error.code),
        // The answer itself may hold anything.
        RpcError::DeserError { .. } => {
            "the RPC endpoint's answer has another shape than it should".to_owned()
        }
        other => words(&other.to_string()),
    })
}

fn is_revert<T>(error: &ErrorPayload<T>) -> bool {
    let said = error.message.to_ascii_lowercase();
    REVERT_CODES.contains(&error.code) || REVERT_WORDS.iter().any(|word| said.contains(word))
}

fn transaction(from: Address, call: &Call) -> Value {
    json!({ "from": from, "to": call.to, "data": call.input })
}
