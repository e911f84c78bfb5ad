//! `galaksio facilitator`, as a process. Ends when it is dropped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use tempfile::NamedTempFile;

use crate::anvil::{end, watched};

pub(crate) struct Ours {
    /// Where: `http://127.0.0.1:port`.
    pub(crate) url: String,
    child: Child,
    _config: NamedTempFile,
}

impl Ours {
    /// With the defaults of every setting that has one.
    pub(crate) fn start(rpc: &str, gas_key: &str) -> Ours {
        let config = NamedTempFile::new().unwrap();
        let toml = format!(
            r#"
[app]
url = "http://127.0.0.1:1"
[[accepts]]
network = "base-sepolia"
pay_to = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F"
[[chains]]
network = "base-sepolia"
rpc = ["{rpc}"]
[facilitator]
kind = "local"
gas_key_env = "GAS"
"#
        );
        std::fs::write(config.path(), toml).unwrap();
        let mut child = watched(Path::new(env!("CARGO_BIN_EXE_galaksio")))
            .args(["facilitator", "--listen", "127.0.0.1:0", "--config"])
            .arg(config.path())
            .env("GAS", gas_key)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.trim().strip_prefix("facilitator on ").map(str::to_owned) else {
            end(&mut child);
            panic!("galaksio facilitator does not start: {line}");
        };
        Ours { url, child, _config: config }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
