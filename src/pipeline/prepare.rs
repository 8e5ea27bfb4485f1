//! A write becomes a transaction, or the error that is logged in its place (`PrepRequestProcessor.pRequest2Txn`). Every
//! rule looks at the tree as it will be when the write's turn comes: the state with all that is proposed laid over it.
//! The order of the checks decides which error a client sees, and is Apache's.

use crate::codes::Code;
use crate::ids::{SessionId, Zxid};
use crate::metrics::{self, Counter, top_namespace};
use crate::ops::{Create, Delete, MultiOp, OpCode, SetAcl, SetData, WriteOp};
use crate::pipeline::{Complaint, Pipeline, ReplyShape, Update};
use crate::records::{Acl, Owner, StatPersisted, TTL_MS_MAX, perms};
use crate::state::NodeId;
use crate::state::acl::AuthId;
use crate::state::digest::Prefix;
use crate::state::path;
use crate::state::pending::NodeRecord;
use crate::state::quota::{self, StatsTrack};
use crate::txn::{CheckVersionTxn, CreateOwner, CreateTxn, SetAclTxn, SetDataTxn, TxnBody, kind};
use crate::wrong::{self, Wrong};

/// Who writes, and which transaction it becomes.
#[derive(Clone, Copy)]
struct Writer<'a> {
    auth: &'a [AuthId],
    session: SessionId,
    zxid: Zxid,
}

/// The kinds of node that the flags of a create ask for (`CreateMode`).
struct Mode {
    owner: CreateOwner,
    sequential: bool,
}

/// The version after a change, if the one that is expected is the current one; -1 expects nothing, so no version becomes
/// that (Apache's does until 3.10).
fn next_version(current: i32, expected: i32) -> Result<i32, Code> {
    if expected != -1 && expected != current {
        return Err(Code::BadVersion);
    }
    Ok(match current.wrapping_add(1) {
        -1 => 0,
        next => next,
    })
}

impl ReplyShape {
    /// What the reply to a write looks like.
    pub(super) fn of(update: &Update) -> ReplyShape {
        let op = match update {
            Update::Write(op) => op,
            Update::CloseSession => return ReplyShape::Close,
        };
        match op {
            WriteOp::Create(Create { code: OpCode::Create, .. }) => ReplyShape::Path,
            WriteOp::Create(_) => ReplyShape::PathStat,
            WriteOp::SetData(_) | WriteOp::SetAcl(_) => ReplyShape::Stat,
            WriteOp::Reconfig(_) => ReplyShape::Config,
            WriteOp::Multi(ops) => ReplyShape::Multi(ops.iter().map(multi_code).collect()),
            WriteOp::Delete(_) | WriteOp::Malformed => ReplyShape::Empty,
        }
    }

    /// The operation as `cons` shows it.
    pub(super) fn short(&self, body: &TxnBody) -> &'static str {
        match self {
            ReplyShape::Connect => "SESS",
            _ => self.code(body).map_or("NA", OpCode::short),
        }
    }

    /// Where the operation is counted.
    pub(super) fn counter(&self, body: &TxnBody) -> Option<&'static Counter> {
        match self {
            ReplyShape::Connect => Some(&metrics::OP_COUNT_CREATE_SESSION),
            _ => self.code(body).and_then(OpCode::counter),
        }
    }

    fn code(&self, body: &TxnBody) -> Option<OpCode> {
        match self {
            ReplyShape::Multi(_) => Some(OpCode::Multi),
            ReplyShape::Path | ReplyShape::PathStat => Some(OpCode::Create),
            ReplyShape::Close => Some(OpCode::CloseSession),
            _ => OpCode::from_number(body.kind()),
        }
    }
}

fn multi_code(op: &MultiOp) -> OpCode {
    match op {
        MultiOp::Create(create) => create.code,
        MultiOp::Delete(_) => OpCode::Delete,
        MultiOp::SetData(_) => OpCode::SetData,
        MultiOp::Check { .. } => OpCode::Check,
    }
}

fn parent_of(path: &str) -> &str {
    path::split(path).expect("nodes other than the root have a parent").0
}

