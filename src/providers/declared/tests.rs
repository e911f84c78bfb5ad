use bytes::Bytes;
use http::Uri;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::testing::*;
use super::super::{Fault, PurseError};
use super::*;
use crate::config::{Environment, load_text};
use crate::money::Amount;
use crate::outgoing::stub::{Reply, Stub, closed_url};

const RUN: &str = r#"
kind = "run"
body = '{"source": "{text}", "language": "{language}", "id": "{request_id}", "limits": {"seconds": 30}}'
languages = ["python", "ruby"]
result = { stdout = "/run/out", stderr = "/run/err", exit_code = "/run/code", execution_time = "/ms", text = "/value" }
success = { at = "/status", equals = "ok" }
"#;
const STORE: &str = r#"
kind = "store-file"
body = '{"name": "{filename}", "type": "{content_type}", "bytes": "{size}", "data": "{base64}", "keep": "{ttl}"}'
max_ttl = "1d"
max_size = 1000
result = { url = "/url" }
"#;
const CODE: &str = "print('hé')\n1+1";

/// The settings that this text in a `[[provider]]` gives.
fn settings(url: &Uri, text: &str) -> resolved::Declared {
    let file = format!(
        "[app]\nurl = \"http://127.0.0.1:3000\"\n[[provider]]\nname = \"acme\"\nurl = \"{url}\"\n{text}"
    );
    let loaded = load_text("t.toml", &file, &Environment::new()).unwrap_or_else(|wrong| panic!("{wrong}"));
    loaded.config.providers.declared[0].clone()
}

fn acme(url: Uri, text: &str) -> Declared {
    Declared::new(line(), settings(&url, text))
}

fn nowhere() -> Uri {
    Uri::from_static("http://127.0.0.1:1")
}

fn answer() -> Value {
    json!({
        "status": "ok", "ms": 12.5, "value": "2", "secret": "x",
        "run": {"out": ["hé\n", "there\n"], "err": "warning\n", "code": 3},
    })
}

async fn stub(paid: impl Fn() -> Reply + Send + Sync + 'static) -> Stub {
    Stub::start(move |seen| if is_paid(seen) { paid() } else { payment_required("280") }).await
}

async fn run(text: &str, answer: Value) -> Result<Map<String, Value>, ProviderError> {
    let stub = stub(move || Reply::json(200, &answer)).await;
    let order = order("run", run_ask("python", 0), CODE.as_bytes());
    acme(stub.url("/x"), text).perform(&order, &FakePurse::default()).await.map(|done| done.result)
}

#[tokio::test]
async fn asks_for_the_terms_of_this_content_pays_once_and_maps_the_answer() {
    let stub = stub(|| Reply::json(200, &answer())).await;
    let purse = FakePurse::default();
    let order = order("run", run_ask("ruby", 0), CODE.as_bytes());
    let provider = acme(stub.url("/v1/run"), &format!("{RUN}headers = {{ \"x-version\" = \"2\" }}\n"));
    let done = provider.perform(&order, &purse).await.unwrap();

    assert_eq!(purse.paid(), [("run", Amount::new(280))]);
    let seen = stub.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.method == "POST" && seen.target == "/v1/run"));
    assert_eq!((is_paid(&seen[0]), is_paid(&seen[1])), (false, true));
    assert_eq!(seen[0].body, seen[1].body, "what was priced is what is paid");
    let mut sent: Value = serde_json::from_slice(&seen[1].body).unwrap();
    let id = sent["id"].take();
    assert!(id.as_str().is_some_and(|id| id.len() == 32 && !id.contains(&order.job.to_string())), "{id}");
    assert_eq!(sent, json!({"source": CODE, "language": "ruby", "id": null, "limits": {"seconds": 30}}));
    for seen in &seen {
        assert_eq!(seen.headers["x-version"], "2");
        assert_eq!(seen.headers["content-type"], "application/json");
    }
    let ours = seen.into_iter().map(|mut seen| {
        seen.headers.remove("x-version");
        seen
    });
    assert_only_our_headers(&ours.collect::<Vec<_>>());

    let expected = json!({"stdout": "hé\nthere\n", "stderr": "warning\n", "exitCode": 3, "executionTime": 12.5,
        "text": "2", "provider": "acme"});
    assert_eq!((Value::Object(done.result), done.stored), (expected, None));
}

