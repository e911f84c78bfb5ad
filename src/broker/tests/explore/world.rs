//! What there is: a store, the chain, and two gateways that may stop between any two steps.

use super::table::{Ev, Ix};

/// The payments to providers that a world can tell apart: two steps of two attempts.
pub(super) const SLOTS: usize = 4;

/// A moment of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// The record in the store.
    pub(super) record: Option<Ix>,
    /// Somebody's lease on it has not ended. Whose, is what [`Worker::ours`] says: the epoch.
    pub(super) leased: bool,
    /// In order, so that two worlds that differ in who is who are one.
    pub(super) workers: [Worker; 2],
    /// What became of the client's authorization on chain.
    pub(super) client: Authorization,
    /// Its time is over: if it was not taken, it never will be.
    pub(super) lapsed: bool,
    /// A facilitator has sent it. It may be taken at any moment.
    pub(super) in_flight: bool,
    /// Somebody had it sent while what he knew could not be written down.
    pub(super) from_memory: bool,
    /// The payments to providers.
    pub(super) signatures: [Signature; SLOTS],
    /// For each attempt, whether the client's payment was vouched for in it.
    pub(super) vouched: [bool; 2],
    /// The client has the answer, to its end.
    pub(super) given: bool,
}

/// The client's nonce. The token sees to it that it leaves `Free` once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Authorization {
    Free,
    /// Transferred to us.
    Paid,
    /// Cancelled, or spent elsewhere.
    Dead,
}

/// A payment to a provider, outside of any record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Signature {
    /// It never left the process.
    In,
    /// The provider has it.
    Out,
    /// The provider has taken the money.
    Taken,
    /// It has lapsed, and was not taken.
    Lapsed,
}

/// One gateway process. What is in here a crash takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Worker {
    pub(super) at: At,
    /// The epoch of its lease is the store's.
    pub(super) ours: bool,
    /// It has the job as an orphan: there is no request, and no work can be done.
    pub(super) recovering: bool,
    /// What it knows to be written.
    pub(super) durable: Ix,
    /// What happened on top of that, and is not written, or may not be.
    pub(super) carried: [Option<Ev>; 3],
}

/// The next thing that a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum At {
    /// Nothing in hand.
    Idle,
    /// A claimed job: have it verified, or settle it first.
    Begin,
    /// Do the work, pay for the next step, or fail.
    Work,
    /// The payment for this step is on record: send it.
    Send(u8),
    /// Wait for the provider.
    Hear,
    /// Record that the work is done.
    Done,
    /// Record that a part of it is.
    Part,
    /// Record that it is not, and will not be.
    Failed,
    /// Call `/settle`. `fresh`: nobody has before, in this attempt.
    Settle { fresh: bool },
    /// It was called; find out what came of it.
    Told,
    /// Record what came of it.
    Found(Ev),
    /// Record the next attempt of a voided job that was taken over for it.
    Reopen,
    /// Hand out the answer, which is not in the record.
    Handing,
    /// Bring an orphan that was taken over to its end.
    Recover,
    /// Record what is proven of a job at rest.
    Proven(Ev),
    /// Write what is left to be written, and give the lease back.
    Close,
}

impl Worker {
    pub(super) const IDLE: Worker =
        Worker { at: At::Idle, ours: false, recovering: false, durable: 0, carried: [None; 3] };

    pub(super) fn idle(&self) -> bool {
        self.at == At::Idle
    }

    pub(super) fn carries(&self) -> bool {
        self.carried[0].is_some()
    }

    /// `None` where there is more than any real job carries.
    pub(super) fn carry(&mut self, ev: Ev) -> Option<()> {
        let place = self.carried.iter_mut().find(|place| place.is_none())?;
        *place = Some(ev);
        Some(())
    }
}

impl World {
    pub(super) const FIRST: World = World {
        record: None,
        leased: false,
        workers: [Worker::IDLE; 2],
        client: Authorization::Free,
        lapsed: false,
        in_flight: false,
        from_memory: false,
        signatures: [Signature::In; SLOTS],
        vouched: [false; 2],
        given: false,
    };

    /// The client's money may still become ours though nobody does anything more.
    pub(super) fn may_still_pay(&self) -> bool {
        self.client == Authorization::Free && self.in_flight && !self.lapsed
    }

    /// The client's money is not ours, and never will be.
    pub(super) fn never_pays(&self) -> bool {
        self.client == Authorization::Dead || (self.client == Authorization::Free && self.lapsed)
    }

    /// The same world with the workers in order, and nothing kept that no longer matters.
    pub(super) fn canonical(mut self) -> World {
        for worker in &mut self.workers {
            if worker.idle() {
                *worker = Worker::IDLE;
            }
        }
        if !self.may_still_pay() {
            self.in_flight = false;
        }
        self.workers.sort();
        self
    }
}
