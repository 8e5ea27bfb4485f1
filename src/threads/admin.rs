//! The admin server (`JettyAdminServer`, `Commands`) and the endpoint for Prometheus: HTTP on threads of their own, behind
//! all others in priority. What they show is looked up by the threads that own it, between two of their turns; a server
//! that has no time for that is told to be busy.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use crate::admin::commands::{self, Asker, Command, CommandQuery, Run, Started};
use crate::admin::prometheus;
use crate::admin::view::{Denied, Host, QuorumView, SnapshotProgress};
use crate::config::{Admin, MetricsExport};
use crate::ids::Zxid;
use crate::limits::SHED_BODY_BYTES_MAX;
use crate::mail::ToPipeline;
use crate::metrics;
use crate::state::StateRules;
use crate::sys::clock;
use crate::sys::host::ThisHost;
use crate::sys::http::{self, Body, Request, Response};
use crate::threads::pipeline::PipelineMail;
use crate::threads::poller::{PollerHandle, PollerMail, Shedding};
use crate::threads::queries::{AdminQuery, Progress};
use crate::threads::quorum::{QuorumHandle, QuorumMail};
use crate::threads::restore::read_state;
use crate::threads::txnlog::TxnlogMail;

/// How long the other threads may take for their part of an answer.
const QUERY_WAIT: Duration = Duration::from_secs(10);
/// How long a snapshot may take.
const SNAPSHOT_WAIT_US: i64 = 600_000_000;
/// Between two looks whether it is there.
pub(super) const SNAPSHOT_PAUSE: Duration = Duration::from_millis(20);
/// How long a scraper may take for its request, and for taking its answer.
const SCRAPER_PATIENCE: Duration = Duration::from_secs(30);
/// The status page: one file, without anything from elsewhere.
const PAGE: &str = include_str!("../admin/page.html");
/// What the page may do: nothing but ask its own server.
const PAGE_POLICY: &str =
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// Whom the admin server asks.
#[derive(Clone)]
pub struct Sources {
    /// The clients; passes questions on to the pipeline.
    pub poller: PollerHandle,
    /// The pipeline.
    pub pipeline: Sender<PipelineMail>,
    /// The log.
    pub txnlog: Sender<TxnlogMail>,
    /// The ensemble.
    pub quorum: Option<QuorumHandle>,
    /// The machine.
    pub host: ThisHost,
}

impl Sources {
    /// The answer to a query; `None`: the pipeline has no time, or has ended.
    pub(super) fn ask<T>(&self, query: impl FnOnce(Sender<T>) -> AdminQuery) -> Option<T> {
        self.ask_with_connections(query, false, false)
    }

    fn ask_with_connections<T>(
        &self,
        query: impl FnOnce(Sender<T>) -> AdminQuery,
        wants_connections: bool,
        resets_connections: bool,
    ) -> Option<T> {
        answer(|to| self.poller.post(PollerMail::Query { query: query(to), wants_connections, resets_connections }))
    }

    /// How far the server is with what an operator wants.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.ask(|to| AdminQuery::Progress { to })
    }

    fn quorum_view(&self, resets_links: bool) -> Option<QuorumView> {
        let quorum = self.quorum.as_ref()?;
        answer(|to| quorum.post(QuorumMail::View { to, resets_links }))
    }
}

/// What a thread answers to what is posted; `None`: it has no time, or has ended.
fn answer<T>(post: impl FnOnce(Sender<T>)) -> Option<T> {
    let (to, answer) = bounded(1);
    post(to);
    answer.recv_timeout(QUERY_WAIT).ok()
}

/// Binds a port for HTTP. The wildcard takes IPv6 along, as Java's does.
pub fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    if host == Ipv4Addr::UNSPECIFIED.to_string()
        && let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
    {
        return Ok(listener);
    }
    TcpListener::bind((host, port))
}

/// What the admin server works with.
pub struct AdminServer {
    /// The rules.
    pub config: Admin,
    /// `serializeLastProcessedZxidEnabled`, without which Apache takes no snapshots by command.
    pub seals_snapshots: bool,
    /// How a state is read.
    pub rules: StateRules,
    /// What the process was started with.
    pub started: Started,
    /// Whom it asks.
    pub sources: Sources,
}

impl AdminServer {
    /// Starts it on a port that is bound.
    pub fn start(self, listener: TcpListener) -> io::Result<()> {
        let patience = Duration::from_millis(self.config.idle_timeout_ms);
        let room = Room {
            config: self.config,
            seals_snapshots: self.seals_snapshots,
            rules: self.rules,
            started: Arc::new(self.started),
            sources: self.sources,
            snapshot_limit: RateLimit::default(),
            restore_limit: RateLimit::default(),
            restoring: Mutex::default(),
            listing: Mutex::default(),
        };
        http::serve(listener, "admin", patience, Arc::new(move |request, body| room.answer(request, body)))
    }
}