#[tokio::test]
async fn a_store_says_how_long_and_where() {
    let stub = stub(|| Reply::json(201, &json!({"url": "https://acme.example/1"}))).await;
    for (ttl, kept) in [(Some(7200), 7200), (None, 86_400)] {
        let order = order("store_file", store_ask(Kind::File, false, ttl, 0), b"\x00\"}\xff");
        let done = acme(stub.url("/"), STORE).perform(&order, &FakePurse::default()).await.unwrap();
        let expected =
            json!({"success": true, "url": "https://acme.example/1", "ttl": kept, "provider": "acme"});
        assert_eq!(Value::Object(done.result), expected);
        let sent: Value = serde_json::from_slice(&stub.seen().last().unwrap().body).unwrap();
        let expected = json!({"name": "note.bin", "type": "application/x-note", "bytes": 4,
            "data": base64_simd::STANDARD.encode_to_string(b"\x00\"}\xff"), "keep": kept});
        assert_eq!(sent, expected);
    }
}

#[tokio::test]
async fn a_raw_body_is_the_content_itself() {
    let text = "kind = \"store-file\"\nmethod = \"PUT\"\nbody = \"raw\"\nresult = { cid = \"/0/cid\" }\n";
    let stub = stub(|| Reply::json(200, &json!([{"cid": "bafy1"}]))).await;
    let order = order("store_file", store_ask(Kind::File, false, None, 0), b"\xff\x00");
    let done = acme(stub.url("/"), text).perform(&order, &FakePurse::default()).await.unwrap();
    let expected = json!({"success": true, "cid": "bafy1", "ipfsHash": "bafy1", "provider": "acme"});
    assert_eq!(Value::Object(done.result), expected);
    let seen = stub.seen();
    assert_eq!((seen[1].method.as_str(), &seen[1].body[..]), ("PUT", &b"\xff\x00"[..]));
    assert_eq!(seen[1].headers["content-type"], "application/x-note");
}

#[tokio::test]
async fn much_content_is_sent_once() {
    let text = "kind = \"store-file\"\nbody = \"raw\"\nresult = { cid = \"/cid\" }\nsample = \"hello\"\n";
    let stub = stub(|| Reply::json(200, &json!({"cid": "bafy1"}))).await;
    let bytes = vec![7; ASKED_WHOLE + 1];
    let order = order("store_file", store_ask(Kind::File, false, None, 0), &bytes);
    acme(stub.url("/"), text).perform(&order, &FakePurse::default()).await.unwrap();
    let seen = stub.seen();
    assert_eq!((&seen[0].body[..], seen[1].body.len()), (&b"hello"[..], bytes.len()));
}

#[test]
fn sells_what_it_declares_and_nothing_else() {
    let sells = |text: &str, ask: Ask| acme(nowhere(), text).sells(&ask).map_err(|no| no.to_string());
    let file = |permanent, ttl, size| store_ask(Kind::File, permanent, ttl, size);
    assert_eq!(sells(RUN, run_ask("ruby", 1 << 20)), Ok("run"));
    assert_eq!(sells(RUN, run_ask("perl", 1)), Err("acme does not sell language \"perl\"".into()));
    assert_eq!(sells(RUN, run_ask("ruby", (1 << 20) + 1)), Err("acme takes up to 1048576 bytes".into()));
    assert!(sells(RUN, file(false, None, 1)).is_err());
    assert_eq!(sells(STORE, file(false, Some(86_400), 1000)), Ok("store_file"));
    assert_eq!(sells(STORE, store_ask(Kind::Json, false, None, 1)), Ok("store_file"));
    assert_eq!(sells(STORE, file(false, Some(86_401), 1)), Err("acme does not sell ttl 86401".into()));
    assert_eq!(sells(STORE, file(true, None, 1)), Err("acme does not sell permanent".into()));
    assert!(sells(STORE, file(false, None, 1001)).is_err());
    assert!(sells(STORE, run_ask("python", 1)).is_err());

    let json = "kind = \"store-json\"\nbody = '{\"d\": \"{json}\"}'\nresult = { cid = \"/cid\" }\n";
    let for_good = format!("{json}permanent = true\n");
    assert_eq!(sells(json, store_ask(Kind::Json, false, None, 1)), Ok("store_json"));
    assert!(sells(json, file(false, None, 1)).is_err());
    assert!(sells(json, store_ask(Kind::Json, true, None, 1)).is_err());
    assert!(sells(json, store_ask(Kind::Json, false, Some(3600), 1)).is_err());
    assert_eq!(sells(&for_good, store_ask(Kind::Json, true, None, 1)), Ok("store_json"));
    assert!(sells(&for_good, store_ask(Kind::Json, false, Some(3600), 1)).is_err());
}

