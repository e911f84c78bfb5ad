//! Which of the gateways on one store has an answer: told by the store, for as long as that gateway says it is there.
//!
//! What the store does not know, or cannot say just now, is with nobody. What it says may be a minute old: as long as it says that somebody
//! has an answer nothing is owed for it, and nothing is recorded as handed out either.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use super::Key;
use crate::jobs::ValueStore;

/// The store's spaces: who has an answer, and which of those who have any are there.
const RESULTS: &str = "results";
const KEEPERS: &str = "keepers";
/// A gateway that has not said for so long that it is there is gone, or for four times as long as it takes to say it again.
const ALIVE: Duration = Duration::from_secs(60);
/// It says so at most this often.
const AGAIN: Duration = Duration::from_secs(15);
/// What is not there any more is forgotten after this.
const SOON: Duration = Duration::from_secs(1);
/// An answer does not wait longer than this for a store to take note of it.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) struct Whereabouts {
    store: Arc<dyn ValueStore>,
    retention: Duration,
    /// What this gateway is called, among those that keep answers. Another each time it starts.
    keeper: String,
    said: Mutex<Option<Instant>>,
}

impl Whereabouts {
    pub(super) fn new(store: Arc<dyn ValueStore>, retention: Duration) -> Self {
        Whereabouts { store, retention, keeper: Uuid::new_v4().to_string(), said: Mutex::default() }
    }

    /// This gateway has it.
    pub(super) async fn here(&self, key: Key) {
        let note = async {
            self.is_there(ALIVE / 4).await;
            self.put(RESULTS, &name(key), self.keeper.as_bytes(), self.retention).await;
        };
        let _ = tokio::time::timeout(PATIENCE, note).await;
    }

    /// This gateway has it no more.
    pub(super) async fn gone(&self, key: Key) {
        let _ = tokio::time::timeout(PATIENCE, self.put(RESULTS, &name(key), b"", SOON)).await;
    }

    /// This gateway is there, and says so `every` so often.
    pub(super) async fn is_there(&self, every: Duration) {
        {
            let mut said = self.said.lock();
            if said.is_some_and(|said| said.elapsed() < AGAIN) {
                return;
            }
            *said = Some(Instant::now());
        }
        self.put(KEEPERS, &self.keeper, b"1", ALIVE.max(every.saturating_mul(4))).await;
    }

    /// Whether another gateway has it, and is there.
    pub(super) async fn is_elsewhere(&self, key: Key) -> bool {
        let Ok(Some(keeper)) = self.store.get(RESULTS, &name(key)).await else { return false };
        let Ok(keeper) = String::from_utf8(keeper) else { return false };
        keeper != self.keeper
            && !keeper.is_empty()
            && matches!(self.store.get(KEEPERS, &keeper).await, Ok(Some(_)))
    }

    async fn put(&self, space: &str, key: &str, value: &[u8], ttl: Duration) {
        if let Err(away) = self.store.put(space, key, value, Some(ttl)).await {
            tracing::debug!(%away, "where an answer is was not noted");
        }
    }
}

fn name((job, attempt): Key) -> String {
    format!("{job}.{attempt}")
}
