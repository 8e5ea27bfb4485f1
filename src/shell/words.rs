//! A line into words, as `ZooKeeperMain` does it: blanks part them, '…' and "…" hold them together. Pure.

/// The words of a line; quotes of a whole word are taken off, there are no escapes. A quote that is not closed is left out.
pub fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        rest = rest.trim_start_matches(is_blank);
        let Some(first) = rest.chars().next() else { break };
        let quoted = matches!(first, '"' | '\'').then(|| rest[1..].split_once(first)).flatten();
        if let Some((word, behind)) = quoted {
            words.push(word.to_owned());
            rest = behind;
        } else if matches!(first, '"' | '\'') {
            rest = &rest[1..];
        } else {
            let (word, behind) = rest.split_at(rest.find(is_blank).unwrap_or(rest.len()));
            words.push(word.to_owned());
            rest = behind;
        }
    }
    words
}

/// What Java's \s means.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_part_and_quotes_hold_together() {
        for (line, words) in [
            ("ls /", &["ls", "/"][..]),
            ("  create  /a\t'x y' \"it's\" ", &["create", "/a", "x y", "it's"]),
            ("set /a \"\"", &["set", "/a", ""]),
            ("set /a x\"y z\"", &["set", "/a", "x\"y", "z\""]),
            ("'a''b'c", &["a", "b", "c"]),
            ("get \"/a b", &["get", "/a", "b"]),
            ("   ", &[]),
            ("\"", &[]),
        ] {
            assert_eq!(split(line), words, "{line}");
        }
    }
}
