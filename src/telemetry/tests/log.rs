//! The access log and the filter, as lines.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::config::resolved::Log;
use crate::ids::JobId;
use crate::money::Amount;
use crate::reason::Reason;
use crate::telemetry::logging::subscriber;
use crate::telemetry::{Access, AccessLog};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Lines;

    fn make_writer(&'w self) -> Lines {
        self.clone()
    }
}

fn written(log: &Log, act: impl FnOnce()) -> String {
    let lines = Lines::default();
    tracing::subscriber::with_default(subscriber(log, lines.clone()).unwrap(), act);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn log(filter: &str, access: bool, json: bool) -> Log {
    Log { filter: filter.to_owned(), json, access }
}

fn access(job: Option<JobId>) -> Access<'static> {
    Access {
        method: &Method::POST,
        path: "/run",
        route: "/run",
        status: 402,
        reason: Reason::PaymentRequired,
        received: 60,
        sent: 1500,
        duration: Duration::from_micros(87),
        peer: Ipv4Addr::LOCALHOST.into(),
        job,
        price: job.map(|_| Amount::new(u128::MAX)),
    }
}

#[test]
fn one_object_a_request() {
    let job = JobId::new();
    let config = log("warn", true, true);
    let text = written(&config, || {
        AccessLog::new(&config).record(&access(Some(job)));
        AccessLog::new(&config).record(&access(None));
        tracing::info!("not at this level");
    });
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    let mut first = lines[0].clone();
    assert!(first["timestamp"].as_str().unwrap().ends_with('Z'));
    first.as_object_mut().unwrap().remove("timestamp");
    let expected = json!({
        "level": "INFO", "target": "access", "method": "POST", "path": "/run", "route": "/run", "status": 402,
        "reason": "payment_required", "received": 60, "sent": 1500, "duration_us": 87, "peer": "127.0.0.1",
        "job": job.to_string(), "price": u128::MAX.to_string(),
    });
    assert_eq!(first, expected);
    assert!(lines[1].get("job").is_none() && lines[1].get("price").is_none());
}

#[test]
fn off_is_off() {
    let config = log("trace", false, false);
    let text = written(&config, || {
        AccessLog::new(&config).record(&access(None));
        // Nor does anything that uses the target directly.
        tracing::error!(target: "access", "line");
        tracing::info!("other lines stay");
    });
    assert!(text.contains("other lines stay") && !text.contains("access"), "{text}");
}

#[test]
fn a_bad_filter_is_an_error() {
    assert!(subscriber(&log("galaksio=loud", true, false), Lines::default()).is_err());
}
