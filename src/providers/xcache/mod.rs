//! xCache: keeps a value for a while. Stores only what is not asked to be permanent.
//!
//! Caches are bought by the operator ahead of time ([`inventory`]); a store is one free `PUT` into one of them, so a
//! job pays nobody. Whoever knows a cache's id owns it: ids stay in the store and in handles, and are neither
//! shown nor logged. Files are read back through the gateway.

mod inventory;
mod purchase;
#[cfg(test)]
mod tests;
mod value;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::exchange::{Exchange, Line, at, is_plain_id, object, success, whole};
use super::{Done, Fault, NotSold, Offer, Operation, Order, Provider, ProviderError, Purse};
use super::{ReadBack, StoredHandle};
use crate::clock::Clock;
use crate::config::resolved::{self, SetShape};
use crate::intake::{Ask, Wanted};
use crate::jobs::ValueStore;
use crate::money::Amount;
use crate::outgoing::Call;
use crate::x402::Address;
use inventory::{Inventory, Slot};

pub use purchase::{
    InventoryOrder, InventoryWallet, StockOutcome, StockPurchase, stock_purchases, stock_steps,
};

const NAME: &str = "xcache";
const SET: Operation = "set";

/// How long a value is kept when the client does not say, in seconds.
const DEFAULT_TTL: u64 = 3600;
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// The adapter. Its operation is `set`; it never calls the order's purse.
///
/// Results: `success`, `provider`, `size`, `endpoint`, `ttl` (seconds). There is no `url`: the file is read back
/// through the gateway, which names it.
#[derive(Clone)]
pub struct XCache {
    line: Line,
    config: resolved::XCache,
    inventory: Arc<Inventory>,
}

/// A stored value's whereabouts, as kept in [`StoredHandle::handle`].
#[derive(Serialize, Deserialize)]
struct Handle {
    cache: String,
    key: String,
}

/// A value in the shape that carries its ttl in the body.
#[derive(Serialize)]
struct Body<'a> {
    value: &'a Value,
    ttl: u64,
}

impl XCache {
    pub(super) fn new(
        line: Line,
        config: resolved::XCache,
        store: Arc<dyn ValueStore>,
        wallet: Arc<dyn InventoryWallet>,
        clock: Clock,
    ) -> Self {
        let inventory = Arc::new(Inventory::new(line.clone(), &config, store, wallet, clock));
        XCache { line, config, inventory }
    }

    /// A store's share of what a cache costs, rounded up.
    fn share(&self, mut create: Offer) -> Result<Offer, ProviderError> {
        let (part, whole) = (self.config.operations_per_store, self.config.operations_per_cache);
        let share = create.cost.units().checked_mul(u128::from(part));
        let share = share.filter(|_| whole > 0).map(|total| total.div_ceil(u128::from(whole)));
        let share = share.ok_or_else(|| {
            ProviderError::new(Fault::Terms, "its price cannot be divided among the operations of a cache")
        })?;
        create.cost = Amount::new(share);
        create.pay_to = Address::ZERO;
        Ok(create)
    }

    /// Sets the value in the configured shape, or in the other one if the first is not understood. Returns the ttl.
    async fn set(
        &self,
        exchange: &Exchange<'_>,
        slot: &Slot,
        key: &str,
        order: &Order,
    ) -> Result<u64, ProviderError> {
        let Wanted::Store { ttl: asked, .. } = order.ask.wanted else {
            return Err(ProviderError::new(Fault::Internal, "only a store can be set"));
        };
        let ttl = asked.unwrap_or(DEFAULT_TTL);
        let value = value::encode(&order.content, &whole(&order.content.data).await?);
        let other = match self.config.set_shape {
            SetShape::Body => SetShape::Query,
            SetShape::Query => SetShape::Body,
        };
        for shape in [self.config.set_shape, other] {
            let (path, body) = match shape {
                SetShape::Body => (format!("/{}/{key}", slot.id), text(&Body { value: &value, ttl })?),
                SetShape::Query => (format!("/{}/{key}?ttl={ttl}", slot.id), text(&value)?),
            };
            let call = Call::json(Method::PUT, at(&self.config.url, &path)?, body);
            let answer = exchange.call(call.max_answer(self.value_limit())).await?;
            match answer.status {
                StatusCode::PAYMENT_REQUIRED => {
                    self.inventory.exhaust(slot).await;
                    return Err(ProviderError::new(
                        Fault::Broken,
                        "the cache has fewer operations than counted",
                    ));
                }
                StatusCode::NOT_FOUND | StatusCode::GONE => {
                    self.inventory.missing(slot).await;
                    return Err(ProviderError::new(Fault::Broken, "the cache does not answer to its id"));
                }
                status if is_about_shape(status) => continue,
                _ => {}
            }
            if let Some(kept) = kept(&object(&success(answer)?)?, key, ttl)? {
                return check_ttl(asked, kept);
            }
        }
        Err(ProviderError::new(Fault::Refused, "it takes the value in neither shape"))
    }

