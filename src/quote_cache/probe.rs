//! Asking providers what they want, all at once and each within its time.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use moka::future::Cache;

use super::breaker::{Breaker, is_its_own};
use super::bucket::TooLarge;
use super::budget::Spent;
use super::error::QuoteError;
use super::key::QuoteKey;
use super::price::Dollars;
use crate::clock::{Clock, UnixMillis, while_running};
use crate::intake::Ask;
use crate::providers::{Fault, NotSold, Offer, Operation, Provider, ProviderError};
use crate::reason::Reason;
use crate::telemetry::{Guard, Metrics};
use crate::wallet::{PayeeError, Payees};
use crate::x402::Address;

/// A provider that failed is not asked again for this long.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Answers kept at most; one for each provider, operation and key.
const MAX_ANSWERS: u64 = 4096;

/// The providers, and their last answers.
pub(super) struct Prober {
    providers: Vec<Arc<dyn Provider>>,
    /// One for each of them.
    breakers: Vec<Breaker>,
    answers: Cache<(&'static str, Operation, QuoteKey<'static>), Answer>,
    clock: Clock,
    metrics: Arc<Metrics>,
    timeout: Duration,
    /// Whom the wallet pays: who asks to be paid elsewhere makes no offer.
    pub(super) payees: Option<Arc<Payees>>,
    /// With whom no more may be spent.
    pub(super) spent: Option<Spent>,
}

/// Who sells something, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seller {
    /// Its place in the list of providers.
    pub(super) provider: usize,
    pub(super) operation: Operation,
}

/// A seller's offer.
#[derive(Clone, Debug)]
pub(super) struct Bid {
    pub(super) seller: Seller,
    pub(super) offer: Offer,
    pub(super) asked_at: UnixMillis,
    /// Somebody else who sells it did not say for how much in time: it may be sold for less.
    pub(super) others_late: bool,
}

impl Bid {
    pub(super) fn cost(&self) -> Dollars {
        Dollars { units: self.offer.cost, decimals: self.offer.asset.decimals }
    }
}

#[derive(Clone)]
struct Answer {
    asked_at: UnixMillis,
    outcome: Result<Offer, ProviderError>,
}

impl Prober {
    pub(super) fn new(
        providers: Vec<Arc<dyn Provider>>,
        clock: Clock,
        metrics: Arc<Metrics>,
        timeout: Duration,
    ) -> Self {
        let breakers = providers.iter().map(|_| Breaker::default()).collect();
        let answers = Cache::new(MAX_ANSWERS);
        Prober { providers, breakers, answers, clock, metrics, timeout, payees: None, spent: None }
    }

    pub(super) fn provider(&self, seller: Seller) -> &Arc<dyn Provider> {
        &self.providers[seller.provider]
    }

    /// Whether nothing is ordered of a seller just now.
    pub(super) fn is_ejected(&self, seller: Seller, now: UnixMillis) -> bool {
        self.breakers[seller.provider].is_ejected(now)
    }

    /// An order of this provider ended so.
    pub(super) fn performed(&self, provider: &str, fault: Option<Fault>) {
        let found = self.providers.iter().zip(&self.breakers).find(|(known, _)| known.name() == provider);
        let Some((_, breaker)) = found else { return };
        match fault {
            None => {
                if breaker.succeeded() {
                    tracing::info!(provider, "does its work again");
                    self.metrics.provider_ejected(provider, false);
                }
            }
            Some(fault) if is_its_own(fault) => {
                if let Some(pause) = breaker.failed(self.clock.now_millis()) {
                    tracing::warn!(provider, %fault, seconds = pause.as_secs(), "ejected: its work fails");
                    self.metrics.provider_ejected(provider, true);
                }
            }
            Some(_) => {}
        }
    }

