//! An endpoint made by hand: it says what a test wants it to, true or not.

use std::sync::Arc;

use alloy::primitives::{Bytes, keccak256};
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::chain::Chain;
use crate::clock::Clock;
use crate::config::resolved;
use crate::outgoing::stub::{Reply, Seen, Stub};
use crate::x402::abi::{self, TokenEvent, TokenRead};
use crate::x402::{Address, B256, Network};

/// The time of every fake's block 0; each later block is two seconds younger.
pub(super) const GENESIS: u64 = 1_700_000_000;

/// The token of every fake.
pub(super) const TOKEN: Address = Address::repeat_byte(0x70);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// A page of HTML.
    Html,
    /// 503 without a body.
    Unavailable,
    /// A JSON-RPC error of a service at its limit, with status 429.
    Limited,
    /// Reads the question and never answers.
    Silent,
}

/// What the endpoint says.
#[derive(Debug)]
pub(super) struct Says {
    pub(super) mood: Mood,
    pub(super) chain_id: u64,
    pub(super) newest: u64,
    /// `None`: it knows no tag `finalized`.
    pub(super) finalized: Option<u64>,
    /// From this block on, its hashes are others.
    pub(super) fork: Option<u64>,
    /// Transactions with their blocks, and the token's events in each.
    pub(super) transactions: Vec<(B256, u64, Vec<TokenEvent>)>,
    /// It forgets its logs.
    pub(super) without_logs: bool,
    /// It answers every filter with all logs it has.
    pub(super) heedless: bool,
    /// There is no token.
    pub(super) without_code: bool,
    /// What the token says of its name, version and domain; `None` where it has no such function.
    pub(super) name: Option<&'static str>,
    pub(super) version: Option<&'static str>,
    pub(super) separator: Option<B256>,
}

pub(super) struct Fake {
    pub(super) says: Arc<Mutex<Says>>,
    stub: Stub,
}

impl Fake {
    pub(super) async fn start(newest: u64) -> Fake {
        let says = Says {
            mood: Mood::Well,
            chain_id: 84_532,
            newest,
            finalized: Some(newest.saturating_sub(10)),
            fork: None,
            transactions: Vec::new(),
            without_logs: false,
            heedless: false,
            without_code: false,
            name: None,
            version: None,
            separator: None,
        };
        let says = Arc::new(Mutex::new(says));
        let answers = Arc::clone(&says);
        let stub = Stub::start(move |seen| answers.lock().reply(seen)).await;
        Fake { says, stub }
    }

    pub(super) fn url(&self) -> String {
        // As a service's would be: with a key in it.
        self.stub.url("/v2/s3cret").to_string()
    }

    /// The methods it was asked, in order.
    pub(super) fn asked(&self) -> Vec<String> {
        let method = |seen: Seen| serde_json::from_slice::<Value>(&seen.body).unwrap()["method"].clone();
        self.stub.seen().into_iter().map(|seen| method(seen).as_str().unwrap().to_owned()).collect()
    }
}

impl Says {
    fn reply(&self, seen: &Seen) -> Reply {
        match self.mood {
            Mood::Well => {}
            Mood::Html => return Reply::html(200),
            Mood::Unavailable => return Reply::Http(503, Vec::new(), Vec::new()),
            Mood::Silent => return Reply::Stall(b""),
            Mood::Limited => {
                let error = json!({ "code": -32_005, "message": "rate limit exceeded" });
                return Reply::json(429, &json!({ "jsonrpc": "2.0", "id": 0, "error": error }));
            }
        }
        let call: Value = serde_json::from_slice(&seen.body).unwrap();
        let result = self.answer(call["method"].as_str().unwrap(), &call["params"]);
        let (key, value) = match result {
            Ok(value) => ("result", value),
            Err(code) => ("error", json!({ "code": code, "message": "no" })),
        };
        Reply::json(200, &json!({ "jsonrpc": "2.0", "id": call["id"], key: value }))
    }

    fn answer(&self, method: &str, params: &Value) -> Result<Value, i64> {
        Ok(match method {
            "eth_chainId" => json!(format!("{:#x}", self.chain_id)),
            "eth_blockNumber" => json!(format!("{:#x}", self.newest)),
            "eth_getBlockByNumber" => {
                let number = match params[0].as_str().unwrap() {
                    "latest" => self.newest,
                    "finalized" => self.finalized.ok_or(-32_602)?,
                    number => u64::from_str_radix(&number[2..], 16).unwrap(),
                };
                if number <= self.newest { self.block(number) } else { Value::Null }
            }
            "eth_getTransactionReceipt" => {
                let found = self.transactions.iter();
                let found = found
                    .filter(|(_, block, _)| *block <= self.newest)
                    .find(|(hash, ..)| json!(hash) == params[0]);
                found.map_or(Value::Null, |(hash, block, events)| self.receipt(*hash, *block, events))
            }
            "eth_getLogs" => self.logs(&params[0]),
            "eth_getCode" => json!(if self.without_code { "0x" } else { "0x60" }),
            "eth_call" if self.without_code => json!("0x"),
            "eth_call" => {
                let at = match params[1].as_str().unwrap() {
                    "latest" => self.newest,
                    number => u64::from_str_radix(&number[2..], 16).unwrap(),
                };
                let input: Bytes = serde_json::from_value(params[0]["input"].clone()).unwrap();
                match TokenRead::decode(&input) {
                    Some(TokenRead::AuthorizationState(_, nonce)) => {
                        let gone = self.is_gone(nonce, at);
                        json!(Bytes::from(abi::encode_bool(gone)))
                    }
                    Some(TokenRead::Name) => text(self.name)?,
                    Some(TokenRead::Version) => text(self.version)?,
                    Some(TokenRead::DomainSeparator) => json!(self.separator.ok_or(3)?),
                    _ => return Err(3),
                }
            }
            _ => return Err(-32_601),
        })
    }

