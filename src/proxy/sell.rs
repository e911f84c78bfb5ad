//! The seam to everything that is not passthrough.

use futures_util::future::BoxFuture;
use http::{Request, Response};

use super::body::Body;
use super::peer::Peer;
use super::problem;
use super::request_body::RequestBody;
use super::router::Own;
use crate::ids::JobId;
use crate::money::Amount;
use crate::reason::{Problem, Reason};

/// Whoever answers the requests of sold routes, and the gateway's own endpoints.
///
/// The futures are dropped when the client goes away. Work that must not stop then runs in a task of its own
/// ([`super::Drain::spawn`], so that a shutdown waits for it), and the future only listens to it.
pub trait Sell: Send + Sync + 'static {
    /// Answers a request that matched the sold rule with this index. The request is as the client sent it,
    /// `OPTIONS` never. What is left of its body is taken care of by the edge.
    fn sell(&self, rule: usize, request: Request<RequestBody>, peer: Peer) -> BoxFuture<'_, Answer>;

    /// Answers `GET` and `HEAD` of one of the gateway's own endpoints.
    fn own(&self, own: Own, request: Request<RequestBody>, peer: Peer) -> BoxFuture<'_, Answer>;
}

/// An answer, and why it is that one.
#[derive(Debug)]
pub struct Answer {
    /// What the client gets.
    pub response: Response<Body>,
    /// What the access log and the metrics say.
    pub reason: Reason,
    /// The job it is about, for the access log: also one that is only promised by a challenge.
    pub job: Option<JobId>,
    /// What the client is asked or charged, for the access log, in atomic units.
    pub price: Option<Amount>,
    /// Whether it says already what scripts may read of it.
    pub exposed: bool,
}

impl Answer {
    /// An answer that is about no job.
    pub fn new(response: Response<Body>, reason: Reason) -> Self {
        Answer { response, reason, job: None, price: None, exposed: false }
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let answer = Answer::new(problem::answer(&problem), problem.reason);
        Answer { job: problem.job, ..answer }
    }
}
