//! The quorum thread of a simulated server: its member ([`rookeeper::engine::quorum`]) works with sockets of the simulated
//! network, in turns that are told what came in the order in which it came. What is around it is here: [`Host`].

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use rookeeper::config::Members;
use rookeeper::config::ensemble::PeerAddress;
use rookeeper::engine::quorum::links::LinkRules;
use rookeeper::engine::quorum::reads::{Found, Part, ToRead};
use rookeeper::engine::quorum::{Environment, Failure, Member, Whom};
use rookeeper::ids::LinkId;
use rookeeper::mail::{Role, ToPipeline, ToQuorum, ToTxnlog};
use rookeeper::memory::Bounds;
use rookeeper::quorum::Effect;
use rookeeper::quorum::packet::{LearnerInfo, Packet};

use crate::disk::text;
use crate::net::{End, Item, Kernel, Socket};
use crate::server::{STATE_RULES, Thread};
use crate::trace::short;
use crate::world::{Event, World};

/// Bytes that a packet may have.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// What the quorum thread is told.
#[derive(Debug)]
pub enum Input {
    /// Somebody connected.
    Accepted {
        socket: Socket,
        from: usize,
        is_election: bool,
        /// As this server counted its roles then.
        dials: u64,
    },
    /// What came of the dial of that number.
    Dialed {
        whom: Whom,
        result: Option<(Socket, usize)>,
        dials: u64,
    },
    /// There is something to read on a link, or it takes more.
    Event(LinkId),
    /// Packets that nobody sent: a deliberate wrong.
    Forged(LinkId, Vec<Packet>),
    Read(Found),
    Core(ToQuorum),
}

/// One end of a connection, as its process knows it.
#[derive(Debug)]
pub struct OwnEnd {
    pub conn: usize,
    pub side: usize,
    pub kernel: Rc<RefCell<Kernel>>,
}

/// Who lives at a host: `server.N` at `sN`.
fn index_of(host: &str) -> Option<usize> {
    host.strip_prefix('s')?.parse::<usize>().ok()?.checked_sub(1)
}

/// Where a server is seen to be.
fn address_of(s: usize) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, s as u8 + 1), 2888).into()
}

impl World {
    pub fn link_rules(&self) -> LinkRules {
        LinkRules {
            packet_bytes_max: PACKET_BYTES_MAX,
            hello_timeout_ms: self.options.rules.timing.sync_ms,
            block_bytes: self.options.block_bytes,
            state: STATE_RULES,
            memory: Bounds::default(),
        }
    }

    pub fn post_quorum(&mut self, s: usize, input: Input) {
        let Some(process) = &mut self.servers[s].process else { return };
        process.quorum_mail.push_back(input);
        let at_us = self.now_us + self.random.scaled(1, self.options.thread_delay_us);
        self.wake(s, Thread::Quorum, at_us);
    }

    pub fn quorum_turn(&mut self, s: usize) {
        let server = &mut self.servers[s];
        let now_ms = server.clock.now(self.now_us).mono_ms;
        let Some(process) = &mut server.process else { return };
        let mut turns = 1 + self.random.below(20);
        let begins = !std::mem::replace(&mut process.has_begun, true);
        let Some(mut member) = process.member.take() else { return };
        let mut host = Host { world: self, s, death: None };
        member.set_time(now_ms);
        if begins {
            member.begin(&mut host);
        }
        while turns > 0 && host.death.is_none() {
            turns -= 1;
            if member.is_proposing() {
                member.propose(&mut host);
            } else if let Some(input) = host.next_input() {
                host.tell(&mut member, input);
            } else {
                break;
            }
        }
        if host.death.is_none() {
            member.serve_ready(&mut host);
            member.on_time(&mut host);
            member.end_turn(&mut host);
        }
        let death = host.death;
        let (may_sleep, deadline_ms) = (member.may_sleep(), member.next_deadline_ms());
        let server = &mut self.servers[s];
        let Some(process) = &mut server.process else { return };
        process.member = Some(member);
        let busy = !process.quorum_mail.is_empty() || !may_sleep;
        let deadline_us = server.clock.world_us(deadline_ms);
        self.let_leave(s);
        if let Some(death) = death {
            return self.die(s, death);
        }
        self.wake(s, Thread::Quorum, if busy { self.now_us + 1 } else { deadline_us.max(self.now_us + 1) });
    }

