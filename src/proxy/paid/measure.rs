//! What is asked, and how much of it: from the head of a request, and from as much of its body as it takes.

use bytes::Bytes;

use super::read::Held;
use super::request::Asked;
use super::{Inner, Rule, kept};
use crate::config::resolved::BrokeredWork;
use crate::intake;
use crate::reason::Problem;

/// What is still to be read of a request before its price is known.
enum Unread {
    Nothing,
    /// The fields before the file of a form.
    Fields,
    /// All of a JSON request,
    Json(BrokeredWork),
    /// which may be too long for memory.
    LongJson(BrokeredWork),
}

/// JSON of more bytes is measured on another thread: the other connections of this one would wait for it.
const LONG: usize = 64 * 1024;

impl Inner {
    /// What is asked, and how much of it. JSON has to be read for that, and a form with options before its file up to
    /// there; other bodies tell it by their head.
    pub(super) async fn measure(&self, rule: &Rule, asked: &mut Asked, paid: bool) -> Result<(), Problem> {
        let unread = self.measure_head(rule, asked)?;
        match unread {
            Unread::Nothing => Ok(()),
            // In allocations of their own, this and what follows: most requests are short JSON.
            Unread::Fields => Box::pin(asked.read_fields()).await,
            Unread::LongJson(work) => {
                let short = Box::pin(self.take_json(asked, paid)).await?;
                let Some((bytes, held)) = short else { return Ok(()) };
                Box::pin(self.measure_json(asked, work, paid, bytes, held)).await
            }
            Unread::Json(work) => {
                let source = asked.source()?;
                let (bytes, held) = self.memory.read(source).await?;
                if !paid && bytes.len() <= LONG && !self.is_at_url(work, &bytes) {
                    // A price needs no digest, and the bytes are not needed again.
                    asked.ask = Some(intake::price_json(&bytes, work)?);
                    return Ok(());
                }
                Box::pin(self.measure_json(asked, work, paid, bytes, held)).await
            }
        }
    }

    /// As far as the head tells. Not a part of the future, which would keep room for all that it looks at.
    fn measure_head(&self, rule: &Rule, asked: &mut Asked) -> Result<Unread, Problem> {
        let Some(work) = rule.work else { return Ok(Unread::Nothing) };
        let limits = intake::Limits::from(&self.paid);
        match intake::plan(&asked.parts, work, limits)? {
            intake::Plan::Raw(raw) => {
                asked.source()?.exactly(raw.ask.size);
                asked.ask = Some(raw.ask.clone());
                asked.raw = Some(Box::new(raw));
                Ok(Unread::Nothing)
            }
            intake::Plan::Form(form) => {
                asked.ask = form.ask().cloned();
                asked.source()?.form(form);
                Ok(if asked.ask.is_none() { Unread::Fields } else { Unread::Nothing })
            }
            intake::Plan::Json => {
                let limit =
                    if work == BrokeredWork::Run { limits.whole.min(limits.json) } else { limits.json };
                let source = asked.source()?;
                source.at_most(limit);
                let long = work == BrokeredWork::Store && source.longest() > kept::IN_MEMORY;
                Ok(if long { Unread::LongJson(work) } else { Unread::Json(work) })
            }
        }
    }

    /// Whether a JSON request names where its data is, from where it would be fetched.
    fn is_at_url(&self, work: BrokeredWork, bytes: &Bytes) -> bool {
        work == BrokeredWork::Store && self.sources.is_some() && intake::data_url(bytes).is_some()
    }

    /// A JSON request that was read.
    async fn measure_json(
        &self,
        asked: &mut Asked,
        work: BrokeredWork,
        paid: bool,
        bytes: Bytes,
        held: Held,
    ) -> Result<(), Problem> {
        if work == BrokeredWork::Store
            && let Some(sources) = &self.sources
            && let Some(url) = intake::data_url(&bytes)
        {
            return self.measure_url(sources, asked, url, paid).await;
        }
        if !paid && bytes.len() <= LONG {
            asked.ask = Some(intake::price_json(&bytes, work)?);
            return Ok(());
        }
        let (measured, held) = if bytes.len() > LONG {
            self.measure_elsewhere(bytes, held, work).await?
        } else {
            (intake::measure_json(&bytes, work), held)
        };
        let (ask, content) = measured?;
        asked.ask = Some(ask);
        asked.content = Some(Box::new(content));
        asked.held = Some(held);
        Ok(())
    }
}
