//! The broker over the real embedded store, with a store, a facilitator and work that turn hostile on command.
//!
//! Tokio's time is paused, so waits end at once; the jobs' clock stands still until a test moves it.

mod audit;
mod batch;
mod duplicates;
mod explore;
mod faults;
mod guards;
mod handing;
mod memory;
mod named;
mod orders;
mod parts;
mod proof;
mod provider;
mod records;
mod settle;
mod trap;
mod trust;
mod turn;
mod upfront;
mod work;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use super::*;
use crate::chain::{ChainError, Head, Proof, Sought, Spent};
use crate::facilitator::{FacilitatorError, PaymentRequest, Settlement, Supported, Verdict};
use crate::jobs::Shortfall;
use crate::jobs::job::Retention;
use crate::jobs::{Answer, Embedded, Job, Kept, State};
use crate::money::Amount;
use crate::providers::Purse;
use crate::reason::{Charged, Reason};
use crate::x402::fixtures::{KEY, NOW, challenge, usdc};
use crate::x402::{Address, B256, Network, PaymentFlow, Receipt};
use trap::{Trap, Uneven};

const PRICE: u128 = 10_000;
const COST: u128 = 8_000;
/// What is owed for a part.
const OWED: Amount = Amount::new(4_000);
const RETENTION: Duration = Duration::from_secs(3600);

/// A dollar token of 18 places, for sums that do not compare as they stand.
pub(super) fn fine() -> Asset {
    Asset { address: Address::repeat_byte(0x18), name: "Fine Dollar".into(), decimals: 18, ..usdc() }
}

pub(super) struct Stage {
    pub(super) clock: Clock,
    pub(super) store: Arc<Trap>,
    pub(super) facilitator: Arc<Fake>,
    pub(super) chain: Arc<Oracle>,
    pub(super) broker: Arc<Broker>,
    pub(super) log: Arc<Log>,
    _directory: tempfile::TempDir,
}

/// What the works of a stage did.
#[derive(Default)]
pub(super) struct Log {
    pub(super) runs: AtomicUsize,
    /// What the purse said, in order: the header's value, or why not.
    pub(super) purse: Mutex<Vec<Result<String, PurseSaid>>>,
    pub(super) gate: Notify,
    pub(super) begun: Notify,
    /// How long each step takes.
    pub(super) uneven: Uneven,
    /// What an answer is that arrives.
    pub(super) arriving: Mutex<Option<Arriving>>,
}

type Arriving =
    tokio::sync::mpsc::UnboundedSender<Result<http_body::Frame<bytes::Bytes>, crate::outgoing::BoxError>>;

pub(super) type PurseSaid = crate::providers::PurseError;

impl Log {
    pub(super) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    pub(super) fn paid(&self) -> usize {
        self.purse.lock().iter().filter(|said| said.is_ok()).count()
    }
}

impl Stage {
    pub(super) fn new() -> Self {
        Stage::with_jobs(64)
    }

    pub(super) fn with_jobs(max_jobs: usize) -> Self {
        Stage::guarded(max_jobs, Guards::lax)
    }

    /// With guards of the test's own.
    pub(super) fn guarded(
        max_jobs: usize,
        guards: impl FnOnce(Arc<dyn crate::jobs::ValueStore>, Clock, Arc<Metrics>) -> Arc<Guards>,
    ) -> Self {
        Stage::storing(max_jobs, RETENTION.into(), guards)
    }

