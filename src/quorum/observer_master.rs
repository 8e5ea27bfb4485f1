//! A follower that takes observers off its leader's hands (`ObserverMaster`, `observerMasterPort`): it brings them up to
//! date from its own history, tells them what is committed, and passes on what they want of the leader. Pure; run by
//! [`super::peer`] beside a [`super::learner`] that serves.
//!
//! Observers notice no difference to a leader in broadcast, so that is what they get, of observers only: see
//! `Leader::for_observers`. What goes up and comes down again is matched by the learner, which has the link to the leader.

use super::committed_log::Known;
use super::leader::Leader;
use super::packet::Packet;
use super::voters::Configs;
use super::{Effect, Epochs, LinkId, LinkPriority, LogPart, OnLink, PeerRules};
use crate::admin::view::LearnerView;
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
    leader: Leader,
}

impl ObserverMaster {
    /// A follower begins to serve, in the current epoch; `committed` is the last transaction that the pipeline was given,
    /// and how it is known.
    pub fn new(
        my_id: ServerId,
        configs: Configs,
        rules: PeerRules,
        epochs: Epochs,
        committed: (Zxid, Known),
        now_ms: i64,
    ) -> ObserverMaster {
        ObserverMaster { leader: Leader::for_observers(my_id, configs, rules, epochs, committed, now_ms) }
    }

    /// The time of what is said next, monotonic.
    pub fn set_time(&mut self, now_ms: i64) {
        self.leader.set_time(now_ms);
    }

    /// Whether this is a connection of an observer.
    pub fn has(&self, link: LinkId) -> bool {
        self.leader.has(link)
    }

    /// Someone connected to the port.
    pub fn on_connected(&mut self, link: LinkId) {
        self.leader.on_learner_connected(link);
    }

    /// An observer sent a packet.
    pub fn on_packet(&mut self, link: LinkId, packet: Packet) {
        self.leader.on_packet(link, packet);
    }

    /// Bytes of an observer came.
    pub fn on_heard(&mut self, link: LinkId) {
        self.leader.on_heard(link);
    }

    /// The connection is closed.
    pub fn on_link_closed(&mut self, link: LinkId) {
        self.leader.on_link_closed(link);
    }

    /// The kernel took a piece of an observer's snapshot.
    pub fn on_snapshot_sent(&mut self, link: LinkId) {
        self.leader.on_snapshot_sent(link);
    }

    /// What [`Effect::ReadLog`] found.
    pub fn on_log_read(&mut self, link: LinkId, part: LogPart) {
        self.leader.on_log_read(link, part);
    }

    /// What the configuration says of an observer.
    pub fn priority(&self, link: LinkId) -> LinkPriority {
        self.leader.priority(link)
    }

    /// A piece of the pipeline's state for an observer; nothing else of the mail is for this.
    pub fn on_inner(&mut self, mail: ToQuorum) {
        if let ToQuorum::Snapshot { .. } = mail {
            self.leader.on_inner(mail);
        }
    }

    /// The leader said something that concerns observers. The pipeline has been told of it before.
    pub fn on_relay(&mut self, relay: Relay) {
        match relay {
            Relay::Committed(record, designated) => {
                if designated.is_some() {
                    self.leader.follow_configuration(&record);
                }
                self.leader.tell_committed(record, designated);
                self.leader.drop_laggards();
            }
            Relay::Answer(link, packet) => self.leader.send_if_there(link, packet),
        }
    }

    /// Deadlines and pings.
    pub fn tick(&mut self) {
        self.leader.tick();
    }

    /// When [`ObserverMaster::tick`] has something to do, monotonic.
    pub fn next_deadline_ms(&self) -> i64 {
        self.leader.next_deadline_ms()
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
        self.leader.take_effects().into_iter().map(output).collect()
    }

    /// Who observes, by id.
    pub fn learner_views(&self, on_link: &OnLink<'_>) -> Vec<LearnerView> {
        self.leader.learner_views(on_link)
    }

    /// Brings the gauges up to date.
    pub fn publish(&self) {
        self.leader.publish_observers();
    }
}
