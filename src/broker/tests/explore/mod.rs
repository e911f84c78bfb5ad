//! Every world that two gateways on one store can reach, looked at: breadth first, with a crash, a lost lease or a lost
//! answer between any two steps. The jobs are changed by the real transition table, signed for by the real limit of the
//! purse, and answered for by the real delivery; the steps around those are the broker's, written down in `steps`.
//!
//! What is held against each world is section by section of `docs/properties.md`. A facilitator here may do what it is
//! asked and not answer, and a provider may take the money, do the work or ask to be paid again, in any combination; what
//! a facilitator says of a settlement it made is true, and the chain proves what it proves at once. What a payer sends to
//! the chain himself is in `tests/chain`.
//!
//! One lie is known, and left out where the store may be away for one gateway alone: a job that is held is answered "not
//! charged, pay anew" though the gateway that is cut off may be settling it from memory. It ends as completed, or as a refund due.

mod bounds;
mod records;
mod steps;
mod table;
mod world;

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::broker::delivery::{Delivery, DeliveryBody};
use crate::jobs::job::Fate;
use crate::jobs::{Job, State};
use crate::money::Amount;
use crate::reason::{Charged, Reason, Retry};

use bounds::{Bounds, Break};
use steps::{Label, Steps};
use table::{Ix, Table, slot};
use world::{Authorization, Signature, World};

/// All worlds that were reached, each with how it was first reached.
struct Explored {
    table: Table,
    worlds: Vec<(World, u32, Label)>,
    /// From one to another, without the client.
    edges: Vec<(u32, u32)>,
    fault: Option<String>,
}

/// Reaches every world, and stops at the first in which a promise is broken.
fn explore(bounds: Bounds) -> Explored {
    let table = Table::new(bounds.once);
    let worlds = vec![(World::FIRST, 0, Label::Presented)];
    let mut explored = Explored { table, worlds, edges: Vec::new(), fault: None };
    let mut known: HashMap<World, u32> = HashMap::from([(World::FIRST, 0)]);
    let mut at = 0;
    while at < explored.worlds.len() {
        let (world, ..) = explored.worlds[at];
        let from = u32::try_from(at).unwrap();
        let mut steps = Steps { table: &mut explored.table, bounds, next: Vec::new(), illegal: None };
        steps.all(&world);
        let (next, illegal) = (steps.next, steps.illegal);
        let ends = next.iter().all(|(_, next)| next.canonical() == world);
        let broken = illegal
            .map(|(state, ev)| format!("the table does not allow {ev:?} where a job is {}", state.name()))
            .or_else(|| broken(&explored.table, &world, bounds))
            .or_else(|| ends.then(|| unfinished(&explored.table, &world)).flatten());
        if let Some(what) = broken {
            explored.fault = Some(explored.story(from, &what));
            return explored;
        }
        for (label, next) in next {
            let next = next.canonical();
            if let Some(what) = changed(&explored.table, &world, &next) {
                explored.fault = Some(explored.story(from, &what));
                return explored;
            }
            let to = *known.entry(next).or_insert_with(|| {
                explored.worlds.push((next, from, label));
                u32::try_from(explored.worlds.len() - 1).unwrap()
            });
            if label != Label::Presented && to != from {
                explored.edges.push((from, to));
            }
        }
        at += 1;
    }
    explored.fault = explored.stuck();
    explored
}