/// Starts the endpoint for Prometheus on a port that is bound.
pub fn start_metrics(config: MetricsExport, sources: Sources, listener: TcpListener) -> io::Result<()> {
    let answer = move |request: &Request, _: &mut dyn Read| match (request.method.as_str(), request.path.as_str()) {
        ("OPTIONS", _) => allowed(false),
        ("GET" | "HEAD", "/metrics") => scrape(&config, &sources, request),
        ("GET" | "HEAD", _) => Response::text(404, "metrics are at /metrics"),
        _ => Response::text(405, "only GET is served here"),
    };
    http::serve(listener, "metrics", SCRAPER_PATIENCE, Arc::new(answer))
}

fn scrape(config: &MetricsExport, sources: &Sources, request: &Request) -> Response {
    let Some(shown) = sources.ask(|to| AdminQuery::Metrics { to }) else { return busy() };
    let wanted: Vec<&String> = request.query.iter().filter(|(key, _)| key == "name[]").map(|(_, name)| name).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted.starts_with(name));
    let process = config.process.then_some(&sources.host as &dyn Host);
    let text = prometheus::exposition(&shown, process, &is_wanted);
    Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text)
}

/// What may be asked there, in the words of Apache's 3.9, whatever is there.
fn allowed(post: bool) -> Response {
    let methods = if post { "GET, HEAD, POST, TRACE, OPTIONS" } else { "GET, HEAD, TRACE, OPTIONS" };
    Response { status: 200, headers: vec![("Allow", methods.to_owned())], body: Body::Bytes(Vec::new()) }
}

fn asker(request: &Request) -> Asker {
    Asker { address: request.peer, authorization: request.authorization.clone() }
}

fn busy() -> Response {
    Response::text(503, "the server has no time to answer, or is about to stop")
}

/// What all threads of the admin server share.
struct Room {
    config: Admin,
    seals_snapshots: bool,
    rules: StateRules,
    started: Arc<Started>,
    sources: Sources,
    snapshot_limit: RateLimit,
    restore_limit: RateLimit,
    /// One at a time.
    restoring: Mutex<()>,
    /// So are long lists: whoever asks for many gets them one after the other, with turns of the pipeline between.
    listing: Mutex<()>,
}

impl Room {
    fn answer(&self, request: &Request, body: &mut dyn Read) -> Response {
        let rest = request.path.strip_prefix(&self.config.command_url);
        let is_get = match request.method.as_str() {
            "GET" | "HEAD" => true,
            "POST" => false,
            "OPTIONS" => return allowed(rest.is_some()),
            "TRACE" => return Response::text(403, "TRACE is not allowed"),
            _ => return Response::text(405, "only GET and POST are served here"),
        };
        match rest.map(|rest| rest.strip_prefix('/').unwrap_or(rest)) {
            Some("") if is_get => Response {
                status: 200,
                headers: Vec::new(),
                body: Body::Bytes(commands::list(&self.config.command_url).into_bytes()),
            },
            Some(name) => self.command(name, request, is_get, body),
            None if is_get && matches!(request.path.as_str(), "/" | "/status") => page(&self.config.command_url),
            None if is_get => Response::text(404, "commands are listed at /commands, the status page is at /"),
            _ => Response::text(405, "only GET is served here"),
        }
    }

    fn command(&self, name: &str, request: &Request, is_get: bool, body: &mut dyn Read) -> Response {
        let Some(command) = commands::find(name) else { return json(200, commands::unknown(name)) };
        match command.run {
            Run::Restore if !is_get => self.restore(command, request, body),
            Run::ShedConnections if !is_get => self.shed_connections(command, request, body),
            Run::Get(_) if is_get => self.show(name, command, request).map_or_else(busy, |text| json(200, text)),
            Run::Snapshot if is_get => self.snapshot(command, request),
            Run::Restore | Run::ShedConnections => Response::text(405, "this command takes POST only"),
            Run::Get(_) | Run::Snapshot => Response::text(405, "this command takes GET only"),
        }
    }

    fn show(&self, name: &str, command: &'static Command, request: &Request) -> Option<String> {
        let _alone = (!command.lists.is_empty()).then(|| self.listing.lock().unwrap_or_else(PoisonError::into_inner));
        let quorum = self.sources.quorum_view(command.resets_links());
        let query = CommandQuery {
            command,
            name: name.to_owned(),
            parameters: request.query.clone(),
            asker: asker(request),
            started: Arc::clone(&self.started),
            quorum,
        };
        let (wants_connections, resets_connections) = (command.shows_connections, command.resets_connections());
        let query = |to| AdminQuery::Command { query, to };
        let answer = self.sources.ask_with_connections(query, wants_connections, resets_connections)?;
        Some(answer.into_text())
    }

