//! What four-letter words and commands are made from: the parts of the poller, of the pipeline, of the quorum and of the
//! host, as values and as two traits. The pipeline implements [`ServerView`], `sys::host` implements [`Host`]; only this
//! module's tables ask them.
//! Each method is asked only for a word that shows its answer, so the long ones cost nothing until somebody wants them.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use jiff::tz::TimeZone;

use crate::codes::Code;
use crate::config::Members;
use crate::ids::{ServerId, SessionId, Zxid};
use crate::mail::LastAnswer;
use crate::records::Stat;

/// What only the poller knows when a word arrives.
#[derive(Debug, Default)]
pub struct PollerView {
    /// `stmk`: the eight bytes behind the word.
    pub argument: Option<i64>,
    /// The first [`LISTED_MAX`](crate::limits::LISTED_MAX) connections, for the words that list them (cons, stat, dump);
    /// all, for commands that do, if they are no more than that; else none.
    pub connections: Vec<ConnView>,
    /// Number of open connections, this one included.
    pub connection_count: u32,
}

/// One connection as `cons` shows it.
#[derive(Debug, Clone)]
pub struct ConnView {
    /// Remote address.
    pub peer: SocketAddr,
    /// 1 read, 4 write, 5 both.
    pub interest_ops: u8,
    /// Requests not answered yet.
    pub queued: u32,
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// When the poller closes it if nothing is heard, monotonic ms; `dump` puts those with equal values together.
    pub expires_mono_ms: i64,
    /// With a session only.
    pub session: Option<SessionView>,
}

/// The session part of a `cons` line.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Session id.
    pub id: SessionId,
    /// Negotiated timeout.
    pub timeout_ms: i32,
    /// When the connection was made, wall clock, ms.
    pub established_wall_ms: i64,
    /// The last answer, if there was one.
    pub last: Option<LastAnswer>,
    /// When it was sent, monotonic ms.
    pub last_response_mono_ms: i64,
    /// Latencies, ms.
    pub last_latency_ms: i64,
    /// Smallest.
    pub min_latency_ms: i64,
    /// Mean.
    pub avg_latency_ms: i64,
    /// Largest.
    pub max_latency_ms: i64,
}

/// What a server is, as operators are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Starting, or looking for a leader: most words are refused.
    NotServing,
    /// Alone.
    Standalone,
    /// The head of an ensemble.
    Leader,
    /// A voter behind a leader.
    Follower,
    /// Behind a leader, without a vote.
    Observer,
    /// Cut off, and serving reads to those who accept that.
    ReadOnly,
}

impl Mode {
    /// As `Mode:` of `srvr` and `zk_server_state` have it.
    pub fn text(self) -> &'static str {
        match self {
            Mode::NotServing => "null",
            Mode::Standalone => "standalone",
            Mode::Leader => "leader",
            Mode::Follower => "follower",
            Mode::Observer => "observer",
            Mode::ReadOnly => "read-only",
        }
    }
}

