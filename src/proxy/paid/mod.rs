//! What is sold: from a request on a priced or brokered route to its answer.
//!
//! This is where the parts meet, and nothing else: intake measures, the gate decides, the broker works, and
//! each of them says what it does. [`Paid::sell`] reads top to bottom. A request without a payment does no I/O here
//! unless there is no quote yet.

mod app_work;
mod endpoints;
mod read;
mod reply;
mod request;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use http::{Request, Uri};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::drain::{Drain, Kind};
use super::forward::Forward;
use super::peer::Peer;
use super::request_body::RequestBody;
use super::router::Own;
use super::sell::{Answer, Sell};
use crate::broker::{Broker, Delivery, FILES, Presented, ProviderWork, Sale, Work};
use crate::clock::Clock;
use crate::config::resolved::{self, Action, BrokeredWork, Config, Route};
use crate::gate::{self, Admission, Books, Decision, Missing};
use crate::ids::JobId;
use crate::intake;
use crate::jobs::{ClaimKey, JobKind, JobStore};
use crate::money::Amount;
use crate::providers::{Offer, Registry};
use crate::quote_cache::{Dollars, Quote, QuoteCache, RouteId};
use crate::reason::{Charged, Problem, Reason, Retry};
use crate::telemetry::Metrics;
use crate::x402::{Asset, CheckError, Domain, Payment, PaymentFlow, Resource, Verified, Window, check};
use app_work::AppWork;
use endpoints::Files;
use read::{Held, Memory};
use request::Asked;

/// Seconds between the end of the work and the lapse of the authorization that settling is sure to need.
const SETTLE_SECONDS: u64 = 6;

/// Everything that sold routes are answered with.
pub struct Paid(Arc<Inner>);

/// The parts of [`Paid`].
pub struct Parts {
    /// The quotes.
    pub quotes: Arc<QuoteCache>,
    /// The broker.
    pub broker: Arc<Broker>,
    /// Who sells work.
    pub providers: Registry,
    /// The way to the app, for priced routes.
    pub forward: Arc<Forward>,
    /// Waits for paid work at the end.
    pub drain: Drain,
    /// Where paid work and every outgoing call of it run: a runtime that outlives the edge's.
    pub runtime: Handle,
    /// The time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Why nothing is sold just now, if nothing is; kept by whoever watches store and wallet.
    pub closed: Arc<ArcSwapOption<Problem>>,
}

struct Inner {
    parts: Parts,
    rules: Vec<Option<Rule>>,
    public_url: Option<Uri>,
    paid: resolved::Paid,
    loss_limit: Dollars,
    /// The EIP-712 domains of what we take, made once.
    domains: HashMap<Asset, Domain>,
    memory: Memory,
    jobs: Arc<Semaphore>,
    files: Files,
}

/// A sold route.
struct Rule {
    id: RouteId,
    work: Option<BrokeredWork>,
    flow: PaymentFlow,
    description: String,
    mime_type: String,
}

impl Paid {
    /// Puts the parts together.
    pub fn new(parts: Parts, config: &Config) -> Self {
        let limit = Amount::from_decimal(&config.pricing.quote_loss_limit, 6).unwrap_or(Amount::ZERO);
        let domains = config.accepts.iter().map(|accept| (accept.asset.clone(), Domain::new(&accept.asset)));
        Paid(Arc::new(Inner {
            rules: config.routes.iter().enumerate().map(|(at, route)| Rule::new(at, route)).collect(),
            public_url: config.edge.public_url.clone(),
            loss_limit: Dollars { units: limit, decimals: 6 },
            domains: domains.collect(),
            memory: Memory::new(config.paid.max_body_memory),
            jobs: Arc::new(Semaphore::new(config.paid.max_jobs)),
            files: Files::new(config.paid.result_max),
            paid: config.paid.clone(),
            parts,
        }))
    }
}