    fn die(&mut self, s: usize, death: Death) {
        match death {
            Death::BetweenEffects => {
                let with_power = self.random.one_in(2);
                self.kill(s, with_power, "between two effects");
            }
            Death::ByDisk(done) => drop(self.on_done(s, done)),
        }
    }

    // The disk.

    /// The reader has come to it.
    pub fn on_read(&mut self, s: usize, incarnation: u32) {
        let server = &mut self.servers[s];
        let Some(process) = server.process.as_mut().filter(|_| server.incarnation == incarnation) else { return };
        if server.paused_until_us > self.now_us {
            let until_us = server.paused_until_us;
            return self.schedule(until_us, Event::Read { server: s, incarnation });
        }
        let Some(what) = process.to_read.pop_front() else { return };
        let more = !process.to_read.is_empty();
        match what {
            ToRead::Part(Part { link, from, to }) => {
                let part = server.disk.read(from, to);
                self.post_quorum(s, Input::Read(Found::Part { link, part }));
            }
            ToRead::Back { from, to } => {
                let read = server.disk.read_back(from, to);
                let Some(records) = self.on_done(s, read) else { return };
                self.post_quorum(s, Input::Read(Found::Back(records)));
            }
            ToRead::State { to } => {
                let read = server.disk.read_again(to);
                let Some(state) = self.on_done(s, read) else { return };
                self.post_pipeline(s, ToPipeline::Install { state: Box::new(state), durable: true });
            }
            ToRead::Forget => server.disk.forget_history(),
        }
        if more {
            self.read_next(s);
        }
    }

    fn read_next(&mut self, s: usize) {
        let at_us = self.now_us + self.random.scaled(1, 5000);
        self.schedule(at_us, Event::Read { server: s, incarnation: self.servers[s].incarnation });
    }

    fn tell_pipeline(&mut self, s: usize, mail: ToPipeline) {
        let server = &mut self.servers[s];
        let Some(process) = &mut server.process else { return };
        match &mail {
            ToPipeline::Role(role) => {
                process.role = *role;
                process.proposed.clear();
                if let Role::Leading { epoch } = role {
                    self.check.on_leading(s, *epoch, &server.disk.log(), process.pipeline.state().last_zxid());
                }
            }
            ToPipeline::Committed { zxid, .. } => {
                while process.proposed.front().is_some_and(|record| record.zxid <= *zxid)
                    && let Some(record) = process.proposed.pop_front()
                {
                    self.check.on_committed(s, record.zxid, &record.payload);
                }
            }
            // The last of them may end the role. What was not committed follows when the pipeline was told that it ended.
            ToPipeline::Deliver { txns } if matches!(process.role, Role::Following | Role::Observing) => {
                for txn in txns {
                    self.check.on_committed(s, txn.header.zxid, &txn.to_bytes());
                }
            }
            _ => {}
        }
        self.post_pipeline(s, mail);
    }

    // Connections.

    /// What the kernel took of a process goes into the network; what the process closed is closed.
    fn let_leave(&mut self, s: usize) {
        let Some(process) = &mut self.servers[s].process else { return };
        for end in std::mem::take(&mut process.ends) {
            if !self.let_leave_by(s, &end)
                && let Some(process) = &mut self.servers[s].process
            {
                process.ends.push(end);
            }
        }
    }

    /// True: that end is no more.
    fn let_leave_by(&mut self, s: usize, end: &OwnEnd) -> bool {
        let OwnEnd { conn, side, .. } = *end;
        let sent = end.kernel.borrow_mut().take_sent();
        if !sent.is_empty() {
            if self.net.conns[conn].is_none() {
                // The other side is long gone, and what should have said so was lost with its power.
                end.kernel.borrow_mut().end();
                self.notify(s, end.kernel.clone());
            } else if let Some(at_us) = self.net.send_bytes(conn, side, sent, self.now_us, &mut self.random) {
                self.schedule(at_us, Event::Arrive { conn, side });
            }
        }
        let read = end.kernel.borrow_mut().take_read();
        if let Some(other) = self.net.other_end(conn, side)
            && other.kernel.borrow_mut().on_read_there(read)
            && self.is_alive(&other)
        {
            self.notify(other.server, other.kernel);
        }
        let kernel = end.kernel.borrow();
        if kernel.is_closed() {
            if kernel.has_ended() {
                self.net.finish(conn, side);
                self.net.forget_if_over(conn);
            } else {
                self.send_item(conn, side, Item::Close);
            }
        }
        kernel.is_closed()
    }

