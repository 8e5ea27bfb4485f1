//! Bytes of a frame into a [`Request`]. Total: any bytes become a request of some kind, a malformed one included; only a
//! frame too short for its header is an error, for which the connection closes. Memory is bounded by the frame.

use crate::jute::{JuteError, Reader};
use crate::ops::{
    AuthOp, Class, ConnectRequest, Create, Delete, MultiOp, MultiReadOp, Op, OpCode, PathWatch, ReadOp, Reconfig,
    Request, SetAcl, SetData, SetWatches, WatchSelection, WatcherType, WriteOp,
};
use crate::records::Acl;

/// Decodes the first frame of a connection. Old clients leave out the last byte.
pub fn decode_connect(frame: &[u8]) -> Result<ConnectRequest, JuteError> {
    let mut r = Reader::new(frame);
    let _protocol_version = r.int()?;
    Ok(ConnectRequest {
        last_zxid_seen: r.long()?,
        timeout_ms: r.int()?,
        session_id: r.long()?,
        password: r.buffer()?.unwrap_or_default().to_vec(),
        read_only: r.bool().ok(),
    })
}

/// Decodes any later frame. The error means that not even the header is there.
pub fn decode(frame: &[u8]) -> Result<Request, JuteError> {
    let mut r = Reader::new(frame);
    let xid = r.int()?;
    let op_number = r.int()?;
    Ok(Request { xid, op_number, op: decode_body(op_number, r.rest()), body: Vec::new() })
}

/// Decodes what stands behind the header of a request: also of one that comes by way of another server.
pub fn decode_body(op_number: i32, body: &[u8]) -> Op {
    match OpCode::from_number(op_number) {
        None | Some(OpCode::Check) => Op::Read(ReadOp::Unknown),
        Some(code) => decode_op(code, &mut Reader::new(body)).unwrap_or_else(|_| Op::malformed(code.class())),
    }
}

/// Bytes of a request's header: xid and opcode.
const HEADER_BYTES: usize = 8;

impl Request {
    /// Keeps the body of a write or a sync as it stands in the frame, for a server that may have to forward it.
    pub fn keep_body(&mut self, frame: &[u8]) {
        let goes_to_the_leader = OpCode::from_number(self.op_number)
            .is_some_and(|code| code.class() == Class::Write || code == OpCode::Sync);
        if goes_to_the_leader {
            self.body = frame.get(HEADER_BYTES..).unwrap_or_default().to_vec();
        }
    }
}

fn decode_op(code: OpCode, r: &mut Reader<'_>) -> Result<Op, JuteError> {
    Ok(match code {
        OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
            Op::Write(WriteOp::Create(decode_create(code, r)?))
        }
        OpCode::Delete => Op::Write(WriteOp::Delete(decode_delete(r)?)),
        OpCode::SetData => Op::Write(WriteOp::SetData(decode_set_data(r)?)),
        OpCode::SetAcl => {
            Op::Write(WriteOp::SetAcl(SetAcl { path: path_or_empty(r)?, acl: Acl::read_list(r)?, version: r.int()? }))
        }
        OpCode::Multi => Op::Write(WriteOp::Multi(decode_multi(r)?)),
        OpCode::MultiRead => Op::Read(ReadOp::MultiRead(decode_multi_read(r)?)),
        OpCode::Reconfig => Op::Write(WriteOp::Reconfig(Reconfig {
            joining: owned(r)?,
            leaving: owned(r)?,
            new_members: owned(r)?,
            cur_config_id: r.long()?,
        })),
        OpCode::CloseSession => Op::CloseSession,
        OpCode::Exists => Op::Read(ReadOp::Exists(decode_path_watch(r)?)),
        OpCode::GetData => Op::Read(ReadOp::GetData(decode_path_watch(r)?)),
        OpCode::GetAcl => Op::Read(ReadOp::GetAcl { path: path(r)? }),
        OpCode::GetChildren => Op::Read(ReadOp::GetChildren { target: decode_path_watch(r)?, with_stat: false }),
        OpCode::GetChildren2 => Op::Read(ReadOp::GetChildren { target: decode_path_watch(r)?, with_stat: true }),
        OpCode::Sync => Op::Read(ReadOp::Sync { path: owned(r)? }),
        OpCode::Ping => Op::Read(ReadOp::Ping),
        OpCode::Check => Op::Read(ReadOp::Unknown),
        OpCode::CheckWatches => Op::Read(ReadOp::CheckWatches(decode_selection(r)?)),
        OpCode::RemoveWatches => Op::Read(ReadOp::RemoveWatches(decode_selection(r)?)),
        OpCode::Auth => decode_auth(r)?,
        OpCode::SetWatches => Op::Read(ReadOp::SetWatches(Box::new(decode_set_watches(r, false)?))),
        OpCode::SetWatches2 => Op::Read(ReadOp::SetWatches(Box::new(decode_set_watches(r, true)?))),
        OpCode::Sasl => Op::Auth(AuthOp::Sasl { token: r.buffer()?.map(<[u8]>::to_vec) }),
        OpCode::GetEphemerals => Op::Read(ReadOp::GetEphemerals { prefix: owned(r)? }),
        OpCode::GetAllChildrenNumber => Op::Read(ReadOp::GetAllChildrenNumber { path: path(r)? }),
        OpCode::AddWatch => decode_add_watch(r)?,
        OpCode::WhoAmI => Op::Read(ReadOp::WhoAmI),
    })
}

