//! The chain's JSON-RPC endpoint: the methods that a proof of payment needs, over the ledger.
//!
//! Source: the Ethereum execution API specification; JSON-RPC 2.0, batches included. Limits and their
//! words are those of Base's public endpoint.

mod logs;
mod shape;

use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use self::shape::{bytes, hex_bytes, quantity};
use super::faults::Fault;
use super::ledger::{Block, Ledger};
use super::serve::{Body, Handler, json, read};
use crate::x402::abi::{self, TokenRead};
use crate::x402::{Address, B256};

pub(super) struct Rpc {
    pub(super) ledger: Arc<Ledger>,
    /// How many blocks `safe` and `finalized` are behind `latest`.
    pub(super) finality_blocks: u64,
    /// Who sends the transactions.
    pub(super) sender: Address,
}

/// A JSON-RPC error: code and message.
struct RpcError(i32, String);

impl RpcError {
    fn params(message: impl Into<String>) -> Self {
        RpcError(-32_602, message.into())
    }
}

#[async_trait]
impl Handler for Rpc {
    async fn handle(&self, request: Request<Incoming>, _: Option<Fault>) -> Response<Body> {
        let body = match read(request.into_body(), 1 << 20).await {
            Ok(body) => body,
            Err(answer) => return *answer,
        };
        let answer = match serde_json::from_slice::<Value>(&body) {
            Ok(Value::Array(calls)) => calls.iter().map(|call| self.answer(call)).collect(),
            Ok(call) => self.answer(&call),
            Err(_) => error(&Value::Null, &RpcError(-32_700, "parse error".to_owned())),
        };
        json(StatusCode::OK, &answer)
    }
}

fn error(id: &Value, RpcError(code, message): &RpcError) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

impl Rpc {
    fn answer(&self, call: &Value) -> Value {
        let id = &call["id"];
        let Some(method) = call["method"].as_str() else {
            return error(id, &RpcError(-32_600, "invalid request".to_owned()));
        };
        match self.call(method, &call["params"]) {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err(problem) => error(id, &problem),
        }
    }

    fn call(&self, method: &str, params: &Value) -> Result<Value, RpcError> {
        match method {
            "eth_chainId" => Ok(quantity(self.ledger.asset().network.0)),
            "eth_blockNumber" => Ok(quantity(self.ledger.head().number)),
            "eth_getBlockByNumber" => Ok(self.block(&params[0])?.map_or(Value::Null, |block| {
                let transactions = self.ledger.transactions_between(block.number, block.number);
                shape::block(block, &transactions)
            })),
            "eth_call" => self.read(&params[0], &params[1]),
            "eth_getLogs" => logs::answer(self, &params[0]),
            "eth_getTransactionReceipt" => {
                let hash: B256 = parse(&params[0], "transaction hash")?;
                let receipt =
                    |transaction| shape::receipt(&transaction, self.sender, self.ledger.asset().address);
                Ok(self.ledger.transaction(hash).map_or(Value::Null, receipt))
            }
            "eth_getCode" => {
                let account: Address = parse(&params[0], "address")?;
                // Enough to be a contract; nobody runs it.
                Ok(if account == self.ledger.asset().address { json!("0x60806040") } else { json!("0x") })
            }
            _ => Err(RpcError(-32_601, format!("the method {method} does not exist/is not available"))),
        }
    }

    /// The block a tag or number names; `None` for one that is still to come.
    fn block(&self, tag: &Value) -> Result<Option<Block>, RpcError> {
        let head = self.ledger.head();
        let number = match tag.as_str() {
            Some("latest" | "pending") => head.number,
            Some("safe" | "finalized") => head.number.saturating_sub(self.finality_blocks),
            Some("earliest") => 0,
            Some(text) => text
                .strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .ok_or_else(|| RpcError::params(format!("invalid block number {text:?}")))?,
            None if tag.is_null() => head.number,
            None => return Err(RpcError::params("a block is named by tag or number here")),
        };
        Ok(self.ledger.block(number))
    }

    fn read(&self, call: &Value, tag: &Value) -> Result<Value, RpcError> {
        let block = self.block(tag)?.ok_or_else(|| RpcError(-32_000, "header not found".to_owned()))?;
        let to: Address = parse(&call["to"], "to")?;
        let asset = self.ledger.asset();
        if to != asset.address {
            return Ok(json!("0x"));
        }
        let input = call.get("input").or_else(|| call.get("data"));
        let input = input.and_then(bytes).ok_or_else(|| RpcError::params("invalid input"))?;
        let output = match TokenRead::decode(&input) {
            None => return Err(RpcError(3, "execution reverted".to_owned())),
            Some(TokenRead::BalanceOf(account)) => {
                abi::encode_amount(self.ledger.balance_at(account, block.number))
            }
            Some(TokenRead::AuthorizationState(authorizer, nonce)) => {
                abi::encode_bool(self.ledger.authorization_state_at(authorizer, nonce, block.number))
            }
            Some(TokenRead::Name) => abi::encode_string(&asset.name),
            Some(TokenRead::Version) => abi::encode_string(&asset.version),
            Some(TokenRead::Decimals) => abi::encode_decimals(asset.decimals),
            Some(TokenRead::DomainSeparator) => abi::domain_separator(asset).to_vec(),
        };
        Ok(hex_bytes(&output))
    }
}

fn parse<T: std::str::FromStr>(value: &Value, what: &str) -> Result<T, RpcError> {
    let parsed = value.as_str().filter(|text| text.starts_with("0x")).and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| RpcError::params(format!("invalid {what}")))
}
