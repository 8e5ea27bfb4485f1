//! Requests by choice: mostly such that something happens, sometimes such that it must not. Used by `trial`.

use rookeeper::ops::{
    AuthOp, Create, Delete, MultiOp, MultiReadOp, Op, OpCode, PathWatch, ReadOp, Reconfig, Request, SetAcl, SetData,
    SetWatches, WatchSelection, WatcherType, WriteOp,
};
use rookeeper::records::Acl;

use super::choices::Choices;

/// Credentials that are used, and the identity each becomes. The first is the super user's.
pub const USERS: [(&str, &str); 3] = [
    ("super:test", "super:D/InIHSb7yEEbrWz8b9l71RjZJU="),
    ("u:p", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ="),
    ("", ":2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
];

const PATHS: [&str; 32] = [
    "/a",
    "/a/b",
    "/a/b/c",
    "/a/b/c/d",
    "/a/x",
    "/a/y",
    "/c",
    "/c/1",
    "/c/2",
    "/t",
    "/t/1",
    "/e",
    "/e/1",
    "/",
    "/a/s-",
    "/a/",
    "/ü中",
    "/zookeeper",
    "/zookeeper/config",
    "/zookeeper/quota",
    "/zookeeper/quota/a",
    "/zookeeper/quota/a/zookeeper_limits",
    "/zookeeper/quota/a/zookeeper_stats",
    "/zookeeper/quota/a/b",
    "/zookeeper/quota/a/b/zookeeper_limits",
    "/zookeeper/quota/a/b/zookeeper_stats",
    "",
    "a",
    "//",
    "/a//b",
    "/a/..",
    "/a\0b",
];

const DATA: [&[u8]; 8] = [
    b"",
    b"x",
    b"hello",
    b"count=3,bytes=100",
    b"count=1,bytes=-1=;byteHardLimit=60;countHardLimit=4",
    b"count=9223372036854775807,bytes=-9223372036854775808",
    b"bytes=9223372036854775807",
    &[0xff; 300],
];

fn path(c: &mut Choices<'_>, existing: &[String]) -> String {
    match c.byte() {
        0..128 => (*c.pick(&PATHS)).to_owned(),
        128..250 if !existing.is_empty() => {
            let mut path = c.pick(existing).clone();
            if c.one_in(3) {
                path.push_str(["/n", "/s-", "/zookeeper_stats", "/zookeeper_limits"][c.below(4)]);
            }
            path
        }
        _ => {
            let len = c.below(12);
            String::from_utf8_lossy(c.some_bytes(len)).into_owned()
        }
    }
}

fn data(c: &mut Choices<'_>) -> Option<Vec<u8>> {
    (!c.one_in(10)).then(|| c.pick(&DATA).to_vec())
}

fn acl_entry(c: &mut Choices<'_>) -> Acl {
    let perms = [31, 1, 2, 4, 8, 16, 17, 0, -1][c.below(9)];
    let (scheme, id) = *c.pick(&[
        (Some("world"), Some("anyone")),
        (Some("auth"), Some("")),
        (Some("digest"), Some(USERS[1].1)),
        (Some("digest"), Some("other:x")),
        (Some("ip"), Some("127.0.0.1")),
        (Some("ip"), Some("10.0.0.0/8")),
        (Some("digest"), Some("bad")),
        (Some("world"), Some("someone")),
        (Some("digest"), None),
        (None, Some("x")),
    ]);
    Acl { perms, scheme: scheme.map(str::to_owned), id: id.map(str::to_owned) }
}

fn acl(c: &mut Choices<'_>) -> Option<Vec<Acl>> {
    match c.byte() {
        0..180 => Some(Acl::open()),
        180..185 => None,
        _ => (0..c.below(4)).map(|_| Some(acl_entry(c))).collect(),
    }
}

fn version(c: &mut Choices<'_>) -> i32 {
    match c.byte() {
        0..170 => -1,
        170..210 => 0,
        other => [1, 2, 3, -2, i32::MAX][usize::from(other) % 5],
    }
}

fn create(c: &mut Choices<'_>, existing: &[String]) -> Create {
    let code = *c.pick(&[
        OpCode::Create,
        OpCode::Create2,
        OpCode::Create,
        OpCode::CreateContainer,
        OpCode::CreateTtl,
        OpCode::Create2,
    ]);
    let usual = match code {
        OpCode::CreateContainer => 4,
        OpCode::CreateTtl => 5,
        _ => [0, 1, 2, 3, 0][c.below(5)],
    };
    let flags = if c.one_in(12) { [7, -1, 4, 5, 6, 1][c.below(6)] } else { usual };
    let ttl_ms = if code == OpCode::CreateTtl { [1, 100, 0, -5, 1 << 39, 1 << 40][c.below(6)] } else { -1 };
    Create { code, path: path(c, existing), data: data(c), acl: acl(c), flags, ttl_ms }
}

fn multi_op(c: &mut Choices<'_>, existing: &[String]) -> MultiOp {
    match c.below(6) {
        0..3 => MultiOp::Create(create(c, existing)),
        3 => MultiOp::Delete(Delete { path: path(c, existing), version: version(c) }),
        4 => MultiOp::SetData(SetData { path: path(c, existing), data: data(c), version: version(c) }),
        _ => MultiOp::Check { path: path(c, existing), version: version(c) },
    }
}

fn target(c: &mut Choices<'_>, existing: &[String]) -> PathWatch {
    PathWatch { path: path(c, existing), watch: c.one_in(2) }
}

fn selection(c: &mut Choices<'_>, existing: &[String]) -> WatchSelection {
    let kind = *c.pick(&[
        WatcherType::Any,
        WatcherType::Children,
        WatcherType::Data,
        WatcherType::Persistent,
        WatcherType::PersistentRecursive,
    ]);
    WatchSelection { path: path(c, existing), kind }
}

fn paths(c: &mut Choices<'_>, existing: &[String]) -> Vec<String> {
    (0..c.below(4)).map(|_| path(c, existing)).collect()
}

fn set_watches(c: &mut Choices<'_>, existing: &[String]) -> SetWatches {
    let with_persistent = c.one_in(2);
    SetWatches {
        relative_zxid: i64::from(c.byte()),
        data: paths(c, existing),
        exist: paths(c, existing),
        child: paths(c, existing),
        persistent: if with_persistent { paths(c, existing) } else { Vec::new() },
        persistent_recursive: if with_persistent { paths(c, existing) } else { Vec::new() },
    }
}

fn write(c: &mut Choices<'_>, existing: &[String]) -> (OpCode, Op) {
    match c.below(10) {
        0..5 => {
            let create = create(c, existing);
            (create.code, Op::Write(WriteOp::Create(create)))
        }
        5 => (OpCode::Delete, Op::Write(WriteOp::Delete(Delete { path: path(c, existing), version: version(c) }))),
        6 => {
            let set = SetData { path: path(c, existing), data: data(c), version: version(c) };
            (OpCode::SetData, Op::Write(WriteOp::SetData(set)))
        }
        7 => (
            OpCode::SetAcl,
            Op::Write(WriteOp::SetAcl(SetAcl { path: path(c, existing), acl: acl(c), version: version(c) })),
        ),
        _ => (OpCode::Multi, Op::Write(WriteOp::Multi((0..c.below(6)).map(|_| multi_op(c, existing)).collect()))),
    }
}

fn read(c: &mut Choices<'_>, existing: &[String]) -> (OpCode, Op) {
    match c.below(14) {
        0 => (OpCode::Exists, Op::Read(ReadOp::Exists(target(c, existing)))),
        1 => (OpCode::GetData, Op::Read(ReadOp::GetData(target(c, existing)))),
        2 => (OpCode::GetChildren, Op::Read(ReadOp::GetChildren { target: target(c, existing), with_stat: false })),
        3 => (OpCode::GetChildren2, Op::Read(ReadOp::GetChildren { target: target(c, existing), with_stat: true })),
        4 => (OpCode::GetAcl, Op::Read(ReadOp::GetAcl { path: path(c, existing) })),
        5 => (OpCode::GetAllChildrenNumber, Op::Read(ReadOp::GetAllChildrenNumber { path: path(c, existing) })),
        6 => {
            let read = |c: &mut Choices<'_>| match c.one_in(2) {
                true => MultiReadOp::GetData { path: path(c, existing) },
                false => MultiReadOp::GetChildren { path: path(c, existing) },
            };
            (OpCode::MultiRead, Op::Read(ReadOp::MultiRead((0..c.below(4)).map(|_| read(c)).collect())))
        }
        7 => (OpCode::Sync, Op::Read(ReadOp::Sync { path: c.one_in(2).then(|| path(c, existing)) })),
        8 => {
            (OpCode::GetEphemerals, Op::Read(ReadOp::GetEphemerals { prefix: c.one_in(2).then(|| path(c, existing)) }))
        }
        9 => (OpCode::WhoAmI, Op::Read(ReadOp::WhoAmI)),
        10 => (OpCode::AddWatch, Op::Read(ReadOp::AddWatch { path: path(c, existing), recursive: c.one_in(2) })),
        11 => (OpCode::CheckWatches, Op::Read(ReadOp::CheckWatches(selection(c, existing)))),
        12 => (OpCode::RemoveWatches, Op::Read(ReadOp::RemoveWatches(selection(c, existing)))),
        _ => {
            let watches = set_watches(c, existing);
            (OpCode::SetWatches2, Op::Read(ReadOp::SetWatches(Box::new(watches))))
        }
    }
}

fn rare(c: &mut Choices<'_>) -> (i32, Op) {
    let known = |code: OpCode, op| (code as i32, op);
    match c.below(8) {
        0..2 => known(OpCode::CloseSession, Op::CloseSession),
        2..4 => known(OpCode::Ping, Op::Read(ReadOp::Ping)),
        4 => {
            // Those whose body can be wrong.
            let bodied =
                |code: &OpCode| !matches!(code, OpCode::Check | OpCode::Ping | OpCode::CloseSession | OpCode::WhoAmI);
            let codes: Vec<OpCode> = OpCode::ALL.iter().copied().filter(bodied).collect();
            let code = *c.pick(&codes);
            known(code, Op::malformed(code.class()))
        }
        5 => (13, Op::Read(ReadOp::Unknown)),
        6 => known(OpCode::Sasl, Op::Auth(AuthOp::Sasl { token: None })),
        _ => {
            let nothing = Reconfig { joining: None, leaving: None, new_members: None, cur_config_id: -1 };
            known(OpCode::Reconfig, Op::Write(WriteOp::Reconfig(nothing)))
        }
    }
}

fn auth(c: &mut Choices<'_>) -> Op {
    let scheme = *c.pick(&["digest", "digest", "digest", "ip", "none"]);
    let credentials = (!c.one_in(9)).then(|| c.pick(&USERS).0.as_bytes().to_vec());
    Op::Auth(AuthOp::Scheme { scheme: Some(scheme.to_owned()), credentials })
}

/// Any request. `existing` are paths that are worth asking for.
pub fn request(c: &mut Choices<'_>, xid: i32, existing: &[String]) -> Request {
    let (op_number, op) = match c.byte() {
        0..130 => {
            let (code, op) = write(c, existing);
            (code as i32, op)
        }
        130..235 => {
            let (code, op) = read(c, existing);
            (code as i32, op)
        }
        235..245 => (OpCode::Auth as i32, auth(c)),
        _ => rare(c),
    };
    let xid = if op == Op::Read(ReadOp::Ping) { -2 } else { xid };
    Request { xid, op_number, op, body: Vec::new() }
}
