//! How Java prints and orders what the tools show: dates of `DateFormat`, hash order of its maps, numbers as
//! `Long.decode` reads them. Pure.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// The zone of the host, UTC where it names none.
pub fn zone() -> TimeZone {
    TimeZone::try_system().unwrap_or(TimeZone::UTC)
}

fn zoned(wall_ms: i64, zone: &TimeZone) -> Zoned {
    Timestamp::from_millisecond(wall_ms).unwrap_or_default().to_zoned(zone.clone())
}

/// `DateFormat` with SHORT and LONG: `11/22/26, 3:03:01 PM UTC`.
pub fn short_date(wall_ms: i64, zone: &TimeZone) -> String {
    zoned(wall_ms, zone).strftime("%-m/%-d/%y, %-I:%M:%S %p %Z").to_string()
}

/// `DateFormat` as it is: `Nov 22, 2026, 3:03:30 PM`.
pub fn medium_date(wall_ms: i64, zone: &TimeZone) -> String {
    zoned(wall_ms, zone).strftime("%b %-d, %Y, %-I:%M:%S %p").to_string()
}

/// `String.hashCode`.
pub fn string_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// `Long.hashCode`.
pub fn long_hash(value: i64) -> i32 {
    (value ^ ((value as u64) >> 32) as i64) as i32
}

/// The order in which a `HashMap` gives what was put in one after the other. `capacity`: of the empty one.
pub fn hash_order<T>(items: &mut [T], mut capacity: usize, hash: impl Fn(&T) -> i32) {
    while items.len() > capacity / 4 * 3 {
        capacity *= 2;
    }
    items.sort_by_key(|item| {
        let hash = hash(item) as u32;
        (hash ^ (hash >> 16)) as usize & (capacity - 1)
    });
}

/// `Long.decode`: decimal, `0x`, `#`, or octal behind a 0.
pub fn decode_long(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).or_else(|| digits.strip_prefix('#'));
    let (radix, digits) = match (hex, digits.strip_prefix('0')) {
        (Some(hex), _) => (16, hex),
        (None, Some(octal)) if !octal.is_empty() => (8, octal),
        (None, _) => (10, digits),
    };
    let sign = if negative { "-" } else { "" };
    (!digits.starts_with(['-', '+'])).then(|| i64::from_str_radix(&format!("{sign}{digits}"), radix).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_java() {
        let ms = 1_795_359_041_879;
        assert_eq!(short_date(ms, &TimeZone::UTC), "11/22/26, 2:50:41 PM UTC");
        assert_eq!(medium_date(ms, &TimeZone::UTC), "Nov 22, 2026, 2:50:41 PM");
        assert_eq!(medium_date(0, &TimeZone::UTC), "Jan 1, 1970, 12:00:00 AM");
    }

    #[test]
    fn children_come_in_the_order_of_a_hash_set() {
        let mut names = ["app", "acl", "zookeeper", "m", "eph", "seq", "ttl"];
        // As `new HashSet<>(8)` of Java 17 gives them.
        hash_order(&mut names, 8, |name| string_hash(name));
        assert_eq!(names, ["app", "zookeeper", "acl", "eph", "m", "ttl", "seq"]);
        assert_eq!((string_hash("zookeeper"), long_hash(0x100_0000_0000_0000)), (1_600_681_804, 0x100_0000));
    }

    #[test]
    fn numbers_are_decoded_as_by_java() {
        for (text, number) in [("7", 7), ("0x1F", 31), ("#ff", 255), ("010", 8), ("-0x2", -2), ("0", 0)] {
            assert_eq!(decode_long(text), Some(number), "{text}");
        }
        for text in ["", "xx", "0x", "--1", "0x-1", "9223372036854775808"] {
            assert_eq!(decode_long(text), None, "{text}");
        }
    }
}
