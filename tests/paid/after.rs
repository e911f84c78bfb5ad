//! Routes that are answered before they are settled.

use galaksio::money::Amount;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::{Receipt, Version};

use crate::client::{Answer, Client, Request};
use crate::payer::Payer;
use crate::rig::{Setup, Stage, eventually};

const ROUTES: &str = r#"
[[routes]]
path = "/premium/*"
methods = ["GET"]
price = "$0.001"
settle = "after"
[[routes]]
path = "/echo"
methods = ["POST"]
price = "$0.002"
settle = "after"
[[routes]]
path = "/events"
methods = ["GET"]
price = "$0.003"
settle = "after"
[[routes]]
path = "/status/*"
methods = ["GET"]
price = "$0.004"
settle = "after"
"#;

fn setup() -> Setup {
    Setup::new().routes(ROUTES).text("paid", "status_path", "/state")
}

/// The URL that an answer without a receipt names; its path.
fn unsettled(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(Receipt::from_headers(&answer.headers), None, "a receipt before the settlement");
    assert_eq!(answer.field("galaksio-charged"), Some("unknown"));
    let link = answer.field("link").unwrap();
    let url = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"status\"")).unwrap();
    url[url.find("/jobs/").unwrap()..].to_owned()
}

/// What is said there once the job is done.
async fn ended(client: &Client, path: &str) -> serde_json::Value {
    eventually("the job is done", async || {
        let job = client.send(&Request::get(&format!("{path}?wait=5"))).await.json();
        (job["status"] != "running").then_some(job)
    })
    .await
}

#[test]
fn it_is_answered_and_then_paid_for_once() {
    let stage = setup().start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        for (number, version) in [(1, Version::V1), (2, Version::V2)] {
            let request = Request::post("/echo", "text/plain", "hello");
            let payment = client.sign(&request, &payer, version).await;
            assert_eq!(payment.document["accepted"]["extra"].get("paymentFlow"), None);
            let paid = request.paid(&payment);
            let answer = client.send(&paid).await;
            assert_eq!(answer.body, "hello");
            let job = ended(&client, &unsettled(&answer)).await;
            assert_eq!((&job["status"], &job["charged"]), (&"completed".into(), &"yes".into()), "{job}");
            // The same payment again: the same answer, and by now a receipt.
            let again = client.send(&paid).await;
            assert_eq!((again.body.as_ref(), again.field("galaksio-charged")), (b"hello".as_slice(), None));
            assert_eq!(again.receipt().transaction, job["payment"]["transaction"].as_str().unwrap());
            assert_eq!(stage.sales(), number);
        }
    });
    assert_eq!(stage.sandbox().requests.count(Service::App, "/echo"), 2);
}

#[test]
fn a_stream_begins_before_it_is_paid_for() {
    use http_body_util::BodyExt;
    let stage = setup().start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        // The second event comes a minute after the first: nobody here waits for it.
        let request = Request::get("/events?count=2&ms=60000");
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        let mut answer = client.open(&paid).await;
        assert_eq!(answer.headers()["galaksio-charged"], "unknown");
        let event = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(event, "id: 0\ndata: {\"number\":0}\n\n");
        drop(answer);
        eventually("it is paid for", async || (stage.sales() == 1).then_some(())).await;
    });
}

#[test]
fn what_the_app_calls_an_error_is_not_charged() {
    let stage = setup().start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let answer = client.buy(&Request::get("/status/404"), &payer, Version::V2).await;
        assert_eq!((answer.status, answer.field("galaksio-charged")), (404, None));
        stage.sandbox().faults.add(Service::App, Rule::always(Fault::Drop));
        let answer = client.buy(&Request::get("/premium/report"), &payer, Version::V2).await;
        answer.expect(502, "app_unreachable", Some("no"), Some("same_payment"));
        let link = answer.field("link");
        assert_eq!(link, None, "only where there is something to wait for");
    });
    assert_eq!(stage.movements(), 0);
}

#[test]
fn who_does_not_pay_once_pays_first() {
    let stage = setup().start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::get("/premium/report");
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        emptied(&stage, &payer);
        let answer = client.send(&paid).await;
        assert_eq!(answer.json()["title"], "Monthly report");
        let job = ended(&client, &unsettled(&answer)).await;
        assert_eq!((&job["code"], &job["charged"]), (&"uncollected".into(), &"no".into()), "{job}");
        client.send(&paid).await.expect(402, "uncollected", Some("no"), Some("new_payment"));
        assert_eq!(stage.sales(), 0);

        // Settled before the work: no work without the money, and with it a receipt.
        let worked = stage.sandbox().requests.count(Service::App, "/premium/report");
        let answer = client.buy(&request, &payer, Version::V2).await;
        answer.expect(402, "payment_rejected", Some("no"), Some("new_payment"));
        assert_eq!(stage.sandbox().requests.count(Service::App, "/premium/report"), worked);
        stage.sandbox().ledger.set_balance(payer.address(), Amount::new(1_000_000));
        let answer = client.buy(&request, &payer, Version::V2).await;
        assert!(answer.receipt().success);
        // Others are trusted as before.
        unsettled(&client.buy(&request, &Payer::new(), Version::V2).await);
    });
}

#[test]
fn when_as_much_is_lost_as_may_be_it_is_settled_first() {
    let stage = setup().text("limits", "uncollected_per_hour", "$0.001").start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::get("/premium/report");
        let first = client.buy(&request, &Payer::new(), Version::V2).await;
        ended(&client, &unsettled(&first)).await;
        emptied(&stage, &payer);
        let second = client.buy(&request, &payer, Version::V2).await;
        ended(&client, &unsettled(&second)).await;
        let third = client.buy(&request, &Payer::new(), Version::V2).await;
        assert!(third.receipt().success);
        assert_eq!(third.field("galaksio-charged"), None);
    });
    assert_eq!(stage.sales(), 2);
}

/// This payer has nothing, and the facilitator does not see it the next time that it is asked to verify.
fn emptied(stage: &Stage, payer: &Payer) {
    stage.sandbox().ledger.set_balance(payer.address(), Amount::ZERO);
    stage.sandbox().faults.add(Service::Facilitator, Rule::next(1, Fault::Lie).at("/verify"));
}
