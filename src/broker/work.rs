//! The work a payment buys: by a provider ([`ProviderWork`]), or by the app (implemented at the edge).

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::release::entity_tag;
use super::results::{NotKept, Results, is_event_stream, key};
use crate::guard::Guards;
use crate::ids::FileId;
use crate::intake::{Ask, Content, Data, Wanted};
use crate::jobs::job::PassedOver;
use crate::jobs::{Answer, Event, Job, JobStore, Kept, Shortfall};
use crate::providers::{Done, Fault, Offer, Order, Passed, PassedBody, Provider, ProviderError, Purse};
use crate::quote_cache::{Dollars, QuoteCache};
use crate::reason::Reason;
use crate::telemetry::Metrics;

/// A response body that is streamed, not kept.
pub type BodyStream =
    http_body_util::combinators::UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// The store's space for the handles behind `GET /files/{id}`.
pub const FILES: &str = "files";

/// What is held against a provider that was passed over since nothing more may be spent with it.
const BUDGET: &str = "budget";

/// One piece of work, done once.
#[async_trait]
pub trait Work: Send {
    /// Does it within `deadline`; pays, if at all, through `purse`. Dropped when the deadline passes.
    async fn perform(
        self: Box<Self>,
        job: &Job,
        purse: &dyn Purse,
        deadline: Duration,
    ) -> Result<Product, WorkError>;

    /// How many payments it may take, each of what the offer costs. Above one, its job is of work in several parts.
    fn payments(&self) -> u16 {
        1
    }

    /// The same work by somebody else. Asked for only where this one failed, gave itself back in
    /// [`WorkError::undone`], and nobody was paid for it.
    async fn by_another(self: Box<Self>) -> Option<Another> {
        None
    }

    /// Why it is not sold after all. Its payment is told to buy nothing, and is claimed all the same: a copy of it that is still on
    /// its way must not buy what its client pays for anew.
    fn withdrawn(&self) -> Option<Reason> {
        None
    }

    /// Leaves it to somebody else before it was begun, because whoever was to do it may not be paid. `None`: there is nobody
    /// else, and it is as it was.
    async fn passed_on(&mut self) -> Option<PassedOn> {
        None
    }
}

/// Work that is not sold after all, for this reason.
pub struct Withdrawn(pub Reason);

#[async_trait]
impl Work for Withdrawn {
    async fn perform(self: Box<Self>, _: &Job, _: &dyn Purse, _: Duration) -> Result<Product, WorkError> {
        Err(WorkError::new(self.0, self.0.text()))
    }

    fn withdrawn(&self) -> Option<Reason> {
        Some(self.0)
    }
}

/// To whom work was passed on.
pub struct PassedOn {
    /// Who does it.
    pub provider: String,
    /// As what.
    pub operation: String,
    /// On which terms, fresh.
    pub offer: Offer,
    /// Who was to do it before, in order.
    pub passed_over: Vec<PassedOver>,
}

/// Work that somebody else does in place of one that failed unpaid.
pub struct Another {
    /// The work.
    pub work: Box<dyn Work>,
    /// Who does it.
    pub provider: String,
    /// As what.
    pub operation: String,
    /// On which terms, fresh.
    pub offer: Offer,
    /// Who failed so far, in order.
    pub passed_over: Vec<PassedOver>,
}

/// Work done: the answer to keep, and its body if that is too large to keep.
pub struct Product {
    /// Status, fields, and the body where it was read whole.
    pub answer: Answer,
    /// What was not done of it, and is owed to the client.
    pub shortfall: Option<Shortfall>,
    /// The body where it was not; then `answer.body` is [`Kept::Not`].
    pub stream: Option<BodyStream>,
    /// Fields for this one client connection, such as cookies: sent with the first answer, neither kept nor replayed.
    pub once: Vec<(String, String)>,
}

