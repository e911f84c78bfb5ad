//! Galaksio: a sidecar reverse proxy that sells an HTTP service, or a provider's, for x402 payments.
//!
//! The map of the tree, and which way its arrows point, is in `ARCHITECTURE.md`.

pub mod admin;
pub mod app;
pub mod broker;
mod by_runtime;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod facilitator;
pub mod gate;
pub mod guard;
pub mod ids;
pub mod intake;
pub mod jobs;
pub mod ledger;
pub mod listener;
pub mod money;
pub mod outgoing;
pub mod providers;
pub mod proxy;
pub mod quote_cache;
pub mod reason;
pub mod refunds;
pub mod sandbox;
pub mod spool;
pub mod telemetry;
pub mod wallet;
pub mod x402;
