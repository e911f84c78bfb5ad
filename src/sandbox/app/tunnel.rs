//! `/ws`: an upgraded connection that says back whatever it is told.
//!
//! `Upgrade: websocket` speaks RFC 6455 and echoes messages frame by frame; any other protocol name gets
//! its bytes back as they are.

use std::io;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::sandbox::serve::{Body, Running, full, json};

/// Added to the client's key before it is hashed. RFC 6455 1.3.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MAX_FRAME: u64 = 1 << 20;

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Switches protocols, and echoes until either side closes or the sandbox stops.
pub(super) fn open(mut request: Request<Incoming>, mut running: Running) -> Response<Body> {
    let Some(protocol) = request.headers().get(header::UPGRADE).cloned() else {
        return json(StatusCode::UPGRADE_REQUIRED, &json!({ "error": "send Upgrade: websocket" }));
    };
    let accept = accept_key(request.headers());
    let framed = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    if framed && accept.is_none() {
        return json(StatusCode::BAD_REQUEST, &json!({ "error": "no Sec-WebSocket-Key" }));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let echo = async {
            let Ok(upgraded) = upgrade.await else { return };
            let stream = TokioIo::new(upgraded);
            // The peer may go whenever it likes.
            let _ = if framed { echo_frames(stream).await } else { echo_bytes(stream).await };
        };
        tokio::select! {
            () = echo => {}
            () = running.stopped() => {}
        }
    });
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(header::UPGRADE, protocol);
    if let Some(accept) = accept.filter(|_| framed) {
        answer.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer
}

fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(KEY_SUFFIX);
    HeaderValue::try_from(base64_simd::STANDARD.encode_to_string(context.finish())).ok()
}

async fn echo_bytes(stream: TokioIo<Upgraded>) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

/// RFC 6455 5.2: a client's frames are masked, a server's are not.
async fn echo_frames(mut stream: TokioIo<Upgraded>) -> io::Result<()> {
    loop {
        let first = stream.read_u8().await?;
        let second = stream.read_u8().await?;
        let length = match second & 0x7f {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        if second & 0x80 == 0 || length > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await?;
        let mut payload = vec![0; usize::try_from(length).unwrap_or_default()];
        stream.read_exact(&mut payload).await?;
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        let opcode = first & 0x0f;
        let first = if opcode == PING { first & 0xf0 | PONG } else { first };
        let mut frame = vec![first];
        match u16::try_from(length) {
            Ok(short @ ..=125) => frame.push(short as u8),
            Ok(medium) => {
                frame.push(126);
                frame.extend(medium.to_be_bytes());
            }
            Err(_) => {
                frame.push(127);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.append(&mut payload);
        stream.write_all(&frame).await?;
        stream.flush().await?;
        if opcode == CLOSE {
            return stream.shutdown().await;
        }
    }
}
