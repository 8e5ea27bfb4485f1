//! One course of events, drawn from a seed: servers, what they run on, and what befalls their disks while clients write.
//! What the kernel does in which moment no seed decides: the same seed does the same to the same disks, and finds what it
//! found mostly, not always.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rookeeper::client::Error;

use crate::disk::{Kept, Operation};
use crate::random::Random;
use crate::server::{Server, Setting};
use crate::volume::{FileSystem, Volume};
use crate::writers::{Writers, connect, find};

/// So many seeds in a row have one trial of each kind: each file system under three servers, and three times under one.
pub const KINDS: u64 = 12;
/// Clients of a trial.
const CLIENTS: usize = 4;
/// Writes that are waited for where nothing better tells that time has passed.
const WRITES: u64 = 40;
/// Writes that a server may acknowledge on a disk that has failed, or is full, before it is left alone with that: what
/// failed was none of its log's.
const WRITES_MAX: u64 = 1_000;
/// How long a disk does nothing, and how soon somebody writes to one that is in use.
const STALL: Duration = Duration::from_millis(300);
const STALL_WITHIN: Duration = Duration::from_secs(60);
/// Disk operations until the power goes.
const OPERATIONS: (u64, u64) = (1, 400);
/// The code with which a server ends whose log could not be written.
pub const LOG_FAILED: i32 = 11;

/// What befalls the disks of these servers. Each ends with a power cut, since only that shows what was lost.
#[derive(Clone, Debug)]
enum Fault {
    /// The power goes; with `again`, once more, while the first of them recovers.
    Cut { servers: Vec<usize>, operations: u64, again: Option<u64> },
    /// One operation fails. With `again`, a server that ends for that is started before the power goes: it reads what the
    /// kernel has in memory, and the disk may not have.
    Failure { server: usize, operation: Operation, nth: u64, again: bool },
    /// Nothing is carried out for a while.
    Stall { server: usize },
    /// There is no more room.
    Full { server: usize },
}

/// What a seed says.
#[derive(Clone, Debug)]
struct Plan {
    servers: usize,
    setting: Setting,
    value_bytes_max: u64,
    faults: Vec<Fault>,
}

impl Plan {
    /// Which file system and how many servers follows from the seed in turn, so that a few seeds have seen all.
    fn new(seed: u64, random: &mut Random) -> Plan {
        let file_systems = FileSystem::ALL.len() as u64;
        let servers = if seed % KINDS < KINDS - file_systems { 1 } else { 3 };
        let file_system = FileSystem::ALL[(seed % file_systems) as usize];
        let setting = Setting {
            file_system,
            sector_bytes: *random.pick(file_system.sector_bytes()),
            is_mapped: random.one_in(2),
            pre_alloc_kib: *random.pick(&[1_024, 65_536]),
            has_log_disk: random.one_in(3),
            snap_count: *random.pick(&[50, 400, 100_000]),
        };
        let faults = (0..random.between(3, 5)).map(|_| Fault::draw(servers, random)).collect();
        Plan { servers, setting, value_bytes_max: random.scaled(100, 60_000), faults }
    }
}

impl Fault {
    fn draw(servers: usize, random: &mut Random) -> Fault {
        let server = random.index(servers);
        match random.below(10) {
            0 | 1 => Fault::Failure {
                server,
                operation: *random.pick(&[Operation::Write, Operation::Flush]),
                nth: random.scaled(1, 20),
                again: random.one_in(2),
            },
            2 => Fault::Stall { server },
            3 => Fault::Full { server },
            _ => {
                let mut chosen: Vec<_> = (0..servers).filter(|_| random.one_in(2)).collect();
                if chosen.is_empty() {
                    chosen.push(server);
                }
                let (low, high) = OPERATIONS;
                let again = random.one_in(4).then(|| random.scaled(low, high));
                Fault::Cut { servers: chosen, operations: random.scaled(low, high), again }
            }
        }
    }
}

/// What came of a trial.
#[derive(Debug, Default)]
pub struct Outcome {
    pub writes: u64,
    /// How often each thing happened that a trial is for.
    pub happened: BTreeMap<&'static str, u64>,
}

