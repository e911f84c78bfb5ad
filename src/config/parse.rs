//! From one TOML value to one typed value: texts, durations, sizes, dollars, files; and [`web`].
//!
//! Each parser is pure and says, when it refuses, what is wrong and what to write instead.

mod template;
mod web;

use std::path::PathBuf;
use std::time::Duration;

use super::node::{Node, Value};
use super::resolved::Settle;
use crate::money::Amount;
use crate::x402::{Address, Network};

pub(super) use template::{pointer, request_body};
pub(crate) use web::is_private;
pub(super) use web::{
    base_url, host, ip_block, method, origin, own_segment, route_path, rpc_url, socket_address,
    socket_address_or_off,
};

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

/// What a unit of gas costs, in wei: written in gwei, `5gwei` or `0.05gwei`.
pub(super) fn gas_price(node: &Node) -> Parsed<u128> {
    let text = text(node)?;
    let fix = "write it in gwei: \"5gwei\", or \"0.05gwei\"";
    let number = text.strip_suffix("gwei").map(str::trim_end);
    match number.filter(|number| !number.starts_with('$')).and_then(|number| Amount::from_decimal(number, 9))
    {
        Some(price) if price > Amount::ZERO => Ok(price.units()),
        Some(_) => Err(Wrong::new("nothing would ever be settled for nothing", fix)),
        None => Err(Wrong::new(format!("{text:?} is not a price of gas"), fix)),
    }
}

pub(super) fn path(node: &Node) -> Parsed<PathBuf> {
    name(node).map(PathBuf::from)
}

/// One or more [`rpc_url`]s.
pub(super) fn rpc_urls(node: &Node) -> Parsed<Vec<(http::Uri, secrecy::SecretString)>> {
    let fix = "write a list of URLs: [\"https://rpc.example.com/v2/key\"]";
    let Value::Array(items) = &node.value else {
        return Err(Wrong::new(format!("expected a list, found {}", node.value.kind()), fix));
    };
    if items.is_empty() {
        return Err(Wrong::new("there is nobody to ask", fix));
    }
    items.iter().map(rpc_url).collect()
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

pub(super) fn settle(node: &Node) -> Parsed<Settle> {
    match text(node)?.as_str() {
        "success" => Ok(Settle::Success),
        "upfront" => Ok(Settle::Upfront),
        "after" => Ok(Settle::After),
        other => Err(Wrong::new(
            format!("{other:?} is not a way to settle"),
            "write \"success\" (charged when the work succeeded), \"upfront\" (before it starts) or \"after\" (after the answer)",
        )),
    }
}
