//! What a gateway that runs finds out about refunds: how much is due, and what became of those that somebody sent. It signs
//! and sends none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::pay::{Proven, prove, write};
use super::{Owed, owed};
use crate::chain::Prove;
use crate::clock::Clock;
use crate::jobs::job::Refund;
use crate::jobs::{Event, Job, JobStore, StoreError};
use crate::money::Amount;
use crate::telemetry::Metrics;
use crate::x402::Asset;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(60);

/// The background service.
pub struct Watch {
    /// The jobs.
    pub jobs: Arc<dyn JobStore>,
    /// Who proves payments.
    pub chains: Arc<dyn Prove>,
    /// What is due is counted here.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

impl Watch {
    /// Looks again and again, until dropped.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut known: HashMap<Asset, Amount> = HashMap::new();
        loop {
            tick.tick().await;
            if let Err(away) = self.look(&mut known).await {
                warn!(%away, "nobody knows what refunds are due");
            }
        }
    }

    /// One look. `due` is what the last one found.
    pub(super) async fn look(&self, due: &mut HashMap<Asset, Amount>) -> Result<(), StoreError> {
        for amount in due.values_mut() {
            *amount = Amount::ZERO;
        }
        for Owed { job, .. } in owed(&*self.jobs).await? {
            if let Some(refund) = job.open_refund()
                && self.resolve(&job, refund).await?
            {
                continue;
            }
            let requirement = &job.client.requirement;
            let sum = due.entry(requirement.asset.clone()).or_default();
            *sum = Amount::new(sum.units().saturating_add(job.owed().units()));
        }
        for (asset, amount) in &*due {
            self.metrics.refunds_due(asset, *amount);
        }
        Ok(())
    }

    /// Whether nothing is due any more.
    async fn resolve(&self, job: &Job, refund: &Refund) -> Result<bool, StoreError> {
        let event = match prove(&*self.chains, job, refund).await {
            Ok(Proven::Paid(transaction)) => Event::Refunded { transaction },
            Ok(Proven::Lapsed) => Event::RefundLapsed,
            Ok(Proven::Mined(_) | Proven::Nothing(_)) => return Ok(false),
            Err(why) => {
                error!(job = %job.id, %why, "a refund");
                return Ok(false);
            }
        };
        let paid = matches!(event, Event::Refunded { .. });
        let written = write(&*self.jobs, &self.clock, job, event).await?;
        if written {
            info!(job = %job.id, paid, "what became of a refund is proved");
        }
        Ok(written && paid)
    }
}
