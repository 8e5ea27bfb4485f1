//! A follower that takes observers off its leader's hands (`ObserverMaster`, `observerMasterPort`): it brings them up to
//! date from its own history, tells them what is committed, and passes on what they want of the leader. Pure; run by
//! [`super::peer`] beside a [`super::learner`] that serves.
//!
//! Observers notice no difference to a leader in broadcast: both do it with a [`super::learner_master`]. What goes up and
//! comes down again is matched by the learner, which has the link to the leader.

use std::mem;

use super::committed_log::{CommittedLog, Known};
use super::learner_master::{LearnerMaster, Said};
use super::packet::{LearnerInfo, Packet};
use super::{Effect, Epochs, LinkId, LinkPriority, LogPart, OnLink, PeerRules, proposed_members};
use crate::admin::view::LearnerView;
use crate::config::voters::Configs;
use crate::ids::{ServerId, Zxid};
use crate::mail::{LogRecord, ToPipeline, ToQuorum};

/// What a follower hears of its leader that concerns observers, in order.
#[derive(Debug)]
pub enum Relay {
    /// A transaction is committed. With a server: it is a configuration, and that server is to lead by it.
    Committed(LogRecord, Option<ServerId>),
    /// The answer to what an observer asked of the leader.
    Answer(LinkId, Packet),
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// By the shell.
    Effect(Effect),
    /// A packet of an observer is for the leader.
    Upstream(LinkId, Packet),
}

/// The core of a follower's port for observers, while it follows one leader.
#[derive(Debug)]
pub struct ObserverMaster {
    master: LearnerMaster,
    /// What pings say: the last committed when this began.
    began_at: Zxid,
}

impl ObserverMaster {
    /// A follower begins to serve, in the current epoch; `committed` is the last transaction that the pipeline was given,
    /// and how it is known.
    pub fn new(
        my_id: ServerId,
        configs: Configs,
        rules: PeerRules,
        epochs: Epochs,
        (committed, known): (Zxid, Known),
        now_ms: i64,
    ) -> ObserverMaster {
        let committed_log = CommittedLog::of_bytes(rules.observer_bytes_max, committed, known);
        let mut master = LearnerMaster::new(my_id, configs, rules, epochs, committed_log, committed, now_ms);
        master.epoch = epochs.current;
        master.established = true;
        master.committed = committed.max(master.epoch_start());
        master.effects.push(Effect::ListenForObservers);
        let began_at = master.committed;
        ObserverMaster { master, began_at }
    }

    /// The time of what is said next, monotonic.
    pub fn set_time(&mut self, now_ms: i64) {
        self.master.set_time(now_ms, self.next_deadline_ms());
    }

    /// Whether this is a connection of an observer.
    pub fn has(&self, link: LinkId) -> bool {
        self.master.has(link)
    }

    /// Someone connected to the port.
    pub fn on_connected(&mut self, link: LinkId) {
        self.master.on_learner_connected(link);
    }

    /// An observer sent a packet.
    pub fn on_packet(&mut self, link: LinkId, packet: Packet) {
        match self.master.on_packet(link, packet) {
            Some(Said::Info(info)) => self.on_introduced(link, &info),
            Some(Said::AckEpoch { zxid, reach, .. }) => {
                self.master.on_promised(link, zxid, reach);
                self.master.start_sync(link, None);
            }
            // An observer acknowledges nothing else.
            Some(Said::Ack { zxid }) if zxid.counter() == 0 => {
                if self.master.on_new_leader_acked(link, zxid) {
                    self.master.say_up_to_date(link);
                }
            }
            Some(Said::Ack { .. }) | None => {}
        }
    }

    fn on_introduced(&mut self, link: LinkId, info: &LearnerInfo) {
        if !info.observer {
            let why = "only observers are taken on this port; followers connect to their leader";
            return self.master.close(link, why.to_string());
        }
        let server = match self.master.check_info(info) {
            Ok(server) => server,
            Err(problem) => return self.master.close(link, problem),
        };
        if !self.master.introduce(link, server, info) {
            return;
        }
        let (promised, epoch) = (info.accepted_epoch, self.master.epoch);
        match info.history.filter(|end| end.latest_epoch() > epoch) {
            Some(end) => self.master.refuse_later_history(link, server, end),
            None if self.master.configs.is_voter(server) && promised > epoch => {
                let id = server.0;
                self.master.close(link, format!("server {id} promised epoch {promised:#x}, later than {epoch:#x}"));
            }
            None => self.master.invite(link),
        }
    }

    /// Bytes of an observer came.
    pub fn on_heard(&mut self, link: LinkId) {
        self.master.on_heard(link);
    }

    /// The connection is closed.
    pub fn on_link_closed(&mut self, link: LinkId) {
        self.master.on_link_closed(link);
    }

    /// The kernel took a piece of an observer's snapshot.
    pub fn on_snapshot_sent(&mut self, link: LinkId) {
        self.master.on_snapshot_sent(link);
    }

    /// What [`Effect::ReadLog`] found.
    pub fn on_log_read(&mut self, link: LinkId, part: LogPart) {
        self.master.on_log_read(link, part, None);
    }

