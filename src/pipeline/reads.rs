//! Reads, answered from the applied state (`FinalRequestProcessor`, the read half), and watches: leaving, dropping and
//! firing them.

use crate::codes::Code;
use crate::ids::{ConnId, SessionId, Zxid};
use crate::jute::{Writer, len_i32, put_counted};
use crate::limits::REPLY_BYTES_MAX;
use crate::metrics;
use crate::ops::{MultiReadOp, OpCode, ReadOp, SetWatches, WatchSelection};
use crate::parts::{Parts, SHARED_BYTES_MIN, Shared};
use crate::pipeline::reply_budget::CHILDREN_LARGE;
use crate::pipeline::watches::{mode, modes_of};
use crate::pipeline::{Complaint, Pipeline, Query, Read, replies};
use crate::records::{Acl, perms};
use crate::state::acl::{self, AuthId, READ_OR_ADMIN};
use crate::state::{Change, ChangeKind, Listed, NodeId, State};
use crate::wrong::{self, Wrong};

/// Event types (`Watcher.Event.EventType`).
mod event {
    pub const CREATED: i32 = 1;
    pub const DELETED: i32 = 2;
    pub const DATA_CHANGED: i32 = 3;
    pub const CHILDREN_CHANGED: i32 = 4;
}

/// The xid that a ping is always answered with.
const PING_XID: i32 = -2;
/// Header zxid of catch-up events, and of the answer to an unknown opcode.
const NO_ZXID: Zxid = Zxid(-1);

impl Pipeline {
    /// Answers a read now: everything its connection asked before is answered.
    pub(super) fn serve_read(&mut self, id: ConnId, read: &mut Read) {
        let answer = read.answer.take().filter(|answer| answer.is_done());
        let (xid, op_number, received_us) = (read.xid, read.op_number, read.received_us);
        let Some(session) = self.conns.get(&id).and_then(|conn| conn.session) else {
            // The session moved away, or the connection was given up, while this waited.
            if self.conns.contains_key(&id) {
                self.tell(id).answered += 1;
            }
            return;
        };
        let code = OpCode::from_number(op_number);
        let op = code.map_or("NA", OpCode::short);
        let (xid, zxid) = match &read.query {
            Query::Read(ReadOp::Unknown) => (xid, NO_ZXID),
            Query::Read(ReadOp::Ping) => (PING_XID, self.state.last_zxid()),
            _ => (xid, self.state.last_zxid()),
        };
        if let Query::Read(ReadOp::SetWatches(watches)) = &read.query {
            self.set_watches(id, session, watches);
        }
        // The reply is written where it is sent from.
        let mut bytes = std::mem::take(&mut self.tell(id).bytes);
        let own_bytes = bytes.own_len();
        let start = replies::begin(&mut bytes, xid, zxid);
        let result = match &read.query {
            Query::Refused(code) => {
                if *code == Code::ThrottledOp {
                    metrics::THROTTLED_OPS.add(1);
                }
                Err(*code)
            }
            // A check outside a multi is none, and the end of its connection.
            Query::Read(ReadOp::Unknown) => Err(Code::Unimplemented),
            asked => {
                replies::count_op(code.and_then(OpCode::counter));
                match (asked, answer) {
                    (Query::Read(_), Some(answer)) => {
                        answer.write(&mut bytes);
                        replies::multi_end(bytes.own());
                        Ok(())
                    }
                    (Query::Read(op), None) => self.read(&mut bytes, id, session, op, &read.auth),
                    _ => Ok(()),
                }
            }
        };
        replies::finish(&mut bytes, start, result);
        replies::count_size(bytes.len_since(start));
        let latency_ms = ((self.now_us - received_us) / 1000).max(0);
        if self.now_us - received_us > self.rules.slow_us {
            self.warn_of_slow_read(id, session, op, read);
        }
        metrics::READLATENCY.record(latency_ms);
        metrics::REQUEST_LATENCY.record(latency_ms);
        self.reply_budget.on_reply(bytes.own_len() - own_bytes);
        let is_flood = bytes.len() > REPLY_BYTES_MAX;
        let is_full = bytes.len() > self.rules.full_bytes;
        if is_full && let Some(conn) = self.conns.get_mut(&id) {
            conn.is_full = true;
        }
        let out = self.tell(id);
        out.tell_drained |= is_full;
        out.bytes = bytes;
        out.note(op, xid, zxid, received_us);
        if is_flood {
            self.give_up_flood(id, read);
        }
        match &read.query {
            Query::CloseSession => {
                self.locals.remove(session);
                self.close_connection(id);
            }
            Query::Read(ReadOp::Unknown) => {
                self.complain(Complaint::UnknownOp, || {
                    format!("session {session}: unknown opcode {op_number}; closed")
                });
                self.close_connection(id);
            }
            Query::Read(_) | Query::Refused(_) => {}
        }
    }