impl Rule {
    fn new(at: usize, route: &Route) -> Option<Rule> {
        let id = RouteId(at);
        match &route.action {
            Action::Free => None,
            Action::Priced { settle, description, mime_type, .. } => Some(Rule {
                id,
                work: None,
                flow: *settle,
                description: description.clone(),
                mime_type: mime_type.clone(),
            }),
            Action::Brokered { work, settle } => Some(Rule {
                id,
                work: Some(*work),
                flow: *settle,
                description: match work {
                    BrokeredWork::Store => "Store data".to_owned(),
                    BrokeredWork::Run => "Run code".to_owned(),
                },
                mime_type: "application/json".to_owned(),
            }),
        }
    }
}

impl Sell for Paid {
    fn sell(&self, rule: usize, request: Request<RequestBody>, peer: Peer) -> BoxFuture<'static, Answer> {
        let this = Arc::clone(&self.0);
        let paid = Payment::is_in(request.headers());
        Box::pin(async move {
            this.sell(rule, request, peer).await.unwrap_or_else(|mut problem| {
                // Not looked at, it may be a payment that was taken before: who sent it must not sign another.
                if paid && problem.reason.retry() == Retry::SamePayment {
                    problem.charged.get_or_insert(Charged::Unknown);
                }
                Answer::from(problem)
            })
        })
    }

    fn own(&self, own: Own, _: Request<RequestBody>, _: Peer) -> BoxFuture<'static, Answer> {
        let this = Arc::clone(&self.0);
        Box::pin(async move { this.endpoint(own).await.unwrap_or_else(Answer::from) })
    }
}

impl Inner {
    /// A request on a sold route, from its head to its answer.
    async fn sell(
        self: Arc<Self>,
        rule: usize,
        request: Request<RequestBody>,
        peer: Peer,
    ) -> Result<Answer, Problem> {
        let began = Instant::now();
        let rule = self.rules.get(rule).and_then(Option::as_ref).ok_or(Reason::Internal)?;
        if let Some(closed) = self.closed() {
            return Err(closed);
        }
        let mut asked = Asked::new(request, &peer, self.public_url.as_ref());
        let payment = match Payment::from_headers(&asked.parts.headers, self.paid.max_payment_header) {
            Ok(payment) => payment.map(Ok),
            // A payment that cannot be read is answered with a challenge, like none at all.
            Err(error) if error.reason().status() == 402 => Some(Err(error.reason())),
            Err(error) => return Err(Problem::new(error.reason()).charged(Charged::No)),
        };
        self.measure(rule, &mut asked).await?;

        let refusal = match payment {
            // In an allocation of its own: what paid work keeps in mind is a hundred times what a challenge does,
            // and each challenge would have to make room for it.
            Some(Ok(payment)) => return Box::pin(self.paid(rule, asked, payment)).await,
            Some(Err(reason)) => Some(Problem::new(reason).charged(Charged::No)),
            None => None,
        };
        let answer = self.challenge(rule, &asked, refusal).await;
        self.parts.metrics.challenged(began.elapsed());
        answer
    }

    /// A request that brings a payment, to its answer.
    async fn paid(&self, rule: &Rule, mut asked: Asked, payment: Payment) -> Result<Answer, Problem> {
        match self.admit(rule, &mut asked, &payment).await? {
            Admitted::Sale(sale) => {
                let delivery = self.run(*sale, asked.held.take()).await?;
                self.deliver(rule, &asked, delivery).await
            }
            Admitted::Not(problem) => match self.known(&mut asked, &payment).await? {
                Some(delivery) => self.deliver(rule, &asked, delivery).await,
                None => self.refuse(rule, &asked, problem).await,
            },
        }
    }

    /// Why nothing is sold just now. Instead of a challenge, so that nobody signs for what will not be done.
    fn closed(&self) -> Option<Problem> {
        if self.parts.drain.started() {
            return Some(Problem::new(Reason::Draining));
        }
        self.parts.closed.load().as_deref().cloned()
    }

    /// What is asked, and how much of it. JSON has to be read for that; other bodies tell it by their head.
    async fn measure(&self, rule: &Rule, asked: &mut Asked) -> Result<(), Problem> {
        let Some(work) = rule.work else { return Ok(()) };
        let limits = intake::Limits::from(&self.paid);
        match intake::plan(&asked.parts, work, limits)? {
            intake::Plan::Raw(raw) => {
                asked.ask = Some(raw.ask.clone());
                asked.raw = Some(raw);
            }
            intake::Plan::Json => {
                let (bytes, held) = self.memory.read(&mut asked.body, limits.json).await?;
                let (ask, content) = intake::measure_json(&bytes, work)?;
                asked.ask = Some(ask);
                asked.content = Some(content);
                asked.held = Some(held);
            }
        }
        Ok(())
    }

