//! `galaksio facilitator` as others see it, and `galaksio check` before there is anything to see.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use galaksio::config::Environment;
use galaksio::facilitator::HttpFacilitator;
use galaksio::outgoing::{Call, Outgoing, Settings as OutgoingSettings};
use galaksio::x402::Network;
use http::Method;

use super::*;

/// A running `galaksio facilitator`; ends when it is dropped.
struct Served {
    child: Child,
    url: String,
    _file: tempfile::NamedTempFile,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration in a file.
fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn command(verb: &str, file: &tempfile::NamedTempFile, gas_key: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_galaksio"));
    command.arg(verb).arg("--config").arg(file.path()).env("GAS", gas_key).stdin(Stdio::null());
    command
}

fn serve(url: &str, gas_key: &str, more: &[&str]) -> Served {
    let file = file(&configuration(url, ""));
    let mut command = command("facilitator", &file, gas_key);
    command.args(["--listen", "127.0.0.1:0"]).args(more);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("facilitator on ").map(str::to_owned);
    let served = Served { child, url: url.clone().unwrap_or_default(), _file: file };
    assert!(url.is_some(), "it does not start: {line:?}");
    served
}

fn outgoing() -> Outgoing {
    Outgoing::new(OutgoingSettings { connect_timeout: Duration::from_secs(5), allow_plain_http: false })
        .unwrap()
}

/// The client that a gateway has for such a service.
fn client(url: &str) -> HttpFacilitator {
    let text = format!("[app]\nurl = \"http://127.0.0.1:1\"\n[facilitator]\nurl = \"{url}\"\n");
    let loaded = load_text("t.toml", &text, &Environment::new()).unwrap();
    let settings = &loaded.config.facilitator;
    let endpoint = settings.endpoints().next().unwrap();
    HttpFacilitator::new(outgoing(), settings, endpoint, &Clock::system()).unwrap()
}

async fn post(url: &str, path: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let body: Vec<u8> = body.into();
    let call = Call::json(Method::POST, format!("{url}{path}").parse().unwrap(), body);
    let answer = outgoing().send(call, Duration::from_secs(30)).await.unwrap();
    (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn others_verify_and_settle_through_it() {
    let chain = Chain::start(Settings::default()).await;
    let (gas_key, gas_account) = chain.gas_key().await;
    let served = serve(&chain.url, &gas_key, &["--repeat-success"]);
    let client = client(&served.url);
    let kinds = client.supported().await.unwrap();
    assert_eq!(kinds.len(), 2);
    assert!(kinds.iter().all(|kind| kind.network == Network(84_532) && kind.scheme == "exact"));
    for (version, network) in [(Version::V1, "base-sepolia"), (Version::V2, "eip155:84532")] {
        let (key, payer) = chain.payer(1000).await;
        let payment = Payment::new(&chain, key, authorization(payer, PAYEE, 1000));
        let request = payment.request(version);
        assert_eq!(client.verify(&request).await.unwrap(), Verdict::Valid);
        let receipt = settled(client.settle(&request).await.unwrap());
        assert_eq!(receipt.network, network);
        assert_eq!(settled(client.settle(&request).await.unwrap()), receipt);
        let used = "invalid_exact_evm_nonce_already_used".to_owned();
        assert_eq!(client.verify(&request).await.unwrap(), Verdict::Invalid { reason: used, message: None });
    }
    assert_eq!((chain.balance(PAYEE).await, chain.sent(gas_account).await), (2000, 2));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn junk_is_answered_and_costs_nothing() {
    let chain = Chain::start(Settings::default()).await;
    let (gas_key, gas_account) = chain.gas_key().await;
    let served = serve(&chain.url, &gas_key, &[]);
    let (key, payer) = chain.payer(1000).await;
    let good =
        serde_json::to_value(Payment::new(&chain, key, authorization(payer, PAYEE, 1000)).v2()).unwrap();
    let without = |pointer: &str, key: &str| {
        let mut request = good.clone();
        request.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
        request.to_string()
    };
    for path in ["/verify", "/settle"] {
        for junk in ["", "{", "[]", "null", "{}", "\"x\"", &"[".repeat(10_000), &"9".repeat(10_000)] {
            assert_eq!(post(&served.url, path, junk).await.0, 400, "{junk:.20}");
        }
        assert_eq!(post(&served.url, path, vec![b' '; 300_000]).await.0, 413);
        let (reason, verdict) =
            if path == "/verify" { ("invalidReason", "isValid") } else { ("errorReason", "success") };
        for (request, expected) in [
            (without("/paymentPayload", "payload"), "invalid_payload"),
            (without("/paymentPayload/payload", "signature"), "invalid_payload"),
            (without("/paymentRequirements", "asset"), "invalid_payment_requirements"),
            (without("/paymentRequirements", "amount"), "invalid_payment_requirements"),
            (without("/paymentRequirements", "extra"), "invalid_exact_evm_missing_eip712_domain"),
            (good.to_string().replace("\"x402Version\":2", "\"x402Version\":1"), "invalid_payload"),
            (good.to_string().replace("eip155:84532", "eip155:1"), "invalid_exact_evm_network_mismatch"),
            (good.to_string().replace("\"exact\"", "\"upto\""), "invalid_exact_evm_scheme"),
            (
                good.to_string().replace("\"payload\":{", "\"payload\":{\"permit2Authorization\":{},"),
                "invalid_exact_evm_scheme",
            ),
        ] {
            let (status, answer) = post(&served.url, path, request.clone()).await;
            assert_eq!((status, &answer[verdict]), (200, &Value::Bool(false)), "{request}");
            assert_eq!(answer[reason], expected, "{request}");
        }
        let (status, _) =
            post(&served.url, path, good.to_string().replace("\"x402Version\":2", "\"x402Version\":3")).await;
        assert_eq!(status, 400);
    }
    assert_eq!(post(&served.url, "/refund", "{}").await.0, 404);
    assert_eq!(post(&served.url, "/supported", "{}").await.0, 405);
    // A head that never ends is not waited for forever, and holds nobody up.
    let address = served.url.strip_prefix("http://").unwrap();
    let _slow: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"POST /settle HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").unwrap();
            stream
        })
        .collect();
    assert_eq!(chain.sent(gas_account).await, 0);
    let (status, answer) = post(&served.url, "/settle", good.to_string()).await;
    assert_eq!((status, &answer["success"]), (200, &Value::Bool(true)), "{answer}");
    assert_eq!(answer["payer"], good["paymentPayload"]["payload"]["authorization"]["from"]);
    assert_eq!(chain.balance(PAYEE).await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn what_would_keep_it_from_settling_is_said_before_the_first_challenge() {
    let chain = Chain::start(Settings::default()).await;
    let (gas_key, _) = chain.gas_key().await;
    let (empty, _) = crate::anvil::new_key();
    let good = configuration(&chain.url, "");
    let nothing_there = "asset = \"0x4200000000000000000000000000000000000006\"\nname = \"USDC\"\nversion = \"2\"\n\
                         decimals = 6\nusd_pegged = true\n[[chains]]";
    let other_name = "0x4200000000000000000000000000000000000042";
    chain.place_token(other_name.parse().unwrap(), "USD Coin", "2").await;
    let cases = [
        (good.clone(), &empty, "less than one transfer costs"),
        (good.replace("\"base-sepolia\"", "\"base\""), &gas_key, "84532"),
        (good.replace(&chain.url, "http://127.0.0.1:1"), &gas_key, "127.0.0.1:1"),
        (good.replace("[[chains]]", nothing_there), &gas_key, "no contract"),
        (
            good.replace(
                "[[chains]]",
                &nothing_there.replace("0x4200000000000000000000000000000000000006", other_name),
            ),
            &gas_key,
            "name \"USDC\"",
        ),
    ];
    let run = async |verb: &str, text: &str, key: &str| -> Output {
        let file = file(text);
        let mut command = command(verb, &file, key);
        if verb == "check" {
            command.arg("--online");
        }
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    for (text, key, said) in &cases {
        for verb in ["check", "facilitator"] {
            let output = run(verb, text, key).await;
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            // What is wrong with the file itself is 78 for `check`.
            let failed = [Some(1), (verb == "check").then_some(78)].contains(&output.status.code());
            assert!(failed && told.contains(said), "{verb} {said}: {told}");
            assert!(!told.contains(&key[4..]), "the key is shown");
        }
    }
    let output = run("check", &good, &gas_key).await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("the gateway itself") && told.contains("the gas account has gas"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node packages; `make test` runs it"]
async fn one_payment_asked_for_ten_times_is_a_success_for_one() {
    let chain = Chain::start(Settings::every(1)).await;
    let (gas_key, gas_account) = chain.gas_key().await;
    let served = serve(&chain.url, &gas_key, &[]);
    let (key, payer) = chain.payer(1000).await;
    let payment = Payment::new(&chain, key, authorization(payer, PAYEE, 1000));
    let ten = async |client: &HttpFacilitator| -> (usize, Vec<String>) {
        let asked = (0..10).map(|_| async { client.settle(&payment.v2()).await.unwrap() });
        let answers = futures_util::future::join_all(asked).await;
        let successes = answers.iter().filter(|answer| matches!(answer, Settlement::Settled(_))).count();
        let others = answers.into_iter().filter(|answer| !matches!(answer, Settlement::Settled(_)));
        (successes, others.map(refused).collect())
    };
    let used = vec!["invalid_exact_evm_nonce_already_used".to_owned(); 10];
    assert_eq!(ten(&client(&served.url)).await, (1, used[1..].to_vec()));
    assert_eq!(ten(&client(&served.url)).await, (0, used.clone()));
    // After a restart, too: nobody remembers but the chain.
    drop(served);
    let served = serve(&chain.url, &gas_key, &[]);
    assert_eq!(ten(&client(&served.url)).await, (0, used));
    assert_eq!((chain.balance(PAYEE).await, chain.sent(gas_account).await), (1000, 1));
}
