//! Files that servers write once their members may change at run time: `zoo.cfg.dynamic.VERSION` with the members in force,
//! `zoo.cfg.dynamic.next` with members that are only proposed, and `zoo.cfg`, which then names the first. What
//! `storage::config_files` writes is made here, and `check` has it read here; pure.
//!
//! They are read at every start and copied by hand, so each says at its beginning how it ends: one that was cut short is
//! found out wherever it was cut. Java servers pass over it as a comment, and write none.
//!
//! ```text
//! zoo.cfg:    #The last line names the file of the members
//! others:     #Members as of 100000005: 58 bytes follow, CRC-32 1a2b3c4d
//!             #Without this server, server.4=d:1:2:participant;2181     only if it is not among them
//! ```

use std::path::Path;

use super::Members;
use super::ensemble::{MemberRules, Server, escaped};
use super::error::{ConfigError, Origin};
use super::load::parse;
use super::syntax::{self, Entry};

/// How a file of members begins.
const SEAL: &str = "#Members as of ";
/// Before the line of a server that has a list which it is not in.
const UNLISTED: &str = "#Without this server, server.";
/// The first line of a zoo.cfg that was written by a server.
const POINTS: &str = "#The last line names the file of the members";
/// The key of that line.
const POINTER: &str = "dynamicConfigFile";

/// What a file of members holds.
#[derive(Debug)]
pub(super) struct MemberFile {
    pub entries: Vec<Entry>,
    /// The version that the file was written for.
    pub version: Option<i64>,
    /// The line of the server that wrote it, if it is not among them.
    pub unlisted: Option<Server>,
}

/// The text of a file of members: that of the list, which says its version itself while it is only proposed. `unlisted` is
/// where the server is that writes it, if it is not among them.
pub fn member_file(members: &Members, proposed: bool, unlisted: Option<&Server>) -> Vec<u8> {
    let mut body = unlisted.map_or_else(String::new, |server| format!("{UNLISTED}{}={server}\n", server.id));
    let text = members.to_string();
    let mut lines: Vec<&str> = text.lines().filter(|line| proposed || !line.starts_with("version=")).collect();
    if !proposed {
        lines.sort_unstable();
    }
    body += &lines.join("\n");
    let body = escaped(body.as_bytes());
    let mut out = seal(members.version, &body).into_bytes();
    out.extend(body);
    out
}

fn seal(version: i64, body: &[u8]) -> String {
    let version = format!("{version:x}");
    let mut crc = crc32fast::Hasher::new();
    crc.update(version.as_bytes());
    crc.update(body);
    format!("{SEAL}{version}: {} bytes follow, CRC-32 {:08x}\n", body.len(), crc.finalize())
}

/// Reads a file of members, of ours or of a Java server.
pub(super) fn read_member_file(path: &Path, text: &[u8]) -> Result<MemberFile, ConfigError> {
    let refuse = |what: &str| ConfigError::rule(Origin::File(path.to_path_buf()), what);
    let version = check_seal(text).map_err(|()| {
        refuse(
            "the file is not as it was written: its first line tells length and checksum of the rest. If it was cut short or \
             damaged, restore it, or copy the members from another server; if it was changed by hand, remove the first line",
        )
    })?;
    let entries = parse(path, text)?;
    // So does what is left of a first line, which is a comment.
    if entries.is_empty() {
        return Err(refuse(
            "no server is in it: it was cut short or damaged. Restore it, or copy the members from another server",
        ));
    }
    let unlisted = version.and_then(|_| text.split(|byte| *byte == b'\n').nth(1)).and_then(read_unlisted);
    Ok(MemberFile { entries, version, unlisted })
}

/// The version for which a file was sealed; `None` if it has no seal.
fn check_seal(text: &[u8]) -> Result<Option<i64>, ()> {
    let Some(rest) = text.strip_prefix(SEAL.as_bytes()) else { return Ok(None) };
    let version = rest.iter().position(|byte| *byte == b':').and_then(|end| str::from_utf8(&rest[..end]).ok());
    let version = version.and_then(|hex| i64::from_str_radix(hex, 16).ok()).ok_or(())?;
    let line = text.iter().position(|byte| *byte == b'\n').ok_or(())?;
    let (line, body) = text.split_at(line + 1);
    if seal(version, body).as_bytes() == line { Ok(Some(version)) } else { Err(()) }
}

