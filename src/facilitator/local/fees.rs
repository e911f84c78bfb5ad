//! What a transaction offers for its gas (EIP-1559). Pure.

/// An offer, in wei for each unit of gas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fee {
    /// The most that is paid in all.
    pub(super) cap: u128,
    /// Of that, for the block's maker.
    pub(super) tip: u128,
}

impl Fee {
    /// The offer at this base fee: it may double before the transaction waits. `None` while the chain asks for more
    /// than `max`.
    pub(super) fn at(base: u128, tip: u128, max: u128) -> Option<Fee> {
        if base > max {
            return None;
        }
        let cap = base.saturating_mul(2).saturating_add(tip).min(max);
        Some(Fee { cap, tip: tip.min(cap) })
    }

    /// An offer that may take this one's place: nodes want a tenth more of both. `None` if that is over `max`.
    pub(super) fn raised(self, base: u128, tip: u128, max: u128) -> Option<Fee> {
        let more = |fee: u128| fee.saturating_add(fee / 8).saturating_add(1);
        let wanted = Fee::at(base, tip, max)?;
        let raised = Fee { cap: wanted.cap.max(more(self.cap)), tip: wanted.tip.max(more(self.tip)) };
        (raised.cap <= max).then_some(Fee { cap: raised.cap.max(raised.tip).min(max), ..raised })
    }

    /// Whether a block of this base fee takes it.
    pub(super) fn suffices(self, base: u128) -> bool {
        self.cap >= base
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_offer_follows_the_base_fee_up_to_the_maximum() {
        assert_eq!(Fee::at(100, 2, 1_000), Some(Fee { cap: 202, tip: 2 }));
        assert_eq!(Fee::at(700, 2, 1_000), Some(Fee { cap: 1_000, tip: 2 }));
        assert_eq!(Fee::at(1_000, 2_000, 1_000), Some(Fee { cap: 1_000, tip: 1_000 }));
        assert_eq!(Fee::at(1_001, 2, 1_000), None);
    }

    proptest! {
        #[test]
        fn a_raised_offer_replaces_and_never_passes_the_maximum(
            old_base in 0u128..1_000, old_tip in 0u128..100, base in 0u128..3_000, tip in 0u128..100, max in 1u128..3_000,
        ) {
            let Some(old) = Fee::at(old_base, old_tip, max) else { return Ok(()) };
            prop_assert!(old.cap <= max && old.tip <= old.cap && old.suffices(old_base));
            if let Some(new) = old.raised(base, tip, max) {
                prop_assert!(new.cap <= max && new.tip <= new.cap && new.suffices(base));
                prop_assert!(new.cap * 10 >= old.cap * 11 && new.tip * 10 >= old.tip * 11);
                prop_assert!(new.cap > old.cap && new.tip > old.tip);
            }
        }
    }
}