/// What must have happened before a run says that nothing was lost, and how often.
pub const LEAST: [(&str, u64); 14] = [
    (FileSystem::Ext4.name(), 6),
    (FileSystem::Xfs.name(), 6),
    (FileSystem::Btrfs.name(), 6),
    (NOTHING_KEPT, 3),
    (ALL_KEPT, 3),
    (FIRST_KEPT, 3),
    (SECTORS_KEPT, 6),
    (CUT_TOGETHER, 1),
    (CUT_AGAIN, 3),
    (FAILED, 3),
    (STALLED, 1),
    (FULL, 1),
    (ENDED, 2),
    (STARTED_AGAIN, 1),
];
const NOTHING_KEPT: &str = "power cut, nothing kept";
const ALL_KEPT: &str = "power cut, all kept";
const FIRST_KEPT: &str = "power cut, the first kept";
const SECTORS_KEPT: &str = "power cut, any sectors kept";
/// Of several servers at once.
const CUT_TOGETHER: &str = "power cut of several";
/// After one from which a server had not recovered, or had done so just now.
const CUT_AGAIN: &str = "power cut again";
const FAILED: &str = "disk failed";
const STALLED: &str = "disk stalled";
const FULL: &str = "disk full";
/// Servers that ended because of a disk that failed or was full, with the code for that; those of them that were started
/// again before a power cut, and served; and those that went on.
const ENDED: &str = "server ended";
const STARTED_AGAIN: &str = "server started again";
const WENT_ON: &str = "server went on";

impl Outcome {
    /// That of another trial, too.
    pub fn add(&mut self, other: &Outcome) {
        self.writes += other.writes;
        other.happened.iter().for_each(|(what, times)| *self.happened.entry(what).or_default() += times);
    }

    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    /// What has not happened often enough.
    pub fn lacks(&self) -> Vec<&'static str> {
        let times = |what| self.happened.get(what).copied().unwrap_or_default();
        LEAST.iter().filter(|(what, least)| times(*what) < *least).map(|(what, _)| *what).collect()
    }
}

/// Runs a trial in this folder, with ports from this one on.
pub fn run(seed: u64, within: &Path, port: u16) -> Result<Outcome, String> {
    let mut random = Random::new(seed);
    let plan = Plan::new(seed, &mut random);
    let mut trial = Trial::begin(&plan, within, port, random)?;
    let done = trial.go_through(&plan);
    match done {
        Ok(()) => trial.end(),
        Err(wrong) => {
            let said: String = trial.servers.iter().map(Server::said).collect();
            Err(format!("{said}{plan:?}\nit went so:\n  {}\n{wrong}", trial.story.join("\n  ")))
        }
    }
}

struct Trial {
    servers: Vec<Server>,
    /// Where their clients find them.
    addresses: Vec<String>,
    /// Gone at the end.
    writers: Option<Writers>,
    file_system: FileSystem,
    random: Random,
    outcome: Outcome,
    /// What happened, for whoever has to understand it.
    story: Vec<String>,
}

impl Trial {
    fn begin(plan: &Plan, within: &Path, port: u16, mut random: Random) -> Result<Trial, String> {
        let ports = |server: usize| port + 3 * server as u16;
        let members: Vec<_> = (0..plan.servers)
            .map(|server| {
                let first = ports(server);
                format!("127.0.0.1:{}:{};127.0.0.1:{first}", first + 1, first + 2)
            })
            .collect();
        let addresses: Vec<_> = (0..plan.servers).map(|server| format!("127.0.0.1:{}", ports(server))).collect();
        let servers = (1..=plan.servers).map(|number| Server::make(within, number, &plan.setting, &members));
        let servers = servers.collect::<Result<_, _>>()?;
        let writers = Writers::start(&addresses.join(","), CLIENTS, plan.value_bytes_max, &mut random);
        let file_system = plan.setting.file_system;
        let (outcome, story) = (Outcome::default(), Vec::new());
        Ok(Trial { servers, addresses, writers: Some(writers), file_system, random, outcome, story })
    }

