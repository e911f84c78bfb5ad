//! Whether a payment buys what is asked: the gate's decision, the local checks, the provider's terms, and the sale
//! that comes of it. Spends nothing and claims nothing: that is the broker's.

use std::sync::Arc;

use super::app_work::AppWork;
use super::request::{self, Asked};
use super::{Inner, Rule};
use crate::broker::{BatchWork, Delivery, Presented, ProviderWork, Sale, Withdrawn, Work};
use crate::config::resolved::{BrokeredWork, LARGEST_KEPT};
use crate::gate::{self, Admission, Decision, Missing};
use crate::guard::BornLoss;
use crate::ids::JobId;
use crate::intake::{Ask, Data};
use crate::jobs::job::{PassedOver, Sold};
use crate::jobs::{ClaimKey, JobKind, JobStore};
use crate::providers::{Fault, Offer};
use crate::quote_cache::{Dollars, Terms};
use crate::reason::{Charged, Problem, Reason};
use crate::telemetry::Guard;
use crate::x402::{
    Asset, CheckError, Domain, Payment, PaymentFlow, Resource, Verified, Window, check, check_signature,
};

/// Seconds between the end of the work and the lapse of the authorization that settling is sure to need.
const SETTLE_SECONDS: u64 = 6;

/// Who does the work, on terms that are fresh.
struct Chosen {
    provider: String,
    operation: String,
    offer: Offer,
    /// What is lost by it.
    loss: Option<BornLoss>,
    passed_over: Vec<PassedOver>,
}

/// What came of a payment at the gate.
pub(super) enum Admitted {
    /// It buys this, if it settles.
    Sale(Box<Sale>),
    /// It does not.
    Not(Problem),
}

