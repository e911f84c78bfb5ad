use serde_json::{Value, json};

use super::super::PurseError;
use super::super::testing::*;
use super::*;
use crate::money::Amount;
use crate::outgoing::stub::{Reply, Seen, Stub};

const CID: &str = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG";

fn openx402(url: http::Uri) -> OpenX402 {
    OpenX402::new(line(), resolved::OpenX402 { url, max_file: 1000 })
}

fn uploaded(size: usize) -> Reply {
    Reply::json(
        200,
        &json!({"success": true, "id": "up-1", "filename": "f", "size": size, "expiresIn": 3600,
            "paymentUrl": "http://127.0.0.1:1/elsewhere/up-1"}),
    )
}

fn pinned() -> Reply {
    Reply::json(
        200,
        &json!({"success": true, "id": "p1", "ipfsHash": CID, "fileName": "f", "fileSize": 5,
            "pinataUrl": format!("https://gateway.pinata.cloud/ipfs/{CID}")}),
    )
}

/// Uploads are free, all else is paid for.
async fn stub(paid: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Stub {
    Stub::start(move |seen| match seen.target.as_str() {
        "/base/upload" => uploaded(5),
        _ if is_paid(seen) => paid(seen),
        _ => payment_required("10000"),
    })
    .await
}

fn file() -> Order {
    order(PIN, store_ask(Kind::File, true, None, 0), b"\x00\x01\x02\r\n")
}

fn targets(stub: &Stub) -> Vec<(String, bool)> {
    stub.seen().iter().map(|seen| (format!("{} {}", seen.method, seen.target), is_paid(seen))).collect()
}

#[tokio::test]
async fn a_file_is_uploaded_free_and_pinned_for_money() {
    let stub = stub(|_| pinned()).await;
    let purse = FakePurse::default();
    let done = openx402(stub.url("/base/")).perform(&file(), &purse).await.unwrap();

    assert_eq!(purse.paid(), [("pin", Amount::new(10_000))]);
    let expected =
        [("POST /base/upload", false), ("GET /base/pin/up-1", false), ("GET /base/pin/up-1", true)];
    assert_eq!(targets(&stub), expected.map(|(target, paid)| (target.to_owned(), paid)));
    let seen = stub.seen();
    assert_only_our_headers(&seen);

    let kind = seen[0].headers["content-type"].to_str().unwrap();
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
    let expected = [
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"note.bin\"\r\n")
            .as_bytes(),
        b"Content-Type: application/x-note\r\n\r\n\x00\x01\x02\r\n",
        format!("\r\n--{boundary}--\r\n").as_bytes(),
    ]
    .concat();
    assert_eq!(seen[0].body, expected);

    let url = format!("https://gateway.pinata.cloud/ipfs/{CID}");
    let expected = json!({"success": true, "cid": CID, "ipfsHash": CID, "url": url, "ipfsUrl": url,
        "pinataUrl": url, "size": 5, "endpoint": "/pin", "provider": "openx402"});
    assert_eq!(Value::Object(done.result), expected);
    assert_eq!(done.stored, None);
}

#[tokio::test]
async fn a_document_is_pinned_in_one_paid_request() {
    let stub = stub(|_| pinned()).await;
    let purse = FakePurse::default();
    let document = br#"{"b":1,"a":[2]}"#;
    let order = order(PIN_JSON, store_ask(Kind::Json, false, None, 0), document);
    let done = openx402(stub.url("/base")).perform(&order, &purse).await.unwrap();

    assert_eq!(purse.paid(), [("pin_json", Amount::new(10_000))]);
    let seen = stub.seen();
    assert!(seen.iter().all(|seen| seen.method == "POST" && seen.target == "/base/pin/json"));
    let bodies: Vec<_> = seen.iter().map(|seen| (is_paid(seen), &seen.body[..])).collect();
    // The probe holds nothing of the client's.
    assert_eq!(bodies, [(false, &b"{}"[..]), (true, &document[..])]);
    assert_eq!(seen[1].headers["content-type"], "application/json");
    assert_eq!((&done.result["endpoint"], &done.result["cid"]), (&json!("/pin/json"), &json!(CID)));
    assert_only_our_headers(&seen);
}

#[tokio::test]
async fn a_document_that_is_not_json_is_refused_before_anything_is_sent() {
    let stub = stub(|_| pinned()).await;
    let order = order(PIN_JSON, store_ask(Kind::Json, false, None, 0), b"{\"a\":");
    let error = openx402(stub.url("/base")).perform(&order, &FakePurse::default()).await.unwrap_err();
    assert_eq!((error.fault, stub.seen().len()), (Fault::Refused, 0));
}

