//! Looking things up, in one consistent view of the file. Nothing here waits for the writer.

use std::ops::Bound;

use redb::{Database, ReadTransaction, ReadableDatabase};

use super::Fault;
use super::tables::{COUNTS, DUE, HEADS, IDS, JOURNAL, RECORDS, STATES, VALUES, number};
use crate::clock::UnixMillis;
use crate::ids::JobId;
use crate::jobs::record::Entry;
use crate::jobs::store::StoreError;
use crate::jobs::{ClaimKey, Job, State};

/// The file as of the last commit; what has expired by `now` is not there.
pub(super) struct Snapshot {
    transaction: ReadTransaction,
    now: UnixMillis,
}

impl Snapshot {
    pub(super) fn of(database: &Database, now: UnixMillis) -> Result<Self, Fault> {
        Ok(Snapshot { transaction: database.begin_read()?, now })
    }

    pub(super) fn by_claim(&self, claim: &str) -> Result<Option<Job>, Fault> {
        let live =
            self.transaction.open_table(HEADS)?.get(claim)?.is_some_and(|head| head.value().3 > self.now);
        if !live {
            return Ok(None);
        }
        let record = self.transaction.open_table(RECORDS)?.get(claim)?;
        record.map(|record| Job::decode(record.value()).map_err(Fault::Store)).transpose()
    }

    pub(super) fn by_id(&self, id: JobId) -> Result<Option<Job>, Fault> {
        match self.transaction.open_table(IDS)?.get(number(id))? {
            Some(claim) => self.by_claim(claim.value()),
            None => Ok(None),
        }
    }

    pub(super) fn journal(&self, claim: &str) -> Result<Vec<Entry>, Fault> {
        let lines = self.transaction.open_table(JOURNAL)?.range((claim, 0)..=(claim, u64::MAX))?;
        lines.map(|line| Entry::decode(line?.1.value()).map_err(Fault::Store)).collect()
    }

    pub(super) fn due(&self, limit: usize) -> Result<Vec<ClaimKey>, Fault> {
        let ended = self.transaction.open_table(DUE)?;
        let rows = ended.range(..(self.now.saturating_add(1), ""))?.take(limit);
        rows.map(|row| Ok(ClaimKey::stored(row?.0.value().1))).collect()
    }

    pub(super) fn in_state(&self, state: State, limit: usize) -> Result<Vec<JobId>, Fault> {
        let states = self.transaction.open_table(STATES)?;
        let rows = states.range((state.name(), 0)..=(state.name(), u128::MAX))?;
        let live =
            rows.filter(|row| row.as_ref().map_or(true, |(_, keep_until)| keep_until.value() > self.now));
        live.take(limit).map(|row| Ok(JobId::from_bytes(row?.0.value().1.to_be_bytes()))).collect()
    }

    /// By id; the mark is the last of them.
    pub(super) fn scan(
        &self,
        after: Option<&str>,
        about: usize,
    ) -> Result<(Vec<JobId>, Option<String>), Fault> {
        let unreadable = || Fault::Store(StoreError::Unreadable("a mark that no scan gave".to_owned()));
        let from = match after {
            Some(mark) => Bound::Excluded(number(mark.parse().map_err(|_| unreadable())?)),
            None => Bound::Unbounded,
        };
        let ids = self.transaction.open_table(IDS)?;
        let rows = ids.range::<u128>((from, Bound::Unbounded))?.take(about.max(1));
        let id = |row: Result<(redb::AccessGuard<'_, u128>, _), redb::StorageError>| {
            Ok(JobId::from_bytes(row?.0.value().to_be_bytes()))
        };
        let found = rows.map(id).collect::<Result<Vec<_>, Fault>>()?;
        let mark = found.last().filter(|_| found.len() >= about.max(1)).map(ToString::to_string);
        Ok((found, mark))
    }

    pub(super) fn count_by_state(&self) -> Result<Vec<(State, u64)>, Fault> {
        let counts = self.transaction.open_table(COUNTS)?;
        let count = |state: State| Ok((state, counts.get(state.name())?.map_or(0, |count| count.value())));
        State::ALL.into_iter().map(count).collect()
    }

    pub(super) fn value(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        let row = self.transaction.open_table(VALUES)?.get((space, key))?;
        Ok(row.and_then(|row| {
            let (expires, value) = row.value();
            (expires > self.now).then(|| value.to_owned())
        }))
    }

    pub(super) fn values(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, Fault> {
        let mut live = Vec::new();
        for row in self.transaction.open_table(VALUES)?.range((space, "")..)? {
            let (key, value) = row?;
            let ((in_space, key), (expires, value)) = (key.value(), value.value());
            if in_space != space {
                break;
            }
            if expires > self.now {
                live.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(live)
    }
}
