//! Commands on nodes: create, read, change, list, delete.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Shell;
use super::answer::{Answer, Failure, put_data, stat_json};
use super::rights::parse_acl;
use crate::arguments::{self, Args};
use crate::client::{Client, CreateMode, Error, Ticket};
use crate::codes::Code;
use crate::records::{Acl, Stat, TTL_MS_MAX};

/// Nodes of a tree that are asked about at once.
const ASKED_AHEAD: usize = 64;
/// Multis of a deleteall that may be on their way at once, as in Apache.
const DELETES_IN_FLIGHT: usize = 10;
/// Nodes in one of them, unless -b says otherwise.
const DELETE_BATCH: usize = 1000;
/// Bytes of paths in one of them: well below what a server takes in one frame, 1 MiB.
const DELETE_BATCH_BYTES: usize = 512 << 10;

pub(super) fn create(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let mode = create_mode(args)?;
    let path = args.word(1);
    let data = args.words.get(2).map(String::as_bytes);
    let acl = args.words.get(3).map_or_else(Acl::open, |text| parse_acl(shell, text));
    let made = shell.client()?.create(path, data, &acl, mode);
    if let Err(error) = &made {
        let said = match error.code() {
            Some(Code::EphemeralOnLocalSession) => {
                Some("Unable to create ephemeral node on a local session".to_owned())
            }
            Some(Code::InvalidAcl) => Some(error.to_string()),
            _ => None,
        };
        if let Some(said) = said.filter(|_| !shell.screen.json) {
            shell.screen.err(&said);
        }
    }
    let (path, stat) = made?;
    Ok(Answer::err(format!("Created {path}"), json!({ "path": path, "stat": stat_json(&stat) })))
}

fn create_mode(args: &Args) -> Result<CreateMode, Failure> {
    let (ephemeral, sequential, container) = (args.has("e"), args.has("s"), args.has("c"));
    if container && (ephemeral || sequential) {
        return Err(Failure::text(
            "-c cannot be combined with -s or -e. Containers cannot be ephemeral or sequential.",
        ));
    }
    let ttl_ms = args.value("t").map(str::parse).transpose();
    let ttl_ms: Option<i64> = ttl_ms.map_err(|_| Failure::text("-t argument must be a long value"))?;
    if ttl_ms.is_some() && ephemeral {
        return Err(Failure::text("TTLs cannot be used with Ephemeral znodes"));
    }
    if ttl_ms.is_some() && container {
        return Err(Failure::text("TTLs cannot be used with Container znodes"));
    }
    if ttl_ms.is_some_and(|ttl_ms| !(1..=TTL_MS_MAX).contains(&ttl_ms)) {
        return Err(Failure::text(format!("ttl must be positive and cannot be larger than: {TTL_MS_MAX}")));
    }
    Ok(CreateMode { ephemeral, sequential, container, ttl_ms })
}

/// The value of -v; any version without it.
pub(super) fn version(args: &Args) -> Result<i32, Failure> {
    let Some(text) = args.value("v") else { return Ok(-1) };
    text.parse().map_err(|_| Failure::text(format!("-v argument must be an int value, not \"{text}\"")))
}

/// Older shells took `watch` behind the path: still understood, as Apache does, by taking the third word for -w.
fn with_watch_word(shell: &Shell, args: &Args, instead: &str) -> Result<Option<Args>, Failure> {
    if args.words.len() <= 2 {
        return Ok(None);
    }
    let name = args.word(0);
    shell.screen.err(&format!("'{name} path [watch]' has been deprecated. Please use '{instead}' instead."));
    let mut words = args.words.clone();
    words[2] = "-w".into();
    let command = super::table::find(name).expect("it was just found");
    let again = command.parse(&words).map_err(Failure::Text)?;
    Ok(Some(args.merged(again)))
}

pub(super) fn ls(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let command = super::table::find("ls").expect("the table has it");
    if args.has("?") {
        let help = format!("usage: ls [options] path\n{}", arguments::list(command.options()));
        shell.screen.out(help.trim_end());
    }
    let rewritten = with_watch_word(shell, args, "ls [-w] path")?;
    let args = rewritten.as_ref().unwrap_or(args);
    if args.words.len() < 2 {
        return Err(Failure::Usage(command));
    }
    let (path, watch) = (args.word(1), args.has("w"));
    if args.has("R") {
        return ls_recursive(shell, path, watch);
    }
    let (mut names, stat) = shell.client()?.children(path, watch)?;
    names.sort_unstable_by(|a, b| java_order(a, b));
    let stat = args.has("s").then_some(&stat);
    Ok(Answer::out(format!("[{}]", names.join(", ")), json!({ "path": path, "children": names })).with_stat(stat))
}

/// How Java sorts strings: by UTF-16 units. For valid znode names that is the order of their characters.
fn java_order(a: &str, b: &str) -> std::cmp::Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

