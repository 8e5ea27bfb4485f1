//! Packets of the quorum port (`QuorumPacket`, `LearnerInfo`, `Learner`, `LearnerHandler`): bytes both ways, decoded once
//! into what they mean. Pure; used by the cores and by `engine::quorum`.
//!
//! ```text
//! packet   = kind i32  zxid i64  data buffer  authinfo vector<{ scheme string  id string }>
//! ```
//!
//! Packets stand back to back. Behind SNAP stands a snapshot (`storage::stream`), then packets again.

use thiserror::Error;

use super::joint::{self, ForeignEnds, HistoryEnd, Reach, Told};
use crate::ids::{ServerId, SessionId, Zxid};
use crate::jute::{JuteError, Reader, Writer, len_i32};
use crate::limits::{FORWARDED_IDENTITIES_MAX, FORWARDED_IDENTITY_BYTES_MAX};
use crate::mail::ForwardedRequest;
use crate::state::acl::AuthId;

/// What a leader and a learner of ZAB 1.0 say they speak, in LEADERINFO and [`LearnerInfo`].
pub const PROTOCOL: i32 = 0x1_0000;

/// Who sent it: two kinds mean different things from a learner and from a leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// A follower or observer.
    Learner,
    /// A leader or an observer master.
    Leader,
}

/// A packet, by what it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet {
    /// 1, learner: a client's write, or sync, for the leader.
    Request(ForwardedRequest),
    /// 2: a transaction, `Txn::to_bytes`.
    Proposal { zxid: Zxid, payload: Vec<u8> },
    /// 3: a proposal is durable; or, with counter 0, NEWLEADER or UPTODATE is taken in.
    Ack { zxid: Zxid },
    /// 4
    Commit { zxid: Zxid },
    /// 5; from a learner with the sessions heard of since the last one, and the leader's zxid echoed.
    Ping { zxid: Zxid, touched: Vec<(SessionId, i32)> },
    /// 5 of a leader of ours, which says whose histories it knows to be others.
    TellingPing { zxid: Zxid, foreign: ForeignEnds },
    /// 6, learner: is this session alive?
    Revalidate { session: SessionId, timeout_ms: i32 },
    /// 6, leader: the answer.
    Revalidated { session: SessionId, valid: bool },
    /// 7, leader: everything before the sync is on its way in front of this.
    Sync,
    /// 8, to observers: a committed transaction.
    Inform { zxid: Zxid, payload: Vec<u8> },
    /// 9: a commit that makes a new configuration the one in force.
    CommitAndActivate { zxid: Zxid, designated: ServerId },
    /// 10: the history is complete; `config` is the leader's newest configuration as text, empty if there is none.
    NewLeader { zxid: Zxid, config: Vec<u8> },
    /// 11 from a follower, 16 from an observer.
    LearnerInfo(LearnerInfo),
    /// 12: a quorum has the history: serve.
    UpToDate,
    /// 13: what is missing follows as proposals and commits.
    Diff { zxid: Zxid },
    /// 14: what is behind this zxid is to be forgotten.
    Trunc { zxid: Zxid },
    /// 15: the whole state follows on the stream. Our servers say what it means for the learner's history.
    Snap { zxid: Zxid, told: Option<Told> },
    /// 17: the epoch that is to begin. Our leaders say that they compare histories before they join them, and whose are known
    /// to be others than theirs; `None`: it is one of Apache's.
    LeaderInfo { epoch: u32, ours: Option<ForeignEnds> },
    /// 18: the learner's last logged zxid and its currentEpoch; `None` if it had accepted this very epoch before.
    /// Our servers say more of their history.
    AckEpoch { zxid: Zxid, epoch: Option<u32>, reach: Option<Box<Reach>> },
    /// 19, to observers: [`Packet::Inform`] and [`Packet::CommitAndActivate`] in one.
    InformAndActivate { zxid: Zxid, designated: ServerId, payload: Vec<u8> },
    /// Anything else: passed over.
    Unknown { kind: i32 },
}

/// FOLLOWERINFO and OBSERVERINFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LearnerInfo {
    /// OBSERVERINFO.
    pub observer: bool,
    /// The epoch it last promised to join.
    pub accepted_epoch: u32,
    /// Who it is; `None` in the oldest forms, which carry none.
    pub server: Option<ServerId>,
    /// 0x10000 since ZAB 1.0; below, the exchange differs and is refused.
    pub protocol: i32,
    /// Version of its committed configuration; 0 if not sent.
    pub config_version: i64,
    /// Where its history ends, as our servers say.
    pub history: Option<HistoryEnd>,
}

