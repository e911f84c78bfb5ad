//! Money that leaves the wallet on a real chain: what the gateway bought is known, what a thief takes freezes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use galaksio::chain::Chains;
use galaksio::clock::Clock;
use galaksio::config::resolved::Limits;
use galaksio::guard::{Guards, OutlayWatch, Switch};
use galaksio::jobs::{Embedded, ValueStore};
use galaksio::telemetry::Metrics;
use galaksio::wallet::Wallet;
use galaksio::x402::{Address, Authorization, B256, Version};
use serde_json::json;
use tempfile::TempDir;

use crate::anvil::{Chain, Settings};
use crate::client::{Client as AdminClient, Request};
use crate::payer::Payer;
use crate::peers::Peer;
use crate::proof::settings;
use crate::rig::{ROUTES, Setup, eventually};
use crate::token::{authorization, sign};

const SHOP: Address = Address::repeat_byte(0x77);
const THIEF: Address = Address::repeat_byte(0x66);
const RELAYER: Address = Address::repeat_byte(0x55);

/// Longer than anything is doubted.
const A_WHILE: u64 = 31_000;

/// A chain where two blocks on top make one final, a wallet, and the store of the gateways that have its key.
struct World {
    chain: Chain,
    key: String,
    wallet: Address,
    clock: Clock,
    store: Arc<Embedded>,
    _folder: TempDir,
}

