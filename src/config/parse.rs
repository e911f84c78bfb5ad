//! From one TOML value to one typed value: durations, sizes, dollars, URLs, addresses, paths.
//!
//! Each parser is pure and says, when it refuses, what is wrong and what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Uri};

use super::node::{Node, Value};
use super::resolved::IpBlock;
use crate::money::Amount;
use crate::x402::{Address, Network, PaymentFlow};

/// Why a value is refused, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) reason: String,
    pub(super) fix: String,
}

/// A parser's answer.
pub(super) type Parsed<T> = Result<T, Wrong>;

impl Wrong {
    pub(super) fn new(reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Wrong { reason: reason.into(), fix: fix.into() }
    }
}

/// Dollars are counted with this many decimal places wherever no asset is named.
pub(super) const DOLLAR_DECIMALS: u8 = 6;

pub(super) fn text(node: &Node) -> Parsed<String> {
    match &node.value {
        Value::Text(text) => Ok(text.clone()),
        other => Err(Wrong::new(
            format!("expected a text, found {}", other.kind()),
            "write it in quotes: \"…\"".to_owned(),
        )),
    }
}

/// A text with at least one character.
pub(super) fn name(node: &Node) -> Parsed<String> {
    match text(node)? {
        text if text.trim().is_empty() => Err(Wrong::new("it is empty", "write a name, or remove the line")),
        text => Ok(text),
    }
}

pub(super) fn boolean(node: &Node) -> Parsed<bool> {
    match &node.value {
        Value::Boolean(flag) => Ok(*flag),
        other => Err(Wrong::new(
            format!("expected true or false, found {}", other.kind()),
            "write true or false, without quotes",
        )),
    }
}

/// A whole number from 1 to `T`'s largest.
pub(super) fn count<T: TryFrom<i64>>(node: &Node) -> Parsed<T> {
    match &node.value {
        Value::Integer(number @ 1..) => T::try_from(*number)
            .map_err(|_| Wrong::new(format!("{number} is too large"), "write a smaller number")),
        Value::Integer(number) => {
            Err(Wrong::new(format!("{number} is not a count"), "write a whole number above 0"))
        }
        other => Err(Wrong::new(
            format!("expected a number, found {}", other.kind()),
            "write a whole number, without quotes",
        )),
    }
}

/// A time above zero: `250ms`, `30s`, `5m`, `2h`, `1d`.
pub(super) fn duration(node: &Node) -> Parsed<Duration> {
    let fix = "write a number and a unit: 250ms, 30s, 5m, 2h or 1d";
    let Value::Text(text) = &node.value else {
        return Err(Wrong::new(format!("expected a time, found {}", node.value.kind()), fix));
    };
    let (number, unit) = number_and_unit(text);
    let unit_millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(Wrong::new(format!("{text:?} is not a time"), fix)),
    };
    let most = 10 * 365 * 86_400_000;
    match number.and_then(|number| number.checked_mul(unit_millis)) {
        None => Err(Wrong::new(format!("{text:?} is not a time"), fix)),
        Some(0) => Err(Wrong::new("a time of nothing would refuse everything", fix)),
        Some(millis) if millis > most => Err(Wrong::new(format!("{text:?} is more than ten years"), fix)),
        Some(millis) => Ok(Duration::from_millis(millis)),
    }
}

/// A number of bytes above zero: `512`, `64KiB` (1024s), `10MB` (1000s).
pub(super) fn size(node: &Node) -> Parsed<u64> {
    let fix = "write bytes as a number, or a text with a unit: 64KiB and 10MiB count in 1024s, 64kB and 10MB in 1000s";
    let bytes = match &node.value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => {
            let (number, unit) = number_and_unit(text);
            let scale = match unit {
                "B" => Some(1),
                "kB" | "KB" => Some(1_000),
                "MB" => Some(1_000_000),
                "GB" => Some(1_000_000_000),
                "KiB" => Some(1 << 10),
                "MiB" => Some(1 << 20),
                "GiB" => Some(1 << 30),
                _ => None,
            };
            number.zip(scale).and_then(|(number, scale): (u64, u64)| number.checked_mul(scale))
        }
        other => return Err(Wrong::new(format!("expected a size, found {}", other.kind()), fix)),
    };
    match bytes {
        None => Err(Wrong::new("this is not a size", fix)),
        Some(0) => Err(Wrong::new("a size of 0 would refuse everything", fix)),
        Some(bytes) => Ok(bytes),
    }
}

