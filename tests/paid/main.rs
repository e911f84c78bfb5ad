//! The main job end to end: clients that pay, the gateway, and stand-ins for everyone it deals with, over sockets.
//!
//! What a test asserts is money first: the ledger is the truth about who was charged and who was paid.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod after;
mod app_route;
mod bad_input;
mod bad_payment;
mod batch;
mod bodies;
mod bodies_held;
mod bodies_large;
mod bodies_many;
mod bodies_slow;
mod bodies_url;
mod challenge;
mod cid;
mod client;
mod declared;
mod facilitator;
mod fail_closed;
mod failover;
mod follow;
mod front;
mod gateway;
mod guards;
mod hostile;
mod later;
mod lookups;
mod named;
mod official;
mod once;
mod payer;
mod pool;
mod processes;
mod providers;
mod ranges;
#[path = "../store/redis_server.rs"]
mod redis_server;
mod replay;
mod results;
mod rig;
mod secrets;
mod seller;
mod sold;
mod tap;
mod time;
mod trips;
mod webhooks;
