//! A shop on `x402-axum`, the Rust middleware of the ecosystem: what a gateway under test buys from.
//!
//! `axum-seller --facilitator <url> --pay-to <address> --version <1|2> [--threads <n>]` takes a free port of loopback, says where in one line
//! of JSON, and ends when its standard input does, so that it does not outlive the test that started it. `POST /work` costs
//! a tenth of a cent of USDC on Base Sepolia and says what was sent, and how often that was done; `GET /done` says the
//! latter for nothing. As the shops of `tests/clients` do.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::Address;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use x402_axum::X402Middleware;
use x402_chain_eip155::{KnownNetworkEip155, V1Eip155Exact, V2Eip155Exact};
use x402_types::networks::USDC;

/// In atomic units.
const PRICE: u64 = 1_000;

type Done = Arc<AtomicU64>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options: HashMap<&str, &str> = arguments
        .chunks_exact(2)
        .filter_map(|pair| Some((pair[0].strip_prefix("--")?, pair[1].as_str())))
        .collect();
    let threads = options.get("threads").map_or(Ok(1), |threads| threads.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(serve(&options))
}

async fn serve(options: &HashMap<&str, &str>) -> Result<(), Box<dyn std::error::Error>> {
    let option = |name: &str| options.get(name).copied().ok_or_else(|| format!("--{name} is missing"));

    let pay_to: Address = option("pay-to")?.parse()?;
    let price = USDC::base_sepolia().amount(PRICE);
    let till = X402Middleware::try_new(option("facilitator")?)?;
    let work = match option("version")? {
        "1" => post(work).layer(till.with_price_tag(V1Eip155Exact::price_tag(pay_to, price))),
        "2" => post(work).layer(till.with_price_tag(V2Eip155Exact::price_tag(pay_to, price))),
        other => return Err(format!("{other:?} is not a version: 1 or 2").into()),
    };
    let shop = Router::new().route("/work", work).route("/done", get(done)).with_state(Done::default());

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", json!({ "url": format!("http://{}", listener.local_addr()?) }));
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    Ok(axum::serve(listener, shop).await?)
}

async fn work(State(done): State<Done>, Json(body): Json<Value>) -> Json<Value> {
    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
    Json(json!({ "done": done, "method": "POST", "body": body }))
}

async fn done(State(done): State<Done>) -> Json<Value> {
    Json(json!({ "done": done.load(Ordering::Relaxed) }))
}
