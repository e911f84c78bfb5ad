//! The broker: the paid flow, from an admitted payment to an answer, in a task of its own.
//!
//! ```text
//!  claim ─▶ verify ─▶ work (the provider is paid here) ─▶ settle ─▶ deliver          settle = "success"
//!  claim ─▶ settle ─▶ work ─▶ deliver                                                settle = "upfront"
//!  claim ─▶ verify ─▶ work ─▶ deliver ─▶ settle                                      settle = "after"
//! ```
//!
//! `attempt` is that flow, top to bottom, and `perform` the work in it. Every step that spends is in the `journal` first; money
//! leaves through the `purse` only; what a settlement's answer means is decided in `settlement` only, and what a
//! chain proves of it in `proof`; what is answered is in `delivery`, to a payment that was seen before in `again`, its content, where that is large, from
//! `results`; how it was handed out is recorded by `handing`, and if it breaks off later `broken` sees to it; what a crash left is found by
//! `recovery`; whoever wants to hear that a job is done is told by `webhooks`; what is said to be settled is looked for by `audit`. The broker knows no HTTP connection: a client that goes away changes nothing here.

mod again;
mod announce;
mod attempt;
mod audit;
mod batch;
mod broken;
mod debt;
mod delivery;
pub mod description;
mod guard;
mod handing;
mod idempotency;
mod journal;
mod perform;
mod proof;
mod purse;
mod recovery;
mod release;
mod results;
mod running;
mod settlement;
mod stop;
mod tally;
#[cfg(test)]
mod tests;
mod trust;
mod webhooks;
mod work;

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use crate::chain::{Chains, Prove};
use crate::clock::Clock;
use crate::facilitator::Facilitator;
use crate::guard::{BornLoss, Guards, Reserved};
use crate::ids::JobId;
use crate::jobs::job::Sold;
use crate::jobs::{ClaimKey, Fingerprint, Job, JobKind, JobStore, Lease, State, StoreError};
use crate::providers::Offer;
use crate::telemetry::Metrics;
use crate::wallet::{Payees, Wallet};
use crate::x402::{Asset, Authorization, Requirement, Version};

use audit::Audits;
use broken::Broken;
use journal::Journal;
use running::Running;
use tally::Tally;

pub use announce::{Announce, Announced};
pub use audit::Audit;
pub use batch::BatchWork;
pub use delivery::{Delivery, DeliveryBody, charged_so_far};
pub use idempotency::{IdempotencyKey, NameSort, NamedRoute, RequestName};
pub use recovery::Recovery;
pub use results::{KeptAnswer, NotKept, ResultLimits, Results};
pub use webhooks::{BadSecret, Webhook, WebhookRoom, WebhookSecret, Webhooks};
pub use work::{
    Another, BodyStream, FILES, PassedOn, Product, ProviderWork, Withdrawn, Work, WorkError, WorkFault,
};

/// A payment, as it was presented with a request.
#[derive(Clone, Debug)]
pub struct Presented {
    /// Its version; the receipt goes back in the same.
    pub version: Version,
    /// What the payer signed.
    pub authorization: Authorization,
    /// The token it is in.
    pub asset: Asset,
    /// The quote id it echoes, whole. `None` for v1.
    pub quote_id: Option<String>,
    /// What it is presented for.
    pub fingerprint: Fingerprint,
    /// Whether the request has a body. A body-less one paid by v1 has no secret in it at all.
    pub has_body: bool,
    /// Where its job is announced, for a client that does not wait for the answer.
    pub announce: Announce,
}

impl Presented {
    fn claim(&self) -> ClaimKey {
        ClaimKey::new(&self.asset, self.authorization.from, self.authorization.nonce)
    }
}

/// A payment that passed every local check, and the work it is for.
pub struct Sale {
    /// The payment.
    pub payment: Presented,
    /// The decoded payment, verbatim.
    pub payload: Arc<RawValue>,
    /// What it pays.
    pub requirement: Requirement,
    /// The same as the facilitator is to be shown it.
    pub requirements: Arc<RawValue>,
    /// The quote's job id: taken if it is free. `None` for v1, which echoes nothing.
    pub job: Option<JobId>,
    /// The client's own name for the request, if it gave one.
    pub key: Option<IdempotencyKey>,
    /// What the payer calls the request: at most one name of each sort.
    pub names: Vec<RequestName>,
    /// Who is told when it is done.
    pub webhook: Option<Webhook>,
    /// Store, run or app.
    pub kind: JobKind,
    /// Provider, operation, price.
    pub sold: Sold,
    /// The provider's terms, fresh; `None` where nobody is paid: the app's own work.
    pub offer: Option<Offer>,
    /// Its answer may go out before its payment is settled. Only for the app's own work.
    pub after: bool,
    /// What is lost on it, if the provider's price has overtaken the client's.
    pub loss: Option<BornLoss>,
    /// What its provider may be paid of. The broker reserves it.
    pub reserved: Option<Reserved>,
    /// The work itself.
    pub work: Box<dyn Work>,
}

