//! Mistakes in `[[chains]]`.

use super::*;

#[test]
fn chains_and_their_endpoints() {
    let good = "[[chains]]\nnetwork = \"base\"\nrpc = [\"https://rpc.example/v2/hunter2\", \"http://127.0.0.1:8545\"]\n";
    load(&format!("{GOOD}{good}")).unwrap();
    let bad = r#"[[chains]]
network = "base"
rpc = ["https://rpc.example/v2/hunter2", "http://rpc.example/hunter2"]
[[chains]]
network = "eip155:8453"
rpc = "https://rpc.example/hunter2"
final_blocks = 0
log_range = "2000"
[[chains]]
network = "base-sepolia"
rpc = ["https://hunter2@rpc.example"]
[[chains]]
network = "base-sepolia"
rpc = []
[[chains]]
rpc = ["wss://rpc.example/hunter2"]
"#;
    expect_after(
        GOOD,
        bad,
        &[
            (3, 1, "chains[0].rpc", "without encryption", "https://"),
            (6, 7, "chains[1].rpc", "expected a list", "write a list of URLs"),
            (7, 16, "chains[1].final_blocks", "not a count", "above 0"),
            (8, 13, "chains[1].log_range", "expected a number", "without quotes"),
            (11, 7, "chains[2].rpc", "user name", "whole URL"),
            (14, 7, "chains[3].rpc", "nobody to ask", "write a list"),
            (15, 1, "chains[4]", "`network` is missing", "network"),
            (16, 7, "chains[4].rpc", "http:// or https://", "https://rpc.example.com"),
        ],
    );
    let twice = format!("{good}[[chains]]\nnetwork = \"eip155:8453\"\nrpc = [\"https://rpc.example\"]\n");
    expect_after(GOOD, &twice, &[(5, 1, "chains[1].network", "a table above", "one `rpc`")]);
    let shown = load(&format!("{GOOD}{bad}")).unwrap_err().to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
}
