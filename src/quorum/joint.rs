//! Whether two histories are one: a zxid alone does not tell, since servers that lost their disks begin again with epochs
//! that others had before. Between two servers of ours a learner says, behind Apache's bytes of ACKEPOCH, by what its last
//! transactions can be known; the leader compares, and says behind Apache's bytes of SNAP what it found. Each also tells the
//! other whose histories it knows to be others, behind Apache's bytes of ACKEPOCH, LEADERINFO and PING. Apache reads
//! the first bytes and passes over the rest. Pure.
//!
//! A transaction is known by the checksum of its record, as the log has it; where one side has no record any more, by the
//! digest of the tree after it. Of a multi the header counts alone, since an Apache leader alters a failed one in its memory.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::ids::{ServerId, Zxid};
use crate::jute::{JuteError, Reader, Writer, len_i32};
use crate::mail::LogRecord;
use crate::txn::{DIGEST_VERSION, Txn, TxnHeader, kind};

/// Where the history of a server may end that is known to be another one than this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ends {
    /// Its last transaction is one of these.
    pub zxids: RangeInclusive<Zxid>,
    /// It was of this epoch when that was found. One that is said to be of an earlier epoch has taken its place since.
    pub epoch: u32,
}

impl Ends {
    /// Those of a history that ends there, and not elsewhere.
    pub fn at(end: HistoryEnd) -> Ends {
        Ends { zxids: end.last..=end.last, epoch: end.latest_epoch() }
    }

    /// Whether a history that ends there may be that one, as far as the zxid tells.
    pub fn contains(&self, last: Zxid) -> bool {
        self.zxids.contains(&last)
    }

    /// Whether it may be that one, as far as its epoch tells, too.
    pub fn may_be(&self, end: HistoryEnd) -> bool {
        self.contains(end.last) && end.latest_epoch() >= self.epoch
    }

    /// Whether a history may end there that is another one: with nothing none is, and who comes with nothing is always taken.
    pub(super) fn may_be_foreign(&self) -> bool {
        *self.zxids.start() > Zxid::ZERO && !self.zxids.is_empty()
    }
}

impl From<RangeInclusive<Zxid>> for Ends {
    /// Nothing tells of an epoch but the zxids.
    fn from(zxids: RangeInclusive<Zxid>) -> Ends {
        let epoch = zxids.start().epoch();
        Ends { zxids, epoch }
    }
}

/// The servers of which that is known.
pub type ForeignEnds = BTreeMap<ServerId, Ends>;

/// That is one of those; what was known of that server is not forgotten for it.
pub(super) fn note_foreign(known: &mut ForeignEnds, server: ServerId, ends: Ends) {
    let before = known.get(&server).unwrap_or(&ends);
    let zxids = *ends.zxids.start().min(before.zxids.start())..=*ends.zxids.end().max(before.zxids.end());
    let epoch = ends.epoch.max(before.epoch);
    known.insert(server, Ends { zxids, epoch });
}

/// How many of those are told at most: of more servers than an ensemble has.
const FOREIGN_MAX: usize = 64;

/// Records that a learner names at most: a leader's history that ends before all of them is told by a snapshot.
const RECORDS_MAX: usize = 512;

/// The digest of the tree that every server begins with.
const EMPTY_TREE: u64 = 1_371_985_504;

/// Marks what follows Apache's bytes as ours.
const MAGIC: i32 = 0x524b_4a31;

/// The ways out for the operator of an ensemble that leaves out a server with another history.
pub(super) fn choices(server: ServerId, to_give_up: &str) -> String {
    let id = server.0;
    format!(
        "Server {id} is left out. If its data are the right ones: stop the other servers, move their version-2 folders away, \
         restart server {id}, and start the others after it. If not: {to_give_up}"
    )
}

/// How a server gives up its history whose own software asks nobody.
pub(super) fn give_up_by_hand(server: ServerId) -> String {
    format!("stop server {}, move its version-2 folder away, and start it again", server.0)
}

/// A leader that compares histories says so, behind Apache's bytes of LEADERINFO and PING, and whose it knows to be others.
pub(super) fn write_mark(out: &mut Vec<u8>, foreign: &ForeignEnds) {
    out.put_int(MAGIC);
    put_foreign(out, foreign);
}

