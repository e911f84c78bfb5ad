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

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::address;
    use alloy::rpc::json_rpc::ErrorPayload;
    use alloy::transports::TransportErrorKind;

    fn said(code: i64, message: &str) -> Word {
        word(Err(RpcError::ErrorResp(ErrorPayload { code, message: message.to_owned().into(), data: None })))
    }

    /// As geth, reth, Erigon, Nethermind, Besu and anvil say it.
    #[test]
    fn the_words_of_nodes_are_understood() {
        for known in ["already known", "transaction already imported", "AlreadyKnown", "Known transaction"] {
            assert_eq!(said(-32_000, known), Word::Taken, "{known}");
        }
        for low in ["nonce too low: next nonce 5, tx nonce 4", "Nonce too low", "OldNonce, old nonce"] {
            assert_eq!(said(-32_000, low), Word::TooLow, "{low}");
        }
        for taken in
            ["replacement transaction underpriced", "ReplacementNotAllowed: underpriced, cannot replace"]
        {
            assert_eq!(said(-32_000, taken), Word::Occupied, "{taken}");
        }
        for no in [
            "insufficient funds for gas * price + value",
            "max fee per gas less than block base fee",
            "transaction underpriced: tip needed 1",
            "exceeds block gas limit",
        ] {
            assert!(matches!(said(-32_000, no), Word::Refused(_)), "{no}");
        }
        for doubt in
            [said(-32_603, "Internal error"), said(429, "Too Many Requests"), said(-32_005, "limit exceeded")]
        {
            assert!(matches!(doubt, Word::Unknown(_)), "{doubt:?}");
        }
        assert!(matches!(
            word(Err(TransportErrorKind::custom_str("the connection broke"))),
            Word::Unknown(_)
        ));
        assert_eq!(word(Ok(B256::ZERO)), Word::Taken);
    }

    #[test]
    fn what_is_signed_is_what_was_asked_for_on_that_chain_alone() {
        let signer = PrivateKeySigner::from_slice(&[1; 32]).unwrap();
        let to = address!("036CbD53842c5426634e7929541eC2318f3dCF7e");
        let call = Call { to, input: Bytes::from_static(b"data") };
        let (hash, raw) = sign(&signer, 84_532, 7, Fee { cap: 30, tip: 2 }, &call, 90_000).unwrap();
        assert_eq!(alloy::primitives::keccak256(&raw), hash);
        use alloy::consensus::{Transaction, TxEnvelope};
        let sent = <TxEnvelope as alloy::eips::eip2718::Decodable2718>::decode_2718(&mut &raw[..]).unwrap();
        let by = sent.signature().recover_address_from_prehash(&sent.signature_hash()).unwrap();
        assert_eq!(by, signer.address());
        assert_eq!((sent.chain_id(), sent.nonce(), sent.gas_limit()), (Some(84_532), 7, 90_000));
        assert_eq!((sent.max_fee_per_gas(), sent.max_priority_fee_per_gas()), (30, Some(2)));
        assert_eq!((sent.to(), sent.value(), &sent.input()[..]), (Some(to), U256::ZERO, &b"data"[..]));
    }
}
