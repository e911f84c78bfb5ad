//! Reading a body into memory, within a limit on each and on all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::json;

use crate::proxy::RequestBody;
use crate::reason::{Problem, Reason};

/// The memory that bodies of paid requests may take, over all requests.
///
/// A count and no semaphore: nobody waits for memory, and a semaphore's release takes a lock that all workers share.
pub(super) struct Memory(Arc<AtomicU64>);

/// Memory lent to one body; given back when dropped.
pub(super) struct Held {
    free: Arc<AtomicU64>,
    bytes: u64,
}

impl Memory {
    pub(super) fn new(bytes: u64) -> Self {
        Memory(Arc::new(AtomicU64::new(bytes)))
    }

    fn lend(&self, bytes: u64) -> Option<Held> {
        let lend = |free: u64| free.checked_sub(bytes);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, lend).ok()?;
        Some(Held { free: Arc::clone(&self.0), bytes })
    }

    /// Reads a body of at most `limit` bytes.
    ///
    /// Errors: `too_large`, `overloaded` when all bodies together would take too much, `body_timeout` and
    /// `body_incomplete` as the client's sending ends.
    pub(super) async fn read(&self, body: &mut RequestBody, limit: u64) -> Result<(Bytes, Held), Problem> {
        let declared = body.size_hint().upper();
        if declared.is_some_and(|declared| declared > limit) {
            return Err(too_large(limit));
        }
        // A body of unknown length is lent the most it may become; it is given back when the job ends.
        let held = self.lend(declared.unwrap_or(limit)).ok_or(Problem::new(Reason::Overloaded))?;

        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut size = 0u64;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Problem::new(error.reason()))?;
            let Ok(data) = frame.into_data() else { continue };
            size = size.saturating_add(data.len() as u64);
            if size > limit {
                return Err(too_large(limit));
            }
            // Most bodies come in one piece, which is then the whole without a copy.
            if first.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    let expected = declared.unwrap_or(size).min(limit);
                    rest.reserve(usize::try_from(expected).unwrap_or(0));
                    rest.extend_from_slice(&first);
                }
                rest.extend_from_slice(&data);
            }
        }
        Ok((if rest.is_empty() { first } else { rest.freeze() }, held))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.free.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

fn too_large(limit: u64) -> Problem {
    Problem::new(Reason::TooLarge).details(json!({ "limit": limit }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back() {
        let memory = Memory::new(10);
        let six = memory.lend(6).unwrap();
        assert!(memory.lend(5).is_none());
        let four = memory.lend(4).unwrap();
        drop(six);
        assert!(memory.lend(7).is_none());
        drop(four);
        assert!(memory.lend(10).is_some());
    }
}