fn read_unlisted(line: &[u8]) -> Option<Server> {
    let comment = line.strip_prefix(UNLISTED.as_bytes())?;
    let entry = syntax::entries(comment).ok()?.pop()?;
    Server::parse(entry.key.parse().ok()?, &entry.value, MemberRules::AGREED).ok()
}

/// zoo.cfg with the name of the file of the members: everything stays but what that file says now. `has_client`: the
/// address of this server's clients does, too.
pub fn point_to(zoo_cfg: &[u8], members: &Path, has_client: bool) -> Result<Vec<u8>, syntax::SyntaxError> {
    let moved = |key: &str| {
        ["server.", "group", "weight", POINTER, "peerType"].iter().any(|k| key.starts_with(k))
            || (has_client && key.starts_with("clientPort"))
    };
    let rest = syntax::without(zoo_cfg, moved)?;
    let mut out = Vec::new();
    if !is_marked(&rest) {
        out.extend(format!("{POINTS}\n").bytes());
    }
    out.extend(rest);
    if !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    let path = members.to_string_lossy().replace('\\', "\\\\");
    out.extend(format!("{POINTER}={path}\n").bytes());
    Ok(out)
}

fn is_marked(zoo_cfg: &[u8]) -> bool {
    zoo_cfg.split(|byte| *byte == b'\n').any(|line| line == POINTS.as_bytes())
}

/// Whether a server wrote this zoo.cfg, and its end is missing. Without that the server would run alone, or with older
/// members.
pub(super) fn is_cut_short(zoo_cfg: &[u8], entries: &[Entry]) -> bool {
    let is_whole = zoo_cfg.ends_with(b"\n") && entries.iter().any(|entry| entry.key == POINTER);
    is_marked(zoo_cfg) && !is_whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Members {
        Members::parse_text("server.1=zürich:1:2;11\nserver.2=b:1:2|c:1:2:observer\nversion=100000005".as_bytes())
            .unwrap()
    }

    fn read(text: &[u8]) -> Result<MemberFile, ConfigError> {
        read_member_file(Path::new("/c/zoo.cfg.dynamic.100000005"), text)
    }

    #[test]
    fn a_file_of_members_reads_back_with_the_line_of_a_server_that_is_not_in_it() {
        let unlisted = Server::parse(4, "d:1:2:observer;h:5", MemberRules::AGREED).unwrap();
        for proposed in [false, true] {
            for unlisted in [None, Some(&unlisted)] {
                let text = member_file(&members(), proposed, unlisted);
                assert!(text.is_ascii());
                let found = read(&text).unwrap();
                assert_eq!((found.version, found.unlisted.as_ref()), (Some(0x1_0000_0005), unlisted));
                let (rest, mut lines): (Vec<_>, Vec<_>) = found.entries.into_iter().partition(|e| e.key == "version");
                assert_eq!(rest.len(), usize::from(proposed));
                lines.sort_by(|a, b| a.key.cmp(&b.key));
                let parsed = Members::parse(&lines, MemberRules::AGREED).unwrap();
                assert_eq!(Members { version: members().version, ..parsed }, members());
            }
        }
    }

    #[test]
    fn a_file_of_members_that_is_cut_or_changed_anywhere_is_found_out() {
        let text = member_file(&members(), false, None);
        for length in 0..text.len() {
            let why = read(&text[..length]).unwrap_err().to_string();
            assert!(
                why.contains("cut short or damaged") && why.contains("copy the members from another"),
                "{length}: {why}"
            );
        }
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            let seal_is_gone = at < SEAL.len();
            assert!(read(&changed).map_or(true, |found| found.version.is_none()), "{at}");
            assert!(seal_is_gone || read(&changed).is_err(), "{at}");
        }
    }

    #[test]
    fn a_zoo_cfg_that_a_server_wrote_and_that_was_cut_anywhere_is_found_out() {
        let text = point_to(b"# ours\ndataDir=/d\nserver.1=a:1:2", Path::new("/c/zoo.cfg.dynamic.5"), false).unwrap();
        let is_cut = |text: &[u8]| is_cut_short(text, &syntax::entries(text).unwrap());
        assert!(!is_cut(&text));
        let whole_mark = POINTS.len();
        for length in 0..text.len() {
            // Before the mark is whole there is nothing to start with.
            assert_eq!(is_cut(&text[..length]), length >= whole_mark, "{length}");
        }
        let again = point_to(&text, Path::new("/c/zoo.cfg.dynamic.6"), false).unwrap();
        assert_eq!(
            String::from_utf8(again).unwrap(),
            String::from_utf8(text).unwrap().replace("dynamic.5", "dynamic.6")
        );
    }
}