impl Product {
    /// What it means for its job, and what is for this one delivery alone.
    pub(super) fn into_event(self) -> (Event, Option<BodyStream>, Vec<(String, String)>) {
        let answer = self.answer;
        let event = match self.shortfall {
            None => Event::Answered { answer },
            Some(shortfall) => Event::AnsweredInPart { answer, shortfall },
        };
        (event, self.stream, self.once)
    }
}

/// Work not done. The client is not charged for it.
pub struct WorkError {
    /// Why.
    pub fault: WorkFault,
    /// For the log.
    pub message: String,
    /// The work itself, if another may do it.
    pub undone: Option<Box<dyn Work>>,
}

/// Why work was not done.
pub enum WorkFault {
    /// Answered with this reason.
    Reason(Reason),
    /// The app answered with a failure of its own, which the client gets as it stands.
    Declined(Box<Product>),
}

impl WorkError {
    /// Failed for this reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        WorkError { fault: WorkFault::Reason(reason), message: message.into(), undone: None }
    }

    /// The reason code of this failure.
    pub fn reason(&self) -> Reason {
        match &self.fault {
            WorkFault::Reason(reason) => *reason,
            WorkFault::Declined(_) => Reason::AppFailed,
        }
    }
}

impl From<ProviderError> for WorkError {
    fn from(error: ProviderError) -> Self {
        let reason = match error.fault {
            Fault::Timeout => Reason::ProviderTimeout,
            Fault::Internal => Reason::Internal,
            Fault::Guarded(reason) => reason,
            Fault::Funds => Reason::WalletLow,
            Fault::Unreachable | Fault::Broken | Fault::Refused | Fault::Unpaid | Fault::Terms => {
                Reason::ProviderFailed
            }
        };
        WorkError::new(reason, error.to_string())
    }
}

/// An order placed with a provider.
pub struct ProviderWork {
    /// Who does it.
    pub provider: Arc<dyn Provider>,
    /// Which of its operations.
    pub operation: String,
    /// What was asked.
    pub ask: Ask,
    /// The bytes.
    pub content: Content,
    /// Its terms, fresh.
    pub offer: Offer,
    /// What another may cost that does it instead.
    pub at_most: Dollars,
    /// Who failed before it, in order.
    pub passed_over: Vec<PassedOver>,
    /// Who else sells it, and where failures are remembered.
    pub quotes: Arc<QuoteCache>,
    /// Where handles of stored files are kept.
    pub files: Arc<dyn JobStore>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Who hears that the wallet is empty.
    pub guards: Arc<Guards>,
    /// What `url` of a stored file starts with, e.g. `https://api.example.com/files/`.
    pub files_url: String,
    /// The largest answer that is kept in the store, in bytes.
    pub result_max: u64,
    /// Where the job is followed, e.g. `https://api.example.com/jobs/`.
    pub jobs_url: Option<String>,
    /// Nobody waits for the answer: one that can be given only once is none.
    pub later: bool,
    /// Where larger answers are kept.
    pub results: Results,
}

#[async_trait]
impl Work for ProviderWork {
    async fn perform(
        mut self: Box<Self>,
        job: &Job,
        purse: &dyn Purse,
        deadline: Duration,
    ) -> Result<Product, WorkError> {
        match self.place(job, 0, &self.content, purse, deadline).await {
            Ok(Done { passed: Some(passed), .. }) => {
                let product = self.passed(job, passed);
                self.keep_for_later(job, product).await
            }
            Ok(done) => {
                let mut result = self.publish(done).await?;
                result.entry("size").or_insert_with(|| self.content.data.size().into());
                let product = self.product(job, 200, result, None);
                self.keep_for_later(job, product).await
            }
            // Our own store or wallet: it would fail with any provider.
            Err(error) if error.fault.is_ours() => Err(error.into()),
            // It has the bytes, and we have not.
            Err(error) if matches!(self.content.data, Data::Received(_)) => Err(error.into()),
            Err(error) => {
                self.failed_with(error.fault);
                Err(WorkError { undone: Some(self), ..error.into() })
            }
        }
    }

