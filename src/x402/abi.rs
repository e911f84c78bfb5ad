//! The token's contract interface: what of FiatToken and EIP-3009 is read from, or shown by, a chain.
//!
//! Encodings only, no I/O; everything here is fixed by the deployed contract.

use alloy::primitives::U256;
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use alloy::sol_types::{SolCall, SolEvent, SolInterface, SolStruct};

use super::eip3009::{self, Domain};
use super::{Address, Asset, B256};
use crate::money::Amount;

alloy::sol! {
    interface Token {
        function balanceOf(address account) external view returns (uint256);
        function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
        function name() external view returns (string);
        function version() external view returns (string);
        function decimals() external view returns (uint8);
        function DOMAIN_SEPARATOR() external view returns (bytes32);
    }

    event Transfer(address indexed from, address indexed to, uint256 value);
    event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
    event AuthorizationCanceled(address indexed authorizer, bytes32 indexed nonce);

    struct CancelAuthorization {
        address authorizer;
        bytes32 nonce;
    }
}

/// A read of the token's state, decoded from the input of an `eth_call`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRead {
    /// `balanceOf(account)`.
    BalanceOf(Address),
    /// `authorizationState(authorizer, nonce)`: true once used *or* cancelled.
    AuthorizationState(Address, B256),
    /// `name()`.
    Name,
    /// `version()`.
    Version,
    /// `decimals()`.
    Decimals,
    /// `DOMAIN_SEPARATOR()`.
    DomainSeparator,
}

impl TokenRead {
    /// The read that `input` asks for; `None` for another function or malformed arguments.
    pub fn decode(input: &[u8]) -> Option<TokenRead> {
        Some(match Token::TokenCalls::abi_decode_validate(input).ok()? {
            Token::TokenCalls::balanceOf(call) => TokenRead::BalanceOf(call.account),
            Token::TokenCalls::authorizationState(call) => {
                TokenRead::AuthorizationState(call.authorizer, call.nonce)
            }
            Token::TokenCalls::name(_) => TokenRead::Name,
            Token::TokenCalls::version(_) => TokenRead::Version,
            Token::TokenCalls::decimals(_) => TokenRead::Decimals,
            Token::TokenCalls::DOMAIN_SEPARATOR(_) => TokenRead::DomainSeparator,
        })
    }

    /// The input of the `eth_call` that asks for it.
    pub fn encode(self) -> Vec<u8> {
        match self {
            TokenRead::BalanceOf(account) => Token::balanceOfCall { account }.abi_encode(),
            TokenRead::AuthorizationState(authorizer, nonce) => {
                Token::authorizationStateCall { authorizer, nonce }.abi_encode()
            }
            TokenRead::Name => Token::nameCall {}.abi_encode(),
            TokenRead::Version => Token::versionCall {}.abi_encode(),
            TokenRead::Decimals => Token::decimalsCall {}.abi_encode(),
            TokenRead::DomainSeparator => Token::DOMAIN_SEPARATORCall {}.abi_encode(),
        }
    }
}

/// `uint256`, as [`TokenRead::BalanceOf`] returns it.
pub fn encode_amount(amount: Amount) -> Vec<u8> {
    Token::balanceOfCall::abi_encode_returns(&U256::from(amount.units()))
}

/// `bool`, as [`TokenRead::AuthorizationState`] returns it.
pub fn encode_bool(value: bool) -> Vec<u8> {
    Token::authorizationStateCall::abi_encode_returns(&value)
}

/// `string`, as [`TokenRead::Name`] and [`TokenRead::Version`] return it.
pub fn encode_string(text: &str) -> Vec<u8> {
    Token::nameCall::abi_encode_returns(&text.to_owned())
}

/// `uint8`, as [`TokenRead::Decimals`] returns it.
pub fn encode_decimals(decimals: u8) -> Vec<u8> {
    Token::decimalsCall::abi_encode_returns(&decimals)
}