    /// With a store that keeps what is finished for as long as this.
    pub(super) fn storing(
        max_jobs: usize,
        retention: Retention,
        guards: impl FnOnce(Arc<dyn crate::jobs::ValueStore>, Clock, Arc<Metrics>) -> Arc<Guards>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW * 1000);
        let embedded = Embedded::open(&directory.path().join("jobs.redb"), retention, clock.clone()).unwrap();
        let store = Arc::new(Trap::new(embedded));
        let facilitator = Arc::new(Fake::default());
        let wallet = Wallet::new(KEY.into(), "1", vec![usdc(), fine()]).unwrap();
        let limits = Limits {
            work_timeout: Duration::from_secs(120),
            settle_margin: Duration::from_secs(30),
            unknown_hold: Duration::from_secs(30),
            lease: Duration::from_secs(15),
            max_jobs,
        };
        let metrics = Arc::new(Metrics::new());
        let values: Arc<dyn crate::jobs::ValueStore> = store.clone();
        let spending = Spending {
            wallet: Some(Arc::new(wallet)),
            guards: guards(values.clone(), clock.clone(), metrics.clone()),
            payees: Arc::new(Payees::new(values, Vec::new())),
        };
        let (jobs, facilitate) = (store.clone(), facilitator.clone());
        let broker = Broker::new(jobs, facilitate, spending, metrics, clock.clone(), limits);
        let chain = Arc::new(Oracle::default());
        let broker = Arc::new(broker.proved_by(chain.clone()));
        Stage { clock, store, facilitator, chain, broker, log: Arc::default(), _directory: directory }
    }

    /// Another gateway on the same store, for one that keeps nothing unless told otherwise.
    pub(super) fn another(&self, change: impl FnOnce(Broker) -> Broker) -> Arc<Broker> {
        let (jobs, metrics) = (self.store.clone(), Arc::new(Metrics::new()));
        let (spending, facilitator) = (self.broker.spending.clone(), self.facilitator.clone());
        let broker =
            Broker::new(jobs, facilitator, spending, metrics, self.clock.clone(), self.broker.limits);
        Arc::new(change(broker.proved_by(self.chain.clone())))
    }

    /// A sale for the payment with this number, by version 2.
    pub(super) fn sale(&self, number: u8, steps: &[Do]) -> Sale {
        let requirement = Requirement {
            asset: usdc(),
            amount: Amount::new(PRICE),
            pay_to: Address::repeat_byte(0xcc),
            max_timeout_seconds: 300,
            flow: PaymentFlow::Authorization,
        };
        Sale {
            payment: presented(number),
            payload: RawValue::from_string(format!("{{\"nonce\":{number}}}")).unwrap().into(),
            requirements: RawValue::from_string(r#"{"scheme":"exact"}"#.into()).unwrap().into(),
            requirement,
            job: Some(JobId::new()),
            key: None,
            names: Vec::new(),
            webhook: None,
            kind: JobKind::Run,
            sold: Sold {
                provider: "merit".into(),
                operation: "execute".into(),
                price: Amount::new(PRICE),
                cost: Amount::new(COST),
                size: 3,
                passed_over: Vec::new(),
            },
            offer: Some(offer(usdc(), COST)),
            after: false,
            loss: None,
            reserved: None,
            work: Box::new(Script { steps: steps.to_vec(), log: Arc::clone(&self.log) }),
        }
    }

    pub(super) fn upfront(&self, number: u8, steps: &[Do]) -> Sale {
        let mut sale = self.sale(number, steps);
        sale.requirement.flow = PaymentFlow::Upfront;
        sale
    }

    /// Sells in a task of its own, as the edge does, and waits until what can be written just now is.
    pub(super) fn start(&self, sale: Sale) -> tokio::task::JoinHandle<Said> {
        let broker = Arc::clone(&self.broker);
        tokio::spawn(async move {
            let (guard, written) = tokio::sync::oneshot::channel::<()>();
            let said = Said::of(broker.sell(Box::new(sale), guard).await);
            // Paused time stands still while the store works.
            let _ = tokio::time::timeout(Duration::from_millis(1), written).await;
            said
        })
    }

    pub(super) async fn sell(&self, sale: Sale) -> Said {
        self.start(sale).await.unwrap()
    }

    pub(super) async fn job(&self, number: u8) -> Job {
        self.store.inner.by_claim(&presented(number).claim()).await.unwrap().unwrap()
    }

    pub(super) async fn state(&self, number: u8) -> State {
        self.job(number).await.state
    }

    pub(super) async fn events(&self, number: u8) -> Vec<String> {
        let journal = self.store.inner.journal(&presented(number).claim()).await.unwrap();
        journal.iter().map(|entry| entry.event.name().to_owned()).collect()
    }

    /// As another process would, after this one's leases have lapsed.
    pub(super) async fn recover(&self) {
        self.clock.advance(61_000);
        let recovery = Recovery::new(Arc::clone(&self.broker), Duration::from_secs(15));
        recovery.sweep(&|| Some(())).await;
        recovery.look_at_open(&|| Some(())).await;
    }
}

