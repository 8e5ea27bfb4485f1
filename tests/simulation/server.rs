//! One simulated server: its threads, each with a mailbox.
//! What the real threads do round the cores of pipeline and quorum is done here in the same order (`threads::pipeline`,
//! `threads::quorum`), with the world's time and chance; what `engine` has is driven as the threads drive it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use rookeeper::config::Members;
use rookeeper::config::ensemble::PeerAddress;
use rookeeper::engine::pipeline::{Post, TurnTimes, deliver};
use rookeeper::engine::quorum::{Environment, Failure, Member};
use rookeeper::engine::snapshots::{Reading, Snapshots, Verification};
use rookeeper::ids::{ConnId, Now, ServerId, Zxid};
use rookeeper::mail::{Dropped, Fate, LogRecord, Mail, Outgoing, Role, ToPipeline, ToQuorum, ToSnapshot, ToTxnlog};
use rookeeper::pipeline::{Pipeline, Rules, SnapshotRules};
use rookeeper::quorum::notification::{Hello, Notification};
use rookeeper::quorum::packet::{From, LearnerInfo, Packet};
use rookeeper::quorum::peer::{Peer, PeerStart};
use rookeeper::quorum::{Effect, LinkId, LinkPriority, LogPart, Timing};
use rookeeper::records::OwnerRules;
use rookeeper::state::{State, StateRules};
use rookeeper::threads::ensemble;
use rookeeper::threads::quorum::inbound::{self, Heard};

use crate::breakage::Breakage;
use crate::client::FromServer;
use crate::disk::{Disk, Log, text};
use crate::net::{End, Item, Port};
use crate::random::Random;
use crate::trace::short;
use crate::volatile::{SYNC, SYNC_NAMES};
use crate::world::{Event, Options, World};

/// How the simulated servers understand their data.
pub const STATE_RULES: StateRules = StateRules::new(OwnerRules { extended_types: true, emulate_353: false }, true);

/// Bytes that a packet may have.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// Clocks of one server. Both tick at a rate of their own, and jump.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Monotonic microseconds at `anchor_us` of the world.
    base_us: i64,
    anchor_us: u64,
    /// Millionths by which it runs fast.
    drift: i64,
    /// Wall clock less monotonic, ms.
    wall_offset_ms: i64,
}

impl Clock {
    pub fn new(base_us: i64, drift: i64, wall_offset_ms: i64) -> Clock {
        Clock { base_us, anchor_us: 0, drift, wall_offset_ms }
    }

    pub fn mono_us(&self, world_us: u64) -> i64 {
        let passed = (world_us - self.anchor_us) as i64;
        self.base_us + passed + passed * self.drift / 1_000_000
    }

    fn now(&self, world_us: u64) -> Now {
        let mono_ms = self.mono_us(world_us) / 1000;
        Now { mono_ms, wall_ms: mono_ms + self.wall_offset_ms }
    }

    /// When the monotonic clock shows this, in time of the world.
    fn world_us(&self, mono_ms: i64) -> u64 {
        if mono_ms > i64::MAX / 4000 {
            return u64::MAX;
        }
        let left = (mono_ms * 1000 - self.base_us).max(0);
        // Rounded up: a timer never fires before its time.
        self.anchor_us + (left * 1_000_000 / (1_000_000 + self.drift)) as u64 + 2
    }

    /// Goes on at another rate, `jump_us` later than it was.
    pub fn set(&mut self, world_us: u64, jump_us: i64, drift: i64) {
        self.base_us = self.mono_us(world_us) + jump_us;
        self.anchor_us = world_us;
        self.drift = drift;
    }

    pub fn jump_wall(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }
}

/// What the quorum thread is told.
#[derive(Debug)]
pub enum Input {
    ElectionHello(LinkId, Hello),
    ElectionDialed(LinkId, ServerId),
    ElectionUndialed(ServerId),
    Flushed(LinkId),
    Notification(LinkId, Notification),
    LearnerConnected(LinkId),
    LeaderConnected(LinkId),
    LeaderUnreachable,
    Packets(LinkId, Vec<Packet>),
    State(LinkId, Box<State>),
    Closed(LinkId, Port),
    SnapshotSent(LinkId),
    LogRead(LinkId, LogPart),
    ReadBack(Vec<LogRecord>),
    Inner(ToQuorum),
}

impl Input {
    /// The link it is about: what is said of a link that was closed meanwhile is not heard.
    fn link(&self) -> Option<LinkId> {
        match self {
            Input::ElectionHello(link, _)
            | Input::ElectionDialed(link, _)
            | Input::Flushed(link)
            | Input::Notification(link, _)
            | Input::LearnerConnected(link)
            | Input::LeaderConnected(link)
            | Input::Packets(link, _)
            | Input::State(link, _)
            | Input::Closed(link, _)
            | Input::SnapshotSent(link)
            | Input::LogRead(link, _) => Some(*link),
            Input::ElectionUndialed(_) | Input::LeaderUnreachable | Input::ReadBack(_) | Input::Inner(_) => None,
        }
    }
}

/// What is read of the disk for the quorum thread (`threads::quorum`'s reader), when that comes to it.
#[derive(Clone, Copy, Debug)]
pub enum Read {
    Part { link: LinkId, from: Zxid, to: Zxid },
    Back { from: Zxid, to: Zxid },
    State { to: Zxid },
}

/// Threads that have a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Thread {
    Pipeline,
    Quorum,
    Txnlog,
    Snapshot,
}

/// What the disk has done.
#[derive(Debug)]
pub enum DiskDone {
    /// The batch that was written is synced.
    LogSynced,
    /// What was written, and what is to stay when others go, is read.
    SnapshotsRead(Reading),
}

/// What the snapshot thread has read beside its turns.
#[derive(Debug)]
enum Proving {
    Nothing,
    Reads,
    Done(Verification),
}

/// A link of a process.
#[derive(Debug)]
struct Link {
    conn: usize,
    side: usize,
    port: Port,
    /// What was heard of it, and how far that is decoded.
    inbound: inbound::Port,
}

