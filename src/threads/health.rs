//! The health of the threads without which nobody is served, for the service manager: a health check goes through the mail
//! of each, as anything else that it does; once all have replied, the watchdog is fed. A thread that is stuck leaves the
//! check in its mail, and the manager restarts the process. The pipeline's reply says what the server is, so that the
//! manager learns when it serves, and shows it (`systemctl status`).
//!
//! [`Liveness`] decides and is pure; the thread exists only where a manager listens. Called by `main`.

use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};

use crate::ids::Zxid;
use crate::mail::Role;
use crate::sys::clock;
use crate::sys::notify::{Notify, watchdog};
use crate::threads::pipeline::PipelineMail;
use crate::threads::poller::{PollerHandle, PollerMail};
use crate::threads::quorum::{QuorumHandle, QuorumMail};
use crate::threads::txnlog::TxnlogMail;

/// Between two rounds while the server does not serve yet: its manager waits for that.
const STARTING_ROUND_MS: i64 = 100;

/// Between two rounds of a server that serves; less should the watchdog be in a hurry.
const ROUND_MS_MAX: i64 = 1_000;

/// Rounds within the time that the watchdog waits.
const ROUNDS_PER_WATCHDOG: i64 = 4;

/// An answer that takes longer is worth a line in the log, ms; or half of the time that the watchdog waits, so that the
/// line is there before the manager ends the process.
const LATE_MS_MAX: i64 = 5_000;

/// How much longer a start may take after each round in which every thread has answered, microseconds. Looking for a
/// leader takes as long as the others are away; a start in which a thread hangs ends after this.
const START_EXTENSION_US: u64 = 60_000_000;

/// The threads without which nobody is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckedThread {
    /// Sockets of clients.
    Poller,
    /// The replicated state.
    Pipeline,
    /// The transaction log.
    Txnlog,
    /// The other servers.
    Quorum,
}

impl CheckedThread {
    fn name(self) -> &'static str {
        match self {
            CheckedThread::Poller => "poller",
            CheckedThread::Pipeline => "pipeline",
            CheckedThread::Txnlog => "txnlog",
            CheckedThread::Quorum => "quorum",
        }
    }
}

/// Asks a thread whether it still gets to its mail: it replies when all that was sent before is done, the log once that is
/// synced and posted, the quorum thread once the reader is done with it, too.
#[derive(Debug)]
pub struct HealthCheck {
    /// Who is asked.
    pub thread: CheckedThread,
    /// Who wants to know.
    pub reply_to: Sender<HealthReply>,
}

impl HealthCheck {
    /// Replies.
    pub fn reply(self, report: HealthReport) {
        // Nobody waits for it once the process is about to end.
        let _ = self.reply_to.send(HealthReply { thread: self.thread, report });
    }
}

/// The reply to a [`HealthCheck`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthReply {
    /// Who replies.
    pub thread: CheckedThread,
    /// What it reports.
    pub report: HealthReport,
}

/// What a thread reports when it is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HealthReport {
    /// That it is alive.
    Alive,
    /// The pipeline: what this server is, and the last transaction applied.
    Role(Role, Zxid),
    /// The quorum thread: the epoch that this server has joined.
    Epoch(i64),
}

/// The mail of the threads that are checked.
#[derive(Debug)]
pub struct CheckedThreads {
    /// The clients.
    pub poller: PollerHandle,
    /// The state machine.
    pub pipeline: Sender<PipelineMail>,
    /// The log.
    pub txnlog: Sender<TxnlogMail>,
    /// The other servers, in an ensemble.
    pub quorum: Option<QuorumHandle>,
}

impl CheckedThreads {
    fn all(&self) -> Vec<CheckedThread> {
        let quorum = self.quorum.as_ref().map(|_| CheckedThread::Quorum);
        [CheckedThread::Poller, CheckedThread::Pipeline, CheckedThread::Txnlog].into_iter().chain(quorum).collect()
    }

