//! The guards: what the wallet may spend, lose and have out, whom it may pay, and whether it may pay at all.
//!
//! Limits hold for all gateways on one store together. Each draws slices of them (`rate` for what is spent in an hour,
//! `level` for what is out at one time) and works on those alone, so that a sale asks nobody; `freeze` is a switch that
//! the operator, or a gateway, throws for all; `outlays` throws it for what leaves the wallet without a record. Nothing here signs, journals or answers: the broker asks
//! before it spends, the edge before it sells.
//!
//! Sums of tokens with different decimals are counted in millionths of a dollar, rounded up.

mod balance;
mod freeze;
mod lacking;
mod level;
mod levels;
mod losses;
mod nonces;
mod outlays;
mod rate;
mod reserved;
mod tend;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::clock::{Clock, UnixMillis, UnixSeconds};
use crate::config::resolved::Limits;
use crate::jobs::{ClaimKey, ValueStore};
use crate::money::Amount;
use crate::reason::{Problem, Reason};
use crate::telemetry::{Guard, Metrics};
use crate::x402::{Address, Asset};

pub use balance::{Balance, Watched};
pub use freeze::{Frozen, Switch, SwitchError};
pub use nonces::note;
pub use outlays::{OutlayWatch, Outlays, looked_until};
pub use reserved::{BornLoss, Reserved};
pub use trust::Credit;

use balance::Balances;
use lacking::Lacking;
use levels::{Levels, Of, Outs};
use losses::Losses;
use nonces::Nonces;
use rate::Rate;
use trust::Trust;

/// The store's space of limits.
pub const SPACE: &str = "limits";

/// The switch counts as thrown if it could not be read for this long.
const STALE: Duration = Duration::from_secs(10);

/// A payment to a provider that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Who is to be paid.
    pub provider: &'a str,
    /// In what.
    pub asset: &'a Asset,
    /// How much, at most.
    pub amount: Amount,
    /// Whose payment it is made for.
    pub payer: Address,
    /// When that lapses; `None` if it is settled, or settled before: then nothing is exposed.
    pub until: Option<UnixSeconds>,
}

/// Why a limit gives nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refused {
    /// There is not enough left of it.
    Spent,
    /// The store does not say.
    Away(String),
}

/// All guards. One for the process.
pub struct Guards {
    store: Arc<dyn ValueStore>,
    clock: Clock,
    metrics: Arc<Metrics>,
    limits: Limits,
    spend: Arc<Rate>,
    /// By name. They are few, and each challenge asks for one: to compare names costs less than to hash one.
    providers: ArcSwap<Vec<(String, Arc<Rate>)>>,
    quote_loss: Arc<Rate>,
    exposure: Levels,
    /// What is out for jobs of this process, until they are settled or at rest.
    exposed: Mutex<HashMap<ClaimKey, Vec<Outs>>>,
    trust: Trust,
    losses: Losses,
    /// Empty where no provider is paid.
    balances: OnceLock<Balances>,
    /// What was signed here, for the watch over what leaves the wallet.
    nonces: Nonces,
    switch: Switch,
    seen: ArcSwap<freeze::Seen>,
}

impl Guards {
    /// Guards that hold `limits` with all others on `store`.
    pub fn new(
        store: Arc<dyn ValueStore>,
        clock: Clock,
        metrics: Arc<Metrics>,
        limits: &Limits,
        switch: Switch,
    ) -> Arc<Guards> {
        let name = Uuid::new_v4().to_string();
        let rate = |key: &str, limit| Rate::new(Arc::clone(&store), clock.clone(), key.to_owned(), limit);
        let names = ("exposure", name.as_str());
        Arc::new(Guards {
            spend: rate("spend", limits.spend_per_hour),
            quote_loss: rate("quote_loss", limits.quote_loss_per_hour),
            exposure: Levels::new(&store, &clock, names, limits.exposure, limits.payer_exposure),
            trust: Trust::new(&store, &clock, &name, limits),
            losses: Losses::new(Arc::clone(&store), clock.clone(), "loss", name),
            providers: ArcSwap::default(),
            balances: OnceLock::new(),
            exposed: Mutex::default(),
            nonces: Nonces::default(),
            seen: ArcSwap::default(),
            limits: limits.clone(),
            store,
            clock,
            metrics,
            switch,
        })
    }

    /// With an eye on what the wallet has. Once.
    pub fn watch_balance(&self, watched: Watched) {
        self.balances.get_or_init(|| Balances::new(watched));
    }

