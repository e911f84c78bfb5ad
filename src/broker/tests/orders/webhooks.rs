//! Webhooks that several gateways tell: until they are heard, in the same words each time, and of what is on record.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::*;
use crate::broker::webhooks::{Post, Webhook, WebhookRoom, WebhookSecret, Webhooks};
use crate::clock::rfc3339;
use crate::jobs::job::SCHEMA;
use crate::jobs::{JobStore as _, ValueStore as _};
use crate::outgoing::FetchError;

const NUMBERS: [u8; 3] = [1, 2, 3];

/// Who is told.
struct Ears {
    told: Mutex<Vec<Message>>,
    /// It hears whatever it is told.
    listens: AtomicBool,
    chance: Mutex<TestRng>,
    uneven: Uneven,
}

struct Message {
    id: String,
    body: String,
    /// Whoever told it knows that it was heard, or that nobody wants to hear it, unless he was killed.
    over: bool,
}

/// One gateway's way to it.
struct Way(Arc<Ears>);

#[async_trait]
impl Post for Way {
    async fn post(&self, _: &str, headers: HeaderMap, json: Bytes) -> Result<StatusCode, FetchError> {
        let ears = &self.0;
        ears.uneven.a_while().await;
        let listens = ears.listens.load(Ordering::SeqCst);
        let said = if listens {
            200
        } else {
            [200, 200, 204, 410, 500, 302, 0][ears.chance.lock().random_range(0..7)]
        };
        let over = matches!(said, 200 | 204 | 410);
        let (id, body) =
            (headers["webhook-id"].to_str().unwrap().to_owned(), String::from_utf8(json.into()).unwrap());
        ears.told.lock().push(Message { id, body, over });
        ears.uneven.a_while().await;
        if said == 0 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            return Err(FetchError::Failed("it does not answer in time".into()));
        }
        Ok(StatusCode::from_u16(said).unwrap())
    }
}

impl World {
    fn ears(&self) -> Arc<Ears> {
        let uneven = Uneven::default();
        uneven.seed(self.any(u64::MAX));
        let chance = Mutex::new(seeded(self.any(u64::MAX)));
        Arc::new(Ears { told: Mutex::default(), listens: false.into(), chance, uneven })
    }

    fn tells(&self, gateway: usize, ears: &Arc<Ears>) -> Webhooks {
        let way = Box::new(Way(Arc::clone(ears)));
        Webhooks::by(Arc::clone(&self.gateways[gateway].broker), way, WebhookRoom::default())
    }

    /// What was told of a job is what was on record of it at some time at rest, and it was told.
    async fn check_webhook(&self, number: u8, ears: &Ears, soft: bool) {
        let seed = self.seed;
        let Some(job) = self.found(number).await else { return };
        let journal = self.stage.store.inner.journal(&job.claim).await.unwrap();
        let (mut at, mut rests, mut begun) = (fresh(&job), Vec::new(), false);
        for entry in &journal {
            at = at.apply(&entry.event, entry.at).unwrap();
            begun = (begun && entry.event.name() != "reopened")
                || matches!(entry.event.name(), "verified" | "settle_first");
            // Journals are without the bodies of answers: only the record tells whether one was handed out beside it.
            let state = if job.schema == SCHEMA { at.state } else { at.state.shown() };
            if state.at_rest() {
                let (name, updated) = (state.name().to_owned(), rfc3339(at.updated));
                rests.push((u64::from(at.attempt), name, updated, at.is_answered()));
            }
        }
        let told = ears.told.lock();
        let mut words: HashMap<&str, &str> = HashMap::new();
        let mut over: HashMap<&str, usize> = HashMap::new();
        for message in told.iter().filter(|message| message.id.starts_with(&job.id.to_string())) {
            let said: Value = serde_json::from_str(&message.body).unwrap();
            let (data, text) = (&said["data"], |value: &Value| value.as_str().unwrap().to_owned());
            let attempt = data["attempt"].as_u64().unwrap();
            let answered = said["type"] == "job.completed";
            let rest = (attempt, text(&data["state"]), text(&data["updatedAt"]), answered);
            assert!(rests.contains(&rest), "order {seed}: {number} is told {rest:?}, of {rests:?}");
            assert_eq!(message.id, format!("{}-{attempt}", job.id), "order {seed}");
            let first = words.entry(&message.id).or_insert(&message.body);
            assert_eq!(*first, message.body, "order {seed}: {number} is told in other words");
            let over = over.entry(&message.id).or_default();
            assert!(*over == 0 || !soft, "order {seed}: {number} is told again of {}", message.id);
            *over += usize::from(message.over);
        }
        let last = format!("{}-{}", job.id, job.attempt);
        assert!(!begun || over.get(&*last).is_some_and(|over| *over > 0), "order {seed}: {last} is not told");
    }
}

/// With somebody who is to be told.
fn hooked(mut sale: Sale) -> Sale {
    let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    sale.webhook = Some(Webhook { url: "https://hooks.example/".to_owned(), secret });
    sale
}

fn fresh(job: &Job) -> Job {
    Job {
        version: 0,
        attempt: 1,
        state: State::Claimed,
        provider: Vec::new(),
        answer: None,
        trusted: false,
        receipt: None,
        failure: None,
        shortfall: None,
        refunds: Vec::new(),
        updated: job.created,
        ..job.clone()
    }
}