/// Reads it, if it is there.
pub(super) fn read_mark(r: &mut Reader<'_>) -> Option<ForeignEnds> {
    let is_ours = r.int().ok()? == MAGIC;
    is_ours.then(|| read_foreign(r).unwrap_or_default())
}

fn put_foreign(out: &mut Vec<u8>, foreign: &ForeignEnds) {
    if foreign.is_empty() {
        return;
    }
    out.put_int(len_i32(foreign.len().min(FOREIGN_MAX)));
    for (server, Ends { zxids, epoch }) in foreign.iter().take(FOREIGN_MAX) {
        [server.0, zxids.start().0, zxids.end().0].into_iter().for_each(|field| out.put_long(field));
        out.put_int(epoch.cast_signed());
    }
}

/// Nothing, where nothing stands there.
fn read_foreign(r: &mut Reader<'_>) -> Result<ForeignEnds, JuteError> {
    let mut foreign = ForeignEnds::new();
    let count = if r.is_empty() { 0 } else { r.int()? };
    for _ in 0..count.clamp(0, FOREIGN_MAX as i32) {
        let server = ServerId(r.long()?);
        let zxids = Zxid(r.long()?)..=Zxid(r.long()?);
        foreign.insert(server, Ends { zxids, epoch: r.int()?.cast_unsigned() });
    }
    Ok(foreign)
}

/// How a record is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordMark {
    /// Which.
    pub zxid: Zxid,
    /// Adler-32 of its payload, as in the log; of a multi, of the header in it.
    pub checksum: u32,
    /// Bytes of the same.
    pub length: u32,
    /// The digest of the tree after it, if that is known.
    pub tree: Option<u64>,
}

impl RecordMark {
    /// Of this record.
    pub fn of(record: &LogRecord) -> RecordMark {
        let header = TxnHeader::bytes_in(&record.payload);
        let header = header.filter(|_| TxnHeader::kind_in(&record.payload) == Some(kind::MULTI));
        let known = header.unwrap_or(&record.payload);
        let checksum = simd_adler32::adler32(&known);
        let length = u32::try_from(known.len()).unwrap_or(u32::MAX);
        RecordMark { zxid: record.zxid, checksum, length, tree: tree_after(record) }
    }

    /// How its point of the history is known.
    pub fn witness(&self) -> Witness {
        Witness { record: Some((self.checksum, self.length)), tree: self.tree }
    }
}

/// How one point of a history is known, by as much as is at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Witness {
    /// The record that ends there.
    pub record: Option<(u32, u32)>,
    /// The digest of the tree after it.
    pub tree: Option<u64>,
}

impl Witness {
    /// From a record, and the tree after it if it says so.
    pub fn of_record(record: &LogRecord) -> Witness {
        RecordMark::of(record).witness()
    }

    /// Whether the two are one point of one history; `None`: nothing that both have tells.
    pub fn agrees(&self, other: &Witness) -> Option<bool> {
        if let (Some(one), Some(two)) = (self.record, other.record) {
            return Some(one == two);
        }
        match (self.tree?, other.tree?) {
            (one, two) if one != two => Some(false),
            // Every history has it, as long as only sessions come and go.
            (EMPTY_TREE, _) => None,
            _ => Some(true),
        }
    }
}

/// The digest of the tree after a transaction, if its record has it.
pub fn tree_after(record: &LogRecord) -> Option<u64> {
    let digest = Txn::from_bytes(&record.payload).ok()?.digest?;
    (digest.version == DIGEST_VERSION).then_some(digest.tree_digest)
}

/// Whether a record changes nothing: a failed request. It has no digest; the one before it holds.
pub fn changes_nothing(record: &LogRecord) -> bool {
    TxnHeader::kind_in(&record.payload) == Some(kind::ERROR)
}

/// The end of a learner's history, behind Apache's bytes of FOLLOWERINFO and OBSERVERINFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryEnd {
    /// Its currentEpoch: the last epoch whose leader's history it took.
    pub epoch: u32,
    /// Its last transaction.
    pub last: Zxid,
}

