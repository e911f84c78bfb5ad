//! The built program: the demo's walk, twice at once, and `galaksio pay` against a demo that only serves.
//!
//! Ports are free ones, and every process ends with its test. Needs `sh`, and no network but loopback.

#![expect(clippy::unwrap_used, reason = "a failed expectation is what ends a test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const GALAKSIO: &str = env!("CARGO_BIN_EXE_galaksio");

fn galaksio(arguments: &[&str]) -> Command {
    let mut command = Command::new(GALAKSIO);
    command.args(arguments).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A demo that serves until its test ends, and then clears up after itself.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.signal("TERM");
            let _ = self.0.wait();
        }
    }
}

impl Served {
    /// Starts `demo --quiet`, and returns it with its address once it listens.
    fn quiet() -> (Served, SocketAddr) {
        let mut command = galaksio(&["demo", "--quiet", "--listen", "127.0.0.1:0"]);
        let mut demo = Served(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        // Without a buffer of more than a byte, so that whatever follows stays where it is for later.
        let mut line = String::new();
        BufReader::with_capacity(1, demo.0.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        let Some(address) = line.trim_end().strip_prefix("serving on http://") else { panic!("{line}") };
        let address = address.parse().unwrap();
        (demo, address)
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

/// `GET path`, as the bytes of the answer's body.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    body.to_owned()
}

fn key_file(folder: &Path) -> String {
    let path = folder.join("payer.key");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    file.write_all(&[b'7'; 64]).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn two_walks_at_once_hold_all_their_checks() {
    let walk = || {
        let mut command = galaksio(&["demo", "--once", "--listen", "127.0.0.1:0"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let walks = [walk(), walk()].map(|walk| walk.wait_with_output().unwrap());
    for Output { status, stdout, stderr } in walks {
        let (stdout, stderr) = (text(&stdout), text(&stderr));
        assert!(status.success(), "{stdout}\n{stderr}");
        // Numbers that the providers' prices and the 20% of proxy.toml make.
        for line in [
            "   402       $0.00012 in USDC, as quoted by xcache\n",
            "   offers    xcache $0.00012 ",
            "   read back 64 bytes, the same that were stored\n",
            "   402       $0.012 in USDC, as quoted by openx402\n",
            "   gateway   paid openx402 $0.01 from its wallet",
            "   margin    $0.002: $0.012 taken, $0.01 spent\n",
            "   402       $0.000336 in USDC, as quoted by merit-systems\n",
            "   gateway   paid merit-systems $0.00028 from its wallet",
            "   402       $0.001 in USDC, the price in proxy.toml\n",
            "   balance   the payer had $99.987544 and has $99.986544\n",
            "   200       \"Hello.\", as the app says it; free\n",
        ] {
            assert!(stdout.contains(line), "{line:?} is not in:\n{stdout}");
        }
        assert_eq!(stdout.matches("settled on eip155:84532 (base-sepolia)").count(), 4, "{stdout}");
        assert!(stdout.ends_with(" checks held.\n") && !stdout.contains("FAILED"), "{stdout}");
        assert!(!stdout.contains('\x1b'), "colours in what is no terminal");
        let longest = stdout.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(80), "a line of {longest:?} columns:\n{stdout}");
    }
}

#[test]
fn pay_buys_from_a_demo_that_serves() {
    let (demo, address) = Served::quiet();
    let folder = tempfile::tempdir().unwrap();
    let key = key_file(folder.path());
    let url = format!("http://{address}");
    let file = folder.path().join("hello.py");
    std::fs::write(&file, "print('hello')\n").unwrap();
    let file = file.to_str().unwrap();
    let pay = |arguments: &[&str]| {
        let output = galaksio(arguments).args(["--url", &url, "--key-file", &key]).output().unwrap();
        let said = text(&output.stderr);
        (output.status.success(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default(), said)
    };

    let (paid, answer, said) = pay(&["pay", "store", file]);
    assert!(paid && said.contains("price $0.00012") && said.contains("settled on eip155:84532"), "{said}");
    assert_eq!(answer["status"], "completed");
    let stored = answer["result"]["url"].as_str().unwrap();
    let path = stored.strip_prefix(&url).unwrap();
    assert_eq!(get(address, path), "print('hello')\n");

    let (paid, answer, said) = pay(&["pay", "store", file, "--permanent"]);
    assert!(paid && said.contains("price $0.012 "), "{said}");
    assert_eq!(answer["result"]["provider"], "openx402");

    let (paid, answer, said) = pay(&["pay", "run", file]);
    assert!(paid && said.contains("price $0.000336"), "{said}");
    assert_eq!(answer["result"]["exitCode"], 0);
    assert!(answer["result"]["stdout"].as_str().unwrap().contains("print('hello')"), "{answer}");

    let (paid, _, said) = pay(&["pay", "run", file, "--max-price", "0.0001"]);
    assert!(!paid && said.contains("over --max-price $0.0001; nothing was signed"), "{said}");
    drop(demo);
}

#[test]
fn signals_end_it_cleanly_and_nothing_else_is_printed() {
    for name in ["INT", "TERM"] {
        let (mut demo, address) = Served::quiet();
        assert_eq!(get(address, "/hello"), "Hello.\n");
        demo.signal(name);
        assert_eq!(demo.0.wait().unwrap().code(), Some(0), "after {name}");
        let mut rest = String::new();
        demo.0.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        demo.0.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}

#[test]
fn it_keeps_serving_and_the_lines_it_prints_work() {
    let mut command = galaksio(&["demo", "--listen", "127.0.0.1:0"]);
    let mut demo = Served(command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    // The last of them; its neighbours are there by then.
    let mut printed = Vec::new();
    while !printed.last().is_some_and(|line: &String| line.ends_with("/metrics")) {
        printed.push(lines.next().unwrap());
    }
    let printed = printed.join("\n").replace("\\\n", "");
    let lines: Vec<&str> = printed.lines().collect();
    let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("curl "), count(GALAKSIO) + count("./")), (7, 2), "{printed}");
    for line in lines.iter().filter(|line| line.contains("/galaksio pay ")) {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["status"], "completed", "{line}");
    }
    demo.signal("TERM");
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_taken_port_is_said_and_is_a_failure() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for how in ["--once", "--quiet"] {
        let output = galaksio(&["demo", how, "--listen", &address]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.starts_with(&format!("galaksio: cannot listen on {address}: ")), "{said}");
        assert!(said.contains("--listen") && said.lines().count() == 1, "{said}");
        assert_eq!(text(&output.stdout), "");
    }
}
