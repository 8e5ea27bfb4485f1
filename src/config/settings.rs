//! `Config`: every setting of a server, typed, in the unit its name says. Built once by `config::load` and then only read.
//! Plain data: nothing here parses a file, and no default stands here (they are in the table, `config::keys`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::ensemble::{EnsembleConfig, EnsembleSettings};

/// Everything a server was told. Durations end in `_ms`, sizes in `_bytes` or `_kb`; `None` means the feature is off.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The file this came from, as it was named.
    pub config_path: PathBuf,
    pub mode: Mode,
    /// The number in `dataDir/myid`; 0 without that file.
    pub server_id: i64,
    /// Snapshots, myid and epochs; the data is in `version-2` below it.
    pub data_dir: PathBuf,
    /// Transaction logs; the same as `data_dir` unless dataLogDir is given.
    pub data_log_dir: PathBuf,
    pub tick_ms: u32,
    /// Bounds of the negotiated session timeout.
    pub session_timeout_min_ms: i32,
    pub session_timeout_max_ms: i32,

    /// memoryBudgetInMb; None: what a service manager, a container or the host gives.
    pub memory_budget_mb: Option<u64>,

    pub clients: Clients,
    pub throttle: Throttle,
    pub storage: Storage,
    pub access: Access,
    pub features: Features,
    pub admin: Admin,
    pub metrics: MetricsExport,
    pub ensemble: EnsembleSettings,
    /// All system properties as strings, Apache's names: from flags, the environment and zoo.cfg.
    pub properties: Properties,
    pub(super) given: Given,
}

/// Sorted name to value.
pub type Properties = BTreeMap<String, String>;

/// How this server runs (`QuorumPeerMain`): alone, or as one of an ensemble.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Mode {
    #[default]
    Standalone,
    Quorum(Box<EnsembleConfig>),
}

/// Where to listen. Without an address: on all of them, IPv6 and IPv4, as Java's wildcard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    pub ip: Option<IpAddr>,
    /// 0 asks for any free port (3.9).
    pub port: u16,
}

impl Listen {
    /// The address to bind; the wildcard as `[::]`, for a socket that is not IPv6-only.
    pub fn socket_addr(&self) -> SocketAddr {
        let ip = self.ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        SocketAddr::new(ip, self.port)
    }

    /// Whether this is every address of the host.
    pub fn is_wildcard(&self) -> bool {
        self.ip.is_none_or(|ip| ip.is_unspecified())
    }
}

/// Listeners and what one client, or all of them, may take.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clients {
    /// None: no plain listener, which is legal.
    pub listen: Option<Listen>,
    /// None: the default of `sys::net::bind`.
    pub listen_backlog: Option<u32>,
    /// Connections per client address and listener; 0 is without bound.
    pub cnxns_per_ip_max: u32,
    /// Connections per listener; 0 is without bound.
    pub cnxns_max: u32,
    /// jute.maxbuffer: a longer frame closes its connection.
    pub jute_max_buffer_bytes: u32,
    /// jute.maxbuffer.extrasize: what a record may exceed it by.
    pub jute_extra_bytes: u32,
    /// How long a connect request waits while a leader is looked for.
    pub connect_hold_ms: u64,
    /// A client that never sends a connect request is dropped after this.
    pub sessionless_timeout_ms: u64,
    pub tcp_keepalive: bool,
    pub four_letter_words: FourLetterWords,
}

/// Bounds on requests in flight and on new connections.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Throttle {
    /// Reading from a client stops while more requests than this are in the pipeline.
    pub outstanding_requests_max: u32,
    /// Requests above this size count as large.
    pub large_request_threshold_bytes: Option<u32>,
    /// All large requests in flight together; beyond it the connection is closed.
    pub large_requests_max_bytes: u64,
    /// request_throttle_max_requests; 0 is off.
    pub requests_max: u32,
    pub stall_ms: u64,
    pub drop_stale: bool,
    pub stale_latency_check: bool,
    pub stale_connection_check: bool,
    pub shutdown_timeout_ms: u64,
    /// An operation that waited longer is answered with error -127.
    pub op_wait_ms: Option<u64>,
    pub connections: ConnectionThrottle,
}

