//! `rookeeper snapshot dump|check|diff|summary`: one snapshot, or two. Called by `cli::snapshot`.

use std::cmp::Ordering;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::ids::Zxid;
use crate::inspect::log::is_below;
use crate::inspect::log_text::{acl_json, data_json, time};
use crate::inspect::tree::{Node, Tree, read_into, zxid_of_name};
use crate::inspect::{FOUND, Failure, GOOD, Outcome};
use crate::records::{Owner, OwnerRules};
use crate::state::{Loader, StateRules};

fn owner_text(tree: &Tree, node: &Node) -> String {
    match tree.owner(node) {
        Owner::None => "persistent".into(),
        Owner::Session(id) => format!("ephemeral of {id}"),
        Owner::Container => "container".into(),
        Owner::Ttl { ttl_ms } => format!("ttl {ttl_ms} ms"),
    }
}

fn node_json(tree: &Tree, node: &Node, with_data: bool) -> Value {
    let stat = &node.stat;
    let mut value = json!({
        "path": node.shown_path(),
        "czxid": Zxid(stat.czxid).to_string(),
        "mzxid": Zxid(stat.mzxid).to_string(),
        "pzxid": Zxid(stat.pzxid).to_string(),
        "ctime_ms": stat.ctime,
        "mtime_ms": stat.mtime,
        "version": stat.version,
        "created_children": stat.cversion,
        "aversion": stat.aversion,
        "owner": format!("{:#x}", stat.ephemeral_owner),
        "kind": match tree.owner(node) {
            Owner::None => "persistent",
            Owner::Session(_) => "ephemeral",
            Owner::Container => "container",
            Owner::Ttl { .. } => "ttl",
        },
        "children": node.children.len(),
        "data_bytes": node.data.as_ref().map(|data| data.len()),
        "acl": tree.acl_of(node).map(|list| acl_json(&list)),
    });
    if with_data {
        value["data"] = data_json(node.data.as_deref());
    }
    value
}

fn print_node(tree: &Tree, node: &Node, with_data: bool, out: &mut dyn Write) -> io::Result<()> {
    let stat = &node.stat;
    writeln!(
        out,
        "{} {}, {} bytes, version {}, {} children, created {} ({}), changed {} ({})",
        node.shown_path(),
        owner_text(tree, node),
        node.bytes(),
        stat.version,
        node.children.len(),
        time(stat.ctime),
        Zxid(stat.czxid),
        time(stat.mtime),
        Zxid(stat.mzxid)
    )?;
    match (with_data, node.data.as_deref()) {
        (true, Some(data)) if !data.is_empty() => match std::str::from_utf8(data) {
            Ok(text) => writeln!(out, "  {text:?}"),
            Err(_) => writeln!(out, "  base64 {}", data_json(Some(data)).as_str().unwrap_or_default()),
        },
        _ => Ok(()),
    }
}

/// Prints every node at and below `top`, sorted by path, and for the whole tree the sessions.
pub fn dump(path: &Path, top: &str, as_json: bool, with_data: bool, out: &mut dyn Write) -> Outcome {
    let (tree, _) = Tree::read(path)?;
    if tree.find(top).is_none() {
        return Err(Failure::unable(format!("{}: it has no node {top}", path.display())));
    }
    for place in tree.sorted() {
        let node = &tree.nodes[place];
        if !is_below(&node.path, top) {
            continue;
        }
        if as_json {
            writeln!(out, "{}", node_json(&tree, node, with_data))?;
        } else {
            print_node(&tree, node, with_data, out)?;
        }
    }
    if top != "/" {
        return Ok(GOOD);
    }
    for (id, timeout_ms) in &tree.sessions {
        if as_json {
            writeln!(out, "{}", json!({ "session": id.to_string(), "timeout_ms": timeout_ms }))?;
        } else {
            writeln!(out, "session {id}, timeout {timeout_ms} ms")?;
        }
    }
    Ok(GOOD)
}

