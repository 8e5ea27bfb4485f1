//! What of the configuration the pipeline decides by. Plain values, made once by `threads::options` from `config`, as are
//! their defaults.

use crate::admin::view::Settings;
use crate::config::{DigestAlg, MemberRules};

/// Rules of the pipeline.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What `conf` shows.
    pub settings: Settings,
    /// Base unit of time; width of the expiry buckets.
    pub tick_ms: i64,
    /// How long a learner may be silent before its leader gives it up (`syncLimit`).
    pub sync_ms: i64,
    /// Smallest session timeout.
    pub session_timeout_ms_min: i32,
    /// Largest session timeout.
    pub session_timeout_ms_max: i32,
    /// Whether this is a member of an ensemble: it begins in [`crate::mail::Role::Looking`] then, and is told what it
    /// becomes. Alone, it leads from the start.
    pub ensemble: bool,
    /// Whether clients are taken while this server leads an ensemble (`leaderServes`).
    pub leader_serves: bool,
    /// Whether a follower takes observers (`observerMasterPort`).
    pub observer_master: bool,
    /// Counter that each epoch ends with: [`crate::limits::LAST_COUNTER`], except in tests of what happens then.
    pub last_counter: u32,
    /// Top byte of the ids of new sessions: `myid`, or 1 when alone.
    pub server_id: i64,
    /// Whether new sessions are known to this server only, until they need to be global (`localSessionsEnabled`); only in
    /// an ensemble.
    pub local_sessions: bool,
    /// Whether a local session becomes global when it makes an ephemeral (`localSessionsUpgradingEnabled`).
    pub local_sessions_upgrading: bool,
    /// Longest body of a request that a learner may forward, bytes (`jute.maxbuffer`).
    pub request_bytes_max: usize,
    /// Bytes that the body of one transaction may have: what whoever reads it back takes (`jute.maxbuffer` and its
    /// slack). A request is smaller; identities that `auth` entries stand for, or the ephemerals of a closing session,
    /// may not be.
    pub txn_body_bytes_max: usize,
    /// Whether transactions carry the tree's digest.
    pub digest_enabled: bool,
    /// Whether closeSession lists the session's ephemerals.
    pub close_session_txn: bool,
    /// Whether TTL nodes may be made.
    pub extended_types: bool,
    /// Whether hard quotas refuse writes.
    pub enforce_quota: bool,
    /// No access checks at all.
    pub skip_acl: bool,
    /// Whether reconfig is allowed.
    pub reconfig_enabled: bool,
    /// Whether one participant alone would not be an ensemble: then none may be left alone.
    pub standalone_enabled: bool,
    /// What a list of members that a client gives may hold.
    pub members: MemberRules,
    /// Scheme `digest`; `None` when it is disabled.
    pub digest_auth: Option<DigestAuth>,
    /// Schemes one of which a connection must have; empty: not enforced.
    pub enforced_schemes: Vec<String>,
    /// Names that scheme `ensemble` takes; `None` when its provider is not registered.
    pub ensemble_names: Option<Vec<String>>,
    /// A request that waited longer than its session's timeout is dropped, and its connection closed
    /// (`request_stale_latency_check`).
    pub drops_stale_requests: bool,
    /// How long a connect request waits while a leader is looked for (`connectHoldMs`); 0: it is turned away at once.
    pub connect_hold_ms: i64,
    /// Requests that waited longer are refused; 0: never.
    pub throttled_op_wait_ms: i64,
    /// A request that takes longer from being read to its answer is worth a warning, microseconds
    /// (`fsync.warningthresholdms`, which is about the longest part of that).
    pub slow_us: i64,
    /// Whose name the audit log has for what this server does by itself; `None` without one (`audit.enable`).
    pub audit_as: Option<String>,
    /// Pause between two looks for containers and TTL nodes to remove.
    pub container_check_interval_ms: i64,
    /// How many of them a minute.
    pub container_max_per_minute: i64,
    /// Containers that never had a child go after this; 0: never.
    pub container_never_used_ms_max: i64,
    /// Bytes of replies in one step above which a connection is not answered before it has taken them:
    /// [`crate::limits::UNSENT_BYTES_PAUSE`], except in tests.
    pub full_bytes: usize,
    /// Bytes proposed and not committed from which on writes wait: the account of proposals.
    pub proposed_bytes_max: usize,
    /// Bytes of records that a leader's own log has not synced from which on they wait, too: the account of its queue.
    pub log_queue_bytes_max: usize,
    /// Bytes of one learner's requests that wait at most: the account of forwarded requests.
    pub forwarded_bytes_max: usize,
    /// Bytes of replies that wait for their clients from which on large ones are not made: the account of replies.
    pub replies_bytes_max: usize,
    /// Bytes of lists of children that are kept, or made at the same time: the account of lists.
    pub lists_bytes_max: usize,
    /// When snapshots are taken.
    pub snapshots: SnapshotRules,
}

/// When snapshots are taken.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotRules {
    /// After this many transactions, less up to half at random.
    pub snap_count: u64,
    /// After this many bytes of log, less up to half at random; 0: not by size.
    pub snap_size_bytes: u64,
}

/// Scheme `digest` (`DigestAuthenticationProvider`).
#[derive(Clone, Debug)]
pub struct DigestAuth {
    /// How passwords are hashed.
    pub algorithm: DigestAlg,
    /// The id that is super, `user:hash`.
    pub super_digest: Option<String>,
}
