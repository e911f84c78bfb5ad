//! Health, readiness, metrics and lists of jobs, on a listener of their own: plain HTTP/1.1, read only.
//!
//! Nothing here asks who reads. The pages hold no secrets, but they say what the gateway earns and how it fares, so
//! `admin.listen` belongs on loopback or on a network that only the operator's tools reach. Jobs name payers, so they
//! are listed on loopback only.

mod jobs;
mod pages;
mod server;

#[cfg(test)]
mod tests;

pub use jobs::FindJobs;
pub use pages::{Check, KeepBooks, Pages, Readiness};
pub use server::Admin;
