//! What the chains prove about the two legs of a job, and what that makes of them.
//!
//! Of the client's payment a transfer in any block counts, final or not: no more is asked of a facilitator's word, and
//! whoever waits for the answer cannot wait for minutes; `audit` looks again. Whatever ends in a loss or in "not charged" needs a final one.

use std::time::Duration;

use tracing::{info, warn};

use super::Broker;
use crate::chain::{Proof, Since, Sought, Unpaid};
use crate::jobs::Job;
use crate::jobs::job::{Fate, ProviderPayment};
use crate::x402::{Asset, Receipt, Version};

/// Asking all endpoints of a chain takes this long at most, where nobody waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What is proven of the client's payment.
pub(super) enum ClientProof {
    /// It was made.
    Paid(Receipt),
    /// It was not, and never will be.
    Unpaid(Unpaid),
    /// Neither, or nobody can be asked.
    Nothing,
}

impl Broker {
    /// What is to be looked for on the chain of the payment we take.
    pub(super) fn sought(&self, job: &Job) -> Option<Sought> {
        let requirement = &job.client.requirement;
        Some(Sought {
            asset: requirement.asset.address,
            from: job.requester,
            nonce: job.claim.nonce()?,
            to: requirement.pay_to,
            value: requirement.amount,
            valid_before: job.client.valid_before,
            since: job.client.height.map_or(Since::Time(job.created / 1000), Since::Block),
        })
    }

    /// What is proven of the payment we take.
    pub(super) async fn prove_client(&self, job: &Job, patience: Duration) -> ClientProof {
        let requirement = &job.client.requirement;
        let Some(sought) = self.sought(job) else { return ClientProof::Nothing };
        match self.prove(&requirement.asset, job, &sought, patience).await {
            Some(Proof::Paid { transaction, block, is_final }) => {
                info!(job = %job.id, %transaction, block, is_final, "the client's payment is on chain");
                if !is_final {
                    self.look_for(job, &transaction.to_string()).await;
                }
                ClientProof::Paid(receipt(job, transaction.to_string()))
            }
            Some(Proof::Unpaid(why)) => {
                info!(job = %job.id, %why, "the chain proves that the client did not pay");
                ClientProof::Unpaid(why)
            }
            Some(Proof::Open { .. }) | None => ClientProof::Nothing,
        }
    }

    /// What is proven of a payment that we signed; [`Fate::Open`] where nothing is.
    pub(super) async fn prove_provider(&self, job: &Job, payment: &ProviderPayment) -> Fate {
        // Asked about another wallet, the chain would say that nothing was spent.
        let Some(from) = payment.from else { return Fate::Open };
        let asset = &payment.asset;
        let known = job.client.height.filter(|_| asset.network == job.client.requirement.asset.network);
        let sought = Sought {
            asset: asset.address,
            from,
            nonce: payment.nonce,
            to: payment.pay_to,
            value: payment.amount,
            valid_before: payment.valid_before,
            since: known.map_or(Since::Time(job.created / 1000), Since::Block),
        };
        match self.prove(asset, job, &sought, PATIENCE).await {
            Some(Proof::Paid { transaction, is_final: true, .. }) => {
                info!(job = %job.id, %transaction, step = payment.step, "the payment to a provider was taken");
                Fate::Spent
            }
            // The nonce is ours alone, so it was spent on other terms that we signed: money is gone all the same.
            Some(Proof::Unpaid(why @ (Unpaid::Elsewhere | Unpaid::Before))) => {
                warn!(job = %job.id, step = payment.step, %why, "a nonce of our wallet was spent on other terms");
                Fate::Spent
            }
            Some(Proof::Unpaid(why @ (Unpaid::Canceled | Unpaid::Lapsed))) => {
                info!(job = %job.id, step = payment.step, %why, "a payment to a provider was not taken");
                Fate::Unspent
            }
            Some(Proof::Paid { is_final: false, .. } | Proof::Open { .. }) | None => Fate::Open,
        }
    }

    async fn prove(&self, asset: &Asset, job: &Job, sought: &Sought, patience: Duration) -> Option<Proof> {
        match tokio::time::timeout(patience, self.chains.prove(asset.network, sought)).await {
            Ok(None) => None,
            Ok(Some(Ok(proof))) => Some(proof),
            Ok(Some(Err(error))) => {
                warn!(job = %job.id, network = %asset.network, %error, "the chain proves nothing");
                None
            }
            Err(_) => {
                warn!(job = %job.id, network = %asset.network, "the chain is too slow to prove anything");
                None
            }
        }
    }
}

/// The receipt of a payment that was found on chain, as a facilitator would have written it.
fn receipt(job: &Job, transaction: String) -> Receipt {
    let network = job.client.requirement.asset.network;
    let network = match (job.client.version, network.v1_name()) {
        (Version::V1, Some(name)) => name.to_owned(),
        _ => network.to_string(),
    };
    Receipt {
        success: true,
        transaction,
        network,
        payer: Some(job.requester.to_string()),
        error_reason: None,
        error_message: None,
    }
}
