//! A request from its head to the last byte of its answer: vet, route, hand over, tidy up.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, EXPECT, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::{Body, BoxError};
use super::drain::Drain;
use super::forward::Forward;
use super::linger;
use super::observe::{Exchange, Observe, RouteLabel};
use super::peer::Peer;
use super::problem;
use super::request_body::{Progress, RequestBody};
use super::router::{Own, Router, Target};
use super::sell::{Answer, Sell};
use super::tunnel::Tunnels;
use super::vet::{self, Asked};
use super::watch::Activity;
use crate::config::resolved::Edge;
use crate::ids::JobId;
use crate::money::Amount;
use crate::reason::{Problem, Reason};

/// What the gateway's own endpoints can be asked.
const OWN_METHODS: [Method; 3] = [Method::GET, Method::HEAD, Method::OPTIONS];

/// Everything that requests are answered with.
pub struct Gateway {
    pub(super) router: Router,
    pub(super) forward: Arc<Forward>,
    pub(super) sell: Arc<dyn Sell>,
    pub(super) observe: Option<Arc<dyn Observe>>,
    pub(super) drain: Drain,
    pub(super) edge: Edge,
    tunnels: Tunnels,
    keep_target: bool,
}

impl Gateway {
    /// Puts the parts together.
    pub fn new(
        edge: Edge,
        router: Router,
        forward: Arc<Forward>,
        sell: Arc<dyn Sell>,
        observe: Option<Arc<dyn Observe>>,
        drain: Drain,
    ) -> Self {
        let tunnels = Tunnels {
            drain: drain.clone(),
            idle: edge.tunnel_idle_timeout,
            drain_timeout: edge.tunnel_drain_timeout,
        };
        let keep_target = observe.as_ref().is_some_and(|observe| observe.wants_target());
        Gateway { router, forward, sell, observe, drain, edge, tunnels, keep_target }
    }
}

/// A client connection, shared by its requests.
pub(super) struct Connection {
    pub(super) gateway: Arc<Gateway>,
    pub(super) peer: Peer,
    pub(super) activity: Arc<Activity>,
}

impl Connection {
    /// Answers one request. hyper drops this future when the client goes away.
    ///
    /// What waits for nothing is done before there is a future, which is moved with all that it will ever hold.
    pub(super) fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Reply>, Infallible>> {
        let (mut parts, incoming) = request.into_parts();
        let timeout = self.gateway.edge.body_timeout;
        let body = RequestBody::new(incoming, timeout, parts.version != Version::HTTP_2);
        let mut ending = Ending::new(self, &parts, body.progress().cloned());

        let gateway = &*ending.connection.gateway;
        let expects = parts.headers.keys().any(|name| *name == EXPECT);
        let way = match vet::head(&mut parts, gateway.edge.max_header_bytes) {
            Err(problem) => Err(Box::new(problem.into())),
            Ok(Asked::Server) => Err(Box::new(own(problem::options(&[])))),
            Ok(Asked::Resource) => {
                let target = gateway.router.target(&parts.method, parts.uri.path(), &parts.headers);
                ending.route = target.into();
                gateway.way(target, &parts.headers)
            }
        };
        async move {
            let Connection { gateway, peer, .. } = &*ending.connection;
            let mut answer = match way {
                Ok(Way::Pass) => {
                    let body = Body::Client(body);
                    // In an allocation of its own: it is the largest, and else moved about with each request, sold ones too.
                    match Box::pin(gateway.forward.pass(parts, body, peer, &gateway.tunnels)).await {
                        Ok(response) => Answer::new(response, Reason::Passed),
                        Err(problem) => problem.into(),
                    }
                }
                Ok(Way::Sell(rule)) => {
                    let request = Request::from_parts(parts, body);
                    exposed(gateway.sell.sell(rule, request, peer.clone()).await)
                }
                Ok(Way::Own(endpoint)) => {
                    let request = Request::from_parts(parts, body);
                    exposed(gateway.sell.own(endpoint, request, peer.clone()).await)
                }
                Err(answer) => {
                    drop(body);
                    *answer
                }
            };
            ending.note(&answer);
            // What is left of the request is read, or its connection is closed after the answer.
            if let Some(progress) = ending.progress.as_ref().filter(|progress| progress.in_the_way())
                // Rare, so that its timers are not part of every request's future.
                && !Box::pin(finish(progress, expects)).await
            {
                answer.response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(ending.reply(answer.response))
        }
    }
}

/// Who answers a request.
enum Way {
    /// The app.
    Pass,
    /// Whoever sells by this rule.
    Sell(usize),
    /// One of the gateway's own endpoints.
    Own(Own),
}

impl Gateway {
    /// Who answers a request with this target, or the answer that needs nobody.
    fn way(&self, target: Target, headers: &HeaderMap) -> Result<Way, Box<Answer>> {
        Err(Box::new(match target {
            Target::Free(_) => return Ok(Way::Pass),
            Target::Sold(rule) => return Ok(Way::Sell(rule)),
            Target::Own(endpoint) => return Ok(Way::Own(endpoint)),
            Target::Preflight(rule) => own(problem::preflight(self.router.methods(rule), headers)),
            Target::Options(rule) => own(problem::options(self.router.methods(rule))),
            Target::OwnOptions(_) => own(match headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
                true => problem::preflight(&OWN_METHODS, headers),
                false => problem::options(&OWN_METHODS),
            }),
            Target::Ambiguous => Problem::new(Reason::AmbiguousPath).into(),
        }))
    }
}

