//! Snapshots: writes the stream that the pipeline hands over, gives the file its name once it is whole and durable, and
//! purges old files. A snapshot that cannot be written is told and taken anew after a pause, longer each time: the log has
//! everything, and is not purged without one.
//!
//! What was written is read back beside all that ([`Snapshots::next_reading`]), and nobody waits for it: elections and
//! installations need a durable snapshot, and what goes because of one goes by a verification of the purge's own. One that reads
//! back damaged is told and keeps its name. Recovery then passes it over and insists on what it held; without it, an
//! installed state that nothing else holds would look like no data at all.
//!
//! Once a second it looks whether somebody has taken all snapshots away, and then has another one made.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::Compression;
use crate::ids::Zxid;
use crate::mail::{Mail, ToPipeline, ToSnapshot};
use crate::metrics;
use crate::storage::dirs::DataDirs;
use crate::storage::names;
use crate::storage::purge::{Removals, Verified, deciding, removed_name, verify, verify_kept};
use crate::storage::snapshot::{SnapshotError, SnapshotWriter};
use crate::sys::files::{self, CUT_PAUSE, Dir, Files};
use crate::sys::paced_file::PacedFile;

/// How snapshots are written, and how long files are kept.
#[derive(Clone, Debug)]
pub struct SnapshotConfig {
    /// Where.
    pub dirs: DataDirs,
    /// `snapshot.compression.method`.
    pub method: Compression,
    /// `serializeLastProcessedZxid.enabled`: 3.9's last section.
    pub last_section: bool,
    /// `autopurge.purgeInterval`, ms; `None` is never.
    pub purge_every_ms: Option<i64>,
    /// `autopurge.snapRetainCount`.
    pub retain: usize,
    /// Between a snapshot that cannot be written and the next attempt, the first time, ms.
    pub retry_ms_min: i64,
    /// The files here are damaged, and those that are readable may be needed: none is purged until a whole state is saved.
    pub damaged: bool,
}

/// A snapshot cannot be written.
#[derive(Debug, Error)]
#[error("{} cannot be written: {source}; {}. Nothing is lost: the log has everything, and is kept", path.display(), files::advice(source))]
pub struct SnapshotWriteError {
    path: PathBuf,
    source: io::Error,
}

/// [`SnapshotConfig::retry_ms_min`] of a server.
pub const RETRY_MS_MIN: i64 = 5_000;
/// The pause before the next attempt grows to so many times what it is the first time.
const RETRY_GROWTH_MAX: i64 = 60;

/// When a snapshot that could not be written is tried again.
#[derive(Debug, Default)]
struct Retry {
    /// After the first of them.
    pause_ms_min: i64,
    /// Failures in a row.
    failures: u32,
    /// The pause that begins as soon as the time is known: a disk may take long to fail.
    pause_ms: Option<i64>,
    at_ms: Option<i64>,
}

impl Retry {
    /// Gives the pause.
    fn on_failed(&mut self) -> i64 {
        let pause_ms = self.pause_ms_min * (1 << self.failures.min(16)).min(RETRY_GROWTH_MAX);
        self.failures = self.failures.saturating_add(1);
        self.pause_ms = Some(pause_ms);
        pause_ms
    }

    /// Whether it is time; then this is the time.
    fn is_due(&mut self, now_ms: i64) -> bool {
        if let Some(pause_ms) = self.pause_ms.take() {
            self.at_ms = Some(now_ms + pause_ms);
        }
        self.at_ms.take_if(|at_ms| *at_ms <= now_ms).is_some()
    }

    /// One is written: no other attempt is due.
    fn begin(&mut self) {
        (self.pause_ms, self.at_ms) = (None, None);
    }

    /// It can be written again.
    fn end(&mut self) {
        self.failures = 0;
        self.begin();
    }

    fn publish(&self) {
        metrics::SNAPSHOT_FAILURES_IN_A_ROW.set(i64::from(self.failures));
    }
}