/// A process that runs.
pub struct Process {
    pub pipeline: Pipeline,
    /// Elsewhere only while it carries something out.
    member: Option<Member>,
    /// What the peer told the pipeline last.
    pub role: Role,
    /// What the pipeline was told last.
    pub pipeline_role: Role,
    /// Proposed here as leader and not known to be committed.
    pub proposed: VecDeque<LogRecord>,
    pipeline_mail: VecDeque<ToPipeline>,
    quorum_mail: VecDeque<Input>,
    log_mail: VecDeque<ToTxnlog>,
    snapshot_mail: VecDeque<ToSnapshot>,
    wake_us: [u64; 4],
    pub log: Log,
    /// Since when a batch is being synced, monotonic microseconds.
    log_syncs_since: Option<i64>,
    snapshots: Snapshots,
    proving: Proving,
    /// From the leader, while this server has enough to do with what it was sent.
    held: VecDeque<Input>,
    /// Client connections that said `Connect` and are not closed.
    pub conns: BTreeSet<ConnId>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    /// Where it listens.
    place: Vec<PeerAddress>,
    /// Where learners connect, while they are taken.
    learners_at: Option<u16>,
    /// Dials of an earlier role count no more.
    dials: u64,
}

/// A machine and its process.
pub struct Server {
    pub id: ServerId,
    pub incarnation: u32,
    pub process: Option<Process>,
    pub disk: Disk,
    pub clock: Clock,
    /// Stopped until then.
    pub paused_until_us: u64,
    /// The machine has no power: nobody says that a port is closed.
    pub is_dark: bool,
    /// Its disk takes this many times as long.
    pub disk_slowness: u64,
    /// One sync in this many fails: of the log, which ends the process, or of a snapshot.
    pub sync_failure: u64,
    /// It dies after this many more effects.
    pub dies_after: Option<u64>,
    /// Bits of its files have turned round, and nobody has sent it what it lacks for that.
    pub is_rotten: bool,
}

/// Who lives at a host: `server.N` at `sN`.
fn index_of(host: &str) -> Option<usize> {
    host.strip_prefix('s')?.parse::<usize>().ok()?.checked_sub(1)
}

pub fn rules(server_id: i64, timing: Timing, snap_count: u64, last_counter: u32, proposed_bytes_max: usize) -> Rules {
    Rules {
        tick_ms: timing.tick_ms,
        sync_ms: timing.sync_ms,
        session_timeout_ms_min: 200,
        session_timeout_ms_max: 20_000,
        server_id,
        ensemble: true,
        last_counter,
        extended_types: true,
        reconfig_enabled: true,
        connect_hold_ms: 1000,
        container_check_interval_ms: 1000,
        container_max_per_minute: 600,
        proposed_bytes_max,
        snapshots: SnapshotRules { snap_count, snap_size_bytes: 0 },
        ..Rules::default()
    }
}

impl World {
    // Life and death.

    /// The process starts: recovery, then both threads.
    pub fn start(&mut self, s: usize) {
        let server = &mut self.servers[s];
        if server.process.is_some() {
            return;
        }
        if server.disk.lacks_room() {
            return self.start_later(s);
        }
        server.incarnation += 1;
        server.is_dark = false;
        server.dies_after = None;
        match self.options.breakage {
            Some(Breakage::FilesNeverSynced) => server.disk.lie_about(SYNC),
            Some(Breakage::NamesNeverSynced) => server.disk.lie_about(SYNC_NAMES),
            _ => {}
        }
        let is_apache = self.options.apache == Some(s);
        let found = server.disk.recover(self.options.recent_max);
        let Some(recovered) = self.on_done(s, found) else { return };
        self.check.on_recovered(s, &recovered.state);
        let server = &mut self.servers[s];
        let is_damaged = recovered.damage.is_some();
        server.is_rotten &= is_damaged;
        let (listed, configs) = match server.disk.members() {
            Ok(found) => found,
            Err(why) => return self.violation(format!("server {} does not start: {why}", s + 1)),
        };
        let proposed = ensemble::with_history(configs.clone(), &recovered.state);
        let now = server.clock.now(self.now_us);
        let (last, tree) = (recovered.state.last_zxid(), recovered.state.exact_digest());
        let opened = server.disk.open_store(server.id, &listed.own, configs, last);
        let Some(store) = self.on_done(s, opened) else { return };
        let server = &mut self.servers[s];
        let epochs = store.epoch_files.epochs();
        self.trace.note(self.now_us, s, 1, || {
            format!("s{} starts with {last}, epochs {} and {}", s + 1, epochs.accepted, epochs.current)
        });
        let Options { snap_count, last_counter, proposed_bytes_max, .. } = self.options;
        let rules = rules(s as i64 + 1, self.options.rules.timing, snap_count, last_counter, proposed_bytes_max);
        let rules = self.options.client_rules(rules);
        let pipeline = Pipeline::new(rules, recovered.state, now, self.random.next());
        let start = PeerStart {
            my_id: server.id,
            configs: proposed,
            rules: self.options.rules,
            epochs,
            last,
            recent: recovered.recent,
            tree,
            earlier: recovered.earlier,
            marks: recovered.marks,
            gives_up: is_apache || server.disk.gives_up(),
            damage: recovered.damage.map(|damage| damage.to_string()),
            wrong_join: recovered.wrong_join,
            foreigners: server.disk.foreigners(),
            hello: hello(server.id, &listed.own.addresses),
            read_only_after_ms: self.options.read_only_after_ms,
            observer_logs: true,
        };
        let member = Member::new(start, store, now.mono_ms);
        let server = &mut self.servers[s];
        server.process = Some(Process {
            pipeline,
            member: Some(member),
            role: Role::Looking,
            pipeline_role: Role::Looking,
            proposed: VecDeque::new(),
            pipeline_mail: VecDeque::new(),
            quorum_mail: VecDeque::new(),
            log_mail: VecDeque::new(),
            snapshot_mail: VecDeque::new(),
            wake_us: [u64::MAX; 4],
            log: server.disk.open_log(),
            log_syncs_since: None,
            snapshots: server.disk.open_snapshots(is_damaged, now.mono_ms),
            proving: Proving::Nothing,
            held: VecDeque::new(),
            conns: BTreeSet::new(),
            links: BTreeMap::new(),
            next_link: 1,
            place: listed.own.addresses,
            learners_at: None,
            dials: 0,
        });
        self.wake(s, Thread::Pipeline, self.now_us);
        self.wake(s, Thread::Quorum, self.now_us);
        self.wake(s, Thread::Snapshot, self.now_us);
    }

