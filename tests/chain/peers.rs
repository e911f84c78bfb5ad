//! The others in the protocol, as they are published: the official facilitator, official servers and clients, each a
//! Node process of `tests/clients`, and a shop in Rust. What serves ends when it is dropped, or when this process does.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use galaksio::x402::Address;
use serde_json::Value;

use crate::anvil::{Chain, clients};

/// A program that serves.
pub(crate) struct Peer {
    /// Where: `http://127.0.0.1:port`.
    pub(crate) url: String,
    child: Child,
}

impl Peer {
    /// The official facilitator of both versions, on `chain`, with a gas key of its own. It deploys smart wallets
    /// by `factory`.
    pub(crate) async fn facilitator(chain: &Chain, factory: Option<Address>) -> Peer {
        let (key, _) = chain.gas_key().await;
        let factory = factory.map(|factory| factory.to_string());
        let mut arguments = vec!["--rpc", &chain.url, "--key", &key];
        if let Some(factory) = &factory {
            arguments.extend(["--factory", factory]);
        }
        Peer::start("facilitator.mjs", &arguments)
    }

    /// A shop on `@x402/express`, version 2: `/work` for `price` (such as `$0.001`).
    pub(crate) fn server_v2(facilitator: &str, pay_to: Address, price: &str) -> Peer {
        Peer::server("serve-v2.mjs", facilitator, pay_to, price)
    }

    /// A shop on the legacy `x402-express`, version 1: `/work` for `price`.
    pub(crate) fn server_v1(facilitator: &str, pay_to: Address, price: &str) -> Peer {
        Peer::server("serve-v1.mjs", facilitator, pay_to, price)
    }

    fn server(program: &str, facilitator: &str, pay_to: Address, price: &str) -> Peer {
        let pay_to = pay_to.to_string();
        Peer::start(program, &["--facilitator", facilitator, "--pay-to", &pay_to, "--price", price])
    }

    /// A shop on `x402-axum`, of this version: `/work` for a tenth of a cent.
    pub(crate) fn server_axum(facilitator: &str, pay_to: Address, version: u8) -> Peer {
        Peer::axum("debug", facilitator, pay_to, &["--version", &version.to_string()])
    }

    /// The same of version 2 to be measured: optimised, on so many threads.
    #[allow(dead_code, reason = "for the benchmark")]
    pub(crate) fn server_axum_release(facilitator: &str, pay_to: Address, threads: usize) -> Peer {
        let options = ["--version", "2", "--threads", &threads.to_string()];
        Peer::axum("release", facilitator, pay_to, &options)
    }

    fn axum(profile: &str, facilitator: &str, pay_to: Address, options: &[&str]) -> Peer {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
        let program = built.join(profile).join("axum-seller");
        assert!(program.is_file(), "{} is missing: run it by make", program.display());
        let mut command = Command::new(program);
        command.args(["--facilitator", facilitator, "--pay-to", &pay_to.to_string()]).args(options);
        Peer::launch(command)
    }

    #[allow(dead_code, reason = "for the benchmark")]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn start(program: &str, arguments: &[&str]) -> Peer {
        let mut command = Command::new("node");
        command.arg(clients().join(program)).args(arguments);
        Peer::launch(command)
    }

    fn launch(mut command: Command) -> Peer {
        // It reads this until we are gone.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let Ok(told) = serde_json::from_str::<Value>(&line) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not start: {line}");
        };
        std::thread::spawn(move || output.lines().for_each(drop));
        Peer { url: told["url"].as_str().unwrap().to_owned(), child }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An official client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// As in the README's table.
    pub(crate) name: &'static str,
    /// The version it speaks.
    pub(crate) version: u8,
    program: &'static str,
}

/// All of them.
pub(crate) const CLIENTS: [Client; 3] = [
    Client { name: "@x402/fetch 2.27", version: 2, program: "pay-v2.mjs" },
    Client { name: "@x402/axios 2.11", version: 2, program: "pay-axios.mjs" },
    Client { name: "x402-fetch 1.2", version: 1, program: "pay-v1.mjs" },
];

impl Client {
    /// Makes a request, and pays if that is asked for: `{status, headers, receipt, payment, body}`.
    pub(crate) async fn buy(self, key: &str, method: &str, url: &str, body: Option<&Value>) -> Value {
        let mut command = Command::new("node");
        command.arg(clients().join(self.program)).args(["--key", key, "--method", method, "--url", url]);
        if let Some(body) = body {
            command.args(["--content-type", "application/json", "--body", &body.to_string()]);
        }
        command.stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{}: {text}{}", self.name, String::from_utf8_lossy(&output.stderr)))
    }
}
