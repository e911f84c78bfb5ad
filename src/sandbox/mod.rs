//! The sandbox: stand-ins for providers, facilitator, chain and app, as they behave on the wire.
//!
//! In-process, on loopback, with real signatures and a ledger that cannot lose money: for the demo
//! and for tests. Of the gateway it uses the leaves and the signature code only; decoding and
//! checking payments it does itself.

mod app;
mod cid;
mod facilitator;
pub mod faults;
pub mod ledger;
mod merit;
mod multipart;
mod openx402;
mod payment;
pub mod requests;
mod rpc;
mod serve;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod till;
mod xcache;

use std::io;
use std::sync::Arc;

use self::faults::Faults;
use self::ledger::Ledger;
use self::requests::Requests;
use self::serve::{Shared, Stopper};
use self::till::Till;
use crate::clock::Clock;
use crate::config::resolved::SetShape;
use crate::x402::{Address, Asset, B256, Network};

/// The chain of the sandbox: Base Sepolia.
pub const NETWORK: Network = Network(84_532);

/// The services of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// xCache, a provider.
    XCache,
    /// OpenX402 IPFS, a provider.
    OpenX402,
    /// Merit Systems, a provider.
    Merit,
    /// The facilitator.
    Facilitator,
    /// The app behind the gateway.
    App,
    /// The chain's JSON-RPC endpoint.
    Rpc,
}

/// How the services behave, where the real ones differ or are not known.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The time of all services and of the chain.
    pub clock: Clock,
    /// The facilitator refuses a v2 payment whose `accepted` is not the requirement, as x402-rs does.
    pub strict_accepted: bool,
    /// How xCache wants a value.
    pub set_shape: SetShape,
    /// Operations that come with a cache of xCache.
    pub cache_operations: u64,
    /// Largest request body of xCache, in bytes; 413 above.
    pub cache_max_value: usize,
    /// OpenX402 speaks v2 beside v1.
    pub openx402_v2: bool,
    /// Largest file of OpenX402, in bytes; 413 above.
    pub openx402_max_file: u64,
    /// Merit Systems sends back what a program did not use.
    pub merit_refunds: bool,
    /// How many blocks `safe` and `finalized` are behind `latest`; there is one every two seconds.
    pub finality_blocks: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            clock: Clock::system(),
            strict_accepted: true,
            set_shape: SetShape::Body,
            cache_operations: 50_000,
            cache_max_value: 16 << 20,
            openx402_v2: true,
            openx402_max_file: 100 << 20,
            merit_refunds: true,
            finality_blocks: 2,
        }
    }
}

/// Where the services listen: `http://127.0.0.1:port`, and Merit Systems' endpoint with its path.
#[derive(Clone, Debug)]
pub struct Urls {
    /// xCache.
    pub xcache: String,
    /// OpenX402 IPFS.
    pub openx402: String,
    /// Merit Systems, the endpoint itself.
    pub merit: String,
    /// The facilitator.
    pub facilitator: String,
    /// The app.
    pub app: String,
    /// JSON-RPC.
    pub rpc: String,
}

/// All services, running until [`Sandbox::stop`], or until this is dropped.
#[derive(Debug)]
pub struct Sandbox {
    /// Where they are.
    pub urls: Urls,
    /// Whose money is where.
    pub ledger: Arc<Ledger>,
    /// What is to go wrong.
    pub faults: Arc<Faults>,
    /// What they were asked.
    pub requests: Arc<Requests>,
    stopper: Stopper,
}

impl Sandbox {
    /// Starts every service on a free loopback port. Needs a tokio runtime with time and I/O.
    pub async fn start(settings: Settings) -> io::Result<Sandbox> {
        let clock = settings.clock.clone();
        let asset = Asset::default_for(NETWORK).ok_or_else(|| io::Error::other("no asset on the network"))?;
        let ledger = Arc::new(Ledger::new(asset, clock.clone()));
        let shared = Arc::new(Shared::default());
        let (running, stopper) = serve::running();

        let listen = |service| serve::listen(service, shared.clone(), running.clone());
        let (xcache, start_xcache) = listen(Service::XCache).await?;
        let (openx402, start_openx402) = listen(Service::OpenX402).await?;
        let (merit, start_merit) = listen(Service::Merit).await?;
        let (facilitator, start_facilitator) = listen(Service::Facilitator).await?;
        let (app, start_app) = listen(Service::App).await?;
        let (rpc, start_rpc) = listen(Service::Rpc).await?;

        let till = |service, address, v2| Till {
            service,
            ledger: ledger.clone(),
            faults: shared.faults.clone(),
            clock: clock.clone(),
            pay_to: pay_to(service),
            base: format!("http://{address}"),
            v2,
        };
        start_xcache(Arc::new(xcache::XCache {
            till: till(Service::XCache, xcache, false),
            clock: clock.clone(),
            shape: settings.set_shape,
            operations: settings.cache_operations,
            max_value: settings.cache_max_value,
            caches: Default::default(),
        }));
        let openx402_till = till(Service::OpenX402, openx402, settings.openx402_v2);
        start_openx402(Arc::new(openx402::OpenX402::new(
            openx402_till,
            clock.clone(),
            settings.openx402_max_file,
        )));
        let merit_till = till(Service::Merit, merit, false);
        start_merit(Arc::new(merit::Merit::new(merit_till, settings.merit_refunds)));
        let sender = pay_to(Service::Facilitator);
        start_facilitator(Arc::new(facilitator::Facilitator::new(
            ledger.clone(),
            clock.clone(),
            settings.strict_accepted,
            sender,
        )));
        start_app(Arc::new(app::App { clock, running: running.clone() }));
        start_rpc(Arc::new(rpc::Rpc {
            ledger: ledger.clone(),
            finality_blocks: settings.finality_blocks,
            sender,
        }));

        let urls = Urls {
            xcache: format!("http://{xcache}"),
            openx402: format!("http://{openx402}"),
            merit: format!("http://{merit}{}", merit::PATH),
            facilitator: format!("http://{facilitator}"),
            app: format!("http://{app}"),
            rpc: format!("http://{rpc}"),
        };
        let (faults, requests) = (shared.faults.clone(), shared.requests.clone());
        Ok(Sandbox { urls, ledger, faults, requests, stopper })
    }

    /// Stops every service: requests in flight are given up, connections closed. Returns when nothing
    /// runs any more, within about a second.
    pub async fn stop(self) {
        self.stopper.stop().await;
    }
}

/// The address a service is paid at (the facilitator: sends transactions from); fixed.
pub fn pay_to(service: Service) -> Address {
    let name = format!("{service:?}");
    Address::from_slice(&hash(&[b"galaksio sandbox", name.as_bytes()])[12..])
}

/// SHA-256 of the parts, one after the other: hashes of blocks and transactions, made-up addresses.
fn hash(parts: &[&[u8]]) -> B256 {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    B256::from_slice(context.finish().as_ref())
}
