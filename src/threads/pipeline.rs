//! The pipeline's thread: waits for mail or the next deadline, steps the core, delivers. Answers four-letter words and the
//! admin server itself, since they are shown figures of the host.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::admin::words::{self, PollerView, QueryContext, Word};
use crate::config::MetricsProvider;
use crate::engine::pipeline::{Post, TurnTimes, deliver};
use crate::ids::ConnId;
use crate::limits::PIPELINE_MAIL_PER_TURN;
use crate::mail::{ToPipeline, ToSnapshot};
use crate::metrics;
use crate::pipeline::{Outbox, Pipeline};
use crate::sys::clock;
use crate::sys::host::ThisHost;
use crate::sys::memory;
use crate::sys::priority;
use crate::threads::health::{HealthCheck, HealthReport};
use crate::threads::poller::{PollerHandle, PollerMail};
use crate::threads::queries::AdminQuery;
use crate::threads::quorum::{QuorumHandle, QuorumMail};
use crate::threads::spin::{Spins, receive};
use crate::threads::txnlog::TxnlogMail;

/// Mail of this thread.
#[derive(Debug)]
pub enum PipelineMail {
    /// For its core, in order.
    Core(Vec<ToPipeline>),
    /// A four-letter word.
    Word {
        /// Where the text goes; the connection has said nothing else.
        conn: ConnId,
        /// Which.
        word: Word,
        /// The poller's part of the answer.
        view: Box<PollerView>,
    },
    /// The admin server wants to know something.
    Query {
        /// What.
        query: AdminQuery,
        /// The poller's part of the answer.
        view: Box<PollerView>,
    },
    /// Are you there?
    HealthCheck(HealthCheck),
}

/// Whom the pipeline talks to.
pub struct Neighbours {
    /// The log.
    pub txnlog: Sender<TxnlogMail>,
    /// The snapshots.
    pub snapshot: Sender<ToSnapshot>,
    /// The clients.
    pub poller: PollerHandle,
    /// The other servers, in an ensemble.
    pub quorum: Option<QuorumHandle>,
}

/// Starts the thread. It ends after `ToPipeline::Stop`, once every transaction that it proposed is committed, and tells
/// its neighbours to end.
pub fn start(
    core: Pipeline,
    host: ThisHost,
    provider: MetricsProvider,
    mail: Receiver<PipelineMail>,
    neighbours: Neighbours,
) -> io::Result<JoinHandle<()>> {
    let thread = Thread { core, host, provider, mail, neighbours, spin: Spins::default() };
    std::thread::Builder::new().name("pipeline".into()).spawn(move || thread.run())
}

struct Thread {
    /// Dropped first: the snapshot thread ends by that, and a large tree takes its time to go.
    neighbours: Neighbours,
    core: Pipeline,
    host: ThisHost,
    provider: MetricsProvider,
    mail: Receiver<PipelineMail>,
    spin: Spins,
}

impl Thread {
    fn run(mut self) {
        priority::take_short_turns();
        loop {
            let first = self.wait();
            let turn_us = clock::mono_us();
            self.core.set_time(clock::now(), turn_us);
            let mut taken = first.map_or(0, |mail| self.take(mail));
            while taken < PIPELINE_MAIL_PER_TURN
                && let Ok(mail) = self.mail.try_recv()
            {
                taken += self.take(mail);
            }
            // After the mail: a session whose ping waits here while the machine was paused has not expired.
            self.core.tick();
            let outbox = self.core.take_outbox();
            if self.deliver(outbox, turn_us) {
                return;
            }
        }
    }

    /// The next mail; nothing when time alone, or a snapshot, asks for a turn.
    fn wait(&mut self) -> Option<PipelineMail> {
        if self.core.wants_to_run() {
            return self.mail.try_recv().ok();
        }
        let wait_ms = self.core.next_deadline_ms().saturating_sub(clock::now().mono_ms).max(0);
        let wait = Duration::from_millis(wait_ms.unsigned_abs());
        let spin = self.spin.when(self.core.awaits_commit());
        match receive(&self.mail, spin, wait) {
            Ok(mail) => Some(mail),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the poller ended before the pipeline"),
        }
    }

    /// Gives how much that was.
    fn take(&mut self, mail: PipelineMail) -> usize {
        match mail {
            PipelineMail::Core(batch) => {
                let count = batch.len();
                batch.into_iter().for_each(|mail| self.core.step(mail));
                return count;
            }
            PipelineMail::Word { conn, word, view } => {
                let text = words::answer(word, &self.query_context(&view));
                self.core.answer_word(conn, text);
            }
            PipelineMail::Query { query, view } => query.answer(&self.query_context(&view)),
            PipelineMail::HealthCheck(check) => {
                check.reply(HealthReport::Role(self.core.role(), self.core.state().last_zxid()));
            }
        }
        1
    }

    fn query_context<'a>(&'a self, view: &'a PollerView) -> QueryContext<'a> {
        QueryContext {
            now: clock::now(),
            poller: view,
            server: &self.core,
            host: &self.host,
            stats: metrics::server_stats(),
            provider: self.provider,
        }
    }

    /// Posts what the core has to say. `true`: that was all.
    fn deliver(&self, outbox: Outbox, begun_us: i64) -> bool {
        let Neighbours { txnlog, snapshot, poller, quorum } = &self.neighbours;
        if outbox.frees_memory {
            memory::give_back();
        }
        let stopped = outbox.stopped;
        let sent_us = if outbox.records.is_empty() && outbox.applied == 0 { 0 } else { clock::mono_us() };
        let ended = "the neighbours end after the pipeline";
        deliver(outbox, quorum.is_some(), TurnTimes { begun_us, sent_us }, |post| match post {
            Post::Quorum(mail) => {
                if let Some(quorum) = quorum {
                    quorum.post(QuorumMail::Core(mail));
                }
            }
            Post::Txnlog(mail) => txnlog.send(TxnlogMail::Core(mail)).expect(ended),
            Post::Snapshot(mail) => snapshot.send(mail).expect(ended),
            Post::Poller(mail) => poller.post(PollerMail::Core(mail)),
        });
        stopped
    }
}
