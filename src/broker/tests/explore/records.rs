//! How a worker writes down what happened, as `journal` does: durably, fenced by version and epoch, or carried in memory
//! while the store is away.

use super::bounds::Break;
use super::steps::{Steps, owned};
use super::table::Ev;
use super::world::{At, World};

/// Whether an event that the store does not take counts: as `journal` has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carry {
    Never,
    IfAway,
    Always,
}

impl Steps<'_> {
    /// As the journal ends its work.
    pub(super) fn close(&mut self, world: &World, who: usize) {
        let worker = world.workers[who];
        let mut next = *world;
        if !worker.carries() {
            if worker.ours && self.table_of(world).is_some_and(|state| !state.at_rest()) {
                next.leased = false;
            }
            self.goes(next, who, At::Idle);
            return;
        }
        if self.write(&mut next, who) {
            self.goes(next, who, At::Close);
            return;
        }
        let (Some(record), Some(mine)) = (world.record, self.known(world, who)) else { return };
        if world.leased {
            return;
        }
        let mut back = owned(world, who, At::Close, worker.recovering);
        back.workers[who].carried = worker.carried;
        // Who had the job meanwhile may have settled it.
        if let Some(refused) = worker.carried.iter().position(|ev| *ev == Some(Ev::Refused))
            && !self.breaks(Break::DropRefusals)
        {
            back.workers[who].carried[refused..].fill(None);
        }
        let state = self.table.state(record);
        let same = state.at_rest() && self.table.job(record).ends_as(self.table.job(mine));
        if same || self.known(&back, who).is_none() {
            back.leased = false;
            back.workers[who].carried = [None; 3];
            self.goes(back, who, At::Idle);
        } else {
            self.goes(back, who, At::Close);
        }
    }

    /// Records an event, in every way that can end. `lost` is where a worker goes on whose record was not made.
    pub(super) fn record(&mut self, world: &World, who: usize, ev: Ev, carry: Carry, then: At, lost: At) {
        let Some(job) = self.known(world, who) else { return };
        if self.table.apply(job, ev).is_none() {
            self.illegal.get_or_insert((self.table.state(job), ev));
            return;
        }
        let mut added = *world;
        if added.workers[who].carry(ev).is_none() {
            return;
        }
        let mut written = added;
        let at = match self.write(&mut written, who) {
            true => then,
            // It counts all the same.
            false if carry == Carry::Always => then,
            false => {
                written.workers[who].carried = world.workers[who].carried;
                At::Close
            }
        };
        self.goes(written, who, at);
        if !self.bounds.away {
            return;
        }
        if carry != Carry::Never {
            self.goes(added, who, then);
            return;
        }
        // The store has taken it or not, and the worker does not know: with the next event it counts as made.
        let doubtful = |mut world: World| {
            if lost == At::Close {
                world.workers[who].carried = [None; 3];
            }
            world
        };
        let mut taken = added;
        if self.write(&mut taken, who) {
            taken.workers[who].durable = world.workers[who].durable;
            taken.workers[who].carried = added.workers[who].carried;
            // At rest, its lease has ended: it could not be told from one who wrote nothing.
            self.goes(doubtful(taken), who, lost);
        }
        self.goes(doubtful(added), who, lost);
    }

    /// Writes all that a worker carries, as the store takes it. `false`, and nothing is kept of it, if it is fenced.
    fn write(&mut self, world: &mut World, who: usize) -> bool {
        let before = *world;
        let worker = world.workers[who];
        let mut job = worker.durable;
        for ev in worker.carried.iter().flatten() {
            let Some(next) = self.table.apply(job, *ev) else {
                *world = before;
                return false;
            };
            let Some(record) = world.record else { return false };
            let (version, stored) = (self.table.job(next).version, self.table.job(record).version);
            let ours = world.workers[who].ours || self.breaks(Break::Epochs) || self.breaks(Break::Fences);
            let repeated = record == next;
            let fits = version == stored + 1 || self.breaks(Break::Fences);
            if !ours || !(repeated || fits) {
                *world = before;
                return false;
            }
            world.record = Some(next);
            if self.table.state(next).at_rest() {
                world.leased = false;
                world.workers[who].ours = false;
            }
            job = next;
        }
        world.workers[who].durable = job;
        world.workers[who].carried = [None; 3];
        true
    }
}
