//! What a read has to find as of a transaction.

use std::rc::Rc;

use rookeeper::ids::Zxid;
use rookeeper::ops::{MultiReadOp, Op, ReadOp};

use super::acl::{ADMIN, READ, Who};
use super::answer::{Answer, Part, read_kind};
use super::code::{self, Code};
use super::tree::{CONFIG, Node, Owner, Tree};

/// The answer; `None` where there is none to compare with.
pub fn read(tree: &Tree, zxid: Zxid, session: i64, who: &Who, op: &Op) -> Option<Result<Answer, Code>> {
    let find = |path: &str, perms: i32| {
        let node = tree.as_of(path, zxid).ok_or(code::NO_NODE)?;
        who.must(&node.acl, perms)?;
        Ok(node)
    };
    Some(match op {
        // What it was first each server knows from its own files.
        Op::Read(ReadOp::GetData(target) | ReadOp::Exists(target)) if target.path == CONFIG => return None,
        Op::Read(ReadOp::Exists(target)) => find(&target.path, READ).map(|node| Answer::Stat(node.stat())),
        Op::Read(ReadOp::GetData(target)) => find(&target.path, READ).map(data),
        Op::Read(ReadOp::GetAcl { path }) => {
            find(path, READ | ADMIN).map(|node| Answer::Acl(who.seen(&node.acl), node.stat()))
        }
        Op::Read(ReadOp::GetChildren { target, with_stat }) => find(&target.path, READ).map(|node| {
            let names = names(node);
            if *with_stat { Answer::ChildrenStat(names, node.stat()) } else { Answer::Children(names) }
        }),
        Op::Read(ReadOp::GetAllChildrenNumber { path }) => find(path, READ).map(|_| {
            let below = if path == "/" { "/".to_owned() } else { format!("{path}/") };
            let is_below = |other: &str| other.starts_with(&below) && other != path;
            Answer::Number(tree.all_as_of(zxid).filter(|(other, _)| is_below(other)).count() as i32)
        }),
        Op::Read(ReadOp::GetEphemerals { prefix }) => {
            let prefix = prefix.as_deref().filter(|prefix| *prefix != "/").unwrap_or_default();
            let own = tree.all_as_of(zxid).filter(|(_, node)| node.owner == Owner::Session(session));
            let own = own.map(|(path, _)| path.to_owned()).filter(|path| path.starts_with(prefix));
            Ok(Answer::Children(own.collect()))
        }
        Op::Read(ReadOp::MultiRead(ops)) => {
            let part = |op: &MultiReadOp| {
                let found = find(op.path(), READ).map(|node| match op {
                    MultiReadOp::GetData { .. } => data(node),
                    MultiReadOp::GetChildren { .. } => Answer::Children(names(node)),
                });
                Part { kind: if found.is_ok() { read_kind(op) } else { -1 }, result: found }
            };
            Ok(Answer::Parts(ops.iter().map(part).collect()))
        }
        Op::Read(ReadOp::WhoAmI) => Ok(Answer::Identities(who.shown())),
        Op::Read(ReadOp::Sync { path }) => Ok(Answer::Echo(path.clone())),
        _ => return None,
    })
}

fn data(node: &Rc<Node>) -> Answer {
    Answer::Data(node.data.as_deref().map(<[u8]>::to_vec), node.stat())
}

fn names(node: &Rc<Node>) -> Vec<String> {
    node.children.iter().cloned().collect()
}
