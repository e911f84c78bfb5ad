//! The edge: connections, routing, forwarding to the app.
//!
//! pingora-core runs the process (listeners, signals, hand-over), hyper speaks HTTP, rustls does TLS; why is
//! in `docs/decisions/0001-data-plane.md`. Only `paid` knows of prices: to the rest, what is
//! sold is answered behind [`Sell`].

mod bind;
mod body;
mod drain;
mod forward;
mod gateway;
mod headers;
mod idle;
mod linger;
mod observe;
mod paid;
mod path;
mod peer;
mod pool;
mod problem;
mod request_body;
mod router;
mod sell;
mod server;
mod stop;
mod tls;
mod tunnel;
mod vet;
mod watch;

pub use bind::{BindError, Bound, threads};
pub use body::{AppBody, Body, BoxError};
pub use drain::{Drain, Hold, Kind};
pub use forward::{Forward, ForwardError};
pub use gateway::Gateway;
pub use headers::{
    PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, Strip, X_PAYMENT, X_PAYMENT_RESPONSE, X402_PAYMENT,
};
pub use observe::{Exchange, Observe, Refusal, RouteLabel};
pub use paid::{Hooks, Paid, Parts};
pub use peer::Peer;
pub use problem::{answer, expose};
pub use request_body::{RequestBody, RequestBodyError};
pub use router::{Own, OwnPaths, Router, Target};
pub use sell::{Answer, Sell};
pub use stop::Stop;
pub use tls::TlsError;
