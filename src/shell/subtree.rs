//! `export` and `import`: a subtree as one JSON document.
//!
//! ```json
//! { "format": "rookeeper-subtree", "version": 1, "root": "/app",
//!   "nodes": [ { "path": "/app", "data": "text or null", "acl": ["world:anyone:cdrwa"] },
//!              { "path": "/app/bytes", "base64": "/w==", "acl": ["auth::r"] } ],
//!   "left_out": [ { "path": "/app/lock-1", "why": "ephemeral" } ] }
//! ```
//!
//! Parents stand before their children. Not an instant: what changes during an export may be in it or not. A server does
//! not tell containers and TTL nodes from others; they become ordinary nodes.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Shell;
use super::answer::{Answer, Failure, put_data};
use super::nodes::{Ahead, child};
use super::rights::{entry, entry_text};
use super::screen::Progress;
use crate::arguments::Args;
use crate::client::{Client, CreateMode, Error, Ticket};
use crate::codes::Code;
use crate::records::Acl;

const FORMAT: &str = "rookeeper-subtree";
const VERSION: u64 = 1;
/// Requests of an import that may be on their way at once.
const IN_FLIGHT: usize = 64;
/// The system's own nodes, which every ensemble has.
const SYSTEM: &str = "/zookeeper";

/// One node of the document.
struct Node {
    path: String,
    data: Option<Vec<u8>>,
    acl: Vec<Acl>,
}

pub(super) fn export(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let root = args.word(1);
    let client = shell.client()?;
    let mut progress = shell.screen.progress("nodes read");
    let (mut nodes, mut left_out) = (Vec::new(), Vec::new());
    let mut waiting = Ahead::new(root);
    let ask =
        |path: &str| Ok([client.ask_data(path, false)?, client.ask_acl(path)?, client.ask_children(path, false)?]);
    while let Some((path, [data, acl, names])) = waiting.next(ask)? {
        if path == SYSTEM && root != SYSTEM {
            left_out.push(json!({ "path": path, "why": "the system's own" }));
            continue;
        }
        let answers = || Ok((client.read_data(data)?, client.read_acl(acl)?, client.read_children(names)?));
        let ((data, stat), (acl, _), (mut names, _)) = match answers() {
            // It went away since its parent was listed.
            Err(error) if Error::is_no_node(&error) && path != root => continue,
            other => other?,
        };
        if stat.ephemeral_owner != 0 {
            left_out.push(json!({ "path": path, "why": "ephemeral" }));
            continue;
        }
        let mut node = Map::from_iter([("path".to_owned(), Value::from(path.as_str()))]);
        put_data(&mut node, data.as_deref());
        if !args.has("n") {
            refuse_hidden(&path, &acl)?;
            node.insert("acl".into(), acl.iter().map(entry_text).collect());
        }
        nodes.push(Value::from(node));
        names.sort_unstable();
        waiting.add(names.iter().map(|name| child(&path, name)).collect());
        progress.add(1);
    }
    drop(progress);
    let (count, left) = (nodes.len(), left_out.len());
    let document = json!({ "format": FORMAT, "version": VERSION, "root": root, "nodes": nodes, "left_out": left_out });
    let Some(file) = args.words.get(2) else { return Ok(Answer::out(pretty(&document), document)) };
    write_file(Path::new(file), &pretty(&document)).map_err(|e| Failure::text(format!("{file}: {e}")))?;
    let names: String = left_out_lines(&document).iter().map(|line| format!("\nleft out: {line}")).collect();
    let json = json!({ "file": file, "nodes": count, "left_out": left });
    Ok(Answer::err(format!("Exported {count} nodes of {root} to {file}{names}"), json))
}

