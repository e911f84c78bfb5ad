//! What is said to the contracts: the token's transfer in both forms, Multicall3, and a wallet's own word on a signature.
//!
//! Encodings and the reading of logs only; no I/O.

use alloy::primitives::{Bytes, U256, address, b256};
use alloy::rpc::types::Log;
use alloy::sol_types::{SolCall, SolValue};

use crate::x402::abi::{TokenEvent, TokenRead};
use crate::x402::{Address, Authorization, B256};

/// Multicall3, at the same address on every chain that has it.
pub(super) const MULTICALL3: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");

/// How a signature ends that also says how to make its wallet (ERC-6492).
const WRAPPED: B256 = b256!("6492649264926492649264926492649264926492649264926492649264926492");

/// What `isValidSignature` returns for a good one (EIP-1271).
const MAGIC: [u8; 4] = [0x16, 0x26, 0xba, 0x7e];

mod abi {
    alloy::sol! {
        interface Token {
            function transferWithAuthorization(
                address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce,
                uint8 v, bytes32 r, bytes32 s
            ) external;
            function transferWithAuthorization(
                address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce,
                bytes signature
            ) external;
        }

        interface Multicall3 {
            struct Call3 {
                address target;
                bool allowFailure;
                bytes callData;
            }
            function aggregate3(Call3[] calldata calls) external payable;
        }

        interface Wallet {
            function isValidSignature(bytes32 hash, bytes signature) external view returns (bytes4);
        }
    }
}

/// A call to a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) to: Address,
    pub(super) input: Bytes,
}

/// How a wallet that does not exist yet is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deployment {
    pub(super) factory: Address,
    pub(super) input: Bytes,
}

/// `transferWithAuthorization`, in the form that fits the signature: v, r and s of 65 bytes, else the bytes.
pub(super) fn transfer(token: Address, authorization: &Authorization, signature: &[u8]) -> Call {
    let Authorization { from, to, value, valid_after, valid_before, nonce } = *authorization;
    let (value, valid_after, valid_before) =
        (U256::from(value.units()), U256::from(valid_after), U256::from(valid_before));
    let input = match <&[u8; 65]>::try_from(signature) {
        Ok(signature) => abi::Token::transferWithAuthorization_0Call {
            from,
            to,
            value,
            validAfter: valid_after,
            validBefore: valid_before,
            nonce,
            // Tokens take 27 and 28 only.
            v: if signature[64] < 27 { signature[64] + 27 } else { signature[64] },
            r: B256::from_slice(&signature[..32]),
            s: B256::from_slice(&signature[32..64]),
        }
        .abi_encode(),
        Err(_) => abi::Token::transferWithAuthorization_1Call {
            from,
            to,
            value,
            validAfter: valid_after,
            validBefore: valid_before,
            nonce,
            signature: Bytes::copy_from_slice(signature),
        }
        .abi_encode(),
    };
    Call { to: token, input: input.into() }
}

/// All of `calls` in one, in order; each with whether it may fail without the others.
pub(super) fn aggregate<'a>(calls: impl IntoIterator<Item = (&'a Call, bool)>) -> Call {
    let calls = calls
        .into_iter()
        .map(|(call, allow_failure)| abi::Multicall3::Call3 {
            target: call.to,
            allowFailure: allow_failure,
            callData: call.input.clone(),
        })
        .collect();
    Call { to: MULTICALL3, input: abi::Multicall3::aggregate3Call { calls }.abi_encode().into() }
}

/// What a read of the token's state is asked by.
pub(super) fn read(token: Address, what: TokenRead) -> Call {
    Call { to: token, input: what.encode().into() }
}

/// `uint256`, as returned.
pub(super) fn number(answer: &[u8]) -> Option<U256> {
    U256::abi_decode_validate(answer).ok()
}

/// `bool`, as returned.
pub(super) fn truth(answer: &[u8]) -> Option<bool> {
    bool::abi_decode_validate(answer).ok()
}

/// `bytes32`, as returned.
pub(super) fn word(answer: &[u8]) -> Option<B256> {
    B256::abi_decode_validate(answer).ok()
}

/// `string`, as returned.
pub(super) fn text(answer: &[u8]) -> Option<String> {
    String::abi_decode_validate(answer).ok()
}

/// The wallet at `payer` is asked whether `signature` over `digest` is its own.
pub(super) fn is_valid_signature(payer: Address, digest: B256, signature: &[u8]) -> Call {
    let call =
        abi::Wallet::isValidSignatureCall { hash: digest, signature: Bytes::copy_from_slice(signature) };
    Call { to: payer, input: call.abi_encode().into() }
}

/// Whether the wallet said yes. One that answers anything but the magic word said no.
pub(super) fn said_valid(answer: &[u8]) -> bool {
    answer.len() >= 32 && answer[..4] == MAGIC && answer[4..32].iter().all(|byte| *byte == 0)
}

/// The signature itself, and how to make the wallet it is of if it says so (ERC-6492).
pub(super) fn unwrap(signature: &[u8]) -> (Bytes, Option<Deployment>) {
    let wrapped = signature.strip_suffix(WRAPPED.as_slice());
    match wrapped.and_then(|body| <(Address, Bytes, Bytes)>::abi_decode_params_validate(body).ok()) {
        Some((factory, input, inner)) if !factory.is_zero() => (inner, Some(Deployment { factory, input })),
        Some((_, _, inner)) => (inner, None),
        None => (Bytes::copy_from_slice(signature), None),
    }
}

/// Whether `logs` of one transaction show this transfer: its authorization used, and the money moved as authorised.
///
/// `claimed` are the logs that prove another one: two equal transfers of the same payer need two of them.
pub(super) fn shows(
    logs: &[Log],
    token: Address,
    authorization: &Authorization,
    claimed: &mut Vec<usize>,
) -> Shown {
    let Authorization { from, to, value, nonce, .. } = *authorization;
    let find = |event: TokenEvent, claimed: &[usize]| {
        let (topics, data) = event.encode();
        logs.iter().enumerate().position(|(at, log)| {
            log.address() == token
                && log.topics() == topics
                && log.data().data[..] == data[..]
                && !claimed.contains(&at)
        })
    };
    if find(TokenEvent::AuthorizationUsed { authorizer: from, nonce }, &[]).is_none() {
        return Shown::Nothing;
    }
    match find(TokenEvent::Transfer { from, to, value }, claimed) {
        Some(at) => {
            claimed.push(at);
            Shown::Transfer
        }
        None => Shown::UsedWithoutTransfer,
    }
}

/// What a transaction's logs prove of one authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// It was spent, and the payee has the money.
    Transfer,
    /// It was spent, and the money went elsewhere: the token is not what it says it is.
    UsedWithoutTransfer,
    /// It was not spent here.
    Nothing,
}
