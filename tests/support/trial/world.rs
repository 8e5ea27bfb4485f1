//! The world of a trial: the pipeline, its clients, its log and its disk, and what is done to them. Used by `trial`;
//! `outbox` checks what comes out.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rookeeper::admin::view::ServerView;
use rookeeper::config::DigestAlg;
use rookeeper::ids::{ConnId, Now, SessionId, Zxid};
use rookeeper::limits::LISTED_AT_ONCE;
use rookeeper::mail::ToPipeline;
use rookeeper::ops::{ConnectRequest, Op, ReadOp, Request};
use rookeeper::pipeline::{DigestAuth, Pipeline, Rules, SnapshotRules};
use rookeeper::records::OwnerRules;
use rookeeper::state::acl::AuthId;
use rookeeper::state::{State, StateRules};
use rookeeper::txn::Txn;

use super::answers::CatchUp;
use super::choices::Choices;
use super::model::{Model, Outcome};
use super::requests::{self, USERS};
use super::snapshots::Cut;
use super::watchers::Watchers;

/// Where a client stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Connecting,
    Established,
    /// The pipeline wants it closed.
    Closed,
    /// `Disconnected` was said.
    Gone,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub struct Asked {
    pub request: Request,
    /// Who the client was then.
    pub auth: Vec<AuthId>,
}

#[derive(Debug)]
pub struct Client {
    pub id: ConnId,
    pub standing: Standing,
    pub session: SessionId,
    pub auth: Vec<AuthId>,
    pub asked: VecDeque<Asked>,
    /// auth and sasl: answered at once.
    pub urgent: Option<Request>,
    pub sent: u32,
    pub answered: u32,
    pub sent_read_only_byte: bool,
    /// The pipeline waits until it has taken what it was told.
    pub is_full: bool,
    /// Events it must read next: zxid, type, path.
    pub due: VecDeque<(Zxid, i32, String)>,
    /// Events of setWatches that it read.
    pub caught_up: Vec<CatchUp>,
}

/// The disk of the snapshot thread.
#[derive(Debug, Default)]
pub struct SnapshotFile {
    pub cut: Option<Cut>,
    pub chunks_unwritten: usize,
    pub finished: bool,
}

pub struct World {
    pub rules: Rules,
    pub state_rules: StateRules,
    pub pipeline: Pipeline,
    pub now: Now,
    pub clients: Vec<Client>,
    pub log: Vec<Txn>,
    /// How much of the log is committed.
    pub committed: usize,
    pub model: Model,
    /// What the model's last transaction came to.
    pub outcomes: Vec<Outcome>,
    pub watchers: Watchers,
    /// Another server, which replays the log.
    pub follower: State,
    pub follower_cut: Option<Cut>,
    pub snapshot: SnapshotFile,
    /// Sessions that were given out.
    pub sessions: Vec<(SessionId, Vec<u8>)>,
    next_xid: i32,
}

const CLIENTS_MAX: usize = 64;
const TICK_MS: i64 = 100;

pub fn rules(c: &mut Choices<'_>) -> Rules {
    let options = c.byte();
    let has = |bit: u8| options & 1 << bit != 0;
    let digest_auth = DigestAuth { algorithm: DigestAlg::Sha1, super_digest: Some(USERS[0].1.to_owned()) };
    let more = c.byte();
    Rules {
        tick_ms: TICK_MS,
        session_timeout_ms_min: 200,
        session_timeout_ms_max: 2000,
        // The ephemerals of a session, or the parts of a multi, are more than that now and then.
        txn_body_bytes_max: if more % 8 == 1 { 500 } else { 2 << 20 },
        digest_enabled: !has(0),
        close_session_txn: !has(1),
        extended_types: !has(2),
        enforce_quota: has(3),
        skip_acl: has(4) && has(5),
        reconfig_enabled: has(6),
        digest_auth: (!(has(5) && has(7))).then_some(digest_auth),
        enforced_schemes: if more % 16 == 1 { vec!["digest".to_owned()] } else { Vec::new() },
        sync_ms: 2500,
        connect_hold_ms: if more % 2 == 1 { 1000 } else { 0 },
        drops_stale_requests: more % 16 == 3,
        throttled_op_wait_ms: if more % 16 == 2 { 150 } else { 0 },
        slow_us: i64::MAX,
        audit_as: None,
        container_check_interval_ms: 500,
        container_max_per_minute: 600,
        container_never_used_ms_max: if has(7) { 400 } else { 0 },
        // A few replies, or the usual and never reached here.
        full_bytes: if more % 4 == 2 { 150 } else { 1 << 20 },
        snapshots: SnapshotRules { snap_count: 8 + u64::from(more), snap_size_bytes: 0 },
        ..Rules::default()
    }
}

