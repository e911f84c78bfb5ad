//! Several facilitators as one: asked in the order they are configured.
//!
//! - **Verify** asks the first; one that does not answer soon, or at all, is helped by the next, within a budget of such
//!   repetitions: a fault of one facilitator must not double the load of the others.
//! - **Settle** goes to the one that vouched for the payment, and stays with it as soon as it may have begun: it alone
//!   can tell its own transaction from a stranger's. Another is asked only where this one was provably not reached, or
//!   was caught lying. Whoever it is, the chain takes a payment's nonce once.
//! - One that does not answer is left out until it does ([`breaker`]); what each supports is kept in the store, so
//!   that a start does not depend on any of them.

mod breaker;
mod member;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use moka::sync::Cache;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{Facilitator, FacilitatorError, Observer, PaymentRequest, Settlement, Supported, Verdict};
use crate::jobs::{StoreError, ValueStore};
use member::Member;

/// What each facilitator last said it supports, by name: a list of [`StoredKind`].
const SUPPORTED: &str = "facilitators.supported";
/// Those that are not to be used, by name: why. Empty: used again.
const TRIPPED: &str = "facilitators.tripped";
/// By payment: the facilitator that may have begun to settle it, if that is not the first one configured.
const BEGUN: &str = "facilitators.begun";

/// How long it is remembered who began: longer than any authorization lives.
const KEEP_BEGUN: Duration = Duration::from_secs(7 * 86_400);
/// Payments on their way whose facilitator is known here.
const MOST_PAYMENTS: u64 = 100_000;
const FORGET_PAYMENTS: Duration = Duration::from_secs(3600);

/// Between two looks at a facilitator that works, and at one that does not.
const LOOK_EVERY: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a first answer waits for a facilitator that nothing is known of.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Tenths of a repetition that a verification earns, that a repetition costs, and that may be saved up.
const EARNED: u32 = 2;
const COST: u32 = 10;
const MOST: u32 = 100;

/// The facilitators of a gateway. There is at least one.
pub struct Pool {
    members: Vec<Arc<Member>>,
    hedge_after: Duration,
    store: Arc<dyn ValueStore>,
    /// Tenths of repetitions left.
    budget: AtomicU32,
    /// Whether somebody waited for first answers already.
    asked: AtomicBool,
    /// Trips that could not be written yet, by name.
    unwritten: Mutex<BTreeMap<String, String>>,
    /// Who is to settle a payment, by [`key`].
    settlers: Cache<Key, Settler>,
}

/// Who is to settle a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settler {
    /// The member's place.
    member: usize,
    /// It may have begun.
    begun: bool,
    /// The store says that somebody has begun.
    noted: bool,
}

/// A digest of a payment's payload.
type Key = [u8; 32];

#[derive(Serialize, Deserialize)]
struct StoredKind {
    version: u8,
    scheme: String,
    network: String,
}

impl Pool {
    /// A pool of these, first choice first, each with a name of its own. What is known of them is read from `store`;
    /// one that is away is no reason not to start.
    pub async fn open(
        members: Vec<(String, Arc<dyn Facilitator>)>,
        hedge_after: Duration,
        store: Arc<dyn ValueStore>,
        observer: Arc<dyn Observer>,
    ) -> Pool {
        let members = members.into_iter();
        let member = |(name, facilitator)| Arc::new(Member::new(name, facilitator, Arc::clone(&observer)));
        let pool = Pool {
            members: members.map(member).collect(),
            hedge_after,
            store,
            budget: AtomicU32::new(MOST),
            asked: AtomicBool::new(false),
            unwritten: Mutex::default(),
            settlers: Cache::builder().max_capacity(MOST_PAYMENTS).time_to_live(FORGET_PAYMENTS).build(),
        };
        pool.remember().await;
        pool
    }

