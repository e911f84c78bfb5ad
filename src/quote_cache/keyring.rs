//! The keys that quotes are signed with: made once, kept in the job store, shared by every replica.
//!
//! A generation signs for a day. Its successor is written a minute before it signs, so that every replica
//! knows it by then; the one before is accepted until the last quote it signed has lapsed.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::GRACE;
use crate::clock::{Clock, UnixMillis};
use crate::jobs::{StoreError, ValueStore};

/// The store's space for these keys.
const SPACE: &str = "quote-keys";

/// How long a generation signs.
const PERIOD: Duration = Duration::from_secs(24 * 3600);

/// How long before it signs a generation is written. Replicas read the store more often than this.
const NOTICE: Duration = Duration::from_secs(60);

/// One key.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) id: u32,
    active_from: UnixMillis,
    pub(super) key: hmac::Key,
}

/// The generations known now, oldest first. Never empty.
#[derive(Debug)]
pub struct Keys {
    first: Generation,
    later: Vec<Generation>,
    /// How long a quote stands, with grace: that long a generation is accepted after it stopped to sign.
    overlap: u64,
}

/// The keys, kept in step with the store.
pub(super) struct Keyring {
    keys: ArcSwap<Keys>,
    store: Arc<dyn ValueStore>,
    clock: Clock,
    quote_ttl: Duration,
}

/// A generation as the store keeps it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    #[serde(with = "hex::serde")]
    key: [u8; 32],
    active_from: UnixMillis,
}

impl Keys {
    /// A single generation, with this secret, valid for ever. For benchmarks and tests.
    pub fn of(secret: [u8; 32]) -> Self {
        let first = Generation { id: 1, active_from: 0, key: hmac::Key::new(hmac::HMAC_SHA256, &secret) };
        Keys { first, later: Vec::new(), overlap: 0 }
    }

    /// The newest generation whose time has come.
    pub(super) fn signing(&self, now: UnixMillis) -> &Generation {
        self.later.iter().rev().find(|generation| generation.active_from <= now).unwrap_or(&self.first)
    }

    /// The generation of this id, if what it signed can still be valid.
    pub(super) fn accepted(&self, id: u32, now: UnixMillis) -> Option<&Generation> {
        let mut known = std::iter::once(&self.first).chain(&self.later);
        let found = known.find(|generation| generation.id == id)?;
        let successor = known.next();
        successor.is_none_or(|next| now < next.active_from.saturating_add(self.overlap)).then_some(found)
    }

    fn newest(&self) -> &Generation {
        self.later.last().unwrap_or(&self.first)
    }
}

impl Keyring {
    /// Reads the keys, making the first one if there is none.
    pub(super) async fn open(
        store: Arc<dyn ValueStore>,
        clock: Clock,
        quote_ttl: Duration,
    ) -> Result<Self, StoreError> {
        let keys = match read(&*store, quote_ttl).await? {
            Some(keys) => keys,
            None => {
                add(&*store, 1, clock.now_millis(), quote_ttl).await?;
                let unreadable =
                    || StoreError::Unreadable("a quote key just written is not there".to_owned());
                read(&*store, quote_ttl).await?.ok_or_else(unreadable)?
            }
        };
        Ok(Keyring { keys: ArcSwap::from_pointee(keys), store, clock, quote_ttl })
    }

    /// The keys as they are now.
    pub(super) fn keys(&self) -> Guard<Arc<Keys>> {
        self.keys.load()
    }

    /// Takes over the generations that others wrote, and writes the next one when it is due. To be called
    /// a few times a minute. On an error the keys stay as they are.
    pub(super) async fn maintain(&self) -> Result<(), StoreError> {
        let (newest, active_from) = {
            let keys = self.keys.load();
            (keys.newest().id, keys.newest().active_from)
        };
        let now = self.clock.now_millis();
        if now.saturating_add(millis(NOTICE)) >= active_from.saturating_add(millis(PERIOD)) {
            let from = now.saturating_add(millis(NOTICE));
            add(&*self.store, newest.saturating_add(1), from, self.quote_ttl).await?;
        }
        if let Some(keys) = read(&*self.store, self.quote_ttl).await? {
            self.keys.store(Arc::new(keys));
        }
        Ok(())
    }
}

