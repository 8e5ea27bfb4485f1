//! The world: time, the queue of what happens next, chance, and the course of a run. First everything starts; then faults
//! come, of kinds and at rates that the seed has chosen; then they end, service must be back soon, nobody's session may
//! end any more, and at last all servers must agree.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rookeeper::config::DigestAlg;
use rookeeper::engine::quorum::Whom;
use rookeeper::engine::quorum::link::BLOCK_BYTES;
use rookeeper::ids::{LinkId, ServerId, Zxid};
use rookeeper::limits::LAST_COUNTER;
use rookeeper::mail::Role;
use rookeeper::pipeline::{DigestAuth, Rules};
use rookeeper::quorum::packet::Packet;
use rookeeper::quorum::{PeerRules, Timing};

use crate::breakage::Breakage;
use crate::check::Check;
use crate::client::{Client, FromServer, ToServer};
use crate::disk::Disk;
use crate::model::acl::{SUPER, Who};
use crate::net::Net;
use crate::random::Random;
use crate::requests::users_of;
use crate::server::{Clock, DiskDone, Server, Thread};
use crate::trace::Trace;

/// How the violation begins that not all serve again once the faults are over.
pub const NO_SERVICE: &str = "no service";

/// What happens at some time.
#[derive(Debug)]
pub enum Event {
    Thread {
        server: usize,
        incarnation: u32,
        thread: Thread,
    },
    Disk {
        server: usize,
        incarnation: u32,
        what: DiskDone,
    },
    Read {
        server: usize,
        incarnation: u32,
    },
    Arrive {
        conn: usize,
        side: usize,
    },
    Dialed {
        server: usize,
        incarnation: u32,
        targets: Vec<(usize, u16)>,
        whom: Whom,
        dials: u64,
    },
    ToServer {
        client: usize,
        generation: u32,
        server: usize,
        incarnation: u32,
        what: ToServer,
    },
    ToClient {
        client: usize,
        generation: u32,
        what: FromServer,
    },
    Client {
        client: usize,
    },
    Start {
        server: usize,
    },
    Fault,
    Undo(Undo),
    /// Faults are over.
    Calm,
    /// A time that a scenario waits for.
    Nothing,
    /// A look at how far the calm has come.
    Look,
}

/// The end of a fault.
#[derive(Debug)]
pub enum Undo {
    Links(Vec<(usize, usize)>),
    Loss,
    Disk(usize),
}

/// An entry of the queue: the earliest first, and of equal ones the one that was made first.
struct Due {
    at_us: u64,
    number: u64,
    /// Apart, since entries move about in the queue.
    event: Box<Event>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

/// What a fault does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    Kill,
    PowerOff,
    Blackout,
    DieBetweenEffects,
    DieWithinDisk,
    Pause,
    CutOff,
    CutOneWay,
    Split,
    Reset,
    Slow,
    Loss,
    SlowDisk,
    SyncFails,
    DiskFull,
    Rot,
    ClockJumps,
    WallJumps,
    DropClient,
}

pub const FAULTS: [Fault; 19] = [
    Fault::Kill,
    Fault::PowerOff,
    Fault::Blackout,
    Fault::DieBetweenEffects,
    Fault::DieWithinDisk,
    Fault::Pause,
    Fault::CutOff,
    Fault::CutOneWay,
    Fault::Split,
    Fault::Reset,
    Fault::Slow,
    Fault::Loss,
    Fault::SlowDisk,
    Fault::SyncFails,
    Fault::DiskFull,
    Fault::Rot,
    Fault::ClockJumps,
    Fault::WallJumps,
    Fault::DropClient,
];

