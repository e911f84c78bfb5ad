//! Nothing is sold that the wallet cannot pay for.

use super::*;
use crate::chain::ChainError;
use crate::x402::Network;

/// A chain that says what it is told to say.
struct Told(Mutex<Option<Result<Amount, ChainError>>>);

#[async_trait]
impl Balance for Told {
    async fn balance(&self, _: &Asset, _: Address) -> Option<Result<Amount, ChainError>> {
        self.0.lock().clone()
    }

    fn knows(&self, _: Network) -> bool {
        self.0.lock().is_some()
    }
}

async fn watched(says: Option<Result<Amount, ChainError>>) -> (Arc<Guards>, Arc<Told>) {
    let clock = Clock::manual(NOW);
    let store = Moody::new(&clock);
    let guards = guards(&store, &clock).await;
    let chain = Arc::new(Told(Mutex::new(says)));
    let assets = vec![usdc()];
    guards.watch_balance(Watched { account: Address::repeat_byte(9), assets, chains: chain.clone() });
    guards.balances.get().unwrap().look(&guards.metrics).await;
    (guards, chain)
}

fn units(amount: u128) -> Option<Result<Amount, ChainError>> {
    Some(Ok(Amount::new(amount)))
}

#[tokio::test]
async fn what_the_wallet_has_not_is_not_promised() {
    let (guards, _) = watched(units(100)).await;
    assert!(guards.refuses("a", 100).is_none());
    assert_eq!(guards.refuses("a", 101).map(|problem| problem.reason), Some(Reason::WalletLow));
    assert_eq!(reserve(&guards, "a", 1, 101, None).await.err(), Some(Reason::WalletLow));
    assert!(reserve(&guards, "a", 1, 100, None).await.is_ok());
    assert!(!guards.is_low());
}

#[tokio::test]
async fn what_is_signed_is_not_there_any_more() {
    let (guards, chain) = watched(units(100)).await;
    let mut reserved = reserve(&guards, "a", 1, 70, None).await.unwrap();
    reserved.sign(&claim(1), B256::ZERO, &usdc(), Amount::new(70), MINUTE);
    let left = |guards: &Guards| guards.left()[0].1.map(Amount::units);
    assert_eq!(left(&guards), Some(30));
    assert_eq!(reserve(&guards, "a", 1, 31, None).await.err(), Some(Reason::WalletLow));
    // Its job is done with it, but the chain may not show it yet; a look does not end the wait.
    guards.settled(&claim(1));
    let balances = guards.balances.get().unwrap();
    balances.look(&guards.metrics).await;
    assert_eq!(left(&guards), Some(30));
    // Later it does: the payment is in the balance, and no longer beside it.
    *chain.0.lock() = units(30);
    balances.age(Duration::from_secs(11));
    balances.look(&guards.metrics).await;
    assert_eq!(left(&guards), Some(30));
    // One that is never done with counts until it lapses.
    drop(reserved);
    reserve(&guards, "a", 1, 30, None).await.unwrap().sign(
        &claim(2),
        B256::ZERO,
        &usdc(),
        Amount::new(30),
        MINUTE,
    );
    balances.age(Duration::from_secs(11));
    balances.look(&guards.metrics).await;
    assert!(guards.is_low());
    balances.age(MINUTE);
    balances.look(&guards.metrics).await;
    assert_eq!(left(&guards), Some(30));
}

#[tokio::test]
async fn a_chain_that_says_nothing_says_nothing() {
    let (guards, chain) = watched(Some(Err(ChainError::Away("a test".into())))).await;
    assert!(guards.refuses("a", 100).is_none() && !guards.is_low());
    // An old answer is none.
    *chain.0.lock() = units(0);
    let balances = guards.balances.get().unwrap();
    balances.look(&guards.metrics).await;
    assert!(guards.is_low());
    *chain.0.lock() = Some(Err(ChainError::Away("a test".into())));
    balances.age(Duration::from_secs(301));
    balances.look(&guards.metrics).await;
    assert!(!guards.is_low());
}

#[tokio::test]
async fn a_providers_word_counts_for_a_while_where_the_chain_has_none() {
    let (guards, _) = watched(None).await;
    guards.refused_for_funds(&usdc());
    assert!(guards.is_low());
    assert_eq!(guards.refuses("a", 1).map(|problem| problem.reason), Some(Reason::WalletLow));
    assert_eq!(reserve(&guards, "a", 1, 1, None).await.err(), Some(Reason::WalletLow));
    guards.balances.get().unwrap().age(MINUTE);
    assert!(!guards.is_low() && reserve(&guards, "a", 1, 1, None).await.is_ok());
    // A look at the chain that comes after it knows better.
    let (guards, _) = watched(units(100)).await;
    guards.refused_for_funds(&usdc());
    assert!(guards.is_low());
    guards.balances.get().unwrap().look(&guards.metrics).await;
    assert!(!guards.is_low());
}

/// See docs/decisions/0007-balance-per-gateway.md.
#[tokio::test]
async fn two_gateways_may_promise_the_same_money_for_a_moment() {
    let clock = Clock::manual(NOW);
    let (store, chain) = (Moody::new(&clock), Arc::new(Told(Mutex::new(units(100)))));
    let mut gateways = Vec::new();
    for _ in 0..2 {
        let guards = guards(&store, &clock).await;
        let watched =
            Watched { account: Address::repeat_byte(9), assets: vec![usdc()], chains: chain.clone() };
        guards.watch_balance(watched);
        guards.balances.get().unwrap().look(&guards.metrics).await;
        gateways.push(guards);
    }
    for (number, guards) in (0..).zip(&gateways) {
        let reserved = reserve(guards, "a", number, 100, None).await;
        reserved.unwrap().sign(&claim(number), B256::ZERO, &usdc(), Amount::new(100), MINUTE);
        assert!(guards.is_low(), "of what it signed itself each knows");
    }
    // The one of which the token takes nothing is told so by its provider; both by the next look.
    for guards in &gateways {
        guards.settled(&claim(0));
        guards.settled(&claim(1));
        guards.balances.get().unwrap().age(MINUTE);
        assert!(!guards.is_low());
    }
    gateways[1].refused_for_funds(&usdc());
    assert_eq!(reserve(&gateways[1], "a", 1, 1, None).await.err(), Some(Reason::WalletLow));
    *chain.0.lock() = units(0);
    for guards in &gateways {
        guards.balances.get().unwrap().look(&guards.metrics).await;
        assert_eq!(reserve(guards, "a", 1, 1, None).await.err(), Some(Reason::WalletLow));
    }
}
