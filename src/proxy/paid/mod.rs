//! What is sold: from a request on a priced or brokered route to its answer.
//!
//! This is where the parts meet, and nothing else: intake measures, the gate decides, the broker works, and
//! each of them says what it does. [`Paid::sell`] reads top to bottom. A request without a payment does no I/O here
//! unless there is no quote yet.

mod accepted;
mod admit;
mod app_work;
mod endpoints;
mod files;
mod follow;
mod from_url;
mod kept;
mod measure;
mod pace;
mod prefer;
mod progress;
mod range;
mod read;
mod reply;
mod representation;
mod request;
mod rule;
mod source;
mod take;
mod webhook;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request};

use super::drain::Drain;
use super::forward::Forward;
use super::peer::Peer;
use super::problem::expose;
use super::request_body::RequestBody;
use super::router::Own;
use super::sell::{Answer, Sell};
use crate::broker::{Broker, FILES, IdempotencyKey};
use crate::clock::{Clock, UnixMillis};
use crate::config::resolved::{self, Config};
use crate::gate::{self, Books, Challenge};
use crate::ids::JobId;
use crate::money::Amount;
use crate::providers::Registry;
use crate::quote_cache::{Dollars, Quote, QuoteCache};
use crate::reason::{Charged, Problem, Reason, Retry};
use crate::spool::Spool;
use crate::telemetry::{Guard, Metrics};
use crate::x402::{Asset, Domain, Payment};
use admit::Admitted;
use files::Files;
use follow::Watchers;
use from_url::Sources;
use prefer::Prefer;
use progress::Uploads;
use read::Memory;
use request::{Asked, Origin};
use rule::Rule;
pub use webhook::Hooks;

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
    /// The time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Why nothing is sold just now, if nothing is; kept by whoever watches store and wallet.
    pub closed: Arc<ArcSwapOption<Problem>>,
    /// Which webhooks are told, if any are.
    pub hooks: Option<Hooks>,
}

struct Inner {
    parts: Parts,
    rules: Vec<Option<Rule>>,
    origin: Option<Arc<Origin>>,
    paid: resolved::Paid,
    loss_limit: Dollars,
    /// What must be left of a price.
    floor: Option<Dollars>,
    /// The EIP-712 domains of what we take, made once.
    domains: HashMap<Asset, Domain>,
    memory: Memory,
    /// How long any body may keep us waiting, however short.
    patience: Duration,
    spool: Spool,
    sources: Option<Sources>,
    files: Files,
    watchers: Watchers,
    uploads: Uploads,
    /// What every challenge has, and that scripts may read it.
    challenge_fields: HeaderMap,
}

impl Paid {
    /// Puts the parts together.
    pub fn new(parts: Parts, config: &Config) -> Self {
        let micros = |micros: u64| Dollars { units: Amount::new(micros.into()), decimals: 6 };
        let limit = Amount::from_decimal(&config.pricing.quote_loss_limit, 6).unwrap_or(Amount::ZERO);
        let domains = config.accepts.iter().map(|accept| (accept.asset.clone(), Domain::new(&accept.asset)));
        Paid(Arc::new(Inner {
            rules: config
                .routes
                .iter()
                .enumerate()
                .map(|(at, route)| Rule::new(at, route, &config.paid))
                .collect(),
            origin: config.edge.public_url.as_ref().map(|url| Arc::new(Origin::from(url))),
            loss_limit: Dollars { units: limit, decimals: 6 },
            floor: config.limits.profit_floor.map(micros),
            domains: domains.collect(),
            memory: Memory::new(config.paid.max_body_memory),
            patience: config.edge.body_timeout,
            sources: Sources::new(&config.paid),
            spool: Spool::new(config.paid.spool_dir.clone(), config.paid.max_spool),
            files: Files::new(config.paid.result_max),
            watchers: Watchers::new(config.paid.max_watchers),
            uploads: Uploads::default(),
            challenge_fields: {
                let mut fields = Challenge::fields();
                expose(&mut fields);
                fields
            },
            paid: config.paid.clone(),
            parts,
        }))
    }
}

