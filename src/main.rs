//! The `galaksio` program: process-wide choices, then the command line.

use std::process::ExitCode;

use clap::Parser;
use galaksio::cli::{Cli, Exit};

// glibc's allocator costs the proxy a tenth of its throughput.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("galaksio: another TLS provider is already installed");
        return Exit::Failed.into();
    }
    cli.run().into()
}
