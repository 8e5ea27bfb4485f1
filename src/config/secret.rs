//! Which keys have values that nobody is to see, and what is shown in their place: by the admin server, in the log, by the
//! doctor. Called by `config::load` and `threads::start`; pure.

use super::Properties;
use super::syntax::{entries, is_continued, natural_lines};

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

/// A configuration file as it may be shown: comments stay, too, but for what may be an old value of such a key.
pub fn shown_file(text: &[u8]) -> String {
    let lines: Vec<&[u8]> = natural_lines(text).collect();
    let mut shown = Vec::new();
    let mut rest = &lines[..];
    while !rest.is_empty() {
        // As the parser joins lines; and a comment with what went on behind it, before it was one.
        let joined = match rest[0].trim_ascii_start() {
            b"\\" => 1,
            _ => (rest.iter().take_while(|line| is_continued(line)).count() + 1).min(rest.len()),
        };
        let taken = match redacted(&rest[..joined]) {
            Some(redacted) => {
                shown.push(redacted);
                joined
            }
            None => {
                let taken = if is_comment(rest[0]) { 1 } else { joined };
                shown.extend(rest[..taken].iter().map(|line| String::from_utf8_lossy(line).into_owned()));
                taken
            }
        };
        rest = &rest[taken..];
    }
    shown.join("\n")
}

/// What is shown in the place of lines that are one entry, or were: only if they hold a secret, or may.
fn redacted(lines: &[&[u8]]) -> Option<String> {
    let is_comment = is_comment(lines[0]);
    let marks = if is_comment { &b"#! \t\x0c"[..] } else { b" \t\x0c" };
    let bare = |line: &&'_ [u8]| line.iter().position(|byte| !marks.contains(byte)).unwrap_or(line.len());
    let parts: Vec<&[u8]> = lines.iter().map(|line| &line[bare(line)..]).collect();
    let mark = String::from_utf8_lossy(lines[0][..bare(&lines[0])].trim_ascii_start());
    // Of these lines alone, so that an entry which is wrong hides no other.
    let entries = entries(&parts.join(&b'\n'));
    match entries.as_deref() {
        Ok([entry, ..]) if is_secret(&entry.key) => Some(format!("{mark}{}={HIDDEN}", entry.key)),
        Ok(_) if !is_comment => None,
        Ok(_) | Err(_) => {
            let last = parts.len() - 1;
            let text = parts.iter().enumerate().map(|(n, part)| &part[..part.len() - usize::from(n < last)]);
            redacted_words(&String::from_utf8_lossy(&text.collect::<Vec<_>>().concat()))
                .map(|text| format!("{mark}{text}"))
        }
    }
}

/// Words that are no entry: what stands behind the name of a secret may be one. The name of a path to one is none.
fn redacted_words(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let ends = ENDINGS.iter().flat_map(|ending| lower.match_indices(ending).map(|(at, found)| at + found.len()));
    let end = ends.filter(|end| !lower[*end..].starts_with("path")).min()?;
    let behind_name = text[end..].trim_start_matches(|c: char| c.is_alphanumeric());
    let value = behind_name.trim_start_matches(['=', ':', ' ', '\t']);
    (!value.is_empty()).then(|| format!("{}{HIDDEN}", &text[..text.len() - value.len()]))
}

fn is_comment(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"#") || line.trim_ascii_start().starts_with(b"!")
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

    #[test]
    fn a_secret_whose_key_is_broken_over_lines_is_not_shown() {
        let text = b"tickTime=1\nssl.keyStore.pass\\\n   word=one\nssl.quorum.\\\n keyStore.password=tw\\\n  o\n\
            dataDir=/a\\\n  /b\n\\\nssl.trustStore.password=three\nlast.password=\\\nfour";
        let shown = shown_file(text);
        let expected = "tickTime=1\nssl.keyStore.password=***\nssl.quorum.keyStore.password=***\n\
            dataDir=/a\\\n  /b\n\\\nssl.trustStore.password=***\nlast.password=***";
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_may_be_a_secret_in_a_comment_is_not_shown() {
        for (comment, shown) in [
            ("#ssl.keyStore.password=C:\\users", "#ssl.keyStore.password=***"),
            ("# old: ssl.keyStore.password=one", "# old: ssl.keyStore.password=***"),
            ("! the Password was  one two", "! the Password ***"),
            ("#-Dsome.tokens='one'", "#-Dsome.tokens=***"),
            ("#ssl.keyStore.pass\\\n#word=one", "#ssl.keyStore.password=***"),
            ("#ssl.keyStore.password=on\\\ne\ntickTime=1", "#ssl.keyStore.password=***\ntickTime=1"),
            ("# no\\\nssl.keyStore.password=one", "# nossl.keyStore.password=***"),
            ("# no\\\ntickTime=1", "# no\\\ntickTime=1"),
            ("#ssl.keyStore.passwordPath=/etc/one", "#ssl.keyStore.passwordPath=/etc/one"),
            ("# where the password is", "# where the password ***"),
            ("# the password", "# the password"),
            ("ssl.keyStore.password=\\uzzzz", "ssl.keyStore.password=***"),
        ] {
            assert_eq!(shown_file(comment.as_bytes()), shown, "{comment}");
        }
    }
}