    /// Closes a connection without what it was to be told, for that can neither be held nor be made later. Its session lives
    /// on.
    pub(super) fn give_up_flood(&mut self, id: ConnId, read: &Read) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let session = conn.session.take();
        let op = OpCode::from_number(read.op_number).map_or("NA", OpCode::short);
        let bytes = std::mem::take(&mut self.tell(id).bytes).len();
        self.complain(Complaint::Flood, || {
            let session = session.map_or_else(|| "a connection".to_owned(), |session| format!("session {session}"));
            format!("{session}: {op} asks for more than can be held, behind {bytes} bytes of answers not taken; closed")
        });
        self.close_connection(id);
    }

    /// Writes the body of a reply, or fails; what a failure wrote is taken back by the caller.
    fn read(
        &mut self,
        out: &mut Parts,
        id: ConnId,
        session: SessionId,
        op: &ReadOp,
        auth: &[AuthId],
    ) -> Result<(), Code> {
        match op {
            ReadOp::Exists(target) => {
                let found = self.exists(&target.path, auth);
                if target.watch && matches!(found, Ok(_) | Err(Code::NoNode)) {
                    self.watches.add(&target.path, id, session, mode::DATA);
                }
                let node = found?;
                count_read(&target.path, 0);
                self.state.stat(node).write(out.own());
            }
            ReadOp::GetData(target) => {
                let node = self.readable(&target.path, perms::READ, auth)?;
                count_read(&target.path, self.write_data(out, node));
                if target.watch {
                    self.watches.add(&target.path, id, session, mode::DATA);
                }
            }
            ReadOp::GetChildren { target, with_stat } => {
                let node = self.readable(&target.path, perms::READ, auth)?;
                count_read(&target.path, self.write_children(out, node));
                if *with_stat {
                    self.state.stat(node).write(out.own());
                }
                if target.watch {
                    self.watches.add(&target.path, id, session, mode::CHILD);
                }
            }
            ReadOp::GetAcl { path } => self.write_acl(out.own(), path, auth)?,
            ReadOp::GetAllChildrenNumber { path } => {
                let node = self.readable(path, perms::READ, auth)?;
                out.own().put_int(len_i32(self.state.tree().node(node).descendants() as usize));
            }
            ReadOp::MultiRead(ops) => self.multi_read(out, ops, auth),
            ReadOp::Sync { path } => out.own().put_opt_string(path.as_deref()),
            ReadOp::GetEphemerals { prefix } => self.write_ephemerals(out, session, prefix.as_deref()),
            ReadOp::WhoAmI => write_identities(out.own(), auth),
            ReadOp::AddWatch { path, recursive } => {
                self.watches.add(path, id, session, if *recursive { mode::RECURSIVE } else { mode::PERSISTENT });
                out.own().put_int(0);
            }
            ReadOp::CheckWatches(WatchSelection { path, kind }) => {
                self.had_watch(self.watches.modes(path, id) & modes_of(*kind))?;
            }
            ReadOp::RemoveWatches(WatchSelection { path, kind }) => {
                let had = self.watches.remove(path, id, modes_of(*kind));
                self.had_watch(had)?;
            }
            ReadOp::Ping | ReadOp::SetWatches(_) => {}
            ReadOp::Malformed => return Err(Code::MarshallingError),
            ReadOp::Unknown => return Err(Code::Unimplemented),
        }
        Ok(())
    }

    fn had_watch(&self, modes: u8) -> Result<(), Code> {
        if modes == 0 { Err(Code::NoWatcher) } else { Ok(()) }
    }

    /// Whether these identities have one of the permissions on the list.
    pub(super) fn check_acl(&self, list: &[Acl], wanted: i32, auth: &[AuthId]) -> Result<(), Code> {
        if self.rules.skip_acl || acl::allows(list, wanted, auth) { Ok(()) } else { Err(Code::NoAuth) }
    }

    /// The node, if it is there and these identities may; absence is told before permission is looked at, as in Apache.
    pub(super) fn readable(&self, path: &str, wanted: i32, auth: &[AuthId]) -> Result<NodeId, Code> {
        let node = self.state.tree().lookup(path).ok_or(Code::NoNode)?;
        self.check_acl(self.state.acl(node)?, wanted, auth)?;
        Ok(node)
    }

    fn exists(&self, path: &str, auth: &[AuthId]) -> Result<NodeId, Code> {
        if path.contains('\0') {
            return Err(Code::BadArguments);
        }
        self.readable(path, perms::READ, auth)
    }

    /// Gives how many bytes of data there are.
    fn write_data(&mut self, out: &mut Parts, id: NodeId) -> usize {
        let node = self.state.tree().node(id);
        let data_len = node.data_len();
        match node.shared_data() {
            Some((bytes, from)) => {
                out.own().put_int(len_i32(data_len));
                out.lend(self.reply_budget.lend(Shared::Whole(bytes), from));
            }
            None => out.own().put_buffer(node.data()),
        }
        self.state.stat(id).write(out.own());
        data_len
    }

    /// Gives how many bytes of names there are.
    fn write_children(&mut self, out: &mut Parts, id: NodeId) -> usize {
        let count = self.state.tree().node(id).num_children();
        let at = out.mark();
        if count >= CHILDREN_LARGE {
            let list = self.state.list(Listed::Children(id));
            if list.len() >= SHARED_BYTES_MIN {
                out.lend(self.reply_budget.lend(Shared::Rope(list), 0));
            } else {
                list.pieces().for_each(|piece| out.own().extend_from_slice(piece));
            }
        } else {
            self.state.write_children(id, out.own());
        }
        out.len_since(at) - 4 * (count as usize + 1)
    }

    fn write_acl(&self, out: &mut Vec<u8>, path: &str, auth: &[AuthId]) -> Result<(), Code> {
        let node = self.readable(path, READ_OR_ADMIN, auth)?;
        count_read(path, 0);
        let list = self.state.acl(node)?;
        if self.check_acl(list, perms::ADMIN, auth).is_ok() {
            Acl::write_list(out, list);
        } else {
            Acl::write_list(out, &acl::redacted(list));
        }
        self.state.stat(node).write(out);
        Ok(())
    }

    /// At once; a long one is done in turns (`long_reads`), unless a write of its own is due.
    fn multi_read(&mut self, out: &mut Parts, ops: &[MultiReadOp], auth: &[AuthId]) {
        for op in ops {
            let found = self.readable(op.path(), perms::READ, auth);
            let content_bytes = self.write_read(out, op, found);
            count_found(op.path(), content_bytes);
            if out.len() > REPLY_BYTES_MAX {
                // The connection closes; the rest would only take memory.
                break;
            }
        }
        replies::multi_end(out.own());
    }

    /// Writes what one operation of a multiRead comes to, given its node. Gives how many bytes of content that has.
    pub(super) fn write_read(
        &mut self,
        out: &mut Parts,
        op: &MultiReadOp,
        found: Result<NodeId, Code>,
    ) -> Option<usize> {
        let node = match found {
            Ok(node) => node,
            Err(error) => {
                log::debug!("multiRead: {op:?} fails with {error}");
                replies::multi_error(out.own(), error.value());
                return None;
            }
        };
        let mut header = |code: OpCode| replies::multi_header(out.own(), code as i32, false, 0);
        Some(match op {
            MultiReadOp::GetData { .. } => {
                header(OpCode::GetData);
                self.write_data(out, node)
            }
            MultiReadOp::GetChildren { .. } => {
                header(OpCode::GetChildren);
                self.write_children(out, node)
            }
        })
    }

    /// A long list was made in turns (`listing`).
    fn write_ephemerals(&mut self, out: &mut Parts, session: SessionId, prefix: Option<&str>) {
        let prefix = prefix.filter(|p| !p.trim().is_empty() && *p != "/").unwrap_or_default();
        if self.state.ephemerals_count_of(session) <= self.state.rules().listed_at_once {
            write_few_ephemerals(out.own(), &self.state, session, prefix);
        } else if prefix.is_empty() {
            let list = self.state.list(Listed::Ephemerals(session));
            out.lend(self.reply_budget.lend(Shared::Rope(list), 0));
        } else {
            self.state.list_ephemerals_below(session, prefix, out.own());
        }
    }

    /// setWatches after a reconnect: what changed since fires now, ahead of the reply; the rest waits (`DataTree.setWatches`).
    pub(super) fn set_watches(&mut self, id: ConnId, session: SessionId, watches: &SetWatches) {
        let seen = watches.relative_zxid;
        for path in &watches.data {
            match self.state.tree().lookup(path).map(|node| self.state.tree().node(node).stat().mzxid) {
                None => self.notify(id, NO_ZXID, event::DELETED, path),
                Some(mzxid) if mzxid > seen => self.notify(id, NO_ZXID, event::DATA_CHANGED, path),
                Some(_) => self.watches.add(path, id, session, mode::DATA),
            }
        }
        for path in &watches.exist {
            match self.state.tree().lookup(path) {
                Some(_) => self.notify(id, NO_ZXID, event::CREATED, path),
                None => self.watches.add(path, id, session, mode::DATA),
            }
        }
        for path in &watches.child {
            match self.state.tree().lookup(path).map(|node| self.state.tree().node(node).stat().pzxid) {
                None => self.notify(id, NO_ZXID, event::DELETED, path),
                Some(pzxid) if pzxid > seen && !wrong::is_on(Wrong::ChildrenNotCaughtUp) => {
                    self.notify(id, NO_ZXID, event::CHILDREN_CHANGED, path)
                }
                Some(_) => self.watches.add(path, id, session, mode::CHILD),
            }
        }
        for path in &watches.persistent {
            self.watches.add(path, id, session, mode::PERSISTENT);
        }
        for path in &watches.persistent_recursive {
            self.watches.add(path, id, session, mode::RECURSIVE);
        }
    }

    fn notify(&mut self, id: ConnId, zxid: Zxid, event_type: i32, path: &str) {
        if !self.conns.contains_key(&id) {
            return;
        }
        let out = self.tell(id);
        let before = out.bytes.len();
        replies::notification(out.bytes.own(), zxid, event_type, path);
        out.frames += 1;
        metrics::WATCH_BYTES.add((out.bytes.len() - before) as i64);
    }

    /// Tells the connections that watch for a change; one that may not read the node hears nothing, and its one-shot
    /// watch is used up all the same.
    pub(super) fn fire(&mut self, change: &Change, zxid: Zxid) {
        let (event_type, count) = match change.kind {
            ChangeKind::Created => (event::CREATED, &metrics::NODE_CREATED_WATCH_COUNT),
            ChangeKind::Deleted => (event::DELETED, &metrics::NODE_DELETED_WATCH_COUNT),
            ChangeKind::DataChanged => (event::DATA_CHANGED, &metrics::NODE_CHANGED_WATCH_COUNT),
            ChangeKind::ChildrenChanged => (event::CHILDREN_CHANGED, &metrics::NODE_CHILDREN_WATCH_COUNT),
        };
        let hit = self.watches.triggered(change.kind, &change.path);
        if hit.is_empty() {
            return;
        }
        count.record(hit.len() as i64);
        for id in hit {
            let may_read = match (&change.acl, self.conns.get(&id)) {
                (Some(list), Some(conn)) => self.check_acl(list, perms::READ, &conn.auth).is_ok(),
                _ => false,
            };
            let is_lost = wrong::is_on(Wrong::WatchLost) && zxid.counter().is_multiple_of(8);
            if (may_read || wrong::is_on(Wrong::EventsUnfiltered)) && !is_lost {
                self.notify(id, zxid, event_type, &change.path);
            }
        }
    }
}

