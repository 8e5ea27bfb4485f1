//! TABLE of opcodes, and the requests they carry, decoded once at the gate: whoever holds a [`Request`] need not check
//! its shape again. Called by `net` (decode) and by `pipeline` (what to do with it). Pure.

mod decode;
pub mod encode;

pub use decode::{decode, decode_body, decode_connect};

use crate::metrics::{self, Counter};
use crate::records::Acl;

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $short:literal, $class:ident, $counter:expr;)*) => {
        /// Opcodes that a client may send.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(i32)]
        pub enum OpCode { $($(#[$doc])* $name = $value,)* }

        impl OpCode {
            /// Every opcode, for tests and tables.
            pub const ALL: &'static [OpCode] = &[$(OpCode::$name,)*];

            /// The opcode with this number.
            pub fn from_number(number: i32) -> Option<OpCode> {
                match number { $($value => Some(OpCode::$name),)* _ => None }
            }

            /// Four letters, as `cons` shows the last operation.
            pub fn short(self) -> &'static str {
                match self { $(OpCode::$name => $short,)* }
            }

            /// How the pipeline treats it.
            pub fn class(self) -> Class {
                match self { $(OpCode::$name => Class::$class,)* }
            }

            /// Where it is counted once it is answered; `None` for what only says who a client is.
            pub fn counter(self) -> Option<&'static Counter> {
                match self { $(OpCode::$name => $counter,)* }
            }
        }
    };
}

/// How the pipeline treats an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Takes a zxid, even when it fails.
    Write,
    /// Answered from this server's state, in the session's order.
    Read,
    /// Answered on arrival, ahead of the session's order.
    Immediate,
}

opcodes! {
    /// Make a node; answers its path.
    Create = 1, "CREA", Write, Some(&metrics::OP_COUNT_CREATE);
    /// Delete a node.
    Delete = 2, "DELE", Write, Some(&metrics::OP_COUNT_DELETE);
    /// Stat of a node that may be absent.
    Exists = 3, "EXIS", Read, Some(&metrics::OP_COUNT_EXISTS);
    /// Data and stat.
    GetData = 4, "GETD", Read, Some(&metrics::OP_COUNT_GET_DATA);
    /// Replace the data.
    SetData = 5, "SETD", Write, Some(&metrics::OP_COUNT_SET_DATA);
    /// ACL and stat.
    GetAcl = 6, "GETA", Read, Some(&metrics::OP_COUNT_GET_ACL);
    /// Replace the ACL.
    SetAcl = 7, "SETA", Write, Some(&metrics::OP_COUNT_SET_ACL);
    /// Names of the children.
    GetChildren = 8, "GETC", Read, Some(&metrics::OP_COUNT_GET_CHILDREN);
    /// Wait for what the leader has proposed.
    Sync = 9, "SYNC", Read, Some(&metrics::OP_COUNT_SYNC);
    /// Keep the session.
    Ping = 11, "PING", Read, Some(&metrics::OP_COUNT_PING);
    /// Names of the children, and stat.
    GetChildren2 = 12, "GETC", Read, Some(&metrics::OP_COUNT_GET_CHILDREN);
    /// Only inside a multi.
    Check = 13, "CHEC", Write, Some(&metrics::OP_COUNT_CHECK);
    /// Several writes, all or nothing.
    Multi = 14, "MULT", Write, Some(&metrics::OP_COUNT_MULTI);
    /// Make a node; answers path and stat.
    Create2 = 15, "CREA", Write, Some(&metrics::OP_COUNT_CREATE);
    /// Change the ensemble.
    Reconfig = 16, "RECO", Write, Some(&metrics::OP_COUNT_RECONFIG);
    /// Is there such a watch?
    CheckWatches = 17, "CHKW", Read, Some(&metrics::OP_COUNT_CHECK_WATCHES);
    /// Drop watches.
    RemoveWatches = 18, "REMW", Read, Some(&metrics::OP_COUNT_REMOVE_WATCHES);
    /// Make a container.
    CreateContainer = 19, "CREA", Write, Some(&metrics::OP_COUNT_CREATE);
    /// Make a TTL node.
    CreateTtl = 21, "CREA", Write, Some(&metrics::OP_COUNT_CREATE);
    /// Several reads.
    MultiRead = 22, "MLTR", Read, Some(&metrics::OP_COUNT_MULTI_READ);
    /// Add an identity to the connection.
    Auth = 100, "AUTH", Immediate, None;
    /// Watches again after a reconnect.
    SetWatches = 101, "SETW", Read, Some(&metrics::OP_COUNT_SET_WATCHES);
    /// SASL token.
    Sasl = 102, "SASL", Immediate, None;
    /// Ephemerals of the calling session.
    GetEphemerals = 103, "GETE", Read, Some(&metrics::OP_COUNT_GET_EPHEMERALS);
    /// Number of descendants.
    GetAllChildrenNumber = 104, "GETACN", Read, Some(&metrics::OP_COUNT_GET_ALL_CHILDREN_NUMBER);
    /// Watches again after a reconnect, persistent ones too.
    SetWatches2 = 105, "STW2", Read, Some(&metrics::OP_COUNT_SET_WATCHES);
    /// A persistent watch.
    AddWatch = 106, "ADDW", Read, Some(&metrics::OP_COUNT_ADD_WATCH);
    /// The connection's identities.
    WhoAmI = 107, "HOMI", Read, Some(&metrics::OP_COUNT_WHO_AM_I);
    /// End the session.
    CloseSession = -11, "CLOS", Write, Some(&metrics::OP_COUNT_CLOSE_SESSION);
}