impl World {
    fn new(c: &mut Choices<'_>) -> World {
        let rules = rules(c);
        let owners = OwnerRules { extended_types: rules.extended_types, emulate_353: false };
        // Lists are made at once, or in turns however short they are.
        let listed_at_once = if rules.digest_enabled { LISTED_AT_ONCE } else { 1 };
        let state_rules = StateRules { listed_at_once, ..StateRules::new(owners, rules.digest_enabled) };
        let state = State::fresh(state_rules);
        let now = Now { mono_ms: 1_000_000, wall_ms: 1_800_000_000_000 };
        World {
            model: Model::of(&state),
            pipeline: Pipeline::new(rules.clone(), state, now, 7),
            rules,
            state_rules,
            now,
            clients: Vec::new(),
            log: Vec::new(),
            committed: 0,
            outcomes: Vec::new(),
            watchers: Watchers::default(),
            follower: State::fresh(state_rules),
            follower_cut: None,
            snapshot: SnapshotFile::default(),
            sessions: Vec::new(),
            next_xid: 1,
        }
    }

    fn act(&mut self, c: &mut Choices<'_>) {
        match c.byte() {
            0..10 => self.connect(c),
            10..150 => self.ask(c),
            150..190 => self.commit(c),
            190..220 => self.deliver(),
            220..224 => self.disconnect(c),
            224..232 => self.pass_time(c),
            232..234 => self.drain(c),
            234..237 => self.pipeline.want_snapshot(),
            237..243 => self.write_snapshot(),
            243..252 => self.cut_follower(c),
            252 => self.restart(c),
            _ => self.look(),
        }
    }