/// Reads it as a server would, checks its seals, and its digest against its content.
pub fn check(path: &Path, as_json: bool, out: &mut dyn Write) -> Outcome {
    // Whoever owns a node: that key is not in the file.
    let owners = OwnerRules::default();
    let mut loader = Loader::new(StateRules::new(owners, true));
    let loaded = match read_into(path, &mut loader) {
        Ok(loaded) => loaded,
        Err(Failure { code: FOUND, message }) => {
            if as_json {
                writeln!(out, "{}", json!({ "file": path.display().to_string(), "good": false, "error": message }))?;
            } else {
                writeln!(out, "damaged: {message}")?;
            }
            return Ok(FOUND);
        }
        Err(failure) => return Err(failure),
    };
    let named = zxid_of_name(path);
    let state = loader.finish(named.unwrap_or_default());
    let (found, promised) = (state.tree_digest(), loaded.trailer.digest);
    // Only a snapshot that is a cut shows the very state its digest is of.
    let is_cut = promised.is_some_and(|digest| Some(digest.zxid) == named);
    let wrong = promised.is_some_and(|digest| is_cut && digest.value != found);
    let digest = match promised {
        None => "none in the file".to_owned(),
        Some(digest) if wrong => format!("{:x} is written, the nodes make {found:x}", digest.value),
        Some(digest) if is_cut => format!("{:x}, as the nodes make it", digest.value),
        Some(digest) => {
            format!("{:x} at {}: it can be compared once the logs up to there are replayed", digest.value, digest.zxid)
        }
    };
    if as_json {
        let value = json!({
            "file": path.display().to_string(),
            "good": !wrong,
            "zxid": named.map(|zxid| zxid.to_string()),
            "nodes": loaded.nodes,
            "sessions": state.session_count(),
            "bytes": loaded.bytes,
            "digest": promised.map(|digest| format!("{:#x}", digest.value)),
            "digest_zxid": promised.map(|digest| digest.zxid.to_string()),
            "digest_of_nodes": format!("{found:#x}"),
            "last_processed_zxid": loaded.trailer.last_processed.map(|zxid| zxid.to_string()),
            "error": wrong.then(|| format!("digest {digest}")),
        });
        writeln!(out, "{value}")?;
    } else {
        let zxid = named.map_or_else(|| "unknown: the name has none".into(), |zxid| zxid.to_string());
        writeln!(
            out,
            "zxid {zxid}, {} nodes, {} sessions, {} bytes",
            loaded.nodes,
            state.session_count(),
            loaded.bytes
        )?;
        writeln!(out, "digest {digest}")?;
        writeln!(out, "{}", if wrong { "damaged" } else { "good" })?;
    }
    Ok(if wrong { FOUND } else { GOOD })
}

/// What is different about a node that both have.
fn changes(left: (&Tree, &Node), right: (&Tree, &Node)) -> Vec<String> {
    let (a, b) = (left.1, right.1);
    let mut changes = Vec::new();
    if a.data != b.data {
        changes.push(format!("data {} to {} bytes", a.bytes(), b.bytes()));
    }
    if left.0.acl_of(a) != right.0.acl_of(b) {
        changes.push("acl".to_owned());
    }
    let mut field = |name: &str, a: String, b: String| {
        if a != b {
            changes.push(format!("{name} {a} to {b}"));
        }
    };
    field("version", a.stat.version.to_string(), b.stat.version.to_string());
    field("aversion", a.stat.aversion.to_string(), b.stat.aversion.to_string());
    field("created children", a.stat.cversion.to_string(), b.stat.cversion.to_string());
    field("czxid", Zxid(a.stat.czxid).to_string(), Zxid(b.stat.czxid).to_string());
    field("mzxid", Zxid(a.stat.mzxid).to_string(), Zxid(b.stat.mzxid).to_string());
    field("pzxid", Zxid(a.stat.pzxid).to_string(), Zxid(b.stat.pzxid).to_string());
    field("ctime", time(a.stat.ctime), time(b.stat.ctime));
    field("mtime", time(a.stat.mtime), time(b.stat.mtime));
    if a.stat.ephemeral_owner != b.stat.ephemeral_owner {
        field("owner", owner_text(left.0, a), owner_text(right.0, b));
    }
    changes
}

/// How a node differs.
#[derive(Clone, Copy)]
enum Difference {
    Added,
    Removed,
    Changed,
}

/// Prints what the right one has more, less and otherwise, at and below `top`, sorted by path.
pub fn diff(left: &Path, right: &Path, top: &str, as_json: bool, out: &mut dyn Write) -> Outcome {
    let ((a, _), (b, _)) = (Tree::read(left)?, Tree::read(right)?);
    let places = |tree: &Tree| -> Vec<usize> {
        tree.sorted().into_iter().filter(|at| is_below(&tree.nodes[*at].path, top)).collect()
    };
    let (left_places, right_places) = (places(&a), places(&b));
    let (mut i, mut j) = (0, 0);
    let mut counts = [0_u64; 3];
    let mut print = |kind: Difference, path: &str, changes: Vec<String>| {
        counts[kind as usize] += 1;
        let (sign, what) = [("+", "added"), ("-", "removed"), ("~", "changed")][kind as usize];
        if as_json {
            writeln!(out, "{}", json!({ "path": path, "what": what, "changes": changes }))
        } else if changes.is_empty() {
            writeln!(out, "{sign} {path}")
        } else {
            writeln!(out, "{sign} {path}: {}", changes.join(", "))
        }
    };
    loop {
        let (l, r) = (left_places.get(i).map(|at| &a.nodes[*at]), right_places.get(j).map(|at| &b.nodes[*at]));
        let order = match (l, r) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(l), Some(r)) => l.path.cmp(&r.path),
        };
        match (order, l, r) {
            (Ordering::Less, Some(l), _) => print(Difference::Removed, l.shown_path(), Vec::new())?,
            (Ordering::Greater, _, Some(r)) => print(Difference::Added, r.shown_path(), Vec::new())?,
            (Ordering::Equal, Some(l), Some(r)) => {
                let changes = changes((&a, l), (&b, r));
                if !changes.is_empty() {
                    print(Difference::Changed, r.shown_path(), changes)?;
                }
            }
            _ => break,
        }
        i += usize::from(order != Ordering::Greater);
        j += usize::from(order != Ordering::Less);
    }
    let [added, removed, changed] = counts;
    if !as_json {
        writeln!(out, "{added} added, {removed} removed, {changed} changed")?;
    }
    Ok(if added + removed + changed == 0 { GOOD } else { FOUND })
}

