//! Header fields on their way through: what ends at this hop, what is added, what is about payment.
//!
//! RFC 9110 section 7.6 (intermediaries) and RFC 9113 section 8 (HTTP/2 requests sent on as HTTP/1.1).

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{Version, request};

use super::peer::Peer;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");
const VIA_10: HeaderValue = HeaderValue::from_static("1.0 galaksio");
const VIA_11: HeaderValue = HeaderValue::from_static("1.1 galaksio");
const VIA_20: HeaderValue = HeaderValue::from_static("2.0 galaksio");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE_VALUE: HeaderValue = HeaderValue::from_static("Upgrade");
const TE_VALUE: HeaderValue = HeaderValue::from_static("TE");

/// Carries a v2 payment; read from clients of sold routes.
pub const PAYMENT_SIGNATURE: HeaderName = HeaderName::from_static("payment-signature");
/// Carries a v1 payment.
pub const X_PAYMENT: HeaderName = HeaderName::from_static("x-payment");
/// Another name for [`X_PAYMENT`].
pub const X402_PAYMENT: HeaderName = HeaderName::from_static("x402-payment");
/// Carries a v2 challenge.
pub const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");
/// Carries a v2 receipt.
pub const PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("payment-response");
/// Carries a v1 receipt.
pub const X_PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("x-payment-response");

/// Which fields are left out besides those of this hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strip {
    /// None: the app may speak x402 itself.
    Nothing,
    /// Those of payments, both ways: the payment is between the client and the gateway.
    Payment,
}

/// Whether this asks for a WebSocket.
///
/// No other protocol is offered to the app: behind an upgrade to another HTTP version, requests for sold
/// paths would pass unseen.
pub(super) fn wants_websocket(parts: &request::Parts) -> bool {
    parts.version == Version::HTTP_11
        && parts.headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && has_token(&parts.headers, &CONNECTION, b"upgrade")
}

/// Makes a client's head one for the app.
pub(super) fn to_app(parts: &mut request::Parts, peer: &Peer, strip: Strip, websocket: bool) {
    let headers = &mut parts.headers;
    let trailers = headers.contains_key(TE) && has_token(headers, &TE, b"trailers");
    end_hop(headers);
    if strip == Strip::Payment {
        for name in [PAYMENT_SIGNATURE, X_PAYMENT, X402_PAYMENT] {
            headers.remove(name);
        }
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(headers);
    }
    if websocket {
        headers.insert(CONNECTION, UPGRADE_VALUE);
        headers.insert(UPGRADE, WEBSOCKET);
    } else if trailers {
        headers.insert(CONNECTION, TE_VALUE);
        headers.insert(TE, TRAILERS);
    }
    let via = match parts.version {
        Version::HTTP_10 => VIA_10,
        Version::HTTP_2 => VIA_20,
        _ => VIA_11,
    };
    headers.append(VIA, via);
    forwarded(headers, peer);
}

/// Makes the app's header one for the client.
pub(super) fn to_client(headers: &mut HeaderMap, strip: Strip) {
    end_hop(headers);
    if strip == Strip::Payment {
        for name in [PAYMENT_REQUIRED, PAYMENT_RESPONSE, X_PAYMENT_RESPONSE] {
            headers.remove(name);
        }
    }
}

/// The same for a 101: `Connection` and `Upgrade` go on.
pub(super) fn to_client_upgraded(headers: &mut HeaderMap) {
    end_hop(headers);
    headers.insert(CONNECTION, UPGRADE_VALUE);
    headers.insert(UPGRADE, WEBSOCKET);
}

/// The fields of this hop.
static HOP_BY_HOP: [HeaderName; 6] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];

/// Removes what is about this hop only: the fixed fields and those that `Connection` names.
fn end_hop(headers: &mut HeaderMap) {
    // Comparing the few names there are costs a fraction of looking up six that mostly are not.
    let mut present = [false; HOP_BY_HOP.len()];
    for name in headers.keys() {
        for (present, hop) in present.iter_mut().zip(&HOP_BY_HOP) {
            *present |= hop == name;
        }
    }
    for (hop, _) in HOP_BY_HOP.iter().zip(present).filter(|(_, present)| *present) {
        // Nearly always there is one value, and then nothing is allocated.
        let further: Vec<HeaderValue> = headers.get_all(hop).iter().skip(1).cloned().collect();
        let first = headers.remove(hop);
        if *hop == CONNECTION {
            for value in first.iter().chain(&further) {
                for name in value.as_bytes().split(|byte| *byte == b',') {
                    remove_nominated(headers, name.trim_ascii());
                }
            }
        }
    }
}