    fn go_through(&mut self, plan: &Plan) -> Result<(), String> {
        self.must_be_well()?;
        for fault in &plan.faults {
            self.story.push(format!("{} writes were acknowledged; {fault:?}", self.writers().writes()));
            match fault {
                Fault::Cut { servers, operations, again } => self.cut(servers, *operations, *again)?,
                Fault::Failure { server, operation, nth, again } => self.fail(*server, *operation, *nth, *again)?,
                Fault::Stall { server } => self.stall(*server)?,
                Fault::Full { server } => self.fill(*server)?,
            }
            self.must_be_well()?;
        }
        Ok(())
    }

    /// What was acknowledged is there, whoever is asked.
    fn end(mut self) -> Result<Outcome, String> {
        let mut told = self.writers.take().expect("they end once").stop()?;
        for (server, address) in self.servers.iter().zip(&self.addresses) {
            let client =
                connect(address).map_err(|error| format!("server {}: {error}\n{}", server.number, server.said()))?;
            for (number, told) in told.iter_mut().enumerate() {
                let found = find(&client, number).map_err(|error| format!("server {}: {error}", server.number))?;
                told.find(found).map_err(|wrong| format!("server {}, client {number}: {wrong}", server.number))?;
            }
        }
        self.outcome.writes = told.iter().map(|told| told.writes).sum();
        for kept in self.servers.iter().flat_map(|server| &server.volumes).flat_map(|volume| volume.disk.cuts()) {
            self.outcome.count(self.file_system.name());
            self.outcome.count(match kept {
                Kept::Nothing => NOTHING_KEPT,
                Kept::All => ALL_KEPT,
                Kept::First => FIRST_KEPT,
                Kept::Sectors => SECTORS_KEPT,
            });
        }
        Ok(self.outcome)
    }

    fn writers(&self) -> &Writers {
        self.writers.as_ref().expect("they write until the end")
    }

    /// Every client finds what it was told, no server has ended, and each of them serves.
    fn must_be_well(&mut self) -> Result<(), String> {
        let writers = self.writers.as_ref().expect("they write until the end");
        let servers = &mut self.servers;
        writers.compare(|| {
            servers.iter_mut().try_for_each(|server| match server.ended() {
                Some(status) => Err(format!("server {} has ended: {status}", server.number)),
                None => Ok(()),
            })
        })?;
        let unserved = |error: Error, address| format!("nobody serves at {address}: {error}");
        self.addresses
            .iter()
            .try_for_each(|address| connect(address).map(drop).map_err(|error| unserved(error, address)))
    }

    /// Waits until this server has ended or lost its power, or so many more writes were acknowledged.
    fn wait_for_end(&mut self, server: usize, writes: u64) -> Result<(), String> {
        let writers = self.writers.as_ref().expect("they write until the end");
        let server = &mut self.servers[server];
        let enough = writers.writes() + writes;
        writers.wait_until("a server whose disk fails ends, or goes on", |progress| {
            Ok(progress.writes >= enough || server.has_lost_power() || server.ended().is_some())
        })
    }

    fn cut(&mut self, servers: &[usize], operations: u64, again: Option<u64>) -> Result<(), String> {
        let kept = self.draw_kept();
        let random = Random::new(self.random.next());
        let first = &self.servers[servers[0]];
        self.random.pick(&first.volumes).disk.cut_at(operations, kept, random);
        self.wait_for_end(servers[0], 10 * WRITES)?;
        if servers.len() > 1 {
            self.outcome.count(CUT_TOGETHER);
        }
        self.lose_power(servers);
        let Some(operations) = again else { return self.power_on(servers) };
        // The others are back, so that there is somebody to write with.
        let (first, others) = (servers[0], &servers[1..]);
        self.power_on(others)?;
        let kept = self.draw_kept();
        let random = Random::new(self.random.next());
        let cut = |volumes: &[Volume]| volumes[0].disk.cut_at(operations, kept, random.clone());
        match self.servers[first].power_on(cut) {
            Ok(()) => self.wait_for_end(first, WRITES)?,
            Err(_) if self.servers[first].has_lost_power() => {}
            Err(error) => return Err(error),
        }
        self.outcome.count(CUT_AGAIN);
        self.lose_power(&[first]);
        self.power_on(&[first])
    }

