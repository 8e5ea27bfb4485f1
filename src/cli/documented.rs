//! What docs/releases.md says of Apache's novelties is so: what it says is had is in the program, and what becomes of a key is
//! what the table of keys says.

use std::collections::BTreeSet;

use clap::Subcommand;

use crate::admin::commands;
use crate::cli::scripts::Script;
use crate::config::{Verdict, keys};
use crate::{metrics, shell};

const RELEASES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/releases.md"));

/// What Rookeeper does, as the last column begins, and which verdicts the keys that it names may have.
const ANSWERS: [(&str, &[Verdict]); 4] = [
    ("**Has it**", &[Verdict::Honoured, Verdict::Mapped]),
    ("**Otherwise**", &[Verdict::Honoured, Verdict::Mapped, Verdict::NoEffect, Verdict::Refused]),
    ("**Not concerned**", &[Verdict::NoEffect]),
    ("**Not yet**", &[Verdict::NotServed, Verdict::Refused]),
];

/// Number, novelty, answer.
fn rows() -> Vec<[&'static str; 3]> {
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let rows = RELEASES.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.map(|cells| <[&str; 3]>::try_from(cells).expect("three columns"))
        .filter(|[number, novelty, _]| *novelty != "what is new" && *number != "---")
        .collect()
}

/// What is marked as code there and names something: its kind, its name.
fn names(answer: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let kinds = ["key", "metric", "command", "shell", "script"];
    let code = answer.split('`').skip(1).step_by(2);
    code.filter_map(|code| code.split_once(' ')).filter(move |(kind, _)| kinds.contains(kind))
}

#[test]
fn what_is_said_to_be_had_is_there() {
    let mut checked = 0;
    for [numbers, _, answer] in rows() {
        let found = ANSWERS.iter().find(|(answered, _)| answer.starts_with(answered));
        let (_, verdicts) = found.unwrap_or_else(|| panic!("{numbers}: {answer}"));
        for (kind, name) in names(answer) {
            let is_so = match kind {
                "metric" => metrics::TABLE.iter().any(|row| row.name == name),
                "command" => commands::find(name).is_some(),
                "shell" => shell::table::find(name).is_some(),
                "script" => Script::has_subcommand(name),
                _ => keys::find(name).is_some_and(|key| verdicts.contains(&key.verdict)),
            };
            assert!(is_so, "{numbers}: {kind} {name}, {answer}");
            checked += 1;
        }
    }
    assert!(checked > 60, "{checked}");
}

#[test]
fn each_novelty_stands_once() {
    let mut seen = BTreeSet::new();
    for [numbers, _, _] in rows() {
        for number in numbers.split(", ").filter(|number| *number != "–") {
            assert!(number.parse::<u16>().is_ok() && seen.insert(number), "{number}");
        }
    }
    assert!(seen.len() > 100, "{}", seen.len());
}
