//! `eth_getLogs`: which logs of which blocks.

use serde_json::{Value, json};

use super::{Rpc, RpcError, parse, shape};
use crate::x402::{Address, B256};

/// As many blocks as Base's public endpoint looks through.
const MAX_RANGE: u64 = 10_000;

/// The logs that a filter object selects.
pub(super) fn answer(rpc: &Rpc, filter: &Value) -> Result<Value, RpcError> {
    if !filter["blockHash"].is_null() {
        return Err(RpcError::params("blocks are selected by fromBlock and toBlock here"));
    }
    let head = rpc.ledger.head().number;
    let bound = |tag: &Value| Ok(rpc.block(tag)?.map_or(head + 1, |block| block.number));
    let (from, to) = (bound(&filter["fromBlock"])?, bound(&filter["toBlock"])?.min(head));
    if to.saturating_sub(from) > MAX_RANGE {
        return Err(RpcError(-32_614, "eth_getLogs is limited to a 10,000 range".to_owned()));
    }
    let asset = rpc.ledger.asset().address;
    if let Some(addresses) = any_of::<Address>(&filter["address"], "address")?
        && !addresses.contains(&asset)
    {
        return Ok(json!([]));
    }
    let wanted = match &filter["topics"] {
        Value::Null => Vec::new(),
        Value::Array(positions) => {
            positions.iter().map(|position| any_of::<B256>(position, "topic")).collect::<Result<_, _>>()?
        }
        _ => return Err(RpcError::params("topics is a list")),
    };
    let transactions = rpc.ledger.transactions_between(from, to);
    let logs = transactions.iter().flat_map(|transaction| shape::logs(transaction, asset));
    Ok(logs.filter(|log| matches(&log.topics, &wanted)).map(|log| log.json).collect())
}

/// Nothing (anything will do), one, or a list of alternatives.
fn any_of<T: std::str::FromStr>(value: &Value, what: &str) -> Result<Option<Vec<T>>, RpcError> {
    match value {
        Value::Null => Ok(None),
        Value::Array(list) if list.is_empty() => Ok(None),
        Value::Array(list) => list.iter().map(|one| parse(one, what)).collect::<Result<_, _>>().map(Some),
        one => Ok(Some(vec![parse(one, what)?])),
    }
}

/// Topics are compared by position; a filter may be shorter than the log, not longer.
fn matches(topics: &[B256], wanted: &[Option<Vec<B256>>]) -> bool {
    wanted.len() <= topics.len()
        && wanted.iter().zip(topics).all(|(any, topic)| any.as_ref().is_none_or(|any| any.contains(topic)))
}
