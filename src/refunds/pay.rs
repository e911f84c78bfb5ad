//! Paying one refund. See the module for why money moves once.

use std::time::Duration;

use serde_json::value::to_raw_value;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Payer, RefundError, Unpayable, sought};
use crate::chain::{Proof, Unpaid};
use crate::clock::{Clock, UnixSeconds};
use crate::facilitator::{PaymentRequest, Settlement};
use crate::guard::Frozen;
use crate::ids::JobId;
use crate::jobs::job::Refund;
use crate::jobs::{Appended, Event, Job, JobStore, State, StoreError};
use crate::wallet::COLLECT;
use crate::x402::{B256, PaymentFlow, Requirement, Resource, Version};

/// How long a signed refund may be paid: long enough for a facilitator that is away for some minutes, short enough that one
/// that is lost can be proved to be, and signed anew, the same hour.
const VALID: UnixSeconds = 900;
/// How long a job is ours while one event is written.
const LEASE: Duration = Duration::from_secs(10);
/// Longer than a lease of somebody who died.
const BUSY: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);

/// How far a refund has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its transfer is in a final block, and the job is `refunded`.
    Refunded(B256),
    /// Its transfer is in a block that is not final yet.
    Mined(B256),
    /// It is signed, and may have been sent; in no block so far.
    Sent {
        /// What the facilitator or the chain says.
        said: String,
    },
}

/// What the chain proves of an open refund.
pub(super) enum Proven {
    Paid(B256),
    Lapsed,
    Mined(B256),
    Nothing(String),
}