    /// The process dies. With the power, peers hear nothing of it, and what was not synced is lost.
    pub fn kill(&mut self, s: usize, with_power: bool, why: &str) {
        let server = &mut self.servers[s];
        let Some(mut process) = server.process.take() else { return };
        let why = why.to_owned();
        self.trace.note(self.now_us, s, 2, || format!("s{} dies: {why}", s + 1));
        server.paused_until_us = 0;
        server.is_dark = with_power;
        // It may have been about to sync the log.
        server.disk.die_in(|| process.log.sync(), &mut self.random);
        server.end(with_power, &mut self.random);
        if self.options.breakage == Some(Breakage::SyncedDataLost) && with_power {
            server.disk.lose_last();
        }
        for link in process.links.values() {
            if with_power {
                self.net.silence(link.conn, link.side);
            } else {
                self.send_item(link.conn, link.side, Item::Close);
            }
        }
        self.clients_lose_server(s, with_power);
    }

    /// What its disk has done for a process; nothing, if the process died in it.
    pub fn on_done<T>(&mut self, s: usize, done: Result<T, String>) -> Option<T> {
        let server = &mut self.servers[s];
        if server.disk.is_dead() {
            let with_power = self.random.one_in(2);
            if server.process.is_some() {
                self.kill(s, with_power, "within an operation of its disk");
            } else {
                // It had not come to its end of the start.
                server.end(with_power, &mut self.random);
                self.start_later(s);
            }
            return None;
        }
        match done {
            Ok(done) => Some(done),
            // It waits for room, and starts again.
            Err(_) if server.disk.is_limited() => {
                if server.process.is_some() {
                    self.kill(s, false, "its disk is full");
                }
                self.start_later(s);
                None
            }
            Err(why) => {
                self.violation(format!("server {} cannot go on: {why}", s + 1));
                None
            }
        }
    }

    // Threads.

    /// The thread runs at this time at the latest.
    pub fn wake(&mut self, s: usize, thread: Thread, at_us: u64) {
        let server = &mut self.servers[s];
        let at_us = at_us.max(server.paused_until_us).max(self.now_us);
        let Some(process) = &mut server.process else { return };
        if at_us < process.wake_us[thread as usize] {
            process.wake_us[thread as usize] = at_us;
            self.schedule(at_us, Event::Thread { server: s, incarnation: self.servers[s].incarnation, thread });
        }
    }

    pub fn on_thread(&mut self, s: usize, incarnation: u32, thread: Thread) {
        let server = &mut self.servers[s];
        let Some(process) = server.process.as_mut().filter(|_| server.incarnation == incarnation) else { return };
        if process.wake_us[thread as usize] != self.now_us {
            return;
        }
        process.wake_us[thread as usize] = u64::MAX;
        if server.paused_until_us > self.now_us {
            let until_us = server.paused_until_us;
            return self.wake(s, thread, until_us);
        }
        match thread {
            Thread::Pipeline => self.pipeline_turn(s),
            Thread::Quorum => self.quorum_turn(s),
            Thread::Txnlog => self.txnlog_turn(s),
            Thread::Snapshot => self.snapshot_turn(s),
        }
    }

    pub fn post_pipeline(&mut self, s: usize, mail: ToPipeline) {
        let Some(process) = &mut self.servers[s].process else { return };
        process.pipeline_mail.push_back(mail);
        let at_us = self.now_us + self.random.scaled(1, self.options.thread_delay_us);
        self.wake(s, Thread::Pipeline, at_us);
    }

    pub fn post_quorum(&mut self, s: usize, input: Input) {
        let Some(process) = &mut self.servers[s].process else { return };
        process.quorum_mail.push_back(input);
        let at_us = self.now_us + self.random.scaled(1, self.options.thread_delay_us);
        self.wake(s, Thread::Quorum, at_us);
    }

    pub fn post_txnlog(&mut self, s: usize, mail: ToTxnlog) {
        let Some(process) = &mut self.servers[s].process else { return };
        process.log_mail.push_back(mail);
        let at_us = self.now_us + self.random.scaled(1, self.options.thread_delay_us);
        self.wake(s, Thread::Txnlog, at_us);
    }

    pub fn post(&mut self, s: usize, mail: Mail) {
        match mail {
            Mail::Pipeline(mail) => self.post_pipeline(s, mail),
            Mail::Quorum(mail) => self.post_quorum(s, Input::Inner(mail)),
        }
    }

    fn pipeline_turn(&mut self, s: usize) {
        let server = &mut self.servers[s];
        let (now, mono_us) = (server.clock.now(self.now_us), server.clock.mono_us(self.now_us));
        let Some(process) = &mut server.process else { return };
        process.pipeline.set_time(now, mono_us);
        let mut turns = 1 + self.random.below(20);
        while turns > 0
            && let Some(mail) = process.pipeline_mail.pop_front()
        {
            turns -= 1;
            self.trace.note(self.now_us, s, 3, || format!("s{} pipeline <- {}", s + 1, short(&mail)));
            match &mail {
                ToPipeline::Role(role) => process.pipeline_role = *role,
                ToPipeline::Deliver { txns } => self.check.on_delivered(s, process.pipeline.state().last_zxid(), txns),
                _ => {}
            }
            process.pipeline.step(mail);
        }
        process.pipeline.tick();
        let outbox = process.pipeline.take_outbox();
        // Who reads only may read what was logged and never agreed upon.
        let serving = !matches!(process.pipeline_role, Role::Looking | Role::ReadOnly);
        let busy = !process.pipeline_mail.is_empty() || process.pipeline.wants_to_run();
        let deadline_us = server.clock.world_us(process.pipeline.next_deadline_ms());
        self.check.on_applied(s, serving, process.pipeline.state());
        let mut posts = Vec::new();
        deliver(outbox, true, TurnTimes { begun_us: mono_us, sent_us: mono_us }, |post| posts.push(post));
        posts.into_iter().for_each(|post| self.post_of_pipeline(s, post));
        self.wake(s, Thread::Pipeline, if busy { self.now_us + 1 } else { deadline_us });
    }

