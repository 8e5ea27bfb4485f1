//! What each reply must be, given the naive model at the zxid of the reply. Used by `trial`.

use rookeeper::codes::Code;
use rookeeper::ids::SessionId;
use rookeeper::jute::Reader;
use rookeeper::ops::{MultiOp, MultiReadOp, Op, OpCode, PathWatch, ReadOp, SetAcl, SetData, SetWatches, WriteOp};
use rookeeper::records::{Stat, perms};
use rookeeper::state::acl::{self, AuthId};
use rookeeper::txn::{CreateTxn, Txn, TxnBody};

use super::frames;
use super::model::{Model, Node, Outcome, is_usage, shown};
use super::watchers::{Kind, Watchers};

/// An event of setWatches: type and path.
pub type CatchUp = (i32, String);

/// Who asks, and what there is to know.
pub struct Asker<'a> {
    pub model: &'a Model,
    pub watchers: &'a mut Watchers,
    pub client: usize,
    pub session: SessionId,
    pub auth: &'a [AuthId],
    pub skip_acl: bool,
}

impl Asker<'_> {
    fn readable(&self, path: &str, wanted: i32) -> Result<&Node, Code> {
        let node = self.model.node(path).ok_or(Code::NoNode)?;
        if self.skip_acl || acl::allows(&node.acl, wanted, self.auth) { Ok(node) } else { Err(Code::NoAuth) }
    }

    /// Checks the reply to a read: the code it must have, then the body. `caught_up`: the events just before it.
    pub fn check(&mut self, op: &Op, err: i32, body: &[u8], caught_up: Vec<CatchUp>) {
        let mut r = Reader::new(body);
        let expected = match op {
            Op::Read(ReadOp::SetWatches(watches)) => {
                assert_eq!(caught_up, self.set_watches(watches));
                Ok(())
            }
            _ => {
                assert_eq!(caught_up, [], "only setWatches catches up");
                self.expected(op)
            }
        };
        let code = expected.err().map_or(0, Code::value);
        assert_eq!(err, code, "{op:?} by {:?}", self.auth);
        if err == 0 {
            self.check_body(op, &mut r);
        }
        assert!(r.is_empty(), "bytes behind the reply to {op:?}");
        if err == 0 || (matches!(op, Op::Read(ReadOp::Exists(_))) && err == Code::NoNode.value()) {
            self.leave_watches(op);
        }
    }

    fn expected(&self, op: &Op) -> Result<(), Code> {
        match op {
            Op::Read(ReadOp::Exists(PathWatch { path, .. })) if path.contains('\0') => Err(Code::BadArguments),
            Op::Read(
                ReadOp::Exists(PathWatch { path, .. })
                | ReadOp::GetData(PathWatch { path, .. })
                | ReadOp::GetChildren { target: PathWatch { path, .. }, .. }
                | ReadOp::GetAllChildrenNumber { path },
            ) => self.readable(path, perms::READ).map(|_| ()),
            Op::Read(ReadOp::GetAcl { path }) => self.readable(path, perms::READ | perms::ADMIN).map(|_| ()),
            Op::Read(ReadOp::CheckWatches(which) | ReadOp::RemoveWatches(which)) => {
                let has = self.watchers.has(self.client, &which.path, which.kind);
                if has { Ok(()) } else { Err(Code::NoWatcher) }
            }
            Op::Read(ReadOp::Malformed) => Err(Code::MarshallingError),
            Op::Read(ReadOp::Unknown) => Err(Code::Unimplemented),
            _ => Ok(()),
        }
    }

    fn check_body(&self, op: &Op, r: &mut Reader<'_>) {
        match op {
            Op::Read(ReadOp::Exists(target)) => self.model.check_stat(&target.path, &frames::stat(r)),
            Op::Read(ReadOp::GetData(target)) => self.check_data(&target.path, r),
            Op::Read(ReadOp::GetChildren { target, with_stat }) => {
                self.check_children(&target.path, r);
                if *with_stat {
                    self.model.check_stat(&target.path, &frames::stat(r));
                }
            }
            Op::Read(ReadOp::GetAcl { path }) => {
                let stored = &self.model.node(path).expect("it can be read").acl;
                let may_see = self.readable(path, perms::ADMIN).is_ok();
                assert_eq!(frames::acl(r), if may_see { stored.clone() } else { acl::redacted(stored) });
                self.model.check_stat(path, &frames::stat(r));
            }
            Op::Read(ReadOp::GetAllChildrenNumber { path }) => {
                assert_eq!(r.int().ok(), i32::try_from(self.model.below(path).count()).ok());
            }
            Op::Read(ReadOp::MultiRead(ops)) => ops.iter().for_each(|op| self.check_multi_read(op, r)),
            Op::Read(ReadOp::Sync { path }) => assert_eq!(r.string().expect("a path").as_deref(), path.as_deref()),
            Op::Read(ReadOp::GetEphemerals { prefix }) => {
                let prefix = prefix.as_deref().filter(|p| !p.trim().is_empty() && *p != "/").unwrap_or_default();
                let mut owned = self.model.owned_by(self.session);
                owned.retain(|path| path.starts_with(prefix));
                assert_eq!(frames::strings(r), owned);
            }
            Op::Read(ReadOp::WhoAmI) => assert_eq!(r.int().map(i64::from), Ok(self.auth.len() as i64)),
            Op::Read(ReadOp::AddWatch { .. }) => assert_eq!(r.int(), Ok(0)),
            _ => {}
        }
        match op {
            Op::Read(ReadOp::MultiRead(_)) => assert_eq!(frames::multi_header(r), (-1, true, -1)),
            Op::Read(ReadOp::WhoAmI) => self.auth.iter().for_each(|who| {
                let user = if who.scheme == "digest" { who.id.split(':').next().unwrap_or_default() } else { &who.id };
                assert_eq!((frames::string(r), frames::string(r)), (who.scheme.clone(), user.to_owned()));
            }),
            _ => {}
        }
    }

    fn check_data(&self, path: &str, r: &mut Reader<'_>) {
        let (data, stat) = (frames::data(r), frames::stat(r));
        if !is_usage(path) {
            assert_eq!(data, self.model.node(path).expect("it can be read").data);
        }
        self.model.check_stat(path, &stat);
    }

    fn check_children(&self, path: &str, r: &mut Reader<'_>) {
        let mut names: Vec<&str> = self.model.children(path).collect();
        names.sort_unstable();
        assert_eq!(frames::strings(r), names);
    }

    fn check_multi_read(&self, op: &MultiReadOp, r: &mut Reader<'_>) {
        let (MultiReadOp::GetData { path } | MultiReadOp::GetChildren { path }) = op;
        let header = frames::multi_header(r);
        match (self.readable(path, perms::READ), op) {
            (Err(code), _) => {
                assert_eq!(header, (-1, false, code.value()));
                assert_eq!(r.int(), Ok(code.value()));
            }
            (Ok(_), MultiReadOp::GetData { .. }) => {
                assert_eq!(header, (OpCode::GetData as i32, false, 0));
                self.check_data(path, r);
            }
            (Ok(_), MultiReadOp::GetChildren { .. }) => {
                assert_eq!(header, (OpCode::GetChildren as i32, false, 0));
                self.check_children(path, r);
            }
        }
    }

    fn leave_watches(&mut self, op: &Op) {
        let client = self.client;
        match op {
            Op::Read(
                ReadOp::Exists(PathWatch { path, watch: true }) | ReadOp::GetData(PathWatch { path, watch: true }),
            ) => {
                self.watchers.add(client, path, Kind::Data);
            }
            Op::Read(ReadOp::GetChildren { target: PathWatch { path, watch: true }, .. }) => {
                self.watchers.add(client, path, Kind::Child);
            }
            Op::Read(ReadOp::AddWatch { path, recursive }) => {
                self.watchers.add(client, path, if *recursive { Kind::Recursive } else { Kind::Persistent });
            }
            Op::Read(ReadOp::RemoveWatches(which)) => self.watchers.remove(client, &which.path, which.kind),
            _ => {}
        }
    }

    /// Leaves the watches, or gives what happened meanwhile.
    fn set_watches(&mut self, watches: &SetWatches) -> Vec<CatchUp> {
        let mut missed = Vec::new();
        for path in &watches.data {
            match self.model.node(path) {
                None => missed.push((2, path.clone())),
                Some(node) if node.stat.mzxid > watches.relative_zxid => missed.push((3, path.clone())),
                Some(_) => self.watchers.add(self.client, path, Kind::Data),
            }
        }
        for path in &watches.exist {
            match self.model.node(path) {
                Some(_) => missed.push((1, path.clone())),
                None => self.watchers.add(self.client, path, Kind::Data),
            }
        }
        for path in &watches.child {
            match self.model.node(path) {
                None => missed.push((2, path.clone())),
                Some(node) if node.stat.pzxid > watches.relative_zxid => missed.push((4, path.clone())),
                Some(_) => self.watchers.add(self.client, path, Kind::Child),
            }
        }
        watches.persistent.iter().for_each(|path| self.watchers.add(self.client, path, Kind::Persistent));
        watches.persistent_recursive.iter().for_each(|path| self.watchers.add(self.client, path, Kind::Recursive));
        missed
    }
}