impl Pipeline {
    /// Makes the body of the write's transaction.
    pub(super) fn prepare(&mut self, auth: &[AuthId], session: SessionId, zxid: Zxid, op: WriteOp) -> TxnBody {
        let who = Writer { auth, session, zxid };
        let body = match op {
            WriteOp::Create(create) => self.prepare_create(who, create, false),
            WriteOp::Delete(delete) => self.prepare_delete(who, delete),
            WriteOp::SetData(set) => self.prepare_set_data(who, set),
            WriteOp::SetAcl(set) => self.prepare_set_acl(who, set),
            WriteOp::Multi(ops) => Ok(self.prepare_multi(who, ops)),
            WriteOp::Reconfig(request) => self.prepare_reconfig(auth, zxid, &request),
            WriteOp::Malformed => Err(Code::MarshallingError),
        };
        body.unwrap_or_else(|code| TxnBody::Error(code.value()))
    }

    /// All or nothing: from the first failure on, every operation becomes an error and what was pending of it goes.
    fn prepare_multi(&mut self, who: Writer<'_>, ops: Vec<MultiOp>) -> TxnBody {
        self.pending.begin();
        let mut failed = false;
        let mut bytes = 0;
        let mut subs = Vec::with_capacity(ops.len());
        for op in ops {
            let mut sub = if failed { Err(Code::RuntimeInconsistency) } else { self.prepare_multi_op(who, op) };
            bytes += sub.as_ref().map_or(0, TxnBody::size_hint);
            if bytes > self.rules.txn_body_bytes_max && sub.is_ok() {
                // Nobody could read it back.
                sub = Err(Code::MarshallingError);
            }
            failed |= sub.is_err();
            subs.push(sub.unwrap_or_else(|code| TxnBody::Error(code.value())));
        }
        if failed && !wrong::is_on(Wrong::MultiPartlyApplied) {
            self.pending.roll_back();
        } else {
            self.pending.keep();
        }
        TxnBody::Multi(subs)
    }

    fn prepare_multi_op(&mut self, who: Writer<'_>, op: MultiOp) -> Result<TxnBody, Code> {
        match op {
            MultiOp::Create(create) => self.prepare_create(who, create, true),
            MultiOp::Delete(delete) => self.prepare_delete(who, delete),
            MultiOp::SetData(set) => self.prepare_set_data(who, set),
            MultiOp::Check { path, version } => self.prepare_check(who, path, version),
        }
    }

    /// What the flags mean. Outside a multi the opcode decides about containers, inside it the flag does too.
    fn mode(&self, who: Writer<'_>, create: &Create, in_multi: bool) -> Result<Mode, Code> {
        let is_ttl = matches!(create.flags, 5 | 6);
        if !(0..=6).contains(&create.flags) {
            return Err(Code::BadArguments);
        }
        if is_ttl && !self.rules.extended_types {
            return Err(Code::Unimplemented);
        }
        let ttl_fits = create.code == OpCode::CreateTtl && (1..=TTL_MS_MAX).contains(&create.ttl_ms);
        // A TTL flag needs a ttl; a ttl needs a TTL flag, but that a multi lets pass as a plain create.
        if (is_ttl && !ttl_fits) || (create.code == OpCode::CreateTtl && !is_ttl && !in_multi) {
            return Err(Code::BadArguments);
        }
        let sequential = matches!(create.flags, 2 | 3 | 6);
        let container = create.code == OpCode::CreateContainer || (in_multi && create.flags == 4);
        let owner = if container {
            CreateOwner::Container
        } else if is_ttl {
            CreateOwner::Ttl { ttl_ms: create.ttl_ms }
        } else if matches!(create.flags, 1 | 3) {
            self.check_session_may_own(who.session)?;
            CreateOwner::Session
        } else {
            CreateOwner::None
        };
        Ok(Mode { owner, sequential })
    }

    fn check_session_may_own(&self, session: SessionId) -> Result<(), Code> {
        if wrong::is_on(Wrong::LocalSessionOwns) {
            return Ok(());
        }
        if self.is_local(session) {
            return Err(Code::EphemeralOnLocalSession);
        }
        if self.sessions.is_live(session) { Ok(()) } else { Err(Code::SessionExpired) }
    }