    /// What the pipeline has to say goes where it belongs.
    fn post_of_pipeline(&mut self, s: usize, post: Post) {
        let is_apache = self.options.apache == Some(s);
        match post {
            Post::Quorum(ToQuorum::Joint(_)) if is_apache => {}
            Post::Quorum(mail) => {
                if let ToQuorum::Proposed(records) = &mail {
                    records.iter().for_each(|record| self.check.on_proposed(s, record));
                    if let Some(process) = &mut self.servers[s].process {
                        process.proposed.extend(records.iter().cloned());
                    }
                }
                if let Some(mail) = self.break_mail(s, mail) {
                    self.post_quorum(s, Input::Inner(mail));
                }
            }
            Post::Txnlog(mail) => self.post_txnlog(s, mail),
            Post::Snapshot(mail) => self.post_snapshot(s, mail),
            Post::Poller(mail) => mail.outgoing.into_iter().for_each(|outgoing| self.send_outgoing(s, outgoing)),
        }
    }

    fn send_outgoing(&mut self, s: usize, outgoing: Outgoing) {
        let conn = outgoing.conn;
        let closes = outgoing.fate == Fate::Close;
        let what = FromServer { bytes: outgoing.bytes.into_vec(), closes };
        self.send_to_client(s, conn, what);
        let known = self.servers[s].process.as_mut().is_some_and(|process| process.conns.contains(&conn));
        if closes && known {
            self.servers[s].process.as_mut().map(|process| process.conns.remove(&conn));
            self.post_pipeline(s, ToPipeline::Disconnected { conn });
        }
    }

    // The disk.

    fn disk_us(&mut self, s: usize) -> u64 {
        self.random.scaled(50, 5000) * self.servers[s].disk_slowness
    }

    fn disk_event(&mut self, s: usize, what: DiskDone) {
        let at_us = self.now_us + self.disk_us(s);
        self.schedule(at_us, Event::Disk { server: s, incarnation: self.servers[s].incarnation, what });
    }

    /// What is there goes to the log as one batch, which is synced after a while.
    fn txnlog_turn(&mut self, s: usize) {
        while let Some(mail) = self.next_of_batch(s) {
            self.trace.note(self.now_us, s, 6, || format!("s{} txnlog <- {}", s + 1, short(&mail)));
            let Some(mail) = self.break_log_mail(s, mail) else { continue };
            self.look_at_replacement(s, &mail);
            let Some(process) = &mut self.servers[s].process else { return };
            let done = process.log.on_mail(mail).map_err(text);
            if self.on_done(s, done).is_none() {
                return;
            }
        }
        let server = &mut self.servers[s];
        let mono_us = server.clock.mono_us(self.now_us);
        let Some(process) = &mut server.process else { return };
        if process.log_syncs_since.is_some() || !process.log.has_batch() {
            return;
        }
        process.log_syncs_since = Some(mono_us);
        if self.options.breakage == Some(Breakage::AckBeforeSync) {
            let posts = process.log.take_posts(mono_us, mono_us);
            posts.into_iter().for_each(|mail| self.post(s, mail));
        }
        self.disk_event(s, DiskDone::LogSynced);
    }

    fn next_of_batch(&mut self, s: usize) -> Option<ToTxnlog> {
        let Process { log, log_mail, log_syncs_since, .. } = self.servers[s].process.as_mut()?;
        log_mail.pop_front_if(|mail| log_syncs_since.is_none() && !log.is_full() && log.takes(mail))
    }

    /// The log's thread is about to change the history.
    fn look_at_replacement(&mut self, s: usize, mail: &ToTxnlog) {
        if let ToTxnlog::FinishInstall { .. } = mail {
            self.servers[s].is_rotten = false;
            self.servers[s].disk.is_replaced();
        }
        let ToTxnlog::PrepareInstall { dropped: Dropped::Contained, .. } = mail else { return };
        let log = self.servers[s].disk.log();
        let others = || (0..self.servers.len()).filter(|other| *other != s).map(|other| &self.servers[other].disk);
        // Whoever has a snapshot as of one of them has those in front of it, too.
        let is_saved = |zxid: &Zxid| others().any(|disk| disk.has_snapshot_as_of(*zxid));
        let saved = log.iter().rev().map(|record| record.zxid).find(is_saved);
        let elsewhere = |record: &&LogRecord| {
            let logged = || others().any(|disk| disk.log().contains(record));
            self.check.has(record) || Some(record.zxid) <= saved || logged()
        };
        if let Some(lost) = log.iter().find(|record| !elsewhere(record)) {
            let zxid = lost.zxid;
            self.violation(format!("server {} drops {zxid} without a copy, and it is nowhere else", s + 1));
        }
    }

    /// The disk has come to the sync of the batch.
    fn on_log_synced(&mut self, s: usize) {
        let server = &mut self.servers[s];
        let Some(process) = &mut server.process else { return };
        if self.random.one_in(server.sync_failure)
            && server.disk.fail_in(|| process.log.sync(), &mut self.random).is_err()
        {
            // It does nothing more with this log. What was written is still read by the process to come.
            process.log = server.disk.open_log();
            return self.kill(s, false, "a sync failed");
        }
        let done = process.log.sync().map_err(text);
        if self.on_done(s, done).is_none() {
            return;
        }
        let server = &mut self.servers[s];
        let done_us = server.clock.mono_us(self.now_us);
        let Some(process) = &mut server.process else { return };
        let begun_us = process.log_syncs_since.take().unwrap_or(done_us);
        let posts = process.log.take_posts(begun_us, done_us);
        self.trace.note(self.now_us, s, 4, || format!("s{} log synced, {}", s + 1, short(&posts)));
        posts.into_iter().for_each(|mail| self.post(s, mail));
        self.wake(s, Thread::Txnlog, self.now_us + 1);
    }

    fn post_snapshot(&mut self, s: usize, mail: ToSnapshot) {
        let Some(process) = &mut self.servers[s].process else { return };
        process.snapshot_mail.push_back(mail);
        let at_us = self.now_us + self.disk_us(s);
        self.wake(s, Thread::Snapshot, at_us);
    }

