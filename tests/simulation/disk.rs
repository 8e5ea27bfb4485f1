//! The disk of one simulated server: the real files, written and read by the real `storage`, on a disk in memory that
//! forgets what was not synced ([`volatile`](crate::volatile)). A crash of the process loses nothing that was written; a loss
//! of power loses any part of what was not synced. The process may die within any operation, at any of its changes.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rookeeper::config::ensemble::Server as ListedServer;
use rookeeper::config::voters::Configs;
use rookeeper::config::{self, Compression, Config, EnsembleConfig, Mode};
use rookeeper::engine::quorum::Store;
use rookeeper::engine::snapshots::{SnapshotConfig, Snapshots};
use rookeeper::engine::txnlog::{LogRules, Txnlog};
use rookeeper::ids::{ServerId, Zxid};
use rookeeper::mail::{LogRecord, ToTxnlog};
use rookeeper::quorum::{Epochs, Foreigners, LogPart};
use rookeeper::state::{State, StateRules};
use rookeeper::storage::config_files::{ConfigFiles, Step};
use rookeeper::storage::dirs::DataDirs;
use rookeeper::storage::epochs::{self, EpochFiles};
use rookeeper::storage::logdir::{LogFile, ReadBack, read_part};
use rookeeper::storage::purge::RETAIN_MIN;
use rookeeper::storage::recover::{RecoverOptions, Recovered, recover};
use rookeeper::storage::{foreign, names};
use rookeeper::sys::files::Dir;
use rookeeper::threads::ensemble;

use crate::plain_logs::PlainLogs;
use crate::random::Random;
use crate::server::STATE_RULES;
use crate::volatile::{Fault, VolatileDisk};

/// Where the configuration begins.
pub const ZOO_CFG: &str = "/c/zoo.cfg";

const RECORD_BYTES_MAX: usize = 1 << 20;
/// Room of a log file: it is full often.
const LOG_BYTES: usize = 6000;
/// Time is about a twentieth of a server's.
const PURGE_EVERY_MS: i64 = 300;
const SNAPSHOT_RETRY_MS: i64 = 250;
/// Changes that one operation of the disk makes, about.
const CHANGES: u64 = 12;

/// Why something was not done: the process died in it, or what is told is a fault of the server.
type Done<T> = Result<T, String>;

pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The log of a process.
pub type Log = Txnlog<PlainLogs, Box<dyn FnMut() -> io::Result<PlainLogs>>>;

/// See the module.
pub struct Disk {
    volatile: VolatileDisk,
    dirs: DataDirs,
    /// Of the process that runs.
    read_back: ReadBack,
    /// The bit that [`damage`](Disk::damage) turned round.
    rotten: Option<(PathBuf, usize)>,
}

/// Of the configuration, what a start reads. Every host has an address.
impl config::World for Disk {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match self.dirs.files().read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn resolve(&self, _: &str) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.volatile.fmt(f)
    }
}

impl Default for Disk {
    fn default() -> Disk {
        let volatile = VolatileDisk::new(&["/c", "/d"]);
        let dirs = DataDirs::within(&volatile.files(), Path::new("/d"), None);
        let read_back = ReadBack::default();
        Disk { volatile, dirs, read_back, rotten: None }
    }
}

impl Disk {
    /// Another one, with the same configuration, on which this was logged by a server alone, or nothing.
    pub fn exchange(&mut self, log: &[LogRecord]) {
        let configuration = self.volatile.contents().into_iter();
        let configuration: Vec<_> = configuration.filter(|(path, _)| !path.starts_with(&*self.dirs.logs)).collect();
        *self = Disk::default();
        configuration.iter().for_each(|(path, bytes)| self.put(path, bytes));
        if !log.is_empty() {
            self.log_alone(log);
        }
    }

    fn put(&self, path: &Path, bytes: &[u8]) {
        let files = self.dirs.files();
        files.write_durably(path, bytes).unwrap();
        files.sync_dir(path.parent().unwrap()).unwrap();
    }

    /// A server has started here, logged this, and ended.
    pub fn log_alone(&mut self, records: &[LogRecord]) {
        self.recover(0).unwrap();
        let mut log = self.open_log();
        let _ = log.on_mail(ToTxnlog::Append { records: records.to_vec(), then: Vec::new(), sent_us: 0 }).unwrap();
        log.roll().unwrap();
        self.end();
    }