mod kind {
    pub const REQUEST: i32 = 1;
    pub const PROPOSAL: i32 = 2;
    pub const ACK: i32 = 3;
    pub const COMMIT: i32 = 4;
    pub const PING: i32 = 5;
    pub const REVALIDATE: i32 = 6;
    pub const SYNC: i32 = 7;
    pub const INFORM: i32 = 8;
    pub const COMMIT_AND_ACTIVATE: i32 = 9;
    pub const NEW_LEADER: i32 = 10;
    pub const FOLLOWER_INFO: i32 = 11;
    pub const UP_TO_DATE: i32 = 12;
    pub const DIFF: i32 = 13;
    pub const TRUNC: i32 = 14;
    pub const SNAP: i32 = 15;
    pub const OBSERVER_INFO: i32 = 16;
    pub const LEADER_INFO: i32 = 17;
    pub const ACK_EPOCH: i32 = 18;
    pub const INFORM_AND_ACTIVATE: i32 = 19;
}

/// The zxid of packets that are about none.
const NO_ZXID: Zxid = Zxid(-1);
/// What ACKEPOCH has in place of an epoch that was accepted before.
const NO_EPOCH: i32 = -1;
/// Kind, zxid and the length of the data.
const HEAD_BYTES: usize = 16;
/// How a packet without identities ends.
const NO_IDENTITIES: [u8; 4] = (-1_i32).to_be_bytes();
/// An identity with empty names.
const IDENTITY_BYTES_MIN: usize = 8;

/// The zxid that stands for an epoch as a whole.
fn start_of(epoch: u32) -> Zxid {
    Zxid(i64::from(epoch) << 32)
}