impl World {
    async fn new() -> World {
        let chain = Chain::start(Settings::instant()).await;
        let (key, wallet) = chain.payer(1_000_000).await;
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual(Clock::system().now_millis()));
        let keep = Duration::from_secs(86_400);
        let store = Embedded::open(&folder.path().join("jobs.redb"), keep, clock.clone()).unwrap();
        World { chain, key, wallet, clock, store: Arc::new(store), _folder: folder }
    }

    /// A gateway's guards, and its watch.
    fn gateway(&self) -> (Arc<Guards>, OutlayWatch) {
        let most = 1 << 50;
        let limits = Limits {
            spend_per_hour: most,
            provider_spend_per_hour: most,
            exposure: most,
            payer_exposure: most,
            loss_per_hour: most,
            quote_loss_per_hour: most,
            profit_floor: None,
            unsettled: most,
            payer_unsettled: most,
            uncollected_per_hour: most,
        };
        let switch = Switch::Store(self.store.clone());
        let (metrics, values): (_, Arc<dyn ValueStore>) = (Arc::new(Metrics::new()), self.store.clone());
        let guards = Guards::new(values, self.clock.clone(), metrics, &limits, switch);
        let asset = self.chain.asset();
        let wallet = Wallet::new(self.key.clone().into(), "1", vec![asset.clone()]).unwrap();
        let chains = Arc::new(Chains::new(&[settings(&[&self.chain.url])], &Clock::system()).unwrap());
        let jobs = self.store.clone();
        let watch = OutlayWatch::new(Arc::clone(&guards), jobs, Arc::new(wallet), chains, vec![asset], None);
        (guards, watch)
    }

    /// A payment of the wallet's, as a provider has it submitted.
    async fn buy(&self, nonce: B256) -> B256 {
        let payment = Authorization { nonce, ..authorization(self.wallet, SHOP, 1_000) };
        let signature = sign(&self.chain.asset(), &self.key, &payment);
        let transaction = self.chain.submit(RELAYER, &payment, &signature).await;
        assert!(self.chain.mined(transaction).await);
        transaction
    }

    /// Looks until whatever is final by now is known, or not.
    async fn look(&self, watch: &OutlayWatch) {
        // The chain is asked anew once a look is half a second old.
        tokio::time::sleep(Duration::from_millis(600)).await;
        watch.round().await;
        self.clock.advance(A_WHILE);
        watch.round().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn a_hundred_purchases_freeze_nothing_and_one_theft_does() {
    let world = World::new().await;
    let (guards, watch) = world.gateway();
    watch.round().await;
    let nonces: Vec<B256> = (0..100).map(B256::repeat_byte).collect();
    galaksio::guard::note(&*world.store, &nonces).await.unwrap();
    for nonce in nonces {
        world.buy(nonce).await;
    }
    // Anybody can move nothing out of anybody's pocket.
    world.chain.transfer(world.wallet, THIEF, 0).await;
    world.chain.mine(3).await;
    world.look(&watch).await;
    assert_eq!(guards.frozen(), None);

    // A restart in between, and the theft is in a block that only the next process sees as final.
    let theft = world.chain.transfer(world.wallet, THIEF, 5_000).await;
    watch.round().await;
    drop(watch);
    let (guards, watch) = world.gateway();
    world.chain.mine(3).await;
    world.look(&watch).await;
    let frozen = guards.frozen().unwrap();
    assert!(frozen.reason.contains(&theft.to_string()), "{}", frozen.reason);
    // No other transfer is held against anybody.
    Switch::Store(world.store.clone()).release().await.unwrap();
    let (guards, watch) = world.gateway();
    guards.tend().await;
    world.chain.mine(3).await;
    world.look(&watch).await;
    assert_eq!(guards.frozen(), None);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn a_theft_by_a_signature_is_found_like_any() {
    let world = World::new().await;
    let (guards, watch) = world.gateway();
    watch.round().await;
    let theft = world.buy(B256::repeat_byte(9)).await;
    world.chain.mine(3).await;
    world.look(&watch).await;
    assert!(guards.frozen().is_some_and(|frozen| frozen.reason.contains(&theft.to_string())));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn what_a_reorganisation_undoes_or_moves_freezes_nothing() {
    let world = World::new().await;
    let (guards, watch) = world.gateway();
    watch.round().await;
    let nonce = B256::repeat_byte(1);
    galaksio::guard::note(&*world.store, &[nonce]).await.unwrap();
    // A purchase that ends in another block than it was first in, and a transfer that ends in none.
    world.chain.pause().await;
    let payment = Authorization { nonce, ..authorization(world.wallet, SHOP, 1_000) };
    let signature = sign(&world.chain.asset(), &world.key, &payment);
    world.chain.submit(RELAYER, &payment, &signature).await;
    let undone = world.chain.transfer(world.wallet, THIEF, 5_000).await;
    world.chain.mine(1).await;
    assert!(world.chain.mined(undone).await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    watch.round().await;
    world.chain.reorg(1).await;
    world.chain.drop_transaction(undone).await;
    world.chain.mine(5).await;
    world.chain.resume().await;
    world.look(&watch).await;
    assert_eq!(world.chain.balance(THIEF).await, 0);
    assert_eq!(guards.frozen(), None);
    // The watch is past these blocks all the same.
    world.chain.transfer(world.wallet, THIEF, 1).await;
    world.chain.mine(3).await;
    world.look(&watch).await;
    assert!(guards.frozen().is_some());
}

/// A gateway that buys on the chain, from an official server, until somebody else spends from its wallet.
#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn a_transfer_with_the_stolen_key_freezes_the_wallet() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let chain = runtime.block_on(Chain::start(Settings::default()));
    let facilitator = runtime.block_on(Peer::facilitator(&chain, None));
    let shop = Peer::server_v2(&facilitator.url, SHOP, "$0.001");
    let provider = format!(
        "[[provider]]\nname = \"shop\"\nkind = \"run\"\nlanguages = [\"shop\"]\nurl = \"{}/work\"\n\
         body = '{{\"source\": \"{{text}}\", \"id\": \"{{request_id}}\"}}'\nresult = {{ stdout = \"/body/source\" }}\n\
         success = {{ at = \"/method\", equals = \"POST\" }}\npay_to = \"{SHOP}\"\n",
        shop.url
    );
    let chains =
        format!("[[chains]]\nnetwork = \"base-sepolia\"\nrpc = [{:?}]\nfinal_blocks = 2\n", chain.url);
    let setup = Setup::new().text("facilitator", "url", &facilitator.url).provider(&provider);
    let stage = setup.routes(&format!("{ROUTES}{chains}")).start();
    runtime.block_on(chain.mint(stage.wallet(), 100_000));
    let gateway = stage.cold_gateway();
    let metric = async |name: &str| {
        let metrics = AdminClient::new(gateway.admin).send(&Request::get("/metrics")).await;
        let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
        let line = metrics.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
    };
    runtime.block_on(async {
        eventually("the watch", async || metric("galaksio_wallet_watched_block").await).await;
        let client = gateway.client();
        for number in 0..3 {
            let payer = Payer::new();
            chain.mint(payer.address(), 100_000).await;
            let request = Request::json("/run", &json!({ "code": number.to_string(), "language": "shop" }));
            let answer = eventually("a sale", async || {
                let answer = client.buy(&request, &payer, Version::V2).await;
                (answer.status == 200).then_some(answer)
            });
            assert_eq!(answer.await.json()["result"]["provider"], "shop");
        }
        assert_eq!(chain.balance(SHOP).await, 3_000);
        let theft = chain.transfer(stage.wallet(), THIEF, 50_000).await;
        assert!(chain.mined(theft).await);
        let give_up = Instant::now() + Duration::from_secs(120);
        let frozen = loop {
            if let Some(frozen) = stage.switch().look().await.unwrap() {
                break frozen;
            }
            assert!(Instant::now() < give_up, "the theft is not noticed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(frozen.by, "gateway");
        assert!(frozen.reason.contains(&theft.to_string()), "{}", frozen.reason);
        assert!(!frozen.reason.contains("more"), "what it bought is held against it: {}", frozen.reason);
        assert_eq!(metric("galaksio_wallet_foreign_outlays_total").await, Some(1));
        assert_eq!(metric("galaksio_wallet_frozen").await, Some(1));
        let request = Request::json("/run", &json!({ "code": "1", "language": "shop" }));
        client.send(&request).await.expect(503, "wallet_frozen", None, None);
    });
}