/// What pays providers, and what keeps it from paying.
#[derive(Clone)]
pub struct Spending {
    /// The key. It may be missing where no route is brokered.
    pub wallet: Option<Arc<Wallet>>,
    /// The limits.
    pub guards: Arc<Guards>,
    /// Whom it pays.
    pub payees: Arc<Payees>,
}

/// Deadlines of paid work.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The provider's whole part.
    pub work_timeout: Duration,
    /// Before the authorization lapses by less than this, no work is started or waited for.
    pub settle_margin: Duration,
    /// How long a request is held while a settlement's outcome is unknown.
    pub unknown_hold: Duration,
    /// How long a job stays ours without a sign of life.
    pub lease: Duration,
    /// Attempts running at once at most.
    pub max_jobs: usize,
}

/// Who asks for a job that has just ended waits this long for the record of it.
const WRITTEN_SOON: Duration = Duration::from_secs(5);

/// Whether the process is ending.
type Ending = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the broker works with. One for the whole process, shared.
pub struct Broker {
    jobs: Arc<dyn JobStore>,
    facilitator: Arc<dyn Facilitator>,
    spending: Spending,
    chains: Arc<dyn Prove>,
    metrics: Arc<Metrics>,
    tally: Arc<Tally>,
    clock: Clock,
    limits: Limits,
    slots: Arc<Semaphore>,
    running: Running,
    audits: Audits,
    results: Results,
    broken: Broken,
    ending: Ending,
}

impl Broker {
    /// A broker over these.
    pub fn new(
        jobs: Arc<dyn JobStore>,
        facilitator: Arc<dyn Facilitator>,
        spending: Spending,
        metrics: Arc<Metrics>,
        clock: Clock,
        limits: Limits,
    ) -> Self {
        let tally = Arc::new(Tally::new(Arc::clone(&metrics), Arc::clone(&spending.guards)));
        let slots = Arc::new(Semaphore::new(limits.max_jobs.min(Semaphore::MAX_PERMITS)));
        let chains = Arc::new(Chains::default());
        let (running, audits, results) = (Running::default(), Audits::default(), Results::none());
        Broker {
            jobs,
            facilitator,
            chains,
            spending,
            metrics,
            tally,
            clock,
            limits,
            slots,
            running,
            audits,
            results,
            broken: Broken::default(),
            ending: Arc::new(|| false),
        }
    }

    /// With somebody to ask what happened to a payment when nobody else can say.
    #[must_use]
    pub fn proved_by(mut self, chains: Arc<dyn Prove>) -> Self {
        self.chains = chains;
        self
    }

    /// In a process that can say whether it is ending: what is cut off then is not taken for a client that goes away.
    #[must_use]
    pub fn ending_when(mut self, ending: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.ending = Arc::new(ending);
        self
    }

    /// Keeping answers that are too large for the record of their job.
    #[must_use]
    pub fn keeping(mut self, results: Results) -> Self {
        self.results = results;
        self
    }

    /// The answers that are kept here.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// The job with this public id.
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let Some(job) = self.jobs.by_id(id).await? else { return Ok(None) };
        if job.state != State::Settling {
            return Ok(Some(job));
        }
        // Its end may be on its way to the store: who has its answer must find it so, and a state that is told is on record.
        let _ = tokio::time::timeout(WRITTEN_SOON, self.running.written(&job.claim)).await;
        self.jobs.by_claim(&job.claim).await
    }

    /// The store, for lookups.
    pub fn jobs(&self) -> &Arc<dyn JobStore> {
        &self.jobs
    }

    /// The limits of what it spends.
    pub fn guards(&self) -> &Arc<Guards> {
        &self.spending.guards
    }

    /// The journal of a job we hold the lease of.
    fn journal(&self, job: Job, lease: Lease) -> Journal {
        let running = self.running.enter(job.claim.clone());
        Journal::new(Arc::clone(&self.jobs), self.clock.clone(), Arc::clone(&self.tally), job, lease, running)
    }
}
