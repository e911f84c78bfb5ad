//! A real chain, a real token, and the official clients, facilitator and servers of x402 beside ours.
//!
//! What a test asserts is money first: the chain is the truth about who paid whom.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[allow(dead_code, reason = "shared with other suites, each of which uses its part")]
mod anvil;
mod between;
#[allow(dead_code, reason = "shared with the tests of the paid flow, which use all of it")]
#[path = "../paid/client.rs"]
mod client;
mod declared;
mod faults;
#[allow(dead_code, reason = "shared with the tests of the paid flow, which use all of it")]
#[path = "../paid/gateway.rs"]
mod gateway;
mod itself;
mod local;
mod matrix;
mod official;
mod outlays;
#[allow(dead_code, reason = "shared with the tests of the paid flow, which use all of it")]
#[path = "../paid/payer.rs"]
mod payer;
#[allow(dead_code, reason = "shared with other suites, each of which uses its part")]
mod peers;
mod proof;
#[allow(dead_code, reason = "shared with the tests of the stores, which use all of it")]
#[path = "../store/redis_server.rs"]
mod redis_server;
mod refunds;
#[allow(dead_code, reason = "shared with the tests of the paid flow, which use all of it")]
#[path = "../paid/rig.rs"]
mod rig;
#[allow(dead_code, reason = "shared with other suites, each of which uses its part")]
mod token;
