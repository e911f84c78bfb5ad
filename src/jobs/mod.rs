//! Jobs: the durable record of paid work, and the stores that keep it.
//!
//! `job` is the record, `claim_key` what it is found by, `state` where it stands, `transition` the one table of what may happen to it, `record` its bytes, `store`
//! what a store must offer, `held` what the holder of a job has of it himself, `archive` what becomes of jobs that a store lets go. A store knows versions, leases and bytes, never which state follows which.

pub mod archive;
mod claim_key;
pub mod embedded;
mod held;
pub mod job;
#[cfg(test)]
pub(crate) mod memory;
mod record;
pub mod redis;
#[cfg(test)]
pub(crate) mod sample;
mod slices;
mod state;
pub mod store;
pub mod transition;

pub use self::redis::Redis;
pub use claim_key::ClaimKey;
pub use embedded::Embedded;
pub use job::{
    Answer, Failure, Fingerprint, Job, JobKind, Kept, ProviderPayment, Refund, Retention, Shortfall,
};
pub use record::Entry;
pub use state::State;
pub use store::{Appended, Claim, Draw, JobStore, Lease, Step, StoreError, ValueStore};
pub use transition::{Event, Illegal};