fn left_out_lines(document: &Value) -> Vec<String> {
    let list = document["left_out"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    list.iter().map(|entry| format!("{} ({})", text(entry, "path"), text(entry, "why"))).collect()
}

/// A server hides the digests of an ACL from those who may not change it; written as they look, nobody could use the
/// nodes any more.
fn refuse_hidden(path: &str, acl: &[Acl]) -> Result<(), Failure> {
    let hidden =
        |acl: &Acl| acl.scheme.as_deref() == Some("digest") && acl.id.as_deref().is_some_and(|id| id.ends_with(":x"));
    if !acl.iter().any(hidden) {
        return Ok(());
    }
    Err(Failure::text(format!(
        "the ACL of {path} is hidden from you: `addauth` somebody who has its ADMIN permission, or export without ACLs (-n)"
    )))
}

/// One node a line: a diff of two exports shows what differs.
fn pretty(document: &Value) -> String {
    let list = |key: &str| {
        let entries = document[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let lines: Vec<String> = entries.iter().map(|entry| format!("\n  {entry}")).collect();
        format!("[{}{}]", lines.join(","), if lines.is_empty() { "" } else { "\n" })
    };
    format!(
        "{{\"format\":{},\"version\":{},\"root\":{},\n\"nodes\":{},\n\"left_out\":{}}}",
        document["format"],
        document["version"],
        document["root"],
        list("nodes"),
        list("left_out")
    )
}

/// Whole or not at all: a half-written export must not look like one.
fn write_file(path: &Path, text: &str) -> std::io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let mut file = std::fs::File::create(&part)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

pub(super) fn import(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let file = args.word(1);
    let text = read_file(file).map_err(|e| Failure::text(format!("{file}: {e}")))?;
    let (root, nodes) = parse(&text).map_err(|why| Failure::text(format!("{file}: {why}")))?;
    let target = args.words.get(2).map_or(root.as_str(), String::as_str);
    let client = shell.client()?;
    let update = args.has("u");
    // The root of all is always there.
    if !update && target != "/" && client.exists(target, false)?.is_some() {
        return Err(Failure::text(format!(
            "{target} exists: nothing was imported; -u updates what exists, another PATH behind the file puts it elsewhere"
        )));
    }
    let progress = shell.screen.progress("nodes written");
    let mut import = Import { client: &client, update, flying: VecDeque::new(), done: 0, progress };
    for mut node in nodes {
        node.path = moved(&node.path, &root, target);
        import.ask(node)?;
    }
    let done = import.finish()?;
    Ok(Answer::err(format!("Imported {done} nodes to {target}"), json!({ "path": target, "nodes": done })))
}

/// An import under way: so many nodes are asked for at once.
struct Import<'a> {
    client: &'a Client,
    /// What exists is given the data and the ACL.
    update: bool,
    flying: VecDeque<(Node, Asked)>,
    done: usize,
    progress: Progress,
}

/// What a node waits for.
enum Asked {
    Create(Ticket),
    /// Its data and its ACL, of one that was there.
    Set(Ticket, Ticket),
}

impl Import<'_> {
    fn ask(&mut self, node: Node) -> Result<(), Failure> {
        while self.flying.len() >= IN_FLIGHT {
            self.land()?;
        }
        let asked = self.client.ask_create(&node.path, node.data.as_deref(), &node.acl, CreateMode::default());
        self.flying.push_back((node, Asked::Create(asked.map_err(|error| self.partial(error))?)));
        Ok(())
    }

    /// How many nodes there were.
    fn finish(mut self) -> Result<usize, Failure> {
        while !self.flying.is_empty() {
            self.land()?;
        }
        Ok(self.done)
    }

    fn land(&mut self) -> Result<(), Failure> {
        let Some((node, asked)) = self.flying.pop_front() else { return Ok(()) };
        match self.resolve(&node, asked).map_err(|error| self.partial(error))? {
            Some(asked) => self.flying.push_back((node, asked)),
            None => {
                self.done += 1;
                self.progress.add(1);
            }
        }
        Ok(())
    }

    /// Waits for a node. One that is there already is given the data and the ACL instead, if that is wanted: then it waits
    /// for that. The root of all cannot be created, and keeps what it has unless it is to be updated.
    fn resolve(&self, node: &Node, asked: Asked) -> Result<Option<Asked>, Error> {
        let created = match asked {
            Asked::Create(ticket) => self.client.read_created(ticket),
            Asked::Set(data, acl) => return data.wait().and_then(|_| acl.wait()).map(|_| None),
        };
        match created {
            Err(error) if error.code() == Some(Code::NodeExists) && self.update => Ok(Some(Asked::Set(
                self.client.ask_set_data(&node.path, node.data.as_deref(), -1)?,
                self.client.ask_set_acl(&node.path, &node.acl, -1)?,
            ))),
            Err(error) if error.code() == Some(Code::NodeExists) && node.path == "/" => Ok(None),
            other => other.map(|_| None),
        }
    }

    fn partial(&self, error: Error) -> Failure {
        let failure = Failure::Client(error);
        Failure::text(format!(
            "{}\n{} nodes were imported before that, and perhaps up to {IN_FLIGHT} after it; once the reason is gone, \
             -u completes it",
            failure.message(),
            self.done
        ))
    }
}

