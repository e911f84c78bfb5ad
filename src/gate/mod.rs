//! The gate: from a request and its quotes to one decision, without I/O.
//!
//! [`decide()`] is asked for each priced or brokered request. What it needs and does not have (a quote, the
//! prices other replicas showed) it names, and is asked again:
//!
//! ```text
//! loop {
//!     match decide(&request, payment, quote, &books, job, now) {
//!         Decision::Missing(Missing::Quote) => quote = Some(cache.fetch(ask).await?),
//!         Decision::Missing(Missing::Epochs) => { cache.catch_up().await?; books.epochs_current = true }
//!         decision => break decision,
//!     }
//! }
//! ```

mod challenge;
mod decide;
mod loss;
mod payment;

pub use challenge::Challenge;
pub use decide::{Admission, Books, Decision, Missing, Request, challenge, decide};
pub use loss::{at_most, leaves_too_little, loss, withdrawn};
pub use payment::{Echo, Presented};