/// Between two looks whether there is a snapshot, ms.
const LOOK_PAUSE_MS: i64 = 1_000;

/// Looks whether somebody takes away all snapshots of a running server. The log behind them may be purged: then a start has
/// nothing to begin with. (Where some are left, the log is there as of the oldest.)
#[derive(Debug)]
struct SnapshotWatch {
    next_ms: i64,
    had_some: bool,
}

impl SnapshotWatch {
    /// Knows from the beginning whether there are some: they may be gone before the first turn.
    fn begin(dir: &Dir, now_ms: i64) -> SnapshotWatch {
        let mut snapshot_watch = SnapshotWatch { next_ms: now_ms, had_some: false };
        snapshot_watch.misses_all(dir, now_ms);
        snapshot_watch
    }

    /// Whether there is none any more.
    fn misses_all(&mut self, dir: &Dir, now_ms: i64) -> bool {
        if now_ms < self.next_ms {
            return false;
        }
        self.next_ms = now_ms + LOOK_PAUSE_MS;
        // Where the folder cannot be read, the thread of the log finds out why.
        let Ok(found) = names::list_snapshots(dir) else { return false };
        std::mem::replace(&mut self.had_some, !found.is_empty()) && found.is_empty()
    }
}

/// See the module.
pub struct Snapshots {
    config: SnapshotConfig,
    /// Nothing while none is written, and after it could not be: what else comes of that one is thrown away.
    writing: Option<Writing>,
    retry: Retry,
    snapshot_watch: SnapshotWatch,
    removals: Removals,
    /// As [`SnapshotConfig::damaged`], until a whole state is saved.
    damaged: bool,
    /// When files are purged next, if they are at all; none: that long after the next turn.
    purge_at_ms: Option<i64>,
    unverified: Option<Written>,
    /// What the turn has to say.
    posts: Vec<Mail>,
}

impl Snapshots {
    /// Begins at this time, monotonic ms.
    pub fn new(config: SnapshotConfig, now_ms: i64) -> Snapshots {
        Snapshots {
            writing: None,
            retry: Retry { pause_ms_min: config.retry_ms_min, ..Retry::default() },
            snapshot_watch: SnapshotWatch::begin(&config.dirs.snapshots, now_ms),
            removals: Removals::new(config.dirs.files()),
            damaged: config.damaged,
            purge_at_ms: config.purge_every_ms.map(|_| now_ms),
            unverified: None,
            posts: Vec::new(),
            config,
        }
    }

    /// Does what the mail says, or without any a bit of what is to be removed. [`Snapshots::on_time`] comes next.
    pub fn on_mail(&mut self, mail: Option<ToSnapshot>) {
        match mail {
            Some(ToSnapshot::Begin { zxid }) => self.begin(zxid),
            Some(ToSnapshot::Chunk(bytes)) => self.write(&bytes),
            Some(ToSnapshot::Finish { digest }) => self.finish(digest),
            None => warn_unremoved(self.removals.step()),
        }
    }

    /// Does what the time asks for, as it is when the mail is done. Gives what the turn has to post.
    pub fn on_time(&mut self, now_ms: i64) -> Vec<Mail> {
        if self.purge_at_ms.is_none() {
            self.put_off_purge(now_ms);
        }
        if self.retry.is_due(now_ms) {
            self.posts.push(Mail::Pipeline(ToPipeline::TakeSnapshot));
        }
        self.look_out(now_ms);
        std::mem::take(&mut self.posts)
    }

    fn look_out(&mut self, now_ms: i64) {
        let dir = &self.config.dirs.snapshots;
        if self.snapshot_watch.misses_all(dir, now_ms) {
            log::warn!(
                "no snapshot is left in {}, where there was one a second ago: they were removed or moved away while this server \
                 ran, and without one it might not start again. A new one is taken now. Find out who did that (rm, a job that \
                 cleans up)",
                dir.display()
            );
            self.posts.push(Mail::Pipeline(ToPipeline::TakeSnapshot));
        }
    }

