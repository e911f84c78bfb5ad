//! The facilitators of a configuration, as one.

use std::sync::Arc;

use http::Uri;

use super::{StartError, outgoing};
use crate::clock::Clock;
use crate::config::resolved::{self, Config};
use crate::facilitator::local::LocalFacilitator;
use crate::facilitator::{Facilitator, HttpFacilitator, Observer, Pool};
use crate::jobs::ValueStore;

/// The name of our own facilitator.
const LOCAL: &str = "local";

/// All of them; `local` is our own, where the configuration has one.
pub(super) async fn pool(
    config: &Config,
    clock: Clock,
    values: Arc<dyn ValueStore>,
    observer: Arc<dyn Observer>,
    mut local: Option<Arc<LocalFacilitator>>,
) -> Result<Pool, StartError> {
    let settings = &config.facilitator;
    let outgoing = outgoing(config, settings.allow_plain_http)?;
    let mut members: Vec<(String, Arc<dyn Facilitator>)> = Vec::new();
    for (endpoint, name) in settings.endpoints().zip(names(settings)) {
        // The first, where there is one.
        let facilitator: Arc<dyn Facilitator> = match local.take() {
            Some(local) => local,
            None => Arc::new(HttpFacilitator::new(outgoing.clone(), settings, endpoint, &clock)?),
        };
        members.push((name, facilitator));
    }
    Ok(Pool::open(members, settings.hedge_after, values, observer).await)
}

/// What metrics, the log and `galaksio trust` call them, in order: their URLs without the scheme, and [`LOCAL`] for our
/// own.
pub(super) fn names(settings: &resolved::Facilitator) -> Vec<String> {
    let name = |url: &Uri| {
        let authority = url.authority().map_or("", |authority| authority.as_str());
        format!("{authority}{}", url.path().trim_end_matches('/'))
    };
    let mut names: Vec<String> = settings.endpoints().map(|(url, _)| name(url)).collect();
    if let (Some(first), Some(_)) = (names.first_mut(), &settings.local) {
        LOCAL.clone_into(first);
    }
    names
}
