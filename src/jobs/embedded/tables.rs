//! The tables, and how one transaction changes a job in them.
//!
//! A job is a head (what claims, leases and expiry need, rewritten often and small), a record (its JSON) and
//! its journal; the other tables are indexes and change in the same transaction as what they point to.

use std::time::Duration;

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{Fault, after};
use crate::clock::{Clock, UnixMillis};
use crate::ids::JobId;
use crate::jobs::store::{Appended, Claim, Lease};
use crate::jobs::{ClaimKey, Job};

/// By claim: version, epoch, end of the lease, expiry, id, state.
pub(super) const HEADS: TableDefinition<&str, HeadRow> = TableDefinition::new("heads");
/// By claim: the job's JSON.
pub(super) const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");
/// By claim and version: what made that version.
pub(super) const JOURNAL: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("journal");
/// By id: the claim.
pub(super) const IDS: TableDefinition<u128, &str> = TableDefinition::new("ids");
/// Jobs not at rest, by the end of their lease.
pub(super) const DUE: TableDefinition<(u64, &str), ()> = TableDefinition::new("due");
/// By state and id: expiry.
pub(super) const STATES: TableDefinition<(&str, u128), u64> = TableDefinition::new("states");
/// By state: how many.
pub(super) const COUNTS: TableDefinition<&str, u64> = TableDefinition::new("counts");
/// Jobs that expire, by when.
const EXPIRY: TableDefinition<(u64, &str), ()> = TableDefinition::new("expiry");
/// By space and key: expiry and value.
pub(super) const VALUES: TableDefinition<(&str, &str), (u64, &[u8])> = TableDefinition::new("values");
/// Values that expire, by when.
const VALUE_EXPIRY: TableDefinition<(u64, &str, &str), ()> = TableDefinition::new("value_expiry");
/// By space and key: the sum.
const COUNTERS: TableDefinition<(&str, &str), i64> = TableDefinition::new("counters");

pub(super) type HeadRow = (u64, u64, u64, u64, u128, &'static str);

/// The expiry of what does not expire.
pub(super) const NEVER: UnixMillis = UnixMillis::MAX;

/// The end of a lease that was given back: its holder writes no more, whatever the time.
const ENDED: UnixMillis = 0;

/// A row of [`HEADS`].
#[derive(Clone)]
struct Head {
    version: u64,
    epoch: u64,
    lease_until: UnixMillis,
    keep_until: UnixMillis,
    id: u128,
    state: String,
}

/// Every table, open in one transaction.
pub(super) struct Tables<'t> {
    heads: Table<'t, &'static str, HeadRow>,
    records: Table<'t, &'static str, &'static [u8]>,
    journal: Table<'t, (&'static str, u64), &'static [u8]>,
    ids: Table<'t, u128, &'static str>,
    due: Table<'t, (u64, &'static str), ()>,
    states: Table<'t, (&'static str, u128), u64>,
    counts: Table<'t, &'static str, u64>,
    expiry: Table<'t, (u64, &'static str), ()>,
    pub(super) values: Table<'t, (&'static str, &'static str), (u64, &'static [u8])>,
    pub(super) value_expiry: Table<'t, (u64, &'static str, &'static str), ()>,
    pub(super) counters: Table<'t, (&'static str, &'static str), i64>,
    clock: &'t Clock,
    /// Whether there is anything to commit.
    pub(super) changed: bool,
}

