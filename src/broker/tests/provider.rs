//! From a provider's result to an answer: how large it may be to be kept, and how long a file's name is.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::*;
use crate::intake::{Ask, Content, Encoding, Kind, Wanted};
use crate::providers::{Done, NotSold, Operation, Order, Provider, ProviderError, StoredHandle};
use crate::quote_cache::Dollars;

struct Seller {
    result: Map<String, Value>,
    stored: Option<StoredHandle>,
}

#[async_trait]
impl Provider for Seller {
    fn name(&self) -> &'static str {
        "seller"
    }

    fn sells(&self, _: &Ask) -> Result<Operation, NotSold> {
        Ok("sell")
    }

    async fn offer(&self, _: Operation, _: &Ask) -> Result<Offer, ProviderError> {
        Ok(offer(usdc(), COST))
    }

    async fn perform(&self, _: &Order, _: &dyn Purse) -> Result<Done, ProviderError> {
        Ok(Done { result: self.result.clone(), stored: self.stored.clone(), passed: None })
    }
}

async fn sale(stage: &Stage, wanted: Wanted, seller: Seller, result_max: u64) -> Sale {
    let values = crate::jobs::memory::MemoryStore::new(stage.clock.clone());
    let work = ProviderWork {
        provider: Arc::new(seller),
        operation: "sell".into(),
        ask: Ask { wanted, kind: Kind::Code, size: 3, files: 1 },
        content: content(b"abc"),
        offer: offer(usdc(), COST),
        at_most: Dollars { units: Amount::new(PRICE), decimals: 6 },
        passed_over: Vec::new(),
        quotes: crate::quote_cache::testing::cache(&[], &values, &stage.clock).await,
        files: stage.store.clone(),
        metrics: Arc::new(Metrics::new()),
        guards: Arc::clone(stage.broker.guards()),
        files_url: "https://api.example.com/files/".into(),
        result_max,
        jobs_url: None,
        later: false,
        results: Results::none(),
    };
    Sale { work: Box::new(work), ..stage.sale(1, &[]) }
}

pub(super) fn content(bytes: &[u8]) -> Content {
    Content {
        data: Bytes::copy_from_slice(bytes).into(),
        digest: [0; 32],
        encoding: Encoding::Raw,
        filename: None,
        content_type: None,
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// What a program prints is the client's to choose; the record of its job is read and kept by us.
#[tokio::test(start_paused = true)]
async fn a_result_over_the_limit_is_given_once_and_not_kept() {
    let stage = Stage::new();
    let run = Wanted::Run { language: "python".into() };
    let done = || Seller { result: object(json!({ "stdout": "\u{0}".repeat(2_000) })), stored: None };
    let said = stage.sell(sale(&stage, run.clone(), done(), 10_000).await).await;
    assert_eq!((said.reason, said.status, said.body.as_str()), (Reason::Paid, 200, "a stream"));
    assert_eq!(stage.job(1).await.answer.unwrap().body, Kept::Not);
    let said = stage.sell(sale(&stage, run, done(), 10_000).await).await;
    assert!(said.is(Reason::NotKept, Charged::Yes) && said.receipt.is_some(), "{said:?}");
}

/// A file's name outlives neither the file nor the store's patience.
#[tokio::test(start_paused = true)]
async fn a_file_is_named_for_as_long_as_it_is_kept() {
    let stage = Stage::new();
    let stored =
        StoredHandle { provider: "seller".into(), handle: "secret".into(), content_type: None, size: 3 };
    let done = Seller { result: object(json!({ "ttl": 60 })), stored: Some(stored) };
    let store = Wanted::Store { permanent: false, ttl: None };
    let said = stage.sell(sale(&stage, store, done, 10_000).await).await;
    let answer: Value = serde_json::from_str(&said.body).unwrap();
    assert!(!said.body.contains("secret"));
    let url = answer["result"]["url"].as_str().unwrap();
    let id = url.strip_prefix("https://api.example.com/files/").unwrap();
    assert!(stage.broker.jobs().get(FILES, id).await.unwrap().is_some());
    stage.clock.advance(61_000);
    assert!(stage.broker.jobs().get(FILES, id).await.unwrap().is_none());
}