    fn is_alive(&self, end: &End) -> bool {
        let server = &self.servers[end.server];
        server.process.is_some() && server.incarnation == end.incarnation
    }

    /// The process looks at this socket, if it has not been told so already.
    fn notify(&mut self, s: usize, kernel: Rc<RefCell<Kernel>>) {
        let news = kernel.borrow_mut().take_news();
        if let Some(number) = news {
            self.post_quorum(s, Input::Event(LinkId(number)));
        }
    }

    pub fn send_item(&mut self, conn: usize, side: usize, item: Item) {
        if let Some(at_us) = self.net.send(conn, side, item, self.now_us, &mut self.random) {
            self.schedule(at_us, Event::Arrive { conn, side });
        }
    }

    fn dial(&mut self, s: usize, whom: Whom, addresses: &[PeerAddress]) {
        let Some(process) = &self.servers[s].process else { return };
        let dials = process.dials;
        let to = |at: &PeerAddress| {
            let to = index_of(&at.host).filter(|to| *to < self.servers.len())?;
            Some((to, if matches!(whom, Whom::Election(_)) { at.election_port } else { at.quorum_port }))
        };
        let mut targets: Vec<(usize, u16)> = addresses.iter().filter_map(to).collect();
        targets.sort_unstable();
        targets.dedup();
        // All at once; the first that answers counts.
        let answers = |(to, _): &&(usize, u16)| !self.net.is_unreachable(s, *to) && !self.servers[*to].is_dark;
        let us = match targets.iter().find(answers) {
            None if targets.is_empty() => 1000,
            None => self.options.connect_timeout_us,
            Some((to, _)) => 2 * self.net.latency_us(s, *to, &mut self.random),
        };
        let incarnation = self.servers[s].incarnation;
        let event = Event::Dialed { server: s, incarnation, targets, whom, dials };
        self.schedule(self.now_us + us, event);
    }

    pub fn on_dialed(&mut self, s: usize, incarnation: u32, targets: &[(usize, u16)], whom: Whom, dials: u64) {
        if self.servers[s].incarnation != incarnation || self.servers[s].process.is_none() {
            return;
        }
        let is_election = matches!(whom, Whom::Election(_));
        let accepts = |(to, at): &&(usize, u16)| {
            let process = self.servers[*to].process.as_ref();
            !self.net.is_unreachable(s, *to) && process.is_some_and(|process| process.listens(is_election, *at))
        };
        let Some(&(to, _)) = targets.iter().find(accepts) else {
            return self.post_quorum(s, Input::Dialed { whom, result: None, dials });
        };
        let window = self.net.window;
        let ends = [s, to].map(|server| End {
            server,
            incarnation: self.servers[server].incarnation,
            kernel: Rc::new(RefCell::new(Kernel::new(window))),
        });
        let [here, there] = ends.each_ref().map(|end| Socket::new(Rc::clone(&end.kernel)));
        let kernels = ends.each_ref().map(|end| (end.server, Rc::clone(&end.kernel)));
        let conn = self.net.connect(ends);
        for (side, (server, kernel)) in kernels.into_iter().enumerate() {
            if let Some(process) = &mut self.servers[server].process {
                process.ends.push(OwnEnd { conn, side, kernel });
            }
        }
        self.post_quorum(s, Input::Dialed { whom, result: Some((here, to)), dials });
        let dials = self.servers[to].process.as_ref().map_or(0, |process| process.dials);
        self.post_quorum(to, Input::Accepted { socket: there, from: s, is_election, dials });
    }

    pub fn on_arrive(&mut self, conn: usize, side: usize) {
        if let Some(known) = self.net.conns[conn].as_mut() {
            known.streams[side].scheduled = false;
        }
        while let Some((to, item)) = self.net.arrived(conn, side, self.now_us) {
            self.take_item(conn, 1 - side, &to, item);
        }
        if let Some(at_us) = self.net.next_event(conn, side) {
            self.schedule(at_us, Event::Arrive { conn, side });
        }
        self.net.forget_if_over(conn);
    }

    fn take_item(&mut self, conn: usize, side: usize, to: &End, item: Item) {
        if !self.is_alive(to) || to.kernel.borrow().is_closed() {
            // Nobody is there any more: the sender hears so, unless the machine is dark.
            self.trace.note(self.now_us, to.server, 9, || format!("s{} nobody takes {}", to.server + 1, short(&item)));
            if !self.servers[to.server].is_dark
                && !matches!(item, Item::Close)
                && let Some(at_us) = self.net.refuse(conn, side, self.now_us, &mut self.random)
            {
                self.schedule(at_us, Event::Arrive { conn, side });
            }
            return;
        }
        match item {
            Item::Bytes(bytes) => to.kernel.borrow_mut().arrive(&bytes),
            Item::Close => to.kernel.borrow_mut().end(),
        }
        self.notify(to.server, Rc::clone(&to.kernel));
    }

