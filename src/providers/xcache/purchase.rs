//! Buying a cache: journalled, within the day's budget, and never twice for one number.
//!
//! A purchase has a number, and its payment a nonce derived from it: whatever is signed for a number can be charged
//! once. The signed payment is stored under the number, first wins, before it is sent. Until that payment lapses no other
//! purchase is begun; a purchase that was interrupted is repeated with the identical request.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::inventory::{CACHES, CacheRecord, put_cache};
use crate::clock::{Clock, UnixSeconds};
use crate::config::resolved;
use crate::jobs::ValueStore;
use crate::money::Amount;
use crate::outgoing::Call;
use crate::providers::exchange::{Line, at, is_plain_id, object, success};
use crate::providers::{Fault, Offer, PaymentHeader, ProviderError, PurseError};
use crate::x402::Challenge;

/// Purchases by number: [`Purchase`].
const PURCHASES: &str = "xcache.purchases";
/// Millionths of a dollar committed, by day since 1970.
const SPENT: &str = "xcache.spent";

const STEP: &str = "create";
/// The whole of one call that buys.
const DEADLINE: Duration = Duration::from_secs(30);
/// For how long a payment is signed, in seconds.
const VALIDITY: u64 = 180;
/// An open purchase is left to whoever began it for this long after its last try, in seconds.
const TURN: u64 = 45;
/// It is not tried again this shortly before the payment lapses, in seconds.
const TOO_LATE: u64 = 15;
/// Closed purchases, but for the last, are kept for the operator's accounts this long.
const KEEP_CLOSED: Duration = Duration::from_secs(90 * 86_400);

/// A payment for the operator's own stock, to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryOrder {
    /// What is bought: `inventory/xcache/7`. With `step` and `attempt`, all that the nonce is derived from.
    pub scope: String,
    /// `create`.
    pub step: &'static str,
    /// The purchase's number.
    pub attempt: u32,
    /// Exactly these terms; they are in the challenge.
    pub offer: Offer,
    /// When the signature must lapse.
    pub valid_before: UnixSeconds,
}

/// The wallet, as inventory sees it.
#[async_trait]
pub trait InventoryWallet: Send + Sync {
    /// Signs, if the amount is within the cap on one payment. The same order gets the same nonce, always. The caller
    /// makes the payment durable before it sends it.
    async fn sign(&self, order: &InventoryOrder, challenge: &Challenge) -> Result<PaymentHeader, PurseError>;
}

/// A cache that was bought just now.
pub(super) struct Bought {
    pub(super) number: u32,
    pub(super) record: CacheRecord,
}

/// What is to be done about purchases.
pub(super) enum Opened {
    /// One was open, and ended in a cache.
    Finished(Bought),
    /// None is open. Every cache bought until now is in the store: a look at the stock after this counts them all, and
    /// one bought later takes this number away.
    Next(Next),
}

/// The next purchase, by the number of the last.
pub(super) struct Next(u32);

/// Buys caches.
pub(super) struct Buyer {
    line: Line,
    config: resolved::XCache,
    store: Arc<dyn ValueStore>,
    wallet: Arc<dyn InventoryWallet>,
    clock: Clock,
}

/// A part of a day's budget.
struct Committed {
    day: String,
    /// Millionths of a dollar.
    cost: i64,
}

/// A purchase as the store keeps it.
#[derive(Clone, Serialize, Deserialize)]
struct Purchase {
    offer: Offer,
    region: String,
    header: (String, String),
    valid_before: UnixSeconds,
    tried: UnixSeconds,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// Sent, or about to be.
    Open,
    /// There is a cache of the same number.
    Bought,
    /// The payment lapsed and no cache came of it. It may have been charged.
    Lost,
}

/// A purchase of stock, for the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockPurchase {
    /// What it cost.
    pub offer: Offer,
    /// What came of it.
    pub outcome: StockOutcome,
}

/// What came of a purchase of stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StockOutcome {
    /// Not known yet.
    Open,
    /// There is stock for it.
    Bought,
    /// There is none, and it may have been charged.
    Lost,
}

/// Every purchase of stock that `store` still has.
pub async fn stock_purchases(
    store: &(impl ValueStore + ?Sized),
) -> Result<Vec<StockPurchase>, ProviderError> {
    let purchase = |(_, value): (String, Vec<u8>)| {
        let purchase: Purchase =
            serde_json::from_slice(&value).map_err(|_| internal("a purchase's record cannot be read"))?;
        let outcome = match purchase.outcome {
            Outcome::Open => StockOutcome::Open,
            Outcome::Bought => StockOutcome::Bought,
            Outcome::Lost => StockOutcome::Lost,
        };
        Ok(StockPurchase { offer: purchase.offer, outcome })
    };
    store.list(PURCHASES).await?.into_iter().map(purchase).collect()
}