    /// What is to be read now, beside the turns: it takes long, and a snapshot may be wanted meanwhile. One at a time; what
    /// comes of it is for [`Snapshots::on_read`].
    pub fn next_reading(&mut self, now_ms: i64) -> Option<Reading> {
        let is_purge_due = !self.damaged && self.purge_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if !is_purge_due && self.unverified.is_none() {
            return None;
        }
        if is_purge_due {
            self.put_off_purge(now_ms);
        }
        let (dirs, retain) = (self.config.dirs.clone(), self.config.retain);
        Some(Reading { dirs, retain, written: self.unverified.take(), is_purge_due })
    }

    /// By what was read, files go.
    pub fn on_read(&mut self, verification: Verification) {
        let Verification { written, kept } = verification;
        if let Some((written, verified)) = written
            && let Err(unsound) = written.judge(verified, &mut self.removals)
        {
            log::error!("{unsound}");
        }
        let purged = kept.and_then(|verified| match verified {
            Some(verified) => self.removals.purge(&self.config.dirs, self.config.retain, &verified),
            None => Ok(0),
        });
        match purged {
            Ok(0) => {}
            Ok(files) => log::info!("{files} old snapshots and logs are on their way out"),
            Err(error) => warn_unremoved(Err(error)),
        }
    }

    fn put_off_purge(&mut self, now_ms: i64) {
        self.purge_at_ms = self.config.purge_every_ms.map(|every| now_ms.saturating_add(every));
    }

    /// When the next turn is due if no mail comes.
    pub fn next_ms(&self, now_ms: i64) -> i64 {
        let purge_at_ms = self.purge_at_ms.filter(|_| !self.damaged);
        let removes_at_ms = (!self.removals.is_empty()).then_some(now_ms + CUT_PAUSE.as_millis() as i64);
        let all = [purge_at_ms, self.retry.at_ms, removes_at_ms];
        all.into_iter().flatten().min().unwrap_or(i64::MAX).clamp(now_ms + 1, now_ms + LOOK_PAUSE_MS)
    }

    /// Throws away what is not finished.
    pub fn give_up(&mut self) {
        if let Some(unfinished) = self.writing.take() {
            let _ = self.config.dirs.files().remove(&unfinished.path);
        }
    }

