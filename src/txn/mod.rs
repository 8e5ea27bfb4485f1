//! TABLE of transaction types, and the transaction itself as it is logged and proposed: header, body, digest
//! (`TxnHeader`, `SerializeUtils`). Pure bytes and values; `state::apply` says what a transaction does, `storage` where
//! it is kept.

mod records;

use thiserror::Error;

pub use records::{CheckVersionTxn, CreateOwner, CreateTxn, SetAclTxn, SetDataTxn};

use crate::ids::{SessionId, Zxid};
use crate::jute::{JuteError, Reader, Writer, len_i32};

/// Numbers of the transaction types; those of client operations equal their opcodes.
pub mod kind {
    /// A session begins.
    pub const CREATE_SESSION: i32 = -10;
    /// A session ends.
    pub const CLOSE_SESSION: i32 = -11;
    /// A write that failed after it took a zxid.
    pub const ERROR: i32 = -1;
    /// create
    pub const CREATE: i32 = 1;
    /// delete
    pub const DELETE: i32 = 2;
    /// setData
    pub const SET_DATA: i32 = 5;
    /// setACL
    pub const SET_ACL: i32 = 7;
    /// check, only inside a multi
    pub const CHECK: i32 = 13;
    /// multi
    pub const MULTI: i32 = 14;
    /// create2
    pub const CREATE2: i32 = 15;
    /// reconfig
    pub const RECONFIG: i32 = 16;
    /// createContainer
    pub const CREATE_CONTAINER: i32 = 19;
    /// Removal of an empty container or an expired TTL node.
    pub const DELETE_CONTAINER: i32 = 20;
    /// createTTL
    pub const CREATE_TTL: i32 = 21;
}

/// Version of the digest trailer that is written and compared; others are carried along unread.
pub const DIGEST_VERSION: i32 = 2;

/// A [`TxnHeader`]; the type follows.
const HEADER_BYTES: usize = 8 + 4 + 8 + 8;

/// Version and digest.
const DIGEST_BYTES: usize = 4 + 8;

/// Who asked for a transaction, and when: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TxnHeader {
    /// The session that asked; 0 for the server itself.
    pub client_id: SessionId,
    /// The request's xid.
    pub cxid: i32,
    /// The transaction's place in the one history.
    pub zxid: Zxid,
    /// The leader's wall clock, ms: becomes ctime and mtime.
    pub time_ms: i64,
}

impl TxnHeader {
    /// When a transaction was made, from its bytes; 0 if they are too few for a header.
    pub fn time_ms_in(txn: &[u8]) -> i64 {
        txn.get(20..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| i64::from_be_bytes(*bytes))
    }

    /// A transaction's header and its kind, in its bytes.
    pub fn bytes_in(txn: &[u8]) -> Option<&[u8]> {
        txn.get(..HEADER_BYTES + 4)
    }

    /// Of what kind a transaction is, from its bytes.
    pub fn kind_in(txn: &[u8]) -> Option<i32> {
        txn.get(HEADER_BYTES..).and_then(<[u8]>::first_chunk).map(|bytes| i32::from_be_bytes(*bytes))
    }
}

/// The digest that follows a body: the tree's after this transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnDigest {
    /// Which algorithm; only [`DIGEST_VERSION`] is understood.
    pub version: i32,
    /// Sum of all node digests.
    pub tree_digest: u64,
}

/// What a transaction does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TxnBody {
    /// -10: the header's session begins.
    CreateSession {
        /// Negotiated timeout.
        timeout_ms: i32,
    },
    /// -11: the header's session ends.
    CloseSession {
        /// Its ephemerals when the close was proposed. `None` when the record has no list (old logs): then those the
        /// tree knows.
        paths: Option<Vec<String>>,
    },
    /// 1, 15, 19, 21.
    Create(CreateTxn),
    /// 2, or 20 when the server removes a container or TTL node.
    Delete {
        /// The node.
        path: String,
        /// By the server's own housekeeping.
        container: bool,
    },
    /// 5
    SetData(SetDataTxn),
    /// 16: like setData on the config node.
    Reconfig(SetDataTxn),
    /// 7
    SetAcl(SetAclTxn),
    /// 13, only inside a multi: changes nothing.
    Check(CheckVersionTxn),
    /// 14: all or nothing; nothing when a sub-transaction is an error.
    Multi(Vec<TxnBody>),
    /// -1: a failed write; occupies its zxid and changes nothing.
    Error(i32),
    /// In a multi only: a sub-transaction of a type this table does not know. Apache applies those before it and drops
    /// the rest (`DataTree.processTxn`), so it is kept to end the multi there.
    Unknown {
        /// The type found.
        kind: i32,
    },
}

