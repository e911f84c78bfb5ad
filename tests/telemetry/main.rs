//! What a gateway tells of itself: the metrics and the access log of requests over sockets, on the sandbox.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is what ends a test")]

mod gateway;
#[allow(dead_code, reason = "shared with the tests of the edge, which use all of it")]
#[path = "../edge/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use gateway::{Gateway, RUN};
use serde_json::Value;
use tempfile::NamedTempFile;
use tracing_subscriber::EnvFilter;
use wire::{PATIENCE, Wire};

/// Metrics that stand still here, and why.
const STILL: &[(&str, &str)] = &[
    ("galaksio_tunnels_open", "nothing is upgraded"),
    ("galaksio_tls_handshake_failures_total", "there is no TLS"),
    ("galaksio_paid_work_in_flight", "all work is done by the time of the scrape"),
    ("galaksio_provider_ejected", "every provider does its work"),
    ("galaksio_provider_failovers_total", "every provider does its work"),
    ("galaksio_exposure_atomic", "what was exposed is settled"),
    ("galaksio_refunds_due_atomic", "nobody is owed anything"),
    ("galaksio_provider_returned_atomic", "there is no chain to ask"),
    ("galaksio_gas_gwei", "the facilitator is not the gateway's own"),
    ("galaksio_settlements_audited_total", "there is no chain to ask"),
    ("galaksio_settlements_to_be_audited", "there is no chain to ask"),
    ("galaksio_kept_answers", "no answer is too large for the store"),
    ("galaksio_kept_answers_bytes", "no answer is too large for the store"),
    ("galaksio_answers_not_kept_total", "no answer is too large for the store"),
    ("galaksio_kept_answers_dropped_total", "no answer is too large for the store"),
    ("galaksio_webhooks_told_total", "none are taken"),
    ("galaksio_webhooks_waiting", "none are taken"),
    ("galaksio_guard_refusals_total", "nothing is over a limit"),
    ("galaksio_losses_microdollars_total", "nothing is lost"),
    ("galaksio_wallet_frozen", "it is not"),
    ("galaksio_wallet_balance_atomic", "no chain is configured to be asked"),
    ("galaksio_wallet_foreign_outlays_total", "no chain is configured to be asked"),
    ("galaksio_wallet_watched_block", "no chain is configured to be asked"),
];

