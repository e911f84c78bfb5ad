//! Feeds arbitrary request bodies and heads to the intake. Run by `cargo fuzz run body`.
#![no_main]

#[path = "body/invariants.rs"]
mod invariants;

use galaksio::config::resolved::BrokeredWork;
use galaksio::intake;
use galaksio::reason::Problem;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::check(input));
