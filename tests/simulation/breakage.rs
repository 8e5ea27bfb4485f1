//! Small deliberate wrongs of protocol and storage, each in one place: a simulation that catches nothing is worth
//! nothing. Nearly all are wrongs of what carries the cores' effects out, or of what the cores are told, and are done
//! right there; those inside a core (`rookeeper::wrong`) take the feature `breakages`.

use rookeeper::ids::LinkId;
use rookeeper::mail::{ForwardedRequest, Role, ToPipeline, ToQuorum, ToTxnlog};
use rookeeper::quorum::Effect;
use rookeeper::quorum::packet::Packet;
use rookeeper::txn::kind;
use rookeeper::wrong::Wrong;

use crate::disk::text;
use crate::quorum::Input;
use crate::world::World;

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breakage {
    /// The log says that records are durable when they are only written.
    AckBeforeSync,
    /// What files hold is never synced.
    FilesNeverSynced,
    /// The names in folders are never synced.
    NamesNeverSynced,
    /// A disk loses the last of what it synced when the power goes.
    SyncedDataLost,
    /// The leader counts every follower's acknowledgement as soon as a proposal leaves: it commits on a minority.
    CommitOnMinority,
    /// `currentEpoch` is written with `acceptedEpoch`, before the history of the epoch is here.
    CurrentEpochTooEarly,
    /// `acceptedEpoch` stays in memory.
    AcceptedEpochNotWritten,
    /// TRUNC is answered, and nothing is cut.
    TruncSkipped,
    /// The history that a leader sends after DIFF lacks a transaction.
    HistoryGap,
    /// A COMMIT leaves after the one that should follow it.
    CommitsOutOfOrder,
    /// What was logged and not committed is not applied when a role ends.
    TailNotApplied,
    /// What was here before an installed state is set aside before that state is durable.
    InstallNotDurable,
    /// What was here before an installed state is kept beside it.
    InstallKeepsOldLog,
    /// A follower answers sync by itself.
    SyncNotForwarded,
    /// Inside a core.
    #[cfg_attr(not(feature = "breakages"), expect(dead_code, reason = "without it there is none"))]
    Core(Wrong),
    /// A follower expires the sessions that it has not heard of.
    FollowerExpires,
    /// A server is dialled where the newest list has it, and nowhere else. Not among [`Breakage::ALL`]: it takes servers
    /// that stopped at the same point, which is a test of its own.
    DialedWhereProposed,
}

impl Breakage {
    /// All of them, each with a seed at which to begin to look for one that catches it: the one that did when this was
    /// written.
    pub const ALL: &[(Breakage, u64)] = &[
        (Breakage::AckBeforeSync, 6),
        (Breakage::FilesNeverSynced, 1),
        (Breakage::NamesNeverSynced, 5),
        (Breakage::SyncedDataLost, 6),
        (Breakage::CommitOnMinority, 22),
        (Breakage::CurrentEpochTooEarly, 1),
        (Breakage::AcceptedEpochNotWritten, 5),
        (Breakage::TruncSkipped, 15),
        (Breakage::HistoryGap, 9),
        (Breakage::CommitsOutOfOrder, 6),
        (Breakage::TailNotApplied, 16),
        (Breakage::InstallNotDurable, 176),
        (Breakage::InstallKeepsOldLog, 22),
        (Breakage::SyncNotForwarded, 19),
        (Breakage::FollowerExpires, 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::VoteByServerFirst), 117),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::WatchLost), 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::EventsAfterAnswer), 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::EventsUnfiltered), 2),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::ChildrenNotCaughtUp), 15),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::DeleteErrorsSwapped), 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::MultiPartlyApplied), 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::DeleteUnchecked), 2),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::CheckIgnoresVersion), 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::ChildZxidKept), 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::SequenceReused), 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::QuotaKeepsDeleted), 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::EphemeralOutlivesSession), 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::TtlHalved), 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::AclKept), 1),
        #[cfg(feature = "breakages")]
        (Breakage::Core(Wrong::LocalSessionOwns), 2),
    ];
}

impl World {
    /// Whether this is to be done wrong.
    pub fn is_broken(&self, breakage: Breakage) -> bool {
        self.options.breakage == Some(breakage)
    }