/// The first frame of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectRequest {
    /// Highest zxid the client has seen; a server behind it closes the connection.
    pub last_zxid_seen: i64,
    /// Wanted session timeout.
    pub timeout_ms: i32,
    /// 0 for a new session.
    pub session_id: i64,
    /// Null reads as empty.
    pub password: Vec<u8>,
    /// `None` when the client did not send the byte; then the answer has none either.
    pub read_only: Option<bool>,
}

/// One request after the handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Echoed in the reply, never interpreted.
    pub xid: i32,
    /// The number as sent.
    pub op_number: i32,
    /// What is asked.
    pub op: Op,
    /// The bytes behind the header, see [`Request::keep_body`]; empty unless they are kept.
    pub body: Vec<u8>,
}

/// What is asked, by what becomes of it ([`Class`]). A null path has become the error it leads to: `Malformed` where Apache
/// fails to decode, the empty path (which no write accepts) elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Takes a zxid, even when it fails.
    Write(WriteOp),
    /// Answered from this server's state, in the session's order.
    Read(ReadOp),
    /// Answered on arrival, ahead of the session's order.
    Auth(AuthOp),
    /// -11: a write, but of a session that only this server knows.
    CloseSession,
}

impl Op {
    /// Of this class, with a body that cannot be decoded.
    pub fn malformed(class: Class) -> Op {
        match class {
            Class::Write => Op::Write(WriteOp::Malformed),
            Class::Read => Op::Read(ReadOp::Malformed),
            Class::Immediate => Op::Auth(AuthOp::Malformed),
        }
    }

    /// Whether its body cannot be decoded.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Op::Write(WriteOp::Malformed) | Op::Read(ReadOp::Malformed) | Op::Auth(AuthOp::Malformed))
    }
}

/// What changes the tree or the ensemble.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WriteOp {
    /// 1, 15, 19, 21
    Create(Create),
    /// 2
    Delete(Delete),
    /// 5
    SetData(SetData),
    /// 7
    SetAcl(SetAcl),
    /// 14
    Multi(Vec<MultiOp>),
    /// 16
    Reconfig(Reconfig),
    /// Error -5, which takes a zxid.
    Malformed,
}

/// What changes nothing but watches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOp {
    /// 3
    Exists(PathWatch),
    /// 4
    GetData(PathWatch),
    /// 6
    GetAcl {
        /// The node.
        path: String,
    },
    /// 8, 12
    GetChildren {
        /// Node and watch flag.
        target: PathWatch,
        /// 12: the stat follows the names.
        with_stat: bool,
    },
    /// 22
    MultiRead(Vec<MultiReadOp>),
    /// 9; the path is echoed, null too.
    Sync {
        /// Anything.
        path: Option<String>,
    },
    /// 11
    Ping,
    /// 17
    CheckWatches(WatchSelection),
    /// 18
    RemoveWatches(WatchSelection),
    /// 101, 105
    SetWatches(Box<SetWatches>),
    /// 103; null or blank means all.
    GetEphemerals {
        /// Plain text prefix.
        prefix: Option<String>,
    },
    /// 104
    GetAllChildrenNumber {
        /// The node.
        path: String,
    },
    /// 106
    AddWatch {
        /// Need not exist.
        path: String,
        /// Persistent or recursive.
        recursive: bool,
    },
    /// 107
    WhoAmI,
    /// Error -5.
    Malformed,
    /// Any other number, and 13 outside a multi: error -6, then the connection closes.
    Unknown,
}

