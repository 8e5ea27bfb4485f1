//! The layers that `src/lib.rs` lists: no module imports from a later one, and there is no circle.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The number of each module's layer, as the list says.
fn layers() -> BTreeMap<String, usize> {
    let map = fs::read_to_string("src/lib.rs").unwrap();
    let (mut layers, mut layer) = (BTreeMap::new(), 0);
    for line in map.lines().filter_map(|line| line.strip_prefix("//! ")) {
        if let Some((number, _)) = line.split_once(". ")
            && let Ok(number) = number.parse()
        {
            layer = number;
        }
        let names = line.split("[`").skip(1).filter_map(|rest| rest.split_once("`]"));
        layers.extend(names.filter(|_| layer > 0).map(|(name, _)| (name.to_owned(), layer)));
    }
    layers
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// The top-level modules that a file names, outside of its comments and tests.
fn imported(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    code.join(" ").split("crate::").skip(1).flat_map(first_names).collect()
}

/// Where `a::b` begins, or each part of `{a, b::{c, d}}`.
fn first_names(path: &str) -> Vec<String> {
    let name =
        |text: &str| text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
    let Some(list) = path.strip_prefix('{') else { return name(path).into_iter().collect() };
    let mut depth = 1;
    let mut begins = vec![0];
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => begins.push(at + 1),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    begins.into_iter().filter_map(|at| name(&list[at..])).collect()
}

#[test]
fn a_list_of_imports_names_each_module() {
    assert_eq!(first_names("state::Zxid;"), ["state"]);
    assert_eq!(first_names("{admin, quorum::{peer, links}, sys}; use"), ["admin", "quorum", "sys"]);
}

/// Which module imports from which, and the files that do.
fn imports() -> BTreeMap<(String, String), PathBuf> {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut imports = BTreeMap::new();
    for file in files {
        let top = file.iter().nth(1).unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).unwrap();
        for name in imported(&text).into_iter().filter(|name| *name != top) {
            imports.insert((top.clone(), name), file.clone());
        }
    }
    imports
}

#[test]
fn no_module_imports_from_a_later_layer() {
    let layers = layers();
    assert!(layers.len() > 20, "{layers:?}");
    let is_later = |(from, to): &(String, String)| layers.get(from).zip(layers.get(to)).is_some_and(|(a, b)| a < b);
    let imports = imports();
    let wrong: Vec<_> = imports.iter().filter(|(names, _)| is_later(names)).collect();
    assert!(wrong.is_empty(), "src/lib.rs lists these in later layers: {wrong:#?}");
}

#[test]
fn no_modules_import_each_other_by_whatever_way() {
    let mut imports = imports();
    assert!(imports.len() > 100, "{imports:?}");
    // Whatever imports nothing that is left, or is imported by nothing that is left, is in no circle.
    loop {
        let before = imports.len();
        let names: Vec<_> = imports.keys().cloned().collect();
        imports.retain(|(from, to), _| {
            names.iter().any(|(other, _)| other == to) && names.iter().any(|(_, other)| other == from)
        });
        if imports.len() == before {
            break;
        }
    }
    assert!(imports.is_empty(), "these are in a circle, or between two: {imports:#?}");
}
