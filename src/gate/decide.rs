//! The decision: challenge, refuse, admit. Pure: everything it knows is handed to it, time included.

use http::Method;

use super::challenge::Challenge;
use super::payment::{Echo, Presented};
use crate::clock::UnixMillis;
use crate::ids::JobId;
use crate::intake::Ask;
use crate::jobs::job::Sold;
use crate::quote_cache::{
    Buckets, Charging, Dollars, Epochs, Fill, GRACE, Keys, Money, Quote, QuoteKey, ResourceUrl, RouteId,
    Target, Tariff, Terms, Token,
};
use crate::reason::{Charged, Problem, Reason};
use crate::x402::{Requirement, Version};

/// A request on a priced or brokered route.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The route.
    pub route: RouteId,
    /// When the route charges.
    pub charging: Charging,
    /// The method.
    pub method: &'a Method,
    /// The canonical path, without the query.
    pub path: &'a str,
    /// The URL, as challenges name it.
    pub url: &'a ResourceUrl,
    /// What is asked for, on a brokered route; `None` on a priced route of the app.
    pub ask: Option<&'a Ask>,
}

/// What a decision is made by.
#[derive(Clone, Copy)]
pub struct Books<'a> {
    /// The keys that quotes are signed with.
    pub keys: &'a Keys,
    /// The prices that were shown.
    pub epochs: &'a Epochs,
    /// Whether `epochs` holds all that was shown up to this request, by other replicas too.
    pub epochs_current: bool,
    /// What clients may pay with.
    pub tariff: &'a Tariff,
    /// The size buckets.
    pub buckets: &'a Buckets,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision {
    /// It is free: to be done without a payment.
    Free(Terms),
    /// It is to be answered with a challenge: the first, or because its payment is no good (and not charged).
    Challenge(Challenge),
    /// It is to be answered with an error; there is no price for it.
    Refuse(Problem),
    /// It is paid for, if the payment turns out to be good.
    Admit(Admission),
    /// It cannot be decided yet: get what is missing and ask again.
    Missing(Missing),
}

/// What a decision needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A quote, to challenge with.
    Quote,
    /// The prices that other replicas have shown.
    Epochs,
}

/// What a payment buys. Its signature, time window and use before this are not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// What was sold.
    pub terms: Terms,
    /// The id in the quote, which the job gets if it is still free. Version 1 brings none.
    pub job: Option<JobId>,
    /// What the payment must satisfy, and the price: `requirement.amount`.
    pub requirement: Requirement,
}

/// Why a payment buys nothing here.
enum Rejected {
    For(Reason),
    Unless(Missing),
}

/// Decides. `job` is a fresh id, for a challenge.
pub fn decide(
    request: &Request<'_>,
    payment: Option<&Presented<'_>>,
    quote: Option<&Quote>,
    books: &Books<'_>,
    job: JobId,
    now: UnixMillis,
) -> Decision {
    let key = match request.ask.map(|ask| QuoteKey::of(ask, books.buckets)).transpose() {
        Ok(key) => key,
        Err(too_large) => {
            let limit = serde_json::json!({ "limit": too_large.limit });
            return Decision::Refuse(Problem::new(Reason::TooLarge).details(limit));
        }
    };
    let verdict = payment.map(|payment| match payment.version {
        Version::V2 => admit_v2(request, payment, key.as_ref(), books, now),
        Version::V1 => admit_v1(request, payment, key.as_ref(), quote, books, now),
    });
    let problem = match verdict {
        Some(Ok(admission)) => return Decision::Admit(admission),
        Some(Err(Rejected::Unless(missing))) => return Decision::Missing(missing),
        Some(Err(Rejected::For(reason))) => Problem::new(reason).charged(Charged::No),
        None => Problem::new(Reason::PaymentRequired),
    };
    let Some(quote) = quote else { return Decision::Missing(Missing::Quote) };
    if quote.is_free() {
        return Decision::Free(quote.terms.clone());
    }
    match challenge(request, quote, books.keys, books.tariff, &problem, job, now) {
        Some(challenge) => Decision::Challenge(challenge),
        None => Decision::Refuse(Problem::new(Reason::Internal)),
    }
}

/// A challenge made from a quote: the first one, or the answer to a payment that failed later than at the gate.
/// `problem` must be a 402. `None` if the route does not sell this quote.
pub fn challenge(
    request: &Request<'_>,
    quote: &Quote,
    keys: &Keys,
    tariff: &Tariff,
    problem: &Problem,
    job: JobId,
    now: UnixMillis,
) -> Option<Challenge> {
    let template = quote.template(request.route)?;
    let fill = Fill {
        problem,
        url: request.url,
        method: request.method,
        path: request.path,
        job,
        size: request.ask.map_or(0, |ask| ask.size),
        expires: (now / 1000).saturating_add(tariff.quote_ttl().as_secs()),
        now,
    };
    Some(Challenge::new(problem.reason, job, template.encode(keys, &fill)))
}