/// What a seed chooses.
#[derive(Debug)]
pub struct Options {
    pub breakage: Option<Breakage>,
    pub voters: usize,
    pub observers: usize,
    pub clients: usize,
    /// The list of members in each zoo.cfg.
    pub members: String,
    pub rules: PeerRules,
    pub snap_count: u64,
    /// Committed transactions that a start gives to the window.
    pub recent_max: usize,
    pub thread_delay_us: u64,
    pub think_us: u64,
    pub connect_timeout_us: u64,
    faults: Vec<Fault>,
    fault_pause_us: u64,
    faults_from_us: u64,
    pub faults_until_us: u64,
    /// Clients change who belongs to the ensemble.
    pub reconfigures: bool,
    /// This server is as Apache's: it neither says nor hears anything of histories, looks at no digest, and gives up its own
    /// history for any leader's.
    pub apache: Option<usize>,
    /// After how many transactions the zxids of an epoch are used up.
    pub last_counter: u32,
    /// Bytes proposed and not committed from which on writes wait: often few.
    pub proposed_bytes_max: usize,
    /// Bytes for another server that wait for more: each packet leaves by itself, or as on a host.
    pub block_bytes: usize,
    /// Nobody looks at access lists.
    pub skips_acl: bool,
    /// New sessions are known to their server only, and whether they become global when they make an ephemeral.
    pub local_sessions: bool,
    pub upgrades_sessions: bool,
    /// How long a server looks for a leader before it lets clients read that accept it; all do then.
    pub read_only_after_ms: Option<i64>,
}

/// Service is back this long after the faults, at the latest.
const RETURN_US_MAX: u64 = 20_000_000;
/// Longest session timeout.
const TIMEOUT_MS_MAX: u64 = 3000;
/// Once service is back it is lost only when an epoch is used up, and for this long at most: for one election.
const ELECTION_US_MAX: u64 = 3_000_000;
/// How long nobody's session may end.
const QUIET_US: u64 = 2_000_000;
/// How long after the last write all servers must agree.
const AGREE_US: u64 = 1_500_000;

impl Options {
    fn of_seed(random: &mut Random, breakage: Option<Breakage>) -> Options {
        let voters = if random.one_in(3) { 5 } else { 3 };
        let observers = if random.one_in(3) { 1 + random.below(2) as usize } else { 0 };
        let tick_ms = 100;
        let timing = Timing { tick_ms, init_ms: tick_ms * 10, sync_ms: tick_ms * 5, connect_ms: tick_ms * 10 };
        let rules = PeerRules {
            history_max: random.scaled(1, 500) as usize,
            always_snapshot: random.one_in(10),
            epoch_wait_ms: random.one_in(4).then_some(200),
            // Whichever port it is: servers are dialled by name here.
            observer_master_port: (observers > 0 && random.one_in(2)).then_some(1),
            observer_bytes_max: random.scaled(1_000, 1 << 20) as usize,
            ..PeerRules::from(timing)
        };
        // Often so few that all else is read back.
        let rules = PeerRules { uncommitted_bytes_max: [0, 300, 64 << 20][rules.history_max % 3], ..rules };
        let mut faults: Vec<Fault> = FAULTS.iter().copied().filter(|_| random.one_in(2)).collect();
        if faults.is_empty() {
            faults.push(*random.pick(&FAULTS));
        }
        let faults_from_us = random.between(0, 2_000_000);
        // Drawn apart: whether writes wait changes nothing else of a seed.
        let proposed_bytes_max = random.clone().scaled(1, 1 << 14) as usize;
        let block_bytes = *random.clone().pick(&[1, BLOCK_BYTES]);
        Options {
            block_bytes,
            breakage,
            voters,
            observers,
            clients: 3 + random.below(3) as usize,
            members: members(voters, observers),
            rules,
            snap_count: random.scaled(10, 400),
            recent_max: random.scaled(1, 500) as usize,
            thread_delay_us: random.scaled(3, 2000),
            think_us: random.scaled(10_000, 120_000),
            connect_timeout_us: random.between(200_000, 1_500_000),
            faults,
            apache: None,
            fault_pause_us: random.scaled(50_000, 2_000_000),
            faults_from_us,
            faults_until_us: faults_from_us + random.between(3_000_000, 8_000_000),
            reconfigures: random.one_in(2),
            // Fewer, and one who comes late would find an election each time it asks.
            last_counter: if random.one_in(4) { random.between(400, 1500) as u32 } else { LAST_COUNTER },
            proposed_bytes_max,
            skips_acl: random.one_in(2),
            local_sessions: random.one_in(4),
            upgrades_sessions: random.one_in(2),
            read_only_after_ms: random.one_in(4).then(|| random.between(100, 2000) as i64),
        }
    }

