//! Reading a body into memory, within a limit on each and on all together.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::proxy::RequestBody;
use crate::reason::{Problem, Reason};

/// The unit in which memory is lent out.
const UNIT: u64 = 1024;

/// The memory that bodies of paid requests may take, over all requests.
pub(super) struct Memory(Arc<Semaphore>);

/// Memory lent to one body; given back when dropped.
pub(super) type Held = OwnedSemaphorePermit;

impl Memory {
    pub(super) fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT).unwrap_or(usize::MAX);
        Memory(Arc::new(Semaphore::new(units.clamp(1, Semaphore::MAX_PERMITS))))
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
        let units = declared.unwrap_or(limit).div_ceil(UNIT).max(1);
        let units = u32::try_from(units).map_err(|_| too_large(limit))?;
        let held = Arc::clone(&self.0).try_acquire_many_owned(units);
        let held = held.map_err(|_| Problem::new(Reason::Overloaded))?;

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

fn too_large(limit: u64) -> Problem {
    Problem::new(Reason::TooLarge).details(json!({ "limit": limit }))
}
