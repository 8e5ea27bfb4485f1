//! The thread that reads the log for the quorum thread, which has heartbeats to send meanwhile: a learner's part of the log,
//! what was let go of memory, and the state after a truncation, which goes to the pipeline. It does one after the other, and is
//! given the next part once the quorum thread has taken the last one: parts are large. Blocks on its channel and on the disk,
//! nowhere else; ends with the quorum thread.

use std::collections::VecDeque;
use std::io;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::ids::Zxid;
use crate::mail::{LogRecord, ToPipeline};
use crate::memory::Bounds;
use crate::quorum::{LinkId, LogPart};
use crate::state::State;
use crate::storage::dirs::DataDirs;
use crate::storage::logdir::{self, LogError, ReadBack};
use crate::storage::recover::{RecoverOptions, recover};
use crate::sys::exit::{ExitCode, fatal};
use crate::threads::health::{HealthCheck, HealthReport};
use crate::threads::pipeline::PipelineMail;

/// What is read, and how.
#[derive(Clone, Debug)]
pub struct ReadRules {
    /// Folders.
    pub dirs: DataDirs,
    /// How a history is read again.
    pub recover: RecoverOptions,
    /// `snapshotSizeFactor`: how much log a learner may be sent, as a part of the newest snapshot's size; `Some(0)` is
    /// without bound, `None` never.
    pub snapshot_size_factor: Option<f64>,
    /// How much of it may be read at once.
    pub memory: Bounds,
}

/// A learner's part.
#[derive(Clone, Copy, Debug)]
struct Part {
    link: LinkId,
    from: Zxid,
    to: Zxid,
}

/// What is to be done.
#[derive(Debug)]
enum Job {
    Part(Part),
    Back { from: Zxid, to: Zxid },
    State { to: Zxid },
    Forget,
    HealthCheck(HealthCheck, HealthReport),
}

/// What was read for the quorum thread.
#[derive(Debug)]
pub enum Read {
    /// For [`Reader::read_part`].
    Part {
        /// The learner's.
        link: LinkId,
        /// What there is.
        part: LogPart,
    },
    /// For [`Reader::read_back`].
    Back(Vec<LogRecord>),
}

/// How the quorum thread asks.
#[derive(Debug)]
pub struct Reader {
    jobs: Sender<Job>,
    /// Parts that are to be read next.
    waiting: VecDeque<Part>,
    /// A part is being read, or its mail is on its way.
    is_reading: bool,
}

impl Reader {
    /// Starts the thread. `post` delivers to the quorum thread.
    pub fn start(
        rules: ReadRules,
        post: impl Fn(Read) + Send + 'static,
        pipeline: Sender<PipelineMail>,
    ) -> io::Result<Reader> {
        let (sender, jobs) = unbounded();
        std::thread::Builder::new().name("log-reader".into()).spawn(move || work(&rules, &jobs, post, &pipeline))?;
        Ok(Reader { jobs: sender, waiting: VecDeque::new(), is_reading: false })
    }

    /// A part of the log for a learner: its last transaction, and what is behind that if it is there and worth reading.
    pub fn read_part(&mut self, link: LinkId, from: Zxid, to: Zxid) {
        self.waiting.push_back(Part { link, from, to });
        self.read_next_part(|_| true);
    }

    /// A part came. Those of links that are gone are not read any more.
    pub fn on_part(&mut self, is_there: impl Fn(LinkId) -> bool) {
        self.is_reading = false;
        self.read_next_part(is_there);
    }

    fn read_next_part(&mut self, is_there: impl Fn(LinkId) -> bool) {
        while !self.is_reading
            && let Some(part) = self.waiting.pop_front()
        {
            if is_there(part.link) {
                self.is_reading = true;
                self.ask(Job::Part(part));
            }
        }
    }

    /// Nobody waits for a part any more.
    pub fn forget_parts(&mut self) {
        self.waiting.clear();
    }

    /// Replies when all that was asked for before is read: a disk that hangs is to be noticed.
    pub fn check_health(&self, check: HealthCheck, report: HealthReport) {
        self.ask(Job::HealthCheck(check, report));
    }

    /// What was let go of memory: these transactions, both included, which the log has synced.
    pub fn read_back(&self, from: Zxid, to: Zxid) {
        self.ask(Job::Back { from, to });
    }

