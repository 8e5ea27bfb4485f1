//! The disk of one simulated server: the transaction log with the part of it that is synced, snapshots, the two epoch
//! files. A crash of the process loses nothing that was written; a loss of power loses what was not synced, except for
//! as many of its first records as chance has it (the record after them is torn, and cut by recovery).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rookeeper::config::{self, Config, EnsembleConfig, Mode};
use rookeeper::ids::{SessionId, Zxid};
use rookeeper::jute::Reader;
use rookeeper::mail::{Dropped, LogRecord};
use rookeeper::quorum::joint::RecordMark;
use rookeeper::quorum::voters::Configs;
use rookeeper::quorum::{Epochs, Foreign, Foreigners, JoinStage, LogPart, WrongJoin};
use rookeeper::records::{Acl, StatPersisted};
use rookeeper::state::JointVerdict;
use rookeeper::state::{Loader, State, StateRules};
use rookeeper::storage::config_files::Step;
use rookeeper::threads::ensemble;
use rookeeper::txn::{DIGEST_VERSION, Txn};

use crate::random::Random;

/// Snapshots that are kept, with the log behind the oldest of them.
const SNAPSHOTS_MAX: usize = 3;

/// Where the configuration begins.
pub const ZOO_CFG: &str = "/c/zoo.cfg";

/// A state as of this zxid is being installed.
#[derive(Clone, Copy, Debug)]
struct Installing {
    zxid: Zxid,
    /// What becomes of the rest.
    dropped: Dropped,
    /// Its snapshot is there.
    is_durable: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Disk {
    log: Vec<LogRecord>,
    synced: usize,
    /// The log does not begin with the first transaction of all.
    has_forgotten: bool,
    /// Zxid and bytes, ascending.
    snapshots: Vec<(Zxid, Vec<u8>)>,
    accepted_epoch: Option<u32>,
    current_epoch: Option<u32>,
    /// `currentEpoch.tmp`: transactions of this epoch are made durable before `currentEpoch` is.
    announced_epoch: u32,
    /// Behind this transaction the newest log cannot be read.
    readable_to: Option<Zxid>,
    installing: Option<Installing>,
    /// `wrong-join`.
    wrong_join: Option<WrongJoin>,
    /// `foreign-histories`.
    pub foreigners: Foreigners,
    /// What was dropped from the log and not proven to be elsewhere.
    kept: Vec<LogRecord>,
    /// `give-up-history` is there.
    gives_up: bool,
    /// myid, zoo.cfg and the files beside it.
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// Of the configuration, what a start reads. Every host has an address.
impl config::World for Disk {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.get(path).cloned())
    }

    fn resolve(&self, _: &str) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// What a server finds at its start.
#[derive(Debug)]
pub struct Recovered {
    pub state: State,
    pub epochs: Epochs,
    /// The last transaction of the epochs before the last one.
    pub earlier: Option<Zxid>,
    /// How its transactions are known.
    pub marks: Vec<RecordMark>,
    /// What cannot be read.
    pub damage: Option<String>,
    /// What is left of a leader with another history.
    pub wrong_join: Option<WrongJoin>,
    /// The last records of the log, up to the last transaction.
    pub recent: Vec<LogRecord>,
}

impl Disk {
    /// Another one, with the same configuration, on which this was logged by a server alone, or nothing.
    pub fn exchange(&mut self, log: Vec<LogRecord>) {
        let files = std::mem::take(&mut self.files);
        *self = Disk { synced: log.len(), log, files, ..Disk::default() };
    }

    pub fn append(&mut self, records: &[LogRecord]) {
        self.log.extend_from_slice(records);
    }

    pub fn sync(&mut self) {
        self.synced = self.log.len();
    }

    /// The configuration that an operator has written.
    pub fn configure(&mut self, my_id: i64, members: &str) {
        let zoo_cfg = format!("dataDir=/d\ninitLimit=10\nsyncLimit=5\nreconfigEnabled=true\n{members}");
        self.write(Step::Replace(PathBuf::from("/d/myid"), my_id.to_string().into_bytes()));
        self.write(Step::Replace(PathBuf::from(ZOO_CFG), zoo_cfg.into_bytes()));
    }

    pub fn zoo_cfg(&self) -> Vec<u8> {
        self.files[Path::new(ZOO_CFG)].clone()
    }

