//! From what a provider charges to what a client pays. Integers only, every rounding in our favour,
//! every overflow an error. Pure.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::resolved::{Accept, Pricing};
use crate::money::{self, Amount};
use crate::x402::{Address, Network, PaymentFlow};

/// A sum of some dollar token: atomic units, and how many decimal places of a dollar they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dollars {
    /// Atomic units.
    pub units: Amount,
    /// 6 for USDC.
    pub decimals: u8,
}

/// How a cost becomes prices, and how long they stand.
#[derive(Clone, Debug)]
pub struct Tariff {
    offers: Vec<(Accept, Amount)>,
    markup_bps: u32,
    quote_ttl: Duration,
    max_timeout: Duration,
}

/// A price in one of the tokens that clients may pay with.
#[derive(Clone, Debug)]
pub struct Price {
    /// The token, and who is paid.
    pub accept: Accept,
    /// How much of it.
    pub amount: Amount,
}

/// When clients of a route are charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charging {
    /// What the route says.
    pub flow: PaymentFlow,
    /// Before the work all the same, if the price is above this.
    pub upfront_above: Option<Dollars>,
}

impl Charging {
    /// Of brokered work; the limit is in millionths of a dollar.
    pub fn brokered(flow: PaymentFlow, upfront_above: Option<u64>) -> Self {
        let dollars = |micros: u64| Dollars { units: Amount::new(micros.into()), decimals: 6 };
        Charging { flow, upfront_above: upfront_above.map(dollars) }
    }

    /// When something of this price is charged: for a price always the same, so that version 1, which echoes nothing, is
    /// charged as it was told.
    pub fn of(&self, price: Dollars) -> PaymentFlow {
        match self.upfront_above {
            Some(limit) if price.compare(limit).is_gt() => PaymentFlow::Upfront,
            _ => self.flow,
        }
    }
}

impl From<PaymentFlow> for Charging {
    fn from(flow: PaymentFlow) -> Self {
        Charging { flow, upfront_above: None }
    }
}

impl Price {
    /// What it is worth.
    pub fn dollars(&self) -> Dollars {
        Dollars { units: self.amount, decimals: self.accept.asset.decimals }
    }
}

/// Why there is no price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// Not a decimal number of dollars, or of more places than a token has.
    #[error("{text:?} is not a sum of dollars with at most {decimals} decimal places")]
    Text {
        /// What was given.
        text: String,
        /// The places of the token it was to be counted in.
        decimals: u8,
    },
    /// Nothing is accepted, and work that nobody can pay for must not look free.
    #[error("no token is accepted, so nothing can be priced")]
    NoAccepts,
    /// Larger than any amount.
    #[error("the price does not fit 128 bits")]
    Overflow,
}

impl Dollars {
    /// The least number of units, each of `decimals` places, that is worth at least this sum.
    pub fn ceil(self, decimals: u8) -> Option<Amount> {
        if self.units == Amount::ZERO {
            return Some(Amount::ZERO);
        }
        let power = 10u128.checked_pow(u32::from(decimals.abs_diff(self.decimals)));
        if decimals >= self.decimals {
            self.units.units().checked_mul(power?).map(Amount::new)
        } else {
            // A divisor that does not fit is larger than any sum: what is left rounds up to one unit.
            Some(Amount::new(power.map_or(1, |power| self.units.units().div_ceil(power))))
        }
    }

    /// This sum, so many times.
    pub fn times(self, times: u16) -> Option<Dollars> {
        Some(Dollars { units: self.units.checked_mul(times)?, ..self })
    }

    /// Compares what the sums are worth, exactly, whatever their decimals.
    pub fn compare(self, other: Dollars) -> Ordering {
        let decimals = self.decimals.max(other.decimals);
        // Only the sum of fewer places is scaled, and what then does not fit is larger than what does.
        match (self.ceil(decimals), other.ceil(decimals)) {
            (Some(a), Some(b)) => a.cmp(&b),
            (None, _) => Ordering::Greater,
            (_, None) => Ordering::Less,
        }
    }
}

