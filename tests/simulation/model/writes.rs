//! What a write comes to, by the rules of `PrepRequestProcessor`: which error comes first, and what changes.

use rookeeper::ops::{Create, Delete, MultiOp, Op, OpCode, SetAcl, SetData, WriteOp};

use super::acl::{self, Who};
use super::answer::{Answer, Part, part_kind};
use super::code::{self, Code};
use super::tree::{self, Moment, Owner, Tree};

/// Longest time to live.
const TTL_MS_MAX: i64 = (1 << 40) - 1;

/// Who writes, and when.
#[derive(Clone, Copy)]
struct Writer<'a> {
    at: Moment,
    /// What its ephemerals belong to; none may be made without one.
    session: Option<i64>,
    who: &'a Who,
}

/// Does it. What a failure leaves behind the caller takes back.
pub fn write(tree: &mut Tree, at: Moment, session: Option<i64>, who: &Who, op: &Op) -> Result<Answer, Code> {
    let by = Writer { at, session, who };
    match op {
        Op::Write(WriteOp::Create(create)) => {
            let made = do_create(tree, by, create, false)?;
            let stat = tree.require(&made)?.stat();
            Ok(if create.code == OpCode::Create { Answer::Path(made) } else { Answer::PathStat(made, stat) })
        }
        Op::Write(WriteOp::Delete(delete)) => do_delete(tree, by, delete),
        Op::Write(WriteOp::SetData(set)) => do_set_data(tree, by, set),
        Op::Write(WriteOp::SetAcl(set)) => do_set_acl(tree, by, set),
        Op::Write(WriteOp::Multi(ops)) => Ok(Answer::Parts(do_multi(tree, by, ops))),
        _ => Err(code::BAD_ARGUMENTS),
    }
}

/// All or nothing: those in front of the one that fails are told 0, those behind it that nobody looked at them.
fn do_multi(tree: &mut Tree, by: Writer<'_>, ops: &[MultiOp]) -> Vec<Part> {
    let mark = tree.mark();
    let mut parts = Vec::new();
    for op in ops {
        let result = match op {
            MultiOp::Create(create) => do_create(tree, by, create, true).and_then(|made| {
                let stat = tree.require(&made)?.stat();
                Ok(if create.code == OpCode::Create { Answer::Path(made) } else { Answer::PathStat(made, stat) })
            }),
            MultiOp::Delete(delete) => do_delete(tree, by, delete),
            MultiOp::SetData(set) => do_set_data(tree, by, set),
            MultiOp::Check { path, version } => do_check(tree, by, path, *version),
        };
        match result {
            Ok(answer) => parts.push(Part { kind: part_kind(op), result: Ok(answer) }),
            Err(code) => {
                tree.take_back(mark);
                let failed = parts.len();
                let code_of = |n: usize| match n {
                    n if n < failed => 0,
                    n if n == failed => code,
                    _ => code::RUNTIME_INCONSISTENCY,
                };
                return (0..ops.len()).map(|n| Part { kind: -1, result: Err(code_of(n)) }).collect();
            }
        }
    }
    parts
}

/// The version that follows; none is -1, which stands for any.
fn next_version(current: i32, expected: i32) -> Result<i32, Code> {
    if expected != -1 && expected != current {
        return Err(code::BAD_VERSION);
    }
    Ok(if current == -2 { 0 } else { current.wrapping_add(1) })
}

fn owner(by: Writer<'_>, create: &Create, in_multi: bool) -> Result<Owner, Code> {
    let (is_ttl, wants_ttl) = (matches!(create.flags, 5 | 6), create.code == OpCode::CreateTtl);
    let is_known = (0..=6).contains(&create.flags);
    let is_ttl_good = wants_ttl && (1..=TTL_MS_MAX).contains(&create.ttl_ms);
    if !is_known || (is_ttl && !is_ttl_good) || (wants_ttl && !is_ttl && !in_multi) {
        return Err(code::BAD_ARGUMENTS);
    }
    Ok(match create.flags {
        _ if create.code == OpCode::CreateContainer => Owner::Container,
        4 if in_multi => Owner::Container,
        5 | 6 => Owner::Ttl(create.ttl_ms),
        1 | 3 => Owner::Session(by.session.ok_or(code::EPHEMERAL_ON_LOCAL_SESSION)?),
        _ => Owner::Nobody,
    })
}

fn do_create(tree: &mut Tree, by: Writer<'_>, create: &Create, in_multi: bool) -> Result<String, Code> {
    let owner = owner(by, create, in_multi)?;
    if !create.path.contains('/') || create.path.contains('\0') {
        return Err(code::BAD_ARGUMENTS);
    }
    let acl = by.who.fix_up(create.acl.as_deref())?;
    let parent = match create.path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    };
    let above = tree.require(parent)?;
    by.who.must(&above.acl, acl::CREATE)?;
    let mut path = create.path.clone();
    if matches!(create.flags, 2 | 3 | 6) {
        path.push_str(&format!("{:010}", above.made));
    }
    if !tree::is_valid(&path) {
        return Err(code::BAD_ARGUMENTS);
    }
    if tree.get(&path).is_some() {
        return Err(code::NODE_EXISTS);
    }
    if matches!(above.owner, Owner::Session(_)) {
        return Err(code::NO_CHILDREN_FOR_EPHEMERALS);
    }
    tree.create(by.at, &path, create.data.as_deref(), acl, owner);
    Ok(path)
}

fn do_delete(tree: &mut Tree, by: Writer<'_>, delete: &Delete) -> Result<Answer, Code> {
    let path = &delete.path;
    if path.contains('\0') || tree::RESERVED.contains(&path.as_str()) {
        return Err(code::BAD_ARGUMENTS);
    }
    let (parent, _) = tree::split(path).ok_or(code::BAD_ARGUMENTS)?;
    by.who.must(&tree.require(parent)?.acl, acl::DELETE)?;
    let node = tree.require(path)?;
    next_version(node.version, delete.version)?;
    if !node.children.is_empty() {
        return Err(code::NOT_EMPTY);
    }
    tree.delete(by.at, path);
    Ok(Answer::Nothing)
}

fn do_set_data(tree: &mut Tree, by: Writer<'_>, set: &SetData) -> Result<Answer, Code> {
    if !tree::is_valid(&set.path) {
        return Err(code::BAD_ARGUMENTS);
    }
    let node = tree.require(&set.path)?;
    by.who.must(&node.acl, acl::WRITE)?;
    let version = next_version(node.version, set.version)?;
    tree.set_data(by.at, &set.path, set.data.as_deref(), version);
    Ok(Answer::Stat(tree.require(&set.path)?.stat()))
}

fn do_set_acl(tree: &mut Tree, by: Writer<'_>, set: &SetAcl) -> Result<Answer, Code> {
    if !tree::is_valid(&set.path) {
        return Err(code::BAD_ARGUMENTS);
    }
    let acl = by.who.fix_up(set.acl.as_deref())?;
    let node = tree.require(&set.path)?;
    by.who.must(&node.acl, acl::ADMIN)?;
    let version = next_version(node.acl_version, set.version)?;
    tree.set_acl(&set.path, acl, version);
    Ok(Answer::Stat(tree.require(&set.path)?.stat()))
}

fn do_check(tree: &Tree, by: Writer<'_>, path: &str, version: i32) -> Result<Answer, Code> {
    if !tree::is_valid(path) {
        return Err(code::BAD_ARGUMENTS);
    }
    let node = tree.require(path)?;
    by.who.must(&node.acl, acl::READ)?;
    next_version(node.version, version)?;
    Ok(Answer::Nothing)
}