    /// Looks at every facilitator again and again, until dropped.
    pub async fn watch(self: Arc<Self>) {
        // Each at its own pace: one that hangs must not keep the others from being found again.
        let looks = self.members.iter().map(|member| async {
            loop {
                self.look(member).await;
                tokio::time::sleep(LOOK_AGAIN).await;
                if member.fault().is_none() {
                    let _ = tokio::time::timeout(LOOK_EVERY, member.doubted()).await;
                }
            }
        });
        let tripped = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                self.read_tripped().await;
            }
        };
        tokio::join!(join_all(looks), tripped);
    }

    /// Uses the facilitator of this name no more, on no gateway of this store, until [`reset`]: it was caught saying
    /// what is not so. Holds here even if the store is away.
    pub async fn trip(&self, name: &str, why: &str) -> Result<(), StoreError> {
        for member in self.members.iter().filter(|member| member.name == name) {
            tracing::error!(facilitator = name, why, "tripped; it stays so until an operator resets it");
            member.trip(why.to_owned());
        }
        let written = self.store.put(TRIPPED, name, why.as_bytes(), None).await;
        if written.is_err() {
            self.unwritten.lock().insert(name.to_owned(), why.to_owned());
        }
        written
    }

    async fn look(&self, member: &Member) {
        let Some(kinds) = member.look().await else { return };
        let stored: Vec<_> = kinds.iter().map(StoredKind::from).collect();
        if member.learn(kinds)
            && let Ok(text) = serde_json::to_vec(&stored)
            && let Err(away) = self.store.put(SUPPORTED, &member.name, &text, None).await
        {
            tracing::warn!(%away, "what a facilitator supports is not kept");
        }
    }

    /// What is kept in the store.
    async fn remember(&self) {
        self.read_tripped().await;
        for member in &self.members {
            match self.store.get(SUPPORTED, &member.name).await {
                Ok(Some(text)) => {
                    let stored: Vec<StoredKind> = serde_json::from_slice(&text).unwrap_or_default();
                    member.learn(stored.iter().filter_map(StoredKind::read).collect());
                }
                Ok(None) => {}
                Err(away) => tracing::warn!(%away, "what a facilitator supports is not known"),
            }
        }
    }

    async fn read_tripped(&self) {
        let unwritten = self.unwritten.lock().clone();
        for (name, why) in unwritten {
            if self.store.put(TRIPPED, &name, why.as_bytes(), None).await.is_ok() {
                self.unwritten.lock().remove(&name);
            }
        }
        let tripped = match tripped(&*self.store).await {
            Ok(tripped) => tripped,
            Err(away) => {
                tracing::warn!(%away, "nobody knows which facilitators are tripped; it stays as it was");
                return;
            }
        };
        for member in &self.members {
            if self.unwritten.lock().contains_key(&member.name) {
                continue;
            }
            match tripped.get(&member.name) {
                Some(why) if !member.is_tripped() => member.trip(why.clone()),
                None if member.is_tripped() => member.reset(),
                _ => {}
            }
        }
    }

    /// The places of those that may settle this payment, in order.
    fn candidates(&self, request: &PaymentRequest) -> Vec<usize> {
        let all = || (0..self.members.len()).collect::<Vec<_>>();
        if self.members.len() == 1 {
            return all();
        }
        let Some(wanted) = wanted(request) else { return all() };
        let fits = |place: &usize| self.members.get(*place).is_some_and(|member| !member.lacks(&wanted));
        let fitting: Vec<usize> = (0..self.members.len()).filter(fits).collect();
        // That none lists it was said at the start; they may do it all the same.
        if fitting.is_empty() { all() } else { fitting }
    }

    /// The next of these, if one more repetition is within the budget, which it then takes from.
    fn repeat(&self, rest: &mut VecDeque<usize>) -> Option<(usize, Arc<Member>)> {
        let take = |left: u32| left.checked_sub(COST);
        if rest.is_empty() || self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return None;
        }
        self.next(rest)
    }

    fn earn(&self) {
        let earn = |left: u32| Some((left + EARNED).min(MOST));
        let _ = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn);
    }

    fn none_left(&self) -> FacilitatorError {
        let fault = |member: &Arc<Member>| {
            let why = member.fault().unwrap_or_else(|| "it is being tried".to_owned());
            format!("{}: {why}", member.name)
        };
        let faults: Vec<String> = self.members.iter().map(fault).collect();
        FacilitatorError::NotSent(format!("no facilitator can be used now; {}", faults.join("; ")))
    }

    /// `again`: it may have been sent before, by this process or another.
    async fn settle_by(&self, request: &PaymentRequest, again: bool) -> Result<Settlement, FacilitatorError> {
        if let [only] = self.members.as_slice() {
            // Who may have begun is asked though it did not answer of late: it is the one that knows.
            return match !only.is_tripped() && (only.admits() || again) {
                true => only.settle(request).await,
                false => Err(self.none_left()),
            };
        }
        let key = key(request);
        let before = match self.settlers.get(&key) {
            None if again => self.begun_elsewhere(&key).await,
            before => before,
        };
        let mut order = self.candidates(request);
        if let Some(Settler { member, .. }) = before {
            order.retain(|place| *place != member);
            order.insert(0, member);
        }
        let mut noted = before.is_some_and(|settler| settler.noted);
        let mut outcome = None;
        for place in order {
            let Some(member) = self.members.get(place) else { continue };
            let begun = before.is_some_and(|settler| settler.begun && settler.member == place);
            // So is who began here.
            if member.is_tripped() || !(member.admits() || begun) {
                continue;
            }
            if !begun || !noted {
                noted |= self.note(&key, place, noted).await;
            }
            self.settlers.insert(key, Settler { member: place, begun: true, noted });
            match member.settle(request).await {
                Err(FacilitatorError::NotSent(why)) => {
                    // It has done nothing, unless it did before.
                    self.settlers.insert(key, Settler { member: place, begun, noted });
                    outcome = Some(FacilitatorError::NotSent(why));
                }
                answer => return answer,
            }
        }
        Err(outcome.unwrap_or_else(|| self.none_left()))
    }

    /// Notes who begins, before it does, and says whether the store has a note now. Only an unusual one is worth a write:
    /// the first configured is who is asked where nothing is noted.
    async fn note(&self, key: &Key, place: usize, noted: bool) -> bool {
        let Some(member) = self.members.get(place).filter(|_| place > 0 || noted) else { return noted };
        let name = member.name.as_bytes();
        if let Err(away) = self.store.put(BEGUN, &hex::encode(key), name, Some(KEEP_BEGUN)).await {
            // The money is as safe; a repetition after a crash may only find out less.
            tracing::warn!(%away, facilitator = member.name, "who settles a payment is not noted");
        }
        true
    }

    async fn begun_elsewhere(&self, key: &Key) -> Option<Settler> {
        let noted = self.store.get(BEGUN, &hex::encode(key)).await.ok().flatten();
        let place = match noted {
            Some(name) => self.members.iter().position(|member| member.name.as_bytes() == name)?,
            None => 0,
        };
        Some(Settler { member: place, begun: true, noted: true })
    }

    /// The next of these that may be asked, which must then be.
    fn next(&self, rest: &mut VecDeque<usize>) -> Option<(usize, Arc<Member>)> {
        std::iter::from_fn(|| rest.pop_front())
            .filter_map(|place| self.members.get(place).map(|member| (place, Arc::clone(member))))
            .find(|(_, member)| member.admits())
    }

    /// This one says that the payment is good: it is to settle it, unless another may have begun.
    fn vouched(&self, request: &PaymentRequest, place: usize) {
        if self.members.len() == 1 {
            return;
        }
        let key = key(request);
        let before = self.settlers.get(&key);
        if !before.is_some_and(|settler| settler.begun) {
            let noted = before.is_some_and(|settler| settler.noted);
            self.settlers.insert(key, Settler { member: place, begun: false, noted });
        }
    }
}

