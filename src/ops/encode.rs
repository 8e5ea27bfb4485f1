//! Requests into bytes, as clients write them: what `ops::decode` takes apart. Called by `client`; by the fuzzer, which
//! decodes again what was decoded once; and by tests that talk to a server.

use crate::jute::Writer;
use crate::ops::{
    AuthOp, ConnectRequest, Create, MultiOp, MultiReadOp, Op, OpCode, PathWatch, ReadOp, Request, SetWatches,
    WatcherType, WriteOp,
};
use crate::records::Acl;

/// The first frame of a connection, without its length.
pub fn connect(request: &ConnectRequest) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_int(0);
    out.put_long(request.last_zxid_seen);
    out.put_int(request.timeout_ms);
    out.put_long(request.session_id);
    out.put_buffer(Some(&request.password));
    if let Some(read_only) = request.read_only {
        out.put_bool(read_only);
    }
    out
}

/// Any other frame, without its length.
pub fn request(request: &Request) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_int(request.xid);
    out.put_int(request.op_number);
    body(&mut out, &request.op, request.op_number);
    out
}

/// With its length in front.
pub fn framed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 4);
    out.put_buffer(Some(content));
    out
}

/// A string field.
pub fn string(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_string(text);
    out
}

fn acl(out: &mut Vec<u8>, list: Option<&[Acl]>) {
    match list {
        None => out.put_int(-1),
        Some(list) => Acl::write_list(out, list),
    }
}

fn create(out: &mut Vec<u8>, create: &Create) {
    out.put_string(&create.path);
    out.put_buffer(create.data.as_deref());
    acl(out, create.acl.as_deref());
    out.put_int(create.flags);
    if create.code == OpCode::CreateTtl {
        out.put_long(create.ttl_ms);
    }
}

fn path_watch(out: &mut Vec<u8>, target: &PathWatch) {
    out.put_string(&target.path);
    out.put_bool(target.watch);
}

fn body(out: &mut Vec<u8>, op: &Op, op_number: i32) {
    match op {
        Op::Write(WriteOp::Create(body)) => create(out, body),
        Op::Write(WriteOp::Delete(delete)) => {
            out.put_string(&delete.path);
            out.put_int(delete.version);
        }
        Op::Write(WriteOp::SetData(set)) => {
            out.put_string(&set.path);
            out.put_buffer(set.data.as_deref());
            out.put_int(set.version);
        }
        Op::Write(WriteOp::SetAcl(set)) => {
            out.put_string(&set.path);
            acl(out, set.acl.as_deref());
            out.put_int(set.version);
        }
        Op::Write(WriteOp::Multi(ops)) => multi(out, ops),
        Op::Read(ReadOp::MultiRead(ops)) => multi_read(out, ops),
        Op::Write(WriteOp::Reconfig(reconfig)) => {
            out.put_opt_string(reconfig.joining.as_deref());
            out.put_opt_string(reconfig.leaving.as_deref());
            out.put_opt_string(reconfig.new_members.as_deref());
            out.put_long(reconfig.cur_config_id);
        }
        Op::Read(ReadOp::Exists(target) | ReadOp::GetData(target) | ReadOp::GetChildren { target, .. }) => {
            path_watch(out, target)
        }
        Op::Read(ReadOp::GetAcl { path } | ReadOp::GetAllChildrenNumber { path }) => out.put_string(path),
        Op::Read(ReadOp::Sync { path }) => out.put_opt_string(path.as_deref()),
        Op::Read(ReadOp::GetEphemerals { prefix }) => out.put_opt_string(prefix.as_deref()),
        Op::Read(ReadOp::CheckWatches(which) | ReadOp::RemoveWatches(which)) => {
            out.put_string(&which.path);
            out.put_int(watcher_type(which.kind));
        }
        Op::Auth(AuthOp::Scheme { scheme, credentials }) => {
            out.put_int(0);
            out.put_opt_string(scheme.as_deref());
            out.put_buffer(credentials.as_deref());
        }
        Op::Read(ReadOp::SetWatches(watches)) => set_watches(out, watches, op_number == OpCode::SetWatches2 as i32),
        Op::Auth(AuthOp::Sasl { token }) => out.put_buffer(token.as_deref()),
        Op::Read(ReadOp::AddWatch { path, recursive }) => {
            out.put_string(path);
            out.put_int(i32::from(*recursive));
        }
        Op::CloseSession
        | Op::Write(WriteOp::Malformed)
        | Op::Read(ReadOp::Ping | ReadOp::WhoAmI | ReadOp::Malformed | ReadOp::Unknown)
        | Op::Auth(AuthOp::Malformed) => {}
    }
}

fn watcher_type(kind: WatcherType) -> i32 {
    match kind {
        WatcherType::Children => 1,
        WatcherType::Data => 2,
        WatcherType::Any => 3,
        WatcherType::Persistent => 4,
        WatcherType::PersistentRecursive => 5,
    }
}

fn set_watches(out: &mut Vec<u8>, watches: &SetWatches, with_persistent: bool) {
    out.put_long(watches.relative_zxid);
    out.put_strings(&watches.data);
    out.put_strings(&watches.exist);
    out.put_strings(&watches.child);
    if with_persistent {
        out.put_strings(&watches.persistent);
        out.put_strings(&watches.persistent_recursive);
    }
}

fn header(out: &mut Vec<u8>, kind: i32, done: bool) {
    out.put_int(kind);
    out.put_bool(done);
    out.put_int(-1);
}

fn multi(out: &mut Vec<u8>, ops: &[MultiOp]) {
    for op in ops {
        match op {
            MultiOp::Create(body) => {
                header(out, body.code as i32, false);
                create(out, body);
            }
            MultiOp::Delete(delete) => {
                header(out, OpCode::Delete as i32, false);
                out.put_string(&delete.path);
                out.put_int(delete.version);
            }
            MultiOp::SetData(set) => {
                header(out, OpCode::SetData as i32, false);
                out.put_string(&set.path);
                out.put_buffer(set.data.as_deref());
                out.put_int(set.version);
            }
            MultiOp::Check { path, version } => {
                header(out, OpCode::Check as i32, false);
                out.put_string(path);
                out.put_int(*version);
            }
        }
    }
    header(out, -1, true);
}

fn multi_read(out: &mut Vec<u8>, ops: &[MultiReadOp]) {
    for op in ops {
        let (kind, path) = match op {
            MultiReadOp::GetData { path } => (OpCode::GetData, path),
            MultiReadOp::GetChildren { path } => (OpCode::GetChildren, path),
        };
        header(out, kind as i32, false);
        out.put_string(path);
        out.put_bool(false);
    }
    header(out, -1, true);
}
