//! That no limit is passed, whatever happens; and that what is free can be had.

use proptest::prelude::*;

use super::super::level::Level;
use super::super::rate::HOUR;
use super::*;

const REPLICAS: usize = 3;
const LIMIT: u64 = 1_000;

/// One thing that happens. Takes and tends that follow each other happen at the same time.
#[derive(Clone, Debug)]
enum Step {
    /// A replica takes this much.
    Take(usize, u64),
    Tend(usize),
    /// What a replica took longest ago is spent: all, or this part of it in percent.
    Spend(usize, u64),
    /// It is given back.
    Return(usize),
    /// A replica dies, with what it has in hand, and another takes its place.
    Crash(usize),
    /// So many seconds pass.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let replica = 0..REPLICAS;
    prop_oneof![
        8 => (replica.clone(), 1u64..300).prop_map(|(r, a)| Step::Take(r, a)),
        4 => (replica.clone(), 300u64..1_100).prop_map(|(r, a)| Step::Take(r, a)),
        6 => replica.clone().prop_map(|r| Step::Spend(r, 100)),
        2 => (replica.clone(), 0u64..100).prop_map(|(r, p)| Step::Spend(r, p)),
        3 => replica.clone().prop_map(Step::Return),
        1 => replica.clone().prop_map(Step::Crash),
        3 => replica.prop_map(Step::Tend),
        2 => (1u64..90).prop_map(Step::Pass),
        2 => (200u64..700).prop_map(Step::Pass),
        1 => (2_500u64..3_700).prop_map(Step::Pass),
    ]
}

/// What happens at the same time: takes (of how much, by whom) and tends.
fn together(
    first: Step,
    steps: &mut std::iter::Peekable<impl Iterator<Item = Step>>,
) -> Vec<(usize, Option<u64>)> {
    let mut batch = Vec::new();
    let mut next = Some(first);
    while let Some(step) = next {
        match step {
            Step::Take(replica, amount) => batch.push((replica, Some(amount))),
            Step::Tend(replica) => batch.push((replica, None)),
            _ => unreachable!("asked for before"),
        }
        next = steps.next_if(|step| matches!(step, Step::Take(..) | Step::Tend(_)));
    }
    batch
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        8 => (0u8..4, 0u8..4).prop_map(|(before, after)| Luck::Good(before, after)),
        1 => Just(Luck::Lost),
        1 => Just(Luck::Unanswered),
    ]
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
}

/// All spending, with its times: in no hour more than the limit.
#[derive(Default)]
struct Spent(VecDeque<(UnixMillis, u64)>);

impl Spent {
    fn spend(&mut self, now: UnixMillis, amount: u64) -> u64 {
        self.0.push_back((now, amount));
        let hour = u64::try_from(HOUR.as_millis()).unwrap();
        self.0.iter().filter(|(at, _)| *at + hour > now).map(|(_, amount)| amount).sum()
    }
}

async fn spending_is_within_its_limit(steps: Vec<Step>, luck: Vec<Luck>) -> Result<(), TestCaseError> {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    store.luck.lock().extend(luck);
    let fresh = || Rate::new(store.clone(), clock.clone(), "spend".to_owned(), LIMIT);
    let mut replicas: Vec<_> = (0..REPLICAS).map(|_| (fresh(), VecDeque::new())).collect();
    let mut spent = Spent::default();
    let mut steps = steps.into_iter().peekable();
    while let Some(step) = steps.next() {
        match step {
            step @ (Step::Take(..) | Step::Tend(_)) => {
                let actors = together(step, &mut steps).into_iter().map(|(replica, amount)| {
                    let rate = Arc::clone(&replicas[replica].0);
                    tokio::spawn(async move {
                        match amount {
                            Some(amount) => {
                                rate.take(amount).await.ok().map(|taken| (replica, amount, taken))
                            }
                            None => {
                                rate.tend().await;
                                None
                            }
                        }
                    })
                });
                for actor in actors.collect::<Vec<_>>() {
                    if let Some((replica, amount, allowance)) = actor.await.unwrap() {
                        prop_assert!(amount <= LIMIT);
                        replicas[replica].1.push_back((amount, allowance));
                    }
                }
            }
            Step::Spend(replica, percent) => {
                if let Some((amount, mut allowance)) = replicas[replica].1.pop_front()
                    && allowance.is_good()
                {
                    let amount = amount * percent / 100;
                    allowance.spend(amount);
                    let sum = spent.spend(clock.now_millis(), amount);
                    prop_assert!(sum <= LIMIT, "{sum} within an hour");
                }
            }
            Step::Return(replica) => drop(replicas[replica].1.pop_front()),
            Step::Crash(replica) => {
                let (rate, in_hand) = std::mem::replace(&mut replicas[replica], (fresh(), VecDeque::new()));
                // Nothing of a process that is killed is dropped.
                std::mem::forget((rate, in_hand));
            }
            Step::Pass(seconds) => clock.advance(seconds * 1000),
        }
    }
    Ok(())
}

