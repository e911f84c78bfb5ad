//! Many large bodies at once: what each takes of the gateway's memory is a few buffers, in whichever way it comes.

use bytes::Bytes;
use galaksio::sandbox::Service;
use galaksio::x402::Version;
use tokio::task::JoinSet;

use crate::bodies::{FORM, form};
use crate::client::Request;
use crate::payer::Payer;
use crate::rig::{Setup, eventually};
use crate::sold::base64;

const MANY: usize = 16;
/// Of each file; over what is held in memory.
const LARGE: usize = 6 << 20;
/// What all may take at their peak: 2 MiB each, a third of what it brings, of connection, decoder, file and allocator.
const AT_MOST: u64 = 16 * (2 << 20);

#[test]
fn memory_stays_flat_while_many_come_at_once() {
    let stage = Setup::new().text("paid", "work_timeout", "60s").start();
    let gateway = stage.process();
    let payer = Payer::new();
    let file: Vec<u8> = (0..LARGE).map(|at| (at * 7 % 251) as u8).collect();
    let json = format!("{{\"data\":\"{}\",\"options\":{{\"permanent\":true}}}}", base64(&file));
    let ways = [
        ("raw", Request::post("/store?permanent=true", "image/png", file.clone())),
        ("a form", Request::post("/store", FORM, form(&[("permanent", "true")], "a.png", &file))),
        ("JSON", Request::post("/store", "application/json", Bytes::from(json))),
    ];
    stage.run(async {
        let client = gateway.client();
        let small = Request::post("/store?permanent=true", "image/png", vec![7; 10]);
        eventually("a challenge", async || (client.send(&small).await.status == 402).then_some(())).await;
        // The first of each is for everything that is made once.
        for (_, request) in &ways {
            assert_eq!(client.buy(request, &payer, Version::V2).await.status, 200);
        }
        let idle = gateway.resident();
        for (name, request) in &ways {
            let challenge = client.challenge(request).await.offer(Version::V2);
            gateway.forget();
            let mut buying = JoinSet::new();
            for _ in 0..MANY {
                let (client, paid) = (client.clone(), request.clone().paid(&payer.pay(&challenge)));
                buying.spawn(async move { client.send(&paid).await.status });
            }
            assert_eq!(buying.join_all().await, [200; MANY], "{name}");
            let grown = gateway.peak().saturating_sub(idle);
            println!("{name}: {} KiB", grown / 1024);
            assert!(grown < AT_MOST, "{name}: memory grew by {} KiB", grown / 1024);
        }
    });
    assert_eq!(stage.purchases(Service::OpenX402), ways.len() * (MANY + 1));
}
