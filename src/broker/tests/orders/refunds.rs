//! What is owed is paid back once, by whoever is killed over it, and by how many at once.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::value::to_raw_value;

use super::bank::Bank;
use super::owed::{Got, keeping_on};
use super::*;
use crate::guard::Switch;
use crate::jobs::JobStore as _;
use crate::jobs::archive::{self, Keeper};
use crate::jobs::job::Retention;
use crate::ledger::{Account, collect};
use crate::refunds::{Outcome, Payer, RefundError, Unpayable, Wanted, Watch, Why};
use crate::x402::fixtures::resource;

const NUMBERS: [u8; 3] = [1, 2, 3];

/// Several gateways on one store, a chain, and an archive.
struct Town {
    world: World,
    bank: Arc<Bank>,
    folder: tempfile::TempDir,
}

impl Town {
    fn new(seed: u64) -> Town {
        let retention = Retention { time: RETENTION, archived: true };
        let stage = Stage::storing(64, retention, Guards::lax);
        let folder = tempfile::tempdir().unwrap();
        let world = keeping_on(stage, seed, 2, &folder);
        let Stage { facilitator, log, clock, .. } = &world.stage;
        let (facilitator, log) = (Arc::clone(facilitator), Arc::clone(log));
        let truth = Truth { facilitator, log, clock: clock.clone(), knows: true };
        let wallet = world.stage.broker.spending.wallet.as_ref().unwrap().address();
        let bank = Arc::new(Bank::new(truth, wallet, seed));
        Town { world, bank, folder }
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    /// Another process's way to the store.
    fn store(&self) -> Arc<Trap> {
        let trap = Arc::new(Trap::over(Arc::clone(&self.world.stage.store.inner)));
        trap.shuffle(self.world.any(u64::MAX));
        trap
    }

    fn payer(&self) -> Payer {
        let Stage { broker, clock, .. } = &self.world.stage;
        let store = self.store();
        Payer {
            jobs: store.clone(),
            chains: self.bank.clone(),
            balances: self.bank.clone(),
            facilitator: self.bank.clone(),
            wallet: Arc::clone(broker.spending.wallet.as_ref().unwrap()),
            switch: Switch::Store(store),
            payees: vec![(usdc(), Address::repeat_byte(0xcc))],
            clock: clock.clone(),
        }
    }

    fn keeper(&self) -> Keeper {
        let clock = self.world.stage.clock.clone();
        let looked = clock.clone();
        let accounted_for = Box::new(move || {
            let now = looked.now();
            Box::pin(async move { Ok(now) }) as futures_util::future::BoxFuture<'static, _>
        });
        Keeper::new(self.store(), self.archive(), Duration::ZERO, clock, accounted_for)
    }

    /// All that look after what is owed, for a while.
    fn looked_after(&self, within: u64) -> Vec<tokio::task::JoinHandle<()>> {
        let mut tasks = Vec::new();
        for _ in 0..2 + self.world.any(4) {
            tasks.push(self.world.lives(within, pay_all(self.payer())));
        }
        for _ in 0..self.world.any(3) {
            let (jobs, chains) = (self.store(), self.bank.clone());
            let (metrics, clock) = (Arc::new(Metrics::new()), self.world.stage.clock.clone());
            tasks.push(self.world.lives(within, Watch { jobs, chains, metrics, clock }.run()));
        }
        for _ in 0..self.world.any(3) {
            let mut keeper = self.keeper();
            tasks.push(self.world.lives(within, async move {
                keeper.round().await.unwrap();
            }));
        }
        for _ in 0..self.world.any(3) {
            let (bank, pause) = (Arc::clone(&self.bank), self.world.any(within));
            tasks.push(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                bank.reorganise();
            }));
        }
        for _ in 0..self.world.any(3) {
            tasks.push(self.world.sweep(within));
        }
        tasks
    }

    /// The job with its journal, from the store or from the archive.
    async fn found(&self, number: u8) -> Option<(Job, Vec<crate::jobs::Entry>)> {
        let store = &self.world.stage.store.inner;
        if let Some(job) = self.world.found(number).await {
            let journal = store.journal(&job.claim).await.unwrap();
            return Some((job, journal));
        }
        let (mut found, claim) = (None, presented(number).claim());
        let each = |job: Job, journal| {
            if job.claim == claim {
                found = Some((job, journal));
            }
        };
        archive::read(&self.archive(), each).unwrap();
        found
    }

    /// Who archives a job again, since whoever did it first has died, writes the same, unless it has moved on since.
    fn check_archive(&self, seed: u64) {
        let mut lines: HashMap<(String, u64), String> = HashMap::new();
        for file in std::fs::read_dir(self.archive()).into_iter().flatten() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for line in text.lines() {
                let read: serde_json::Value = serde_json::from_str(line).unwrap();
                let (id, version) = (&read["job"]["id"], &read["job"]["version"]);
                let key = (id.as_str().unwrap().to_owned(), version.as_u64().unwrap());
                let first = lines.entry(key).or_insert_with(|| line.to_owned());
                assert_eq!(first, line, "order {seed}: one version archived twice, and not the same");
            }
        }
    }

    /// What must hold once all is paid back that is owed.
    async fn check(&self, seed: u64) {
        self.world.check_told();
        let transfers = self.bank.transfers.lock().clone();
        let (mut known, mut open) = (0, false);
        let mut paid_back = 0;
        for number in NUMBERS {
            let moved = self.world.stage.facilitator.has_moved(number);
            let Some((job, journal)) = self.found(number).await else {
                assert!(!moved, "order {seed}: {number} paid for nothing");
                continue;
            };
            let back: Vec<_> = job.refunds.iter().filter_map(|refund| transfers.get(&refund.nonce)).collect();
            known += back.len();
            let state = job.state.name();
            let right = (job.requester, job.owed());
            assert!(
                back.iter().all(|back| (back.to, back.value) == right),
                "order {seed}: {number}: {back:?}"
            );
            paid_back += back.iter().map(|back| back.value.units()).sum::<u128>();
            let ends = journal.iter().filter(|entry| entry.event.name() == "refunded").count();
            let times = usize::from(job.state == State::Refunded);
            assert_eq!(
                (back.len(), ends),
                (times, times),
                "order {seed}: {number} is {state}: {:?}",
                job.refunds
            );
            let ended = matches!(job.state, State::Completed | State::Refunded);
            assert_eq!(moved, ended, "order {seed}: {number} is {state}");
            open |= job.provider.iter().any(|payment| payment.fate == Fate::Open);
        }
        assert_eq!(known, transfers.len(), "order {seed}: a refund that is not on record");
        self.check_archive(seed);
        let books = collect(&*self.world.stage.store.inner, Some(self.archive())).await.unwrap();
        assert_eq!(books.check(), [], "order {seed}");
        let balance = |account| books.balance(&usdc(), account).unwrap();
        assert_eq!(balance(Account::RefundsDue), 0, "order {seed}");
        let spent = self.world.stage.log.given().len() as u128 * COST + paid_back;
        let wallet = balance(Account::Wallet).unsigned_abs();
        assert!(wallet == spent || (open && wallet > spent), "order {seed}: {wallet} booked, {spent} spent");
    }
}

