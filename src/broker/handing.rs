//! Handing out answers that the record of their job does not hold, and recording how that ended.
//!
//! Until it has, the job is `delivering` and its lease is held here. A process that dies leaves it so, and whoever finds it
//! records what is owed: the rest of the answer is gone with that process. "Handed out" is: given to the client's connection to
//! the last byte, on whichever stream, or left by a client that went away. It is recorded behind the answer, which waits for nothing of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::attempt::CARRY_PATIENCE;
use super::broken::{Broken, lost};
use super::delivery::Fresh;
use super::journal::{Journal, JournalError};
use super::results::key;
use super::work::BodyStream;
use super::{Broker, Ending};
use crate::jobs::{Answer, ClaimKey, Event, Job, State};
use crate::outgoing::{BoxError, OutgoingError};

/// How often it is looked whether the process is ending, while an answer still arrives that nobody waits for.
const LOOK: Duration = Duration::from_secs(1);

/// An answer that is being handed out, for whoever records how that ends.
pub(super) struct Handing(mpsc::UnboundedReceiver<Said>);

/// What is said of a body before it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// It broke off.
    Broke,
    /// Its client went away.
    Left,
    /// Its client is gone since the process began to end, which may have cut it off.
    CutOff,
    /// All of it was read from where it is kept.
    Collected,
}

/// How it ended, once nobody reads it or writes it down any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Given whole, or left by its client.
    Given,
    /// With the process.
    CutOff,
    Broke,
}

/// Shared by all that an answer goes through: first the body that arrives, then, where it is kept meanwhile, what the client
/// reads in its place.
struct Watch {
    broken: Broken,
    claim: ClaimKey,
    broke: AtomicBool,
    /// It was cut off: that is how it ends, whatever is made of it on its way.
    cut: AtomicBool,
    told: mpsc::UnboundedSender<Said>,
    ending: Ending,
}

/// Hears of it once all of a kept answer was given, to its first reader or to who collects it meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Collected(mpsc::WeakUnboundedSender<Said>);

/// A body on its way.
struct Watched {
    body: BodyStream,
    watch: Arc<Watch>,
    /// It is what the client reads.
    client: bool,
    over: bool,
}

impl Watch {
    fn new(broken: Broken, claim: ClaimKey, ending: Ending) -> (Arc<Self>, Handing) {
        let (told, hears) = mpsc::unbounded_channel();
        let (broke, cut) = (AtomicBool::new(false), AtomicBool::new(false));
        (Arc::new(Watch { broken, claim, broke, cut, told, ending }), Handing(hears))
    }

    /// What arrives.
    fn source(self: &Arc<Self>, body: BodyStream) -> BodyStream {
        Watched { body, watch: Arc::clone(self), client: false, over: false }.boxed_unsync()
    }

    /// What the client reads.
    fn client(self: &Arc<Self>, body: BodyStream) -> BodyStream {
        Watched { body, watch: Arc::clone(self), client: true, over: false }.boxed_unsync()
    }

    /// How much there is, is often the client's to choose: what is cut off stays charged.
    fn failed(&self, error: &BoxError) {
        if is_too_large(error) {
            self.cut.store(true, Ordering::Release);
        } else if !self.cut.load(Ordering::Acquire) {
            self.broke();
        }
    }

    fn broke(&self) {
        if !self.broke.swap(true, Ordering::Relaxed) && self.told.send(Said::Broke).is_err() {
            // Nobody has the job in hand any more.
            self.broken.note(self.claim.clone());
        }
    }
}

impl Collected {
    pub(super) fn say(&self) {
        // Whoever has nothing more to hear of it needs not hear that either.
        if let Some(told) = self.0.upgrade() {
            let _ = told.send(Said::Collected);
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(error)) = &frame {
            self.watch.failed(error);
        }
        self.over = !matches!(frame, Some(Ok(_))) || self.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.client && !self.over {
            let said = if (self.watch.ending)() { Said::CutOff } else { Said::Left };
            // Whoever would hear it does not need it any more.
            let _ = self.watch.told.send(said);
        }
    }
}

fn is_too_large(error: &BoxError) -> bool {
    matches!(error.downcast_ref(), Some(OutgoingError::TooLarge { .. }))
}

