//! What the probes found out; `None` is "could not be found out". Plain data.

use std::path::PathBuf;

use crate::doctor::sync_ways;

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The file that was looked at.
    pub config_path: PathBuf,
    /// Why the server would not start with it.
    pub config_error: Option<String>,
    /// What it would warn about.
    pub config_warnings: Vec<String>,
    /// What it says, as far as it is of interest here.
    pub settings: Option<Settings>,
    /// The disk of the logs.
    pub disk: Option<Disk>,
    /// Why that was not measured.
    pub disk_error: Option<String>,
    /// The clock.
    pub clock: Clock,
    /// Memory and limits.
    pub host: Host,
    /// The service that the configuration is of.
    pub service: Option<Service>,
    /// The ensemble, if the server is of one.
    pub ensemble: Option<Ensemble>,
    /// Ports that this server is to have and that could not be had.
    pub ports_missed: Vec<PortMissed>,
    /// The folders of the data.
    pub folders: Vec<Folder>,
    /// How many snapshots the server that runs here could not write since the last one that it could.
    pub snapshot_failures: i64,
    /// zoo.cfg.dynamic.next, if it is there.
    pub next_config: Option<PathBuf>,
}

impl Facts {
    /// What was measured of the way to sync that the server takes: the one that `txnLogStore` says, or a plain file where
    /// the file system cannot map.
    pub fn server_sync(&self) -> Option<&SyncWay> {
        self.mapped_sync(true).or_else(|| self.measured(sync_ways::SERVER_PLAIN))
    }

    /// What was measured of the way that `txnLogStore` says; unless `is_set`, of the other one.
    pub fn mapped_sync(&self, is_set: bool) -> Option<&SyncWay> {
        let through_mapping = self.settings.as_ref().is_some_and(|settings| settings.log_through_mapping);
        self.measured(if through_mapping == is_set { sync_ways::SERVER_MMAP } else { sync_ways::SERVER })
    }

    fn measured(&self, way: sync_ways::Way) -> Option<&SyncWay> {
        self.disk.iter().flat_map(|disk| &disk.ways).find(|found| found.name == way.name)
    }
}

/// Out of zoo.cfg.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// tickTime.
    pub tick_ms: u32,
    /// initLimit in ms.
    pub init_ms: u64,
    /// syncLimit in ms.
    pub sync_ms: u64,
    /// minSessionTimeout.
    pub session_timeout_min_ms: u64,
    /// cnxTimeout.
    pub dial_ms: u64,
    /// connectToLearnerMasterLimit in ms; initLimit if it is not set.
    pub connect_ms: u64,
    /// preAllocSize in bytes.
    pub log_bytes: u64,
    /// `txnLogStore=mmap`.
    pub log_through_mapping: bool,
    /// forceSync.
    pub force_sync: bool,
    /// autopurge is on.
    pub purges: bool,
    /// dataLogDir is given and another than dataDir.
    pub has_log_dir: bool,
}

/// One way to make an append durable, measured.
#[derive(Clone, Debug)]
pub struct SyncWay {
    /// `sync_ways::Way::name`.
    pub name: &'static str,
    /// Half of the syncs take less.
    pub p50_us: i64,
    /// All but a hundredth take less.
    pub p99_us: i64,
    /// Syncs measured.
    pub count: usize,
}

/// The disk under the logs.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Where it was measured.
    pub dir: PathBuf,
    /// Every way that works there.
    pub ways: Vec<SyncWay>,
}

/// The clocks.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// The kernel's clock source, and those it could take.
    pub source: Option<(String, Vec<String>)>,
    /// Whether something keeps the wall clock on time, and how far it may be off in µs.
    pub synchronised: Option<(bool, i64)>,
    /// By how much the wall clock jumped against the monotonic one during the check.
    pub step_ms: i64,
}

/// Memory and limits.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Swap space, bytes.
    pub swap_bytes: u64,
    /// Of it in use.
    pub swap_used_bytes: u64,
    /// `vm.swappiness`.
    pub swappiness: Option<u32>,
    /// `transparent_hugepage/enabled`, the word in brackets.
    pub huge_pages: Option<String>,
    /// Hard limit of open files, for this process.
    pub open_files_max: Option<u64>,
    /// Memory of the machine, bytes.
    pub memory_bytes: u64,
}

/// The unit of systemd that runs a server with this configuration.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Its name.
    pub unit: String,
    /// As whom the server runs.
    pub account: Option<Account>,
    /// LimitNOFILE; `None` is without bound.
    pub open_files_max: Option<u64>,
    /// ProtectHome, as systemd shows it.
    pub protect_home: String,
    /// ProtectSystem.
    pub protect_system: String,
    /// ReadWritePaths.
    pub writable: Vec<PathBuf>,
    /// StateDirectory and the like: systemd makes them, writable.
    pub made: Vec<PathBuf>,
}

/// A user, and what groups it is in.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its groups.
    pub gids: Vec<u32>,
}

