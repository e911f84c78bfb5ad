//! Settling the client's payment, and what each answer proves.
//!
//! A facilitator's "no" is taken as final only if it is the first thing it says about a payment, and is one of those
//! that are found before anything is sent ([`is_final`]): after a time-out or a crash, "nonce already used" or "expired"
//! may be what a *successful* earlier settle looks like from outside. Anything else leaves the payment unsettled-or-not
//! until the identical settle succeeds, or the chain proves it one way or the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::Broker;
use super::proof::ClientProof;
use crate::facilitator::{FacilitatorError, PaymentRequest, Settlement};
use crate::jobs::Job;
use crate::telemetry;
use crate::x402::Receipt;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The chain has this long to answer, even if whoever waits for it has waited long enough.
const SHORT_PROOF: Duration = Duration::from_secs(3);

/// What became of a settlement.
pub(super) enum Settled {
    /// The money is ours.
    Yes(Receipt),
    /// It will not settle: nothing was sent before the facilitator said so, or the chain proves it.
    No {
        /// The facilitator's words, or what is proven.
        reason: String,
    },
    /// Nobody knows. Never answered with a fresh challenge.
    Unknown,
}

impl Broker {
    /// Settles `job`'s client payment. `fresh`: this is the first time `/settle` is called for it.
    /// While the outcome is unknown the identical request is repeated and the chain asked, for `hold` at most.
    pub(super) async fn settle(&self, job: &Job, mut fresh: bool, hold: Duration) -> Settled {
        let request = payment_request(job);
        let give_up = tokio::time::Instant::now() + hold;
        let mut pause = FIRST_PAUSE;
        // What it refused once it is not asked again: it would say the same of a payment that is settled.
        let mut refused = false;
        loop {
            if !refused {
                let asked = Instant::now();
                let answer = match fresh {
                    true => self.facilitator.settle(&request).await,
                    false => self.facilitator.settle_again(&request).await,
                };
                self.metrics.settled(asked.elapsed(), telemetry::Settled::from(&answer));
                match answer {
                    Ok(Settlement::Settled(receipt)) => {
                        self.look_for(job, &receipt.transaction).await;
                        return Settled::Yes(receipt);
                    }
                    Ok(Settlement::Refused(receipt)) if fresh && is_final(&receipt) => {
                        // Unless somebody else has sent it: the payer need not wait for a facilitator.
                        return match Box::pin(self.prove_client(job, SHORT_PROOF)).await {
                            ClientProof::Paid(receipt) => Settled::Yes(receipt),
                            ClientProof::Unpaid(_) | ClientProof::Nothing => {
                                Settled::No { reason: words(&receipt) }
                            }
                        };
                    }
                    Ok(Settlement::Refused(receipt)) => {
                        (fresh, refused) = (false, true);
                        error!(job = %job.id, reason = words(&receipt), transaction = receipt.transaction,
                            "a settlement is refused, which does not prove that the payment was not made");
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
            }
            if !fresh {
                let left = give_up.saturating_duration_since(tokio::time::Instant::now());
                match Box::pin(self.prove_client(job, left.max(SHORT_PROOF))).await {
                    ClientProof::Paid(receipt) => return Settled::Yes(receipt),
                    ClientProof::Unpaid(why) => return Settled::No { reason: why.to_string() },
                    ClientProof::Nothing => {}
                }
            }
            let nobody_to_ask = refused && !self.chains.knows(job.client.requirement.asset.network);
            if nobody_to_ask || tokio::time::Instant::now() + pause >= give_up {
                return Settled::Unknown;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The body of `/verify` and `/settle` for this job: the same bytes every time.
pub(super) fn payment_request(job: &Job) -> PaymentRequest {
    PaymentRequest {
        x402_version: job.client.version,
        payment_payload: Arc::clone(&job.client.payload),
        payment_requirements: Arc::clone(&job.client.requirements),
        payer: Some(job.requester),
        network: Some(job.client.requirement.asset.network),
    }
}

/// What a refusal says that is found by looking at the payment and the payer's balance, before anything is sent. Each
/// without the words that only some facilitators put before it ([`PREFIXES`]). Anybody may send a signed transfer, so a
/// nonce that is used, a simulation or a transaction that failed are not here; nor is any word that is not known.
const BEFORE_SENDING: [&str; 34] = [
    "accepted_requirements_mismatch",
    "amount",
    "amount_mismatch",
    "asset_mismatch",
    "asset_not_deployed_contract",
    "chain_id_mismatch",
    "early",
    "eip3009_not_supported",
    "eip6492_factory_not_allowed",
    "expired",
    "failed_to_parse_signature",
    "format",
    "insufficient_balance",
    "insufficient_funds",
    "missing_eip712_domain",
    "network",
    "network_mismatch",
    "recipient_mismatch",
    "requirements",
    "scheme",
    "signature",
    "token_name_mismatch",
    "token_version_mismatch",
    "undeployed_smart_wallet",
    "unsupported_chain",
    "unsupported_network",
    "unsupported_payload_type",
    "unsupported_scheme",
    "valid_after",
    "valid_before",
    "value",
    "value_mismatch",
    "version",
    "x402_version",
];

/// What facilitators put before a reason, in this order, each or not.
const PREFIXES: [&str; 5] = ["invalid_", "exact_evm_", "payload_", "authorization_", "payment_"];

/// Whether a refusal says that nothing was sent. One that names a transaction, or no reason, does not.
fn is_final(receipt: &Receipt) -> bool {
    let reason = receipt.error_reason.as_deref().unwrap_or_default().to_ascii_lowercase();
    let fault =
        PREFIXES.iter().fold(reason.as_str(), |rest, prefix| rest.strip_prefix(prefix).unwrap_or(rest));
    receipt.transaction.is_empty() && BEFORE_SENDING.contains(&fault)
}

fn words(receipt: &Receipt) -> String {
    receipt.error_reason.clone().unwrap_or_else(|| "no reason given".to_owned())
}