    fn prepare_create(&mut self, who: Writer<'_>, create: Create, in_multi: bool) -> Result<TxnBody, Code> {
        let mode = self.mode(who, &create, in_multi)?;
        if create.path.contains('\0') {
            return Err(Code::BadArguments);
        }
        let (parent_path, _) = path::split(&create.path).ok_or(Code::BadArguments)?;
        let parent_path = parent_path.to_owned();
        let acl = self.fix_up(create.acl.as_deref(), who.auth)?;
        let parent = self.pending.require(&self.state, &parent_path)?;
        self.check_acl(&parent.acl, perms::CREATE, who.auth)?;
        let mut path = create.path;
        if mode.sequential {
            let is_wrong = wrong::is_on(Wrong::SequenceReused);
            let count = if is_wrong { parent.num_children as i32 } else { parent.stat.cversion };
            path = self.numbered(path, &parent_path, count)?;
        }
        if !path::is_valid(&path) {
            return Err(Code::BadArguments);
        }
        if self.pending.find(&self.state, &path)?.is_some() {
            return Err(Code::NodeExists);
        }
        if matches!(parent.owner, Owner::Session(_)) {
            return Err(Code::NoChildrenForEphemerals);
        }
        let bytes = create.data.as_ref().map_or(0, Vec::len) as i64;
        self.check_quota(&path, 1, bytes)?;
        let parent_cversion = parent.stat.cversion.wrapping_add(1);
        let with_stat = create.code == OpCode::Create2 && !in_multi;
        let txn = CreateTxn { path, data: create.data, acl, owner: mode.owner, with_stat, parent_cversion };
        self.pend_create(who, &parent_path, &parent, &txn);
        Ok(TxnBody::Create(txn))
    }

    /// The path of a sequential node. Its number is the parent's count of creates; beyond the last one, 2147483647, the count
    /// stays, for Apache's servers apply it so, and numbers go on from -2147483648. Apache counts on only while it remembers,
    /// and then says for ever that the node exists.
    fn numbered(&mut self, path: String, parent_path: &str, count: i32) -> Result<String, Code> {
        let with = |number: i32| format!("{path}{number:010}");
        if count != i32::MAX {
            return Ok(with(count));
        }
        let mut number = match self.overflowed.get(parent_path) {
            Some(next) => *next,
            None => self.last_number(&path, parent_path).map_or(i32::MAX, |last| last.wrapping_add(1)),
        };
        while self.pending.find(&self.state, &with(number))?.is_some() {
            number = number.wrapping_add(1);
        }
        self.overflowed.insert(parent_path.to_owned(), number.wrapping_add(1));
        Ok(with(number))
    }

    /// The number of the last node with this name that was made when the count was at its end.
    fn last_number(&self, path: &str, parent_path: &str) -> Option<i32> {
        let tree = self.state.tree();
        let parent = tree.lookup(parent_path)?;
        let name = path.rsplit('/').next().unwrap_or_default();
        let number_of = |child: NodeId| {
            let digits = tree.node(child).name().strip_prefix(name)?;
            let number = digits.parse::<i32>().ok()?;
            let is_beyond = number == i32::MAX || number < 0;
            (is_beyond && format!("{number:010}") == digits).then_some(number)
        };
        // In the order in which they come.
        tree.children(parent).filter_map(number_of).max_by_key(|number| number.wrapping_sub(i32::MAX).cast_unsigned())
    }

    fn pend_create(&mut self, who: Writer<'_>, parent_path: &str, parent: &NodeRecord, txn: &CreateTxn) {
        let zxid = who.zxid.0;
        let mut parent_after = parent.clone();
        // As `State::apply` does: the counter only rises.
        if txn.parent_cversion > parent.stat.cversion {
            parent_after.stat.cversion = txn.parent_cversion;
            parent_after.stat.pzxid = zxid;
        }
        parent_after.num_children += 1;
        self.pending.put(parent_path, Some(parent), Some(parent_after), who.zxid);
        let owner = txn.owner.owner(who.session);
        let node = NodeRecord {
            stat: StatPersisted {
                czxid: zxid,
                mzxid: zxid,
                pzxid: zxid,
                ctime: self.now.wall_ms,
                mtime: self.now.wall_ms,
                ephemeral_owner: owner.raw(),
                ..StatPersisted::default()
            },
            owner,
            acl: txn.acl.as_slice().into(),
            num_children: 0,
            data_len: txn.data.as_ref().map_or(0, Vec::len),
            prefix: Prefix::of(&txn.path, txn.data.as_deref()),
        };
        self.pending.put(&txn.path, None, Some(node), who.zxid);
    }