/// What a summary shows.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The node to begin at.
    pub top: String,
    /// Levels below it that are listed.
    pub depth: usize,
    /// How many of the largest nodes and of the fullest parents are named.
    pub largest: usize,
    /// As one JSON object.
    pub json: bool,
}

/// Counts and sizes: of all, of each subtree, and which nodes stand out.
pub fn summary(path: &Path, how: &Summary, out: &mut dyn Write) -> Outcome {
    let (tree, _) = Tree::read(path)?;
    let Some(top) = tree.place(&how.top) else {
        return Err(Failure::unable(format!("{}: it has no node {}", path.display(), how.top)));
    };
    let weights = tree.weights();
    let base = depth_of(&tree.nodes[top].path);
    let places: Vec<usize> =
        tree.sorted().into_iter().filter(|at| is_below(&tree.nodes[*at].path, &tree.nodes[top].path)).collect();
    let listed: Vec<usize> =
        places.iter().copied().filter(|at| depth_of(&tree.nodes[*at].path) - base <= how.depth).collect();
    let by = |key: fn(&Node) -> u64| {
        let mut order = places.clone();
        order.sort_by_key(|at| std::cmp::Reverse(key(&tree.nodes[*at])));
        order.retain(|at| key(&tree.nodes[*at]) > 0);
        order.truncate(how.largest);
        order
    };
    let (largest, fullest) = (by(Node::bytes), by(|node| node.children.len() as u64));
    let count = |wanted: fn(&Owner) -> bool| places.iter().filter(|at| wanted(&tree.owner(&tree.nodes[**at]))).count();
    let ephemerals = count(|owner| matches!(owner, Owner::Session(_)));
    let containers = count(|owner| matches!(owner, Owner::Container));
    let ttls = count(|owner| matches!(owner, Owner::Ttl { .. }));
    let depth = places.iter().map(|at| depth_of(&tree.nodes[*at].path) - base).max().unwrap_or(0);
    if how.json {
        let subtree = |at: &usize| {
            let (nodes, bytes) = weights[*at];
            json!({ "path": tree.nodes[*at].shown_path(), "nodes": nodes, "data_bytes": bytes })
        };
        let value = json!({
            "file": path.display().to_string(),
            "nodes": weights[top].0,
            "data_bytes": weights[top].1,
            "depth": depth,
            "ephemerals": ephemerals,
            "containers": containers,
            "ttls": ttls,
            "sessions": tree.sessions.len(),
            "acls": tree.acls.len(),
            "subtrees": listed.iter().map(subtree).collect::<Vec<_>>(),
            "largest": largest.iter().map(|at| {
                json!({ "path": tree.nodes[*at].shown_path(), "data_bytes": tree.nodes[*at].bytes() })
            }).collect::<Vec<_>>(),
            "most_children": fullest.iter().map(|at| {
                json!({ "path": tree.nodes[*at].shown_path(), "children": tree.nodes[*at].children.len() })
            }).collect::<Vec<_>>(),
        });
        writeln!(out, "{value}")?;
        return Ok(GOOD);
    }
    writeln!(out, "nodes {}, data bytes {}, depth {depth}", weights[top].0, weights[top].1)?;
    writeln!(out, "ephemerals {ephemerals}, containers {containers}, ttl nodes {ttls}")?;
    writeln!(out, "sessions {}, access lists {}", tree.sessions.len(), tree.acls.len())?;
    writeln!(out, "\n{:>12} {:>14}  at and below", "nodes", "data bytes")?;
    for at in listed {
        writeln!(out, "{:>12} {:>14}  {}", weights[at].0, weights[at].1, tree.nodes[at].shown_path())?;
    }
    if !largest.is_empty() {
        writeln!(out, "\n{:>12}  largest nodes", "data bytes")?;
        largest
            .iter()
            .try_for_each(|at| writeln!(out, "{:>12}  {}", tree.nodes[*at].bytes(), tree.nodes[*at].shown_path()))?;
    }
    writeln!(out, "\n{:>12}  most children", "children")?;
    fullest
        .iter()
        .try_for_each(|at| writeln!(out, "{:>12}  {}", tree.nodes[*at].children.len(), tree.nodes[*at].shown_path()))?;
    Ok(GOOD)
}

/// The root is 0.
fn depth_of(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}
