//! How the body of a paid request is taken: into memory, into a temporary file, or on to the provider while it arrives.
//!
//! On to the provider only where payment follows the bytes, before the payment is claimed: until every byte was seen to
//! be what was priced, nobody is paid, nobody is charged, and nothing of it needs recovery.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;

use super::Inner;
use super::kept::{IN_MEMORY, Kept};
use super::read::Held;
use super::request::Asked;
use super::source::{self, Source};
use crate::gate::Admission;
use crate::intake::{self, Ask, Content, Data, Digest, JsonEnd, JsonReader, Kind, Label, Received};
use crate::jobs::ClaimKey;
use crate::outgoing::BoxError;
use crate::providers::{Arriving, Fault, Pays, Provider};
use crate::proxy::RequestBodyError;
use crate::reason::{Problem, Reason};
use crate::x402::Payment;

/// Ends a provider's upload early.
#[derive(Debug, thiserror::Error)]
#[error("what the client sends is not what was asked for")]
struct NotAsAsked;

/// What became of a body that was passed on: its digest and size, or what was wrong with it.
type Outcome = Result<([u8; 32], u64), Problem>;

impl Inner {
    /// Takes what was not taken yet. `admission` is what the payment buys; without one, it may have bought it before.
    pub(super) async fn take_body(
        &self,
        asked: &mut Asked,
        payment: &Payment,
        admission: Option<&Admission>,
    ) -> Result<(), Problem> {
        if asked.content.is_some() || asked.data.is_some() {
            return Ok(());
        }
        if asked.source()?.is_unread_form() {
            asked.read_fields(&self.memory).await?;
        }
        let Some(ask) = asked.ask.clone() else {
            asked.source()?.at_most(self.paid.max_raw_body);
            let (data, digest) = self.hold(asked).await?;
            asked.data = Some((data, digest));
            return Ok(());
        };
        let whole = asked.raw.as_ref().map_or(ask.kind != Kind::File, |raw| raw.whole);
        let content = if whole {
            self.take_whole(asked, &ask).await?
        } else {
            let label = asked.label()?;
            let provider = match admission {
                Some(admission) if ask.size > IN_MEMORY => self.receiver(payment, admission).await?,
                _ => None,
            };
            let (data, digest) = match provider {
                Some(provider) => self.pass_on(asked, payment, provider, &label).await?,
                None => self.hold(asked).await?,
            };
            intake::file(label, data, digest)
        };
        if content.data.size() == 0 {
            return Err(Reason::DataRequired.into());
        }
        // By its head, a form is as large as its whole body.
        asked.ask = Some(Ask { size: content.data.size(), ..ask });
        asked.content = Some(content);
        Ok(())
    }

    /// Into memory, to be checked.
    async fn take_whole(&self, asked: &mut Asked, ask: &Ask) -> Result<Content, Problem> {
        let (bytes, held) = self.memory.read(asked.source()?).await?;
        asked.held = Some(held);
        match asked.raw.take() {
            Some(raw) => raw.content(bytes),
            None => intake::content(ask.kind, asked.label()?, bytes),
        }
    }

    /// Whoever may be given the bytes before anybody is paid. Not for a payment that was claimed before: then it is
    /// not known yet whether they are to be passed on at all.
    async fn receiver(
        &self,
        payment: &Payment,
        admission: &Admission,
    ) -> Result<Option<Arc<dyn Provider>>, Problem> {
        let terms = &admission.terms;
        let provider = self.parts.providers.get(&terms.provider);
        let Some(provider) = provider.filter(|provider| provider.pays(&terms.operation) == Pays::AfterBody)
        else {
            return Ok(None);
        };
        let authorization = payment.authorization();
        let claim = ClaimKey::new(&admission.requirement.asset, authorization.from, authorization.nonce);
        let claimed = self.parts.broker.claimed(&claim).await?;
        Ok((!claimed).then(|| Arc::clone(provider)))
    }

    /// Into memory as far as it is short, else into a file.
    async fn hold(&self, asked: &mut Asked) -> Result<(Data, [u8; 32]), Problem> {
        let source = asked.source()?;
        source.hash();
        let (data, held) = self.memory.in_time(source.longest(), self.collect(source)).await?;
        let (digest, _) = source.passed();
        asked.held = Some(held);
        Ok((data, digest))
    }

    async fn collect<B>(&self, source: &mut Source<B>) -> Result<(Data, Held), Problem>
    where
        B: Body<Data = Bytes, Error = RequestBodyError> + Unpin,
    {
        let mut kept = Kept::new(&self.memory, Some(&self.spool));
        while let Some(bytes) = source.next().await? {
            kept.add(bytes).await?;
        }
        let (data, held) = kept.end().await?;
        Ok((data.ok_or(Reason::Internal)?, held))
    }

