//! A challenge, encoded ahead of time: the v2 object for `PAYMENT-REQUIRED` (base64) and the v1 object for the
//! body, with slots for what is new each time. Making one is copying, one MAC for each entry, and base64 of the
//! slots; no serialiser, no look-up, no allocation but one buffer. Pure.
//!
//! Base64 turns 3 bytes into 4 characters, so the fixed parts can be encoded once if each slot starts and ends at
//! a multiple of three. JSON lets white space stand before a value and after it: that is the padding.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::key::QuoteKey;
use super::keyring::Keys;
use super::price::{Charging, Price};
use super::quote::Terms;
use super::strip::{BodyBuilder, HeaderBuilder, Slot, Strip};
use super::token::{self, Money, Statement, Target};
use super::url::{MAX_URL, ResourceUrl};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::ids::JobId;
use crate::reason::{Charged, Problem, Retry};
use crate::x402::PaymentFlow;

/// Bytes of `PAYMENT-REQUIRED` at most: what intermediaries are known to pass on.
pub const MAX_HEADER: usize = 8 * 1024;

/// The longest `error` text of a 402, in bytes.
const MAX_ERROR: usize = 160;

/// Base64 of the `quoteExpires` slot: twelve digits or spaces.
const EXPIRES: usize = 12;

/// Characters of the `file_size_bytes` slot: any 64-bit number.
const SIZE: usize = 20;

/// The extensions that are understood: a payer may name its request (x402 extension `payment-identifier`). In the words
/// of the official servers, since clients return it as it is.
const EXTENSIONS: &str = concat!(
    r#"{"payment-identifier":{"info":{"required":false},"schema":{"#,
    r#""$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{"#,
    r#""required":{"type":"boolean"},"id":{"type":"string","minLength":16,"maxLength":128,"#,
    r#""pattern":"^[a-zA-Z0-9_-]+$"}},"required":["required"]}}}"#
);

/// What a challenge says, apart from what its slots hold.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a> {
    /// What is sold.
    pub terms: &'a Terms,
    /// Its key; `None` for a priced route of the app.
    pub key: Option<&'a QuoteKey<'a>>,
    /// In which tokens, for how much; best first.
    pub prices: &'a [Price],
    /// `maxTimeoutSeconds`.
    pub max_timeout_seconds: u64,
    /// When the client is charged.
    pub charging: Charging,
    /// `description`.
    pub description: &'a str,
    /// `mimeType`.
    pub mime_type: &'a str,
}

/// A challenge without its slots.
#[derive(Debug)]
pub struct Template {
    header: Strip,
    body: Strip,
    statements: Vec<Statement>,
}

/// What is new in one challenge.
#[derive(Clone, Copy, Debug)]
pub struct Fill<'a> {
    /// Why it is sent: error, code, and what else the answer says.
    pub problem: &'a Problem,
    /// `resource`.
    pub url: &'a ResourceUrl,
    /// The method of the request, which the quote is bound to.
    pub method: &'a Method,
    /// The canonical path of the request, which the quote is bound to.
    pub path: &'a str,
    /// The id the job will have.
    pub job: JobId,
    /// `file_size_bytes`.
    pub size: u64,
    /// Until when it is honoured.
    pub expires: UnixSeconds,
    /// Now, which picks the key.
    pub now: UnixMillis,
}

/// A challenge's two forms.
#[derive(Debug)]
pub struct Encoded {
    /// The value of `PAYMENT-REQUIRED`: base64 of the v2 object.
    pub header: Bytes,
    /// The body: the v1 object, as JSON.
    pub body: Bytes,
}

/// Why a listing cannot be made into a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A provider's or operation's name of more than 255 bytes.
    #[error("the name of a provider, an operation or a route is longer than 255 bytes")]
    Name,
    /// Too many tokens, or too long a description.
    #[error(
        "the challenge is up to {0} bytes long as a header, more than the {MAX_HEADER} that reach every client; accept fewer tokens or shorten the description"
    )]
    TooLong(usize),
}

impl Template {
    /// Encodes a listing.
    pub fn new(listing: &Listing<'_>) -> Result<Self, TemplateError> {
        let carried = token::carried(listing.terms).ok_or(TemplateError::Name)?;
        let statement = |price: &Price| Statement::new(&carried, listing.key, &listing.money(price));
        let template = Template {
            header: header(listing, &token::carried_text(&carried)),
            body: body(listing),
            statements: listing.prices.iter().map(statement).collect(),
        };
        let longest = template.header_len(MAX_ERROR, MAX_URL);
        if longest > MAX_HEADER { Err(TemplateError::TooLong(longest)) } else { Ok(template) }
    }