    /// One mail, or a bit of what else there is to do.
    fn snapshot_turn(&mut self, s: usize) {
        let server = &mut self.servers[s];
        let now_ms = server.clock.now(self.now_us).mono_ms;
        let Some(process) = &mut server.process else { return };
        if let Proving::Done(_) = &process.proving
            && let Proving::Done(verification) = std::mem::replace(&mut process.proving, Proving::Nothing)
        {
            process.snapshots.on_read(verification);
        }
        let mail = process.snapshot_mail.pop_front();
        if let Some(mail) = &mail {
            self.trace.note(self.now_us, s, 5, || format!("s{} snapshot <- {}", s + 1, short(mail)));
        }
        let may_fail = mail.is_some() && self.random.one_in(server.sync_failure);
        let turn = || {
            process.snapshots.on_mail(mail);
            process.snapshots.on_time(now_ms)
        };
        let posts = if may_fail { server.disk.fail_in(turn, &mut self.random) } else { turn() };
        let failed = posts.iter().any(|mail| matches!(mail, Mail::Pipeline(ToPipeline::SnapshotFailed { .. })));
        let has_reason = may_fail || server.disk.is_limited() || server.disk.is_dead();
        if failed && !has_reason {
            return self.violation(format!("server {} cannot write a snapshot, though its disk works", s + 1));
        }
        if self.on_done(s, Ok(())).is_none() {
            return;
        }
        posts.into_iter().for_each(|mail| self.post(s, mail));
        self.go_on_with_snapshots(s, now_ms);
    }

    /// When the next turn comes, and what is read meanwhile.
    fn go_on_with_snapshots(&mut self, s: usize, now_ms: i64) {
        let Some(process) = &mut self.servers[s].process else { return };
        if let Proving::Nothing = process.proving
            && let Some(reading) = process.snapshots.next_reading(now_ms)
        {
            process.proving = Proving::Reads;
            self.disk_event(s, DiskDone::SnapshotsRead(reading));
        }
        let disk_us = self.disk_us(s);
        let server = &mut self.servers[s];
        let Some(process) = &server.process else { return };
        let due_us = server.clock.world_us(process.snapshots.next_ms(now_ms));
        let at_us = if process.snapshot_mail.is_empty() { due_us } else { self.now_us + disk_us };
        self.wake(s, Thread::Snapshot, at_us);
    }

    pub fn on_disk(&mut self, s: usize, incarnation: u32, what: DiskDone) {
        let server = &mut self.servers[s];
        let Some(process) = server.process.as_mut().filter(|_| server.incarnation == incarnation) else { return };
        if server.paused_until_us > self.now_us {
            let until_us = server.paused_until_us;
            return self.schedule(until_us, Event::Disk { server: s, incarnation, what });
        }
        match what {
            DiskDone::LogSynced => self.on_log_synced(s),
            DiskDone::SnapshotsRead(reading) => {
                process.proving = Proving::Done(reading.read());
                if self.on_done(s, Ok(())).is_some() {
                    self.wake(s, Thread::Snapshot, self.now_us + 1);
                }
            }
        }
    }

    // The quorum thread.

    fn quorum_turn(&mut self, s: usize) {
        let server = &mut self.servers[s];
        let now_ms = server.clock.now(self.now_us).mono_ms;
        let Some(process) = &mut server.process else { return };
        process.member().peer.set_time(now_ms);
        let mut turns = 1 + self.random.below(20);
        while turns > 0
            && let Some(process) = &mut self.servers[s].process
        {
            turns -= 1;
            if process.member().is_proposing() {
                process.member().propose();
            } else if let Some(input) = process.quorum_mail.pop_front() {
                self.take(s, input);
            } else {
                break;
            }
            self.carry_out(s);
            while let Some(process) = &mut self.servers[s].process
                && process.peer().wants_packets()
                && let Some(input) = process.held.pop_front()
            {
                if input.link().is_some_and(|link| process.links.contains_key(&link)) {
                    self.hear(s, input);
                    self.carry_out(s);
                }
            }
        }
        let server = &mut self.servers[s];
        let Some(process) = &mut server.process else { return };
        process.member().peer.tick();
        self.carry_out(s);
        let server = &mut self.servers[s];
        let Some(process) = &mut server.process else { return };
        let busy = !process.quorum_mail.is_empty() || process.member().is_proposing();
        let deadline_us = server.clock.world_us(process.peer().next_deadline_ms());
        self.wake(s, Thread::Quorum, if busy { self.now_us + 1 } else { deadline_us.max(self.now_us + 1) });
    }

    /// What the quorum thread is told; of a leader only when this server has not enough to do with what it was sent.
    fn take(&mut self, s: usize, input: Input) {
        let Some(process) = &mut self.servers[s].process else { return };
        if input.link().is_some_and(|link| !process.links.contains_key(&link)) {
            return;
        }
        self.trace.note(self.now_us, s, 7, || format!("s{} quorum <- {}", s + 1, short(&input)));
        if process.is_from_leader(&input) && (!process.held.is_empty() || !process.peer().wants_packets()) {
            process.held.push_back(input);
        } else {
            self.hear(s, input);
        }
    }

    fn hear(&mut self, s: usize, input: Input) {
        if let Input::Closed(link, _) = input
            && let Some(process) = &mut self.servers[s].process
        {
            process.links.remove(&link);
        }
        self.with_member(s, |member, env| {
            let peer = &mut member.peer;
            if let Input::Packets(link, _) | Input::State(link, _) = input {
                peer.on_heard(link);
            }
            match input {
                Input::ElectionHello(link, hello) => peer.on_election_hello(link, &hello),
                Input::ElectionDialed(link, server) => peer.on_election_dialed(link, server),
                Input::ElectionUndialed(server) => peer.on_election_undialed(server),
                Input::Flushed(link) => peer.on_election_flushed(link),
                Input::Notification(link, notification) => peer.on_notification(link, &notification),
                Input::LearnerConnected(link) => peer.on_learner_connected(link),
                Input::LeaderConnected(link) => peer.on_leader_connected(link),
                Input::LeaderUnreachable => peer.on_leader_unreachable("the simulated network says so"),
                Input::Packets(link, packets) => peer.on_packets(link, packets),
                Input::State(_, state) => peer.on_snapshot(state),
                Input::Closed(link, Port::Election) => peer.on_election_closed(link),
                Input::Closed(link, Port::Quorum) => peer.on_link_closed(link),
                Input::SnapshotSent(link) => peer.on_snapshot_sent(link),
                Input::LogRead(link, part) => peer.on_log_read(link, part),
                Input::ReadBack(records) => peer.on_read_back(records),
                Input::Inner(mail) => member.on_mail(mail, env),
            }
        });
    }

    /// Lets the member work with what is around it, in which the process may die.
    fn with_member<T>(&mut self, s: usize, work: impl FnOnce(&mut Member, &mut Around) -> T) -> Option<T> {
        let mut member = self.servers[s].process.as_mut()?.member.take()?;
        let done = work(&mut member, &mut Around { world: self, s });
        if let Some(process) = &mut self.servers[s].process {
            process.member = Some(member);
        }
        Some(done)
    }