async fn exposure_is_within_its_limit(steps: Vec<Step>, luck: Vec<Luck>) -> Result<(), TestCaseError> {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    store.luck.lock().extend(luck);
    let mut names = 0;
    let mut fresh = || {
        names += 1;
        let names = ("exposure".to_owned(), names.to_string());
        Level::new(store.clone(), clock.clone(), names, LIMIT, 16)
    };
    let mut replicas: Vec<_> = (0..REPLICAS).map(|_| (fresh(), VecDeque::new())).collect();
    // What processes had out when they died.
    let mut orphans: Vec<(u64, UnixMillis)> = Vec::new();
    let mut steps = steps.into_iter().peekable();
    while let Some(step) = steps.next() {
        match step {
            step @ (Step::Take(..) | Step::Tend(_)) => {
                let actors = together(step, &mut steps).into_iter().map(|(replica, amount)| {
                    let level = Arc::clone(&replicas[replica].0);
                    let now = clock.now_millis();
                    tokio::spawn(async move {
                        let Some(amount) = amount else {
                            level.tend().await;
                            return None;
                        };
                        let until = now + 1_000 * (1 + amount * 7 % 1_500);
                        level.take(amount, until).await.ok().map(|out| (replica, amount, until, out))
                    })
                });
                for actor in actors.collect::<Vec<_>>() {
                    if let Some((replica, amount, until, out)) = actor.await.unwrap() {
                        replicas[replica].1.push_back((amount, until, out));
                    }
                }
            }
            Step::Spend(replica, percent) => {
                if let Some((amount, until, mut out)) = replicas[replica].1.pop_front() {
                    let part = amount * percent / 100;
                    replicas[replica].1.push_back((part, until, out.split(part)));
                }
            }
            Step::Return(replica) => drop(replicas[replica].1.pop_front()),
            Step::Crash(replica) => {
                let (level, in_hand) = std::mem::replace(&mut replicas[replica], (fresh(), VecDeque::new()));
                orphans.extend(in_hand.iter().map(|(amount, until, _)| (*amount, *until)));
                std::mem::forget((level, in_hand));
            }
            Step::Pass(seconds) => clock.advance(seconds * 1000),
        }
        let now = clock.now_millis();
        let living =
            replicas.iter().flat_map(|(_, in_hand)| in_hand).map(|(amount, until, _)| (*amount, *until));
        let out = living.chain(orphans.iter().copied()).filter(|(_, until)| *until > now);
        let sum: u64 = out.map(|(amount, _)| amount).sum();
        prop_assert!(sum <= LIMIT, "{sum} at one time");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn replicas_that_crash_never_spend_more_than_the_limit_in_an_hour(
        steps in prop::collection::vec(step(), 20..150), luck in prop::collection::vec(luck(), 0..150),
    ) {
        run(spending_is_within_its_limit(steps, luck))?;
    }

    #[test]
    fn replicas_that_crash_never_have_more_out_than_the_limit(
        steps in prop::collection::vec(step(), 20..150), luck in prop::collection::vec(luck(), 0..150),
    ) {
        run(exposure_is_within_its_limit(steps, luck))?;
    }
}