fn moved(path: &str, root: &str, target: &str) -> String {
    let below = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
    if below.is_empty() { target.to_owned() } else { child(target, below) }
}

fn read_file(path: &str) -> std::io::Result<String> {
    if path == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}

fn parse(text: &str) -> Result<(String, Vec<Node>), String> {
    let document: Value = serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?;
    if document["format"] != FORMAT || document["version"] != VERSION {
        return Err(format!("not written by `export` (\"format\": \"{FORMAT}\", \"version\": {VERSION} is missing)"));
    }
    let root = document["root"].as_str().ok_or("\"root\" is missing")?.to_owned();
    let nodes = document["nodes"].as_array().ok_or("\"nodes\" is missing")?;
    let nodes = nodes.iter().map(|value| node(value, &root)).collect::<Result<_, _>>()?;
    Ok((root, nodes))
}

fn node(value: &Value, root: &str) -> Result<Node, String> {
    let path = value["path"].as_str().ok_or("a node has no \"path\"")?.to_owned();
    let below = path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || root == "/");
    if !below {
        return Err(format!("{path} does not lie below {root}"));
    }
    let data = match (&value["base64"], &value["data"]) {
        (Value::String(text), _) => Some(STANDARD.decode(text).map_err(|e| format!("{path}: no base64: {e}"))?),
        (_, Value::String(text)) => Some(text.clone().into_bytes()),
        (Value::Null, Value::Null) => None,
        _ => return Err(format!("{path}: the data is neither text nor null")),
    };
    let acl = match &value["acl"] {
        Value::Null => Acl::open(),
        Value::Array(list) => list.iter().map(|one| acl(one, &path)).collect::<Result<_, _>>()?,
        _ => return Err(format!("{path}: \"acl\" is no list")),
    };
    Ok(Node { path, data, acl })
}

fn acl(value: &Value, path: &str) -> Result<Acl, String> {
    match value.as_str().and_then(entry) {
        Some((acl, unknown)) if unknown.is_empty() => Ok(acl),
        _ => Err(format!("{path}: {value} in the ACL does not have the form scheme:id:perms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(nodes: Value) -> String {
        pretty(&json!({ "format": FORMAT, "version": VERSION, "root": "/a", "nodes": nodes, "left_out": [] }))
    }

    #[test]
    fn what_is_written_reads_back() {
        let nodes = json!([
            { "path": "/a", "data": null, "acl": ["world:anyone:cdrwa"] },
            { "path": "/a/b", "base64": "/w==", "acl": ["digest:u:p=:r"] },
            { "path": "/a/c", "data": "ü" },
        ]);
        let (root, nodes) = parse(&document(nodes)).unwrap();
        let data: Vec<_> = nodes.iter().map(|node| node.data.as_deref()).collect();
        assert_eq!((root.as_str(), data), ("/a", vec![None, Some(&[0xff][..]), Some("ü".as_bytes())]));
        assert_eq!(nodes[1].acl, [Acl::new(1, "digest", "u:p=")]);
        assert_eq!(nodes[2].acl, Acl::open());
    }

    #[test]
    fn a_damaged_document_is_refused_with_the_place() {
        for (nodes, said) in [
            (json!([{ "path": "/ab" }]), "/ab does not lie below /a"),
            (json!([{ "data": "" }]), "a node has no \"path\""),
            (json!([{ "path": "/a", "data": 5 }]), "/a: the data is neither text nor null"),
            (json!([{ "path": "/a", "acl": ["x"] }]), "/a: \"x\" in the ACL does not have the form scheme:id:perms"),
        ] {
            assert_eq!(parse(&document(nodes)).err().as_deref(), Some(said));
        }
        assert!(parse("{}").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn nodes_move_with_their_root() {
        assert_eq!(moved("/a", "/a", "/x/y"), "/x/y");
        assert_eq!(moved("/a/b", "/a", "/"), "/b");
        assert_eq!(moved("/", "/", "/x"), "/x");
        assert_eq!(moved("/b", "/", "/x"), "/x/b");
    }
}
