//! Who is at the other end of a client connection.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};

use super::headers::FORWARDED_PROTO;
use crate::config::resolved::IpBlock;

/// The client's end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address, as the socket has it.
    pub addr: SocketAddr,
    /// Whether the connection is encrypted by us.
    pub tls: bool,
    /// Whether its `X-Forwarded-*` fields are believed.
    pub trusted: bool,
    /// The address as text, made once per connection.
    pub(super) ip_text: HeaderValue,
}

impl Peer {
    /// A peer at `addr`.
    pub fn new(addr: SocketAddr, tls: bool, trusted: bool) -> Self {
        // A dual-stack socket shows IPv4 clients as ::ffff:a.b.c.d.
        let ip = addr.ip().to_canonical();
        let ip_text =
            HeaderValue::try_from(ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Peer { addr, tls, trusted, ip_text }
    }

    /// `https` or `http`: what the client used, as far as it or a trusted peer of ours can be believed.
    pub fn scheme(&self, headers: &HeaderMap) -> &'static str {
        let said = if self.trusted { headers.get(FORWARDED_PROTO).map(HeaderValue::as_bytes) } else { None };
        match said {
            Some(said) if said.eq_ignore_ascii_case(b"https") => "https",
            Some(said) if said.eq_ignore_ascii_case(b"http") => "http",
            _ if self.tls => "https",
            _ => "http",
        }
    }
}

/// Whether one of the blocks has the address.
pub(super) fn is_trusted(blocks: &[IpBlock], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    blocks.iter().any(|block| contains(block, ip))
}

fn contains(block: &IpBlock, ip: IpAddr) -> bool {
    match (block.address.to_canonical(), ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let shift = 32u32.saturating_sub(u32::from(block.prefix));
            (network.to_bits() ^ ip.to_bits()).checked_shr(shift).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let shift = 128u32.saturating_sub(u32::from(block.prefix));
            (network.to_bits() ^ ip.to_bits()).checked_shr(shift).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_contain_by_their_leading_bits() {
        let block = |address: &str, prefix| IpBlock { address: address.parse().unwrap(), prefix };
        let trusted = |block: IpBlock, ip: &str| is_trusted(&[block], ip.parse().unwrap());
        assert!(trusted(block("10.0.0.0", 8), "10.255.1.2"));
        assert!(!trusted(block("10.0.0.0", 8), "11.0.0.1"));
        assert!(trusted(block("10.1.2.3", 32), "::ffff:10.1.2.3"));
        assert!(!trusted(block("10.1.2.3", 32), "10.1.2.2"));
        assert!(trusted(block("0.0.0.0", 0), "1.2.3.4"));
        assert!(!trusted(block("0.0.0.0", 0), "2001:db8::1"));
        assert!(trusted(block("2001:db8::", 32), "2001:db8:1::1"));
        assert!(!trusted(block("2001:db8::", 32), "2001:db9::1"));
    }

    #[test]
    fn only_a_trusted_peer_names_the_scheme() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        let addr = "192.0.2.1:1".parse().unwrap();
        assert_eq!(Peer::new(addr, false, false).scheme(&headers), "http");
        assert_eq!(Peer::new(addr, false, true).scheme(&headers), "https");
        assert_eq!(Peer::new(addr, true, false).scheme(&HeaderMap::new()), "https");
    }
}