    fn begin(&mut self, zxid: Zxid) {
        // One that was given up must not write into the file of its successor when it is dropped.
        drop(self.writing.take());
        self.retry.begin();
        match Writing::begin(&self.config, zxid) {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => self.fail(zxid, &error),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(writing) = &mut self.writing {
            let (zxid, written) = (writing.zxid, writing.chunk(bytes));
            if let Err(error) = written {
                self.fail(zxid, &error);
            }
        }
        self.posts.push(Mail::Pipeline(ToPipeline::SnapshotChunkWritten));
    }

    fn finish(&mut self, digest: Option<u64>) {
        let Some(writing) = self.writing.take() else { return };
        let zxid = writing.zxid;
        let (zxid, bytes, written) = match writing.finish(&self.config, digest, &mut self.removals) {
            Ok(finished) => finished,
            Err(error) => return self.fail(zxid, &error),
        };
        if self.retry.failures > 0 {
            log::info!("snapshots are written again, after {} that could not be", self.retry.failures);
        }
        self.retry.end();
        self.retry.publish();
        // Of two that wait the newer one is verified. The other one is when it is to stay.
        if let Some(replaced) = self.unverified.replace(written).and_then(|older| older.replaced) {
            self.removals.add_renamed(replaced);
        }
        if std::mem::take(&mut self.damaged) {
            // The pipeline has none written of a state that is not whole. What it replaces is set aside first.
            self.purge_at_ms = None;
        }
        self.posts.push(Mail::Pipeline(ToPipeline::SnapshotDone { zxid, bytes }));
    }

    /// Gives back the room that it took, and says when it is tried again.
    fn fail(&mut self, zxid: Zxid, error: &SnapshotWriteError) {
        drop(self.writing.take());
        let _ = self.config.dirs.files().remove(&unfinished(&self.config));
        metrics::SNAPSHOT_FAILED_COUNT.add(1);
        let pause_ms = self.retry.on_failed();
        self.retry.publish();
        log::error!("snapshot {zxid}: {error}; it is tried again in {} s", pause_ms / 1000);
        self.posts.push(Mail::Pipeline(ToPipeline::SnapshotFailed { zxid }));
    }
}

/// Where a snapshot is while it is written.
fn unfinished(config: &SnapshotConfig) -> PathBuf {
    config.dirs.snapshots.join(names::UNFINISHED_SNAPSHOT)
}

/// A snapshot that has its name, and was not read back yet.
#[derive(Debug)]
pub struct Written {
    path: PathBuf,
    /// One of the same transaction that had the name before, as a removed file: it goes when this one is found to be good.
    pub replaced: Option<PathBuf>,
}

/// What was written and reads back damaged.
#[derive(Debug, Error)]
#[error("{} reads back damaged: {why}. The state in memory is whole, but this file does not count: nothing is purged because of it, and a start {}. Check the disk; the next snapshot, or one taken now with the admin command `snapshot`, takes its place", path.display(), instead(replaced))]
struct Unsound {
    path: PathBuf,
    why: SnapshotError,
    /// One of the same transaction that is read in its place.
    replaced: Option<PathBuf>,
}

fn instead(replaced: &Option<PathBuf>) -> String {
    match replaced {
        Some(path) => format!("reads {} in its place", path.display()),
        None => "passes it over".to_owned(),
    }
}

impl Written {
    /// What its verification says.
    fn judge(self, verified: Result<(), SnapshotError>, removals: &mut Removals) -> Result<(), Unsound> {
        // Nobody takes the file out of the history meanwhile.
        let _deciding = deciding();
        let Written { path, replaced } = self;
        let files = removals.files().clone();
        match verified {
            Err(why) if why.is_of_data() && files.exists(&path) => {
                let replaced = replaced.and_then(|removed| put_beside(&files, &removed, &path));
                return Err(Unsound { path, why, replaced });
            }
            Err(error) if files.exists(&path) => {
                log::warn!("{}, just written, {error}; it is tried again before anything is purged", path.display());
            }
            // It was replaced, or is not part of the history any more.
            Ok(()) | Err(_) => replaced.into_iter().for_each(|removed| removals.add_renamed(removed)),
        }
        Ok(())
    }
}

/// Brings back what a snapshot replaced, under a name that is read where the snapshot cannot be.
fn put_beside(files: &Files, removed: &Path, path: &Path) -> Option<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let beside = path.with_file_name(names::snapshot_beside(name, "replaced"));
    let renamed = files.rename_durably(removed, &beside);
    renamed.map_err(|error| log::warn!("{} cannot be kept: {error}", removed.display())).ok().map(|()| beside)
}

/// What a reading has found.
#[derive(Debug)]
pub struct Verification {
    written: Option<(Written, Result<(), SnapshotError>)>,
    kept: io::Result<Option<Verified>>,
}

/// Reads what was written, and if files are to be purged what is to stay.
#[derive(Debug)]
pub struct Reading {
    dirs: DataDirs,
    retain: usize,
    written: Option<Written>,
    is_purge_due: bool,
}

impl Reading {
    /// Takes as long as the files are large.
    pub fn read(self) -> Verification {
        let Reading { dirs, retain, written, is_purge_due } = self;
        Verification {
            written: written.map(|written| {
                let verified = verify(dirs.files(), &written.path);
                (written, verified)
            }),
            kept: if is_purge_due { verify_kept(&dirs, retain) } else { Ok(None) },
        }
    }
}

/// Housekeeping that fails is worth a warning and no more: it is tried again.
fn warn_unremoved(removed: io::Result<()>) {
    if let Err(error) = removed {
        log::warn!("an old snapshot or log cannot be removed: {error}");
    }
}