/// What the nonces of all purchases that were ever begun are derived from: scope, step and attempt.
pub async fn stock_steps(
    store: &(impl ValueStore + ?Sized),
) -> Result<Vec<(String, &'static str, u32)>, ProviderError> {
    // The last is never let go, and the numbers before it were all taken.
    let numbers = store.list(PURCHASES).await?;
    let last = numbers.iter().filter_map(|(key, _)| key.parse::<u32>().ok()).max().unwrap_or(0);
    Ok((1..=last).map(|number| (scope(number), STEP, number)).collect())
}

impl Buyer {
    pub(super) fn new(
        line: Line,
        config: &resolved::XCache,
        store: Arc<dyn ValueStore>,
        wallet: Arc<dyn InventoryWallet>,
        clock: Clock,
    ) -> Self {
        Buyer { line, config: config.clone(), store, wallet, clock }
    }

    /// `POST /create`, unpaid.
    pub(super) fn create(&self) -> Result<Call, ProviderError> {
        self.create_in(&self.config.region)
    }

    /// Finishes the purchase that is open, if there is one, else says which is the next. To be called by one task at a
    /// time; other processes are kept out by the number.
    pub(super) async fn open(&self) -> Result<Opened, ProviderError> {
        let mut last = 0;
        for (key, value) in self.store.list(PURCHASES).await? {
            let (Ok(number), Ok(purchase)) = (key.parse(), serde_json::from_slice::<Purchase>(&value)) else {
                // It may be open, so nothing is bought beside it.
                return Err(internal("a purchase's record cannot be read"));
            };
            last = last.max(number);
            if purchase.outcome == Outcome::Open
                && let Some(bought) = self.finish(number, purchase).await?
            {
                return Ok(Opened::Finished(bought));
            }
        }
        Ok(Opened::Next(Next(last)))
    }

    /// Takes an open purchase to its end: the cache, or `None` once it is lost.
    async fn finish(&self, number: u32, mut purchase: Purchase) -> Result<Option<Bought>, ProviderError> {
        let now = self.clock.now();
        if let Some(value) = self.store.get(CACHES, &number.to_string()).await? {
            // Interrupted between the two records.
            self.close(number, purchase, Outcome::Bought).await?;
            let record =
                serde_json::from_slice(&value).map_err(|_| internal("a cache's record cannot be read"))?;
            return Ok(Some(Bought { number, record }));
        }
        if now >= purchase.valid_before {
            tracing::error!(purchase = number, cost = %purchase.offer.cost,
                "xcache: a payment for a cache lapsed without one; it may have been charged");
            self.close(number, purchase, Outcome::Lost).await?;
            return Ok(None);
        }
        if now < purchase.tried + TURN || now + TOO_LATE > purchase.valid_before {
            return Err(ProviderError::new(Fault::Unreachable, "another purchase of a cache is under way"));
        }
        purchase.tried = now;
        self.write(number, &purchase, None).await?;
        self.send(number, purchase).await.map(Some)
    }

    /// Makes the purchase. Fails if another process took its number since [`Buyer::open`] named it.
    pub(super) async fn begin(&self, Next(last): Next) -> Result<Bought, ProviderError> {
        let number = last.checked_add(1).ok_or_else(|| internal("no purchase number is left"))?;
        let exchange = self.line.open(DEADLINE);
        let challenge = exchange.challenge(self.create()?).await?;
        let offer = self.line.choose(&challenge)?;
        let committed = self.commit(&offer).await?;

        let now = self.clock.now();
        let valid_before = now + VALIDITY;
        let order = InventoryOrder {
            scope: scope(number),
            step: STEP,
            attempt: number,
            offer: offer.clone(),
            valid_before,
        };
        let payment = match self.wallet.sign(&order, &challenge).await {
            Ok(payment) => payment,
            Err(error) => {
                self.uncommit(&committed).await?;
                return Err(error.into());
            }
        };
        let value = payment.value.to_str().map_err(|_| internal("the payment is not text"))?;
        let header = (payment.name.as_str().to_owned(), value.to_owned());
        let region = self.config.region.clone();
        let purchase = Purchase { offer, region, header, valid_before, tried: now, outcome: Outcome::Open };
        let text = serialize(&purchase)?;
        if self.store.put_new(PURCHASES, &number.to_string(), &text, None).await?.is_some() {
            // Ours never left, and has the nonce of theirs.
            self.uncommit(&committed).await?;
            return Err(ProviderError::new(Fault::Unreachable, "another gateway buys a cache just now"));
        }
        if last > 0 {
            self.expire(last).await?;
        }
        self.send(number, purchase).await
    }

