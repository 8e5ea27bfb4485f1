//! The bytes of replies and notifications: frame length, reply header, body (`ReplyHeader`, `WatcherEvent`). Pure.

use crate::codes::Code;
use crate::ids::Zxid;
use crate::jute::{Writer, len_i32};
use crate::metrics::{self, Counter};
use crate::ops::OpCode;
use crate::parts::{Mark, Parts};
use crate::pipeline::ReplyShape;
use crate::state::Applied;
use crate::txn::TxnBody;

/// The xid of a notification.
const NOTIFICATION_XID: i32 = -1;
/// The only state a server ever sends: SyncConnected.
const SYNC_CONNECTED: i32 = 3;

/// Appends a frame whose content `write` makes.
fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_int(0);
    write(out);
    let length = len_i32(out.len() - start - 4);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Where the error stands in a reply: behind length, xid and zxid.
const ERR_AT: usize = 4 + 4 + 8;
/// Length and header of a reply.
const HEADER_BYTES: usize = ERR_AT + 4;

/// Appends the header of a reply that succeeds; [`finish`] takes what this gives.
pub(super) fn begin(out: &mut Parts, xid: i32, zxid: Zxid) -> Mark {
    let start = out.mark();
    let own = out.own();
    own.put_int(0);
    own.put_int(xid);
    own.put_long(zxid.0);
    own.put_int(0);
    start
}

/// Completes a reply. A failed one loses what there is of its body.
pub(super) fn finish(out: &mut Parts, start: Mark, result: Result<(), Code>) {
    if let Err(code) = result {
        out.cut(start, HEADER_BYTES);
        out.put_at(start, ERR_AT, &code.value().to_be_bytes());
    }
    out.put_at(start, 0, &len_i32(out.len_since(start) - 4).to_be_bytes());
}

/// Counts the answer to a request, whose length in front is not counted (`ServerStats.updateClientResponseSize`).
pub(super) fn count_size(frame_bytes: usize) {
    metrics::CLIENT_RESPONSE.record(frame_bytes as i64 - 4);
}

/// Counts a request that is answered, by its operation.
pub(super) fn count_op(counter: Option<&Counter>) {
    if let Some(counter) = counter {
        counter.add(1);
        metrics::OP_COUNT_TOTAL.add(1);
    }
}

/// Appends a reply.
pub(super) fn reply(out: &mut Vec<u8>, xid: i32, zxid: Zxid, err: i32, body: impl FnOnce(&mut Vec<u8>)) {
    frame(out, |out| {
        out.put_int(xid);
        out.put_long(zxid.0);
        out.put_int(err);
        body(out);
    });
}

/// Appends a watch event.
pub(super) fn notification(out: &mut Vec<u8>, zxid: Zxid, event_type: i32, path: &str) {
    reply(out, NOTIFICATION_XID, zxid, 0, |out| {
        out.put_int(event_type);
        out.put_int(SYNC_CONNECTED);
        out.put_string(path);
    });
}

/// Appends the answer of the handshake; `read_only` is given only when the client sent that byte.
pub(super) fn connect_response(
    out: &mut Vec<u8>,
    timeout_ms: i32,
    session: i64,
    password: &[u8; 16],
    read_only: Option<bool>,
) {
    frame(out, |out| {
        out.put_int(0);
        out.put_int(timeout_ms);
        out.put_long(session);
        out.put_buffer(Some(password));
        if let Some(read_only) = read_only {
            out.put_bool(read_only);
        }
    });
}

/// The header of one operation's result in a multi.
pub(super) fn multi_header(out: &mut Vec<u8>, kind: i32, done: bool, err: i32) {
    out.put_int(kind);
    out.put_bool(done);
    out.put_int(err);
}

/// One failed operation of a multi.
pub(super) fn multi_error(out: &mut Vec<u8>, err: i32) {
    multi_header(out, -1, false, err);
    out.put_int(err);
}

/// The end of a multi's results.
pub(super) fn multi_end(out: &mut Vec<u8>) {
    multi_header(out, -1, true, -1);
}

/// The body of a write's reply, given what it came to.
pub(super) fn write_body(out: &mut Vec<u8>, shape: &ReplyShape, body: &TxnBody, applied: &Applied) {
    match (shape, applied) {
        (ReplyShape::Path, Applied::Stat(_)) => put_path(out, body),
        (ReplyShape::PathStat, Applied::Stat(stat)) => {
            put_path(out, body);
            stat.write(out);
        }
        (ReplyShape::Stat, Applied::Stat(stat)) => stat.write(out),
        (ReplyShape::Config, Applied::Stat(stat)) => {
            if let TxnBody::Reconfig(set) = body {
                out.put_buffer(set.data.as_deref());
            }
            stat.write(out);
        }
        (ReplyShape::Multi(codes), Applied::Multi(results)) => write_multi(out, codes, body, results),
        _ => {}
    }
}

fn put_path(out: &mut Vec<u8>, body: &TxnBody) {
    if let TxnBody::Create(create) = body {
        out.put_string(&create.path);
    }
}

fn write_multi(out: &mut Vec<u8>, codes: &[OpCode], body: &TxnBody, results: &[Applied]) {
    let TxnBody::Multi(subs) = body else { return };
    for ((code, sub), result) in codes.iter().zip(subs).zip(results) {
        match result {
            Applied::Failed(err) => multi_error(out, *err),
            Applied::Done | Applied::Stat(_) | Applied::Multi(_) => write_multi_result(out, *code, sub, result),
        }
    }
    multi_end(out);
}

fn write_multi_result(out: &mut Vec<u8>, code: OpCode, sub: &TxnBody, result: &Applied) {
    // Containers and TTL nodes are answered as create2.
    let shown = if matches!(code, OpCode::CreateContainer | OpCode::CreateTtl) { OpCode::Create2 } else { code };
    multi_header(out, shown as i32, false, 0);
    if matches!(sub, TxnBody::Create(_)) {
        put_path(out, sub);
    }
    if let (OpCode::Create2 | OpCode::SetData, Applied::Stat(stat)) = (shown, result) {
        stat.write(out);
    }
}
