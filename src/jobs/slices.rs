//! The slices of one limit, as one value of a store that has no type for them.

use super::store::{Draw, StoreError};
use crate::clock::UnixMillis;

/// Slices by name, with their ends. Those that have ended are left out whenever it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slices(Vec<(String, UnixMillis, u64)>);

impl Slices {
    /// Reads what [`Slices::encode`] wrote, as of `now`.
    pub(super) fn decode(value: &[u8], now: UnixMillis) -> Result<Slices, StoreError> {
        let unreadable = || StoreError::Unreadable("slices of a limit that are damaged".to_owned());
        let slice = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (ends, size) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some((words.next()?.to_owned(), ends, size))
        };
        let text = std::str::from_utf8(value).map_err(|_| unreadable())?;
        let all = text.lines().map(slice).collect::<Option<Vec<_>>>().ok_or_else(unreadable)?;
        Ok(Slices(all.into_iter().filter(|(_, ends, _)| *ends > now).collect()))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let line = |(name, ends, size): &(String, UnixMillis, u64)| format!("{ends} {size} {name}\n");
        self.0.iter().map(line).collect::<String>().into_bytes()
    }

    /// Draws; the slice ends at `ends`. What it is then, or `None` if nothing changed.
    pub(super) fn draw(&mut self, slice: &str, draw: Draw, ends: UnixMillis) -> Option<u64> {
        let own = self.0.iter().find(|(name, ..)| name == slice).map_or(0, |(.., size)| *size);
        let granted = draw.granted(own, self.sum() - own)?;
        self.0.retain(|(name, ..)| name != slice);
        if granted > 0 {
            self.0.push((slice.to_owned(), ends, granted));
        }
        Some(granted)
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, (.., size)| sum.saturating_add(*size))
    }

    /// When the last of them ends; `None` if there are none.
    pub(super) fn end(&self) -> Option<UnixMillis> {
        self.0.iter().map(|(_, ends, _)| *ends).max()
    }
}
