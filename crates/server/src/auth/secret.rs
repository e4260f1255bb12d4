//! Keys as they are shown: a prefix that scanners for leaked secrets find, and 256 random bits.

/// What every key begins with.
pub const PREFIX: &str = "serin_";
/// Random bytes in a key.
pub const NEW_KEY_BYTES: usize = 32;

/// The key that these random bytes make: the prefix and 52 letters and digits.
pub fn new_key(random: [u8; NEW_KEY_BYTES]) -> String {
    format!("{PREFIX}{}", base32(&random))
}

/// Random bytes for a key or a session.
pub fn random() -> [u8; NEW_KEY_BYTES] {
    rand::random()
}

/// What is kept of a key.
pub fn hash_of(key: &str) -> blake3::Hash {
    blake3::hash(key.as_bytes())
}

/// Five bits a letter, lower case, without padding (RFC 4648).
pub(crate) fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(LETTERS[(bits >> held) as usize & 31]));
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        text.push(char::from(LETTERS[(bits << (5 - held)) as usize & 31]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_bits_in_base_32() {
        // Test vectors of RFC 4648, in lower case and without padding.
        let vectors = [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foobar", "mzxw6ytboi")];
        for (bytes, text) in vectors {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        let key = new_key([0xff; NEW_KEY_BYTES]);
        assert_eq!((key.len(), key.starts_with(PREFIX)), (58, true));
        assert_ne!(new_key([1; NEW_KEY_BYTES]), new_key([2; NEW_KEY_BYTES]));
    }
}
