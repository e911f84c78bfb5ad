//! A limit on what is out at one time for all clients, and one for each of them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Refused;
use super::level::{Level, Out};
use crate::clock::{Clock, UnixMillis};
use crate::jobs::ValueStore;
use crate::x402::Address;

/// The room that a process draws beyond its need is this part of a limit. What one that is killed had drawn counts for minutes more:
/// gateways that die often must not use the limit up by dying.
const PARTS: u64 = 64;

pub(super) struct Levels {
    store: Arc<dyn ValueStore>,
    clock: Clock,
    /// Its key in the store; that of one client has the address behind it.
    key: &'static str,
    /// This process's name.
    name: String,
    all: Arc<Level>,
    /// What is allowed of one client.
    each: u64,
    payers: Mutex<HashMap<Address, Arc<Level>>>,
}

/// Of all clients, and of one. Both are back when this is dropped.
pub(super) type Outs = (Out, Out);

/// Which limit refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    All,
    One,
}

impl Levels {
    pub(super) fn new(
        store: &Arc<dyn ValueStore>,
        clock: &Clock,
        (key, name): (&'static str, &str),
        all: u64,
        each: u64,
    ) -> Levels {
        let names = (key.to_owned(), name.to_owned());
        Levels {
            store: Arc::clone(store),
            clock: clock.clone(),
            key,
            name: name.to_owned(),
            all: Level::new(Arc::clone(store), clock.clone(), names, all, PARTS),
            each,
            payers: Mutex::default(),
        }
    }

    /// Whether there was found to be less left than this for all.
    pub(super) fn lacks(&self, amount: u64) -> bool {
        self.all.lacks(amount)
    }

    /// Takes `amount`, which is out until `until` if this process dies. Nothing is taken where one of the two refuses.
    pub(super) async fn take(
        &self,
        payer: Address,
        amount: u64,
        until: UnixMillis,
    ) -> Result<Outs, (Of, Refused)> {
        let all = self.all.take(amount, until).await.map_err(|refused| (Of::All, refused))?;
        let one = self.payer(payer).take(amount, until).await;
        Ok((all, one.map_err(|refused| (Of::One, refused))?))
    }

    /// This much is out, whatever the limits say.
    pub(super) fn adopt(&self, payer: Address, amount: u64) -> Outs {
        (self.all.adopt(amount), self.payer(payer).adopt(amount))
    }

    /// Gives back what is not used, and forgets clients who have nothing out.
    pub(super) async fn tend(&self) {
        self.all.tend().await;
        let payers: Vec<_> =
            self.payers.lock().iter().map(|(payer, level)| (*payer, Arc::clone(level))).collect();
        for (payer, level) in payers {
            if !level.tend().await {
                // Ours and the map's: whoever has it in hand may be about to take of it.
                self.payers.lock().retain(|other, level| *other != payer || Arc::strong_count(level) > 2);
            }
        }
    }

    /// How many clients are kept in mind.
    #[cfg(test)]
    pub(super) fn payers(&self) -> usize {
        self.payers.lock().len()
    }

    fn payer(&self, payer: Address) -> Arc<Level> {
        let made = || {
            let names = (format!("{}/{payer:#x}", self.key), self.name.clone());
            Level::new(Arc::clone(&self.store), self.clock.clone(), names, self.each, PARTS)
        };
        Arc::clone(self.payers.lock().entry(payer).or_insert_with(made))
    }
}
