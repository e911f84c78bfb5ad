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
            v: signature[64],
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

/// Logs of one transaction that prove something already: where an authorization is used, and where its money moves.
#[derive(Debug, Default)]
pub(super) struct Claimed(Vec<(usize, usize)>);

/// Whether `logs` of one transaction show this transfer: its authorization used, and the money moved as authorised.
/// Two equal transfers of one payer need two logs that say so, hence `claimed`.
pub(super) fn shows(
    logs: &[Log],
    token: Address,
    authorization: &Authorization,
    claimed: &mut Claimed,
) -> Shown {
    let Authorization { from, to, value, nonce, .. } = *authorization;
    let says = |log: &Log, event: TokenEvent| {
        let (topics, data) = event.encode();
        log.address() == token && log.topics() == topics && log.data().data[..] == data[..]
    };
    let used = TokenEvent::AuthorizationUsed { authorizer: from, nonce };
    let transfer = TokenEvent::Transfer { from, to, value };
    let Some(used) = logs.iter().position(|log| says(log, used)) else { return Shown::Nothing };
    let known = claimed.0.iter().find(|(of, _)| *of == used).map(|(_, at)| *at);
    let free = |at: usize| claimed.0.iter().all(|(_, taken)| *taken != at);
    let at = match known {
        // The same authorization, asked for in two spellings.
        Some(at) => logs.get(at).filter(|log| says(log, transfer)).map(|_| at),
        None => logs.iter().enumerate().position(|(at, log)| free(at) && says(log, transfer)),
    };
    match at {
        Some(at) => {
            claimed.0.push((used, at));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Amount;

    const TOKEN: Address = Address::repeat_byte(7);

    fn authorization(nonce: u8) -> Authorization {
        Authorization {
            from: Address::repeat_byte(1),
            to: Address::repeat_byte(2),
            value: Amount::new(5),
            valid_after: 0,
            valid_before: 100,
            nonce: B256::repeat_byte(nonce),
        }
    }

    fn log(token: Address, event: TokenEvent) -> Log {
        let (topics, data) = event.encode();
        let inner = alloy::primitives::Log::new(token, topics, data.into()).unwrap();
        Log { inner, ..Log::default() }
    }

    fn used(nonce: u8) -> Log {
        let Authorization { from, nonce, .. } = authorization(nonce);
        log(TOKEN, TokenEvent::AuthorizationUsed { authorizer: from, nonce })
    }

    fn moved(to: u8, units: u128) -> Log {
        let (from, to) = (Address::repeat_byte(1), Address::repeat_byte(to));
        log(TOKEN, TokenEvent::Transfer { from, to, value: Amount::new(units) })
    }

    #[test]
    fn each_of_two_equal_transfers_needs_a_log_of_its_own() {
        let show =
            |logs: &[Log], claimed: &mut Claimed, nonce| shows(logs, TOKEN, &authorization(nonce), claimed);
        let claimed = &mut Claimed::default();
        let logs = [used(1), moved(2, 5), used(2), moved(2, 5)];
        assert_eq!(show(&logs, claimed, 1), Shown::Transfer);
        assert_eq!(show(&logs, claimed, 2), Shown::Transfer);
        assert_eq!(show(&logs, claimed, 3), Shown::Nothing);
        // The same one again is the same one.
        assert_eq!(show(&logs, claimed, 2), Shown::Transfer);
        let claimed = &mut Claimed::default();
        let logs = [used(1), used(2), moved(2, 5)];
        assert_eq!(show(&logs, claimed, 1), Shown::Transfer);
        assert_eq!(show(&logs, claimed, 2), Shown::UsedWithoutTransfer);
    }

    #[test]
    fn money_that_went_elsewhere_or_was_another_tokens_proves_nothing() {
        let show = |logs: &[Log]| shows(logs, TOKEN, &authorization(1), &mut Claimed::default());
        assert_eq!(show(&[]), Shown::Nothing);
        assert_eq!(show(&[moved(2, 5)]), Shown::Nothing);
        assert_eq!(show(&[used(1)]), Shown::UsedWithoutTransfer);
        assert_eq!(show(&[used(1), moved(3, 5)]), Shown::UsedWithoutTransfer);
        assert_eq!(show(&[used(1), moved(2, 4)]), Shown::UsedWithoutTransfer);
        let mut other = moved(2, 5);
        other.inner.address = Address::ZERO;
        assert_eq!(show(&[used(1), other]), Shown::UsedWithoutTransfer);
        let mut other = used(1);
        other.inner.address = Address::ZERO;
        assert_eq!(show(&[other, moved(2, 5)]), Shown::Nothing);
    }

    #[test]
    fn a_wrapped_signature_is_unwrapped_and_nothing_else_is() {
        let factory = Address::repeat_byte(9);
        let wrap = |factory: Address| {
            let body =
                (factory, Bytes::from_static(b"make"), Bytes::from_static(b"inner")).abi_encode_params();
            [body, WRAPPED.to_vec()].concat()
        };
        let (inner, deployment) = unwrap(&wrap(factory));
        assert_eq!((&inner[..], deployment.unwrap().factory), (&b"inner"[..], factory));
        assert_eq!(unwrap(&wrap(Address::ZERO)).1, None);
        for plain in [&[][..], &[1; 65], WRAPPED.as_slice(), &wrap(factory)[1..]] {
            assert_eq!(unwrap(plain), (Bytes::copy_from_slice(plain), None));
        }
    }

    #[test]
    fn the_form_of_the_transfer_follows_the_length_of_the_signature() {
        let form = |length| transfer(TOKEN, &authorization(1), &vec![27; length]).input[..4].to_vec();
        // The selectors of FiatTokenV2_2.
        assert_eq!(form(65), [0xe3, 0xee, 0x16, 0x0e]);
        for length in [0, 64, 66, 200] {
            assert_eq!(form(length), [0xcf, 0x09, 0x29, 0x95]);
        }
    }

    #[test]
    fn only_the_magic_word_is_a_yes() {
        let mut yes = [0; 32];
        yes[..4].copy_from_slice(&MAGIC);
        assert!(said_valid(&yes));
        let mut dirty = yes;
        dirty[31] = 1;
        for no in [&[][..], &MAGIC, &[0; 32], &[0xff; 32], &dirty] {
            assert!(!said_valid(no));
        }
    }
}