async fn told(seed: u64, soft: bool) {
    let _of = Of("told", seed);
    let folder = tempfile::tempdir().unwrap();
    let world = super::owed::keeping_on(Stage::new(), seed, 2, &folder);
    let (ears, ticks) = (world.ears(), world.ticks());
    let within = world.one_of(&[1, 500, 3_000]);
    let mut tasks = Vec::new();
    for number in NUMBERS {
        let flow = world.one_of(&[once::Flow::Success, once::Flow::Upfront, once::Flow::After]);
        for _ in 0..1 + world.any(4) {
            let parts = Do::Parts { breaks: world.any(3) == 0 };
            let fails = Do::Fail(Reason::ProviderFailed);
            let steps = match flow {
                once::Flow::After => world.one_of(&[vec![fails], vec![], vec![parts]]),
                _ => world.one_of(&[vec![fails.clone()], vec![PAY, fails], vec![PAY], vec![PAY, parts]]),
            };
            let sale = hooked(world.bought(number, flow, &steps));
            tasks.push(world.read(sale, within, &Arc::default()));
        }
    }
    for _ in 0..world.any(4) {
        tasks.push(world.sweep(4_000));
    }
    let mut lives = Vec::new();
    for gateway in 0..2 {
        if soft {
            lives.push(tokio::spawn(world.tells(gateway, &ears).run()));
            continue;
        }
        for _ in 0..1 + world.any(4) {
            lives.push(world.lives(8_000, world.tells(gateway, &ears).run()));
        }
        for _ in 0..world.any(3) {
            tasks.push(world.stand_still(world.one_of(&[16, 31, 61]), 8_000));
        }
        if world.any(4) == 0 {
            tasks.push(world.cut_off(3_000, world.one_of(&[1, 20])));
        }
    }
    world.all(tasks).await;
    if !soft {
        world.rest().await;
        world.all(std::mem::take(&mut lives)).await;
    }
    // From here on it is heard, in less time than a try is somebody's.
    ears.listens.store(true, Ordering::SeqCst);
    lives.push(tokio::spawn(world.tells(0, &ears).run()));
    for _ in 0..20 {
        world.sweep(1).await.unwrap();
        tokio::time::sleep(Duration::from_secs(15)).await;
        world.stage.clock.advance(if soft { 9_000 } else { 120_000 });
    }
    lives.iter().for_each(tokio::task::JoinHandle::abort);
    ticks.abort();
    for number in NUMBERS {
        world.check_webhook(number, &ears, soft).await;
    }
    let waiting = world.stage.store.inner.list("webhooks").await.unwrap();
    let waiting: Vec<_> = waiting.iter().filter(|(_, record)| !record.is_empty()).collect();
    assert!(waiting.is_empty(), "order {seed}: {waiting:?}");
}

#[tokio::test(start_paused = true)]
async fn webhooks_are_told_once_by_two_gateways() {
    for seed in orders(5) {
        told(seed, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn webhooks_are_told_by_gateways_that_are_killed() {
    for seed in orders(5) {
        told(seed, false).await;
    }
}

/// A record may move on after its job has come to rest, as what its work cost becomes known.
#[tokio::test(start_paused = true)]
async fn who_stood_still_says_what_others_said_meanwhile() {
    let world = World::new(0, 2, true);
    let ears = world.ears();
    ears.listens.store(true, Ordering::SeqCst);
    let steps = [PAY, Do::Fail(Reason::ProviderFailed)];
    world.present(hooked(world.bought(1, once::Flow::Upfront, &steps)), 1).await.unwrap();
    assert_eq!(world.stage.state(1).await, State::RefundDue);
    let held = world.gateways[0].trap.hold("webhook-tries");
    let first = tokio::spawn(world.tells(0, &ears).run());
    tokio::time::sleep(Duration::from_secs(9)).await;
    world.stage.clock.advance(31_000);
    world.gateways[1].recovery.look_at_open(&|| Some(())).await;
    let second = tokio::spawn(world.tells(1, &ears).run());
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(ears.told.lock().len(), 1);
    world.stage.clock.advance(31_000);
    held.notify_one();
    tokio::time::sleep(Duration::from_secs(9)).await;
    first.abort();
    second.abort();
    assert_eq!(ears.told.lock().len(), 2);
    world.check_webhook(1, &ears, false).await;
}

/// Its payment came again, and was refused, before anybody had told how it failed.
#[tokio::test(start_paused = true)]
async fn a_job_that_is_refused_for_good_is_told_all_the_same() {
    let world = World::new(0, 1, true);
    let ears = world.ears();
    ears.listens.store(true, Ordering::SeqCst);
    let sale = hooked(world.stage.sale(1, &[Do::Fail(Reason::ProviderFailed)]));
    let payment = sale.payment.clone();
    world.present(sale, 1).await.unwrap();
    let refused = world.gateways[0].broker.known(&payment, Reason::QuoteExpired).await.unwrap().unwrap();
    assert_eq!(refused.reason, Reason::QuoteExpired);
    let telling = tokio::spawn(world.tells(0, &ears).run());
    tokio::time::sleep(Duration::from_secs(9)).await;
    telling.abort();
    let told = ears.told.lock();
    let bodies: Vec<Value> = told.iter().map(|it| serde_json::from_str(&it.body).unwrap()).collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!(
        (&bodies[0]["type"], &bodies[0]["data"]["code"]),
        (&"job.failed".into(), &"quote_expired".into())
    );
}
