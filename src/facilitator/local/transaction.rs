//! Transactions: signed, and what nodes say to them. Nodes have no common codes, so their words are read.

use alloy::consensus::{SignableTransaction, TxEip1559};
use alloy::eips::eip2718::Encodable2718;
use alloy::primitives::{Bytes, TxKind, U256};
use alloy::signers::local::PrivateKeySigner;
use alloy::signers::{Error, SignerSync};
use alloy::transports::{RpcError, TransportError};

use super::contracts::Call;
use super::fees::Fee;
use super::rpc;
use crate::x402::B256;

/// What a node says to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It has it, or had it already.
    Taken,
    /// Its number is used in the chain already; by itself, maybe.
    TooLow,
    /// Another transaction with its number is in the pool, and is not to be replaced at this price.
    Occupied,
    /// It will not have it.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// The transaction that makes `call` under this number: its hash and its bytes.
pub(super) fn sign(
    signer: &PrivateKeySigner,
    chain: u64,
    number: u64,
    fee: Fee,
    call: &Call,
    gas: u64,
) -> Result<(B256, Bytes), Error> {
    let transaction = TxEip1559 {
        chain_id: chain,
        nonce: number,
        gas_limit: gas,
        max_fee_per_gas: fee.cap,
        max_priority_fee_per_gas: fee.tip,
        to: TxKind::Call(call.to),
        value: U256::ZERO,
        access_list: Default::default(),
        input: call.input.clone(),
    };
    let signature = signer.sign_hash_sync(&transaction.signature_hash())?;
    let signed = transaction.into_signed(signature);
    Ok((*signed.hash(), signed.encoded_2718().into()))
}

/// What the answer to `eth_sendRawTransaction` says.
pub(super) fn word(answer: Result<B256, TransportError>) -> Word {
    let error = match answer {
        Ok(_) => return Word::Taken,
        Err(RpcError::ErrorResp(error)) => error,
        Err(error) => return Word::Unknown(rpc::away(error).0),
    };
    let said = error.message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&["already known", "already imported", "known transaction", "already exists", "alreadyknown"]) {
        Word::Taken
    } else if says(&["nonce too low", "nonce is too low", "invalid nonce", "old nonce"]) {
        Word::TooLow
    } else if says(&["underpriced"]) && says(&["replace"]) {
        Word::Occupied
    } else if error.is_retry_err() || error.code == -32_603 {
        Word::Unknown(rpc::words(&error.message))
    } else {
        Word::Refused(rpc::words(&error.message))
    }
}