/// What must hold in every world.
fn broken(table: &Table, world: &World, bounds: Bounds) -> Option<String> {
    let says = |what: &str| Some(what.to_owned());
    let Some(job) = world.record.map(|ix| table.job(ix)) else {
        let nothing = world.client == Authorization::Paid || world.signatures != World::FIRST.signatures;
        return nothing.then(|| "money moved without a claim".to_owned());
    };
    // 1 and 2: what has left is on record, is within what the client pays, and was vouched for.
    let mut out = (0u32, Amount::ZERO);
    for (place, signature) in world.signatures.iter().enumerate() {
        let of = job.provider.iter().find(|payment| slot(payment) == place);
        match (signature, of) {
            (Signature::Out | Signature::Taken, None) => return says("a payment left that is not on record"),
            (Signature::Out | Signature::Taken, Some(payment)) => {
                out = (out.0 + 1, out.1.checked_add(payment.amount).unwrap());
                if !world.vouched[payment.attempt as usize - 1] {
                    return says("a provider can be paid for a payment that nobody vouched for");
                }
                if payment.fate == Fate::Unspent {
                    return says("a payment that can be taken, or was, is booked as never taken");
                }
            }
            // Where somebody vouches for the work it is.
            (Signature::Lapsed, Some(payment)) if payment.fate == Fate::Spent => {
                let missing = job.shortfall.as_ref().is_some_and(|it| it.steps.contains(&payment.step));
                // So was for an answer that was lost on its way.
                let lost = bounds.once && job.state == State::RefundDue;
                if (job.answer.is_none() && !lost) || missing {
                    return says("a payment that was never taken is booked as taken");
                }
            }
            _ => {}
        }
    }
    if out.0 > 1 && out.1 > job.client.requirement.amount {
        return says("more is out than the client pays");
    }
    // 3: who is charged has an answer, or is owed.
    let paid = world.client == Authorization::Paid;
    match job.state {
        State::Delivering | State::Completed | State::RefundDue | State::WorkingSettled if !paid => {
            return says("booked as paid, and it is not");
        }
        State::Voided | State::Uncollected | State::ProviderLost if paid => {
            return says("charged, without an answer or a refund");
        }
        _ => {}
    }
    // 4: nobody is told to pay anew, or that he was not charged, while this payment is or may be taken.
    if paid || world.may_still_pay() {
        let delivery = Delivery::of_rest(job, true);
        let charged = match &delivery.body {
            DeliveryBody::Problem(problem) => problem.charged,
            _ => Some(Charged::Yes),
        };
        let cut_off = bounds.away && world.from_memory && job.state == State::Held;
        if delivery.status == 402 || (charged == Some(Charged::No) && !cut_off) {
            return Some(format!(
                "told {} and charged {charged:?}, with the payment on its way",
                delivery.status
            ));
        }
        if delivery.reason.retry() == Retry::NewPayment && !cut_off {
            return says("told to pay anew, with the payment on its way");
        }
    }
    // 5: what was bought is there for whoever presents the same payment again.
    if job.is_answered() && !job.is_given_once() && Delivery::of_rest(job, true).reason != Reason::Replayed {
        return says("completed, and nothing to show for it");
    }
    // Where it is not kept, the client has it, or is owed.
    if job.is_given_once() && job.state == State::Completed && !world.given {
        return says("completed, and its client has a part of its answer");
    }
    // Or a part of it, and then the rest is owed, and the whole is not.
    if job.is_answered() && (job.state.shown() == State::Completed) != job.shortfall.is_none() {
        return says("something is owed for what was done, or nothing for what was not");
    }
    // 6: nobody pays another price than he was shown.
    if job.quote.price != table.job(0).quote.price || job.client.requirement.amount != job.quote.price {
        return says("another price");
    }
    // Who has the answer has paid for it, or is known for it, whatever becomes of the process that gave it.
    let known =
        job.state == State::Settling || job.is_answered() || (job.state == State::Uncollected && job.trusted);
    // Who had it all may have been the only one to know.
    let lost = bounds.once && job.state == State::RefundDue;
    if world.given && !known && !lost {
        return Some(format!("answered, and the job is {}", job.state.name()));
    }
    // What is given up has nothing out.
    if job.state == State::Voided {
        let spendable = |payment: &&_| {
            let signature = world.signatures[slot(payment)];
            matches!(signature, Signature::Out | Signature::Taken)
        };
        if job.provider.iter().any(|payment| spendable(&payment)) {
            return says("given up, with a payment to a provider out");
        }
    }
    None
}

/// What must hold of every step: an end stays what it is.
fn changed(table: &Table, from: &World, to: &World) -> Option<String> {
    let (before, after) = (table.job(from.record?), to.record.map(|ix| table.job(ix)));
    let is_end = before.state.at_rest() && !matches!(before.state, State::Held | State::Voided);
    let Some(after) = after else { return Some("a job is gone".to_owned()) };
    let stays = (before.state, &before.answer) == (after.state, &after.answer);
    let receipt = before.receipt.is_none() || after.receipt.is_some();
    let kept = before.provider.len() <= after.provider.len();
    let pays_anew = |job: &Job| Delivery::of_rest(job, true).reason.retry() == Retry::NewPayment;
    // 4: who was told to pay anew is told so again, but for the one lie.
    let collected = matches!(after.state, State::Settling | State::Completed | State::RefundDue);
    let cut_off = before.state == State::Held && collected;
    let told = before.state.at_rest() && pays_anew(before) && !pays_anew(after);
    match (is_end && !stays, receipt && kept, told && !cut_off) {
        (false, true, false) => None,
        (true, ..) => Some(format!("{} became {}", before.state.name(), after.state.name())),
        (_, false, _) => Some("what was paid is forgotten".to_owned()),
        (_, _, true) => Some(format!("told to pay anew, and the job is {}", after.state.name())),
    }
}

/// What must hold where nothing happens any more.
fn unfinished(table: &Table, world: &World) -> Option<String> {
    let job = table.job(world.record?);
    let idle = world.workers.iter().all(|worker| worker.idle());
    let end = job.state.at_rest() && job.state != State::Held && !job.signature_open();
    (!end || !idle).then(|| format!("nothing happens any more, and the job is {}", job.state.name()))
}