    /// Effects, in order, each before the next. The process may die between any two.
    fn carry_out(&mut self, s: usize) {
        let Some(process) = &mut self.servers[s].process else { return };
        let mut effects = process.member().peer.take_effects();
        self.break_effects(s, &mut effects);
        for effect in effects {
            if self.dies_here(s, "between two effects") {
                return;
            }
            self.trace.note(self.now_us, s, 8, || format!("s{} quorum -> {}", s + 1, short(&effect)));
            self.look_at_effect(s, &effect);
            let Some(done) = self.with_member(s, |member, env| member.carry_out(effect, env)) else { return };
            if self.on_carried_out(s, done).is_none() {
                return;
            }
        }
    }

    /// Deaths that would rarely come just here.
    fn look_at_effect(&mut self, s: usize, effect: &Effect) {
        let dies = match effect {
            Effect::SaveConfigs(_) => {
                if self.dies_saving() {
                    self.servers[s].disk.die_within(2, &mut self.moves);
                }
                false
            }
            Effect::MarkWrongJoin(Some(wrong)) => wrong.unproven().is_none() && self.deaths_taking_back > 0,
            Effect::Log(_) => {
                self.deaths_taking_back > 0 && self.servers[s].dies_after.is_none() && self.random.one_in(4)
            }
            _ => false,
        };
        if dies {
            self.deaths_taking_back -= 1;
            self.servers[s].dies_after = Some(self.random.below(16));
        }
    }

    fn on_carried_out(&mut self, s: usize, done: Result<(), Failure>) -> Option<()> {
        let disk = &self.servers[s].disk;
        match done {
            // It goes on without, and says so.
            Err(failure) if failure.ends_with.is_none() && disk.is_limited() && !disk.is_dead() => Some(()),
            done => self.on_done(s, done.map_err(text)),
        }
    }