#[tokio::test]
async fn a_failed_upload_costs_nothing() {
    type Row = (&'static str, Fault, fn() -> Reply);
    let table: [Row; 9] = [
        ("413", Fault::Refused, || Reply::html(413)),
        ("500", Fault::Broken, || Reply::html(500)),
        ("HTML", Fault::Broken, || Reply::html(200)),
        ("no id", Fault::Broken, || Reply::json(200, &json!({"success": true}))),
        ("an id that leads elsewhere", Fault::Broken, || Reply::json(200, &json!({"id": "../upload?x"}))),
        ("not a success", Fault::Broken, || Reply::json(200, &json!({"success": false, "id": "a"}))),
        ("cut short", Fault::Broken, || uploaded(4)),
        ("a price", Fault::Refused, || payment_required("1")),
        ("drop", Fault::Unreachable, Reply::drop),
    ];
    for (row, fault, reply) in table {
        let stub = Stub::start(move |_| reply()).await;
        let purse = FakePurse::default();
        let error = openx402(stub.url("")).perform(&file(), &purse).await.unwrap_err();
        assert_eq!((error.fault, purse.paid().len(), stub.seen().len()), (fault, 0, 1), "{row}: {error}");
    }
}

#[tokio::test]
async fn a_pin_without_a_cid_is_a_failure() {
    type Row = (Fault, fn() -> Reply);
    let table: [Row; 8] = [
        (Fault::Unpaid, || payment_required("10000")),
        (Fault::Refused, || Reply::html(404)),
        (Fault::Broken, || Reply::json(500, &json!({"ipfsHash": CID}))),
        (Fault::Broken, || Reply::json(200, &json!({"success": true}))),
        (Fault::Broken, || Reply::json(200, &json!({"ipfsHash": 7}))),
        (Fault::Broken, || Reply::json(200, &json!({"ipfsHash": "../x"}))),
        (Fault::Broken, || Reply::json(200, &json!({"success": false, "ipfsHash": CID}))),
        (Fault::Unreachable, Reply::drop),
    ];
    for (row, (fault, reply)) in table.into_iter().enumerate() {
        let stub = stub(move |_| reply()).await;
        let purse = FakePurse::default();
        let error = openx402(stub.url("/base")).perform(&file(), &purse).await.unwrap_err();
        assert_eq!((error.fault, purse.paid().len()), (fault, 1), "row {row}: {error}");
        assert_eq!(stub.seen().iter().filter(|seen| is_paid(seen)).count(), 1, "row {row}");
    }
}

#[tokio::test]
async fn the_url_is_theirs_if_it_is_one_of_the_file() {
    let gateway = format!("https://gateway.pinata.cloud/ipfs/{CID}");
    let table = [
        (json!(format!("http://127.0.0.1:9/ipfs/{CID}")), format!("http://127.0.0.1:9/ipfs/{CID}")),
        (json!("https://elsewhere.example/"), gateway.clone()),
        (json!(format!("javascript:{CID}")), gateway.clone()),
        (json!(null), gateway),
    ];
    for (theirs, expected) in table {
        let stub = stub(move |_| Reply::json(200, &json!({"ipfsHash": CID, "pinataUrl": theirs}))).await;
        let done = openx402(stub.url("/base")).perform(&file(), &FakePurse::default()).await.unwrap();
        assert_eq!(done.result["url"], expected);
    }
}

#[tokio::test]
async fn nothing_is_sent_when_the_purse_refuses() {
    let stub = stub(|_| pinned()).await;
    let purse = FakePurse::refusing(PurseError::Late);
    let error = openx402(stub.url("/base")).perform(&file(), &purse).await.unwrap_err();
    assert_eq!(error.fault, Fault::Terms);
    assert!(!stub.seen().iter().any(is_paid));
}

#[tokio::test]
async fn offers_what_its_402_says_and_nothing_else() {
    let stub = stub(|_| pinned()).await;
    let ask = store_ask(Kind::File, false, None, 10);
    let openx402_at = openx402(stub.url("/base"));
    for operation in [PIN, PIN_JSON] {
        assert_eq!(openx402_at.offer(operation, &ask).await, Ok(offer(10_000)));
        assert_no_offer_from_others(openx402, operation, &ask).await;
    }
    let expected = ["GET /base/pin/quote_request", "POST /base/pin/json"];
    assert_eq!(targets(&stub), expected.map(|target| (target.to_owned(), false)));
}

#[test]
fn sells_permanent_and_other_stores_without_a_ttl() {
    let openx402 = openx402("https://ipfs.example/".parse().unwrap());
    for permanent in [true, false] {
        assert_eq!(openx402.sells(&store_ask(Kind::File, permanent, None, 1000)), Ok(PIN));
        assert_eq!(openx402.sells(&store_ask(Kind::Json, permanent, None, 1000)), Ok(PIN_JSON));
    }
    let size = NotSold::Size { provider: NAME, limit: 1000 };
    assert_eq!(openx402.sells(&store_ask(Kind::File, true, None, 1001)), Err(size));
    let option = NotSold::Option { provider: NAME, option: "ttl 60".into() };
    assert_eq!(openx402.sells(&store_ask(Kind::File, false, Some(60), 1)), Err(option));
    assert_eq!(openx402.sells(&run_ask("python", 1)), Err(NotSold::Operation { provider: NAME }));
}