    /// The challenge: the first one (`refusal` is `None`), or the answer to a payment that is no good.
    async fn challenge(
        &self,
        rule: &Rule,
        asked: &Asked,
        refusal: Option<Problem>,
    ) -> Result<Answer, Problem> {
        let problem = refusal.unwrap_or_else(|| Problem::new(Reason::PaymentRequired));
        let quote = self.quote(rule, asked).await?;
        let challenge = self.with_books(false, |books| {
            let now = self.parts.clock.now_millis();
            gate::challenge(&asked.request(rule), &quote, books, &problem, JobId::new(), now)
        });
        let challenge = challenge.ok_or(Reason::NoProvider)?;
        let (reason, job) = (challenge.reason, Some(challenge.job));
        let price = quote.prices.first().map(|price| price.amount);
        Ok(Answer { response: challenge.into_response().map(super::Body::from), reason, job, price })
    }

    /// The quote for this request, from memory if it is there.
    async fn quote(&self, rule: &Rule, asked: &Asked) -> Result<Arc<Quote>, Problem> {
        let Some(ask) = &asked.ask else {
            return self.parts.quotes.fixed(rule.id).cloned().ok_or_else(|| Reason::Internal.into());
        };
        let now = self.parts.clock.now_millis();
        if let Some(quote) = self.parts.quotes.lookup(ask, now) {
            self.parts.metrics.quote_hit(Duration::from_millis(now.saturating_sub(quote.fetched_at)));
            return Ok(quote);
        }
        self.parts.metrics.quote_missed();
        let (quotes, ask) = (Arc::clone(&self.parts.quotes), ask.clone());
        let fetched = self.parts.runtime.spawn(async move { quotes.fetch(&ask).await }).await;
        fetched.map_err(|_| Reason::Internal)?.map_err(|error| Problem::from(&error))
    }

    /// Whether the payment buys this: quote, terms, window, signature, and what it costs us by now.
    async fn admit(&self, rule: &Rule, asked: &mut Asked, payment: &Payment) -> Result<Admitted, Problem> {
        let refused = |reason: Reason| Ok(Admitted::Not(Problem::new(reason).charged(Charged::No)));
        let admission = match self.decide(rule, asked, payment).await? {
            Ok(admission) => admission,
            Err(problem) => return Ok(Admitted::Not(problem)),
        };
        let verified = match self.check(payment, &admission) {
            Ok(verified) => verified,
            Err(error) => {
                let problem = Problem::new(error.reason()).message(error.to_string());
                return Ok(Admitted::Not(problem.charged(Charged::No)));
            }
        };
        asked.read_body(&self.memory, self.paid.max_raw_body).await?;
        if asked.size() > admission.terms.bound && rule.work.is_some() {
            return refused(Reason::QuoteInvalid);
        }
        let offer = match self.terms(rule, asked, &admission).await {
            Ok(offer) => offer,
            Err(problem) => return Ok(Admitted::Not(problem.charged(Charged::No))),
        };
        let presented = asked.present(payment, admission.requirement.asset.clone())?;
        Ok(Admitted::Sale(Box::new(self.sale(rule, asked, &verified, admission, presented, offer)?)))
    }