    /// The process may have come to the point at which it is to die.
    fn dies_here(&mut self, s: usize, why: &str) -> bool {
        match &mut self.servers[s].dies_after {
            None => false,
            Some(0) => {
                let with_power = self.random.one_in(2);
                self.kill(s, with_power, why);
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    /// An input that comes back after a while.
    fn later(&mut self, s: usize, us_max: u64, input: Input) {
        let at_us = self.now_us + self.random.scaled(1, us_max);
        self.schedule(at_us, Event::Input { server: s, incarnation: self.servers[s].incarnation, input });
    }

    fn read_later(&mut self, s: usize, what: Read) {
        let at_us = self.now_us + self.random.scaled(1, 5000);
        self.schedule(at_us, Event::Read { server: s, incarnation: self.servers[s].incarnation, what });
    }

    /// The reader has come to it.
    pub fn on_read(&mut self, s: usize, incarnation: u32, what: Read) {
        let server = &mut self.servers[s];
        if server.process.is_none() || server.incarnation != incarnation {
            return;
        }
        if server.paused_until_us > self.now_us {
            let until_us = server.paused_until_us;
            return self.schedule(until_us, Event::Read { server: s, incarnation, what });
        }
        let input = match what {
            Read::Part { link, from, to } => Input::LogRead(link, server.disk.read(from, to)),
            Read::Back { from, to } => {
                let read = server.disk.read_back(from, to);
                let Some(records) = self.on_done(s, read) else { return };
                Input::ReadBack(records)
            }
            Read::State { to } => {
                let read = server.disk.read_again(to);
                let Some(state) = self.on_done(s, read) else { return };
                return self.post_pipeline(s, ToPipeline::Install { state: Box::new(state), durable: true });
            }
        };
        self.post_quorum(s, input);
    }

    pub fn on_input(&mut self, s: usize, incarnation: u32, input: Input) {
        if self.servers[s].incarnation == incarnation {
            self.post_quorum(s, input);
        }
    }

    fn tell_pipeline(&mut self, s: usize, mail: ToPipeline) {
        let server = &mut self.servers[s];
        let Some(process) = &mut server.process else { return };
        match &mail {
            ToPipeline::Role(role) => {
                process.role = *role;
                process.proposed.clear();
                if let Role::Leading { epoch } = role {
                    self.check.on_leading(s, *epoch, &server.disk.log(), process.pipeline.state().last_zxid());
                }
            }
            ToPipeline::Committed { zxid, .. } => {
                while process.proposed.front().is_some_and(|record| record.zxid <= *zxid)
                    && let Some(record) = process.proposed.pop_front()
                {
                    self.check.on_committed(s, record.zxid, &record.payload);
                }
            }
            // The last of them may end the role. What was not committed follows when the pipeline was told that it ended.
            ToPipeline::Deliver { txns } if matches!(process.role, Role::Following | Role::Observing) => {
                for txn in txns {
                    self.check.on_committed(s, txn.header.zxid, &txn.to_bytes());
                }
            }
            _ => {}
        }
        self.post_pipeline(s, mail);
    }

    // Links.

    fn send_packet(&mut self, s: usize, link: LinkId, packet: Packet) {
        if self.breaks_packet(s, link, &packet) {
            return;
        }
        let packet = if self.is_to_apache(s, link) { without_histories(packet) } else { packet };
        self.send_encoded(s, link, &packet);
    }

    /// Whether one of the two is as Apache's.
    fn is_to_apache(&self, s: usize, link: LinkId) -> bool {
        let Some(apache) = self.options.apache else { return false };
        let link = self.servers[s].process.as_ref().and_then(|process| process.links.get(&link));
        let conn = link.and_then(|link| self.net.conns[link.conn].as_ref());
        conn.is_some_and(|conn| conn.ends.iter().any(|end| end.server == apache))
    }

    pub fn send_encoded(&mut self, s: usize, link: LinkId, packet: &Packet) {
        let link_of = self.servers[s].process.as_ref().and_then(|process| process.links.get(&link));
        let from = if link_of.is_some_and(|link| link.side == 0) { From::Learner } else { From::Leader };
        let mut bytes = Vec::new();
        packet.encode(from, &mut bytes);
        self.send_on(s, link, bytes);
    }

    fn send_on(&mut self, s: usize, link: LinkId, bytes: Vec<u8>) {
        let Some(process) = &self.servers[s].process else { return };
        let Some(&Link { conn, side, port, .. }) = process.links.get(&link) else { return };
        if self.net.conns[conn].is_none() {
            // The other side is long gone, and what should have said so was lost with its power.
            return self.later(s, 10_000, Input::Closed(link, port));
        }
        if let Some(at_us) = self.net.send_bytes(conn, side, bytes, self.now_us, &mut self.random) {
            self.schedule(at_us, Event::Arrive { conn, side });
        }
    }

    fn send_item(&mut self, conn: usize, side: usize, item: Item) {
        if let Some(at_us) = self.net.send(conn, side, item, self.now_us, &mut self.random) {
            self.schedule(at_us, Event::Arrive { conn, side });
        }
    }

    fn close(&mut self, s: usize, link: LinkId) {
        let Some(process) = &mut self.servers[s].process else { return };
        let Some(link) = process.links.remove(&link) else { return };
        self.send_item(link.conn, link.side, Item::Close);
    }

    fn leave_role(&mut self, s: usize) {
        let Some(process) = &mut self.servers[s].process else { return };
        process.learners_at = None;
        process.dials += 1;
        let quorum = process.links.iter().filter(|(_, link)| link.port == Port::Quorum);
        let links: Vec<LinkId> = quorum.map(|(id, _)| *id).collect();
        links.into_iter().for_each(|link| self.close(s, link));
    }

    fn dial(&mut self, s: usize, port: Port, addresses: &[PeerAddress], whom: Option<ServerId>) {
        let Some(process) = &self.servers[s].process else { return };
        let dials = process.dials;
        let to = |at: &PeerAddress| {
            let to = index_of(&at.host).filter(|to| *to < self.servers.len())?;
            Some((to, if port == Port::Election { at.election_port } else { at.quorum_port }))
        };
        let mut targets: Vec<(usize, u16)> = addresses.iter().filter_map(to).collect();
        targets.sort_unstable();
        targets.dedup();
        // All at once; the first that answers counts.
        let answers = |(to, _): &&(usize, u16)| !self.net.is_unreachable(s, *to) && !self.servers[*to].is_dark;
        let us = match targets.iter().find(answers) {
            None if targets.is_empty() => 1000,
            None => self.options.connect_timeout_us,
            Some((to, _)) => 2 * self.net.latency_us(s, *to, &mut self.random),
        };
        let incarnation = self.servers[s].incarnation;
        let event = Event::Dialed { server: s, incarnation, port, targets, whom, dials };
        self.schedule(self.now_us + us, event);
    }

    pub fn on_dialed(
        &mut self,
        s: usize,
        incarnation: u32,
        port: Port,
        targets: &[(usize, u16)],
        whom: Option<ServerId>,
        dials: u64,
    ) {
        if self.servers[s].incarnation != incarnation || self.servers[s].process.is_none() {
            return;
        }
        let dials_now = self.servers[s].process.as_ref().map_or(0, |process| process.dials);
        if port == Port::Quorum && dials != dials_now {
            return;
        }
        let accepts = |(to, at): &&(usize, u16)| {
            let process = self.servers[*to].process.as_ref();
            !self.net.is_unreachable(s, *to) && process.is_some_and(|process| process.listens(port, *at))
        };
        let Some(&(to, _)) = targets.iter().find(accepts) else {
            return match whom {
                Some(server) => self.post_quorum(s, Input::ElectionUndialed(server)),
                None => self.post_quorum(s, Input::LeaderUnreachable),
            };
        };
        let ends = [self.new_end(s), self.new_end(to)];
        let conn = self.net.connect(port, ends);
        for (side, end) in ends.iter().enumerate() {
            if let Some(process) = &mut self.servers[end.server].process {
                let inbound = match (port, side) {
                    (Port::Election, 0) => inbound::Port::known(),
                    (Port::Election, _) => inbound::Port::nameless(),
                    (Port::Quorum, 0) => inbound::Port::leader(PACKET_BYTES_MAX, STATE_RULES),
                    (Port::Quorum, _) => inbound::Port::learner(PACKET_BYTES_MAX),
                };
                let link = Link { conn, side, port, inbound };
                process.links.insert(end.link, link);
            }
        }
        match whom {
            Some(server) => self.post_quorum(s, Input::ElectionDialed(ends[0].link, server)),
            None => {
                self.post_quorum(s, Input::LeaderConnected(ends[0].link));
                self.post_quorum(to, Input::LearnerConnected(ends[1].link));
            }
        }
    }

    fn new_end(&mut self, s: usize) -> End {
        let server = &mut self.servers[s];
        let link = server.process.as_mut().map_or(0, |process| {
            process.next_link += 1;
            process.next_link
        });
        End { server: s, incarnation: server.incarnation, link: LinkId(link) }
    }

    pub fn on_arrive(&mut self, conn: usize, side: usize) {
        if let Some(known) = self.net.conns[conn].as_mut() {
            known.streams[side].scheduled = false;
        }
        while let Some((to, port, item)) = self.net.arrived(conn, side, self.now_us) {
            self.take_item(conn, 1 - side, to, port, item);
        }
        if let Some(at_us) = self.net.next_event(conn, side) {
            self.schedule(at_us, Event::Arrive { conn, side });
        }
        self.net.forget_if_over(conn);
    }

    fn take_item(&mut self, conn: usize, side: usize, to: End, port: Port, item: Item) {
        let server = &mut self.servers[to.server];
        let process = server.process.as_mut().filter(|_| server.incarnation == to.incarnation);
        let Some(link) = process.and_then(|process| process.links.get_mut(&to.link)) else {
            // Nobody is there any more: the sender hears so, unless the machine is dark.
            self.trace.note(self.now_us, to.server, 9, || format!("s{} nobody takes {}", to.server + 1, short(&item)));
            if !server.is_dark
                && !matches!(item, Item::Close)
                && let Some(at_us) = self.net.refuse(conn, side, self.now_us, &mut self.random)
            {
                self.schedule(at_us, Event::Arrive { conn, side });
            }
            return;
        };
        let id = to.link;
        let bytes = match item {
            Item::Close => {
                self.net.finish(conn, side);
                return self.post_quorum(to.server, Input::Closed(id, port));
            }
            Item::Bytes(bytes) => bytes,
        };
        let mut heard = link.inbound.feed(&bytes).and_then(|()| link.inbound.hear());
        loop {
            let input = match heard {
                Ok(Heard::Nothing) => return,
                Ok(Heard::Hello(hello)) => Input::ElectionHello(id, hello),
                Ok(Heard::Notification(notification)) => Input::Notification(id, notification),
                Ok(Heard::Packets(packets)) => Input::Packets(id, packets),
                Ok(Heard::Snapshot(state)) => Input::State(id, state),
                Ok(Heard::Malformed(why)) | Err(why) => {
                    return self
                        .violation(format!("server {} hears what it does not understand: {why}", to.server + 1));
                }
            };
            self.post_quorum(to.server, input);
            let process = self.servers[to.server].process.as_mut();
            let Some(link) = process.and_then(|process| process.links.get_mut(&id)) else { return };
            heard = link.inbound.hear();
        }
    }

    // Clients.

    /// The address that clients come from; nobody decides by it.
    pub fn client_address() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 40_000).into()
    }

    pub fn client_conn(client: usize, generation: u32) -> ConnId {
        ConnId { slot: client as u32, generation }
    }
}

/// What is around the member of one server.
pub struct Around<'a> {
    world: &'a mut World,
    s: usize,
}