impl Payer {
    /// Brings the refund of a job as far as it can be brought now. Safe to repeat, at any time and by anybody.
    pub async fn pay(&self, id: JobId) -> Result<Outcome, RefundError> {
        let give_up = Instant::now() + BUSY;
        let mut sent: Option<String> = None;
        let mut fresh = false;
        loop {
            let job = self.jobs.by_id(id).await?.ok_or(RefundError::Gone)?;
            match job.state {
                State::Refunded => return Ok(Outcome::Refunded(paid_by(&job))),
                State::RefundDue => {}
                other => return Err(RefundError::NotDue(other)),
            }
            let written = match job.open_refund() {
                None => {
                    fresh = self.sign(&job).await?;
                    fresh
                }
                Some(refund) if fresh && sent.is_none() => {
                    sent = Some(self.send(&job, refund, true).await?);
                    continue;
                }
                Some(refund) => match self.prove(&job, refund).await? {
                    Proven::Paid(transaction) => self.write(&job, Event::Refunded { transaction }).await?,
                    Proven::Lapsed => {
                        sent = None;
                        self.write(&job, Event::RefundLapsed).await?
                    }
                    Proven::Mined(transaction) => return Ok(Outcome::Mined(transaction)),
                    Proven::Nothing(why) => match sent {
                        Some(said) => return Ok(Outcome::Sent { said }),
                        None if self.may_send(refund) => {
                            sent = Some(self.send(&job, refund, false).await?);
                            continue;
                        }
                        None => return Ok(Outcome::Sent { said: why }),
                    },
                },
            };
            // Somebody else was faster, or is at it.
            if !written {
                if Instant::now() >= give_up {
                    return Err(RefundError::Busy);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Writes the next refund of a job to its journal; whether it is written, by us.
    async fn sign(&self, job: &Job) -> Result<bool, RefundError> {
        self.examine(job).await?;
        self.thawed().await?;
        let network = job.client.requirement.asset.network;
        let last = match self.chains.last_final(network).await {
            Some(last) => last.map_err(Unpayable::Unknown)?,
            None => return Err(Unpayable::NoChain(network).into()),
        };
        let lapses = self.clock.now().saturating_add(VALID);
        let Some(refund) = self.wallet.next_refund(job, lapses, last.number) else { return Ok(false) };
        Ok(self.write(job, Event::RefundSigned { refund }).await?)
    }

    /// Sends what the journal has to a facilitator. What it says, which proves nothing.
    async fn send(&self, job: &Job, refund: &Refund, first: bool) -> Result<String, RefundError> {
        // Also where it was signed before: it is not handed out again.
        self.thawed().await?;
        let request = self.request(job, refund)?;
        let answer = match first {
            true => self.facilitator.settle(&request).await,
            false => self.facilitator.settle_again(&request).await,
        };
        let said = match answer {
            Ok(Settlement::Settled(receipt)) => {
                format!("the facilitator says that it is paid, by {}", receipt.transaction)
            }
            Ok(Settlement::Pending(receipt)) => {
                format!("the facilitator has sent it, as {}", receipt.transaction)
            }
            Ok(Settlement::Refused(receipt)) => {
                let reason = receipt.error_reason.unwrap_or_else(|| "no reason given".to_owned());
                format!("the facilitator refuses it: {reason}")
            }
            Err(error) => error.to_string(),
        };
        info!(job = %job.id, attempt = refund.attempt, said, "a refund was sent");
        Ok(said)
    }

    /// An ordinary payment of scheme `exact`, of which the wallet is the payer: any facilitator settles it.
    fn request(&self, job: &Job, refund: &Refund) -> Result<PaymentRequest, RefundError> {
        let (authorization, signature) = self.wallet.sign_refund(job, refund)?;
        let requirement = Requirement {
            asset: job.client.requirement.asset.clone(),
            amount: authorization.value,
            pay_to: authorization.to,
            max_timeout_seconds: VALID,
            flow: PaymentFlow::Authorization,
        };
        let resource = Resource {
            url: format!("urn:uuid:{}", job.id),
            description: "refund".to_owned(),
            mime_type: "application/json".to_owned(),
        };
        let payload = requirement.paid_v2(&resource, &authorization, &signature);
        let odd = |_| RefundError::Unpayable(Unpayable::Record("its form"));
        Ok(PaymentRequest {
            x402_version: Version::V2,
            payment_requirements: to_raw_value(&payload["accepted"]).map_err(odd)?.into(),
            payment_payload: to_raw_value(&payload).map_err(odd)?.into(),
            payer: Some(authorization.from),
            network: Some(requirement.asset.network),
        })
    }

    /// Whether there is time for somebody to take it.
    fn may_send(&self, refund: &Refund) -> bool {
        refund.from == self.wallet.address() && refund.valid_before > self.clock.now().saturating_add(COLLECT)
    }

    async fn thawed(&self) -> Result<(), RefundError> {
        match self.switch.look().await? {
            None => Ok(()),
            Some(Frozen { reason, by, .. }) => Err(RefundError::Frozen { by, reason }),
        }
    }

    async fn prove(&self, job: &Job, refund: &Refund) -> Result<Proven, RefundError> {
        prove(&*self.chains, job, refund).await
    }

    async fn write(&self, job: &Job, event: Event) -> Result<bool, StoreError> {
        write(&*self.jobs, &self.clock, job, event).await
    }
}

fn paid_by(job: &Job) -> B256 {
    job.refunds.last().and_then(|refund| refund.transaction).unwrap_or_default()
}

/// What the chain proves of an open refund. An error, if somebody else has the wallet's key.
pub(super) async fn prove(
    chains: &dyn crate::chain::Prove,
    job: &Job,
    refund: &Refund,
) -> Result<Proven, RefundError> {
    let network = job.client.requirement.asset.network;
    Ok(match chains.prove(network, &sought(job, refund)).await {
        Some(Ok(Proof::Paid { transaction, is_final: true, .. })) => Proven::Paid(transaction),
        Some(Ok(Proof::Paid { transaction, .. })) => Proven::Mined(transaction),
        Some(Ok(Proof::Unpaid(Unpaid::Lapsed | Unpaid::Canceled))) => Proven::Lapsed,
        Some(Ok(Proof::Unpaid(Unpaid::Elsewhere | Unpaid::Before))) => return Err(RefundError::Elsewhere),
        Some(Ok(Proof::Open { as_of })) => {
            Proven::Nothing(format!("not paid up to final block {}; it may still be", as_of.number))
        }
        Some(Err(error)) => Proven::Nothing(error.to_string()),
        None => return Err(Unpayable::NoChain(network).into()),
    })
}

/// Writes `event` of a job that is as `seen`; whether that was done. Not, if it has moved on, or somebody has it in hand.
pub(super) async fn write(
    jobs: &dyn JobStore,
    clock: &Clock,
    seen: &Job,
    event: Event,
) -> Result<bool, StoreError> {
    let Some((job, lease)) = jobs.take_over(&seen.claim, LEASE).await? else { return Ok(false) };
    let next = match job.version == seen.version {
        true => job.apply(&event, clock.now_millis()).ok(),
        false => None,
    };
    let Some(next) = next else {
        // Should this fail, it lapses.
        if let Err(away) = jobs.release(&lease).await {
            warn!(%away, job = %job.id, "lease not released; it will lapse");
        }
        return Ok(false);
    };
    Ok(jobs.append(&lease, &event, &next).await? == Appended::Written)
}