    /// The gate's decision, with whatever it turns out to need.
    async fn decide(
        &self,
        rule: &Rule,
        asked: &Asked,
        payment: &Payment,
    ) -> Result<Result<Admission, Problem>, Problem> {
        let mut quote = match rule.work {
            None => self.parts.quotes.fixed(rule.id).cloned(),
            Some(_) => None,
        };
        let mut epochs_current = false;
        loop {
            let decision = self.with_books(epochs_current, |books| {
                let now = self.parts.clock.now_millis();
                let presented = request::presented(payment);
                let quote = quote.as_deref();
                gate::decide(&asked.request(rule), Some(&presented), quote, books, JobId::new(), now)
            });
            match decision {
                Decision::Admit(admission) => return Ok(Ok(admission)),
                Decision::Challenge(challenge) => {
                    return Ok(Err(Problem::new(challenge.reason).charged(Charged::No)));
                }
                Decision::Refuse(problem) => return Ok(Err(problem)),
                // Nothing costs nothing with the providers there are; a payment for it would be taken for no work.
                Decision::Free(_) => return Err(Reason::NoProvider.into()),
                Decision::Missing(Missing::Quote) => quote = Some(self.quote(rule, asked).await?),
                Decision::Missing(Missing::Epochs) => {
                    let away = |_| Problem::new(Reason::StoreAway).charged(Charged::No);
                    self.parts.quotes.catch_up().await.map_err(away)?;
                    epochs_current = true;
                }
            }
        }
    }

    fn check(&self, payment: &Payment, admission: &Admission) -> Result<Verified, CheckError> {
        let requirement = &admission.requirement;
        let needed = match requirement.flow {
            PaymentFlow::Authorization => self.paid.work_timeout + self.paid.settle_margin,
            PaymentFlow::Upfront => self.paid.settle_margin,
        };
        let window = Window { now: self.parts.clock.now(), needed: needed.as_secs().max(SETTLE_SECONDS) };
        let made;
        let domain = match self.domains.get(&requirement.asset) {
            Some(domain) => domain,
            None => {
                made = Domain::new(&requirement.asset);
                &made
            }
        };
        check(payment.clone(), requirement, domain, window)
    }

    /// The provider's terms, fresh enough to pay by; `None` on routes of the app.
    async fn terms(
        &self,
        rule: &Rule,
        asked: &Asked,
        admission: &Admission,
    ) -> Result<Option<Offer>, Problem> {
        let (Some(_), Some(ask)) = (rule.work, &asked.ask) else { return Ok(None) };
        let (quotes, asked, terms) = (Arc::clone(&self.parts.quotes), ask.clone(), admission.terms.clone());
        let fresh = async move { quotes.terms(&terms.provider, &terms.operation, &asked).await };
        let offer = self.parts.runtime.spawn(fresh).await.map_err(|_| Reason::Internal)?;
        let offer = offer.map_err(|error| {
            tracing::warn!(%error, provider = admission.terms.provider, "no fresh terms; not sold");
            Problem::new(Reason::NoProvider)
        })?;
        let requirement = &admission.requirement;
        let price = Dollars { units: requirement.amount, decimals: requirement.asset.decimals };
        let cost = Dollars { units: offer.cost, decimals: offer.asset.decimals };
        if cost.compare(admission.terms.cost).is_gt() {
            // Whatever becomes of this payment, the next must be asked for by the new price.
            let (quotes, ask) = (Arc::clone(&self.parts.quotes), ask.clone());
            let renewed = self.parts.runtime.spawn(async move { quotes.renew(&ask).await });
            if gate::withdrawn(price, cost, self.loss_limit) {
                // Without a new quote the challenge is the old one, and is withdrawn again.
                let _ = renewed.await;
                return Err(Reason::QuoteWithdrawn.into());
            }
        }
        Ok(Some(offer))
    }

    fn sale(
        &self,
        rule: &Rule,
        asked: &Asked,
        verified: &Verified,
        admission: Admission,
        payment: Presented,
        offer: Option<Offer>,
    ) -> Result<Sale, Problem> {
        let resource = Resource {
            url: asked.url.as_str().to_owned(),
            description: rule.description.clone(),
            mime_type: rule.mime_type.clone(),
        };
        let requirements = verified.requirements(&resource).ok_or(Reason::PaymentNetwork)?;
        let sold = admission.sold(asked.size());
        let (kind, work): (_, Box<dyn Work>) = match (rule.work, asked.ask.clone(), asked.content.clone()) {
            (Some(work), Some(ask), Some(content)) => {
                let provider = self.parts.providers.get(&sold.provider).ok_or(Reason::NoProvider)?.clone();
                let kind = match work {
                    BrokeredWork::Store => JobKind::Store,
                    BrokeredWork::Run => JobKind::Run,
                };
                let jobs: Arc<dyn JobStore> = Arc::clone(self.parts.broker.jobs());
                let work = ProviderWork {
                    provider,
                    operation: sold.operation.clone(),
                    ask,
                    content,
                    offer: offer.clone().ok_or(Reason::Internal)?,
                    files: jobs,
                    metrics: Arc::clone(&self.parts.metrics),
                    files_url: asked.files_url(self.paid.files_path.as_deref()),
                };
                (kind, Box::new(work))
            }
            (None, ..) => (JobKind::App, Box::new(self.app_work(asked)?)),
            _ => return Err(Reason::Internal.into()),
        };
        Ok(Sale {
            payment,
            payload: verified.payment().raw().to_owned(),
            requirement: admission.requirement,
            requirements,
            job: admission.job,
            kind,
            sold,
            offer,
            work,
        })
    }