    /// What servers decide about clients by.
    pub fn client_rules(&self, rules: Rules) -> Rules {
        let super_digest = Some(SUPER.id.to_owned());
        let digest_auth = Some(DigestAuth { algorithm: DigestAlg::Sha1, super_digest });
        Rules {
            skip_acl: self.skips_acl,
            digest_auth,
            local_sessions: self.local_sessions,
            local_sessions_upgrading: self.upgrades_sessions,
            ..rules
        }
    }
}

fn members(voters: usize, observers: usize) -> String {
    let line = |index: usize| {
        let role = if index < voters { "participant" } else { "observer" };
        format!("server.{0}=s{0}:2888:3888:{role}\n", index + 1)
    };
    (0..voters + observers).map(line).collect()
}

/// See the module.
pub struct World {
    pub options: Options,
    pub now_us: u64,
    pub random: Random,
    /// Chance of its own, for what only reconfigurations ask: seeds without any run as if there were none.
    pub moves: Random,
    pub trace: Trace,
    pub net: Net,
    pub servers: Vec<Server>,
    pub clients: Vec<Client>,
    pub check: Check,
    /// What servers said that an operator must decide, and which.
    pub alarms: Vec<(usize, String)>,
    /// An operator is told nothing: there is nothing that an ensemble does not mend by itself.
    pub alarms_expected: bool,
    /// So many servers more that follow a leader with another history die while they take back what it sent.
    pub deaths_taking_back: u64,
    queue: BinaryHeap<Due>,
    scheduled: u64,
    /// When service was back; `None` before.
    back_us: Option<u64>,
    /// When all servers were seen to serve last.
    served_us: u64,
    stopped_us: Option<u64>,
    /// The last transaction then: servers end sessions and remove nodes by themselves, too.
    stopped_at: Zxid,
    over: bool,
    faults: BTreeMap<Fault, u64>,
    // For the breakages.
    pub broken_link: Option<(usize, LinkId)>,
    pub broken_zxid: Option<Zxid>,
    pub held_back: Option<(usize, LinkId, Packet)>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub violation: Option<String>,
    pub hash: u64,
    pub events: u64,
    pub txns: usize,
    pub epochs: u32,
    pub simulated_us: u64,
    /// How many of each kind.
    pub faults: BTreeMap<Fault, u64>,
    pub tail: String,
}

/// Runs a seed to its end, or to the first thing that does not hold.
pub fn run(seed: u64, breakage: Option<Breakage>, readable: bool) -> Outcome {
    #[cfg(feature = "breakages")]
    rookeeper::wrong::turn_on(match breakage {
        Some(Breakage::Core(wrong)) => Some(wrong),
        _ => None,
    });
    let mut world = World::new(seed, breakage, readable);
    world.begin();
    while world.step() {}
    Outcome {
        hash: world.trace.hash(),
        events: world.trace.events(),
        txns: world.check.len(),
        epochs: world.check.epoch(),
        simulated_us: world.now_us,
        faults: world.faults,
        tail: world.trace.tail(120),
        violation: world.check.violation,
    }
}

impl World {
    fn new(seed: u64, breakage: Option<Breakage>, readable: bool) -> World {
        let mut random = Random::new(seed);
        let options = Options::of_seed(&mut random, breakage);
        let mut world = World::with(options, random, readable);
        world.check.is_drawn = true;
        world
    }

    /// A world in which nothing runs, and nothing happens but what the caller does, and clients.
    pub fn of_scenario(seed: u64, voters: usize, readable: bool) -> World {
        let mut random = Random::new(seed);
        let options = Options {
            voters,
            observers: 0,
            members: members(voters, 0),
            faults: Vec::new(),
            faults_until_us: u64::MAX,
            reconfigures: false,
            last_counter: LAST_COUNTER,
            // Anybody may reconfigure.
            skips_acl: true,
            local_sessions: false,
            read_only_after_ms: None,
            // Whole logs, so that all can be compared.
            snap_count: 100_000,
            ..Options::of_seed(&mut random, None)
        };
        let mut world = World::with(options, random, readable);
        for client in 0..world.clients.len() {
            world.schedule(0, Event::Client { client });
        }
        world
    }