    /// Whether whoever asks may do everything with the root; else the refusal.
    fn authorize(&self, command: &Command, request: &Request) -> Result<(), Response> {
        let refusal =
            |status, error| Err(json(status, commands::answered(command.name(), commands::Fields::new(), Some(error))));
        match self.sources.ask(|to| AdminQuery::Authorize { asker: asker(request), to }) {
            None => Err(busy()),
            Some(Err(Denied::NotServing)) => refusal(200, commands::NOT_SERVING),
            Some(Err(Denied::Anonymous)) => refusal(401, "Auth info is missing for the command"),
            Some(Err(Denied::Unknown)) => refusal(401, "Not authenticated"),
            Some(Err(Denied::NotAllowed)) => refusal(403, "Not authorized"),
            Some(Ok(())) => Ok(()),
        }
    }

    /// Between two snapshots, and between two restores. Apache's documents say five minutes by default; its code takes the
    /// number for microseconds where snapshots are counted.
    fn pause_us(&self) -> i64 {
        i64::try_from(self.config.rate_limit_ms).unwrap_or(i64::MAX).saturating_mul(1000)
    }

    /// Takes a snapshot and sends it, unless `streaming=false`.
    fn snapshot(&self, command: &Command, request: &Request) -> Response {
        if let Err(refusal) = self.authorize(command, request) {
            return refusal;
        }
        let only = |status| json(status, commands::answered(command.name(), commands::Fields::new(), None));
        if !self.config.snapshot_enabled {
            log::warn!("a snapshot was asked for: admin.snapshot.enabled is false");
            return only(503);
        }
        if !self.seals_snapshots {
            log::warn!("a snapshot was asked for: it needs serializeLastProcessedZxidEnabled");
            return only(500);
        }
        if !self.snapshot_limit.allows(self.pause_us()) {
            metrics::SNAPSHOT_RATE_LIMITED_COUNT.add(1);
            return only(429);
        }
        match self.take_snapshot() {
            Ok((zxid, file, bytes)) => {
                let mut response = match request.parameter("streaming") {
                    Some(streaming) if !streaming.eq_ignore_ascii_case("true") => only(200),
                    _ => Response {
                        status: 200,
                        headers: vec![("Content-Type", "application/octet-stream".to_owned())],
                        body: Body::File(file, bytes),
                    },
                };
                response.headers.push(("last_zxid", zxid.to_string()));
                response.headers.push(("snapshot_size", bytes.to_string()));
                response
            }
            Err(error) => {
                metrics::SNAPSHOT_ERROR_COUNT.add(1);
                log::warn!("the snapshot that was asked for failed: {error}");
                only(500)
            }
        }
    }

    /// Closes a part of the clients' connections, chosen by chance.
    fn shed_connections(&self, command: &Command, request: &Request, body: &mut dyn Read) -> Response {
        if let Err(refusal) = self.authorize(command, request) {
            return refusal;
        }
        let refusal = |status, error: String| {
            let fields = commands::Fields::from_iter([("error".to_owned(), error.into())]);
            json(status, commands::answered(command.name(), fields, None))
        };
        let mut sent = Vec::new();
        if let Err(error) = body.take(SHED_BODY_BYTES_MAX + 1).read_to_end(&mut sent) {
            return refusal(400, format!("Invalid JSON or failed to read request body: {error}"));
        }
        if sent.len() as u64 > SHED_BODY_BYTES_MAX {
            return refusal(
                413,
                format!("more than {SHED_BODY_BYTES_MAX} bytes, where {{\"percentage\": 30}} is enough"),
            );
        }
        let percent = match commands::percentage(&sent) {
            Ok(percent) => percent,
            Err(error) => return refusal(400, error),
        };
        let shedding = answer(|to| self.sources.poller.post(PollerMail::Shed { percent, to }));
        let Some(Shedding { closed, of }) = shedding else { return busy() };
        log::info!("closing {closed} of {of} connections: {} asked for {percent} % by shed_connections", request.peer);
        let shown = commands::Fields::from_iter([
            ("connections_shed".to_owned(), closed.into()),
            ("percentage_requested".to_owned(), percent.into()),
        ]);
        json(200, commands::answered(command.name(), shown, None))
    }