impl Inner {
    /// Whether the payment buys this: quote, terms, window, signature, and what it costs us by now.
    pub(super) async fn admit(
        &self,
        rule: &Rule,
        asked: &mut Asked,
        payment: &Payment,
    ) -> Result<Admitted, Problem> {
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
        if rule.work.is_some()
            && let Some(problem) = self.guarded(&admission.terms)
        {
            return Ok(Admitted::Not(problem.charged(Charged::No)));
        }
        self.show_progress(asked, &admission);
        self.take_body(asked, payment, Some(&admission)).await?;
        // Of several files, each was held to what it may have.
        if asked.files.is_empty() && asked.size() > admission.terms.bound && rule.work.is_some() {
            return refused(Reason::QuoteInvalid);
        }
        let chosen = match self.choose(rule, asked, &admission).await {
            Ok(chosen) => Ok(chosen),
            // Claimed first: told this, the client pays anew.
            Err(problem) if problem.reason.status() == 402 => Err(problem.reason),
            Err(problem) => return Ok(Admitted::Not(problem.charged(Charged::No))),
        };
        let presented = asked.present(payment, admission.requirement.asset.clone())?;
        Ok(Admitted::Sale(Box::new(self.sale(rule, asked, verified, &admission, presented, chosen)?)))
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
                gate::decide(&asked.request(rule), Some(&presented), quote, books, JobId::at(now), now)
            });
            match decision {
                Decision::Admit(admission) => return Ok(Ok(admission)),
                Decision::Challenge(challenge) => {
                    return Ok(Err(Problem::new(challenge.reason).charged(Charged::No)));
                }
                Decision::Refuse(problem) => return Ok(Err(problem)),
                // Nothing costs nothing with the providers there are; a payment for it would be taken for no work.
                Decision::Free(_) => return Ok(Err(Problem::new(Reason::NoProvider).charged(Charged::No))),
                // Nobody sells it any more; the payment may have bought it while somebody did.
                Decision::Missing(Missing::Quote) => match self.quote(rule, asked).await {
                    Ok((fresh, _)) => quote = Some(fresh),
                    Err(problem) => return Ok(Err(problem.charged(Charged::No))),
                },
                Decision::Missing(Missing::Epochs) => {
                    let away = |_| Problem::new(Reason::StoreAway).charged(Charged::Unknown);
                    self.parts.quotes.catch_up().await.map_err(away)?;
                    epochs_current = true;
                }
            }
        }
    }

    fn check<'a>(&self, payment: &'a Payment, admission: &'a Admission) -> Result<Verified<'a>, CheckError> {
        let requirement = &admission.requirement;
        let needed = match requirement.flow {
            PaymentFlow::Authorization => self.paid.work_timeout + self.paid.settle_margin,
            PaymentFlow::Upfront => self.paid.settle_margin,
        };
        let window = Window { now: self.parts.clock.now(), needed: needed.as_secs().max(SETTLE_SECONDS) };
        self.with_domain(&requirement.asset, |domain| check(payment, requirement, domain, window))
    }

    /// With the EIP-712 domain of a token. That of one which is not taken here is made.
    fn with_domain<T>(&self, asset: &Asset, check: impl FnOnce(&Domain) -> T) -> T {
        match self.domains.get(asset) {
            Some(domain) => check(domain),
            None => check(&Domain::new(asset)),
        }
    }

    /// Why brokered work on these terms is not sold just now: what the wallet may not do, or what leaves too little.
    pub(super) fn guarded(&self, terms: &Terms) -> Option<Problem> {
        let cost = terms.cost.units.micros(terms.cost.decimals).unwrap_or(u64::MAX);
        self.parts.broker.guards().refuses(&terms.provider, cost)
    }

    /// Who does the work, on terms fresh enough to pay by: the provider of the quote; if it has none, or has become too
    /// dear, the cheapest of the others that the payment covers. `None` on routes of the app.
    async fn choose(
        &self,
        rule: &Rule,
        asked: &Asked,
        admission: &Admission,
    ) -> Result<Option<Chosen>, Problem> {
        let (Some(_), Some(ask)) = (rule.work, &asked.ask) else { return Ok(None) };
        let data = asked.content.as_ref().map(|content| &content.data);
        let received = matches!(data, Some(Data::Received(_)));
        let (quotes, asked, terms) = (Arc::clone(&self.parts.quotes), ask.clone(), admission.terms.clone());
        let fresh = async move { quotes.terms(&terms.provider, &terms.operation, &asked).await };
        let offer = tokio::spawn(fresh).await.map_err(|_| Reason::Internal)?;
        let provider = &admission.terms.provider;
        let (refusal, fault) = match offer {
            Ok(offer) => match self.bear(ask, admission, &offer).await? {
                Some(loss) => {
                    let (provider, operation) = (provider.clone(), admission.terms.operation.clone());
                    return Ok(Some(Chosen { provider, operation, offer, loss, passed_over: Vec::new() }));
                }
                None => (Reason::QuoteWithdrawn, Fault::Terms),
            },
            Err(error) => {
                tracing::warn!(%error, provider, "no fresh terms");
                match error.fault {
                    Fault::Guarded(reason) => (reason, error.fault),
                    _ => (Reason::NoProvider, error.fault),
                }
            }
        };
        let chosen = match received {
            // It has the bytes, and we have not.
            true => None,
            false => self.substitute(ask, provider, self.at_most(admission), fault).await?,
        };
        chosen.map(Some).ok_or_else(|| Problem::new(refusal))
    }

    /// What is lost by these terms, taken from what may be; `None` if that is too much.
    async fn bear(
        &self,
        ask: &Ask,
        admission: &Admission,
        offer: &Offer,
    ) -> Result<Option<Option<BornLoss>>, Problem> {
        let price = price(admission);
        let cost = Dollars { units: offer.cost, decimals: offer.asset.decimals };
        let cost = cost.times(ask.files).ok_or(Reason::Internal)?;
        let renew = || {
            let (quotes, ask) = (Arc::clone(&self.parts.quotes), ask.clone());
            tokio::spawn(async move { quotes.renew(&ask).await })
        };
        // Whatever becomes of this payment, the next must be asked for by the new price.
        let renewed = cost.compare(admission.terms.cost).is_gt().then(renew);
        let too_little = self.floor.is_some_and(|floor| gate::leaves_too_little(price, cost, floor));
        if too_little {
            drop(self.parts.broker.guards().refusal(Guard::ProfitFloor));
        }
        let mut withdrawn = too_little || gate::withdrawn(price, cost, self.loss_limit);
        let mut borne = None;
        let loss = gate::loss(price, cost);
        // The last of several payments would not be signed.
        withdrawn |= ask.files > 1 && loss > 0;
        if !withdrawn && loss > 0 {
            let guards = Arc::clone(self.parts.broker.guards());
            let bearing = tokio::spawn(async move { guards.bear(loss).await });
            borne = bearing.await.map_err(|_| Reason::Internal)?;
            withdrawn = borne.is_none();
        }
        if !withdrawn {
            return Ok(Some(borne));
        }
        // Without a new quote the challenge is the old one, and is withdrawn again.
        if let Some(renewed) = renewed {
            let _ = renewed.await;
        }
        Ok(None)
    }

    /// What another provider may cost that does the work instead: no loss is made on it, and the floor is left.
    fn at_most(&self, admission: &Admission) -> Dollars {
        gate::at_most(price(admission), self.floor)
    }

    /// Who does it instead of this provider, if anybody does for so much.
    async fn substitute(
        &self,
        ask: &Ask,
        provider: &str,
        at_most: Dollars,
        fault: Fault,
    ) -> Result<Option<Chosen>, Problem> {
        let passed_over = PassedOver { provider: provider.to_owned(), fault: fault.to_string() };
        let (quotes, ask) = (Arc::clone(&self.parts.quotes), ask.clone());
        let without = passed_over.provider.clone();
        let found = async move { quotes.substitute(&ask, &[&without], at_most).await };
        let found = tokio::spawn(found).await.map_err(|_| Reason::Internal)?;
        Ok(found.map(|found| {
            self.parts.metrics.provider_failed_over(provider);
            tracing::warn!(provider, instead = found.provider.name(), "sold by another provider");
            Chosen {
                provider: found.provider.name().to_owned(),
                operation: found.operation.to_owned(),
                offer: found.offer,
                loss: None,
                passed_over: vec![passed_over],
            }
        }))
    }

    fn sale(
        &self,
        rule: &Rule,
        asked: &Asked,
        verified: Verified<'_>,
        admission: &Admission,
        payment: Presented,
        chosen: Result<Option<Chosen>, Reason>,
    ) -> Result<Sale, Problem> {
        let resource = || Resource {
            url: asked.url.as_str().to_owned(),
            description: rule.description.clone(),
            mime_type: rule.mime_type.clone(),
        };
        let requirements = verified.requirements(resource).ok_or(Reason::PaymentNetwork)?;
        let mut sold = admission.sold(asked.size());
        let withdrawn = chosen.as_ref().err().copied();
        let (offer, loss) = match chosen.unwrap_or_default() {
            None => (None, None),
            Some(Chosen { provider, operation, offer, loss, passed_over }) => {
                if !passed_over.is_empty() {
                    let files = asked.ask.as_ref().map_or(1, |ask| ask.files);
                    let cost = offer.cost.checked_mul(files).ok_or(Reason::Internal)?;
                    sold = Sold { provider, operation, cost, passed_over, ..sold };
                }
                (Some(offer), loss)
            }
        };
        let content = asked.content.as_deref().cloned().or_else(|| asked.files.first().cloned());
        let kind = match rule.work {
            None => JobKind::App,
            Some(BrokeredWork::Store) => JobKind::Store,
            Some(BrokeredWork::Run) => JobKind::Run,
        };
        let work: Box<dyn Work> = match (withdrawn, rule.work, asked.ask.clone(), content) {
            (Some(reason), ..) => Box::new(Withdrawn(reason)),
            (None, Some(_), Some(ask), Some(content)) => {
                let provider = self.parts.providers.get(&sold.provider).ok_or(Reason::NoProvider)?.clone();
                let jobs: Arc<dyn JobStore> = Arc::clone(self.parts.broker.jobs());
                let work = ProviderWork {
                    provider,
                    operation: sold.operation.clone(),
                    ask,
                    content,
                    offer: offer.clone().ok_or(Reason::Internal)?,
                    at_most: self.at_most(admission),
                    passed_over: sold.passed_over.clone(),
                    quotes: Arc::clone(&self.parts.quotes),
                    files: jobs,
                    metrics: Arc::clone(&self.parts.metrics),
                    guards: Arc::clone(self.parts.broker.guards()),
                    files_url: asked.own_url(self.paid.files_path.as_deref()),
                    jobs_url: self
                        .paid
                        .jobs_path
                        .is_some()
                        .then(|| asked.own_url(self.paid.jobs_path.as_deref())),
                    // A client that does not wait for the answer gets it from where it is kept, or never.
                    later: asked.prefer.patience().is_some(),
                    results: self.parts.broker.results().clone(),
                    result_max: match asked.prefer.patience() {
                        Some(_) => LARGEST_KEPT.max(self.paid.result_max),
                        None => self.paid.result_max,
                    },
                };
                match asked.files.is_empty() {
                    true => Box::new(work),
                    false => Box::new(BatchWork { work, files: asked.files.clone() }),
                }
            }
            (None, None, ..) => Box::new(self.app_work(asked)?),
            _ => return Err(Reason::Internal.into()),
        };
        Ok(Sale {
            payment,
            payload: Arc::clone(verified.payment().raw()),
            requirement: admission.requirement.clone(),
            requirements,
            job: admission.job,
            key: asked.idempotency_key()?,
            names: asked.names(verified.payment())?,
            webhook: asked.webhook()?,
            kind,
            sold,
            offer,
            after: rule.after,
            loss,
            reserved: None,
            work,
        })
    }

    fn app_work(&self, asked: &Asked) -> Result<AppWork, Problem> {
        Ok(AppWork {
            forward: Arc::clone(&self.parts.forward),
            parts: asked.parts.clone(),
            body: asked.data.as_ref().ok_or(Reason::Internal)?.0.clone(),
            peer: asked.peer.clone(),
            result_max: self.paid.result_max,
        })
    }

    /// The answer to a payment that was taken before, though it would not be today, for this `reason`. Looked for only if its
    /// signature is its payer's, as far as that can be known here: what is signed by somebody else costs no look-up.
    pub(super) async fn known(
        &self,
        asked: &mut Asked,
        payment: &Payment,
        reason: Reason,
    ) -> Result<Option<Delivery>, Problem> {
        let tariff = self.parts.quotes.tariff();
        let accept = match payment.accepted() {
            Some(accepted) => tariff.accept(payment.network(), accepted.asset),
            None => tariff.v1_accept(payment.network()),
        };
        let asset = match (accept, payment.accepted()) {
            (Some(accept), _) => accept.asset.clone(),
            // It may be of a token that is not taken here any more.
            (None, Some(accepted)) => accepted.said_asset(),
            (None, None) => return Ok(None),
        };
        let signed =
            |asset: &Asset| self.with_domain(asset, |domain| check_signature(payment, domain).is_ok());
        if !signed(&asset) {
            return Ok(None);
        }
        let claim = ClaimKey::new(&asset, payment.authorization().from, payment.authorization().nonce);
        let Some(asset) = self.parts.broker.paid_in(&claim).await?.filter(signed) else { return Ok(None) };
        self.take_body(asked, payment, None).await?;
        let presented = asked.present(payment, asset)?;
        self.answer_known(asked, presented, reason).await
    }
}

/// What the client pays.
fn price(admission: &Admission) -> Dollars {
    let requirement = &admission.requirement;
    Dollars { units: requirement.amount, decimals: requirement.asset.decimals }
}
