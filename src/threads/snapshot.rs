//! The snapshot thread: writes the stream that the pipeline hands over, evenly enough that the syncs of the log do not
//! suffer, gives the file its name once it is whole and durable, and purges old files. A snapshot that cannot be written
//! ends the process, as in Apache: without snapshots the log only grows.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use thiserror::Error;

use crate::config::Compression;
use crate::ids::Zxid;
use crate::mail::{Mail, ToPipeline, ToSnapshot};
use crate::storage::dirs::DataDirs;
use crate::storage::names;
use crate::storage::purge::{Proven, Removals, prove_kept};
use crate::storage::snapshot::{self, SnapshotError, SnapshotWriter};
use crate::sys::clock;
use crate::sys::exit::{ExitCode, fatal};
use crate::sys::files::{self, CUT_PAUSE};
use crate::sys::paced_file::{PacedFile, PacedReader};

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
    /// The files here are damaged, and those that are readable may be needed: none is purged until a whole state is saved.
    pub damaged: bool,
}

/// A snapshot cannot be written.
#[derive(Debug, Error)]
#[error("{} cannot be written: {source}; nothing is lost, the log has everything. Make room or mend the disk, then start again", path.display())]
pub struct SnapshotWriteError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The thread's body: ends after `Stop`, or when nobody can send any more.
pub fn run(config: &SnapshotConfig, from: &Receiver<ToSnapshot>, post: impl FnMut(Vec<Mail>)) {
    if let Err(error) = serve(config, from, post) {
        fatal(ExitCode::Snapshot, &error.to_string());
    }
}