fn owned(r: &mut Reader<'_>) -> Result<Option<String>, JuteError> {
    Ok(r.string()?.map(|s| s.into_owned()))
}

/// A path for which null is a decode error.
fn path(r: &mut Reader<'_>) -> Result<String, JuteError> {
    Ok(r.required_string()?.into_owned())
}

/// A path of an operation that validates it: null becomes the empty path, which it refuses.
fn path_or_empty(r: &mut Reader<'_>) -> Result<String, JuteError> {
    Ok(owned(r)?.unwrap_or_default())
}

fn decode_path_watch(r: &mut Reader<'_>) -> Result<PathWatch, JuteError> {
    Ok(PathWatch { path: path(r)?, watch: r.bool()? })
}

fn decode_create(code: OpCode, r: &mut Reader<'_>) -> Result<Create, JuteError> {
    Ok(Create {
        code,
        path: path(r)?,
        data: r.buffer()?.map(<[u8]>::to_vec),
        acl: Acl::read_list(r)?,
        flags: r.int()?,
        ttl_ms: if code == OpCode::CreateTtl { r.long()? } else { -1 },
    })
}

fn decode_delete(r: &mut Reader<'_>) -> Result<Delete, JuteError> {
    Ok(Delete { path: path(r)?, version: r.int()? })
}

fn decode_set_data(r: &mut Reader<'_>) -> Result<SetData, JuteError> {
    Ok(SetData { path: path_or_empty(r)?, data: r.buffer()?.map(<[u8]>::to_vec), version: r.int()? })
}

fn decode_selection(r: &mut Reader<'_>) -> Result<WatchSelection, JuteError> {
    let path = path(r)?;
    let kind = match r.int()? {
        1 => WatcherType::Children,
        2 => WatcherType::Data,
        3 => WatcherType::Any,
        4 => WatcherType::Persistent,
        5 => WatcherType::PersistentRecursive,
        other => return Err(JuteError::BadValue { at: r.position(), value: other.into() }),
    };
    Ok(WatchSelection { path, kind })
}

fn decode_auth(r: &mut Reader<'_>) -> Result<Op, JuteError> {
    let _auth_type = r.int()?;
    Ok(Op::Auth(AuthOp::Scheme { scheme: owned(r)?, credentials: r.buffer()?.map(<[u8]>::to_vec) }))
}

fn decode_add_watch(r: &mut Reader<'_>) -> Result<Op, JuteError> {
    let path = path(r)?;
    let recursive = match r.int()? {
        0 => false,
        1 => true,
        other => return Err(JuteError::BadValue { at: r.position(), value: other.into() }),
    };
    Ok(Op::Read(ReadOp::AddWatch { path, recursive }))
}

fn required_strings(r: &mut Reader<'_>) -> Result<Vec<String>, JuteError> {
    r.strings()?.ok_or(JuteError::Null { at: r.position() })
}

fn decode_set_watches(r: &mut Reader<'_>, with_persistent: bool) -> Result<SetWatches, JuteError> {
    let mut watches = SetWatches {
        relative_zxid: r.long()?,
        data: required_strings(r)?,
        exist: required_strings(r)?,
        child: required_strings(r)?,
        persistent: Vec::new(),
        persistent_recursive: Vec::new(),
    };
    if with_persistent {
        watches.persistent = required_strings(r)?;
        watches.persistent_recursive = required_strings(r)?;
    }
    Ok(watches)
}

/// The header before each operation of a multi; `None` at the end (`MultiHeader`).
fn multi_header(r: &mut Reader<'_>) -> Result<Option<i32>, JuteError> {
    let kind = r.int()?;
    let done = r.bool()?;
    let _err = r.int()?;
    Ok(if done { None } else { Some(kind) })
}