/// The answer to [`TokenRead::AuthorizationState`]; `None` if it is no `bool`, such as where there is no contract.
pub fn decode_bool(output: &[u8]) -> Option<bool> {
    Token::authorizationStateCall::abi_decode_returns_validate(output).ok()
}

/// The answer to [`TokenRead::Name`] or [`TokenRead::Version`].
pub fn decode_string(output: &[u8]) -> Option<String> {
    Token::nameCall::abi_decode_returns_validate(output).ok()
}

/// The answer to [`TokenRead::DomainSeparator`].
pub fn decode_separator(output: &[u8]) -> Option<B256> {
    Token::DOMAIN_SEPARATORCall::abi_decode_returns_validate(output).ok()
}

/// The EIP-712 domain separator of the token, as [`TokenRead::DomainSeparator`] returns it.
pub fn domain_separator(asset: &Asset) -> B256 {
    Domain::new(asset).separator()
}

/// An event of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenEvent {
    /// Money moved; minted from or burnt to the zero address.
    Transfer {
        /// Payer.
        from: Address,
        /// Payee.
        to: Address,
        /// Atomic units.
        value: Amount,
    },
    /// An authorization was spent; its `Transfer` follows in the same transaction.
    AuthorizationUsed {
        /// The payer.
        authorizer: Address,
        /// Its nonce.
        nonce: B256,
    },
    /// An authorization was made worthless by its signer.
    AuthorizationCanceled {
        /// The payer.
        authorizer: Address,
        /// Its nonce.
        nonce: B256,
    },
}

impl TokenEvent {
    /// Topics and data, as in a log.
    pub fn encode(&self) -> (Vec<B256>, Vec<u8>) {
        let log = match *self {
            TokenEvent::Transfer { from, to, value } => {
                Transfer { from, to, value: U256::from(value.units()) }.encode_log_data()
            }
            TokenEvent::AuthorizationUsed { authorizer, nonce } => {
                AuthorizationUsed { authorizer, nonce }.encode_log_data()
            }
            TokenEvent::AuthorizationCanceled { authorizer, nonce } => {
                AuthorizationCanceled { authorizer, nonce }.encode_log_data()
            }
        };
        (log.topics().to_vec(), log.data.to_vec())
    }
}

impl TokenEvent {
    /// The event that a log of the token shows; `None` for another, or one that is malformed.
    pub fn decode(topics: &[B256], data: &[u8]) -> Option<TokenEvent> {
        let topics = || topics.iter().copied();
        if let Ok(Transfer { from, to, value }) = Transfer::decode_raw_log_validate(topics(), data) {
            // More than fits is no amount of ours.
            let value = Amount::new(u128::try_from(value).ok()?);
            return Some(TokenEvent::Transfer { from, to, value });
        }
        if let Ok(AuthorizationUsed { authorizer, nonce }) =
            AuthorizationUsed::decode_raw_log_validate(topics(), data)
        {
            return Some(TokenEvent::AuthorizationUsed { authorizer, nonce });
        }
        let cancelled = AuthorizationCanceled::decode_raw_log_validate(topics(), data).ok()?;
        let AuthorizationCanceled { authorizer, nonce } = cancelled;
        Some(TokenEvent::AuthorizationCanceled { authorizer, nonce })
    }
}

/// The payer's own signature that makes an authorization of his worthless (`cancelAuthorization`).
pub fn sign_cancel(asset: &Asset, authorizer: Address, nonce: B256, key: &B256) -> Option<[u8; 65]> {
    let signer = PrivateKeySigner::from_bytes(key).ok()?;
    let digest = cancel_digest(asset, authorizer, nonce);
    signer.sign_hash_sync(&digest).ok().map(|signature| signature.as_bytes())
}

/// Signs a transfer in anybody's name, as a forger would.
#[cfg(test)]
pub(crate) fn sign_transfer(
    asset: &Asset,
    authorization: &super::Authorization,
    key: &B256,
) -> Option<[u8; 65]> {
    let signer = PrivateKeySigner::from_bytes(key).ok()?;
    Domain::new(asset).sign(&signer, authorization).ok()
}

