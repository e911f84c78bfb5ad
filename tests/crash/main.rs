//! Kills the gateway at every step of a paid job, starts it again, and counts the money.
//!
//! The gateway is a child process; the sandbox lives in the test, survives every kill, and its ledger is the truth. A
//! kill is made to hit one step from outside: the call that follows a journal record is stalled, the stalled call is
//! waited for, and then the process gets SIGKILL. The product has no hook for any of this.
//!
//! The Redis half starts a `redis-server` of its own. It is `ignored` in a plain `cargo test`, which needs no server;
//! `cargo test --test crash -- --include-ignored` runs it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is what ends a test")]

#[expect(dead_code, reason = "the chaos suite uses more of it")]
mod client;
mod drain;
mod forgets;
mod gateway;
mod inventory;
mod lists;
mod midway;
mod money;
mod proved;
#[path = "../store/redis_server.rs"]
#[expect(dead_code, reason = "the store suite uses more of it")]
mod redis_server;
mod replicas;
mod rig;
mod sentinel;
#[path = "../store/sentinels.rs"]
mod sentinels;
mod settings;
mod steps;
mod table;
mod twice;
