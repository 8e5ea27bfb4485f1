//! What a learner asks of the leader for its clients, and for those of the observers that it took; and what those observers
//! are to hear.

use std::mem;

use super::Learner;
use crate::ids::{LinkId, SessionId, Zxid};
use crate::mail::ToPipeline;
use crate::ops::OpCode;
use crate::quorum::Effect;
use crate::quorum::observer_master::Relay;
use crate::quorum::packet::Packet;
use crate::txn::kind;

impl Learner {
    /// From now on [`Learner::take_relays`] tells what observers of this server are to hear.
    pub fn begin_to_relay(&mut self) {
        self.relays = Some(Vec::new());
    }

    /// What observers are to hear, in order. It is for them once the effects of before are carried out.
    pub fn take_relays(&mut self) -> Vec<Relay> {
        self.relays.as_mut().map(mem::take).unwrap_or_default()
    }

    /// An observer of this server wants something of the leader: a REQUEST or a REVALIDATE.
    pub fn on_observer_packet(&mut self, observer: LinkId, packet: Packet) {
        if self.is_serving() {
            self.send_up(Some(observer), packet);
        }
    }

    pub(super) fn relay(&mut self, relay: Relay) {
        if let Some(relays) = &mut self.relays {
            relays.push(relay);
        }
    }

    /// Something that the leader answers, for the pipeline or for an observer.
    pub(super) fn send_up(&mut self, observer: Option<LinkId>, mut packet: Packet) {
        match &mut packet {
            Packet::Request(request) if request.op == OpCode::Sync as i32 => self.syncs.push_back(observer),
            Packet::Request(request) if request.op == kind::CREATE_SESSION => {
                self.take_session(request.session, observer)
            }
            Packet::Request(request) if request.op == OpCode::CloseSession as i32 => {}
            // Whoever sent it waits for a transaction, which without a body is an error.
            Packet::Request(request) if self.sessions.get(&request.session).is_some_and(|owner| *owner != observer) => {
                request.body.clear();
            }
            Packet::Revalidate { session, .. } => {
                let session = *session;
                self.revalidating.push_back((session, observer));
                self.take_session(session, observer);
            }
            _ => {}
        }
        self.send(packet);
    }

    /// Who speaks for the session from now on. A session that no observer had is not noted.
    fn take_session(&mut self, session: SessionId, observer: Option<LinkId>) {
        if observer.is_some() || self.sessions.contains_key(&session) {
            self.sessions.insert(session, observer);
        }
    }

    pub(super) fn on_synced(&mut self) {
        match self.syncs.pop_front() {
            Some(Some(observer)) => self.relay(Relay::Answer(observer, Packet::Sync)),
            Some(None) => self.emit(Effect::Pipeline(ToPipeline::Synced)),
            None => {}
        }
    }

    pub(super) fn on_revalidated(&mut self, session: SessionId, valid: bool) {
        let asked = self.revalidating.iter().position(|(asked, _)| *asked == session);
        match asked.and_then(|at| self.revalidating.remove(at)) {
            Some((_, Some(observer))) => self.relay(Relay::Answer(observer, Packet::Revalidated { session, valid })),
            Some((_, None)) | None => self.emit(Effect::Pipeline(ToPipeline::Revalidated { session, valid })),
        }
    }

    /// Answered with what the pipeline says. If it has not said anything when the next ping comes, the leader learns that
    /// this server is alive, and of the sessions later.
    pub(super) fn on_ping(&mut self, zxid: Zxid) {
        self.pinged = self.pinged.max(zxid);
        match self.ping.replace(zxid) {
            Some(overdue) => self.send(Packet::Ping { zxid: overdue, touched: Vec::new() }),
            None => self.emit(Effect::Pipeline(ToPipeline::TellTouched)),
        }
    }

    pub(super) fn on_touched(&mut self, touched: Vec<(SessionId, i32)>) {
        if self.ended.is_some() {
            return;
        }
        if let Some(zxid) = self.ping.take() {
            self.send(Packet::Ping { zxid, touched });
        }
    }
}