    /// Mail for a thread that has ended is lost: the process is about to end.
    fn check(&self, thread: CheckedThread, reply_to: &Sender<HealthReply>) {
        let check = HealthCheck { thread, reply_to: reply_to.clone() };
        match thread {
            CheckedThread::Poller => self.poller.post(PollerMail::HealthCheck(check)),
            CheckedThread::Pipeline => drop(self.pipeline.send(PipelineMail::HealthCheck(check))),
            CheckedThread::Txnlog => drop(self.txnlog.send(TxnlogMail::HealthCheck(check))),
            CheckedThread::Quorum => {
                if let Some(quorum) = &self.quorum {
                    quorum.post(QuorumMail::HealthCheck(check));
                }
            }
        }
    }
}

/// Starts the thread; it runs until the process ends.
pub fn start(mut manager: Notify, threads: CheckedThreads) -> std::io::Result<()> {
    let watchdog_ms = watchdog().map(|limit| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
    let body = move || {
        let (reply_to, replies) = unbounded();
        let mut liveness = Liveness::new(&threads.all(), threads.quorum.is_some(), watchdog_ms);
        loop {
            let now_ms = clock::mono_us() / 1000;
            for thread in liveness.due(now_ms) {
                threads.check(thread, &reply_to);
            }
            if let Some(message) = liveness.message() {
                manager.tell(&message);
            }
            let wait_ms = liveness.next_ms().saturating_sub(now_ms).max(0);
            match replies.recv_timeout(Duration::from_millis(wait_ms.unsigned_abs())) {
                Ok(reply) => liveness.on_reply(reply, clock::mono_us() / 1000),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => unreachable!("this thread has a sender itself"),
            }
        }
    };
    std::thread::Builder::new().name("health".into()).spawn(body).map(drop)
}

/// One thread that is asked.
#[derive(Debug)]
struct Asked {
    thread: CheckedThread,
    /// Since when it owes an answer.
    since_ms: Option<i64>,
    /// The log says that it does.
    told: bool,
}

/// Asks each thread once a round, and never again before it has answered.
#[derive(Debug)]
struct Liveness {
    asked: Vec<Asked>,
    in_ensemble: bool,
    watchdog_ms: Option<i64>,
    next_round_ms: i64,
    /// All have replied, and the manager has not been told.
    round_is_complete: bool,
    ready: bool,
    /// What the server is, once it has said so.
    role: Option<(Role, Zxid)>,
    /// Of its ensemble.
    epoch: i64,
    /// What the manager knows of that.
    status: String,
}

impl Liveness {
    fn new(threads: &[CheckedThread], in_ensemble: bool, watchdog_ms: Option<i64>) -> Liveness {
        Liveness {
            asked: threads.iter().map(|thread| Asked { thread: *thread, since_ms: None, told: false }).collect(),
            in_ensemble,
            watchdog_ms,
            next_round_ms: i64::MIN,
            round_is_complete: false,
            ready: false,
            role: None,
            epoch: 0,
            status: String::new(),
        }
    }

    /// Whom to ask now.
    fn due(&mut self, now_ms: i64) -> Vec<CheckedThread> {
        self.complain(now_ms);
        if now_ms < self.next_round_ms || self.asked.iter().any(|asked| asked.since_ms.is_some()) {
            return Vec::new();
        }
        self.next_round_ms = now_ms + self.round_ms();
        self.asked.iter_mut().for_each(|asked| asked.since_ms = Some(now_ms));
        self.asked.iter().map(|asked| asked.thread).collect()
    }

    fn round_ms(&self) -> i64 {
        let longest = if self.ready { ROUND_MS_MAX } else { STARTING_ROUND_MS };
        self.watchdog_ms.map_or(longest, |limit_ms| longest.min(limit_ms / ROUNDS_PER_WATCHDOG)).max(1)
    }

    /// When there is something to do without an answer. While answers are owed, that is to complain.
    fn next_ms(&self) -> i64 {
        let owed = || self.asked.iter().filter(|asked| asked.since_ms.is_some());
        if owed().next().is_none() {
            return self.next_round_ms;
        }
        let untold = owed().filter(|asked| !asked.told).filter_map(|asked| asked.since_ms).min();
        untold.map_or(i64::MAX, |since_ms| since_ms + self.late_ms())
    }

    fn late_ms(&self) -> i64 {
        self.watchdog_ms.map_or(LATE_MS_MAX, |limit_ms| LATE_MS_MAX.min(limit_ms / 2))
    }

    fn complain(&mut self, now_ms: i64) {
        let late_ms = self.late_ms();
        for asked in &mut self.asked {
            if let Some(since_ms) = asked.since_ms.filter(|since_ms| !asked.told && now_ms >= since_ms + late_ms) {
                let limit = match self.watchdog_ms {
                    Some(limit_ms) => format!("; after {} s the service manager restarts this server", limit_ms / 1000),
                    None => String::new(),
                };
                log::warn!("the {} thread has not answered for {} ms{limit}", asked.thread.name(), now_ms - since_ms);
                asked.told = true;
            }
        }
    }

    fn on_reply(&mut self, reply: HealthReply, now_ms: i64) {
        if let Some(asked) = self.asked.iter_mut().find(|asked| asked.thread == reply.thread) {
            if let Some(since_ms) = asked.since_ms.take().filter(|_| asked.told) {
                log::warn!("the {} thread goes on after {} ms", asked.thread.name(), now_ms - since_ms);
            }
            asked.told = false;
        }
        match reply.report {
            HealthReport::Role(role, zxid) => self.role = Some((role, zxid)),
            HealthReport::Epoch(epoch) => self.epoch = epoch,
            HealthReport::Alive => (),
        }
        self.round_is_complete |= self.asked.iter().all(|asked| asked.since_ms.is_none());
    }

    fn serves(&self) -> bool {
        self.role.is_some_and(|(role, _)| matches!(role, Role::Leading { .. } | Role::Following | Role::Observing))
    }

    fn status_of(&self, role: Role, zxid: Zxid) -> String {
        let name = match role {
            Role::Leading { .. } if self.in_ensemble => "leader",
            Role::Leading { .. } => "standalone",
            Role::Following => "follower",
            Role::Observing => "observer",
            Role::ReadOnly => "cut off from a quorum, read-only",
            Role::Looking => "looking for a leader, serving nobody",
        };
        // A server that stands alone begins no epochs: it goes on in that of its data.
        let epoch = if self.in_ensemble { self.epoch } else { i64::from(zxid.epoch()) };
        format!("{name}, epoch {epoch}, last zxid {zxid}")
    }

    /// What the manager is to be told now.
    fn message(&mut self) -> Option<String> {
        if !std::mem::take(&mut self.round_is_complete) {
            return None;
        }
        let mut lines = vec!["WATCHDOG=1".to_owned()];
        if !self.ready && self.serves() {
            self.ready = true;
            lines.push("READY=1".to_owned());
        } else if !self.ready {
            lines.push(format!("EXTEND_TIMEOUT_USEC={START_EXTENSION_US}"));
        }
        let status = self.role.map(|(role, zxid)| self.status_of(role, zxid)).unwrap_or_default();
        if status != self.status {
            lines.push(format!("STATUS={status}"));
            self.status = status;
        }
        Some(lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CheckedThread; 4] =
        [CheckedThread::Poller, CheckedThread::Pipeline, CheckedThread::Txnlog, CheckedThread::Quorum];
    const LONGER: &str = "EXTEND_TIMEOUT_USEC=60000000";

    fn reply(thread: CheckedThread) -> HealthReply {
        HealthReply { thread, report: HealthReport::Alive }
    }

    /// A round in which all answer.
    fn round(liveness: &mut Liveness, now_ms: i64, role: Role, epoch: i64) -> String {
        assert_eq!(liveness.due(now_ms), ALL);
        for thread in ALL {
            let report = match thread {
                CheckedThread::Pipeline => HealthReport::Role(role, Zxid(5)),
                CheckedThread::Quorum => HealthReport::Epoch(epoch),
                CheckedThread::Poller | CheckedThread::Txnlog => HealthReport::Alive,
            };
            liveness.on_reply(HealthReply { thread, report }, now_ms);
        }
        liveness.message().unwrap().replace('\n', "; ")
    }

    #[test]
    fn the_watchdog_is_fed_when_every_thread_has_answered_and_not_before() {
        let mut liveness = Liveness::new(&ALL, true, Some(60_000));
        assert_eq!(liveness.due(1000), ALL);
        for thread in [CheckedThread::Poller, CheckedThread::Pipeline, CheckedThread::Quorum] {
            liveness.on_reply(reply(thread), 1000);
            assert_eq!(liveness.message(), None);
        }
        assert!(liveness.due(9000).is_empty(), "the log's thread still owes its answer");
        assert_eq!(liveness.message(), None);
        liveness.on_reply(reply(CheckedThread::Txnlog), 9001);
        assert_eq!(liveness.message(), Some(format!("WATCHDOG=1\n{LONGER}")));
        assert_eq!(liveness.due(9002), ALL);
    }

    #[test]
    fn it_is_ready_once_it_serves_and_says_what_it_is_when_that_changes() {
        let mut liveness = Liveness::new(&ALL, true, None);
        let said = [
            round(&mut liveness, 0, Role::Looking, 1),
            round(&mut liveness, 100, Role::Looking, 1),
            round(&mut liveness, 200, Role::Following, 1),
            round(&mut liveness, 1200, Role::Following, 1),
            round(&mut liveness, 2200, Role::Leading { epoch: 2 }, 2),
            round(&mut liveness, 3200, Role::Looking, 2),
        ];
        let looking = "looking for a leader, serving nobody";
        let wanted = [
            format!("WATCHDOG=1; {LONGER}; STATUS={looking}, epoch 1, last zxid 0x5"),
            format!("WATCHDOG=1; {LONGER}"),
            "WATCHDOG=1; READY=1; STATUS=follower, epoch 1, last zxid 0x5".to_owned(),
            "WATCHDOG=1".to_owned(),
            "WATCHDOG=1; STATUS=leader, epoch 2, last zxid 0x5".to_owned(),
            format!("WATCHDOG=1; STATUS={looking}, epoch 2, last zxid 0x5"),
        ];
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_server_that_stands_alone_says_the_epoch_of_its_data() {
        let mut liveness = Liveness::new(&[CheckedThread::Pipeline], false, None);
        liveness.due(0);
        let report = HealthReport::Role(Role::Leading { epoch: 0 }, Zxid(0x3_0000_0005));
        liveness.on_reply(HealthReply { thread: CheckedThread::Pipeline, report }, 1);
        assert!(liveness.message().unwrap().ends_with("STATUS=standalone, epoch 3, last zxid 0x300000005"));
    }

    #[test]
    fn a_thread_that_is_stuck_is_named_before_the_watchdog_bites() {
        for (watchdog_ms, late_ms) in [(None, 5000), (Some(60_000), 5000), (Some(2000), 1000)] {
            let mut liveness = Liveness::new(&ALL, true, watchdog_ms);
            liveness.due(0);
            ALL[1..].iter().for_each(|thread| liveness.on_reply(reply(*thread), 1));
            assert_eq!(liveness.next_ms(), late_ms);
            liveness.due(late_ms - 1);
            assert!(liveness.asked.iter().all(|asked| !asked.told));
            liveness.due(late_ms);
            assert!(liveness.asked.iter().all(|asked| asked.told == (asked.thread == ALL[0])));
        }
    }

    #[test]
    fn rounds_come_four_times_as_often_as_the_watchdog_bites() {
        let mut liveness = Liveness::new(&ALL, true, Some(2000));
        round(&mut liveness, 0, Role::Following, 1);
        round(&mut liveness, 100, Role::Following, 1);
        assert!(liveness.due(599).is_empty());
        assert_eq!(liveness.next_ms(), 600);
        assert_eq!(liveness.due(600), ALL);
    }
}
