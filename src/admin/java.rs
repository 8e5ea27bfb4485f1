//! How Java prints what four-letter words and the shell show: doubles, dates, socket addresses. Tools were written
//! against these forms. Pure.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `Double.toString`: at least one place, and from 10^7 or below 10^-3 an exponent.
pub fn double(value: f64) -> String {
    if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

/// `Date.toString`: `Sun Nov 22 14:40:21 UTC 2026`, in the zone of the host.
pub fn date(wall_ms: i64, zone: &TimeZone) -> String {
    let time = Timestamp::from_millisecond(wall_ms).unwrap_or_default().to_zoned(zone.clone());
    time.strftime("%a %b %d %H:%M:%S %Z %Y").to_string()
}

/// `InetSocketAddress.toString` of an address without a name: `/10.0.0.9:36082`, `/[0:0:0:0:0:0:0:1]:36082`.
pub fn socket_address(address: SocketAddr) -> String {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => format!("/{ip}:{}", address.port()),
        IpAddr::V6(ip) => {
            let groups: Vec<String> = ip.segments().iter().map(|group| format!("{group:x}")).collect();
            let scope = match address {
                SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("%{}", v6.scope_id()),
                _ => String::new(),
            };
            format!("/[{}{scope}]:{}", groups.join(":"), address.port())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_in_java() {
        for (value, text) in [
            (0.0, "0.0"),
            (3.0571, "3.0571"),
            (93.3333, "93.3333"),
            (21.0, "21.0"),
            (0.001, "0.001"),
            (1e-4, "1.0E-4"),
            (5.5e-4, "5.5E-4"),
            (9_999_999.5, "9999999.5"),
            (1e7, "1.0E7"),
            (12_345_678.5, "1.23456785E7"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(double(value), text);
        }
    }

    #[test]
    fn dates_print_as_in_java() {
        assert_eq!(date(1_795_358_421_000, &TimeZone::UTC), "Sun Nov 22 14:40:21 UTC 2026");
        assert_eq!(date(0, &TimeZone::UTC), "Thu Jan 01 00:00:00 UTC 1970");
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        assert_eq!(date(1_784_900_000_000, &zone), "Fri Jul 24 15:33:20 CEST 2026");
    }

    #[test]
    fn addresses_print_as_in_java() {
        for (address, text) in [
            ("10.0.0.9:36082", "/10.0.0.9:36082"),
            ("[::1]:54932", "/[0:0:0:0:0:0:0:1]:54932"),
            ("[2001:db8::a0]:1", "/[2001:db8:0:0:0:0:0:a0]:1"),
            ("[::ffff:10.0.0.9]:2", "/10.0.0.9:2"),
            ("[fe80::1%2]:3", "/[fe80:0:0:0:0:0:0:1%2]:3"),
        ] {
            assert_eq!(socket_address(address.parse().expect("an address")), text);
        }
    }
}
