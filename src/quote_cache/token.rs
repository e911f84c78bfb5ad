//! The signed quote: `extra.quoteId` of a v2 requirement. It carries what was sold, so every replica honours
//! it, after a restart too, without a store; and its MAC covers all that it must not be used for otherwise.
//!
//! A token is base64url of two parts. The first is the same for every challenge made from a quote: the terms.
//! The second is new in each challenge: key generation, job id, expiry and MAC, 60 bytes, so 80 characters.
//! Bound by the MAC but not carried, since the payment must bring them: method, path, options, kind, and every
//! money field of the requirement. Pure.

use base64_simd::URL_SAFE_NO_PAD;
use http::Method;
use ring::digest;

use super::key::{QuoteKey, Work};
use super::keyring::Keys;
use super::price::Dollars;
use super::quote::Terms;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::ids::JobId;
use crate::intake::Kind;
use crate::money::Amount;
use crate::x402::{Address, Network, PaymentFlow};

/// First byte of a token; another number is another layout.
const FORMAT: u8 = 1;

/// Keeps these MACs apart from anything else that is ever signed with the same keys.
const LABEL: &[u8] = b"galaksio quote\0";

/// Bytes of the second part: generation 4, job 16, expiry 8, MAC 32.
const FRESH: usize = SIGNED + 32;
const SIGNED: usize = 28;

/// Characters of the second part.
pub(super) const FRESH_TEXT: usize = FRESH / 3 * 4;

/// The longest token that is looked at, in characters.
const MAX_TEXT: usize = 1024;

/// What a requirement says about money, all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    /// The network.
    pub network: Network,
    /// The token contract.
    pub asset: Address,
    /// Who is paid.
    pub pay_to: Address,
    /// How much.
    pub amount: Amount,
    /// `maxTimeoutSeconds`.
    pub max_timeout_seconds: u64,
    /// When it is settled.
    pub flow: PaymentFlow,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its canonical path, without the query.
    pub path: &'a str,
}

/// What one entry of a quote stands for: SHA-256 over the terms, the options and the money fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statement([u8; 32]);

/// A token whose MAC holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What was sold.
    pub terms: Terms,
    /// The id the job is to have.
    pub job: JobId,
    /// Until when the quote is honoured, grace not included.
    pub expires: UnixSeconds,
}

/// Why a text is no token of ours, for this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a quote made for this request and these payment terms")]
pub struct NotOurs;

/// The first part, in binary: a multiple of three bytes. `None` if a name is longer than 255 bytes.
pub(super) fn carried(terms: &Terms) -> Option<Vec<u8>> {
    let mut out = vec![FORMAT];
    out.extend(terms.bound.to_be_bytes());
    out.extend(terms.cost.units.units().to_be_bytes());
    out.push(terms.cost.decimals);
    for name in [&terms.provider, &terms.operation] {
        out.push(u8::try_from(name.len()).ok()?);
        out.extend(name.as_bytes());
    }
    out.resize(out.len().next_multiple_of(3), 0);
    Some(out)
}

/// The first part, as text.
pub(super) fn carried_text(carried: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode_to_string(carried)
}

impl Statement {
    /// The statement of terms (as [`carried`]) sold for these options and this money.
    pub(super) fn new(carried: &[u8], key: Option<&QuoteKey<'_>>, money: &Money) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(carried);
        // The bucket is among the terms: a request may be of another bucket that the sold one holds.
        match key.map(|key| (&key.work, key.kind)) {
            None => field(b"app"),
            Some((Work::Store { permanent, ttl }, kind)) => {
                field(b"store");
                field(&[u8::from(*permanent), u8::from(*ttl), kind_byte(kind)]);
                if let Some(files) = key.map(|key| key.files).filter(|files| *files > 1) {
                    field(b"files");
                    field(&files.to_be_bytes());
                }
            }
            Some((Work::Run { language }, kind)) => {
                field(b"run");
                field(language.as_bytes());
                field(&[kind_byte(kind)]);
            }
        }
        field(&money.network.0.to_be_bytes());
        field(money.asset.as_slice());
        field(money.pay_to.as_slice());
        field(&money.amount.units().to_be_bytes());
        field(&money.max_timeout_seconds.to_be_bytes());
        field(match money.flow {
            PaymentFlow::Authorization => b"authorization",
            PaymentFlow::Upfront => b"upfront",
        });
        let mut out = [0; 32];
        out.copy_from_slice(hash.finish().as_ref());
        Statement(out)
    }
}

