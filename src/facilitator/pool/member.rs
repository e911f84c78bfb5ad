//! One facilitator of the pool: called through its breaker's eyes, counted under its name, and what it last said it
//! supports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::breaker::Breaker;
use crate::facilitator::{
    Facilitator, FacilitatorError, Observer, Operation, Outcome, PaymentRequest, Settlement, Supported,
    Verdict,
};

pub(super) struct Member {
    pub(super) name: String,
    facilitator: Arc<dyn Facilitator>,
    observer: Arc<dyn Observer>,
    breaker: Mutex<Breaker>,
    /// A call was not answered: somebody should look.
    doubt: Notify,
    /// What was last said of its being available.
    said: AtomicBool,
    /// `None` until it said so once, to this process or to one before.
    kinds: RwLock<Option<Vec<Supported>>>,
}

impl Member {
    pub(super) fn new(name: String, facilitator: Arc<dyn Facilitator>, observer: Arc<dyn Observer>) -> Self {
        observer.available(&name, true);
        let breaker = Mutex::new(Breaker::new());
        let (doubt, said, kinds) = (Notify::new(), AtomicBool::new(true), RwLock::new(None));
        Member { name, facilitator, observer, breaker, doubt, said, kinds }
    }

    /// Whether it may be called now; a call must follow.
    pub(super) fn admits(&self) -> bool {
        self.breaker.lock().admits(Instant::now())
    }

    pub(super) fn is_tripped(&self) -> bool {
        self.breaker.lock().is_tripped()
    }

    /// Why it is not to be counted on now.
    pub(super) fn fault(&self) -> Option<String> {
        self.breaker.lock().fault().map(str::to_owned)
    }

    pub(super) fn kinds(&self) -> Option<Vec<Supported>> {
        self.kinds.read().clone()
    }

    /// Whether it is known not to settle this.
    pub(super) fn lacks(&self, wanted: &Supported) -> bool {
        self.kinds.read().as_ref().is_some_and(|kinds| !kinds.contains(wanted))
    }

    /// Takes over what it said it supports. Whether that is new.
    pub(super) fn learn(&self, kinds: Vec<Supported>) -> bool {
        let kinds = Some(kinds);
        let mut known = self.kinds.write();
        let new = *known != kinds;
        *known = kinds;
        new
    }

    pub(super) async fn verify(&self, request: &PaymentRequest) -> Result<Verdict, FacilitatorError> {
        let began = Instant::now();
        let answer = self.facilitator.verify(request).await;
        let outcome = match &answer {
            Ok(Verdict::Valid) => Outcome::Yes,
            Ok(Verdict::Invalid { .. }) => Outcome::No,
            Err(error) => Outcome::of(error),
        };
        self.called(Operation::Verify, outcome, answer.as_ref().err(), began);
        answer
    }

    pub(super) async fn settle(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        let began = Instant::now();
        let answer = self.facilitator.settle(request).await;
        let outcome = match &answer {
            Ok(Settlement::Settled(_)) => Outcome::Yes,
            Ok(Settlement::Pending(_)) => Outcome::Pending,
            Ok(Settlement::Refused(_)) => Outcome::No,
            Err(error) => Outcome::of(error),
        };
        self.called(Operation::Settle, outcome, answer.as_ref().err(), began);
        answer
    }

    /// Waits for a call that is not answered.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// Asks what it supports. `None`: it did not say.
    pub(super) async fn look(&self) -> Option<Vec<Supported>> {
        let began = Instant::now();
        let answer = self.facilitator.supported().await;
        let outcome = answer.as_ref().map_or_else(Outcome::of, |_| Outcome::Yes);
        self.observer.called(&self.name, Operation::Supported, outcome, began.elapsed());
        self.change(|breaker| match &answer {
            Err(FacilitatorError::NotSent(why)) => breaker.is_gone(why, Instant::now()),
            // One that answers anything at all is there.
            Ok(_) | Err(FacilitatorError::Unknown(_)) => breaker.is_there(Instant::now()),
        });
        answer.inspect_err(|error| tracing::debug!(facilitator = self.name, %error, "/supported")).ok()
    }

    pub(super) fn trip(&self, why: String) {
        self.change(|breaker| breaker.trip(why));
    }

    pub(super) fn reset(&self) {
        self.change(Breaker::reset);
    }

    fn called(
        &self,
        operation: Operation,
        outcome: Outcome,
        error: Option<&FacilitatorError>,
        began: Instant,
    ) {
        self.observer.called(&self.name, operation, outcome, began.elapsed());
        self.change(|breaker| match error {
            None => breaker.answered(),
            Some(error) => breaker.failed(&error.to_string(), Instant::now()),
        });
        if error.is_some() {
            self.doubt.notify_one();
        }
    }

    /// Changes the breaker, and says so if that opened or closed it.
    fn change(&self, change: impl FnOnce(&mut Breaker)) {
        let fault = {
            let mut breaker = self.breaker.lock();
            change(&mut breaker);
            breaker.fault().map(str::to_owned)
        };
        let available = fault.is_none();
        if self.said.swap(available, Ordering::Relaxed) == available {
            return;
        }
        match fault {
            None => tracing::info!(facilitator = self.name, "used again"),
            Some(why) => tracing::error!(facilitator = self.name, why, "not used for now"),
        }
        self.observer.available(&self.name, available);
    }
}
