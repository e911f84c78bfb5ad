//! A chain of its own for one test: anvil, with the token of `tests/clients/token` where Base Sepolia has its USDC, so
//! that names, addresses and domain separators are the real ones everywhere. Ends when it is dropped.
//!
//! Usable from any test target by `#[path = "../chain/anvil.rs"] mod anvil;`, with `token.rs` beside it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use alloy::primitives::{Bytes, U256, hex};
use galaksio::outgoing::{Call, Outgoing, Settings as OutgoingSettings};
use galaksio::x402::{Address, Asset, B256, Network, address_of};
use http::Method;
use serde_json::{Value, json};

/// Base Sepolia, as far as anybody here can tell.
pub(crate) const NETWORK: Network = Network(84_532);

/// Where viem, and so every official facilitator, looks for Multicall3.
const MULTICALL3: &str = "0xcA11bde05977b3631167028862bE2a173976CA11";

/// One call takes this long at most. A machine under load is slow; a chain that is gone is refused at once.
const DEADLINE: Duration = Duration::from_secs(30);

/// When blocks are made, and which of them are final.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Seconds between blocks; `None` makes one for each transaction and no others.
    pub(crate) block_time: Option<u64>,
    /// With a block time: a transaction has a block at once nevertheless. Without these extra blocks, or that time,
    /// viem now and then misses the one block its transaction was in, and waits three minutes.
    pub(crate) mixed: bool,
    /// `safe` is this many blocks behind `latest`, `finalized` twice as many.
    pub(crate) epoch: u64,
}

impl Default for Settings {
    /// Blocks as soon as there is something to put in, and one a second.
    fn default() -> Settings {
        Settings { block_time: Some(1), mixed: true, epoch: 1 }
    }
}

impl Settings {
    /// A block every so many seconds and at no other time, as Base has.
    pub(crate) fn every(seconds: u64) -> Settings {
        Settings { block_time: Some(seconds), mixed: false, ..Settings::default() }
    }

    /// A block for each transaction, and when a test asks for one.
    pub(crate) fn instant() -> Settings {
        Settings { block_time: None, mixed: false, ..Settings::default() }
    }
}

/// A running chain.
pub(crate) struct Chain {
    /// Where it speaks JSON-RPC.
    pub(crate) url: String,
    outgoing: Outgoing,
    settings: Settings,
    pub(crate) printing: tokio::sync::Mutex<()>,
    child: Child,
}

/// An error the chain answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    pub(crate) message: String,
}

/// A block's number and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) number: u64,
    pub(crate) timestamp: u64,
}

impl Chain {
    /// Starts one, with the token and Multicall3 in their places. Needs a tokio runtime with time and I/O.
    pub(crate) async fn start(settings: Settings) -> Chain {
        // Whoever was first has installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let code = creation_code();
        let (child, url) = spawn(settings);
        let client = OutgoingSettings { connect_timeout: DEADLINE, allow_plain_http: false };
        let printing = tokio::sync::Mutex::default();
        let chain = Chain { url, outgoing: Outgoing::new(client).unwrap(), settings, printing, child };
        let asset = chain.asset();
        chain.place_token(asset.address, &asset.name, &asset.version).await;
        chain.place(MULTICALL3.parse().unwrap(), &code("Multicall3"), &[]).await;
        chain
    }

    /// The token.
    pub(crate) fn asset(&self) -> Asset {
        Asset::default_for(NETWORK).unwrap()
    }

    /// Asks, and panics where there is an error for an answer.
    pub(crate) async fn rpc(&self, method: &str, params: Value) -> Value {
        let answer = self.try_rpc(method, params.clone()).await;
        answer.unwrap_or_else(|error| panic!("{method} {params}: {error:?}"))
    }

    /// Asks.
    pub(crate) async fn try_rpc(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut answer = self.post(&self.url, &body).await;
        match answer.get("error") {
            None => Ok(answer["result"].take()),
            Some(error) => Err(RpcError {
                code: error["code"].as_i64().unwrap_or_default(),
                message: error["message"].as_str().unwrap_or_default().to_owned(),
            }),
        }
    }

