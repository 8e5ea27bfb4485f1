//! The thread that reads the log for the quorum thread, which has pings to send meanwhile: a learner's part of the log,
//! what was let go of memory, and the state after a truncation, which goes to the pipeline. It does one after the other. Blocks
//! on its channel and on the disk, nowhere else; ends with the quorum thread.

use std::io;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::engine::quorum::reads::{Found, Part, ToRead};
use crate::ids::Zxid;
use crate::mail::{LogRecord, ToPipeline};
use crate::memory::Bounds;
use crate::quorum::LogPart;
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

/// What is to be done.
#[derive(Debug)]
enum Job {
    Read(ToRead),
    HealthCheck(HealthCheck, HealthReport),
}

/// How the quorum thread asks.
#[derive(Debug)]
pub struct Reader {
    jobs: Sender<Job>,
}

impl Reader {
    /// Starts the thread. `post` delivers to the quorum thread.
    pub fn start(
        rules: ReadRules,
        post: impl Fn(Found) + Send + 'static,
        pipeline: Sender<PipelineMail>,
    ) -> io::Result<Reader> {
        let (sender, jobs) = unbounded();
        std::thread::Builder::new().name("log-reader".into()).spawn(move || work(&rules, &jobs, post, &pipeline))?;
        Ok(Reader { jobs: sender })
    }

    /// Behind what was asked for before.
    pub fn read(&self, what: ToRead) {
        self.ask(Job::Read(what));
    }

    /// Replies when all that was asked for before is read: a disk that hangs is to be noticed.
    pub fn check_health(&self, check: HealthCheck, report: HealthReport) {
        self.ask(Job::HealthCheck(check, report));
    }

    fn ask(&self, job: Job) {
        // The thread ends with this sender, or with the process.
        let _ = self.jobs.send(job);
    }
}

fn work(rules: &ReadRules, jobs: &Receiver<Job>, post: impl Fn(Found), pipeline: &Sender<PipelineMail>) {
    let mut read_back = ReadBack::default();
    for job in jobs {
        match job {
            Job::Read(ToRead::Part(Part { link, from, to })) => {
                post(Found::Part { link, part: part(rules, from, to) });
            }
            Job::Read(ToRead::Back { from, to }) => post(Found::Back(back(rules, &mut read_back, from, to))),
            Job::Read(ToRead::State { to }) => {
                // After its end nobody waits for this.
                let install = ToPipeline::Install { state: state(rules, to), durable: true };
                let _ = pipeline.send(PipelineMail::Core(vec![install]));
            }
            Job::Read(ToRead::Forget) => read_back.forget(),
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
    fn only_a_log_that_is_gone_is_left_to_an_operator() {
        let code =
            |number| code_of(&LogError::Io { path: "log.1".into(), source: io::Error::from_raw_os_error(number) });
        assert_eq!(code(libc::ENOENT), ExitCode::DataDir);
        assert_eq!([libc::EIO, libc::EMFILE].map(code), [ExitCode::TxnLog; 2]);
    }
}
