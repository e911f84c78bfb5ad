//! Keeps quotes, keys and epochs current in the background, so that requests find them in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::cache::{QuoteCache, typical};
use super::key::QuoteKey;
use crate::clock::UnixMillis;

/// How often what is due is looked for.
const TICK: Duration = Duration::from_secs(1);

/// Every how many ticks keys and epochs are read from the store.
const STORE_TICKS: u64 = 10;

/// A key whose probes fail, or some of them come late, is left alone for 1, 2, 4 ... seconds, at most this long.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// What failed lately.
#[derive(Default)]
pub(super) struct Backoff(HashMap<QuoteKey<'static>, Failures>);

struct Failures {
    count: u32,
    next: UnixMillis,
}

impl QuoteCache {
    /// Asks for the usual prices at once, then keeps every quote in use fresh until `shutdown` turns true or its
    /// sender is gone.
    pub async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let work = async {
            let mut backoff = Backoff::default();
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for tick in 0u64.. {
                ticks.tick().await;
                if tick % STORE_TICKS == 0 {
                    self.read_store().await;
                }
                self.round(&mut backoff).await;
            }
        };
        tokio::select! {
            () = work => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }

    /// Refreshes all that is due, each key beside the others.
    pub(super) async fn round(&self, backoff: &mut Backoff) {
        let now = self.clock.now_millis();
        let due: Vec<_> = self.due(now).into_iter().filter(|key| backoff.allows(key, now)).collect();
        let mut running: FuturesUnordered<_> =
            due.iter().map(|key| async move { (key, self.refresh(key, now).await) }).collect();
        while let Some((key, outcome)) = running.next().await {
            match outcome {
                Ok(quote) if !quote.others_late => backoff.forget(key),
                // Whoever was late may be the cheapest: the first purchase of a stock, on a chain, takes longer than a client waits.
                Ok(_) => backoff.failed(key, self.clock.now_millis()),
                Err(error) => {
                    tracing::warn!(?key, %error, "no fresh quote");
                    backoff.failed(key, self.clock.now_millis());
                }
            }
        }
        backoff.forget_idle(now);
    }

    /// The usual keys, and those whose quote was shown since it was made: the ones without a quote, or with one
    /// that is about to expire, or was made without having heard all who sell it.
    fn due(&self, now: UnixMillis) -> Vec<QuoteKey<'static>> {
        let margin = u64::try_from(self.refresh_before.as_millis()).unwrap_or(u64::MAX);
        let usual = self.usual();
        let quotes = self.quotes();
        let fresh = |expires_at: UnixMillis| now < expires_at.saturating_sub(margin);
        let missing = usual.iter().filter(|key| !quotes.iter().any(|quote| quote.key.as_ref() == Some(key)));
        let ending =
            quotes.iter().filter(|quote| quote.others_late || !fresh(quote.expires_at)).filter_map(|quote| {
                let key = quote.key.as_ref()?;
                (quote.was_used() || usual.contains(key)).then_some(key)
            });
        ending.chain(missing).cloned().collect()
    }

    /// The keys that are always kept: what most clients ask for, of the smallest size, where it is sold.
    fn usual(&self) -> Vec<QuoteKey<'static>> {
        typical(self.buckets.first())
            .filter(|ask| self.prober.sellers(ask).is_ok())
            .filter_map(|ask| QuoteKey::of(&ask, &self.buckets).ok().map(QuoteKey::into_owned))
            .filter(|key| self.counters().iter().any(|counter| counter.work == key.work.brokered()))
            .collect()
    }

    async fn read_store(&self) {
        if let Err(error) = self.keyring.maintain().await {
            tracing::warn!(%error, "quote keys were not read");
        }
        if let Err(error) = self.epochs.reload().await {
            tracing::warn!(%error, "price epochs were not read");
        }
    }
}

impl Backoff {
    fn allows(&self, key: &QuoteKey<'static>, now: UnixMillis) -> bool {
        self.0.get(key).is_none_or(|failures| now >= failures.next)
    }

    fn forget(&mut self, key: &QuoteKey<'static>) {
        self.0.remove(key);
    }

    fn failed(&mut self, key: &QuoteKey<'static>, now: UnixMillis) {
        let failures = self.0.entry(key.clone()).or_insert(Failures { count: 0, next: 0 });
        let wait = Duration::from_secs(1 << failures.count.min(6)).min(MAX_BACKOFF);
        failures.count = failures.count.saturating_add(1);
        failures.next = now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    }

    /// Keys that nobody tried for long are not asked for any more.
    fn forget_idle(&mut self, now: UnixMillis) {
        let idle = u64::try_from(MAX_BACKOFF.as_millis()).unwrap_or(u64::MAX);
        self.0.retain(|_, failures| now < failures.next.saturating_add(idle));
    }
}

#[cfg(test)]
mod tests;
