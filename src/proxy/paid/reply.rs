//! From a delivery to an HTTP answer: the receipt in its header, a refused payment with its fresh challenge.

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, LINK};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body as _;

use super::representation::{self, Content, Representation};
use super::request::Asked;
use super::{Inner, Rule};
use crate::broker::{Delivery, DeliveryBody};
use crate::ids::JobId;
use crate::proxy::{Answer, Body};
use crate::reason::{Charged, Problem, Reason};
use crate::x402::{Receipt, Version};

/// What an answer says of the client's money that has no receipt, and no body of ours to say it in.
const GALAKSIO_CHARGED: HeaderName = HeaderName::from_static("galaksio-charged");

/// Paid content is for who paid for it (attacks by shared caches are known).
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");

impl Inner {
    /// The answer that carries a delivery.
    pub(super) async fn deliver(
        &self,
        rule: &Rule,
        asked: &Asked,
        delivery: Delivery,
    ) -> Result<Answer, Problem> {
        if delivery.etag.is_some() {
            let (told, job) = (delivery.charged, delivery.job);
            let mut answer = kept(delivery, &asked.parts);
            if let Some(job) = job.filter(|_| told.is_some()) {
                let link = self.status_link(asked, job).map(|link| (LINK, link));
                answer.response.headers_mut().extend(link);
            }
            return Ok(answer);
        }
        let Delivery { reason, status, headers, body, receipt, charged, job, price, .. } = delivery;
        let mut answer = match body {
            DeliveryBody::Problem(problem) if reason.status() == 402 => {
                self.refuse(rule, asked, *problem).await?
            }
            DeliveryBody::Problem(problem) => Answer::from(*problem),
            DeliveryBody::Whole(bytes) => Answer::new(response(status, headers, bytes.into()), reason),
            DeliveryBody::Stream(stream) => {
                Answer::new(response(status, headers, Body::Stream(stream)), reason)
            }
            DeliveryBody::Kept(kept) => {
                Answer::new(response(status, headers, Body::Stream(kept.whole())), reason)
            }
        };
        // A job that was refused is what happened here, not the one its new challenge promises.
        answer.job = job.or(answer.job);
        answer.price = price.or(answer.price);
        show(receipt, charged, &mut answer.response);
        if let Some(job) = job.filter(|_| charged.is_some() || reason.status() == 503) {
            let link = self.status_link(asked, job).map(|link| (LINK, link));
            answer.response.headers_mut().extend(link);
        }
        Ok(answer)
    }

    /// Where it is said how a job goes on: RFC 8631's relation. `None` where the operator has switched all of those off.
    fn status_link(&self, asked: &Asked, job: JobId) -> Option<HeaderValue> {
        let paths = [&self.paid.jobs_path, &self.paid.job_path, &self.paid.status_path];
        let path = paths.into_iter().find_map(|path| path.as_deref())?;
        HeaderValue::try_from(format!("<{}{job}>; rel=\"status\"", asked.own_url(Some(path)))).ok()
    }

    /// The answer to a payment that buys nothing: with a challenge, where a new payment helps and one can be made.
    pub(super) async fn refuse(
        &self,
        rule: &Rule,
        asked: &Asked,
        problem: Problem,
    ) -> Result<Answer, Problem> {
        if problem.reason.status() != 402 {
            return Err(problem);
        }
        self.challenge(rule, asked, &problem).await.map_err(|_| problem)
    }
}

/// An answer that was kept: all of it, or where it is given again, what a request with this head asks for of it.
pub(super) fn kept(delivery: Delivery, head: &Parts) -> Answer {
    let Delivery { reason, status, headers, body, receipt, charged, job, price, etag } = delivery;
    // Anything else is no answer that parts could be made of.
    let etag = etag.filter(|_| head.method == Method::GET && status == StatusCode::OK.as_u16());
    let content = match body {
        DeliveryBody::Whole(bytes) => Ok(Content::Memory(bytes)),
        DeliveryBody::Kept(kept) => Ok(Content::Kept(kept)),
        DeliveryBody::Stream(stream) => Err(Body::Stream(stream)),
        DeliveryBody::Problem(problem) => {
            let mut answer = Answer::from(*problem);
            show(receipt, charged, &mut answer.response);
            return Answer { job, price, ..answer };
        }
    };
    let mut response = match (content, etag) {
        (Ok(content), Some(etag)) => {
            let mut fields = HeaderMap::new();
            append(&mut fields, headers);
            let whole = HeaderMap::new();
            let asked = if reason == Reason::Replayed { &head.headers } else { &whole };
            Representation { content, etag, fields }.answer(&head.method, asked)
        }
        (Err(body), Some(etag)) => {
            let known = body.size_hint().exact().is_some();
            let mut response = response(status, headers, body);
            representation::describe(response.headers_mut(), etag, known);
            response
        }
        (Ok(content), None) => response(status, headers, content.whole()),
        (Err(body), None) => response(status, headers, body),
    };
    response.headers_mut().insert(CACHE_CONTROL, PRIVATE);
    show(receipt, charged, &mut response);
    let reason = representation::reason(&response, reason);
    Answer { job, price, ..Answer::new(response, reason) }
}

fn response(status: u16, headers: Vec<(String, String)>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    append(response.headers_mut(), headers);
    response.headers_mut().insert(CACHE_CONTROL, PRIVATE);
    response
}

fn show(receipt: Option<(Version, Receipt)>, charged: Option<Charged>, response: &mut Response<Body>) {
    if let Some(charged) = charged {
        response.headers_mut().insert(GALAKSIO_CHARGED, HeaderValue::from_static(charged.name()));
    }
    if let Some((version, receipt)) = receipt {
        let (name, value) = receipt.to_header(version);
        response.headers_mut().insert(name, value);
    }
}

fn append(fields: &mut HeaderMap, headers: Vec<(String, String)>) {
    for (name, value) in headers {
        let named = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(&value).ok());
        if let Some((name, value)) = named {
            fields.append(name, value);
        }
    }
}