/// Header, body and, unless it is an error or digests are off, the digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Txn {
    /// Who and when.
    pub header: TxnHeader,
    /// What.
    pub body: TxnBody,
    /// The tree's digest afterwards.
    pub digest: Option<TxnDigest>,
}

/// Why the payload of a record is not a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TxnError {
    /// A type that may not stand at the top level. Apache refuses to start on it too.
    #[error("unsupported transaction type {0}")]
    UnknownType(i32),
    /// The fields do not fit the type.
    #[error("malformed transaction: {0}")]
    Jute(#[from] JuteError),
}

/// What Apache calls a type (`Request.op2String`).
pub fn kind_name(number: i32) -> Option<&'static str> {
    Some(match number {
        kind::CREATE_SESSION => "createSession",
        kind::CLOSE_SESSION => "closeSession",
        kind::ERROR => "error",
        kind::CREATE => "create",
        kind::DELETE => "delete",
        kind::SET_DATA => "setData",
        kind::SET_ACL => "setACL",
        kind::CHECK => "check",
        kind::MULTI => "multi",
        kind::CREATE2 => "create2",
        kind::RECONFIG => "reconfig",
        kind::CREATE_CONTAINER => "createContainer",
        kind::DELETE_CONTAINER => "deleteContainer",
        kind::CREATE_TTL => "createTtl",
        _ => return None,
    })
}

impl TxnBody {
    /// The type number that is written for this body.
    pub fn kind(&self) -> i32 {
        match self {
            TxnBody::CreateSession { .. } => kind::CREATE_SESSION,
            TxnBody::CloseSession { .. } => kind::CLOSE_SESSION,
            TxnBody::Create(create) => create.kind(),
            TxnBody::Delete { container: false, .. } => kind::DELETE,
            TxnBody::Delete { container: true, .. } => kind::DELETE_CONTAINER,
            TxnBody::SetData(_) => kind::SET_DATA,
            TxnBody::Reconfig(_) => kind::RECONFIG,
            TxnBody::SetAcl(_) => kind::SET_ACL,
            TxnBody::Check(_) => kind::CHECK,
            TxnBody::Multi(_) => kind::MULTI,
            TxnBody::Error(_) => kind::ERROR,
            TxnBody::Unknown { kind } => *kind,
        }
    }

    /// Whether a multi would do nothing because of this sub-transaction.
    pub fn is_error(&self) -> bool {
        matches!(self, TxnBody::Error(_))
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            TxnBody::CreateSession { timeout_ms } => out.put_int(*timeout_ms),
            TxnBody::CloseSession { paths: Some(paths) } => out.put_strings(paths),
            TxnBody::CloseSession { paths: None } | TxnBody::Unknown { .. } => {}
            TxnBody::Create(create) => create.write(out),
            TxnBody::Delete { path, .. } => out.put_string(path),
            TxnBody::SetData(set) | TxnBody::Reconfig(set) => set.write(out),
            TxnBody::SetAcl(set) => set.write(out),
            TxnBody::Check(check) => check.write(out),
            TxnBody::Multi(subs) => write_multi(out, subs),
            TxnBody::Error(code) => out.put_int(*code),
        }
    }

    /// Reads a body of the given type.
    fn read(kind_number: i32, r: &mut Reader<'_>) -> Result<TxnBody, TxnError> {
        Ok(match kind_number {
            kind::CREATE_SESSION => TxnBody::CreateSession { timeout_ms: r.int()? },
            kind::CLOSE_SESSION => TxnBody::CloseSession { paths: read_close_paths(r) },
            kind::CREATE | kind::CREATE2 | kind::CREATE_CONTAINER | kind::CREATE_TTL => {
                TxnBody::Create(CreateTxn::read(kind_number, r)?)
            }
            kind::DELETE | kind::DELETE_CONTAINER => TxnBody::Delete {
                path: r.required_string()?.into_owned(),
                container: kind_number == kind::DELETE_CONTAINER,
            },
            kind::SET_DATA => TxnBody::SetData(SetDataTxn::read(r)?),
            kind::RECONFIG => TxnBody::Reconfig(SetDataTxn::read(r)?),
            kind::SET_ACL => TxnBody::SetAcl(SetAclTxn::read(r)?),
            kind::ERROR => TxnBody::Error(r.int()?),
            kind::MULTI => TxnBody::Multi(read_multi(r)?),
            other => return Err(TxnError::UnknownType(other)),
        })
    }
}