    /// What is wrong with a packet on its way out: others leave in its place, or none.
    pub fn break_packet(&mut self, s: usize, link: LinkId, packet: Packet, out: &mut Vec<Effect>) {
        let is_it = self.broken_link == Some((s, link));
        match (self.options.breakage, &packet) {
            (Some(Breakage::CommitOnMinority), Packet::Proposal { zxid, .. }) => {
                self.post_quorum(s, Input::Forged(link, vec![Packet::Ack { zxid: *zxid }]));
            }
            (Some(Breakage::HistoryGap), Packet::Diff { .. }) => self.broken_link = Some((s, link)),
            (Some(Breakage::HistoryGap), Packet::Proposal { zxid, .. }) if is_it => {
                self.broken_zxid = Some(*zxid);
                return;
            }
            (Some(Breakage::HistoryGap), Packet::Commit { zxid }) if is_it && self.broken_zxid == Some(*zxid) => {
                (self.broken_link, self.broken_zxid) = (None, None);
                return;
            }
            (Some(Breakage::CommitsOutOfOrder), Packet::Commit { .. }) => match self.held_back.take() {
                Some((of, on, held)) if (of, on) == (s, link) => {
                    out.extend([packet, held].map(|packet| Effect::Send { link, packet }));
                    return;
                }
                None => {
                    self.held_back = Some((s, link, packet));
                    return;
                }
                other => self.held_back = other,
            },
            _ => {}
        }
        out.push(Effect::Send { link, packet });
    }

    /// What is wrong with what a learner's pipeline says: it is heard otherwise, or not at all.
    pub fn break_mail(&mut self, s: usize, mail: ToQuorum) -> Option<ToQuorum> {
        match (self.options.breakage, mail) {
            (Some(Breakage::SyncNotForwarded), ToQuorum::Forward(request)) if request.op == 9 => {
                self.post_pipeline(s, ToPipeline::Synced);
                None
            }
            (Some(Breakage::FollowerExpires), ToQuorum::Touched(touched)) => {
                let process = self.servers[s].process.as_ref()?;
                let sessions = process.pipeline.state().sessions().map(|(session, _)| session);
                let unheard = sessions.filter(|session| touched.iter().all(|(heard, _)| heard != session)).min();
                if let Some(session) = unheard {
                    let close =
                        ForwardedRequest { session, cxid: 0, op: kind::CLOSE_SESSION, body: Vec::new(), auth: None };
                    self.post_quorum(s, Input::Core(ToQuorum::Forward(close)));
                }
                Some(ToQuorum::Touched(touched))
            }
            (_, mail) => Some(mail),
        }
    }

    /// What is wrong with what the log is told: it is done otherwise.
    pub fn break_log_mail(&mut self, s: usize, mail: ToTxnlog) -> Option<ToTxnlog> {
        match (self.options.breakage, mail) {
            (Some(Breakage::TruncSkipped), ToTxnlog::Truncate { to, .. }) => {
                self.post_quorum(s, Input::Core(ToQuorum::Truncated { to, possible: true }));
                None
            }
            (Some(Breakage::InstallNotDurable), ToTxnlog::PrepareInstall { zxid, then, .. }) => {
                let server = &mut self.servers[s];
                let process = server.process.as_mut()?;
                let done = process.log.roll().map_err(text).and_then(|()| server.disk.forget_all());
                self.on_done(s, done)?;
                self.post_quorum(s, Input::Core(ToQuorum::Installed { zxid }));
                then.into_iter().for_each(|mail| self.post(s, mail));
                None
            }
            (Some(Breakage::InstallKeepsOldLog), ToTxnlog::PrepareInstall { then, .. })
            | (
                Some(Breakage::InstallKeepsOldLog | Breakage::InstallNotDurable),
                ToTxnlog::FinishInstall { then, .. },
            ) => {
                then.into_iter().for_each(|mail| self.post(s, mail));
                None
            }
            (_, mail) => Some(mail),
        }
    }

    /// What is wrong with effects as a whole, and what servers of Apache's do not do.
    pub fn break_effects(&self, s: usize, effects: &mut Vec<Effect>) {
        if self.options.apache == Some(s) {
            // Apache's servers keep no such thing.
            effects.retain(|effect| !matches!(effect, Effect::MarkWrongJoin(_)));
        }
        if self.is_broken(Breakage::AcceptedEpochNotWritten) {
            effects.retain(|effect| !matches!(effect, Effect::SetAcceptedEpoch(_)));
        }
        if self.is_broken(Breakage::CurrentEpochTooEarly) {
            let both = |effect| match effect {
                Effect::SetAcceptedEpoch(epoch) => vec![effect, Effect::SetCurrentEpoch(epoch)],
                effect => vec![effect],
            };
            *effects = effects.drain(..).flat_map(both).collect();
        }
        let ends = effects.iter().any(|effect| matches!(effect, Effect::Pipeline(ToPipeline::Role(Role::Looking))));
        if self.is_broken(Breakage::TailNotApplied) && ends {
            effects.retain(|effect| !matches!(effect, Effect::Pipeline(ToPipeline::Deliver { .. })));
        }
        if self.is_broken(Breakage::DialedWhereProposed) {
            for effect in effects {
                if let Effect::DialElection { addresses, .. } = effect {
                    addresses.drain(..addresses.len() - 1);
                }
            }
        }
    }
}