    /// The state as of a transaction, behind which everything is removed. The pipeline gets it.
    pub fn read_state(&self, to: Zxid) {
        self.ask(Job::State { to });
    }

    /// The history ends here: what is read from now on is of another one.
    pub fn forget(&self) {
        self.ask(Job::Forget);
    }

    fn ask(&self, job: Job) {
        // The thread ends with this sender, or with the process.
        let _ = self.jobs.send(job);
    }
}

fn work(rules: &ReadRules, jobs: &Receiver<Job>, post: impl Fn(Read), pipeline: &Sender<PipelineMail>) {
    let mut read_back = ReadBack::default();
    for job in jobs {
        match job {
            Job::Part(Part { link, from, to }) => post(Read::Part { link, part: part(rules, from, to) }),
            Job::Back { from, to } => post(Read::Back(back(rules, &mut read_back, from, to))),
            Job::State { to } => {
                // After its end nobody waits for this.
                let install = ToPipeline::Install { state: state(rules, to), durable: true };
                let _ = pipeline.send(PipelineMail::Core(vec![install]));
            }
            Job::Forget => read_back.forget(),
            Job::HealthCheck(check, report) => check.reply(report),
        }
    }
}

fn part(rules: &ReadRules, from: Zxid, to: Zxid) -> LogPart {
    let ReadRules { dirs, recover, snapshot_size_factor, memory } = rules;
    let is_worth_reading = snapshot_size_factor.is_some_and(|factor| logdir::is_worth_reading(dirs, from, factor));
    let bytes_max = if is_worth_reading { memory.log_part() } else { 0 };
    logdir::read_part(dirs, from, to, bytes_max, recover.record_bytes_max).unwrap_or_else(|error| {
        log::warn!("{error}; a learner gets a snapshot instead");
        LogPart::default()
    })
}

fn back(rules: &ReadRules, read_back: &mut ReadBack, from: Zxid, to: Zxid) -> Vec<LogRecord> {
    let logs = &rules.dirs.logs;
    let (code, why) = match read_back.read(logs, from, to, rules.recover.record_bytes_max) {
        Ok(Some(records)) => return records,
        Ok(None) => (ExitCode::DataDir, "they are not there".to_owned()),
        Err(error) => (code_of(&error), error.to_string()),
    };
    let what = format!("transactions {from} to {to} were synced to the log and cannot be read again: {why}");
    fatal(code, &format!("{what}; check the disk of {}", logs.display()))
}

fn state(rules: &ReadRules, to: Zxid) -> Box<State> {
    let options = RecoverOptions { as_of: Some(to), recent_max: 0, ..rules.recover };
    let recovered =
        recover(&rules.dirs, &options).unwrap_or_else(|error| fatal(error.exit_code(), &error.with_way_out()));
    Box::new(recovered.state)
}

/// What this server ends with when a log that was synced cannot be read. Where it is not there any more, the next start would
/// begin with what it finds. Else that start says what is damaged, and the leader has it.
fn code_of(error: &LogError) -> ExitCode {
    match error {
        LogError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => ExitCode::DataDir,
        LogError::Io { .. } | LogError::Damaged { .. } | LogError::NotATxn { .. } => ExitCode::TxnLog,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_is_read_at_a_time_and_none_for_who_is_gone() {
        let (sender, jobs) = unbounded();
        let mut reader = Reader { jobs: sender, waiting: VecDeque::new(), is_reading: false };
        let asked = || {
            jobs.try_iter()
                .map(|job| match job {
                    Job::Part(part) => part.link.0,
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>()
        };
        for link in 1..=5 {
            reader.read_part(LinkId(link), Zxid(1), Zxid(2));
        }
        assert_eq!(asked(), [1]);
        reader.on_part(|link| link.0 > 3);
        assert_eq!(asked(), [4]);
        reader.forget_parts();
        reader.on_part(|_| true);
        assert_eq!(asked(), [0; 0]);
        reader.read_part(LinkId(6), Zxid(1), Zxid(2));
        assert_eq!(asked(), [6]);
    }

    #[test]
    fn only_a_log_that_is_gone_is_left_to_an_operator() {
        let code =
            |number| code_of(&LogError::Io { path: "log.1".into(), source: io::Error::from_raw_os_error(number) });
        assert_eq!(code(libc::ENOENT), ExitCode::DataDir);
        assert_eq!([libc::EIO, libc::EMFILE].map(code), [ExitCode::TxnLog; 2]);
    }
}
