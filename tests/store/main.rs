//! One suite for both job stores: what `JobStore` promises, and what each store promises beyond it.
//!
//! The Redis half starts a `redis-server` of its own for each test, on loopback. It is `ignored` in a plain
//! `cargo test`, which needs no server; `cargo test --test store -- --include-ignored` runs it, and fails
//! where there is no `redis-server`.

mod crash;
mod embedded;
mod sample;
mod subject;
mod suite;
