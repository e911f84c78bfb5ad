//! Jobs: the durable record of paid work, and the stores that keep it.
//!
//! `job` is the record, `transition` the one table of what may happen to it, `record` its bytes, `store`
//! what a store must offer, `archive` what becomes of jobs that a store lets go. A store knows versions, leases and bytes, never which state follows which.

pub mod archive;
pub mod embedded;
pub mod job;
#[cfg(test)]
pub(crate) mod memory;
mod record;
pub mod redis;
#[cfg(test)]
pub(crate) mod sample;
mod slices;
pub mod store;
pub mod transition;

pub use self::redis::Redis;
pub use embedded::Embedded;
pub use job::{
    Answer, ClaimKey, Failure, Fingerprint, Job, JobKind, Kept, ProviderPayment, Refund, Retention,
    Shortfall, State,
};
pub use record::Entry;
pub use store::{Appended, Claim, Draw, JobStore, Lease, Step, StoreError, ValueStore};
pub use transition::{Event, Illegal};
