//! How one transaction changes small values and counters.

use std::time::Duration;

use redb::ReadableTable;

use super::tables::{NEVER, Tables};
use super::{Fault, after};
use crate::clock::UnixMillis;
use crate::jobs::slices::Slices;
use crate::jobs::store::{Draw, StoreError};

impl Tables<'_> {
    pub(super) fn put(
        &mut self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), redb::Error> {
        self.changed = true;
        let expires = ttl.map_or(NEVER, |ttl| after(self.now(), ttl));
        let replaced = self.values.insert((space, key), (expires, value))?.map(|row| row.value().0);
        if let Some(replaced) = replaced {
            self.value_expiry.remove((replaced, space, key))?;
        }
        if expires != NEVER {
            self.value_expiry.insert((expires, space, key), ())?;
        }
        Ok(())
    }

    pub(super) fn put_new(
        &mut self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, redb::Error> {
        let now = self.now();
        let live = self.values.get((space, key))?.and_then(|row| {
            let (expires, value) = row.value();
            (expires > now).then(|| value.to_owned())
        });
        if live.is_none() {
            self.put(space, key, value, ttl)?;
        }
        Ok(live)
    }

    pub(super) fn add(&mut self, space: &str, key: &str, delta: i64) -> Result<i64, Fault> {
        let before = self.counters.get((space, key))?.map_or(0, |sum| sum.value());
        let Some(sum) = before.checked_add(delta) else {
            let why = format!("the counter {space}/{key} would overflow");
            return Err(Fault::Store(StoreError::Away(why)));
        };
        self.changed = true;
        self.counters.insert((space, key), sum)?;
        Ok(sum)
    }

    /// The slices of a limit are one value, which expires with the last of them.
    pub(super) fn draw(
        &mut self,
        space: &str,
        key: &str,
        slice: &str,
        draw: Draw,
    ) -> Result<Option<u64>, Fault> {
        let now = self.now();
        let stored = self.values.get((space, key))?.map(|row| row.value().1.to_owned());
        let mut slices = Slices::decode(&stored.unwrap_or_default(), now).map_err(Fault::Store)?;
        let granted = slices.draw(slice, draw, after(now, draw.ttl));
        if granted.is_some() {
            let left = slices.end().map_or(0, |end| end.saturating_sub(now));
            self.put(space, key, &slices.encode(), Some(Duration::from_millis(left)))?;
        }
        Ok(granted)
    }

    pub(super) fn sweep_values(&mut self, now: UnixMillis, limit: usize) -> Result<(), redb::Error> {
        for _ in 0..limit {
            let Some((at, space, key)) = self.value_expiry.first()?.and_then(|(row, _)| {
                let (at, space, key) = row.value();
                (at <= now).then(|| (at, space.to_owned(), key.to_owned()))
            }) else {
                break;
            };
            self.changed = true;
            self.value_expiry.remove((at, space.as_str(), key.as_str()))?;
            self.values.remove((space.as_str(), key.as_str()))?;
        }
        Ok(())
    }
}