    /// The next thing happens; false when the run is over.
    pub fn step(&mut self) -> bool {
        if self.over || self.check.violation.is_some() {
            return false;
        }
        let Some(due) = self.queue.pop() else { return false };
        self.now_us = due.at_us;
        // A panic is a violation like another: it has a seed and a trace.
        let happened = catch_unwind(AssertUnwindSafe(|| self.happen(*due.event)));
        if let Err(panic) = happened {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            self.violation(format!("a panic: {}", text.unwrap_or("of no text")));
        }
        true
    }

    /// The servers that run now begin with nothing, whatever there was before: what holds is looked at anew.
    pub fn begin_another_history(&mut self) {
        self.forget_clients();
        let earlier = std::mem::replace(&mut self.check, Check::new());
        self.check.model = earlier.model.begin_again();
        self.check.joins_unproven = self.options.apache.is_some();
    }

    /// Whether everything held to the end.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// From now on nothing is done to the world: service must come back, and all servers must agree in the end.
    pub fn end_faults(&mut self) {
        self.options.faults_until_us = self.now_us;
        self.calm_down();
    }

    fn with(options: Options, mut random: Random, readable: bool) -> World {
        let count = options.voters + options.observers;
        let drift_max = random.scaled(1, 50_000);
        let mut servers = Vec::new();
        for index in 0..count {
            let drift = random.below(2 * drift_max + 1) as i64 - drift_max as i64;
            let base_us = random.below(1 << 40) as i64;
            let wall_offset_ms = 1_700_000_000_000 + random.below(100_000) as i64;
            let mut disk = Disk::default();
            disk.configure(index as i64 + 1, &options.members);
            servers.push(Server {
                id: ServerId(index as i64 + 1),
                incarnation: 0,
                process: None,
                disk,
                clock: Clock::new(base_us, drift, wall_offset_ms),
                paused_until_us: 0,
                is_dark: false,
                is_rotten: false,
                disk_slowness: 1,
                sync_failure: 0,
                dies_after: None,
            });
        }
        let moves = Random::new(random.clone().next());
        let net = Net::new(count, &mut random);
        let timeout_ms = |random: &mut Random| random.between(1000, TIMEOUT_MS_MAX) as i32;
        let has_super = options.reconfigures && !options.skips_acl;
        let client = |c: usize| {
            let users = users_of(&mut random, c, has_super);
            Client::new(timeout_ms(&mut random), c == 0, Who { users, skips_acl: options.skips_acl })
        };
        let clients = (0..options.clients).map(client).collect();
        let check = Check::new();
        World {
            options,
            now_us: 0,
            random,
            moves,
            trace: Trace::new(readable),
            net,
            servers,
            clients,
            check,
            alarms: Vec::new(),
            alarms_expected: false,
            deaths_taking_back: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            back_us: None,
            served_us: 0,
            stopped_us: None,
            stopped_at: Zxid::ZERO,
            over: false,
            faults: BTreeMap::new(),
            broken_link: None,
            broken_zxid: None,
            held_back: None,
        }
    }

    fn begin(&mut self) {
        for server in 0..self.servers.len() {
            let at_us = self.random.below(300_000);
            self.schedule(at_us, Event::Start { server });
        }
        for client in 0..self.clients.len() {
            self.schedule(500_000, Event::Client { client });
        }
        self.schedule(self.options.faults_from_us, Event::Fault);
        self.schedule(self.options.faults_until_us, Event::Calm);
    }

    pub fn schedule(&mut self, at_us: u64, event: Event) {
        if at_us < u64::MAX {
            self.scheduled += 1;
            self.queue.push(Due { at_us: at_us.max(self.now_us), number: self.scheduled, event: Box::new(event) });
        }
    }