/// Counts a part of a multiRead, if it found something.
pub(super) fn count_found(path: &str, content_bytes: Option<usize>) {
    if let Some(content_bytes) = content_bytes {
        count_read(path, content_bytes);
    }
}

/// Counts a read for its top-level namespace: path, content and stat (`DataTree.updateReadStat`).
fn count_read(path: &str, content_bytes: usize) {
    const STAT_BYTES: usize = 68;
    if let Some(namespace) = metrics::top_namespace(path) {
        metrics::READ_PER_NAMESPACE.record(namespace, (path.len() + content_bytes + STAT_BYTES) as i64);
    }
}

fn write_few_ephemerals(out: &mut Vec<u8>, state: &State, session: SessionId, prefix: &str) {
    put_counted(out, |out| {
        let mut count = 0;
        state.for_each_ephemeral_of(session, |path| {
            if path.starts_with(prefix) {
                out.put_string(path);
                count += 1;
            }
        });
        count
    });
}

/// The connection's identities; a digest shows its user only.
fn write_identities(out: &mut Vec<u8>, auth: &[AuthId]) {
    out.put_int(len_i32(auth.len()));
    for who in auth {
        let user = match who.scheme.as_str() {
            "digest" => who.id.split(':').next().unwrap_or_default(),
            _ => &who.id,
        };
        out.put_string(&who.scheme);
        out.put_string(user);
    }
}
