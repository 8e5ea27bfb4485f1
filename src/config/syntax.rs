//! Text into names and values: the Java properties syntax of zoo.cfg, and the `-Dname=value` tokens of JVM flags.
//! Called by `config::load` and `config::read`; knows nothing about what a key means and touches no file.

use std::path::PathBuf;

use java_properties::{LineContent, PropertiesIter};

/// One `key=value` of a properties file, escapes resolved, value not trimmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 1-based, of the first line where the entry is continued over several.
    pub line: usize,
    pub key: String,
    pub value: String,
}

/// A line that is not properties syntax: only a malformed `\uXXXX` can be that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub line: usize,
    pub what: String,
}

/// Splits the text of a properties file as `java.util.Properties.load(InputStream)` does. Duplicates are kept, in order.
pub fn entries(text: &[u8]) -> Result<Vec<Entry>, SyntaxError> {
    let prepared = prepare(text);
    let mut found = Vec::new();
    for line in PropertiesIter::new(prepared.as_bytes()) {
        let line = line.map_err(|e| SyntaxError { line: e.line_number().unwrap_or(1), what: e.to_string() })?;
        let number = line.line_number();
        if let LineContent::KVPair(key, value) = line.consume_content() {
            found.push(Entry { line: number, key, value });
        }
    }
    Ok(found)
}

/// dataDir and dataLogDir of a zoo.cfg, as they are given, whatever else the file says.
pub fn data_dirs(text: &[u8]) -> (Option<PathBuf>, Option<PathBuf>) {
    let found = entries(text).unwrap_or_default();
    let last = |key: &str| {
        let value = found.iter().rev().find(|entry| entry.key.trim() == key).map(|entry| entry.value.trim());
        value.filter(|value| !value.is_empty()).map(PathBuf::from)
    };
    (last("dataDir"), last("dataLogDir"))
}

/// Brings the text into a form where the crate and Java agree: bytes are Latin-1 (the crate takes windows-1252), a
/// comment may hold a stray `\u` (the crate unescapes comments), a backslash may end the file (the crate loses the line),
/// and a vertical tab is no blank (the crate trims it). Comments become empty lines and the bytes in question escapes, so
/// line numbers stay.
fn prepare(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    let mut continued = false;
    for line in natural_lines(text) {
        let text = line.iter().position(|b| !b" \t\x0c".contains(b));
        let text = &line[text.unwrap_or(line.len())..];
        // Nothing continued is nothing: the next line begins afresh, and may be a comment.
        if !continued && (text.starts_with(b"#") || text.starts_with(b"!") || text == b"\\") {
            out.push('\n');
            continue;
        }
        continued = push_ascii(line, &mut out);
        out.push('\n');
    }
    out
}

/// Appends one line in ASCII; says whether it ends in an unescaped backslash.
fn push_ascii(line: &[u8], out: &mut String) -> bool {
    let mut escaped = false;
    for &byte in line {
        match byte {
            // A backslash is already open before this byte: it becomes that of the \uXXXX.
            0x80.. | 0x0b if escaped => out.push_str(&format!("u{byte:04x}")),
            0x80.. | 0x0b => out.push_str(&format!("\\u{byte:04x}")),
            _ => out.push(byte as char),
        }
        escaped = byte == b'\\' && !escaped;
    }
    escaped
}

/// The text without the entries whose keys are chosen. Everything else stays, comments too; lines end in LF.
pub fn without(text: &[u8], mut chosen: impl FnMut(&str) -> bool) -> Result<Vec<u8>, SyntaxError> {
    let mut left_out: Vec<usize> = entries(text)?.iter().filter(|e| chosen(&e.key)).map(|e| e.line).collect();
    left_out.reverse();
    let mut out = Vec::with_capacity(text.len());
    let mut leaving_out = false;
    for (n, line) in natural_lines(text).enumerate() {
        if left_out.pop_if(|first| *first == n + 1).is_some() {
            leaving_out = true;
        }
        if !leaving_out {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        leaving_out &= is_continued(line);
    }
    while out.ends_with(b"\n\n") {
        out.pop();
    }
    Ok(out)
}

/// Lines ended by LF, CR or CR LF.
pub(super) fn natural_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
            rest = None;
            return Some(text);
        };
        let crlf = text[end..].starts_with(b"\r\n");
        rest = Some(&text[end + 1 + usize::from(crlf)..]);
        Some(&text[..end])
    })
}

