//! The snapshot thread: writes the stream that the pipeline hands over ([`crate::engine::snapshots`]), evenly enough that the
//! syncs of the log do not suffer, and has what was written read back, on a thread of its own.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::engine::snapshots::{Reading, SnapshotConfig, Snapshots, Verification};
use crate::mail::{Mail, ToSnapshot};
use crate::sys::clock;
use crate::sys::files::CUT_PAUSE;

/// The thread's body: ends when nobody can send any more.
pub fn run(config: &SnapshotConfig, from: &Receiver<ToSnapshot>, mut post: impl FnMut(Vec<Mail>)) {
    let mut snapshots = Snapshots::new(config.clone(), clock::now().mono_ms);
    let mut proving: Option<JoinHandle<Verification>> = None;
    loop {
        // A panic of the reading thread was told by the hook, which ends the process.
        if let Some(Ok(verification)) = proving.take_if(|proving| proving.is_finished()).map(JoinHandle::join) {
            snapshots.on_read(verification);
        }
        let now_ms = clock::now().mono_ms;
        if proving.is_none() {
            proving = snapshots.next_reading(now_ms).and_then(begin_reading);
        }
        let wait = Duration::from_millis((snapshots.next_ms(now_ms) - now_ms).unsigned_abs());
        let mail = match from.recv_timeout(if proving.is_some() { wait.min(CUT_PAUSE) } else { wait }) {
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
            Ok(mail) => Some(mail),
        };
        snapshots.on_mail(mail);
        let posts = snapshots.on_time(clock::now().mono_ms);
        if !posts.is_empty() {
            post(posts);
        }
    }
    snapshots.give_up();
}

fn begin_reading(reading: Reading) -> Option<JoinHandle<Verification>> {
    let begun: io::Result<_> = thread::Builder::new().name("purge".into()).spawn(move || reading.read());
    begun.map_err(|error| log::warn!("what was written cannot be read back: no thread: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Compression;
    use crate::engine::snapshots::tests::config;
    use crate::ids::Zxid;
    use crossbeam_channel::unbounded;
    use std::fs;

    #[test]
    fn an_unfinished_snapshot_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Compression::None);
        let (to, from) = unbounded();
        let mail = [ToSnapshot::Begin { zxid: Zxid(1) }, ToSnapshot::Chunk(vec![1; 100])];
        mail.into_iter().for_each(|mail| to.send(mail).unwrap());
        drop(to);
        let mut posted = 0;
        run(&config, &from, |mail| posted += mail.len());
        assert_eq!(posted, 1);
        assert_eq!(fs::read_dir(&config.dirs.snapshots).unwrap().count(), 0);
    }
}