impl Packet {
    /// The name in Apache's log.
    pub fn name(&self) -> &'static str {
        match self {
            Packet::Request(_) => "REQUEST",
            Packet::Proposal { .. } => "PROPOSAL",
            Packet::Ack { .. } => "ACK",
            Packet::Commit { .. } => "COMMIT",
            Packet::Ping { .. } | Packet::TellingPing { .. } => "PING",
            Packet::Revalidate { .. } | Packet::Revalidated { .. } => "REVALIDATE",
            Packet::Sync => "SYNC",
            Packet::Inform { .. } => "INFORM",
            Packet::CommitAndActivate { .. } => "COMMITANDACTIVATE",
            Packet::NewLeader { .. } => "NEWLEADER",
            Packet::LearnerInfo(info) if info.observer => "OBSERVERINFO",
            Packet::LearnerInfo(_) => "FOLLOWERINFO",
            Packet::UpToDate => "UPTODATE",
            Packet::Diff { .. } => "DIFF",
            Packet::Trunc { .. } => "TRUNC",
            Packet::Snap { .. } => "SNAP",
            Packet::LeaderInfo { .. } => "LEADERINFO",
            Packet::AckEpoch { .. } => "ACKEPOCH",
            Packet::InformAndActivate { .. } => "INFORMANDACTIVATE",
            Packet::Unknown { .. } => "a packet that has no place here",
        }
    }

    /// Appends the packet as this sender writes it. Only a ping is written in two ways: a leader that read a learner's
    /// without data would fail.
    pub fn encode(&self, from: From, out: &mut Vec<u8>) {
        let begin = |out: &mut Vec<u8>, kind: i32, zxid: Zxid| {
            out.put_int(kind);
            out.put_long(zxid.0);
        };
        match self {
            Packet::Request(request) => {
                begin(out, kind::REQUEST, NO_ZXID);
                out.put_int(len_i32(REQUEST_HEAD_BYTES + request.body.len()));
                out.put_long(request.session.0);
                out.put_int(request.cxid);
                out.put_int(request.op);
                out.extend_from_slice(&request.body);
                write_identities(request.auth.as_deref(), out);
                return;
            }
            Packet::Proposal { zxid, payload } => {
                begin(out, kind::PROPOSAL, *zxid);
                out.put_buffer(Some(payload));
            }
            Packet::Inform { zxid, payload } => {
                begin(out, kind::INFORM, *zxid);
                out.put_buffer(Some(payload));
            }
            Packet::InformAndActivate { zxid, designated, payload } => {
                begin(out, kind::INFORM_AND_ACTIVATE, *zxid);
                out.put_int(len_i32(8 + payload.len()));
                out.put_long(designated.0);
                out.extend_from_slice(payload);
            }
            Packet::CommitAndActivate { zxid, designated } => {
                begin(out, kind::COMMIT_AND_ACTIVATE, *zxid);
                out.put_int(8);
                out.put_long(designated.0);
            }
            Packet::Ping { zxid, touched } => {
                begin(out, kind::PING, *zxid);
                if from == From::Leader {
                    out.put_buffer(None);
                } else {
                    out.put_int(len_i32(touched.len() * TOUCHED_BYTES));
                    for (session, timeout_ms) in touched {
                        out.put_long(session.0);
                        out.put_int(*timeout_ms);
                    }
                }
            }
            Packet::TellingPing { zxid, foreign } => {
                begin(out, kind::PING, *zxid);
                put_data(out, |out| joint::write_mark(out, foreign));
            }
            Packet::Revalidate { session, timeout_ms } => {
                begin(out, kind::REVALIDATE, NO_ZXID);
                out.put_int(12);
                out.put_long(session.0);
                out.put_int(*timeout_ms);
            }
            Packet::Revalidated { session, valid } => {
                begin(out, kind::REVALIDATE, NO_ZXID);
                out.put_int(9);
                out.put_long(session.0);
                out.put_bool(*valid);
            }
            Packet::NewLeader { zxid, config } => {
                begin(out, kind::NEW_LEADER, *zxid);
                out.put_buffer((!config.is_empty()).then_some(config));
            }
            Packet::LearnerInfo(info) => {
                let kind = if info.observer { kind::OBSERVER_INFO } else { kind::FOLLOWER_INFO };
                begin(out, kind, start_of(info.accepted_epoch));
                match info.server {
                    None => out.put_buffer(None),
                    Some(server) => put_data(out, |out| {
                        out.put_long(server.0);
                        out.put_int(info.protocol);
                        out.put_long(info.config_version);
                        info.history.iter().for_each(|history| history.write(out));
                    }),
                }
            }
            Packet::LeaderInfo { epoch, ours } => {
                begin(out, kind::LEADER_INFO, start_of(*epoch));
                put_data(out, |out| {
                    out.put_int(PROTOCOL);
                    ours.iter().for_each(|foreign| joint::write_mark(out, foreign));
                });
            }
            Packet::AckEpoch { zxid, epoch, reach } => {
                begin(out, kind::ACK_EPOCH, *zxid);
                put_data(out, |out| {
                    out.put_int(epoch.map_or(NO_EPOCH, |epoch| epoch as i32));
                    reach.iter().for_each(|reach| reach.write(out));
                });
            }
            Packet::Snap { zxid, told: Some(told) } => {
                begin(out, kind::SNAP, *zxid);
                put_data(out, |out| told.write(out));
            }
            Packet::Ack { zxid } => bare(kind::ACK, *zxid, out),
            Packet::Commit { zxid } => bare(kind::COMMIT, *zxid, out),
            Packet::Diff { zxid } => bare(kind::DIFF, *zxid, out),
            Packet::Trunc { zxid } => bare(kind::TRUNC, *zxid, out),
            Packet::Snap { zxid, told: None } => bare(kind::SNAP, *zxid, out),
            Packet::Sync => bare(kind::SYNC, Zxid::ZERO, out),
            Packet::UpToDate => bare(kind::UP_TO_DATE, NO_ZXID, out),
            Packet::Unknown { kind } => bare(*kind, Zxid::ZERO, out),
        }
        write_identities(None, out);
    }
}

/// Session, cxid and opcode before the body of a forwarded request.
const REQUEST_HEAD_BYTES: usize = 16;
/// A session and its timeout, in a learner's ping.
const TOUCHED_BYTES: usize = 12;

/// Data, with its length in front.
fn put_data(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut data = Vec::new();
    write(&mut data);
    out.put_buffer(Some(&data));
}

/// Everything of a packet without data but the identities.
fn bare(kind: i32, zxid: Zxid, out: &mut Vec<u8>) {
    out.put_int(kind);
    out.put_long(zxid.0);
    out.put_buffer(None);
}

fn write_identities(identities: Option<&[AuthId]>, out: &mut Vec<u8>) {
    let Some(identities) = identities else { return out.put_int(-1) };
    out.put_int(len_i32(identities.len()));
    for identity in identities {
        out.put_string(&identity.scheme);
        out.put_string(&identity.id);
    }
}

