//! Which keys have values that nobody is to see, and what is shown in their place: by the admin server, in the log, by the
//! doctor. Called by `config::load` and `threads::start`; pure.

use super::Properties;
use super::syntax::{entries, natural_lines};

/// What is shown of such a value.
pub const HIDDEN: &str = "***";

/// What the last part of a name ends in.
const ENDINGS: [&str; 7] = ["password", "passwd", "passphrase", "secret", "superdigest", "credentials", "token"];

/// Whether the value of a key, or of a system property, is secret: ours and Apache's, and those of any other program that
/// shares its flags (`javax.net.ssl.keyStorePassword`). A path to a secret (`passwordPath`) is none.
pub fn is_secret(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// The value as it may be shown.
pub fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret(name) && !value.is_empty() { HIDDEN } else { value }
}

/// System properties as they may be shown.
pub fn shown_properties(properties: &Properties) -> Vec<(String, String)> {
    properties.iter().map(|(name, value)| (name.clone(), shown(name, value).to_owned())).collect()
}

/// A configuration file as it may be shown: comments stay, too, but for old values of such keys.
pub fn shown_file(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_hiding = false;
    let mut lines = natural_lines(text).peekable();
    while let Some(line) = lines.next() {
        if is_hiding {
            is_hiding = is_continued(line);
            continue;
        }
        let text = line.trim_ascii_start();
        let bare = &text[text.iter().position(|byte| !b"#! \t".contains(byte)).unwrap_or(text.len())..];
        // Of one line alone, so that an entry which is wrong hides no other.
        let name = entries(bare).ok().and_then(|found| found.into_iter().next()).map(|entry| entry.key);
        match name.filter(|name| is_secret(name)) {
            Some(name) => {
                let mark = String::from_utf8_lossy(&text[..text.len() - bare.len()]);
                out += &format!("{mark}{name}={HIDDEN}");
                is_hiding = mark.is_empty() && is_continued(line);
            }
            None => out += &String::from_utf8_lossy(line),
        }
        if lines.peek().is_some() {
            out.push('\n');
        }
    }
    out
}

fn is_continued(line: &[u8]) -> bool {
    line.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_their_like_are_secret_and_paths_to_them_are_not() {
        for name in [
            "ssl.keyStore.password",
            "zookeeper.ssl.quorum.trustStore.password",
            "DigestAuthenticationProvider.superDigest",
            "zookeeper.SASLAuthenticationProvider.superPassword",
            "metricsProvider.ssl.keyStore.password ",
            "javax.net.ssl.keyStorePassword",
            "my.own.SECRET",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["ssl.keyStore.passwordPath", "dataDir", "DigestAuthenticationProvider.digestAlg", "superUser"] {
            assert!(!is_secret(name), "{name}");
        }
        assert_eq!((shown("a.password", "x"), shown("a.password", ""), shown("a", "x")), (HIDDEN, "", "x"));
    }

    #[test]
    fn a_file_is_shown_without_its_secrets_in_whatever_way_they_are_written() {
        let text = b"dataDir=/d\n# words, no key\nssl.keyStore.password = one\n  ssl.trustStore.password:two\n\
            #DigestAuthenticationProvider.superDigest=super:three\nssl.quorum.keyStore.password fo\\\n  ur\n\
            a.pass\\u0077ord=five\ntickTime=1\n";
        let shown = shown_file(text);
        assert_eq!(
            shown,
            "dataDir=/d\n# words, no key\nssl.keyStore.password=***\nssl.trustStore.password=***\n\
             #DigestAuthenticationProvider.superDigest=***\nssl.quorum.keyStore.password=***\na.password=***\n\
             tickTime=1\n"
        );
        assert_eq!(shown_file(b"tickTime=1"), "tickTime=1");
    }
}