#[tokio::test]
async fn output_may_be_missing_where_nothing_says_that_it_is_not() {
    let plain = "kind = \"run\"\nlanguages = [\"python\"]\nbody = \"raw\"\n\
                 result = { stdout = \"/o\", stderr = \"/e\", exit_code = \"/c\", text = \"/t\" }\n";
    let result = run(plain, json!({"o": "", "e": null})).await.unwrap();
    assert_eq!(Value::Object(result), json!({"stdout": "", "stderr": "", "exitCode": 0, "provider": "acme"}));
}

#[tokio::test]
async fn what_only_looks_like_success_is_a_failure() {
    let without = |pointer: &str| {
        let mut answer = answer();
        *answer.pointer_mut(pointer).unwrap() = Value::Null;
        answer
    };
    let with = |pointer: &str, value: Value| {
        let mut answer = answer();
        *answer.pointer_mut(pointer).unwrap() = value;
        answer
    };
    for answer in [
        without("/run/out"),
        without("/run"),
        without("/status"),
        with("/status", json!("failed")),
        with("/status", json!(true)),
        with("/run/out", json!(5)),
        with("/run/out", json!(["a", 5])),
        with("/run/err", json!({})),
        with("/run/code", json!("0")),
        with("/run/code", json!(1.5)),
        with("/ms", json!("12")),
        with("/value", json!(2)),
        json!([]),
        json!("ok"),
    ] {
        let error = run(RUN, answer.clone()).await.expect_err(&answer.to_string());
        assert_eq!(error.fault, Fault::Broken, "{answer}: {error}");
        assert!(!error.message.contains("secret"), "an answer is not repeated: {error}");
    }

    let flag = "kind = \"store-file\"\nbody = \"raw\"\nresult = { cid = \"/cid\", url = \"/url\" }\nsuccess = { at = \"/ok\" }\n";
    let good = json!({"ok": true, "cid": "bafy", "url": "https://a.example/1"});
    for (row, (member, value)) in [
        ("ok", json!(false)),
        ("ok", json!(null)),
        ("cid", json!("../x")),
        ("cid", json!("")),
        ("cid", json!(7)),
        ("url", json!("javascript:alert(1)")),
        ("url", json!(null)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut bad = good.clone();
        bad[member] = value;
        let bad = stub(move || Reply::json(200, &bad)).await;
        let order = order("store_file", store_ask(Kind::File, false, None, 0), b"x");
        let error = acme(bad.url("/"), flag).perform(&order, &FakePurse::default()).await.unwrap_err();
        assert_eq!(error.fault, Fault::Broken, "row {row}: {error}");
    }
    let good = stub(move || Reply::json(200, &good)).await;
    let order = order("store_file", store_ask(Kind::File, false, None, 0), b"x");
    acme(good.url("/"), flag).perform(&order, &FakePurse::default()).await.unwrap();
}

#[tokio::test]
async fn a_failure_after_the_payment_is_never_paid_for_again() {
    type Row = (Fault, fn() -> Reply);
    let table: [Row; 9] = [
        (Fault::Unpaid, || payment_required("280")),
        (Fault::Unpaid, || payment_required("1")),
        (Fault::Refused, || Reply::json(400, &json!({"error": "x"}))),
        (Fault::Broken, || Reply::json(500, &answer())),
        (Fault::Broken, || Reply::html(200)),
        (Fault::Broken, || Reply::Http(302, vec![("location", "/".into())], vec![])),
        (Fault::Broken, || Reply::Raw(b"garbage\r\n\r\n".to_vec())),
        (Fault::Broken, || Reply::Http(200, vec![], vec![b' '; MAX_OUTPUT + 1])),
        (Fault::Unreachable, Reply::drop),
    ];
    for (row, (fault, reply)) in table.into_iter().enumerate() {
        let stub = stub(reply).await;
        let purse = FakePurse::default();
        let order = order("run", run_ask("python", 0), CODE.as_bytes());
        let error = acme(stub.url("/"), RUN).perform(&order, &purse).await.unwrap_err();
        assert_eq!(error.fault, fault, "row {row}: {error}");
        assert_eq!((stub.seen().len(), purse.paid().len()), (2, 1), "row {row}");
    }
}

#[tokio::test]
async fn an_idempotent_one_is_asked_again_with_the_identical_payment() {
    let text = format!("{RUN}resume = \"idempotent\"\n");
    let order = order("run", run_ask("python", 0), CODE.as_bytes());
    let lost = std::sync::atomic::AtomicU32::new(2);
    let stub = stub(move || {
        use std::sync::atomic::Ordering::Relaxed;
        match lost.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Reply::drop(),
            Err(_) => Reply::json(200, &answer()),
        }
    })
    .await;
    let purse = FakePurse::default();
    acme(stub.url("/"), &text).perform(&order, &purse).await.unwrap();
    let seen = stub.seen();
    let first = &seen[1];
    assert_eq!((seen.len(), purse.paid().len()), (4, 1));
    assert!(seen[2..].iter().all(|seen| seen.body == first.body && is_paid(seen)));
    assert!(seen[2..].iter().all(|seen| seen.headers == first.headers));

    // An answer is an answer: only a lost one is asked for again, and not for ever.
    for (reply, calls) in
        [(payment_required as fn(&str) -> Reply, 2), (|_| Reply::html(502), 2), (|_| Reply::drop(), 5)]
    {
        let stub =
            Stub::start(move |seen| if is_paid(seen) { reply("280") } else { payment_required("280") });
        let (stub, purse) = (stub.await, FakePurse::default());
        acme(stub.url("/"), &text).perform(&order, &purse).await.unwrap_err();
        assert_eq!((stub.seen().len(), purse.paid().len()), (calls, 1));
    }
}