    async fn passed_on(&mut self) -> Option<PassedOn> {
        // It has the bytes, and we have not.
        if matches!(self.content.data, Data::Received(_)) {
            return None;
        }
        let provider = self.provider.name().to_owned();
        self.passed_over.push(PassedOver { provider, fault: BUDGET.to_owned() });
        let without: Vec<&str> = self.passed_over.iter().map(|passed| passed.provider.as_str()).collect();
        let Some(found) = self.quotes.substitute(&self.ask, &without, self.at_most).await else {
            self.passed_over.pop();
            return None;
        };
        self.metrics.provider_failed_over(self.provider.name());
        self.provider = found.provider;
        self.operation = found.operation.to_owned();
        self.offer = found.offer;
        Some(PassedOn {
            provider: self.provider.name().to_owned(),
            operation: self.operation.clone(),
            offer: self.offer.clone(),
            passed_over: self.passed_over.clone(),
        })
    }

    async fn by_another(self: Box<Self>) -> Option<Another> {
        let work = self.with_another().await?;
        Some(work.another(|work| work))
    }
}

impl ProviderWork {
    /// Places the order for some of the bytes; `part` is 0 if they are all there are.
    pub(super) async fn place(
        &self,
        job: &Job,
        part: u16,
        content: &Content,
        purse: &dyn Purse,
        deadline: Duration,
    ) -> Result<Done, ProviderError> {
        let order = Order {
            job: job.id,
            attempt: job.attempt,
            part,
            operation: self.operation.clone(),
            ask: Ask { files: 1, size: content.data.size(), ..self.ask.clone() },
            content: content.clone(),
            offer: self.offer.clone(),
            deadline,
        };
        let began = Instant::now();
        let attempted = self.quotes.attempting(self.provider.name());
        let done = match self.provider.perform(&order, purse).await {
            Ok(done) => self.read_ahead(done).await,
            Err(error) => Err(error),
        };
        let fault = done.as_ref().err().map(|error| error.fault);
        attempted.ended(fault);
        self.metrics.provider_performed(self.provider.name(), &self.operation, fault, began.elapsed());
        if fault == Some(Fault::Funds) {
            self.guards.refused_for_funds(&self.offer.asset);
        }
        done
    }

    /// Its provider is not to be asked again for this.
    pub(super) fn failed_with(&mut self, fault: Fault) {
        let (provider, fault) = (self.provider.name().to_owned(), fault.to_string());
        self.passed_over.push(PassedOver { provider, fault });
    }

    /// The same, done by the cheapest of those that were not passed over.
    pub(super) async fn with_another(self) -> Option<ProviderWork> {
        let without: Vec<&str> = self.passed_over.iter().map(|passed| passed.provider.as_str()).collect();
        let found = self.quotes.substitute(&self.ask, &without, self.at_most).await?;
        self.metrics.provider_failed_over(self.provider.name());
        Some(ProviderWork {
            provider: found.provider,
            operation: found.operation.to_owned(),
            offer: found.offer,
            ..self
        })
    }