fn ls_recursive(shell: &mut Shell, root: &str, watch: bool) -> Result<Answer, Failure> {
    let client = shell.client()?;
    client.data(root, watch)?;
    let screen = &shell.screen;
    let say = |path: &str| screen.out(&if screen.json { json!({ "path": path }).to_string() } else { path.to_owned() });
    say(root);
    let mut progress = screen.progress("nodes listed").hidden(std::io::IsTerminal::is_terminal(&std::io::stdout()));
    visit(&client, root, watch, |path| {
        say(path);
        progress.add(1);
        Ok(())
    })?;
    Ok(Answer::none())
}

/// Every node below `root`, which was seen already: the children of a node together, then what lies below each (the
/// order of `ZKUtil.visitSubTreeDFS`). Nodes that vanish meanwhile are left out.
pub(super) fn visit(
    client: &Client,
    root: &str,
    watch: bool,
    mut each: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut waiting = Ahead::new(root);
    while let Some((path, ticket)) = waiting.next(|path| client.ask_children(path, watch))? {
        let mut names = match client.read_children(ticket) {
            Ok((names, _)) => names,
            Err(error) if error.is_no_node() => continue,
            Err(error) => return Err(error.into()),
        };
        names.sort_unstable_by(|a, b| java_order(a, b));
        let children: Vec<String> = names.iter().map(|name| child(&path, name)).collect();
        for path in &children {
            each(path)?;
        }
        waiting.add(children);
    }
    Ok(())
}

/// The nodes of a tree that wait for their turn, depth first. The next ones are asked about ahead of it, so that a tree
/// takes a round trip for many nodes instead of one for each.
pub(super) struct Ahead<T> {
    /// The next one last.
    stack: Vec<(String, Option<T>)>,
}

impl<T> Ahead<T> {
    pub fn new(root: &str) -> Ahead<T> {
        Ahead { stack: vec![(root.to_owned(), None)] }
    }

    /// The node whose turn it is, and what was asked about it.
    pub fn next(&mut self, ask: impl Fn(&str) -> Result<T, Error>) -> Result<Option<(String, T)>, Error> {
        for (path, asked) in self.stack.iter_mut().rev().take(ASKED_AHEAD) {
            if asked.is_none() {
                *asked = Some(ask(path)?);
            }
        }
        Ok(self.stack.pop().and_then(|(path, asked)| Some((path, asked?))))
    }

    /// Children of the last one, whose turn is before all others'.
    pub fn add(&mut self, children: Vec<String>) {
        self.stack.extend(children.into_iter().rev().map(|path| (path, None)));
    }
}

/// The path of a child.
pub(super) fn child(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

pub(super) fn get(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let rewritten = with_watch_word(shell, args, "get [-s] [-w] path")?;
    let args = rewritten.as_ref().unwrap_or(args);
    let path = args.word(1);
    let (data, stat) = shell.client()?.data(path, args.has("w"))?;
    let shown = data.as_deref().unwrap_or(b"null");
    let text = if args.has("x") {
        hex_dump(shown)
    } else if args.has("b") {
        STANDARD.encode(shown)
    } else {
        String::from_utf8_lossy(shown).into_owned()
    };
    let mut json = Map::from_iter([("path".to_owned(), Value::from(path))]);
    put_data(&mut json, data.as_deref());
    Ok(Answer::out(text, json.into()).with_stat(args.has("s").then_some(&stat)))
}

/// The table that Netty's `prettyHexDump` draws.
fn hex_dump(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return String::new();
    }
    let line = format!("+--------+{}+----------------+", "-".repeat(49));
    let mut text =
        format!("         +{}+\n         |  0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f |\n{line}", "-".repeat(49));
    for (row, piece) in bytes.chunks(16).enumerate() {
        let hex: String = piece.iter().map(|byte| format!(" {byte:02x}")).collect();
        let letters: String =
            piece.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
        text += &format!("\n|{:08x}|{hex:48} |{letters:16}|", row * 16);
    }
    format!("{text}\n{line}")
}

pub(super) fn set(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let (path, text) = (args.word(1), args.word(2));
    let data = if args.has("b") {
        STANDARD.decode(text).map_err(|e| Failure::text(format!("the data is not base64: {e}")))?
    } else {
        text.as_bytes().to_vec()
    };
    let stat = shell.client()?.set_data(path, Some(&data), version(args)?)?;
    Ok(changed(path, args.has("s"), &stat))
}

/// The answer of a command that says nothing unless it was asked for the stat.
pub(super) fn changed(path: &str, with_stat: bool, stat: &Stat) -> Answer {
    let json = Some(json!({ "path": path, "stat": stat_json(stat) }));
    let answer = Answer { json, ..Answer::none() };
    if with_stat { answer.with_stat(Some(stat)) } else { answer }
}