impl Handing {
    /// Waits for the end. That it broke off is heard at once, and that its client has it.
    async fn ended(&mut self, ending: &Ending) -> Ended {
        // Once its client is gone, how it ends if nobody collects it before the process does.
        let (mut ended, mut left) = (Ended::Given, false);
        loop {
            let said = match left {
                false => self.0.recv().await,
                // It may collect what comes until the process ends, which does not wait for more.
                true => match tokio::time::timeout(LOOK, self.0.recv()).await {
                    Ok(said) => said,
                    Err(_) if ending() => return ended,
                    Err(_) => continue,
                },
            };
            match said {
                Some(Said::Broke) => return Ended::Broke,
                // Its client has it. What becomes of another stream of the same is nothing to wait for.
                Some(Said::Collected) => return Ended::Given,
                Some(Said::Left) => left = true,
                Some(Said::CutOff) => (ended, left) = (Ended::CutOff, true),
                None => return ended,
            }
        }
    }

    /// Listens no more. Whether it broke off so far.
    fn broke(mut self) -> bool {
        self.0.close();
        while let Ok(said) = self.0.try_recv() {
            if said == Said::Broke {
                return true;
            }
        }
        false
    }
}

impl Broker {
    /// Keeps an answer that its record does not hold, as far as it can be kept, and gives its content to whoever is first.
    pub(super) async fn keep(
        &self,
        journal: &Journal,
        answer: Option<&Answer>,
        stream: Option<BodyStream>,
    ) -> Option<Fresh> {
        match (answer, stream) {
            (Some(answer), Some(body)) => {
                let job = journal.job().await;
                let (watch, handing) =
                    Watch::new(self.broken.clone(), job.claim.clone(), Arc::clone(&self.ending));
                journal.hand_out(handing).await;
                let collected = Some(Collected(watch.told.downgrade()));
                let body = watch.source(body);
                let Fresh { body, kept } = self.results.keep(key(&job), answer, body, collected).await;
                Some(Fresh { body: watch.client(body), kept })
            }
            (_, body) => body.map(|body| Fresh { body, kept: false }),
        }
    }

    /// Sees to it that what becomes of an answer which is handed out is recorded. Returns when it is, or cannot be.
    pub(super) async fn see_handed_out(&self, journal: &Journal) {
        let Some(mut handing) = journal.handing().await else { return };
        if journal.job().await.state == State::Delivering {
            // That it is paid for is on record while it is handed out.
            let written = journal.written_within(CARRY_PATIENCE, self.limits.lease);
            let (_, ended) = tokio::join!(written, handing.ended(&self.ending));
            let job = journal.job().await;
            let event = match ended {
                Ended::Broke => lost(&job),
                // A crash like any other: who comes next sees to it.
                Ended::CutOff => return,
                Ended::Given => Event::HandedOut,
            };
            let recorded = match ended {
                Ended::Broke => journal.record_or_carry(event).await,
                // Whoever had the job meanwhile does not know.
                Ended::Given | Ended::CutOff => journal.insist(event).await,
            };
            match recorded {
                Ok(job) if ended == Ended::Broke => {
                    warn!(job = %job.id, "a paid answer broke off: a refund is due");
                }
                Ok(_) => {}
                Err(error) => {
                    debug!(job = %job.id, %error, "how an answer was handed out is not recorded");
                    if ended == Ended::Broke {
                        self.broken.note(job.claim.clone());
                    }
                }
            }
        } else if handing.broke() {
            // Whoever settles it, if anybody does, takes it for given.
            self.broken.note(journal.job().await.claim.clone());
        }
    }

    /// Records what became of an answer whose process gave it up, or is gone. Not, while another gateway has it.
    pub(super) async fn delivered_or_lost(&self, journal: &Journal) -> Result<(), JournalError> {
        let job = journal.job().await;
        if self.has_gone(&job).await {
            let job = journal.record_or_carry(lost(&job)).await?;
            warn!(job = %job.id, "a paid answer is gone with the process that handed it out: a refund is due");
        } else if self.results.find(key(&job)).is_some() {
            journal.record_or_carry(Event::HandedOut).await?;
        }
        Ok(())
    }

    /// Whether the answer of a job was with a process that is gone.
    pub(super) async fn has_gone(&self, job: &Job) -> bool {
        job.is_given_once()
            // Of one that was given before it was settled nobody knows how far. What is owed for a part is owed.
            && !(job.trusted && job.state == State::Settling)
            && job.shortfall.is_none()
            && self.results.find(key(job)).is_none()
            && !self.results.is_elsewhere(key(job)).await
    }
}
