//! The gateway's own endpoints: the state of a job, told at once, or followed ([`super::follow`]); and stored files
//! ([`super::files`]).

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use serde_json::Value;

use super::Inner;
use crate::broker::description;
use crate::ids::JobId;
use crate::jobs::Job;
use crate::proxy::{Answer, Body, Own};
use crate::reason::{Problem, Reason};

impl Inner {
    /// Answers one of the gateway's own endpoints.
    pub(super) async fn endpoint(self: &Arc<Self>, own: Own, head: &Parts) -> Result<Answer, Problem> {
        match own {
            Own::Status(id) => self.job(id, description::brief).await,
            Own::Job(id) => self.job(id, description::without_charge).await,
            Own::File(id) => self.file(id, head).await,
            Own::Watch(id) => self.watch(id, head).await,
            Own::Events(id) => self.events(id, head).await,
        }
    }

    /// The state of a job. Never its result: an id may be shared, what was paid for is given to the payment again.
    async fn job(&self, id: JobId, describe: fn(&Job) -> Value) -> Result<Answer, Problem> {
        let found = self.parts.broker.job(id).await;
        let job = found.map_err(|_| Reason::StoreAway)?.ok_or(Reason::JobUnknown)?;
        Ok(Answer { job: Some(id), ..Answer::new(document(&describe(&job)), Reason::Own) })
    }
}

/// A document of ours that nobody keeps.
pub(super) fn document(body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(body.to_string())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