    /// The epochs of a server that has never run.
    pub fn write_epochs(&self, epochs: Epochs) {
        self.dirs.prepare(true).unwrap();
        epochs::write_new(&self.dirs.snapshots, epochs).unwrap();
    }

    // The process.

    /// Whether the process died in an operation.
    pub fn is_dead(&self) -> bool {
        self.volatile.is_dead()
    }

    /// The process dies within one of the operations to come.
    pub fn die_within(&self, operations: u64, random: &mut Random) {
        self.volatile.at_change(1 + random.below(operations * CHANGES), Fault::Dies);
    }

    /// No more than so many bytes fit from now on.
    pub fn fill_up(&mut self, room: u64) {
        let bytes: u64 = self.volatile.contents().values().map(|content| content.len() as u64).sum();
        self.volatile.set_capacity(Some(bytes + room));
    }

    /// Whether it is full for a server that would start. Such a server waits.
    pub fn lacks_room(&self) -> bool {
        self.volatile.is_limited() && self.dirs.check_room().is_err()
    }

    /// Whether its room is bounded.
    pub fn is_limited(&self) -> bool {
        self.volatile.is_limited()
    }

    /// Nothing goes wrong any more.
    pub fn heal(&mut self) {
        self.volatile.set_capacity(None);
        self.volatile.clear_faults();
    }

    /// Syncs of this kind do nothing from now on, as long as this process lives: a deliberate wrong.
    pub fn lie_about(&mut self, what: &'static str) {
        self.volatile.lie_about(what);
    }

    /// The process dies, and of what it was about to do any part is done.
    pub fn die_in<T>(&self, doing: impl FnOnce() -> T, random: &mut Random) {
        self.die_within(1, random);
        // It dies, or all of it is done.
        doing();
    }

    /// The power went.
    pub fn lose_power(&mut self, random: &mut Random) {
        self.end();
        self.volatile.lose_power(random);
    }

    /// The process ended, the machine did not: what was written is there.
    pub fn end(&mut self) {
        self.forget_history();
        self.volatile.restart();
    }

    // The log.

    /// For a process that starts.
    pub fn open_log(&self) -> Log {
        let rules = LogRules {
            dirs: self.dirs.clone(),
            record_bytes_max: RECORD_BYTES_MAX,
            force_sync: true,
            roll_bytes: None,
            batch_records_max: 0,
            sync_warning_ms: u64::MAX,
        };
        let dirs = self.dirs.clone();
        Txnlog::new(rules, Box::new(move || Ok(PlainLogs::new(&dirs, LOG_BYTES))))
    }

    /// One of the changes in this may fail.
    pub fn fail_in<T>(&self, doing: impl FnOnce() -> T, random: &mut Random) -> T {
        self.volatile.at_change(1 + random.below(4), Fault::Fails(libc::EIO));
        let done = doing();
        self.volatile.clear_faults();
        done
    }

    /// What is read from now on is of another history.
    pub fn forget_history(&mut self) {
        self.read_back.forget();
    }

    /// All that is here goes, though nothing has taken its place: a deliberate wrong.
    pub fn forget_all(&mut self) -> Done<()> {
        for dir in [&self.dirs.logs, &self.dirs.snapshots] {
            let found = names::list_logs(dir).and_then(|logs| Ok([logs, names::list_snapshots(dir)?].concat()));
            for found in found.map_err(text)? {
                dir.files.remove_durably(&found.path).map_err(text)?;
            }
        }
        Ok(())
    }

    /// What the leader sent takes the place of all that is here.
    pub fn is_replaced(&mut self) {
        self.rotten = None;
    }

    /// The snapshots of a process that starts.
    pub fn open_snapshots(&self, damaged: bool, now_ms: i64) -> Snapshots {
        let config = SnapshotConfig {
            dirs: self.dirs.clone(),
            method: Compression::None,
            last_section: true,
            purge_every_ms: Some(PURGE_EVERY_MS),
            retain: RETAIN_MIN,
            retry_ms_min: SNAPSHOT_RETRY_MS,
            damaged,
        };
        Snapshots::new(config, now_ms)
    }