    pub(super) fn hash(&self, number: u64) -> B256 {
        let forked = self.fork.is_some_and(|from| number >= from);
        keccak256(format!("{number} {forked}"))
    }

    fn block(&self, number: u64) -> Value {
        let hashes: Vec<B256> = self
            .transactions
            .iter()
            .filter(|(_, block, _)| *block == number)
            .map(|(hash, ..)| *hash)
            .collect();
        json!({
            "number": format!("{number:#x}"),
            "hash": self.hash(number),
            "timestamp": format!("{:#x}", GENESIS + 2 * number),
            "transactions": hashes,
        })
    }

    fn is_gone(&self, sought: B256, at: u64) -> bool {
        let of = |event: &TokenEvent| match event {
            TokenEvent::AuthorizationUsed { nonce, .. } | TokenEvent::AuthorizationCanceled { nonce, .. } => {
                *nonce == sought
            }
            TokenEvent::Transfer { .. } => false,
        };
        self.transactions.iter().any(|(_, block, events)| *block <= at && events.iter().any(of))
    }

    fn logs(&self, filter: &Value) -> Value {
        let number = |bound: &Value| match bound.as_str().unwrap() {
            "latest" => self.newest,
            number => u64::from_str_radix(&number[2..], 16).unwrap(),
        };
        let blocks = number(&filter["fromBlock"])..=number(&filter["toBlock"]);
        assert!(blocks.end() - blocks.start() <= 100, "a range of {blocks:?}");
        let heeded = |log: &Value| {
            let topics = log["topics"].as_array().unwrap();
            let mut wanted = filter["topics"].as_array().unwrap().iter().enumerate();
            blocks.contains(&number(&log["blockNumber"]))
                && wanted.all(|(at, any)| {
                    let any = any.as_array().unwrap();
                    topics.get(at).is_some_and(|topic| any.is_empty() || any.contains(topic))
                })
        };
        let all = self.transactions.iter().filter(|(_, block, _)| *block <= self.newest);
        let all = all.flat_map(|(hash, block, events)| self.logs_of(*hash, *block, events));
        all.filter(|log| !self.without_logs && (self.heedless || heeded(log))).collect()
    }

    fn logs_of(&self, hash: B256, block: u64, events: &[TokenEvent]) -> Vec<Value> {
        let log = |(index, event): (usize, &TokenEvent)| {
            let (topics, data) = event.encode();
            json!({
                "address": TOKEN, "topics": topics, "data": Bytes::from(data),
                "blockNumber": format!("{block:#x}"), "blockHash": self.hash(block),
                "transactionHash": hash, "transactionIndex": "0x0",
                // Other transactions of the block come first.
                "logIndex": format!("{:#x}", index + 7), "removed": false,
            })
        };
        events.iter().enumerate().map(log).collect()
    }

    fn receipt(&self, hash: B256, block: u64, events: &[TokenEvent]) -> Value {
        json!({
            "transactionHash": hash, "transactionIndex": "0x0",
            "blockHash": self.hash(block), "blockNumber": format!("{block:#x}"),
            "from": format!("0x{:040x}", 1), "to": format!("0x{:040x}", 2), "contractAddress": null,
            "status": "0x1", "type": "0x2", "gasUsed": "0x1", "cumulativeGasUsed": "0x1",
            "effectiveGasPrice": "0x1", "logsBloom": format!("0x{:0512x}", 0),
            "logs": self.logs_of(hash, block, events),
        })
    }
}

fn text(text: Option<&str>) -> Result<Value, i64> {
    Ok(json!(Bytes::from(abi::encode_string(text.ok_or(3)?))))
}

/// The settings of a chain at these URLs.
pub(super) fn settings(urls: &[String]) -> resolved::Chain {
    let millis = std::time::Duration::from_millis;
    resolved::Chain {
        network: Network(84_532),
        rpc: urls.iter().map(|url| SecretString::from(url.clone())).collect(),
        final_blocks: None,
        timeout: millis(2_000),
        max_head_age: millis(60_000),
        log_range: 100,
        poll: millis(10),
        allow_plain_http: false,
    }
}

/// A chain at these endpoints, and the clock, which stands at the time of block `now`.
pub(super) fn chain(fakes: &[&Fake], now: u64) -> (Chain, Clock) {
    let clock = Clock::manual((GENESIS + 2 * now) * 1000);
    let urls: Vec<String> = fakes.iter().map(|fake| fake.url()).collect();
    (Chain::new(&settings(&urls), clock.clone()).unwrap(), clock)
}
