//! OpenX402 IPFS: free `POST /upload`, then a paid `GET /pin/{id}`; or paid in one step, by
//! `POST /pin/file` and `POST /pin/json`. Pinned content is served at `GET /ipfs/{cid}`.
//!
//! Any id answers 402 unpaid. An unknown one is 404 once paid, before the money is taken.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::cid;
use super::faults::Fault;
use super::multipart::{self, File};
use super::serve::{Body, Handler, answer, json, read};
use super::till::{Item, Till};
use crate::clock::{Clock, UnixSeconds};
use crate::money::Amount;

/// 0.01 dollars a pin.
const PRICE: Amount = Amount::new(10_000);
/// A file, and the multipart envelope around it.
const MAX_FILE: usize = 100 << 20;
const MAX_BODY: usize = MAX_FILE + (64 << 10);
/// Uploads are forgotten after this.
const KEPT_SECONDS: u64 = 3600;

pub(super) struct OpenX402 {
    till: Till,
    clock: Clock,
    uploads: Mutex<HashMap<String, (File, UnixSeconds)>>,
    pinned: Mutex<HashMap<String, (String, Bytes)>>,
}

#[async_trait]
impl Handler for OpenX402 {
    async fn handle(&self, request: Request<Incoming>, fault: Option<Fault>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        match (&head.method, path.split('/').skip(1).collect::<Vec<_>>().as_slice()) {
            (&Method::POST, ["upload"]) => match read(body, MAX_BODY).await {
                Ok(body) => self.upload(&head.headers, &body),
                Err(answer) => *answer,
            },
            (&Method::GET, ["pin", id]) => self.sell(&head.headers, &path, fault, |uploads| {
                let (file, _) =
                    uploads.get(*id).ok_or((StatusCode::NOT_FOUND, "File not found or expired"))?;
                Ok((id.to_string(), file.clone()))
            }),
            (&Method::POST, ["pin", kind @ ("file" | "json")]) => {
                // The reference challenges by the head alone.
                if let Err(challenge) = self.till.admit(&head.headers, &item(&path)) {
                    return *challenge;
                }
                let body = match read(body, MAX_BODY).await {
                    Ok(body) => body,
                    Err(answer) => return *answer,
                };
                let file = if *kind == "json" { json_file(body) } else { form_file(&head.headers, &body) };
                self.sell(&head.headers, &path, fault, |_| Ok((uuid::Uuid::new_v4().to_string(), file?)))
            }
            (&Method::GET, ["ipfs", cid]) => match self.pinned.lock().get(*cid) {
                Some((content_type, bytes)) => {
                    let mut found = answer(StatusCode::OK, "application/octet-stream", bytes.clone());
                    if let Ok(content_type) = content_type.parse() {
                        found.headers_mut().insert(header::CONTENT_TYPE, content_type);
                    }
                    found
                }
                None => json(StatusCode::NOT_FOUND, &json!({ "error": "not found" })),
            },
            _ => json(StatusCode::NOT_FOUND, &json!({ "error": "Not found" })),
        }
    }
}

type Refusal = (StatusCode, &'static str);

fn item(path: &str) -> Item<'_> {
    Item { price: PRICE, path, description: "Pin to IPFS" }
}

fn form_file(headers: &HeaderMap, body: &Bytes) -> Result<File, Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let file = multipart::file(content_type.unwrap_or_default(), body, "file");
    match file {
        None => Err((StatusCode::BAD_REQUEST, "No file provided")),
        Some(file) if file.bytes.len() > MAX_FILE => Err((StatusCode::PAYLOAD_TOO_LARGE, "File too large")),
        Some(file) => Ok(file),
    }
}

fn json_file(body: Bytes) -> Result<File, Refusal> {
    match serde_json::from_slice::<Value>(&body) {
        Ok(_) => Ok(File { name: "data.json".into(), content_type: "application/json".into(), bytes: body }),
        Err(_) => Err((StatusCode::BAD_REQUEST, "Invalid JSON")),
    }
}

fn refuse((status, error): Refusal) -> Response<Body> {
    json(status, &json!({ "success": false, "error": error }))
}

impl OpenX402 {
    pub(super) fn new(till: Till, clock: Clock) -> Self {
        OpenX402 { till, clock, uploads: Mutex::default(), pinned: Mutex::default() }
    }

    fn upload(&self, headers: &HeaderMap, body: &Bytes) -> Response<Body> {
        let file = match form_file(headers, body) {
            Ok(file) => file,
            Err(refusal) => return refuse(refusal),
        };
        let id = uuid::Uuid::new_v4().to_string();
        let uploaded = json!({
            "success": true,
            "id": id,
            "filename": file.name,
            "size": file.bytes.len(),
            "expiresIn": "1 hour",
            "paymentUrl": format!("{}/pin/{id}", self.till.base),
        });
        let now = self.clock.now();
        let mut uploads = self.uploads.lock();
        uploads.retain(|_, (_, expires)| now < *expires);
        uploads.insert(id, (file, now + KEPT_SECONDS));
        json(StatusCode::OK, &uploaded)
    }

    /// Pins what `find` gives, for money.
    fn sell(
        &self,
        headers: &HeaderMap,
        path: &str,
        fault: Option<Fault>,
        find: impl FnOnce(&HashMap<String, (File, UnixSeconds)>) -> Result<(String, File), Refusal>,
    ) -> Response<Body> {
        let item = item(path);
        let payment = match self.till.admit(headers, &item) {
            Ok(payment) => payment,
            Err(challenge) => return *challenge,
        };
        let now = self.clock.now();
        let found = {
            let mut uploads = self.uploads.lock();
            uploads.retain(|_, (_, expires)| now < *expires);
            find(&uploads)
        };
        let (id, file) = match found {
            Ok(found) => found,
            Err(refusal) => return refuse(refusal),
        };
        if fault == Some(Fault::WorkFails) {
            return refuse((StatusCode::INTERNAL_SERVER_ERROR, "Failed to pin file"));
        }
        let cid = cid::of(&file.bytes);
        let done = json!({
            "success": true,
            "id": id,
            "filename": file.name,
            "ipfsHash": cid,
            "pinataUrl": format!("{}/ipfs/{cid}", self.till.base),
            "fileName": file.name,
            "fileSize": file.bytes.len(),
        });
        self.pinned.lock().insert(cid, (file.content_type, file.bytes));
        self.till.collect(&payment, &item, fault, json(StatusCode::OK, &done))
    }
}