/// As the command does.
async fn pay_all(payer: Payer) {
    loop {
        let plan = payer.plan(&Wanted::default()).await.unwrap();
        let odd = plan.left.iter().find(|left| !matches!(left.why, Why::Unpayable(Unpayable::Unknown(_))));
        assert!(odd.is_none(), "{odd:?}");
        for owed in plan.pay {
            match payer.pay(owed.job.id).await {
                Ok(Outcome::Refunded(_) | Outcome::Mined(_) | Outcome::Sent { .. }) => {}
                // In the hands of another, or paid back by it, and archived.
                Err(RefundError::Busy | RefundError::Gone) => {}
                Err(RefundError::Unpayable(Unpayable::Unknown(_))) => {}
                Err(error) => panic!("{}: {error}", owed.job.id),
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A payment as clients write it, which is what refunds are held against.
fn written(mut sale: Sale) -> Sale {
    let paid = sale.requirement.paid_v2(&resource(), &sale.payment.authorization, &[0; 65]);
    sale.payload = to_raw_value(&paid).unwrap().into();
    sale
}

async fn paid_back(seed: u64) {
    let _of = Of("paid back", seed);
    let town = Town::new(seed);
    let world = &town.world;
    let ticks = world.ticks();
    let got: Arc<Mutex<Vec<(u8, Got)>>> = Arc::default();
    let within = world.one_of(&[1, 500, 3_000]);
    let mut tasks = Vec::new();
    for number in NUMBERS {
        let (fails, parts) = (Do::Fail(Reason::ProviderFailed), |breaks| Do::Parts { breaks });
        let (flow, steps) = world.one_of(&[
            (once::Flow::Upfront, vec![fails.clone()]),
            (once::Flow::Upfront, vec![PAY, fails]),
            (once::Flow::Upfront, vec![PAY]),
            (once::Flow::Success, vec![PAY, Do::InPart("pin/2")]),
            (once::Flow::Upfront, vec![PAY, Do::InPart("execute")]),
            (once::Flow::Success, vec![PAY, parts(true)]),
            (once::Flow::Upfront, vec![PAY, parts(true)]),
            (once::Flow::Success, vec![PAY, parts(false)]),
        ]);
        for _ in 0..1 + world.any(4) {
            tasks.push(world.read(written(world.bought(number, flow, &steps)), within, &got));
        }
    }
    tasks.extend(town.looked_after(4_000));
    let hard = world.any(2) == 0;
    if hard {
        for _ in 0..world.any(3) {
            tasks.push(world.stand_still(world.one_of(&[16, 61]), 4_000));
        }
        if world.any(2) == 0 {
            tasks.push(world.cut_off(3_000, world.one_of(&[1, 20])));
        }
    }
    world.all(tasks).await;
    // Whatever is presented from here on has lapsed.
    let mut tasks = town.looked_after(8_000);
    for _ in 0..world.any(5) {
        tasks.push(world.stand_still(world.one_of(&[61, 820, 1_000]), 8_000));
    }
    world.all(tasks).await;
    ticks.abort();
    town.bank.is_honest();
    for _ in 0..3 {
        world.rest().await;
        world.stage.clock.advance(1_000_000);
        for _ in 0..2 {
            let _ = tokio::time::timeout(Duration::from_secs(20), pay_all(town.payer())).await;
            world.stage.clock.advance(200_000);
        }
    }
    if world.any(2) == 0 {
        town.keeper().round().await.unwrap();
    }
    town.check(seed).await;
    let got = std::mem::take(&mut *got.lock());
    for number in NUMBERS {
        let whole = got.contains(&(number, Got::Whole));
        let back = town.found(number).await.is_some_and(|(job, _)| job.state == State::Refunded);
        assert!(!(whole && back) || hard, "order {seed}: {number} is delivered and paid back");
        // Who was told that it has its money back has it.
        let told = Got::Said(Reason::Refunded);
        assert!(back || !got.contains(&(number, told)), "order {seed}: {number} is told of a refund");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_is_paid_back_once_whoever_is_killed() {
    for seed in orders(8) {
        paid_back(seed).await;
    }
}
