//! The content of a body as it arrives: out of its form, and held to what the head promised while it passes.
//!
//! Nothing is read before it is asked for, so a client that waits to be told to go on is not told so earlier.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::json;

use super::pace::Pace;
use crate::intake::{Ask, Digest, Form, FormEvent, FormReader, Label, MAX_FIELDS};
use crate::outgoing::{Fetch, FetchError, Fetched};
use crate::proxy::RequestBodyError;
use crate::reason::{Problem, Reason};

/// Content on its way in.
pub(super) struct Source<B> {
    body: B,
    form: Option<Box<FormReader>>,
    bound: Bound,
    /// Bytes of content that came out: of several files, of this one.
    seen: u64,
    /// The same of those before it.
    before: u64,
    /// The next of several files, which has begun.
    following: Option<Label>,
    digest: Option<Digest>,
    /// The form was read up to its file.
    at_file: bool,
    /// The content is somewhere else.
    remote: Option<Box<Remote>>,
    /// Where those who watch see how much there is.
    shown: Option<Arc<AtomicU64>>,
    pace: Pace,
}

/// Content at a URL.
struct Remote {
    fetch: Fetch,
    url: String,
    opened: Option<Fetched>,
}

/// Who sends the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// The client.
    Client,
    /// Whoever has what the client named.
    Url,
}

impl Sender {
    /// What is wrong if it does not come in time.
    pub(super) fn late(self) -> Problem {
        match self {
            Sender::Client => Problem::new(Reason::BodyTimeout),
            Sender::Url => unfetched(FetchError::Failed("it is too slow".to_owned())),
        }
    }
}

/// How much may come out.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// So much was declared, and priced.
    Exactly(u64),
    /// So much is taken.
    AtMost(u64),
}

impl<B> Source<B>
where
    B: Body<Data = Bytes, Error = RequestBodyError> + Unpin,
{
    /// A body as it is, from a sender who may make us wait for so long, and for longer the more he sends.
    pub(super) fn new(body: B, patience: Duration) -> Self {
        Source {
            body,
            form: None,
            bound: Bound::AtMost(u64::MAX),
            seen: 0,
            before: 0,
            following: None,
            digest: None,
            at_file: false,
            remote: None,
            shown: None,
            pace: Pace::new(patience),
        }
    }

    /// It is to have this many bytes.
    pub(super) fn exactly(&mut self, size: u64) {
        self.bound = Bound::Exactly(size);
    }

    /// It may have this many bytes.
    pub(super) fn at_most(&mut self, limit: u64) {
        self.bound = Bound::AtMost(limit);
    }

    /// Whether all of it has come, as far as that can be said without asking for more.
    pub(super) fn is_done(&self) -> bool {
        let plain = self.form.is_none() && self.remote.is_none();
        plain && matches!(self.bound, Bound::AtMost(_)) && self.body.is_end_stream()
    }

    /// It is this form, and the content is its file, or one after the other if there are several.
    pub(super) fn form(&mut self, form: Form) {
        self.bound = Bound::AtMost(form.bound());
        self.form = Some(Box::new(form.reader()));
    }

    /// The content is not the body but what is at this URL, and has this many bytes.
    pub(super) fn at(&mut self, fetch: Fetch, url: String, size: u64) {
        self.bound = Bound::Exactly(size);
        // What was read so far said where it is.
        self.seen = 0;
        self.pace = Pace::new(self.pace.patience);
        self.remote = Some(Box::new(Remote { fetch, url, opened: None }));
    }

    /// Whether it is a form whose file was not reached yet.
    pub(super) fn is_unread_form(&self) -> bool {
        self.form.is_some() && !self.at_file
    }

    /// How many bytes will come out, if that is known.
    pub(super) fn exact(&self) -> Option<u64> {
        match self.bound {
            Bound::Exactly(size) => Some(size),
            Bound::AtMost(_) => None,
        }
    }

    /// From now on, how much came out is seen here too.
    pub(super) fn show(&mut self, shown: Arc<AtomicU64>) {
        self.shown = Some(shown);
    }

    /// How many bytes there are, or the body around them has, as far as anybody says.
    pub(super) fn declared(&self) -> Option<u64> {
        self.exact().or_else(|| self.body.size_hint().exact())
    }

    /// From now on, the digest of what passes is kept.
    pub(super) fn hash(&mut self) {
        self.digest = Some(Digest::default());
    }

    /// Digest and number of the bytes that passed.
    pub(super) fn passed(&mut self) -> ([u8; 32], u64) {
        (self.digest.take().unwrap_or_default().finish(), self.seen)
    }

    /// Bytes that may come, at most; of what is declared, what is declared.
    pub(super) fn longest(&self) -> u64 {
        let (Bound::Exactly(bound) | Bound::AtMost(bound)) = self.bound;
        let body = self.body.size_hint().upper().filter(|_| self.remote.is_none());
        let bytes = body.map_or(bound, |upper| upper.min(bound));
        if self.form.is_some() { bytes.saturating_add(MAX_FIELDS) } else { bytes }
    }

    /// Who it is that is waited for.
    pub(super) fn sender(&self) -> Sender {
        if self.remote.is_some() { Sender::Url } else { Sender::Client }
    }

    /// Reads a form up to its file: what is asked, and what the file is called.
    pub(super) async fn file(&mut self) -> Result<(Ask, Label), Problem> {
        let form = self.form.as_mut().ok_or(Reason::Internal)?;
        loop {
            match form.event()? {
                Some(FormEvent::File(ask, label)) => {
                    self.at_file = true;
                    return Ok((ask, label));
                }
                Some(FormEvent::Data(_) | FormEvent::End) => return Err(Reason::Internal.into()),
                None => match frame(&mut self.body, &mut self.pace).await? {
                    Some(bytes) => form.push(bytes),
                    None => return Err(form.end().err().unwrap_or_else(|| Reason::Internal.into())),
                },
            }
        }
    }

    /// Goes on with the next of several files, if there is one; the one before must have ended.
    pub(super) fn following(&mut self) -> Option<Label> {
        let label = self.following.take()?;
        self.before = self.before.saturating_add(std::mem::take(&mut self.seen));
        Some(label)
    }

    /// The next bytes; `None` once all of this file came, and nothing was wrong with any of it.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let bytes = match (&mut self.remote, &mut self.form) {
            // Rare, and no part of the future of every challenge.
            (Some(remote), _) => Box::pin(remote.next(self.bound, &mut self.pace)).await?,
            (None, Some(_)) if self.following.is_some() => None,
            (None, Some(form)) => {
                Box::pin(next_of_form(&mut self.body, form, &mut self.pace, &mut self.following)).await?
            }
            (None, None) => self.next_of_plain().await?,
        };
        let Some(bytes) = bytes else {
            return match self.bound {
                Bound::Exactly(size) if self.seen != size => Err(short(self.seen, size)),
                _ => Ok(None),
            };
        };
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        if let Some(shown) = &self.shown {
            shown.store(self.before.saturating_add(self.seen), Ordering::Relaxed);
        }
        match self.bound {
            Bound::Exactly(size) if self.seen > size => Err(long(size)),
            Bound::AtMost(limit) if self.seen > limit => Err(too_large(limit)),
            _ => {
                if let Some(digest) = &mut self.digest {
                    digest.update(&bytes);
                }
                Ok(Some(bytes))
            }
        }
    }

    async fn next_of_plain(&mut self) -> Result<Option<Bytes>, Problem> {
        // A length that is declared is refused before the content is asked for.
        if self.seen == 0
            && let (Bound::AtMost(limit), Some(declared)) = (self.bound, self.body.size_hint().exact())
            && declared > limit
        {
            return Err(too_large(limit));
        }
        frame(&mut self.body, &mut self.pace).await
    }
}