/// A chain that proves what it is told to. Until it is told something, nobody can ask it.
#[derive(Default)]
pub(super) struct Oracle {
    /// By nonce, whatever is said of the others.
    pub(super) says_of: Mutex<std::collections::HashMap<B256, Result<Proof, ChainError>>>,
    says: Mutex<Option<Result<Proof, ChainError>>>,
    /// What it says of clients' payments, if that is something else.
    says_of_clients: Mutex<Option<Result<Proof, ChainError>>>,
    pub(super) asked: Mutex<Vec<Sought>>,
    /// The final block, for those who ask for it.
    pub(super) last: Mutex<Option<Head>>,
    /// What was received, by block.
    pub(super) spent: Mutex<Vec<(u64, Spent)>>,
    /// Nobody has looked at it yet.
    pub(super) unseen: std::sync::atomic::AtomicBool,
}

impl Oracle {
    pub(super) fn says(&self, proof: Result<Proof, ChainError>) {
        *self.says.lock() = Some(proof);
    }

    pub(super) fn says_of_clients(&self, proof: Result<Proof, ChainError>) {
        *self.says_of_clients.lock() = Some(proof);
    }
}

#[async_trait]
impl Prove for Oracle {
    async fn prove(&self, network: Network, sought: &Sought) -> Option<Result<Proof, ChainError>> {
        assert_eq!(network, usdc().network);
        let says = self.says.lock().clone()?;
        self.asked.lock().push(*sought);
        if let Some(says) = self.says_of.lock().get(&sought.nonce) {
            return Some(says.clone());
        }
        let of_client = sought.to == Address::repeat_byte(0xcc);
        Some(self.says_of_clients.lock().clone().filter(|_| of_client).unwrap_or(says))
    }

    async fn last_final(&self, _: Network) -> Option<Result<Head, ChainError>> {
        self.says.lock().as_ref()?;
        Some(self.last.lock().ok_or(ChainError::Away("as told".into())))
    }

    async fn spent(
        &self,
        network: Network,
        asset: Address,
        to: Address,
        payers: &[Address],
        blocks: RangeInclusive<u64>,
    ) -> Option<Result<Vec<Spent>, ChainError>> {
        assert_eq!((network, asset, to), (usdc().network, usdc().address, Address::repeat_byte(0xcc)));
        assert_eq!(payers, [Address::repeat_byte(0xbb)]);
        let spent = self.spent.lock();
        let within = spent.iter().filter(|(block, _)| blocks.contains(block));
        Some(Ok(within.map(|(_, spent)| *spent).collect()))
    }

    fn height(&self, _: Network) -> Option<u64> {
        let unseen = self.unseen.load(Ordering::Relaxed);
        self.says.lock().as_ref().filter(|_| !unseen).map(|_| 77)
    }

    fn knows(&self, _: Network) -> bool {
        self.says.lock().is_some()
    }
}

/// The same payment is the same claim, whatever else is presented with it.
pub(super) fn presented(number: u8) -> Presented {
    Presented {
        version: Version::V2,
        authorization: Authorization {
            from: Address::repeat_byte(0xbb),
            to: Address::repeat_byte(0xcc),
            value: Amount::new(PRICE),
            valid_after: NOW - 600,
            valid_before: NOW + 300,
            nonce: B256::repeat_byte(number),
        },
        asset: usdc(),
        quote_id: Some("q-1".into()),
        fingerprint: Fingerprint([7; 32]),
        has_body: true,
        announce: Announce::default(),
    }
}

pub(super) fn offer(asset: Asset, cost: u128) -> Offer {
    Offer { cost: Amount::new(cost), asset, pay_to: Address::repeat_byte(0xdd) }
}

/// An answer, as far as tests look at it.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    pub(super) reason: Reason,
    pub(super) status: u16,
    pub(super) charged: Option<Charged>,
    pub(super) body: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) receipt: Option<Version>,
}

impl Said {
    pub(super) fn of(delivery: Delivery) -> Self {
        let (charged, body) = match delivery.body {
            DeliveryBody::Whole(bytes) => (None, String::from_utf8(bytes.to_vec()).unwrap()),
            DeliveryBody::Stream(_) => (None, "a stream".into()),
            DeliveryBody::Kept(_) => (None, "a file".into()),
            DeliveryBody::Problem(problem) => (problem.charged, String::new()),
        };
        Said {
            reason: delivery.reason,
            status: delivery.status,
            charged,
            body,
            headers: delivery.headers,
            receipt: delivery.receipt.map(|(version, _)| version),
        }
    }

    pub(super) fn is(&self, reason: Reason, charged: Charged) -> bool {
        self.reason == reason && self.charged == Some(charged)
    }
}

