//! What clients ask for, drawn: everything that their protocol has, right and wrong, of few nodes, so that they meet.

use rookeeper::ops::{
    AuthOp, Create, Delete, MultiOp, MultiReadOp, Op, OpCode, PathWatch, ReadOp, Reconfig, SetAcl, SetData,
    WatchSelection, WatcherType, WriteOp,
};
use rookeeper::records::Acl;

use crate::model::acl::{SUPER, USERS, User};
use crate::model::tree::CONFIG;
use crate::random::Random;
use crate::world::World;

/// Nodes that everybody writes.
const SHARED: u64 = 5;
/// Ephemerals of each client.
const OWN: u64 = 3;

/// The number of an operation.
pub fn code_of(op: &Op) -> OpCode {
    match op {
        Op::Write(WriteOp::Create(create)) => create.code,
        Op::Write(WriteOp::Delete(_)) => OpCode::Delete,
        Op::Write(WriteOp::SetData(_)) => OpCode::SetData,
        Op::Write(WriteOp::SetAcl(_)) => OpCode::SetAcl,
        Op::Write(WriteOp::Multi(_)) => OpCode::Multi,
        Op::Write(WriteOp::Reconfig(_)) => OpCode::Reconfig,
        Op::CloseSession => OpCode::CloseSession,
        Op::Read(ReadOp::Exists(_)) => OpCode::Exists,
        Op::Read(ReadOp::GetData(_)) => OpCode::GetData,
        Op::Read(ReadOp::GetAcl { .. }) => OpCode::GetAcl,
        Op::Read(ReadOp::GetChildren { with_stat: false, .. }) => OpCode::GetChildren,
        Op::Read(ReadOp::GetChildren { with_stat: true, .. }) => OpCode::GetChildren2,
        Op::Read(ReadOp::MultiRead(_)) => OpCode::MultiRead,
        Op::Read(ReadOp::Sync { .. }) => OpCode::Sync,
        Op::Read(ReadOp::Ping) => OpCode::Ping,
        Op::Read(ReadOp::CheckWatches(_)) => OpCode::CheckWatches,
        Op::Read(ReadOp::RemoveWatches(_)) => OpCode::RemoveWatches,
        Op::Auth(AuthOp::Scheme { .. }) => OpCode::Auth,
        Op::Read(ReadOp::SetWatches(watches))
            if watches.persistent.is_empty() && watches.persistent_recursive.is_empty() =>
        {
            OpCode::SetWatches
        }
        Op::Read(ReadOp::SetWatches(_)) => OpCode::SetWatches2,
        Op::Auth(AuthOp::Sasl { .. }) => OpCode::Sasl,
        Op::Read(ReadOp::GetEphemerals { .. }) => OpCode::GetEphemerals,
        Op::Read(ReadOp::GetAllChildrenNumber { .. }) => OpCode::GetAllChildrenNumber,
        Op::Read(ReadOp::AddWatch { .. }) => OpCode::AddWatch,
        Op::Read(ReadOp::WhoAmI) => OpCode::WhoAmI,
        // Nobody here sends what cannot be decoded.
        Op::Write(WriteOp::Malformed) | Op::Read(ReadOp::Malformed | ReadOp::Unknown) | Op::Auth(AuthOp::Malformed) => {
            OpCode::Check
        }
    }
}

/// Whether it takes a transaction.
pub fn is_write(op: &Op) -> bool {
    matches!(op, Op::Write(_) | Op::CloseSession)
}

/// Who a client says it is: some say nothing. One of them is the superuser, where others may not reconfigure.
pub fn users_of(random: &mut Random, c: usize, has_super: bool) -> Vec<&'static User> {
    if has_super && c == 1 {
        return vec![&SUPER];
    }
    USERS.iter().filter(|_| random.one_in(2)).collect()
}

