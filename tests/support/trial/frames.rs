//! What a client reads: frames out of bytes, fields out of frames. Anything that does not fit is a panic. Used by
//! `trial`.

use rookeeper::ids::Zxid;
use rookeeper::jute::Reader;
use rookeeper::records::{Acl, Stat};

/// One frame after the handshake.
#[derive(Debug)]
pub enum Frame {
    Event { zxid: Zxid, kind: i32, path: String },
    Reply { xid: i32, zxid: Zxid, err: i32, body: Vec<u8> },
}

/// The answer of the handshake.
#[derive(Debug)]
pub struct Welcome {
    pub timeout_ms: i32,
    pub session: i64,
    pub password: Vec<u8>,
    pub read_only: Option<bool>,
}

const WHOLE: &str = "frames are whole";

/// Cuts bytes into the contents of frames.
pub fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>().expect(WHOLE);
        let length = usize::try_from(i32::from_be_bytes(*length)).expect(WHOLE);
        let (frame, rest) = rest.split_at_checked(length).expect(WHOLE);
        frames.push(frame);
        bytes = rest;
    }
    frames
}

pub fn welcome(frame: &[u8]) -> Welcome {
    let mut r = Reader::new(frame);
    assert_eq!(r.int(), Ok(0), "protocol version");
    let welcome = Welcome {
        timeout_ms: r.int().expect(WHOLE),
        session: r.long().expect(WHOLE),
        password: r.buffer().expect(WHOLE).expect("a password").to_vec(),
        read_only: r.bool().ok(),
    };
    assert!(r.is_empty() && welcome.password.len() == 16);
    welcome
}

pub fn frame(bytes: &[u8]) -> Frame {
    let mut r = Reader::new(bytes);
    let (xid, zxid, err) = (r.int().expect(WHOLE), Zxid(r.long().expect(WHOLE)), r.int().expect(WHOLE));
    if xid != -1 {
        return Frame::Reply { xid, zxid, err, body: r.rest().to_vec() };
    }
    assert_eq!(err, 0);
    let kind = r.int().expect(WHOLE);
    assert_eq!(r.int(), Ok(3), "SyncConnected");
    let path = r.required_string().expect(WHOLE).into_owned();
    assert!(r.is_empty());
    Frame::Event { zxid, kind, path }
}

pub fn stat(r: &mut Reader<'_>) -> Stat {
    let mut stat = Stat::default();
    let Stat { czxid, mzxid, ctime, mtime, .. } = &mut stat;
    [czxid, mzxid, ctime, mtime].into_iter().for_each(|field| *field = r.long().expect(WHOLE));
    let Stat { version, cversion, aversion, .. } = &mut stat;
    [version, cversion, aversion].into_iter().for_each(|field| *field = r.int().expect(WHOLE));
    stat.ephemeral_owner = r.long().expect(WHOLE);
    stat.data_length = r.int().expect(WHOLE);
    stat.num_children = r.int().expect(WHOLE);
    stat.pzxid = r.long().expect(WHOLE);
    stat
}

pub fn string(r: &mut Reader<'_>) -> String {
    r.required_string().expect(WHOLE).into_owned()
}

pub fn strings(r: &mut Reader<'_>) -> Vec<String> {
    let mut strings = r.strings().expect(WHOLE).expect("a list");
    strings.sort_unstable();
    strings
}

pub fn data(r: &mut Reader<'_>) -> Option<Vec<u8>> {
    r.buffer().expect(WHOLE).map(<[u8]>::to_vec)
}

pub fn acl(r: &mut Reader<'_>) -> Vec<Acl> {
    Acl::read_list(r).expect(WHOLE).expect("a list")
}

/// Type, end mark and error before each result of a multi.
pub fn multi_header(r: &mut Reader<'_>) -> (i32, bool, i32) {
    (r.int().expect(WHOLE), r.bool().expect(WHOLE), r.int().expect(WHOLE))
}