impl Environment for Around<'_> {
    fn send(&mut self, link: LinkId, packet: Packet, _standing: impl Fn(LinkId) -> LinkPriority) {
        self.world.send_packet(self.s, link, packet);
    }

    fn send_snapshot(&mut self, link: LinkId, bytes: Vec<u8>) {
        self.world.send_on(self.s, link, bytes);
        self.world.later(self.s, 2000, Input::SnapshotSent(link));
    }

    fn send_election(&mut self, link: LinkId, bytes: Vec<u8>) {
        self.world.send_on(self.s, link, bytes);
        self.world.later(self.s, 300, Input::Flushed(link));
    }

    fn close(&mut self, link: LinkId, _why: &str) {
        self.world.close(self.s, link);
    }

    fn dial_leader(&mut self, _master: ServerId, addresses: &[PeerAddress]) {
        self.world.dial(self.s, Port::Quorum, addresses, None);
    }

    fn dial_election(&mut self, server: ServerId, _is_member: bool, addresses: &[PeerAddress]) {
        self.world.dial(self.s, Port::Election, addresses, Some(server));
    }

    fn listen(&mut self, open: bool) {
        if let Some(process) = &mut self.world.servers[self.s].process {
            process.learners_at = process.place.first().map(|place| place.quorum_port).filter(|_| open);
        }
    }

    fn listen_for_observers(&mut self) {
        let port = self.world.options.rules.observer_master_port;
        if let Some(process) = &mut self.world.servers[self.s].process {
            process.learners_at = port;
        }
    }

    fn leave_role(&mut self) {
        self.world.leave_role(self.s);
    }

    fn move_to(&mut self, members: &Members) {
        let own = members.addresses(self.world.servers[self.s].id);
        if let Some(process) = &mut self.world.servers[self.s].process
            && !own.is_empty()
        {
            process.place = own.to_vec();
        }
    }

    fn alarm(&mut self, what: String) {
        if self.world.alarms_expected {
            self.world.alarms.push((self.s, what));
        } else if !self.world.servers.iter().any(|server| server.is_rotten) {
            // A rotten one may not be able to do without those that are not there.
            self.world.violation(format!("server {} calls an operator: {what}", self.s + 1));
        }
    }

    fn warn(&mut self, _link: LinkId, _what: &str) {}

    fn read_part(&mut self, link: LinkId, from: Zxid, to: Zxid) {
        self.world.read_later(self.s, Read::Part { link, from, to });
    }

    fn read_back(&mut self, from: Zxid, to: Zxid) {
        self.world.read_later(self.s, Read::Back { from, to });
    }

    fn read_state(&mut self, to: Zxid) {
        self.world.read_later(self.s, Read::State { to });
    }

    fn forget_history(&mut self) {
        self.world.servers[self.s].disk.forget_history();
    }

    fn tell_txnlog(&mut self, mail: ToTxnlog) {
        self.world.post_txnlog(self.s, mail);
    }

    fn tell_pipeline(&mut self, mail: ToPipeline) {
        self.world.tell_pipeline(self.s, mail);
    }

    fn mono_us(&self) -> i64 {
        self.world.servers[self.s].clock.mono_us(self.world.now_us)
    }

    fn wall_ms(&self) -> i64 {
        self.world.servers[self.s].clock.now(self.world.now_us).wall_ms
    }
}

impl Server {
    /// What becomes of the disk when the process ended.
    fn end(&mut self, with_power: bool, random: &mut Random) {
        if with_power { self.disk.lose_power(random) } else { self.disk.end() }
    }
}

impl Process {
    fn listens(&self, port: Port, at: u16) -> bool {
        match port {
            Port::Election => self.place.iter().any(|place| place.election_port == at),
            Port::Quorum => self.learners_at == Some(at),
        }
    }

    /// Whether it came over the link to the leader.
    fn is_from_leader(&self, input: &Input) -> bool {
        let from_leader =
            |link: &LinkId| self.links.get(link).is_some_and(|link| link.port == Port::Quorum && link.side == 0);
        match input {
            Input::Packets(link, _) | Input::State(link, _) | Input::Closed(link, Port::Quorum) => from_leader(link),
            _ => false,
        }
    }

    /// The core.
    pub fn peer(&self) -> &Peer {
        &self.member.as_ref().expect("nothing is being carried out").peer
    }

    fn member(&mut self) -> &mut Member {
        self.member.as_mut().expect("nothing is being carried out")
    }
}

/// As a server of Apache would say it.
fn without_histories(packet: Packet) -> Packet {
    match packet {
        Packet::LearnerInfo(info) => Packet::LearnerInfo(LearnerInfo { history: None, ..info }),
        Packet::LeaderInfo { epoch, .. } => Packet::LeaderInfo { epoch, ours: None },
        Packet::AckEpoch { zxid, epoch, .. } => Packet::AckEpoch { zxid, epoch, reach: None },
        Packet::Snap { zxid, .. } => Packet::Snap { zxid, told: None },
        Packet::TellingPing { zxid, .. } => Packet::Ping { zxid, touched: Vec::new() },
        other => other,
    }
}

/// What a server says first on a link of the election port.
fn hello(server: ServerId, addresses: &[PeerAddress]) -> Vec<u8> {
    let addresses: Vec<(String, u16)> = addresses.iter().map(|at| (at.host.clone(), at.election_port)).collect();
    Hello::encode(server, &addresses, false)
}
