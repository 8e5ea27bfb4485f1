//! What happens to a member, and what it does then: connections come and go, bytes and mail arrive, time passes. Behind each
//! of them the core's effects are carried out. [`Member::end_turn`] lets leave what waits, once the pipeline was told.

use std::net::SocketAddr;

use super::callers::{About, Caller};
use super::inbound::{Heard, Port};
use super::link::{Link, Socket};
use super::links::Room;
use super::pipeline_batch::PipelineTold;
use super::reads::{Found, ToRead};
use super::{Environment, Member, Whom};
use crate::admin::view::QuorumView;
use crate::ids::LinkId;
use crate::mail::ToQuorum;
use crate::quiet::suppressed;
use crate::quorum::packet::Packet;

impl<S: Socket> Member<S> {
    // Turns.

    /// Its first effects.
    pub fn begin(&mut self, env: &mut impl Environment<Socket = S>) {
        self.carry_out(env);
    }

    /// It is so late, monotonic ms.
    pub fn set_time(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        self.peer.set_time(now_ms);
    }

    /// What waits goes to the kernel as far as it takes it. Then the leader is read on, if it was not and may be.
    pub fn end_turn(&mut self, env: &mut impl Environment<Socket = S>) {
        for link in self.links.with_output() {
            self.send_waiting(link, env);
        }
        self.carry_out(env);
        let _told = self.tell_pipeline(env);
        if self.peer.wants_packets()
            && let Some(link) = self.held.take()
        {
            self.links.wake(link);
        }
    }

    /// Whether there is nothing to do before something comes, or it is [so late](Member::next_deadline_ms).
    pub fn may_sleep(&self) -> bool {
        !self.links.has_ready() && !self.is_proposing()
    }

    /// When it wants a turn at the latest, monotonic ms.
    pub fn next_deadline_ms(&self) -> i64 {
        self.peer.next_deadline_ms().min(self.links.next_hello_ms())
    }

    /// Time has passed.
    pub fn on_time(&mut self, env: &mut impl Environment<Socket = S>) {
        self.peer.tick();
        for link in self.links.late(self.now_ms) {
            self.lose(link, "it did not say who it is", env);
        }
        self.carry_out(env);
    }

    // Mail.

    /// Another thread says something. Not before all is [proposed](Member::is_proposing).
    pub fn on_mail(&mut self, mail: ToQuorum, env: &mut impl Environment<Socket = S>) {
        self.take_mail(mail, env);
        self.carry_out(env);
    }

    /// Proposes the next part of a large batch.
    pub fn propose(&mut self, env: &mut impl Environment<Socket = S>) {
        self.propose_part();
        self.carry_out(env);
    }

    /// What was read of the disk.
    pub fn on_read(&mut self, found: Found, env: &mut impl Environment<Socket = S>) {
        match found {
            Found::Part { link, part } => {
                self.peer.on_log_read(link, part);
                if let Some(next) = self.reads.on_part(|link| self.links.get(link).is_some()) {
                    env.read(ToRead::Part(next));
                }
            }
            Found::Back(records) => self.peer.on_read_back(records),
        }
        self.carry_out(env);
    }

    /// What operators may see; the figures of the connections may begin anew.
    pub fn view(&mut self, resets_links: bool) -> QuorumView {
        if resets_links {
            self.links.reset_figures();
        }
        self.peer.view(&|link| self.links.get(link).map(Link::view).unwrap_or_default())
    }

    /// For the metrics.
    pub fn publish(&self) {
        self.peer.publish();
        self.links.publish();
    }

    // Connections.

    /// Somebody connected to the election port, or as a learner to the quorum port. Is taken in, if there is room.
    pub fn on_accepted(
        &mut self,
        socket: S,
        peer: SocketAddr,
        is_election: bool,
        env: &mut impl Environment<Socket = S>,
    ) {
        let rules = self.links.rules;
        let (port, hello_by_ms) = if is_election {
            (Port::nameless(), Some(self.now_ms + rules.hello_timeout_ms))
        } else {
            (Port::learner(rules.packet_bytes_max), None)
        };
        let link = Link::new(socket, peer, port, hello_by_ms, &rules, env.wall_ms());
        match self.links.room_for(&link, self.now_ms) {
            Room::Enough => {}
            Room::None => return,
            Room::Of(oldest) => {
                // Its first words may be here already, if many came at once.
                self.serve(oldest, env);
                if self.links.get(oldest).is_some_and(Link::is_silent) {
                    // Told with the want of room, once for many.
                    self.let_go(oldest, "it was silent, and others came", log::Level::Debug);
                    self.carry_out(env);
                }
            }
        }
        if let Some(link) = self.admit(link, env)
            && !is_election
        {
            self.peer.on_learner_connected(link);
        }
        self.carry_out(env);
    }

