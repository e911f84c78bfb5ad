//! What the guards do by themselves, again and again: look at the switch, write losses, give back what is not used.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::rate::Rate;
use super::{Frozen, Guards, freeze};

/// Between two looks at the switch, and at limits that are used up.
const TEND: Duration = Duration::from_secs(1);

impl Guards {
    /// Looks after the limits and the switch until `stopped`, then gives back what is not used.
    pub async fn watch(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let end = async move { stopped.wait_for(|stopped| *stopped).await.map(drop) };
        let mut end = std::pin::pin!(end);
        // Apart: an endpoint that hangs must not keep the switch from being looked at.
        let balances = async {
            match self.balances.get() {
                Some(balances) => balances.watch(&self.metrics).await,
                None => std::future::pending().await,
            }
        };
        let mut balances = std::pin::pin!(balances);
        let mut tick = tokio::time::interval(TEND);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.tend().await,
                () = &mut balances => {}
                _ = &mut end => break,
            }
        }
        for rate in self.rates() {
            rate.give_back().await;
        }
    }

    /// One look. The first must come before anything is sold.
    pub async fn tend(&self) {
        self.look_at_switch().await;
        if let Some(balances) = self.balances.get() {
            balances.tend();
        }
        self.losses.tend().await;
        for rate in self.rates() {
            rate.tend().await;
        }
        self.exposure.tend().await;
        self.trust.tend().await;
    }

    async fn look_at_switch(&self) {
        match self.switch.look().await {
            Ok(frozen) => {
                let before = self.frozen();
                if before != frozen {
                    match &frozen {
                        Some(frozen) => tracing::error!(reason = frozen.reason, "the wallet is frozen"),
                        None => tracing::warn!("the wallet is unfrozen"),
                    }
                }
                self.saw(frozen);
            }
            Err(error) => tracing::warn!(%error, "whether the wallet is frozen is not known"),
        }
    }

    pub(super) fn saw(&self, frozen: Option<Frozen>) {
        self.metrics.frozen(frozen.is_some());
        self.seen.store(Arc::new(freeze::Seen { at: Some(Instant::now()), frozen }));
    }

    fn rates(&self) -> Vec<Arc<Rate>> {
        let providers = self.providers.load();
        [&self.spend, &self.quote_loss]
            .into_iter()
            .chain(providers.iter().map(|(_, rate)| rate))
            .cloned()
            .collect()
    }
}