    /// Guards that forbid nothing, and have looked at everything.
    #[cfg(test)]
    pub(crate) fn lax(store: Arc<dyn ValueStore>, clock: Clock, metrics: Arc<Metrics>) -> Arc<Guards> {
        let most = crate::jobs::Draw::MOST;
        let limits = Limits {
            spend_per_hour: most,
            provider_spend_per_hour: most,
            exposure: most,
            payer_exposure: most,
            loss_per_hour: most,
            quote_loss_per_hour: most,
            profit_floor: None,
            unsettled: most,
            payer_unsettled: most,
            uncollected_per_hour: most,
        };
        let switch = Switch::Store(Arc::clone(&store));
        let guards = Guards::new(store, clock, metrics, &limits, switch);
        guards.assume_well();
        guards
    }

    /// As if the switch and the losses had just been looked at, and will be for as long as a test takes.
    #[cfg(test)]
    pub(crate) fn assume_well(&self) {
        let at = Some(std::time::Instant::now() + Duration::from_secs(3600));
        self.seen.store(Arc::new(freeze::Seen { at, frozen: None }));
        self.losses.assume_none();
        self.trust.assume_none();
    }

    /// Why brokered work that costs this much of this provider is not sold just now. From memory.
    pub fn refuses(&self, provider: &str, cost: u64) -> Option<Problem> {
        let guard = if let Some(problem) = self.closed() {
            return Some(problem);
        } else if self.balances.get().is_some_and(|balances| balances.all_lack(cost)) {
            Guard::Balance
        } else if self.spend.lacks(cost) {
            Guard::Spend
        } else if self.spent_with(provider, cost) {
            Guard::ProviderSpend
        } else if self.exposure.lacks(cost) {
            Guard::Exposure
        } else {
            return None;
        };
        Some(self.refusal(guard))
    }

    /// Whether so much, in millionths of a dollar, was found to be more than may still be spent with this provider.
    pub fn spent_with(&self, provider: &str, cost: u64) -> bool {
        self.providers.load().iter().any(|(name, rate)| name == provider && rate.lacks(cost))
    }

    /// Why no payment to a provider is signed just now, whatever it is. From memory.
    pub fn closed(&self) -> Option<Problem> {
        self.closed_at(Instant::now())
    }

    /// The same, for whoever has looked at the clock already.
    pub fn closed_at(&self, now: Instant) -> Option<Problem> {
        let seen = self.seen.load();
        if seen.frozen.is_some() {
            return Some(Problem::new(Reason::WalletFrozen).retry_after(60));
        }
        // Whoever cannot read the switch must take it for thrown.
        let known = seen.at.is_some_and(|at| now.saturating_duration_since(at) < STALE);
        (!known).then(|| Problem::new(Reason::StoreAway))
    }

    /// What the operator said when he froze the wallet.
    pub fn frozen(&self) -> Option<Frozen> {
        self.seen.load().frozen.clone()
    }

    /// Freezes the wallet, here at once and everywhere within seconds; here only, and for a moment, if the switch cannot
    /// be thrown.
    pub async fn freeze(&self, frozen: Frozen) -> Result<(), SwitchError> {
        tracing::error!(
            reason = frozen.reason,
            "the wallet is frozen: no provider is paid until it is unfrozen"
        );
        self.saw(Some(frozen.clone()));
        self.switch.throw(&frozen).await
    }

    /// Whether so much was lost in the last hour that clients of brokered work pay upfront.
    pub fn losses_spent(&self) -> bool {
        self.losses.total().is_none_or(|lost| lost >= self.limits.loss_per_hour)
    }

    /// Whether the budget for all providers together was found to have less left than this: then no other is of help.
    pub fn all_spent(&self, asset: &Asset, amount: Amount) -> bool {
        self.spend.lacks(micros(amount, asset))
    }

    /// Books a loss: a provider was, or may have been, paid for work that its client did not pay for.
    pub fn lost(&self, asset: &Asset, amount: Amount) {
        let lost = micros(amount, asset);
        self.metrics.lost(lost);
        self.losses.book(lost);
    }

    /// A provider would not take a payment because, it says, the wallet has not enough.
    pub fn refused_for_funds(&self, asset: &Asset) {
        tracing::error!(network = %asset.network, asset = %asset.address,
            "a provider says that the wallet has not enough to pay it; nothing is bought for a while");
        if let Some(balances) = self.balances.get() {
            balances.refused(asset);
        }
    }

    /// What the wallet has left of each token, as far as it is known.
    pub fn left(&self) -> Vec<(Asset, Option<Amount>)> {
        self.balances.get().map(Balances::left).unwrap_or_default()
    }

    /// Whether the wallet can pay for nothing at all.
    pub fn is_low(&self) -> bool {
        self.balances.get().is_some_and(|balances| balances.all_lack(1))
    }

