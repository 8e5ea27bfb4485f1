//! Checks what the pipeline has to say: log records, snapshot pieces, and what each client reads. Used by `trial`.

use rookeeper::admin::view::ServerView;
use rookeeper::codes::Code;
use rookeeper::ids::{SessionId, Zxid};
use rookeeper::mail::{Fate, LogRecord, Outgoing, ToSnapshot};
use rookeeper::ops::{AuthOp, Op, ReadOp, Request};
use rookeeper::records::perms;
use rookeeper::state::ChangeKind;
use rookeeper::state::acl::{self, AuthId};
use rookeeper::txn::Txn;

use super::answers::{self, Asker};
use super::frames::{self, Frame};
use super::requests::USERS;
use super::snapshots::Cut;
use super::world::{Standing, World, is_write};

fn event_type(kind: ChangeKind) -> i32 {
    match kind {
        ChangeKind::Created => 1,
        ChangeKind::Deleted => 2,
        ChangeKind::DataChanged => 3,
        ChangeKind::ChildrenChanged => 4,
    }
}

impl World {
    /// Takes what the pipeline has to say, and checks it.
    pub fn deliver(&mut self) {
        let outbox = self.pipeline.take_outbox();
        outbox.records.into_iter().for_each(|record| self.on_record(record));
        outbox.snapshot.into_iter().for_each(|mail| self.on_snapshot(mail));
        let mut items = Vec::new();
        let mut told: Vec<_> = outbox.poller.outgoing.iter().map(|outgoing| outgoing.conn).collect();
        told.sort_unstable();
        assert!(told.windows(2).all(|two| two[0] != two[1]), "at most one entry a connection");
        for outgoing in outbox.poller.outgoing {
            self.on_outgoing(outgoing, &mut items);
        }
        // In the order of history: each reply is checked by the model as of its zxid.
        items.sort_by_key(|item: &(Zxid, usize, Frame)| item.0);
        for (_, client, frame) in items {
            self.on_frame(client, frame);
        }
        self.advance_model(Zxid(i64::MAX));
        self.after_delivery();
    }