    pub fn write(&mut self, step: Step) {
        match step {
            Step::Replace(path, bytes) => drop(self.files.insert(path, bytes)),
            Step::Remove(path) => drop(self.files.remove(&path)),
        }
    }

    /// What a start finds of the members.
    pub fn members(&self) -> Result<(EnsembleConfig, Configs), String> {
        let config = Config::load(Path::new(ZOO_CFG), &self.zoo_cfg(), &[], &[], self).0.map_err(|e| e.to_string())?;
        let Mode::Quorum(ensemble) = &config.mode else { return Err("it would run alone".to_owned()) };
        Ok(((**ensemble).clone(), ensemble::configs(&config, ensemble)))
    }

    pub fn set_accepted_epoch(&mut self, epoch: u32) {
        self.accepted_epoch = Some(epoch);
    }

    pub fn set_current_epoch(&mut self, epoch: u32) {
        self.current_epoch = Some(epoch);
        self.announced_epoch = 0;
    }

    /// A transaction, or a state as of it, is about to be made durable.
    pub fn announce_epoch_of(&mut self, zxid: Zxid) {
        if zxid.epoch() > self.current_epoch.unwrap_or(0).max(self.announced_epoch) {
            self.announced_epoch = zxid.epoch();
        }
    }

    /// The log behind the newest snapshot: what a start would replay. What stands before it may be a remnant of a history
    /// that was replaced.
    pub fn log(&self) -> &[LogRecord] {
        let newest = self.snapshots.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
        &self.log[self.log.partition_point(|record| record.zxid <= newest)..]
    }

    /// A snapshot is complete, synced and named. The log behind older ones goes when there are enough of them.
    pub fn add_snapshot(&mut self, zxid: Zxid, bytes: Vec<u8>) {
        if let Some(installing) = self.installing.as_mut().filter(|installing| installing.zxid == zxid) {
            installing.is_durable = true;
        }
        self.snapshots.retain(|(other, _)| *other != zxid);
        self.snapshots.push((zxid, bytes));
        self.snapshots.sort_by_key(|(zxid, _)| *zxid);
        while self.snapshots.len() > SNAPSHOTS_MAX {
            self.snapshots.remove(0);
            let oldest = self.snapshots[0].0;
            self.has_forgotten = true;
            let gone = self.log.partition_point(|record| record.zxid <= oldest);
            self.log.drain(..gone);
            self.synced = self.synced.saturating_sub(gone);
        }
    }

    /// Removes every record and snapshot behind this zxid. False: that point of the history is not here.
    pub fn truncate(&mut self, to: Zxid, dropped: Dropped) -> bool {
        let base = self.snapshots.iter().rev().find(|(zxid, _)| *zxid <= to).map(|(zxid, _)| *zxid);
        let base = base.or((!self.has_forgotten).then_some(Zxid::ZERO));
        let reaches = base == Some(to) || self.log.iter().any(|record| record.zxid == to);
        if base.is_none() || !reaches {
            return false;
        }
        self.snapshots.retain(|(zxid, _)| *zxid <= to);
        self.cut(to, dropped);
        true
    }

    /// A state as of this zxid comes. Until it is durable the old history stays.
    pub fn prepare_install(&mut self, zxid: Zxid, dropped: Dropped) {
        self.synced = self.log.len();
        self.installing = Some(Installing { zxid, dropped, is_durable: false });
    }

    /// Takes every record behind this zxid out of the log.
    fn cut(&mut self, zxid: Zxid, dropped: Dropped) {
        let left = self.log.partition_point(|record| record.zxid <= zxid);
        let rest = self.log.split_off(left);
        self.synced = left;
        self.keep(rest, dropped);
    }

    fn keep(&mut self, records: Vec<LogRecord>, dropped: Dropped) {
        if dropped != Dropped::Contained {
            self.kept.extend(records);
        }
    }

    /// An operator puts `give-up-history` there.
    pub fn give_up(&mut self) {
        self.gives_up = true;
    }

    /// Whether an operator did.
    pub fn gives_up(&self) -> bool {
        self.gives_up
    }

    /// What was set aside.
    pub fn kept(&self) -> &[LogRecord] {
        &self.kept
    }

    /// A state received from the leader is durable: all that was here before it goes.
    pub fn finish_install(&mut self, installed: Zxid) {
        self.snapshots.retain(|(zxid, _)| *zxid == installed);
        let gone = std::mem::take(&mut self.log);
        let dropped = self.installing.take().map_or(Dropped::Contained, |installing| installing.dropped);
        self.keep(gone, dropped);
        self.synced = 0;
        self.has_forgotten = true;
        self.readable_to = None;
        self.gives_up = false;
    }

