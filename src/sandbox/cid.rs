//! Content identifiers: CIDv1, raw codec, SHA-256, base32, as IPFS names a block of bytes.

/// `0x01` version, `0x55` raw, `0x12 0x20` SHA-256 of 32 bytes.
const PREFIX: [u8; 4] = [0x01, 0x55, 0x12, 0x20];

/// RFC 4648 base32, lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The CID of these bytes as one block: `bafkrei...`.
pub(super) fn of(bytes: &[u8]) -> String {
    of_digest(super::hash(&[bytes]).as_slice())
}

/// The CID of bytes with this SHA-256.
pub(super) fn of_digest(digest: &[u8]) -> String {
    let mut text = String::from("b");
    let (mut bits, mut count) = (0u32, 0);
    for byte in PREFIX.iter().chain(digest.iter()) {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(ALPHABET[(bits >> count & 31) as usize]));
        }
    }
    if count > 0 {
        text.push(char::from(ALPHABET[(bits << (5 - count) & 31) as usize]));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_blocks_have_their_known_names() {
        // What `ipfs add --cid-version=1` says of an empty file, and of "hello world".
        assert_eq!(super::of(b""), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
        assert_eq!(super::of(b"hello world"), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
    }
}
