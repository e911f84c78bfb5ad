use serde_json::{Value, json};

use super::super::PurseError;
use super::super::testing::*;
use super::*;
use crate::outgoing::stub::{Reply, Stub, closed_url};

const CODE: &str = "print('hé')\n1+1";

fn merit(url: http::Uri) -> Merit {
    Merit::new(line(), resolved::Merit { url, max_code: 1000 })
}

async fn stub(paid: impl Fn() -> Reply + Send + Sync + 'static) -> Stub {
    Stub::start(move |seen| if is_paid(seen) { paid() } else { payment_required("280") }).await
}

fn answer() -> Value {
    json!({
        "results": [
            {"isMainResult": false, "text": "no", "png": "aaaa"},
            {"isMainResult": true, "text": "2", "html": null, "raw": {}},
        ],
        "logs": {"stdout": ["hé\n", "there\n"], "stderr": ["warning\n"]},
        "executionCount": 1, "cost": 0.00001, "sandboxId": "secret", "duration": 0.125,
    })
}

async fn run(paid: impl Fn() -> Reply + Send + Sync + 'static) -> Result<Map<String, Value>, ProviderError> {
    let stub = stub(paid).await;
    let order = order(EXECUTE, run_ask("python", 0), CODE.as_bytes());
    merit(stub.url("/x")).perform(&order, &FakePurse::default()).await.map(|done| done.result)
}

#[tokio::test]
async fn pays_once_and_maps_the_answer() {
    let stub = stub(|| Reply::json(200, &answer())).await;
    let purse = FakePurse::default();
    let order = order(EXECUTE, run_ask("python", 0), CODE.as_bytes());
    let done = merit(stub.url("/resource/e2b/execute")).perform(&order, &purse).await.unwrap();

    assert_eq!(purse.paid(), [("execute", crate::money::Amount::new(280))]);
    let seen = stub.seen();
    assert_eq!(seen.len(), 2);
    // Never to the challenge's `resource`, which does not exist.
    assert!(seen.iter().all(|seen| seen.method == "POST" && seen.target == "/resource/e2b/execute"));
    assert_eq!((is_paid(&seen[0]), is_paid(&seen[1])), (false, true));
    assert_eq!(serde_json::from_slice::<Value>(&seen[1].body).unwrap(), json!({"snippet": CODE}));
    assert_only_our_headers(&seen);

    assert_eq!(done.stored, None);
    let expected = json!({"stdout": "hé\nthere\n", "stderr": "warning\n", "exitCode": 0,
        "executionTime": 0.125, "text": "2", "provider": "merit-systems"});
    assert_eq!(Value::Object(done.result), expected);
}

#[tokio::test]
async fn an_exception_of_the_program_is_work_done() {
    let with = |error: Value| {
        let mut body = answer();
        body["error"] = error;
        body
    };
    let table = [
        (json!({"name": "E", "value": "v", "traceback": "Traceback\nE: v"}), "warning\nTraceback\nE: v"),
        (
            json!({"name": "E", "value": "v", "traceback": ["Traceback\n", "E: v"]}),
            "warning\nTraceback\nE: v",
        ),
        (json!({"name": "E", "value": "v"}), "warning\nE: v"),
    ];
    for (error, stderr) in table {
        let body = with(error);
        let result = run(move || Reply::json(200, &body)).await.unwrap();
        assert_eq!((&result["exitCode"], &result["stderr"]), (&json!(1), &json!(stderr)));
    }
    let body = with(Value::Null);
    assert_eq!(run(move || Reply::json(200, &body)).await.unwrap()["exitCode"], 0);
}

#[tokio::test]
async fn missing_output_is_empty_output() {
    let result = run(|| Reply::json(200, &json!({"logs": {}}))).await.unwrap();
    let expected = json!({"stdout": "", "stderr": "", "exitCode": 0, "provider": "merit-systems"});
    assert_eq!(Value::Object(result), expected);
}