impl Remote {
    async fn next(&mut self, bound: Bound, pace: &mut Pace) -> Result<Option<Bytes>, Problem> {
        let opened = match &mut self.opened {
            Some(opened) => opened,
            None => {
                let fetched = self.fetch.get(&self.url).await.map_err(unfetched)?;
                if matches!(bound, Bound::Exactly(size) if size != fetched.size) {
                    let what = "it has another size by now; ask for the price again";
                    return Err(unfetched(FetchError::Failed(what.to_owned())));
                }
                self.opened.insert(fetched)
            }
        };
        let bytes = pace.wait(opened.next()).await.map_err(unfetched)?;
        if !pace.is_kept(bytes.as_ref().map_or(0, Bytes::len)) {
            return Err(Sender::Url.late());
        }
        Ok(bytes)
    }
}

/// Why what is at a URL cannot be had.
pub(super) fn unfetched(error: FetchError) -> Problem {
    let (reason, why) = match error {
        FetchError::Refused(why) => (Reason::UrlRefused, why.to_owned()),
        FetchError::Failed(why) => (Reason::UrlFailed, why),
    };
    Problem::new(reason).message(format!("{}: {why}", reason.text())).details(json!({ "field": "data.url" }))
}

async fn next_of_form<B>(
    body: &mut B,
    form: &mut FormReader,
    pace: &mut Pace,
    following: &mut Option<Label>,
) -> Result<Option<Bytes>, Problem>
where
    B: Body<Data = Bytes, Error = RequestBodyError> + Unpin,
{
    loop {
        match form.event()? {
            Some(FormEvent::Data(bytes)) => return Ok(Some(bytes)),
            // What follows must be nothing, which the end of the body shows.
            Some(FormEvent::End) | None => match frame(body, pace).await? {
                Some(bytes) => form.push(bytes),
                None => return form.end().map(|()| None),
            },
            Some(FormEvent::File(_, label)) => {
                *following = Some(label);
                return Ok(None);
            }
        }
    }
}

/// The next bytes of a body.
async fn frame<B>(body: &mut B, pace: &mut Pace) -> Result<Option<Bytes>, Problem>
where
    B: Body<Data = Bytes, Error = RequestBodyError> + Unpin,
{
    while let Some(frame) = pace.wait(body.frame()).await {
        let frame = frame.map_err(|error| Problem::new(error.reason()))?;
        // Trailers say nothing here.
        let data = frame.into_data().unwrap_or_default();
        if !pace.is_kept(data.len()) {
            return Err(Sender::Client.late());
        }
        if !data.is_empty() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

pub(super) fn too_large(limit: u64) -> Problem {
    Problem::new(Reason::TooLarge).details(json!({ "limit": limit }))
}

fn long(size: u64) -> Problem {
    Problem::new(Reason::TooLarge)
        .message(format!(
            "the body has more bytes than the {size} that were declared and priced; ask for the price of its size"
        ))
        .details(json!({ "field": "size", "limit": size }))
}

fn short(seen: u64, size: u64) -> Problem {
    Problem::new(Reason::InvalidField)
        .message(format!("size is not valid: the body has {seen} bytes, and {size} were declared"))
        .details(json!({ "field": "size" }))
}
