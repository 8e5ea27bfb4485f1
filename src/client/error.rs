//! What can go wrong with a request, in the words of Apache's client where it has some: scripts look for them.

use std::fmt;

use thiserror::Error;

use crate::codes::Code;

/// Why a request has no answer, or a bad one. The path is the one the caller named.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The server refused it.
    #[error("KeeperErrorCode = {}{}", name(*.code), behind(.path))]
    Refused {
        /// Its reason.
        code: Code,
        /// The node in question, where there is one.
        path: Option<String>,
    },
    /// No server could be asked, or the connection broke before the answer came: then a write may have happened or not.
    #[error("KeeperErrorCode = ConnectionLoss{}", behind(.path))]
    ConnectionLoss {
        /// The node in question, where there is one.
        path: Option<String>,
        /// What each server said.
        tried: Vec<Attempt>,
    },
    /// The session ended, and its ephemerals with it; a new client is needed.
    #[error("KeeperErrorCode = Session expired{}", behind(.path))]
    SessionExpired {
        /// The node in question, where there is one.
        path: Option<String>,
    },
    /// The server refused the identity; a new client is needed.
    #[error("KeeperErrorCode = AuthFailed{}", behind(.path))]
    AuthFailed {
        /// The node in question, where there is one.
        path: Option<String>,
    },
    /// The client was closed.
    #[error("the connection was closed")]
    Closed,
    /// The caller's interrupt was raised while waiting.
    #[error("interrupted")]
    Interrupted,
    /// A path or a connect string that no server would accept, and why.
    #[error("{0}")]
    Malformed(String),
    /// An answer that makes no sense.
    #[error("{0}; please report this, with the version of the server")]
    Protocol(String),
}

impl Error {
    /// The server's reason, if it gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the server says that the node is not there.
    pub fn is_no_node(&self) -> bool {
        self.code() == Some(Code::NoNode)
    }

    /// One word for programs.
    pub fn kind(&self) -> String {
        match self {
            Error::Refused { code, .. } => format!("{code:?}"),
            Error::ConnectionLoss { .. } => "ConnectionLoss".into(),
            Error::SessionExpired { .. } => "SessionExpired".into(),
            Error::AuthFailed { .. } => "AuthFailed".into(),
            Error::Closed => "Closed".into(),
            Error::Interrupted => "Interrupted".into(),
            Error::Malformed(_) => "Malformed".into(),
            Error::Protocol(_) => "Protocol".into(),
        }
    }

    /// The node in question.
    pub fn path(&self) -> Option<&str> {
        match self {
            Error::Refused { path, .. }
            | Error::ConnectionLoss { path, .. }
            | Error::SessionExpired { path }
            | Error::AuthFailed { path } => path.as_deref(),
            Error::Closed | Error::Interrupted | Error::Malformed(_) | Error::Protocol(_) => None,
        }
    }
}

/// One server that was asked for a connection, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Name and port, as given.
    pub server: String,
    /// Why not.
    pub why: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.why)
    }
}

fn behind(path: &Option<String>) -> String {
    path.as_deref().filter(|path| !path.is_empty()).map_or_else(String::new, |path| format!(" for {path}"))
}

/// `KeeperException.getCodeMessage`.
fn name(code: Code) -> String {
    match code {
        Code::NotEmpty => "Directory not empty".into(),
        Code::SessionExpired => "Session expired".into(),
        Code::SessionMoved => "Session moved".into(),
        Code::InvalidAcl => "InvalidACL".into(),
        Code::NotReadOnly => "Not a read-only call".into(),
        Code::EphemeralOnLocalSession => "Ephemeral node on local session".into(),
        Code::NoWatcher => "No such watcher".into(),
        Code::ReconfigDisabled => "Reconfig is disabled".into(),
        Code::SessionClosedRequireSaslAuth => "Session closed because client failed to authenticate".into(),
        Code::QuotaExceeded => "Quota has exceeded".into(),
        Code::ThrottledOp => "Op throttled due to high load".into(),
        other => format!("{other:?}"),
    }
}
