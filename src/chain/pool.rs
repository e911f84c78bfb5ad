//! Several endpoints of one chain, asked in order of health.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use alloy::rpc::client::RpcClient;
use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::transports::{TransportError, TransportErrorKind, TransportFut};
use parking_lot::Mutex;
use tokio::time::Instant;
use tower_service::Service;

use super::transport::Http;

/// An endpoint that failed is asked last for this long, doubled with each failure in a row.
const FIRST_PENALTY: Duration = Duration::from_secs(1);
const LONGEST_PENALTY: Duration = Duration::from_secs(60);

/// JSON-RPC's "internal error" and "method not found": of this endpoint, not of the question.
const OWN_FAULTS: [i64; 2] = [-32_603, -32_601];

/// Why an endpoint is not asked at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    /// It is of another chain.
    #[error("it is of chain {0}")]
    WrongChain(u64),
    /// Its newest block is too old, or from the future.
    #[error("its newest block is {0} s off the clock")]
    Stale(u64),
    /// The others are far ahead.
    #[error("it is {0} blocks behind the others")]
    Behind(u64),
    /// It names another final block than most.
    #[error("it disagrees with the others about final block {0}")]
    Lies(u64),
}

/// One endpoint, and what is thought of it.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Its host. The rest of its URL may be a secret.
    pub(super) name: String,
    /// Asks this endpoint alone.
    pub(super) client: RpcClient,
    transport: Tracked,
}

/// An endpoint's transport, which notes how it does.
#[derive(Clone, Debug)]
struct Tracked {
    http: Http,
    health: Arc<Mutex<Health>>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    /// Until when it is asked last.
    penalty: Option<Instant>,
    distrust: Option<Distrust>,
}

impl Endpoint {
    pub(super) fn new(name: String, http: Http) -> Self {
        let transport = Tracked { http, health: Arc::default() };
        Endpoint { name, client: RpcClient::new(transport.clone(), true), transport }
    }

    /// Sets what is wrong with it; says so when that changes.
    pub(super) fn distrust(&self, why: Option<Distrust>) {
        let before = std::mem::replace(&mut self.transport.health.lock().distrust, why);
        match why {
            Some(why) if before.map(|b| std::mem::discriminant(&b)) != Some(std::mem::discriminant(&why)) => {
                tracing::warn!(endpoint = self.name, %why, "an RPC endpoint is left out");
            }
            None if before.is_some() => tracing::info!(endpoint = self.name, "an RPC endpoint is fit again"),
            _ => {}
        }
    }

    /// What is wrong with it, as of the last look at its head.
    pub(super) fn distrusted(&self) -> Option<Distrust> {
        self.transport.health.lock().distrust
    }

    /// Lower is asked earlier.
    fn rank(&self, now: Instant) -> u8 {
        u8::from(self.transport.health.lock().penalty.is_some_and(|until| now < until))
    }
}

impl Tracked {
    async fn exchange(mut self, packet: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let answer = self.http.call(packet).await;
        let mut health = self.health.lock();
        if answer.as_ref().is_ok_and(|answer| !is_own_fault(answer)) {
            health.failures = 0;
            health.penalty = None;
        } else {
            let penalty = FIRST_PENALTY.saturating_mul(1 << health.failures.min(10)).min(LONGEST_PENALTY);
            health.failures = health.failures.saturating_add(1);
            health.penalty = Some(Instant::now() + penalty);
        }
        drop(health);
        answer
    }
}

impl Service<RequestPacket> for Tracked {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        Box::pin(self.clone().exchange(packet))
    }
}

/// All endpoints as one transport: the next is asked where one does not answer, or cannot.
///
/// A transaction may so be sent to two of them. It is the same signed transaction, and a chain takes it once.
#[derive(Clone, Debug)]
pub(super) struct Failover(pub(super) Arc<[Endpoint]>);

impl Failover {
    async fn exchange(self, packet: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let now = Instant::now();
        let mut order: Vec<&Endpoint> =
            self.0.iter().filter(|endpoint| endpoint.distrusted().is_none()).collect();
        // Stable: among the healthy ones the operator's order holds.
        order.sort_by_key(|endpoint| endpoint.rank(now));
        let mut last = Err(TransportErrorKind::custom_str("no endpoint is fit to be asked"));
        for endpoint in order {
            last = endpoint.transport.clone().exchange(packet.clone()).await;
            if last.as_ref().is_ok_and(|answer| !is_own_fault(answer)) {
                break;
            }
        }
        last
    }
}

impl Service<RequestPacket> for Failover {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        Box::pin(self.clone().exchange(packet))
    }
}

/// Whether another endpoint may well answer what this one did not: it is at its limit, or lacks the block or the
/// method. A call that reverts, or a transaction that is refused, is an answer.
fn is_own_fault(answer: &ResponsePacket) -> bool {
    let mut errors = answer.iter_errors();
    errors.any(|error| error.is_retry_err() || OWN_FAULTS.contains(&error.code))
}