/// Whether an entry goes on in the next natural line: this one ends in a backslash that none before it escapes.
pub(super) fn is_continued(line: &[u8]) -> bool {
    line.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The system properties among JVM flags, in order; quotes group as in a shell, every other flag is passed over.
pub fn properties_from_flags(flags: &str) -> Vec<(String, String)> {
    words(flags).iter().filter_map(|word| word.strip_prefix("-D")).map(property).collect()
}

/// `name=value`, or `name` for an empty value, as `java -D` takes it.
pub fn property(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_string(), value.to_string())
}

/// Words as a shell parts them; quotes group.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &[u8]) -> Vec<(usize, String, String)> {
        let found = entries(text).unwrap();
        found.into_iter().map(|e| (e.line, e.key, e.value)).collect()
    }

    #[test]
    fn separators_comments_escapes_and_continued_lines_read_as_in_java() {
        let cases: &[(&[u8], usize, &str, &str)] = &[
            (b"a=b", 1, "a", "b"),
            (b"a = b", 1, "a", "b"),
            (b"a:b", 1, "a", "b"),
            (b"a b", 1, "a", "b"),
            (b"  a\t=  b c ", 1, "a", "b c "),
            (b"a", 1, "a", ""),
            (b"a=", 1, "a", ""),
            (b"# x\n! y\n\na=b", 4, "a", "b"),
            (b"a=b\\\n   c", 1, "a", "bc"),
            (b"a=b\\\n#c", 1, "a", "b#c"),
            (b"#a\\\nb=c", 2, "b", "c"),
            (b"a=b\n\\\n#c", 1, "a", "b"),
            (b"a=b\\", 1, "a", "b"),
            (b"a\\ b\\=c=d", 1, "a b=c", "d"),
            (b"a=\\u0041\\t\\\\", 1, "a", "A\t\\"),
            (b"# C:\\users\na=b", 2, "a", "b"),
            (b"x=1\r\na=b", 2, "a", "b"),
            (b"x=1\ra=b", 2, "a", "b"),
            (b"a=caf\xe9", 1, "a", "caf\u{e9}"),
            (b"a=\\\xe9", 1, "a", "\u{e9}"),
            (b"a=\\\n\x0bb", 1, "a", "\u{b}b"),
            (b"a=\x80", 1, "a", "\u{80}"),
            (b"a=\xc3\xa9", 1, "a", "\u{c3}\u{a9}"),
        ];
        for &(text, line, key, value) in cases {
            let last = pairs(text).pop().unwrap();
            let shown = String::from_utf8_lossy(text);
            assert_eq!(last, (line, key.to_string(), value.to_string()), "in {shown:?}");
        }
    }

    #[test]
    fn a_malformed_escape_names_its_line() {
        assert_eq!(entries(b"a=b\nc=\\u00").unwrap_err().line, 2);
        assert_eq!(entries(b"c=\\uzzzz").unwrap_err().line, 1);
    }

    #[test]
    fn only_properties_are_picked_out_of_jvm_flags() {
        let flags = r#"-Xmx1g -Da=1 '-Db=two words' -Dc="x y" -XX:+UseG1GC -Dd -De= -Dpath=a=b "-Dopen=1"#;
        let expected =
            [("a", "1"), ("b", "two words"), ("c", "x y"), ("d", ""), ("e", ""), ("path", "a=b"), ("open", "1")];
        let found = properties_from_flags(flags);
        assert_eq!(found, expected.map(|(k, v)| (k.to_string(), v.to_string())));
    }
}
