//! Telemetry: the metrics, the access log, and where log lines go. It observes; it decides nothing.
//!
//! Every label has a bounded set of values: routes and assets from the configuration, names of adapters and their
//! operations, and enums. Nothing a client sends becomes a label. Of the rest of the crate only `admin` may
//! know that the metrics are Prometheus's.

mod access;
mod catalogue;
mod edge;
mod guards;
mod logging;
mod metrics;
mod money;
mod paid;
mod quotes;
mod results;
mod store;
mod striped;
mod webhooks;

#[cfg(test)]
mod tests;

pub use access::{Access, AccessLog};
pub use catalogue::Described;
pub use edge::{Open, RouteMetrics};
pub use guards::Guard;
pub use logging::{LogError, init_logging};
pub use metrics::Metrics;
pub use money::Audited;
pub use paid::{Settled, Verified};
pub use results::Unkept;
pub use store::CountedStore;
pub use webhooks::Told;