/// What [`Tables::append`] writes.
pub(super) struct Append {
    pub(super) claim: ClaimKey,
    pub(super) epoch: u64,
    pub(super) version: u64,
    pub(super) state: &'static str,
    pub(super) at_rest: bool,
    pub(super) keep_until: UnixMillis,
    pub(super) record: Vec<u8>,
    /// One for each version after the stored one, up to `version`.
    pub(super) lines: Vec<Vec<u8>>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction, clock: &'t Clock) -> Result<Self, redb::Error> {
        Ok(Tables {
            heads: transaction.open_table(HEADS)?,
            records: transaction.open_table(RECORDS)?,
            journal: transaction.open_table(JOURNAL)?,
            ids: transaction.open_table(IDS)?,
            due: transaction.open_table(DUE)?,
            states: transaction.open_table(STATES)?,
            counts: transaction.open_table(COUNTS)?,
            expiry: transaction.open_table(EXPIRY)?,
            values: transaction.open_table(VALUES)?,
            value_expiry: transaction.open_table(VALUE_EXPIRY)?,
            counters: transaction.open_table(COUNTERS)?,
            clock,
            changed: false,
        })
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.clock.now_millis()
    }

    pub(super) fn claim(&mut self, mut job: Job, lease: Duration) -> Result<Claim, Fault> {
        let claim = job.claim.clone();
        if self.head(&claim)?.is_some() {
            let record = self.record(&claim)?;
            return Ok(Claim::Taken(Job::decode(&record).map_err(Fault::Store)?));
        }
        // A record past its time may still be there; its claim is free again.
        self.remove(claim.as_str())?;
        while self.ids.get(number(job.id))?.is_some() {
            job.id = JobId::new();
        }
        let head = Head {
            version: job.version,
            epoch: 1,
            lease_until: after(self.now(), lease),
            keep_until: NEVER,
            id: number(job.id),
            state: job.state.name().to_owned(),
        };
        self.changed = true;
        self.ids.insert(head.id, claim.as_str())?;
        self.records.insert(claim.as_str(), job.encode().as_slice())?;
        self.due.insert((head.lease_until, claim.as_str()), ())?;
        self.enter_state(&head)?;
        self.set_head(&claim, &head)?;
        let lease = Lease::new(claim, head.epoch);
        Ok(Claim::Won(job, lease))
    }

    pub(super) fn append(&mut self, append: &Append) -> Result<Appended, redb::Error> {
        let claim = &append.claim;
        let Some(mut head) = self.head(claim)?.filter(|head| head.epoch == append.epoch) else {
            return Ok(Appended::Fenced);
        };
        if head.version == append.version && self.record(claim)? == append.record {
            return Ok(Appended::Written);
        }
        let before = append.version.checked_sub(append.lines.len() as u64);
        if head.lease_until == ENDED || before != Some(head.version) {
            return Ok(Appended::Fenced);
        }
        self.changed = true;
        self.records.insert(claim.as_str(), append.record.as_slice())?;
        for (version, line) in (head.version + 1..).zip(&append.lines) {
            self.journal.insert((claim.as_str(), version), line.as_slice())?;
        }
        self.leave_state(&head)?;
        self.expiry.remove((head.keep_until, claim.as_str()))?;
        self.due.remove((head.lease_until, claim.as_str()))?;
        head.version = append.version;
        head.state = append.state.to_owned();
        head.keep_until = append.keep_until;
        if append.at_rest {
            head.lease_until = ENDED;
        } else {
            self.due.insert((head.lease_until, claim.as_str()), ())?;
        }
        if head.keep_until != NEVER {
            self.expiry.insert((head.keep_until, claim.as_str()), ())?;
        }
        self.enter_state(&head)?;
        self.set_head(claim, &head)?;
        Ok(Appended::Written)
    }

    pub(super) fn renew(&mut self, lease: &Lease, duration: Duration) -> Result<Appended, redb::Error> {
        match self.held(lease)? {
            Some(head) => {
                self.move_lease(&lease.claim, head, after(self.now(), duration))?;
                Ok(Appended::Written)
            }
            None => Ok(Appended::Fenced),
        }
    }

    pub(super) fn release(&mut self, lease: &Lease) -> Result<(), redb::Error> {
        match self.held(lease)? {
            Some(head) => self.move_lease(&lease.claim, head, ENDED),
            None => Ok(()),
        }
    }

    pub(super) fn take_over(
        &mut self,
        claim: ClaimKey,
        lease: Duration,
    ) -> Result<Option<(Job, Lease)>, Fault> {
        let now = self.now();
        let Some(mut head) = self.head(&claim)?.filter(|head| head.lease_until <= now) else {
            return Ok(None);
        };
        let job = Job::decode(&self.record(&claim)?).map_err(Fault::Store)?;
        head.epoch += 1;
        let epoch = head.epoch;
        self.move_lease(&claim, head, after(now, lease))?;
        Ok(Some((job, Lease::new(claim, epoch))))
    }

    pub(super) fn forget(&mut self, claim: &ClaimKey, version: u64) -> Result<bool, redb::Error> {
        let now = self.now();
        // Whoever took it at rest may have died before he could give it back: he writes no more once his lease has ended.
        let free = |head: &Head| head.version == version && head.lease_until <= now;
        let Some(head) = self.head(claim)?.filter(free) else { return Ok(false) };
        if self.due.get((head.lease_until, claim.as_str()))?.is_some() {
            return Ok(false);
        }
        self.remove(claim.as_str())?;
        Ok(true)
    }

    /// Removes expired jobs and values, oldest first, at most `limit` of each.
    pub(super) fn sweep(&mut self, limit: usize) -> Result<(), redb::Error> {
        let now = self.now();
        for _ in 0..limit {
            let Some(claim) = self.expiry.first()?.and_then(|(key, _)| {
                let (at, claim) = key.value();
                (at <= now).then(|| claim.to_owned())
            }) else {
                break;
            };
            self.remove(&claim)?;
        }
        self.sweep_values(now, limit)
    }

    /// The head of a job that has not expired.
    fn head(&self, claim: &ClaimKey) -> Result<Option<Head>, redb::Error> {
        let now = self.now();
        Ok(self.any_head(claim.as_str())?.filter(|head| head.keep_until > now))
    }

    fn any_head(&self, claim: &str) -> Result<Option<Head>, redb::Error> {
        Ok(self.heads.get(claim)?.map(|row| {
            let (version, epoch, lease_until, keep_until, id, state) = row.value();
            Head { version, epoch, lease_until, keep_until, id, state: state.to_owned() }
        }))
    }

    /// The head of a job whose lease this is, and was not given back.
    fn held(&self, lease: &Lease) -> Result<Option<Head>, redb::Error> {
        let ours = |head: &Head| head.epoch == lease.epoch && head.lease_until != ENDED;
        Ok(self.head(&lease.claim)?.filter(ours))
    }

    fn record(&self, claim: &ClaimKey) -> Result<Vec<u8>, redb::Error> {
        Ok(self.records.get(claim.as_str())?.map(|record| record.value().to_owned()).unwrap_or_default())
    }

    fn set_head(&mut self, claim: &ClaimKey, head: &Head) -> Result<(), redb::Error> {
        let Head { version, epoch, lease_until, keep_until, id, state } = head;
        let row = (*version, *epoch, *lease_until, *keep_until, *id, state.as_str());
        self.heads.insert(claim.as_str(), row)?;
        Ok(())
    }

    /// Ends or prolongs a lease; a job at rest is not due, and stays so.
    fn move_lease(&mut self, claim: &ClaimKey, mut head: Head, until: UnixMillis) -> Result<(), redb::Error> {
        self.changed = true;
        let was_due = self.due.remove((head.lease_until, claim.as_str()))?.is_some();
        head.lease_until = until;
        if was_due {
            self.due.insert((until, claim.as_str()), ())?;
        }
        self.set_head(claim, &head)
    }

    fn enter_state(&mut self, head: &Head) -> Result<(), redb::Error> {
        self.states.insert((head.state.as_str(), head.id), head.keep_until)?;
        let count = self.count(&head.state)?;
        self.counts.insert(head.state.as_str(), count + 1)?;
        Ok(())
    }

    fn leave_state(&mut self, head: &Head) -> Result<(), redb::Error> {
        self.states.remove((head.state.as_str(), head.id))?;
        let count = self.count(&head.state)?;
        self.counts.insert(head.state.as_str(), count.saturating_sub(1))?;
        Ok(())
    }

    fn count(&self, state: &str) -> Result<u64, redb::Error> {
        Ok(self.counts.get(state)?.map_or(0, |count| count.value()))
    }

    fn remove(&mut self, claim: &str) -> Result<(), redb::Error> {
        let Some(head) = self.any_head(claim)? else { return Ok(()) };
        self.changed = true;
        self.leave_state(&head)?;
        self.heads.remove(claim)?;
        self.records.remove(claim)?;
        self.ids.remove(head.id)?;
        self.due.remove((head.lease_until, claim))?;
        self.expiry.remove((head.keep_until, claim))?;
        self.journal.retain_in((claim, 0)..=(claim, u64::MAX), |_, _| false)?;
        Ok(())
    }
}

/// An id as a key that sorts as the id does.
pub(super) fn number(id: JobId) -> u128 {
    u128::from_be_bytes(*id.as_bytes())
}
