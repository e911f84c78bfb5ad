//! Several files at one provider: which of them are bought, and when buying ends.

use serde_json::{Value, json};

use super::provider::content;
use super::*;
use crate::broker::BatchWork;
use crate::intake::{Ask, Kind, Wanted};
use crate::jobs::job::Fate;
use crate::providers::{Done, Fault, NotSold, Operation, Order, Provider, ProviderError};
use crate::quote_cache::Dollars;
use crate::reason::Reason;

/// Of one file, of five.
const EACH: u128 = PRICE / 5;

/// What becomes of a file.
#[derive(Clone, Copy)]
enum Does {
    Stores,
    /// Before it is paid.
    Fails(Fault),
    /// After it is paid.
    Takes(Fault),
    /// It is paid, and takes this long.
    Takes60s,
    Hangs,
}

struct Seller {
    does: [Does; 5],
    asked: Mutex<Vec<u16>>,
}

#[async_trait]
impl Provider for Seller {
    fn name(&self) -> &'static str {
        "seller"
    }

    fn sells(&self, _: &Ask) -> Result<Operation, NotSold> {
        Ok("pin")
    }

    async fn offer(&self, _: Operation, _: &Ask) -> Result<Offer, ProviderError> {
        Ok(offer(usdc(), EACH))
    }

    async fn perform(&self, order: &Order, purse: &dyn Purse) -> Result<Done, ProviderError> {
        assert_eq!((order.ask.files, order.ask.size), (1, u64::from(order.part)));
        self.asked.lock().push(order.part);
        let does = self.does[usize::from(order.part) - 1];
        if let Does::Fails(fault) = does {
            return Err(ProviderError::new(fault, "as told"));
        }
        pay(&Log::default(), purse, "pin", usdc(), EACH)
            .await
            .map_err(|error| ProviderError::new(Fault::Terms, error.message))?;
        match does {
            Does::Takes(fault) => return Err(ProviderError::new(fault, "as told")),
            Does::Takes60s => tokio::time::sleep(Duration::from_secs(60)).await,
            Does::Hangs => std::future::pending().await,
            Does::Stores | Does::Fails(_) => {}
        }
        let result = json!({ "success": true, "cid": format!("cid {}", order.part) });
        Ok(Done { result: result.as_object().unwrap().clone(), ..Done::default() })
    }
}

async fn sale(stage: &Stage, does: [Does; 5]) -> (Sale, Arc<Seller>) {
    let values = crate::jobs::memory::MemoryStore::new(stage.clock.clone());
    let seller = Arc::new(Seller { does, asked: Mutex::default() });
    let file = |size: usize| content(&vec![b'x'; size]);
    let wanted = Wanted::Store { permanent: true, ttl: None };
    let work = ProviderWork {
        provider: seller.clone(),
        operation: "pin".into(),
        ask: Ask { wanted, kind: Kind::File, size: 10, files: 5 },
        content: file(1),
        offer: offer(usdc(), EACH),
        at_most: Dollars { units: Amount::new(PRICE), decimals: 6 },
        passed_over: Vec::new(),
        quotes: crate::quote_cache::testing::cache(&[], &values, &stage.clock).await,
        files: stage.store.clone(),
        metrics: Arc::new(Metrics::new()),
        guards: Arc::clone(stage.broker.guards()),
        files_url: String::new(),
        result_max: 10_000,
        jobs_url: None,
        later: false,
        results: Results::none(),
    };
    let work = BatchWork { work, files: (1..=5).map(file).collect() };
    let sale = stage.sale(1, &[]);
    (Sale { work: Box::new(work), offer: Some(offer(usdc(), EACH)), ..sale }, seller)
}

/// What came of each file: its CID, or the code of its failure.
fn outcomes(said: &Said) -> Vec<String> {
    let body: Value = serde_json::from_str(&said.body).unwrap();
    let results = body["result"]["results"].as_array().unwrap();
    let of = |result: &Value| result["cid"].as_str().or(result["code"].as_str()).unwrap().to_owned();
    results.iter().map(of).collect()
}

