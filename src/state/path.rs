//! Rules of znode paths (`PathUtils`), and how a path falls into parent and name. Pure text.

/// The reserved nodes of a fresh store; a client may not delete them.
pub const RESERVED: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

/// Where the configuration of the ensemble is kept.
pub const CONFIG: &str = "/zookeeper/config";

/// Below this, nodes have no digest: servers may differ there (quota counters, config).
pub const UNDIGESTED_PREFIX: &str = "/zookeeper/";

/// Whether a path may name a node: absolute, no trailing slash, no empty, `.` or `..` component, none of the characters
/// that Java's rules exclude (control characters, surrogates and so everything above U+FFFF, private use, U+FFF0 on).
pub fn is_valid(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    let Some(relative) = path.strip_prefix('/') else { return false };
    relative.split('/').all(|name| !matches!(name, "" | "." | "..")) && !path.chars().any(is_forbidden)
}

/// What is wrong with a path, in the words of Apache's client, positions in UTF-16 units; `None` where [`is_valid`].
pub fn problem(path: &str) -> Option<String> {
    if is_valid(path) {
        return None;
    }
    if path.is_empty() {
        return Some("Path length must be > 0".into());
    }
    if !path.starts_with('/') {
        return Some("Path must start with / character".into());
    }
    if path.ends_with('/') {
        return Some("Path must not end with / character".into());
    }
    let mut at = 0;
    let mut why = String::new();
    for (index, c) in path.char_indices() {
        let before = &path[..index];
        let component = before.rsplit('/').next().unwrap_or_default();
        let ends = path[index + c.len_utf8()..].chars().next().is_none_or(|next| next == '/');
        why = match c {
            '\0' => "null character not allowed".into(),
            '/' if before.ends_with('/') => "empty node name specified".into(),
            '.' if ends && matches!(component, "" | ".") => "relative paths not allowed".into(),
            c if is_forbidden(c) => "invalid character".into(),
            _ => {
                at += c.len_utf16();
                continue;
            }
        };
        break;
    }
    Some(format!("Invalid path string \"{path}\" caused by {why} @{at}"))
}

fn is_forbidden(c: char) -> bool {
    matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}' | '\u{10000}'..)
}

/// Parent and name: what stands before and behind the last slash; the parent of a top-level node is "" (the root).
/// `None` without a slash. Nothing else is checked.
pub fn split(path: &str) -> Option<(&str, &str)> {
    path.rsplit_once('/')
}

/// Parent and name of a node other than the root; `None` where none can be. Logs and snapshots say what they like, and
/// "//a" or "/a/" must not become a node that no path leads to.
pub fn place(path: &str) -> Option<(&str, &str)> {
    split(path).filter(|(parent, name)| !name.is_empty() && *parent != "/")
}

/// The path as watches and events show it: the root is "/".
pub fn shown(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_paths() {
        for good in ["/", "/a", "/a/b", "/...", "/.a", "/a..", "/ü中", "/zookeeper/quota"] {
            assert!(is_valid(good), "{good}");
        }
        let bad = [
            "",
            "a",
            "/a/",
            "//",
            "/a//b",
            "/.",
            "/a/..",
            "/a/./b",
            "/a\0",
            "/\u{1f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{fff0}",
            "/😀",
        ];
        for bad in bad {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_as_apaches_client_does() {
        for (path, said) in [
            ("", "Path length must be > 0"),
            ("a", "Path must start with / character"),
            ("/a/", "Path must not end with / character"),
            ("/a//b", "Invalid path string \"/a//b\" caused by empty node name specified @3"),
            ("/a/../b", "Invalid path string \"/a/../b\" caused by relative paths not allowed @4"),
            ("/ü/.", "Invalid path string \"/ü/.\" caused by relative paths not allowed @3"),
            ("/a\0", "Invalid path string \"/a\0\" caused by null character not allowed @2"),
            ("/a\u{1}b", "Invalid path string \"/a\u{1}b\" caused by invalid character @2"),
        ] {
            assert_eq!(problem(path).as_deref(), Some(said));
        }
        assert_eq!(problem("/a.../..b"), None);
    }

    #[test]
    fn the_parent_of_a_top_level_node_is_the_empty_path() {
        assert_eq!(split("/a"), Some(("", "a")));
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("a"), None);
        assert_eq!(place("/a"), Some(("", "a")));
        for nowhere in ["", "/", "a", "//a", "/a/"] {
            assert_eq!(place(nowhere), None, "{nowhere}");
        }
    }
}