    /// The process starts: finishes the installation during which the last one ended, if its snapshot is there.
    pub fn resume_install(&mut self) {
        if let Some(installing) = self.installing.filter(|installing| installing.is_durable) {
            self.finish_install(installing.zxid);
        }
        self.installing = None;
    }

    /// What a start is to know of a leader with another history.
    pub fn mark_wrong_join(&mut self, wrong: Option<WrongJoin>) {
        self.wrong_join = wrong;
    }

    /// The process starts: takes back what the last one had begun to take back.
    pub fn resume_take_back(&mut self) {
        let Some(wrong) = self.wrong_join.filter(|wrong| wrong.stage == JoinStage::Joined) else { return };
        self.wrong_join = if self.truncate(wrong.joint, Dropped::Foreign) {
            self.set_current_epoch(wrong.epoch);
            wrong.taken_back()
        } else {
            Some(wrong.not_taken_back())
        };
    }

    /// What a start finds of a joint of which nothing was known. Whether it is wrong: then it begins anew.
    pub fn judge_joint(&mut self, recovered: &mut Recovered) -> bool {
        let Some(unproven) = self.wrong_join.and_then(WrongJoin::unproven) else { return false };
        let verdict = recovered.state.take_joint_verdict();
        self.wrong_join = unproven.judged(verdict, &self.foreigners, recovered.state.last_zxid());
        recovered.wrong_join = self.wrong_join;
        if let Some(JointVerdict::Wrong(wrong)) = verdict {
            self.foreigners.insert(unproven.leader, Foreign::found(&unproven, &wrong, recovered.epochs.accepted));
        }
        self.wrong_join.is_some_and(|wrong| wrong.stage == JoinStage::Joined)
    }

    /// A sector goes bad in the log: of what stands behind the newest snapshot only the first few records can be read.
    pub fn damage(&mut self, readable: usize) {
        let newest = self.snapshots.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
        let last = readable.checked_sub(1).and_then(|at| self.log().get(at)).map_or(newest, |record| record.zxid);
        self.readable_to = Some(last);
    }

    /// The bad sector is put right.
    pub fn repair(&mut self) {
        self.readable_to = None;
    }

    /// The power went.
    pub fn lose_power(&mut self, random: &mut Random) {
        let unsynced = self.log.len() - self.synced;
        let survive = if random.one_in(2) { 0 } else { random.below(unsynced as u64 + 1) as usize };
        self.log.truncate(self.synced + survive);
        self.synced = self.log.len();
    }

    /// The last record goes, synced as it was.
    pub fn lose_last(&mut self) {
        self.log.pop();
        self.synced = self.log.len();
    }

    /// The process died, the machine did not: what was written is there.
    pub fn lose_process(&mut self) {
        self.synced = self.log.len();
    }

    /// The record `from`, and those behind it up to and including `to` if the log has them without a gap
    /// (`logdir::read_part`).
    pub fn read(&self, from: Zxid, to: Zxid) -> LogPart {
        let joint = self.log.iter().find(|record| record.zxid == from).cloned();
        let next = self.log.partition_point(|record| record.zxid <= from);
        let goes_on = |below: &&LogRecord| {
            joint.is_none() && self.log.get(next).is_some_and(|record| !self.is_gap(below.zxid, record.zxid))
        };
        let below = next.checked_sub(1).map(|at| &self.log[at]).filter(goes_on).cloned();
        LogPart { joint, below, records: self.read_behind(from, to) }
    }

    /// These transactions, both included, which were synced.
    pub fn read_back(&self, from: Zxid, to: Zxid) -> Vec<LogRecord> {
        self.log.iter().filter(|record| from <= record.zxid && record.zxid <= to).cloned().collect()
    }

    /// Whether a snapshot ends with this transaction, which then need not be in the log.
    pub fn has_snapshot_as_of(&self, zxid: Zxid) -> bool {
        self.snapshots.iter().any(|(as_of, _)| *as_of == zxid)
    }

    fn is_gap(&self, last: Zxid, next: Zxid) -> bool {
        let follows = next == last.next() || (next.epoch() > last.epoch() && next.counter() == 1);
        !follows || self.snapshots.iter().any(|(zxid, _)| last < *zxid && *zxid < next)
    }