impl World {
    /// What this client asks for next; often nothing but what it was told.
    pub fn draw_request(&mut self, c: usize) -> Option<Op> {
        Some(match self.random.below(100) {
            0..18 => Op::Write(WriteOp::SetData(self.draw_set(c))),
            18..26 => Op::Write(WriteOp::Create(self.draw_create(c))),
            26..34 => Op::Write(WriteOp::Create(self.draw_ephemeral(c))),
            34..38 => Op::Write(WriteOp::Create(self.draw_special(c))),
            38..46 => Op::Write(WriteOp::Delete(self.draw_delete(c))),
            46..54 => Op::Write(WriteOp::Multi(self.draw_multi(c))),
            54..57 => Op::Write(WriteOp::SetAcl(self.draw_set_acl(c))),
            57..59 => self.draw_odd(c),
            59 => self.draw_quota(),
            60..80 => self.draw_read(c),
            80..86 => self.draw_watch(c),
            86 if self.options.reconfigures && self.now_us < self.options.faults_until_us => self.draw_members(),
            86..99 => Op::Read(ReadOp::Sync { path: Some("/".to_owned()) }),
            _ if self.random.one_in(3) => Op::CloseSession,
            _ => return None,
        })
    }

    fn draw_shared(&mut self) -> String {
        format!("/k{}", self.random.below(SHARED))
    }

    fn draw_own(&mut self, c: usize) -> String {
        format!("/e{c}-{}", self.random.below(OWN))
    }

    /// A node that is there, below a shared one if there is one.
    fn draw_child(&mut self) -> String {
        let parent = self.draw_shared();
        let children = self.check.model.tree().get(&parent).map(|node| node.children.clone());
        match children.filter(|children| !children.is_empty()) {
            None => format!("{parent}/a"),
            Some(children) => {
                let at = self.random.index(children.len());
                let name = children.iter().nth(at).map_or("a", String::as_str);
                format!("{parent}/{name}")
            }
        }
    }

    fn draw_path(&mut self, c: usize) -> String {
        match self.random.below(10) {
            0..5 => self.draw_shared(),
            5..7 => self.draw_own(c),
            7 => format!("/c{}", self.random.below(2)),
            _ => self.draw_child(),
        }
    }

    fn draw_data(&mut self, c: usize) -> Option<Vec<u8>> {
        let value = self.clients[c].next_value();
        if self.random.one_in(12) { None } else { Some(format!("{c}.{value}").into_bytes()) }
    }

    /// Any, the one that is there, or another one.
    fn draw_version(&mut self, path: &str) -> i32 {
        match self.random.below(8) {
            0 => self.check.model.tree().get(path).map_or(0, |node| node.version),
            1 => self.random.below(3) as i32,
            _ => -1,
        }
    }

    fn draw_acl(&mut self) -> Vec<Acl> {
        // Few lists shut anybody out, for somebody must go on writing.
        let user = &USERS[self.random.index(USERS.len())];
        match self.random.below(60) {
            0 => vec![Acl::new(31, "auth", "")],
            1 => vec![Acl::new(31, "digest", user.id), Acl::new(1, "world", "anyone")],
            2 => vec![Acl::new(1 | 2 | 4, "world", "anyone"), Acl::new(31, "digest", user.id)],
            3 => vec![Acl::new(31, "ip", "127.0.0.0/8"), Acl::new(31, "ip", "127.0.0.0/8")],
            4 => vec![Acl::new(30, "world", "anyone"), Acl::new(1, "auth", "")],
            5 => vec![Acl::new(31, "ip", "10.0.0.1"), Acl::new(31, "digest", user.id)],
            _ => Acl::open(),
        }
    }

    fn create(&mut self, c: usize, code: OpCode, path: String, flags: i32) -> Create {
        let (data, acl) = (self.draw_data(c), Some(self.draw_acl()));
        Create { code, path, data, acl, flags, ttl_ms: -1 }
    }

    fn draw_set(&mut self, c: usize) -> SetData {
        let path = if self.random.one_in(6) { self.draw_path(c) } else { self.draw_shared() };
        let (data, version) = (self.draw_data(c), self.draw_version(&path));
        SetData { path, data, version }
    }

    fn draw_create(&mut self, c: usize) -> Create {
        let path = match self.random.below(6) {
            0 => format!("{}/{}", self.draw_shared(), ["a", "b", "c"][self.random.index(3)]),
            1 => format!("{}/a", self.draw_path(c)),
            _ => self.draw_shared(),
        };
        let code = if self.random.one_in(3) { OpCode::Create2 } else { OpCode::Create };
        self.create(c, code, path, 0)
    }

