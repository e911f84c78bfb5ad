//! Where log lines go: to standard error, as text or as one JSON object a line, filtered as `RUST_LOG` filters.

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt};

use super::access;
use crate::config::resolved::Log;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("log.filter is not a filter: {0}")]
    Filter(#[from] ParseError),
    /// It was set up before, in this process.
    #[error("logging is set up already: {0}")]
    Again(#[from] TryInitError),
}

/// Sets up logging for the process, the lines of the `log` crate included. Call it once, before anything logs.
pub fn init_logging(log: &Log) -> Result<(), LogError> {
    subscriber(log, std::io::stderr)?.try_init()?;
    Ok(())
}

/// The switch of the access log, not the filter, decides about its lines: `filter = "warn"` leaves them in.
pub(super) fn subscriber<W>(log: &Log, writer: W) -> Result<impl Subscriber + Send + Sync, ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let access = if log.access { "info" } else { "off" };
    let filter =
        EnvFilter::try_new(&log.filter)?.add_directive(format!("{}={access}", access::TARGET).parse()?);
    let lines: Box<dyn Layer<_> + Send + Sync> = if log.json {
        Box::new(fmt::layer().with_writer(writer).json().flatten_event(true).with_current_span(false))
    } else {
        Box::new(fmt::layer().with_writer(writer).with_ansi(false))
    };
    Ok(Registry::default().with(filter).with(lines))
}
