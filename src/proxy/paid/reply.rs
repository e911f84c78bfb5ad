//! From a delivery to an HTTP answer: the receipt in its header, a refused payment with its fresh challenge.

use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, LINK};
use http::{Response, StatusCode};

use super::request::Asked;
use super::{Inner, Rule};
use crate::broker::{Delivery, DeliveryBody};
use crate::ids::JobId;
use crate::proxy::{Answer, Body};
use crate::reason::Problem;

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
        let Delivery { reason, status, headers, body, receipt, charged, job, price } = delivery;
        let mut answer = match body {
            DeliveryBody::Problem(problem) if reason.status() == 402 => {
                self.refuse(rule, asked, *problem).await?
            }
            DeliveryBody::Problem(problem) => Answer::from(*problem),
            DeliveryBody::Whole(bytes) => Answer::new(response(status, headers, bytes.into()), reason),
            DeliveryBody::Stream(stream) => {
                Answer::new(response(status, headers, Body::Stream(stream)), reason)
            }
        };
        // A job that was refused is what happened here, not the one its new challenge promises.
        answer.job = job.or(answer.job);
        answer.price = price.or(answer.price);
        let fields = answer.response.headers_mut();
        if let Some((version, receipt)) = receipt {
            let (name, value) = receipt.to_header(version);
            fields.insert(name, value);
        }
        if let Some(charged) = charged {
            fields.insert(GALAKSIO_CHARGED, HeaderValue::from_static(charged.name()));
        }
        if let Some(job) = job.filter(|_| charged.is_some() || reason.status() == 503) {
            fields.extend(self.status_link(asked, job).map(|link| (LINK, link)));
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
        let without = problem.clone();
        match self.challenge(rule, asked, Some(problem)).await {
            Ok(answer) => Ok(answer),
            Err(_) => Err(without),
        }
    }
}

pub(super) fn response(status: u16, headers: Vec<(String, String)>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    for (name, value) in headers {
        let named = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(&value).ok());
        if let Some((name, value)) = named {
            response.headers_mut().append(name, value);
        }
    }
    response.headers_mut().insert(CACHE_CONTROL, PRIVATE);
    response
}
