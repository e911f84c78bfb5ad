//! Money: integers of an asset's atomic units, and nothing else.
//!
//! No float ever holds money here, and every operation is checked: an overflow is an error at the
//! place it would happen, never a wrapped number further on. EIP-3009 values are `uint256`; no
//! asset this gateway can sell for has a supply near 2^128, so a larger number is refused on parse.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A sum in atomic units (1 USDC = 1_000_000 of them). On the wire: a decimal string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(u128);

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Something other than `0-9`, or nothing at all. Atomic units have no sign, point or exponent.
    #[error("an amount is a whole number of atomic units, written in decimal digits only")]
    NotDigits,
    /// Larger than 2^128 - 1.
    #[error("the amount does not fit 128 bits")]
    TooLarge,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);

    /// `units` atomic units.
    pub const fn new(units: u128) -> Self {
        Amount(units)
    }

    /// The number of atomic units.
    pub const fn units(self) -> u128 {
        self.0
    }

    /// The sum, unless it overflows.
    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    /// This amount, so many times; `None` on overflow.
    pub fn checked_mul(self, times: u16) -> Option<Amount> {
        self.0.checked_mul(times.into()).map(Amount)
    }

    /// The difference, unless `other` is larger.
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    /// Millionths of a dollar, rounded up, of an asset with `decimals` places.
    pub fn micros(self, decimals: u8) -> Option<u64> {
        let units = match decimals.checked_sub(6) {
            Some(more) => self.0.div_ceil(10u128.checked_pow(u32::from(more))?),
            None => self.0.checked_mul(10u128.checked_pow(u32::from(6 - decimals))?)?,
        };
        u64::try_from(units).ok()
    }

    /// Parses a human price such as `0.01` or `$0.01` of an asset with `decimals` places. More
    /// places than the asset has are refused: rounding a price the operator typed is a lie.
    pub fn from_decimal(text: &str, decimals: u8) -> Option<Amount> {
        let text = text.strip_prefix('$').unwrap_or(text);
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let places = usize::from(decimals);
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > places {
            return None;
        }
        let whole: u128 = whole.parse().ok()?;
        let fraction: u128 = format!("{fraction:0<places$}").parse().unwrap_or(0);
        let scale = 10u128.checked_pow(u32::from(decimals))?;
        whole.checked_mul(scale)?.checked_add(fraction).map(Amount)
    }

    /// The human form, with no trailing zeros: `0.01`, `3`, `0`. Also a valid JSON number.
    pub fn to_decimal(self, decimals: u8) -> String {
        let Some(scale) = 10u128.checked_pow(u32::from(decimals)) else {
            return self.0.to_string();
        };
        let (whole, fraction) = (self.0 / scale, self.0 % scale);
        if fraction == 0 {
            return whole.to_string();
        }
        let digits = format!("{fraction:0>width$}", width = usize::from(decimals));
        format!("{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// What a client pays for something that costs us `cost`: cost, plus `markup_bps` hundredths of a
/// percent of it, plus `fee`; rounded up, so a fraction of an atomic unit is never a loss.
/// `None` on overflow.
pub fn client_price(cost: Amount, markup_bps: u32, fee: Amount) -> Option<Amount> {
    let factor = 10_000u128.checked_add(u128::from(markup_bps))?;
    let marked_up = cost.0.checked_mul(factor)?.div_ceil(10_000);
    Amount(marked_up).checked_add(fee)
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AmountError::NotDigits);
        }
        text.parse().map(Amount).map_err(|_| AmountError::TooLarge)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn price_rounds_up_and_never_below_cost() {
        let price = |c, bps, fee| client_price(Amount(c), bps, Amount(fee)).unwrap().units();
        assert_eq!(price(280, 2_000, 0), 336);
        assert_eq!(price(1, 1, 0), 2);
        assert_eq!(price(0, 2_000, 7), 7);
        assert_eq!(price(10_000, 0, 0), 10_000);
        assert_eq!(client_price(Amount(u128::MAX), 1, Amount::ZERO), None);
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(Amount::from_decimal("$0.01", 6), Some(Amount(10_000)));
        assert_eq!(Amount::from_decimal("3", 6), Some(Amount(3_000_000)));
        for bad in ["", ".5", "-1", "1e3", "0.0000001", "1,5", "$", "$$1", " 1"] {
            assert_eq!(Amount::from_decimal(bad, 6), None, "{bad:?}");
        }
        assert_eq!(Amount(10_010).to_decimal(6), "0.01001");
        assert_eq!(Amount(0).to_decimal(6), "0");
    }

    #[test]
    fn micros_are_rounded_up_and_never_wrap() {
        let micros = |units, decimals| Amount(units).micros(decimals);
        assert_eq!(micros(336, 6), Some(336));
        assert_eq!(micros(3, 2), Some(30_000));
        assert_eq!(micros(1, 18), Some(1));
        assert_eq!(micros(1_000_000_000_001, 18), Some(2));
        assert_eq!(micros(0, 18), Some(0));
        assert_eq!(micros(u128::from(u64::MAX), 6), Some(u64::MAX));
        assert_eq!(micros(u128::from(u64::MAX) + 1, 6), None);
        assert_eq!(micros(u128::MAX, 0), None);
    }

    #[test]
    fn only_plain_digits_parse() {
        for bad in ["", "+1", "-1", "1.0", "0x10", " 1", "1_0", "٣"] {
            assert_eq!(bad.parse::<Amount>(), Err(AmountError::NotDigits), "{bad:?}");
        }
        let too_large = "340282366920938463463374607431768211456";
        assert_eq!(too_large.parse::<Amount>(), Err(AmountError::TooLarge));
    }

    proptest! {
        #[test]
        fn decimal_form_round_trips(units in any::<u128>(), decimals in 0u8..=18) {
            let text = Amount(units).to_decimal(decimals);
            prop_assert_eq!(Amount::from_decimal(&text, decimals), Some(Amount(units)));
        }

        #[test]
        fn price_covers_cost(cost in 0u128..1 << 100, bps in 0u32..100_000, fee in 0u128..1 << 64) {
            let price = client_price(Amount(cost), bps, Amount(fee)).unwrap();
            prop_assert!(price.units() >= cost + fee);
            // Never more than one atomic unit above the exact fraction.
            prop_assert!((price.units() - fee) * 10_000 < cost * (10_000 + u128::from(bps)) + 10_000);
        }
    }
}