    /// Reads a JSON request of any length: what is asked, and the data if it is to be kept, which an unpaid one's is not.
    pub(super) async fn take_json(&self, asked: &mut Asked, keep: bool) -> Result<(), Problem> {
        let source = asked.source()?;
        let (ask, content, held) =
            self.memory.in_time(source.longest(), self.read_json(source, keep)).await?;
        (asked.ask, asked.content, asked.held) = (Some(ask), content, Some(held));
        Ok(())
    }

    async fn read_json<B>(
        &self,
        source: &mut Source<B>,
        keep: bool,
    ) -> Result<(Ask, Option<Content>, Held), Problem>
    where
        B: Body<Data = Bytes, Error = RequestBodyError> + Unpin,
    {
        let (document, most) = (self.paid.max_document, self.paid.max_raw_body);
        let mut reader = JsonReader::new(document);
        let mut kept = Kept::new(&self.memory, keep.then_some(&self.spool));
        let (mut digest, mut size) = (Digest::default(), 0u64);
        let mut held = self.memory.nothing();
        while let Some(bytes) = source.next().await? {
            reader.push(bytes);
            while let Some(data) = reader.data()? {
                if size == 0 && intake::may_be_document(&data) {
                    kept.in_memory(document);
                }
                size = size.saturating_add(data.len() as u64);
                if size > most {
                    return Err(source::too_large(most));
                }
                digest.update(&data);
                kept.add(data).await?;
            }
            held.grow(reader.kept().saturating_sub(held.bytes()))?;
        }
        let large = match reader.end()? {
            JsonEnd::Small(ask, content) => return Ok((ask, Some(content), held)),
            JsonEnd::Large(large) => large,
        };
        let (data, held) = kept.end().await?;
        if large.is_document() && size > document {
            return Err(source::too_large(document));
        }
        let (ask, content) = match data {
            None => return Ok((large.ask(size), None, held)),
            Some(Data::File(file)) if large.is_document() => {
                let whole = tokio::task::spawn_blocking(move || file.whole()).await;
                let whole = whole.ok().and_then(Result::ok).ok_or(Reason::Internal)?;
                large.content(whole)?
            }
            Some(Data::Memory(bytes)) => large.content(bytes)?,
            Some(data) => large.file(data, digest.finish()),
        };
        Ok((ask, Some(content), held))
    }

    /// On to the provider, in a task on the runtime of its connection, which ends with this future.
    async fn pass_on(
        &self,
        asked: &mut Asked,
        payment: &Payment,
        provider: Arc<dyn Provider>,
        label: &Label,
    ) -> Result<(Data, [u8; 32]), Problem> {
        let mut source = asked.body.take().ok_or(Reason::Internal)?;
        source.hash();
        let length = source.exact();
        // A payment that lapses meanwhile buys nothing.
        let lapses = payment.authorization().valid_before.saturating_sub(self.parts.clock.now());
        let left = Duration::from_secs(lapses).saturating_sub(self.paid.settle_margin);
        let deadline = self.memory.longest(source.longest()).min(left);
        let outcome: Arc<Mutex<Option<Outcome>>> = Arc::default();
        let stream = StreamBody::new(stream::unfold(Some((source, Arc::clone(&outcome))), async |state| {
            let (mut source, outcome) = state?;
            match source.next().await {
                Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some((source, outcome)))),
                Ok(None) => {
                    *outcome.lock() = Some(Ok(source.passed()));
                    None
                }
                Err(problem) => {
                    *outcome.lock() = Some(Err(problem));
                    Some((Err(BoxError::from(NotAsAsked)), None))
                }
            }
        }));
        let arriving = Arriving { stream: stream.boxed_unsync(), length };
        let (began, name, label) = (Instant::now(), provider.name(), label.clone());
        let receiving = async move { provider.receive(&label, arriving, deadline).await };
        let received = Ends(self.parts.runtime.spawn(receiving)).wait().await;
        let outcome = outcome.lock().take();
        let (handle, (digest, size)) = match (received, outcome) {
            (_, Some(Err(problem))) => return Err(problem),
            (Some(Ok(handle)), Some(Ok(passed))) => (handle, passed),
            (Some(Err(error)), outcome) => {
                tracing::warn!(%error, provider = name, "a body could not be passed on");
                self.parts.metrics.provider_performed(name, "receive", Some(error.fault), began.elapsed());
                return Err(match error.fault {
                    // One of the two was too slow; until all is there it is the client who is waited for.
                    Fault::Timeout if outcome.is_none() => Problem::new(Reason::BodyTimeout),
                    Fault::Timeout => Problem::new(Reason::ProviderTimeout),
                    _ => Problem::new(Reason::ProviderFailed),
                });
            }
            // It was satisfied before it had everything.
            (Some(Ok(_)), None) => return Err(Reason::ProviderFailed.into()),
            (None, _) => return Err(Reason::Internal.into()),
        };
        Ok((Data::Received(Received { handle, size }), digest))
    }
}

/// A task that ends when nobody waits for it any more.
struct Ends<T>(tokio::task::JoinHandle<T>);

impl<T> Ends<T> {
    /// `None` if it panicked.
    async fn wait(mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for Ends<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
