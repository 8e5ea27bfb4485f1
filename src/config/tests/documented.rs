//! The list of keys in docs/keys.md is that of the table, and no key of Apache's documentation is missing from it.

use std::fmt::Write;

use super::*;

/// Keys and system properties of a server in the documentation of Apache's 3.8 to master, under whatever title.
const APACHES: &str = include_str!("apaches_keys");

#[test]
fn no_key_of_apaches_documentation_is_unknown() {
    let unknown: Vec<&str> = APACHES
        .lines()
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .filter(|name| keys::find(name).is_none() && keys::find_property(name).is_none())
        .collect();
    assert_eq!(unknown, Vec::<&str>::new());
    assert!(APACHES.lines().count() > 200);
}

const PARTS: [(Verdict, &str); 5] = [
    (Verdict::Honoured, "Taken, as by Apache"),
    (Verdict::Mapped, "Taken in another way, or under a name that Apache documents and does not read"),
    (Verdict::NoEffect, "Passed over, with a line in the log: they steer what this server does not have"),
    (Verdict::NotServed, "Checked and kept, with a line in the log: not served by this version"),
    (Verdict::Refused, "Refused: any value but the default ends the start with exit code 2, for the reason given"),
];

fn list() -> String {
    let mut out = String::from(
        "# Configuration keys\n\nWhat Rookeeper does with the keys of zoo.cfg and the `-D` properties of Apache's servers, \
         3.8 to master. A final `*` stands for any ending; `ssl.quorum.*` has the keys of `ssl.*`. What is in none of these \
         lists is kept as a property, with a warning that names the nearest known key. `authProvider.N` of a class that is \
         not Apache's, or that this version has no provider for, is passed over with a warning: nobody authenticates by its \
         scheme. Made from the table in `src/config/keys.rs` (`ROOKEEPER_WRITE_KEYS=1 cargo test --lib documented`).\n",
    );
    for (verdict, title) in PARTS {
        write!(out, "\n## {title}\n\n| key | property | default | |\n| --- | --- | --- | --- |\n").unwrap();
        for row in keys::TABLE.iter().filter(|row| row.verdict == verdict) {
            let property = row.properties().first().map_or_else(String::new, |name| format!("`{name}`"));
            let means = match row.home {
                Home::Means(other) => format!("{}: means `{other}`", row.doc),
                _ => row.doc.to_string(),
            };
            let default = if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
            writeln!(out, "| `{}` | {property} | {default} | {means} |", row.name).unwrap();
        }
    }
    out
}

#[test]
fn the_documented_list_of_keys_is_that_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/keys.md");
    if std::env::var_os("ROOKEEPER_WRITE_KEYS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, list()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == list(), "docs/keys.md is not that of the table; its first lines say how it is made");
}