impl Sell for Paid {
    fn sell(&self, rule: usize, request: Request<RequestBody>, peer: Peer) -> BoxFuture<'_, Answer> {
        // In an allocation of its own: a future is moved about before it is where it stays.
        let asked = Box::new(Asked::new(request, peer, &self.0));
        Box::pin(self.0.sell(rule, asked))
    }

    fn own(&self, own: Own, request: Request<RequestBody>, _: Peer) -> BoxFuture<'static, Answer> {
        let this = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, _) = request.into_parts();
            this.endpoint(own, &head).await.unwrap_or_else(Answer::from)
        })
    }
}

impl Inner {
    /// A request on a sold route, from its head to its answer.
    async fn sell(&self, rule: usize, mut asked: Box<Asked>) -> Answer {
        self.answer(rule, &mut asked).await.unwrap_or_else(Answer::from)
    }

    async fn answer(&self, rule: usize, asked: &mut Asked) -> Result<Answer, Problem> {
        let began = Instant::now();
        let rule = self.rules.get(rule).and_then(Option::as_ref).ok_or(Reason::Internal)?;
        if rule.work.is_some() {
            self.take_webhook(asked);
        }
        let payment = Payment::from_headers(&asked.parts.headers, self.paid.max_payment_header);
        let problem = match payment.map(|payment| payment.map(Box::new)) {
            Ok(Some(payment)) => {
                // In an allocation of its own: what paid work keeps in mind is a hundred times what a challenge does,
                // and each challenge would have to make room for it.
                let sold = Box::pin(self.sell_for(rule, asked, &payment));
                return sold.await.map_err(paid_attempt);
            }
            Ok(None) => Problem::new(Reason::PaymentRequired),
            // A payment that cannot be read is answered with a challenge, like none at all.
            Err(error) if error.reason().status() == 402 => Problem::new(error.reason()).charged(Charged::No),
            Err(error) => return Err(Problem::new(error.reason()).charged(Charged::No)),
        };
        if let Some(closed) = self.closed().or_else(|| self.frozen(rule, began)) {
            return Err(closed);
        }
        let key = asked.idempotency_key()?;
        if let Some(key) = key
            // Rare, and no part of every challenge's future.
            && let Some(answer) = Box::pin(self.unresolved(rule, asked, key)).await?
        {
            return Ok(answer);
        }
        let attempted = problem.charged.is_some();
        let said = |problem| if attempted { paid_attempt(problem) } else { problem };
        asked.webhook().map_err(said)?;
        self.measure(rule, asked, false).await.map_err(said)?;
        let answer = self.challenge(rule, asked, &problem).await;
        self.parts.metrics.challenged(began.elapsed());
        answer
    }

    /// The answer to a request whose like was paid for, and did not end yet.
    async fn unresolved(
        &self,
        rule: &Rule,
        asked: &mut Asked,
        key: IdempotencyKey,
    ) -> Result<Option<Answer>, Problem> {
        match self.parts.broker.unresolved(&key).await? {
            Some(delivery) => self.deliver(rule, asked, delivery).await.map(Some),
            None => Ok(None),
        }
    }