impl Tariff {
    /// The tariff of these settings. `max_timeout` is `maxTimeoutSeconds` of every requirement.
    pub fn new(accepts: &[Accept], pricing: &Pricing, max_timeout: Duration) -> Result<Self, PriceError> {
        if accepts.is_empty() {
            return Err(PriceError::NoAccepts);
        }
        let offer = |accept: &Accept| Ok((accept.clone(), parse(&pricing.fee, accept.asset.decimals)?));
        Ok(Tariff {
            offers: accepts.iter().map(offer).collect::<Result<_, _>>()?,
            markup_bps: pricing.markup_bps,
            quote_ttl: pricing.quote_ttl,
            max_timeout,
        })
    }

    /// What clients pay for something that costs us `cost`, in each token, best first.
    pub fn prices(&self, cost: Dollars) -> Result<Vec<Price>, PriceError> {
        let price = |(accept, fee): &(Accept, Amount)| {
            let amount = self.price(cost, accept.asset.decimals, *fee).ok_or(PriceError::Overflow)?;
            Ok(Price { accept: accept.clone(), amount })
        };
        self.offers.iter().map(price).collect()
    }

    /// A price that the operator named, in each token, best first.
    pub fn fixed(&self, dollars: &str) -> Result<Vec<Price>, PriceError> {
        let price = |(accept, _): &(Accept, Amount)| {
            Ok(Price { accept: accept.clone(), amount: parse(dollars, accept.asset.decimals)? })
        };
        self.offers.iter().map(price).collect()
    }

    /// The way to pay in this token.
    pub fn accept(&self, network: Network, asset: Address) -> Option<&Accept> {
        self.accepts().find(|accept| accept.asset.network == network && accept.asset.address == asset)
    }

    /// The way to pay by version 1 on this network: its payments do not name a token, so there is one.
    pub fn v1_accept(&self, network: Network) -> Option<&Accept> {
        network.legacy_name()?;
        self.accepts().find(|accept| accept.asset.network == network)
    }

    /// Whether anything is accepted on this network.
    pub fn knows(&self, network: Network) -> bool {
        self.accepts().any(|accept| accept.asset.network == network)
    }

    /// How long a challenge is honoured.
    pub fn quote_ttl(&self) -> Duration {
        self.quote_ttl
    }

    /// `maxTimeoutSeconds`.
    pub fn max_timeout_seconds(&self) -> u64 {
        self.max_timeout.as_secs()
    }

    fn accepts(&self) -> impl Iterator<Item = &Accept> {
        self.offers.iter().map(|(accept, _)| accept)
    }

    /// Scales before the markup or after it, whichever side has more places: so only one rounding counts, up.
    fn price(&self, cost: Dollars, decimals: u8, fee: Amount) -> Option<Amount> {
        if decimals >= cost.decimals {
            return money::client_price(cost.ceil(decimals)?, self.markup_bps, fee);
        }
        let marked_up = money::client_price(cost.units, self.markup_bps, Amount::ZERO)?;
        Dollars { units: marked_up, decimals: cost.decimals }.ceil(decimals)?.checked_add(fee)
    }
}