/// The token bucket on new sessions (`BlueThrottle`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectionThrottle {
    /// 0 switches the throttle off.
    pub tokens: u32,
    pub fill_time_ms: u64,
    pub fill_count: u32,
    /// None: connections are never dropped at random.
    pub freeze_time_ms: Option<u64>,
    pub drop_increase: f64,
    pub drop_decrease: f64,
    pub decrease_ratio: f64,
    pub weight_enabled: bool,
    pub global_session_weight: u32,
    pub renew_session_weight: u32,
    pub local_session_weight: u32,
}

/// Log, snapshots and what is kept of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Storage {
    pub pre_alloc_size_kb: u64,
    /// A snapshot is due after a random part, half to whole, of this many transactions.
    pub snap_count: u32,
    /// Likewise by size of the log since.
    pub snap_size_limit_kb: Option<u64>,
    pub txn_log_size_limit_kb: Option<u64>,
    /// Committed transactions kept in memory for learners.
    pub commit_log_count: u32,
    /// How much log, as a part of the snapshot, may be read for a DIFF; None switches that off.
    pub snapshot_size_factor: Option<f64>,
    pub force_sync: bool,
    /// `txnLogStore=mmap`: records are stored through the log's mapping; else written into its pages.
    pub log_through_mapping: bool,
    /// `dataDirLock`: a data folder that cannot be locked is not used.
    pub lock_data_dir: bool,
    pub fsync_warning_threshold_ms: u64,
    /// How long a write may wait for others before it is synced.
    pub flush_delay_ms: u64,
    /// maxWriteQueuePollTime; unset, a third of the flush delay.
    pub write_queue_poll_ms: u64,
    /// Writes per sync; 0 is without bound.
    pub batch_max: u32,
    pub snapshot_compression: Compression,
    pub snapshot_trust_empty: bool,
    pub datadir_autocreate: bool,
    pub db_autocreate: bool,
    pub snap_retain_count: u32,
    pub purge_interval_ms: Option<u64>,
    pub digest_enabled: bool,
    pub close_session_txn_enabled: bool,
    pub serialize_last_processed_zxid_enabled: bool,
}

/// How new snapshots are written; any of them is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Snappy,
}

/// Who may do what.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Access {
    pub skip_acl: bool,
    pub eager_acl_check: bool,
    pub enforce_quota: bool,
    /// Scheme `digest` is offered.
    pub digest_provider_enabled: bool,
    /// `super:BASE64(DIGEST("super:password"))`.
    pub super_digest: Option<String>,
    pub digest_alg: DigestAlg,
    pub enforce_auth: EnforceAuth,
    /// authProvider.X beyond the built-in ip and digest.
    pub auth_providers: BTreeSet<AuthProvider>,
    /// Names for scheme `ensemble`.
    pub ensemble_auth_names: Vec<String>,
    pub allow_sasl_failed_clients: bool,
    pub x509_super_user: Option<String>,
}

/// enforce.auth.*: requests of clients without one of these schemes get -124 and the connection is closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnforceAuth {
    pub enabled: bool,
    pub schemes: Vec<String>,
}

/// The message digest behind scheme `digest` (Java's names, any case).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DigestAlg {
    #[default]
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha512_224,
    Sha512_256,
    Sha3_224,
    Sha3_256,
    Sha3_384,
    Sha3_512,
    Md5,
    Md2,
}

impl DigestAlg {
    /// None for what Java does not have either.
    pub fn from_java_name(name: &str) -> Option<DigestAlg> {
        Some(match name.to_ascii_uppercase().as_str() {
            "SHA" | "SHA1" | "SHA-1" => DigestAlg::Sha1,
            "SHA224" | "SHA-224" => DigestAlg::Sha224,
            "SHA256" | "SHA-256" => DigestAlg::Sha256,
            "SHA384" | "SHA-384" => DigestAlg::Sha384,
            "SHA512" | "SHA-512" => DigestAlg::Sha512,
            "SHA512/224" | "SHA-512/224" => DigestAlg::Sha512_224,
            "SHA512/256" | "SHA-512/256" => DigestAlg::Sha512_256,
            "SHA3-224" => DigestAlg::Sha3_224,
            "SHA3-256" => DigestAlg::Sha3_256,
            "SHA3-384" => DigestAlg::Sha3_384,
            "SHA3-512" => DigestAlg::Sha3_512,
            "MD5" => DigestAlg::Md5,
            "MD2" => DigestAlg::Md2,
            _ => return None,
        })
    }
}

/// The authentication classes that Apache ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthProvider {
    Digest,
    Ensemble,
    Ip,
    Sasl,
    X509,
}

