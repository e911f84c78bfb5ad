//! The table of steps: where a kill hits, and all that it must lead to. `docs/recovery.md` tells it in words.

use galaksio::jobs::State;
use galaksio::sandbox::Service;

use super::client::Order;
use super::rig::First;

/// A step, and all that a kill there must lead to.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) order: Order,
    /// Which call is stalled when the kill comes: the service, how its path begins, which of those.
    pub(crate) stalled: (Service, &'static str, First),
    pub(crate) effect: Effect,
    /// The state in the journal at the kill.
    pub(crate) killed_in: State,
    /// The state that recovery leaves, before the payment is presented again.
    pub(crate) recovered: State,
    /// What the same payment is answered with then.
    pub(crate) then: Then,
    /// Every event of the job, in order, at the end of it all.
    pub(crate) journal: &'static [&'static str],
    pub(crate) charged: usize,
    pub(crate) provider: usize,
}

/// Whether the stalled call does what it was sent for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// As if the request were lost on its way.
    Never,
    /// As if the answer were.
    Done,
}

/// The outcome of presenting the same payment after recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// The work, done in a second attempt.
    Redone,
    /// The work of the first attempt.
    Kept,
    /// Not charged; the provider's payment may be gone, so it is not made again.
    Held,
    /// The outcome of the settlement is not known.
    Unknown,
    /// Charged, and owed.
    Refund,
    /// The answer that the client has already; the outcome of its settlement is not known.
    Trusted,
}

impl Step {
    /// Whether the client has its answer before the kill.
    pub(crate) fn answered(&self) -> bool {
        self.order == Order::AppAfter && self.killed_in == State::Settling
    }

    /// The state at the end of it all.
    pub(crate) fn ends(&self) -> State {
        match self.then {
            Then::Redone | Then::Kept => State::Completed,
            Then::Held => State::Held,
            Then::Unknown | Then::Trusted => self.recovered,
            Then::Refund => State::RefundDue,
        }
    }
}

use Effect::{Done, Never};

const REDONE: &[&str] = &["work_failed", "reopened", "verified", "signed", "answered", "settled"];
const REDONE_UNPAID: &[&str] = &["work_failed", "reopened", "verified", "answered", "settled"];
const HELD: &[&str] = &["verified", "signed", "work_failed"];

