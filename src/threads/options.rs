//! What each thread decides by, picked from the configuration; for the quorum thread that is in `ensemble`. Called by
//! `threads::start`.

use std::time::Duration;

use crate::admin::view::Settings;
use crate::admin::words::Word;
use crate::config::{self, AuthProvider, Config, EnsembleConfig, FourLetterWords, Listen, MemberRules, Mode};
use crate::engine::snapshots::{RETRY_MS_MIN, SnapshotConfig};
use crate::engine::txnlog::LogRules;
use crate::limits::{TXN_FRAME_BYTES, UNSENT_BYTES_PAUSE};
use crate::memory::{Account, Bounds, Budget, megabytes};
use crate::net::{AdmitLimits, LoadLimits, ThrottleOptions};
use crate::pipeline::{DigestAuth, Rules, SnapshotRules};
use crate::records::OwnerRules;
use crate::state::StateRules;
use crate::storage::dirs::DataDirs;
use crate::storage::recover::RecoverOptions;
use crate::sys::host::user_name;
use crate::sys::memory;
use crate::threads::ensemble;
use crate::threads::poller::PollerOptions;
use crate::threads::txnlog::{BatchDelay, TxnlogConfig};

/// How much of everything may wait, by what the configuration, a service manager, a container or the host gives.
pub fn memory_bounds(config: &Config) -> Bounds {
    let budget = match config.memory_budget_mb {
        Some(mb) => Budget { bytes: mb.saturating_mul(1 << 20), source: "memoryBudgetInMb".to_owned() },
        None => memory::budget(),
    };
    let bounds = Bounds::of(budget.bytes);
    log::info!(
        "memory budget: {} by {}; of that, beside the data: {}",
        megabytes(budget.bytes),
        budget.source,
        bounds.text()
    );
    bounds.publish();
    bounds
}

/// For the poller.
pub fn poller_options(config: &Config, memory: Bounds) -> PollerOptions {
    let (clients, throttle) = (&config.clients, &config.throttle);
    let words = &clients.four_letter_words;
    PollerOptions {
        frame_bytes_max: clients.jute_max_buffer_bytes as usize,
        admit: AdmitLimits { per_address: clients.cnxns_per_ip_max, total: clients.cnxns_max },
        throttle: throttle_options(config),
        load: LoadLimits {
            // The request throttler makes requests wait in front of the pipeline; here they wait in their socket.
            outstanding: match (throttle.outstanding_requests_max as usize, throttle.requests_max as usize) {
                (outstanding, 0) => outstanding,
                (outstanding, throttled) => outstanding.min(throttled),
            },
            large_threshold: throttle.large_request_threshold_bytes.map(|bytes| bytes as usize),
            large_bytes_max: usize::try_from(throttle.large_requests_max_bytes).unwrap_or(usize::MAX),
            bytes_max: memory.get(Account::Requests),
        },
        replies_bytes_max: memory.get(Account::Replies),
        sessionless_timeout_ms: signed(clients.sessionless_timeout_ms),
        tcp_keepalive: clients.tcp_keepalive,
        words: Word::ALL.iter().copied().filter(|word| words.allows(word.text())).collect(),
        keep_bodies: config.mode != Mode::Standalone,
    }
}

/// A complaint about words on the whitelist that there are not.
pub fn unknown_words(listed: &FourLetterWords) -> Option<String> {
    let known: Vec<&str> = Word::ALL.iter().map(|word| word.text()).collect();
    let listed = listed.words.iter().map(String::as_str);
    let unknown: Vec<&str> = listed.filter(|word| *word != "*" && !known.contains(word)).collect();
    (!unknown.is_empty()).then(|| {
        let (unknown, known) = (unknown.join(", "), known.join(", "));
        format!("4lw.commands.whitelist: no four-letter word is {unknown}; they are {known}, and * for all")
    })
}

fn throttle_options(config: &Config) -> ThrottleOptions {
    let from = &config.throttle.connections;
    let weight = |weight: u32| if from.weight_enabled { i64::from(weight) } else { 1 };
    ThrottleOptions {
        tokens: i64::from(from.tokens),
        fill_time_ms: signed(from.fill_time_ms),
        fill_count: i64::from(from.fill_count),
        freeze_time_ms: from.freeze_time_ms.map_or(-1, signed),
        drop_increase: from.drop_increase,
        drop_decrease: from.drop_decrease,
        decrease_ratio: from.decrease_ratio,
        new_session_weight: weight(from.global_session_weight),
        renew_session_weight: weight(from.renew_session_weight),
    }
}