#[tokio::test]
async fn nothing_is_signed_before_a_402_that_can_be_paid() {
    let order = order("run", run_ask("python", 0), CODE.as_bytes());
    let purse = FakePurse::default();
    let error = acme(closed_url("/").await, RUN).perform(&order, &purse).await.unwrap_err();
    assert_eq!((error.fault, purse.paid().len()), (Fault::Unreachable, 0));

    let free = Stub::start(|_| Reply::json(200, &answer())).await;
    let error = acme(free.url("/"), RUN).perform(&order, &purse).await.unwrap_err();
    assert_eq!((error.fault, purse.paid().len(), free.seen().len()), (Fault::Broken, 0, 1));

    let stub = stub(|| Reply::json(200, &answer())).await;
    let purse = FakePurse::refusing(PurseError::Terms("dearer".into()));
    let error = acme(stub.url("/"), RUN).perform(&order, &purse).await.unwrap_err();
    assert_eq!((error.fault, stub.seen().len()), (Fault::Terms, 1));

    // Not text: found before anybody is asked.
    let mut binary = order;
    binary.content.data = Bytes::from_static(&[0xff]).into();
    let error = acme(stub.url("/"), RUN).perform(&binary, &purse).await.unwrap_err();
    assert_eq!((error.fault, stub.seen().len()), (Fault::Refused, 1));
}

#[tokio::test]
async fn its_own_deadline_ends_it() {
    let stub = stub(|| Reply::Stall(b"HTTP/1.1 200 OK\r\n")).await;
    let order = order("run", run_ask("python", 0), CODE.as_bytes());
    let purse = FakePurse::default();
    let provider = acme(stub.url("/"), &format!("{RUN}timeout = \"3s\"\n"));
    let error = provider.perform(&order, &purse).await.unwrap_err();
    assert_eq!((error.fault, purse.paid().len()), (Fault::Timeout, 1));
}

#[tokio::test]
async fn a_pinned_payee_is_the_only_one() {
    let payee = offer(1).pay_to;
    let stub = stub(|| Reply::json(200, &answer())).await;
    let right = acme(stub.url("/"), &format!("{RUN}pay_to = \"{payee}\"\n"));
    assert_eq!(right.offer("run", &run_ask("python", 1)).await.unwrap(), offer(280));

    let other = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F";
    let wrong = acme(stub.url("/"), &format!("{RUN}pay_to = \"{other}\"\n"));
    let error = wrong.offer("run", &run_ask("python", 1)).await.unwrap_err();
    assert_eq!(error.fault, Fault::Terms);
}

#[tokio::test]
async fn only_a_readable_402_in_an_asset_of_ours_is_an_offer() {
    assert_no_offer_from_others(|url| acme(url, RUN), "run", &run_ask("python", 1)).await;
}

#[tokio::test]
async fn the_price_is_asked_with_a_sample() {
    let stub = stub(|| Reply::json(200, &answer())).await;
    let text = format!("{RUN}sample = \"print(1)\"\n");
    assert_eq!(acme(stub.url("/"), &text).offer("run", &run_ask("python", 9)).await.unwrap(), offer(280));
    let sent: Value = serde_json::from_slice(&stub.seen()[0].body).unwrap();
    assert_eq!((&sent["source"], &sent["language"]), (&json!("print(1)"), &json!("python")));
}

/// Text that tries to get out of its place.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        r#"[\\"{}\[\],:\x00-\x1f/ue0-9 ]{0,40}"#,
        Just(r#"","admin":true,"x":""#.to_owned()),
        Just("\\\",\\u0022}".to_owned()),
        Just("\u{2028}\u{2029}{text}{base64}".to_owned()),
    ]
}

