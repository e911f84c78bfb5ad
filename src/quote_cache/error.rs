//! Why there are no quotes, or not this one, and what a client is told.

use super::bucket::TooLarge;
use super::price::PriceError;
use super::template::TemplateError;
use crate::jobs::StoreError;
use crate::providers::NotSold;
use crate::reason::{Problem, Reason};

/// Why the quotes cannot be had at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A price or the fee is not one.
    #[error(transparent)]
    Price(#[from] PriceError),
    /// A priced route makes no challenge.
    #[error("route {path}: {error}")]
    Route {
        /// Its path.
        path: String,
        /// Why.
        error: TemplateError,
    },
    /// Keys and epochs are in the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why there is no quote for an ask.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QuoteError {
    /// Nobody sells this, whatever it costs; each provider's reason.
    #[error("no provider sells this")]
    NotSold(Vec<NotSold>),
    /// Nobody sells this much.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// Those who sell it named no price, or not in time.
    #[error("no provider named a price")]
    NoOffer,
    /// The price could not be recorded, so it must not be shown.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The provider's price cannot be turned into ours.
    #[error(transparent)]
    Price(#[from] PriceError),
    /// The challenge cannot be encoded.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

impl From<&QuoteError> for Problem {
    fn from(error: &QuoteError) -> Self {
        match error {
            QuoteError::NotSold(refusals) => {
                let reasons: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                Problem::new(Reason::NotSold).details(serde_json::json!({ "providers": reasons }))
            }
            QuoteError::TooLarge(TooLarge { limit }) => {
                Problem::new(Reason::TooLarge).details(serde_json::json!({ "limit": limit }))
            }
            QuoteError::NoOffer => Problem::new(Reason::NoProvider),
            QuoteError::Store(_) => Problem::new(Reason::StoreAway),
            QuoteError::Price(_) | QuoteError::Template(_) => Problem::new(Reason::Internal),
        }
    }
}
