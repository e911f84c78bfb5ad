//! Size buckets: a price is kept for a range of sizes, not for each size. Pure.

/// The upper ends of the buckets, ascending, in bytes. A bucket is known by its upper end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets(Box<[u64]>);

/// More bytes than the last bucket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("up to {limit} bytes are taken")]
pub struct TooLarge {
    /// The largest size taken.
    pub limit: u64,
}

impl Buckets {
    /// Buckets ending at `ends`, split where a provider's own limit lies inside one. Without the split a
    /// provider with a limit inside a bucket would sell nothing of it, since quotes are asked for at its end.
    pub fn new(ends: &[u64], limits: impl IntoIterator<Item = u64>) -> Self {
        let last = ends.iter().copied().max().unwrap_or(0);
        let limits = limits.into_iter().filter(|limit| (1..last).contains(limit));
        let mut ends: Vec<u64> = ends.iter().copied().chain(limits).collect();
        ends.sort_unstable();
        ends.dedup();
        Buckets(ends.into())
    }

    /// The upper end of the bucket that holds `size` bytes.
    pub fn end_for(&self, size: u64) -> Result<u64, TooLarge> {
        let at = self.0.partition_point(|end| *end < size);
        self.0.get(at).copied().ok_or(TooLarge { limit: self.limit() })
    }

    /// The upper end of the last bucket.
    pub fn limit(&self) -> u64 {
        self.0.last().copied().unwrap_or(0)
    }

    /// The upper end of the first bucket: the sizes most often asked for.
    pub fn first(&self) -> u64 {
        self.0.first().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ends_belong_to_their_own_bucket() {
        let buckets = Buckets::new(&[10, 100], []);
        assert_eq!(buckets.end_for(0), Ok(10));
        assert_eq!(buckets.end_for(10), Ok(10));
        assert_eq!(buckets.end_for(11), Ok(100));
        assert_eq!(buckets.end_for(101), Err(TooLarge { limit: 100 }));
        assert_eq!(Buckets::new(&[], [5]).end_for(1), Err(TooLarge { limit: 0 }));
    }

    #[test]
    fn a_providers_limit_splits_a_bucket_and_never_adds_one() {
        let buckets = Buckets::new(&[10, 100], [40, 100, 0, 5_000]);
        assert_eq!(buckets.end_for(11), Ok(40));
        assert_eq!(buckets.end_for(41), Ok(100));
        assert_eq!(buckets.limit(), 100);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_what_it_is_given(
            ends in proptest::collection::vec(1u64..1 << 40, 1..8),
            limits in proptest::collection::vec(0u64..1 << 41, 0..8),
            size in 0u64..1 << 41,
        ) {
            let buckets = Buckets::new(&ends, limits);
            match buckets.end_for(size) {
                Ok(end) => {
                    prop_assert!(end >= size);
                    prop_assert_eq!(buckets.end_for(end), Ok(end));
                }
                Err(error) => prop_assert!(size > error.limit),
            }
        }
    }
}
