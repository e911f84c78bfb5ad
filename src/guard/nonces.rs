//! The nonces that were signed, as the watch over the wallet's outlays wants them: in the store soon after they were
//! signed, many in one value, so that no sale waits for it. What a process that died had not written is in the journals.

use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::jobs::{StoreError, ValueStore};
use crate::x402::B256;

/// The store's space: nonces that were signed, 32 bytes each, some in a value.
const SIGNED: &str = "wallet.signed";
/// A payment is on the chain and final by then. What comes later is looked for in the journals.
const KEPT: Duration = Duration::from_secs(3600);

/// What this process signed and has not written yet; `None` where nobody wants to know.
#[derive(Default)]
pub(super) struct Nonces(Mutex<Option<Vec<B256>>>);

impl Nonces {
    /// Somebody wants to know from now on.
    pub(super) fn keep(&self) {
        self.0.lock().get_or_insert_default();
    }

    pub(super) fn signed(&self, nonce: B256) {
        if let Some(waiting) = &mut *self.0.lock() {
            waiting.push(nonce);
        }
    }

    /// Writes what waits. What could not be written waits on.
    pub(super) async fn write(&self, store: &dyn ValueStore) -> Result<(), StoreError> {
        let Some(waiting) = self.0.lock().as_mut().map(std::mem::take).filter(|all| !all.is_empty()) else {
            return Ok(());
        };
        let written = note(store, &waiting).await;
        if written.is_err()
            && let Some(since) = &mut *self.0.lock()
        {
            since.extend(waiting);
        }
        written
    }
}

/// Writes nonces that are signed, or about to be. For whoever signs with the wallet's key outside of a gateway.
pub async fn note(store: &dyn ValueStore, nonces: &[B256]) -> Result<(), StoreError> {
    store.put(SIGNED, &Uuid::new_v4().to_string(), &nonces.concat(), Some(KEPT)).await
}

/// All nonces that are written.
pub(super) async fn written(store: &dyn ValueStore) -> Result<Vec<B256>, StoreError> {
    let values = store.list(SIGNED).await?;
    Ok(values.iter().flat_map(|(_, value)| value.chunks_exact(32).map(B256::from_slice)).collect())
}