/// The snapshot under way.
pub struct Writing {
    zxid: Zxid,
    path: PathBuf,
    writer: SnapshotWriter<PacedFile>,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SnapshotWriteError {
    let path = path.to_owned();
    move |source| SnapshotWriteError { path, source }
}

impl Writing {
    /// Begins the file.
    pub fn begin(config: &SnapshotConfig, zxid: Zxid) -> Result<Writing, SnapshotWriteError> {
        let path = unfinished(config);
        let writer =
            config.dirs.files().create(&path).and_then(|file| SnapshotWriter::new(config.method, PacedFile::new(file)));
        let writer = writer.map_err(failed(&path))?;
        Ok(Writing { zxid, path, writer })
    }

    /// Appends to it.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), SnapshotWriteError> {
        self.writer.write(bytes).map_err(failed(&self.path))
    }

    /// Makes it durable, and then gives it its name. What had that goes, or waits for a verification. Gives its length.
    pub fn finish(
        self,
        config: &SnapshotConfig,
        digest: Option<u64>,
        removals: &mut Removals,
    ) -> Result<(Zxid, u64, Written), SnapshotWriteError> {
        let Writing { zxid, path, writer } = self;
        let done = config.dirs.snapshots.join(names::snapshot_name(zxid, config.method));
        let files = config.dirs.files();
        let finished = (|| {
            let mut file = writer.finish(zxid, digest, config.last_section)?;
            file.flush()?;
            let bytes = file.finish()?;
            let mut written = Written { path: done.clone(), replaced: None };
            if files.exchange_durably(&path, &done)? {
                // A snapshot of the same transaction, as each start without a write makes one.
                let removed = removed_name(&done);
                files.rename(&path, &removed)?;
                if names::list_installing(&config.dirs.snapshots)?.is_empty() {
                    written.replaced = Some(removed);
                } else {
                    // That one was of a history that is being replaced: it must never be read again.
                    removals.add_renamed(removed);
                }
            }
            Ok((zxid, bytes, written))
        })();
        finished.map_err(failed(&done))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::state::{Loader, State, StateRules};
    use crate::storage::snapshot;
    use std::fs::{self, File};

    /// Of a server with its data there.
    pub(crate) fn config(dir: &Path, method: Compression) -> SnapshotConfig {
        let dirs = DataDirs::new(dir, None);
        dirs.prepare(true).unwrap();
        SnapshotConfig {
            dirs,
            method,
            last_section: true,
            purge_every_ms: Some(1),
            retain: 3,
            retry_ms_min: RETRY_MS_MIN,
            damaged: false,
        }
    }

    fn write(config: &SnapshotConfig, mail: Vec<ToSnapshot>) -> Vec<Mail> {
        let mut snapshots = Snapshots::new(config.clone(), 0);
        mail.into_iter()
            .flat_map(|mail| {
                snapshots.on_mail(Some(mail));
                snapshots.on_time(0)
            })
            .collect()
    }

    fn rules() -> StateRules {
        StateRules { digest_enabled: true, ..StateRules::default() }
    }

    #[test]
    fn a_snapshot_gets_its_name_when_it_is_whole() {
        for method in [Compression::None, Compression::Gzip, Compression::Snappy] {
            let dir = tempfile::tempdir().unwrap();
            let config = config(dir.path(), method);
            let mut state = State::fresh(rules());
            let digest = Some(state.tree_digest());
            let mut mail = vec![ToSnapshot::Begin { zxid: Zxid(0x2a) }, ToSnapshot::Chunk(state.begin_cut())];
            let mut done = false;
            while !done {
                let (bytes, last) = state.cut_slice(64);
                mail.push(ToSnapshot::Chunk(bytes));
                done = last;
            }
            let chunks = mail.len() - 1;
            mail.push(ToSnapshot::Finish { digest });
            let posted = write(&config, mail);
            assert_eq!(posted.len(), chunks + 1);
            let path = config.dirs.snapshots.join(names::snapshot_name(Zxid(0x2a), method));
            let file = File::open(&path).unwrap();
            let size = file.metadata().unwrap().len();
            assert!(matches!(
                posted.last(),
                Some(Mail::Pipeline(ToPipeline::SnapshotDone { zxid: Zxid(0x2a), bytes })) if *bytes == size
            ));
            let mut loader = Loader::new(rules());
            let loaded = snapshot::load(method.reader(file), &mut loader).unwrap();
            assert_eq!(loaded.trailer.digest.map(|d| d.value), digest);
            assert_eq!(loader.finish(Zxid(0x2a)).tree_digest(), state.tree_digest());
        }
    }

    #[test]
    fn snapshots_that_are_all_taken_away_are_missed_once() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Compression::None);
        let mut snapshot_watch = SnapshotWatch::begin(&config.dirs.snapshots, 0);
        let mut look = |now_ms| snapshot_watch.misses_all(&config.dirs.snapshots, now_ms);
        assert!(!look(1_000), "there was none before the first");
        let paths = [1, 2].map(|zxid| write_whole(&config, Zxid(zxid)).path);
        assert!(!look(2_000));
        fs::remove_file(&paths[1]).unwrap();
        assert!(!look(3_000), "the older one and the log will do");
        fs::remove_file(&paths[0]).unwrap();
        assert!(!look(3_999) && look(4_000) && !look(5_000));
        write_whole(&config, Zxid(3));
        assert!(!look(6_000));
        fs::remove_dir_all(&config.dirs.snapshots).unwrap();
        assert!(!look(7_000), "a folder that is gone is another matter");
    }

    #[test]
    fn snapshots_that_are_taken_away_before_the_first_turn_are_missed() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Compression::None);
        let path = write_whole(&config, Zxid(1)).path;
        let mut snapshots = Snapshots::new(config, 0);
        fs::remove_file(path).unwrap();
        assert!(snapshots.on_time(999).is_empty());
        assert!(matches!(snapshots.on_time(1_000)[..], [Mail::Pipeline(ToPipeline::TakeSnapshot)]));
    }

    /// Writes a snapshot of an empty tree.
    fn write_whole(config: &SnapshotConfig, zxid: Zxid) -> Written {
        let mut writing = Writing::begin(config, zxid).unwrap();
        let mut state = State::fresh(rules());
        writing.chunk(&state.begin_cut()).unwrap();
        let (bytes, done) = state.cut_slice(usize::MAX);
        assert!(done);
        writing.chunk(&bytes).unwrap();
        writing.finish(config, None, &mut Removals::new(&Files::host())).unwrap().2
    }

    fn flip_a_byte(path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        fs::write(path, bytes).unwrap();
    }

    fn names_in(config: &SnapshotConfig) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&config.dirs.snapshots)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_snapshot_that_reads_back_damaged_is_told_and_keeps_its_name() {
        for method in [Compression::None, Compression::Gzip, Compression::Snappy] {
            let dir = tempfile::tempdir().unwrap();
            let config = config(dir.path(), method);
            let written = write_whole(&config, Zxid(1));
            verify(&Files::host(), &written.path).unwrap();
            flip_a_byte(&written.path);
            let verified = verify(&Files::host(), &written.path);
            let mut removals = Removals::new(&Files::host());
            let told = written.judge(verified, &mut removals).unwrap_err().to_string();
            let name = names::snapshot_name(Zxid(1), method);
            assert!(told.contains(&name) && told.contains("reads back damaged"), "{told}");
            assert!(removals.is_empty());
            assert_eq!(names_in(&config), [name]);
        }
    }

    #[test]
    fn a_good_snapshot_that_a_damaged_one_replaced_is_read_in_its_place() {
        for method in [Compression::None, Compression::Gzip, Compression::Snappy] {
            let dir = tempfile::tempdir().unwrap();
            let config = config(dir.path(), method);
            write_whole(&config, Zxid(1));
            let second = write_whole(&config, Zxid(1));
            flip_a_byte(&second.path);
            let verified = verify(&Files::host(), &second.path);
            let told = second.judge(verified, &mut Removals::new(&Files::host())).unwrap_err().to_string();
            let replaced = names::snapshot_beside(&names::snapshot_name(Zxid(1), method), "replaced");
            assert!(told.contains(&replaced), "{told}");
            let mut expected = [names::snapshot_name(Zxid(1), method), replaced.clone()];
            expected.sort();
            assert_eq!(names_in(&config), expected);
            verify(&Files::host(), &config.dirs.snapshots.join(replaced)).unwrap();
        }
    }

    #[test]
    fn a_snapshot_of_a_history_that_is_being_replaced_never_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Compression::None);
        write_whole(&config, Zxid(1));
        fs::write(config.dirs.snapshots.join(names::installing_name(Zxid(1))), b"").unwrap();
        let second = write_whole(&config, Zxid(1));
        flip_a_byte(&second.path);
        let verified = verify(&Files::host(), &second.path);
        second.judge(verified, &mut Removals::new(&Files::host())).unwrap_err();
        assert!(!config.dirs.snapshots.join("snapshot.1.replaced").exists());
    }

    #[test]
    fn what_a_good_snapshot_replaced_goes() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Compression::None);
        write_whole(&config, Zxid(1));
        let second = write_whole(&config, Zxid(1));
        let mut snapshots =
            Snapshots { unverified: Some(second), purge_at_ms: None, ..Snapshots::new(config.clone(), 0) };
        let reading = snapshots.next_reading(0).unwrap();
        assert!(snapshots.next_reading(0).is_none());
        snapshots.on_read(reading.read());
        while !snapshots.removals.is_empty() {
            snapshots.on_mail(None);
        }
        assert_eq!(names_in(&config), ["snapshot.1"]);
    }

    #[test]
    fn a_server_with_damaged_files_purges_none_before_a_whole_state_is_saved() {
        let dir = tempfile::tempdir().unwrap();
        let config = SnapshotConfig { damaged: true, ..config(dir.path(), Compression::None) };
        (1..=4).for_each(|zxid| drop(write_whole(&config, Zxid(zxid))));
        let mut snapshots = Snapshots::new(config.clone(), 0);
        snapshots.on_time(100);
        assert!(snapshots.next_reading(100).is_none() && snapshots.next_ms(100) == 100 + LOOK_PAUSE_MS);

        let mut state = State::fresh(rules());
        let head = state.begin_cut();
        let chunks = [ToSnapshot::Begin { zxid: Zxid(5) }, ToSnapshot::Chunk(head)];
        chunks.into_iter().for_each(|mail| snapshots.on_mail(Some(mail)));
        assert!(snapshots.next_reading(100).is_none(), "it is not saved yet");
        snapshots.on_mail(Some(ToSnapshot::Chunk(state.cut_slice(usize::MAX).0)));
        snapshots.on_mail(Some(ToSnapshot::Finish { digest: None }));
        snapshots.on_time(100);
        let read = |snapshots: &mut Snapshots, now_ms| {
            let verification = snapshots.next_reading(now_ms).expect("something is to be read").read();
            snapshots.on_read(verification);
            while !snapshots.removals.is_empty() {
                snapshots.on_mail(None);
            }
            names_in(&config)
        };
        // What is saved is read back before it is relied on, and nothing goes for it yet.
        assert_eq!(read(&mut snapshots, 100), ["snapshot.1", "snapshot.2", "snapshot.3", "snapshot.4", "snapshot.5"]);
        assert_eq!(read(&mut snapshots, 101), ["snapshot.3", "snapshot.4", "snapshot.5"]);
    }

    #[test]
    fn a_snapshot_that_could_not_be_read_just_now_is_not_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Compression::None);
        let written = write_whole(&config, Zxid(1));
        let busy = SnapshotError::Io(io::Error::from_raw_os_error(libc::EMFILE));
        written.judge(Err(busy), &mut Removals::new(&Files::host())).unwrap();
        let written = write_whole(&config, Zxid(1));
        let lost = SnapshotError::Io(io::Error::from_raw_os_error(libc::EIO));
        written.judge(Err(lost), &mut Removals::new(&Files::host())).unwrap_err();
    }

    /// What a snapshot that is begun and finished at once leads to.
    fn attempt(config: &SnapshotConfig) -> Vec<String> {
        let mut state = State::fresh(rules());
        let head = state.begin_cut();
        let (bytes, _) = state.cut_slice(usize::MAX);
        let mail = [
            ToSnapshot::Begin { zxid: Zxid(1) },
            ToSnapshot::Chunk(head),
            ToSnapshot::Chunk(bytes),
            ToSnapshot::Finish { digest: None },
        ];
        let told = |mail: Mail| match mail {
            Mail::Pipeline(ToPipeline::SnapshotChunkWritten) => "chunk".to_owned(),
            Mail::Pipeline(ToPipeline::SnapshotDone { zxid, .. }) => format!("done {zxid}"),
            Mail::Pipeline(ToPipeline::SnapshotFailed { zxid }) => format!("failed {zxid}"),
            other => panic!("{other:?}"),
        };
        write(config, mail.into()).into_iter().map(told).collect()
    }

    #[test]
    fn a_snapshot_that_cannot_be_begun_is_told_and_what_else_comes_of_it_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Compression::None);
        fs::remove_dir(&config.dirs.snapshots).unwrap();
        // Its chunks are taken all the same: the pipeline counts them.
        assert_eq!(attempt(&config), ["failed 0x1", "chunk", "chunk"]);
        fs::create_dir(&config.dirs.snapshots).unwrap();
        assert_eq!(attempt(&config), ["chunk", "chunk", "done 0x1"]);
    }

    #[test]
    fn a_snapshot_that_cannot_be_finished_gives_its_room_back() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Compression::None);
        // A disk that is full behind the first byte.
        std::os::unix::fs::symlink("/dev/full", unfinished(&config)).unwrap();
        assert_eq!(attempt(&config), ["chunk", "chunk", "failed 0x1"]);
        assert!(fs::symlink_metadata(unfinished(&config)).is_err());
        assert_eq!(attempt(&config), ["chunk", "chunk", "done 0x1"]);
    }

    #[test]
    fn attempts_come_after_longer_and_longer_pauses() {
        let mut retry = Retry { pause_ms_min: RETRY_MS_MIN, ..Retry::default() };
        let pauses: Vec<i64> = (0..9).map(|_| retry.on_failed() / 1_000).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        (0..100).for_each(|_| assert_eq!(retry.on_failed(), 300_000));
    }

    #[test]
    fn a_pause_begins_when_the_failure_is_over_however_long_the_disk_took_for_it() {
        let mut retry = Retry { pause_ms_min: RETRY_MS_MIN, ..Retry::default() };
        retry.on_failed();
        assert!(!retry.is_due(100_000) && !retry.is_due(104_999) && retry.is_due(105_000) && !retry.is_due(105_001));
        retry.on_failed();
        retry.begin();
        assert!(!retry.is_due(200_000) && !retry.is_due(300_000), "one is being written");
    }

    #[test]
    fn a_failure_says_where_and_what_to_do() {
        let of = |number| {
            let source = io::Error::from_raw_os_error(number);
            SnapshotWriteError { path: "/data/version-2/unfinished-snapshot".into(), source }.to_string()
        };
        assert!(of(libc::ENOSPC).contains("/data/version-2/unfinished-snapshot cannot be written: No space left"));
        for (number, advice) in
            [(libc::ENOSPC, "make room"), (libc::EDQUOT, "quota"), (libc::EIO, "dmesg"), (libc::EMFILE, "LimitNOFILE=")]
        {
            assert!(of(number).contains(advice), "{}", of(number));
        }
    }
}