    /// Counts the cost against the day's budget, before anything is signed. It stays counted if the purchase fails:
    /// the payment is out.
    async fn commit(&self, offer: &Offer) -> Result<Committed, ProviderError> {
        let terms = |what: &str| ProviderError::new(Fault::Terms, what.to_owned());
        let cost = micros(offer.cost, offer.asset.decimals).ok_or_else(|| terms("the price is absurd"))?;
        let budget = Amount::from_decimal(&self.config.daily_budget, 6)
            .and_then(|budget| i64::try_from(budget.units()).ok())
            .ok_or_else(|| internal("daily_budget is not an amount of dollars"))?;
        let committed = Committed { day: (self.clock.now() / 86_400).to_string(), cost };
        if self.store.add(SPENT, &committed.day, cost).await? > budget {
            self.uncommit(&committed).await?;
            return Err(terms("the day's budget for caches does not allow another one"));
        }
        Ok(committed)
    }

    /// Nothing was signed for it that could be sent.
    async fn uncommit(&self, committed: &Committed) -> Result<(), ProviderError> {
        self.store.add(SPENT, &committed.day, -committed.cost).await?;
        Ok(())
    }

    /// Sends the stored payment. Unless a cache comes back the purchase stays open: the payment may still be charged.
    async fn send(&self, number: u32, purchase: Purchase) -> Result<Bought, ProviderError> {
        let (name, value) = &purchase.header;
        let name =
            HeaderName::try_from(name).map_err(|_| internal("the stored payment has no header name"))?;
        let mut value =
            HeaderValue::try_from(value).map_err(|_| internal("the stored payment is no header value"))?;
        value.set_sensitive(true);
        let call = self.create_in(&purchase.region)?.header(name, value);
        let answer = object(&success(self.line.open(DEADLINE).call(call).await?)?)?;
        let id = answer.get("id").and_then(Value::as_str).filter(|id| is_plain_id(id));
        let id = id.ok_or_else(|| ProviderError::new(Fault::Broken, "the new cache has no usable id"))?;
        let record = CacheRecord {
            id: id.to_owned(),
            region: purchase.region.clone(),
            operations: self.config.operations_per_cache,
            bought: self.clock.now(),
            used_up: false,
        };
        put_cache(&*self.store, number, &record, None).await?;
        self.close(number, purchase, Outcome::Bought).await?;
        Ok(Bought { number, record })
    }

    fn create_in(&self, region: &str) -> Result<Call, ProviderError> {
        let body = serde_json::json!({ "region": region }).to_string();
        Ok(Call::json(Method::POST, at(&self.config.url, "/create")?, body))
    }

    async fn close(
        &self,
        number: u32,
        mut purchase: Purchase,
        outcome: Outcome,
    ) -> Result<(), ProviderError> {
        purchase.outcome = outcome;
        self.write(number, &purchase, None).await
    }

    /// Lets a closed purchase that is no longer the last go in time. The last one stays: it holds the number.
    async fn expire(&self, number: u32) -> Result<(), ProviderError> {
        if let Some(value) = self.store.get(PURCHASES, &number.to_string()).await? {
            self.store.put(PURCHASES, &number.to_string(), &value, Some(KEEP_CLOSED)).await?;
        }
        Ok(())
    }

    async fn write(
        &self,
        number: u32,
        purchase: &Purchase,
        ttl: Option<Duration>,
    ) -> Result<(), ProviderError> {
        Ok(self.store.put(PURCHASES, &number.to_string(), &serialize(purchase)?, ttl).await?)
    }
}

fn scope(number: u32) -> String {
    format!("inventory/xcache/{number}")
}

fn serialize(purchase: &Purchase) -> Result<Vec<u8>, ProviderError> {
    serde_json::to_vec(purchase).map_err(|error| internal(&error.to_string()))
}

fn internal(what: &str) -> ProviderError {
    ProviderError::new(Fault::Internal, what)
}

/// Millionths of a dollar, rounded up.
fn micros(amount: Amount, decimals: u8) -> Option<i64> {
    let units = match decimals.checked_sub(6) {
        Some(more) => amount.units().div_ceil(10u128.checked_pow(u32::from(more))?),
        None => amount.units().checked_mul(10u128.checked_pow(u32::from(6 - decimals))?)?,
    };
    i64::try_from(units).ok()
}