    fn read_behind(&self, from: Zxid, to: Zxid) -> Option<Vec<LogRecord>> {
        let known = self.log.iter().position(|record| record.zxid == from)?;
        let end = self.log.iter().position(|record| record.zxid == to)?;
        let records = self.log.get(known..=end)?;
        (!records.windows(2).any(|pair| self.is_gap(pair[0].zxid, pair[1].zxid))).then(|| records[1..].to_vec())
    }

    /// What a start finds: the newest snapshot, and the log replayed over it.
    pub fn recover(&self, rules: StateRules, recent_max: usize) -> Result<Recovered, String> {
        let mut state = match self.snapshots.last() {
            None => State::fresh(rules),
            Some((zxid, bytes)) => {
                let mut state = load(bytes, rules, *zxid)?;
                // Its trailer says so.
                state.expect_digest(*zxid, DIGEST_VERSION, state.tree_digest());
                state
            }
        };
        let mut joint = self.wrong_join.and_then(WrongJoin::unproven).map(|wrong| wrong.joint);
        state.pass_joint(&mut joint);
        let mut last: Option<Zxid> = None;
        let (mut earlier, mut marks) = (None, Vec::new());
        let readable_to = self.readable_to.unwrap_or(Zxid(i64::MAX));
        for record in self.log.iter().take_while(|record| record.zxid <= readable_to) {
            if let Some(before) = last
                && record.zxid <= before
            {
                return Err(format!("the log has {} behind {before}", record.zxid));
            }
            last = Some(record.zxid);
            if record.zxid > state.last_zxid() {
                if record.zxid.epoch() > state.last_zxid().epoch() {
                    earlier = Some(state.last_zxid());
                }
                marks.push(RecordMark::of(record));
                let txn = Txn::from_bytes(&record.payload).map_err(|error| format!("{}: {error}", record.zxid))?;
                state.replay(&txn);
                state.pass_joint(&mut joint);
            }
        }
        let last = state.last_zxid();
        let mut epochs = Epochs {
            accepted: self.accepted_epoch.unwrap_or(last.epoch()),
            current: self.current_epoch.unwrap_or(last.epoch()),
        };
        if last.epoch() > epochs.current && last.epoch() <= self.announced_epoch {
            epochs.current = last.epoch();
        }
        if last.epoch() > epochs.current {
            return Err(format!("the log reaches {last}, the current epoch is only {}", epochs.current));
        }
        if epochs.accepted < epochs.current {
            return Err(format!("accepted epoch {} is below the current {}", epochs.accepted, epochs.current));
        }
        let recent: Vec<_> = self.log().iter().filter(|record| record.zxid <= readable_to).cloned().collect();
        let recent = recent[recent.len().saturating_sub(recent_max)..].to_vec();
        let damage = self.readable_to.map(|last| format!("its log cannot be read behind {last}"));
        let wrong_join = self.wrong_join;
        Ok(Recovered { state, epochs, earlier, marks, damage, wrong_join, recent })
    }
}

/// Reads the bytes of a snapshot, from the file header or from the sessions on, up to the end of the tree.
pub fn load(bytes: &[u8], rules: StateRules, zxid: Zxid) -> Result<State, String> {
    let bytes = if bytes.starts_with(b"ZKSN") { &bytes[16..] } else { bytes };
    let mut loader = Loader::new(rules);
    let mut r = Reader::new(bytes);
    load_parts(&mut r, &mut loader).map_err(|error| format!("snapshot {zxid}: {error}"))?;
    Ok(loader.finish(zxid))
}

fn load_parts(r: &mut Reader<'_>, loader: &mut Loader) -> Result<(), Box<dyn std::error::Error>> {
    for _ in 0..r.int()? {
        loader.session(SessionId(r.long()?), r.int()?);
    }
    for _ in 0..r.int()? {
        let index = r.long()?;
        loader.acl(index, Acl::read_list(r)?.unwrap_or_default());
    }
    loop {
        let path = r.required_string()?.into_owned();
        if path == "/" {
            return Ok(());
        }
        let data = r.buffer()?;
        let acl = r.long()?;
        loader.node(&path, data, acl, StatPersisted::read(r)?)?;
    }
}

/// Whether these are all the bytes of a snapshot on its way from a leader: its signature stands at the end.
pub fn is_whole_stream(bytes: &[u8]) -> bool {
    const END: &[u8] = b"\0\0\0\x01/\0\0\0\x0aBenWasHere";
    bytes.ends_with(END)
}