    /// An answer repeats the value, in base64 and possibly escaped once more.
    fn value_limit(&self) -> usize {
        usize::try_from(self.config.max_value)
            .unwrap_or(usize::MAX)
            .saturating_mul(2)
            .saturating_add(64 << 10)
    }
}

#[async_trait]
impl Provider for XCache {
    fn name(&self) -> &'static str {
        NAME
    }

    fn sells(&self, ask: &Ask) -> Result<Operation, NotSold> {
        match &ask.wanted {
            Wanted::Run { .. } => Err(NotSold::Operation { provider: NAME }),
            Wanted::Store { permanent: true, .. } => {
                Err(NotSold::Option { provider: NAME, option: "permanent true".into() })
            }
            Wanted::Store { .. } if ask.size > self.config.max_value => {
                Err(NotSold::Size { provider: NAME, limit: self.config.max_value })
            }
            Wanted::Store { .. } => Ok(SET),
        }
    }

    /// A share of the live price of a cache; no offer while there is no cache with room and none can be bought.
    async fn offer(&self, _: Operation, _: &Ask) -> Result<Offer, ProviderError> {
        let create = self.line.offer(self.inventory.create_probe()?).await?;
        let offer = self.share(create)?;
        self.inventory.ensure_room().await?;
        Ok(offer)
    }

    /// An interrupted set may be forgotten: it cost the job nothing.
    async fn perform(&self, order: &Order, _: &dyn Purse) -> Result<Done, ProviderError> {
        let exchange = self.line.open(order.deadline);
        let slot = self.inventory.reserve().await?;
        let key = Uuid::new_v4().simple().to_string();
        let ttl = self.set(&exchange, &slot, &key, order).await?;
        self.inventory.answered(&slot);

        let size = order.content.data.size();
        let mut result = Map::new();
        result.insert("success".into(), true.into());
        result.insert("provider".into(), NAME.into());
        result.insert("size".into(), size.into());
        result.insert("endpoint".into(), "/{id}/{key}".into());
        result.insert("ttl".into(), ttl.into());
        let handle = text(&Handle { cache: slot.id, key })?;
        let stored = StoredHandle {
            provider: NAME.into(),
            handle,
            content_type: order.content.content_type.clone(),
            size,
        };
        Ok(Done { result, stored: Some(stored), passed: None })
    }

    async fn read_back(&self, stored: &StoredHandle) -> Result<ReadBack, ProviderError> {
        let broken = |what| ProviderError::new(Fault::Broken, what);
        let handle: Handle = serde_json::from_str(&stored.handle)
            .ok()
            .filter(|handle: &Handle| is_plain_id(&handle.cache) && is_plain_id(&handle.key))
            .ok_or_else(|| ProviderError::new(Fault::Internal, "the stored handle cannot be read"))?;
        let url = at(&self.config.url, &format!("/{}/{}", handle.cache, handle.key))?;
        let call = Call::get(url).max_answer(self.value_limit());
        let answer = success(self.line.open(READ_DEADLINE).call(call).await?)?;
        let value = object(&answer)?.remove("value").unwrap_or_default();
        let bytes = value::decode(value).ok_or_else(|| broken("the value is not as it was set"))?;
        if bytes.len() as u64 != stored.size {
            return Err(broken("the value has another size than was set"));
        }
        Ok(ReadBack { bytes })
    }
}

/// Too large and too often are refusals of any shape.
fn is_about_shape(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS)
}

fn text(value: &impl Serialize) -> Result<String, ProviderError> {
    serde_json::to_string(value).map_err(|error| ProviderError::new(Fault::Internal, error.to_string()))
}

/// The ttl of a value that was set, or `None` if it was stored in the wrong shape.
fn kept(answer: &Map<String, Value>, key: &str, ttl: u64) -> Result<Option<u64>, ProviderError> {
    if answer.get("key").and_then(Value::as_str) != Some(key) {
        return Err(ProviderError::new(Fault::Broken, "the answer is not about the key that was set"));
    }
    if answer.get("value").is_some_and(value::is_nested) {
        return Ok(None);
    }
    Ok(Some(answer.get("ttl").and_then(Value::as_u64).unwrap_or(ttl)))
}

/// Less time than the client asked for is not what was sold; some seconds may have passed already.
fn check_ttl(asked: Option<u64>, kept: u64) -> Result<u64, ProviderError> {
    const PASSED: u64 = 10;
    match asked {
        Some(asked) if kept.saturating_add(PASSED) < asked => {
            Err(ProviderError::new(Fault::Refused, format!("it keeps the value for {kept} seconds only")))
        }
        _ => Ok(kept),
    }
}