    /// Whether the other side of a link is as Apache's, or this one.
    fn is_to_apache(&self, s: usize, link: LinkId) -> bool {
        let Some(apache) = self.options.apache else { return false };
        let ends = self.servers[s].process.iter().flat_map(|process| &process.ends);
        let mut of_link = ends.filter(|end| end.kernel.borrow().number() == Some(link.0));
        let other = of_link.next().and_then(|end| self.net.other_end(end.conn, end.side));
        s == apache || other.is_some_and(|other| other.server == apache)
    }
}

/// How a process ends within a turn.
#[derive(Debug)]
enum Death {
    BetweenEffects,
    /// As [`World::on_done`] has it.
    ByDisk(Result<(), String>),
}

/// What is around the member of one server.
struct Host<'a> {
    world: &'a mut World,
    s: usize,
    /// The process has come to its end: nothing that it says is heard any more.
    death: Option<Death>,
}

impl Host<'_> {
    fn next_input(&mut self) -> Option<Input> {
        self.world.servers[self.s].process.as_mut()?.quorum_mail.pop_front()
    }

    fn tell(&mut self, member: &mut Member<Socket>, input: Input) {
        let s = self.s;
        self.world.trace.note(self.world.now_us, s, 7, || format!("s{} quorum <- {}", s + 1, short(&input)));
        match input {
            Input::Accepted { socket, from, is_election, dials } => {
                // Learners that came in an earlier role are let go with its port.
                if is_election || !self.is_of_earlier_role(dials) {
                    member.on_accepted(socket, address_of(from), is_election, self);
                }
            }
            Input::Dialed { whom, result, dials } => {
                let is_late = self.is_of_earlier_role(dials);
                if !(is_late && matches!(whom, Whom::Master(_))) {
                    let result = result.map(|(socket, to)| (socket, address_of(to)));
                    let result = result.ok_or_else(|| "the simulated network says so".to_owned());
                    member.on_dialed(whom, result, self);
                }
            }
            Input::Event(link) => {
                let ends = self.world.servers[s].process.iter().flat_map(|process| &process.ends);
                ends.for_each(|end| end.kernel.borrow_mut().is_looked_at(link.0));
                member.on_event(link, true, self);
            }
            Input::Forged(link, packets) => {
                if member.links.get(link).is_some() {
                    member.peer.on_packets(link, packets);
                }
            }
            Input::Read(found) => member.on_read(found, self),
            Input::Core(mail) => member.on_mail(mail, self),
        }
    }

    fn is_of_earlier_role(&self, dials: u64) -> bool {
        self.world.servers[self.s].process.as_ref().is_none_or(|process| process.dials != dials)
    }

    /// From here on nothing leaves the process.
    fn ends(&mut self, death: Death) {
        self.death = Some(death);
        if let Some(process) = &self.world.servers[self.s].process {
            process.ends.iter().for_each(|end| end.kernel.borrow_mut().take_no_more());
        }
    }
}