    /// It is that somebody else does.
    pub(super) fn another<W: Work + 'static>(self, work: impl FnOnce(Self) -> W) -> Another {
        Another {
            provider: self.provider.name().to_owned(),
            operation: self.operation.clone(),
            offer: self.offer.clone(),
            passed_over: self.passed_over.clone(),
            work: Box::new(work(self)),
        }
    }

    /// A short answer is read before it is charged for. Events are told as they happen.
    async fn read_ahead(&self, done: Done) -> Result<Done, ProviderError> {
        let passed = match done.passed {
            Some(passed) if !passed.content_type.as_deref().is_some_and(is_event_stream) => {
                Some(passed.read_ahead(self.result_max).await?)
            }
            passed => passed,
        };
        Ok(Done { passed, ..done })
    }

    /// An answer that nobody waits for is whole, and kept, before it is charged for.
    async fn keep_for_later(&self, job: &Job, product: Product) -> Result<Product, WorkError> {
        match product.stream {
            Some(stream) if self.later => {
                let kept = self.results.keep_whole(key(job), stream).await;
                let failed = |why: NotKept| {
                    WorkError::new(Reason::ProviderFailed, format!("an answer for later is not kept: {why}"))
                };
                Ok(Product { stream: Some(kept.map_err(failed)?), ..product })
            }
            stream => Ok(Product { stream, ..product }),
        }
    }

    /// The provider's answer as it is.
    fn passed(&self, job: &Job, passed: Passed) -> Product {
        let Passed { content_type, content_encoding, body } = passed;
        let mut headers: Vec<(String, String)> = [
            ("content-type", content_type.unwrap_or_else(|| "application/octet-stream".to_owned())),
            // The bytes and their type are a stranger's, on the operator's own origin: nothing in them may run.
            ("x-content-type-options", "nosniff".to_owned()),
            ("content-security-policy", "sandbox; default-src 'none'".to_owned()),
            ("etag", entity_tag(job.id)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        headers.extend(content_encoding.map(|coding| ("content-encoding".to_owned(), coding)));
        let url = self.jobs_url.as_ref().map(|url| format!("{url}{}", job.id));
        headers.extend(url.map(|url| ("content-location".to_owned(), url)));
        let (body, stream) = match body {
            PassedBody::Whole(bytes) => (Kept::Whole(bytes.into()), None),
            PassedBody::Arriving(stream, _) => (Kept::Not, Some(stream)),
        };
        Product { answer: Answer { status: 200, headers, body }, shortfall: None, stream, once: Vec::new() }
    }

    /// Gives a result that is read back through us a public name of its own.
    pub(super) async fn publish(&self, done: Done) -> Result<serde_json::Map<String, Value>, WorkError> {
        let mut result = done.result;
        if let Some(handle) = done.stored {
            let id = FileId::random();
            let record = serde_json::to_vec(&handle)
                .map_err(|error| WorkError::new(Reason::Internal, error.to_string()))?;
            // As long as the bytes are: the provider has a default where the client named no time.
            let kept = result.get("ttl").and_then(Value::as_u64);
            let ttl = match self.ask.wanted {
                Wanted::Store { ttl, .. } => ttl.max(kept).map(Duration::from_secs),
                Wanted::Run { .. } => None,
            };
            self.files
                .put(FILES, &id.to_string(), &record, ttl)
                .await
                .map_err(|error| WorkError::new(Reason::StoreAway, error.to_string()))?;
            result.insert("url".into(), format!("{}{id}", self.files_url).into());
        }
        Ok(result)
    }

    /// The answer with this result.
    pub(super) fn product(
        &self,
        job: &Job,
        status: u16,
        mut result: serde_json::Map<String, Value>,
        shortfall: Option<Shortfall>,
    ) -> Product {
        let decimals = job.client.requirement.asset.decimals;
        let price = job.quote.price.to_decimal(decimals).parse::<serde_json::Number>();
        let price = price.map_or(Value::Null, Value::Number);
        result.entry("provider").or_insert_with(|| self.provider.name().into());
        result.insert("priceUsd".into(), price);
        result.insert("encoding".into(), serde_json::to_value(self.content.encoding).unwrap_or(Value::Null));
        let body = json!({ "jobId": job.id, "status": "completed", "result": result }).to_string();
        // What a program prints is the client's to choose, and the record of a job is read often.
        let (body, stream) = if body.len() as u64 > self.result_max {
            (Kept::Not, Some(whole(body.into())))
        } else {
            (Kept::Whole(body.into_bytes()), None)
        };
        let headers = vec![("content-type".into(), "application/json".into())];
        Product { answer: Answer { status, headers, body }, shortfall, stream, once: Vec::new() }
    }
}

fn whole(body: Bytes) -> BodyStream {
    http_body_util::Full::new(body).map_err(|never| match never {}).boxed_unsync()
}
