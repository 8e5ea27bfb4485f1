//! The admin command `restore` on a server that stands alone: the data is replaced by an uploaded snapshot. Clients are
//! sent away meanwhile; the steps, and what a crash between them leaves, are those of a learner that is sent a state
//! (`storage::truncate`): the old history or a beginning of it, or the new state, never a mixture. Runs on a thread of the
//! admin server.

use std::io::Cursor;

use crossbeam_channel::bounded;

use crate::admin::view::{Mode, SnapshotProgress};
use crate::config::Compression;
use crate::mail::{Dropped, Mail, Role, ToPipeline, ToTxnlog};
use crate::state::{Loader, State, StateRules};
use crate::storage::snapshot;
use crate::sys::exit::{ExitCode, fatal};
use crate::threads::admin::{SNAPSHOT_PAUSE, Sources};
use crate::threads::health::{CheckedThread, HealthCheck};
use crate::threads::pipeline::PipelineMail;
use crate::threads::queries::Progress;
use crate::threads::txnlog::TxnlogMail;

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
        self.wait_for(|progress| progress.is_at_rest.then_some(()))?;
        let install = ToPipeline::Install { state: Box::new(state), durable: true };
        self.tell_log(install, |then| ToTxnlog::PrepareInstall { zxid, dropped: Dropped::Unproven, then })?;
        let written = self.wait_for(|progress| match progress.snapshot {
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
        self.tell_log(serve, |then| ToTxnlog::FinishInstall { zxid, then })?;
        self.wait_for(|progress| (progress.mode == Mode::Standalone).then_some(()))
    }

    fn tell_pipeline(&self, mail: Vec<ToPipeline>) -> Result<(), String> {
        self.pipeline.send(PipelineMail::Core(mail)).map_err(|_| SERVER_ENDS.to_owned())
    }

    /// Has the log do something, and the pipeline something behind it. Returns when the log has done its part and the
    /// pipeline has the mail: what is asked next is answered behind that.
    fn tell_log(&self, behind: ToPipeline, what: impl FnOnce(Vec<Mail>) -> ToTxnlog) -> Result<(), String> {
        let ended = || SERVER_ENDS.to_owned();
        self.txnlog.send(TxnlogMail::Core(what(vec![Mail::Pipeline(behind)]))).map_err(|_| ended())?;
        // The reply comes when all before it is done and posted.
        let (reply_to, reply) = bounded(1);
        let check = HealthCheck { thread: CheckedThread::Txnlog, reply_to };
        self.txnlog.send(TxnlogMail::HealthCheck(check)).map_err(|_| ended())?;
        reply.recv().map(drop).map_err(|_| ended())
    }

    /// What is seen in how far the server is, as soon as something is.
    fn wait_for<T>(&self, see: impl Fn(Progress) -> Option<T>) -> Result<T, String> {
        loop {
            if let Some(seen) = self.progress().and_then(&see) {
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