impl Account {
    /// Whether it has these rights (4 read, 2 write, 1 execute) to something with this owner, group and mode.
    pub fn may(&self, wanted: u32, (uid, gid, mode): (u32, u32, u32)) -> bool {
        let granted = match (self.uid == uid, self.gids.contains(&gid)) {
            (true, _) => mode >> 6,
            (false, true) => mode >> 3,
            (false, false) => mode,
        };
        // Root is let in everywhere.
        self.uid == 0 || granted & wanted == wanted
    }
}

/// The ensemble, seen from here.
#[derive(Clone, Debug, Default)]
pub struct Ensemble {
    /// This server.
    pub my_id: i64,
    /// Who votes.
    pub participants: usize,
    /// quorumListenOnAllIPs.
    pub listens_everywhere: bool,
    /// Every server.
    pub servers: Vec<Server>,
}

impl Ensemble {
    /// Whether all servers are meant to run here, as for a trial.
    pub fn is_one_host(&self) -> bool {
        self.servers.iter().flat_map(|server| &server.addresses).all(Address::is_loopback)
    }
}

/// A server of the list.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its id.
    pub id: i64,
    /// Each of its addresses.
    pub addresses: Vec<Address>,
}

/// One address of a server.
#[derive(Clone, Debug)]
pub struct Address {
    /// As written.
    pub host: String,
    /// What the name stands for; empty if for nothing.
    pub ips: Vec<std::net::IpAddr>,
    /// For this server itself: whether one of them is of this host.
    pub is_local: Option<bool>,
    /// For the others: each port and what it said.
    pub ports: Vec<(u16, PortUse, Answer)>,
}

impl Address {
    /// Whether it stands for nothing but the host that asks.
    pub fn is_loopback(&self) -> bool {
        self.ips.iter().all(std::net::IpAddr::is_loopback)
    }
}

/// What a port is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortUse {
    /// Every server listens there.
    Election,
    /// Only the leader listens there.
    Quorum,
    /// Every server that runs listens there.
    Client,
}

/// A port that this server is to listen on, and cannot.
#[derive(Clone, Debug)]
pub struct PortMissed {
    /// What says so in the configuration.
    pub setting: &'static str,
    /// What the server does without it.
    pub then: &'static str,
    /// It does not start.
    pub is_fatal: bool,
    /// That it cannot listen, where, and why.
    pub error: String,
    /// Somebody has it.
    pub is_taken: bool,
}

/// What came of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Somebody listens; how long the connection took, the best of some.
    Open {
        /// One round trip.
        round_trip_us: i64,
    },
    /// The host says that nobody does.
    Refused {
        /// One round trip.
        round_trip_us: i64,
    },
    /// Nothing came back in time.
    Silent,
    /// Something else.
    Failed(String),
}

/// A folder with data in it.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// With `version-2` at its end.
    pub path: PathBuf,
    /// The same, symbolic links followed.
    pub real_path: PathBuf,
    /// Whether it holds the logs.
    pub holds_logs: bool,
    /// Whether it holds the snapshots.
    pub holds_snapshots: bool,
    /// It is not there.
    pub is_missing: bool,
    /// It is there and cannot be read: why.
    pub error: Option<String>,
    /// Number of the file system it is on.
    pub device: u64,
    /// Name of that, where it is one that matters: `tmpfs`, `nfs`, `overlayfs`.
    pub file_system: Option<&'static str>,
    /// The place for temporary files that it is in, symbolic links followed: `/tmp`, `/var/tmp`.
    pub temporary: Option<&'static str>,
    /// Bytes that are free there for an ordinary user.
    pub free_bytes: u64,
    /// A server has it.
    pub in_use: bool,
    /// The newest snapshot's size.
    pub snapshot_bytes: u64,
    /// Every file that stands out.
    pub leftovers: Vec<Leftover>,
    /// What the service's user cannot use as it must; without a service, files that are not of the folder's owner or
    /// closed to it.
    pub foreign: Vec<PathBuf>,
    /// A folder above that the service's user may not pass.
    pub closed_above: Option<PathBuf>,
    /// A file in it that every user of this host may read.
    pub readable: Option<PathBuf>,
    /// Name or number of that user, or owner.
    pub owner: String,
}

/// A file that nobody needs, or that somebody may take for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Which.
    pub path: PathBuf,
    /// What.
    pub kind: LeftoverKind,
    /// Its size.
    pub bytes: u64,
}

/// What a leftover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftoverKind {
    /// Of a server's own making; its next start removes it.
    Unfinished,
    /// `uncut-log.X`: a log as it was before its tail was cut.
    Uncut,
    /// Its name begins like a log's or snapshot's, and goes on: servers read it.
    Stray,
    /// `replaced-X-Y`, `cut-X-Y`: a history, or the end of one, that a leader's replaced, which is not known to be elsewhere.
    Replaced,
    /// `wrong-join`: a leader with another history was followed, and that is not over.
    WrongJoin,
    /// Of a tool that was interrupted.
    OfTool,
}
