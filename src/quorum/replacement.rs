//! How a server's history is replaced, step by step, each asked for when the one before it is done. Beside the core, for
//! whoever carries out its effects: [`super::Effect::Truncate`] and [`super::Effect::Install`] begin here. What a step does
//! to the files, and what a crash leaves, is in `storage::truncate`. Pure.
//!
//! - TRUNC to T: the log's thread cuts the history ([`Step::Cut`]); the pipeline forgets the state ([`Step::Forget`]), for
//!   memory may not hold two; what is left is read again, and saved by the pipeline ([`Step::ReadAgain`]); the log's thread cuts once more. The second cut is there for a snapshot of the old state that
//!   was under way during the first: the snapshot thread takes one thing after the other, so it is on disk when the
//!   installed one is, and goes. Only then is the truncation done.
//! - SNAP as of S: the log's thread prepares, the pipeline saves the state that came, the log's thread removes what came
//!   before it ([`Step::Finish`]). Only then records behind S are appended.

use crate::ids::Zxid;
use crate::mail::Dropped;

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The log and the snapshots are being cut behind this transaction.
    Cutting { to: Zxid, dropped: Dropped },
    /// The pipeline forgets what it has.
    Forgetting { to: Zxid, dropped: Dropped },
    /// What is left was read again; the pipeline has it and saves it.
    SavingRest { to: Zxid, dropped: Dropped },
    /// A snapshot that was under way meanwhile is being removed.
    CuttingAgain { to: Zxid },
    /// The pipeline has a state that the leader sent, and saves it.
    SavingReceived { zxid: Zxid },
    /// What came before it is being removed.
    Finishing,
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// `ToTxnlog::Truncate`, which is answered by `ToQuorum::Truncated`.
    Cut {
        /// The last transaction that stays.
        to: Zxid,
        /// What becomes of the rest.
        dropped: Dropped,
    },
    /// `ToPipeline::Forget`, which is answered by `ToQuorum::Forgotten`.
    Forget,
    /// Recovery as of this transaction, and `ToPipeline::Install` of the state, durable: answered by `ToQuorum::Installed`.
    ReadAgain {
        /// The last transaction of the state.
        to: Zxid,
    },
    /// `ToTxnlog::FinishInstall`, with `ToQuorum::Installed` behind it.
    Finish {
        /// The last transaction of the state.
        zxid: Zxid,
    },
    /// It is over, and this came of [`super::Effect::Truncate`]: the core is to hear of it.
    Truncated(Result<Zxid, String>),
    /// [`super::Effect::Install`] is done: the core is to hear `ToQuorum::Installed`.
    Installed(Zxid),
}

/// The replacement that is under way, if one is.
#[derive(Debug, Default)]
pub struct Replacement {
    stage: Option<Stage>,
}

impl Replacement {
    /// The history is being cut behind this transaction, as [`Step::Cut`] says.
    pub fn begin_truncation(&mut self, to: Zxid, dropped: Dropped) {
        self.stage = Some(Stage::Cutting { to, dropped });
    }

    /// `ToTxnlog::PrepareInstall` was said, with `ToPipeline::Install` behind it.
    pub fn begin_installation(&mut self, zxid: Zxid) {
        self.stage = Some(Stage::SavingReceived { zxid });
    }

    /// `ToQuorum::Truncated`: the log's thread cut the history, or found that it cannot. `None`: nobody asked for it.
    pub fn on_cut(&mut self, to: Zxid, possible: bool) -> Option<Step> {
        match self.stage {
            Some(Stage::Cutting { .. }) if !possible => {
                self.stage = None;
                Some(Step::Truncated(Err(format!("{to} is not in this server's history"))))
            }
            Some(Stage::Cutting { to: wanted, dropped }) if wanted == to => {
                self.stage = Some(Stage::Forgetting { to, dropped });
                Some(Step::Forget)
            }
            Some(Stage::CuttingAgain { to: wanted }) if wanted == to => {
                self.stage = None;
                Some(Step::Truncated(Ok(to)))
            }
            _ => {
                log::error!("the log was cut to {to}, which nobody asked for");
                None
            }
        }
    }

    /// `ToQuorum::Forgotten`. `None`: that was not for this, the core is to hear of it.
    pub fn on_forgotten(&mut self) -> Option<Step> {
        let Some(Stage::Forgetting { to, dropped }) = self.stage else { return None };
        self.stage = Some(Stage::SavingRest { to, dropped });
        Some(Step::ReadAgain { to })
    }

    /// `ToQuorum::Installed`: a state that the pipeline was given is saved; or, at last, what came before it is removed.
    /// `None`: nobody asked for it.
    pub fn on_installed(&mut self, zxid: Zxid) -> Option<Step> {
        let (stage, step) = match self.stage {
            Some(Stage::SavingRest { to, dropped }) => (Some(Stage::CuttingAgain { to }), Step::Cut { to, dropped }),
            Some(Stage::SavingReceived { zxid }) => (Some(Stage::Finishing), Step::Finish { zxid }),
            Some(Stage::Finishing) => (None, Step::Installed(zxid)),
            _ => {
                log::error!("a state as of {zxid} was saved, which nobody asked for");
                return None;
            }
        };
        self.stage = stage;
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Zxid = Zxid(5);

    #[test]
    fn a_truncation_cuts_once_more_when_the_rest_is_saved() {
        let mut replacement = Replacement::default();
        replacement.begin_truncation(T, Dropped::Tail);
        assert_eq!(replacement.on_installed(T), None, "a snapshot of before");
        assert_eq!(replacement.on_forgotten(), None, "of a role before");
        assert_eq!(replacement.on_cut(T, true), Some(Step::Forget));
        assert_eq!(replacement.on_forgotten(), Some(Step::ReadAgain { to: T }));
        assert_eq!(replacement.on_forgotten(), None);
        assert_eq!(replacement.on_installed(T), Some(Step::Cut { to: T, dropped: Dropped::Tail }));
        assert_eq!(replacement.on_cut(T, true), Some(Step::Truncated(Ok(T))));
        assert_eq!(replacement.on_cut(T, true), None);
    }

    #[test]
    fn a_truncation_that_cannot_be_is_over_at_once() {
        let mut replacement = Replacement::default();
        replacement.begin_truncation(T, Dropped::Tail);
        assert!(matches!(replacement.on_cut(T, false), Some(Step::Truncated(Err(_)))));
        assert_eq!(replacement.on_cut(T, true), None);
    }

    #[test]
    fn an_installation_is_done_when_what_came_before_is_removed() {
        let mut replacement = Replacement::default();
        replacement.begin_installation(T);
        assert_eq!(replacement.on_cut(T, true), None);
        assert_eq!(replacement.on_installed(T), Some(Step::Finish { zxid: T }));
        assert_eq!(replacement.on_installed(T), Some(Step::Installed(T)));
        assert_eq!(replacement.on_installed(T), None);
    }
}