fn remove_nominated(headers: &mut HeaderMap, name: &[u8]) {
    if name.eq_ignore_ascii_case(b"close") || name.eq_ignore_ascii_case(b"keep-alive") {
        return;
    }
    // Whom a request is for and how long it is are not the client's to take away.
    if let Ok(name) = HeaderName::from_bytes(name)
        && name != HOST
        && name != CONTENT_LENGTH
    {
        headers.remove(name);
    }
}

/// Who asked, how, and for which host: added to what a trusted peer says, in place of what others say.
fn forwarded(headers: &mut HeaderMap, peer: &Peer) {
    if peer.trusted {
        match headers.get(FORWARDED_FOR) {
            Some(_) => {
                let mut list = Vec::new();
                for value in headers.get_all(FORWARDED_FOR) {
                    list.extend_from_slice(value.as_bytes());
                    list.extend_from_slice(b", ");
                }
                list.extend_from_slice(peer.ip_text.as_bytes());
                if let Ok(list) = HeaderValue::from_bytes(&list) {
                    headers.insert(FORWARDED_FOR, list);
                }
            }
            None => {
                headers.insert(FORWARDED_FOR, peer.ip_text.clone());
            }
        }
        if !headers.contains_key(FORWARDED_PROTO) {
            headers.insert(FORWARDED_PROTO, if peer.tls { HTTPS } else { HTTP });
        }
        if !headers.contains_key(FORWARDED_HOST) {
            forward_host(headers);
        }
    } else {
        headers.remove(FORWARDED);
        headers.insert(FORWARDED_FOR, peer.ip_text.clone());
        headers.insert(FORWARDED_PROTO, if peer.tls { HTTPS } else { HTTP });
        forward_host(headers);
    }
}

fn forward_host(headers: &mut HeaderMap) {
    match headers.get(HOST).cloned() {
        Some(host) => headers.insert(FORWARDED_HOST, host),
        None => headers.remove(FORWARDED_HOST),
    };
}

/// HTTP/2 may split cookies over several fields; HTTP/1.1 may not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let values: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&values.join(&b"; "[..])) {
        headers.insert(COOKIE, cookie);
    }
}

/// Whether a list-valued field has this token, in any case.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers.get_all(name).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(fields: &[(&'static str, &'static str)], peer: &Peer, strip: Strip) -> HeaderMap {
        let mut request = http::Request::new(());
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let (mut parts, ()) = request.into_parts();
        to_app(&mut parts, peer, strip, false);
        parts.headers
    }

    fn peer(trusted: bool) -> Peer {
        Peer::new("192.0.2.7:4711".parse().unwrap(), false, trusted)
    }

    fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let headers = through(
            &[
                ("connection", "close, X-Hop, Host"),
                ("connection", "x-other"),
                ("x-hop", "1"),
                ("x-other", "1"),
                ("host", "shop.example"),
                ("keep-alive", "timeout=5"),
                ("te", "gzip"),
                ("upgrade", "h2c"),
                ("transfer-encoding", "chunked"),
                ("x-kept", "b"),
                ("x-kept", "a"),
            ],
            &peer(false),
            Strip::Nothing,
        );
        for gone in ["connection", "x-hop", "x-other", "keep-alive", "te", "upgrade", "transfer-encoding"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["host"], "shop.example");
        assert_eq!(all(&headers, "x-kept"), ["b", "a"]);
        assert_eq!(all(&headers, "via"), ["1.1 galaksio"]);
    }

    #[test]
    fn an_untrusted_peer_cannot_pretend() {
        let fields = [
            ("host", "shop.example"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("forwarded", "for=127.0.0.1"),
        ];
        let headers = through(&fields, &peer(false), Strip::Nothing);
        assert_eq!(all(&headers, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(all(&headers, "x-forwarded-proto"), ["http"]);
        assert_eq!(all(&headers, "x-forwarded-host"), ["shop.example"]);
        assert!(!headers.contains_key("forwarded"));

        let headers = through(&fields, &peer(true), Strip::Nothing);
        assert_eq!(all(&headers, "x-forwarded-for"), ["127.0.0.1, 10.0.0.1, 192.0.2.7"]);
        assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&headers, "x-forwarded-host"), ["evil.example"]);
    }

    #[test]
    fn payment_fields_are_stripped_only_where_the_gateway_is_paid() {
        let fields = [("x-payment", "a"), ("payment-signature", "b"), ("x402-payment", "c")];
        let free = through(&fields, &peer(false), Strip::Nothing);
        let sold = through(&fields, &peer(false), Strip::Payment);
        for (name, _) in fields {
            assert!(free.contains_key(name));
            assert!(!sold.contains_key(name));
        }
    }

    #[test]
    fn trailers_are_still_welcome() {
        let headers =
            through(&[("te", "deflate, trailers"), ("connection", "te")], &peer(false), Strip::Nothing);
        assert_eq!(all(&headers, "te"), ["trailers"]);
        assert_eq!(all(&headers, "connection"), ["TE"]);
    }
}
