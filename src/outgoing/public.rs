//! Which addresses are anybody's, and name resolution that gives no others.
//!
//! What a name resolves to is looked at where it is connected to, and is what is connected to: there is no second look-up
//! that could say something else.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// Addresses that may be connected to though they are not public.
pub type Exceptions = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Resolves names, and leaves out what may not be connected to.
#[derive(Clone)]
pub(super) struct PublicNames {
    exceptions: Exceptions,
    resolve: Resolve,
}

/// What a name resolves to.
type Resolve = Arc<dyn Fn(Name) -> Resolving<Vec<SocketAddr>> + Send + Sync>;
type Resolving<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// All addresses of a name are private.
#[derive(Debug, thiserror::Error)]
#[error("the name has no public address")]
struct NoPublicAddress;

impl PublicNames {
    /// By the system's resolver.
    pub(super) fn new(exceptions: Exceptions) -> Self {
        let resolve = |name: Name| -> Resolving<Vec<SocketAddr>> {
            Box::pin(async move { Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect()) })
        };
        PublicNames { exceptions, resolve: Arc::new(resolve) }
    }

    #[cfg(test)]
    pub(super) fn resolved_by(
        exceptions: Exceptions,
        resolve: impl Fn(&str) -> Vec<SocketAddr> + Send + Sync + 'static,
    ) -> Self {
        let resolve = move |name: Name| -> Resolving<Vec<SocketAddr>> {
            let addresses = resolve(name.as_str());
            Box::pin(async move { Ok(addresses) })
        };
        PublicNames { exceptions, resolve: Arc::new(resolve) }
    }
}

impl Service<Name> for PublicNames {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Resolving<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let exceptions = Arc::clone(&self.exceptions);
        let resolving = (self.resolve)(name);
        Box::pin(async move {
            let mut allowed = resolving.await?;
            allowed.retain(|address| is_allowed(address.ip(), &exceptions));
            if allowed.is_empty() { Err(io::Error::other(NoPublicAddress)) } else { Ok(allowed.into_iter()) }
        })
    }
}

/// Whether a connection was not made because of where it would lead.
pub(super) fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if error.is::<NoPublicAddress>() || inner.is_some_and(|inner| inner.is::<NoPublicAddress>()) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether it may be connected to.
pub(super) fn is_allowed(address: IpAddr, exceptions: &Exceptions) -> bool {
    is_public(address) || exceptions(address)
}

/// Whether an address is anybody's, and not a way into the network that we are in (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    // Azure answers its machines there.
    !special && address != Ipv4Addr::new(168, 63, 129, 16)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let global = a & 0xe000 == 0x2000;
    // Documentation, benchmarks, and what stands for an IPv4 address: Teredo and 6to4.
    let special = matches!((a, b), (0x2001, 0 | 2 | 0x0db8) | (0x2002, _) | (0x3fff, 0..=0x0fff));
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "100::1",
        ];
        for address in private {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
