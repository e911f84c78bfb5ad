//! OpenX402 IPFS: free `POST /upload`, then a paid `GET /pin/{id}`; or paid in one step, by
//! `POST /pin/file` and `POST /pin/json`. Pinned content is served at `GET /ipfs/{cid}`.
//!
//! An upload over 16 MiB is digested as it arrives and not kept: it can be pinned, and not read.
//! Any id answers 402 unpaid. An unknown one is 404 once paid, before the money is taken.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use memchr::memmem;
use parking_lot::Mutex;
use ring::digest::{Context, SHA256};
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
/// A file that is kept, and the multipart envelope around it.
const KEPT: usize = 16 << 20;
const ENVELOPE: usize = 64 << 10;
/// Uploads are forgotten after this.
const KEPT_SECONDS: u64 = 3600;

pub(super) struct OpenX402 {
    till: Till,
    clock: Clock,
    max_file: u64,
    uploads: Mutex<HashMap<String, (Upload, UnixSeconds)>>,
    pinned: Mutex<HashMap<String, (String, Bytes)>>,
}

/// An uploaded file.
#[derive(Clone)]
struct Upload {
    file: File,
    size: u64,
    cid: String,
}

impl From<File> for Upload {
    fn from(file: File) -> Self {
        Upload { size: file.bytes.len() as u64, cid: cid::of(&file.bytes), file }
    }
}

#[async_trait]
impl Handler for OpenX402 {
    async fn handle(&self, request: Request<Incoming>, fault: Option<Fault>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        match (&head.method, path.split('/').skip(1).collect::<Vec<_>>().as_slice()) {
            (&Method::POST, ["upload"]) => match self.receive(&head.headers, body).await {
                Ok(upload) => self.upload(upload),
                Err(refusal) => refuse(refusal),
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
                let body = match read(body, KEPT + ENVELOPE).await {
                    Ok(body) => body,
                    Err(answer) => return *answer,
                };
                let file = if *kind == "json" { json_file(body) } else { form_file(&head.headers, &body) };
                self.sell(&head.headers, &path, fault, |_| {
                    Ok((uuid::Uuid::new_v4().to_string(), file?.into()))
                })
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
const TOO_LARGE: Refusal = (StatusCode::PAYLOAD_TOO_LARGE, "File too large");

/// The next bytes of a body; an error if it was cut off.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, ()> {
    match body.frame().await {
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(_)) => Err(()),
        None => Ok(None),
    }
}

fn item(path: &str) -> Item<'_> {
    Item { price: PRICE, path, description: "Pin to IPFS" }
}

fn form_file(headers: &HeaderMap, body: &Bytes) -> Result<File, Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let file = multipart::file(content_type.unwrap_or_default(), body, "file");
    match file {
        None => Err((StatusCode::BAD_REQUEST, "No file provided")),
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
    pub(super) fn new(till: Till, clock: Clock, max_file: u64) -> Self {
        OpenX402 { till, clock, max_file, uploads: Mutex::default(), pinned: Mutex::default() }
    }

    /// Reads an upload: a short one as a form, a long one as the one file that a form begins and ends with.
    async fn receive(&self, headers: &HeaderMap, mut body: Incoming) -> Result<Upload, Refusal> {
        let aborted = (StatusCode::BAD_REQUEST, "request aborted");
        let mut start = BytesMut::new();
        while start.len() <= KEPT + ENVELOPE {
            match next(&mut body).await.map_err(|()| aborted)? {
                Some(bytes) => start.extend_from_slice(&bytes),
                None => {
                    let upload = Upload::from(form_file(headers, &start.freeze())?);
                    return if upload.size > self.max_file { Err(TOO_LARGE) } else { Ok(upload) };
                }
            }
        }
        let head = memmem::find(&start, b"\r\n\r\n").ok_or(aborted)? + 4;
        let first = memmem::find(&start, b"\r\n").ok_or(aborted)?;
        let tail = [b"\r\n", &start[..first], b"--\r\n"].concat();
        // The head alone is a form with an empty file.
        let empty = [&start[..head], &tail[..]].concat();
        let file = form_file(headers, &empty.into())?;
        let mut digest = Context::new(&SHA256);
        let mut size = 0;
        let mut held = start.split_off(head);
        loop {
            // What may be the end is held back.
            let sure = held.split_to(held.len().saturating_sub(tail.len()));
            digest.update(&sure);
            size += sure.len() as u64;
            if size > self.max_file {
                return Err(TOO_LARGE);
            }
            match next(&mut body).await.map_err(|()| aborted)? {
                Some(bytes) => held.extend_from_slice(&bytes),
                None => break,
            }
        }
        if held[..] != tail[..] {
            return Err((StatusCode::BAD_REQUEST, "Unexpected end of form"));
        }
        Ok(Upload { file, size, cid: cid::of_digest(digest.finish().as_ref()) })
    }

    fn upload(&self, upload: Upload) -> Response<Body> {
        let id = uuid::Uuid::new_v4().to_string();
        let uploaded = json!({
            "success": true,
            "id": id,
            "filename": upload.file.name,
            "size": upload.size,
            "expiresIn": "1 hour",
            "paymentUrl": format!("{}/pin/{id}", self.till.base),
        });
        let now = self.clock.now();
        let mut uploads = self.uploads.lock();
        uploads.retain(|_, (_, expires)| now < *expires);
        uploads.insert(id, (upload, now + KEPT_SECONDS));
        json(StatusCode::OK, &uploaded)
    }

    /// Pins what `find` gives, for money.
    fn sell(
        &self,
        headers: &HeaderMap,
        path: &str,
        fault: Option<Fault>,
        find: impl FnOnce(&HashMap<String, (Upload, UnixSeconds)>) -> Result<(String, Upload), Refusal>,
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
        let (id, Upload { file, size, cid }) = match found {
            Ok(found) => found,
            Err(refusal) => return refuse(refusal),
        };
        if fault == Some(Fault::WorkFails) {
            return refuse((StatusCode::INTERNAL_SERVER_ERROR, "Failed to pin file"));
        }
        let done = json!({
            "success": true,
            "id": id,
            "filename": file.name,
            "ipfsHash": cid,
            "pinataUrl": format!("{}/ipfs/{cid}", self.till.base),
            "fileName": file.name,
            "fileSize": size,
        });
        if size == file.bytes.len() as u64 {
            self.pinned.lock().insert(cid, (file.content_type, file.bytes));
        }
        self.till.collect(&payment, &item, fault, json(StatusCode::OK, &done))
    }
}