pub(super) fn stat(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let rewritten = with_watch_word(shell, args, "stat [-w] path")?;
    let args = rewritten.as_ref().unwrap_or(args);
    let path = args.word(1);
    let stat = shell.client()?.exists(path, args.has("w"))?;
    let stat = stat.ok_or_else(|| Error::Refused { code: Code::NoNode, path: Some(path.to_owned()) })?;
    Ok(changed(path, true, &stat))
}

pub(super) fn delete(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let mut expected = version(args)?;
    if let Some(text) = args.words.get(2) {
        shell.screen.err("'delete path [version]' has been deprecated. Please use 'delete [-v version] path' instead.");
        // Apache says this and then deletes whatever the version is; asking for one must not delete another.
        expected = text.parse().map_err(|_| Failure::text(format!("\"{text}\" is no version")))?;
    }
    let path = args.word(1);
    shell.client()?.delete(path, expected)?;
    Ok(Answer { json: Some(json!({ "path": path })), ..Answer::none() })
}

pub(super) fn delete_all(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let batch = args.value("b").map(str::parse::<i32>).transpose();
    let batch = batch.map_err(|_| Failure::text("-b argument must be an int value"))?;
    let path = args.word(1);
    let client = shell.client()?;
    let paths = subtree(shell, &client, path)?;
    let count = paths.len();
    let mut progress = shell.screen.progress("nodes deleted");
    let all = match batch.map_or(Ok(DELETE_BATCH), usize::try_from) {
        Ok(batch) if batch > 0 => delete_in_batches(&client, paths, batch, |count| progress.add(count))?,
        _ => {
            for path in paths.iter().rev() {
                client.delete(path, -1)?;
                progress.add(1);
            }
            true
        }
    };
    drop(progress);
    if !all {
        let said = "Failed to delete some node(s) in the subtree!";
        return Ok(Answer::err(said, json!({ "path": path, "failed": said })));
    }
    Ok(Answer { json: Some(json!({ "path": path, "deleted": count })), ..Answer::none() })
}

/// A node and all below it, parents first.
fn subtree(shell: &Shell, client: &Client, root: &str) -> Result<Vec<String>, Failure> {
    let mut progress = shell.screen.progress("nodes found");
    let mut found = vec![root.to_owned()];
    let mut asked = VecDeque::new();
    let mut next = 0;
    while next < found.len() {
        while asked.len() < ASKED_AHEAD && next + asked.len() < found.len() {
            asked.push_back(client.ask_children(&found[next + asked.len()], false)?);
        }
        let (names, _) = client.read_children(asked.pop_front().expect("one was asked just now"))?;
        found.extend(names.iter().map(|name| child(&found[next], name)).collect::<Vec<_>>());
        progress.add(1);
        next += 1;
    }
    Ok(found)
}

/// Leaves first. Whether all are gone; stops at the first multi that failed.
fn delete_in_batches(
    client: &Client,
    mut paths: Vec<String>,
    batch: usize,
    mut deleted: impl FnMut(usize),
) -> Result<bool, Failure> {
    let mut flying: VecDeque<(usize, Ticket)> = VecDeque::new();
    paths.reverse();
    let mut rest = &paths[..];
    while !rest.is_empty() || !flying.is_empty() {
        if !rest.is_empty() && flying.len() < DELETES_IN_FLIGHT {
            let mut bytes = 0;
            let fits = |path: &&String| {
                bytes += path.len();
                bytes <= DELETE_BATCH_BYTES
            };
            let count = rest.iter().take(batch).take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            flying.push_back((count, client.ask_delete_all(now)));
            rest = later;
        } else if let Some((count, ticket)) = flying.pop_front() {
            match client.read_deleted(ticket) {
                Ok(true) => deleted(count),
                Ok(false) | Err(Error::Refused { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(true)
}

pub(super) fn descendants(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let path = args.word(1);
    let count = shell.client()?.descendants(path)?;
    Ok(Answer::out(count.to_string(), json!({ "path": path, "descendants": count })))
}

pub(super) fn ephemerals(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let prefix = args.words.get(1).map_or("/", String::as_str);
    let paths = shell.client()?.ephemerals(prefix)?;
    Ok(Answer::out(format!("[{}]", paths.join(", ")), json!({ "ephemerals": paths })))
}

pub(super) fn sync(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let path = args.word(1);
    shell.client()?.sync(path)?;
    Ok(Answer::out("Sync is OK", json!({ "path": path, "synced": true })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_drawn_as_netty_does() {
        let drawn = hex_dump(b"hello, zookeeper\n");
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines[3], "|00000000| 68 65 6c 6c 6f 2c 20 7a 6f 6f 6b 65 65 70 65 72 |hello, zookeeper|");
        assert_eq!(lines[4], "|00000010| 0a                                              |.               |");
        assert_eq!(lines.len(), 6);
        assert_eq!(hex_dump(b""), "");
    }
}