/// A body that is missing, or is none, reads as "no list": logs written with `closeSessionTxn.enabled=false` have the
/// digest at its place. Apache says the same where it runs into the end of the payload, and refuses to start where the
/// digest happens to look like an unreasonable length.
fn read_close_paths(r: &mut Reader<'_>) -> Option<Vec<String>> {
    if is_digest_alone(r.rest()) {
        return None;
    }
    let mut attempt = r.clone();
    if let Ok(paths) = attempt.strings() {
        *r = attempt;
        return paths;
    }
    *r = Reader::new(&[]);
    None
}

/// Whether the digest follows at once. A list of as many paths as the digest's version says would be longer.
fn is_digest_alone(rest: &[u8]) -> bool {
    rest.len() == DIGEST_BYTES && rest.starts_with(&DIGEST_VERSION.to_be_bytes())
}

fn write_multi(out: &mut Vec<u8>, subs: &[TxnBody]) {
    out.put_int(len_i32(subs.len()));
    for sub in subs {
        out.put_int(sub.kind());
        let length_at = out.len();
        out.put_int(0);
        sub.write(out);
        let length = len_i32(out.len() - length_at - 4);
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Type and bytes of each sub-transaction of a multi.
fn read_parts<'a>(r: &mut Reader<'a>) -> Result<Vec<(i32, &'a [u8])>, TxnError> {
    let count = r.count()?.unwrap_or(0);
    let mut parts = Vec::with_capacity(r.capacity_for(count, 8));
    for _ in 0..count {
        let kind_number = r.int()?;
        let at = r.position();
        parts.push((kind_number, r.buffer()?.ok_or(JuteError::Null { at })?));
    }
    Ok(parts)
}

fn read_multi(r: &mut Reader<'_>) -> Result<Vec<TxnBody>, TxnError> {
    let parts = read_parts(r)?;
    let mut subs = Vec::with_capacity(parts.len());
    for (kind_number, bytes) in parts {
        let mut body = Reader::new(bytes);
        subs.push(match kind_number {
            kind::CHECK => TxnBody::Check(CheckVersionTxn::read(&mut body)?),
            kind::CREATE
            | kind::CREATE2
            | kind::CREATE_CONTAINER
            | kind::CREATE_TTL
            | kind::DELETE
            | kind::SET_DATA
            | kind::ERROR => TxnBody::read(kind_number, &mut body)?,
            other => TxnBody::Unknown { kind: other },
        });
    }
    Ok(subs)
}

impl Txn {
    /// How many bytes it takes as a record, and at most a few dozen more or less.
    pub fn size_hint(&self) -> usize {
        // Kind and digest, too.
        HEADER_BYTES + 4 + 12 + self.body.size_hint()
    }

    /// The payload of a log record and of a proposal: header, body, digest.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.body.size_hint());
        out.put_long(self.header.client_id.0);
        out.put_int(self.header.cxid);
        out.put_long(self.header.zxid.0);
        out.put_long(self.header.time_ms);
        out.put_int(self.body.kind());
        self.body.write(&mut out);
        if let Some(digest) = self.digest {
            out.put_int(digest.version);
            out.put_long(digest.tree_digest as i64);
        }
        out
    }

    /// Type and bytes of each sub-transaction of a payload that is a multi, as they stand there.
    pub fn multi_parts(payload: &[u8]) -> Result<Vec<(i32, &[u8])>, TxnError> {
        read_parts(&mut Reader::new(payload.get(HEADER_BYTES + 4..).unwrap_or_default()))
    }

    /// Reads a payload. A missing or partial digest reads as none, and bytes after it are ignored, as in Apache.
    pub fn from_bytes(bytes: &[u8]) -> Result<Txn, TxnError> {
        let mut r = Reader::new(bytes);
        let mut header = TxnHeader { client_id: SessionId(r.long()?), cxid: r.int()?, ..TxnHeader::default() };
        header.zxid = Zxid(r.long()?);
        header.time_ms = r.long()?;
        let kind_number = r.int()?;
        let body = TxnBody::read(kind_number, &mut r)?;
        let digest = match (r.int(), r.long()) {
            (Ok(version), Ok(value)) => Some(TxnDigest { version, tree_digest: value as u64 }),
            _ => None,
        };
        Ok(Txn { header, body, digest })
    }
}