/// Checks the reply to a write by what was logged for it and what that came to.
pub fn check_write(op: &Op, txn: &Txn, outcomes: &[Outcome], err: i32, body: &[u8]) {
    let mut r = Reader::new(body);
    match (op, &txn.body) {
        (Op::Write(WriteOp::Multi(ops)), TxnBody::Multi(subs)) => {
            assert_eq!(err, 0);
            assert_eq!((ops.len(), subs.len()), (outcomes.len(), outcomes.len()));
            for ((op, sub), outcome) in ops.iter().zip(subs).zip(outcomes) {
                check_part(op, sub, outcome, &mut r);
            }
            assert_eq!(frames::multi_header(&mut r), (-1, true, -1));
        }
        (_, TxnBody::Error(code)) => assert_eq!(err, *code),
        (Op::Write(WriteOp::Create(create)), TxnBody::Create(made)) => {
            assert_eq!((err, frames::string(&mut r)), (0, made.path.clone()));
            if create.code != OpCode::Create {
                check_outcome(&made.path, &frames::stat(&mut r), &outcomes[0]);
            }
        }
        (Op::Write(WriteOp::SetData(SetData { path, .. })), TxnBody::SetData(_))
        | (Op::Write(WriteOp::SetAcl(SetAcl { path, .. })), TxnBody::SetAcl(_)) => {
            assert_eq!(err, 0);
            check_outcome(path, &frames::stat(&mut r), &outcomes[0]);
        }
        (Op::Write(WriteOp::Delete(_)), TxnBody::Delete { .. }) | (Op::CloseSession, TxnBody::CloseSession { .. }) => {
            assert_eq!(err, 0);
        }
        (op, body) => panic!("{op:?} became {body:?}"),
    }
    assert!(r.is_empty(), "bytes behind the reply to {op:?}");
}

