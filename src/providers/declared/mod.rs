//! A provider that `[[provider]]` in `proxy.toml` declares: any x402 endpoint that does the work in one paid call.
//!
//! How it is asked and where its answer holds the result is data, checked at start; [`body`] fills the one and
//! [`answer`] reads the other. Nothing else in the gateway knows that it is not built in.

mod answer;
mod body;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_TYPE};

use super::exchange::{Line, success, whole};
use super::{Done, NotSold, Offer, Operation, Order, Provider, ProviderError, Purse};
use crate::config::resolved::{self, DeclaredKind, Keeping, ResultMapping, ResumeClass};
use crate::intake::{Ask, Kind, Wanted};
use crate::outgoing::Call;
use crate::x402::Challenge;
use body::Filling;

/// With up to this much content, the terms are asked for by the very request that is paid then, so that they are the terms of
/// this content. More is not sent twice: many servers answer 402 and hang up before they have read it.
const ASKED_WHOLE: usize = 64 << 10;

/// Bytes of an answer at most: what a program printed, or the name of what is stored.
const MAX_OUTPUT: usize = 8 << 20;
const MAX_RECEIPT: usize = 1 << 20;

const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");

/// The adapter. Its operation is `run`, `store_json` or `store_file`, its payment step too.
///
/// Results of a run: `stdout`, `stderr`, `exitCode`, and where the provider tells them `executionTime` and `text`. Of
/// a store: `success`, `cid` = `ipfsHash`, `url`, `ttl`, each where there is one. Both: `provider`. Of a run that answers raw:
/// what it answers.
#[derive(Clone, Debug)]
pub struct Declared {
    line: Line,
    name: &'static str,
    config: resolved::Declared,
}

impl Declared {
    pub(super) fn new(line: Line, config: resolved::Declared) -> Self {
        // A provider lives as long as the process, and there are as many as the configuration declares.
        let name = Box::leak(config.name.clone().into_boxed_str());
        Declared { line, name, config }
    }

    fn operation(&self) -> Operation {
        match self.config.kind {
            DeclaredKind::StoreJson(_) => "store_json",
            DeclaredKind::StoreFile(_) => "store_file",
            DeclaredKind::Run { .. } => "run",
        }
    }

    /// How long it stores; `None` for one that runs.
    fn keeping(&self) -> Option<Keeping> {
        match self.config.kind {
            DeclaredKind::StoreJson(keeping) | DeclaredKind::StoreFile(keeping) => Some(keeping),
            DeclaredKind::Run { .. } => None,
        }
    }

    fn request(&self, filling: &Filling<'_>) -> Result<Call, ProviderError> {
        let (content_type, body) = filling.body(&self.config.body)?;
        let mut call = Call::new(self.config.method.clone(), self.config.url.clone(), body)
            .max_answer(if self.keeping().is_none() { MAX_OUTPUT } else { MAX_RECEIPT })
            .header(CONTENT_TYPE, content_type);
        if let ResultMapping::Raw { max } = self.config.result {
            call = call.max_answer(usize::try_from(max).unwrap_or(usize::MAX)).header(ACCEPT, ANYTHING);
        }
        let headers = self.config.headers.iter().cloned();
        Ok(headers.fold(call, |call, (name, value)| call.header(name, value)))
    }

    /// The same request with the sample for its content.
    fn probe(&self) -> Result<Call, ProviderError> {
        self.request(&Filling::sample(&self.config))
    }

    /// Without what may not be paid: the challenge of a pinned provider names its payee only.
    fn pinned(&self, mut challenge: Challenge) -> Challenge {
        if let Some(payee) = self.config.pay_to {
            challenge.accepts.retain(|entry| entry.pay_to == payee);
        }
        challenge
    }
}

#[async_trait]
impl Provider for Declared {
    fn name(&self) -> &'static str {
        self.name
    }

    fn sells(&self, ask: &Ask) -> Result<Operation, NotSold> {
        let provider = self.name;
        let not_sold = |option: String| Err(NotSold::Option { provider, option });
        match (&ask.wanted, &self.config.kind) {
            (Wanted::Run { language }, DeclaredKind::Run { languages }) => {
                if !languages.contains(language) {
                    return not_sold(format!("language {language:?}"));
                }
            }
            (
                Wanted::Store { permanent, ttl },
                DeclaredKind::StoreJson(how) | DeclaredKind::StoreFile(how),
            ) => {
                if matches!(self.config.kind, DeclaredKind::StoreJson(_)) && ask.kind != Kind::Json {
                    return Err(NotSold::Operation { provider });
                }
                match (*how, *ttl) {
                    _ if *permanent && *how != Keeping::Permanent => return not_sold("permanent".to_owned()),
                    (_, None) => {}
                    (Keeping::UpTo(longest), Some(ttl)) if ttl <= longest.as_secs() => {}
                    (_, Some(ttl)) => return not_sold(format!("ttl {ttl}")),
                }
            }
            _ => return Err(NotSold::Operation { provider }),
        }
        if ask.size > self.config.max_size {
            return Err(NotSold::Size { provider, limit: self.config.max_size });
        }
        Ok(self.operation())
    }

    async fn offer(&self, _: Operation, _: &Ask) -> Result<Offer, ProviderError> {
        let challenge = self.line.challenge(self.probe()?).await?;
        self.line.choose(&self.pinned(challenge))
    }

    async fn perform(&self, order: &Order, purse: &dyn Purse) -> Result<Done, ProviderError> {
        let bytes = whole(&order.content.data).await?;
        let filling = Filling::of(&self.config, order, &bytes);
        // What cannot be sent fails before anybody is asked.
        let call = self.request(&filling)?;
        let exchange = self.line.open(order.deadline.min(self.config.timeout));
        let exchange = match self.config.resume {
            ResumeClass::None => exchange,
            ResumeClass::Idempotent => exchange.idempotent(),
        };
        let probe = if bytes.len() <= ASKED_WHOLE { call.clone() } else { self.probe()? };
        let challenge = self.pinned(exchange.challenge(probe).await?);
        if let ResultMapping::Raw { .. } = self.config.result {
            let answer = exchange.paid_open(purse, self.operation(), &challenge, call).await?;
            return Ok(Done { passed: Some(answer::pass_on(answer)?), ..Done::default() });
        }
        let answer = success(exchange.paid(purse, self.operation(), &challenge, call).await?)?;
        let mut result = answer::read(&answer.body, &self.config)?;
        if let Some(ttl) = filling.ttl {
            result.insert("ttl".into(), ttl.into());
        }
        result.insert("provider".into(), self.name.into());
        Ok(Done { result, ..Done::default() })
    }
}