/// For the pipeline.
pub fn pipeline_rules(config: &Config, memory: Bounds) -> Rules {
    let (access, features, storage) = (&config.access, &config.features, &config.storage);
    let digest_auth = access
        .digest_provider_enabled
        .then(|| DigestAuth { algorithm: access.digest_alg, super_digest: access.super_digest.clone() });
    let member = match &config.mode {
        Mode::Standalone => None,
        Mode::Quorum(member) => Some(member),
    };
    Rules {
        settings: settings(config),
        tick_ms: i64::from(config.tick_ms),
        sync_ms: i64::from(config.tick_ms) * i64::from(config.ensemble.sync_limit_ticks),
        session_timeout_ms_min: config.session_timeout_min_ms,
        session_timeout_ms_max: config.session_timeout_max_ms,
        ensemble: member.is_some(),
        leader_serves: config.ensemble.leader_serves,
        observer_master: config.ensemble.observer_master_port.is_some(),
        last_counter: config.ensemble.last_counter,
        local_sessions: member.is_some() && config.ensemble.local_sessions_enabled,
        local_sessions_upgrading: config.ensemble.local_sessions_upgrading_enabled,
        // A standalone server's sessions begin with 1, whatever its myid.
        server_id: my_id(config).unwrap_or(1),
        request_bytes_max: config.clients.jute_max_buffer_bytes as usize,
        txn_body_bytes_max: record_bytes_max(config).saturating_sub(TXN_FRAME_BYTES),
        digest_enabled: storage.digest_enabled,
        close_session_txn: storage.close_session_txn_enabled,
        extended_types: features.extended_types_enabled,
        enforce_quota: access.enforce_quota,
        skip_acl: access.skip_acl,
        reconfig_enabled: config.ensemble.reconfig_enabled,
        standalone_enabled: config.ensemble.standalone_enabled,
        members: MemberRules::of(config),
        digest_auth,
        enforced_schemes: if access.enforce_auth.enabled { access.enforce_auth.schemes.clone() } else { Vec::new() },
        ensemble_names: access
            .auth_providers
            .contains(&AuthProvider::Ensemble)
            .then(|| access.ensemble_auth_names.clone()),
        drops_stale_requests: config.throttle.drop_stale && config.throttle.stale_latency_check,
        connect_hold_ms: signed(config.clients.connect_hold_ms),
        throttled_op_wait_ms: config.throttle.op_wait_ms.map_or(0, signed),
        audit_as: config.features.audit_enabled.then(user_name),
        slow_us: signed(storage.fsync_warning_threshold_ms).saturating_mul(1000),
        container_check_interval_ms: signed(features.container_check_interval_ms),
        container_max_per_minute: i64::from(features.container_max_per_minute),
        container_never_used_ms_max: features.container_max_never_used_ms.map_or(0, signed),
        full_bytes: UNSENT_BYTES_PAUSE,
        proposed_bytes_max: memory.get(Account::Proposals),
        log_queue_bytes_max: memory.get(Account::LogQueue),
        forwarded_bytes_max: memory.get(Account::Forwarded),
        replies_bytes_max: memory.get(Account::Replies),
        lists_bytes_max: memory.get(Account::Lists),
        snapshots: SnapshotRules {
            snap_count: u64::from(storage.snap_count),
            snap_size_bytes: storage.snap_size_limit_kb.unwrap_or(0).saturating_mul(1024),
        },
    }
}

/// Those of a server alone of which zoo.cfg says nothing; a place to start from where there is no zoo.cfg.
impl Default for Rules {
    fn default() -> Rules {
        Rules { settings: Settings::default(), ..pipeline_rules(config::defaults(), Bounds::default()) }
    }
}

