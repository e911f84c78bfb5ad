//! Time, injected: everything that reads the clock is handed one, so tests set it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

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

/// Waits for `time`, and once or twice more for as long if the process stood still meanwhile; `None`: it was not enough. Whoever
/// stood still finds a time-out over when he goes on, with what he waited for there and not looked at yet.
pub async fn while_running<T>(time: Duration, awaited: impl Future<Output = T>) -> Option<T> {
    const WAITS: u32 = 3;
    let mut awaited = pin!(awaited);
    for _ in 0..WAITS {
        let began = Instant::now();
        // One timer, as late as may be: to arm one that is the next to fire costs a call of the system's.
        if let Ok(outcome) = tokio::time::timeout(time, &mut awaited).await {
            return Some(outcome);
        }
        let late = began.elapsed().saturating_sub(time);
        if late < time / 10 {
            return None;
        }
    }
    None
}

/// A time as RFC 3339 writes it, in UTC with milliseconds: `2025-10-28T12:00:00.000Z`.
pub fn rfc3339(millis: UnixMillis) -> String {
    const DAY: u64 = 86_400_000;
    let (days, rest) = (millis / DAY, millis % DAY);
    // Howard Hinnant's civil-from-days: years begin in March, so that the leap day is their last,
    // and eras of 400 years have 146,097 days each.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1_000)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::{advance, sleep};

    use super::*;

    const TIME: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_came_while_the_process_stood_still_is_looked_at() {
        let (answer, awaited) = oneshot::channel();
        let waiting = tokio::spawn(while_running(TIME, awaited));
        sleep(TIME / 20).await;
        advance(TIME * 60).await;
        // Whoever brings the answer gets his turn after the one who waits for it.
        sleep(TIME / 20).await;
        answer.send(1).unwrap();
        assert_eq!(waiting.await.unwrap(), Some(Ok(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_longer() {
        let began = Instant::now();
        assert_eq!(while_running(TIME, std::future::pending::<()>()).await, None);
        let took = began.elapsed();
        assert!(took >= TIME && took < TIME + Duration::from_millis(50), "{took:?}");
    }

    #[test]
    fn manual_clock_is_shared_by_its_clones() {
        let clock = Clock::manual(5_999);
        let other = clock.clone();
        assert_eq!(other.now(), 5);
        clock.advance(1);
        assert_eq!(other.now(), 6);
    }

    #[test]
    fn times_are_written_as_rfc_3339_writes_them() {
        // The numbers are those of `date -u -d @...`.
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_868_799_001, "2000-02-29T23:59:59.001Z"),
            (1_761_652_800_000, "2025-10-28T12:00:00.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(millis), text);
        }
    }
}
