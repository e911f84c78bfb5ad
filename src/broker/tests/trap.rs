//! A store that fails on command, before or after the effect, or lets another process take the job.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::*;
use crate::jobs::{Appended, Claim, ClaimKey, Draw, Entry, Event, Lease, Step, StoreError, ValueStore};

/// How long a call takes on its way to a store that shuffles, and again on its way back: mostly less than the one, and
/// sometimes up to the other; milliseconds.
const SHORT_ON_THE_WAY: u64 = 5;
const LONG_ON_THE_WAY: u64 = 500;

pub(in crate::broker) struct Trap {
    pub(super) inner: Arc<Embedded>,
    tricks: Mutex<HashMap<&'static str, VecDeque<Trick>>>,
    /// The events of each append, in the order in which they were begun.
    pub(super) appends: Mutex<Vec<Vec<&'static str>>>,
    away: AtomicBool,
    no_values: AtomicBool,
    /// How long each call takes.
    uneven: Uneven,
    /// The next new value of this space waits until the test says so.
    held: Mutex<Option<(&'static str, Arc<Notify>)>>,
}

/// Lets things take a while of their own. None, until it is given a seed.
#[derive(Default)]
pub(in crate::broker) struct Uneven(Mutex<Option<TestRng>>);

/// What becomes of one append.
#[derive(Clone)]
pub(super) enum Trick {
    /// Not written, and no answer.
    Before,
    /// Written, and no answer.
    After,
    /// Another process takes the job first.
    Stolen,
    /// Written only when the test says so.
    Held(Arc<Notify>),
}

impl Uneven {
    pub(super) fn seed(&self, seed: u64) {
        *self.0.lock() = Some(seeded(seed));
    }

    pub(super) async fn a_while(&self) {
        let took = self.0.lock().as_mut().map(|uneven| match uneven.random_range(0..6) {
            0 => uneven.random_range(0..LONG_ON_THE_WAY),
            _ => uneven.random_range(0..SHORT_ON_THE_WAY),
        });
        if let Some(took) = took {
            tokio::time::sleep(Duration::from_millis(took)).await;
        }
    }
}

pub(super) fn seeded(seed: u64) -> TestRng {
    let mut whole = [0; 32];
    whole[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &whole)
}

impl Trap {
    pub(super) fn new(inner: Embedded) -> Self {
        Trap::over(Arc::new(inner))
    }

    /// Another gateway's way to the same store.
    pub(super) fn over(inner: Arc<Embedded>) -> Self {
        Trap {
            inner,
            tricks: Mutex::default(),
            appends: Mutex::default(),
            away: false.into(),
            no_values: false.into(),
            uneven: Uneven::default(),
            held: Mutex::default(),
        }
    }

    /// The next appends of this event meet these, one each.
    pub(super) fn trap(&self, event: &'static str, tricks: &[Trick]) {
        self.tricks.lock().entry(event).or_default().extend(tricks.iter().cloned());
    }

    pub(super) fn spring(&self) {
        self.tricks.lock().clear();
    }

    pub(super) fn refuse_values(&self, refuse: bool) {
        self.no_values.store(refuse, Ordering::SeqCst);
    }

    pub(super) fn go_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// The next new value of this space is written when what is returned is notified: whoever writes it stands still.
    pub(super) fn hold(&self, space: &'static str) -> Arc<Notify> {
        let until = Arc::new(Notify::new());
        *self.held.lock() = Some((space, Arc::clone(&until)));
        until
    }

    /// Every call takes a while of its own from now on, there and back, so that callers meet in an order that `seed` decides.
    pub(super) fn shuffle(&self, seed: u64) {
        self.uneven.seed(seed);
    }

    /// On a thread that may block, which keeps paused time from running on meanwhile.
    async fn on<T, F>(&self, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        if self.away.load(Ordering::SeqCst) {
            return Err(gone());
        }
        self.uneven.a_while().await;
        let handle = tokio::runtime::Handle::current();
        let said = tokio::task::spawn_blocking(move || handle.block_on(call)).await.unwrap();
        self.uneven.a_while().await;
        said
    }
}

fn gone() -> StoreError {
    StoreError::Away("as told".into())
}

#[async_trait]
impl JobStore for Trap {
    async fn claim(&self, job: &Job, lease: Duration) -> Result<Claim, StoreError> {
        let inner = Arc::clone(&self.inner);
        let job = job.clone();
        self.on(async move { inner.claim(&job, lease).await }).await
    }

