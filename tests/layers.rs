//! The layers that `src/lib.rs` lists: no module imports from a later one.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
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
fn imported(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let paths = lines.flat_map(|line| line.split("crate::").skip(1));
    paths.map(|path| path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

#[test]
fn no_module_imports_from_a_later_layer() {
    let layers = layers();
    assert!(layers.len() > 20, "{layers:?}");
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let top = file.iter().nth(1).unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(layer) = layers.get(top) else { continue };
        let text = fs::read_to_string(file).unwrap();
        let later = imported(&text).filter(|name| layers.get(*name).is_some_and(|other| other > layer));
        wrong.extend(later.map(|name| format!("{}: {name}", file.display())));
    }
    assert!(wrong.is_empty(), "src/lib.rs lists these in later layers:\n{}", wrong.join("\n"));
}