fn parse(dollars: &str, decimals: u8) -> Result<Amount, PriceError> {
    Amount::from_decimal(dollars, decimals)
        .ok_or_else(|| PriceError::Text { text: dollars.to_owned(), decimals })
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use proptest::prelude::*;

    fn tariff(decimals: u8, markup_bps: u32, fee: &str) -> Tariff {
        let mut accept = testing::accept();
        accept.asset.decimals = decimals;
        let pricing = Pricing { markup_bps, fee: fee.to_owned(), ..testing::pricing() };
        Tariff::new(&[accept], &pricing, Duration::from_secs(300)).unwrap()
    }

    fn usd(units: u128, decimals: u8) -> Dollars {
        Dollars { units: Amount::new(units), decimals }
    }

    #[test]
    fn above_a_price_clients_are_charged_before_the_work() {
        let usual = PaymentFlow::Authorization;
        let above = Charging::brokered(usual, Some(500_000));
        for (price, flow) in [
            (usd(500_000, 6), usual),
            (usd(500_001, 6), PaymentFlow::Upfront),
            (usd(500_000 * 10u128.pow(12), 18), usual),
            (usd(500_000 * 10u128.pow(12) + 1, 18), PaymentFlow::Upfront),
            (usd(u128::MAX, 0), PaymentFlow::Upfront),
            (usd(50, 2), usual),
        ] {
            assert_eq!(above.of(price), flow, "{price:?}");
            assert_eq!(Charging::brokered(usual, None).of(price), usual);
            assert_eq!(
                Charging::brokered(PaymentFlow::Upfront, Some(u64::MAX)).of(price),
                PaymentFlow::Upfront
            );
        }
    }

    #[test]
    fn scales_exactly_or_up() {
        assert_eq!(usd(280, 6).ceil(6), Some(Amount::new(280)));
        assert_eq!(usd(280, 6).ceil(18), Some(Amount::new(280_000_000_000_000)));
        assert_eq!(usd(1, 18).ceil(6), Some(Amount::new(1)));
        assert_eq!(usd(10u128.pow(12) + 1, 18).ceil(6), Some(Amount::new(2)));
        assert_eq!(usd(0, 200).ceil(0), Some(Amount::ZERO));
        assert_eq!(usd(1, 200).ceil(0), Some(Amount::new(1)));
        assert_eq!(usd(u128::MAX, 6).ceil(7), None);
        assert_eq!(usd(u128::MAX, 6).compare(usd(1, 18)), Ordering::Greater);
        assert_eq!(usd(1, 0).compare(usd(1_000_000, 6)), Ordering::Equal);
    }

    #[test]
    fn a_cost_in_a_finer_token_is_rounded_once() {
        // 1 unit of 18 places, doubled, is still a fraction of one unit of 6 places.
        let price = tariff(6, 10_000, "0").prices(usd(1, 18)).unwrap();
        assert_eq!(price[0].amount, Amount::new(1));
        // 20 % on 280 millionths is exact in 18 places.
        let price = tariff(18, 2_000, "0.001").prices(usd(280, 6)).unwrap();
        assert_eq!(price[0].amount, Amount::new(1_336_000_000_000_000));
    }

    #[test]
    fn a_fee_or_price_of_too_many_places_is_refused() {
        let accept = testing::accept();
        let pricing = Pricing { fee: "0.0000001".to_owned(), ..testing::pricing() };
        let error = Tariff::new(&[accept], &pricing, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error, PriceError::Text { text: "0.0000001".to_owned(), decimals: 6 });
        assert!(tariff(6, 0, "0").fixed("-1").is_err());
        assert_eq!(tariff(6, 0, "0").fixed("0.25").unwrap()[0].amount, Amount::new(250_000));
    }

    proptest! {
        #[test]
        fn prices_cover_the_cost(
            cost in 0u128..1 << 50, from in 0u8..=18, to in 0u8..=18, bps in 0u32..50_000,
        ) {
            let cost = usd(cost, from);
            if let Ok(prices) = tariff(to, bps, "0").prices(cost) {
                let price = Dollars { units: prices[0].amount, decimals: to };
                prop_assert!(price.compare(cost) != Ordering::Less);
                // One unit less would not cover it with the markup.
                if let Some(less) = price.units.checked_sub(Amount::new(1)) {
                    let scale = |d: Dollars| d.ceil(18).unwrap().units();
                    let exact = scale(cost) * (10_000 + u128::from(bps));
                    let less = scale(Dollars { units: less, decimals: to });
                    prop_assert!(less * 10_000 < exact);
                }
            }
        }
    }
}
