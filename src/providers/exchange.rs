//! Calls to one provider: prices read from its 402, and the exchange of a payment for an answer.
//!
//! The only place of the adapters that attaches a payment header. It sends one at most twice, the second time only
//! if the first provably never left; a few times more to a provider that is [`Exchange::idempotent`]. What it may
//! not do: choose terms, sign, or know what a payment costs.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{StatusCode, Uri};
use http_body_util::BodyExt;
use serde_json::{Map, Value};

use super::{Fault, Offer, ProviderError, Purse};
use crate::intake::Data;
use crate::outgoing::{Answer, Call, DEFAULT_MAX_ANSWER, Opened, Outgoing, OutgoingError, Streamed};
use crate::x402::{Asset, Challenge, Offered};

/// A probe that takes longer is no offer; whoever asks may wait less.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);

/// Within an order, terms that take longer are none: time is left for another provider.
const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// How often an idempotent call is repeated whose answer was lost, and how long after the first loss; twice as long each time.
const REPEATS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// What an adapter needs to reach its provider.
#[derive(Clone, Debug)]
pub(super) struct Line {
    outgoing: Outgoing,
    /// What the wallet pays in, best first.
    assets: Arc<[Asset]>,
    probe_deadline: Duration,
    ask_deadline: Duration,
}

/// The calls of one order, under its one deadline.
pub(super) struct Exchange<'a> {
    line: &'a Line,
    ends: Instant,
    repeats: u32,
}

impl Line {
    pub(super) fn new(outgoing: Outgoing, assets: &[Asset]) -> Self {
        Line { outgoing, assets: assets.into(), probe_deadline: PROBE_DEADLINE, ask_deadline: ASK_DEADLINE }
    }

    #[cfg(test)]
    pub(super) fn with_ask_deadline(self, ask_deadline: Duration) -> Self {
        Line { ask_deadline, ..self }
    }

    #[cfg(test)]
    pub(super) fn with_probe_deadline(self, probe_deadline: Duration) -> Self {
        Line { probe_deadline, ..self }
    }

    /// Starts an order that must have ended after `deadline`.
    pub(super) fn open(&self, deadline: Duration) -> Exchange<'_> {
        Exchange { line: self, ends: Instant::now() + deadline, repeats: 0 }
    }

    /// The challenge that `probe`, sent without payment, is answered with, in the time that a price may take.
    pub(super) async fn challenge(&self, probe: Call) -> Result<Challenge, ProviderError> {
        self.open(self.probe_deadline).challenge(probe).await
    }

    /// The terms of the 402 that `probe`, sent without payment, is answered with.
    pub(super) async fn offer(&self, probe: Call) -> Result<Offer, ProviderError> {
        self.choose(&self.challenge(probe).await?)
    }

    /// The terms in the asset we like best; within one asset the cheapest.
    pub(super) fn choose(&self, challenge: &Challenge) -> Result<Offer, ProviderError> {
        let cheapest_in = |asset: &Asset| {
            challenge.accepts.iter().filter(|entry| is_payable(entry, asset)).min_by_key(|entry| entry.amount)
        };
        self.assets
            .iter()
            .find_map(|asset| Some((asset, cheapest_in(asset)?)))
            .map(|(asset, entry)| Offer { cost: entry.amount, asset: asset.clone(), pay_to: entry.pay_to })
            .ok_or_else(|| {
                ProviderError::new(Fault::Terms, "it asks for no asset that this gateway's wallet pays in")
            })
    }
}

impl Exchange<'_> {
    /// Also a paid call whose answer was lost is sent again, identically: only for a provider that promises to answer it as
    /// it did the first time. Its payment is the same authorization, which a token takes once.
    pub(super) fn idempotent(self) -> Self {
        Exchange { repeats: REPEATS, ..self }
    }

    /// One call without payment. Any status is an answer.
    pub(super) async fn call(&self, call: Call) -> Result<Answer, ProviderError> {
        Ok(self.line.outgoing.send(call, self.left()).await?)
    }

    /// One call without payment, its body as it arrives.
    pub(super) async fn stream(&self, call: Call, body: Streamed) -> Result<Answer, ProviderError> {
        Ok(self.line.outgoing.stream(call, body, self.left()).await?)
    }

    /// The challenge that `probe`, sent without payment, is answered with. Anything but a 402 is an error.
    pub(super) async fn challenge(&self, probe: Call) -> Result<Challenge, ProviderError> {
        let answer = self.line.outgoing.send(probe, self.left().min(self.line.ask_deadline)).await?;
        if answer.status != StatusCode::PAYMENT_REQUIRED {
            let (fault, status) = (fault_of(answer.status), answer.status.as_u16());
            return Err(ProviderError::new(fault, format!("status {status} where a 402 was due")));
        }
        Challenge::from_response(&answer.headers, &answer.body)
            .map_err(|error| ProviderError::new(Fault::Broken, error.to_string()))
    }

    /// Pays `challenge` and sends `call` with the payment. Success is a 2xx.
    pub(super) async fn paid(
        &self,
        purse: &dyn Purse,
        step: &'static str,
        challenge: &Challenge,
        call: Call,
    ) -> Result<Answer, ProviderError> {
        let send = |call| self.line.outgoing.send(call, self.left());
        paid_for(self.pay_and_send(purse, step, challenge, call, send).await?)
    }

    /// As [`Exchange::paid`], with the body of the answer as it arrives.
    pub(super) async fn paid_open(
        &self,
        purse: &dyn Purse,
        step: &'static str,
        challenge: &Challenge,
        call: Call,
    ) -> Result<Opened, ProviderError> {
        let open = |call| self.line.outgoing.open(call, self.left());
        let opened = self.pay_and_send(purse, step, challenge, call, open).await?;
        if opened.status.is_success() {
            return Ok(opened);
        }
        // It says why in few words.
        let Opened { status, headers, mut body, .. } = opened;
        let mut why = BytesMut::new();
        let read = async {
            while let Some(Ok(frame)) = body.frame().await {
                let bytes = frame.into_data().unwrap_or_default();
                if why.len() + bytes.len() > DEFAULT_MAX_ANSWER {
                    return;
                }
                why.extend_from_slice(&bytes);
            }
        };
        // What it says is for the log, and not worth an error of its own.
        let _ = tokio::time::timeout(self.left(), read).await;
        let answer = Answer { status, headers, body: why.freeze() };
        Err(match paid_for(answer) {
            Err(error) => error,
            Ok(_) => ProviderError::new(Fault::Broken, "the answer is no success"),
        })
    }

    /// Pays, and sends by `send`: again if that provably never left, and as often as the provider allows.
    async fn pay_and_send<T, F>(
        &self,
        purse: &dyn Purse,
        step: &'static str,
        challenge: &Challenge,
        call: Call,
        send: impl Fn(Call) -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, OutgoingError>>,
    {
        let payment = purse.pay(step, challenge).await?;
        let call = call.header(payment.name, payment.value);
        let mut answer = send(call.clone()).await;
        if answer.as_ref().is_err_and(|error| !error.was_sent()) && !self.left().is_zero() {
            answer = send(call.clone()).await;
        }
        for repeat in 0..self.repeats {
            if answer.is_ok() || self.left() <= FIRST_PAUSE * (1 << repeat) {
                break;
            }
            tokio::time::sleep(FIRST_PAUSE * (1 << repeat)).await;
            answer = send(call.clone()).await;
        }
        Ok(answer?)
    }

    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }
}