    /// Takes from every limit what a payment needs. Nothing is taken where one refuses.
    pub async fn reserve(self: &Arc<Self>, wish: Wish<'_>) -> Result<Reserved, Problem> {
        if let Some(problem) = self.closed() {
            return Err(problem);
        }
        if self.balances.get().is_some_and(|balances| balances.lacks(wish.asset, wish.amount)) {
            tracing::warn!(network = %wish.asset.network, amount = %wish.amount, "the wallet has not enough");
            return Err(self.refusal(Guard::Balance));
        }
        let amount = micros(wish.amount, wish.asset);
        let spend = self.spend.take(amount).await.map_err(|refused| self.refused(Guard::Spend, refused))?;
        let provider = self.provider(wish.provider).take(amount).await;
        let provider = provider.map_err(|refused| self.refused(Guard::ProviderSpend, refused))?;
        let exposed = match wish.until {
            None => None,
            Some(until) => {
                let taken = self.exposure.take(wish.payer, amount, until.saturating_mul(1000)).await;
                Some(taken.map_err(|(of, refused)| match of {
                    Of::All => self.refused(Guard::Exposure, refused),
                    Of::One => self.refused(Guard::PayerExposure, refused),
                })?)
            }
        };
        Ok(Reserved::new(Arc::clone(self), amount, spend, provider, exposed))
    }

    /// Takes what is lost where work is sold for less than it costs by now; back if that is not spent.
    pub async fn bear(&self, loss: u64) -> Option<BornLoss> {
        self.quote_loss
            .take(loss)
            .await
            .map(BornLoss::new)
            .map_err(|refused| self.refused(Guard::QuoteLoss, refused))
            .ok()
    }

    /// A job that somebody else had is ours now: what it exposes is out, whatever the limits say.
    pub fn adopt(&self, claim: &ClaimKey, payer: Address, exposed: &[(Asset, Amount)]) {
        let sum =
            exposed.iter().fold(0u64, |sum, (asset, amount)| sum.saturating_add(micros(*amount, asset)));
        if sum == 0 || self.exposed.lock().contains_key(claim) {
            return;
        }
        let out = self.exposure.adopt(payer, sum);
        self.exposed.lock().insert(claim.clone(), vec![out]);
    }

    /// The jobs of this process for which something is out.
    pub fn exposing(&self) -> Vec<ClaimKey> {
        self.exposed.lock().keys().cloned().collect()
    }

    /// A job exposes nothing any more.
    pub fn settled(&self, claim: &ClaimKey) {
        drop(self.exposed.lock().remove(claim));
        if let Some(balances) = self.balances.get() {
            balances.done(claim);
        }
    }

    /// Counts a sale that was not made, or a payment that was not signed, and says why.
    pub fn refusal(&self, guard: Guard) -> Problem {
        self.metrics.guarded(guard);
        match guard {
            Guard::Spend | Guard::ProviderSpend => Problem::new(Reason::BudgetSpent).retry_after(60),
            Guard::Exposure | Guard::PayerExposure => Problem::new(Reason::ExposureLimit).retry_after(5),
            Guard::QuoteLoss | Guard::ProfitFloor => Problem::new(Reason::QuoteWithdrawn),
            Guard::Balance => Problem::new(Reason::WalletLow).retry_after(60),
            Guard::Payee => Problem::new(Reason::PayeeChanged).retry_after(60),
            Guard::Unsettled | Guard::PayerUnsettled | Guard::Uncollected => {
                Problem::new(Reason::ExposureLimit).retry_after(5)
            }
        }
    }

    fn refused(&self, guard: Guard, refused: Refused) -> Problem {
        match refused {
            Refused::Spent => {
                tracing::warn!(guard = guard.name(), "a limit is reached; a provider is not paid");
                self.refusal(guard)
            }
            Refused::Away(why) => {
                tracing::warn!(
                    guard = guard.name(),
                    why,
                    "nothing is known of a limit; a provider is not paid"
                );
                Problem::new(Reason::StoreAway)
            }
        }
    }

    fn provider(&self, name: &str) -> Arc<Rate> {
        let find = |known: &[(String, Arc<Rate>)]| {
            known.iter().find(|(known, _)| known == name).map(|(_, rate)| Arc::clone(rate))
        };
        if let Some(known) = find(&self.providers.load()) {
            return known;
        }
        let (store, clock) = (Arc::clone(&self.store), self.clock.clone());
        let rate = Rate::new(store, clock, format!("spend/{name}"), self.limits.provider_spend_per_hour);
        self.providers.rcu(|known| {
            let mut known = Vec::clone(known);
            if find(&known).is_none() {
                known.push((name.to_owned(), Arc::clone(&rate)));
            }
            known
        });
        // Another may have been quicker.
        find(&self.providers.load()).unwrap_or(rate)
    }
}

/// Millionths of a dollar, rounded up; a sum too large to count is larger than every limit.
pub fn micros(amount: Amount, asset: &Asset) -> u64 {
    amount.micros(asset.decimals).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> UnixMillis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