/// Which files are ordered, what they come to, and what is owed of five.
#[tokio::test(start_paused = true)]
async fn buying_goes_on_while_it_is_of_use_and_costs_nothing_to_fail() {
    use Does::*;
    let failed = "provider_failed";
    let table = [
        ([Stores; 5], 5, ["cid 1", "cid 2", "cid 3", "cid 4", "cid 5"], 0),
        // What is refused unpaid is about that file alone.
        (
            [Fails(Fault::Refused), Stores, Stores, Fails(Fault::Broken), Stores],
            5,
            [failed, "cid 2", "cid 3", failed, "cid 5"],
            2,
        ),
        // What would be met again.
        (
            [Stores, Fails(Fault::Unreachable), Stores, Stores, Stores],
            2,
            ["cid 1", failed, failed, failed, failed],
            4,
        ),
        (
            [Stores, Stores, Fails(Fault::Timeout), Stores, Stores],
            3,
            ["cid 1", "cid 2", "provider_timeout", "provider_timeout", "provider_timeout"],
            3,
        ),
        (
            [Stores, Fails(Fault::Guarded(Reason::WalletFrozen)), Stores, Stores, Stores],
            2,
            ["cid 1", "wallet_frozen", "wallet_frozen", "wallet_frozen", "wallet_frozen"],
            4,
        ),
        // It took the money once; or may have.
        (
            [Stores, Stores, Stores, Takes(Fault::Broken), Stores],
            4,
            ["cid 1", "cid 2", "cid 3", failed, failed],
            2,
        ),
        (
            [Stores, Takes(Fault::Refused), Stores, Stores, Stores],
            2,
            ["cid 1", failed, failed, failed, failed],
            4,
        ),
        // 120 seconds are left for it all, less what settling and answering may need.
        (
            [Takes60s; 5],
            2,
            ["cid 1", "provider_timeout", "provider_timeout", "provider_timeout", "provider_timeout"],
            4,
        ),
        (
            [Stores, Hangs, Stores, Stores, Stores],
            2,
            ["cid 1", "provider_timeout", "provider_timeout", "provider_timeout", "provider_timeout"],
            4,
        ),
    ];
    for (row, (does, asked, expected, missing)) in table.into_iter().enumerate() {
        let stage = Stage::new();
        let (sale, seller) = sale(&stage, does).await;
        let said = stage.sell(sale).await;
        assert_eq!(
            (said.reason, said.status),
            (Reason::Paid, if missing == 0 { 200 } else { 207 }),
            "row {row}"
        );
        assert_eq!(outcomes(&said), expected, "row {row}");
        assert_eq!(*seller.asked.lock(), (1..=asked).collect::<Vec<_>>(), "row {row}");
        let job = stage.job(1).await;
        let state = if missing == 0 { State::Completed } else { State::RefundDue };
        assert_eq!((job.state, job.schema), (state, 2), "row {row}");
        let owed = job.shortfall.as_ref().map_or(0, |shortfall| shortfall.owed.units());
        assert_eq!(owed, EACH * missing, "row {row}");
        // A payment of its own for each, vouched for where the file is there.
        for payment in &job.provider {
            let part: usize = payment.step.strip_prefix("pin/").unwrap().parse().unwrap();
            let stored = expected[part - 1].starts_with("cid");
            assert_eq!(payment.fate, if stored { Fate::Spent } else { Fate::Open }, "row {row}");
            assert_eq!(payment.amount, Amount::new(EACH));
        }
        let stored = expected.iter().filter(|outcome| outcome.starts_with("cid")).count();
        assert!((stored..=stored + 1).contains(&job.provider.len()), "row {row}: one is lost at most");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_stored_is_nothing_charged() {
    use Does::*;
    for (does, reason, state) in [
        ([Fails(Fault::Refused); 5], Reason::ProviderFailed, State::Voided),
        ([Fails(Fault::Timeout); 5], Reason::ProviderTimeout, State::Voided),
        ([Fails(Fault::Guarded(Reason::BudgetSpent)); 5], Reason::BudgetSpent, State::Voided),
        ([Takes(Fault::Broken); 5], Reason::ProviderLost, State::Held),
        ([Hangs; 5], Reason::ProviderLost, State::Held),
    ] {
        let stage = Stage::new();
        let (sale, seller) = sale(&stage, does).await;
        let said = stage.sell(sale).await;
        assert!(said.is(reason, Charged::No), "{said:?}");
        let job = stage.job(1).await;
        assert_eq!((job.state, job.shortfall), (state, None));
        assert_eq!(stage.facilitator.moved(), 0);
        assert_eq!(job.provider.len(), usize::from(state == State::Held), "{:?}", seller.asked.lock());
    }
}