/// What `conf` shows.
fn settings(config: &Config) -> Settings {
    let port = |listen: &Option<Listen>| listen.as_ref().map_or(-1, |listen| i32::from(listen.port));
    let dirs = DataDirs::new(&config.data_dir, Some(&config.data_log_dir));
    let int = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    Settings {
        client_port: port(&config.clients.listen),
        // There is none in this version.
        secure_client_port: -1,
        data_dir: dirs.snapshots.to_path_buf(),
        data_log_dir: dirs.logs.to_path_buf(),
        tick_ms: int(config.tick_ms),
        max_client_cnxns: int(config.clients.cnxns_per_ip_max),
        min_session_timeout_ms: config.session_timeout_min_ms,
        max_session_timeout_ms: config.session_timeout_max_ms,
        client_port_listen_backlog: config.clients.listen_backlog.map_or(-1, int),
        server_id: my_id(config).unwrap_or(0),
        quorum: match &config.mode {
            Mode::Standalone => None,
            Mode::Quorum(ensemble) => Some(ensemble::shown(config, ensemble)),
        },
    }
}

fn my_id(config: &Config) -> Option<i64> {
    match &config.mode {
        Mode::Standalone => None,
        Mode::Quorum(ensemble) => Some(ensemble.my_id),
    }
}

/// For the log.
pub fn txnlog_config(config: &Config, dirs: &DataDirs) -> TxnlogConfig {
    let kb = |kb: u64| usize::try_from(kb).unwrap_or(usize::MAX).saturating_mul(1024);
    TxnlogConfig {
        rules: LogRules {
            dirs: dirs.clone(),
            record_bytes_max: record_bytes_max(config),
            force_sync: config.storage.force_sync,
            roll_bytes: config.storage.txn_log_size_limit_kb.map(kb),
            batch_records_max: config.storage.batch_max as usize,
            sync_warning_ms: config.storage.fsync_warning_threshold_ms,
        },
        file_bytes: kb(config.storage.pre_alloc_size_kb),
        through_mapping: config.storage.log_through_mapping,
        batch: BatchDelay {
            delay: Duration::from_millis(config.storage.flush_delay_ms),
            quiet: Duration::from_millis(config.storage.write_queue_poll_ms),
        },
    }
}

/// For snapshots.
pub fn snapshot_config(config: &Config, dirs: DataDirs) -> SnapshotConfig {
    SnapshotConfig {
        dirs,
        method: config.storage.snapshot_compression,
        last_section: config.storage.serialize_last_processed_zxid_enabled,
        purge_every_ms: config.storage.purge_interval_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
        retain: config.storage.snap_retain_count as usize,
        retry_ms_min: RETRY_MS_MIN,
        damaged: false,
    }
}

/// For recovery.
pub fn recover_options(config: &Config) -> RecoverOptions {
    let storage = &config.storage;
    let owners = OwnerRules {
        extended_types: config.features.extended_types_enabled,
        emulate_353: config.features.emulate_353_ttl_nodes,
    };
    RecoverOptions {
        rules: StateRules::new(owners, storage.digest_enabled),
        datadir_autocreate: storage.datadir_autocreate,
        // A server alone has nobody to get its data from.
        db_autocreate: storage.db_autocreate || config.mode == Mode::Standalone,
        trust_empty: storage.snapshot_trust_empty,
        record_bytes_max: record_bytes_max(config),
        recent_max: match config.mode {
            Mode::Standalone => 0,
            Mode::Quorum(_) => storage.commit_log_count as usize,
        },
        as_of: None,
        force_sync: storage.force_sync,
        repairable: matches!(&config.mode, Mode::Quorum(ensemble) if has_other_voters(ensemble)),
    }
}

/// Whether somebody else may have what this server lost.
fn has_other_voters(ensemble: &EnsembleConfig) -> bool {
    ensemble.members.participants().any(|server| server.id != ensemble.my_id)
}

/// The longest record that is taken back from disk, by us and by Apache.
pub fn record_bytes_max(config: &Config) -> usize {
    config.clients.jute_max_buffer_bytes as usize + config.clients.jute_extra_bytes as usize
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_on_the_whitelist_that_there_is_not_is_named() {
        assert_eq!(unknown_words(&FourLetterWords::parse("ruok, mntr, *")), None);
        let text = unknown_words(&FourLetterWords::parse("ruok, mntrr, stats")).expect("a complaint");
        assert!(text.contains("4lw.commands.whitelist: no four-letter word is mntrr, stats; they are "), "{text}");
        assert!(text.contains("ruok") && text.ends_with("and * for all"), "{text}");
    }
}
