//! From a delivery to an HTTP answer: the receipt in its header, a refused payment with its fresh challenge.

use http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::request::Asked;
use super::{Inner, Rule};
use crate::broker::{Delivery, DeliveryBody};
use crate::proxy::{Answer, Body};
use crate::reason::Problem;

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
        let Delivery { reason, status, headers, body, receipt, job, price } = delivery;
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
        if let Some((version, receipt)) = receipt {
            let (name, value) = receipt.to_header(version);
            answer.response.headers_mut().insert(name, value);
        }
        Ok(answer)
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
