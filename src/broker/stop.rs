//! Why an attempt ends before its last step.

use tracing::warn;

use super::delivery::Delivery;
use super::journal::JournalError;
use crate::jobs::Failure;
use crate::reason::{Charged, Problem, Reason};

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