impl HistoryEnd {
    /// The latest epoch that it tells of.
    pub fn latest_epoch(&self) -> u32 {
        self.epoch.max(self.last.epoch())
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_int(MAGIC);
        out.put_int(self.epoch.cast_signed());
        out.put_long(self.last.0);
    }

    /// Reads it, if it is there.
    pub(super) fn read(r: &mut Reader<'_>) -> Option<HistoryEnd> {
        let is_ours = r.int().ok()? == MAGIC;
        let (epoch, last) = (r.int().ok()?.cast_unsigned(), Zxid(r.long().ok()?));
        is_ours.then_some(HistoryEnd { epoch, last })
    }
}

/// What a learner says of its history, behind Apache's bytes of ACKEPOCH.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reach {
    /// Where it ends, also where Apache's bytes ask for a snapshot.
    pub end: HistoryEnd,
    /// The digest of its tree.
    pub tree: Option<u64>,
    /// Its last records, ascending.
    pub records: Vec<RecordMark>,
    /// What it found out of others, and its leader may not know.
    pub foreign: ForeignEnds,
}

impl Reach {
    /// Whether this history ends with nothing.
    pub fn is_empty(&self) -> bool {
        self.end.last == Zxid::ZERO
    }

    /// How a transaction of it is known; `None`: not at all.
    pub fn witness(&self, zxid: Zxid) -> Option<Witness> {
        let mark = self.records.binary_search_by_key(&zxid, |record| record.zxid).ok().map(|at| &self.records[at]);
        let tree = self.tree.filter(|_| zxid == self.end.last);
        match mark.map(RecordMark::witness) {
            Some(witness) => Some(Witness { tree: tree.or(witness.tree), ..witness }),
            None => tree.map(|tree| Witness { record: None, tree: Some(tree) }),
        }
    }

    /// The points that are known, the last one first.
    pub fn points(&self) -> impl Iterator<Item = Zxid> + '_ {
        let last = self.records.last().map(|record| record.zxid);
        let end = Some(self.end.last).filter(|end| last != Some(*end));
        end.into_iter().chain(self.records.iter().rev().map(|record| record.zxid))
    }

    /// Of these records, ascending, the last ones are named, and in front of them others of which is known how.
    pub fn new<'a>(
        end: HistoryEnd,
        tree: Option<u64>,
        marks: &[RecordMark],
        records: impl DoubleEndedIterator<Item = &'a LogRecord>,
    ) -> Reach {
        let mut named: Vec<RecordMark> = records.rev().take(RECORDS_MAX).map(RecordMark::of).collect();
        let oldest = named.last().map_or(Zxid(i64::MAX), |record| record.zxid);
        named.extend(marks.iter().rev().filter(|mark| mark.zxid < oldest));
        named.reverse();
        Reach { end, tree, records: named, foreign: ForeignEnds::new() }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.end.write(out);
        put_digest(out, self.tree);
        out.put_int(len_i32(self.records.len()));
        for RecordMark { zxid, checksum, length, tree } in &self.records {
            out.put_long(zxid.0);
            out.put_int(checksum.cast_signed());
            out.put_int(length.cast_signed());
            put_digest(out, *tree);
        }
        put_foreign(out, &self.foreign);
    }

    /// Reads it; `None` if there is something else, or nothing.
    pub(super) fn read(r: &mut Reader<'_>) -> Result<Option<Reach>, JuteError> {
        let Some(end) = HistoryEnd::read(r) else { return Ok(None) };
        let tree = digest(r)?;
        let count = r.count()?.unwrap_or(0);
        let mut records = Vec::with_capacity(r.capacity_for(count, RECORD_MARK_BYTES));
        for _ in 0..count {
            let (zxid, checksum, length) = (Zxid(r.long()?), r.int()?.cast_unsigned(), r.int()?.cast_unsigned());
            records.push(RecordMark { zxid, checksum, length, tree: digest(r)? });
        }
        let foreign = read_foreign(r)?;
        // Who sends them in disorder is only not found.
        Ok(Some(Reach { end, tree, records, foreign }))
    }
}

/// Bytes of a [`RecordMark`] on the wire.
const RECORD_MARK_BYTES: usize = 25;