    /// Sends JSON to anybody on this machine, and reads JSON.
    pub(crate) async fn post(&self, url: &str, body: &Value) -> Value {
        let call = Call::json(Method::POST, url.parse().unwrap(), body.to_string()).max_answer(64 << 20);
        let answer = self.outgoing.send(call, DEADLINE).await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// `eth_call`, of the newest block.
    pub(crate) async fn call(&self, to: Address, input: &[u8]) -> Result<Vec<u8>, RpcError> {
        let call = json!({ "to": to, "data": hex::encode_prefixed(input) });
        self.try_rpc("eth_call", json!([call, "latest"])).await.map(|data| bytes(&data))
    }

    /// Sends a transaction in anybody's name, whose gas is on the house. Its hash; it may not be mined yet.
    pub(crate) async fn send_as(&self, from: Address, to: Address, input: &[u8]) -> B256 {
        self.rpc("anvil_impersonateAccount", json!([from])).await;
        if self.wei(from).await < ether(1) {
            self.set_wei(from, ether(10)).await;
        }
        let transaction =
            json!({ "from": from, "to": to, "data": hex::encode_prefixed(input), "gas": "0x7a120" });
        hash(&self.rpc("eth_sendTransaction", json!([transaction])).await)
    }

    /// The receipt of a transaction; `None` until it is mined.
    pub(crate) async fn receipt(&self, transaction: B256) -> Option<Value> {
        let receipt = self.rpc("eth_getTransactionReceipt", json!([transaction])).await;
        (!receipt.is_null()).then_some(receipt)
    }

    /// Waits until a transaction is mined. Whether it did what it was to do, and did not revert.
    pub(crate) async fn mined(&self, transaction: B256) -> bool {
        let give_up = Instant::now() + DEADLINE;
        loop {
            if let Some(receipt) = self.receipt(transaction).await {
                return receipt["status"] == "0x1";
            }
            assert!(Instant::now() < give_up, "{transaction} is not mined");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many transactions an account has in blocks.
    pub(crate) async fn sent(&self, account: Address) -> u64 {
        number(&self.rpc("eth_getTransactionCount", json!([account, "latest"])).await)
    }

    /// How many transactions wait for a block.
    pub(crate) async fn waiting(&self) -> u64 {
        let status = self.rpc("txpool_status", json!([])).await;
        number(&status["pending"]) + number(&status["queued"])
    }

    /// Forgets a transaction that waits.
    pub(crate) async fn drop_transaction(&self, transaction: B256) {
        self.rpc("anvil_dropTransaction", json!([transaction])).await;
    }

    /// A new account with ten ether: the private key, as programs want it, and its address.
    pub(crate) async fn gas_key(&self) -> (String, Address) {
        let (key, address) = new_key();
        self.set_wei(address, ether(10)).await;
        (key, address)
    }

    pub(crate) async fn wei(&self, account: Address) -> U256 {
        self.rpc("eth_getBalance", json!([account, "latest"])).await.as_str().unwrap().parse().unwrap()
    }

    pub(crate) async fn set_wei(&self, account: Address, wei: U256) {
        self.rpc("anvil_setBalance", json!([account, wei])).await;
    }

    pub(crate) async fn code(&self, address: Address) -> Vec<u8> {
        bytes(&self.rpc("eth_getCode", json!([address, "latest"])).await)
    }

    pub(crate) async fn set_code(&self, address: Address, code: &[u8]) {
        self.rpc("anvil_setCode", json!([address, hex::encode_prefixed(code)])).await;
    }

    /// Puts at `address` the code that `creation` leaves when it is run with these constructor arguments.
    pub(crate) async fn place(&self, address: Address, creation: &[u8], arguments: &[u8]) {
        let code = [creation, arguments].concat();
        let call = json!({ "data": hex::encode_prefixed(code) });
        let code = bytes(&self.rpc("eth_call", json!([call, "latest"])).await);
        assert!(!code.is_empty(), "nothing came of the contract for {address}");
        self.set_code(address, &code).await;
    }

    /// The newest block.
    pub(crate) async fn head(&self) -> Head {
        self.block("latest").await
    }

    /// The block of this number (`0x` and hex), or this tag.
    pub(crate) async fn block(&self, which: &str) -> Head {
        let block = self.rpc("eth_getBlockByNumber", json!([which, false])).await;
        Head { number: number(&block["number"]), timestamp: number(&block["timestamp"]) }
    }

    /// Makes blocks now.
    pub(crate) async fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([quantity(blocks)])).await;
    }

    /// Makes no more blocks until [`Chain::resume`]; only [`Chain::mine`] does.
    pub(crate) async fn pause(&self) {
        self.rpc("evm_setAutomine", json!([false])).await;
        self.rpc("evm_setIntervalMining", json!([0])).await;
    }

    /// Makes blocks as it was started to.
    pub(crate) async fn resume(&self) {
        match self.settings.block_time {
            Some(seconds) => self.rpc("evm_setIntervalMining", json!([seconds])).await,
            None => self.rpc("evm_setAutomine", json!([true])).await,
        };
    }

    /// Moves the chain's clock on, with a block.
    pub(crate) async fn travel(&self, seconds: u64) {
        self.rpc("evm_increaseTime", json!([quantity(seconds)])).await;
        self.mine(1).await;
    }

    /// Remembers everything. A snapshot can be gone back to once.
    pub(crate) async fn snapshot(&self) -> String {
        self.rpc("evm_snapshot", json!([])).await.as_str().unwrap().to_owned()
    }

    /// Goes back to a snapshot.
    pub(crate) async fn revert(&self, snapshot: &str) {
        assert_eq!(self.rpc("evm_revert", json!([snapshot])).await, true, "no such snapshot");
    }

    /// Replaces the newest `depth` blocks by as many empty ones, as if another branch had won.
    pub(crate) async fn reorg(&self, depth: u64) {
        self.rpc("anvil_reorg", json!([depth, []])).await;
    }

    /// What gas costs in the next block, in wei, before tips.
    pub(crate) async fn set_base_fee(&self, wei: u128) {
        self.rpc("anvil_setNextBlockBaseFeePerGas", json!([format!("{wei:#x}")])).await;
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A new private key, `0x` and hex, and its address.
pub(crate) fn new_key() -> (String, Address) {
    let mut key = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut key).unwrap();
    (hex::encode_prefixed(key), address_of(&key).unwrap())
}

/// Creation code of the contracts in `tests/clients/token`, and of Multicall3, by name.
pub(crate) fn creation_code() -> impl Fn(&str) -> Vec<u8> {
    static CODE: OnceLock<Value> = OnceLock::new();
    let code = CODE.get_or_init(|| {
        let output = Command::new("node")
            .arg(clients().join("token.mjs"))
            .stdin(Stdio::null())
            .output()
            .expect("these tests need node in the PATH; `make test` installs it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = String::from_utf8(output.stdout).unwrap();
        let artifact: Value = serde_json::from_slice(&std::fs::read(path.trim()).unwrap()).unwrap();
        artifact["creation"].clone()
    });
    |name| bytes(&code[name])
}

/// `tests/clients`, with what npm installs there.
pub(crate) fn clients() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let installed = folder.join("node_modules/@x402");
    assert!(installed.is_dir(), "run `npm ci --ignore-scripts` in {}, or `make test`", folder.display());
    folder
}

pub(crate) fn ether(amount: u64) -> U256 {
    U256::from(amount) * U256::from(10).pow(U256::from(18))
}

/// A number as JSON-RPC writes it.
pub(crate) fn quantity(number: u64) -> String {
    format!("{number:#x}")
}

/// A number that JSON-RPC wrote.
pub(crate) fn number(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no number"));
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// Bytes that JSON-RPC wrote.
pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    value.as_str().unwrap_or_else(|| panic!("{value} is no hex")).parse::<Bytes>().unwrap().to_vec()
}

/// A hash that JSON-RPC wrote.
pub(crate) fn hash(value: &Value) -> B256 {
    value.as_str().unwrap_or_else(|| panic!("{value} is no hash")).parse().unwrap()
}

/// Starts anvil, on a port of its choice.
fn spawn(settings: Settings) -> (Child, String) {
    let mut command = watched(&binary());
    command.args(["--host", "127.0.0.1", "--port", "0", "--accounts", "1"]);
    command.args(["--chain-id", &NETWORK.0.to_string()]);
    command.args(["--slots-in-an-epoch", &settings.epoch.to_string()]);
    if let Some(seconds) = settings.block_time {
        command.args(["--block-time", &seconds.to_string()]);
    }
    if settings.mixed {
        command.arg("--mixed-mining");
    }
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let Some(address) = log.by_ref().find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned))
    else {
        end(&mut child);
        panic!("anvil does not start; it is in tests/clients/node_modules (Linux on x86-64), or in the PATH");
    };
    // Read on, so that it never waits for us.
    std::thread::spawn(move || log.for_each(drop));
    (child, format!("http://{address}"))
}

/// A program that runs until its standard input ends, at the latest with us: a test that is killed can stop nothing.
/// Give it arguments, and [`end`] it.
pub(crate) fn watched(program: &Path) -> Command {
    // The shell closes its own output, so that this ends with the program.
    let script = r#""$0" "$@" & child=$!; exec >/dev/null; cat; kill -9 $child; wait"#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(program).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Ends what was [`watched`].
pub(crate) fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}

/// The program that npm installed; where npm has none for the machine, the one in the PATH.
fn binary() -> PathBuf {
    let installed = clients().join("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
    if installed.is_file() { installed } else { PathBuf::from("anvil") }
}