impl Explored {
    /// A world from which no end can be reached, whatever anybody but the client does.
    fn stuck(&self) -> Option<String> {
        let mut back: Vec<Vec<u32>> = vec![Vec::new(); self.worlds.len()];
        for (from, to) in &self.edges {
            back[*to as usize].push(*from);
        }
        let ended = |world: &World| {
            let idle = world.workers.iter().all(|worker| worker.idle());
            idle && world.record.is_none_or(|ix| {
                let job = self.table.job(ix);
                job.state.at_rest() && job.state != State::Held && !job.signature_open()
            })
        };
        let mut can: Vec<bool> = self.worlds.iter().map(|(world, ..)| ended(world)).collect();
        let mut queue: Vec<usize> = (0..can.len()).filter(|at| can[*at]).collect();
        while let Some(at) = queue.pop() {
            for from in &back[at] {
                if !std::mem::replace(&mut can[*from as usize], true) {
                    queue.push(*from as usize);
                }
            }
        }
        let at = can.iter().position(|can| !can)?;
        Some(self.story(u32::try_from(at).unwrap(), "from here no end can be reached"))
    }

    /// How a world came about.
    fn story(&self, mut at: u32, what: &str) -> String {
        let mut way = Vec::new();
        while at != 0 {
            let (world, from, label) = &self.worlds[at as usize];
            way.push(format!("{label:?}: {}", self.shown(world)));
            at = *from;
        }
        way.reverse();
        format!("{what}\n{}", way.join("\n"))
    }

    fn shown(&self, world: &World) -> String {
        let state = |ix: Ix| self.table.state(ix).name();
        let mut text = format!(
            "{} {:?}{}{} {:?}",
            world.record.map_or("nothing", state),
            world.client,
            if world.lapsed { " lapsed" } else { "" },
            if world.in_flight { " in flight" } else { "" },
            world.signatures,
        );
        for worker in world.workers.iter().filter(|worker| !worker.idle()) {
            let owner = if worker.ours { "owner" } else { "fenced" };
            let carried: Vec<_> = worker.carried.iter().flatten().collect();
            let _ = write!(text, " | {:?} {owner} {carried:?}", worker.at);
        }
        text
    }
}

const WHOLE: Bounds = Bounds { attempts: 2, steps: 1, away: false, once: false, broken: None };

/// What is explored: two attempts of one payment each, two payments in one attempt, answers that are handed out beside their
/// records, and one payment with a store that is away.
const EXPLORED: [(&str, Bounds, usize); 4] = [
    ("two attempts", WHOLE, 1_000),
    ("two payments", Bounds { attempts: 1, steps: 2, ..WHOLE }, 1_000),
    ("answers beside their records", Bounds { attempts: 1, once: true, ..WHOLE }, 500),
    ("the store away", Bounds { attempts: 1, away: true, ..WHOLE }, 1_000),
];

#[test]
fn every_reachable_world_keeps_the_promises() {
    for (name, bounds, least) in EXPLORED {
        let began = std::time::Instant::now();
        let explored = explore(bounds);
        assert!(explored.fault.is_none(), "{name}: {}", explored.fault.unwrap());
        let (worlds, jobs) = (explored.worlds.len(), explored.table.jobs());
        println!(
            "{name}: {worlds} worlds, {jobs} jobs, {} steps, {:?}",
            explored.edges.len(),
            began.elapsed()
        );
        // It is not smaller than it says.
        assert!(worlds >= least, "{name}: only {worlds} worlds");
        // Refunds are paid by the operator: `refunds` has the tests of that.
        let paid_back = |state: &State| *state == State::Refunded;
        let beside = |state: &State| *state == State::Delivering && !bounds.once;
        for state in State::ALL.into_iter().filter(|state| !paid_back(state) && !beside(state)) {
            let reached = explored
                .worlds
                .iter()
                .any(|(world, ..)| world.record.is_some_and(|ix| explored.table.state(ix) == state));
            assert!(reached, "{name}: {} is never reached", state.name());
        }
    }
}

/// Each of the mechanisms is taken away once, and the exploration says what goes wrong then.
#[test]
fn whatever_is_taken_away_is_missed() {
    for (broken, found) in [
        (Break::Epochs, "told 402 and charged Some(No), with the payment on its way"),
        (Break::Fences, "told to pay anew, and the job is voided"),
        (Break::RecordAfterSending, "a payment left that is not on record"),
        (Break::VoidWhileSpendable, "booked as never taken"),
        (Break::BelieveRefusals, "told 402 and charged Some(No), with the payment on its way"),
        (Break::DropRefusals, "told 402 and charged Some(No), with the payment on its way"),
        (Break::GiveUpUnknown, "told 402 and charged Some(No), with the payment on its way"),
        (Break::Recovery, "nothing happens any more, and the job is claimed"),
        (Break::Verify, "nobody vouched for"),
        (Break::HeldClients, "with the payment on its way"),
        (Break::GiveFromMemory, "answered, and the job is working"),
        (Break::TakeForGiven, "completed, and its client has a part of its answer"),
    ] {
        let away = matches!(broken, Break::HeldClients | Break::DropRefusals | Break::GiveFromMemory);
        let once = broken == Break::TakeForGiven;
        let explored = explore(Bounds { away, once, broken: Some(broken), ..WHOLE });
        let fault = explored.fault.unwrap_or_else(|| panic!("{broken:?} is not missed"));
        println!("without {broken:?}: {fault}\n");
        assert!(fault.contains(found), "{broken:?}: {fault}");
    }
}