#[async_trait]
impl Facilitator for Pool {
    async fn verify(&self, request: &PaymentRequest) -> Result<Verdict, FacilitatorError> {
        self.earn();
        let mut rest = VecDeque::from(self.candidates(request));
        let Some(first) = self.next(&mut rest) else { return Err(self.none_left()) };
        if rest.is_empty() {
            // Nobody else could help, so there is nothing to be watched beside the call.
            let (place, member) = first;
            let verdict = member.verify(request).await?;
            if verdict == Verdict::Valid {
                self.vouched(request, place);
            }
            return Ok(verdict);
        }
        // In tasks of their own: what a slow one says later still counts for its breaker.
        let mut asked = JoinSet::new();
        let ask = |asked: &mut JoinSet<_>, (place, member): (usize, Arc<Member>)| {
            let request = request.clone();
            asked.spawn(async move { (place, member.verify(&request).await) });
        };
        ask(&mut asked, first);
        let mut hedge = Box::pin(tokio::time::sleep(self.hedge_after));
        let mut hedged = false;
        loop {
            tokio::select! {
                Some(done) = asked.join_next() => {
                    let (place, answer) = match done {
                        Ok(done) => done,
                        Err(error) => return Err(FacilitatorError::Unknown(error.to_string())),
                    };
                    match answer {
                        Ok(verdict) => {
                            asked.detach_all();
                            if verdict == Verdict::Valid {
                                self.vouched(request, place);
                            }
                            return Ok(verdict);
                        }
                        Err(error) => match self.repeat(&mut rest) {
                            Some(next) => ask(&mut asked, next),
                            None if asked.is_empty() => return Err(error),
                            None => {}
                        },
                    }
                }
                () = &mut hedge, if !hedged => {
                    hedged = true;
                    if let Some(next) = self.repeat(&mut rest) {
                        ask(&mut asked, next);
                    }
                }
            }
        }
    }

