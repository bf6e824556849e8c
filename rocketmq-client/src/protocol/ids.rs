//! Message ids: the one a client gives a message and the one a broker derives from where it stored it.
//!
//! Protocol source: `MessageClientIDSetter`, `MessageDecoder#createMessageId`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Makes unique message ids (`UNIQ_KEY`): 32 hex digits that hold address, process, a random part, the time in the
/// month and a counter, as Java lays them out, so that tools can derive the time from an id.
#[derive(Debug)]
pub struct UniqueIds {
    /// Address, process id and random part: 20 hex digits.
    prefix: String,
    counter: AtomicU32,
    /// When the month of the last id began, in milliseconds since 1970: computed once a month instead of for each id.
    month_start: AtomicI64,
}

impl UniqueIds {
    /// A generator for one client instance.
    ///
    /// `random` tells generators of one process apart; the counter starts at a random place too, so that two ids
    /// differ even if all else is equal.
    #[must_use]
    pub fn new(address: Ipv4Addr, process: u32, random: u64) -> Self {
        let mut prefix = String::with_capacity(20);
        let instance = random >> 32;
        // Writing to a string cannot fail.
        let _ = write!(
            prefix,
            "{:08X}{:04X}{:08X}",
            u32::from(address),
            process & 0xFFFF,
            instance
        );
        Self {
            prefix,
            counter: AtomicU32::new((random & 0xFFFF) as u32),
            month_start: AtomicI64::new(i64::MIN),
        }
    }

    /// The next id at the current time.
    #[must_use]
    pub fn next(&self) -> String {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.at(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
    }

    /// The next id at a time given in milliseconds since 1970.
    #[must_use]
    pub fn at(&self, millis: i64) -> String {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed) & 0xFFFF;
        let in_month = millis.wrapping_sub(self.month_start(millis)) as u32;
        let mut id = String::with_capacity(32);
        id.push_str(&self.prefix);
        push_hex(&mut id, u64::from(in_month) << 16 | u64::from(counter));
        id
    }

    fn month_start(&self, millis: i64) -> i64 {
        const SHORTEST_MONTH: i64 = 28 * 86_400_000;
        let known = self.month_start.load(Ordering::Relaxed);
        if (0..SHORTEST_MONTH).contains(&millis.wrapping_sub(known)) {
            return known;
        }
        let start = month_start(millis);
        self.month_start.store(start, Ordering::Relaxed);
        start
    }
}

/// The last twelve digits.
fn push_hex(out: &mut String, value: u64) {
    let digits: [u8; 12] = std::array::from_fn(|place| {
        let nibble = (value >> (44 - 4 * place)) as u8 & 15;
        nibble + if nibble < 10 { b'0' } else { b'A' - 10 }
    });
    out.push_str(std::str::from_utf8(&digits).unwrap_or_default());
}

/// Midnight (UTC) of the first day of the month that `millis` lies in.
///
/// Java uses the local time zone; the receiver only ever takes differences, and every peer tolerates an hour's shift
/// as it must across zones.
fn month_start(millis: i64) -> i64 {
    const DAY: i64 = 86_400_000;
    let days = millis.div_euclid(DAY);
    // Days since 1970 to the day of the month, in the calendar that starts its years in March (Hinnant's method).
    let shifted = days + 719_468;
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5;
    (days - day) * DAY
}

/// The id that a broker derives from where it stored a message: its address and the position in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetMessageId {
    /// The broker.
    pub store_host: SocketAddr,
    /// The position in the broker's log.
    pub physical_offset: i64,
}

impl std::fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.store_host.ip() {
            IpAddr::V4(address) => write!(f, "{:08X}", u32::from(address))?,
            IpAddr::V6(address) => write!(f, "{:032X}", u128::from(address))?,
        }
        write!(
            f,
            "{:08X}{:016X}",
            u32::from(self.store_host.port()),
            self.physical_offset
        )
    }
}

impl std::str::FromStr for OffsetMessageId {
    type Err = super::CodecError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        let wrong = |reason: &'static str| super::CodecError::invalid("offset message id", 0, reason);
        let part = |range: std::ops::Range<usize>| id.get(range).ok_or_else(|| wrong("not ASCII"));
        let hex = |text: &str| u64::from_str_radix(text, 16).map_err(|_| wrong("not hexadecimal"));
        let (ip, rest) = match id.len() {
            32 => {
                let address = u32::try_from(hex(part(0..8)?)?).map_err(|_| wrong("no address"))?;
                (IpAddr::V4(Ipv4Addr::from(address)), 8)
            }
            56 => {
                let address = u128::from_str_radix(part(0..32)?, 16).map_err(|_| wrong("not hexadecimal"))?;
                (IpAddr::V6(Ipv6Addr::from(address)), 32)
            }
            _ => return Err(wrong("neither 32 nor 56 digits")),
        };
        let port = u16::try_from(hex(part(rest..rest + 8)?)?).map_err(|_| wrong("no port"))?;
        let physical_offset = hex(part(rest + 8..rest + 24)?)?.cast_signed();
        Ok(Self {
            store_host: SocketAddr::new(ip, port),
            physical_offset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_ids_equal_java_and_come_back() {
        let id = OffsetMessageId {
            store_host: "127.0.0.1:10911".parse().unwrap(),
            physical_offset: 0x1234,
        };
        assert_eq!(id.to_string(), "7F00000100002A9F0000000000001234");
        assert_eq!(id.to_string().parse::<OffsetMessageId>().unwrap(), id);
        let v6 = OffsetMessageId {
            store_host: "[fe80::1]:10911".parse().unwrap(),
            physical_offset: i64::MAX,
        };
        assert_eq!(v6.to_string().len(), 56);
        assert_eq!(v6.to_string().parse::<OffsetMessageId>().unwrap(), v6);
    }

    #[test]
    fn ids_that_are_none_are_refused() {
        for id in [
            "",
            "7F",
            "zz00000100002A9F0000000000001234",
            "7F000001FFFF2A9F0000000000001234",
            "ü".repeat(16).as_str(),
        ] {
            assert!(id.parse::<OffsetMessageId>().is_err(), "{id}");
        }
    }

    #[test]
    fn unique_ids_have_javas_layout() {
        let ids = UniqueIds::new(Ipv4Addr::new(10, 0, 0, 1), 0x1_2345, 0xABCD_EF01_0000_FFFF);
        // 2026-11-21 10:00:00 UTC is 20 days and 10 hours into its month.
        let millis = 1_795_255_200_000;
        assert_eq!(month_start(millis), millis - (20 * 24 + 10) * 3_600_000);
        assert_eq!(
            ids.at(millis),
            format!("0A0000012345ABCDEF01{:08X}FFFF", (20 * 24 + 10) * 3_600_000)
        );
        assert!(ids.at(millis).ends_with("0000"), "the counter wraps at 16 bits");
        assert_eq!(month_start(0), 0);
        assert_eq!(month_start(951_782_400_000), 949_363_200_000, "29 February 2000");
    }

    #[test]
    fn a_hundred_thousand_ids_differ() {
        let ids = UniqueIds::new(Ipv4Addr::LOCALHOST, 1, 7);
        let mut seen = std::collections::HashSet::new();
        // 16 counter bits last for 65536 ids in one millisecond, more than one thread makes.
        assert!((0..60_000).all(|_| seen.insert(ids.at(5))));
    }
}
