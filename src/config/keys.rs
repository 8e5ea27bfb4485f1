//! TABLE of every known configuration key. Adding a key is adding a row: its setter carries it into `Config`.
//! Called by `config::load`; holds no rules between keys (`config::check`) and no parsing (`config::kinds`).
//! Facts: `QuorumPeerConfig`, `ServerConfig` and the classes that read the system properties, 3.8.4 and 3.9.

use super::ensemble::PeerRole;
use super::kinds::Home::{
    Bare, Means, Parser as File, ParserOr as FileOr, Prefixed as Prop, PrefixedOrBare as PropOrBare,
};
use super::kinds::Verdict::{Honoured as H, Mapped as M, NoEffect as W, NotServed as L, Refused as R};
use super::kinds::{Key, keep, key};
use super::settings::{AuthProvider, Compression, Config, DigestAlg, FourLetterWords, MetricsProvider};
use crate::limits::LAST_COUNTER;

const INT: (i64, i64) = (i32::MIN as i64, i32::MAX as i64);
const COUNT: (i64, i64) = (0, i32::MAX as i64);
const SOME: (i64, i64) = (1, i32::MAX as i64);
const PORT: (i64, i64) = (0, 65535);
const LONG: (i64, i64) = (i64::MIN, i64::MAX);
const LONG_COUNT: (i64, i64) = (0, i64::MAX);
/// Why servers that are to prove who they are do not start.
const NO_QUORUM_SASL: &str = "SASL between servers is not served by this version: anybody could join them";

/// The row for a key as written in zoo.cfg: its own, else that of its family.
pub fn find(name: &str) -> Option<&'static Key> {
    // The ensemble's TLS has the client's keys under its own prefix (`QuorumX509Util`).
    if let Some(rest) = name.strip_prefix("ssl.quorum.") {
        return find(&format!("ssl.{rest}"));
    }
    let exact = TABLE.iter().find(|row| row.name == name);
    exact.or_else(|| TABLE.iter().find(|row| row.covers(name)))
}

/// The row that a system property gives a value to.
pub fn find_property(property: &str) -> Option<&'static Key> {
    let exact = |row: &&Key| row.properties().iter().any(|p| p == property);
    let family = |row: &&Key| row.home == Bare && row.covers(property);
    TABLE.iter().find(exact).or_else(|| TABLE.iter().find(family)).or_else(|| {
        let row = find(property.strip_prefix("zookeeper.")?)?;
        (row.home == Prop).then_some(row)
    })
}

/// The known name nearest to a misspelt one, if any is near.
pub fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    let likeness = |row: &Key| strsim::normalized_damerau_levenshtein(&lower, &row.name.to_lowercase());
    let names = TABLE.iter().map(|row| (likeness(row), row.name));
    let best = names.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.6).then_some(best.1)
}

fn list(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_string).collect()
}

/// A limit that is off at zero and below.
fn above_zero(n: i64) -> Option<u64> {
    u64::try_from(n).ok().filter(|n| *n > 0)
}

/// A count where everything below zero is as zero.
fn at_least_zero(n: i64) -> u32 {
    u32::try_from(n.max(0)).unwrap_or(u32::MAX)
}

/// autopurge.purgeInterval: hours, or a number with ms, s, m, h or d (`Time.parseTimeInterval`, 3.10); 0 and below is off.
fn interval_ms(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "" | "h" => 3_600_000,
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "d" => 86_400_000,
        _ => return None,
    };
    digits.trim_end().parse::<i64>().ok()?.checked_mul(unit_ms)
}

fn set_purge_interval(c: &mut Config, text: &str) -> bool {
    let ms = interval_ms(text);
    c.storage.purge_interval_ms = ms.and_then(above_zero);
    ms.is_some()
}

fn set_digest_alg(c: &mut Config, name: &str) -> bool {
    let known = DigestAlg::from_java_name(name);
    c.access.digest_alg = known.unwrap_or_default();
    known.is_some()
}

fn set_compression(c: &mut Config, name: &str) -> bool {
    let known = match name {
        "" => Some(Compression::None),
        "gz" => Some(Compression::Gzip),
        "snappy" => Some(Compression::Snappy),
        _ => None,
    };
    c.storage.snapshot_compression = known.unwrap_or_default();
    known.is_some()
}

fn add_auth_provider(c: &mut Config, class: &str) -> bool {
    let known = AuthProvider::from_java_class(class);
    c.access.auth_providers.extend(known);
    known.is_some()
}

fn set_peer_role(c: &mut Config, text: &str) -> bool {
    let known = PeerRole::parse(text);
    c.ensemble.peer_type = known;
    known.is_some()
}

fn is_cnxn_factory(_: &mut Config, class: &str) -> bool {
    let name = class.strip_prefix("org.apache.zookeeper.server.");
    matches!(name, Some("NIOServerCnxnFactory" | "NettyServerCnxnFactory"))
}

fn is_store_type(_: &mut Config, name: &str) -> bool {
    ["", "JKS", "PEM", "PKCS12"].contains(&name.to_ascii_uppercase().as_str())
}

fn is_client_auth(_: &mut Config, name: &str) -> bool {
    ["none", "want", "need"].contains(&name.to_ascii_lowercase().as_str())
}

fn set_metrics_provider(c: &mut Config, class: &str) -> bool {
    let known = MetricsProvider::from_java_class(class);
    c.metrics.provider = known.unwrap_or_default();
    known.is_some()
}

