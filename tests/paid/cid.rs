//! What IPFS calls a block of bytes, written apart from the sandbox's, to check it by.

/// The name of a block with this SHA-256.
pub(crate) fn cid(digest: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits: Vec<u8> = [&[0x01, 0x55, 0x12, 0x20], digest]
        .concat()
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let letter = |bits: &[u8]| {
        let value = (0..5).fold(0, |value, at| value << 1 | bits.get(at).copied().unwrap_or(0));
        char::from(ALPHABET[usize::from(value)])
    };
    "b".chars().chain(bits.chunks(5).map(letter)).collect()
}
