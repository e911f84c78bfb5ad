//! Health, readiness, metrics and lists of jobs, on a listener of their own: plain HTTP/1.1, read only.
//!
//! Nothing here asks who reads. The pages hold no secrets, but they say what the gateway earns and how it fares, so
//! `admin.listen` belongs on loopback or on a network that only the operator's tools reach. Jobs name payers, so they
//! are listed on loopback only.

mod jobs;
mod pages;

#[cfg(test)]
mod tests;

pub use jobs::FindJobs;
pub use pages::{Check, KeepBooks, Pages, Readiness};

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::listener::Listener;

/// Connections at once; scrapers and probes need a few.
const CONNECTIONS: usize = 64;

/// How long answers that are being written may take to end once the pages stop.
const GRACE: Duration = Duration::from_secs(5);

/// Shows `pages` on `listener` until `stop` is ready. Fails as [`Listener::serve`] does.
pub async fn serve(listener: Listener, pages: Pages, stop: impl Future<Output = ()>) -> std::io::Result<()> {
    let pages = Arc::new(pages);
    let answer = move |request: http::Request<_>| {
        let pages = Arc::clone(&pages);
        async move { pages.answer(request.method(), request.uri()).await }
    };
    listener.serve(CONNECTIONS, answer, stop, GRACE).await
}
