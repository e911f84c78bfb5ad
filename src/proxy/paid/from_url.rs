//! Data that is somewhere else: `{"url": "…"}`. Its size is asked for before there is a price, so how often is limited.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::Semaphore;

use super::Inner;
use super::request::Asked;
use super::source::unfetched;
use crate::config::resolved;
use crate::intake::{DataUrl, Limits};
use crate::outgoing::Fetch;
use crate::proxy::peer::is_trusted;
use crate::reason::{Problem, Reason};

/// Questions for a size under way at once.
const AT_ONCE: usize = 32;
/// Unpaid questions a minute, by one client and about one host.
const A_MINUTE: u32 = 60;
/// Clients and hosts that are remembered; others count anew.
const REMEMBERED: u64 = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

/// Asks what is at URLs.
pub(super) struct Sources {
    fetch: Fetch,
    slots: Semaphore,
    clients: Cache<IpAddr, Arc<AtomicU32>>,
    hosts: Cache<String, Arc<AtomicU32>>,
}

impl Sources {
    /// `None` if URLs are not taken.
    pub(super) fn new(paid: &resolved::Paid) -> Option<Sources> {
        if !paid.fetch_urls {
            return None;
        }
        let private = paid.fetch_private.clone();
        let fetch = Fetch::new(Arc::new(move |address| is_trusted(&private, address)));
        let fetch = fetch.inspect_err(|error| tracing::error!(%error, "URLs are not fetched")).ok()?;
        fn counters<K: std::hash::Hash + Eq + Send + Sync + 'static>() -> Cache<K, Arc<AtomicU32>> {
            Cache::builder().max_capacity(REMEMBERED).time_to_live(MINUTE).build()
        }
        Some(Sources { fetch, slots: Semaphore::new(AT_ONCE), clients: counters(), hosts: counters() })
    }

    fn limit(&self, client: IpAddr, url: &str) -> Result<(), Problem> {
        let host = url.parse::<http::Uri>().ok().and_then(|url| url.host().map(str::to_ascii_lowercase));
        let by_client = self.clients.get_with(client, Arc::default);
        let by_host = self.hosts.get_with(host.unwrap_or_default(), Arc::default);
        let often = |count: &AtomicU32| count.fetch_add(1, Ordering::Relaxed) >= A_MINUTE;
        if often(&by_client) | often(&by_host) {
            return Err(Problem::new(Reason::Overloaded).retry_after(MINUTE.as_secs()));
        }
        Ok(())
    }
}

impl Inner {
    /// What is asked by a URL, and how much that is.
    pub(super) async fn measure_url(
        &self,
        sources: &Sources,
        asked: &mut Asked,
        wanted: DataUrl,
        paid: bool,
    ) -> Result<(), Problem> {
        if !paid {
            sources.limit(asked.peer.addr.ip(), &wanted.url)?;
        }
        let _slot = sources.slots.try_acquire().map_err(|_| Reason::Overloaded)?;
        let found = sources.fetch.find(&wanted.url).await.map_err(unfetched)?;
        let url = wanted.url.clone();
        let (ask, label) = wanted.ask(found.size, found.content_type.as_deref(), Limits::from(&self.paid))?;
        asked.source()?.at(sources.fetch.clone(), url, ask.size);
        (asked.ask, asked.label) = (Some(ask), Some(label));
        Ok(())
    }
}