    fn fail(&mut self, server: usize, operation: Operation, nth: u64, again: bool) -> Result<(), String> {
        let disk = self.random.pick(&self.servers[server].volumes).disk.clone();
        disk.fail_once(operation, nth);
        self.wait_for_end(server, WRITES_MAX)?;
        if disk.has_failed() {
            self.outcome.count(FAILED);
        }
        if self.must_end_as_it_should(server)? && again {
            self.start_again(server)?;
        }
        self.lose_power(&[server]);
        self.power_on(&[server])
    }

    /// Without a power cut, unless there is a file system that takes nothing more: then a server waits.
    fn start_again(&mut self, server: usize) -> Result<(), String> {
        if !self.servers[server].volumes.iter().all(Volume::takes_files) {
            self.story.push(format!("the file system of server {} takes nothing more", server + 1));
            return Ok(());
        }
        self.outcome.count(STARTED_AGAIN);
        self.servers[server].start()?;
        self.must_be_well()
    }

    fn fill(&mut self, server: usize) -> Result<(), String> {
        self.servers[server].log_volume().fill()?;
        self.outcome.count(FULL);
        self.wait_for_end(server, WRITES_MAX)?;
        self.must_end_as_it_should(server)?;
        self.lose_power(&[server]);
        self.power_on(&[server])
    }

    /// While the disk of all logs does nothing, nothing is acknowledged but what was durable before: one write a client.
    fn stall(&mut self, server: usize) -> Result<(), String> {
        let disk = self.servers[server].log_volume().disk.clone();
        let waits = disk.stall(STALL_WITHIN);
        self.outcome.count(STALLED);
        let before = self.writers().writes();
        if self.servers.len() > 1 {
            self.wait_for_end(server, WRITES)?;
        } else {
            // Not to wait for anything: this is how long it does nothing.
            std::thread::sleep(STALL);
            let more = self.writers().writes() - before;
            if !waits || more > CLIENTS as u64 {
                return Err(format!("{more} writes were acknowledged while the disk did nothing"));
            }
        }
        disk.resume();
        self.must_be_well()?;
        self.lose_power(&[server]);
        self.power_on(&[server])
    }

    /// Whether this server has ended, which it does with one code only. If not, what failed was none of its log's.
    fn must_end_as_it_should(&mut self, server: usize) -> Result<bool, String> {
        let number = server + 1;
        match self.servers[server].ended() {
            Some(status) if status.code() == Some(LOG_FAILED) => {
                self.outcome.count(ENDED);
                self.story.push(format!("server {number} ended with code {LOG_FAILED}"));
                Ok(true)
            }
            Some(status) => Err(format!("server {number} ended with {status} and not with code {LOG_FAILED}")),
            None => {
                self.outcome.count(WENT_ON);
                self.story.push(format!("server {number} went on"));
                Ok(false)
            }
        }
    }

    fn lose_power(&mut self, servers: &[usize]) {
        for server in servers {
            let kept = self.draw_kept();
            self.servers[*server].lose_power(kept, &mut self.random);
        }
        self.story.push(format!("the power of {servers:?} is gone, after {} writes", self.writers().writes()));
    }

    /// Those that have power go on meanwhile, if they are enough.
    fn power_on(&mut self, servers: &[usize]) -> Result<(), String> {
        let with_power = self.servers.iter().filter(|server| !server.has_lost_power()).count();
        if 2 * with_power > self.servers.len() {
            let enough = self.writers().writes() + WRITES;
            self.writers().wait_until("the others go on", |progress| Ok(progress.writes >= enough))?;
        }
        servers.iter().try_for_each(|server| self.servers[*server].power_on(|_| ()))
    }

    fn draw_kept(&mut self) -> Kept {
        match self.random.below(5) {
            0 => Kept::Nothing,
            1 => Kept::All,
            2 => Kept::First,
            _ => Kept::Sectors,
        }
    }
}
