//! Java's `String.hashCode`, which the protocol uses for tags and ordering keys.

/// The 32-bit hash over UTF-16 code units: `s[0]*31^(n-1) + ... + s[n-1]`.
///
/// ```
/// assert_eq!(rocketmq_client::protocol::java_hash("TagA"), 2598919);
/// ```
#[must_use]
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

#[cfg(test)]
mod tests {
    use super::java_hash;

    #[test]
    fn equals_java_also_beyond_the_basic_plane() {
        for (text, hash) in [
            ("TagA", 2598919),
            ("*", 42),
            ("", 0),
            ("标签", 857175),
            ("\u{1F600}", 1772899),
        ] {
            assert_eq!(java_hash(text), hash, "{text}");
        }
    }
}
