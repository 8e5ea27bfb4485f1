//! What replies say, read by a small reader of its own.

use rookeeper::ops::{MultiOp, MultiReadOp, Op, OpCode, ReadOp, WriteOp};
use rookeeper::records::Acl;

/// A stat as it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    pub czxid: i64,
    pub mzxid: i64,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    pub cversion: i32,
    pub aversion: i32,
    pub ephemeral_owner: i64,
    pub data_length: i32,
    pub num_children: i32,
    pub pzxid: i64,
}

/// The body of a reply. Lists without an order are sorted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Nothing,
    Path(String),
    PathStat(String, Stat),
    Stat(Stat),
    Data(Option<Vec<u8>>, Stat),
    /// Of data, in a reconfiguration: the stat follows from it.
    Config(Option<Vec<u8>>),
    Children(Vec<String>),
    ChildrenStat(Vec<String>, Stat),
    Acl(Vec<Acl>, Stat),
    Number(i32),
    Echo(Option<String>),
    Identities(Vec<(String, String)>),
    Parts(Vec<Part>),
}

/// The result of one operation of a multi: the number that it is told by, and the error or what it came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    pub kind: i32,
    pub result: Result<Answer, i32>,
}

/// Bytes, from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn int(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn buffer(&mut self) -> Option<Option<&'a [u8]>> {
        match self.int()? {
            -1 => Some(None),
            length => Some(Some(self.take(usize::try_from(length).ok()?)?)),
        }
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.buffer()??.to_vec()).ok()
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.int()?;
        (0..count).map(|_| item(self)).collect()
    }

    fn names(&mut self) -> Option<Vec<String>> {
        let mut names = self.list(Bytes::text)?;
        names.sort_unstable();
        Some(names)
    }

    fn acl(&mut self) -> Option<Vec<Acl>> {
        self.list(|bytes| {
            let (perms, scheme, id) = (bytes.int()?, bytes.text()?, bytes.text()?);
            Some(Acl::new(perms, &scheme, &id))
        })
    }

    fn stat(&mut self) -> Option<Stat> {
        Some(Stat {
            czxid: self.long()?,
            mzxid: self.long()?,
            ctime: self.long()?,
            mtime: self.long()?,
            version: self.int()?,
            cversion: self.int()?,
            aversion: self.int()?,
            ephemeral_owner: self.long()?,
            data_length: self.int()?,
            num_children: self.int()?,
            pzxid: self.long()?,
        })
    }

    fn data(&mut self) -> Option<Option<Vec<u8>>> {
        Some(self.buffer()?.map(<[u8]>::to_vec))
    }

    /// What an operation of this number answers within a multi.
    fn part(&mut self, kind: i32) -> Option<Answer> {
        Some(match kind {
            1 => Answer::Path(self.text()?),
            15 => Answer::PathStat(self.text()?, self.stat()?),
            2 | 13 => Answer::Nothing,
            5 => Answer::Stat(self.stat()?),
            4 => Answer::Data(self.data()?, self.stat()?),
            8 => Answer::Children(self.names()?),
            _ => return None,
        })
    }

    fn parts(&mut self) -> Option<Vec<Part>> {
        let mut parts = Vec::new();
        loop {
            let (kind, is_end, err) = (self.int()?, self.take(1)?[0] != 0, self.int()?);
            if is_end {
                return (kind == -1 && err == -1).then_some(parts);
            }
            let result = if kind == -1 {
                // The error stands there twice.
                Err(Some(self.int()?).filter(|again| *again == err)?)
            } else {
                Ok(Some(self.part(kind)?).filter(|_| err == 0)?)
            };
            parts.push(Part { kind, result });
        }
    }

    fn body(&mut self, op: &Op) -> Option<Answer> {
        Some(match op {
            Op::Write(WriteOp::Create(create)) if create.code == OpCode::Create => Answer::Path(self.text()?),
            Op::Write(WriteOp::Create(_)) => Answer::PathStat(self.text()?, self.stat()?),
            Op::Write(WriteOp::SetData(_) | WriteOp::SetAcl(_)) | Op::Read(ReadOp::Exists(_)) => {
                Answer::Stat(self.stat()?)
            }
            Op::Read(ReadOp::GetData(_)) => Answer::Data(self.data()?, self.stat()?),
            Op::Read(ReadOp::GetAcl { .. }) => Answer::Acl(self.acl()?, self.stat()?),
            Op::Read(ReadOp::GetChildren { with_stat: false, .. }) => Answer::Children(self.names()?),
            Op::Read(ReadOp::GetChildren { with_stat: true, .. }) => Answer::ChildrenStat(self.names()?, self.stat()?),
            Op::Read(ReadOp::GetEphemerals { .. }) => Answer::Children(self.names()?),
            Op::Read(ReadOp::GetAllChildrenNumber { .. } | ReadOp::AddWatch { .. }) => Answer::Number(self.int()?),
            Op::Read(ReadOp::Sync { .. }) => Answer::Echo(Some(self.text()?)),
            Op::Write(WriteOp::Multi(_)) | Op::Read(ReadOp::MultiRead(_)) => Answer::Parts(self.parts()?),
            Op::Write(WriteOp::Reconfig(_)) => {
                let config = self.data()?;
                self.stat()?;
                Answer::Config(config)
            }
            Op::Read(ReadOp::WhoAmI) => {
                let mut shown = self.list(|bytes| Some((bytes.text()?, bytes.text()?)))?;
                shown.sort_unstable();
                Answer::Identities(shown)
            }
            _ => Answer::Nothing,
        })
    }
}

/// The body of the reply to this, all of it; `None` when it is none.
pub fn read(op: &Op, body: &[u8]) -> Option<Answer> {
    let mut bytes = Bytes(body);
    bytes.body(op).filter(|_| bytes.0.is_empty())
}

/// The number by which an operation of a multi is answered when it is done: containers and TTL nodes as create2.
pub fn part_kind(op: &MultiOp) -> i32 {
    match op {
        MultiOp::Create(create) if create.code == OpCode::Create => 1,
        MultiOp::Create(_) => 15,
        MultiOp::Delete(_) => 2,
        MultiOp::SetData(_) => 5,
        MultiOp::Check { .. } => 13,
    }
}

/// The same of a multiRead.
pub fn read_kind(op: &MultiReadOp) -> i32 {
    match op {
        MultiReadOp::GetData { .. } => 4,
        MultiReadOp::GetChildren { .. } => 8,
    }
}