impl TxnBody {
    /// How many bytes the body takes, and at most a few dozen more.
    pub fn size_hint(&self) -> usize {
        match self {
            TxnBody::Create(create) => create.size_hint(),
            TxnBody::SetData(set) | TxnBody::Reconfig(set) => set.size_hint(),
            TxnBody::Multi(subs) => 8 + subs.iter().map(|sub| 8 + sub.size_hint()).sum::<usize>(),
            TxnBody::CloseSession { paths: Some(paths) } => 4 + paths.iter().map(|p| 4 + p.len()).sum::<usize>(),
            TxnBody::Delete { path, .. } => 4 + path.len(),
            TxnBody::SetAcl(set) => set.size_hint(),
            TxnBody::Check(check) => 8 + check.path.len(),
            TxnBody::CreateSession { .. }
            | TxnBody::CloseSession { paths: None }
            | TxnBody::Error(_)
            | TxnBody::Unknown { .. } => 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Acl, Owner};

    fn txn(body: TxnBody, digest: Option<TxnDigest>) -> Txn {
        let header = TxnHeader { client_id: SessionId(7), cxid: 3, zxid: Zxid(0x42), time_ms: 1_795_359_041_879 };
        Txn { header, body, digest }
    }

    fn create(owner: Owner) -> TxnBody {
        TxnBody::Create(CreateTxn {
            path: "/a".into(),
            data: Some(b"x".to_vec()),
            acl: Acl::open(),
            owner: records::CreateOwner::from_owner(owner),
            with_stat: false,
            parent_cversion: 5,
        })
    }

    #[test]
    fn every_body_reads_back() {
        let digest = Some(TxnDigest { version: 2, tree_digest: u64::MAX });
        let bodies = vec![
            TxnBody::CreateSession { timeout_ms: 30_000 },
            TxnBody::CloseSession { paths: Some(vec!["/e".into()]) },
            TxnBody::CloseSession { paths: None },
            create(Owner::None),
            create(Owner::Session(SessionId(7))),
            create(Owner::Container),
            create(Owner::Ttl { ttl_ms: 1000 }),
            TxnBody::Delete { path: "/a".into(), container: true },
            TxnBody::SetData(SetDataTxn { path: "/a".into(), data: None, version: 2 }),
            TxnBody::SetAcl(SetAclTxn { path: "/a".into(), acl: Acl::open(), version: 1 }),
            TxnBody::Multi(vec![
                TxnBody::Check(CheckVersionTxn { path: "/a".into(), version: 1 }),
                create(Owner::None),
                TxnBody::Error(-2),
            ]),
        ];
        for body in bodies {
            let txn = txn(body, digest);
            assert_eq!(Txn::from_bytes(&txn.to_bytes()), Ok(txn));
        }
    }

    #[test]
    fn a_create_of_the_old_format_has_no_parent_cversion() {
        let full = txn(create(Owner::None), None).to_bytes();
        let old = Txn::from_bytes(&full[..full.len() - 4]).expect("old creates are read");
        assert!(matches!(old.body, TxnBody::Create(CreateTxn { parent_cversion: -1, .. })));
    }

    #[test]
    fn an_unknown_type_is_refused_at_the_top_and_ends_a_multi() {
        let unknown = txn(TxnBody::Unknown { kind: 99 }, None);
        assert_eq!(Txn::from_bytes(&unknown.to_bytes()), Err(TxnError::UnknownType(99)));
        let multi = txn(TxnBody::Multi(vec![TxnBody::Unknown { kind: 100 }]), None);
        assert_eq!(Txn::from_bytes(&multi.to_bytes()), Ok(multi));
    }

    #[test]
    fn a_partial_digest_reads_as_none() {
        let bytes = txn(TxnBody::Error(-101), Some(TxnDigest { version: 2, tree_digest: 9 })).to_bytes();
        assert_eq!(Txn::from_bytes(&bytes[..bytes.len() - 1]).map(|t| t.digest), Ok(None));
    }
}
