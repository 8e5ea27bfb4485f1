//! Starts a server: ports, recovery, threads, in that order, and stops it. What of the configuration each thread decides
//! by is picked here. Called by `main`.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::admin::commands::Started;
use crate::admin::view::Settings;
use crate::admin::words::Word;
use crate::config::{Admin, AuthProvider, Config, EnsembleConfig, MetricsExport, MetricsProvider, Mode};
use crate::limits::{TXN_FRAME_BYTES, UNSENT_BYTES_PAUSE};
use crate::mail::{Mail, ToPipeline, ToPoller, ToQuorum, ToSnapshot, ToTxnlog};
use crate::metrics;
use crate::net::{AdmitLimits, LoadLimits, ThrottleOptions};
use crate::pipeline::{DigestAuth, Pipeline, Rules, SnapshotRules};
use crate::records::OwnerRules;
use crate::state::StateRules;
use crate::storage::config_files::ConfigFiles;
use crate::storage::dirs::DataDirs;
use crate::storage::epochs::EpochFiles;
use crate::storage::recover::{Origin, RecoverOptions, Recovered, recover};
use crate::sys::clock;
use crate::sys::exit::ExitCode;
use crate::sys::files::lock_dir;
use crate::sys::host::{ThisHost, user_name};
use crate::sys::net::{Listener, bind};
use crate::threads::admin::AdminServer;
use crate::threads::health::Organs;
use crate::threads::pipeline::Neighbours;
use crate::threads::poller::{PollerHandle, PollerOptions};
use crate::threads::quorum::{QuorumConfig, QuorumHandle, QuorumMail};
use crate::threads::snapshot::SnapshotConfig;
use crate::threads::txnlog::{BatchRules, TxnlogConfig};
use crate::threads::{admin, ensemble, pipeline, poller, quorum, snapshot, txnlog};

/// Why a server did not start: the line to print and the code to exit with.
#[derive(Debug)]
pub struct StartError {
    /// What went wrong, where, and what to do.
    pub message: String,
    /// Exit code.
    pub code: ExitCode,
}

impl StartError {
    fn new(code: ExitCode, message: impl ToString) -> StartError {
        StartError { message: message.to_string(), code }
    }
}

/// A running server.
pub struct Server {
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    poller: PollerHandle,
    pipeline: Sender<Vec<ToPipeline>>,
    txnlog: Sender<ToTxnlog>,
    quorum: Option<(QuorumHandle, JoinHandle<()>)>,
    threads: Vec<JoinHandle<()>>,
    /// Held while the server lives: nobody else writes to its folders.
    _locks: Vec<File>,
}