fn not_in_multi(r: &Reader<'_>, kind: i32) -> JuteError {
    JuteError::BadValue { at: r.position(), value: kind.into() }
}

fn decode_multi(r: &mut Reader<'_>) -> Result<Vec<MultiOp>, JuteError> {
    let mut ops = Vec::new();
    while let Some(kind) = multi_header(r)? {
        ops.push(match OpCode::from_number(kind) {
            Some(code @ (OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl)) => {
                MultiOp::Create(decode_create(code, r)?)
            }
            Some(OpCode::Delete) => MultiOp::Delete(decode_delete(r)?),
            Some(OpCode::SetData) => MultiOp::SetData(decode_set_data(r)?),
            Some(OpCode::Check) => MultiOp::Check { path: path_or_empty(r)?, version: r.int()? },
            _ => return Err(not_in_multi(r, kind)),
        });
    }
    Ok(ops)
}

fn decode_multi_read(r: &mut Reader<'_>) -> Result<Vec<MultiReadOp>, JuteError> {
    let mut ops = Vec::new();
    while let Some(kind) = multi_header(r)? {
        ops.push(match OpCode::from_number(kind) {
            Some(OpCode::GetData) => MultiReadOp::GetData { path: decode_path_watch(r)?.path },
            Some(OpCode::GetChildren) => MultiReadOp::GetChildren { path: decode_path_watch(r)?.path },
            _ => return Err(not_in_multi(r, kind)),
        });
    }
    Ok(ops)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::Writer;

    fn frame(op: i32, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_int(9);
        bytes.put_int(op);
        body(&mut bytes);
        bytes
    }

    #[test]
    fn unknown_numbers_and_a_bare_check_are_unknown() {
        for number in [0, 10, 13, 20, -1, -10, -12, 99, 108, 888] {
            assert_eq!(decode(&frame(number, |_| ())).map(|r| r.op), Ok(Op::Read(ReadOp::Unknown)), "{number}");
        }
    }

    #[test]
    fn a_truncated_body_is_malformed_and_a_truncated_header_an_error() {
        let whole = frame(5, |b| {
            b.put_string("/a");
            b.put_buffer(Some(b"x"));
            b.put_int(-1);
        });
        assert!(matches!(decode(&whole), Ok(Request { op: Op::Write(WriteOp::SetData(_)), xid: 9, op_number: 5, .. })));
        for cut in 8..whole.len() {
            assert_eq!(decode(&whole[..cut]).map(|r| r.op), Ok(Op::Write(WriteOp::Malformed)));
        }
        assert!(decode(&whole[..7]).is_err());
    }

    #[test]
    fn null_paths_lead_to_the_error_apache_gives() {
        let null_path = |number| {
            decode(&frame(number, |b| {
                b.put_opt_string(None);
                b.put_buffer(None);
                b.put_int(-1);
            }))
            .map(|r| r.op)
        };
        assert_eq!(null_path(2), Ok(Op::Write(WriteOp::Malformed)));
        assert_eq!(null_path(4), Ok(Op::Read(ReadOp::Malformed)));
        assert!(matches!(null_path(5), Ok(Op::Write(WriteOp::SetData(SetData { path, .. }))) if path.is_empty()));
        assert_eq!(null_path(9), Ok(Op::Read(ReadOp::Sync { path: None })));
    }

    #[test]
    fn a_multi_may_not_hold_reads_nor_a_multi_read_writes() {
        let with = |number, sub| {
            decode(&frame(number, |b| {
                b.put_int(sub);
                b.put_bool(false);
                b.put_int(-1);
                b.put_string("/a");
                b.put_int(-1);
            }))
            .map(|r| r.op)
        };
        assert_eq!(with(14, 4), Ok(Op::Write(WriteOp::Malformed)));
        assert_eq!(with(22, 2), Ok(Op::Read(ReadOp::Malformed)));
    }

    #[test]
    fn a_connect_request_may_lack_the_read_only_byte() {
        let mut bytes = Vec::new();
        bytes.put_int(0);
        bytes.put_long(5);
        bytes.put_int(10_000);
        bytes.put_long(0);
        bytes.put_buffer(None);
        assert_eq!(decode_connect(&bytes).map(|c| c.read_only), Ok(None));
        bytes.put_bool(true);
        assert_eq!(decode_connect(&bytes).map(|c| c.read_only), Ok(Some(true)));
        assert!(decode_connect(&bytes[..20]).is_err());
    }
}