/// With what scripts may read of it.
fn exposed(mut answer: Answer) -> Answer {
    if !answer.exposed {
        problem::expose(answer.response.headers_mut());
    }
    answer
}

fn own(response: Response<Body>) -> Answer {
    Answer::new(response, Reason::Own)
}

impl From<Target> for RouteLabel {
    fn from(target: Target) -> Self {
        match target {
            Target::Free(None) => RouteLabel::Default,
            Target::Free(Some(rule))
            | Target::Sold(rule)
            | Target::Preflight(rule)
            | Target::Options(rule) => RouteLabel::Rule(rule),
            Target::Own(endpoint) | Target::OwnOptions(endpoint) => RouteLabel::Own(endpoint),
            Target::Ambiguous => RouteLabel::None,
        }
    }
}

/// What is told to observers when a request ends, however it does.
struct Ending {
    connection: Arc<Connection>,
    version: Version,
    method: Method,
    target: Option<PathAndQuery>,
    progress: Option<Arc<Progress>>,
    began: Instant,
    route: RouteLabel,
    reason: Reason,
    job: Option<JobId>,
    price: Option<Amount>,
    status: Option<StatusCode>,
    sent: u64,
    complete: bool,
}

impl Ending {
    fn new(
        connection: Arc<Connection>,
        parts: &http::request::Parts,
        progress: Option<Arc<Progress>>,
    ) -> Self {
        connection.activity.request_begins(parts.version == Version::HTTP_2);
        let target = parts.uri.path_and_query().filter(|_| connection.gateway.keep_target).cloned();
        Ending {
            connection,
            version: parts.version,
            method: parts.method.clone(),
            target,
            progress,
            began: Instant::now(),
            route: RouteLabel::None,
            reason: Reason::Passed,
            job: None,
            price: None,
            status: None,
            sent: 0,
            complete: false,
        }
    }

    /// There is an answer, whether or not its client gets it.
    fn note(&mut self, answer: &Answer) {
        (self.reason, self.job, self.price) = (answer.reason, answer.job, answer.price);
        self.status = Some(answer.response.status());
    }

    /// The answer, at whose end the request ends.
    fn reply(mut self, response: Response<Body>) -> Response<Reply> {
        if let Some(progress) = &self.progress {
            progress.answered();
        }
        response.map(|body| {
            self.complete = body.is_end_stream();
            Reply { body, ending: self }
        })
    }
}

/// Reads a short rest of the request; `false`: the connection must be closed after the answer.
async fn finish(progress: &Progress, expects: bool) -> bool {
    // A client that waits to be asked is not asked for what nobody wants (RFC 9110 section 10.1.1).
    let Some(mut rest) = progress.take_rest().filter(|_| !expects || progress.bytes() > 0) else {
        return false;
    };
    if linger::drain_short(&mut rest).await {
        return true;
    }
    linger::spawn(rest);
    false
}

impl Drop for Ending {
    fn drop(&mut self) {
        let now = Instant::now();
        self.connection.activity.request_ends(now);
        let Some(observe) = &self.connection.gateway.observe else { return };
        observe.ended(&Exchange {
            peer: &self.connection.peer,
            version: self.version,
            method: &self.method,
            target: self.target.as_ref(),
            route: self.route,
            reason: self.reason,
            job: self.job,
            price: self.price,
            status: self.status,
            received: self.progress.as_ref().map_or(0, |progress| progress.bytes()),
            sent: self.sent,
            took: now.saturating_duration_since(self.began),
            complete: self.complete,
        });
    }
}

/// An answer's body; its end is the request's end.
pub(super) struct Reply {
    body: Body,
    ending: Ending,
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.ending.sent += data.len() as u64;
                }
                self.ending.complete = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.ending.complete = true,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