/// The answer to a call that was paid for, if it is a success.
fn paid_for(answer: Answer) -> Result<Answer, ProviderError> {
    match answer.status {
        StatusCode::PAYMENT_REQUIRED => Err(unpaid(&answer)),
        _ => success(answer),
    }
}

/// Whether what the wallet signs for `asset` is what this entry's token verifies.
fn is_payable(entry: &Offered, asset: &Asset) -> bool {
    let domain = entry.domain.as_ref();
    entry.network == asset.network
        && entry.asset == asset.address
        && domain.is_none_or(|(name, version)| *name == asset.name && *version == asset.version)
}

/// It asked for payment after it was paid; most say why.
fn unpaid(answer: &Answer) -> ProviderError {
    let challenge = Challenge::from_response(&answer.headers, &answer.body).ok();
    let why = challenge.and_then(|challenge| challenge.error).unwrap_or_default();
    // Facilitators' words for it: insufficient_funds, invalid_exact_evm_insufficient_balance.
    let fault = match ["insufficient_funds", "insufficient_balance"].iter().any(|word| why.contains(word)) {
        true => Fault::Funds,
        false => Fault::Unpaid,
    };
    ProviderError::new(fault, format!("it asked for payment again after it was paid: {why:?}"))
}

/// All bytes, in memory: for those who wrap them into something else.
pub(super) async fn whole(data: &Data) -> Result<Bytes, ProviderError> {
    let internal = |what: String| ProviderError::new(Fault::Internal, what);
    match data {
        Data::Memory(bytes) => Ok(bytes.clone()),
        Data::File(file) => {
            let file = file.clone();
            let read = tokio::task::spawn_blocking(move || file.whole()).await;
            read.map_err(|error| internal(error.to_string()))?.map_err(|error| internal(error.to_string()))
        }
        Data::Received(_) => Err(internal("the bytes are with a provider already".to_owned())),
    }
}

/// The answer, if it is a 2xx.
pub(super) fn success(answer: Answer) -> Result<Answer, ProviderError> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    Err(ProviderError::new(fault_of(answer.status), format!("status {}", answer.status.as_u16())))
}

/// The JSON object in a body.
pub(super) fn object(answer: &Answer) -> Result<Map<String, Value>, ProviderError> {
    serde_json::from_slice(&answer.body)
        .map_err(|_| ProviderError::new(Fault::Broken, "the answer is not a JSON object"))
}

/// `base` with `path` (which starts with a slash) after it.
pub(super) fn at(base: &Uri, path: &str) -> Result<Uri, ProviderError> {
    // The text may hold a handle, so the error does not repeat it.
    format!("{}{path}", base.to_string().trim_end_matches('/'))
        .parse()
        .map_err(|_| ProviderError::new(Fault::Internal, "the provider's URL cannot be built"))
}

/// Whether a provider's id can stand in a path as it is. It must not lead anywhere else.
pub(super) fn is_plain_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Whether a provider's text is a URL that a browser could open.
pub(super) fn is_web_url(text: &str) -> bool {
    matches!(text.parse::<http::Uri>(), Ok(url) if matches!(url.scheme_str(), Some("https" | "http")))
}

fn fault_of(status: StatusCode) -> Fault {
    if status.is_client_error() { Fault::Refused } else { Fault::Broken }
}

impl From<OutgoingError> for ProviderError {
    fn from(error: OutgoingError) -> Self {
        let fault = match &error {
            OutgoingError::NotAllowed => Fault::Internal,
            OutgoingError::Connect(_) | OutgoingError::Broken(_) => Fault::Unreachable,
            OutgoingError::ConnectTimeout | OutgoingError::Timeout => Fault::Timeout,
            OutgoingError::Malformed(_) | OutgoingError::TooLarge { .. } => Fault::Broken,
        };
        ProviderError::new(fault, error.to_string())
    }
}
