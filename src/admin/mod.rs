//! Health, readiness and metrics, on a listener of their own: plain HTTP/1.1, three pages, read only.
//!
//! Nothing here asks who reads. The pages hold no secrets, but they say what the gateway earns and how it fares, so
//! `admin.listen` belongs on loopback or on a network that only the operator's tools reach.

mod pages;
mod server;

#[cfg(test)]
mod tests;

pub use pages::{Check, Pages, Readiness};
pub use server::Admin;
