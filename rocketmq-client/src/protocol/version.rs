//! Versions as brokers and clients announce them: a number in every frame.
//!
//! Protocol source: `MQVersion`.

use std::fmt;

/// The version of a broker: it says which requests and which properties it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerVersion(pub i32);

/// The number of 4.0.0. From there on each minor version has twenty numbers, two for each patch version.
const V4_0_0: i32 = 213;
const NUMBERS_OF_A_MINOR: i32 = 20;

impl BrokerVersion {
    /// The first one with delivery times, and the first that stores a batch as one record.
    pub const V5_0_0: Self = Self(413);
    /// The first one that takes timed messages back.
    pub const V5_3_2: Self = Self(477);
    /// The first one with priorities.
    pub const V5_5_0: Self = Self(513);
}

impl fmt::Display for BrokerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(since) = self.0.checked_sub(V4_0_0).filter(|since| *since >= 0) else {
            return write!(f, "before 4.0.0 (number {})", self.0);
        };
        let (minor, patch) = (since / NUMBERS_OF_A_MINOR, since % NUMBERS_OF_A_MINOR / 2);
        write!(f, "{}.{}.{patch}", 4 + minor / 10, minor % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_versions() {
        for (number, version) in [
            (213, "4.0.0"),
            (393, "4.9.0"),
            (407, "4.9.7"),
            (413, "5.0.0"),
            (473, "5.3.0"),
            (477, "5.3.2"),
            (513, "5.5.0"),
            (137, "before 4.0.0 (number 137)"),
            (i32::MIN, "before 4.0.0 (number -2147483648)"),
        ] {
            assert_eq!(BrokerVersion(number).to_string(), version);
        }
        assert!(
            BrokerVersion::V5_0_0 < BrokerVersion::V5_3_2 && BrokerVersion::V5_3_2 < BrokerVersion::V5_5_0
        );
        assert_eq!(BrokerVersion::V5_5_0.to_string(), "5.5.0");
    }
}