impl Server {
    /// Opens the ports, recovers the data, starts the threads.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        // Alone, before the clients' port, and its failure is fatal; in an ensemble neither (`ZooKeeperServerMain`,
        // `QuorumPeer.startServer`).
        let admin_port = match config.mode {
            Mode::Standalone => listen_admin(config)?,
            Mode::Quorum(_) => None,
        };
        let metrics_port = listen_metrics(config)?;
        let listeners = listen(config)?;
        let addresses = listeners.iter().map(|listener| listener.address).collect();
        let dirs = DataDirs::new(&config.data_dir, Some(&config.data_log_dir));
        let locks = lock_data(config, &dirs)?;
        let mut recovered = recover_data(config, &dirs)?;
        let member = match &config.mode {
            Mode::Standalone => None,
            Mode::Quorum(ensemble) => Some(join(config, ensemble, &dirs, &mut recovered)?),
        };
        let quorum = member.as_ref().map(|member| member.prepared.handle());
        let (pipeline_tx, pipeline_rx) = unbounded();
        let (poller, poller_thread) =
            poller::start(poller_options(config), listeners, pipeline_tx.clone()).map_err(no_thread)?;
        let host = ThisHost::new(dirs.snapshots.clone(), dirs.logs.clone());
        let (mut threads, txnlog) =
            start_core(config, dirs, host.clone(), recovered, &poller, quorum.as_ref(), (&pipeline_tx, pipeline_rx))?;
        threads.push(poller_thread);
        let sources = admin::Sources {
            poller: poller.clone(),
            pipeline: pipeline_tx.clone(),
            txnlog: txnlog.clone(),
            quorum: quorum.clone(),
            host,
        };
        let quorum = match member {
            None => None,
            Some(Member { prepared, config, election }) => {
                let handle = prepared.handle();
                let neighbours = quorum::Neighbours {
                    pipeline: pipeline_tx.clone(),
                    txnlog: txnlog.clone(),
                    poller: poller.clone(),
                };
                Some((handle, prepared.start(config, election, neighbours).map_err(no_thread)?))
            }
        };
        if let Some(listener) = metrics_port {
            admin::start_metrics(config.metrics.clone(), sources.clone(), listener).map_err(no_thread)?;
        }
        start_admin(config, admin_port, sources)?;
        Ok(Server { addresses, poller, pipeline: pipeline_tx, txnlog, quorum, threads, _locks: locks })
    }

    /// The mail of the threads without which nobody is served.
    pub fn organs(&self) -> Organs {
        Organs {
            poller: self.poller.clone(),
            pipeline: self.pipeline.clone(),
            txnlog: self.txnlog.clone(),
            quorum: self.quorum.as_ref().map(|(handle, _)| handle.clone()),
        }
    }

    /// Stops: no new connections, whatever is acknowledged is answered and on disk. Returns when every thread has ended.
    pub fn stop(self) {
        self.poller.post(ToPoller { stop_accepting: true, ..ToPoller::default() });
        // A pipeline that has ended has nothing left to stop.
        let _ = self.pipeline.send(vec![ToPipeline::Stop]);
        for thread in self.threads {
            // A panic of the thread was told by the hook, which ends the process.
            let _ = thread.join();
        }
        if let Some((handle, thread)) = self.quorum {
            handle.post(QuorumMail::Inner(ToQuorum::Stop));
            let _ = thread.join();
        }
    }
}

fn no_thread(error: std::io::Error) -> StartError {
    StartError::new(ExitCode::Unexpected, format!("cannot start a thread: {error}"))
}

fn listen(config: &Config) -> Result<Vec<Listener>, StartError> {
    // Below 1 is the default of `bind`, which takes a crowd that reconnects better than Java's 50.
    let backlog = config.clients.listen_backlog.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
    let bind_one = |address| {
        bind(address, backlog).map_err(|error| {
            let hint = "end the process that has the port, or change clientPort or clientPortAddress";
            StartError::new(ExitCode::Unexpected, format!("{error}; {hint}"))
        })
    };
    config.clients.listen.iter().map(|listen| bind_one(listen.socket_addr())).collect()
}

/// The port of the admin server; `None` if there is none to be.
fn listen_admin(config: &Config) -> Result<Option<TcpListener>, StartError> {
    let Admin { address, port, .. } = &config.admin;
    if !config.admin.enabled {
        return Ok(None);
    }
    if config.admin.https_only {
        log::error!("the admin server is not started: admin.forceHttps is true, and this version serves no HTTPS");
        return Ok(None);
    }
    admin::listen(address, *port).map(Some).map_err(|error| {
        let hint = "end the process that has the port, change admin.serverPort, or set admin.enableServer=false";
        StartError::new(
            ExitCode::AdminServer,
            format!("cannot listen on {address}:{port} for the admin server: {error}; {hint}"),
        )
    })
}

fn start_admin(config: &Config, listener: Option<TcpListener>, sources: admin::Sources) -> Result<(), StartError> {
    let listener = match config.mode {
        Mode::Standalone => listener,
        Mode::Quorum(_) => listen_admin(config).unwrap_or_else(|error| {
            log::warn!("{}; this server goes on without it", error.message);
            None
        }),
    };
    let Some(listener) = listener else { return Ok(()) };
    let at = listener.local_addr().map_or_else(|_| String::new(), |address| format!(" on {address}"));
    let config_text = match config.mode {
        Mode::Standalone => std::fs::read(&config.config_path).ok().map(|b| String::from_utf8_lossy(&b).into_owned()),
        Mode::Quorum(_) => None,
    };
    let started = Started { config_text, properties: config.properties.clone().into_iter().collect() };
    let seals_snapshots = config.storage.serialize_last_processed_zxid_enabled;
    let server = AdminServer {
        config: config.admin.clone(),
        seals_snapshots,
        rules: recover_options(config).rules,
        started,
        sources,
    };
    server.start(listener).map_err(no_thread)?;
    log::info!("admin server{at}, commands under {}", config.admin.command_url);
    Ok(())
}