/// Why a stream of packets cannot go on. Its connection is to be closed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PacketError {
    /// A length that no packet may have.
    #[error(
        "a packet of type {kind} says that it has {len} bytes of data; from 0 to {max} are allowed (jute.maxbuffer)"
    )]
    BadDataLength {
        /// Its type.
        kind: i32,
        /// The length, neither -1 nor within bounds.
        len: i32,
        /// The bound.
        max: usize,
    },
    /// More identities than any client has, or longer ones.
    #[error(
        "a packet of type {kind} has too many or too long identities: at most {FORWARDED_IDENTITIES_MAX}, with {FORWARDED_IDENTITY_BYTES_MAX} bytes together"
    )]
    BadIdentities {
        /// Its type.
        kind: i32,
    },
    /// The data is not what the type says.
    #[error("a packet of type {kind} has malformed data: {source}")]
    Malformed {
        /// Its type.
        kind: i32,
        /// What is wrong.
        source: JuteError,
    },
}

/// Takes packets out of a stream of bytes that comes in pieces. Holds what was fed and not taken; a length alone makes it
/// hold nothing.
#[derive(Debug)]
pub struct PacketDecoder {
    from: From,
    data_bytes_max: usize,
    bytes: Vec<u8>,
    /// Bytes that are taken.
    used: usize,
    /// The next packet needs at least this many bytes: nothing is measured before they are there.
    wanted: usize,
    /// In the midst of a request's identities, which are too many to be kept.
    skipping: Option<Skipping>,
}

/// How far a packet reaches, counted from its beginning.
enum Extent {
    /// Where its parts end.
    Whole { data_end: usize, end: usize },
    /// To tell, at least so many bytes are needed.
    Wanting(usize),
    /// A request with more identities than are taken: so many strings, behind their number.
    TooMany { data_end: usize, strings: usize },
}

/// What is left of the identities of a request, and what of it is kept.
#[derive(Debug)]
struct Skipping {
    request: Packet,
    strings: usize,
    /// Of the string that is being skipped.
    bytes: usize,
}

impl PacketDecoder {
    /// Of what such a sender sends. `data_bytes_max` bounds the data of one packet.
    pub fn new(from: From, data_bytes_max: usize) -> PacketDecoder {
        PacketDecoder { from, data_bytes_max, bytes: Vec::new(), used: 0, wanted: HEAD_BYTES, skipping: None }
    }

    /// The next bytes of the stream. To bound what is held, take the packets before feeding again.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.used);
        self.used = 0;
        if self.bytes.is_empty() {
            self.bytes.shrink_to(KEPT_BYTES);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next packet; `None` until more is fed. After an error there is no packet, ever.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, PacketError> {
        if self.skipping.is_some() {
            return self.skip();
        }
        let have = &self.bytes[self.used..];
        if have.len() < self.wanted {
            return Ok(None);
        }
        match measure(have, self.data_bytes_max, self.from)? {
            Extent::Whole { data_end, end } => {
                let packet = decode(&have[..end], data_end, self.from)?;
                self.used += end;
                self.wanted = HEAD_BYTES;
                Ok(Some(packet))
            }
            Extent::Wanting(wanted) => {
                self.wanted = wanted;
                Ok(None)
            }
            Extent::TooMany { data_end, strings } => {
                let mut request = decode(&[&have[..data_end], &NO_IDENTITIES].concat(), data_end, self.from)?;
                if let Packet::Request(request) = &mut request {
                    request.body = Vec::new();
                }
                self.used += data_end + NO_IDENTITIES.len();
                self.skipping = Some(Skipping { request, strings, bytes: 0 });
                self.skip()
            }
        }
    }

    /// Passes over identities as they come, and hands out their request at the end of them.
    fn skip(&mut self) -> Result<Option<Packet>, PacketError> {
        let Some(skipping) = &mut self.skipping else { return Ok(None) };
        loop {
            let have = self.bytes.len() - self.used;
            let passed = have.min(skipping.bytes);
            (self.used, skipping.bytes) = (self.used + passed, skipping.bytes - passed);
            if skipping.bytes > 0 {
                return Ok(None);
            }
            if skipping.strings == 0 {
                break;
            }
            let Some(len) = int_at(&self.bytes, self.used) else { return Ok(None) };
            skipping.bytes = match usize::try_from(len) {
                Ok(bytes) => bytes,
                Err(_) if len == -1 => 0,
                Err(_) => return Err(PacketError::BadIdentities { kind: kind::REQUEST }),
            };
            skipping.strings -= 1;
            self.used += 4;
        }
        self.wanted = HEAD_BYTES;
        Ok(self.skipping.take().map(|skipping| skipping.request))
    }

    /// Hands back what was fed and not taken: behind SNAP the stream is a snapshot. What follows that is fed again.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.bytes.split_off(self.used);
        self.bytes = Vec::new();
        self.used = 0;
        self.wanted = HEAD_BYTES;
        rest
    }
}