/// What says who a client is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuthOp {
    /// 100
    Scheme {
        /// Null is unknown.
        scheme: Option<String>,
        /// Null is refused by `digest`.
        credentials: Option<Vec<u8>>,
    },
    /// 102
    Sasl {
        /// Token.
        token: Option<Vec<u8>>,
    },
    /// Error -5.
    Malformed,
}

/// Body of the four creates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Create {
    /// Which of the four (in a multi: before the flag is looked at).
    pub code: OpCode,
    /// Final path, or prefix of a sequential one.
    pub path: String,
    /// Data; null is stored as null.
    pub data: Option<Vec<u8>>,
    /// Null or empty is refused by the rules.
    pub acl: Option<Vec<Acl>>,
    /// Create mode, 0..=6 when valid.
    pub flags: i32,
    /// 21 only: time to live.
    pub ttl_ms: i64,
}

/// Body of delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delete {
    /// The node.
    pub path: String,
    /// Expected version, -1 for any.
    pub version: i32,
}

/// Body of setData.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetData {
    /// The node.
    pub path: String,
    /// Data; null is stored as null.
    pub data: Option<Vec<u8>>,
    /// Expected version, -1 for any.
    pub version: i32,
}

/// Body of setACL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetAcl {
    /// The node.
    pub path: String,
    /// Null or empty is refused by the rules.
    pub acl: Option<Vec<Acl>>,
    /// Expected aversion, -1 for any.
    pub version: i32,
}

/// One operation of a multi.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MultiOp {
    /// 1, 15, 19, 21
    Create(Create),
    /// 2
    Delete(Delete),
    /// 5
    SetData(SetData),
    /// 13
    Check {
        /// The node.
        path: String,
        /// Expected version, -1 for any.
        version: i32,
    },
}

/// One operation of a multiRead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MultiReadOp {
    /// 4
    GetData {
        /// The node.
        path: String,
    },
    /// 8
    GetChildren {
        /// The node.
        path: String,
    },
}

impl MultiReadOp {
    /// The node.
    pub fn path(&self) -> &str {
        match self {
            MultiReadOp::GetData { path } | MultiReadOp::GetChildren { path } => path,
        }
    }
}

/// Body of reconfig.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reconfig {
    /// Servers that join, comma separated.
    pub joining: Option<String>,
    /// Ids that leave.
    pub leaving: Option<String>,
    /// The whole new list instead.
    pub new_members: Option<String>,
    /// Expected config version, -1 for any.
    pub cur_config_id: i64,
}

/// A path and whether to leave a one-shot watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathWatch {
    /// The node.
    pub path: String,
    /// Leave a watch.
    pub watch: bool,
}

/// Which watches checkWatches and removeWatches mean (`Watcher.WatcherType`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchSelection {
    /// Exact path.
    pub path: String,
    /// 1 children, 2 data, 3 any, 4 persistent, 5 persistent recursive.
    pub kind: WatcherType,
}

/// `Watcher.WatcherType`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatcherType {
    /// One-shot child watch.
    Children,
    /// One-shot data watch.
    Data,
    /// All of them.
    Any,
    /// Persistent watch.
    Persistent,
    /// Persistent recursive watch.
    PersistentRecursive,
}

/// Body of setWatches and setWatches2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetWatches {
    /// The client's last seen zxid: what changed since fires at once.
    pub relative_zxid: i64,
    /// Data watches.
    pub data: Vec<String>,
    /// Watches on absent nodes.
    pub exist: Vec<String>,
    /// Child watches.
    pub child: Vec<String>,
    /// 105 only.
    pub persistent: Vec<String>,
    /// 105 only.
    pub persistent_recursive: Vec<String>,
}
