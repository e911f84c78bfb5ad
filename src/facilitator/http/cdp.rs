//! What Coinbase's CDP wants with every call: a token signed for exactly this call, and who is calling.
//!
//! The token's `uris` claim binds it to one method, host and path, so that of `/verify` opens no `/settle`. It is made
//! anew for each call and lives two minutes. Source: npm `@coinbase/cdp-sdk` 1.57, `src/auth` and `src/x402`.

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Method, Uri};
use jsonwebtoken::{Algorithm, EncodingKey};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::clock::{Clock, UnixSeconds};
use crate::config::resolved::{Cdp, CdpKey};
use crate::facilitator::FacilitatorError;
use crate::outgoing::Call;

/// Seconds.
const LIFETIME: UnixSeconds = 120;

const CORRELATION: HeaderName = HeaderName::from_static("correlation-context");
const CALLER: HeaderValue = HeaderValue::from_static(concat!(
    "sdk_version=",
    env!("CARGO_PKG_VERSION"),
    ",sdk_language=rust,source=galaksio,source_version=",
    env!("CARGO_PKG_VERSION"),
));

/// Signs calls with one key.
#[derive(Clone)]
pub(super) struct Signer {
    key_id: String,
    key: EncodingKey,
    algorithm: Algorithm,
    clock: Clock,
}

impl Signer {
    pub(super) fn new(cdp: &Cdp, clock: Clock) -> Self {
        let (key, algorithm) = match &cdp.key {
            CdpKey::Ed25519(key) => (EncodingKey::from_ed_der(key.expose_secret()), Algorithm::EdDSA),
            CdpKey::Es256(key) => (EncodingKey::from_ec_der(key.expose_secret()), Algorithm::ES256),
        };
        Signer { key_id: cdp.key_id.clone(), key, algorithm, clock }
    }

    /// `call`, with what lets CDP take it. `method` and `url` must be the call's own.
    pub(super) fn sign(&self, call: Call, method: &Method, url: &Uri) -> Result<Call, FacilitatorError> {
        let failed = |what: &str| FacilitatorError::NotSent(format!("the call cannot be signed: {what}"));
        let token = self.token(method, url).map_err(failed)?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| failed("no header holds the token"))?;
        bearer.set_sensitive(true);
        Ok(call.header(AUTHORIZATION, bearer).header(CORRELATION, CALLER))
    }

    fn token(&self, method: &Method, url: &Uri) -> Result<String, &'static str> {
        let mut nonce = [0; 16];
        SystemRandom::new().fill(&mut nonce).map_err(|_| "no random numbers")?;
        let now = self.clock.now();
        let header =
            json!({ "alg": self.algorithm, "kid": self.key_id, "typ": "JWT", "nonce": hex::encode(nonce) });
        let claims = json!({
            "sub": self.key_id,
            "iss": "cdp",
            "uris": [format!("{method} {}{}", host(url), url.path())],
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME,
        });
        // By hand, since the library's own header has no place for a nonce.
        let part = |part: &serde_json::Value| base64_simd::URL_SAFE_NO_PAD.encode_to_string(part.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm)
            .map_err(|_| "the key does not sign")?;
        Ok(format!("{message}.{signature}"))
    }
}

/// Never the key.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// The host as a `Host` header has it: with a port only where it is not the scheme's.
pub(super) fn host(url: &Uri) -> String {
    let host = url.host().unwrap_or_default();
    match (url.scheme_str(), url.port_u16()) {
        (_, None) | (Some("https"), Some(443)) | (Some("http"), Some(80)) => host.to_owned(),
        (_, Some(port)) => format!("{host}:{port}"),
    }
}