    fn prepare_delete(&mut self, who: Writer<'_>, delete: Delete) -> Result<TxnBody, Code> {
        let path = delete.path;
        if path.contains('\0') || path::RESERVED.contains(&path.as_str()) {
            return Err(Code::BadArguments);
        }
        let (parent_path, _) = path::split(&path).ok_or(Code::BadArguments)?;
        let parent = self.pending.require(&self.state, parent_path)?;
        if !wrong::is_on(Wrong::DeleteUnchecked) {
            self.check_acl(&parent.acl, perms::DELETE, who.auth)?;
        }
        let node = self.pending.require(&self.state, &path)?;
        if wrong::is_on(Wrong::DeleteErrorsSwapped) && node.num_children > 0 {
            return Err(Code::NotEmpty);
        }
        next_version(node.stat.version, delete.version)?;
        if node.num_children > 0 {
            return Err(Code::NotEmpty);
        }
        self.pend_delete(who.zxid, &path, &node);
        Ok(TxnBody::Delete { path, container: false })
    }

    fn pend_delete(&mut self, zxid: Zxid, path: &str, node: &NodeRecord) {
        self.pend_loss(zxid, parent_of(path), 1);
        self.pending.put(path, Some(node), None, zxid);
    }

    /// So many children of a node go.
    fn pend_loss(&mut self, zxid: Zxid, parent_path: &str, children: u32) {
        if let Ok(Some(parent)) = self.pending.find(&self.state, parent_path) {
            let mut after = parent.clone();
            if !wrong::is_on(Wrong::ChildZxidKept) {
                after.stat.pzxid = after.stat.pzxid.max(zxid.0);
            }
            after.num_children -= children;
            self.pending.put(parent_path, Some(&parent), Some(after), zxid);
        }
    }

    /// The first ephemerals of a session that closes, if there are more than one transaction can name.
    pub(super) fn part_of_close(&self, paths: &mut Vec<String>) -> Option<Vec<String>> {
        let mut bytes = 0;
        let fit = paths.iter().take_while(|path| {
            bytes += path.len() + 16;
            bytes <= self.rules.txn_body_bytes_max
        });
        let rest = paths.split_off(fit.count());
        (!rest.is_empty()).then(|| std::mem::replace(paths, rest))
    }

    /// These nodes are gone, in one transaction. Siblings stand together, and their parent changes once for all of them.
    pub(super) fn pend_deletes(&mut self, zxid: Zxid, paths: &[String]) {
        for siblings in paths.chunk_by(|one, next| parent_of(one) == parent_of(next)) {
            let mut gone = 0;
            for path in siblings {
                if let Ok(Some(node)) = self.pending.find(&self.state, path) {
                    self.pending.put(path, Some(&node), None, zxid);
                    gone += 1;
                }
            }
            self.pend_loss(zxid, parent_of(&siblings[0]), gone);
        }
    }

    /// The removal of a container or TTL node, unless it has children by now, or was made anew or changed: then there is nothing to do, and no zxid is
    /// spent on it.
    pub(super) fn prepare_removal(&mut self, path: String, zxid: Zxid) -> Option<TxnBody> {
        let node = self.pending.find(&self.state, &path).ok()??;
        if !self.is_due(&node.stat, node.num_children, node.owner) {
            return None;
        }
        self.pend_delete(zxid, &path, &node);
        Some(TxnBody::Delete { path, container: true })
    }