/// The second part of a token, as text.
pub(super) fn fresh(
    keys: &Keys,
    statement: &Statement,
    target: Target<'_>,
    job: JobId,
    expires: UnixSeconds,
    now: UnixMillis,
) -> [u8; FRESH_TEXT] {
    let generation = keys.signing(now);
    let mut bytes = [0; FRESH];
    bytes[..4].copy_from_slice(&generation.id.to_be_bytes());
    bytes[4..20].copy_from_slice(job.as_bytes());
    bytes[20..SIGNED].copy_from_slice(&expires.to_be_bytes());
    let mut mac = ring::hmac::Context::with_key(&generation.key);
    let (signed, tag) = bytes.split_at_mut(SIGNED);
    message(signed, statement, target, |piece| mac.update(piece));
    tag.copy_from_slice(mac.sign().as_ref());
    let mut text = [0; FRESH_TEXT];
    let _ = URL_SAFE_NO_PAD.encode(&bytes, base64_simd::Out::from_slice(&mut text));
    text
}

impl Token {
    /// Reads a token and checks its MAC against what the payment and its request say. Constant time in the MAC.
    /// Whether it has expired, or its bucket holds the request, is for the caller to say.
    pub fn verify(
        text: &str,
        keys: &Keys,
        key: Option<&QuoteKey<'_>>,
        money: &Money,
        target: Target<'_>,
        now: UnixMillis,
    ) -> Result<Token, NotOurs> {
        if text.len() > MAX_TEXT {
            return Err(NotOurs);
        }
        let bytes = URL_SAFE_NO_PAD.decode_to_vec(text).map_err(|_| NotOurs)?;
        let at = bytes.len().checked_sub(FRESH).ok_or(NotOurs)?;
        let (carried, fresh) = bytes.split_at(at);
        let (signed, tag) = fresh.split_at(SIGNED);
        let generation = u32::from_be_bytes(array(signed, 0)?);
        let generation = keys.accepted(generation, now).ok_or(NotOurs)?;
        let mut data = Vec::with_capacity(256);
        message(signed, &Statement::new(carried, key, money), target, |piece| data.extend_from_slice(piece));
        ring::hmac::verify(&generation.key, &data, tag).map_err(|_| NotOurs)?;
        Ok(Token {
            terms: read_terms(carried)?,
            job: JobId::from_bytes(array(signed, 4)?),
            expires: u64::from_be_bytes(array(signed, 20)?),
        })
    }
}

/// What the MAC is over. Every part has a fixed length but the last, so no two messages read alike.
fn message(signed: &[u8], statement: &Statement, target: Target<'_>, mut piece: impl FnMut(&[u8])) {
    let method = target.method.as_str().as_bytes();
    // A method is a token, so it holds no space.
    let parts = [LABEL, &statement.0, signed, method, b" ", target.path.as_bytes()];
    // In one piece, mostly: a piece costs the MAC as much as many bytes do.
    let mut joined = [0; 192];
    let mut length = 0;
    for part in parts {
        match joined.get_mut(length..length + part.len()) {
            Some(room) => {
                room.copy_from_slice(part);
                length += part.len();
            }
            None => {
                piece(&joined[..length]);
                piece(part);
                length = 0;
            }
        }
    }
    piece(&joined[..length]);
}