/// Room that a decoder keeps while nothing is in it.
const KEPT_BYTES: usize = 64 << 10;

fn int_at(bytes: &[u8], at: usize) -> Option<i32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(i32::from_be_bytes(field.try_into().expect("4 bytes")))
}

/// How far the packet reaches that these bytes begin with.
fn measure(have: &[u8], data_bytes_max: usize, from: From) -> Result<Extent, PacketError> {
    let (Some(kind), Some(len)) = (int_at(have, 0), int_at(have, 12)) else { return Ok(Extent::Wanting(HEAD_BYTES)) };
    let data_bytes = match usize::try_from(len) {
        Ok(bytes) if bytes <= data_bytes_max => bytes,
        Err(_) if len == -1 => 0,
        _ => return Err(PacketError::BadDataLength { kind, len, max: data_bytes_max }),
    };
    let data_end = HEAD_BYTES + data_bytes;
    let mut end = data_end + 4;
    let Some(count) = int_at(have, data_end) else { return Ok(Extent::Wanting(end)) };
    // A count below -1 is an empty list, as everywhere.
    let count = usize::try_from(count).unwrap_or(0);
    // The client of another server may have as many as it likes: its request is refused, and its server stays.
    let is_request = from == From::Learner && kind == kind::REQUEST;
    let refused = |bad: bool| match is_request && !bad {
        true => Ok(Extent::TooMany { data_end, strings: 2 * count }),
        false => Err(PacketError::BadIdentities { kind }),
    };
    if count > FORWARDED_IDENTITIES_MAX {
        return refused(false);
    }
    // Scheme and id of each.
    for _ in 0..2 * count {
        let Some(len) = int_at(have, end) else { return Ok(Extent::Wanting(end + 4)) };
        match usize::try_from(len) {
            Ok(bytes) if bytes <= FORWARDED_IDENTITY_BYTES_MAX => end += 4 + bytes,
            Err(_) if len == -1 => end += 4,
            result => return refused(result.is_err()),
        }
        if end - data_end > 4 + FORWARDED_IDENTITY_BYTES_MAX {
            return refused(false);
        }
    }
    Ok(if have.len() >= end { Extent::Whole { data_end, end } } else { Extent::Wanting(end) })
}

fn decode(packet: &[u8], data_end: usize, from: From) -> Result<Packet, PacketError> {
    let mut head = Reader::new(packet);
    let kind = head.int().unwrap_or_default();
    let zxid = Zxid(head.long().unwrap_or_default());
    let has_data = int_at(packet, 12) != Some(-1);
    let data = has_data.then_some(&packet[HEAD_BYTES..data_end]);
    let identities = &packet[data_end..];
    meaning(kind, zxid, data, identities, from).map_err(|source| PacketError::Malformed { kind, source })
}

