//! What a build is optimised for: the work of a gateway in the proportions of a busy one, so that a profile of it shows what
//! matters (`scripts/release`). It measures nothing.
//!
//! Requests passed on, challenges, and sales of the app's work and of a provider's, on either store. The stand-ins are those
//! of the benchmark of paid requests. The gateways are told to end, since a profile is written at the end.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a tool of the build, which may stop"
)]

#[path = "../paid/buyers.rs"]
mod buyers;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/paid/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/paid/gateway.rs"]
mod gateway;
#[path = "../paid/gateways.rs"]
mod gateways;
#[path = "../paid/http1.rs"]
mod http1;
#[allow(dead_code, reason = "shared with the benchmark, which uses all of it")]
#[path = "../paid/load.rs"]
mod load;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/paid/payer.rs"]
mod payer;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/store/redis_server.rs"]
mod redis_server;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/paid/rig.rs"]
mod rig;
#[allow(dead_code, reason = "shared with the benchmark, which uses all of it")]
#[path = "../paid/stubs.rs"]
mod stubs;

use std::path::PathBuf;

use bytes::Bytes;
use clap::Parser;

use self::buyers::Buyers;
use self::gateways::Gateways;
use self::stubs::Stubs;

/// Connections, each with one request at a time.
const CONNECTIONS: usize = 32;
/// Sales of each kind on each store.
const SALES: usize = 3_000;
/// Challenges on each store: more ask for a price than pay it.
const CHALLENGES: usize = 40_000;
/// Requests passed on, on each store.
const PASSED_ON: usize = 40_000;

/// Puts a build under load.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// The gateway's program
    galaksio: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (stubs, buyers) = (Stubs::start(), Buyers::new());
    let gateways = Gateways::start(&arguments.galaksio, &stubs);
    for gateway in [&gateways.on_redis, &gateways.on_file] {
        let free = format!("GET /free HTTP/1.1\r\nHost: {}\r\nUser-Agent: profile\r\n\r\n", gateway.address);
        let free = vec![Bytes::from(free); PASSED_ON];
        load::exchange(gateway.address, free, CONNECTIONS, |answer, _| assert_eq!(answer.status(), 404));
        let unpaid = vec![buyers::unpaid(gateway.address, "/run"); CHALLENGES];
        load::exchange(gateway.address, unpaid, CONNECTIONS, |answer, _| assert_eq!(answer.status(), 402));
        for path in ["/work", "/run"] {
            let paid = buyers.sign(gateway.address, path, SALES);
            load::send(gateway.address, paid, CONNECTIONS);
        }
    }
    gateways.end();
}
