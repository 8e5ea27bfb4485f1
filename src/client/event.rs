//! What a client is told without asking: that its connection changed, and that a watched node did.

use std::fmt;

use crate::ids::Zxid;

/// How the client stands with the ensemble (`KeeperState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperState {
    /// No connection; the session lives on and another server is looked for.
    Disconnected,
    /// A server answers.
    SyncConnected,
    /// A server answers that cannot write.
    ConnectedReadOnly,
    /// The server refused an identity. The end.
    AuthFailed,
    /// The session is gone. The end.
    Expired,
    /// The client was closed. The end.
    Closed,
}

/// What happened (`EventType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The state changed.
    None,
    /// The node was created.
    NodeCreated,
    /// The node was deleted.
    NodeDeleted,
    /// The node's data was set.
    NodeDataChanged,
    /// A child of the node came or went.
    NodeChildrenChanged,
    /// A data watch was removed on request.
    DataWatchRemoved,
    /// A child watch was removed on request.
    ChildWatchRemoved,
    /// A persistent watch was removed on request.
    PersistentWatchRemoved,
}

impl Kind {
    /// The kind with this number, of those that servers send.
    pub(super) fn from_number(number: i32) -> Option<Kind> {
        match number {
            1 => Some(Kind::NodeCreated),
            2 => Some(Kind::NodeDeleted),
            3 => Some(Kind::NodeDataChanged),
            4 => Some(Kind::NodeChildrenChanged),
            _ => None,
        }
    }
}

/// One message to whoever made the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// How the client stands.
    pub keeper_state: KeeperState,
    /// The watched node; none when the state changed.
    pub path: Option<String>,
    /// The transaction behind it, where the server says it, else -1.
    pub zxid: Zxid,
}

impl Event {
    /// The state changed.
    pub(super) fn keeper_state(keeper_state: KeeperState) -> Event {
        Event { kind: Kind::None, keeper_state, path: None, zxid: Zxid(-1) }
    }
}

/// `WatchedEvent.toString` of 3.9.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_deref().unwrap_or("null");
        let Event { kind, keeper_state, zxid, .. } = self;
        write!(f, "WatchedEvent state:{keeper_state:?} type:{kind:?} path:{path} zxid: {}", zxid.0)
    }
}