/// What words and commands need of the pipeline. While the mode is [`Mode::NotServing`], words ask nothing but the mode,
/// and figures are those of the role before. Of a list that has more than [`LISTED_MAX`](crate::limits::LISTED_MAX) entries
/// there are so many, whichever come first; its count says how many there are.
pub trait ServerView {
    /// What this server is now.
    fn mode(&self) -> Mode;
    /// Last transaction applied.
    fn last_zxid(&self) -> Zxid;
    /// Nodes in the tree.
    fn node_count(&self) -> u64;
    /// Ephemeral nodes among them.
    fn ephemerals_count(&self) -> u64;
    /// Bytes of all paths and data.
    fn approximate_data_size(&self) -> u64;
    /// All watches, on data and on children.
    fn watch_count(&self) -> u64;
    /// Requests read and not answered.
    fn outstanding(&self) -> u64;
    /// Sessions of the ensemble (standalone: all).
    fn global_sessions(&self) -> u64;
    /// Time since the server began to serve, ms.
    fn uptime_ms(&self) -> i64;
    /// The settings in force.
    fn settings(&self) -> Settings;
    /// Quotas under `/zookeeper/quota`, added up by top-level namespace, for `mntr`; none where there are more than
    /// [`LISTED_MAX`](crate::limits::LISTED_MAX), for each has to be looked up.
    fn quotas(&self) -> Vec<Quota>;
    /// Number of the sessions that `dump` is about.
    fn listed_sessions(&self) -> u64;
    /// Sessions by the time they expire, for `dump`.
    fn sessions(&self) -> Sessions;
    /// Sessions with ephemeral nodes, and the paths of these, for `dump`.
    fn ephemerals(&self) -> Vec<(SessionId, Vec<Cow<'_, str>>)>;
    /// Number of watches on data (and on absent nodes).
    fn data_watch_count(&self) -> u64;
    /// The same watches in numbers, for `wchs`.
    fn watch_totals(&self) -> WatchTotals;
    /// The same watches, for `wchc`.
    fn watches_by_session(&self) -> Vec<(SessionId, Vec<Cow<'_, str>>)>;
    /// The same watches, for `wchp`.
    fn watches_by_path(&self) -> Vec<(Cow<'_, str>, Vec<SessionId>)>;
    /// Digests of the tree after every 128th transaction, oldest first, for `hash`.
    fn digest_log(&self) -> Vec<(Zxid, u64)>;

    /// Sessions of this server only.
    fn local_sessions(&self) -> u64 {
        0
    }
    /// How likely the connection throttle turns the next connection away.
    fn connection_drop_probability(&self) -> f64 {
        0.0
    }
    /// Members of an ensemble: `following - broadcast` and its like.
    fn peer_state(&self) -> Option<String> {
        None
    }
    /// Members of an ensemble: who belongs to it.
    fn members(&self) -> Option<&Members> {
        None
    }
    /// A node, as somebody at this address sees it who says no more about himself than `authorization` (a scheme, a blank,
    /// a credential).
    fn node(&self, _path: &str, _address: IpAddr, _authorization: Option<&str>) -> Result<NodeView, Code> {
        Err(Code::Unimplemented)
    }
    /// Whether somebody who asks for an admin command may do everything with the root.
    fn may_command(&self, _address: IpAddr, _authorization: &str) -> Result<(), Denied> {
        Err(Denied::Unknown)
    }
    /// Whether nobody is served, and everything that was logged is applied.
    fn is_at_rest(&self) -> bool {
        false
    }
    /// How far the snapshot is that was wanted last.
    fn snapshot_progress(&self) -> SnapshotProgress {
        SnapshotProgress::Done
    }
    /// Do observers follow this follower?
    fn is_observer_master(&self) -> bool {
        false
    }
}

/// How far a snapshot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotProgress {
    /// Wanted, or being written.
    UnderWay,
    /// It could not be written, and none was begun or wanted since.
    Failed,
    /// On disk.
    Done,
}

/// What `conf` shows, in its order.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// -1 without one.
    pub client_port: i32,
    /// -1 without one.
    pub secure_client_port: i32,
    /// With the `version-2` of its end.
    pub data_dir: PathBuf,
    /// With the `version-2` of its end.
    pub data_log_dir: PathBuf,
    /// `tickTime`.
    pub tick_ms: i32,
    /// `maxClientCnxns`, 0 without a limit.
    pub max_client_cnxns: i32,
    /// As in force, not as written.
    pub min_session_timeout_ms: i32,
    /// As in force, not as written.
    pub max_session_timeout_ms: i32,
    /// -1 for the default.
    pub client_port_listen_backlog: i32,
    /// `myid`; 0 of a standalone server, with or without one.
    pub server_id: i64,
    /// Members of an ensemble only.
    pub quorum: Option<QuorumSettings>,
}

/// The rest of `conf` on a member of an ensemble.
#[derive(Clone, Debug)]
pub struct QuorumSettings {
    /// Ticks.
    pub init_limit: i32,
    /// Ticks.
    pub sync_limit: i32,
    /// 3.
    pub election_alg: i32,
    /// `|` between several.
    pub election_ports: String,
    /// `|` between several.
    pub quorum_ports: String,
    /// 0 participant, 1 observer.
    pub peer_type: i32,
    /// The lines `server.N=...` and `version=...`, without a newline at the end; not on a read-only server.
    pub membership: Option<String>,
}

/// The quotas of one top-level namespace, added up; -1 for one without.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quota {
    /// First element of the path.
    pub namespace: String,
    /// Nodes allowed; a hard limit goes before a soft one.
    pub count_limit: i64,
    /// Bytes allowed; a hard limit goes before a soft one.
    pub bytes_limit: i64,
    /// Nodes there.
    pub count_usage: i64,
    /// Bytes there.
    pub bytes_usage: i64,
}