/// The port that Prometheus scrapes, if it is to.
fn listen_metrics(config: &Config) -> Result<Option<TcpListener>, StartError> {
    let MetricsExport { provider, host, port, .. } = &config.metrics;
    if *provider != MetricsProvider::Prometheus {
        return Ok(None);
    }
    admin::listen(host, *port).map(Some).map_err(|error| {
        let hint = "end the process that has the port, or change metricsProvider.httpPort";
        StartError::new(ExitCode::Unexpected, format!("cannot listen on {host}:{port} for Prometheus: {error}; {hint}"))
    })
}

/// Two servers on the same data would destroy it: the second one ends here.
fn lock_data(config: &Config, dirs: &DataDirs) -> Result<Vec<File>, StartError> {
    dirs.prepare(config.storage.datadir_autocreate).map_err(|error| StartError::new(error.exit_code(), error))?;
    // The same folder may go by two names.
    let mut folders: Vec<PathBuf> =
        [&dirs.snapshots, &dirs.logs].map(|dir| dir.canonicalize().unwrap_or_else(|_| dir.clone())).into();
    folders.dedup();
    let lock = |dir: PathBuf| match lock_dir(&dir) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(format!(
            "{}: another server has this data; stop it first, or give this one a dataDir of its own",
            dir.display()
        )),
        Err(error) => Err(format!("{}: cannot be locked: {error}", dir.display())),
    };
    let locks: Result<Vec<File>, String> = folders.into_iter().map(lock).collect();
    locks.map_err(|message| StartError::new(ExitCode::DataDir, message))
}

fn recover_options(config: &Config) -> RecoverOptions {
    let storage = &config.storage;
    let owners = OwnerRules {
        extended_types: config.features.extended_types_enabled,
        emulate_353: config.features.emulate_353_ttl_nodes,
    };
    RecoverOptions {
        rules: StateRules { owners, digest_enabled: storage.digest_enabled },
        datadir_autocreate: storage.datadir_autocreate,
        db_autocreate: storage.db_autocreate,
        trust_empty: storage.snapshot_trust_empty,
        record_bytes_max: record_bytes_max(config),
        recent_max: match config.mode {
            Mode::Standalone => 0,
            Mode::Quorum(_) => storage.commit_log_count as usize,
        },
        as_of: None,
    }
}

fn recover_data(config: &Config, dirs: &DataDirs) -> Result<Recovered, StartError> {
    let options = recover_options(config);
    let begun_us = clock::mono_us();
    let recovered = recover(dirs, &options).map_err(|error| {
        let code = error.exit_code();
        let hint = if code == ExitCode::Snapshot { "; make room, then start again" } else { "" };
        StartError::new(code, format!("{error}{hint}"))
    })?;
    metrics::DBINITTIME.record((clock::mono_us() - begun_us) / 1000);
    metrics::STARTUP_TXNS_LOADED.record(i64::try_from(recovered.replayed).unwrap_or(i64::MAX));
    log::info!(
        "recovered {} nodes as of {} in {} ms ({} transactions replayed)",
        recovered.state.tree().len(),
        recovered.state.last_zxid(),
        (clock::mono_us() - begun_us) / 1000,
        recovered.replayed
    );
    Ok(recovered)
}

/// What a member of an ensemble has beyond a standalone server, before its threads start.
struct Member {
    prepared: quorum::Prepared,
    config: QuorumConfig,
    election: Vec<Listener>,
}