    /// What came of a dial: a connection to that address, or why there is none.
    pub fn on_dialed(
        &mut self,
        whom: Whom,
        result: Result<(S, SocketAddr), String>,
        env: &mut impl Environment<Socket = S>,
    ) {
        let rules = self.links.rules;
        let port = match whom {
            Whom::Master(_) => Port::leader(rules.packet_bytes_max, rules.state),
            Whom::Election(_) => Port::known(),
        };
        let link = result.and_then(|(socket, address)| {
            let link = Link::new(socket, address, port, None, &rules, env.wall_ms());
            self.admit(link, env).ok_or_else(|| "its socket cannot be used".to_owned())
        });
        match (whom, link) {
            (Whom::Master(_), Ok(link)) => self.peer.on_leader_connected(link),
            (Whom::Master(_), Err(why)) => self.peer.on_leader_unreachable(&why),
            (Whom::Election(server), Ok(link)) => self.peer.on_election_dialed(link, server),
            (Whom::Election(server), Err(_)) => self.peer.on_election_undialed(server),
        }
        self.carry_out(env);
    }

    fn admit(&mut self, mut link: Link<S>, env: &mut impl Environment<Socket = S>) -> Option<LinkId> {
        let (id, is_election) = (self.links.next_id(), link.is_election());
        if let Err(error) = env.register(id, &mut link.socket, is_election) {
            log::warn!("connection from {} refused: {error}", link.peer);
            return None;
        }
        self.links.admit(id, link);
        Some(id)
    }

    // Bytes.

    /// The socket of a link can be read, and maybe takes more.
    pub fn on_event(&mut self, id: LinkId, is_writable: bool, env: &mut impl Environment<Socket = S>) {
        if let Some(link) = self.links.get_mut(id).filter(|_| is_writable) {
            link.on_writable();
        }
        self.serve(id, env);
        self.carry_out(env);
    }

    /// The links with something to do that no event tells of.
    pub fn serve_ready(&mut self, env: &mut impl Environment<Socket = S>) {
        for link in self.links.take_ready() {
            self.serve(link, env);
            self.carry_out(env);
        }
    }

    /// Reads what is there, up to a turn's worth, and tells the core.
    fn serve(&mut self, id: LinkId, env: &mut impl Environment<Socket = S>) {
        let Some(link) = self.links.get(id) else { return };
        let (is_to_leader, caller, peer) = (link.is_to_leader(), link.caller(), link.peer);
        if is_to_leader && !self.peer.wants_packets() {
            // The kernel holds them, and then the leader does.
            self.held = Some(id);
            return;
        }
        if let Some(Err(why)) = self.links.read(id) {
            env.on_unreadable(&why);
            return self.lose(id, &why, env);
        }
        if self.links.get_mut(id).is_some_and(Link::take_heard) {
            self.peer.on_heard(id);
        }
        while let Some(heard) = self.links.hear(id) {
            self.note_name(id, &heard);
            match heard {
                Ok(Heard::Nothing) => break,
                Ok(Heard::Hello(hello)) => self.peer.on_election_hello(id, &hello),
                Ok(Heard::Notification(notification)) => self.peer.on_notification(id, &notification),
                Ok(Heard::Malformed(why)) => {
                    env.on_unreadable(&why);
                    self.tell(caller, About::Malformed, log::Level::Warn, || {
                        format!("a notification from {peer} is passed over: {why}")
                    });
                }
                Ok(Heard::Packets(packets)) => self.peer.on_packets(id, packets),
                Ok(Heard::Snapshot(state)) => self.peer.on_snapshot(state),
                Err(why) => {
                    env.on_unreadable(&why);
                    return self.lose(id, &why, env);
                }
            }
            self.carry_out(env);
        }
        match self.links.get(id) {
            Some(link) if link.ended => self.lose(id, "the other side closed it", env),
            Some(_) => self.send_waiting(id, env),
            None => {}
        }
    }

