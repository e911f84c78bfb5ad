//! What is to happen in a run, worked out from its seed alone: who buys what and how, and what goes wrong around it.
//!
//! The same seed makes the same plan. How the threads of several processes then interleave is the machine's affair.

use std::time::Duration;

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::client::Order;

/// A run, planned.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What clients do, in the order they begin.
    pub(crate) jobs: Vec<Purchase>,
    /// Which replica is killed, and how long after enough jobs have begun.
    pub(crate) kills: Vec<Kill>,
    /// How long the store is away when it is killed; spread evenly over the run.
    pub(crate) outages: Vec<Duration>,
}

/// By how many seconds the clock of each replica is ahead: the last one's is wrong by as much as clocks may be.
pub(crate) fn clocks(seed: u64, replicas: usize) -> Vec<i64> {
    let wrong = if seed.is_multiple_of(2) { 2 } else { -2 };
    (1..=replicas).map(|replica| if replica == replicas { wrong } else { 0 }).collect()
}

/// One purchase.
#[derive(Debug)]
pub(crate) struct Purchase {
    pub(crate) order: Order,
    pub(crate) version: Version,
    pub(crate) conduct: Conduct,
    /// What goes wrong from here on; each strikes once, whoever comes first.
    pub(crate) faults: Vec<(Service, Rule)>,
    /// From here on this provider asks so many hundredths of a percent of its normal price.
    pub(crate) price: Option<(Service, u32)>,
}

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Presents the payment, and again after a cut or a "try again", to any replica.
    Patient,
    /// Presents it several times at the same moment, to several replicas.
    Many(usize),
    /// Sends it, hangs up at once, and comes back for the answer later.
    HangsUp,
    /// Sends it, hangs up at once, and never comes back.
    Leaves,
}

/// SIGKILL for a replica.
#[derive(Debug)]
pub(crate) struct Kill {
    pub(crate) replica: usize,
    pub(crate) after: Duration,
}

impl Plan {
    /// The plan of `seed` for so many jobs and kills, with `replicas` gateways.
    pub(crate) fn new(seed: u64, jobs: usize, kills: usize, replicas: usize, outages: usize) -> Plan {
        let mut dice = Dice::new(seed);
        Plan {
            jobs: (0..jobs).map(|_| purchase(&mut dice)).collect(),
            kills: (0..kills)
                .map(|_| Kill { replica: dice.below(replicas), after: dice.millis(0, 400) })
                .collect(),
            outages: (0..outages).map(|_| dice.millis(100, 1_500)).collect(),
        }
    }
}

fn purchase(dice: &mut Dice) -> Purchase {
    let order = *dice.one_of(&[
        Order::Run,
        Order::Run,
        Order::RunUpfront,
        Order::StorePinned,
        Order::StorePinned,
        Order::StoreCached,
        Order::StoreTwo,
        Order::StoreThree,
        Order::App,
        Order::AppUpfront,
        Order::AppAfter,
        Order::Report,
    ]);
    let version = *dice.one_of(&[Version::V1, Version::V2, Version::V2]);
    let conduct = match dice.below(10) {
        0..5 => Conduct::Patient,
        5..7 => Conduct::Many(2 + dice.below(3)),
        7..9 => Conduct::HangsUp,
        _ => Conduct::Leaves,
    };
    let mut faults: Vec<_> = (0..dice.below(3)).map(|_| fault(dice)).collect();
    if order.files().is_some() && dice.below(2) == 0 {
        // One file is stored, and the next is not.
        let stored = Rule::next(1, Fault::Slow(Duration::ZERO)).at("/pin").paid();
        let fails = *dice.one_of(&[Fault::WorkFails, Fault::AskAgain, Fault::Status(500), Fault::Drop]);
        let fails = Rule::next(1, fails).at("/pin").paid();
        let fails = if dice.below(2) == 0 { fails.after() } else { fails };
        faults.extend([stored, fails].map(|rule| (Service::OpenX402, rule)));
    }
    let price = (dice.below(12) == 0).then(|| {
        let provider = *dice.one_of(&[Service::Merit, Service::OpenX402]);
        (provider, *dice.one_of(&[8_000, 10_000, 10_000, 12_500, 30_000]))
    });
    Purchase { order, version, conduct, faults, price }
}

/// One fault of those a service can have. A facilitator that lies is not among them: it takes what it says it paid,
/// which is what the settlement audit is for and not a loss that journals could show.
fn fault(dice: &mut Dice) -> (Service, Rule) {
    let service = *dice.one_of(&[
        Service::Facilitator,
        Service::Facilitator,
        Service::Merit,
        Service::OpenX402,
        Service::XCache,
        Service::App,
    ]);
    let common = |dice: &mut Dice| match dice.below(6) {
        0 => Fault::Slow(dice.millis(20, 1_500)),
        1 => Fault::Status(500),
        2 => Fault::Status(503),
        3 => Fault::Garbage,
        4 => Fault::Truncate,
        _ => Fault::Drop,
    };
    let mut rule = match (service, dice.below(5)) {
        (Service::Facilitator, 0) => Rule::next(1, Fault::Pending).at("/settle"),
        (Service::Facilitator, 1 | 2) => Rule::next(1, common(dice)).at("/settle"),
        // It wants to be paid again: with the money, or without having taken it, or nobody can tell.
        (Service::Merit | Service::OpenX402, 0) => {
            Rule::next(1, *dice.one_of(&[Fault::AskAgain, Fault::AskAgain, Fault::Status(402)])).paid()
        }
        (Service::Merit | Service::OpenX402, 1) => Rule::next(1, Fault::WorkFails).paid(),
        (Service::Merit | Service::OpenX402, 2 | 3) => Rule::next(1, common(dice)).paid(),
        _ => Rule::next(1, common(dice)),
    };
    if dice.below(2) == 0 {
        rule = rule.after();
    }
    (service, rule)
}

/// Numbers that follow from a seed.
pub(crate) struct Dice(TestRng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Dice(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    /// From 0 to `bound` - 1. The bias of the remainder does not matter for bounds this small.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    fn one_of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.0.next_u64() % (to - from))
    }
}