    fn app_work(&self, asked: &Asked) -> Result<AppWork, Problem> {
        Ok(AppWork {
            forward: Arc::clone(&self.parts.forward),
            parts: asked.parts.clone(),
            body: asked.bytes.clone().ok_or(Reason::Internal)?,
            peer: asked.peer.clone(),
            result_max: self.paid.result_max,
        })
    }

    /// Runs the sale in a task that outlives the client, and listens to it.
    async fn run(&self, sale: Sale, held: Option<Held>) -> Result<Delivery, Problem> {
        let overloaded = || Problem::new(Reason::Overloaded).charged(Charged::No);
        let slot = Arc::clone(&self.jobs).try_acquire_owned().map_err(|_| overloaded())?;
        let broker = Arc::clone(&self.parts.broker);
        let hold = self.parts.drain.hold(Kind::Task);
        let task = self.parts.runtime.spawn(async move {
            let delivery = broker.sell(sale).await;
            drop((hold, slot, held));
            delivery
        });
        // A task that panicked may have done anything: its job is for recovery, its payment for a repeat.
        task.await.map_err(|_| Problem::new(Reason::Internal).charged(Charged::Unknown))
    }

    /// The answer to a payment that was taken before, though it would not be today. Looked for only if its signature
    /// is its payer's, so that junk costs no look-up.
    async fn known(&self, asked: &mut Asked, payment: &Payment) -> Result<Option<Delivery>, Problem> {
        let tariff = self.parts.quotes.tariff();
        let accept = match payment.accepted() {
            Some(accepted) => tariff.accept(payment.network(), accepted.asset),
            None => tariff.v1_accept(payment.network()),
        };
        let Some(asset) = accept.map(|accept| accept.asset.clone()) else { return Ok(None) };
        let signature = <&[u8; 65]>::try_from(payment.signature()).ok();
        let domain = self.domains.get(&asset);
        let signer = signature
            .zip(domain)
            .and_then(|(signature, domain)| domain.recover(payment.authorization(), signature).ok());
        if signer != Some(payment.authorization().from) {
            return Ok(None);
        }
        let claim = ClaimKey::new(&asset, payment.authorization().from, payment.authorization().nonce);
        if !self.parts.broker.claimed(&claim).await {
            return Ok(None);
        }
        asked.read_body(&self.memory, self.paid.max_raw_body).await?;
        let presented = asked.present(payment, asset)?;
        Ok(self.parts.broker.known(&presented).await)
    }

    fn with_books<T>(&self, epochs_current: bool, decide: impl FnOnce(&Books<'_>) -> T) -> T {
        let quotes = &self.parts.quotes;
        let (keys, epochs) = (quotes.keys(), quotes.epochs());
        decide(&Books {
            keys: &keys,
            epochs: &epochs,
            epochs_current,
            tariff: quotes.tariff(),
            buckets: quotes.buckets(),
        })
    }
}

/// What came of a payment at the gate.
enum Admitted {
    /// It buys this, if it settles.
    Sale(Box<Sale>),
    /// It does not.
    Not(Problem),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_does_not_make_room_for_paid_work() {
        fn size<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let bytes = size(Inner::sell);
        assert!(bytes < 8 * 1024, "{bytes} bytes are allocated for each request on a sold route");
    }
}