/// Version 2 brings its quote along. What it bought is what the quote says, whatever the price is by now.
fn admit_v2(
    request: &Request<'_>,
    payment: &Presented<'_>,
    key: Option<&QuoteKey<'_>>,
    books: &Books<'_>,
    now: UnixMillis,
) -> Result<Admission, Rejected> {
    let echo = payment.accepted.as_ref().ok_or(Rejected::For(Reason::PaymentMalformed))?;
    let accept = books.tariff.accept(echo.network, echo.asset);
    let accept = accept.ok_or_else(|| unknown_token(books.tariff, echo))?;
    let reject = |unequal: bool, reason| if unequal { Err(Rejected::For(reason)) } else { Ok(()) };
    reject(echo.pay_to != accept.pay_to, Reason::PaymentPayee)?;
    let money = Money {
        network: echo.network,
        asset: echo.asset,
        pay_to: echo.pay_to,
        amount: echo.amount,
        max_timeout_seconds: echo.max_timeout_seconds,
        flow: echo.flow,
    };
    let target = Target { method: request.method, path: request.path };
    let text = echo.quote_id.ok_or(Rejected::For(Reason::QuoteInvalid))?;
    let token = Token::verify(text, books.keys, key, &money, target, now)
        .map_err(|_| Rejected::For(Reason::QuoteInvalid))?;
    reject(request.ask.is_some_and(|ask| ask.size > token.terms.bound), Reason::QuoteInvalid)?;
    reject(now / 1000 > token.expires.saturating_add(GRACE.as_secs()), Reason::QuoteExpired)?;
    reject(payment.network != echo.network, Reason::PaymentNetwork)?;
    reject(payment.pay_to != echo.pay_to, Reason::PaymentPayee)?;
    reject(payment.value != echo.amount, Reason::PaymentAmount)?;
    Ok(Admission {
        terms: token.terms,
        job: Some(token.job),
        requirement: Requirement {
            asset: accept.asset.clone(),
            amount: echo.amount,
            pay_to: echo.pay_to,
            max_timeout_seconds: echo.max_timeout_seconds,
            flow: echo.flow,
        },
    })
}

/// Version 1 brings only money: it buys what was shown for exactly that much.
fn admit_v1(
    request: &Request<'_>,
    payment: &Presented<'_>,
    key: Option<&QuoteKey<'_>>,
    quote: Option<&Quote>,
    books: &Books<'_>,
    now: UnixMillis,
) -> Result<Admission, Rejected> {
    let accept = books.tariff.v1_accept(payment.network);
    let accept = accept.ok_or(Rejected::For(Reason::PaymentNetwork))?;
    if payment.pay_to != accept.pay_to {
        return Err(Rejected::For(Reason::PaymentPayee));
    }
    let (network, asset) = (accept.asset.network, accept.asset.address);
    let terms = match key {
        Some(key) => match books.epochs.match_v1(key, network, asset, payment.value, now) {
            Some(terms) => terms,
            None if books.epochs_current => return Err(Rejected::For(Reason::PaymentAmount)),
            None => return Err(Rejected::Unless(Missing::Epochs)),
        },
        // The app's own prices are the operator's: they do not move.
        None => match quote {
            Some(quote) if quote.price_in(network, asset) == Some(payment.value) => &quote.terms,
            Some(_) => return Err(Rejected::For(Reason::PaymentAmount)),
            None => return Err(Rejected::Unless(Missing::Quote)),
        },
    };
    Ok(Admission {
        terms: terms.clone(),
        job: None,
        requirement: Requirement {
            asset: accept.asset.clone(),
            amount: payment.value,
            pay_to: accept.pay_to,
            max_timeout_seconds: books.tariff.max_timeout_seconds(),
            flow: request.charging.of(Dollars { units: payment.value, decimals: accept.asset.decimals }),
        },
    })
}

fn unknown_token(tariff: &Tariff, echo: &Echo<'_>) -> Rejected {
    let known = tariff.knows(echo.network);
    Rejected::For(if known { Reason::PaymentAsset } else { Reason::PaymentNetwork })
}

impl Admission {
    /// What was sold, for the job's record; `size` is that of the request.
    pub fn sold(&self, size: u64) -> Sold {
        Sold {
            provider: self.terms.provider.clone(),
            operation: self.terms.operation.clone(),
            price: self.requirement.amount,
            cost: self.terms.cost.units,
            size,
            passed_over: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