    /// A request that brought a payment.
    async fn sell_for(&self, rule: &Rule, asked: &mut Asked, payment: &Payment) -> Result<Answer, Problem> {
        if let Some(closed) = self.closed() {
            return Err(closed);
        }
        asked.idempotency_key()?;
        if rule.work.is_some() && self.paid.jobs_path.is_some() {
            asked.prefer = Prefer::of(&asked.parts.headers);
        }
        self.measure(rule, asked, true).await?;
        // Which webhooks are taken changes with time; a payment that was taken keeps its answer all the same.
        let admitted = match asked.webhook() {
            Ok(_) => self.admit(rule, asked, payment).await?,
            Err(problem) => Admitted::Not(problem.charged(Charged::No)),
        };
        match admitted {
            Admitted::Sale(sale) => {
                let delivery = self.run(asked, sale).await?;
                self.deliver(rule, asked, delivery).await
            }
            Admitted::Not(problem) => match Box::pin(self.known(asked, payment, problem.reason)).await? {
                Some(delivery) => self.deliver(rule, asked, delivery).await,
                None => Box::pin(self.refuse(rule, asked, problem)).await,
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

    /// Why work that is bought is not sold, whatever it costs.
    fn frozen(&self, rule: &Rule, now: Instant) -> Option<Problem> {
        rule.work.and_then(|_| self.parts.broker.guards().closed_at(now))
    }

    /// The challenge: the first one, or the answer to a payment that is no good, as the problem says.
    async fn challenge(&self, rule: &Rule, asked: &Asked, problem: &Problem) -> Result<Answer, Problem> {
        let (quote, now) = self.quote(rule, asked).await?;
        if rule.work.is_some() {
            self.may_be_sold(&quote)?;
        }
        let quotes = &self.parts.quotes;
        let (request, keys) = (asked.request(rule), quotes.keys());
        let challenge =
            gate::challenge(&request, &quote, &keys, quotes.tariff(), problem, JobId::at(now), now);
        let challenge = challenge.ok_or(Reason::NoProvider)?;
        let (reason, job) = (challenge.reason, Some(challenge.job));
        let price = quote.prices.first().map(|price| price.amount);
        let response = challenge.into_response(&self.challenge_fields).map(super::Body::from);
        Ok(Answer { response, reason, job, price, exposed: true })
    }

    /// Nobody is asked to sign for what will not be done.
    fn may_be_sold(&self, quote: &Quote) -> Result<(), Problem> {
        if let Some(problem) = self.guarded(&quote.terms) {
            return Err(problem);
        }
        let (Some(floor), Some(price)) = (self.floor, quote.prices.first()) else { return Ok(()) };
        let price = Dollars { units: price.amount, decimals: price.accept.asset.decimals };
        if gate::leaves_too_little(price, quote.terms.cost, floor) {
            drop(self.parts.broker.guards().refusal(Guard::ProfitFloor));
            return Err(Reason::NoProvider.into());
        }
        Ok(())
    }

    /// The quote for this request, from memory if it is there, and when it was found.
    async fn quote(&self, rule: &Rule, asked: &Asked) -> Result<(Arc<Quote>, UnixMillis), Problem> {
        let now = self.parts.clock.now_millis();
        let Some(ask) = &asked.ask else {
            let fixed = self.parts.quotes.fixed(rule.id).ok_or(Reason::Internal)?;
            return Ok((Arc::clone(fixed), now));
        };
        if let Some(quote) = self.parts.quotes.lookup(ask, now) {
            self.parts.metrics.quote_hit(Duration::from_millis(now.saturating_sub(quote.fetched_at)));
            return Ok((quote, now));
        }
        self.parts.metrics.quote_missed();
        let (quotes, ask) = (Arc::clone(&self.parts.quotes), ask.clone());
        let fetched = tokio::spawn(async move { quotes.fetch(&ask).await }).await;
        let quote = fetched.map_err(|_| Reason::Internal)?.map_err(|error| Problem::from(&error))?;
        Ok((quote, self.parts.clock.now_millis()))
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

/// Every answer to a paid attempt says whether the client's money moved. What ends before the payment was looked at, and
/// is to be sent again, may be about one that was settled long ago; a request that is itself at fault bought nothing.
fn paid_attempt(problem: Problem) -> Problem {
    match (problem.charged, problem.reason.retry()) {
        (Some(_), _) => problem,
        (None, Retry::SamePayment) => problem.charged(Charged::Unknown),
        (None, Retry::NewPayment | Retry::Never) => problem.charged(Charged::No),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_does_not_make_room_for_paid_work() {
        fn size<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        // What is larger than a kilobyte the allocator has to look for.
        let bytes = size(Inner::sell).max(std::mem::size_of::<Asked>());
        assert!(bytes <= 1024, "{bytes} bytes are allocated for each request on a sold route");
    }
}