    fn connect(&mut self, c: &mut Choices<'_>) {
        if self.clients.len() == CLIENTS_MAX {
            return;
        }
        let slot = u32::try_from(self.clients.len()).expect("few");
        let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1000 + c.byte() as u16);
        let mut request = ConnectRequest {
            last_zxid_seen: if c.one_in(8) { i64::from(c.byte()) } else { 0 },
            timeout_ms: i32::from(c.short()),
            session_id: 0,
            password: vec![0; 16],
            read_only: [None, Some(false), Some(true)][c.below(3)],
        };
        if c.one_in(3) && !self.sessions.is_empty() {
            let (session, password) = c.pick(&self.sessions).clone();
            request.session_id = session.0;
            request.password = if c.one_in(8) { Vec::new() } else { password };
        }
        let id = ConnId { slot, generation: slot };
        self.clients.push(Client {
            id,
            standing: Standing::Connecting,
            session: SessionId::NONE,
            auth: vec![AuthId::new("ip", "127.0.0.1")],
            asked: VecDeque::new(),
            urgent: None,
            sent: 0,
            answered: 0,
            sent_read_only_byte: request.read_only.is_some(),
            is_full: false,
            due: VecDeque::new(),
            caught_up: Vec::new(),
        });
        self.pipeline.step(ToPipeline::Connect { conn: id, peer, request });
    }

    fn one_of_the_clients(&self, c: &mut Choices<'_>, wanted: impl Fn(Standing) -> bool) -> Option<usize> {
        let fit: Vec<usize> = (0..self.clients.len()).filter(|&n| wanted(self.clients[n].standing)).collect();
        (!fit.is_empty()).then(|| *c.pick(&fit))
    }

    fn ask(&mut self, c: &mut Choices<'_>) {
        // The poller passes on what it read before it heard that a connection is to close.
        let may_ask = |standing| matches!(standing, Standing::Established | Standing::Closed);
        let Some(at) = self.one_of_the_clients(c, may_ask) else { return };
        let existing: Vec<String> = self.model.nodes.keys().cloned().collect();
        let request = requests::request(c, self.next_xid, &existing);
        self.next_xid += 1;
        let is_urgent = matches!(request.op_number, 100 | 102);
        if is_urgent {
            // Who a client is changes which events it gets: the model must know what was before.
            self.drain_all();
            self.answer_multi_reads(at);
        }
        let client = &mut self.clients[at];
        client.sent += 1;
        let waited_ms = [0, 0, 0, 0, 0, 0, 200, 2200][c.below(8)];
        let received_us = (self.now.mono_ms - waited_ms) * 1000;
        let (conn, auth) = (client.id, client.auth.clone());
        match is_urgent {
            true => client.urgent = Some(request.clone()),
            false => client.asked.push_back(Asked { request: request.clone(), auth }),
        }
        self.pipeline.step(ToPipeline::Request { conn, request, received_us });
        if is_urgent {
            self.deliver();
            let client = &self.clients[at];
            let leaves = client.asked.iter().any(|asked| asked.request.op == Op::CloseSession);
            assert!(
                client.urgent.is_none() || leaves || client.standing == Standing::Closed,
                "auth is answered at once"
            );
        }
    }

    fn commit(&mut self, c: &mut Choices<'_>) {
        self.log_proposals();
        let in_flight = self.log.len() - self.committed;
        let count = if c.one_in(2) { in_flight } else { c.below(in_flight + 1) };
        self.commit_some(count);
    }

    pub fn commit_some(&mut self, count: usize) {
        if count > 0 {
            self.committed += count;
            let zxid = self.log[self.committed - 1].header.zxid;
            self.pipeline.step(ToPipeline::Committed { zxid, at_us: 0, synced: vec![] });
        }
    }

    /// The poller's part: a client has taken what it was told.
    fn drain(&mut self, c: &mut Choices<'_>) {
        if let Some(at) = self.one_of_the_clients(c, |standing| standing != Standing::Gone) {
            self.say_drained(at);
        }
    }

    fn say_drained(&mut self, at: usize) {
        if std::mem::take(&mut self.clients[at].is_full) {
            self.pipeline.step(ToPipeline::Drained { conn: self.clients[at].id });
        }
    }

    /// Until nobody is full any more, and nothing is left of what is done in turns.
    fn drain_all(&mut self) {
        self.deliver();
        self.take_turns();
        while let Some(at) = self.one_that_is_full() {
            self.say_drained(at);
            self.deliver();
            self.take_turns();
        }
    }

    /// What a client asks behind a multiRead may be held until that is answered, and a multiRead behind a write until that is
    /// committed.
    fn answer_multi_reads(&mut self, at: usize) {
        let is_multi_read = |asked: &Asked| matches!(asked.request.op, Op::Read(ReadOp::MultiRead(_)));
        while self.log.len() > self.committed && self.clients[at].asked.iter().any(is_multi_read) {
            self.commit_some(self.log.len() - self.committed);
            self.drain_all();
        }
    }

    fn take_turns(&mut self) {
        while self.pipeline.wants_to_run() {
            self.deliver();
        }
    }

    fn one_that_is_full(&self) -> Option<usize> {
        self.clients.iter().position(|client| client.is_full && client.standing != Standing::Gone)
    }

    /// The log is told only with the outbox, so there can be no commit before it.
    fn log_proposals(&mut self) {
        self.deliver();
    }

    fn disconnect(&mut self, c: &mut Choices<'_>) {
        if c.one_in(2) {
            self.deliver();
        }
        let Some(at) = self.one_of_the_clients(c, |standing| standing != Standing::Gone) else { return };
        self.say_disconnected(at);
    }

    pub fn say_disconnected(&mut self, at: usize) {
        self.clients[at].standing = Standing::Gone;
        self.watchers.forget(at);
        self.pipeline.step(ToPipeline::Disconnected { conn: self.clients[at].id });
    }

    fn pass_time(&mut self, c: &mut Choices<'_>) {
        let ms = i64::from(c.byte()) * 4;
        self.now.mono_ms += ms;
        // People set clocks.
        self.now.wall_ms += if c.one_in(8) { -1000 } else { ms };
        self.pipeline.set_time(self.now, self.now.mono_ms * 1000);
        if self.pipeline.next_deadline_ms() > self.now.mono_ms {
            let before = self.log.len();
            self.deliver();
            self.take_turns();
            let logged = self.log.len();
            self.pipeline.tick();
            self.deliver();
            assert!(before <= logged && logged == self.log.len(), "nothing is due before the deadline");
        }
        self.pipeline.tick();
    }

    fn write_snapshot(&mut self) {
        let file = &mut self.snapshot;
        if file.chunks_unwritten > 0 {
            file.chunks_unwritten -= 1;
            self.pipeline.step(ToPipeline::SnapshotChunkWritten);
        } else if file.finished {
            let cut = file.cut.take().expect("it was begun");
            file.finished = false;
            self.pipeline.step(ToPipeline::SnapshotDone { zxid: cut.expected.zxid, bytes: cut.bytes.len() as u64 });
            let mut loaded = cut.check(self.state_rules);
            let zxid = loaded.last_zxid();
            self.log[..self.committed].iter().filter(|txn| txn.header.zxid > zxid).for_each(|txn| loaded.replay(txn));
            self.model_at_commit().check(&loaded);
        }
    }

    /// The model as of the last commit; the model itself is as of the last outbox.
    fn model_at_commit(&self) -> Model {
        let mut model = self.model.clone();
        for txn in self.log[..self.committed].iter().filter(|txn| txn.header.zxid > self.model.zxid) {
            model.apply(txn);
        }
        model
    }

    /// Cuts the follower, a few bytes at a time, while it replays.
    fn cut_follower(&mut self, c: &mut Choices<'_>) {
        let Some(cut) = &mut self.follower_cut else {
            let mut cut = Cut::begin(&self.follower);
            cut.bytes = self.follower.begin_cut();
            self.follower_cut = Some(cut);
            return;
        };
        let (bytes, done) = self.follower.cut_slice(c.below(250));
        cut.bytes.extend(bytes);
        if done {
            cut.check(self.state_rules);
            self.follower_cut = None;
        } else if c.one_in(40) {
            self.follower.abandon_cut();
            self.follower_cut = None;
        }
    }

    /// A crash: what was committed is there, and perhaps a part of what was not.
    fn restart(&mut self, c: &mut Choices<'_>) {
        self.deliver();
        let kept = self.committed + c.below(self.log.len() - self.committed + 1);
        self.log.truncate(kept);
        self.committed = kept;
        self.clients.iter_mut().for_each(|client| client.standing = Standing::Gone);
        self.clients.iter_mut().for_each(|client| client.answered = client.sent);
        self.watchers.clear();
        self.advance_model(Zxid(i64::MAX));
        let mut state = State::fresh(self.state_rules);
        self.log.iter().for_each(|txn| state.replay(txn));
        self.snapshot = SnapshotFile::default();
        self.now.wall_ms += 1;
        self.pipeline = Pipeline::new(self.rules.clone(), state, self.now, 7);
        self.model.check(self.pipeline.state());
    }

    /// What operators may see.
    fn look(&mut self) {
        let view = &self.pipeline;
        let state = view.state();
        // The root counts twice, as in Apache.
        assert_eq!(view.node_count(), state.tree().len() as u64 + 1);
        assert_eq!(view.ephemerals().len(), state.sessions_with_ephemerals().count());
        assert_eq!(view.watches_by_session().len() as u64, view.watch_totals().connections);
        assert_eq!(view.watches_by_path().len() as u64, view.watch_totals().paths);
        assert!(view.quotas().len() <= state.quotas().iter().count());
        assert!(view.outstanding() <= self.clients.iter().map(|client| u64::from(client.sent) + 1).sum());
        let _ = (view.sessions(), view.digest_log(), view.settings(), view.uptime_ms());
    }

    /// Everything comes to rest: every request is answered, nothing is pending, every server has the same.
    fn settle(&mut self) {
        self.drain_all();
        // What was held back may be writes.
        while self.log.len() > self.committed || self.one_that_is_full().is_some() {
            self.commit_some(self.log.len() - self.committed);
            self.drain_all();
        }
        while self.pipeline.wants_to_run() || self.snapshot.cut.is_some() {
            self.deliver();
            self.write_snapshot();
        }
        self.deliver();
        for client in &self.clients {
            assert_eq!(client.answered, client.sent, "requests of {:?} {:?}", client.id, client.standing);
            assert!(client.standing != Standing::Connecting, "{:?} was answered", client.id);
            assert!(client.standing != Standing::Established || client.asked.is_empty(), "{:?}", client.asked);
        }
        self.model.check(self.pipeline.state());
        self.model.check(&self.follower);
        let mut replayed = State::fresh(self.state_rules);
        self.log.iter().for_each(|txn| replayed.replay(txn));
        self.model.check(&replayed);
        assert_eq!(Model::of(&replayed), Model::of(self.pipeline.state()), "quota counters follow from the log too");
    }

    /// Clients leave, then the server stops.
    fn stop(&mut self) {
        for at in 0..self.clients.len() {
            if self.clients[at].standing != Standing::Gone {
                self.say_disconnected(at);
            }
        }
        while self.pipeline.wants_to_run() {
            self.deliver();
        }
        assert_eq!(self.pipeline.watch_count(), 0, "watches end with their connections");
        self.pipeline.step(ToPipeline::Stop);
        self.deliver();
        self.commit_some(self.log.len() - self.committed);
        assert!(self.pipeline.take_outbox().stopped);
    }
}

/// One trial. Panics when something is not as it must be.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut world = World::new(&mut choices);
    world.now.mono_ms += 1;
    world.pipeline.set_time(world.now, world.now.mono_ms * 1000);
    while !choices.are_used_up() {
        world.act(&mut choices);
    }
    world.settle();
    world.stop();
}

/// Whether a request goes through the log.
pub fn is_write(op: &Op) -> bool {
    matches!(op, Op::Write(_) | Op::CloseSession)
}