#[test]
fn requests_move_every_metric_and_write_one_line_each() {
    let log = NamedTempFile::new().unwrap();
    write_log_to(log.reopen().unwrap());
    let gateway = Gateway::start();
    gateway.runtime.block_on(async {
        let free = gateway.ask("GET /hello HTTP/1.1\r\n", b"").await;
        assert_eq!(free.status, 200, "{}", free.text());

        // What is asked before there is a price would be counted as well.
        gateway.scrape_once(priced).await;
        let (challenge, header) = gateway.challenged().await;
        let paid = gateway.ask(&format!("{RUN}{header}"), gateway::CODE).await;
        assert_eq!(paid.status, 200, "{}", paid.text());

        // The same payment again: the same answer, and nothing for another request.
        let again = gateway.ask(&format!("{RUN}{header}"), gateway::CODE).await;
        assert_eq!((again.status, &again.body), (200, &paid.body));
        let other = gateway.ask(&format!("{RUN}{header}"), br#"{"code":"print(43)"}"#).await;
        assert_eq!(other.status, 409, "{}", other.text());

        // A facilitator that says nothing costs the client nothing.
        let (_, header) = gateway.challenged().await;
        gateway.sandbox.faults.add(Service::Facilitator, Rule::next(1, Fault::Drop).at("/verify"));
        let away = gateway.ask(&format!("{RUN}{header}"), gateway::CODE).await;
        assert_eq!(away.status, 503, "{}", away.text());

        let larges = ask_of_a_large_file(&gateway).await;

        let mut junk = Wire::connect(gateway.address).await;
        junk.send("no request at all\r\n\r\n").await;
        assert_eq!(junk.answer().await.status, 400);

        let _kept = Wire::connect(gateway.address).await;
        let series = gateway.scrape_once(moved).await;
        let value = |line: &str| series.get(line).copied();
        let asset = r#"asset="0x036cbd53842c5426634e7929541ec2318f3dcf7e",network="eip155:84532""#;
        let price = u64::try_from(challenge.units()).unwrap();
        let cost =
            value(&format!(r#"galaksio_provider_cost_atomic_total{{{asset},provider="merit-systems"}}"#));
        assert!(cost.is_some_and(|cost| cost > 0 && cost < price), "{cost:?} for {price}");
        for (line, expected) in [
            (format!("galaksio_client_income_atomic_total{{{asset}}}"), price),
            (format!("galaksio_exposure_atomic{{{asset}}}"), 0),
            (r#"galaksio_requests_total{reason="ok",route="(none)",status="2xx"}"#.to_owned(), 1),
            (r#"galaksio_requests_total{reason="payment_required",route="/run",status="4xx"}"#.to_owned(), 2),
            (r#"galaksio_requests_total{reason="paid",route="/run",status="2xx"}"#.to_owned(), 1),
            (r#"galaksio_requests_total{reason="replayed",route="/run",status="2xx"}"#.to_owned(), 1),
            (r#"galaksio_requests_total{reason="payment_reused",route="/run",status="4xx"}"#.to_owned(), 1),
            (r#"galaksio_request_duration_seconds_count{route="/run"}"#.to_owned(), 6),
            ("galaksio_challenge_duration_seconds_count".to_owned(), 2 + larges),
            (r#"galaksio_verify_duration_seconds_count{outcome="valid"}"#.to_owned(), 1),
            (r#"galaksio_settle_duration_seconds_count{outcome="settled"}"#.to_owned(), 1),
            (r#"galaksio_facilitator_errors_total{class="unknown",operation="verify"}"#.to_owned(), 1),
            (r#"galaksio_jobs_total{kind="run",outcome="completed"}"#.to_owned(), 1),
            (r#"galaksio_jobs_total{kind="run",outcome="voided"}"#.to_owned(), 1),
            (r#"galaksio_store_duration_seconds_count{operation="claim",outcome="ok"}"#.to_owned(), 4),
            ("galaksio_http_parse_errors_total".to_owned(), 1),
        ] {
            assert_eq!(value(&line), Some(expected), "{line}\n{series:#?}");
        }
        let lines = std::fs::read_to_string(log.path()).unwrap();
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        logged(&lines, &challenge, &paid);
    });
    gateway.stop();
}

fn write_log_to(file: File) {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(EnvFilter::new("access=info"))
        .with_writer(Arc::new(file))
        .init();
}

/// Whether there is a price for what is run.
fn priced(series: &BTreeMap<String, u64>) -> Result<(), String> {
    let probed = r#"galaksio_quote_probe_duration_seconds_count{outcome="ok",provider="merit-systems"}"#;
    series.get(probed).filter(|count| **count > 0).map(|_| ()).ok_or_else(|| format!("no {probed}"))
}

/// Asks for the price of a size that nobody keeps a quote for, until it comes in time; how often that was.
async fn ask_of_a_large_file(gateway: &Gateway) -> u64 {
    let head = "POST /store HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n";
    let give_up = Instant::now() + PATIENCE;
    let mut asked = 0;
    loop {
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(format!("{head}content-length: 2000000\r\nexpect: 100-continue\r\n\r\n")).await;
        let answer = wire.answer().await;
        asked += 1;
        if answer.status == 402 {
            return asked;
        }
        assert!(answer.text().contains("no_provider") && Instant::now() < give_up, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether every documented metric, whatever its labels, has a series that is not zero.
fn moved(series: &BTreeMap<String, u64>) -> Result<(), String> {
    let table = include_str!("../../docs/metrics.md");
    let names: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let moved = series.iter().any(|(line, value)| line.starts_with(name) && *value > 0);
        let still = STILL.iter().any(|(still, _)| *still == name);
        if moved == still {
            return Err(format!("{name}: moved {moved}, expected to stand still {still}"));
        }
    }
    Ok(())
}

fn logged(lines: &[Value], challenge: &gateway::Challenged, paid: &wire::Answer) {
    let of = |reason: &str| lines.iter().find(|line| line["reason"] == reason).unwrap();
    let price = challenge.units().to_string();
    assert!(of("ok").get("job").is_none() && of("ok").get("price").is_none());
    assert_eq!(of("payment_required")["job"], *challenge.job());
    assert_eq!(of("payment_required")["price"], price.as_str());
    let body: Value = serde_json::from_slice(&paid.body).unwrap();
    assert_eq!(of("paid")["job"], body["jobId"]);
    assert_eq!(of("paid")["price"], price.as_str());
    assert_eq!(
        (&of("replayed")["job"], &of("replayed")["price"]),
        (&of("paid")["job"], &of("paid")["price"])
    );
    assert!(of("facilitator_away").get("job").is_some(), "{lines:#?}");
    assert_eq!(of("facilitator_away")["price"], price.as_str());
    assert!(!lines.iter().any(|line| line.to_string().to_lowercase().contains("signature")), "{lines:#?}");
}