fn put_digest(out: &mut Vec<u8>, digest: Option<u64>) {
    out.put_bool(digest.is_some());
    out.put_long(digest.unwrap_or_default().cast_signed());
}

fn digest(r: &mut Reader<'_>) -> Result<Option<u64>, JuteError> {
    let (is_known, digest) = (r.bool()?, r.long()?.cast_unsigned());
    Ok(is_known.then_some(digest))
}

/// What a leader found of a learner's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// The whole of it is a part of the leader's.
    Contained,
    /// Up to this transaction they are one; what the learner has behind it, the leader has not.
    Parted {
        /// The last common one.
        at: Zxid,
    },
    /// Both have this transaction, and it is not the same: they parted somewhere before it.
    Differs {
        /// The last one that was compared.
        at: Zxid,
    },
    /// The leader has not the learner's last transaction, and goes on behind this one instead; whether that is common is not
    /// known.
    Absent {
        /// The last one of the leader before it.
        below: Zxid,
    },
    /// Nothing tells.
    Unknown,
}

/// Behind Apache's bytes of SNAP: what a learner is to know before it gives up its own history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// What was found.
    pub relation: Relation,
    /// The leader serves: a quorum has its history.
    pub established: bool,
}

impl Told {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (code, at) = match self.relation {
            Relation::Unknown => (0, Zxid::ZERO),
            Relation::Contained => (1, Zxid::ZERO),
            Relation::Parted { at } => (2, at),
            Relation::Differs { at } => (3, at),
            Relation::Absent { below } => (4, below),
        };
        out.put_int(MAGIC);
        out.put_int(code);
        out.put_long(at.0);
        out.put_bool(self.established);
    }

    /// Reads it; `None` if there is something else, or nothing.
    pub(super) fn read(r: &mut Reader<'_>) -> Option<Told> {
        let is_ours = r.int().ok()? == MAGIC;
        let (code, at, established) = (r.int().ok()?, Zxid(r.long().ok()?), r.bool().ok()?);
        let relation = match code {
            1 => Relation::Contained,
            2 => Relation::Parted { at },
            3 => Relation::Differs { at },
            4 => Relation::Absent { below: at },
            _ => Relation::Unknown,
        };
        is_ours.then_some(Told { relation, established })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;
    use crate::quorum::packet::{From, LearnerInfo, PROTOCOL, Packet, PacketDecoder};
    use crate::state::{State, StateRules};
    use crate::txn::TxnBody;

    fn encoded(packet: &Packet, from: From) -> Vec<u8> {
        let mut out = Vec::new();
        packet.encode(from, &mut out);
        out
    }

    fn decoded(bytes: &[u8], from: From) -> Packet {
        let mut decoder = PacketDecoder::new(from, 1 << 20);
        decoder.feed(bytes);
        decoder.next_packet().unwrap().unwrap()
    }

    #[test]
    fn what_servers_say_of_histories_stands_behind_the_bytes_that_apache_reads() {
        let end = HistoryEnd { epoch: 7, last: Zxid(0x7_0000_0009) };
        let plain = LearnerInfo {
            observer: false,
            accepted_epoch: 8,
            server: Some(ServerId(3)),
            protocol: PROTOCOL,
            config_version: 0x10,
            history: None,
        };
        let info = LearnerInfo { history: Some(end), ..plain };
        let record = RecordMark { zxid: Zxid(5), checksum: u32::MAX, length: 77, tree: Some(8) };
        let later = Ends::at(HistoryEnd { epoch: 7, last: Zxid(5) });
        let foreign = ForeignEnds::from([(ServerId(2), (Zxid(4)..=Zxid(9)).into()), (ServerId(3), later)]);
        let reach = Reach { end, tree: Some(u64::MAX - 1), records: vec![record], foreign: foreign.clone() };
        let told = |relation| Some(Told { relation, established: true });
        let zxid = end.last;
        let mut pairs = vec![
            (From::Learner, Packet::LearnerInfo(info), Packet::LearnerInfo(plain), 20),
            (
                From::Learner,
                Packet::AckEpoch { zxid, epoch: Some(7), reach: Some(Box::new(reach)) },
                Packet::AckEpoch { zxid, epoch: Some(7), reach: None },
                4,
            ),
        ];
        let leader_info = |ours| Packet::LeaderInfo { epoch: 7, ours };
        for ours in [ForeignEnds::new(), foreign] {
            pairs.push((From::Leader, leader_info(Some(ours)), leader_info(None), 4));
        }
        for relation in [
            Relation::Contained,
            Relation::Parted { at: Zxid(4) },
            Relation::Differs { at: Zxid(5) },
            Relation::Absent { below: Zxid(6) },
            Relation::Unknown,
        ] {
            let plain = Packet::Snap { zxid, told: None };
            pairs.push((From::Leader, Packet::Snap { zxid, told: told(relation) }, plain, 0));
        }
        for (from, ours, apaches, data_bytes) in pairs {
            let (long, short) = (encoded(&ours, from), encoded(&apaches, from));
            assert_eq!(decoded(&long, from), ours);
            assert_eq!(decoded(&short, from), apaches);
            // Kind and zxid, then behind the length the data that Apache knows.
            assert_eq!(long[..12], short[..12]);
            assert_eq!(long[16..16 + data_bytes], short[16..16 + data_bytes]);
            // What is cut, or is something else, is not there; a list that is cut is an error.
            let mut other = long.clone();
            other[16 + data_bytes] ^= 1;
            assert_eq!(decoded(&other, from), apaches);
        }
    }

    #[test]
    fn a_history_that_is_of_an_earlier_epoch_than_the_one_that_was_found_has_taken_its_place() {
        let last = Zxid(1 << 32 | 9);
        let end = |epoch, last| HistoryEnd { epoch, last };
        let later = Ends::at(end(3, last));
        for (heard, is_it) in [
            (end(3, last), true),
            (end(4, last), true),
            (end(2, last), false),
            (end(3, last.next()), false),
            (end(0, Zxid::ZERO), false),
        ] {
            assert_eq!(later.may_be(heard), is_it, "{heard:?}");
        }
        // What else is known of that server is not forgotten for it.
        let mut known = ForeignEnds::from([(ServerId(1), later)]);
        note_foreign(&mut known, ServerId(1), (Zxid(5)..=Zxid(9)).into());
        assert_eq!(known[&ServerId(1)], Ends { zxids: Zxid(5)..=last, epoch: 3 });
    }

    #[test]
    fn one_point_of_two_histories_is_known_by_the_record_or_by_the_tree() {
        let record = |checksum| Witness { record: Some((checksum, 10)), tree: None };
        let tree = |digest| Witness { record: None, tree: Some(digest) };
        assert_eq!(record(1).agrees(&record(1)), Some(true));
        assert_eq!(record(1).agrees(&record(2)), Some(false));
        assert_eq!(tree(1).agrees(&tree(2)), Some(false));
        assert_eq!(record(1).agrees(&tree(1)), None);
        assert_eq!(tree(1).agrees(&tree(1)), Some(true));
        let empty = State::fresh(StateRules::default()).exact_digest();
        assert_eq!(empty, Some(EMPTY_TREE));
        assert_eq!(tree(EMPTY_TREE).agrees(&tree(EMPTY_TREE)), None, "histories of nothing but sessions all have it");
        // Sessions that come and go leave the tree as it was.
        let both = |checksum| Witness { tree: Some(9), ..record(checksum) };
        assert_eq!(both(1).agrees(&both(2)), Some(false));
    }

    #[test]
    fn a_multi_is_known_by_its_header_since_an_apache_leader_alters_a_failed_one() {
        let record = |cxid, sub| {
            let header = TxnHeader { client_id: SessionId(7), cxid, zxid: Zxid(5), time_ms: 1 };
            let txn = Txn { header, body: TxnBody::Multi(vec![TxnBody::Error(sub)]), digest: None };
            LogRecord { zxid: Zxid(5), payload: txn.to_bytes() }
        };
        assert_eq!(RecordMark::of(&record(1, 0)), RecordMark::of(&record(1, -2)));
        assert_ne!(RecordMark::of(&record(1, 0)), RecordMark::of(&record(2, 0)));
    }
}
