//! JSON-RPC over our own HTTP client, as alloy's transport: a deadline on everything, no redirects, a bounded answer.

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::transports::{TransportError, TransportErrorKind, TransportFut};
use bytes::Bytes;
use http::{Method, Uri};
use tower_service::Service;

use crate::outgoing::{Call, Outgoing};

/// A block's transaction hashes and the logs of a bounded range fit in this many times over.
const MAX_ANSWER: usize = 8 << 20;

/// One endpoint.
#[derive(Clone)]
pub(super) struct Http {
    outgoing: Outgoing,
    url: Uri,
    deadline: Duration,
}

impl Http {
    pub(super) fn new(outgoing: Outgoing, url: Uri, deadline: Duration) -> Self {
        Http { outgoing, url, deadline }
    }

    async fn exchange(self, packet: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let body = packet.serialize().map_err(TransportError::ser_err)?;
        let body = Bytes::from(Box::<str>::from(body).into_string());
        let call = Call::json(Method::POST, self.url, body).max_answer(MAX_ANSWER);
        let answer = self.outgoing.send(call, self.deadline).await.map_err(TransportErrorKind::custom)?;
        // Some endpoints answer JSON-RPC errors with a status of 400 or 429: the body says more. What is not
        // JSON-RPC is not quoted: the operator's key may be in it.
        serde_json::from_slice(&answer.body).map_err(|_| match answer.status.is_success() {
            true => TransportErrorKind::custom_str("the answer is not JSON-RPC"),
            false => TransportErrorKind::http_error(answer.status.as_u16(), String::new()),
        })
    }
}

/// Without the path and the query: they hold the operator's key.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("authority", &self.url.authority()).finish_non_exhaustive()
    }
}

impl Service<RequestPacket> for Http {
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