    fn after_delivery(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.standing == Standing::Established) {
            assert!(client.due.is_empty(), "{:?} did not hear of {:?}", client.id, client.due);
            assert!(client.caught_up.is_empty());
        }
        if self.clients.iter().all(|client| client.standing != Standing::Closed) {
            assert_eq!(self.pipeline.watch_count(), self.watchers.count() as u64);
        }
        let pending = self.pipeline.pending();
        if self.log.len() == self.committed {
            assert!(pending.is_empty(), "something is pending though nothing is in flight");
            assert_eq!(pending.digest(), self.pipeline.state().tree_digest());
        }
        assert_eq!(self.pipeline.state().last_zxid(), self.model.zxid);
        assert_eq!(self.pipeline.state().tree_digest(), self.model.digest());
    }

    fn on_record(&mut self, record: LogRecord) {
        let txn = Txn::from_bytes(&record.payload).expect("what is logged can be read");
        assert_eq!(txn.to_bytes(), record.payload);
        assert_eq!(record.zxid, txn.header.zxid);
        let last = self.log.last().map_or(Zxid::ZERO, |txn| txn.header.zxid);
        assert_eq!(record.zxid, last.next(), "no zxid is left out");
        self.log.push(txn);
    }

    fn on_snapshot(&mut self, mail: ToSnapshot) {
        let file = &mut self.snapshot;
        match mail {
            ToSnapshot::Begin { zxid } => {
                assert!(file.cut.is_none(), "one snapshot at a time");
                let cut = Cut::begin(self.pipeline.state());
                assert_eq!(zxid, cut.expected.zxid);
                file.cut = Some(cut);
            }
            ToSnapshot::Chunk(bytes) => {
                file.chunks_unwritten += 1;
                file.cut.as_mut().expect("it was begun").bytes.extend(bytes);
            }
            ToSnapshot::Finish { digest } => {
                let expected = &file.cut.as_ref().expect("it was begun").expected;
                assert_eq!(digest, self.rules.digest_enabled.then(|| expected.digest()));
                file.finished = true;
            }
        }
    }

    /// Counts the answers, and takes the frames apart.
    fn on_outgoing(&mut self, outgoing: Outgoing, items: &mut Vec<(Zxid, usize, Frame)>) {
        let at = outgoing.conn.slot as usize;
        let client = &mut self.clients[at];
        client.answered += outgoing.answered;
        client.is_full |= outgoing.tell_drained;
        assert!(client.answered <= client.sent, "{:?}: more answers than requests", client.id);
        if matches!(client.standing, Standing::Closed | Standing::Gone) {
            return;
        }
        let bytes = outgoing.bytes.into_vec();
        let mut contents = frames::split(&bytes);
        assert_eq!(contents.len(), outgoing.frames as usize, "frames are counted");
        if client.standing == Standing::Connecting && !contents.is_empty() {
            let welcome = frames::welcome(contents.remove(0));
            assert_eq!(welcome.read_only, client.sent_read_only_byte.then_some(false));
            self.on_welcome(at, &welcome, outgoing.fate);
        }
        let client = &mut self.clients[at];
        let mut key = Zxid::ZERO;
        for content in contents {
            let frame = frames::frame(content);
            let (Frame::Event { zxid, .. } | Frame::Reply { zxid, .. }) = frame;
            if zxid.0 > 0 {
                assert!(zxid >= key, "zxids rise on a connection");
                key = zxid;
            }
            items.push((key, at, frame));
        }
        if outgoing.fate == Fate::Close {
            client.standing = Standing::Closed;
        }
    }

    fn on_welcome(&mut self, at: usize, welcome: &frames::Welcome, fate: Fate) {
        let client = &mut self.clients[at];
        if welcome.session == 0 {
            assert_eq!((fate, welcome.timeout_ms), (Fate::Close, 0));
            client.standing = Standing::Closed;
            return;
        }
        client.session = SessionId(welcome.session);
        client.standing = Standing::Established;
        assert!((200..=2000).contains(&welcome.timeout_ms));
        if fate != Fate::Close {
            assert_eq!(fate, Fate::Established { session: client.session, timeout_ms: welcome.timeout_ms });
        }
        let known = (client.session, welcome.password.clone());
        if !self.sessions.contains(&known) {
            self.sessions.push(known);
        }
    }

    fn on_frame(&mut self, at: usize, frame: Frame) {
        match frame {
            Frame::Event { zxid, kind, path } if zxid.0 > 0 => {
                self.advance_model(zxid);
                let due = self.clients[at].due.pop_front();
                assert_eq!(Some((zxid, kind, path)), due, "{:?}", self.clients[at].id);
            }
            Frame::Event { zxid, kind, path } => {
                assert_eq!(zxid, Zxid(-1));
                self.clients[at].caught_up.push((kind, path));
            }
            Frame::Reply { xid, zxid, err, body } => {
                if zxid.0 > 0 {
                    self.advance_model(zxid);
                    assert!(self.clients[at].due.is_empty(), "events come before replies of a later zxid");
                }
                self.on_reply(at, xid, zxid, err, &body);
            }
        }
    }

    fn on_reply(&mut self, at: usize, xid: i32, zxid: Zxid, err: i32, body: &[u8]) {
        if let Some(request) = self.clients[at].urgent.take_if(|request| request.xid == xid) {
            assert_eq!(zxid, Zxid::ZERO);
            return self.on_auth_reply(at, &request, err);
        }
        let client = &mut self.clients[at];
        if [Code::SessionClosedRequireSaslAuth, Code::AuthFailed].iter().any(|code| code.value() == err) {
            client.asked.retain(|asked| asked.request.xid != xid);
            return;
        }
        let asked = client.asked.pop_front().expect("replies have requests");
        let Request { op, .. } = &asked.request;
        assert_eq!(xid, asked.request.xid, "replies come in the order of requests; waiting: {op:?}");
        if err == Code::ThrottledOp.value() {
            assert!(body.is_empty());
            return;
        }
        assert_eq!(zxid, if *op == Op::Read(ReadOp::Unknown) { Zxid(-1) } else { self.model.zxid });
        if is_write(op) {
            let txn = self.log.iter().find(|txn| txn.header.zxid == zxid).expect("it is logged");
            assert_eq!((txn.header.cxid, txn.header.client_id), (xid, client.session));
            return answers::check_write(op, txn, &self.outcomes, err, body);
        }
        let caught_up = std::mem::take(&mut client.caught_up);
        let mut asker = Asker {
            model: &self.model,
            watchers: &mut self.watchers,
            client: at,
            session: client.session,
            auth: &asked.auth,
            skip_acl: self.rules.skip_acl,
        };
        asker.check(op, err, body, caught_up);
    }

    fn on_auth_reply(&mut self, at: usize, request: &Request, err: i32) {
        let client = &mut self.clients[at];
        let Op::Auth(AuthOp::Scheme { scheme, credentials }) = &request.op else { return };
        let user = credentials.as_ref().and_then(|given| USERS.iter().find(|user| user.0.as_bytes() == given));
        let mut learned = Vec::new();
        match (scheme.as_deref(), user) {
            (Some("ip"), _) => {}
            (Some("digest"), Some((_, id))) if self.rules.digest_auth.is_some() => {
                if *id == USERS[0].1 {
                    learned.push(AuthId::superuser());
                }
                learned.push(AuthId::new("digest", *id));
            }
            _ => return assert_eq!(err, Code::AuthFailed.value()),
        }
        assert_eq!(err, 0);
        learned.retain(|who| !client.auth.contains(who));
        client.auth.extend(learned);
    }

    /// Applies committed transactions up to this one to model and follower, and notes who is to hear of them.
    pub fn advance_model(&mut self, to: Zxid) {
        let first = usize::try_from(self.model.zxid.0).expect("zxids count from 1");
        let count = self.log[first..self.committed].iter().take_while(|txn| txn.header.zxid <= to).count();
        for n in first..first + count {
            let txn = self.log[n].clone();
            let (events, outcomes) = self.model.apply(&txn);
            self.outcomes = outcomes;
            self.follower.replay(&txn);
            if let Some(digest) = txn.digest {
                assert_eq!(digest.tree_digest, self.model.digest(), "the digest logged with {txn:?}");
            }
            for event in events {
                for at in self.watchers.fire(event.kind, &event.path) {
                    let client = &mut self.clients[at];
                    if self.rules.skip_acl || acl::allows(&event.acl, perms::READ, &client.auth) {
                        client.due.push_back((txn.header.zxid, event_type(event.kind), event.path.clone()));
                    }
                }
            }
        }
        assert!(to.0 == i64::MAX || to == self.model.zxid, "{to} is not committed");
    }
}