    fn draw_ephemeral(&mut self, c: usize) -> Create {
        if self.random.one_in(4) {
            let path = format!("{}/q-", self.draw_shared());
            return self.create(c, OpCode::Create, path, 3);
        }
        let path = self.draw_own(c);
        self.create(c, OpCode::Create, path, 1)
    }

    /// Sequential nodes, containers and what is in them, nodes with a time to live.
    fn draw_special(&mut self, c: usize) -> Create {
        let n = self.random.below(2);
        match self.random.below(4) {
            0 => {
                let path = format!("{}/s", self.draw_shared());
                self.create(c, OpCode::Create2, path, 2)
            }
            1 => self.create(c, OpCode::CreateContainer, format!("/c{n}"), 4),
            2 => self.create(c, OpCode::Create, format!("/c{n}/x"), 0),
            _ => {
                let ttl_ms = self.random.scaled(1, 3000) as i64;
                Create { ttl_ms, ..self.create(c, OpCode::CreateTtl, format!("/t{n}"), 5) }
            }
        }
    }

    fn draw_delete(&mut self, c: usize) -> Delete {
        let path = match self.random.below(8) {
            0 => self.draw_shared(),
            1 | 2 => self.draw_own(c),
            3 => format!("/c{}/x", self.random.below(2)),
            4..7 => self.draw_child(),
            _ => self.draw_path(c),
        };
        let version = self.draw_version(&path);
        Delete { path, version }
    }

    fn draw_multi(&mut self, c: usize) -> Vec<MultiOp> {
        let mut ops = Vec::new();
        for _ in 0..self.random.between(1, 4) {
            ops.push(match self.random.below(10) {
                0..5 => {
                    let path = self.draw_shared();
                    MultiOp::SetData(SetData { path, data: self.draw_data(c), version: -1 })
                }
                5 | 6 => MultiOp::Create(self.draw_create(c)),
                7 => MultiOp::Create(if self.random.one_in(2) { self.draw_special(c) } else { self.draw_ephemeral(c) }),
                8 => MultiOp::Delete(self.draw_delete(c)),
                _ => {
                    let path = self.draw_shared();
                    let version = self.draw_version(&path);
                    MultiOp::Check { path, version }
                }
            });
        }
        ops
    }

    fn draw_set_acl(&mut self, c: usize) -> SetAcl {
        let path = self.draw_path(c);
        let version = match self.random.below(4) {
            0 => self.random.below(3) as i32,
            _ => -1,
        };
        SetAcl { path, acl: Some(self.draw_acl()), version }
    }

    /// What is wrong by itself.
    fn draw_odd(&mut self, c: usize) -> Op {
        let path = self.draw_shared();
        let set = |path: String| Op::Write(WriteOp::SetData(SetData { path, data: None, version: -1 }));
        match self.random.below(10) {
            0 => set(format!("{path}/")),
            1 => set(path[1..].to_owned()),
            2 => Op::Write(WriteOp::Create(self.create(c, OpCode::Create, format!("{path}/../x"), 0))),
            3 => Op::Write(WriteOp::Create(self.create(c, OpCode::Create, format!("{path}/"), 0))),
            4 => Op::Write(WriteOp::Create(self.create(c, OpCode::Create2, path, 7))),
            5 => Op::Write(WriteOp::Create(self.create(c, OpCode::CreateTtl, path, 5))),
            6 => {
                Op::Write(WriteOp::Create(Create { acl: Some(Vec::new()), ..self.create(c, OpCode::Create, path, 0) }))
            }
            7 => Op::Write(WriteOp::SetAcl(SetAcl { path, acl: Some(vec![Acl::new(31, "nobody", "x")]), version: -1 })),
            8 => Op::Write(WriteOp::Delete(Delete { path: "/zookeeper/quota".to_owned(), version: -1 })),
            _ => Op::Write(WriteOp::Create(self.create(c, OpCode::Create, "/".to_owned(), 0))),
        }
    }

