//! What the quorum thread starts with: epochs, addresses and timing, picked from the configuration and the disk. Called by
//! `threads::start`.

use std::collections::BTreeMap;

use crate::admin::view::QuorumSettings;
use crate::config::ensemble::PeerAddress;
use crate::config::voters::Configs;
use crate::config::{self, Config, EnsembleConfig, Members};
use crate::ids::ServerId;
use crate::mail::LogRecord;
use crate::memory::{Account, Bounds};
use crate::quorum::notification::Hello;
use crate::quorum::peer::PeerStart;
use crate::quorum::{Epochs, PeerRules, Timing};
use crate::state::{State, path};
use crate::storage::dirs::DataDirs;
use crate::storage::foreign;
use crate::storage::recover::{Origin, Recovered};
use crate::sys::net::Listener;
use crate::threads::quorum::{LineSource, ListenError, Place, patiently};

fn peer_rules(config: &Config, timing: Timing, memory: Bounds) -> PeerRules {
    let settings = &config.ensemble;
    PeerRules {
        timing,
        notification_interval_ms: settings.notification_interval_ms,
        history_max: config.storage.commit_log_count as usize,
        always_snapshot: settings.always_snapshot,
        snapshot_syncs_max: settings.snapshot_syncs_max,
        diff_syncs_max: settings.diff_syncs_max,
        epoch_wait_ms: settings.epoch_wait_ms,
        redial_ms: settings.redial_ms,
        observer_pauses_ms: settings.observer_pauses_ms,
        observer_master_port: settings.observer_master_port,
        observer_bytes_max: settings.observer_master_bytes_max,
        memory,
        unlisted: settings.unlisted_learners_allowed,
        uncommitted_bytes_max: memory.get(Account::Uncommitted),
    }
}

impl From<Timing> for PeerRules {
    fn from(timing: Timing) -> PeerRules {
        peer_rules(config::defaults(), timing, Bounds::default())
    }
}

/// What the core begins with.
pub fn peer_start(
    config: &Config,
    ensemble: &EnsembleConfig,
    epochs: Epochs,
    recovered: &Recovered,
    recent: Vec<LogRecord>,
    gives_up: bool,
    memory: Bounds,
) -> PeerStart {
    let settings = &config.ensemble;
    let last = recovered.state.last_zxid();
    let my_id = ServerId(ensemble.my_id);
    let ticks = |ticks: u32| i64::from(config.tick_ms) * i64::from(ticks);
    let init_ms = ticks(settings.init_limit_ticks);
    let connect_ms = match settings.connect_limit_ticks {
        0 => init_ms,
        limit => ticks(limit),
    };
    let (tick_ms, sync_ms) = (i64::from(config.tick_ms), ticks(settings.sync_limit_ticks));
    let timing = Timing { tick_ms, init_ms, sync_ms, connect_ms };
    let addresses: Vec<(String, u16)> =
        ensemble.own.addresses.iter().map(|a| (a.host.clone(), a.election_port)).collect();
    PeerStart {
        my_id,
        configs: with_history(configs(config, ensemble), &recovered.state),
        rules: peer_rules(config, timing, memory),
        epochs,
        last,
        recent,
        tree: recovered.state.exact_digest(),
        earlier: recovered.earlier,
        marks: recovered.marks.clone(),
        gives_up,
        damage: match (&recovered.damage, &recovered.origin) {
            (Some(damage), _) => Some(damage.to_string()),
            (None, Origin::NothingUnexpectedly) => Some(NOTHING.to_owned()),
            (None, _) => None,
        },
        wrong_join: recovered.wrong_join,
        foreigners: foreign::read(&DataDirs::new(&config.data_dir, Some(&config.data_log_dir)).snapshots),
        hello: Hello::encode(my_id, &addresses, settings.multi_address_enabled),
        read_only_after_ms: config
            .features
            .read_only_mode_enabled
            .then_some(i64::from(config.tick_ms).max(READ_ONLY_AFTER_MS)),
        observer_logs: settings.sync_enabled,
    }
}

/// The damage of a server that lost everything, as far as it can tell.
const NOTHING: &str = "its data folders are empty, db.autocreate is false and there is no file initialize; if it is a new \
                       server, run zkServer-initialize.sh and start it again";

/// The list in force, and the one that may follow it, by the files.
pub fn configs(config: &Config, ensemble: &EnsembleConfig) -> Configs {
    let reconfig_enabled = config.ensemble.reconfig_enabled;
    let is_news = |next: &Members| reconfig_enabled && next.version > ensemble.members.version;
    let last_seen = ensemble.next.clone().filter(is_news);
    Configs { committed: ensemble.members.clone(), last_seen, reconfig_enabled }
}

/// With the list that the history proposes: a server may end when that is logged and the file is not written.
pub fn with_history(mut configs: Configs, state: &State) -> Configs {
    let tree = state.tree();
    let text = tree.lookup(path::CONFIG).and_then(|id| tree.node(id).data());
    if let Some(Ok(members)) = text.map(Members::parse_text) {
        configs.see(members);
    }
    configs
}

/// A server that looks this long serves reads, if it may (`QuorumPeer.ReadOnlyZooKeeperServer`); a longer tick counts.
const READ_ONLY_AFTER_MS: i64 = 2000;

/// Where this server listens for others.
pub fn place(config: &Config, ensemble: &EnsembleConfig) -> Place {
    Place {
        addresses: ensemble.own.addresses.clone(),
        on_all_ips: config.ensemble.listen_on_all_ips,
        found: BTreeMap::new(),
        origin: LineSource {
            id: ensemble.my_id,
            lines: config.ensemble.dynamic_config_file.as_ref().unwrap_or(&config.config_path).clone(),
            my_id: config.data_dir.join("myid"),
        },
    }
}

/// Looks up this server's hosts and binds the election port, patiently; at last on as many of them as can be.
pub fn bind_election(place: &mut Place, attempts_max: Option<u32>) -> Result<Vec<Listener>, ListenError> {
    let on_all = patiently(attempts_max, || {
        place.look_up_again()?;
        place.listen_on_all(|address| address.election_port)
    });
    on_all.or_else(|_| place.listen(|address| address.election_port))
}

/// Where the other servers are, by id.
pub fn others(ensemble: &EnsembleConfig) -> Vec<(i64, String)> {
    let others = ensemble.members.servers.values().filter(|server| server.id != ensemble.my_id);
    others.flat_map(|server| server.addresses.iter().map(|address| (server.id, address.host.clone()))).collect()
}

/// What `conf` shows of the ensemble.
pub fn shown(config: &Config, ensemble: &EnsembleConfig) -> QuorumSettings {
    let own = &ensemble.own.addresses;
    let ports = |port: fn(&PeerAddress) -> u16| {
        own.iter().map(|address| port(address).to_string()).collect::<Vec<String>>().join("|")
    };
    let limit = |ticks: u32| i32::try_from(ticks).unwrap_or(i32::MAX);
    let is_observer = ensemble.members.observers().any(|server| server.id == ensemble.my_id);
    QuorumSettings {
        init_limit: limit(config.ensemble.init_limit_ticks),
        sync_limit: limit(config.ensemble.sync_limit_ticks),
        election_alg: 3,
        election_ports: ports(|address| address.election_port),
        quorum_ports: ports(|address| address.quorum_port),
        peer_type: i32::from(is_observer),
        membership: Some(ensemble.members.to_string()),
    }
}
