//! What a client of ZooKeeper may expect, told once more: a tree of plain maps, which takes the committed transactions as
//! the requests that they were, and says what each had to come to, and what each read has to find. Nothing of `state` or
//! `pipeline` is used; of a transaction only who asked, when, and what nobody asked for (ends of sessions, removals, lists
//! of members) is believed, and that only where it was allowed.
//!
//! | file | what |
//! |---|---|
//! | `tree` | the nodes, now and as of any transaction |
//! | `writes`, `reads` | what requests come to |
//! | `watches` | which events a connection is due |
//! | `acl`, `code`, `answer` | who may what; numbers of errors; what replies say |

pub mod acl;
pub mod answer;
pub mod code;
mod reads;
pub mod tree;
pub mod watches;
mod writes;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use rookeeper::ids::Zxid;
use rookeeper::ops::{Op, WriteOp};
use rookeeper::txn::{Txn, TxnBody};

use acl::Who;
use answer::{Answer, Part};
use code::Code;
use tree::{Kind, Moment, Owner, Tree};

/// A request on its way.
#[derive(Debug, Clone)]
pub struct Asked {
    pub op: Rc<Op>,
    pub who: Rc<Who>,
    /// Which of its client's connections it goes by.
    pub generation: u32,
}

/// What a write came to.
#[derive(Debug)]
struct Done {
    session: i64,
    cxid: i32,
    result: Result<Answer, Code>,
}

/// See the module.
#[derive(Debug)]
pub struct Model {
    tree: Tree,
    sessions: BTreeSet<i64>,
    /// Those that only one server knows. What was global once is not among them.
    locals: BTreeSet<i64>,
    ended: BTreeSet<i64>,
    asked: HashMap<(i64, i32), Asked>,
    done: HashMap<Zxid, Done>,
    /// The last connection of each session's client: what comes by an earlier one may be refused for that.
    moved: HashMap<i64, u32>,
    /// The last connection of each that its client left before it was greeted: its server may hear of it later than others
    /// of the ones behind it, and takes the session then.
    ungreeted: HashMap<i64, u32>,
}

/// Why something is wrong.
pub type Wrong = String;

impl Model {
    pub fn new() -> Model {
        Model {
            tree: Tree::new(),
            sessions: BTreeSet::new(),
            locals: BTreeSet::new(),
            ended: BTreeSet::new(),
            asked: HashMap::new(),
            done: HashMap::new(),
            moved: HashMap::new(),
            ungreeted: HashMap::new(),
        }
    }