    /// Something does not hold.
    pub fn violation(&mut self, what: String) {
        self.check.violation.get_or_insert(what);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Thread { server, incarnation, thread } => self.on_thread(server, incarnation, thread),
            Event::Disk { server, incarnation, what } => self.on_disk(server, incarnation, what),
            Event::Read { server, incarnation } => self.on_read(server, incarnation),
            Event::Arrive { conn, side } => self.on_arrive(conn, side),
            Event::Dialed { server, incarnation, targets, whom, dials } => {
                self.on_dialed(server, incarnation, &targets, whom, dials);
            }
            Event::ToServer { client, generation, server, incarnation, what } => {
                self.on_to_server(client, generation, server, incarnation, what);
            }
            Event::ToClient { client, generation, what } => self.on_to_client(client, generation, &what),
            Event::Client { client } => self.on_client(client),
            Event::Start { server } => self.start(server),
            Event::Fault => self.on_fault(),
            Event::Undo(undo) => self.undo(undo),
            Event::Calm => self.calm_down(),
            Event::Nothing => {}
            Event::Look => self.look(),
        }
        self.look_at_expired();
    }

    /// Whether a server that writes its configuration files is to end meanwhile.
    pub fn dies_saving(&mut self) -> bool {
        let may_die = self.options.reconfigures && self.now_us < self.options.faults_until_us;
        may_die && self.moves.one_in(8)
    }

    // Faults.

    /// A server; the one that leads more often than others.
    fn victim(&mut self) -> usize {
        let leads = |server: &Server| {
            server.process.as_ref().is_some_and(|process| matches!(process.role, Role::Leading { .. }))
        };
        match self.servers.iter().position(leads) {
            Some(leader) if self.random.one_in(3) => leader,
            _ => self.random.index(self.servers.len()),
        }
    }

    pub fn start_later(&mut self, server: usize) {
        let at_us = self.now_us + self.random.scaled(20_000, 3_000_000);
        self.schedule(at_us, Event::Start { server });
    }

    fn on_fault(&mut self) {
        if self.now_us >= self.options.faults_until_us {
            return;
        }
        let faults = &self.options.faults;
        let fault = faults[self.random.index(faults.len())];
        let s = self.victim();
        self.trace.note(self.now_us, s, 30, || format!("fault: {fault:?} at s{}", s + 1));
        self.inflict(fault, s);
        // Lost processes start again, whatever they died of.
        for server in 0..self.servers.len() {
            if self.servers[server].process.is_none() && self.servers[server].incarnation > 0 {
                self.start_later(server);
            }
        }
        let pause_us = self.random.scaled(self.options.fault_pause_us / 10, self.options.fault_pause_us);
        self.schedule(self.now_us + pause_us, Event::Fault);
    }

    fn inflict(&mut self, fault: Fault, s: usize) {
        *self.faults.entry(fault).or_default() += 1;
        let count = self.servers.len();
        let lasts_us = self.random.scaled(20_000, 3_000_000);
        match fault {
            Fault::Kill => self.kill(s, false, "killed"),
            Fault::PowerOff => self.kill(s, true, "no power"),
            Fault::Blackout => (0..count).for_each(|s| self.kill(s, true, "blackout")),
            Fault::DieBetweenEffects => self.servers[s].dies_after = Some(self.random.below(40)),
            Fault::DieWithinDisk => {
                let operations = self.random.scaled(1, 20);
                self.servers[s].disk.die_within(operations, &mut self.random);
            }
            Fault::Pause => self.servers[s].paused_until_us = self.now_us + lasts_us,
            Fault::CutOff => {
                let others = (0..count).filter(|other| *other != s);
                let links = others.flat_map(|other| [(s, other), (other, s)]).collect();
                self.cut(links, lasts_us);
            }
            Fault::CutOneWay => {
                let outward = self.random.one_in(2);
                let all = self.random.one_in(2);
                let other = self.random.index(count);
                let others = (0..count).filter(|o| *o != s && (all || *o == other));
                let links = others.map(|o| if outward { (s, o) } else { (o, s) }).collect();
                self.cut(links, lasts_us);
            }
            Fault::Split => {
                let side: Vec<bool> = (0..count).map(|_| self.random.one_in(2)).collect();
                let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
                let links = pairs.filter(|(a, b)| side[*a] != side[*b]).collect();
                self.cut(links, lasts_us);
            }
            Fault::Reset => {
                let all = self.random.one_in(3);
                for conn in 0..self.net.conns.len() {
                    if all || self.random.one_in(3) {
                        let due = self.net.reset(conn, self.now_us, &mut self.random);
                        for (side, at_us) in due.into_iter().enumerate() {
                            at_us.into_iter().for_each(|at_us| self.schedule(at_us, Event::Arrive { conn, side }));
                        }
                    }
                }
            }
            Fault::Slow => {
                let us = self.random.scaled(1000, 400_000);
                let links: Vec<_> = (0..count).filter(|o| *o != s).flat_map(|o| [(s, o), (o, s)]).collect();
                links.iter().for_each(|(a, b)| self.net.set_slow(*a, *b, us));
                self.schedule(self.now_us + lasts_us, Event::Undo(Undo::Links(links)));
            }
            Fault::Loss => {
                self.net.set_loss(self.random.scaled(3, 300));
                self.schedule(self.now_us + lasts_us, Event::Undo(Undo::Loss));
            }
            Fault::SlowDisk => {
                self.servers[s].disk_slowness = self.random.scaled(2, 300);
                self.schedule(self.now_us + lasts_us, Event::Undo(Undo::Disk(s)));
            }
            Fault::SyncFails => {
                self.servers[s].sync_failure = self.random.scaled(1, 30);
                self.schedule(self.now_us + lasts_us, Event::Undo(Undo::Disk(s)));
            }
            Fault::DiskFull => {
                let room = self.random.scaled(1, 20_000);
                self.servers[s].disk.fill_up(room);
                self.schedule(self.now_us + lasts_us, Event::Undo(Undo::Disk(s)));
            }
            Fault::Rot => {
                // A quorum can do without a minority, of voters that stay the same.
                let rotten = self.servers.iter().filter(|server| server.is_rotten).count();
                let spare = if self.options.reconfigures { 0 } else { (self.options.voters - 1) / 2 };
                if s < self.options.voters && !self.servers[s].is_rotten && rotten < spare {
                    self.kill(s, false, "its disk rots");
                    self.servers[s].is_rotten = self.servers[s].disk.rot(&mut self.random);
                }
            }
            Fault::ClockJumps => {
                let (jump_us, drift) = (self.random.scaled(10_000, 3_000_000), self.random.below(40_000) as i64);
                self.servers[s].clock.set(self.now_us, jump_us as i64, drift - 20_000);
                self.wake(s, Thread::Pipeline, self.now_us);
                self.wake(s, Thread::Quorum, self.now_us);
                self.wake(s, Thread::Snapshot, self.now_us);
                self.wake(s, Thread::Poller, self.now_us);
            }
            Fault::WallJumps => {
                let by_ms = self.random.below(200_000) as i64 - 100_000;
                self.servers[s].clock.jump_wall(by_ms);
            }
            Fault::DropClient => {
                let c = self.random.index(self.clients.len());
                self.drop_client(c);
            }
        }
    }

    fn cut(&mut self, links: Vec<(usize, usize)>, lasts_us: u64) {
        links.iter().for_each(|(from, to)| self.net.set_cut(*from, *to, true));
        self.schedule(self.now_us + lasts_us, Event::Undo(Undo::Links(links)));
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Links(links) => {
                for (from, to) in links {
                    self.net.set_cut(from, to, false);
                    self.net.set_slow(from, to, 0);
                }
                self.let_flow();
            }
            Undo::Loss => self.net.set_loss(0),
            Undo::Disk(s) => {
                let server = &mut self.servers[s];
                (server.disk_slowness, server.sync_failure) = (1, 0);
                server.disk.heal();
            }
        }
    }

    /// What waited behind a cut goes on.
    pub fn let_flow(&mut self) {
        for conn in 0..self.net.conns.len() {
            for side in 0..2 {
                if let Some(at_us) = self.net.next_event(conn, side) {
                    let retry_us = self.random.below(400_000);
                    self.schedule(at_us.max(self.now_us + retry_us), Event::Arrive { conn, side });
                }
            }
        }
    }

    // After the faults.

    fn calm_down(&mut self) {
        self.trace.note(self.now_us, 0, 31, || "faults are over".to_owned());
        self.net.heal();
        self.let_flow();
        for s in 0..self.servers.len() {
            let server = &mut self.servers[s];
            server.paused_until_us = server.paused_until_us.min(self.now_us);
            (server.disk_slowness, server.sync_failure, server.dies_after) = (1, 0, None);
            server.disk.heal();
            server.clock.set(self.now_us, 0, 0);
            self.schedule(self.now_us, Event::Start { server: s });
            self.wake(s, Thread::Pipeline, self.now_us);
            self.wake(s, Thread::Quorum, self.now_us);
            self.wake(s, Thread::Snapshot, self.now_us);
            self.wake(s, Thread::Poller, self.now_us);
        }
        self.schedule(self.now_us + 50_000, Event::Look);
    }

    fn look(&mut self) {
        self.schedule(self.now_us + 50_000, Event::Look);
        let calm_us = self.options.faults_until_us;
        let serves = |server: &Server| {
            server.process.as_ref().is_some_and(|p| p.peer().is_serving() && p.pipeline_role != Role::Looking)
        };
        let silent: Vec<String> =
            self.servers.iter().filter(|s| !serves(s)).map(|server| format!("s{}", server.id.0)).collect();
        if silent.is_empty() {
            self.served_us = self.now_us;
        }
        let Some(back_us) = self.back_us else {
            let unserved = self.clients.iter().filter(|client| client.served_us < calm_us).count();
            if silent.is_empty() && unserved == 0 {
                self.trace.note(self.now_us, 0, 32, || "service is back".to_owned());
                self.back_us = Some(self.now_us);
            } else if self.now_us > calm_us + RETURN_US_MAX {
                let why = format!("{} do not serve, {unserved} clients are not served", silent.join(" "));
                self.violation(format!("{NO_SERVICE} {} s after the faults: {why}", RETURN_US_MAX / 1_000_000));
            }
            return;
        };
        if self.now_us > self.served_us + ELECTION_US_MAX {
            let why = silent.join(" ");
            return self.violation(format!("{why} have not served for {} ms, without a fault", ELECTION_US_MAX / 1000));
        }
        let last = self.check.last();
        if self.stopped_us.is_some() && (!silent.is_empty() || last != self.stopped_at) {
            (self.stopped_us, self.stopped_at) = (Some(self.now_us), last);
        }
        let quiet_us = back_us + (TIMEOUT_MS_MAX + 500) * 1000;
        match self.stopped_us {
            None if self.now_us > quiet_us + QUIET_US => {
                self.clients.iter_mut().for_each(|client| client.stopped = true);
                self.stopped_us = Some(self.now_us);
            }
            Some(stopped_us) if self.now_us > stopped_us + AGREE_US => self.compare(),
            None | Some(_) => {}
        }
    }

    /// In the calm no session ends whose client is served.
    fn look_at_expired(&mut self) {
        while let Some(session) = self.check.expired.pop() {
            let quiet = self.back_us.is_some_and(|back_us| self.now_us > back_us + (TIMEOUT_MS_MAX + 500) * 1000);
            let cared_for = self.clients.iter().any(|client| client.is_cared_for(session, self.now_us));
            if quiet && cared_for {
                self.violation(format!("session {session} expired though its client is served"));
            }
        }
    }

    /// At the end all servers agree with the history.
    fn compare(&mut self) {
        self.over = true;
        let expected = self.check.state();
        let mut sessions: Vec<_> = expected.sessions().collect();
        sessions.sort_unstable();
        let (last, digest) = (expected.last_zxid(), expected.tree_digest());
        for s in 0..self.servers.len() {
            let Some(process) = &self.servers[s].process else { continue };
            let state = process.pipeline.state();
            let mut own: Vec<_> = state.sessions().collect();
            own.sort_unstable();
            if (state.last_zxid(), state.tree_digest()) != (last, digest) {
                let at = state.last_zxid();
                self.violation(format!(
                    "in the end server {} is at {at} and differs from the history at {last}",
                    s + 1
                ));
            } else if own != sessions {
                self.violation(format!("in the end server {} has other sessions than the history", s + 1));
            }
            if self.check.violation.is_some() {
                return;
            }
        }
    }
}
