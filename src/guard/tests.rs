//! The guards against replicas that crash, stores that lose answers, and clocks that run on.

mod balance;
mod cases;
mod limits;
mod outlays;
mod switch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::jobs::memory::MemoryStore;
use crate::jobs::{Draw, StoreError};
use crate::x402::B256;
use crate::x402::fixtures::usdc;

const NOW: UnixMillis = 1_700_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);

/// What becomes of a call of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Luck {
    /// Done, after others had so many turns before and after it.
    Good(u8, u8),
    /// Not done, and no answer.
    Lost,
    /// Done, and no answer.
    Unanswered,
}

/// A store that a test gives good and bad luck.
struct Moody {
    inner: Arc<MemoryStore>,
    luck: Mutex<VecDeque<Luck>>,
    away: AtomicBool,
}

impl Moody {
    fn new(clock: &Clock) -> Arc<Moody> {
        Arc::new(Moody { inner: MemoryStore::new(clock.clone()), luck: Mutex::default(), away: false.into() })
    }

    fn lost() -> StoreError {
        StoreError::Away("as told".to_owned())
    }
}

async fn turns(n: u8) {
    for _ in 0..n {
        tokio::task::yield_now().await;
    }
}

#[async_trait]
impl ValueStore for Moody {
    async fn put(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.inner.put(space, key, value, ttl).await
    }

    async fn put_new(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.put_new(space, key, value, ttl).await
    }

    async fn get(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Moody::lost());
        }
        self.inner.get(space, key).await
    }

    async fn list(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.inner.list(space).await
    }

    async fn add(&self, space: &str, key: &str, delta: i64) -> Result<i64, StoreError> {
        self.inner.add(space, key, delta).await
    }

    async fn draw(&self, space: &str, key: &str, slice: &str, draw: Draw) -> Result<Option<u64>, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Moody::lost());
        }
        let luck = self.luck.lock().pop_front().unwrap_or(Luck::Good(0, 0));
        if luck == Luck::Lost {
            return Err(Moody::lost());
        }
        let Luck::Good(before, after) = luck else {
            drop(self.inner.draw(space, key, slice, draw).await);
            return Err(Moody::lost());
        };
        turns(before).await;
        let drawn = self.inner.draw(space, key, slice, draw).await;
        turns(after).await;
        drawn
    }

    async fn drawn(&self, space: &str, key: &str) -> Result<u64, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Moody::lost());
        }
        self.inner.drawn(space, key).await
    }
}

fn limits() -> Limits {
    Limits {
        spend_per_hour: 1_000,
        provider_spend_per_hour: 600,
        exposure: 500,
        payer_exposure: 300,
        loss_per_hour: 100,
        quote_loss_per_hour: 50,
        profit_floor: None,
        unsettled: 1_000,
        payer_unsettled: 300,
        uncollected_per_hour: 100,
    }
}

/// A process's guards, which have looked once.
async fn guards(store: &Arc<Moody>, clock: &Clock) -> Arc<Guards> {
    let values: Arc<dyn ValueStore> = store.clone();
    let switch = Switch::Store(Arc::clone(&values));
    let guards = Guards::new(values, clock.clone(), Arc::new(Metrics::new()), &limits(), switch);
    guards.tend().await;
    guards
}

fn claim(number: u8) -> ClaimKey {
    ClaimKey::new(&usdc(), Address::repeat_byte(1), B256::repeat_byte(number))
}

/// A payment of `amount` to `provider` for this client.
async fn reserve(
    guards: &Arc<Guards>,
    provider: &str,
    payer: u8,
    amount: u128,
    until: Option<u64>,
) -> Result<Reserved, Reason> {
    let wish = Wish {
        provider,
        asset: &usdc(),
        amount: Amount::new(amount),
        payer: Address::repeat_byte(payer),
        until,
    };
    guards.reserve(wish).await.map_err(|problem| problem.reason)
}