#[tokio::test]
async fn what_only_looks_like_success_is_a_failure() {
    type Row = (Fault, fn() -> Reply);
    let table: [Row; 10] = [
        (Fault::Unpaid, || payment_required("280")),
        (Fault::Refused, || Reply::json(400, &json!({"error": "Invalid body", "issues": []}))),
        (Fault::Broken, || Reply::json(500, &json!({"error": "Internal server error"}))),
        (Fault::Broken, || Reply::json(200, &json!({"output": "x"}))),
        (Fault::Broken, || Reply::json(200, &json!([]))),
        (Fault::Broken, || Reply::html(200)),
        (Fault::Broken, || Reply::Http(302, vec![("location", "/".into())], vec![])),
        (Fault::Broken, || Reply::Raw(b"garbage\r\n\r\n".to_vec())),
        (Fault::Broken, || Reply::Http(200, vec![], vec![b' '; MAX_ANSWER + 1])),
        (Fault::Unreachable, Reply::drop),
    ];
    for (row, (fault, reply)) in table.into_iter().enumerate() {
        let stub = stub(reply).await;
        let purse = FakePurse::default();
        let order = order(EXECUTE, run_ask("python", 0), CODE.as_bytes());
        let error = merit(stub.url("/")).perform(&order, &purse).await.unwrap_err();
        assert_eq!(error.fault, fault, "row {row}: {error}");
        // The payment is out after the first try: it is not sent again.
        assert_eq!((stub.seen().len(), purse.paid().len()), (2, 1), "row {row}");
    }
}

#[tokio::test]
async fn the_deadline_ends_a_paid_call() {
    let stub = stub(|| Reply::Stall(b"HTTP/1.1 200 OK\r\n")).await;
    let purse = FakePurse::default();
    let mut order = order(EXECUTE, run_ask("python", 0), CODE.as_bytes());
    order.deadline = PAUSES;
    let error = merit(stub.url("/")).perform(&order, &purse).await.unwrap_err();
    assert_eq!((error.fault, purse.paid().len()), (Fault::Timeout, 1));
}

#[tokio::test]
async fn nothing_is_signed_for_a_provider_that_is_away() {
    let order = order(EXECUTE, run_ask("python", 0), CODE.as_bytes());
    let purse = FakePurse::default();
    let error = merit(closed_url("/").await).perform(&order, &purse).await.unwrap_err();
    assert_eq!((error.fault, purse.paid().len()), (Fault::Unreachable, 0));

    let stub = Stub::start(|_| Reply::json(500, &json!({}))).await;
    let error = merit(stub.url("/")).perform(&order, &purse).await.unwrap_err();
    assert_eq!((error.fault, purse.paid().len()), (Fault::Broken, 0));
}

#[tokio::test]
async fn nothing_is_sent_when_the_purse_refuses() {
    for (refusal, fault) in [
        (PurseError::Terms("dearer".into()), Fault::Terms),
        (PurseError::Late, Fault::Terms),
        (PurseError::Journal("away".into()), Fault::Internal),
    ] {
        let stub = stub(|| Reply::json(200, &answer())).await;
        let order = order(EXECUTE, run_ask("python", 0), CODE.as_bytes());
        let outcome = merit(stub.url("/")).perform(&order, &FakePurse::refusing(refusal)).await;
        assert_eq!(outcome.unwrap_err().fault, fault);
        assert!(!stub.seen().iter().any(is_paid));
    }
}

#[tokio::test]
async fn code_that_is_not_text_is_refused_before_anything_is_sent() {
    let stub = stub(|| Reply::json(200, &answer())).await;
    let order = order(EXECUTE, run_ask("python", 0), b"\xff\xfe");
    let error = merit(stub.url("/")).perform(&order, &FakePurse::default()).await.unwrap_err();
    assert_eq!((error.fault, stub.seen().len()), (Fault::Refused, 0));
}

#[tokio::test]
async fn offers_what_its_402_says_and_nothing_else() {
    let stub = stub(Reply::drop).await;
    let ask = run_ask("python", 10);
    assert_eq!(merit(stub.url("/")).offer(EXECUTE, &ask).await, Ok(offer(280)));
    assert_only_our_headers(&stub.seen());
    assert_no_offer_from_others(merit, EXECUTE, &ask).await;
}

#[test]
fn sells_python_programs_of_its_size() {
    let merit = merit("https://merit.example/".parse().unwrap());
    assert_eq!(merit.sells(&run_ask("python", 1000)), Ok(EXECUTE));
    let size = NotSold::Size { provider: NAME, limit: 1000 };
    assert_eq!(merit.sells(&run_ask("python", 1001)), Err(size));
    let option = NotSold::Option { provider: NAME, option: "language \"ruby\"".into() };
    assert_eq!(merit.sells(&run_ask("ruby", 1)), Err(option));
    let store = store_ask(crate::intake::Kind::Code, false, None, 1);
    assert_eq!(merit.sells(&store), Err(NotSold::Operation { provider: NAME }));
}