/// Who signed a `cancelAuthorization`.
pub fn recover_cancel(asset: &Asset, authorizer: Address, nonce: B256, signature: &[u8]) -> Option<Address> {
    let digest = cancel_digest(asset, authorizer, nonce);
    // A signature that recovers to nobody must never stand for the zero address.
    eip3009::recover(&digest, signature.try_into().ok()?).ok().filter(|address| !address.is_zero())
}

fn cancel_digest(asset: &Asset, authorizer: Address, nonce: B256) -> B256 {
    Domain::new(asset).hash(CancelAuthorization { authorizer, nonce }.eip712_hash_struct())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::{b256, hex};

    #[test]
    fn topics_are_those_of_the_deployed_contract() {
        let account = Address::repeat_byte(1);
        let transfer = TokenEvent::Transfer { from: account, to: account, value: Amount::new(5) };
        let (topics, data) = transfer.encode();
        assert_eq!(topics[0], b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"));
        assert_eq!(topics[1], account.into_word());
        assert_eq!(data[31], 5);
        let used = TokenEvent::AuthorizationUsed { authorizer: account, nonce: B256::ZERO };
        assert_eq!(
            used.encode().0[0],
            b256!("98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5")
        );
        let cancelled = TokenEvent::AuthorizationCanceled { authorizer: account, nonce: B256::ZERO };
        assert_eq!(
            cancelled.encode().0[0],
            b256!("1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81")
        );
    }

    #[test]
    fn events_round_trip_and_others_are_none() {
        let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let nonce = B256::repeat_byte(3);
        for event in [
            TokenEvent::Transfer { from: a, to: b, value: Amount::new(u128::MAX) },
            TokenEvent::AuthorizationUsed { authorizer: a, nonce },
            TokenEvent::AuthorizationCanceled { authorizer: a, nonce },
        ] {
            let (topics, data) = event.encode();
            assert_eq!(TokenEvent::decode(&topics, &data), Some(event));
            assert_eq!(TokenEvent::decode(&topics[..2], &data), None);
        }
        let (topics, _) = TokenEvent::Transfer { from: a, to: b, value: Amount::new(1) }.encode();
        assert_eq!(TokenEvent::decode(&topics, &[0xff; 32]), None, "more than 128 bits");
        assert_eq!(TokenEvent::decode(&topics, &[]), None);
        assert_eq!(TokenEvent::decode(&[], &[]), None);
    }

    #[test]
    fn an_answer_without_a_contract_is_none() {
        assert_eq!(decode_bool(&encode_bool(true)), Some(true));
        assert_eq!(decode_bool(&[]), None);
        assert_eq!(decode_bool(&[0xff; 32]), None);
        assert_eq!(decode_string(&encode_string("USD₮0")).as_deref(), Some("USD₮0"));
        assert_eq!(decode_string(&[]), None);
        assert_eq!(decode_separator(&[7; 32]), Some(B256::repeat_byte(7)));
        assert_eq!(decode_separator(&[]), None);
    }

    #[test]
    fn reads_round_trip_and_have_the_known_selectors() {
        let account = Address::repeat_byte(9);
        let reads = [
            (TokenRead::BalanceOf(account), hex!("70a08231")),
            (TokenRead::AuthorizationState(account, B256::repeat_byte(3)), hex!("e94a0102")),
            (TokenRead::Name, hex!("06fdde03")),
            (TokenRead::Version, hex!("54fd4d50")),
            (TokenRead::Decimals, hex!("313ce567")),
            (TokenRead::DomainSeparator, hex!("3644e515")),
        ];
        for (read, selector) in reads {
            let input = read.encode();
            assert_eq!(input[..4], selector, "{read:?}");
            assert_eq!(TokenRead::decode(&input), Some(read));
        }
        assert_eq!(TokenRead::decode(&hex!("70a08231")), None);
        assert_eq!(TokenRead::decode(&[]), None);
    }
}
