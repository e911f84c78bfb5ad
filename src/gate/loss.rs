//! When an old price is too cheap to honour. Pure.

use std::cmp::Ordering;

use crate::quote_cache::Dollars;

/// Whether work sold at `price` that costs `cost` now would lose more than `limit`. If so nothing is done for the payment, and its
/// client gets a fresh quote. Sums too large to subtract count as a loss.
pub fn withdrawn(price: Dollars, cost: Dollars, limit: Dollars) -> bool {
    let decimals = price.decimals.max(cost.decimals).max(limit.decimals);
    let scaled = (price.ceil(decimals), cost.ceil(decimals), limit.ceil(decimals));
    let (Some(price), Some(cost), Some(limit)) = scaled else {
        return cost.compare(price) == Ordering::Greater;
    };
    cost.checked_sub(price).is_some_and(|loss| loss > limit)
}

/// Whether work sold at `price` that costs `cost` leaves less than `floor`. Sums too large to subtract leave nothing.
pub fn leaves_too_little(price: Dollars, cost: Dollars, floor: Dollars) -> bool {
    let decimals = price.decimals.max(cost.decimals).max(floor.decimals);
    let scaled = (price.ceil(decimals), cost.ceil(decimals), floor.ceil(decimals));
    let (Some(price), Some(cost), Some(floor)) = scaled else { return true };
    price.checked_sub(cost).is_none_or(|left| left < floor)
}

/// The most that work sold at `price` may cost, to leave `floor` of it, or nothing at all.
pub fn at_most(price: Dollars, floor: Option<Dollars>) -> Dollars {
    let Some(floor) = floor else { return price };
    let decimals = price.decimals.max(floor.decimals);
    let left =
        price.ceil(decimals).zip(floor.ceil(decimals)).and_then(|(price, floor)| price.checked_sub(floor));
    Dollars { units: left.unwrap_or_default(), decimals }
}

/// What is lost on work sold at `price` that costs `cost`, in millionths of a dollar, rounded up.
pub fn loss(price: Dollars, cost: Dollars) -> u64 {
    let decimals = price.decimals.max(cost.decimals);
    match (price.ceil(decimals), cost.ceil(decimals)) {
        (Some(price), Some(cost)) => match cost.checked_sub(price) {
            Some(loss) => loss.micros(decimals).unwrap_or(u64::MAX),
            None => 0,
        },
        _ if cost.compare(price) == Ordering::Greater => u64::MAX,
        _ => 0,
    }
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

    #[test]
    fn what_is_left_is_held_against_the_floor() {
        assert!(!leaves_too_little(usd(336, 6), usd(280, 6), usd(56, 6)));
        assert!(leaves_too_little(usd(336, 6), usd(281, 6), usd(56, 6)));
        assert!(!leaves_too_little(usd(280, 6), usd(280, 6), usd(0, 6)));
        assert!(leaves_too_little(usd(279, 6), usd(280, 6), usd(0, 6)));
        assert!(leaves_too_little(usd(336, 6), usd(280_000_000_000_001, 18), usd(56, 6)));
        assert!(leaves_too_little(usd(u128::MAX, 6), usd(1, 18), usd(0, 6)));
    }

    #[test]
    fn what_it_may_cost_leaves_the_floor() {
        assert_eq!(at_most(usd(336, 6), None), usd(336, 6));
        assert_eq!(at_most(usd(336, 6), Some(usd(56, 6))), usd(280, 6));
        assert_eq!(at_most(usd(336, 6), Some(usd(1, 18))), usd(335_999_999_999_999, 18));
        assert_eq!(at_most(usd(336, 6), Some(usd(337, 6))), usd(0, 6));
        for cost in 279..=281 {
            let fits = usd(cost, 6).compare(at_most(usd(336, 6), Some(usd(56, 6)))).is_le();
            assert_eq!(fits, !leaves_too_little(usd(336, 6), usd(cost, 6), usd(56, 6)));
        }
    }

    #[test]
    fn a_loss_is_never_counted_too_small() {
        assert_eq!(loss(usd(336, 6), usd(280, 6)), 0);
        assert_eq!(loss(usd(280, 6), usd(336, 6)), 56);
        assert_eq!(loss(usd(280, 6), usd(280_000_000_000_001, 18)), 1);
        assert_eq!(loss(usd(1, 18), usd(u128::MAX, 6)), u64::MAX);
        assert_eq!(loss(usd(u128::MAX, 6), usd(1, 18)), 0);
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