fn check_part(op: &MultiOp, sub: &TxnBody, outcome: &Outcome, r: &mut Reader<'_>) {
    let (kind, done, err) = frames::multi_header(r);
    assert!(!done);
    if let Err(code) = outcome {
        assert_eq!((kind, err, r.int()), (-1, *code, Ok(*code)));
        return;
    }
    assert_eq!(err, 0);
    if let TxnBody::Create(made) = sub {
        assert_eq!(frames::string(r), made.path);
    }
    match (op, sub) {
        (MultiOp::Create(create), _) if create.code == OpCode::Create => assert_eq!(kind, 1),
        (MultiOp::Create(_), TxnBody::Create(CreateTxn { path, .. })) => {
            assert_eq!(kind, 15);
            check_outcome(path, &frames::stat(r), outcome);
        }
        (MultiOp::SetData(SetData { path, .. }), _) => {
            assert_eq!(kind, 5);
            check_outcome(path, &frames::stat(r), outcome);
        }
        (MultiOp::Delete(_), _) => assert_eq!(kind, 2),
        (MultiOp::Check { .. }, _) => assert_eq!(kind, 13),
        (MultiOp::Create(_), other) => panic!("a create became {other:?}"),
    }
}

/// The stat that a write gives is that of the node just then.
fn check_outcome(path: &str, stat: &Stat, outcome: &Outcome) {
    assert_eq!(Ok(Some(shown(path, stat))), outcome.map(|stat| stat.map(|stat| shown(path, &stat))), "{path}");
}
