//! Waiting for what a payment buys, for as long as its client would: then it is told where the answer will be.
//!
//! The job does not notice. Nothing is answered before there is one, and its record is durable.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Inner;
use super::request::Asked;
use crate::broker::{Announce, Announced, Delivery, DeliveryBody, Presented, Sale, charged_so_far};
use crate::ids::JobId;
use crate::jobs::Job;
use crate::proxy::drain::Kind;
use crate::reason::{Charged, Problem, Reason};

/// When to look again, in seconds, as a client is told.
const LOOK_AGAIN: &str = "2";

/// A client that does not wait for ever.
struct Waiting {
    announced: Announced,
    patience: Duration,
}

impl Inner {
    /// Runs the sale in a task that outlives the client, and listens to it. The end of the process waits until all
    /// that happened is written.
    pub(super) async fn run(&self, asked: &mut Asked, mut sale: Box<Sale>) -> Result<Delivery, Problem> {
        let waiting = waiting(asked, &mut sale.payment);
        let (broker, held) = (Arc::clone(&self.parts.broker), asked.held.take());
        let hold = self.parts.drain.hold(Kind::Task);
        let task = tokio::spawn(async move {
            let delivery = broker.sell(sale, hold).await;
            drop(held);
            delivery
        });
        // A task that panicked may have done anything: its job is for recovery, its payment for a repeat.
        let answer =
            async { task.await.map_err(|_| Problem::new(Reason::Internal).charged(Charged::Unknown)) };
        match self.in_time(asked, answer, waiting).await {
            Ok(answer) => answer,
            Err(accepted) => Ok(*accepted),
        }
    }

    /// The answer to a payment that was taken before, if it was.
    pub(super) async fn answer_known(
        &self,
        asked: &Asked,
        mut payment: Presented,
        reason: Reason,
    ) -> Result<Option<Delivery>, Problem> {
        let waiting = waiting(asked, &mut payment);
        // It may be an orphan that is being brought to rest, and that must not end with the patience of its client.
        let broker = Arc::clone(&self.parts.broker);
        let hold = self.parts.drain.hold(Kind::Task);
        let task = tokio::spawn(async move {
            let known = broker.known(&payment, reason).await;
            drop(hold);
            known
        });
        let answer =
            async { task.await.map_err(|_| Problem::new(Reason::Internal).charged(Charged::Unknown))? };
        match self.in_time(asked, answer, waiting).await {
            Ok(answer) => answer,
            Err(accepted) => Ok(Some(*accepted)),
        }
    }

    /// The answer; or once there is a job and the client's patience is over, what it is told instead.
    async fn in_time<T>(
        &self,
        asked: &Asked,
        answer: impl Future<Output = T>,
        waiting: Option<Waiting>,
    ) -> Result<T, Box<Delivery>> {
        let Some(Waiting { mut announced, patience }) = waiting else { return Ok(answer.await) };
        let mut answer = pin!(answer);
        let job = async {
            let (job, ()) = tokio::join!(announced.job(), tokio::time::sleep(patience));
            job
        };
        let id = tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            id = job => id,
        };
        match self.parts.broker.job(id).await {
            // Its answer is on its way.
            Ok(Some(job)) if job.state.is_decided() => Ok(answer.await),
            found => Err(Box::new(self.accepted(asked, id, found.ok().flatten().as_ref()))),
        }
    }

    fn accepted(&self, asked: &Asked, id: JobId, job: Option<&Job>) -> Delivery {
        let url = format!("{}{id}", asked.own_url(self.paid.jobs_path.as_deref()));
        let body = json!({
            "jobId": id,
            "status": job.map_or("running", Job::outer),
            "charged": job.map_or(Charged::Unknown, charged_so_far),
            "retry": Reason::Accepted.retry(),
            "url": url,
            "events": format!("{url}/events"),
        });
        let headers = [
            ("content-type", "application/json"),
            ("location", &url),
            ("content-location", &url),
            ("preference-applied", &asked.prefer.applied()),
            ("retry-after", LOOK_AGAIN),
        ];
        Delivery {
            reason: Reason::Accepted,
            status: Reason::Accepted.status(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            body: DeliveryBody::Whole(body.to_string().into()),
            receipt: None,
            charged: None,
            job: Some(id),
            price: job.map(|job| job.quote.price),
            etag: None,
        }
    }
}

/// Has the payment's job announced, if the client does not wait for ever.
fn waiting(asked: &Asked, payment: &mut Presented) -> Option<Waiting> {
    let patience = asked.prefer.patience()?;
    let (announce, announced) = Announce::wanted();
    payment.announce = announce;
    Some(Waiting { announced, patience })
}