    /// A shared node gets limits, or loses them.
    fn draw_quota(&mut self) -> Op {
        let at = format!("/zookeeper/quota{}", self.draw_shared());
        let paths = [at.clone(), format!("{at}/zookeeper_limits"), format!("{at}/zookeeper_stats")];
        if self.check.model.tree().get(&at).is_some() {
            let delete = |path: &String| MultiOp::Delete(Delete { path: path.clone(), version: -1 });
            return Op::Write(WriteOp::Multi(paths.iter().rev().map(delete).collect()));
        }
        let create = |path: &String| {
            let text = if path.ends_with("limits") { "count=3,bytes=30" } else { "count=0,bytes=0" };
            MultiOp::Create(Create {
                code: OpCode::Create,
                path: path.clone(),
                data: Some(text.into()),
                acl: Some(Acl::open()),
                flags: 0,
                ttl_ms: -1,
            })
        };
        Op::Write(WriteOp::Multi(paths.iter().map(create).collect()))
    }

    pub fn draw_read(&mut self, c: usize) -> Op {
        let path = if self.random.one_in(12) { "/".to_owned() } else { self.draw_path(c) };
        let target = PathWatch { path: path.clone(), watch: self.random.one_in(3) };
        match self.random.below(20) {
            0..8 => Op::Read(ReadOp::GetData(target)),
            8..11 => Op::Read(ReadOp::Exists(target)),
            11..14 => Op::Read(ReadOp::GetChildren { target, with_stat: self.random.one_in(2) }),
            14 => Op::Read(ReadOp::GetAcl { path }),
            15 => Op::Read(ReadOp::GetAllChildrenNumber { path }),
            16 => Op::Read(ReadOp::GetEphemerals { prefix: Some(format!("/e{c}")).filter(|_| self.random.one_in(2)) }),
            17 => {
                let other = self.draw_child();
                Op::Read(ReadOp::MultiRead(vec![
                    MultiReadOp::GetData { path },
                    MultiReadOp::GetChildren { path: other },
                ]))
            }
            18 => {
                let subject = self.draw_shared();
                Op::Read(ReadOp::GetData(PathWatch {
                    path: format!("/zookeeper/quota{subject}/zookeeper_stats"),
                    ..target
                }))
            }
            _ if self.random.one_in(2) => Op::Read(ReadOp::WhoAmI),
            _ => Op::Read(ReadOp::GetData(PathWatch { path: CONFIG.to_owned(), watch: true })),
        }
    }

    fn draw_watch(&mut self, c: usize) -> Op {
        let path = if self.random.one_in(8) { "/".to_owned() } else { self.draw_path(c) };
        let kinds = [
            WatcherType::Children,
            WatcherType::Data,
            WatcherType::Any,
            WatcherType::Persistent,
            WatcherType::PersistentRecursive,
        ];
        let kind = *self.random.pick(&kinds);
        match self.random.below(4) {
            0 | 1 => Op::Read(ReadOp::AddWatch { path, recursive: self.random.one_in(2) }),
            2 => Op::Read(ReadOp::RemoveWatches(WatchSelection { path, kind })),
            _ => Op::Read(ReadOp::CheckWatches(WatchSelection { path, kind })),
        }
    }

    /// Any server may vote, observe, or not belong. One of them moves between its ports: where all others have moved
    /// meanwhile, a server that was down for long knows nobody any more.
    fn draw_members(&mut self) -> Op {
        let mover = 1 + self.options.think_us as usize % self.servers.len();
        let mut lines = Vec::new();
        for n in 1..=self.servers.len() {
            let role = match self.random.below(8) {
                0 => continue,
                1 => "observer",
                _ => "participant",
            };
            let port = if n == mover { self.moves.below(3) } else { 0 };
            lines.push(format!("server.{n}=s{n}:{}:{}:{role}", 2888 + port, 3888 + port));
        }
        members(lines.join(","))
    }
}

/// This list of members, whatever there was.
pub fn members(list: String) -> Op {
    Op::Write(WriteOp::Reconfig(Reconfig { joining: None, leaving: None, new_members: Some(list), cur_config_id: -1 }))
}