/// [`size`], for what lives in memory.
pub(super) fn memory_size(node: &Node) -> Parsed<usize> {
    usize::try_from(size(node)?).map_err(|_| Wrong::new("this size does not fit memory", "write less"))
}

fn number_and_unit(text: &str) -> (Option<u64>, &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(end);
    (number.parse().ok(), unit.trim_start())
}

/// A share in percent, in hundredths of a percent: `20%` is 2000.
pub(super) fn percent(node: &Node) -> Parsed<u32> {
    let fix = "write a text such as \"20%\" or \"2.5%\", from 0% to 1000%, with two decimal places at most";
    let Value::Text(text) = &node.value else {
        return Err(Wrong::new(format!("expected a percentage, found {}", node.value.kind()), fix));
    };
    text.strip_suffix('%')
        .filter(|number| !number.starts_with('$'))
        .and_then(|number| Amount::from_decimal(number, 2))
        .and_then(|hundredths| u32::try_from(hundredths.units()).ok())
        .filter(|hundredths| *hundredths <= 100_000)
        .ok_or_else(|| Wrong::new(format!("{text:?} is not a percentage"), fix))
}

/// Dollars: `$0.001` or `0.001`. Kept as decimal text without the sign.
pub(super) fn dollars(node: &Node) -> Parsed<String> {
    let fix = "write a text such as \"$0.01\", with six decimal places at most";
    let Value::Text(text) = &node.value else {
        return Err(Wrong::new(format!("expected dollars, found {}", node.value.kind()), fix));
    };
    match Amount::from_decimal(text, DOLLAR_DECIMALS) {
        Some(amount) => Ok(amount.to_decimal(DOLLAR_DECIMALS)),
        None => Err(Wrong::new(format!("{text:?} is not an amount of dollars"), fix)),
    }
}

/// [`dollars`], and more than none.
pub(super) fn price(node: &Node) -> Parsed<String> {
    match dollars(node)? {
        text if text == "0" => Err(Wrong::new(
            "a price of nothing asks nobody to pay",
            "write a price above $0, or remove it to make the route free",
        )),
        text => Ok(text),
    }
}

pub(super) fn socket_address(node: &Node) -> Parsed<SocketAddr> {
    let text = text(node)?;
    text.parse().map_err(|_| {
        let fix = "write an IP address and a port: \"127.0.0.1:8080\", \"0.0.0.0:8080\", \"[::]:8080\"; port 0 takes a free one";
        Wrong::new(format!("{text:?} is not an address to listen on"), fix)
    })
}

/// [`socket_address`], or the empty text for nowhere.
pub(super) fn socket_address_or_off(node: &Node) -> Parsed<Option<SocketAddr>> {
    match &node.value {
        Value::Text(text) if text.is_empty() => Ok(None),
        _ => socket_address(node).map(Some),
    }
}

/// An address or a block of them. Bits beyond the prefix must be zero, or the block is not the one meant.
pub(super) fn ip_block(node: &Node) -> Parsed<IpBlock> {
    let text = text(node)?;
    let fix = "write an address or a block: \"127.0.0.1\", \"10.0.0.0/8\", \"fd00::/8\"";
    let wrong = |reason: String| Wrong::new(reason, fix);
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text.as_str(), None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong(format!("{text:?} is not an address block")))?;
    let (width, bits) = match address {
        IpAddr::V4(v4) => (32u8, u128::from(v4.to_bits()) << 96),
        IpAddr::V6(v6) => (128, v6.to_bits()),
    };
    let prefix = match prefix {
        None => width,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            let prefix = digits.parse().ok().filter(|prefix| *prefix <= width);
            prefix.ok_or_else(|| wrong(format!("a prefix is at most {width} here")))?
        }
        Some(_) => return Err(wrong(format!("{text:?} is not an address block"))),
    };
    if bits.checked_shl(u32::from(prefix)).unwrap_or(0) != 0 {
        return Err(wrong(format!("{text:?} has address bits after its prefix of {prefix}")));
    }
    Ok(IpBlock { address, prefix })
}