/// Writes a generation, unless another replica was first: then that one counts.
async fn add(
    store: &dyn ValueStore,
    id: u32,
    active_from: UnixMillis,
    quote_ttl: Duration,
) -> Result<(), StoreError> {
    let mut key = [0; 32];
    let no_randomness = |_| StoreError::Away("the system gives no random bytes for a quote key".to_owned());
    SystemRandom::new().fill(&mut key).map_err(no_randomness)?;
    let record = serde_json::to_vec(&Record { key, active_from })
        .map_err(|error| StoreError::Unreadable(error.to_string()))?;
    // Long enough to see its successor sign and its own last quote lapse, even if rotation is late by a day.
    let kept = NOTICE + PERIOD * 2 + quote_ttl + GRACE;
    store.put_new(SPACE, &id.to_string(), &record, Some(kept)).await.map(|_| ())
}

async fn read(store: &dyn ValueStore, quote_ttl: Duration) -> Result<Option<Keys>, StoreError> {
    let mut generations = Vec::new();
    for (name, value) in store.list(SPACE).await? {
        let unreadable = |why: String| StoreError::Unreadable(format!("quote key {name}: {why}"));
        let id = name.parse().map_err(|error: std::num::ParseIntError| unreadable(error.to_string()))?;
        // The error of the JSON reader names a position and an expectation, never the key.
        let record: Record = serde_json::from_slice(&value).map_err(|error| unreadable(error.to_string()))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &record.key);
        generations.push(Generation { id, active_from: record.active_from, key });
    }
    generations.sort_unstable_by_key(|generation| generation.id);
    let mut generations = generations.into_iter();
    let overlap = millis(quote_ttl + GRACE);
    Ok(generations.next().map(|first| Keys { first, later: generations.collect(), overlap }))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::testing::MemoryStore;
    use super::*;

    const TTL: Duration = Duration::from_secs(300);
    const DAY: u64 = 24 * 3_600_000;

    #[tokio::test]
    async fn replicas_share_the_first_key() {
        let clock = Clock::manual(5_000);
        let store = MemoryStore::new(clock.clone());
        let a = Keyring::open(store.clone(), clock.clone(), TTL).await.unwrap();
        let b = Keyring::open(store, clock, TTL).await.unwrap();
        let sign = |ring: &Keyring| hmac::sign(&ring.keys().signing(5_000).key, b"x").as_ref().to_vec();
        assert_eq!(sign(&a), sign(&b));
    }

    #[tokio::test]
    async fn a_successor_is_known_before_it_signs_and_the_old_key_until_its_quotes_lapse() {
        let clock = Clock::manual(5_000);
        let store = MemoryStore::new(clock.clone());
        let a = Keyring::open(store.clone(), clock.clone(), TTL).await.unwrap();
        let b = Keyring::open(store, clock.clone(), TTL).await.unwrap();
        clock.advance(DAY - 60_000);
        a.maintain().await.unwrap();
        b.maintain().await.unwrap();
        let now = clock.now_millis();
        let newest = |ring: &Keyring| (ring.keys().newest().id, ring.keys().newest().active_from);
        assert_eq!(newest(&a), (2, now + 60_000));
        assert_eq!(newest(&a), newest(&b));
        assert_eq!(a.keys().signing(now + 59_999).id, 1);
        assert_eq!(a.keys().signing(now + 60_000).id, 2);
        let last = now + 60_000 + 330_000;
        assert!(a.keys().accepted(1, last - 1).is_some());
        assert!(a.keys().accepted(1, last).is_none());
        assert!(a.keys().accepted(2, last + DAY).is_some());
        assert!(a.keys().accepted(3, now).is_none());
        // Nothing more is written until the next one is due.
        a.maintain().await.unwrap();
        assert_eq!(newest(&a).0, 2);
    }

    #[tokio::test]
    async fn a_store_that_is_away_stops_a_start_and_nothing_else() {
        let clock = Clock::manual(5_000);
        let store = MemoryStore::new(clock.clone());
        store.fail(true);
        assert!(Keyring::open(store.clone(), clock.clone(), TTL).await.is_err());
        store.fail(false);
        let ring = Keyring::open(store.clone(), clock.clone(), TTL).await.unwrap();
        store.fail(true);
        clock.advance(DAY);
        assert!(ring.maintain().await.is_err());
        assert_eq!(ring.keys().signing(clock.now_millis()).id, 1);
    }

    #[test]
    fn a_key_is_never_printed() {
        let printed = format!("{:?}", Keys::of([0xab; 32]));
        assert!(!printed.to_lowercase().contains("abab") && !printed.contains("171, 171"), "{printed}");
    }
}
