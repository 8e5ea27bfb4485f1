//! Random lives of an ensemble of two, the same ones each time: clients come, ask, move and go, mail is late, leaders fall.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

#[path = "support/roles.rs"]
mod roles;

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use roles::*;
use rookeeper::admin::view::ServerView;
use rookeeper::ids::{ConnId, SessionId, Zxid};
use rookeeper::mail::{Role, ToPipeline, ToQuorum};
use rookeeper::ops::{Delete, Op, OpCode, ReadOp, WriteOp};
use rookeeper::pipeline::Rules;
use rookeeper::txn::Txn;

/// Two servers that take turns in leading, and mail between them that takes its time and is lost with the leader.
struct Ensemble {
    servers: [Server; 2],
    leader: usize,
    epoch: u32,
    /// The leader's log up to here is committed.
    committed: usize,
    /// For the leader, for the learner.
    up: VecDeque<ToPipeline>,
    down: VecDeque<ToPipeline>,
    /// Syncs that wait for a commit.
    syncs: Vec<Zxid>,
    next_conn: u32,
    next_xid: i32,
    /// What each connection asked.
    asked: [BTreeMap<ConnId, u32>; 2],
    gone: Vec<(usize, ConnId)>,
    sessions: Vec<(SessionId, Vec<u8>)>,
}

impl Ensemble {
    fn new(rules: &Rules) -> Ensemble {
        let mut ensemble = Ensemble {
            servers: [1, 2].map(|server_id| Server::with(Rules { server_id, ..rules.clone() })),
            leader: 0,
            epoch: 0,
            committed: 0,
            up: Default::default(),
            down: Default::default(),
            syncs: Vec::new(),
            next_conn: 1,
            next_xid: 1,
            asked: Default::default(),
            gone: Vec::new(),
            sessions: Vec::new(),
        };
        ensemble.elect(0);
        ensemble
    }

    fn learner(&mut self) -> &mut Server {
        &mut self.servers[1 - self.leader]
    }

    /// Everybody looks; what was logged survives; one leads.
    fn elect(&mut self, leader: usize) {
        (self.up, self.down) = Default::default();
        self.syncs.clear();
        for server in &mut self.servers {
            server.say(ToPipeline::Role(Role::Looking));
        }
        let log = self.servers[self.leader].log.clone();
        let known = self.learner().core.state().last_zxid();
        let missing: Vec<Txn> = log.iter().filter(|txn| txn.header.zxid > known).cloned().collect();
        if !missing.is_empty() {
            self.learner().say(ToPipeline::Deliver { txns: missing });
        }
        self.committed = log.len();
        self.servers.iter_mut().for_each(|server| server.log.clone_from(&log));
        let settled = log.last().map_or(Zxid::ZERO, |txn| txn.header.zxid);
        for server in &mut self.servers {
            let told = server.told_quorum();
            assert!(matches!(told.last(), Some(ToQuorum::Quiesced { zxid, .. }) if *zxid == settled), "{told:?}");
        }
        assert_eq!(view(self.servers[0].core.state()), view(self.servers[1].core.state()));
        self.leader = leader;
        self.epoch += 1;
        let epoch = self.epoch;
        self.servers[leader].say(ToPipeline::Role(Role::Leading { epoch }));
        self.learner().say(ToPipeline::Role(Role::Following));
    }

    fn post(&mut self) {
        for mail in self.learner().told_quorum() {
            self.up.push_back(match mail {
                ToQuorum::Forward(request) => ToPipeline::Forwarded { learner: LEARNER, request },
                ToQuorum::Revalidate { session, timeout_ms } => {
                    ToPipeline::Revalidate { learner: LEARNER, session, timeout_ms }
                }
                ToQuorum::Touched(sessions) => ToPipeline::Touched { sessions },
                other => panic!("{other:?}"),
            });
        }
        for mail in self.servers[self.leader].told_quorum() {
            match mail {
                ToQuorum::SyncReady { after, .. } => self.syncs.push(after),
                ToQuorum::Revalidated { session, valid, .. } => {
                    self.down.push_back(ToPipeline::Revalidated { session, valid });
                }
                other => panic!("{other:?}"),
            }
        }
        let log = &self.servers[self.leader].log;
        let committed = log[..self.committed].last().map_or(Zxid::ZERO, |txn| txn.header.zxid);
        let in_epoch = Zxid(i64::from(self.epoch) << 32);
        let ready = self.syncs.iter().take_while(|&&after| after <= committed.max(in_epoch)).count();
        self.syncs.drain(..ready).for_each(|_| self.down.push_back(ToPipeline::Synced));
    }

    fn commit(&mut self, count: usize) {
        let log = &self.servers[self.leader].log;
        let to = (self.committed + count).min(log.len());
        let txns = log[self.committed..to].to_vec();
        self.committed = to;
        let Some(zxid) = txns.last().map(|txn| txn.header.zxid) else { return };
        self.down.push_back(ToPipeline::Deliver { txns });
        self.servers[self.leader].say(ToPipeline::Committed { zxid, at_us: 0, synced: vec![] });
    }

