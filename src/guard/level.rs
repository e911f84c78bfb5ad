//! A limit on what is out at one time, by all gateways on one store together.
//!
//! This process has one slice of it, as large as what it has out and some room. What is out comes back some day; it
//! counts at least until a time that is known when it goes out, and the slice lives at least as long. So what a
//! process that died had out still counts as long as it may be out.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;
use tracing::warn;

use super::{Lacking, Refused, SPACE, millis};
use crate::clock::{Clock, UnixMillis};
use crate::jobs::{Draw, ValueStore};

/// A slice lives this much longer than what is out needs it, so that what goes out next needs no other.
const SLACK: Duration = Duration::from_secs(300);
/// Room that nobody used for this long is given back.
pub(super) const IDLE: Duration = Duration::from_secs(30);

pub(super) struct Level {
    store: Arc<dyn ValueStore>,
    clock: Clock,
    key: String,
    /// The slice's name: that of this process.
    name: String,
    limit: u64,
    /// What is drawn beyond the need.
    room: u64,
    slice: Mutex<Slice>,
    /// One draws at a time.
    turn: Turn<()>,
    lacking: Lacking,
}

#[derive(Clone, Copy, Default)]
struct Slice {
    size: u64,
    out: u64,
    ends: UnixMillis,
    used: UnixMillis,
}

/// What is out. It is back when this is dropped.
pub(super) struct Out {
    level: Arc<Level>,
    amount: u64,
}

impl Level {
    /// `parts`: the room drawn beyond the need is this part of the limit.
    pub(super) fn new(
        store: Arc<dyn ValueStore>,
        clock: Clock,
        (key, name): (String, String),
        limit: u64,
        parts: u64,
    ) -> Arc<Level> {
        let (slice, turn) = (Mutex::default(), Turn::new(()));
        let room = limit / parts.max(1);
        Arc::new(Level { store, clock, key, name, limit, room, slice, turn, lacking: Lacking::default() })
    }

    /// Whether the last look found less left than this.
    pub(super) fn lacks(&self, amount: u64) -> bool {
        self.lacking.lacks(amount)
    }

    /// Takes `amount`, which is out until `until` if this process dies.
    pub(super) async fn take(self: &Arc<Self>, amount: u64, until: UnixMillis) -> Result<Out, Refused> {
        if let Some(out) = self.take_own(amount, until) {
            return Ok(out);
        }
        let level = Arc::clone(self);
        // In a task of its own: what is drawn for a caller that went away is ours all the same.
        let drawing = tokio::spawn(async move {
            let _turn = level.turn.lock().await;
            match level.take_own(amount, until) {
                Some(out) => Ok(out),
                None => level.draw(amount, until).await,
            }
        });
        drawing.await.unwrap_or_else(|stopped| Err(Refused::Away(stopped.to_string())))
    }

    /// Takes `amount` whatever the limit: it is out already.
    pub(super) fn adopt(self: &Arc<Self>, amount: u64) -> Out {
        let mut slice = self.slice.lock();
        slice.out = slice.out.saturating_add(amount);
        Out { level: Arc::clone(self), amount }
    }

    /// Gives back room that is not used, keeps what is still out from lapsing, and looks whether there is anything left
    /// by now of a limit that was reached. Whether this process has any part of the limit after it.
    pub(super) async fn tend(self: &Arc<Self>) -> bool {
        let Ok(_turn) = self.turn.try_lock() else { return true };
        let now = self.clock.now_millis();
        let lacking = self.lacking.get();
        let draw = {
            let mut slice = self.slice.lock();
            let idle = now.saturating_sub(slice.used) >= millis(IDLE) && lacking.is_none();
            let lapses = slice.ends < now.saturating_add(millis(SLACK) / 2);
            let wanted = match lacking {
                Some(lacking) => slice.out.saturating_add(self.room.max(lacking)).max(slice.size),
                None if idle => slice.out,
                None => slice.out.max(slice.size),
            };
            let needed = lacking.is_some()
                || (idle && slice.size > slice.out)
                || (slice.out > 0 && (slice.out > slice.size || lapses));
            // Room goes before it is given back: nobody may take of it meanwhile.
            slice.size = slice.size.min(wanted);
            let ends = slice.ends.max(now.saturating_add(millis(SLACK)));
            let draw = Draw { wanted, least: 0, limit: self.limit, ttl: left(now, ends) };
            needed.then_some((draw, ends))
        };
        if let Some((draw, ends)) = draw {
            match self.store.draw(SPACE, &self.key, &self.name, draw).await {
                Ok(granted) => {
                    let mut slice = self.slice.lock();
                    (slice.size, slice.ends) = (granted.unwrap_or(0), ends);
                    self.lacking.found(slice.size.saturating_sub(slice.out));
                }
                Err(away) => warn!(limit = self.key, %away, "a slice of a limit was not renewed"),
            }
        }
        let slice = self.slice.lock();
        slice.size > 0 || slice.out > 0 || self.lacking.get().is_some()
    }

    fn take_own(self: &Arc<Self>, amount: u64, until: UnixMillis) -> Option<Out> {
        let mut slice = self.slice.lock();
        let out = slice.out.checked_add(amount)?;
        let now = self.clock.now_millis();
        if out > slice.size || until > slice.ends || slice.ends <= now {
            return None;
        }
        (slice.out, slice.used) = (out, now);
        Some(Out { level: Arc::clone(self), amount })
    }

    async fn draw(self: &Arc<Self>, amount: u64, until: UnixMillis) -> Result<Out, Refused> {
        let began = self.clock.now_millis();
        // Out before it is drawn, so that others take no more of the room there is than leaves enough for this.
        let (out, draw, ends) = {
            let mut slice = self.slice.lock();
            let needed = slice.out.checked_add(amount).ok_or(Refused::Spent)?;
            (slice.out, slice.used) = (needed, began);
            let ends = slice.ends.max(until.max(began).saturating_add(millis(SLACK)));
            let wanted = slice.size.max(needed.saturating_add(self.room));
            let draw = Draw { wanted, least: needed, limit: self.limit, ttl: left(began, ends) };
            (Out { level: Arc::clone(self), amount }, draw, ends)
        };
        let granted = self.store.draw(SPACE, &self.key, &self.name, draw).await;
        let granted = granted.map_err(|away| Refused::Away(away.to_string()))?;
        let Some(size) = granted else {
            self.lacking.lack(amount, self.limit);
            return Err(Refused::Spent);
        };
        let mut slice = self.slice.lock();
        (slice.size, slice.ends) = (size, ends);
        self.lacking.found(size.saturating_sub(slice.out).saturating_add(amount));
        drop(slice);
        Ok(out)
    }
}

impl Out {
    /// This much of it, as an own part; all of it if there is not more.
    pub(super) fn split(&mut self, amount: u64) -> Out {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Out { level: Arc::clone(&self.level), amount }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let mut slice = self.level.slice.lock();
        slice.out = slice.out.saturating_sub(self.amount);
    }
}

fn left(now: UnixMillis, ends: UnixMillis) -> Duration {
    Duration::from_millis(ends.saturating_sub(now))
}