/// What a packet says. A type that this sender never sends is as unknown as one that nobody sends.
fn meaning(kind: i32, zxid: Zxid, data: Option<&[u8]>, identities: &[u8], from: From) -> Result<Packet, JuteError> {
    let some_data = data.ok_or(JuteError::Null { at: HEAD_BYTES });
    let mut r = Reader::new(data.unwrap_or_default());
    Ok(match (from, kind) {
        (From::Learner, kind::REQUEST) => Packet::Request(ForwardedRequest {
            session: SessionId(r.long()?),
            cxid: r.int()?,
            op: r.int()?,
            body: r.rest().to_vec(),
            auth: read_identities(identities)?,
        }),
        (From::Learner, kind::ACK) => Packet::Ack { zxid },
        (From::Learner, kind::PING) => {
            let mut touched = Vec::with_capacity(r.rest().len() / TOUCHED_BYTES);
            while !r.is_empty() {
                touched.push((SessionId(r.long()?), r.int()?));
            }
            Packet::Ping { zxid, touched }
        }
        (From::Learner, kind::REVALIDATE) => Packet::Revalidate { session: SessionId(r.long()?), timeout_ms: r.int()? },
        (From::Learner, kind::FOLLOWER_INFO | kind::OBSERVER_INFO) => {
            // Each field came with a later release; one that is cut is not there.
            let server = r.long().ok().map(ServerId);
            let protocol = server.and_then(|_| r.int().ok());
            let config_version = protocol.and_then(|_| r.long().ok());
            Packet::LearnerInfo(LearnerInfo {
                observer: kind == kind::OBSERVER_INFO,
                accepted_epoch: epoch_of(zxid)?,
                server,
                protocol: protocol.unwrap_or_default(),
                history: config_version.and_then(|_| HistoryEnd::read(&mut r)),
                config_version: config_version.unwrap_or_default(),
            })
        }
        (From::Learner, kind::ACK_EPOCH) => {
            let epoch = match r.int()? {
                NO_EPOCH => None,
                epoch => Some(u32::try_from(epoch).map_err(|_| bad_value(i64::from(epoch)))?),
            };
            Packet::AckEpoch { zxid, epoch, reach: Reach::read(&mut r)?.map(Box::new) }
        }
        (From::Leader, kind::PROPOSAL) => Packet::Proposal { zxid, payload: some_data?.to_vec() },
        (From::Leader, kind::COMMIT) => Packet::Commit { zxid },
        (From::Leader, kind::PING) => match joint::read_mark(&mut r) {
            Some(foreign) => Packet::TellingPing { zxid, foreign },
            None => Packet::Ping { zxid, touched: Vec::new() },
        },
        (From::Leader, kind::REVALIDATE) => Packet::Revalidated { session: SessionId(r.long()?), valid: r.bool()? },
        (From::Leader, kind::SYNC) => Packet::Sync,
        (From::Leader, kind::INFORM) => Packet::Inform { zxid, payload: some_data?.to_vec() },
        (From::Leader, kind::COMMIT_AND_ACTIVATE) => {
            Packet::CommitAndActivate { zxid, designated: ServerId(r.long()?) }
        }
        (From::Leader, kind::NEW_LEADER) => {
            // Apache passes over a configuration of one byte, too.
            let config = data.filter(|config| config.len() > 1).unwrap_or_default();
            Packet::NewLeader { zxid, config: config.to_vec() }
        }
        (From::Leader, kind::UP_TO_DATE) => Packet::UpToDate,
        (From::Leader, kind::DIFF) => Packet::Diff { zxid },
        (From::Leader, kind::TRUNC) => Packet::Trunc { zxid },
        (From::Leader, kind::SNAP) => Packet::Snap { zxid, told: Told::read(&mut r) },
        (From::Leader, kind::LEADER_INFO) => {
            let ours = r.int().ok().and_then(|_| joint::read_mark(&mut r));
            Packet::LeaderInfo { epoch: epoch_of(zxid)?, ours }
        }
        (From::Leader, kind::INFORM_AND_ACTIVATE) => {
            let designated = ServerId(r.long()?);
            Packet::InformAndActivate { zxid, designated, payload: r.rest().to_vec() }
        }
        _ => Packet::Unknown { kind },
    })
}

/// The epoch that a zxid stands for. Epochs below 0 have no zxids that are ordered.
fn epoch_of(zxid: Zxid) -> Result<u32, JuteError> {
    if zxid < Zxid::ZERO { Err(bad_value(zxid.0)) } else { Ok(zxid.epoch()) }
}

fn bad_value(value: i64) -> JuteError {
    JuteError::BadValue { at: HEAD_BYTES, value }
}

/// A null name is an empty one: nobody has either.
fn read_identities(bytes: &[u8]) -> Result<Option<Vec<AuthId>>, JuteError> {
    let mut r = Reader::new(bytes);
    let Some(count) = r.count()? else { return Ok(None) };
    let mut identities = Vec::with_capacity(r.capacity_for(count, IDENTITY_BYTES_MIN));
    for _ in 0..count {
        let (scheme, id) = (r.string()?.unwrap_or_default(), r.string()?.unwrap_or_default());
        identities.push(AuthId::new(&scheme, id));
    }
    Ok(Some(identities))
}

#[cfg(test)]
mod tests;