    /// What the configuration says of an observer.
    pub fn priority(&self, link: LinkId) -> LinkPriority {
        self.master.priority(link)
    }

    /// A piece of the pipeline's state for an observer; nothing else of the mail is for this.
    pub fn on_inner(&mut self, mail: ToQuorum) {
        if let ToQuorum::Snapshot { learner, zxid, bytes, last } = mail {
            self.master.on_snapshot_piece(learner, zxid, bytes, last);
        }
    }

    /// The leader said something that concerns observers. The pipeline has been told of it before.
    pub fn on_relay(&mut self, relay: Relay) {
        match relay {
            Relay::Committed(record, designated) => {
                if designated.is_some()
                    && let Some(Ok(members)) = proposed_members(&record.payload)
                {
                    self.master.configs.activate(members);
                }
                self.master.tell_committed(record, designated);
                self.master.drop_laggards();
            }
            Relay::Answer(link, packet) => self.master.send_if_there(link, packet),
        }
    }

    /// Deadlines and pings.
    pub fn tick(&mut self) {
        self.master.close_late();
        if self.master.now_ms >= self.master.next_ping_ms {
            self.master.close_stalled_snapshots();
            self.master.schedule_ping();
            let zxid = self.began_at;
            self.master.ping(|_, _| Packet::Ping { zxid, touched: Vec::new() }, |_| 0);
        }
    }

    /// When [`ObserverMaster::tick`] has something to do, monotonic.
    pub fn next_deadline_ms(&self) -> i64 {
        self.master.next_deadline_ms()
    }

    /// What is to be done, in order.
    pub fn take(&mut self) -> Vec<Output> {
        let output = |effect| match effect {
            Effect::Pipeline(ToPipeline::Forwarded { learner, request }) => {
                Output::Upstream(learner, Packet::Request(request))
            }
            Effect::Pipeline(ToPipeline::Revalidate { learner, session, timeout_ms }) => {
                Output::Upstream(learner, Packet::Revalidate { session, timeout_ms })
            }
            effect => Output::Effect(effect),
        };
        // Those that are gone had no voice.
        self.master.take_gone();
        mem::take(&mut self.master.effects).into_iter().map(output).collect()
    }

    /// Who observes, by id.
    pub fn learner_views(&self, on_link: &OnLink<'_>) -> Vec<LearnerView> {
        self.master.learner_views(on_link)
    }

    /// Brings the gauges up to date.
    pub fn publish(&self) {
        self.master.publish_observers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Members;
    use crate::quorum::Timing;
    use crate::quorum::packet::PROTOCOL;

    const TIMING: Timing = Timing { tick_ms: 1000, init_ms: 5000, sync_ms: 2000, connect_ms: 5000 };

    /// Server 2 follows in epoch 2; servers 1 to 3 vote, and 4 observes.
    fn observer_master() -> ObserverMaster {
        let text = b"server.1=h:1:2\nserver.2=h:1:2\nserver.3=h:1:2\nserver.4=h:1:2:observer\n";
        let committed = Members::parse_text(text).unwrap();
        let configs = Configs { committed, last_seen: None, reconfig_enabled: false };
        let committed_log = CommittedLog::new(Zxid(2 << 32 | 1), Vec::new());
        let committed = (committed_log.last(), committed_log.last_known());
        let epochs = Epochs { accepted: 2, current: 2 };
        ObserverMaster::new(ServerId(2), configs, TIMING.into(), epochs, committed, 0)
    }

    fn said_to(master: &mut ObserverMaster, link: LinkId, info: LearnerInfo) -> Vec<String> {
        master.on_connected(link);
        master.on_packet(link, Packet::LearnerInfo(info));
        let about = |output| match output {
            Output::Effect(Effect::Send { link: to, packet }) if to == link => Some(packet.name().to_string()),
            Output::Effect(Effect::Close { link: at, why }) if at == link => Some(why),
            _ => None,
        };
        master.take().into_iter().filter_map(about).collect()
    }

    fn info(server: i64, observer: bool, accepted_epoch: u32) -> LearnerInfo {
        let server = Some(ServerId(server));
        LearnerInfo { observer, accepted_epoch, server, protocol: PROTOCOL, config_version: 0, history: None }
    }

    #[test]
    fn a_follower_that_comes_to_the_port_for_observers_is_closed() {
        let said = said_to(&mut observer_master(), LinkId(1), info(3, false, 2));
        assert_eq!(said, ["only observers are taken on this port; followers connect to their leader"]);
    }

    #[test]
    fn a_voter_that_observes_and_promised_a_later_epoch_keeps_no_other_observer_away() {
        let mut master = observer_master();
        for link in 1..=3 {
            let said = said_to(&mut master, LinkId(link), info(3, true, 3));
            assert_eq!(said, ["server 3 promised epoch 0x3, later than 0x2"]);
        }
        assert_eq!(said_to(&mut master, LinkId(4), info(4, true, 2)), ["LEADERINFO"]);
    }
}
