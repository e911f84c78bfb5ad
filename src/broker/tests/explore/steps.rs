//! All that can happen next in a world: what the broker does (`attempt`, `recovery`, `journal`), what stops it, and what
//! everybody else does meanwhile.

use super::bounds::{Bounds, Break};
use super::records::Carry;
use super::table::{Ev, Ix, Table, slot};
use super::world::{At, Authorization, Signature, World};
use crate::jobs::State;
use crate::jobs::job::Fate;

/// What led from one world to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// The client presents its payment. All else happens without it.
    Presented,
    /// Worker so and so went on.
    Worked(usize),
    Crashed(usize),
    LeaseEnded,
    TakenOver(usize),
    ClientPaid,
    ClientCancelled,
    ClientLapsed,
    ProviderTook(usize),
    ProviderLapsed(usize),
}

pub(super) struct Steps<'a> {
    pub(super) table: &'a mut Table,
    pub(super) bounds: Bounds,
    pub(super) next: Vec<(Label, World)>,
    /// An event that the table does not allow where the broker would ask for it.
    pub(super) illegal: Option<(State, Ev)>,
}

impl Steps<'_> {
    pub(super) fn breaks(&self, what: Break) -> bool {
        self.bounds.broken == Some(what)
    }

    /// Everything that can happen in `world`.
    pub(super) fn all(&mut self, world: &World) {
        self.nature(world);
        for who in 0..2 {
            if world.workers[who].idle() {
                self.presented(world, who);
                self.taken_over(world, who);
            } else {
                self.work(world, who);
                let mut dead = *world;
                dead.workers[who].at = At::Idle;
                self.next.push((Label::Crashed(who), dead));
            }
        }
    }

    /// What happens by itself: time passes, and money moves where somebody may move it.
    fn nature(&mut self, world: &World) {
        let mut push = |label, change: &dyn Fn(&mut World)| {
            let mut next = *world;
            change(&mut next);
            self.next.push((label, next));
        };
        if world.leased {
            push(Label::LeaseEnded, &|next| next.leased = false);
        }
        if world.may_still_pay() {
            push(Label::ClientPaid, &|next| next.client = Authorization::Paid);
        }
        if world.client == Authorization::Free && !world.lapsed {
            push(Label::ClientCancelled, &|next| next.client = Authorization::Dead);
        }
        if !world.lapsed {
            push(Label::ClientLapsed, &|next| next.lapsed = true);
        }
        let recorded =
            world.record.map(|ix| self.table.job(ix).provider.iter().map(slot).collect::<Vec<_>>());
        // Where the store may be away, time is believed in one thing: work ends before its payment lapses, and a settlement
        // that was sent then is in a block, or dropped, before it is final that it has.
        let busy = world.workers.iter().any(|worker| {
            matches!(worker.at, At::Work | At::Send(_) | At::Hear | At::Done | At::Part | At::Settle { .. })
        });
        let hurried = self.bounds.away && (busy || (world.from_memory && world.may_still_pay()));
        for place in 0..world.signatures.len() {
            let known = recorded.as_ref().is_some_and(|slots| slots.contains(&place));
            match world.signatures[place] {
                Signature::Out => {
                    push(Label::ProviderTook(place), &|next| next.signatures[place] = Signature::Taken);
                    if !hurried {
                        push(Label::ProviderLapsed(place), &|next| {
                            next.signatures[place] = Signature::Lapsed
                        });
                    }
                }
                Signature::In if known && !hurried => {
                    push(Label::ProviderLapsed(place), &|next| next.signatures[place] = Signature::Lapsed);
                }
                _ => {}
            }
        }
    }

    /// The client presents its payment to an idle worker.
    fn presented(&mut self, world: &World, who: usize) {
        let mut next = *world;
        let Some(record) = world.record else {
            if world.lapsed {
                return;
            }
            (next.record, next.leased) = (Some(0), true);
            next.workers[who].at = At::Begin;
            next.workers[who].ours = true;
            self.next.push((Label::Presented, next));
            return;
        };
        let job = self.table.job(record);
        let again = match job.state {
            State::Voided if job.attempt < self.bounds.attempts && !world.lapsed && !job.buys_nothing() => {
                At::Reopen
            }
            State::SettlingUpfront => At::Settle { fresh: false },
            _ => return,
        };
        if !world.leased {
            let next = owned(world, who, again, false);
            self.next.push((Label::Presented, next));
        }
    }

    /// A worker without a job looks for what others left.
    fn taken_over(&mut self, world: &World, who: usize) {
        let Some(record) = world.record.filter(|_| !world.leased) else { return };
        let job = self.table.job(record);
        if !job.state.at_rest() {
            if !self.breaks(Break::Recovery) {
                self.next.push((Label::TakenOver(who), owned(world, who, At::Recover, true)));
            }
            return;
        }
        if !matches!(job.state, State::Held | State::RefundDue | State::Uncollected) {
            return;
        }
        let open = || job.provider.iter().filter(|payment| payment.fate == Fate::Open).map(slot);
        let is = |place: usize, what| world.signatures[place] == what;
        let taken = open().any(|place| is(place, Signature::Taken));
        let lapsed = open().filter(|place| is(*place, Signature::Lapsed));
        let lapsed = lapsed.fold(0, |mask, place| mask | 1 << place);
        let known = open().all(|place| is(place, Signature::Taken) || is(place, Signature::Lapsed));
        let asks = job.state == State::Held && !self.breaks(Break::HeldClients);
        let proven = match (open().next().is_some(), known, taken) {
            (false, ..) => None,
            (true, false, _) if self.breaks(Break::VoidWhileSpendable) => Some(Ev::ProvedUnspent),
            (true, false, _) => None,
            // Somebody may have settled it from memory.
            (true, true, _) if asks && world.client == Authorization::Paid => Some(Ev::Settled),
            (true, true, true) if asks && !world.never_pays() => None,
            (true, true, true) => Some(Ev::ProvedSpent(lapsed)),
            (true, true, false) => Some(Ev::ProvedUnspent),
        };
        if let Some(ev) = proven {
            self.next.push((Label::TakenOver(who), owned(world, who, At::Proven(ev), true)));
        }
    }

    /// What a worker with a job does next.
    fn work(&mut self, world: &World, who: usize) {
        let worker = world.workers[who];
        let Some(job) = self.known(world, who) else { return };
        let state = self.table.state(job);
        match worker.at {
            At::Idle => {}
            At::Begin => {
                let attempt = self.table.job(job).attempt as usize - 1;
                let good = world.client == Authorization::Free && !world.lapsed;
                if good || self.breaks(Break::Verify) {
                    let mut vouched = *world;
                    vouched.vouched[attempt] |= good;
                    self.record(&vouched, who, Ev::Verified, Carry::Never, At::Work, At::Close);
                }
                self.record(world, who, Ev::Rejected, Carry::Never, At::Close, At::Close);
                // Another route, or a payer who owes.
                let settle = At::Settle { fresh: true };
                self.record(world, who, Ev::SettleFirst, Carry::Never, settle, At::Close);
            }
            At::Reopen => self.record(world, who, Ev::Reopened, Carry::Never, At::Begin, At::Close),
            At::Work => self.perform(world, who, job),
            At::Send(step) => {
                let place = self.place(job, step);
                let mut sent = *world;
                if sent.signatures[place] == Signature::In {
                    sent.signatures[place] = Signature::Out;
                }
                if self.breaks(Break::RecordAfterSending) {
                    self.record(&sent, who, Ev::Signed(step), Carry::Never, At::Hear, At::Failed);
                } else {
                    self.goes(sent, who, At::Hear);
                }
            }
            // Done, whether or not it has taken the money yet; or not, or no answer, or asked to be paid again.
            At::Hear => {
                self.goes(*world, who, At::Work);
                let done = self.signed(job) > 1;
                self.goes(*world, who, if done { At::Part } else { At::Failed });
            }
            At::Done | At::Part => {
                let carry = match state == State::WorkingSettled || self.table.job(job).signature_open() {
                    true => Carry::IfAway,
                    false => Carry::Never,
                };
                let then = match state {
                    State::WorkingSettled if self.bounds.once && worker.at == At::Done => At::Handing,
                    State::WorkingSettled => At::Close,
                    _ => At::Settle { fresh: true },
                };
                let ev = if worker.at == At::Part { Ev::AnsweredInPart } else { Ev::Answered };
                self.record(world, who, ev, carry, then, At::Close);
            }
            At::Failed => self.record(world, who, Ev::WorkFailed, Carry::IfAway, At::Close, At::Close),
            At::Settle { fresh } => self.settle(world, who, fresh),
            At::Told => self.told(world, who),
            At::Found(ev) => {
                let carry = match (ev, state, worker.recovering) {
                    (Ev::Settled, State::Settling, _) | (Ev::Settled, _, true) => Carry::Always,
                    (Ev::HandedOut, _, false) => Carry::Always,
                    _ => Carry::IfAway,
                };
                let then = match (ev, state, worker.recovering) {
                    (Ev::Settled, State::SettlingUpfront, true) => At::Failed,
                    (Ev::Settled, State::SettlingUpfront, false) => At::Work,
                    // In one record, in fact: between the two there is less room there than here.
                    (Ev::Settled, State::Settling, true) if self.is_given_once(job) => At::Recover,
                    (Ev::Settled, State::Settling, false) if self.is_given_once(job) => At::Handing,
                    _ => At::Close,
                };
                let mut found = *world;
                if then == At::Work {
                    found.vouched[self.table.job(job).attempt as usize - 1] = true;
                }
                self.record(&found, who, ev, carry, then, At::Close);
            }
            At::Handing => {
                self.goes(*world, who, At::Found(Ev::HandedOut));
                self.goes(*world, who, At::Failed);
            }
            At::Recover => match state {
                State::Delivering if self.breaks(Break::TakeForGiven) => {
                    self.goes(*world, who, At::Found(Ev::HandedOut));
                }
                State::Settling => self.goes(*world, who, At::Settle { fresh: false }),
                State::SettlingUpfront if world.lapsed => self.goes(*world, who, At::Settle { fresh: false }),
                State::SettlingUpfront => self.goes(*world, who, At::Close),
                _ => self.goes(*world, who, At::Failed),
            },
            At::Proven(ev) => self.record(world, who, ev, Carry::Never, At::Close, At::Close),
            At::Close => self.close(world, who),
        }
    }

    /// Whether its answer is beside its record, and is all that was bought.
    fn is_given_once(&self, job: Ix) -> bool {
        let job = self.table.job(job);
        job.is_given_once() && job.shortfall.is_none()
    }

    /// Payments of this attempt.
    fn signed(&self, job: Ix) -> usize {
        let job = self.table.job(job);
        job.provider.iter().filter(|payment| payment.attempt == job.attempt).count()
    }

    fn perform(&mut self, world: &World, who: usize, job: Ix) {
        let signed = self.signed(job);
        if let Some(step) = u8::try_from(signed).ok().filter(|step| *step < self.bounds.steps)
            && self.table.may_sign(job, step)
        {
            if self.breaks(Break::RecordAfterSending) {
                self.goes(*world, who, At::Send(step));
            } else {
                self.record(world, who, Ev::Signed(step), Carry::Never, At::Send(step), At::Failed);
            }
        }
        self.goes(*world, who, At::Done);
        self.goes(*world, who, At::Failed);
        // Noted beside the answer, in fact: between the two there is less room there than here.
        if self.table.state(job) == State::Working
            && !self.bounds.once
            && self.table.apply(job, Ev::Trusted).is_some()
        {
            self.record(world, who, Ev::Trusted, Carry::Never, At::Done, At::Close);
        }
        if signed == 1 && self.bounds.steps > 1 {
            // The second part is not to be had, and nobody is paid for it.
            self.goes(*world, who, At::Part);
        }
        if self.table.apply(job, Ev::Turned).is_some() && self.table.job(job).quote.provider != "another" {
            self.record(world, who, Ev::Turned, Carry::Never, At::Work, At::Close);
        }
    }

    fn settle(&mut self, world: &World, who: usize, fresh: bool) {
        let mut sent = *world;
        sent.in_flight = true;
        sent.from_memory |= world.workers[who].carries();
        self.goes(sent, who, At::Told);
        if fresh {
            // Refused before anything was sent: then the chain is asked whether somebody else has sent it.
            let found = if world.client == Authorization::Paid { Ev::Settled } else { Ev::Refused };
            self.goes(*world, who, At::Found(found));
            // Never reached.
            self.goes(*world, who, At::Close);
        } else {
            self.told(world, who);
        }
    }

    fn told(&mut self, world: &World, who: usize) {
        if world.client == Authorization::Paid {
            self.goes(*world, who, At::Found(Ev::Settled));
        }
        if world.never_pays() || self.breaks(Break::BelieveRefusals) {
            self.goes(*world, who, At::Found(Ev::Refused));
        }
        let unknown = if self.breaks(Break::GiveUpUnknown) { At::Found(Ev::Refused) } else { At::Close };
        self.goes(*world, who, unknown);
    }

    pub(super) fn goes(&mut self, mut world: World, who: usize, at: At) {
        world.workers[who].at = at;
        world.given |= self.hands_out(&world, who);
        self.next.push((Label::Worked(who), world));
    }

    /// Whether the client that waits for this worker gets its answer now.
    fn hands_out(&mut self, world: &World, who: usize) -> bool {
        let worker = world.workers[who];
        let Some(job) = self.known(world, who).filter(|_| !worker.recovering) else { return false };
        let durable = self.table.job(worker.durable);
        let recorded =
            durable.state == State::Settling || durable.is_answered() || self.breaks(Break::GiveFromMemory);
        match worker.at {
            At::Found(Ev::HandedOut) => true,
            At::Close => {
                recorded && self.table.job(job).is_answered() && !self.table.job(job).is_given_once()
            }
            At::Settle { fresh: true } => recorded && self.table.job(job).answered_first(),
            _ => false,
        }
    }

    /// The job as a worker knows it; `None` where what it carries does not fit on it.
    pub(super) fn known(&mut self, world: &World, who: usize) -> Option<Ix> {
        let worker = world.workers[who];
        worker.carried.iter().flatten().try_fold(worker.durable, |job, ev| self.table.apply(job, *ev))
    }

    pub(super) fn table_of(&self, world: &World) -> Option<State> {
        world.record.map(|ix| self.table.state(ix))
    }

    fn place(&self, job: Ix, step: u8) -> usize {
        (self.table.job(job).attempt as usize - 1) * 2 + usize::from(step)
    }
}

/// The world in which this worker has taken the job over.
pub(super) fn owned(world: &World, who: usize, at: At, recovering: bool) -> World {
    let mut next = *world;
    for worker in &mut next.workers {
        worker.ours = false;
    }
    let worker = &mut next.workers[who];
    (worker.at, worker.ours, worker.recovering) = (at, true, recovering);
    worker.durable = world.record.unwrap_or_default();
    worker.carried = [None; 3];
    next.leased = true;
    next
}