impl Environment for Host<'_> {
    type Socket = Socket;

    fn register(&mut self, id: LinkId, socket: &mut Socket, _is_election: bool) -> io::Result<()> {
        socket.register(id.0);
        Ok(())
    }

    fn dial(&mut self, whom: Whom, _is_member: bool, addresses: &[PeerAddress]) {
        self.world.dial(self.s, whom, addresses);
    }

    fn forget_leader(&mut self) {
        if let Some(process) = &mut self.world.servers[self.s].process {
            process.dials += 1;
        }
    }

    fn listen(&mut self, open: bool) {
        if let Some(process) = &mut self.world.servers[self.s].process {
            process.learners_at = process.place.first().map(|place| place.quorum_port).filter(|_| open);
        }
    }

    fn listen_for_observers(&mut self) {
        let port = self.world.options.rules.observer_master_port;
        if let Some(process) = &mut self.world.servers[self.s].process {
            process.learners_at = port;
        }
    }

    fn move_to(&mut self, members: &Members) {
        let own = members.addresses(self.world.servers[self.s].id);
        if let Some(process) = &mut self.world.servers[self.s].process
            && !own.is_empty()
        {
            process.place = own.to_vec();
        }
    }

    fn alarm(&mut self, what: String) {
        if self.world.alarms_expected {
            self.world.alarms.push((self.s, what));
        } else if !self.world.servers.iter().any(|server| server.is_rotten) {
            // A rotten one may not be able to do without those that are not there.
            self.world.violation(format!("server {} calls an operator: {what}", self.s + 1));
        }
    }

    fn read(&mut self, what: ToRead) {
        let Some(process) = &mut self.world.servers[self.s].process else { return };
        process.to_read.push_back(what);
        if process.to_read.len() == 1 {
            self.world.read_next(self.s);
        }
    }

    fn tell_txnlog(&mut self, mail: ToTxnlog) {
        if self.death.is_none() {
            self.world.post_txnlog(self.s, mail);
        }
    }

    fn tell_pipeline(&mut self, mail: Vec<ToPipeline>) {
        if self.death.is_none() {
            mail.into_iter().for_each(|mail| self.world.tell_pipeline(self.s, mail));
        }
    }

    fn mono_us(&self) -> i64 {
        self.world.servers[self.s].clock.mono_us(self.world.now_us)
    }

    fn wall_ms(&self) -> i64 {
        self.world.servers[self.s].clock.now(self.world.now_us).wall_ms
    }

    fn prepare(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        self.world.break_effects(self.s, &mut effects);
        let mut left = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { link, packet } => self.world.break_packet(self.s, link, packet, &mut left),
                other => left.push(other),
            }
        }
        for effect in &mut left {
            if let Effect::Send { link, packet } = effect
                && self.world.is_to_apache(self.s, *link)
            {
                *packet = without_histories(packet.clone());
            }
        }
        left
    }

    fn on_unreadable(&mut self, why: &str) {
        self.world.violation(format!("server {} hears what it does not understand: {why}", self.s + 1));
    }

    /// The process may die between any two.
    fn goes_on(&mut self, effect: &Effect) -> bool {
        let s = self.s;
        if self.death.is_some() {
            return false;
        }
        if self.world.dies_here(s) {
            self.ends(Death::BetweenEffects);
            return false;
        }
        self.world.trace.note(self.world.now_us, s, 8, || format!("s{} quorum -> {}", s + 1, short(effect)));
        self.world.look_at_effect(s, effect);
        true
    }

    fn on_done(&mut self, done: Result<(), Failure>) {
        let disk = &self.world.servers[self.s].disk;
        let is_dead = disk.is_dead();
        match done {
            Ok(()) if !is_dead => {}
            // It goes on without, and says so.
            Err(failure) if failure.ends_with.is_none() && disk.is_limited() && !is_dead => {}
            done => self.ends(Death::ByDisk(done.map_err(text))),
        }
    }
}

impl World {
    /// Deaths that would rarely come just here.
    fn look_at_effect(&mut self, s: usize, effect: &Effect) {
        let dies = match effect {
            Effect::SaveConfigs(_) => {
                if self.dies_saving() {
                    self.servers[s].disk.die_within(2, &mut self.moves);
                }
                false
            }
            Effect::MarkWrongJoin(Some(wrong)) => wrong.unproven().is_none() && self.deaths_taking_back > 0,
            Effect::Log(_) => {
                self.deaths_taking_back > 0 && self.servers[s].dies_after.is_none() && self.random.one_in(4)
            }
            _ => false,
        };
        if dies {
            self.deaths_taking_back -= 1;
            self.servers[s].dies_after = Some(self.random.below(16));
        }
    }

    /// The process may have come to the point at which it is to die.
    fn dies_here(&mut self, s: usize) -> bool {
        match &mut self.servers[s].dies_after {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

/// As a server of Apache would say it.
fn without_histories(packet: Packet) -> Packet {
    match packet {
        Packet::LearnerInfo(info) => Packet::LearnerInfo(LearnerInfo { history: None, ..info }),
        Packet::LeaderInfo { epoch, .. } => Packet::LeaderInfo { epoch, ours: None },
        Packet::AckEpoch { zxid, epoch, .. } => Packet::AckEpoch { zxid, epoch, reach: None },
        Packet::Snap { zxid, .. } => Packet::Snap { zxid, told: None },
        Packet::TellingPing { zxid, .. } => Packet::Ping { zxid, touched: Vec::new() },
        other => other,
    }
}