    /// The record `from`, and those behind it up to and including `to` if the log has them without a gap.
    pub fn read(&self, from: Zxid, to: Zxid) -> LogPart {
        read_part(&self.dirs, from, to, usize::MAX, RECORD_BYTES_MAX).unwrap_or_default()
    }

    /// These transactions, both included, which were synced.
    pub fn read_back(&mut self, from: Zxid, to: Zxid) -> Done<Vec<LogRecord>> {
        let read = self.read_back.read(&self.dirs.logs, from, to, RECORD_BYTES_MAX).map_err(text)?;
        read.ok_or_else(|| format!("{from} to {to} are not there"))
    }

    // What a start finds.

    /// The newest snapshot, and the log replayed over it.
    pub fn recover(&mut self, recent_max: usize) -> Done<Recovered> {
        let options = RecoverOptions { recent_max, ..options(STATE_RULES) };
        let recovered = recover(&self.dirs, &options).map_err(|error| error.with_way_out())?;
        Ok(recovered)
    }

    /// The state as of a transaction behind which everything was taken away.
    pub fn read_again(&self, to: Zxid) -> Done<State> {
        let options = RecoverOptions { as_of: Some(to), ..options(STATE_RULES) };
        Ok(recover(&self.dirs, &options).map_err(|error| error.with_way_out())?.state)
    }

    /// The files that say what was promised, for a process that has found this last transaction.
    pub fn open_store(&self, id: ServerId, own: &ListedServer, configs: Configs, last: Zxid) -> Done<Store> {
        let epoch_files = EpochFiles::open(&self.dirs.snapshots, last).map_err(text)?;
        let config_files = ConfigFiles::new(self.dirs.files(), Path::new(ZOO_CFG), id, own.clone(), configs);
        config_files.make_durable().map_err(text)?;
        Ok(Store { epoch_files, config_files, dirs: self.dirs.clone() })
    }

    pub fn foreigners(&self) -> Foreigners {
        foreign::read(&self.dirs.snapshots)
    }

    // The configuration.

    /// The configuration that an operator has written.
    pub fn configure(&mut self, my_id: i64, members: &str) {
        let zoo_cfg = format!("dataDir=/d\ninitLimit=10\nsyncLimit=5\nreconfigEnabled=true\n{members}");
        self.put(Path::new("/d/myid"), my_id.to_string().as_bytes());
        self.put(Path::new(ZOO_CFG), zoo_cfg.as_bytes());
    }

    pub fn zoo_cfg(&self) -> Vec<u8> {
        self.dirs.files().read(Path::new(ZOO_CFG)).unwrap()
    }

    /// The file system, for who writes the configuration.
    pub fn files(&self) -> rookeeper::sys::files::Files {
        self.dirs.files().clone()
    }

    pub fn write(&self, step: Step) -> Done<()> {
        step.take(self.dirs.files(), Path::new(ZOO_CFG)).map_err(text)
    }

    /// What a start finds of the members.
    pub fn members(&self) -> Done<(EnsembleConfig, Configs)> {
        let config = Config::load(Path::new(ZOO_CFG), &self.zoo_cfg(), &[], &[], self).0.map_err(text)?;
        let Mode::Quorum(ensemble) = &config.mode else { return Err("it would run alone".to_owned()) };
        Ok(((**ensemble).clone(), ensemble::configs(&config, ensemble)))
    }

    // What an operator does, and what the disk does by itself.

    /// An operator puts `give-up-history` there.
    pub fn give_up(&self) {
        self.put(&self.dirs.give_up, b"");
    }

    /// Whether an operator did.
    pub fn gives_up(&self) -> bool {
        self.dirs.files().exists(&self.dirs.give_up)
    }

    /// A bit of the log turns round: of what stands behind the newest snapshot only the first few records can be read.
    pub fn damage(&mut self, readable: usize) {
        let wanted = self.log()[readable].zxid;
        let (path, offset) = self.find(wanted).expect("it is in the log");
        let at = offset as usize + 20;
        self.volatile.rot(&path, |bytes| bytes[at] ^= 1);
        self.rotten = Some((path, at));
    }