    fn connect(&mut self, dice: &mut Rng) {
        let (at, id) = (dice.usize(..2), conn(self.next_conn));
        self.next_conn += 1;
        self.asked[at].insert(id, 0);
        if dice.usize(..2) == 0 && !self.sessions.is_empty() {
            let (session, password) = self.sessions[dice.usize(..self.sessions.len())].clone();
            self.servers[at].connect_with(id, session, password);
        } else {
            self.servers[at].connect(id);
        }
    }

    /// A client that was welcomed, perhaps closed since and not gone.
    fn somebody(&self, dice: &mut Rng) -> Option<(usize, ConnId)> {
        let at = dice.usize(..2);
        let is_there = |&(id, client): &(&ConnId, &Client)| client.session.is_some() && !self.gone.contains(&(at, *id));
        let there: Vec<ConnId> = self.servers[at].clients.iter().filter(is_there).map(|(id, _)| *id).collect();
        (!there.is_empty()).then(|| (at, there[dice.usize(..there.len())]))
    }

    fn ask(&mut self, dice: &mut Rng) {
        let Some((at, id)) = self.somebody(dice) else { return };
        *self.asked[at].get_mut(&id).unwrap() += 1;
        let xid = self.next_xid;
        self.next_xid += 1;
        let path = ["/a", "/b", "/a/b", "/c"][dice.usize(..4)];
        let (code, op) = match dice.usize(..20) {
            0..6 => (OpCode::Create, create(path, [0, 1, 3][dice.usize(..3)])),
            6..10 => (OpCode::Delete, Op::Write(WriteOp::Delete(Delete { path: path.into(), version: -1 }))),
            10..16 => (OpCode::Exists, exists(path, dice.usize(..2) == 0)),
            16..18 => (OpCode::Sync, Op::Read(ReadOp::Sync { path: Some(path.into()) })),
            18 => (OpCode::Ping, Op::Read(ReadOp::Ping)),
            _ => (OpCode::CloseSession, Op::CloseSession),
        };
        self.servers[at].ask(id, xid, code, op);
        let client = self.servers[at].client(id);
        if let (Some(session), true) = (client.session, client.bytes.len() >= 40) {
            self.sessions.push((session, client.bytes[24..40].to_vec()));
        }
    }

    fn act(&mut self, dice: &mut Rng) {
        match dice.usize(..100) {
            0..10 => self.connect(dice),
            10..50 => self.ask(dice),
            50..65 => {
                if let Some(mail) = self.up.pop_front() {
                    self.servers[self.leader].say(mail);
                }
            }
            65..80 => {
                if let Some(mail) = self.down.pop_front() {
                    self.learner().say(mail);
                }
            }
            80..90 => {
                let count = dice.usize(..5);
                self.commit(count);
            }
            90..93 => {
                if let Some((at, id)) = self.somebody(dice) {
                    self.gone.push((at, id));
                    self.servers[at].say(ToPipeline::Disconnected { conn: id });
                }
            }
            93..96 => {
                let ms = dice.usize(..2000) as i64;
                self.servers.iter_mut().for_each(|server| server.wait(ms));
            }
            96..98 => self.learner().say(ToPipeline::TellTouched),
            98 if dice.usize(..4) == 0 => {
                let leader = dice.usize(..2);
                self.elect(leader);
            }
            _ => {}
        }
        self.post();
    }

    fn settle(&mut self) {
        loop {
            self.post();
            if let Some(mail) = self.up.pop_front() {
                self.servers[self.leader].say(mail);
            } else if self.committed < self.servers[self.leader].log.len() {
                self.commit(usize::MAX / 2);
            } else if let Some(mail) = self.down.pop_front() {
                self.learner().say(mail);
            } else {
                return;
            }
        }
    }

    fn check(&self) {
        let [a, b] = &self.servers;
        assert_eq!(view(a.core.state()), view(b.core.state()));
        for (server, asked) in self.servers.iter().zip(&self.asked) {
            assert_eq!(server.core.state().digest_mismatches(), 0);
            assert!(!server.core.awaits_commit());
            for (id, client) in &server.clients {
                assert_eq!(client.answered, asked[id], "{id:?} {client:?}");
                let xids: Vec<i32> = client.replies().iter().map(|reply| reply.0).filter(|&xid| xid > 0).collect();
                assert!(xids.is_sorted(), "{id:?} is answered in order: {xids:?}");
            }
        }
        let watches: u64 = self.servers.iter().map(|server| server.core.watch_count()).sum();
        assert!(watches <= u64::from(self.next_conn) * 8);
    }
}

#[test]
fn whatever_happens_every_request_is_answered_once_and_both_servers_have_the_same() {
    for seed in 1..400 {
        let mut dice = Rng::with_seed(seed);
        let rules = Rules { local_sessions: seed % 3 == 0, local_sessions_upgrading: seed % 2 == 0, ..rules() };
        let mut ensemble = Ensemble::new(&rules);
        for _ in 0..600 {
            ensemble.act(&mut dice);
        }
        ensemble.settle();
        ensemble.check();
    }
}
