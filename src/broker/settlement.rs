//! Settling the client's payment, and what each answer proves.
//!
//! A facilitator's "no" is taken as final only if it is the first thing it says about a payment, and says that nothing
//! was sent ([`is_final`]): after a time-out or a crash, "nonce already used" or "expired" may be what a *successful*
//! earlier settle looks like from outside. Such a payment stays unsettled-or-not until the identical settle succeeds or
//! the chain is asked.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tracing::{error, warn};

use super::Broker;
use crate::facilitator::{FacilitatorError, PaymentRequest, Settlement};
use crate::jobs::Job;
use crate::telemetry;
use crate::x402::Receipt;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What became of a settlement.
pub(super) enum Settled {
    /// The money is ours.
    Yes(Receipt),
    /// It will not settle; nothing was sent before this answer.
    No {
        /// The facilitator's words.
        reason: String,
    },
    /// Nobody knows. Never answered with a fresh challenge.
    Unknown,
}

impl Broker {
    /// Settles `job`'s client payment. `fresh`: this is the first time `/settle` is called for it.
    /// While the outcome is unknown the identical request is repeated, for `hold` at most.
    pub(super) async fn settle(&self, job: &Job, mut fresh: bool, hold: Duration) -> Settled {
        let request = payment_request(job);
        let give_up = tokio::time::Instant::now() + hold;
        let mut pause = FIRST_PAUSE;
        loop {
            let asked = Instant::now();
            let answer = match fresh {
                true => self.facilitator.settle(&request).await,
                false => self.facilitator.settle_again(&request).await,
            };
            self.metrics.settled(asked.elapsed(), telemetry::Settled::from(&answer));
            match answer {
                Ok(Settlement::Settled(receipt)) => return Settled::Yes(receipt),
                Ok(Settlement::Refused(receipt)) if fresh && is_final(&receipt) => {
                    return Settled::No { reason: words(&receipt) };
                }
                // It would say this of a payment that is settled: by an earlier call, or by whoever sent it first.
                Ok(Settlement::Refused(receipt)) => {
                    error!(job = %job.id, reason = words(&receipt), transaction = receipt.transaction,
                        "a settlement is refused, which does not prove that the payment was not made");
                    return Settled::Unknown;
                }
                Ok(Settlement::Pending(receipt)) => {
                    fresh = false;
                    warn!(job = %job.id, transaction = receipt.transaction, "settlement pending");
                }
                Err(FacilitatorError::NotSent(why)) => {
                    warn!(job = %job.id, why, "facilitator not reached for settle")
                }
                Err(FacilitatorError::Unknown(why)) => {
                    fresh = false;
                    warn!(job = %job.id, why, "the outcome of a settle is unknown");
                }
            }
            if tokio::time::Instant::now() + pause >= give_up {
                return Settled::Unknown;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The body of `/verify` and `/settle` for this job: the same bytes every time.
pub(super) fn payment_request(job: &Job) -> PaymentRequest {
    let verbatim = |raw: &RawValue| raw.to_owned();
    PaymentRequest {
        x402_version: job.client.version,
        payment_payload: verbatim(&job.client.payload),
        payment_requirements: verbatim(&job.client.requirements),
    }
}

/// What a refusal says when the transfer may be on chain all the same. Anybody may send a signed transfer, so the nonce
/// may have been used by this very payment; and where a transaction failed, or something unexpected happened, some
/// facilitators say no more than that of a used nonce.
const IN_DOUBT: [&str; 6] = ["nonce", "transaction", "unexpected", "duplicate", "timed_out", "timeout"];

/// Whether a refusal says that nothing was sent. One that names a transaction, or no reason, does not.
fn is_final(receipt: &Receipt) -> bool {
    let reason = receipt.error_reason.as_deref().unwrap_or_default();
    receipt.transaction.is_empty()
        && !reason.is_empty()
        && !IN_DOUBT.iter().any(|word| reason.to_ascii_lowercase().contains(word))
}

fn words(receipt: &Receipt) -> String {
    receipt.error_reason.clone().unwrap_or_else(|| "no reason given".to_owned())
}
