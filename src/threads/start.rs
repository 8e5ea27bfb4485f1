//! Starts a server: ports, data (`data`), threads, in that order, and stops it. What of the configuration each thread
//! decides by is picked by `options` and `ensemble`. Called by `main`.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::admin::commands::Started;
use crate::config::{Admin, Config, EnsembleConfig, MetricsExport, MetricsProvider, Mode, secret};
use crate::engine::quorum::Store;
use crate::engine::quorum::link::BLOCK_BYTES;
use crate::engine::quorum::links::LinkRules;
use crate::engine::snapshots::SnapshotConfig;
use crate::mail::{Mail, ToPipeline, ToQuorum, ToSnapshot};
use crate::memory::Bounds;
use crate::pipeline::Pipeline;
use crate::storage::config_files::ConfigFiles;
use crate::storage::dirs::DataDirs;
use crate::storage::epochs::EpochFiles;
use crate::storage::names;
use crate::storage::recover::Recovered;
use crate::sys::clock;
use crate::sys::exit::ExitCode;
use crate::sys::host::ThisHost;
use crate::sys::net::{Listener, bind};
use crate::threads::admin::AdminServer;
use crate::threads::health::CheckedThreads;
use crate::threads::pipeline::{Neighbours, PipelineMail};
use crate::threads::poller::{PollerHandle, PollerMail};
use crate::threads::quorum::{QuorumConfig, QuorumHandle, QuorumMail};
use crate::threads::txnlog::TxnlogMail;
use crate::threads::{admin, data, ensemble, memory, options, pipeline, poller, quorum, snapshot, txnlog};

/// Why a server did not start: the line to print and the code to exit with.
#[derive(Debug)]
pub struct StartError {
    /// What went wrong, where, and what to do.
    pub message: String,
    /// Exit code.
    pub code: ExitCode,
}

impl StartError {
    /// With this line.
    pub fn new(code: ExitCode, message: impl ToString) -> StartError {
        StartError { message: message.to_string(), code }
    }
}

/// A running server.
pub struct Server {
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    poller: PollerHandle,
    pipeline: Sender<PipelineMail>,
    txnlog: Sender<TxnlogMail>,
    quorum: Option<(QuorumHandle, JoinHandle<()>)>,
    threads: Vec<JoinHandle<()>>,
    /// Held while the server lives: nobody else writes to its folders.
    _locks: Vec<File>,
}