/// What [`run`] does, without ending the process.
pub fn serve(
    config: &SnapshotConfig,
    from: &Receiver<ToSnapshot>,
    mut post: impl FnMut(Vec<Mail>),
) -> Result<(), SnapshotWriteError> {
    let mut purge_at_ms = config.purge_every_ms.map(|_| clock::now().mono_ms);
    let mut writing: Option<Writing> = None;
    let mut removals = Removals::default();
    let mut damaged = config.damaged;
    let mut proving: Option<Proving> = None;
    loop {
        if !damaged && proving.is_none() && purge_at_ms.is_some_and(|at| at <= clock::now().mono_ms) {
            proving = prove(config);
            purge_at_ms = config.purge_every_ms.map(|every| clock::now().mono_ms.saturating_add(every));
        }
        if let Some(proving) = proving.take_if(|proving| proving.is_finished()) {
            purge(config, proving, &mut removals);
        }
        let wait_ms = purge_at_ms.filter(|_| !damaged).map_or(i64::MAX, |at| at - clock::now().mono_ms);
        // Whatever the interval, a day is short enough to look again and long enough not to matter.
        let mut wait = Duration::from_millis(wait_ms.clamp(1, 86_400_000) as u64);
        if !removals.is_empty() || proving.is_some() {
            wait = wait.min(CUT_PAUSE);
        }
        match from.recv_timeout(wait) {
            Ok(ToSnapshot::Begin { zxid }) => {
                // One that was given up must not write into the file of its successor when it is dropped.
                drop(writing.take());
                writing = Some(Writing::begin(config, zxid)?);
            }
            Ok(ToSnapshot::Chunk(bytes)) => {
                let writing = writing.as_mut().expect("the pipeline begins a snapshot before its first chunk");
                writing.chunk(&bytes)?;
                post(vec![Mail::Pipeline(ToPipeline::SnapshotChunkWritten)]);
            }
            Ok(ToSnapshot::Finish { digest }) => {
                let writing = writing.take().expect("the pipeline begins a snapshot before it finishes it");
                let (zxid, bytes) = writing.finish(config, digest, &mut removals)?;
                if std::mem::take(&mut damaged) {
                    // The pipeline has none written of a state that is not whole. What it replaces is set aside first.
                    purge_at_ms = config.purge_every_ms.map(|every| clock::now().mono_ms.saturating_add(every));
                }
                post(vec![Mail::Pipeline(ToPipeline::SnapshotDone { zxid, bytes })]);
            }
            Err(RecvTimeoutError::Timeout) => warn_unremoved(removals.step()),
            Ok(ToSnapshot::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Some(unfinished) = writing {
        let _ = fs::remove_file(&unfinished.path);
    }
    Ok(())
}

/// Reads what is to stay, on a thread of its own: it takes long, and a snapshot may be wanted meanwhile.
type Proving = JoinHandle<io::Result<Option<Proven>>>;

fn prove(config: &SnapshotConfig) -> Option<Proving> {
    let (dirs, retain) = (config.dirs.clone(), config.retain);
    let begun = thread::Builder::new().name("purge".into()).spawn(move || prove_kept(&dirs, retain));
    begun.map_err(|error| warn_unremoved(Err(error))).ok()
}

fn purge(config: &SnapshotConfig, proving: Proving, removals: &mut Removals) {
    // A panic of the thread was told by the hook, which ends the process.
    let Ok(proven) = proving.join() else { return };
    let purged = proven.and_then(|proven| match proven {
        Some(proven) => removals.purge(&config.dirs, config.retain, &proven),
        None => Ok(0),
    });
    match purged {
        Ok(0) => {}
        Ok(files) => log::info!("{files} old snapshots and logs are on their way out"),
        Err(error) => warn_unremoved(Err(error)),
    }
}

/// Housekeeping that fails is worth a warning and no more: it is tried again.
fn warn_unremoved(removed: io::Result<()>) {
    if let Err(error) = removed {
        log::warn!("an old snapshot or log cannot be removed: {error}");
    }
}

/// The snapshot under way.
struct Writing {
    zxid: Zxid,
    path: PathBuf,
    writer: SnapshotWriter<PacedFile>,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SnapshotWriteError {
    let path = path.to_owned();
    move |source| SnapshotWriteError { path, source }
}

impl Writing {
    fn begin(config: &SnapshotConfig, zxid: Zxid) -> Result<Writing, SnapshotWriteError> {
        let path = config.dirs.snapshots.join(names::UNFINISHED_SNAPSHOT);
        let writer = File::create(&path).and_then(|file| SnapshotWriter::new(config.method, PacedFile::new(file)));
        let writer = writer.map_err(failed(&path))?;
        Ok(Writing { zxid, path, writer })
    }

    fn chunk(&mut self, bytes: &[u8]) -> Result<(), SnapshotWriteError> {
        self.writer.write(bytes).map_err(failed(&self.path))
    }

    fn finish(
        self,
        config: &SnapshotConfig,
        digest: Option<u64>,
        removals: &mut Removals,
    ) -> Result<(Zxid, u64), SnapshotWriteError> {
        let Writing { zxid, path, writer } = self;
        let done = config.dirs.snapshots.join(names::snapshot_name(zxid, config.method));
        let bytes = (|| {
            let mut file = writer.finish(zxid, digest, config.last_section)?;
            file.flush()?;
            let bytes = file.finish()?;
            read_back(&path, config.method)?;
            if files::exchange_durably(&path, &done)? {
                // A snapshot of the same transaction, as each start without a write makes one.
                removals.add(&path)?;
            }
            Ok(bytes)
        })();
        bytes.map(|bytes| (zxid, bytes)).map_err(failed(&done))
    }
}

/// What is on the disk is what was written: once the file has its name, others go because of it.
fn read_back(path: &Path, method: Compression) -> io::Result<()> {
    let read = PacedReader::open(path)?;
    snapshot::check(method.reader(read)).map(drop).map_err(|error| match error {
        SnapshotError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, format!("what was written reads back damaged, {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Loader, State, StateRules};
    use crossbeam_channel::unbounded;

    fn config(dir: &Path, method: Compression) -> SnapshotConfig {
        let dirs = DataDirs::new(dir, None);
        dirs.prepare(true).unwrap();
        SnapshotConfig { dirs, method, last_section: true, purge_every_ms: Some(1), retain: 3, damaged: false }
    }

    fn write(config: &SnapshotConfig, mail: Vec<ToSnapshot>) -> Vec<Mail> {
        let (to, from) = unbounded();
        mail.into_iter().for_each(|mail| to.send(mail).unwrap());
        drop(to);
        let mut posted = Vec::new();
        serve(config, &from, |mail| posted.extend(mail)).unwrap();
        posted
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
    fn a_snapshot_that_reads_back_otherwise_is_none() {
        for method in [Compression::None, Compression::Gzip, Compression::Snappy] {
            let dir = tempfile::tempdir().unwrap();
            let config = config(dir.path(), method);
            let mut state = State::fresh(rules());
            let mut mail = vec![ToSnapshot::Begin { zxid: Zxid(1) }, ToSnapshot::Chunk(state.begin_cut())];
            let (bytes, done) = state.cut_slice(usize::MAX);
            assert!(done);
            mail.extend([ToSnapshot::Chunk(bytes), ToSnapshot::Finish { digest: None }]);
            write(&config, mail);
            let path = config.dirs.snapshots.join(names::snapshot_name(Zxid(1), method));
            read_back(&path, method).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x20;
            fs::write(&path, bytes).unwrap();
            read_back(&path, method).unwrap_err();
        }
    }

    #[test]
    fn an_unfinished_snapshot_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Compression::None);
        write(&config, vec![ToSnapshot::Begin { zxid: Zxid(1) }, ToSnapshot::Chunk(vec![1; 100]), ToSnapshot::Stop]);
        assert_eq!(fs::read_dir(&config.dirs.snapshots).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Compression::None);
        dir.close().unwrap();
        let (to, from) = unbounded();
        to.send(ToSnapshot::Begin { zxid: Zxid(1) }).unwrap();
        let error = serve(&config, &from, |_| ()).unwrap_err();
        assert!(error.to_string().contains(names::UNFINISHED_SNAPSHOT), "{error}");
    }
}
