//! `zkSnapShotToolkit.sh` (`SnapshotFormatter`): prints a snapshot, as text or as JSON for `ncdu`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::admin::java::date;
use crate::inspect::tree::{Node, Tree, zxid_of_name};
use crate::inspect::{Failure, GOOD, Outcome};
use crate::records::StatPersisted;
use crate::scripts::java::{hash_order, long_hash, string_hash, zone};
use crate::scripts::{UNEXPECTED, invalid};

const USAGE: &str = "USAGE: SnapshotFormatter [-d|-json] snapshot_file
       -d dump the data for each znode
       -json dump znode info in json format";

/// Capacity of a node's set of children, and of the map of sessions, while they are empty.
const CHILDREN_CAPACITY: usize = 8;
const SESSIONS_CAPACITY: usize = 16;

/// The tool. `wall_ms` goes into the JSON.
pub fn format_snapshot(args: &[String], wall_ms: i64, out: &mut dyn Write) -> Outcome {
    let flags = args.iter().take_while(|arg| *arg == "-d" || *arg == "-json").count();
    let [name] = &args[flags..] else { return Err(invalid(USAGE)) };
    let has = |flag: &str| args[..flags].iter().any(|arg| arg == flag);
    let path = check_input(name)?;
    if has("-d") && has("-json") {
        return Err(invalid("Cannot specify both data dump (-d) and json mode (-json) in same call"));
    }
    let tree = read(&path)?;
    if has("-json") {
        print_json(&tree, wall_ms, out)?;
    } else {
        print_text(&tree, &path, has("-d"), out)?;
    }
    Ok(GOOD)
}

/// `ZKUtil.validateFileInput`.
fn check_input(name: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(name);
    let shown = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    let shown = shown.display();
    if !path.exists() {
        return Err(invalid(format!("File '{shown}' does not exist.")));
    }
    if fs::File::open(&path).is_err() {
        return Err(invalid(format!("Read permission is denied on the file '{shown}'")));
    }
    if path.is_dir() {
        return Err(invalid(format!("'{shown}' is a directory. it must be a file.")));
    }
    Ok(path)
}

/// Reads a snapshot; whatever is wrong with it is the end, with code 1.
pub(super) fn read(path: &Path) -> Result<Tree, Failure> {
    Tree::read(path).map(|(tree, _)| tree).map_err(|failure| Failure { code: UNEXPECTED, ..failure })
}

/// A node's children in the order in which Java walks them.
pub(super) fn children(tree: &Tree, node: &Node) -> Vec<usize> {
    let mut children = node.children.clone();
    hash_order(&mut children, CHILDREN_CAPACITY, |child| string_hash(name_of(&tree.nodes[*child])));
    children
}

fn name_of(node: &Node) -> &str {
    node.path.rsplit_once('/').map_or("/", |(_, name)| name)
}

fn print_text(tree: &Tree, path: &Path, with_data: bool, out: &mut dyn Write) -> io::Result<()> {
    let zone = zone();
    let mut zxid = zxid_of_name(path).map_or(-1, |zxid| zxid.0);
    // The root counts under both of its names.
    writeln!(out, "ZNode Details (count={}):", tree.nodes.len() + 1)?;
    let mut waiting = vec![0];
    while let Some(node) = waiting.pop().and_then(|at| tree.nodes.get(at)) {
        writeln!(out, "----\n{}", node.shown_path())?;
        let StatPersisted { czxid, mzxid, pzxid, ctime, mtime, version, cversion, aversion, ephemeral_owner } =
            node.stat;
        writeln!(out, "  cZxid = {czxid:#016x}\n  ctime = {}", date(ctime, &zone))?;
        writeln!(out, "  mZxid = {mzxid:#016x}\n  mtime = {}", date(mtime, &zone))?;
        writeln!(out, "  pZxid = {pzxid:#016x}\n  cversion = {cversion}\n  dataVersion = {version}")?;
        writeln!(out, "  aclVersion = {aversion}\n  ephemeralOwner = {ephemeral_owner:#016x}")?;
        if with_data {
            writeln!(out, "  data = {}", BASE64.encode(node.data.as_deref().unwrap_or_default()))?;
        } else {
            writeln!(out, "  dataLength = {}", node.bytes())?;
        }
        zxid = zxid.max(mzxid).max(pzxid);
        waiting.extend(children(tree, node).into_iter().rev());
    }
    writeln!(out, "----\nSession Details (sid, timeout, ephemeralCount):")?;
    let mut sessions = tree.sessions.clone();
    hash_order(&mut sessions, SESSIONS_CAPACITY, |(id, _)| long_hash(id.0));
    for (id, timeout_ms) in sessions {
        let count = tree.nodes.iter().filter(|node| node.stat.ephemeral_owner == id.0).count();
        writeln!(out, "{:#016x}, {timeout_ms}, {count}", id.0)?;
    }
    writeln!(out, "----\nLast zxid: {zxid:#x}")
}

/// A step of the walk that prints JSON.
enum Step {
    Node(usize),
    Close,
}

fn print_json(tree: &Tree, wall_ms: i64, out: &mut dyn Write) -> io::Result<()> {
    write!(out, r#"[1,0,{{"progname":"SnapshotFormatter.java","progver":"0.01","timestamp":{wall_ms}}}"#)?;
    let (mut inode, mut waiting) = (1000, vec![Step::Node(0)]);
    while let Some(step) = waiting.pop() {
        let Step::Node(at) = step else {
            write!(out, "]")?;
            continue;
        };
        let Some(node) = tree.nodes.get(at) else { continue };
        inode += 1;
        let open = if node.children.is_empty() { "" } else { "[" };
        let (name, bytes) = (Value::from(name_of(node)), node.bytes());
        write!(out, r#",{open}{{"name":{name},"asize":{bytes},"dsize":{bytes},"dev":0,"ino":{inode}}}"#)?;
        if !node.children.is_empty() {
            waiting.push(Step::Close);
            waiting.extend(children(tree, node).into_iter().rev().map(Step::Node));
        }
    }
    write!(out, "]")
}
