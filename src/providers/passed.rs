//! A result that is a provider's own answer, passed on as it is.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::BodyExt;

use super::{Fault, ProviderError};
use crate::outgoing::{Frames, OutgoingError, Stream};

/// An answer that is the result itself.
#[derive(Debug)]
pub struct Passed {
    /// Its media type.
    pub content_type: Option<String>,
    /// Its content coding, if it has one.
    pub content_encoding: Option<String>,
    /// The bytes.
    pub body: PassedBody,
}

/// The bytes of a [`Passed`].
#[derive(Debug)]
pub enum PassedBody {
    /// All there.
    Whole(Bytes),
    /// Still arriving; so many, if that is known.
    Arriving(Stream, Option<u64>),
}

impl Passed {
    /// Reads it whole if it has at most `most` bytes: what fails up to then has failed before it was paid for. A longer one
    /// goes on arriving.
    pub async fn read_ahead(self, most: u64) -> Result<Passed, ProviderError> {
        let (mut stream, length) = match self.body {
            PassedBody::Arriving(stream, length) if length.is_none_or(|length| length <= most) => {
                (stream, length)
            }
            body => return Ok(Passed { body, ..self }),
        };
        let mut first = BytesMut::new();
        while let Some(frame) = stream.frame().await {
            let frame = frame.map_err(|error| match error.downcast::<OutgoingError>() {
                Ok(error) => ProviderError::from(*error),
                Err(error) => ProviderError::new(Fault::Unreachable, error.to_string()),
            })?;
            let Ok(bytes) = frame.into_data() else { continue };
            first.extend_from_slice(&bytes);
            if first.len() as u64 > most {
                let first = stream::once(std::future::ready(Ok(Frame::data(first.freeze()))));
                let rest = stream::unfold(stream, |mut stream| async move {
                    let frame = stream.frame().await?;
                    Some((frame, stream))
                });
                let frames = Box::pin(first.chain(rest));
                let body = PassedBody::Arriving(Frames::new(frames, length).boxed_unsync(), length);
                return Ok(Passed { body, ..self });
            }
        }
        Ok(Passed { body: PassedBody::Whole(first.freeze()), ..self })
    }
}