    async fn append_all(&self, lease: &Lease, steps: &[Step<'_>], job: &Job) -> Result<Appended, StoreError> {
        self.appends.lock().push(steps.iter().map(|step| step.event.name()).collect());
        let trick = {
            let mut tricks = self.tricks.lock();
            steps.iter().find_map(|step| tricks.get_mut(step.event.name())?.pop_front())
        };
        match &trick {
            Some(Trick::Before) => return Err(gone()),
            Some(Trick::Held(until)) => until.notified().await,
            Some(Trick::Stolen) => {
                self.release(lease).await.unwrap();
                assert!(self.take_over(&lease.claim, Duration::from_secs(15)).await.unwrap().is_some());
            }
            Some(Trick::After) | None => {}
        }
        let appended = {
            let inner = Arc::clone(&self.inner);
            let lease = lease.clone();
            let events: Vec<(Event, u64)> = steps.iter().map(|step| (step.event.clone(), step.at)).collect();
            let job = job.clone();
            self.on(async move {
                let steps: Vec<Step<'_>> = events.iter().map(|(event, at)| Step { event, at: *at }).collect();
                inner.append_all(&lease, &steps, &job).await
            })
            .await
        };
        if matches!(trick, Some(Trick::After)) { Err(gone()) } else { appended }
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Appended, StoreError> {
        let inner = Arc::clone(&self.inner);
        let lease = lease.clone();
        self.on(async move { inner.renew(&lease, duration).await }).await
    }

    async fn take_over(&self, claim: &ClaimKey, lease: Duration) -> Result<Option<(Job, Lease)>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let claim = claim.clone();
        self.on(async move { inner.take_over(&claim, lease).await }).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        let lease = lease.clone();
        self.on(async move { inner.release(&lease).await }).await
    }

    async fn by_claim(&self, claim: &ClaimKey) -> Result<Option<Job>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let claim = claim.clone();
        self.on(async move { inner.by_claim(&claim).await }).await
    }

    async fn by_id(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.on(async move { inner.by_id(id).await }).await
    }

    async fn journal(&self, claim: &ClaimKey) -> Result<Vec<Entry>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let claim = claim.clone();
        self.on(async move { inner.journal(&claim).await }).await
    }

    async fn forget(&self, job: &Job) -> Result<bool, StoreError> {
        let (inner, job) = (Arc::clone(&self.inner), job.clone());
        self.on(async move { inner.forget(&job).await }).await
    }

    async fn due(&self, limit: usize) -> Result<Vec<ClaimKey>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.on(async move { inner.due(limit).await }).await
    }

    async fn in_state(&self, state: State, limit: usize) -> Result<Vec<JobId>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.on(async move { inner.in_state(state, limit).await }).await
    }

    async fn scan(
        &self,
        after: Option<&str>,
        about: usize,
    ) -> Result<(Vec<JobId>, Option<String>), StoreError> {
        let (inner, after) = (Arc::clone(&self.inner), after.map(str::to_owned));
        self.on(async move { inner.scan(after.as_deref(), about).await }).await
    }

    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.on(async move { inner.count_by_state().await }).await
    }
}

#[async_trait]
impl ValueStore for Trap {
    async fn put(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        if self.no_values.load(Ordering::SeqCst) {
            return Err(gone());
        }
        let inner = Arc::clone(&self.inner);
        let space = space.to_owned();
        let key = key.to_owned();
        let value = value.to_owned();
        self.on(async move { inner.put(&space, &key, &value, ttl).await }).await
    }

    async fn put_new(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let held = self.held.lock().take_if(|(of, _)| *of == space);
        if let Some((_, until)) = held {
            until.notified().await;
        }
        let inner = Arc::clone(&self.inner);
        let space = space.to_owned();
        let key = key.to_owned();
        let value = value.to_owned();
        self.on(async move { inner.put_new(&space, &key, &value, ttl).await }).await
    }

    async fn get(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let space = space.to_owned();
        let key = key.to_owned();
        self.on(async move { inner.get(&space, &key).await }).await
    }

    async fn list(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let space = space.to_owned();
        self.on(async move { inner.list(&space).await }).await
    }

    async fn add(&self, space: &str, key: &str, delta: i64) -> Result<i64, StoreError> {
        let inner = Arc::clone(&self.inner);
        let space = space.to_owned();
        let key = key.to_owned();
        self.on(async move { inner.add(&space, &key, delta).await }).await
    }

    async fn draw(&self, space: &str, key: &str, slice: &str, draw: Draw) -> Result<Option<u64>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let (space, key, slice) = (space.to_owned(), key.to_owned(), slice.to_owned());
        self.on(async move { inner.draw(&space, &key, &slice, draw).await }).await
    }

    async fn drawn(&self, space: &str, key: &str) -> Result<u64, StoreError> {
        let inner = Arc::clone(&self.inner);
        let (space, key) = (space.to_owned(), key.to_owned());
        self.on(async move { inner.drawn(&space, &key).await }).await
    }
}