pub(super) fn path(node: &Node) -> Parsed<PathBuf> {
    name(node).map(PathBuf::from)
}

/// A file that is there.
pub(super) fn existing_file(node: &Node) -> Parsed<PathBuf> {
    let path = path(node)?;
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(path),
        Ok(_) => Err(Wrong::new(format!("{} is not a file", path.display()), "name the file itself")),
        Err(error) => Err(Wrong::new(
            format!("{} cannot be read: {error}", path.display()),
            "correct the path; relative ones start at the working directory",
        )),
    }
}

/// `http://` or `https://` with a host; no user name, query or fragment. A trailing slash is dropped.
pub(super) fn base_url(node: &Node) -> Parsed<Uri> {
    let text = text(node)?;
    let fix = "write scheme, host and, where needed, port and path: \"https://api.example.com\"";
    let wrong = |reason: &str| Wrong::new(format!("{text:?} {reason}"), fix);
    if text.contains('#') {
        return Err(wrong("has a fragment"));
    }
    let url: Uri = text.trim_end_matches('/').parse().map_err(|_| wrong("is not a URL"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong("does not start with http:// or https://"));
    }
    let authority = url.authority().ok_or_else(|| wrong("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("carries a user name; it would be sent to whoever answers there"));
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') || bad_port(&url) {
        return Err(wrong("has no host, or a port that is none"));
    }
    if url.query().is_some() {
        return Err(wrong("has a query"));
    }
    Ok(url)
}

fn bad_port(url: &Uri) -> bool {
    // `Uri` takes any digits for a port; `port_u16` is `None` for those that do not fit.
    url.port().is_some_and(|port| port.as_str().parse::<u16>().map_or(true, |number| number == 0))
        || (url.port().is_none()
            && url
                .authority()
                .is_some_and(|a| a.as_str().rsplit(']').next().is_some_and(|end| end.contains(':'))))
}

/// [`base_url`] without a path.
pub(super) fn origin(node: &Node) -> Parsed<Uri> {
    let url = base_url(node)?;
    if url.path() == "/" || url.path().is_empty() {
        Ok(url)
    } else {
        Err(Wrong::new(
            format!("{url} has a path, and none would be added to what clients ask for"),
            "write scheme, host and port only: \"http://127.0.0.1:3000\"",
        ))
    }
}

/// Whether what is sent to `url` stays on this machine, or is encrypted.
pub(crate) fn is_private(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    url.scheme_str() == Some("https")
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn network(node: &Node) -> Parsed<Network> {
    let text = text(node)?;
    text.parse().map_err(|_| {
        let fix = "write a known name, such as \"base\" or \"base-sepolia\", or \"eip155:<chain id>\"";
        Wrong::new(format!("{text:?} is not a network"), fix)
    })
}

/// `0x` and 40 hex digits. In mixed case, the case is a checksum (EIP-55) and must be right: it catches typing errors.
pub(super) fn address(node: &Node) -> Parsed<Address> {
    let text = text(node)?;
    let wrong = || {
        Wrong::new(
            format!("{text:?} is not an address"),
            "write 0x and 40 hex digits, as the wallet shows it",
        )
    };
    let digits = text.strip_prefix("0x").ok_or_else(wrong)?;
    let address: Address = text.parse().map_err(|_| wrong())?;
    if address == Address::ZERO {
        return Err(Wrong::new(
            "this is the zero address; money sent there is gone",
            "write an address of yours",
        ));
    }
    let mixed =
        digits.bytes().any(|b| b.is_ascii_lowercase()) && digits.bytes().any(|b| b.is_ascii_uppercase());
    if mixed && address.to_checksum(None) != text {
        return Err(Wrong::new(
            format!("the checksum in the letter case of {text} is wrong, so a character is likely mistyped"),
            format!("copy the address again; with these digits it would be {}", address.to_checksum(None)),
        ));
    }
    Ok(address)
}

pub(super) fn settle(node: &Node) -> Parsed<PaymentFlow> {
    match text(node)?.as_str() {
        "authorization" => Ok(PaymentFlow::Authorization),
        "upfront" => Ok(PaymentFlow::Upfront),
        other => Err(Wrong::new(
            format!("{other:?} is not a way to settle"),
            "write \"authorization\" (charged when the work succeeded) or \"upfront\" (before it starts)",
        )),
    }
}

/// A method in the case HTTP has it; those that are never sold are refused.
pub(super) fn method(node: &Node) -> Parsed<Method> {
    let text = text(node)?;
    if text == "CONNECT" || text == "TRACE" {
        return Err(Wrong::new(format!("{text} is never proxied"), "remove it"));
    }
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    let upper = text.to_ascii_uppercase();
    if text != upper && known.contains(&upper.as_str()) {
        return Err(Wrong::new("methods are case-sensitive", format!("write {upper:?}")));
    }
    Method::from_bytes(text.as_bytes())
        .map_err(|_| Wrong::new(format!("{text:?} is not a method"), "write one such as \"GET\" or \"POST\""))
}

/// The first segment of a path of ours, without slashes; `None` for the empty text, which switches it off.
pub(super) fn own_segment(node: &Node) -> Parsed<Option<String>> {
    let text = text(node)?;
    if text.is_empty() {
        return Ok(None);
    }
    let segment = text.strip_prefix('/').unwrap_or(&text);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    if segment.is_empty() || !segment.bytes().all(plain) || segment.bytes().all(|b| b == b'.') {
        return Err(Wrong::new(
            format!("{text:?} is not one path segment"),
            "write a slash and letters, digits, - or _: \"/status\"; \"\" switches it off",
        ));
    }
    Ok(Some(segment.to_owned()))
}

/// A route's path in the one spelling requests are matched by: no `//`, dot segments, needless or
/// ambiguous escapes; `*` only as the last segment.
pub(super) fn route_path(node: &Node) -> Parsed<String> {
    let text = text(node)?;
    let fix = "write the path as clients send it: \"/reports\", or \"/reports/*\" for all below it";
    let wrong = |reason: &str| Err(Wrong::new(format!("{text:?} {reason}"), fix));
    if !text.starts_with('/') {
        return wrong("does not start with a slash");
    }
    let fixed = text.strip_suffix("/*").unwrap_or(&text);
    if fixed.contains('*') {
        return wrong("has a * elsewhere than as its last segment");
    }
    if fixed.contains("//") || (fixed.ends_with('/') && text.ends_with('*')) {
        return wrong("has an empty segment");
    }
    if fixed.split('/').any(|segment| segment == "." || segment == "..") {
        return wrong("has a dot segment");
    }
    let unescaped = |b: u8| b.is_ascii_alphanumeric() || b"/-_.~!$&'()+,;=:@".contains(&b);
    let bytes = fixed.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let escaped = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
            let escaped =
                escaped.filter(|hex| hex.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()));
            match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(b'/' | b'\\' | b'%' | 0..0x20 | 0x7f) => {
                    return wrong("escapes a character that makes it ambiguous");
                }
                Some(plain) if unescaped(plain) => return wrong("escapes a character that needs no escape"),
                Some(_) => at += 3,
                None => return wrong("has a broken escape (two upper-case hex digits follow %)"),
            }
        } else if unescaped(byte) {
            at += 1;
        } else {
            return wrong("has a character that a path cannot have, or a query");
        }
    }
    Ok(text)
}
