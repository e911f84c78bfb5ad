//! Tells whoever presented a payment which job it has, once that is durable and before there is an answer.
//!
//! What is told is an id and nothing more: what became of the job by the time somebody is told is for the store to say.

use std::sync::Arc;

use tokio::sync::watch;

use crate::ids::JobId;

/// Where the job of a payment is announced; nowhere, unless somebody wants to hear of it.
#[derive(Clone, Debug, Default)]
pub struct Announce(Option<Arc<watch::Sender<Option<JobId>>>>);

/// Whoever wants to hear of it.
#[derive(Debug)]
pub struct Announced(watch::Receiver<Option<JobId>>);

impl Announce {
    /// To somebody who wants to hear of it.
    pub fn wanted() -> (Announce, Announced) {
        let (sender, receiver) = watch::channel(None);
        (Announce(Some(Arc::new(sender))), Announced(receiver))
    }

    /// The payment has this job, and the record of it is durable.
    pub(super) fn job(&self, id: JobId) {
        if let Some(wanted) = &self.0 {
            wanted.send_replace(Some(id));
        }
    }
}

impl Announced {
    /// Waits for the job. Never returns if there is none.
    pub async fn job(&mut self) -> JobId {
        if let Ok(job) = self.0.wait_for(Option::is_some).await
            && let Some(job) = *job
        {
            return job;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_heard_of_whenever_somebody_listens_and_never_made_up() {
        let id = JobId::new();
        let (announce, mut announced) = Announce::wanted();
        announce.job(id);
        drop(announce);
        assert_eq!(announced.job().await, id);

        let (announce, mut announced) = Announce::wanted();
        drop(announce);
        let patience = std::time::Duration::from_secs(3600);
        assert!(tokio::time::timeout(patience, announced.job()).await.is_err());
        Announce::default().job(id);
    }
}