/// Only after the MAC: what is read here was written by [`carried`].
fn read_terms(carried: &[u8]) -> Result<Terms, NotOurs> {
    if carried.first() != Some(&FORMAT) {
        return Err(NotOurs);
    }
    let bound = u64::from_be_bytes(array(carried, 1)?);
    let units = Amount::new(u128::from_be_bytes(array(carried, 9)?));
    let [decimals] = array(carried, 25)?;
    let mut rest = carried.get(26..).ok_or(NotOurs)?;
    let mut name = || {
        let (length, after) = rest.split_first().ok_or(NotOurs)?;
        let (name, after) = after.split_at_checked(usize::from(*length)).ok_or(NotOurs)?;
        rest = after;
        std::str::from_utf8(name).map(str::to_owned).map_err(|_| NotOurs)
    };
    let (provider, operation) = (name()?, name()?);
    Ok(Terms { provider, operation, cost: Dollars { units, decimals }, bound })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], NotOurs> {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).ok_or(NotOurs)
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Json => 0,
        Kind::File => 1,
        Kind::Code => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixMillis = 1_800_000_000_000;

    fn terms() -> Terms {
        Terms {
            provider: "xcache".to_owned(),
            operation: "set".to_owned(),
            cost: Dollars { units: Amount::new(280), decimals: 6 },
            bound: 1_000_000,
        }
    }

    fn money() -> Money {
        testing::money(336)
    }

    fn target() -> Target<'static> {
        Target { method: &Method::POST, path: "/store" }
    }

    fn key() -> QuoteKey<'static> {
        let work = Work::Store { permanent: false, ttl: false };
        QuoteKey { work, kind: Kind::File, bucket: 1_000_000, files: 1 }
    }

    fn token(keys: &Keys, job: JobId) -> String {
        let carried = carried(&terms()).unwrap();
        let statement = Statement::new(&carried, Some(&key()), &money());
        let fresh = fresh(keys, &statement, target(), job, 1_800_000_300, NOW);
        carried_text(&carried) + std::str::from_utf8(&fresh).unwrap()
    }

    #[test]
    fn what_was_signed_is_read_back() {
        let keys = Keys::of([7; 32]);
        let job = JobId::new();
        let read = Token::verify(&token(&keys, job), &keys, Some(&key()), &money(), target(), NOW);
        assert_eq!(read, Ok(Token { terms: terms(), job, expires: 1_800_000_300 }));
    }

    #[test]
    fn it_buys_nothing_else() {
        let keys = Keys::of([7; 32]);
        let text = token(&keys, JobId::new());
        let refused = |key: Option<&QuoteKey<'_>>, money: &Money, target: Target<'_>| {
            assert_eq!(Token::verify(&text, &keys, key, money, target, NOW), Err(NotOurs));
        };
        let key = key();
        refused(None, &money(), target());
        for work in [
            Work::Store { permanent: true, ttl: false },
            Work::Store { permanent: false, ttl: true },
            Work::Run { language: "python".into() },
        ] {
            refused(Some(&QuoteKey { work, ..key.clone() }), &money(), target());
        }
        refused(Some(&QuoteKey { kind: Kind::Json, ..key.clone() }), &money(), target());
        refused(Some(&QuoteKey { files: 2, ..key.clone() }), &money(), target());
        let other = Address::repeat_byte(0x99);
        for money in [
            Money { network: Network(8453), ..money() },
            Money { asset: other, ..money() },
            Money { pay_to: other, ..money() },
            Money { amount: Amount::new(335), ..money() },
            Money { max_timeout_seconds: 301, ..money() },
            Money { flow: PaymentFlow::Upfront, ..money() },
        ] {
            refused(Some(&key), &money, target());
        }
        refused(Some(&key), &money(), Target { path: "/run", ..target() });
        refused(Some(&key), &money(), Target { method: &Method::PUT, ..target() });
        let strangers = Keys::of([8; 32]);
        let read = Token::verify(&text, &strangers, Some(&key), &money(), target(), NOW);
        assert_eq!(read, Err(NotOurs));
    }

    #[test]
    fn names_too_long_to_carry_are_refused_when_signing() {
        let operation = "x".repeat(256);
        assert_eq!(carried(&Terms { operation, ..terms() }), None);
    }

    proptest! {
        #[test]
        fn any_bit_flip_is_refused(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let keys = Keys::of([7; 32]);
            let mut bytes = token(&keys, JobId::new()).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let read = Token::verify(text, &keys, Some(&key()), &money(), target(), NOW);
                prop_assert_eq!(read, Err(NotOurs));
            }
        }

        #[test]
        fn no_text_panics(text in "[A-Za-z0-9_-]{0,300}") {
            let keys = Keys::of([7; 32]);
            let read = Token::verify(&text, &keys, None, &money(), target(), NOW);
            prop_assert_eq!(read, Err(NotOurs));
        }

        #[test]
        fn terms_round_trip(provider in ".{0,60}", operation in ".{0,60}", units: u128, bound: u64) {
            let cost = Dollars { units: Amount::new(units), decimals: 18 };
            let terms = Terms { provider, operation, cost, bound };
            let carried = carried(&terms).unwrap();
            prop_assert_eq!(carried.len() % 3, 0);
            prop_assert_eq!(read_terms(&carried), Ok(terms));
        }
    }
}