fn filled(text: &str, order: &Order) -> Result<(String, Value), ProviderError> {
    let config = settings(&nowhere(), text);
    let (_, body) = Filling::of(&config, order, order.content.data.memory().unwrap()).body(&config.body)?;
    let bytes = futures_util::FutureExt::now_or_never(http_body_util::BodyExt::collect(body));
    let bytes = bytes.unwrap().unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Ok((text, value))
}

proptest! {
    #[test]
    fn nothing_a_client_sends_leaves_its_place(code in hostile(), filename in hostile()) {
        let mut order = order("run", run_ask("python", 0), code.as_bytes());
        order.content.filename = Some(filename.clone());
        let text = r#"
kind = "run"
body = '{"a": {"b": ["{text}", "{filename}"]}, "base64": "{base64}", "size": "{size}", "language": "{language}", "z": "end"}'
languages = ["python"]
result = { stdout = "/o" }
"#;
        let (_, sent) = filled(text, &order).unwrap();
        let base64 = base64_simd::STANDARD.encode_to_string(&code);
        let expected = json!({"a": {"b": [code, filename]}, "base64": base64, "size": code.len(),
            "language": "python", "z": "end"});
        prop_assert_eq!(sent, expected);
    }

    #[test]
    fn any_bytes_come_back_from_base64(bytes in any::<Vec<u8>>()) {
        let order = order("store_file", store_ask(Kind::File, false, None, 0), &bytes);
        let (_, sent) = filled(STORE, &order).unwrap();
        let data = sent["data"].as_str().unwrap();
        prop_assert_eq!(base64_simd::STANDARD.decode_to_vec(data).unwrap(), bytes);
    }

    /// A document is one value there, and anything that is not one document is refused, whoever let it in.
    #[test]
    fn a_document_is_one_value_or_refused(text in hostile(), tail in r#"[ \n]*(,"x":1|\}|\]|1)?"#) {
        const JSON: &str = "kind = \"store-json\"\nbody = '{\"doc\": \"{json}\", \"z\": \"end\"}'\nresult = { cid = \"/c\" }\n";
        let document = json!({ text.as_str(): [text, 1.5] }).to_string();
        for given in [format!("{document}{tail}"), text.clone(), format!(" {document}\n")] {
            let order = order("store_json", store_ask(Kind::Json, false, None, 0), given.as_bytes());
            match serde_json::from_str::<Value>(&given) {
                Ok(value) => prop_assert_eq!(filled(JSON, &order).unwrap().1, json!({"doc": value, "z": "end"})),
                Err(_) => prop_assert!(filled(JSON, &order).is_err(), "{}", given),
            }
        }
    }
}

#[test]
fn a_document_keeps_its_spelling() {
    const JSON: &str = "kind = \"store-json\"\nbody = '{\"doc\": \"{json}\"}'\nresult = { cid = \"/c\" }\n";
    let config = settings(&nowhere(), JSON);
    let given = br#" {"n": 1.00000000000000000000000000000001, "big": 1e400, "s": "\u0041"} "#;
    let order = order("store_json", store_ask(Kind::Json, false, None, 0), given);
    let (_, body) =
        Filling::of(&config, &order, order.content.data.memory().unwrap()).body(&config.body).unwrap();
    let bytes = futures_util::FutureExt::now_or_never(http_body_util::BodyExt::collect(body));
    let text = String::from_utf8(bytes.unwrap().unwrap().to_bytes().to_vec()).unwrap();
    let expected = format!("{{\"doc\":{}}}", std::str::from_utf8(given).unwrap().trim());
    assert_eq!(text, expected);
}

#[test]
fn a_request_has_one_id_whoever_sends_it_again() {
    let id = |order: &Order| {
        let config = settings(&nowhere(), RUN);
        let (_, body) =
            Filling::of(&config, order, order.content.data.memory().unwrap()).body(&config.body).unwrap();
        let bytes = futures_util::FutureExt::now_or_never(http_body_util::BodyExt::collect(body));
        let sent: Value = serde_json::from_slice(&bytes.unwrap().unwrap().to_bytes()).unwrap();
        sent["id"].as_str().unwrap().to_owned()
    };
    let first = order("run", run_ask("python", 0), b"1");
    let again = Order { attempt: 2, ..first.clone() };
    let other = order("run", run_ask("python", 0), b"1");
    assert_eq!(id(&first), id(&first.clone()));
    assert!(id(&first) != id(&again) && id(&first) != id(&other));
}
