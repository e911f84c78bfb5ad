//! A quote: what one bucket of work costs us, what clients pay for it, and the challenge that says so.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::key::QuoteKey;
use super::price::{Dollars, Price};
use super::probe::Seller;
use super::template::Template;
use crate::clock::UnixMillis;
use crate::money::Amount;
use crate::x402::{Address, Network};

/// A route, by its place among the configured ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub usize);

/// What was sold: all that a paid request must know of the quote it was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The provider's name, or [`super::APP`].
    pub provider: String,
    /// The provider's operation, or the route's path.
    pub operation: String,
    /// What the provider asked when the quote was made.
    pub cost: Dollars,
    /// The most bytes it is good for.
    pub bound: u64,
}

/// A price that is shown to clients until it expires.
#[derive(Debug)]
pub struct Quote {
    /// What it is for; `None` for a priced route of the app.
    pub key: Option<QuoteKey<'static>>,
    /// What is sold.
    pub terms: Terms,
    /// What clients pay, in each token, best first.
    pub prices: Vec<Price>,
    /// When the provider was asked.
    pub fetched_at: UnixMillis,
    /// From when on it is not shown any more. A challenge made before is honoured for the quote's whole time
    /// from when it was made.
    pub expires_at: UnixMillis,
    pub(super) seller: Option<Seller>,
    /// Not all who sell it were heard.
    pub(super) others_late: bool,
    pub(super) templates: Vec<(RouteId, Template)>,
    pub(super) used: AtomicBool,
}

impl Quote {
    /// Whether the work costs nothing at all: then it runs without a challenge.
    pub fn is_free(&self) -> bool {
        !self.prices.is_empty() && self.prices.iter().all(|price| price.amount == Amount::ZERO)
    }

    /// The challenge of this quote on a route; `None` if the route does not sell it, or if it is free.
    pub fn template(&self, route: RouteId) -> Option<&Template> {
        self.templates.iter().find(|(id, _)| *id == route).map(|(_, template)| template)
    }

    /// What it costs in this token.
    pub fn price_in(&self, network: Network, asset: Address) -> Option<Amount> {
        let mut prices = self.prices.iter();
        let found =
            prices.find(|price| price.accept.asset.network == network && price.accept.asset.address == asset);
        found.map(|price| price.amount)
    }

    /// A quote without a challenge or an end.
    pub(super) fn unpublished(key: Option<QuoteKey<'static>>, terms: Terms, prices: Vec<Price>) -> Self {
        Quote {
            key,
            terms,
            prices,
            fetched_at: 0,
            expires_at: UnixMillis::MAX,
            seller: None,
            others_late: false,
            templates: Vec::new(),
            used: false.into(),
        }
    }

    /// Notes that it was shown. Written once, so that readers on many cores do not fight over the line.
    pub(super) fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }
}