    async fn settle(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        self.settle_by(request, false).await
    }

    async fn settle_again(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        self.settle_by(request, true).await
    }

    async fn settler(&self, request: &PaymentRequest) -> Option<String> {
        let key = key(request);
        let settler = match self.settlers.get(&key) {
            Some(settler) => Some(settler.member),
            None if self.members.len() == 1 => Some(0),
            None => self.begun_elsewhere(&key).await.map(|settler| settler.member),
        };
        Some(self.members.get(settler?)?.name.clone())
    }

    async fn distrust(&self, name: &str, why: &str) {
        if let Err(away) = self.trip(name, why).await {
            tracing::warn!(%away, facilitator = name, "that it was tripped is not written down yet");
        }
    }

    /// What those that can be used now support, by what they said last.
    async fn supported(&self) -> Result<Vec<Supported>, FacilitatorError> {
        if !self.asked.swap(true, Ordering::Relaxed) {
            // Late is as good as never: the next look will tell.
            let looks = join_all(self.members.iter().map(|member| self.look(member)));
            let _ = tokio::time::timeout(FIRST_LOOK, looks).await;
        }
        let usable: Vec<_> = self.members.iter().filter(|member| member.fault().is_none()).collect();
        if usable.is_empty() {
            return Err(self.none_left());
        }
        let mut kinds: Vec<Supported> = usable.iter().filter_map(|member| member.kinds()).flatten().collect();
        if kinds.is_empty() {
            let names: Vec<&str> = usable.iter().map(|member| member.name.as_str()).collect();
            return Err(FacilitatorError::Unknown(format!("{} did not say", names.join(", "))));
        }
        kinds.sort_by_key(|kind| (kind.network.0, u8::from(kind.version)));
        kinds.dedup();
        Ok(kinds)
    }
}

impl From<&Supported> for StoredKind {
    fn from(kind: &Supported) -> Self {
        StoredKind {
            version: kind.version.into(),
            scheme: kind.scheme.clone(),
            network: kind.network.to_string(),
        }
    }
}

impl StoredKind {
    fn read(&self) -> Option<Supported> {
        Some(Supported {
            version: self.version.try_into().ok()?,
            scheme: self.scheme.clone(),
            network: self.network.parse().ok()?,
        })
    }
}

/// The facilitators that are not used any more on the gateways of this store, with the reasons.
pub async fn tripped(store: &dyn ValueStore) -> Result<BTreeMap<String, String>, StoreError> {
    let tripped = store.list(TRIPPED).await?.into_iter().filter(|(_, why)| !why.is_empty());
    Ok(tripped.map(|(name, why)| (name, String::from_utf8_lossy(&why).into_owned())).collect())
}

/// Takes back [`Pool::trip`]; the gateways that run follow within [`LOOK_EVERY`].
pub async fn reset(store: &dyn ValueStore, name: &str) -> Result<(), StoreError> {
    store.put(TRIPPED, name, b"", None).await
}

/// What settling this payment takes.
fn wanted(request: &PaymentRequest) -> Option<Supported> {
    let terms: Value = serde_json::from_str(request.payment_requirements.get()).ok()?;
    let text = |key| terms.get(key).and_then(Value::as_str);
    Some(Supported {
        version: request.x402_version,
        scheme: text("scheme")?.to_owned(),
        network: text("network")?.parse().ok()?,
    })
}

/// The same for every repetition of one settlement.
fn key(request: &PaymentRequest) -> Key {
    let mut key = Key::default();
    let hash = digest(&SHA256, request.payment_payload.get().as_bytes());
    key.copy_from_slice(hash.as_ref());
    key
}