    /// Who came says which member it is.
    fn note_name(&mut self, id: LinkId, heard: &Result<Heard, String>) {
        let server = match heard {
            Ok(Heard::Hello(hello)) => Some(hello.server),
            Ok(Heard::Packets(packets)) => match packets.first() {
                Some(Packet::LearnerInfo(info)) => info.server,
                _ => None,
            },
            _ => None,
        };
        if let Some(server) = server.filter(|server| self.peer.is_member(*server))
            && let Some(link) = self.links.get_mut(id)
        {
            link.member = Some(server);
        }
    }

    fn send_waiting(&mut self, id: LinkId, env: &mut impl Environment<Socket = S>) {
        let told = self.tell_pipeline(env);
        let Some(link) = self.links.get_mut(id) else { return };
        if let Err(error) = link.send(&told) {
            return self.lose(id, &error.to_string(), env);
        }
        let (pieces_sent, flushed) = (link.take_snapshot_pieces_sent(), link.take_flushed());
        for _ in 0..pieces_sent {
            self.peer.on_snapshot_sent(id);
        }
        if flushed {
            self.peer.on_election_flushed(id);
        }
    }

    fn tell_pipeline(&mut self, env: &mut impl Environment) -> PipelineTold {
        self.pipeline.pass_on(|mail| env.tell_pipeline(mail))
    }

    /// The link is broken, or its other side is wrong: the core hears of it.
    fn lose(&mut self, id: LinkId, why: &str, env: &mut impl Environment<Socket = S>) {
        self.let_go(id, why, log::Level::Info);
        self.carry_out(env);
    }

    fn let_go(&mut self, id: LinkId, why: &str, level: log::Level) {
        let Some(link) = self.links.remove(id) else { return };
        let about = if level == log::Level::Warn { About::Dropped } else { About::Ended };
        self.tell(link.caller(), about, level, || format!("connection {} ended: {why}", link.describe()));
        if link.is_election() {
            self.peer.on_election_closed(id);
        } else {
            self.peer.on_link_closed(id);
        }
    }

    // Effects.

    fn carry_out(&mut self, env: &mut impl Environment<Socket = S>) {
        loop {
            let effects = self.peer.take_effects();
            let nothing = effects.is_empty();
            for effect in env.prepare(effects) {
                if env.goes_on(&effect) {
                    let done = self.do_effect(effect, env);
                    env.on_done(done);
                }
            }
            let broken = self.links.take_broken();
            if nothing && broken.is_empty() {
                return;
            }
            for (link, why) in broken {
                self.let_go(link, &why, log::Level::Warn);
            }
        }
    }

    pub(super) fn send(&mut self, link: LinkId, packet: &Packet, env: &mut impl Environment) {
        let Some(to) = self.links.get_mut(link) else { return };
        to.push(packet);
        let told = to.should_send().then(|| self.pipeline.pass_on(|mail| env.tell_pipeline(mail)));
        self.links.relieve(link, told, |link| self.peer.priority(link));
    }

    pub(super) fn close(&mut self, link: LinkId, why: &str, env: &mut impl Environment) {
        let Some(mut link) = self.links.remove(link) else { return };
        // What was said before may be the reason that the other side needs.
        let _ = link.send(&self.tell_pipeline(env));
        self.tell(link.caller(), About::Closed, log::Level::Info, || {
            format!("closed the connection {}: {why}", link.describe())
        });
    }

    pub(super) fn leave_role(&mut self, env: &mut impl Environment) {
        let told = self.tell_pipeline(env);
        self.links.leave_role(&told);
        env.forget_leader();
        self.reads.forget();
        env.listen(false);
    }

    pub(super) fn warn(&mut self, link: LinkId, what: &str) {
        if let Some((caller, peer)) = self.links.get(link).map(|link| (link.caller(), link.peer)) {
            self.tell(caller, About::Unlisted, log::Level::Warn, || format!("{what} (it is at {peer})"));
        }
    }

    /// One line about a connection, unless there were enough of them.
    fn tell(&mut self, caller: Caller, about: About, level: log::Level, text: impl FnOnce() -> String) {
        if let Some(others) = self.callers.pass(caller, about, self.now_ms) {
            log::log!(level, "{}{}", text(), suppressed(others));
        }
    }
}
