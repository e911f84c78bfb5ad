//! `settle = "after"`: the client gets the answer as soon as it is on record, and its payment is settled right behind it.
//!
//! Only for work that costs the wallet nothing, and only while little enough is out that way and was never paid for
//! (`guard::trust`). A payer who did not pay once is settled with before the work (`debt`). What may go wrong after the answer is
//! what may go wrong in `settling` at any time, and recovery knows it from there.

use tracing::{debug, warn};

use super::Broker;
use super::journal::Journal;
use super::settlement::Settled;
use crate::guard::Credit;
use crate::jobs::Event;

impl Broker {
    /// Room for an answer that goes out before its payment is settled. `None`: there is none, and it is settled first.
    pub(super) async fn trust(&self, journal: &Journal) -> Option<Credit> {
        let job = journal.job().await;
        let requirement = &job.client.requirement;
        let (asset, price) = (&requirement.asset, requirement.amount);
        self.spending.guards.credit(job.requester, asset, price, job.client.valid_before).await
    }

    /// Settles the payment of a job whose client has the answer. What cannot be told is left to recovery.
    pub(super) async fn collect(&self, journal: &Journal) {
        let job = journal.job().await;
        let recorded = match self.settle(&job, true, self.limits.unknown_hold).await {
            Settled::Yes(receipt) => {
                debug!(job = %job.id, provider = job.quote.provider, "sold");
                journal.keep(Event::Settled { receipt }).await.map(drop)
            }
            Settled::No { reason } => self.refused(journal, &reason).await.map(drop),
            Settled::Unknown => Ok(()),
        };
        if let Err(error) = recorded {
            warn!(%error, job = %job.id, "what became of a settlement is not recorded");
        }
    }
}
