//! The admin command `restore` on a server that stands alone: the data is replaced by an uploaded snapshot. Clients are
//! sent away meanwhile; the steps, and what a crash between them leaves, are those of a learner that is sent a state
//! (`storage::truncate`): the old history or a beginning of it, or the new state, never a mixture. Runs on a thread of the
//! admin server.

use std::io::Cursor;

use crossbeam_channel::bounded;

use crate::admin::view::{ServerView, SnapshotProgress};
use crate::config::Compression;
use crate::mail::{Dropped, Look, Mail, Role, ToPipeline, ToTxnlog};
use crate::state::{Loader, State, StateRules};
use crate::storage::snapshot;
use crate::sys::exit::{ExitCode, fatal};
use crate::threads::admin::{SNAPSHOT_PAUSE, Sources};

const SERVER_ENDS: &str = "the server is about to stop";

/// The state in the bytes of a snapshot file, compressed or not; or what is wrong with them.
pub fn read_state(bytes: Vec<u8>, rules: StateRules) -> Result<State, String> {
    let method = match bytes.get(..4) {
        Some(b"ZKSN") => Compression::None,
        Some([0x1f, 0x8b, ..]) => Compression::Gzip,
        _ => Compression::Snappy,
    };
    let mut loader = Loader::new(rules);
    let loaded = snapshot::load(method.reader(Cursor::new(bytes)), &mut loader).map_err(|error| error.to_string())?;
    let trailer = loaded.trailer;
    let zxid = trailer.last_processed.or(trailer.digest.map(|digest| digest.zxid));
    let zxid = zxid.ok_or("it does not say as of which transaction it is")?;
    let state = loader.finish(zxid);
    let expected = trailer
        .digest
        .filter(|digest| rules.digest_enabled && digest.zxid == zxid && digest.version == crate::txn::DIGEST_VERSION);
    match expected {
        Some(digest) if digest.value != state.tree_digest() => Err("its content is not that of its digest".into()),
        _ => Ok(state),
    }
}

impl Sources {
    /// Replaces the data by this state. Returns when it is durable and clients are served from it; after an error nothing
    /// is served any more, for the server ends.
    pub fn restore(&self, state: State) -> Result<(), String> {
        let zxid = state.last_zxid();
        self.tell_pipeline(vec![ToPipeline::Role(Role::Looking)])?;
        self.wait_for(|server| server.is_at_rest().then_some(()))?;
        let install = ToPipeline::Install { state: Box::new(state), durable: true };
        self.tell_log(install, |then| ToTxnlog::PrepareInstall { zxid, dropped: Dropped::Unproven, then })?;
        let written = self.wait_for(|server| match server.snapshot_progress() {
            SnapshotProgress::UnderWay => None,
            SnapshotProgress::Failed => Some(false),
            SnapshotProgress::Done => Some(true),
        })?;
        if !written {
            let why = "the state that was to be restored cannot be written, as the line before says: this server ends, \
                       and starts with the data of before";
            fatal(ExitCode::Snapshot, why);
        }
        let serve = ToPipeline::Role(Role::Leading { epoch: zxid.epoch() });
        self.tell_log(serve, |then| ToTxnlog::FinishInstall { zxid, then })
    }

    fn tell_pipeline(&self, mail: Vec<ToPipeline>) -> Result<(), String> {
        self.pipeline.send(mail).map_err(|_| SERVER_ENDS.to_owned())
    }

    /// Has the log do something and the pipeline something behind it; returns when both have.
    fn tell_log(&self, behind: ToPipeline, what: impl FnOnce(Vec<Mail>) -> ToTxnlog) -> Result<(), String> {
        let (to, done) = bounded(1);
        let look = Look(Box::new(move |_| {
            // The thread that waits is this one.
            let _ = to.send(());
        }));
        let done_mail = ToPipeline::Look { look, view: Box::default() };
        let then = vec![Mail::Pipeline(behind), Mail::Pipeline(done_mail)];
        self.txnlog.send(what(then)).map_err(|_| SERVER_ENDS.to_owned())?;
        done.recv().map_err(|_| SERVER_ENDS.to_owned())
    }

    /// What the pipeline's thread sees, as soon as it sees something.
    fn wait_for<T: Send + 'static>(&self, see: fn(&dyn ServerView) -> Option<T>) -> Result<T, String> {
        loop {
            if let Some(Some(seen)) = self.look(false, false, move |ask| see(ask.server)) {
                return Ok(seen);
            }
            // Busy with a large state, or gone.
            self.tell_pipeline(Vec::new())?;
            std::thread::sleep(SNAPSHOT_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_snapshot_is_refused_with_a_reason() {
        for bytes in [&b""[..], b"ZKSN", b"hello", &[0x1f, 0x8b, 1, 2, 3]] {
            assert!(read_state(bytes.to_vec(), StateRules::default()).is_err());
        }
    }
}