/// Reads what this server promised to the ensemble and opens its election port.
fn join(
    config: &Config,
    ensemble: &EnsembleConfig,
    dirs: &DataDirs,
    recovered: &mut Recovered,
) -> Result<Member, StartError> {
    let recent = std::mem::take(&mut recovered.recent);
    let epoch_files = EpochFiles::open(&dirs.snapshots, recovered.state.last_zxid())
        .map_err(|error| StartError::new(ExitCode::Unexpected, error))?;
    let start = ensemble::peer_start(config, ensemble, epoch_files.epochs(), recovered, recent);
    let config_files = ConfigFiles::new(&config.config_path, start.my_id, start.configs.clone());
    let mut place = ensemble::place(config, ensemble);
    let election = ensemble::bind_election(&mut place, config.ensemble.bind_attempts).map_err(|error| {
        let hint = "end the process that has the port, mend the host's name, or change this server's line in the configuration";
        StartError::new(ExitCode::Unexpected, format!("{error}; {hint}"))
    })?;
    let recover = recover_options(config);
    let quorum_config = QuorumConfig {
        store: quorum::Store {
            epoch_files,
            config_files,
            dirs: dirs.clone(),
            recover,
            snapshot_size_factor: config.storage.snapshot_size_factor,
        },
        place,
        bind_attempts: config.ensemble.bind_attempts,
        client: ensemble.members.servers.get(&ensemble.my_id).and_then(|server| server.client.clone()),
        dial_timeout_ms: config.ensemble.dial_timeout_ms,
        links: quorum::LinkRules {
            packet_bytes_max: record_bytes_max(config),
            hello_timeout_ms: config.ensemble.hello_timeout_ms.unwrap_or(start.rules.timing.sync_ms),
            tcp_keepalive: config.ensemble.tcp_keepalive,
            state: recover.rules,
        },
        start,
    };
    Ok(Member { prepared: quorum::prepare().map_err(no_thread)?, config: quorum_config, election })
}

fn start_core(
    config: &Config,
    dirs: DataDirs,
    host: ThisHost,
    recovered: Recovered,
    poller: &PollerHandle,
    quorum: Option<&QuorumHandle>,
    (pipeline_tx, pipeline_rx): (&Sender<Vec<ToPipeline>>, Receiver<Vec<ToPipeline>>),
) -> Result<(Vec<JoinHandle<()>>, Sender<ToTxnlog>), StartError> {
    let (txnlog_tx, txnlog_rx) = unbounded::<ToTxnlog>();
    let (snapshot_tx, snapshot_rx) = unbounded::<ToSnapshot>();
    let txnlog_config = txnlog_config(config, &dirs);
    let snapshot_config = snapshot_config(config, dirs);
    let up_to_date = is_up_to_date(&recovered);
    let now = clock::now();
    let mut core = Pipeline::new(pipeline_rules(config), recovered.state, now, now.wall_ms.unsigned_abs());
    if !up_to_date {
        core.want_snapshot();
    }
    let post = |to: &Sender<Vec<ToPipeline>>| {
        let (to, quorum) = (to.clone(), quorum.cloned());
        move |mail: Vec<Mail>| {
            let mut batch = Vec::new();
            for mail in mail {
                match (mail, &quorum) {
                    (Mail::Pipeline(mail), _) => batch.push(mail),
                    (Mail::Quorum(mail), Some(quorum)) => quorum.post(QuorumMail::Inner(mail)),
                    (Mail::Quorum(_), None) => {}
                }
            }
            if batch.is_empty() {
                return;
            }
            // After the pipeline's end nobody waits for this.
            let _ = to.send(batch);
        }
    };
    let (to_log, to_snapshot) = (post(pipeline_tx), post(pipeline_tx));
    let neighbours = Neighbours {
        txnlog: txnlog_tx.clone(),
        snapshot: snapshot_tx,
        poller: poller.clone(),
        quorum: quorum.cloned(),
    };
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(body).map_err(no_thread)
    };
    let threads = vec![
        spawn("txnlog", Box::new(move || txnlog::run(&txnlog_config, &txnlog_rx, to_log)))?,
        spawn("snapshot", Box::new(move || snapshot::run(&snapshot_config, &snapshot_rx, to_snapshot)))?,
        pipeline::start(core, host, config.metrics.provider, pipeline_rx, neighbours).map_err(no_thread)?,
    ];
    Ok((threads, txnlog_tx))
}

