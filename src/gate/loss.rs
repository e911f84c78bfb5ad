//! When an old price is too cheap to honour. Pure.

use std::cmp::Ordering;

use crate::quote_cache::Dollars;

/// Whether work sold at `price` that costs `cost` now would lose more than `limit`. If so the request is refused
/// before its payment is claimed, with a fresh quote. Sums too large to subtract count as a loss.
pub fn withdrawn(price: Dollars, cost: Dollars, limit: Dollars) -> bool {
    let decimals = price.decimals.max(cost.decimals).max(limit.decimals);
    let scaled = (price.ceil(decimals), cost.ceil(decimals), limit.ceil(decimals));
    let (Some(price), Some(cost), Some(limit)) = scaled else {
        return cost.compare(price) == Ordering::Greater;
    };
    cost.checked_sub(price).is_some_and(|loss| loss > limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Amount;
    use proptest::prelude::*;

    fn usd(units: u128, decimals: u8) -> Dollars {
        Dollars { units: Amount::new(units), decimals }
    }

    #[test]
    fn a_loss_up_to_the_limit_is_borne() {
        assert!(!withdrawn(usd(336, 6), usd(280, 6), usd(0, 6)));
        assert!(!withdrawn(usd(336, 6), usd(436, 6), usd(100, 6)));
        assert!(withdrawn(usd(336, 6), usd(437, 6), usd(100, 6)));
        assert!(withdrawn(usd(336, 6), usd(337_000_000_000_001, 18), usd(1, 6)));
        assert!(withdrawn(usd(1, 6), usd(u128::MAX, 6), usd(1, 18)));
        assert!(!withdrawn(usd(u128::MAX, 6), usd(1, 18), usd(0, 6)));
    }

    proptest! {
        #[test]
        fn never_withdrawn_while_the_price_covers_the_cost(
            cost: u64, margin: u64, limit: u64, a in 0u8..=18, b in 0u8..=18,
        ) {
            let price = usd(u128::from(cost) + u128::from(margin), a);
            prop_assert!(!withdrawn(price, usd(u128::from(cost), a), usd(u128::from(limit), b)));
        }
    }
}
