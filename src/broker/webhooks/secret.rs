//! The secret of a webhook, and what it signs, as <https://www.standardwebhooks.com> has it.

use std::fmt;

use ring::hmac;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Bytes of a secret, at least and at most.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;
const PREFIX: &str = "whsec_";

/// A secret that a client and we share. Never printed.
#[derive(Clone)]
pub struct WebhookSecret(Vec<u8>);

/// The text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is whsec_ and 24 to 64 bytes in base64")]
pub struct BadSecret;

impl WebhookSecret {
    /// The secret that is written so.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let base64 = text.strip_prefix(PREFIX).ok_or(BadSecret)?;
        let bytes = base64_simd::STANDARD.decode_to_vec(base64).map_err(|_| BadSecret)?;
        if LENGTH.contains(&bytes.len()) { Ok(WebhookSecret(bytes)) } else { Err(BadSecret) }
    }

    fn text(&self) -> String {
        format!("{PREFIX}{}", base64_simd::STANDARD.encode_to_string(&self.0))
    }

    /// The field `webhook-signature` of a message.
    pub fn sign(&self, id: &str, timestamp: &str, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let signature = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", base64_simd::STANDARD.encode_to_string(signature))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

impl Serialize for WebhookSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for WebhookSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WebhookSecret::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_signs_as_the_standard_says() {
        // The example of the specification's own libraries.
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{secret:?}"), "WebhookSecret");
        let stored = serde_json::to_string(&secret).unwrap();
        let read: WebhookSecret = serde_json::from_str(&stored).unwrap();
        assert_eq!(read.0, secret.0);
    }

    #[test]
    fn what_is_too_short_or_no_secret_is_refused() {
        let bytes = |length| format!("{PREFIX}{}", base64_simd::STANDARD.encode_to_string(vec![1u8; length]));
        for text in ["", "whsec_", "secret", "whsec_!!!", &bytes(23), &bytes(65), &bytes(24)[6..]] {
            assert_eq!(WebhookSecret::parse(text).unwrap_err(), BadSecret, "{text}");
        }
        for length in [24, 32, 64] {
            assert!(WebhookSecret::parse(&bytes(length)).is_ok());
        }
    }
}
