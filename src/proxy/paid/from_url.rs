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
/// Questions a minute by one client, and about one host, which several clients may name. Those that come with a payment are
/// counted apart, so that who was told a price can still pay it; they are counted, since anybody can sign one that is
/// never settled.
const BY_CLIENT: u32 = 60;
const ABOUT_HOST: u32 = 240;
/// Clients and hosts that are remembered; others count anew.
const REMEMBERED: u64 = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

/// How often each asked, or was asked about, in this minute; with and without a payment.
type Counters<K> = Cache<(K, bool), Arc<AtomicU32>>;

/// Asks what is at URLs.
pub(super) struct Sources {
    fetch: Fetch,
    slots: Semaphore,
    clients: Counters<IpAddr>,
    hosts: Counters<String>,
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
        fn counters<K: std::hash::Hash + Eq + Send + Sync + 'static>() -> Counters<K> {
            Cache::builder().max_capacity(REMEMBERED).time_to_live(MINUTE).build()
        }
        Some(Sources { fetch, slots: Semaphore::new(AT_ONCE), clients: counters(), hosts: counters() })
    }

    fn limit(&self, client: IpAddr, url: &str, paid: bool) -> Result<(), Problem> {
        let host = url.parse::<http::Uri>().ok().and_then(|url| url.host().map(str::to_ascii_lowercase));
        let by_client = self.clients.get_with((network(client), paid), Arc::default);
        let about_host = self.hosts.get_with((host.unwrap_or_default(), paid), Arc::default);
        let often = |count: &AtomicU32, most| count.fetch_add(1, Ordering::Relaxed) >= most;
        // One client that asks too often does not use up what others may ask about the host.
        if often(&by_client, BY_CLIENT) || often(&about_host, ABOUT_HOST) {
            return Err(Problem::new(Reason::Overloaded).retry_after(MINUTE.as_secs()));
        }
        Ok(())
    }
}

/// Whom an address belongs to: of IPv6, a client has a whole network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::from((address.to_bits() >> 64 << 64).to_be_bytes()),
        address => address,
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
        sources.limit(asked.peer.addr.ip(), &wanted.url, paid)?;
        let _slot = sources.slots.try_acquire().map_err(|_| Reason::Overloaded)?;
        let found = sources.fetch.find(&wanted.url).await.map_err(unfetched)?;
        let url = wanted.url.clone();
        let (ask, label) = wanted.ask(found.size, found.content_type.as_deref(), Limits::from(&self.paid))?;
        asked.source()?.at(sources.fetch.clone(), url, ask.size);
        (asked.ask, asked.label) = (Some(ask), Some(Box::new(label)));
        Ok(())
    }
}
