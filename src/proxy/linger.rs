//! What becomes of a request body that nobody wants.
//!
//! A connection that is closed while its client still sends is reset, and a client that was reset
//! never sees the answer (RFC 9112 section 9.6). So a short rest is read before the answer, which
//! keeps the connection; a long one is announced with `Connection: close` and read after it, up to a
//! limit, so that the client gets to read why.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

/// A rest of at most this many bytes is read before the answer.
pub(super) const SHORT: u64 = 64 * 1024;
/// For at most this long.
const SHORT_TIME: Duration = Duration::from_secs(1);
/// After the answer, at most this much more is read: the largest body that is sold by default and some more, since
/// most clients send all of it before they look for the price,
const LONG: u64 = 128 * 1024 * 1024;
/// for at most this long,
const LONG_TIME: Duration = Duration::from_secs(10);
/// and while the client does not pause for longer than this.
const PAUSE: Duration = Duration::from_secs(2);

/// Reads a short rest. `false`: it is not short, or did not come; what is left is still in `rest`.
pub(super) async fn drain_short(rest: &mut Incoming) -> bool {
    if rest.size_hint().exact().is_none_or(|bytes| bytes > SHORT) {
        return false;
    }
    timeout(SHORT_TIME, async {
        while let Some(frame) = rest.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    })
    .await
    .unwrap_or(false)
}

/// Reads on, in a task of its own, until a limit is reached; then hyper closes the connection.
pub(super) fn spawn(mut rest: Incoming) {
    // Bodies may be dropped after the runtime has ended.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(timeout(LONG_TIME, async move {
        let mut left = LONG;
        while let Ok(Some(Ok(frame))) = timeout(PAUSE, rest.frame()).await {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }));
}
