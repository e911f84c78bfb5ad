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
use super::pace;
use super::read::Held;
use super::request::Asked;
use super::source::{self, Source};
use crate::config::resolved::BrokeredWork;
use crate::gate::Admission;
use crate::intake::{self, Ask, Content, Data, Digest, JsonEnd, JsonReader, Kind, Label, Received};
use crate::jobs::ClaimKey;
use crate::outgoing::BoxError;
use crate::providers::{Arriving, Fault, Pays, Provider};
use crate::proxy::RequestBodyError;
use crate::reason::{Charged, Problem, Reason};
use crate::x402::Payment;

/// Ends a provider's upload early.
#[derive(Debug, thiserror::Error)]
#[error("what the client sends is not what was asked for")]
struct NotAsAsked;

/// Whoever is given the bytes before anybody is paid, for a payment that was not claimed.
struct Receiver {
    provider: Arc<dyn Provider>,
    claim: ClaimKey,
}

/// How far a body that is passed on has come.
#[derive(Debug, Default)]
enum Passing {
    /// The provider has not taken what there is.
    #[default]
    Offered,
    /// The provider waits for more of it.
    Wanted,
    /// Its digest and size, or what was wrong with it.
    Ended(Result<([u8; 32], u64), Problem>),
}

/// A JSON request that was read as it arrived.
enum Json {
    /// All of it.
    Small(Bytes, Held),
    /// What it asks, and its data if that was kept.
    Large(Ask, Option<Box<Content>>, Held),
}