/// Whether the newest snapshot is the state itself; else one is due, so that the next start is quick.
fn is_up_to_date(recovered: &Recovered) -> bool {
    !matches!(recovered.origin, Origin::Logs) && recovered.replayed == 0
}

fn txnlog_config(config: &Config, dirs: &DataDirs) -> TxnlogConfig {
    let kb = |kb: u64| usize::try_from(kb).unwrap_or(usize::MAX).saturating_mul(1024);
    TxnlogConfig {
        dirs: dirs.clone(),
        record_bytes_max: record_bytes_max(config),
        file_bytes: kb(config.storage.pre_alloc_size_kb),
        through_mapping: config.storage.log_through_mapping,
        force_sync: config.storage.force_sync,
        sync_warning_ms: config.storage.fsync_warning_threshold_ms,
        roll_bytes: config.storage.txn_log_size_limit_kb.map(kb),
        batch: BatchRules {
            delay: Duration::from_millis(config.storage.flush_delay_ms),
            quiet: Duration::from_millis(config.storage.write_queue_poll_ms),
            records_max: config.storage.batch_max as usize,
        },
    }
}

fn snapshot_config(config: &Config, dirs: DataDirs) -> SnapshotConfig {
    SnapshotConfig {
        dirs,
        method: config.storage.snapshot_compression,
        last_section: config.storage.serialize_last_processed_zxid_enabled,
        purge_every_ms: config.storage.purge_interval_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
        retain: config.storage.snap_retain_count as usize,
    }
}

/// The longest record that is taken back from disk, by us and by Apache.
fn record_bytes_max(config: &Config) -> usize {
    config.clients.jute_max_buffer_bytes as usize + config.clients.jute_extra_bytes as usize
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn my_id(config: &Config) -> Option<i64> {
    match &config.mode {
        Mode::Standalone => None,
        Mode::Quorum(ensemble) => Some(ensemble.my_id),
    }
}

fn pipeline_rules(config: &Config) -> Rules {
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
        digest_auth,
        enforced_schemes: if access.enforce_auth.enabled { access.enforce_auth.schemes.clone() } else { Vec::new() },
        ensemble_names: access
            .auth_providers
            .contains(&AuthProvider::Ensemble)
            .then(|| access.ensemble_auth_names.clone()),
        drops_stale_requests: config.throttle.drop_stale && config.throttle.stale_latency_check,
        throttled_op_wait_ms: config.throttle.op_wait_ms.map_or(0, signed),
        audit_as: config.features.audit_enabled.then(user_name),
        slow_write_us: signed(storage.fsync_warning_threshold_ms).saturating_mul(1000),
        container_check_interval_ms: signed(features.container_check_interval_ms),
        container_max_per_minute: i64::from(features.container_max_per_minute),
        container_never_used_ms_max: features.container_max_never_used_ms.map_or(0, signed),
        full_bytes: UNSENT_BYTES_PAUSE,
        snapshots: SnapshotRules {
            snap_count: u64::from(storage.snap_count),
            snap_size_bytes: storage.snap_size_limit_kb.unwrap_or(0).saturating_mul(1024),
        },
    }
}

fn settings(config: &Config) -> Settings {
    let port = |listen: &Option<crate::config::Listen>| listen.as_ref().map_or(-1, |listen| i32::from(listen.port));
    let dirs = DataDirs::new(&config.data_dir, Some(&config.data_log_dir));
    let int = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    Settings {
        client_port: port(&config.clients.listen),
        secure_client_port: port(&config.clients.secure_listen),
        data_dir: dirs.snapshots,
        data_log_dir: dirs.logs,
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

fn poller_options(config: &Config) -> PollerOptions {
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
        },
        sessionless_timeout_ms: signed(clients.sessionless_timeout_ms),
        tcp_keepalive: clients.tcp_keepalive,
        words: Word::ALL.iter().copied().filter(|word| words.allows(word.text())).collect(),
        keep_bodies: config.mode != Mode::Standalone,
    }
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
