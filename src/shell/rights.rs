//! Commands on permissions and identities.

use serde_json::{Value, json};

use super::Shell;
use super::answer::{Answer, Failure};
use super::nodes::{changed, version, visit};
use crate::arguments::Args;
use crate::records::{Acl, perms};

/// Letters of the permissions, in the order in which they are shown.
const LETTERS: [(char, i32); 5] =
    [('c', perms::CREATE), ('d', perms::DELETE), ('r', perms::READ), ('w', perms::WRITE), ('a', perms::ADMIN)];

/// `cdrwa`
pub(super) fn letters(bits: i32) -> String {
    LETTERS.iter().filter(|(_, bit)| bits & bit != 0).map(|(letter, _)| letter).collect()
}

/// One entry as it is typed: `scheme:id:perms`; the id may hold colons itself.
pub(super) fn entry(text: &str) -> Option<(Acl, Vec<char>)> {
    let (scheme, rest) = text.split_once(':')?;
    let (id, letters) = rest.rsplit_once(':')?;
    let bit = |letter: char| LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| *bit);
    let bits = letters.chars().filter_map(bit).fold(0, |all, bit| all | bit);
    let unknown = letters.chars().filter(|letter| bit(*letter).is_none()).collect();
    Some((Acl::new(bits, scheme, id), unknown))
}

/// The entry as [`entry`] takes it.
pub(super) fn entry_text(acl: &Acl) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}:{}:{}", text(&acl.scheme), text(&acl.id), letters(acl.perms))
}

/// A list as it is typed, with commas. What is malformed is named and left out, as in Apache.
pub(super) fn parse_acl(shell: &Shell, text: &str) -> Vec<Acl> {
    let mut list = Vec::new();
    for part in text.trim_end_matches(',').split(',') {
        let Some((acl, unknown)) = entry(part) else {
            shell.screen.err(&format!("{part} does not have the form scheme:id:perm"));
            continue;
        };
        for letter in unknown {
            shell.screen.err(&format!("Unknown perm type: {letter}"));
        }
        list.push(acl);
    }
    list
}

pub(super) fn get_acl(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let path = args.word(1);
    let (list, stat) = shell.client()?.acl(path)?;
    let null = || "null".to_owned();
    let lines: Vec<String> = list
        .iter()
        .map(|acl| {
            let (scheme, id) = (acl.scheme.clone().unwrap_or_else(null), acl.id.clone().unwrap_or_else(null));
            format!("'{scheme},'{id}\n: {}", letters(acl.perms))
        })
        .collect();
    let entries: Vec<Value> =
        list.iter().map(|acl| json!({ "scheme": acl.scheme, "id": acl.id, "perms": letters(acl.perms) })).collect();
    let answer = Answer::out(lines.join("\n"), json!({ "path": path, "acl": entries }));
    Ok(answer.with_stat(args.has("s").then_some(&stat)))
}

pub(super) fn set_acl(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let path = args.word(1);
    let list = parse_acl(shell, args.word(2));
    let version = version(args)?;
    let client = shell.client()?;
    if !args.has("R") {
        let stat = client.set_acl(path, &list, version)?;
        return Ok(changed(path, args.has("s"), &stat));
    }
    client.data(path, false)?;
    let screen = &shell.screen;
    let mut progress = screen.progress("nodes done");
    let mut refused = 0;
    let mut set = |path: &str| {
        progress.add(1);
        match client.set_acl(path, &list, version) {
            Err(error) if error.code().is_some() => {
                refused += 1;
                screen.chat(&error.to_string());
                Ok(())
            }
            other => other.map(drop).map_err(Failure::from),
        }
    };
    set(path)?;
    visit(&client, path, false, set)?;
    drop(progress);
    Ok(Answer { json: Some(json!({ "path": path, "refused": refused })), ..Answer::none() })
}

pub(super) fn add_auth(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let scheme = args.word(1);
    shell.client()?.add_auth(scheme, args.words.get(2).map(String::as_bytes))?;
    Ok(Answer { json: Some(json!({ "scheme": scheme })), ..Answer::none() })
}

pub(super) fn who_am_i(shell: &mut Shell, _args: &Args) -> Result<Answer, Failure> {
    let identities = shell.client()?.who_am_i()?;
    let lines: String = identities.iter().map(|who| format!("\n{}: {}", who.scheme, who.user)).collect();
    let json: Vec<Value> = identities.iter().map(|who| json!({ "scheme": who.scheme, "user": who.user })).collect();
    Ok(Answer::out(format!("Auth scheme: User{lines}"), json!({ "identities": json })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_and_shown() {
        for (text, letters) in [("world:anyone:rc", "world:anyone:cr"), ("digest:u:p=:cdrwa", "digest:u:p=:cdrwa")] {
            let (acl, unknown) = entry(text).unwrap();
            assert_eq!((entry_text(&acl).as_str(), unknown.len()), (letters, 0));
        }
        assert_eq!(entry("auth::rx").unwrap().1, ['x']);
        assert_eq!(entry("world:anyone"), None);
    }
}