impl Inner {
    /// Takes what was not taken yet. `admission` is what the payment buys; without one, it may have bought it before.
    pub(super) async fn take_body(
        &self,
        asked: &mut Asked,
        payment: &Payment,
        admission: Option<&Admission>,
    ) -> Result<(), Problem> {
        if asked.is_taken() {
            return Ok(());
        }
        if asked.source()?.is_unread_form() {
            asked.read_fields().await?;
        }
        let Some(ask) = asked.ask.clone() else {
            asked.source()?.at_most(self.paid.max_raw_body);
            let (data, digest) = self.hold(asked).await?;
            asked.data = Some(Box::new((data, digest)));
            return Ok(());
        };
        if ask.files > 1 {
            return self.hold_files(asked, &ask).await;
        }
        let whole = asked.raw.as_ref().map_or(ask.kind != Kind::File, |raw| raw.whole);
        let content = if whole {
            self.take_whole(asked, &ask).await?
        } else {
            let label = asked.label()?;
            let receiver = match admission {
                Some(admission) if ask.size > IN_MEMORY => self.receiver(payment, admission).await?,
                _ => None,
            };
            let (data, digest) = match receiver {
                Some(receiver) => match self.pass_on(asked, payment, receiver.provider, &label).await {
                    Ok(passed) => passed,
                    Err(problem) => return Err(self.uncharged(&receiver.claim, problem).await),
                },
                None => self.hold(asked).await?,
            };
            intake::file(label, data, digest)
        };
        if content.data.size() == 0 {
            return Err(Reason::DataRequired.into());
        }
        // By its head, a form is as large as its whole body.
        asked.ask = Some(Ask { size: content.data.size(), ..ask });
        asked.content = Some(Box::new(content));
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
    async fn receiver(&self, payment: &Payment, admission: &Admission) -> Result<Option<Receiver>, Problem> {
        let terms = &admission.terms;
        let provider = self.parts.providers.get(&terms.provider);
        let Some(provider) = provider.filter(|provider| provider.pays(&terms.operation) == Pays::AfterBody)
        else {
            return Ok(None);
        };
        let authorization = payment.authorization();
        let claim = ClaimKey::new(&admission.requirement.asset, authorization.from, authorization.nonce);
        let claimed = self.parts.broker.claimed(&claim).await?;
        Ok((!claimed).then(|| Receiver { provider: Arc::clone(provider), claim }))
    }

    /// Nothing was charged for bytes that did not arrive, unless a copy of the payment was claimed meanwhile.
    async fn uncharged(&self, claim: &ClaimKey, problem: Problem) -> Problem {
        match (problem.charged, self.parts.broker.claimed(claim).await) {
            (Some(_), _) => problem,
            (None, Ok(false)) => problem.charged(Charged::No),
            (None, _) => problem.charged(Charged::Unknown),
        }
    }

    /// Into memory as far as it is short, else into a file.
    async fn hold(&self, asked: &mut Asked) -> Result<(Data, [u8; 32]), Problem> {
        let source = asked.source()?;
        source.hash();
        let kept = Kept::new(&self.memory, Some(&self.spool), source.declared());
        let (data, held) = collect(source, kept).await?;
        let (digest, _) = source.passed();
        asked.held = Some(held);
        Ok((data, digest))
    }

    /// Several files, each into memory as far as it is within its share of what one body may take there, else into a file.
    async fn hold_files(&self, asked: &mut Asked, ask: &Ask) -> Result<(), Problem> {
        let mut label = asked.label()?;
        let source = asked.source()?;
        let share = IN_MEMORY / u64::from(ask.files);
        let (mut files, mut all_held) = (Vec::new(), self.memory.nothing());
        loop {
            source.hash();
            let mut kept = Kept::new(&self.memory, Some(&self.spool), Some(u64::MAX));
            kept.in_memory(share);
            let (data, held) = collect(source, kept).await?;
            let (digest, size) = source.passed();
            if size == 0 {
                let what = format!("file {} of {} is empty", files.len() + 1, ask.files);
                return Err(Problem::new(Reason::DataRequired).message(what));
            }
            all_held.join(held);
            files.push(intake::file(label, data, digest));
            match source.following() {
                Some(next) => label = next,
                None => break,
            }
        }
        asked.held = Some(all_held);
        asked.files = files;
        Ok(())
    }

    /// Reads a JSON request of any length: what is asked, and the data if it is to be kept, which an unpaid one's is not.
    /// One that turns out to be short is handed back whole, to be measured like any short one.
    pub(super) async fn take_json(
        &self,
        asked: &mut Asked,
        keep: bool,
    ) -> Result<Option<(Bytes, Held)>, Problem> {
        match self.read_json(asked.source()?, keep).await? {
            Json::Small(bytes, held) => Ok(Some((bytes, held))),
            Json::Large(ask, content, held) => {
                (asked.ask, asked.content, asked.held) = (Some(ask), content, Some(held));
                Ok(None)
            }
        }
    }

    async fn read_json<B>(&self, source: &mut Source<B>, keep: bool) -> Result<Json, Problem>
    where
        B: Body<Data = Bytes, Error = RequestBodyError> + Unpin,
    {
        let (document, most) = (self.paid.max_document, self.paid.max_raw_body);
        let mut reader = JsonReader::new(document);
        // Three quarters of it, if it is base64.
        let declared = source.declared().map(|bytes| bytes / 4 * 3);
        let mut kept = Kept::new(&self.memory, keep.then_some(&self.spool), declared);
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
                if keep {
                    digest.update(&data);
                }
                kept.add(data).await?;
            }
            held.grow(reader.kept().saturating_sub(held.bytes()))?;
        }
        let large = match reader.end()? {
            JsonEnd::Small(bytes) => return Ok(Json::Small(bytes, held)),
            JsonEnd::Large(large) => large,
        };
        let (data, mut held) = kept.end().await?;
        if large.is_document() && size > document {
            return Err(source::too_large(document));
        }
        let ((ask, content), held) = match data {
            None => return Ok(Json::Large(large.ask(size), None, held)),
            Some(Data::File(file)) if !large.is_document() => {
                (large.file(Data::File(file), digest.finish()), held)
            }
            // To be looked at whole, where nobody waits for it.
            Some(data) => {
                held.grow(size.saturating_sub(held.bytes()))?;
                let look = move || {
                    let whole = match data {
                        Data::Memory(bytes) => bytes,
                        Data::File(file) => file.whole().map_err(|_| Reason::Internal)?,
                        Data::Received(_) => return Err(Reason::Internal.into()),
                    };
                    large.content(whole).map(|looked_at| (looked_at, held))
                };
                tokio::task::spawn_blocking(look).await.map_err(|_| Reason::Internal)??
            }
        };
        Ok(Json::Large(ask, Some(Box::new(content)), held))
    }

    /// Measures long JSON where nobody waits for it. The memory stays lent until it is done, whoever still waits.
    pub(super) async fn measure_elsewhere(
        &self,
        bytes: Bytes,
        held: Held,
        work: BrokeredWork,
    ) -> Result<(Result<(Ask, Content), Problem>, Held), Problem> {
        let measure = move || (intake::measure_json(&bytes, work), held);
        tokio::task::spawn_blocking(measure).await.map_err(|_| Reason::Internal.into())
    }

    /// On to the provider, in a task beside the client's connection, on the same thread, which ends with this future.
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
        let deadline = pace::longest(self.patience, source.longest()).min(left);
        let sender = source.sender();
        let passing: Arc<Mutex<Passing>> = Arc::default();
        let stream = StreamBody::new(stream::unfold(Some((source, Arc::clone(&passing))), async |state| {
            let (mut source, passing) = state?;
            *passing.lock() = Passing::Wanted;
            let next = source.next().await;
            let (now, item) = match next {
                Ok(Some(bytes)) => (Passing::Offered, Some(Ok(Frame::data(bytes)))),
                Ok(None) => (Passing::Ended(Ok(source.passed())), None),
                Err(problem) => (Passing::Ended(Err(problem)), Some(Err(BoxError::from(NotAsAsked)))),
            };
            let more = matches!(now, Passing::Offered);
            *passing.lock() = now;
            item.map(|item| (item, more.then_some((source, passing))))
        }));
        let arriving = Arriving { stream: stream.boxed_unsync(), length };
        let (began, name, label) = (Instant::now(), provider.name(), label.clone());
        let receiving = async move { provider.receive(&label, arriving, deadline).await };
        let received = Ends(tokio::spawn(receiving)).wait().await;
        let passed = std::mem::take(&mut *passing.lock());
        let (handle, (digest, size)) = match (received, passed) {
            (_, Passing::Ended(Err(problem))) => return Err(problem),
            (Some(Ok(handle)), Passing::Ended(Ok(passed))) => (handle, passed),
            // The provider would have taken more.
            (Some(Err(error)), Passing::Wanted) if error.fault == Fault::Timeout => {
                return Err(sender.late());
            }
            (Some(Err(error)), _) => {
                tracing::warn!(%error, provider = name, "a body could not be passed on");
                self.parts.metrics.provider_performed(name, "receive", Some(error.fault), began.elapsed());
                return Err(match error.fault {
                    Fault::Timeout => Problem::new(Reason::ProviderTimeout),
                    _ => Problem::new(Reason::ProviderFailed),
                });
            }
            // It was satisfied before it had everything.
            (Some(Ok(_)), _) => return Err(Reason::ProviderFailed.into()),
            (None, _) => return Err(Reason::Internal.into()),
        };
        Ok((Data::Received(Received { handle, size }), digest))
    }
}

/// The rest of a file, kept.
async fn collect<B>(source: &mut Source<B>, mut kept: Kept<'_>) -> Result<(Data, Held), Problem>
where
    B: Body<Data = Bytes, Error = RequestBodyError> + Unpin,
{
    while let Some(bytes) = source.next().await? {
        kept.add(bytes).await?;
    }
    let (data, held) = kept.end().await?;
    Ok((data.ok_or(Reason::Internal)?, held))
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
