//! One suite for both job stores: what `JobStore` promises, and what each store promises beyond it.
//!
//! The Redis half starts a `redis-server` of its own for each test, on loopback. It is `ignored` in a plain
//! `cargo test`, which needs no server; `cargo test --test store -- --include-ignored` runs it, and fails
//! where there is no `redis-server`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is what ends a test")]

mod archive;
mod crash;
mod cut;
mod embedded;
mod redis;
mod redis_connections;
mod redis_forgets;
mod redis_sentinel;
mod redis_server;
mod sample;
mod sentinels;
mod subject;
mod suite;

// `sample` shares a file with the library, which names these so.
use galaksio::{ids, jobs, money, x402};