/// A facilitator that says what it is told to, and knows what really happened.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) verdicts: Mutex<VecDeque<Result<Verdict, FacilitatorError>>>,
    /// What `/settle` does, call by call; after the last the truth: a yes, or that the nonce is used.
    pub(super) settles: Mutex<VecDeque<Settle>>,
    pub(super) for_ever: Mutex<Option<Settle>>,
    pub(super) requests: Mutex<Vec<String>>,
    pub(super) verified: AtomicUsize,
    /// The payments whose money moved.
    pub(super) chain: Mutex<Vec<String>>,
    /// The transaction it names when it has settled, if it is another than usual.
    pub(super) names: Mutex<Option<String>>,
    /// Why it is not used any more.
    pub(super) distrusted: Mutex<Vec<String>>,
    /// How long its answers take.
    pub(super) uneven: Uneven,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Settle {
    Yes,
    No(&'static str),
    /// Refused, with the hash of a transaction.
    NoWithHash(&'static str),
    /// Broadcast.
    Pending,
    /// The money moves; the answer is lost.
    Lost,
    /// Nothing happens, and there is no answer.
    Silent,
    /// Never reached.
    NotSent,
}

impl Fake {
    pub(super) fn says(&self, settles: &[Settle]) {
        self.settles.lock().extend(settles);
    }

    pub(super) fn moved(&self) -> usize {
        self.chain.lock().len()
    }

    pub(super) fn asked(&self) -> usize {
        self.requests.lock().len()
    }
}

fn receipt(success: bool, reason: Option<&str>, transaction: &str) -> Receipt {
    Receipt {
        success,
        transaction: transaction.into(),
        network: "eip155:84532".into(),
        payer: None,
        error_reason: reason.map(str::to_owned),
        error_message: None,
    }
}

#[async_trait]
impl crate::facilitator::Facilitator for Fake {
    async fn verify(&self, _: &PaymentRequest) -> Result<Verdict, FacilitatorError> {
        self.verified.fetch_add(1, Ordering::SeqCst);
        self.uneven.a_while().await;
        self.verdicts.lock().pop_front().unwrap_or(Ok(Verdict::Valid))
    }

    async fn settle(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        self.uneven.a_while().await;
        let said = self.settle_now(request);
        self.uneven.a_while().await;
        said
    }

    async fn settler(&self, _: &PaymentRequest) -> Option<String> {
        Some("fake".into())
    }

    async fn distrust(&self, name: &str, why: &str) {
        assert_eq!(name, "fake");
        self.distrusted.lock().push(why.into());
    }

    async fn supported(&self) -> Result<Vec<Supported>, FacilitatorError> {
        Ok(Vec::new())
    }
}

impl Fake {
    fn settle_now(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        self.requests.lock().push(serde_json::to_string(request).unwrap());
        let told = self.settles.lock().pop_front().or(*self.for_ever.lock());
        let payment = request.payment_payload.get().to_owned();
        let used = self.chain.lock().contains(&payment);
        let truth = if used { Settle::No("nonce_already_used") } else { Settle::Yes };
        let refused = |reason, hash| Ok(Settlement::Refused(receipt(false, Some(reason), hash)));
        match told.unwrap_or(truth) {
            Settle::Yes => {
                self.chain.lock().push(payment);
                let names = self.names.lock().clone();
                Ok(Settlement::Settled(receipt(true, None, names.as_deref().unwrap_or("0xfeed"))))
            }
            Settle::No(reason) => refused(reason, ""),
            Settle::NoWithHash(reason) => refused(reason, "0xdead"),
            Settle::Pending => Ok(Settlement::Pending(receipt(false, Some("settlement_pending"), "0xfeed"))),
            Settle::Lost => {
                // A token takes a nonce once.
                if !used {
                    self.chain.lock().push(payment);
                }
                Err(FacilitatorError::Unknown("502".into()))
            }
            Settle::Silent => Err(FacilitatorError::Unknown("timed out".into())),
            Settle::NotSent => Err(FacilitatorError::NotSent("connection refused".into())),
        }
    }
}

/// One thing that work does. It ends with an answer unless something else ended it.
#[derive(Clone, Debug)]
pub(super) enum Do {
    /// Pays this much of six-place dollars for a step.
    Pay(&'static str, u128),
    /// Pays this much of [`fine`] dollars.
    PayFine(&'static str, u128),
    Fail(Reason),
    Panic,
    /// Waits until the test opens the gate.
    Wait,
    /// Never ends.
    Hang,
    /// Answers with a cookie.
    Cookie,
    /// Answers with more than can be kept.
    Stream,
    /// The same, and its body comes from [`Log::arriving`].
    Arriving,
    /// The same, in two parts that arrive in their own time. Or the second does not: it breaks off.
    Parts {
        breaks: bool,
    },
    /// Answers for all but this step.
    InPart(&'static str),
}

struct Script {
    steps: Vec<Do>,
    log: Arc<Log>,
}

#[async_trait]
impl Work for Script {
    async fn perform(self: Box<Self>, _: &Job, purse: &dyn Purse, _: Duration) -> Result<Product, WorkError> {
        let run = self.log.runs.fetch_add(1, Ordering::SeqCst) + 1;
        let (mut once, mut stream, mut shortfall) = (Vec::new(), None, None);
        for step in self.steps {
            self.log.uneven.a_while().await;
            match step {
                Do::Pay(step, amount) => pay(&self.log, purse, step, usdc(), amount).await?,
                Do::PayFine(step, amount) => pay(&self.log, purse, step, fine(), amount).await?,
                Do::Fail(reason) => return Err(WorkError::new(reason, "as told")),
                Do::Panic => panic!("as told"),
                Do::Wait => {
                    self.log.begun.notify_one();
                    self.log.gate.notified().await;
                }
                Do::Hang => std::future::pending().await,
                Do::InPart(missing) => {
                    shortfall = Some(Shortfall { owed: OWED, steps: vec![missing.to_owned()] });
                }
                Do::Cookie => once.push(("set-cookie".to_owned(), "session=1".to_owned())),
                Do::Stream => {
                    stream = Some(BodyStream::new(http_body_util::Empty::new().map_err(Into::into)))
                }
                Do::Parts { breaks } => {
                    let log = Arc::clone(&self.log);
                    let frames = futures_util::stream::unfold(0, move |at| {
                        let log = Arc::clone(&log);
                        async move {
                            log.uneven.a_while().await;
                            let data = |part| Ok(http_body::Frame::data(bytes::Bytes::from_static(part)));
                            match at {
                                0 => Some((data(b"half"), 1)),
                                1 if breaks => Some((Err("reset".into()), 2)),
                                1 => Some((data(b"whole"), 2)),
                                _ => None,
                            }
                        }
                    });
                    stream = Some(crate::outgoing::Frames::new(Box::pin(frames), None).boxed_unsync());
                }
                Do::Arriving => {
                    let (sends, frames) = tokio::sync::mpsc::unbounded_channel();
                    *self.log.arriving.lock() = Some(sends);
                    let frames = futures_util::stream::unfold(frames, |mut frames| async move {
                        let frame = frames.recv().await?;
                        Some((frame, frames))
                    });
                    stream = Some(crate::outgoing::Frames::new(Box::pin(frames), None).boxed_unsync());
                }
            }
        }
        let body = match &stream {
            Some(_) => Kept::Not,
            None => Kept::Whole(format!("run {run}").into_bytes()),
        };
        let headers = vec![("content-type".into(), "text/plain".into())];
        Ok(Product { answer: Answer { status: 200, headers, body }, shortfall, stream, once })
    }
}

async fn pay(
    log: &Log,
    purse: &dyn Purse,
    step: &'static str,
    asset: Asset,
    amount: u128,
) -> Result<(), WorkError> {
    let requirement = Requirement {
        asset,
        amount: Amount::new(amount),
        pay_to: Address::repeat_byte(0xdd),
        max_timeout_seconds: 60,
        flow: PaymentFlow::Authorization,
    };
    let mut challenge = challenge(Version::V2, &requirement);
    let extensions = r#"{"payment-identifier":{"info":{"required":true}}}"#;
    challenge.extensions = Some(RawValue::from_string(extensions.into()).unwrap());
    let said = purse.pay(step, &challenge).await;
    let error = said.as_ref().err().cloned();
    log.purse.lock().push(said.map(|header| header.value.to_str().unwrap().to_owned()));
    match error {
        Some(error) => Err(crate::providers::ProviderError::from(error).into()),
        None => Ok(()),
    }
}

pub(super) const PAY: Do = Do::Pay("execute", COST);
