//! The walk against a sandbox that misbehaves: it must notice.

use crate::sandbox::Service;
use crate::sandbox::faults::{Fault, Rule};

use super::screen::Screen;
use super::stage::Stage;
use super::walk::walk;

/// Walks with `fault` on; whether all was well, and the error that ended the walk.
fn walk_with(fault: impl FnOnce(&Stage)) -> (bool, Option<String>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let stage = Stage::set(&runtime, ([127, 0, 0, 1], 0).into()).unwrap();
    fault(&stage);
    let screen = Screen::on(std::io::sink());
    let error = runtime.block_on(walk(&stage, &screen)).err().map(|error| format!("{error:#}"));
    stage.stop.now();
    stage.strike(&runtime);
    (screen.conclude(), error)
}

#[test]
fn all_is_well_without_a_fault() {
    assert_eq!(walk_with(|_| {}), (true, None));
}

#[test]
fn a_provider_that_fails_ends_the_walk() {
    let fails = |stage: &Stage| stage.sandbox.faults.add(Service::Merit, Rule::always(Fault::WorkFails));
    let (_, error) = walk_with(fails);
    let error = error.expect("the program was not run");
    assert!(error.starts_with("running a program: expected the work to be done, found 502"), "{error}");
}

#[test]
fn a_facilitator_that_lies_is_found_out_by_the_ledger() {
    let lies = |stage: &Stage| stage.sandbox.faults.add(Service::Facilitator, Rule::always(Fault::Lie));
    let (all_held, error) = walk_with(lies);
    assert!(!all_held, "a charge was missing");
    assert_eq!(error.as_deref(), Some("storing a file: the payer was not charged"));
}

#[test]
fn an_app_that_is_down_is_a_failed_check_or_an_error() {
    let (all_held, error) = walk_with(|stage| {
        stage.sandbox.faults.add(Service::App, Rule::always(Fault::Status(500)).at("/hello"))
    });
    // The gateway passes the answer through as it is: alike on both ways, and still not what was to be shown.
    assert!(!all_held && error.is_none(), "{error:?}");
}
