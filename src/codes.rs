//! TABLE of the error codes a client can see (`KeeperException.Code`). Use no other: the Java client throws on an
//! unknown one. Plain data; any layer may use it.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// An error code as it stands in a reply header.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(i32)]
        pub enum Code { $($(#[$doc])* $name = $value,)* }

        impl Code {
            /// Every code, for tests and for decoding logged errors.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The code with this number.
            pub fn from_number(number: i32) -> Option<Code> {
                match number { $($value => Some(Code::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// Success.
    Ok = 0,
    /// The server failed in a way it cannot name.
    SystemError = -1,
    /// In a failed multi: this operation was not tried, an earlier one failed.
    RuntimeInconsistency = -2,
    /// A value stored here cannot be what it should be.
    DataInconsistency = -3,
    /// The request could not be decoded.
    MarshallingError = -5,
    /// Unknown opcode, or a feature that is switched off.
    Unimplemented = -6,
    /// Malformed path, flags, ttl or the like.
    BadArguments = -8,
    /// Reconfiguration: no quorum of the new configuration is connected.
    NewConfigNoQuorum = -13,
    /// Reconfiguration: another one has not finished.
    ReconfigInProgress = -14,
    /// The node does not exist.
    NoNode = -101,
    /// The connection's ids lack the permission.
    NoAuth = -102,
    /// The version given is not the current one.
    BadVersion = -103,
    /// A session's ephemeral cannot have children.
    NoChildrenForEphemerals = -108,
    /// The node exists already.
    NodeExists = -110,
    /// The node has children.
    NotEmpty = -111,
    /// The session is gone.
    SessionExpired = -112,
    /// The ACL list is empty, or names an unknown scheme or a malformed id.
    InvalidAcl = -114,
    /// Authentication failed; the connection closes.
    AuthFailed = -115,
    /// Another connection owns the session. Never written to a client: the connection closes instead.
    SessionMoved = -118,
    /// A write reached a read-only server.
    NotReadOnly = -119,
    /// Ephemeral creation on a local session.
    EphemeralOnLocalSession = -120,
    /// removeWatches or checkWatches: no such watch here.
    NoWatcher = -121,
    /// `reconfigEnabled` is false.
    ReconfigDisabled = -123,
    /// Authentication is enforced and this connection has none; the connection closes.
    SessionClosedRequireSaslAuth = -124,
    /// An enforced quota would be exceeded.
    QuotaExceeded = -125,
    /// The request waited longer than `throttled_op_wait_time`.
    ThrottledOp = -127,
}

impl Code {
    /// The number on the wire and in the log.
    pub fn value(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self, self.value())
    }
}

impl std::error::Error for Code {}