/// Sessions as `dump` shows them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sessions {
    /// Who decides on expiry: by time, earliest first.
    Expiring(Vec<Bucket>),
    /// A learner, which only knows ids and timeouts in ms.
    Known(Vec<(SessionId, i32)>),
}

/// What expires together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// When, monotonic ms.
    pub expires_mono_ms: i64,
    /// Who.
    pub sessions: Vec<SessionId>,
}

/// Watches in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WatchTotals {
    /// Connections that watch something.
    pub connections: u64,
    /// Paths that are watched.
    pub paths: u64,
    /// Pairs of the two.
    pub watches: u64,
}

/// Why an admin command is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// The server serves nobody.
    NotServing,
    /// Whoever asks does not say who that is.
    Anonymous,
    /// Nobody knows who asks.
    Unknown,
    /// That one may not.
    NotAllowed,
}

/// A node for the status page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView {
    /// Its figures.
    pub stat: Stat,
    /// The first bytes of its data.
    pub data: Vec<u8>,
    /// The names of its first children, in order.
    pub children: Vec<String>,
}

/// What the quorum thread knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumView {
    /// This server.
    pub my_id: ServerId,
    /// How far it is: `election`, `discovery`, `synchronization`, `broadcast`.
    pub stage: &'static str,
    /// Whether it leads, or tries to.
    pub leads: bool,
    /// Whom it follows or is; `None` while it looks.
    pub leader: Option<ServerId>,
    /// The last transaction that its leader is known to have proposed; only behind one.
    pub leaders_last: Option<Zxid>,
    /// Whoever follows this server, by id.
    pub learners: Vec<LearnerView>,
}

/// One who follows this server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnerView {
    /// Who.
    pub id: ServerId,
    /// Its connection.
    pub link: LinkView,
    /// Without a vote.
    pub observer: bool,
    /// Whether it has the history.
    pub synced: bool,
    /// The last transaction that it acknowledged, or (an observer) was told.
    pub last: Zxid,
}

/// The connection of one who follows; what the quorum thread knows beside its core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkView {
    /// Where from.
    pub peer: Option<SocketAddr>,
    /// When it was made, wall clock, ms.
    pub established_wall_ms: i64,
    /// Bytes that wait to be sent.
    pub queued_bytes: u64,
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Requests among those received.
    pub requests: u64,
}

/// A snapshot on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotOnDisk {
    /// In its name.
    pub zxid: Zxid,
    /// When it was written, seconds since 1970.
    pub written_wall_s: i64,
}

/// What words need of the machine. Reading it may touch files (directories of the store, `/proc`), so nothing here is
/// called but for a word that shows it.
pub trait Host {
    /// Sizes of the store.
    fn store_bytes(&self) -> StoreBytes;
    /// File descriptors in use, and how many may be.
    fn file_descriptors(&self) -> (i64, i64);
    /// What does not change while the process runs.
    fn environment(&self) -> &Environment;
    /// Memory now.
    fn memory(&self) -> Memory;
    /// The process.
    fn process(&self) -> Process;
    /// For dates.
    fn time_zone(&self) -> TimeZone;
    /// The newest snapshot.
    fn last_snapshot(&self) -> Option<SnapshotOnDisk>;
}

/// Apparent sizes of all files below the directories.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreBytes {
    /// Snapshots.
    pub data_dir: u64,
    /// Transaction logs.
    pub log_dir: u64,
}

/// The parts of `envi` that we have a word for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Environment {
    /// Name of the host.
    pub host_name: String,
    /// The running program.
    pub program: String,
    /// Where temporary files go.
    pub temp_dir: String,
    /// Java's name of the architecture: `amd64`, `aarch64`.
    pub os_arch: String,
    /// Release of the kernel.
    pub os_version: String,
    /// Who runs us.
    pub user_name: String,
    /// Their home.
    pub user_home: String,
    /// The working directory.
    pub user_dir: String,
}

/// What Prometheus shows of a process.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Process {
    /// Time on a processor, seconds.
    pub cpu_s: f64,
    /// When it began, seconds since 1970.
    pub start_wall_s: f64,
    /// Addresses in use, bytes.
    pub virtual_bytes: u64,
}

/// Memory in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// Resident in this process.
    pub resident: u64,
    /// What the machine could still give.
    pub available: u64,
    /// What the machine has.
    pub machine: u64,
}