    /// Fills the slots.
    pub fn encode(&self, keys: &Keys, fill: &Fill<'_>) -> Encoded {
        let url = fill.url.as_str().len();
        let header = self.header_len(fill.problem.reason.text().len(), url);
        let body = self.body.len() + self.body.slots(Slot::Url) * url + 384;
        // Of a power of two the allocator has one at hand.
        let mut out = Vec::with_capacity((header + body).next_power_of_two());
        self.encode_header(keys, fill, &mut out);
        let header = out.len();
        self.encode_body(fill, &mut out);
        let mut body = Bytes::from(out);
        Encoded { header: body.split_to(header), body }
    }

    fn encode_header(&self, keys: &Keys, fill: &Fill<'_>, out: &mut Vec<u8>) {
        let (error, url) = (fill.problem.reason.text(), fill.url.as_str());
        let target = Target { method: fill.method, path: fill.path };
        for (text, slot) in self.header.parts() {
            out.extend_from_slice(text);
            match slot {
                Slot::Error => put_string(out, error.as_bytes()),
                Slot::Url => put_string(out, url.as_bytes()),
                Slot::Expires => put_base64(out, &number::<EXPIRES>(fill.expires)),
                Slot::Token(at) => {
                    let statement = &self.statements[at];
                    let fresh = token::fresh(keys, statement, target, fill.job, fill.expires, fill.now);
                    put_string(out, &fresh);
                }
                Slot::Job | Slot::Size | Slot::End => {}
            }
        }
    }

    fn encode_body(&self, fill: &Fill<'_>, out: &mut Vec<u8>) {
        let url = fill.url.as_str().as_bytes();
        for (text, slot) in self.body.parts() {
            out.extend_from_slice(text);
            match slot {
                Slot::Error => put_problem(out, fill.problem),
                Slot::Url => out.extend_from_slice(url),
                Slot::Expires => out.extend_from_slice(&number::<EXPIRES>(fill.expires)),
                Slot::Job => out.extend_from_slice(fill.job.encode(&mut [0; 36]).as_bytes()),
                Slot::Size => out.extend_from_slice(&number::<SIZE>(fill.size)),
                Slot::Token(_) | Slot::End => {}
            }
        }
    }

    fn header_len(&self, error: usize, url: usize) -> usize {
        let string = |len: usize| (len + 1).div_ceil(3) * 4;
        let tokens = self.statements.len() * (string(token::FRESH_TEXT) + EXPIRES / 3 * 4);
        self.header.len() + string(error) + string(url) + tokens
    }
}