pub(crate) const STEPS: &[Step] = &[
    // A provider does the work, settled when it succeeded.
    Step {
        name: "run: claimed, /verify stalled",
        order: Order::Run,
        stalled: (Service::Facilitator, "/verify", First::Call(0)),
        effect: Never,
        killed_in: State::Claimed,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE,
        charged: 1,
        provider: 1,
    },
    Step {
        name: "run: claimed, nothing signed",
        order: Order::Run,
        stalled: (Service::Merit, "/", First::Call(0)),
        effect: Never,
        killed_in: State::Claimed,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE,
        charged: 1,
        provider: 1,
    },
    Step {
        name: "run: signed, the provider not reached",
        order: Order::Run,
        stalled: (Service::Merit, "/", First::Paid(0)),
        effect: Never,
        killed_in: State::Working,
        recovered: State::Held,
        then: Then::Held,
        journal: HELD,
        charged: 0,
        provider: 0,
    },
    Step {
        name: "run: signed, the provider paid",
        order: Order::Run,
        stalled: (Service::Merit, "/", First::Paid(0)),
        effect: Done,
        killed_in: State::Working,
        recovered: State::Held,
        then: Then::Held,
        journal: HELD,
        charged: 0,
        provider: 1,
    },
    Step {
        name: "run: settling, not settled",
        order: Order::Run,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Never,
        killed_in: State::Settling,
        recovered: State::Completed,
        then: Then::Kept,
        journal: &["verified", "signed", "answered", "settled"],
        charged: 1,
        provider: 1,
    },
    Step {
        name: "run: settling, settled",
        order: Order::Run,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Done,
        killed_in: State::Settling,
        recovered: State::Settling,
        then: Then::Unknown,
        journal: &["verified", "signed", "answered"],
        charged: 1,
        provider: 1,
    },
    // A file for good: a free upload, then a paid pin.
    Step {
        name: "store: claimed, upload stalled",
        order: Order::StorePinned,
        stalled: (Service::OpenX402, "/upload", First::Call(0)),
        effect: Done,
        killed_in: State::Claimed,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE,
        charged: 1,
        provider: 1,
    },
    Step {
        name: "store: uploaded, the pin's price stalled",
        order: Order::StorePinned,
        stalled: (Service::OpenX402, "/pin/", First::Call(0)),
        effect: Never,
        killed_in: State::Claimed,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE,
        charged: 1,
        provider: 1,
    },
    Step {
        name: "store: signed, pinned",
        order: Order::StorePinned,
        stalled: (Service::OpenX402, "/pin/", First::Paid(0)),
        effect: Done,
        killed_in: State::Working,
        recovered: State::Held,
        then: Then::Held,
        journal: HELD,
        charged: 0,
        provider: 1,
    },
    // Two files for good: the first is bought before the second is begun.
    Step {
        name: "files: claimed, the first upload stalled",
        order: Order::StoreTwo,
        stalled: (Service::OpenX402, "/upload", First::Call(0)),
        effect: Never,
        killed_in: State::Claimed,
        recovered: State::Voided,
        then: Then::Redone,
        journal: &["work_failed", "reopened", "verified", "signed", "signed", "answered", "settled"],
        charged: 1,
        provider: 2,
    },
    Step {
        name: "files: one stored, the other's upload stalled",
        order: Order::StoreTwo,
        stalled: (Service::OpenX402, "/upload", First::Call(1)),
        effect: Never,
        killed_in: State::Working,
        recovered: State::Held,
        then: Then::Held,
        journal: HELD,
        charged: 0,
        provider: 1,
    },
    Step {
        name: "files: one stored, the other signed, not pinned",
        order: Order::StoreTwo,
        stalled: (Service::OpenX402, "/pin/", First::Paid(1)),
        effect: Never,
        killed_in: State::Working,
        recovered: State::Held,
        then: Then::Held,
        journal: &["verified", "signed", "signed", "work_failed"],
        charged: 0,
        provider: 1,
    },
    Step {
        name: "files: settling, not settled",
        order: Order::StoreTwo,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Never,
        killed_in: State::Settling,
        recovered: State::Completed,
        then: Then::Kept,
        journal: &["verified", "signed", "signed", "answered", "settled"],
        charged: 1,
        provider: 2,
    },
    // A value in a cache of the operator's: nothing is signed for the job.
    Step {
        name: "cache: claimed, the value not set",
        order: Order::StoreCached,
        stalled: (Service::XCache, "/", First::Call(0)),
        effect: Never,
        killed_in: State::Claimed,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE_UNPAID,
        charged: 1,
        provider: 0,
    },
    Step {
        name: "cache: claimed, the value set",
        order: Order::StoreCached,
        stalled: (Service::XCache, "/", First::Call(0)),
        effect: Done,
        killed_in: State::Claimed,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE_UNPAID,
        charged: 1,
        provider: 0,
    },
    Step {
        name: "cache: settling, not settled",
        order: Order::StoreCached,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Never,
        killed_in: State::Settling,
        recovered: State::Completed,
        then: Then::Kept,
        journal: &["verified", "answered", "settled"],
        charged: 1,
        provider: 0,
    },
    // The app does the work.
    Step {
        name: "app: claimed, the app not reached",
        order: Order::App,
        stalled: (Service::App, "/premium", First::Call(0)),
        effect: Never,
        killed_in: State::Claimed,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE_UNPAID,
        charged: 1,
        provider: 0,
    },
    Step {
        name: "app: settling, not settled",
        order: Order::App,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Never,
        killed_in: State::Settling,
        recovered: State::Completed,
        then: Then::Kept,
        journal: &["verified", "answered", "settled"],
        charged: 1,
        provider: 0,
    },
    Step {
        name: "app: settling, settled",
        order: Order::App,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Done,
        killed_in: State::Settling,
        recovered: State::Settling,
        then: Then::Unknown,
        journal: &["verified", "answered"],
        charged: 1,
        provider: 0,
    },
    // The app does the work, and is paid after the answer.
    Step {
        name: "app after: claimed, the app not reached",
        order: Order::AppAfter,
        stalled: (Service::App, "/echo", First::Call(0)),
        effect: Never,
        killed_in: State::Claimed,
        recovered: State::Voided,
        then: Then::Redone,
        journal: &["work_failed", "reopened", "verified", "trusted", "answered", "settled"],
        charged: 1,
        provider: 0,
    },
    Step {
        name: "app after: answered, not settled",
        order: Order::AppAfter,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Never,
        killed_in: State::Settling,
        recovered: State::Completed,
        then: Then::Kept,
        journal: &["verified", "trusted", "answered", "settled"],
        charged: 1,
        provider: 0,
    },
    Step {
        name: "app after: answered, settled",
        order: Order::AppAfter,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Done,
        killed_in: State::Settling,
        recovered: State::Settling,
        then: Then::Trusted,
        journal: &["verified", "trusted", "answered"],
        charged: 1,
        provider: 0,
    },
    // Settled before the work.
    Step {
        name: "app upfront: settling, not settled",
        order: Order::AppUpfront,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Never,
        killed_in: State::SettlingUpfront,
        recovered: State::SettlingUpfront,
        then: Then::Kept,
        journal: &["settle_first", "settled", "answered"],
        charged: 1,
        provider: 0,
    },
    Step {
        name: "run upfront: settling, not settled",
        order: Order::RunUpfront,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Never,
        killed_in: State::SettlingUpfront,
        recovered: State::SettlingUpfront,
        then: Then::Kept,
        journal: &["settle_first", "settled", "signed", "answered"],
        charged: 1,
        provider: 1,
    },
    Step {
        name: "app upfront: settling, settled",
        order: Order::AppUpfront,
        stalled: (Service::Facilitator, "/settle", First::Call(0)),
        effect: Done,
        killed_in: State::SettlingUpfront,
        recovered: State::SettlingUpfront,
        then: Then::Unknown,
        journal: &["settle_first"],
        charged: 1,
        provider: 0,
    },
    Step {
        name: "app upfront: settled, the app at work",
        order: Order::AppUpfront,
        stalled: (Service::App, "/hello", First::Call(0)),
        effect: Never,
        killed_in: State::WorkingSettled,
        recovered: State::RefundDue,
        then: Then::Refund,
        journal: &["settle_first", "settled", "work_failed"],
        charged: 1,
        provider: 0,
    },
    Step {
        name: "run upfront: settled, the provider paid",
        order: Order::RunUpfront,
        stalled: (Service::Merit, "/", First::Paid(0)),
        effect: Done,
        killed_in: State::WorkingSettled,
        recovered: State::RefundDue,
        then: Then::Refund,
        journal: &["settle_first", "settled", "signed", "work_failed"],
        charged: 1,
        provider: 1,
    },
];
