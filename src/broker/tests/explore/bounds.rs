//! How large the exploration is, and what is broken on purpose.

/// How large the exploration is, and what is broken on purpose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) attempts: u32,
    /// Payments to providers in one attempt.
    pub(super) steps: u8,
    /// The store may be away for one worker and not for the other.
    pub(super) away: bool,
    /// The record has no room for an answer: it is handed out beside it.
    pub(super) once: bool,
    pub(super) broken: Option<Break>,
}

/// What is taken out of the product, to see that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// The store takes what fits the version, whoever writes it.
    Epochs,
    /// Nothing is compared: the last who writes is right.
    Fences,
    /// A payment is sent, and then recorded.
    RecordAfterSending,
    /// What is held is given up without a look at the chain.
    VoidWhileSpendable,
    /// A refusal counts, though somebody may have settled before.
    BelieveRefusals,
    /// A refusal that could not be written counts after somebody else had the job.
    DropRefusals,
    /// An unknown settlement is called a refusal.
    GiveUpUnknown,
    /// Nobody looks for what a crash left.
    Recovery,
    /// A provider is paid before the client's payment is looked at.
    Verify,
    /// Whether the client has paid for a job that is held is not asked.
    HeldClients,
    /// An answer is given out though nothing is on record of it.
    GiveFromMemory,
    /// Whoever finds that an answer was being handed out takes it for given.
    TakeForGiven,
}
