//! Writing again what the server has forgotten of the jobs that this process has in hand, or had a moment ago.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use parking_lot::Mutex;
use tracing::{debug, error, info, warn};

use super::Redis;
use super::calls::Again;
use super::incarnation::SETTLES;
use super::said::Values;
use crate::jobs::held::{Held, Place};
use crate::jobs::store::{Lease, StoreError};

/// How long a job that was let go of is remembered: longer than a server takes to put on disk what it acknowledged, or to give it to
/// its replicas, where it does that at all.
pub(super) const RECENT: Duration = Duration::from_secs(5);

/// How much memory those may take, together. The oldest go first.
const RECENT_SIZE: usize = 32 << 20;

/// Jobs that are written at once.
const TOGETHER: usize = 16;

/// Between two tries while the server is away again.
const PAUSE: Duration = Duration::from_millis(100);

/// What this process knows of jobs by itself.
#[derive(Default)]
pub(super) struct Holds {
    live: Mutex<Live>,
    recent: Mutex<Recent>,
    pub(super) values: Values,
}

/// Jobs in hand, for as long as anybody has the lease.
#[derive(Default)]
struct Live {
    all: Vec<Weak<Held>>,
    tidied: usize,
}

/// Jobs that were let go of, oldest first: when, and how large they are.
#[derive(Default)]
struct Recent {
    all: VecDeque<(Instant, usize, Arc<Held>)>,
    size: usize,
}

/// What became of a job that may have been forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restored {
    /// It is there as its holder knows it.
    Yes,
    /// The same, and all of it or the last of it was not, until now.
    Again,
    /// It is another's by now, or of its past too little is known.
    No,
}

impl Holds {
    /// The lease of a job that is in hand from now on.
    pub(super) fn take(&self, held: Held) -> Lease {
        let (claim, epoch, held) = (held.claim.clone(), held.epoch, Arc::new(held));
        let mut live = self.live.lock();
        if live.all.len() > 2 * live.tidied + 64 {
            live.all.retain(|held| held.strong_count() > 0);
            live.tidied = live.all.len();
        }
        live.all.push(Arc::downgrade(&held));
        Lease { held: Some(held), ..Lease::new(claim, epoch) }
    }

    /// Nobody will write it by this lease any more.
    pub(super) fn let_go(&self, held: &Arc<Held>) {
        let size = held.size();
        let mut recent = self.recent.lock();
        recent.all.push_back((Instant::now(), size, Arc::clone(held)));
        recent.size += size;
        recent.keep(|_, size| size <= RECENT_SIZE);
    }

    /// What was let go of longer ago is forgotten here too. Not while the server gives no answer, or is not believed: nobody
    /// knows how long that lasts, and what it has lost by then.
    pub(super) fn tidy(&self) {
        self.recent.lock().keep(|since, _| since.elapsed() <= RECENT);
        self.values.tidy();
    }

    fn all(&self) -> Vec<Arc<Held>> {
        let mut all: Vec<Arc<Held>> = self.live.lock().all.iter().filter_map(Weak::upgrade).collect();
        all.extend(self.recent.lock().all.iter().map(|(_, _, held)| Arc::clone(held)));
        all
    }
}

impl Recent {
    /// Lets the oldest go until it is one to keep, by when it came and how large all are.
    fn keep(&mut self, keep: impl Fn(&Instant, usize) -> bool) {
        while let Some((since, size, _)) = self.all.front()
            && !keep(since, self.size)
        {
            self.size -= size;
            self.all.pop_front();
        }
    }
}

impl Redis {
    /// Writes again what another run of the server, the one of this number, has forgotten, and lets it be believed then.
    pub(super) async fn reassert(self, number: u64) {
        let settled = tokio::time::Instant::now() + SETTLES;
        warn!(
            "Redis is another run than before, or another server: paid work waits until what it may have forgotten is written"
        );
        // First, since nobody waits for it: what a request is called, and what prices were shown.
        self.say_again(number).await;
        let mut again = self.restore_all(number).await;
        tokio::time::sleep_until(settled).await;
        // Over a connection that was there before, some may have been acknowledged after that by the server that was.
        again += self.restore_all(number).await;
        self.incarnation.whole(number);
        info!(jobs = again, "Redis is believed again; so many jobs had to be written again");
    }

    /// How many jobs had to be written again.
    async fn restore_all(&self, number: u64) -> usize {
        let again = AtomicUsize::new(0);
        let each = async |held: Arc<Held>| {
            // Once another run is there, that is seen to.
            while self.incarnation.is_at(number) {
                match self.restore(&held).await {
                    Ok(Restored::Again) => {
                        debug!(job = %held.id, "a job was forgotten, or the last of it, and is written again");
                        again.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(Restored::Yes) => {}
                    Ok(Restored::No) => debug!(job = %held.id, "a job is another's by now"),
                    Err(StoreError::Away(_)) => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    Err(unreadable) => error!(%unreadable, job = %held.id, "a job is not written again"),
                }
                return;
            }
        };
        stream::iter(self.holds.all()).for_each_concurrent(TOGETHER, each).await;
        again.into_inner()
    }

    /// Writes again the small values that the run of this number has not got, though they were written a moment ago.
    async fn say_again(&self, number: u64) {
        for value in self.holds.values.newest_first() {
            while self.incarnation.is_at(number) && self.put_again(&value).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Writes a job as its holder knows it, if the server knows less, and nobody else has it.
    pub(super) async fn restore(&self, held: &Held) -> Result<Restored, StoreError> {
        let mut script = self.scripts.restore.key(self.keys.job(&held.claim));
        script.key(self.keys.id(held.id)).key(self.keys.open());
        let whole = held.known(|known| {
            let Place { version, schema, state, keep_until } = known.at;
            script.arg(held.epoch).arg(&held.owner).arg(known.lease);
            script.arg(keep_until.map_or_else(String::new, |at| at.to_string()));
            script.arg(held.claim.as_str()).arg(version).arg(&known.lines);
            script.arg("id").arg(held.id.to_string()).arg("owner").arg(&held.owner);
            script.arg("epoch").arg(held.epoch).arg("version").arg(version);
            script.arg("schema").arg(schema).arg("state").arg(state.name());
            script.arg("fixed").arg(&held.fixed).arg("record").arg(&known.record);
            if let Some(answer) = &known.answer {
                script.arg("answer").arg(answer);
            }
            if state.at_rest() {
                let rest = self.keys.rest(state);
                script.key(&rest).arg("rest").arg(&rest);
            }
            known.is_whole()
        });
        if !whole {
            return Ok(Restored::No);
        }
        let answer: u8 = self.run(&script, Again::Harmless).await?;
        Ok(match answer {
            2 => Restored::Yes,
            1 => Restored::Again,
            _ => Restored::No,
        })
    }

    /// The same, for a lease whose job was found to be gone, or older than its holder knows it.
    pub(super) async fn remind(&self, lease: &Lease) -> Result<Restored, StoreError> {
        // What came to rest may be gone with good reason.
        let Some(held) = lease.held.as_ref().filter(|held| held.epoch == lease.epoch && !held.has_ended())
        else {
            return Ok(Restored::No);
        };
        let restored = self.restore(held).await?;
        if restored == Restored::Again {
            warn!(job = %held.id, "Redis had forgotten the last of a job; it is written again");
        }
        Ok(restored)
    }
}
