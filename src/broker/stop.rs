//! Why an attempt ends before its last step, and what is done about a payment that was claimed before.

use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::delivery::Delivery;
use super::journal::JournalError;
use crate::jobs::{Failure, Job, Lease};
use crate::reason::{Charged, Problem, Reason};

/// What is done about a payment that was claimed before.
pub(super) enum Again {
    /// Answer with this.
    Answer(Box<Delivery>),
    /// It bought nothing so far: start the next attempt of its job, or go on with one that waits to be settled upfront.
    GoOn(Box<Job>, Lease, OwnedSemaphorePermit),
}

impl Again {
    pub(super) fn answer(delivery: Delivery) -> Self {
        Again::Answer(Box::new(delivery))
    }
}

/// Why an attempt ends before its last step.
pub(super) enum Stop {
    Answer(Box<Delivery>),
    Journal(JournalError),
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        Stop::Journal(error)
    }
}

impl Stop {
    pub(super) fn into_delivery(self) -> Delivery {
        match self {
            Stop::Answer(delivery) => *delivery,
            Stop::Journal(error) => {
                warn!(%error, "an attempt stopped");
                let reason = match error {
                    JournalError::Fenced => Reason::JobRunning,
                    JournalError::Store(_) => Reason::StoreAway,
                    JournalError::Illegal(_) => Reason::Internal,
                };
                // Others may be running the job, or the last record may have been made after all.
                Delivery::problem(Problem::new(reason).charged(Charged::Unknown))
            }
        }
    }
}

pub(super) fn failure(reason: Reason, message: &str) -> Failure {
    Failure { code: reason.code().to_owned(), message: message.to_owned(), status: reason.status() }
}