fn set_command_url(c: &mut Config, url: &str) -> bool {
    c.admin.command_url = url.trim_end_matches('/').to_owned();
    url.len() > 1 && url.starts_with('/')
}

/// Every key. H honoured, M mapped, W without effect, L not served by this version, R refused.
#[rustfmt::skip]
pub static TABLE: &[Key] = &[
    // The minimum.
    key("dataDir", File, H, "directory of snapshots, myid and epochs").path(|c, v| c.data_dir = v),
    key("dataLogDir", File, H, "directory of transaction logs").path(|c, v| c.data_log_dir = v),
    key("clientPort", File, H, "plain listener; 0 takes any free port").whole(PORT, |c, v| c.given.client_port = Some(v as u16)).expected("a port between 0 and 65535"),
    key("clientPortAddress", File, H, "address of the plain listener").text(|c, v| { c.given.client_address = Some(v.to_string()); !v.is_empty() }).expected("a host name or address"),
    key("tickTime", File, H, "base unit of session timeouts and ensemble limits").whole(SOME, |c, v| c.tick_ms = v as u32).default("3000").unit("milliseconds"),
    key("minSessionTimeout", File, H, "least session timeout; -1 for 2 ticks").whole((-1, INT.1), |c, v| c.given.session_timeout_min_ms = (v != -1).then_some(v as i32)).default("-1").unit("milliseconds"),
    key("maxSessionTimeout", File, H, "greatest session timeout; -1 for 20 ticks").whole((-1, INT.1), |c, v| c.given.session_timeout_max_ms = (v != -1).then_some(v as i32)).default("-1").unit("milliseconds"),

    // The ensemble.
    key("initLimit", File, H, "time for a learner to connect and catch up").whole(COUNT, |c, v| c.ensemble.init_limit_ticks = v as u32).default("0").unit("ticks"),
    key("syncLimit", File, H, "time a learner may be silent").whole(COUNT, |c, v| c.ensemble.sync_limit_ticks = v as u32).default("0").unit("ticks"),
    key("connectToLearnerMasterLimit", File, H, "time to connect to the leader; 0 for initLimit").whole(COUNT, |c, v| c.ensemble.connect_limit_ticks = v as u32).default("0").unit("ticks"),
    key("server.*", File, H, "a member: host:quorumPort:electionPort[:role][;[[host:]clientPort][;[host:]secureClientPort]]; TLS is not served"),
    key("group*", File, H, "a group of servers for hierarchical quorums"),
    key("weight*", File, H, "the weight of a server in its group"),
    key("peerType", File, H, "participant or observer; the server list wins").text(set_peer_role).expected("participant or observer"),
    key("electionAlg", File, H, "election algorithm; there is one").whole((3, 3), keep).default("3").expected("3, the only election algorithm"),
    key("standaloneEnabled", File, H, "one participant runs without an ensemble").flag(|c, v| c.ensemble.standalone_enabled = v).default("true"),
    key("reconfigEnabled", File, H, "members may change at run time").flag(|c, v| c.ensemble.reconfig_enabled = v).default("false"),
    key("dynamicConfigFile", File, H, "the file with the members").path(|c, v| c.ensemble.dynamic_config_file = Some(v)),
    key("quorumListenOnAllIPs", File, H, "quorum and election ports on every address").flag(|c, v| c.ensemble.listen_on_all_ips = v).default("false"),
    key("observerMasterPort", File, H, "followers take observers here; 0 is off").whole((INT.0, 65535), |c, v| c.ensemble.observer_master_port = above_zero(v).map(|p| p as u16)).default("0"),
    key("observerMaster.sizeLimit", Prop, H, "packets kept for observers").whole(COUNT, |c, v| c.ensemble.observer_master_bytes_max = v as usize).default("33554432").unit("bytes"),
    key("allowUnlistedLearners", Prop, H, "servers that are in no list of members may follow and observe, as Apache lets them; default reconfigEnabled").flag(|c, v| c.ensemble.unlisted_learners_allowed = Some(v)),
    key("oraclePath", File, R, "the oracle of a two-server ensemble is not served"),
    key("syncEnabled", FileOr("zookeeper.observer.syncEnabled"), H, "observers write to disk").flag(|c, v| c.ensemble.sync_enabled = v).default("true"),
    key("localSessionsEnabled", File, H, "sessions known to one server only").flag(|c, v| c.ensemble.local_sessions_enabled = v).default("false"),
    key("localSessionsUpgradingEnabled", File, H, "local sessions become global for ephemerals").flag(|c, v| c.ensemble.local_sessions_upgrading_enabled = v).default("false"),
    key("multiAddress.enabled", FileOr("zookeeper.multiAddress.enabled"), M, "several addresses a server").flag(|c, v| c.ensemble.multi_address_enabled = v).default("false"),
    key("multiAddress.reachabilityCheckEnabled", FileOr("zookeeper.multiAddress.reachabilityCheckEnabled"), W, "a probe of addresses; here all are dialled at once").flag(keep).default("true"),
    key("multiAddress.reachabilityCheckTimeoutMs", FileOr("zookeeper.multiAddress.reachabilityCheckTimeoutMs"), W, "time for that probe").whole(COUNT, keep).default("1000").unit("milliseconds"),
    key("quorum.cnxn.threads.size", File, W, "threads that connect to servers").whole(INT, keep).default("20"),
    key("leaderServes", Prop, H, "the leader takes clients").words(["yes", "no"], |c, v| c.ensemble.leader_serves = v).default("yes"),
    key("cnxTimeout", Prop, H, "time to connect to another server, and for its host to answer on the election port").whole(COUNT, |c, v| c.ensemble.dial_timeout_ms = v).default("5000").unit("milliseconds"),
    key("quorumCnxnTimeoutMs", Prop, H, "time for the first message on the election port; -1 for syncLimit").whole(INT, |c, v| c.ensemble.hello_timeout_ms = (v > 0).then_some(v)).default("-1").unit("milliseconds"),
    key("electionPortBindRetry", Prop, H, "attempts to bind the election port; 0 without end; default 3, and 30 while this server's name leads elsewhere or nowhere").whole(COUNT, |c, v| c.ensemble.bind_attempts = Some(at_least_zero(v))),
    key("tcpKeepAlive", Prop, H, "keepalive on election sockets").flag(|c, v| c.ensemble.tcp_keepalive = v).default("false"),
    key("fastleader.minNotificationInterval", Prop, H, "first pause between election notices").whole(COUNT, |c, v| c.ensemble.notification_interval_ms.0 = v).default("200").unit("milliseconds"),
    key("fastleader.maxNotificationInterval", Prop, H, "longest pause between election notices").whole(COUNT, |c, v| c.ensemble.notification_interval_ms.1 = v).default("60000").unit("milliseconds"),
    key("leader.maxTimeToWaitForEpoch", Prop, H, "give up leading early; -1 is off").whole(INT, |c, v| c.ensemble.epoch_wait_ms = (v >= 0).then_some(v)).default("-1").unit("milliseconds"),
    key("maxTimeToWaitForEpoch", Means("leader.maxTimeToWaitForEpoch"), M, "its title in the documentation"),
    key("leader.maxConcurrentSnapSyncs", Prop, H, "learners sent a snapshot at a time").whole(COUNT, |c, v| c.ensemble.snapshot_syncs_max = v as usize).default("10"),
    key("leader.maxConcurrentDiffSyncs", Prop, H, "learners sent a diff at a time").whole(COUNT, |c, v| c.ensemble.diff_syncs_max = v as usize).default("100"),
    key("maxConcurrentSnapSyncs", Means("leader.maxConcurrentSnapSyncs"), M, "its title in the documentation"),
    key("maxConcurrentDiffSyncs", Means("leader.maxConcurrentDiffSyncs"), M, "its title in the documentation"),
    key("leaderConnectDelayDuringRetryMs", Prop, H, "pause before a learner connects again").whole(COUNT, |c, v| c.ensemble.redial_ms = v).default("100").unit("milliseconds"),
    key("observer.reconnectDelayMs", Prop, H, "pause before an observer connects again").whole(LONG_COUNT, |c, v| c.ensemble.observer_pauses_ms[0] = v).default("0").unit("milliseconds"),
    key("observer.election.DelayMs", Prop, H, "pause before an observer looks again").whole(LONG_COUNT, |c, v| c.ensemble.observer_pauses_ms[1] = v).default("200").unit("milliseconds"),
    key("learner.asyncSending", PropOrBare, W, "a thread of its own sends").flag(keep).default("false"),
    key("learner.closeSocketAsync", PropOrBare, W, "a thread of its own closes").flag(keep).default("false"),
    key("leader.closeSocketAsync", PropOrBare, W, "a thread of its own closes").flag(keep).default("false"),
    key("forward_learner_requests_to_commit_processor_disabled", Prop, W, "memory of the leader").flag(keep).default("false"),
    key("follower.skipLearnerRequestToNextProcessor", Prop, W, "memory of followers").flag(keep).default("false"),
    key("leader.ackLoggingFrequency", Prop, W, "sampling of acknowledgements in the log").whole(INT, keep).default("1000"),
    key("forceSnapshotSync", Prop, H, "learners always get a snapshot").flag(|c, v| c.ensemble.always_snapshot = v).default("false"),
    key("leader.nodelay", Bare, W, "TCP_NODELAY, which is always on").flag(keep).default("true"),
    key("follower.nodelay", Bare, W, "TCP_NODELAY, which is always on").flag(keep).default("true"),

    // Storage.
    key("preAllocSize", Prop, H, "step in which the log grows").whole(SOME, |c, v| c.storage.pre_alloc_size_kb = v as u64).default("65536").unit("KiB").or_default(),
    key("snapCount", Prop, H, "transactions between snapshots").whole((2, INT.1), |c, v| c.storage.snap_count = v as u32).default("100000").or_nearest(),
    key("snapSizeLimitInKb", Prop, H, "log size between snapshots; 0 is off").whole(LONG, |c, v| c.storage.snap_size_limit_kb = above_zero(v)).default("4194304").unit("KiB"),
    key("txnLogSizeLimitInKb", Prop, H, "log size at which the next file begins; 0 is off").whole(LONG, |c, v| c.storage.txn_log_size_limit_kb = above_zero(v)).default("-1").unit("KiB"),
    key("commitLogCount", Prop, H, "committed transactions kept in memory").whole((500, INT.1), |c, v| c.storage.commit_log_count = v as u32).default("500").or_nearest(),
    key("snapshotSizeFactor", Prop, H, "log read for a diff, as a part of the snapshot; negative is off").real(f64::MIN, 1.0, |c, v| c.storage.snapshot_size_factor = (v >= 0.0).then_some(v)).default("0.33").expected("a number of at most 1").or_default(),
    key("forceSync", Prop, H, "sync the log before answering").words(["yes", "no"], |c, v| c.storage.force_sync = v).default("yes"),
    key("fsync.warningthresholdms", PropOrBare, H, "a sync slower than this is reported").whole(LONG_COUNT, |c, v| c.storage.fsync_warning_threshold_ms = v as u64).default("1000").unit("milliseconds"),
    key("flushDelay", Prop, M, "how long a write may wait for company").whole(LONG, |c, v| c.storage.flush_delay_ms = v.max(0) as u64).default("0").unit("milliseconds"),
    key("maxWriteQueuePollTime", Prop, M, "how long the logger waits for the next write; default flushDelay / 3").whole(LONG, |c, v| c.given.write_queue_poll_ms = Some(v.max(0) as u64)).unit("milliseconds"),
    key("maxBatchSize", Prop, M, "writes a sync, never more than 1000; 0 is 1000 too").whole(INT, |c, v| c.storage.batch_max = at_least_zero(v)).default("1000"),
    key("dataDirLock", Prop, H, "the data folders are locked, so that no second server writes there").words(["yes", "no"], |c, v| c.storage.lock_data_dir = v).default("yes"),
    key("txnLogStore", Prop, H, "how records get into the mapped log: write, or mmap").words(["write", "mmap"], |c, v| c.storage.log_through_mapping = !v).default("write"),
    key("snapshot.compression.method", Prop, H, "how snapshots are written").text(set_compression).expected("gz, snappy or nothing").or_default(),
    key("snapshot.trust.empty", Prop, H, "logs without a snapshot are trusted").flag(|c, v| c.storage.snapshot_trust_empty = v).default("false"),
    key("datadir.autocreate", Prop, H, "make the directories if missing").flag(|c, v| c.storage.datadir_autocreate = v).default("true"),
    key("db.autocreate", Prop, H, "an empty server may vote").flag(|c, v| c.storage.db_autocreate = v).default("true"),
    key("autopurge.snapRetainCount", File, H, "snapshots kept by a purge").whole((3, INT.1), |c, v| c.storage.snap_retain_count = v as u32).default("3").or_nearest(),
    key("autopurge.purgeInterval", File, H, "time between purges; 0 is off").text(set_purge_interval).default("0").expected("a whole number of hours, or one followed by ms, s, m, h or d"),
    key("digest.enabled", Prop, H, "the digest of the tree in logs and snapshots").flag(|c, v| c.storage.digest_enabled = v).default("true"),
    key("closeSessionTxn.enabled", Prop, H, "closeSession lists the ephemerals").flag(|c, v| c.storage.close_session_txn_enabled = v).default("true"),
    key("serializeLastProcessedZxid.enabled", Prop, H, "snapshots end with the last zxid (3.9)").flag(|c, v| c.storage.serialize_last_processed_zxid_enabled = v).default("true"),

    // Limits.
    key("maxClientCnxns", File, H, "connections per client address; 0 without bound").whole(INT, |c, v| c.clients.cnxns_per_ip_max = at_least_zero(v)).default("60").unit("connections"),
    key("maxCnxns", Prop, H, "connections in all; 0 without bound").whole(COUNT, |c, v| c.clients.cnxns_max = v as u32).default("0").unit("connections").or_nearest(),
    key("clientPortListenBacklog", File, H, "connections the kernel queues; -1 for 1024").whole(INT, |c, v| c.clients.listen_backlog = above_zero(v).map(|n| n as u32)).default("-1").unit("connections"),
    key("memoryBudgetInMb", Prop, H, "memory that bounds what may wait in this server; 0 is what a service manager, a container or the host gives").whole(LONG_COUNT, |c, v| c.memory_budget_mb = above_zero(v)).default("0").unit("MiB"),
    key("jute.maxbuffer", Bare, M, "the longest frame").whole(SOME, |c, v| c.clients.jute_max_buffer_bytes = v as u32).default("1048575").unit("bytes"),
    key("jute.maxbuffer.extrasize", Prop, H, "slack on records; default jute.maxbuffer").whole(COUNT, |c, v| c.given.jute_extra_bytes = Some(v as u32)).unit("bytes"),
    key("globalOutstandingLimit", Prop, H, "requests in flight before reading stops").whole(COUNT, |c, v| c.throttle.outstanding_requests_max = v as u32).default("1000").unit("requests"),
    key("largeRequestThreshold", Prop, H, "a request above this is large; -1 is off").whole(INT, |c, v| c.throttle.large_request_threshold_bytes = above_zero(v).map(|n| n as u32)).default("-1").unit("bytes"),
    key("largeRequestMaxBytes", Prop, H, "large requests in flight").whole(COUNT, |c, v| c.throttle.large_requests_max_bytes = v as u64).default("104857600").unit("bytes"),
    key("request_throttle_max_requests", Prop, M, "requests in flight before new ones wait; 0 is off").whole(INT, |c, v| c.throttle.requests_max = at_least_zero(v)).default("0").unit("requests"),
    key("requestThrottleLimit", Means("request_throttle_max_requests"), M, "its title in the documentation"),
    key("request_throttle_stall_time", Prop, H, "the longest such wait before looking again").whole(COUNT, |c, v| c.throttle.stall_ms = v as u64).default("100").unit("milliseconds"),
    key("requestThrottleStallTime", Means("request_throttle_stall_time"), M, "its title in the documentation"),
    key("request_throttle_drop_stale", Prop, H, "stale requests are dropped").flag(|c, v| c.throttle.drop_stale = v).default("true"),
    key("requestThrottleDropStale", Means("request_throttle_drop_stale"), M, "its title in the documentation"),
    key("request_stale_latency_check", Prop, H, "a request older than its session timeout is stale").flag(|c, v| c.throttle.stale_latency_check = v).default("false"),
    key("requestStaleLatencyCheck", Means("request_stale_latency_check"), M, "its title in the documentation"),
    key("request_stale_connection_check", Prop, H, "a request of a closed connection is stale").flag(|c, v| c.throttle.stale_connection_check = v).default("true"),
    key("requestStaleConnectionCheck", Means("request_stale_connection_check"), M, "its title in the documentation"),
    key("request_throttler.shutdownTimeout", Prop, M, "time to drain on stop").whole(COUNT, |c, v| c.throttle.shutdown_timeout_ms = v as u64).default("10000").unit("milliseconds"),
    key("throttled_op_wait_time", Prop, H, "operations queued longer fail; 0 is off").whole(INT, |c, v| c.throttle.op_wait_ms = above_zero(v)).default("0").unit("milliseconds"),
    key("throttledOpWaitTime", Means("throttled_op_wait_time"), M, "its title in the documentation"),
    key("connection_throttle_tokens", Prop, H, "bucket for new sessions; 0 is off").whole(INT, |c, v| c.throttle.connections.tokens = at_least_zero(v)).default("0").unit("tokens"),
    key("connectionMaxTokens", Means("connection_throttle_tokens"), M, "its title in the documentation"),
    key("connection_throttle_fill_time", Prop, H, "time between refills").whole(SOME, |c, v| c.throttle.connections.fill_time_ms = v as u64).default("1").unit("milliseconds"),
    key("connectionTokenFillTime", Means("connection_throttle_fill_time"), M, "its title in the documentation"),
    key("connection_throttle_fill_count", Prop, H, "tokens a refill").whole(COUNT, |c, v| c.throttle.connections.fill_count = v as u32).default("1").unit("tokens"),
    key("connectionTokenFillCount", Means("connection_throttle_fill_count"), M, "its title in the documentation"),
    key("connection_throttle_freeze_time", Prop, H, "time between changes of the drop rate; -1 is off").whole(INT, |c, v| c.throttle.connections.freeze_time_ms = u64::try_from(v).ok()).default("-1").unit("milliseconds"),
    key("connectionFreezeTime", Means("connection_throttle_freeze_time"), M, "its title in the documentation"),
    key("connection_throttle_drop_increase", Prop, H, "step up of the drop rate").real(0.0, 1.0, |c, v| c.throttle.connections.drop_increase = v).default("0.02"),
    key("connectionDropIncrease", Means("connection_throttle_drop_increase"), M, "its title in the documentation"),
    key("connection_throttle_drop_decrease", Prop, H, "step down of the drop rate").real(0.0, 1.0, |c, v| c.throttle.connections.drop_decrease = v).default("0.002"),
    key("connectionDropDecrease", Means("connection_throttle_drop_decrease"), M, "its title in the documentation"),
    key("connection_throttle_decrease_ratio", Prop, H, "part of the tokens above which the rate falls").real(0.0, 1.0, |c, v| c.throttle.connections.decrease_ratio = v).default("0"),
    key("connectionDecreaseRatio", Means("connection_throttle_decrease_ratio"), M, "its title in the documentation"),
    key("connection_throttle_weight_enabled", Prop, H, "sessions weigh by kind").flag(|c, v| c.throttle.connections.weight_enabled = v).default("false"),
    key("connection_throttle_global_session_weight", Prop, H, "tokens of a global session").whole(SOME, |c, v| c.throttle.connections.global_session_weight = v as u32).default("3").or_default(),
    key("connection_throttle_renew_session_weight", Prop, H, "tokens of a renewed session").whole(SOME, |c, v| c.throttle.connections.renew_session_weight = v as u32).default("2").or_default(),
    key("connection_throttle_local_session_weight", Prop, H, "tokens of a local session").whole(SOME, |c, v| c.throttle.connections.local_session_weight = v as u32).default("1").or_default(),
    key("enforceQuota", Prop, H, "hard quotas are errors").flag(|c, v| c.access.enforce_quota = v).default("false"),
    key("nio.sessionlessCnxnTimeout", Prop, H, "time for a connect request").whole(SOME, |c, v| c.clients.sessionless_timeout_ms = v as u64).default("10000").unit("milliseconds"),
    key("connectHoldMs", Prop, H, "how long a connect request waits while a leader is looked for; 0 closes its connection at once, as Apache does").whole(COUNT, |c, v| c.clients.connect_hold_ms = v as u64).default("1000").unit("milliseconds"),
    key("clientTcpKeepAlive", Prop, H, "keepalive on client sockets").flag(|c, v| c.clients.tcp_keepalive = v).default("false"),
    key("nio.numSelectorThreads", Prop, W, "threads; here one polls").whole(INT, keep),
    key("nio.numWorkerThreads", Prop, W, "threads; here one polls").whole(INT, keep),
    key("nio.directBufferBytes", Prop, W, "buffers").whole(INT, keep).default("65536"),
    key("nio.shutdownTimeout", Prop, W, "end of threads").whole(LONG, keep).default("5000"),
    key("commitProcessor.numWorkerThreads", Prop, W, "threads; here one decides").whole(INT, keep),
    key("commitProcessor.shutdownTimeout", Prop, W, "end of threads").whole(LONG, keep).default("5000"),
    key("commitProcessor.maxReadBatchSize", Prop, W, "batches between threads").whole(INT, keep).default("-1"),
    key("commitProcessor.maxCommitBatchSize", Prop, W, "batches between threads").whole(INT, keep).default("1"),
    key("maxResponseCacheSize", Prop, W, "cache of replies").whole(INT, keep).default("400"),
    key("maxGetChildrenResponseCacheSize", Prop, W, "cache of replies").whole(INT, keep).default("400"),
    key("intBufferStartingSizeBytes", Prop, W, "buffers").whole((32, INT.1), keep).default("1024").unit("bytes"),
    key("netty.advancedFlowControl.enabled", Prop, W, "reading always stops when a client does not read").flag(keep).default("false"),
    key("advancedFlowControlEnabled", Means("netty.advancedFlowControl.enabled"), W, "its title in the documentation"),
    key("outstandingHandshake.limit", Means("netty.server.outstandingHandshake.limit"), L, "its title in the documentation"),
    key("netty.server.outstandingHandshake.limit", Prop, L, "TLS handshakes at a time").whole(INT, keep).default("-1"),
    key("netty.server.earlyDropSecureConnectionHandshakes", Prop, L, "refuse TLS early under load").flag(keep).default("false"),
    key("netty.*", Prop, W, "the Netty library"),

    // TLS; ssl.quorum.* has the same keys.
    key("secureClientPort", File, R, "TLS for clients is not served by this version"),
    key("secureClientPortAddress", File, R, "TLS for clients is not served by this version"),
    key("serverCnxnFactory", Prop, M, "one poller serves what both classes do").text(is_cnxn_factory).default("org.apache.zookeeper.server.NIOServerCnxnFactory").expected("org.apache.zookeeper.server.NIOServerCnxnFactory or ...NettyServerCnxnFactory"),
    key("client.portUnification", Prop, R, "TLS for clients is not served by this version").flag(keep).default("false"),
    key("client.certReload", Prop, L, "stores are read again when they change").flag(keep).default("false"),
    key("ssl.keyStore.location", Prop, L, "own key and certificate"),
    key("ssl.keyStore.password", Prop, L, "password of that store"),
    key("ssl.keyStore.passwordPath", Prop, L, "file with that password"),
    key("ssl.keyStore.type", Prop, L, "form of that store").text(is_store_type).expected("PEM, PKCS12 or JKS"),
    key("ssl.trustStore.location", Prop, L, "certificates trusted"),
    key("ssl.trustStore.password", Prop, L, "password of that store"),
    key("ssl.trustStore.passwordPath", Prop, L, "file with that password"),
    key("ssl.trustStore.type", Prop, L, "form of that store").text(is_store_type).expected("PEM, PKCS12 or JKS"),
    key("ssl.protocol", Prop, L, "TLS version"),
    key("ssl.enabledProtocols", Prop, L, "TLS versions"),
    key("ssl.ciphersuites", Prop, L, "cipher suites"),
    key("ssl.clientAuth", Prop, L, "client certificates").text(is_client_auth).default("need").expected("none, want or need"),
    key("ssl.hostnameVerification", Prop, L, "names in certificates").flag(keep).default("true"),
    key("ssl.clientHostnameVerification", Prop, L, "names in client certificates").flag(keep).default("false"),
    key("ssl.crl", Prop, R, "certificate revocation lists are not consulted").flag(keep).default("false"),
    key("ssl.ocsp", Prop, R, "certificate revocation is not asked for").flag(keep).default("false"),
    key("ssl.context.supplier.class", Prop, R, "a Java class cannot be loaded"),
    key("ssl.authProvider", Prop, R, "client certificates are checked by x509 only").default("x509"),
    key("ssl.handshakeDetectionTimeoutMillis", Prop, L, "time to tell TLS from plain").whole(SOME, keep).default("5000").or_default(),
    key("ssl.sslProvider", Prop, W, "the JDK's TLS"),
    key("ssl.allowReverseDnsLookup", Prop, W, "reverse look-ups of TLS peers").flag(keep).default("false"),
    key("fips-mode", Prop, L, "only what FIPS allows").flag(keep),
    key("sslQuorum", File, R, "TLS between servers is not served by this version: all of it would go in the clear, and to anybody").flag(keep).default("false"),
    key("portUnification", File, R, "TLS between servers is not served by this version").flag(keep).default("false"),
    key("sslQuorumReloadCertFiles", File, L, "stores are read again when they change").flag(keep).default("false"),

    // Authentication.
    key("authProvider.*", Prop, M, "an authentication class").text(add_auth_provider).expected("one of org.apache.zookeeper.server.auth.{SASL,X509,Digest,IP,Ensemble}AuthenticationProvider").or_nothing(),
    key("DigestAuthenticationProvider.enabled", Prop, H, "scheme digest").flag(|c, v| c.access.digest_provider_enabled = v).default("true"),
    key("DigestAuthenticationProvider.superDigest", Prop, H, "super:DIGEST, who may do everything").text(|c, v| { c.access.super_digest = Some(v.to_string()); true }),
    key("DigestAuthenticationProvider.digestAlg", Prop, H, "the digest of passwords").text(set_digest_alg).default("SHA1").expected("an algorithm that Java has: SHA1, SHA-224, SHA-256, SHA-384, SHA-512, SHA-512/224, SHA-512/256, SHA3-224, SHA3-256, SHA3-384, SHA3-512, MD5 or MD2"),
    key("X509AuthenticationProvider.superUser", Prop, L, "certificate name that may do everything").text(|c, v| { c.access.x509_super_user = Some(v.to_string()); true }),
    key("X509AuthenticationProvider.*", Prop, L, "what of a certificate is the id"),
    key("superUser", Prop, L, "SASL id that may do everything"),
    key("superUser.*", Prop, L, "SASL id that may do everything"),
    key("SASLAuthenticationProvider.superPassword", Prop, L, "password of the SASL user super"),
    key("letAnySaslUserDoX", Prop, L, "ACL id that stands for any SASL user"),
    key("allowSaslFailedClients", Prop, L, "connections outlive a failed SASL login").flag(|c, v| c.access.allow_sasl_failed_clients = v).default("false"),
    key("sessionRequireClientSASLAuth", Prop, H, "as enforce.auth with scheme sasl").flag(|c, v| c.given.session_requires_sasl = v).default("false"),
    key("enforce.auth.enabled", Prop, H, "only authenticated clients are served").flag(|c, v| c.access.enforce_auth.enabled = v).default("false"),
    key("enforce.auth.schemes", Prop, H, "by one of these schemes").text(|c, v| { c.access.enforce_auth.schemes = list(v); true }),
    key("ensembleAuthName", Prop, H, "names for scheme ensemble").text(|c, v| { c.access.ensemble_auth_names = list(v); true }),
    key("skipACL", Prop, H, "no access is checked").words(["yes", "no"], |c, v| c.access.skip_acl = v).default("no"),
    key("enableEagerACLCheck", Prop, H, "learners check writes first").flag(|c, v| c.access.eager_acl_check = v).default("false"),
    key("sasl.serverconfig", Prop, L, "JAAS section of the server").default("Server"),
    key("java.security.auth.login.config", Bare, L, "JAAS file"),
    key("kerberos.removeHostFromPrincipal", Prop, W, "Kerberos").flag(keep).default("false"),
    key("kerberos.removeRealmFromPrincipal", Prop, W, "Kerberos").flag(keep).default("false"),
    key("kerberos.canonicalizeHostNames", Prop, W, "Kerberos").flag(keep).default("false"),
    key("security.auth_to_local", Prop, W, "Kerberos"),
    key("requireKerberosConfig", Prop, W, "Kerberos").flag(keep).default("false"),
    key("quorum.auth.enableSasl", File, R, NO_QUORUM_SASL).flag(keep).default("false"),
    key("quorum.auth.learnerRequireSasl", File, R, NO_QUORUM_SASL).flag(keep).default("false"),
    key("quorum.auth.serverRequireSasl", File, R, NO_QUORUM_SASL).flag(keep).default("false"),
    key("quorum.auth.learner.saslLoginContext", File, L, "JAAS section of learners").default("QuorumLearner"),
    key("quorum.auth.server.saslLoginContext", File, L, "JAAS section of servers").default("QuorumServer"),
    key("quorum.auth.kerberos.servicePrincipal", File, R, "Kerberos between servers is not served").default("zkquorum/localhost"),
    key("IPAuthenticationProvider.usexforwardedfor", Prop, R, "the address behind a proxy is not looked at: everybody behind it would have the proxy's rights").flag(keep).default("false"),

    // Admin server and metrics.
    key("admin.enableServer", Prop, H, "HTTP commands").words(["true", "false"], |c, v| c.admin.enabled = v).default("true"),
    key("admin.serverAddress", Prop, H, "its address").text(|c, v| { c.admin.address = v.to_string(); !v.is_empty() }).default("0.0.0.0").expected("a host name or address"),
    key("admin.serverPort", Prop, H, "its port").whole(PORT, |c, v| c.admin.port = v as u16).default("8080").expected("a port between 0 and 65535"),
    key("admin.idleTimeout", Prop, H, "idle connections").whole(SOME, |c, v| c.admin.idle_timeout_ms = v as u64).default("30000").unit("milliseconds"),
    key("admin.commandURL", Prop, H, "prefix of its paths").text(set_command_url).default("/commands").expected("a path that begins with /"),
    key("admin.portUnification", Prop, L, "HTTP and HTTPS").flag(keep).default("false"),
    key("admin.forceHttps", Prop, L, "HTTPS only").flag(|c, v| c.admin.https_only = v).default("false"),
    key("admin.httpVersion", Prop, W, "Jetty's HTTP version").whole(INT, keep).default("11"),
    key("admin.needClientAuth", Prop, L, "client certificates").flag(keep).default("false"),
    key("admin.snapshot.enabled", Prop, H, "command snapshot").flag(|c, v| c.admin.snapshot_enabled = v).default("true"),
    key("admin.restore.enabled", Prop, H, "command restore").flag(|c, v| c.admin.restore_enabled = v).default("true"),
    key("admin.rateLimiterIntervalInMS", Prop, H, "time between snapshot commands, and between restore commands").whole(COUNT, |c, v| c.admin.rate_limit_ms = v as u64).default("300000").unit("milliseconds"),
    key("metricsProvider.className", File, H, "where metrics go").text(set_metrics_provider).default("org.apache.zookeeper.metrics.impl.DefaultMetricsProvider").expected("org.apache.zookeeper.metrics.impl.DefaultMetricsProvider, ...impl.NullMetricsProvider or ...prometheus.PrometheusMetricsProvider"),
    key("metricsProvider.httpHost", File, H, "address for Prometheus").text(|c, v| { c.metrics.host = v.to_string(); !v.is_empty() }).default("0.0.0.0").expected("a host name or address"),
    key("metricsProvider.httpPort", File, H, "port for Prometheus").whole(PORT, |c, v| c.metrics.port = v as u16).default("7000").expected("a port between 0 and 65535"),
    key("metricsProvider.exportJvmInfo", File, M, "figures of the process").flag(|c, v| c.metrics.process = v).default("true"),
    key("metricsProvider.numWorkerThreads", File, W, "threads").whole(INT, keep).default("1"),
    key("metricsProvider.maxQueueSize", File, W, "threads").whole(INT, keep).default("1000000"),
    key("metricsProvider.workerShutdownTimeoutMs", File, W, "threads").whole(LONG, keep).default("1000"),
    key("metricsProvider.httpsPort", File, R, "metrics over HTTPS are not served by this version: they would go in the clear").default("-1"),
    key("metricsProvider.ssl.*", File, L, "TLS for metrics"),
    key("metricsProvider.*", File, W, "settings of other providers"),

    // Features and what belongs to the JVM.
    key("4lw.commands.whitelist", Prop, H, "four-letter words served; * for all, srvr always").text(|c, v| { c.clients.four_letter_words = FourLetterWords::parse(v); true }),
    key("extendedTypesEnabled", Prop, H, "TTL nodes").flag(|c, v| c.features.extended_types_enabled = v).default("false"),
    key("emulate353TTLNodes", Prop, H, "the encoding of TTL nodes in 3.5.3").flag(|c, v| c.features.emulate_353_ttl_nodes = v).default("false"),
    key("readonlymode.enabled", Bare, M, "serve reads while out of quorum").flag(|c, v| c.features.read_only_mode_enabled = v).default("false"),
    key("znode.container.checkIntervalMs", Bare, M, "time between sweeps of containers and TTL nodes").whole(SOME, |c, v| c.features.container_check_interval_ms = v as u64).default("60000").unit("milliseconds"),
    key("znode.container.maxPerMinute", Bare, M, "deletions a minute").whole(SOME, |c, v| c.features.container_max_per_minute = v as u32).default("10000"),
    key("znode.container.maxNeverUsedIntervalMs", Bare, M, "a container that never had a child goes after this; 0 is never").whole(LONG, |c, v| c.features.container_max_never_used_ms = above_zero(v)).default("0").unit("milliseconds"),
    key("audit.enable", Prop, H, "the audit log").flag(|c, v| c.features.audit_enabled = v).default("false"),
    key("audit.impl.class", Prop, R, "a Java class cannot be loaded").default("org.apache.zookeeper.audit.Slf4jAuditLogger"),
    key("watchManagerName", Prop, W, "watch memory"),
    key("watcherCleanThreadsNum", Prop, W, "watch memory").whole(INT, keep).default("2"),
    key("watcherCleanThreshold", Prop, W, "watch memory").whole(INT, keep).default("1000"),
    key("watcherCleanIntervalInSeconds", Prop, W, "watch memory").whole(INT, keep).default("600"),
    key("maxInProcessingDeadWatchers", Prop, W, "watch memory").whole(INT, keep).default("-1"),
    key("bitHashCacheSize", Prop, W, "watch memory").whole(INT, keep).default("10"),
    key("pathStats.*", Prop, W, "path statistics in the log"),
    key("messageTracker.*", Prop, W, "last messages in the log"),
    key("test.*", Prop, W, "Apache's tests"),
    key("testingonly.lastZxidCounter", Prop, H, "transactions after which an epoch ends, so that a test need not make four billion").whole((1, LAST_COUNTER as i64), |c, v| c.ensemble.last_counter = v as u32).default("4294967294"),
    key("testingonly.*", Prop, W, "Apache's tests"),
    key("jvm.pause.monitor", File, W, "pauses of the JVM").flag(keep).default("false"),
    key("jvm.pause.info-threshold.ms", File, W, "pauses of the JVM").whole(LONG, keep).default("1000"),
    key("jvm.pause.warn-threshold.ms", File, W, "pauses of the JVM").whole(LONG, keep).default("10000"),
    key("jvm.pause.sleep.time.ms", File, W, "pauses of the JVM").whole(LONG, keep).default("500"),
    key("client.secure", Prop, W, "Apache's client"),
    key("clientCnxnSocket", Prop, W, "Apache's client"),
    key("disableAutoWatchReset", Prop, W, "Apache's client"),
    key("hostProvider.*", Prop, W, "Apache's client"),
    key("kinit", Prop, W, "Apache's client"),
    key("sasl.client*", Prop, W, "Apache's client"),
    key("shuffleDnsResponse", Prop, W, "Apache's client"),
    key("jmx.*", Prop, W, "JMX"),
    key("sun.*", Prop, W, "the JVM"),
    key("com.sun.management.*", Bare, W, "JMX; metrics are had from the admin server, mntr and metricsProvider"),
    key("log.*", Prop, W, "logback; here the log goes to standard error, RUST_LOG filters it"),
    key("console.threshold", Prop, W, "logback; here the log goes to standard error, RUST_LOG filters it"),
    key("root.logger", Prop, W, "log4j; here the log goes to standard error, RUST_LOG filters it"),
    key("tracelog.*", Prop, W, "log4j"),
    key("auditlog.*", Prop, W, "log4j"),
    key("audit.logger", Prop, W, "log4j"),
];