    /// Nothing was committed yet, and what clients have asked for may still be.
    pub fn begin_again(self) -> Model {
        Model { asked: self.asked, moved: self.moved, ungreeted: self.ungreeted, ..Model::new() }
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// A client sends a write.
    pub fn on_asked(&mut self, session: i64, cxid: i32, asked: Asked) {
        self.asked.insert((session, cxid), asked);
    }

    /// A client has got this session: one that no transaction made is its server's alone.
    pub fn on_greeted(&mut self, session: i64) {
        if !self.sessions.contains(&session) && !self.ended.contains(&session) {
            self.locals.insert(session);
        }
    }

    pub fn is_local(&self, session: i64) -> bool {
        self.locals.contains(&session)
    }

    /// The client of a session goes to another connection.
    pub fn on_moving(&mut self, session: i64, generation: u32) {
        self.moved.insert(session, generation);
    }

    /// The client of a session left a connection before it was greeted.
    pub fn on_left_ungreeted(&mut self, session: i64, generation: u32) {
        self.ungreeted.insert(session, generation);
    }

    /// The next transaction is committed. `joins_unproven`: of two histories that may have been joined, where digests do not
    /// tell which sessions there are.
    pub fn on_committed(&mut self, txn: &Txn, joins_unproven: bool) -> Result<(), Wrong> {
        let (session, cxid) = (txn.header.client_id.0, txn.header.cxid);
        let at = Moment { zxid: txn.header.zxid, time_ms: txn.header.time_ms };
        let result = match &txn.body {
            TxnBody::CreateSession { .. } => {
                self.locals.remove(&session);
                self.sessions.insert(session);
                Ok(Answer::Nothing)
            }
            TxnBody::CloseSession { paths } => self.close_session(at, session, cxid, paths.as_deref())?,
            // No server does so by itself: it was there from the beginning.
            TxnBody::Create(create) if session == 0 => {
                let acl = Rc::from(create.acl.as_slice());
                self.tree.create(at, &create.path, create.data.as_deref(), acl, Owner::Nobody);
                Ok(Answer::Nothing)
            }
            TxnBody::Delete { path, container: true } => self.remove_by_server(at, path)?,
            TxnBody::Reconfig(set) => self.reconfigure(at, session, cxid, set.data.as_deref())?,
            TxnBody::Error(code) if joins_unproven && !self.sessions.contains(&session) => Err(*code),
            TxnBody::Error(code) => self.refuse(at, session, cxid, *code)?,
            body => {
                let mut result = self.carry_out(at, session, cxid)?;
                if let (Ok(Answer::Parts(parts)), TxnBody::Multi(subs), true) =
                    (&mut result, body, self.is_local(session))
                {
                    parts.iter_mut().zip(subs).for_each(|(part, sub)| adopt_refusal(&mut part.result, sub));
                }
                self.compare_outcome(&result, body)?;
                result
            }
        };
        self.tree.commit(at.zxid);
        self.done.insert(at.zxid, Done { session, cxid, result });
        Ok(())
    }

    fn asked(&self, session: i64, cxid: i32) -> Result<Asked, Wrong> {
        let asked = self.asked.get(&(session, cxid)).cloned();
        asked.ok_or_else(|| format!("nobody asked for it: request {cxid} of session {session:#x}"))
    }

    /// The tree takes what was asked.
    fn carry_out(&mut self, at: Moment, session: i64, cxid: i32) -> Result<Result<Answer, Code>, Wrong> {
        let Asked { op, who, .. } = self.asked(session, cxid)?;
        let mark = self.tree.mark();
        let result = if self.sessions.contains(&session) {
            writes::write(&mut self.tree, at, Some(session), &who, &op)
        } else if self.is_local(session) {
            writes::write(&mut self.tree, at, None, &who, &op)
        } else {
            Err(code::SESSION_EXPIRED)
        };
        if result.is_err() {
            self.tree.take_back(mark);
        }
        Ok(result)
    }

    /// The transaction of a write that was done, or of a multi that may have failed.
    fn compare_outcome(&self, result: &Result<Answer, Code>, body: &TxnBody) -> Result<(), Wrong> {
        let is_same = match (result, body) {
            (Err(_), _) => false,
            (Ok(Answer::Path(made) | Answer::PathStat(made, _)), TxnBody::Create(create)) => *made == create.path,
            (Ok(Answer::Parts(parts)), TxnBody::Multi(subs)) => {
                let is_failed = subs.iter().any(TxnBody::is_error);
                let agrees = |(part, sub): (&Part, &TxnBody)| match (&part.result, sub) {
                    (Err(code), TxnBody::Error(other)) => code == other,
                    (Err(code), _) => is_failed && *code == 0,
                    (Ok(_), TxnBody::Error(_)) => false,
                    (Ok(Answer::Path(made) | Answer::PathStat(made, _)), TxnBody::Create(create)) => {
                        !is_failed && *made == create.path
                    }
                    (Ok(_), _) => !is_failed,
                };
                parts.len() == subs.len() && parts.iter().zip(subs).all(agrees)
            }
            (Ok(_), TxnBody::Delete { .. } | TxnBody::SetData(_) | TxnBody::SetAcl(_)) => true,
            (Ok(_), _) => false,
        };
        if is_same { Ok(()) } else { Err(format!("it comes to {body:?}, and should to {result:?}")) }
    }

    /// Whether the client of this session goes by a later connection.
    fn has_moved_on(&self, session: i64, generation: u32) -> bool {
        self.moved.get(&session).is_some_and(|last| *last > generation)
    }

    fn refuse(&mut self, at: Moment, session: i64, cxid: i32, code: Code) -> Result<Result<Answer, Code>, Wrong> {
        if (cxid, code) == (0, code::SESSION_EXPIRED) && !self.sessions.contains(&session) {
            // A server wanted to end or to begin what had ended meanwhile.
            return Ok(Err(code));
        }
        let Asked { op, who, generation } = self.asked(session, cxid)?;
        let is_due = match code {
            // Where it came too late, or to the wrong place, does not follow from the tree.
            code::SESSION_EXPIRED if !self.is_local(session) => !self.sessions.contains(&session),
            // An observer's master knows that the session has moved on, and has the leader refuse it for want of a body.
            code::MARSHALLING_ERROR => self.has_moved_on(session, generation),
            code::SESSION_MOVED => {
                self.has_moved_on(session, generation)
                    || self.ungreeted.get(&session).is_some_and(|last| *last < generation)
            }
            code::THROTTLED_OP => true,
            _ if matches!(*op, Op::Write(WriteOp::Reconfig(_))) => {
                matches!(code, code::RECONFIG_IN_PROGRESS | code::NEW_CONFIG_NO_QUORUM | code::BAD_ARGUMENTS)
                    || code == code::NO_AUTH && !who.skips_acl && !who.is_super()
            }
            _ => {
                let mut expected = self.carry_out(at, session, cxid)?;
                adopt_refusal(&mut expected, &TxnBody::Error(code));
                if expected != Err(code) {
                    return Err(format!("{op:?} fails with {code}, and should come to {expected:?}"));
                }
                true
            }
        };
        if is_due { Ok(Err(code)) } else { Err(format!("{op:?} fails with {code} without a reason")) }
    }

    /// At its client's wish, or because its time is up: all that is its own goes with it.
    fn close_session(
        &mut self,
        at: Moment,
        session: i64,
        cxid: i32,
        paths: Option<&[String]>,
    ) -> Result<Result<Answer, Code>, Wrong> {
        if cxid != 0 && *self.asked(session, cxid)?.op != Op::CloseSession {
            return Err(format!("request {cxid} of session {session:#x} did not ask for its end"));
        }
        self.sessions.remove(&session);
        self.ended.insert(session);
        let own = self.tree.ephemerals_of(session);
        let listed = paths.unwrap_or_default();
        let is_same = listed.len() == own.len() && listed.iter().all(|path| own.contains(path));
        if paths.is_some() && !is_same {
            return Err(format!("it ends session {session:#x} with {listed:?}, whose ephemerals are {own:?}"));
        }
        // Watchers hear of them in the order of the list.
        let own: Vec<String> = if paths.is_some() { listed.to_vec() } else { own.into_iter().collect() };
        own.iter().for_each(|path| self.tree.delete(at, path));
        Ok(Ok(Answer::Nothing))
    }

    /// Containers that had children and have none, and TTL nodes without children that nobody changed for their time.
    fn remove_by_server(&mut self, at: Moment, path: &str) -> Result<Result<Answer, Code>, Wrong> {
        let Some(node) = self.tree.get(path) else { return Err(format!("{path} is removed, and not there")) };
        let may_go = match node.owner {
            Owner::Container => node.made > 0,
            Owner::Ttl(ttl_ms) => at.time_ms - node.modified_ms > ttl_ms,
            Owner::Nobody | Owner::Session(_) => false,
        };
        if !may_go || !node.children.is_empty() {
            return Err(format!("the server removes {path} at {} ms, which is {node:?}", at.time_ms));
        }
        self.tree.delete(at, path);
        Ok(Ok(Answer::Nothing))
    }

    fn reconfigure(
        &mut self,
        at: Moment,
        session: i64,
        cxid: i32,
        config: Option<&[u8]>,
    ) -> Result<Result<Answer, Code>, Wrong> {
        if session == 0 {
            // It was there from the beginning.
            self.tree.set_data(at, tree::CONFIG, config, -1);
            return Ok(Ok(Answer::Nothing));
        }
        let Asked { op, who, .. } = self.asked(session, cxid)?;
        if !matches!(*op, Op::Write(WriteOp::Reconfig(_))) || !(who.skips_acl || who.is_super()) {
            return Err(format!("request {cxid} of session {session:#x} may not change the list of members"));
        }
        self.tree.set_data(at, tree::CONFIG, config, -1);
        Ok(Ok(Answer::Config(config.map(<[u8]>::to_vec))))
    }

    // What clients are told.

    /// A write was answered with the zxid of its transaction.
    pub fn check_write(
        &self,
        session: i64,
        cxid: i32,
        zxid: Zxid,
        op: &Op,
        (err, body): (Code, &[u8]),
    ) -> Result<(), Wrong> {
        let Some(done) = self.done.get(&zxid) else {
            return Err(format!("request {cxid} of session {session:#x} is answered {err} at {zxid}: not committed"));
        };
        if (done.session, done.cxid) != (session, cxid) {
            return Err(format!(
                "request {cxid} of session {session:#x} is answered {err} at {zxid}, which is request {} of session {:#x}",
                done.cxid, done.session
            ));
        }
        if self.is_local(session)
            && is_local_refusal(err)
            && done.result.as_ref().is_err_and(|code| is_local_refusal(*code))
        {
            return Ok(());
        }
        self.compare(op, &done.result, err, body).map_err(|wrong| format!("at {zxid} session {session:#x}: {wrong}"))
    }

    /// A read was answered as of `zxid`. What is about the connection's watches is not looked at here.
    pub fn check_read(
        &self,
        session: i64,
        who: &Who,
        zxid: Zxid,
        op: &Op,
        (err, body): (Code, &[u8]),
    ) -> Result<(), Wrong> {
        let Some(expected) = reads::read(&self.tree, zxid, session, who, op) else { return Ok(()) };
        self.compare(op, &expected, err, body).map_err(|wrong| format!("at {zxid} session {session:#x}: {wrong}"))
    }

    fn compare(&self, op: &Op, expected: &Result<Answer, Code>, err: Code, body: &[u8]) -> Result<(), Wrong> {
        let found = if err == 0 {
            let answer = answer::read(op, body);
            Ok(answer.ok_or_else(|| format!("the answer to {op:?} is none: {body:?}"))?)
        } else {
            Err(err)
        };
        if found == *expected {
            return Ok(());
        }
        Err(format!("{op:?} is answered {found:?}, and should be {expected:?}"))
    }

    /// For what connections are due.
    fn node_zxids(&self, path: &str, zxid: Zxid) -> Option<(Zxid, Zxid)> {
        self.tree.as_of(path, zxid).map(|node| (node.modified, node.child_changed))
    }
}

/// A leader does not know the local sessions of others, and takes them for expired: what they may not own is refused by
/// either number.
fn is_local_refusal(code: Code) -> bool {
    matches!(code, code::SESSION_EXPIRED | code::EPHEMERAL_ON_LOCAL_SESSION)
}

fn adopt_refusal(result: &mut Result<Answer, Code>, body: &TxnBody) {
    if let (Err(expected), TxnBody::Error(code)) = (result, body)
        && *expected == code::EPHEMERAL_ON_LOCAL_SESSION
        && is_local_refusal(*code)
    {
        *expected = *code;
    }
}

impl Kind {
    pub fn number(self) -> i32 {
        self as i32
    }
}