    /// A bit of a log or snapshot turns round; false if there is none.
    pub fn rot(&mut self, random: &mut Random) -> bool {
        let files: Vec<(PathBuf, Vec<u8>)> = self.volatile.contents().into_iter().collect();
        let of_data = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            path.parent() == Some(&*self.dirs.logs)
                && (names::parse_log(name).is_some() || names::parse_snapshot(name).is_some())
        };
        let data: Vec<_> = files.into_iter().filter(|(path, bytes)| of_data(path) && !bytes.is_empty()).collect();
        if data.is_empty() {
            return false;
        }
        let (path, bytes) = random.pick(&data);
        let (at, bit) = (random.index(bytes.len()), random.below(8));
        self.volatile.rot(path, |bytes| bytes[at] ^= 1 << bit);
        true
    }

    /// It is put right.
    pub fn repair(&mut self) {
        if let Some((path, at)) = self.rotten.take() {
            self.volatile.rot(&path, |bytes| bytes[at] ^= 1);
        }
    }

    /// The last record goes, synced as it was.
    pub fn lose_last(&mut self) {
        let Some(last) = self.log().pop() else { return };
        let (path, offset) = self.find(last.zxid).expect("it is in the log");
        self.volatile.rot(&path, |bytes| bytes.truncate(offset as usize));
    }

    /// The log that holds a transaction, and where.
    fn find(&self, wanted: Zxid) -> Option<(PathBuf, u64)> {
        for found in names::list_logs(&self.dirs.logs).ok()? {
            let Ok(mut log) = LogFile::open(self.dirs.files(), found.path.clone(), RECORD_BYTES_MAX) else { continue };
            while let Ok(Some(entry)) = log.next_entry() {
                if entry.txn.header.zxid == wanted {
                    return Some((found.path, entry.offset));
                }
            }
        }
        None
    }

    // What checks look at.

    /// The log behind the newest snapshot, as far as it can be read: what a start would replay.
    pub fn log(&self) -> Vec<LogRecord> {
        let snapshots = names::list_snapshots(&self.dirs.snapshots).unwrap_or_default();
        let newest = snapshots.last().map_or(Zxid::ZERO, |newest| newest.zxid);
        let mut records = records_in(&self.dirs.logs);
        records.retain(|record| record.zxid > newest);
        records
    }

    /// What was set aside.
    pub fn kept(&self) -> Vec<LogRecord> {
        let mut kept = Vec::new();
        for prefix in names::KEPT_PREFIXES {
            for folder in names::list_kept(&self.dirs.logs, prefix).unwrap_or_default() {
                kept.extend(records_in(&Dir::new(self.dirs.files(), folder)));
            }
        }
        kept
    }

    /// Whether a snapshot ends with this transaction, which then need not be in the log.
    pub fn has_snapshot_as_of(&self, zxid: Zxid) -> bool {
        let snapshots = names::list_snapshots(&self.dirs.snapshots).unwrap_or_default();
        snapshots.iter().any(|found| found.zxid == zxid)
    }
}

fn options(rules: StateRules) -> RecoverOptions {
    RecoverOptions {
        rules,
        datadir_autocreate: true,
        db_autocreate: true,
        trust_empty: false,
        record_bytes_max: RECORD_BYTES_MAX,
        recent_max: 0,
        as_of: None,
        force_sync: true,
        repairable: true,
    }
}

/// Every record of a folder's logs that can be read, in order.
fn records_in(dir: &Dir) -> Vec<LogRecord> {
    let mut records = Vec::new();
    for found in names::list_logs(dir).unwrap_or_default() {
        let Ok(mut log) = LogFile::open(&dir.files, found.path, RECORD_BYTES_MAX) else { continue };
        loop {
            match log.next_entry() {
                Ok(Some(entry)) => {
                    records.push(LogRecord { zxid: entry.txn.header.zxid, payload: log.payload().to_vec() });
                }
                Ok(None) => break,
                Err(_) if log.find_next().unwrap_or(false) => {}
                Err(_) => break,
            }
        }
    }
    records.sort_by_key(|record| record.zxid);
    records.dedup();
    records
}