impl AuthProvider {
    pub fn from_java_class(class: &str) -> Option<AuthProvider> {
        let name = class.strip_prefix("org.apache.zookeeper.server.auth.")?;
        Some(match name.strip_suffix("AuthenticationProvider")? {
            "Digest" => AuthProvider::Digest,
            "Ensemble" => AuthProvider::Ensemble,
            "IP" => AuthProvider::Ip,
            "SASL" => AuthProvider::Sasl,
            "X509" => AuthProvider::X509,
            _ => return None,
        })
    }

    /// Why a class of Apache's cannot be passed over: what it keeps closed would stand open.
    pub fn needed(class: &str) -> Option<&'static str> {
        class.ends_with(".X509ZNodeGroupAclProvider").then_some(
            "this version has no such provider, which gives each new node the access list of its creator: nodes would be \
             open to everybody",
        )
    }

    /// Whether this version knows its scheme; the others are accepted, and nobody authenticates by them.
    pub fn is_served(self) -> bool {
        !matches!(self, AuthProvider::Sasl | AuthProvider::X509)
    }

    /// The name of its scheme in ACLs and auth packets.
    pub fn scheme(self) -> &'static str {
        match self {
            AuthProvider::Digest => "digest",
            AuthProvider::Ensemble => "ensemble",
            AuthProvider::Ip => "ip",
            AuthProvider::Sasl => "sasl",
            AuthProvider::X509 => "x509",
        }
    }
}

/// Switches of single features.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    /// TTL nodes.
    pub extended_types_enabled: bool,
    pub emulate_353_ttl_nodes: bool,
    pub read_only_mode_enabled: bool,
    pub container_check_interval_ms: u64,
    pub container_max_per_minute: u32,
    /// None: a container that never had a child stays.
    pub container_max_never_used_ms: Option<u64>,
    pub audit_enabled: bool,
}

/// The HTTP server for operators (`AdminServer`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Admin {
    pub enabled: bool,
    /// A name or an address.
    pub address: String,
    pub port: u16,
    /// How long a client may be silent.
    pub idle_timeout_ms: u64,
    /// What the paths of commands begin with.
    pub command_url: String,
    /// Nothing may go over plain HTTP.
    pub https_only: bool,
    pub snapshot_enabled: bool,
    pub restore_enabled: bool,
    /// The least time between two snapshots by command, and between two restores.
    pub rate_limit_ms: u64,
}

/// Where metrics go beyond `mntr` (`metricsProvider`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsExport {
    pub provider: MetricsProvider,
    /// Of the endpoint for Prometheus: a name or an address.
    pub host: String,
    pub port: u16,
    /// Figures of the process, too.
    pub process: bool,
}

/// The classes that Apache has for this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetricsProvider {
    #[default]
    Default,
    /// Nothing is published.
    Null,
    Prometheus,
}

impl MetricsProvider {
    pub(super) fn from_java_class(class: &str) -> Option<MetricsProvider> {
        match class.strip_prefix("org.apache.zookeeper.metrics.")? {
            "impl.DefaultMetricsProvider" => Some(MetricsProvider::Default),
            "impl.NullMetricsProvider" => Some(MetricsProvider::Null),
            "prometheus.PrometheusMetricsProvider" => Some(MetricsProvider::Prometheus),
            _ => None,
        }
    }
}

/// 4lw.commands.whitelist (`FourLetterCommands.isEnabled`): `srvr` always, `isro` with read-only mode, `*` for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FourLetterWords {
    pub all: bool,
    pub words: BTreeSet<String>,
}

impl FourLetterWords {
    pub(crate) fn parse(list: &str) -> FourLetterWords {
        let words = list.split(',').map(str::trim).filter(|w| !w.is_empty());
        let words: BTreeSet<String> = words.map(str::to_string).collect();
        let all = words.contains("*");
        FourLetterWords { all, words }
    }

    /// Whether a client may ask for this word.
    pub fn allows(&self, word: &str) -> bool {
        self.all || word == "srvr" || self.words.contains(word)
    }
}

/// What the file says about addresses, before its parts are put together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Given {
    pub client_port: Option<u16>,
    pub client_address: Option<String>,
    pub jute_extra_bytes: Option<u32>,
    pub session_timeout_min_ms: Option<i32>,
    pub session_timeout_max_ms: Option<i32>,
    pub write_queue_poll_ms: Option<u64>,
    pub session_requires_sasl: bool,
}
