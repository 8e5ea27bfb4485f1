//! Who we say we are. Tools take the version line of `srvr` apart, so it has the one form all of them accept; anybody may
//! call it. Pure.

use std::sync::OnceLock;

use jiff::Timestamp;

/// The ZooKeeper release whose behaviour this server has: what clients and tools decide by.
pub const SPEAKS: &str = "3.8.4";

const BUILT_S: i64 = match i64::from_str_radix(env!("ROOKEEPER_BUILT_S"), 10) {
    Ok(seconds) => seconds,
    Err(_) => panic!("build.rs writes a number of seconds"),
};

/// As `srvr`, `stat`, `envi` and `mntr` show it: `X.Y.Z-<letters and digits>, built on MM/DD/YYYY HH:MM UTC`. Parsers in
/// use refuse any other form, dots behind the dash and ISO dates among them.
pub fn full() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{}, built on {}", number(), built("%m/%d/%Y")))
}

/// As `zkServer.sh version` shows it, where Apache has an ISO date.
pub fn of_scripts() -> String {
    format!("{} {}", number(), built("%Y-%m-%d"))
}

fn number() -> String {
    let own: String = env!("CARGO_PKG_VERSION").chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{SPEAKS}-rookeeper{own}")
}

/// What `rookeeper --version` says behind the name.
pub fn long() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        format!("{} (speaks ZooKeeper {SPEAKS}), built on {}", env!("CARGO_PKG_VERSION"), built("%m/%d/%Y"))
    })
}

fn built(date: &str) -> String {
    let time = Timestamp::from_second(BUILT_S).unwrap_or_default();
    time.strftime(&format!("{date} %H:%M UTC")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters stand for themselves, `9` for a digit.
    fn has_form(text: &str, form: &str) -> bool {
        text.len() == form.len()
            && text.chars().zip(form.chars()).all(|(c, f)| if f == '9' { c.is_ascii_digit() } else { c == f })
    }

    #[test]
    fn the_version_line_has_the_one_form_that_parsers_accept() {
        let (version, built) = full().split_once(", built on ").expect("two parts");
        let (release, build) = version.split_once('-').expect("a dash");
        assert!(has_form(release, "9.9.9"), "{release}");
        assert!(build.starts_with("rookeeper") && build.chars().all(|c| c.is_ascii_alphanumeric()), "{build}");
        assert!(has_form(built, "99/99/9999 99:99 UTC"), "{built}");
    }
}