impl Listing<'_> {
    fn money(&self, price: &Price) -> Money {
        Money {
            network: price.accept.asset.network,
            asset: price.accept.asset.address,
            pay_to: price.accept.pay_to,
            amount: price.amount,
            max_timeout_seconds: self.max_timeout_seconds,
            flow: self.charging.of(price.dollars()),
        }
    }

    /// The entries that version 1 can take: networks its client knows, one token each.
    fn v1_prices(&self) -> impl Iterator<Item = (&Price, &'static str)> {
        self.prices.iter().enumerate().filter_map(|(at, price)| {
            let network = price.accept.asset.network;
            let first = self.prices[..at].iter().all(|other| other.accept.asset.network != network);
            first.then_some((price, network.legacy_name()?))
        })
    }

    /// `"name":…,"version":…`, and the payment flow unless it is the default.
    fn domain(&self, price: &Price) -> String {
        let asset = &price.accept.asset;
        let mut text = format!(r#""name":{},"version":{}"#, json(&asset.name), json(&asset.version));
        if self.charging.of(price.dollars()) == PaymentFlow::Upfront {
            text.push_str(r#","paymentFlow":"upfront""#);
        }
        text
    }
}

fn header(listing: &Listing<'_>, carried: &str) -> Strip {
    let mut out = HeaderBuilder::default();
    out.put(r#"{"x402Version":2,"error":"#);
    out.slot("\"", Slot::Error);
    out.put(r#","resource":{"url":"#);
    out.slot("\"", Slot::Url);
    let (description, mime_type) = (json(listing.description), json(listing.mime_type));
    out.put(&format!(r#","description":{description},"mimeType":{mime_type}}},"accepts":["#));
    for (at, price) in listing.prices.iter().enumerate() {
        let money = listing.money(price);
        out.put(if at == 0 { "" } else { "," });
        out.put(&format!(
            r#"{{"scheme":"exact","network":"{}","amount":"{}","asset":"{}","payTo":"{}","maxTimeoutSeconds":{},"extra":{{{},"quoteId":"#,
            money.network,
            money.amount,
            money.asset,
            money.pay_to,
            money.max_timeout_seconds,
            listing.domain(price),
        ));
        out.slot(&format!("\"{carried}"), Slot::Token(at));
        out.put(r#","quoteExpires":"#);
        out.slot("", Slot::Expires);
        out.put("}}");
    }
    out.put(&format!(r#"],"extensions":{EXTENSIONS}}}"#));
    out.finish()
}

fn body(listing: &Listing<'_>) -> Strip {
    let mut out = BodyBuilder::default();
    out.put(r#"{"x402Version":1,"#);
    out.slot(Slot::Error);
    out.put(r#","jobId":""#);
    out.slot(Slot::Job);
    out.put(&format!(r#"","provider":{}"#, json(&listing.terms.provider)));
    if let Some(price) = listing.prices.first() {
        let dollars = price.dollars();
        out.put(&format!(r#","price_usd":{}"#, dollars.units.to_decimal(dollars.decimals)));
    }
    if listing.key.is_some() {
        out.put(r#","file_size_bytes":"#);
        out.slot(Slot::Size);
    }
    out.put(r#","quoteExpires":"#);
    out.slot(Slot::Expires);
    out.put(r#","accepts":["#);
    for (at, (price, network)) in listing.v1_prices().enumerate() {
        out.put(if at == 0 { "" } else { "," });
        out.put(&format!(
            r#"{{"scheme":"exact","network":"{network}","maxAmountRequired":"{}","resource":""#,
            price.amount
        ));
        out.slot(Slot::Url);
        out.put(&format!(
            r#"","description":{},"mimeType":{},"payTo":"{}","maxTimeoutSeconds":{},"asset":"{}","extra":{{{}}}}}"#,
            json(listing.description),
            json(listing.mime_type),
            price.accept.pay_to,
            listing.max_timeout_seconds,
            price.accept.asset.address,
            listing.domain(price),
        ));
    }
    out.put(r#"],"payment":{"accepts":["#);
    for (at, price) in listing.prices.iter().enumerate() {
        let network = price.accept.asset.network;
        let network = network.legacy_name().map_or_else(|| network.to_string(), str::to_owned);
        out.put(if at == 0 { "" } else { "," });
        out.put(&format!(
            r#"{{"scheme":"exact","network":"{network}","payTo":"{}","asset":"{}","maxAmountRequired":"{}"}}"#,
            price.accept.pay_to, price.accept.asset.address, price.amount
        ));
    }
    out.put("]}}");
    out.finish()
}

/// A JSON string, quoted and escaped.
fn json(text: &str) -> String {
    Value::from(text).to_string()
}

/// Base64 of a string's rest: its text, which needs no escape, the closing quote, and spaces up to a multiple of 3.
fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    // To blank room for the longest costs as much as to encode what mostly is there.
    match text.len() {
        0..128 => put_string_within::<{ 128 + 3 }>(out, text),
        _ => put_string_within::<{ MAX_URL + 3 }>(out, text),
    }
}

fn put_string_within<const ROOM: usize>(out: &mut Vec<u8>, text: &[u8]) {
    let mut bytes = [b' '; ROOM];
    let text = &text[..text.len().min(ROOM - 3)];
    bytes[..text.len()].copy_from_slice(text);
    bytes[text.len()] = b'"';
    put_base64(out, &bytes[..(text.len() + 1).next_multiple_of(3)]);
}

fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    base64_simd::STANDARD.encode_append(bytes, out);
}

/// A number with spaces after it, `WIDTH` characters in all.
fn number<const WIDTH: usize>(number: u64) -> [u8; WIDTH] {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    let mut out = [b' '; WIDTH];
    // Twelve digits hold every second of the next thirty thousand years.
    let len = digits.len().min(WIDTH);
    out[..len].copy_from_slice(&digits[..len]);
    out
}

/// `"error":…,"code":…`, and what else is said to somebody who tried to pay.
fn put_problem(out: &mut Vec<u8>, problem: &Problem) {
    out.extend_from_slice(b"\"error\":");
    match &problem.message {
        None => {
            out.push(b'"');
            out.extend_from_slice(problem.reason.text().as_bytes());
            out.push(b'"');
        }
        Some(message) => out.extend_from_slice(json(message).as_bytes()),
    }
    out.extend_from_slice(b",\"code\":\"");
    out.extend_from_slice(problem.reason.code().as_bytes());
    out.push(b'"');
    if let Some(details) = &problem.details {
        out.extend_from_slice(b",\"details\":");
        out.extend_from_slice(details.to_string().as_bytes());
    }
    if let Some(charged) = problem.charged {
        out.extend_from_slice(match charged {
            Charged::No => b",\"charged\":\"no\"".as_slice(),
            Charged::Yes => b",\"charged\":\"yes\"",
            Charged::Unknown => b",\"charged\":\"unknown\"",
        });
        out.extend_from_slice(match problem.reason.retry() {
            Retry::SamePayment => b",\"retry\":\"same_payment\"".as_slice(),
            Retry::NewPayment => b",\"retry\":\"new_payment\"",
            Retry::Never => b",\"retry\":\"never\"",
        });
    }
}

#[cfg(test)]
mod tests;
