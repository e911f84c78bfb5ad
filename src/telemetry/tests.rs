//! Tests of the telemetry, and of the two documents that are made from its tables.

mod docs;
mod log;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Guard, Metrics, Open, Settled, Verified};
use crate::facilitator::{Observer, Operation, Outcome};
use crate::jobs::{JobKind, State};
use crate::money::Amount;
use crate::providers::Fault;
use crate::reason::Reason;
use crate::x402::{Asset, Network};

const MS: Duration = Duration::from_millis(1);

/// Touches every metric.
fn touched() -> Metrics {
    let metrics = Metrics::new();
    let asset = Asset::default_for(Network(84_532)).unwrap();
    metrics.route("/run").ended(Reason::PaymentRequired, 402, MS);
    metrics.connection_accepted();
    metrics.count_open(|| Open { connections: 3, tunnels: 2, work: 1 });
    metrics.transferred(10, 20);
    metrics.handshake_failed();
    metrics.parse_failed();
    metrics.challenged(MS);
    metrics.verified(MS, Verified::Valid);
    metrics.settled(MS, Settled::Unknown);
    metrics.called("x402.org/facilitator", Operation::Settle, Outcome::Yes, MS);
    metrics.available("x402.org/facilitator", true);
    metrics.provider_performed("xcache", "set", None, MS);
    metrics.provider_ejected("xcache", true);
    metrics.provider_failed_over("xcache");
    metrics.store_called("claim", true, MS);
    metrics.jobs_in_state(State::Held, 3);
    metrics.job_ended(JobKind::Run, State::Completed);
    metrics.quote_hit(MS);
    metrics.quote_missed();
    metrics.quote_probed("openx402", Some(Fault::Timeout), MS);
    metrics.earned(&asset, Amount::new(336));
    metrics.spent("merit-systems", &asset, Amount::new(280));
    metrics.exposed(&asset, Amount::new(280));
    metrics.refunds_due(&asset, Amount::new(12));
    metrics.returned(&asset, Amount::new(13));
    metrics.guarded(Guard::Spend);
    metrics.lost(280);
    metrics.frozen(true);
    metrics.balance(&asset, Amount::new(280));
    metrics.foreign_outlays(1);
    metrics.watched(&asset, 7);
    metrics.gas_left(Network(84_532), 12_000_000_000);
    metrics.audited(crate::telemetry::Audited::Missing);
    metrics.to_be_audited(1);
    metrics.webhook_told(crate::telemetry::Told::Heard);
    metrics.webhooks_waiting(1);
    metrics.answers_kept(1, 5);
    metrics.answer_unkept(crate::telemetry::Unkept::NoRoom);
    metrics.answer_dropped();
    metrics
}

#[test]
fn every_metric_can_be_touched_and_is_described() {
    let metrics = touched();
    let mut described: Vec<String> = metrics.described().iter().map(|metric| metric.name.clone()).collect();
    described.sort();
    assert_eq!(metrics.families(), described);
}

#[test]
fn names_follow_the_conventions() {
    for metric in Metrics::new().described() {
        let name = metric.name.strip_prefix("galaksio_").unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(metric.kind == "counter", name.ends_with("_total"), "{name}");
        assert_eq!(metric.kind == "histogram", name.ends_with("_seconds"), "{name}");
        assert!(metric.help.ends_with('.'), "{name}");
    }
}

#[test]
fn the_exposition_says_what_happened() {
    let text = touched().exposition().unwrap();
    let asset = r#"asset="0x036cbd53842c5426634e7929541ec2318f3dcf7e",network="eip155:84532""#;
    for line in [
        "# TYPE galaksio_requests_total counter".to_owned(),
        r#"galaksio_requests_total{reason="payment_required",route="/run",status="4xx"} 1"#.to_owned(),
        r#"galaksio_request_duration_seconds_bucket{route="/run",le="0.001"} 1"#.to_owned(),
        "galaksio_connections_total 1".to_owned(),
        "galaksio_connections_open 3".to_owned(),
        "galaksio_tunnels_open 2".to_owned(),
        "galaksio_paid_work_in_flight 1".to_owned(),
        "galaksio_sent_bytes_total 20".to_owned(),
        r#"galaksio_facilitator_errors_total{class="unknown",operation="settle"} 1"#.to_owned(),
        r#"galaksio_provider_duration_seconds_count{operation="set",outcome="ok",provider="xcache"} 1"#
            .to_owned(),
        r#"galaksio_jobs{state="held"} 3"#.to_owned(),
        r#"galaksio_jobs_total{kind="run",outcome="completed"} 1"#.to_owned(),
        r#"galaksio_settlements_audited_total{outcome="missing"} 1"#.to_owned(),
        "galaksio_settlements_to_be_audited 1".to_owned(),
        format!("galaksio_client_income_atomic_total{{{asset}}} 336"),
        format!("galaksio_exposure_atomic{{{asset}}} 280"),
        format!("galaksio_refunds_due_atomic{{{asset}}} 12"),
        format!("galaksio_provider_returned_atomic{{{asset}}} 13"),
        r#"galaksio_gas_gwei{network="eip155:84532"} 12"#.to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
    }
}

#[test]
fn what_never_happened_is_not_shown_and_new_metrics_encode() {
    let text = Metrics::new().exposition().unwrap();
    assert!(text.contains("galaksio_build_info{version="), "{text}");
    assert!(!text.contains("galaksio_requests_total"), "{text}");
}

#[test]
fn every_reason_and_status_has_its_own_series() {
    let metrics = Metrics::new();
    let route = metrics.route("/store");
    for reason in Reason::ALL {
        route.ended(*reason, reason.status(), MS);
    }
    for status in [101, 204, 302, 404, 500, 999] {
        route.clone().ended(Reason::Passed, status, MS);
    }
    let text = metrics.exposition().unwrap();
    let series = |reason: &str, class: &str, count: u32| {
        format!(
            "galaksio_requests_total{{reason=\"{reason}\",route=\"/store\",status=\"{class}\"}} {count}\n"
        )
    };
    for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::Passed) {
        let class = format!("{}xx", reason.status() / 100);
        assert!(text.contains(&series(reason.code(), &class, 1)), "{}", reason.code());
    }
    for (class, count) in [("1xx", 1), ("2xx", 2), ("3xx", 1), ("4xx", 1), ("5xx", 1), ("other", 1)] {
        assert!(text.contains(&series("ok", class, count)), "{class}\n{text}");
    }
}

#[test]
fn what_is_open_is_counted_at_each_scrape() {
    let metrics = Metrics::new();
    let tunnels = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tunnels);
    metrics.count_open(move || Open { tunnels: counted.load(Ordering::Relaxed), ..Open::default() });
    for open in [0, 2, 1] {
        tunnels.store(open, Ordering::Relaxed);
        let line = format!("galaksio_tunnels_open {open}\n");
        assert!(metrics.exposition().unwrap().contains(&line));
    }
}

#[test]
fn money_stays_at_its_limit() {
    let metrics = Metrics::new();
    let asset = Asset::default_for(Network(8453)).unwrap();
    for amount in [5, u128::from(u64::MAX), u128::MAX, 1] {
        metrics.earned(&asset, Amount::new(amount));
        metrics.exposed(&asset, Amount::new(amount));
    }
    metrics.exposed(&asset, Amount::new(u128::MAX));
    let text = metrics.exposition().unwrap();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(value("galaksio_client_income_atomic_total"), "18446744073709552000");
    assert_eq!(value("galaksio_exposure_atomic"), "9223372036854776000");
}
