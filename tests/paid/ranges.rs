//! Parts of stored files.

use galaksio::x402::Version;
use http::Method;

use crate::client::Request;
use crate::payer::Payer;
use crate::rig::Setup;
use crate::sold::{file, read_back};

#[test]
fn a_file_is_given_in_parts() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, bytes) = (gateway.client(), file());
    stage.run(async {
        let request = Request::post("/store?ttl=60", "image/png", bytes.clone());
        let answer = client.buy(&request, &Payer::new(), Version::V2).await;
        let url = answer.json()["result"]["url"].as_str().unwrap().to_owned();
        let path = url.strip_prefix("http://shop.example").unwrap().to_owned();
        let whole = client.send(&Request::get(&path)).await;
        read_back(&whole, &bytes);
        assert_eq!(whole.field("accept-ranges"), Some("bytes"));
        let etag = whole.field("etag").unwrap().to_owned();

        let length = bytes.len();
        let get = |range: &str| Request::get(&path).header("range", range);
        for (range, first, last) in
            [("bytes=0-9", 0, 9), ("bytes=5-", 5, length - 1), ("bytes=-4", length - 4, length - 1)]
        {
            for request in [get(range), get(range).header("if-range", &etag)] {
                let part = client.send(&request).await;
                assert_eq!((part.status, &part.body[..]), (206, &bytes[first..=last]), "{range}");
                let content_range = format!("bytes {first}-{last}/{length}");
                assert_eq!(part.field("content-range"), Some(content_range.as_str()));
                assert_eq!(part.field("etag"), Some(etag.as_str()));
                assert_eq!(part.field("content-type"), whole.field("content-type"));
                assert_eq!(part.field("x-content-type-options"), Some("nosniff"));
            }
        }
        // All of it: several at once, of another file, what cannot be read, and what is not GET.
        for request in
            [get("bytes=0-1,3-4"), get("bytes=0-1").header("if-range", "\"another\""), get("lines=1-2")]
        {
            read_back(&client.send(&request).await, &bytes);
        }
        let mut head = get("bytes=0-1");
        head.method = Method::HEAD;
        let head = client.send(&head).await;
        assert_eq!((head.status, head.field("content-length")), (200, Some(length.to_string().as_str())));

        let beyond = client.send(&get(&format!("bytes={length}-"))).await;
        beyond.expect(416, "range_not_satisfiable", None, None);
        assert_eq!(beyond.field("content-range"), Some(format!("bytes */{length}").as_str()));
        let known = client.send(&Request::get(&path).header("if-none-match", &etag)).await;
        assert_eq!((known.status, known.body.len(), known.field("etag")), (304, 0, Some(etag.as_str())));
    });
    // However often it was read.
    assert_eq!(stage.sales(), 1);
}