    pub(super) fn name(&self, seller: Seller) -> &'static str {
        self.providers[seller.provider].name()
    }

    /// Whether a seller sells this very ask, as the same operation.
    pub(super) fn sells(&self, seller: Seller, ask: &Ask) -> Result<(), NotSold> {
        let provider = &self.providers[seller.provider];
        match provider.sells(ask)? {
            operation if operation == seller.operation => Ok(()),
            _ => Err(NotSold::Operation { provider: provider.name() }),
        }
    }

    /// All who sell an ask and are not ejected, or why nobody does.
    pub(super) fn sellers(&self, ask: &Ask) -> Result<Vec<Seller>, QuoteError> {
        let mut sellers = Vec::new();
        let mut refusals = Vec::new();
        for (at, provider) in self.providers.iter().enumerate() {
            match provider.sells(ask) {
                Ok(operation) => sellers.push(Seller { provider: at, operation }),
                Err(refusal) => refusals.push(refusal),
            }
        }
        if sellers.is_empty() {
            return Err(refused(refusals));
        }
        let now = self.clock.now_millis();
        sellers.retain(|seller| !self.is_ejected(*seller, now));
        if sellers.is_empty() { Err(QuoteError::NoOffer) } else { Ok(sellers) }
    }

    /// The limits in bytes that providers have for such an ask, if any.
    pub(super) fn limits(&self, ask: &Ask) -> impl Iterator<Item = u64> {
        self.providers.iter().filter_map(|provider| match provider.sells(ask) {
            Err(NotSold::Size { limit, .. }) => Some(limit),
            _ => None,
        })
    }

    /// The best of the offers for one file that arrive within `patience`, of those who may be paid; later ones are not waited for. Answers from before
    /// `since` do not count, nor failures that are a moment old. Of equals the first by name, so that replicas
    /// choose alike.
    pub(super) async fn cheapest(
        &self,
        sellers: &[Seller],
        key: &QuoteKey<'static>,
        since: UnixMillis,
        patience: Duration,
    ) -> Option<Bid> {
        let (key, ask) = (&key.of_one(), key.ask());
        let a_moment = u64::try_from(RETRY_AFTER.as_millis()).unwrap_or(u64::MAX);
        let failed_since = since.max(self.clock.now_millis().saturating_sub(a_moment));
        let too_old =
            |answer: &Answer| answer.asked_at < if answer.outcome.is_ok() { since } else { failed_since };
        let mut asked: FuturesUnordered<_> = sellers
            .iter()
            .map(|seller| async {
                let answer = self.ask(*seller, key, &ask, too_old).await;
                (*seller, answer)
            })
            .collect();
        let (mut bids, mut late) = (Vec::new(), false);
        let in_time = async {
            while let Some((seller, answer)) = asked.next().await {
                match answer.outcome {
                    Ok(offer) => {
                        bids.push(Bid { seller, offer, asked_at: answer.asked_at, others_late: false });
                    }
                    Err(error) => {
                        tracing::debug!(provider = self.name(seller), %error, "no offer");
                        late |= error.fault == Fault::Timeout;
                    }
                }
            }
        };
        if while_running(patience, in_time).await.is_none() {
            tracing::debug!(?key, "not every provider answered in time");
            late = true;
        }
        let best = self.affordable(bids, ask.files).into_iter().min_by(|a, b| self.order(a, b))?;
        Some(Bid { others_late: late, ..best })
    }

    /// A provider's terms for one file, no older than `max_age`.
    pub(super) async fn terms(
        &self,
        seller: Seller,
        key: &QuoteKey<'static>,
        max_age: Duration,
    ) -> Result<Offer, ProviderError> {
        let now = self.clock.now_millis();
        let too_old = |answer: &Answer| {
            let age = u128::from(now.saturating_sub(answer.asked_at));
            age >= if answer.outcome.is_ok() { max_age } else { RETRY_AFTER }.as_millis()
        };
        self.ask(seller, &key.of_one(), &key.ask(), too_old).await.outcome
    }

    /// The seller of this name, if it sells the ask as this operation.
    pub(super) fn seller(&self, provider: &str, operation: &str, ask: &Ask) -> Result<Seller, ProviderError> {
        let at = self.providers.iter().position(|known| known.name() == provider);
        let at = at.ok_or_else(|| {
            ProviderError::new(Fault::Internal, format!("no provider {provider:?} is configured"))
        })?;
        match self.providers[at].sells(ask) {
            Ok(found) if found == operation => Ok(Seller { provider: at, operation: found }),
            Ok(found) => {
                let message = format!("this is sold as {found:?} now, not as {operation:?}");
                Err(ProviderError::new(Fault::Refused, message))
            }
            Err(refusal) => Err(ProviderError::new(Fault::Refused, refusal.to_string())),
        }
    }

    /// One probe at a time of each provider and key: those who ask meanwhile get the same answer.
    async fn ask(
        &self,
        seller: Seller,
        key: &QuoteKey<'static>,
        ask: &Ask,
        too_old: impl FnMut(&Answer) -> bool + Send,
    ) -> Answer {
        let provider = &self.providers[seller.provider];
        let probe = async {
            let asked_at = self.clock.now_millis();
            let mut probe = Probe::begin(&self.metrics, provider.name());
            let outcome = while_running(self.timeout, provider.offer(seller.operation, ask)).await;
            let late = || Err(ProviderError::new(Fault::Timeout, "no price in time"));
            let outcome = self.payable(provider.name(), outcome.unwrap_or_else(late)).await;
            probe.fault = outcome.as_ref().err().map(|error| error.fault);
            Answer { asked_at, outcome }
        };
        let name = (provider.name(), seller.operation, key.clone());
        self.answers.entry(name).or_insert_with_if(probe, too_old).await.into_value()
    }

    /// The offer, if its payee is who it was before. What comes out of stock pays nobody.
    async fn payable(
        &self,
        provider: &str,
        outcome: Result<Offer, ProviderError>,
    ) -> Result<Offer, ProviderError> {
        let offer = outcome?;
        if let Some(payees) = self.payees.as_ref().filter(|_| offer.pay_to != Address::ZERO)
            && let Err(error) = payees.check(provider, &offer.asset, offer.pay_to).await
        {
            let reason = match error {
                PayeeError::Away { .. } => Reason::StoreAway,
                PayeeError::Changed { .. } | PayeeError::NotNamed { .. } => {
                    tracing::error!(%error, "a provider's offer is not taken");
                    self.metrics.guarded(Guard::Payee);
                    Reason::PayeeChanged
                }
            };
            return Err(ProviderError::new(Fault::Guarded(reason), error.to_string()));
        }
        Ok(offer)
    }

    fn order(&self, a: &Bid, b: &Bid) -> Ordering {
        let cost = |bid: &Bid| Dollars { units: bid.offer.cost, decimals: bid.offer.asset.decimals };
        cost(a).compare(cost(b)).then_with(|| self.name(a.seller).cmp(self.name(b.seller)))
    }
}

/// Counts one probe when it ends, also when nobody waits for it any more: that is a provider too slow to sell.
struct Probe<'a> {
    metrics: &'a Metrics,
    provider: &'static str,
    began: Instant,
    fault: Option<Fault>,
}

impl<'a> Probe<'a> {
    fn begin(metrics: &'a Metrics, provider: &'static str) -> Self {
        Probe { metrics, provider, began: Instant::now(), fault: Some(Fault::Timeout) }
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.metrics.quote_probed(self.provider, self.fault, self.began.elapsed());
    }
}

/// What to tell a client that nobody sells to. Who would sell less of it knows the most useful answer.
fn refused(refusals: Vec<NotSold>) -> QuoteError {
    let limits = refusals.iter().filter_map(|refusal| match refusal {
        NotSold::Size { limit, .. } => Some(*limit),
        _ => None,
    });
    match limits.max() {
        Some(limit) => QuoteError::TooLarge(TooLarge { limit }),
        None => QuoteError::NotSold(refusals),
    }
}
