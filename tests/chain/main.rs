//! A real chain, a real token, and the official clients, facilitator and servers of x402 beside ours.
//!
//! What a test asserts is money first: the chain is the truth about who paid whom.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[expect(dead_code, reason = "shared with other suites, each of which uses its part")]
mod anvil;
mod itself;
mod proof;
#[expect(dead_code, reason = "shared with other suites, each of which uses its part")]
mod token;
