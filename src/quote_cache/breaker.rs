//! Who is left alone for a while because the work ordered of him failed, again and again.
//!
//! A price that is named proves little: a provider may name one and never deliver. So orders decide, not probes.
//! Three in a row that fail eject it, for ten seconds and twice as long each further time. After that it is tried
//! again: the first order that fails ejects it anew, the first that succeeds clears it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::UnixMillis;
use crate::providers::Fault;

/// Failures in a row that eject a provider nothing is held against.
const FAILURES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(320);

/// What is held against one provider.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Read by every look-up of a quote, so without a lock.
    ejected_until: AtomicU64,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    failures: u32,
    /// How often it was ejected since its last success.
    ejections: u32,
}

impl Breaker {
    /// Whether nothing is to be ordered of it now.
    pub(super) fn is_ejected(&self, now: UnixMillis) -> bool {
        now < self.ejected_until.load(Ordering::Relaxed)
    }

    /// An order succeeded. Whether it had been ejected before.
    pub(super) fn succeeded(&self) -> bool {
        let mut record = self.record.lock();
        let before = std::mem::take(&mut *record);
        self.ejected_until.store(0, Ordering::Relaxed);
        before.ejections > 0
    }

    /// An order failed. For how long it is ejected by that, if it is.
    pub(super) fn failed(&self, now: UnixMillis) -> Option<Duration> {
        let mut record = self.record.lock();
        record.failures = record.failures.saturating_add(1);
        // Those that were on their way when it was ejected prove nothing new.
        if self.is_ejected(now) || (record.ejections == 0 && record.failures < FAILURES) {
            return None;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << record.ejections.min(5)).min(LONGEST_PAUSE);
        record.ejections = record.ejections.saturating_add(1);
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.ejected_until.store(now.saturating_add(millis), Ordering::Relaxed);
        Some(pause)
    }
}

/// Whether a failed order says something about the provider, rather than about the order or about us.
pub(super) fn is_its_own(fault: Fault) -> bool {
    match fault {
        Fault::Unreachable | Fault::Timeout | Fault::Broken | Fault::Unpaid | Fault::Terms => true,
        Fault::Refused | Fault::Internal | Fault::Guarded(_) | Fault::Funds => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_eject_for_longer_and_longer() {
        let breaker = Breaker::default();
        let mut now = 1_000_000;
        assert_eq!((breaker.failed(now), breaker.failed(now)), (None, None));
        assert!(!breaker.succeeded() && breaker.failed(now).is_none() && breaker.failed(now).is_none());
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let pause = breaker.failed(now).unwrap();
            // What fails meanwhile was ordered before.
            assert_eq!(breaker.failed(now + 1), None);
            let millis = u64::try_from(pause.as_millis()).unwrap();
            assert!(breaker.is_ejected(now + millis - 1) && !breaker.is_ejected(now + millis));
            now += millis;
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 320]);
        assert!(breaker.succeeded() && !breaker.succeeded());
        assert!(breaker.failed(now).is_none() && !breaker.is_ejected(now));
    }
}
