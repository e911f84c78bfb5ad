//! The admin pages of a gateway: health, metrics, and on loopback its jobs and books.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::StartError;
use super::health::Health;
use crate::admin::{self, FindJobs, KeepBooks, Pages};
use crate::clock::Clock;
use crate::jobs::JobStore;
use crate::ledger;
use crate::listener::Listener;
use crate::telemetry::Metrics;

/// Serves the admin pages; where.
pub(super) fn serve(
    runtime: &Runtime,
    address: SocketAddr,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    jobs: Option<Arc<dyn JobStore>>,
    archive: Option<PathBuf>,
    mut stopped: watch::Receiver<bool>,
) -> Result<SocketAddr, StartError> {
    let _inside = runtime.enter();
    let listener = Listener::bind(address).map_err(StartError::Admin)?;
    let address = listener.address();
    let health = Arc::clone(health);
    let mut pages = Pages::new(Arc::clone(metrics), Clock::system(), move || health.readiness());
    if let Some(jobs) = jobs {
        pages = pages.keep_books(keep_books(Arc::clone(&jobs), archive)).list_jobs(find_jobs(jobs));
    }
    runtime.spawn(async move {
        let until = async move {
            // Also when the sender is gone.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        if let Err(error) = admin::serve(listener, pages, until).await {
            tracing::error!(%error, "health and metrics are not served any more");
        }
    });
    Ok(address)
}

/// How the admin pages make the books.
fn keep_books(jobs: Arc<dyn JobStore>, archive: Option<PathBuf>) -> KeepBooks {
    Box::new(move |check| {
        let (jobs, archive) = (Arc::clone(&jobs), archive.clone());
        Box::pin(async move {
            let books = ledger::collect(&*jobs, archive).await.map_err(|error| error.to_string())?;
            let found = check.then(|| books.check());
            Ok(ledger::Report::new(&books, found.as_deref()).to_string())
        })
    })
}

/// How the admin pages find jobs.
fn find_jobs(jobs: Arc<dyn JobStore>) -> FindJobs {
    Box::new(move |state, limit| {
        let jobs = Arc::clone(&jobs);
        Box::pin(async move {
            let mut found = Vec::new();
            for id in jobs.in_state(state, limit).await? {
                // One that has moved on or was forgotten in between is left out.
                found.extend(jobs.by_id(id).await?.filter(|job| job.state == state));
            }
            Ok(found)
        })
    })
}