    /// Replaces the data of a server that stands alone.
    fn restore(&self, command: &Command, request: &Request, body: &mut dyn Read) -> Response {
        if let Err(refusal) = self.authorize(command, request) {
            return refusal;
        }
        let only = |status, error: Option<&str>| {
            json(status, commands::answered(command.name(), commands::Fields::new(), error))
        };
        if !self.config.restore_enabled {
            log::warn!("a restore was asked for: admin.restore.enabled is false");
            return only(503, None);
        }
        if !self.seals_snapshots {
            log::warn!("a restore was asked for: it needs serializeLastProcessedZxidEnabled");
            return only(500, None);
        }
        if self.sources.quorum.is_some() {
            // Nothing in the protocol tells the others: a follower goes on from its last zxid, whatever is below it.
            const WHY: &str = "a member of an ensemble cannot be restored while it runs: stop all servers, run `rookeeper restore BACKUP --data-dir NEW --myid N` on each with the same backup (of `rookeeper backup`) and its own N, and start them";
            return only(500, Some(WHY));
        }
        if request.body_bytes == 0 {
            return only(400, None);
        }
        if request.body_bytes > self.sources.host.memory().available / 4 {
            return only(413, Some("this host has not the memory for it"));
        }
        let alone = self.restoring.try_lock();
        if alone.is_err() || !self.restore_limit.allows(self.pause_us()) {
            metrics::RESTORE_RATE_LIMITED_COUNT.add(1);
            return only(429, None);
        }
        let begun_us = clock::mono_us();
        match self.restore_from(body, request.body_bytes) {
            Ok(zxid) => {
                metrics::RESTORE_TIME.record((clock::mono_us() - begun_us) / 1000);
                log::warn!("the data of this server was replaced by the snapshot of {zxid} that {} sent", request.peer);
                let shown = commands::Fields::from_iter([("last_zxid".to_owned(), zxid.0.into())]);
                json(200, commands::answered(command.name(), shown, None))
            }
            Err(error) => {
                metrics::RESTORE_ERROR_COUNT.add(1);
                log::warn!("the restore that {} asked for failed: {error}", request.peer);
                only(500, None)
            }
        }
    }

    fn restore_from(&self, body: &mut dyn Read, bytes: u64) -> Result<Zxid, String> {
        let mut content = Vec::new();
        body.read_to_end(&mut content).map_err(|error| error.to_string())?;
        if content.len() as u64 != bytes {
            return Err(format!("{} of {bytes} bytes came", content.len()));
        }
        let state = read_state(content, self.rules)?;
        let zxid = state.last_zxid();
        self.sources.restore(state)?;
        Ok(zxid)
    }

    fn take_snapshot(&self) -> Result<(Zxid, File, u64), String> {
        let late_us = clock::mono_us() + SNAPSHOT_WAIT_US;
        // A pipeline that has ended takes none; the query below says so.
        let _ = self.sources.pipeline.send(PipelineMail::Core(vec![ToPipeline::TakeSnapshot]));
        loop {
            match self.sources.progress().map(|progress| progress.snapshot) {
                None => return Err("the server has no time, or is about to stop".into()),
                Some(SnapshotProgress::Done) => break,
                Some(SnapshotProgress::Failed) => {
                    return Err("it cannot be written, as the line before says".into());
                }
                Some(SnapshotProgress::UnderWay) if clock::mono_us() > late_us => {
                    return Err("it took too long".into());
                }
                Some(SnapshotProgress::UnderWay) => std::thread::sleep(SNAPSHOT_PAUSE),
            }
        }
        let (zxid, path) = self.sources.host.newest_snapshot().ok_or("there is none")?;
        let at_path = |error: io::Error| format!("{}: {error}", path.display());
        let file = File::open(&path).map_err(at_path)?;
        let bytes = file.metadata().map_err(at_path)?.len();
        Ok((zxid, file, bytes))
    }
}

fn json(status: u16, text: String) -> Response {
    Response::new(status, "application/json", text)
}

fn page(command_url: &str) -> Response {
    let mut page = Response::new(
        200,
        "text/html; charset=utf-8",
        PAGE.replace("COMMANDS\">COMMANDS<", &format!("{command_url}\">{command_url}<")),
    );
    page.headers.push(("Content-Security-Policy", PAGE_POLICY.to_owned()));
    page.headers.push(("Cache-Control", "no-store".to_owned()));
    page
}

/// When something was last allowed, monotonic microseconds.
#[derive(Default)]
struct RateLimit(Mutex<Option<i64>>);

impl RateLimit {
    /// Whether the last time was long enough ago; if so, this is the last time now.
    fn allows(&self, pause_us: i64) -> bool {
        let mut last_us = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now_us = clock::mono_us();
        let allowed = last_us.is_none_or(|last_us| now_us - last_us >= pause_us);
        if allowed {
            *last_us = Some(now_us);
        }
        allowed
    }
}
