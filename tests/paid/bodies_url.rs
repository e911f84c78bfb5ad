//! Data that is somewhere else: fetched from where the operator allows it, sold like data that is sent.

use galaksio::sandbox::Service;
use galaksio::x402::Version;
use serde_json::json;

use crate::client::Request;
use crate::payer::Payer;
use crate::rig::{Setup, Stage};
use crate::sold::{file, pinned, stored};

fn fetching(private: &str) -> Stage {
    Setup::new().toml_value("paid", "fetch_urls", "true").toml_value("paid", "fetch_private", private).start()
}

fn by_url(url: &str) -> Request {
    let options = json!({ "permanent": true });
    Request::json("/store", &json!({ "data": { "url": url }, "filename": "a.png", "options": options }))
}

#[test]
fn what_is_at_a_url_is_stored() {
    let stage = fetching("[\"127.0.0.0/8\"]");
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    // What was pinned before is what is fetched: a little, and more than is held in memory.
    for bytes in [file(), file().repeat(600)] {
        let request = Request::post("/store?permanent=true", "image/png", bytes.clone());
        let first = stage.run(client.buy(&request, &payer, Version::V2)).json();
        let url = first["result"]["url"].as_str().unwrap();
        for version in [Version::V1, Version::V2] {
            let request = by_url(url);
            let challenge = stage.run(client.challenge(&request));
            assert_eq!(challenge.json()["file_size_bytes"], bytes.len());
            let payment = payer.pay(&challenge.offer(version));
            let answer = stage.run(client.send(&request.clone().paid(&payment)));
            stored(&answer.json(), "openx402", bytes.len(), 0.012);
            assert_eq!(answer.json()["result"]["cid"], first["result"]["cid"]);
            let pinned = pinned(&stage, &answer.json());
            assert_eq!((pinned.body == bytes, pinned.field("content-type")), (true, Some("image/png")));
            let again = stage.run(client.send(&request.paid(&payment)));
            assert_eq!((again.status, &again.body), (200, &answer.body));
        }
    }
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (6, 6));
}

#[test]
fn nothing_inside_is_fetched() {
    let stage = fetching("[]");
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let payment = client.sign(&Request::run("1"), &payer, Version::V2).await;
        let port = stage.sandbox().urls.app.rsplit(':').next().unwrap().to_owned();
        let before = stage.movements();
        for url in [
            format!("http://127.0.0.1:{port}/hello"),
            format!("http://localhost:{port}/hello"),
            format!("http://[::ffff:127.0.0.1]:{port}/hello"),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            "http://10.0.0.1/".to_owned(),
            "ftp://example.com/a".to_owned(),
            "file:///etc/passwd".to_owned(),
        ] {
            let answer = client.send(&by_url(&url)).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "url_refused"), "{url}: {answer:?}");
            let answer = client.send(&by_url(&url).paid(&payment)).await;
            answer.expect(400, "url_refused", Some("no"), Some("never"));
        }
        assert_eq!(stage.movements(), before);
        assert!(stage.sandbox().requests.seen(Service::App).is_empty());
    });
}

#[test]
fn what_cannot_be_fetched_costs_nothing_and_not_many_are_asked() {
    let stage = fetching("[\"127.0.0.0/8\"]");
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let payment = client.sign(&Request::run("1"), &payer, Version::V2).await;
        let gone = by_url(&format!("{}/ipfs/none", stage.sandbox().urls.openx402));
        let before = stage.movements();
        // Unknown as far as anybody has looked: the payment may have bought it while it could be fetched.
        let answer = client.send(&gone.clone().paid(&payment)).await;
        answer.expect(502, "url_failed", Some("unknown"), Some("same_payment"));
        assert_eq!(stage.movements(), before);
        let mut codes = Vec::new();
        for _ in 0..61 {
            codes.push(client.send(&gone).await.code());
        }
        assert!(codes[..60].iter().all(|code| code == "url_failed"), "{codes:?}");
        assert_eq!(codes[60], "overloaded");
    });
}
