//! API keys of Coinbase's CDP: read like wallet keys, checked, and kept as what a signature is made with. Never printed.
//!
//! The portal hands out two sorts: Ed25519 as base64 of 64 bytes (seed and public key), and P-256 as PEM.

use std::path::Path;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::SecretSlice;
use secrecy::zeroize::Zeroizing;

use super::document::Environment;
use super::key;
use super::parse::{Parsed, Wrong};
use super::resolved::CdpKey;

const FIX: &str = "put the secret of a CDP API key there, as the portal shows it: one line of base64 (Ed25519), or a PEM of a P-256 key";

/// What stands before the seed in the PKCS #8 form of an Ed25519 key (RFC 8410 section 7).
const ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Version 0 and the algorithm id-ecPublicKey on secp256r1, in the PKCS #8 form of a P-256 key (RFC 5915, RFC 5480).
const P256: [u8; 24] = [
    0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
];

/// The secret in `path`, which only its owner may be able to read.
pub(super) fn from_file(path: &Path) -> Parsed<CdpKey> {
    checked(&key::read_private(path)?, &format!("the key file {}", path.display()))
}

/// The secret in the environment variable `name`.
pub(super) fn from_environment(name: &str, environment: &Environment) -> Parsed<CdpKey> {
    match environment.get(name).filter(|text| !text.trim().is_empty()) {
        Some(text) => checked(text, &format!("the environment variable {name}")),
        None => Err(Wrong::new(
            format!("the environment variable {name} is not set"),
            format!("export {name} before the gateway starts, or set secret_file instead"),
        )),
    }
}

/// `secret`, if it is a key of either sort. What is wrong never quotes it.
fn checked(secret: &str, source: &str) -> Parsed<CdpKey> {
    let wrong = |what: &str| Wrong::new(format!("{source} {what}"), FIX);
    if secret.contains("-----BEGIN") {
        // In a variable its lines are often joined by a backslash and an n.
        let pem = Zeroizing::new(secret.replace("\\n", "\n"));
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes());
        let key = key.map_err(|_| wrong("holds a PEM without a private key that can be read"))?;
        let key = match &key {
            PrivateKeyDer::Pkcs8(key) => Zeroizing::new(key.secret_pkcs8_der().to_vec()),
            PrivateKeyDer::Sec1(key) => {
                p256(key.secret_sec1_der()).ok_or_else(|| wrong("holds a key longer than any of P-256"))?
            }
            _ => return Err(wrong("holds a key of another sort than P-256")),
        };
        let random = SystemRandom::new();
        return match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random) {
            Ok(_) => Ok(CdpKey::Es256(SecretSlice::from(key.to_vec()))),
            Err(_) => Err(wrong("holds a key that is none of P-256, or lacks its public part")),
        };
    }
    let mut bytes = Zeroizing::new([0u8; 64]);
    let text = secret.trim().as_bytes();
    let decoded = Zeroizing::new(
        base64_simd::STANDARD.decode_to_vec(text).map_err(|_| wrong("holds neither base64 nor a PEM"))?,
    );
    if decoded.len() != bytes.len() {
        return Err(wrong("holds base64 of another length than the 64 bytes of an Ed25519 key"));
    }
    bytes.copy_from_slice(&decoded);
    let (seed, public) = bytes.split_at(32);
    match Ed25519KeyPair::from_seed_and_public_key(seed, public) {
        Ok(_) => Ok(CdpKey::Ed25519(SecretSlice::from([&ED25519, seed].concat()))),
        Err(_) => Err(wrong("holds 64 bytes that are no Ed25519 key: the halves do not belong together")),
    }
}

/// The PKCS #8 form of a P-256 key in SEC 1 form.
fn p256(sec1: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut body = Zeroizing::new(P256.to_vec());
    nest(&mut body, 0x04, sec1)?;
    let mut whole = Zeroizing::new(Vec::with_capacity(body.len() + 4));
    nest(&mut whole, 0x30, &body)?;
    Some(whole)
}

/// Appends a DER value of less than 256 bytes; a P-256 key has half of that.
fn nest(out: &mut Vec<u8>, tag: u8, value: &[u8]) -> Option<()> {
    let length = u8::try_from(value.len()).ok()?;
    out.push(tag);
    if length >= 0x80 {
        out.push(0x81);
    }
    out.push(length);
    out.extend_from_slice(value);
    Some(())
}
