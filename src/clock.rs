//! Time, injected: everything that reads the clock is handed one, so tests set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 UTC, as EIP-3009 and the x402 wire format count time.
pub type UnixSeconds = u64;

/// Milliseconds since 1970-01-01 UTC, for job records and leases.
pub type UnixMillis = u64;

/// Where "now" comes from. Cheap to clone; clones of a manual clock share its time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's wall clock.
    pub const fn system() -> Self {
        Clock(Source::System)
    }

    /// A clock that stands at `millis` until [`Clock::advance`] moves it.
    pub fn manual(millis: UnixMillis) -> Self {
        Clock(Source::Manual(Arc::new(AtomicU64::new(millis))))
    }

    /// Now, in milliseconds. A clock set before 1970 reads 0.
    pub fn now_millis(&self) -> UnixMillis {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            Source::Manual(millis) => millis.load(Ordering::SeqCst),
        }
    }

    /// Now, in whole seconds.
    pub fn now(&self) -> UnixSeconds {
        self.now_millis() / 1000
    }

    /// Moves a manual clock forward; does nothing to the system's.
    pub fn advance(&self, millis: u64) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(millis, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_is_shared_by_its_clones() {
        let clock = Clock::manual(5_999);
        let other = clock.clone();
        assert_eq!(other.now(), 5);
        clock.advance(1);
        assert_eq!(other.now(), 6);
    }
}