    fn prepare_set_data(&mut self, who: Writer<'_>, set: SetData) -> Result<TxnBody, Code> {
        if !path::is_valid(&set.path) {
            return Err(Code::BadArguments);
        }
        let node = self.pending.require(&self.state, &set.path)?;
        self.check_acl(&node.acl, perms::WRITE, who.auth)?;
        let data_len = set.data.as_ref().map_or(0, Vec::len);
        let applied_len = self.state.tree().lookup(&set.path).map_or(0, |id| self.state.tree().node(id).data_len());
        self.check_quota(&set.path, 0, data_len as i64 - applied_len as i64)?;
        let version = next_version(node.stat.version, set.version)?;
        let mut after = node.clone();
        after.stat.version = version;
        after.stat.mzxid = who.zxid.0;
        after.stat.mtime = self.now.wall_ms;
        after.data_len = data_len;
        after.prefix = Prefix::of(if set.path == "/" { "" } else { &set.path }, set.data.as_deref());
        self.pending.put(&set.path, Some(&node), Some(after), who.zxid);
        Ok(TxnBody::SetData(SetDataTxn { path: set.path, data: set.data, version }))
    }

    fn prepare_set_acl(&mut self, who: Writer<'_>, set: SetAcl) -> Result<TxnBody, Code> {
        if !path::is_valid(&set.path) {
            return Err(Code::BadArguments);
        }
        let acl: Vec<Acl> = self.fix_up(set.acl.as_deref(), who.auth)?;
        let node = self.pending.require(&self.state, &set.path)?;
        self.check_acl(&node.acl, perms::ADMIN, who.auth)?;
        let version = next_version(node.stat.aversion, set.version)?;
        let mut after = node.clone();
        after.stat.aversion = version;
        after.acl = acl.as_slice().into();
        self.pending.put(&set.path, Some(&node), Some(after), who.zxid);
        Ok(TxnBody::SetAcl(SetAclTxn { path: set.path, acl, version }))
    }

    fn prepare_check(&mut self, who: Writer<'_>, path: String, version: i32) -> Result<TxnBody, Code> {
        if !path::is_valid(&path) {
            return Err(Code::BadArguments);
        }
        let node = self.pending.require(&self.state, &path)?;
        self.check_acl(&node.acl, perms::READ, who.auth)?;
        let version = if wrong::is_on(Wrong::CheckIgnoresVersion) { -1 } else { version };
        let version = next_version(node.stat.version, version)?;
        Ok(TxnBody::Check(CheckVersionTxn { path, version }))
    }

    /// Quotas count the applied tree only. A soft limit is logged; a hard one refuses, if quotas are enforced.
    fn check_quota(&mut self, path: &str, count_diff: i64, bytes_diff: i64) -> Result<(), Code> {
        let Some(subject) = self.state.quotas().covering(path) else { return Ok(()) };
        let track = |path: String| {
            let id = self.state.tree().lookup(&path);
            StatsTrack::parse(id.and_then(|id| self.state.tree().node(id).data()))
        };
        let (limits, usage) = (track(quota::limits_path(subject)), track(quota::stats_path(subject)));
        let Some(exceeded) = quota::check(subject, limits, usage, count_diff, bytes_diff) else { return Ok(()) };
        self.complain(Complaint::Quota, || {
            let kind = if exceeded.hard { "hard" } else { "soft" };
            let quota::Exceeded { subject, what, limit, wanted, .. } = &exceeded;
            format!("quota exceeded: {subject} would have {wanted} {what}, its {kind} limit is {limit}")
        });
        if exceeded.hard && self.rules.enforce_quota {
            if let Some(namespace) = top_namespace(path) {
                metrics::QUOTA_EXCEEDED_ERROR_PER_NAMESPACE.add(namespace, 1);
            }
            return Err(Code::QuotaExceeded);
        }
        Ok(())
    }
}

/// Opcodes and transaction types of the operations that have both are the same numbers.
const _: () = assert!(OpCode::Create as i32 == kind::CREATE && OpCode::CreateTtl as i32 == kind::CREATE_TTL);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_round_and_pass_over_the_one_that_expects_nothing() {
        assert_eq!(next_version(0, -1), Ok(1));
        assert_eq!(next_version(7, 7), Ok(8));
        assert_eq!(next_version(7, 8), Err(Code::BadVersion));
        assert_eq!(next_version(i32::MAX, -1), Ok(i32::MIN));
        assert_eq!(next_version(-2, -2), Ok(0));
    }
}