impl Server {
    /// Opens the ports, recovers the data, starts the threads.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        if let Some(unknown) = options::unknown_words(&config.clients.four_letter_words) {
            log::warn!("{unknown}");
        }
        data::wait_for_room(config);
        // Alone, before the clients' port, and its failure is fatal; in an ensemble neither (`ZooKeeperServerMain`,
        // `QuorumPeer.startServer`).
        let admin_port = match config.mode {
            Mode::Standalone => listen_admin(config)?,
            Mode::Quorum(_) => None,
        };
        let metrics_port = listen_metrics(config)?;
        let listeners = listen(config)?;
        let memory = options::memory_bounds(config);
        let addresses = listeners.iter().map(|listener| listener.address).collect();
        let dirs = DataDirs::new(&config.data_dir, Some(&config.data_log_dir));
        let locks = data::lock(config, &dirs)?;
        let mut recovered = data::recover(config, &dirs)?;
        let member = match &config.mode {
            Mode::Standalone => None,
            Mode::Quorum(ensemble) => Some(join(config, ensemble, &dirs, &mut recovered, memory)?),
        };
        let quorum = member.as_ref().map(|member| member.prepared.handle());
        let (pipeline_tx, pipeline_rx) = unbounded();
        let (poller, poller_thread) =
            poller::start(options::poller_options(config, memory), listeners, pipeline_tx.clone())
                .map_err(no_thread)?;
        let host = ThisHost::new(dirs.snapshots.to_path_buf(), dirs.logs.to_path_buf(), names::newest_snapshot);
        let (mut threads, txnlog) = start_core(
            (config, memory),
            dirs,
            host.clone(),
            recovered,
            &poller,
            quorum.as_ref(),
            (&pipeline_tx, pipeline_rx),
        )?;
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
        memory::start().map_err(no_thread)?;
        Ok(Server { addresses, poller, pipeline: pipeline_tx, txnlog, quorum, threads, _locks: locks })
    }

    /// The mail of the threads without which nobody is served.
    pub fn checked_threads(&self) -> CheckedThreads {
        CheckedThreads {
            poller: self.poller.clone(),
            pipeline: self.pipeline.clone(),
            txnlog: self.txnlog.clone(),
            quorum: self.quorum.as_ref().map(|(handle, _)| handle.clone()),
        }
    }

    /// Stops: no new connections, whatever is acknowledged is answered and on disk. Returns when every thread has ended.
    pub fn stop(self) {
        self.poller.post(PollerMail::StopAccepting);
        // A pipeline that has ended has nothing left to stop.
        let _ = self.pipeline.send(PipelineMail::Core(vec![ToPipeline::Stop]));
        for thread in self.threads {
            // A panic of the thread was told by the hook, which ends the process.
            let _ = thread.join();
        }
        if let Some((handle, thread)) = self.quorum {
            handle.post(QuorumMail::Core(ToQuorum::Stop));
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
            let hint = match error.source.kind() {
                ErrorKind::AddrNotAvailable => {
                    "no interface of this host has that address: change clientPortAddress, or this server's line if that says \
                     where clients connect"
                }
                _ => "end the process that has the port, or change clientPort or clientPortAddress",
            };
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
        Mode::Standalone => std::fs::read(&config.config_path).ok().map(|text| secret::shown_file(&text)),
        Mode::Quorum(_) => None,
    };
    let started = Started { config_text, properties: secret::shown_properties(&config.properties) };
    let seals_snapshots = config.storage.serialize_last_processed_zxid_enabled;
    let server = AdminServer {
        config: config.admin.clone(),
        seals_snapshots,
        rules: options::recover_options(config).rules,
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
    memory: Bounds,
) -> Result<Member, StartError> {
    let recent = std::mem::take(&mut recovered.recent);
    let epoch_files = EpochFiles::open(&dirs.snapshots, recovered.state.last_zxid())
        .map_err(|error| StartError::new(ExitCode::Unexpected, error))?;
    let gives_up = dirs.files().exists(&dirs.give_up);
    if gives_up {
        log::warn!(
            "{} is there: what a leader's history lacks of this server's is given up, its files are set aside",
            dirs.give_up.display()
        );
    }
    let start = ensemble::peer_start(config, ensemble, epoch_files.epochs(), recovered, recent, gives_up, memory);
    let (own, configs) = (ensemble.own.clone(), ensemble::configs(config, ensemble));
    let config_files = ConfigFiles::new(dirs.files(), &config.config_path, start.my_id, own, configs);
    config_files.make_durable().map_err(|error| StartError::new(ExitCode::Unexpected, error))?;
    let mut place = ensemble::place(config, ensemble);
    let election = ensemble::bind_election(&mut place, config.ensemble.bind_attempts)
        .map_err(|error| StartError::new(ExitCode::Unexpected, format!("{error}; {}", error.hint())))?;
    if let Some(hint) = place.loopback_hint(&ensemble::others(ensemble)) {
        log::warn!("{hint}");
    }
    let recover = options::recover_options(config);
    let quorum_config = QuorumConfig {
        store: Store { epoch_files, config_files, dirs: dirs.clone() },
        reads: quorum::ReadRules {
            dirs: dirs.clone(),
            recover,
            snapshot_size_factor: config.storage.snapshot_size_factor,
            memory,
        },
        place,
        bind_attempts: config.ensemble.bind_attempts,
        client: ensemble.own.client.clone(),
        client_is_open: config.clients.listen.is_some(),
        dial_timeout_ms: config.ensemble.dial_timeout_ms,
        tcp_keepalive: config.ensemble.tcp_keepalive,
        unanswered_ms: u64::try_from(config.ensemble.dial_timeout_ms).unwrap_or(0).max(quorum::UNANSWERED_MS_MIN),
        links: LinkRules {
            packet_bytes_max: options::record_bytes_max(config),
            block_bytes: BLOCK_BYTES,
            hello_timeout_ms: config.ensemble.hello_timeout_ms.unwrap_or(start.rules.timing.sync_ms),
            state: recover.rules,
            memory,
        },
        start,
    };
    Ok(Member { prepared: quorum::prepare().map_err(no_thread)?, config: quorum_config, election })
}

fn start_core(
    (config, memory): (&Config, Bounds),
    dirs: DataDirs,
    host: ThisHost,
    recovered: Recovered,
    poller: &PollerHandle,
    quorum: Option<&QuorumHandle>,
    (pipeline_tx, pipeline_rx): (&Sender<PipelineMail>, Receiver<PipelineMail>),
) -> Result<(Vec<JoinHandle<()>>, Sender<TxnlogMail>), StartError> {
    let (txnlog_tx, txnlog_rx) = unbounded::<TxnlogMail>();
    let (snapshot_tx, snapshot_rx) = unbounded::<ToSnapshot>();
    let txnlog_config = options::txnlog_config(config, &dirs);
    let snapshot_config =
        SnapshotConfig { damaged: recovered.damage.is_some(), ..options::snapshot_config(config, dirs) };
    let up_to_date = data::is_up_to_date(&recovered);
    let now = clock::now();
    let mut core =
        Pipeline::new(options::pipeline_rules(config, memory), recovered.state, now, now.wall_ms.unsigned_abs());
    if !up_to_date {
        core.want_snapshot();
    }
    let post = |to: &Sender<PipelineMail>| {
        let (to, quorum) = (to.clone(), quorum.cloned());
        move |mail: Vec<Mail>| {
            let mut batch = Vec::new();
            for mail in mail {
                match (mail, &quorum) {
                    (Mail::Pipeline(mail), _) => batch.push(mail),
                    (Mail::Quorum(mail), Some(quorum)) => quorum.post(QuorumMail::Core(mail)),
                    (Mail::Quorum(_), None) => {}
                }
            }
            if batch.is_empty() {
                return;
            }
            // After the pipeline's end nobody waits for this.
            let _ = to.send(PipelineMail::Core(batch));
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
