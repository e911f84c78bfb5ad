//! Single values: what each parser takes and refuses.

use std::time::Duration;

use proptest::prelude::*;

use crate::config::node::Node;
use crate::config::parse::{self, Parsed};

fn parsed<T>(value: impl Into<toml::Value>, parse: impl Fn(&Node) -> Parsed<T>) -> Option<T> {
    parse(&Node::from_default(&value.into())).ok()
}

#[test]
fn times() {
    assert_eq!(parsed("250ms", parse::duration), Some(Duration::from_millis(250)));
    assert_eq!(parsed("2 h", parse::duration), Some(Duration::from_secs(7200)));
    for bad in ["", "s", "1", "-1s", "1.5s", "1S", "1s ", " 1s", "99999999999999999999s", "4000d", "0ms"] {
        assert_eq!(parsed(bad, parse::duration), None, "{bad:?}");
    }
}

#[test]
fn sizes() {
    assert_eq!(parsed("64KiB", parse::size), Some(65_536));
    assert_eq!(parsed("10MB", parse::size), Some(10_000_000));
    assert_eq!(parsed(512, parse::size), Some(512));
    for bad in ["", "MB", "1", "1mb", "1.5MB", "-1B", "0B", "99999999999GiB"] {
        assert_eq!(parsed(bad, parse::size), None, "{bad:?}");
    }
    assert_eq!(parsed(-1, parse::size), None);
}

#[test]
fn money() {
    assert_eq!(parsed("$0.0010", parse::dollars).as_deref(), Some("0.001"));
    assert_eq!(parsed("3", parse::dollars).as_deref(), Some("3"));
    assert_eq!(parsed("$0", parse::price), None);
    assert_eq!(parsed("2.5%", parse::percent), Some(250));
    for bad in ["2.555%", "1001%", "-1%", "$1%", "%", "1"] {
        assert_eq!(parsed(bad, parse::percent), None, "{bad:?}");
    }
}

#[test]
fn urls() {
    assert_eq!(parsed("https://a.example/x402/", parse::base_url).unwrap(), "https://a.example/x402");
    assert_eq!(parsed("http://[::1]:80", parse::origin).unwrap().host(), Some("[::1]"));
    for bad in [
        "",
        "a.example",
        "ftp://a.example",
        "https://",
        "https://u:p@a.example",
        "https://a.example?x",
        "https://a.example/#x",
        "https://a.example:0",
        "https://a.example:99999",
        "https://a.example:",
        "https://a b",
    ] {
        assert_eq!(parsed(bad, parse::base_url), None, "{bad:?}");
    }
    let private = |url: &str| parse::is_private(&url.parse().unwrap());
    assert!(private("http://127.0.0.9:1") && private("http://[::1]:1") && private("http://localhost"));
    assert!(
        !private("http://127.0.0.1.example.com") && !private("http://10.0.0.1") && !private("http://0.0.0.0")
    );
}

#[test]
fn blocks() {
    let block =
        |text: &str| parsed(text, parse::ip_block).map(|block| (block.address.to_string(), block.prefix));
    assert_eq!(block("10.0.0.0/8"), Some(("10.0.0.0".into(), 8)));
    assert_eq!(block("::1"), Some(("::1".into(), 128)));
    assert_eq!(block("0.0.0.0/0"), Some(("0.0.0.0".into(), 0)));
    for bad in ["10.0.0.0/33", "10.0.0.1/31", "10.0.0.0/", "10.0.0.0/+8", "fd00::1/64", "::/129", "all"] {
        assert_eq!(block(bad), None, "{bad:?}");
    }
}

#[test]
fn paths() {
    for good in ["/", "/*", "/a/b", "/a/*", "/caf%C3%A9", "/a/", "/a%20b"] {
        assert_eq!(parsed(good, parse::route_path).as_deref(), Some(good));
    }
    for bad in [
        "", "a", "//", "/a//b", "/a//*", "/./a", "/a/..", "/a%2Fb", "/a%2fb", "/%41", "/a%", "/a%0", "/a%zz",
        "/a?b", "/a b", "/*/b", "/a*", "/é", "/a%00", "/a\\b", "/%2E%2E", "/a%25", "/a%+1",
    ] {
        assert_eq!(parsed(bad, parse::route_path), None, "{bad:?}");
    }
    assert_eq!(parsed("/status", parse::own_segment), Some(Some("status".into())));
    assert_eq!(parsed("", parse::own_segment), Some(None));
    for bad in ["/", "/a/b", "..", "/*", "/ä"] {
        assert_eq!(parsed(bad, parse::own_segment), None, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = parsed(text.as_str(), parse::duration);
        let _ = parsed(text.as_str(), parse::size);
        let _ = parsed(text.as_str(), parse::percent);
        let _ = parsed(text.as_str(), parse::dollars);
        let _ = parsed(text.as_str(), parse::base_url);
        let _ = parsed(text.as_str(), parse::ip_block);
        let _ = parsed(text.as_str(), parse::route_path);
        let _ = parsed(text.as_str(), parse::address);
        let _ = parsed(text.as_str(), parse::own_segment);
    }

    #[test]
    fn no_document_panics(text in "[\\[\\]a-z._= \"\n0-9{},#-]{0,80}") {
        let _ = super::load(&text);
        let _ = super::load(&format!("[app]\nurl = \"http://127.0.0.1:1\"\n[paid]\n{text}"));
    }
}
