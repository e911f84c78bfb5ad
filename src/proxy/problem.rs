//! Problems as answers, and the CORS fields of everything that is sold.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap,
    HeaderValue, RETRY_AFTER, VARY,
};
use http::{Method, Response, StatusCode};

use super::body::Body;
use crate::reason::{Problem, Reason};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const ANY: HeaderValue = HeaderValue::from_static("*");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE, Galaksio-Charged, Link, Location, Content-Location, Retry-After, Preference-Applied, \
     ETag, Accept-Ranges, Content-Range",
);
const ALLOWED: HeaderValue = HeaderValue::from_static(
    "PAYMENT-SIGNATURE, X-PAYMENT, X402-PAYMENT, Content-Type, Idempotency-Key, Prefer, Webhook-Secret, \
     Authorization, Range, If-Range, If-None-Match, Last-Event-ID",
);
const DAY: HeaderValue = HeaderValue::from_static("86400");

/// The answer to a request that ended in a problem: JSON, never stored.
pub fn answer(problem: &Problem) -> Response<Body> {
    let body = Bytes::from(problem.to_json().to_string());
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(problem.reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    if let Some(seconds) = problem.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if problem.reason == Reason::MethodNotAllowed {
        // Required with a 405 (RFC 9110 section 15.5.6). Which methods a resource has is the app's to say.
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    response
}

/// Lets scripts in browsers read an answer on a sold route, payment fields included. An app's own policy on
/// its origin stands.
pub fn expose(headers: &mut HeaderMap) {
    headers.entry(ACCESS_CONTROL_ALLOW_ORIGIN).or_insert(ANY);
    headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}

/// The answer to a browser's preflight on a sold route. `methods`: those of the route; empty: any, so the
/// one that was asked for.
pub(super) fn preflight(methods: &[Method], asked: &HeaderMap) -> Response<Body> {
    let mut response = options(methods);
    let headers = response.headers_mut();
    headers.remove(ALLOW);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
    headers.insert(ACCESS_CONTROL_MAX_AGE, DAY);
    headers.insert(VARY, HeaderValue::from_static("Access-Control-Request-Method"));
    let wanted = asked.get(http::header::ACCESS_CONTROL_REQUEST_METHOD).cloned();
    if let Some(allow) = if methods.is_empty() { wanted } else { list(methods) } {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allow);
    }
    response
}

/// The answer to any other `OPTIONS` that has no app to go to.
pub(super) fn options(methods: &[Method]) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Some(allow) = list(methods) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

fn list(methods: &[Method]) -> Option<HeaderValue> {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_json_that_nobody_stores() {
        let response = answer(&Problem::new(Reason::NoProvider));
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["retry-after"], "1");
    }

    #[test]
    fn a_browser_may_pay() {
        let response = preflight(&[Method::POST], &HeaderMap::new());
        assert_eq!(response.status(), 204);
        let allowed = response.headers()["access-control-allow-headers"].to_str().unwrap();
        for name in ["PAYMENT-SIGNATURE", "X-PAYMENT", "X402-PAYMENT", "Content-Type", "Idempotency-Key"] {
            assert!(allowed.contains(name), "{name}");
        }
        assert_eq!(response.headers()["access-control-allow-methods"], "POST");
    }

    #[test]
    fn the_apps_own_origin_policy_stands() {
        let mut headers = HeaderMap::new();
        headers.insert("access-control-allow-origin", HeaderValue::from_static("https://shop.example"));
        expose(&mut headers);
        assert_eq!(headers["access-control-allow-origin"], "https://shop.example");
        assert!(headers["access-control-expose-headers"].to_str().unwrap().contains("PAYMENT-RESPONSE"));
    }
}
