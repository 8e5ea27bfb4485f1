//! One simulated server: its threads, each with a mailbox.
//! What the real thread does round the core of the pipeline is done here in the same order (`threads::pipeline`), with the
//! world's time and chance; what `engine` has is driven as the threads drive it. The quorum thread is in `quorum`.

use std::collections::VecDeque;

use rookeeper::config::ensemble::PeerAddress;
use rookeeper::engine::clients::Clients;
use rookeeper::engine::pipeline::{Post, TurnTimes, deliver};
use rookeeper::engine::quorum::Member;
use rookeeper::engine::quorum::links::Links;
use rookeeper::engine::quorum::reads::ToRead;
use rookeeper::engine::snapshots::{Reading, Snapshots, Verification};
use rookeeper::ids::{Now, ServerId, Zxid};
use rookeeper::mail::{Dropped, LogRecord, Mail, Role, ToPipeline, ToQuorum, ToSnapshot, ToTxnlog};
use rookeeper::pipeline::{Pipeline, Rules, SnapshotRules};
use rookeeper::quorum::Timing;
use rookeeper::quorum::notification::Hello;
use rookeeper::quorum::peer::{Peer, PeerStart};
use rookeeper::records::OwnerRules;
use rookeeper::state::StateRules;
use rookeeper::threads::ensemble;

use crate::breakage::Breakage;
use crate::disk::{Disk, Log, text};
use crate::net::{Item, Socket};
use crate::poller::{self, ClientEnd, PollerInput};
use crate::quorum::{Input, OwnEnd};
use crate::random::Random;
use crate::trace::short;
use crate::volatile::{SYNC, SYNC_NAMES};
use crate::world::{Event, Options, World};

/// How the simulated servers understand their data.
pub const STATE_RULES: StateRules = StateRules::new(OwnerRules { extended_types: true, emulate_353: false }, true);

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

    pub fn now(&self, world_us: u64) -> Now {
        let mono_ms = self.mono_us(world_us) / 1000;
        Now { mono_ms, wall_ms: mono_ms + self.wall_offset_ms }
    }

    /// When the monotonic clock shows this, in time of the world.
    pub fn world_us(&self, mono_ms: i64) -> u64 {
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

/// Threads that have a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Thread {
    Pipeline,
    Quorum,
    Txnlog,
    Snapshot,
    Poller,
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

/// A process that runs.
pub struct Process {
    pub pipeline: Pipeline,
    /// Elsewhere only while it has its turn.
    pub member: Option<Member<Socket>>,
    /// Whether it had its first turn.
    pub has_begun: bool,
    /// What the peer told the pipeline last.
    pub role: Role,
    /// What the pipeline was told last.
    pub pipeline_role: Role,
    /// Proposed here as leader and not known to be committed.
    pub proposed: VecDeque<LogRecord>,
    pipeline_mail: VecDeque<ToPipeline>,
    pub quorum_mail: VecDeque<Input>,
    log_mail: VecDeque<ToTxnlog>,
    snapshot_mail: VecDeque<ToSnapshot>,
    wake_us: [u64; 5],
    pub log: Log,
    /// Since when a batch is being synced, monotonic microseconds.
    log_syncs_since: Option<i64>,
    snapshots: Snapshots,
    proving: Proving,
    /// What is read of the disk for the quorum thread, one after the other.
    pub to_read: VecDeque<ToRead>,
    /// The connections of clients, as the poller has them.
    pub clients: Clients<Socket>,
    pub poller_mail: VecDeque<PollerInput>,
    pub client_ends: Vec<ClientEnd>,
    /// Its ends of connections to other servers.
    pub ends: Vec<OwnEnd>,
    /// Where it listens.
    pub place: Vec<PeerAddress>,
    /// Where learners connect, while they are taken.
    pub learners_at: Option<u16>,
    /// Dials of an earlier role count no more.
    pub dials: u64,
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
        let (mono_us, seed) = (server.clock.mono_us(self.now_us), self.random.next());
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
        let member = Member::new(start, store, Links::new(self.link_rules(), u64::MAX), now.mono_ms);
        let server = &mut self.servers[s];
        server.process = Some(Process {
            pipeline,
            member: Some(member),
            has_begun: false,
            role: Role::Looking,
            pipeline_role: Role::Looking,
            proposed: VecDeque::new(),
            pipeline_mail: VecDeque::new(),
            quorum_mail: VecDeque::new(),
            log_mail: VecDeque::new(),
            snapshot_mail: VecDeque::new(),
            wake_us: [u64::MAX; 5],
            log: server.disk.open_log(),
            log_syncs_since: None,
            snapshots: server.disk.open_snapshots(is_damaged, now.mono_ms),
            proving: Proving::Nothing,
            to_read: VecDeque::new(),
            clients: Clients::new(poller::options(), mono_us, seed),
            poller_mail: VecDeque::new(),
            client_ends: Vec::new(),
            ends: Vec::new(),
            place: listed.own.addresses,
            learners_at: None,
            dials: 0,
        });
        self.wake(s, Thread::Pipeline, self.now_us);
        self.wake(s, Thread::Quorum, self.now_us);
        self.wake(s, Thread::Snapshot, self.now_us);
        self.wake(s, Thread::Poller, self.now_us);
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
        for end in std::mem::take(&mut process.ends) {
            if with_power {
                self.net.silence(end.conn, end.side);
            } else {
                self.send_item(end.conn, end.side, Item::Close);
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
            Thread::Poller => self.poller_turn(s),
        }
    }

    pub fn post_pipeline(&mut self, s: usize, mail: ToPipeline) {
        let Some(process) = &mut self.servers[s].process else { return };
        process.pipeline_mail.push_back(mail);
        let at_us = self.now_us + self.random.scaled(1, self.options.thread_delay_us);
        self.wake(s, Thread::Pipeline, at_us);
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
            Mail::Quorum(mail) => self.post_quorum(s, Input::Core(mail)),
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
                    self.post_quorum(s, Input::Core(mail));
                }
            }
            Post::Txnlog(mail) => self.post_txnlog(s, mail),
            Post::Snapshot(mail) => self.post_snapshot(s, mail),
            Post::Poller(mail) => self.post_poller(s, PollerInput::Replies(mail)),
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
}

impl Server {
    /// What becomes of the disk when the process ended.
    fn end(&mut self, with_power: bool, random: &mut Random) {
        if with_power { self.disk.lose_power(random) } else { self.disk.end() }
    }
}

impl Process {
    /// Whether somebody who connects there is taken.
    pub fn listens(&self, is_election: bool, at: u16) -> bool {
        if is_election {
            self.place.iter().any(|place| place.election_port == at)
        } else {
            self.learners_at == Some(at)
        }
    }

    /// The core.
    pub fn peer(&self) -> &Peer {
        &self.member.as_ref().expect("it has no turn").peer
    }
}

/// What a server says first on a link of the election port.
fn hello(server: ServerId, addresses: &[PeerAddress]) -> Vec<u8> {
    let addresses: Vec<(String, u16)> = addresses.iter().map(|at| (at.host.clone(), at.election_port)).collect();
    Hello::encode(server, &addresses, false)
}
