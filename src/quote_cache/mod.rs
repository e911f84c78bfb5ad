//! Quotes: live provider prices, kept by size bucket and options, and shown as challenges.
//!
//! A look-up is a read of memory. Asking the providers, writing price epochs and rotating keys go on beside it,
//! in [`QuoteCache::fetch`] and [`QuoteCache::run`]. A price is shown only after it is certain to be honoured, by
//! every replica and after a restart: v2 quotes are signed (`token`), v1 prices are recorded (`epoch`).

mod breaker;
mod bucket;
mod budget;
mod cache;
mod epoch;
mod error;
mod key;
mod keyring;
mod price;
mod probe;
mod quote;
mod refresh;
mod strip;
mod substitute;
mod template;
mod token;
mod url;

#[cfg(test)]
pub(crate) mod testing;

pub use bucket::{Buckets, TooLarge};
pub use cache::{QuoteCache, Settings};
pub use epoch::{Epoch, EpochPrice, Epochs};
pub use error::{OpenError, QuoteError};
pub use key::{QuoteKey, Work};
pub use keyring::Keys;
pub use price::{Charging, Dollars, Price, PriceError, Tariff};
pub use quote::{Quote, RouteId, Terms};
pub use substitute::{Attempted, Substitute};
pub use template::{Encoded, Fill, Listing, MAX_HEADER, Template, TemplateError};
pub use token::{Money, NotOurs, Target, Token};
pub use url::ResourceUrl;

use std::time::Duration;

/// How long after its end a quote is still honoured: clocks differ, and signing takes a while.
pub const GRACE: Duration = Duration::from_secs(30);

/// The provider's name in quotes of the app's own priced routes.
pub const APP: &str = "app";
