//! Clients that write all the time, each its own nodes, and compare what they find with what they were told: whenever they
//! lost their server, and whenever they are asked to.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rookeeper::client::{Client, CreateMode, Error, Options};
use rookeeper::codes::Code;
use rookeeper::records::Acl;

use crate::acknowledged::{Acknowledged, Node, Write};
use crate::random::Random;

/// For anything that a healthy ensemble does at once, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often somebody who waits looks again at what tells nobody.
const LOOK: Duration = Duration::from_millis(20);
/// How long a client looks for a server before it looks again whether it is still to do so.
const CONNECTING: Duration = Duration::from_secs(1);
/// Nodes of a writer.
const NODES: u64 = 8;

/// How far they are.
#[derive(Debug, Default)]
pub struct Progress {
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Comparisons that were asked for, of each writer, and those that each has made.
    wanted: u64,
    made: Vec<u64>,
    is_over: bool,
    /// What must not be.
    wrong: Option<String>,
}

#[derive(Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress());
        self.changed.notify_all();
    }
}

/// All of them.
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Acknowledged>>,
}

impl Writers {
    /// Starts some, which write values of up to this size.
    pub fn start(servers: &str, count: usize, value_bytes_max: u64, random: &mut Random) -> Writers {
        let shared = Arc::new(Shared::default());
        shared.change(|progress| progress.made = vec![0; count]);
        let start = |number| {
            let writer = Writer {
                number,
                servers: servers.to_owned(),
                is_alone: !servers.contains(','),
                client: None,
                told: Acknowledged::default(),
                value_bytes_max,
                random: Random::new(random.next()),
                shared: Arc::clone(&shared),
            };
            std::thread::spawn(move || writer.run())
        };
        let threads = (0..count).map(start).collect();
        Writers { shared, threads }
    }

    /// Waits until this is so, or something is wrong.
    #[allow(clippy::disallowed_methods, reason = "how long a test waits is no matter of the product")]
    pub fn wait_until(
        &self,
        what: &str,
        mut is_so: impl FnMut(&Progress) -> Result<bool, String>,
    ) -> Result<(), String> {
        let begun = Instant::now();
        let mut progress = self.shared.progress();
        loop {
            if let Some(wrong) = &progress.wrong {
                return Err(wrong.clone());
            }
            if is_so(&progress)? {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("not within {} s: {what}", PATIENCE.as_secs()));
            }
            progress = self.shared.changed.wait_timeout(progress, LOOK).unwrap().0;
        }
    }

    /// Writes that were acknowledged so far.
    pub fn writes(&self) -> u64 {
        self.shared.progress().writes
    }

    /// Has each compare, and waits until all have. `is_well` is asked meanwhile.
    pub fn compare(&self, mut is_well: impl FnMut() -> Result<(), String>) -> Result<(), String> {
        let mut wanted = 0;
        self.shared.change(|progress| {
            progress.wanted += 1;
            wanted = progress.wanted;
        });
        self.wait_until("every client finds what it was told", |progress| {
            is_well()?;
            Ok(progress.made.iter().all(|made| *made >= wanted))
        })
    }

    /// Ends them; what each was told.
    pub fn stop(mut self) -> Result<Vec<Acknowledged>, String> {
        self.shared.change(|progress| progress.is_over = true);
        let told = self.threads.drain(..).map(|thread| thread.join().map_err(|_| "a client panicked".to_owned()));
        let told = told.collect::<Result<_, _>>()?;
        self.shared.progress().wrong.take().map_or(Ok(told), Err)
    }
}

impl Drop for Writers {
    /// Without waiting for them: there may be no server.
    fn drop(&mut self) {
        self.shared.change(|progress| progress.is_over = true);
    }
}

/// Nodes of the `number`th writer, as this client finds them behind a write of its own. No sync would do: on a leader that
/// is a read, behind which comes what was proposed before and is not committed yet.
pub fn find(client: &Client, number: usize) -> Result<BTreeMap<String, Node>, Error> {
    let barrier = format!("/barrier-{number}");
    match client.set_data(&barrier, None, -1) {
        Err(error) if error.is_no_node() => drop(client.create(&barrier, None, &Acl::open(), CreateMode::default())?),
        other => drop(other?),
    }
    let (names, _) = client.children("/", false)?;
    let mut found = BTreeMap::new();
    for name in names.iter().filter(|name| name.starts_with(&format!("{number}-"))) {
        let path = format!("/{name}");
        let (value, stat) = client.data(&path, false)?;
        let value = value.unwrap_or_default();
        found.insert(path, Node { value, version: stat.version, czxid: stat.czxid, mzxid: stat.mzxid });
    }
    Ok(found)
}

/// A client of these servers, connected to one.
pub fn connect(servers: &str) -> Result<Client, Error> {
    let client = Client::start(servers, Options::default(), |_| ())?;
    client.wait_connected(PATIENCE)?;
    Ok(client)
}

struct Writer {
    number: usize,
    servers: String,
    /// There is one server. With more, the session is kept for as long as it lives, so that no write comes late by another
    /// server. With one there is no other way for a write, and a new session is taken by a server that has lost something.
    is_alone: bool,
    client: Option<Client>,
    told: Acknowledged,
    value_bytes_max: u64,
    random: Random,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self) -> Acknowledged {
        loop {
            let (is_over, wanted, made) = {
                let progress = self.shared.progress();
                (progress.is_over, progress.wanted, progress.made[self.number])
            };
            if is_over {
                return self.told;
            }
            let done = if self.told.is_in_doubt() || made < wanted { self.compare(wanted) } else { self.write() };
            if let Err(wrong) = done {
                self.shared.change(|progress| {
                    progress.wrong.get_or_insert(format!("client {}: {wrong}", self.number));
                });
                return self.told;
            }
        }
    }

    /// A client that is connected, if there is one soon.
    fn client(&mut self) -> Option<&Client> {
        let is_alone = self.is_alone;
        self.client.take_if(|client| !client.is_alive() || (is_alone && !client.is_connected()));
        if self.client.is_none() {
            self.client = Client::start(&self.servers, Options::default(), |_| ()).ok();
        }
        let client = self.client.as_ref()?;
        client.wait_connected(CONNECTING).is_ok().then_some(client)
    }

    fn compare(&mut self, wanted: u64) -> Result<(), String> {
        let number = self.number;
        let Some(found) = self.client().map(|client| find(client, number)) else { return Ok(()) };
        match found {
            Ok(found) => self.told.find(found)?,
            // A node that goes between two reads is one of ours that nobody writes now.
            Err(error) if error.is_no_node() => return Err(format!("a node is listed and not there: {error}")),
            Err(_) => return Ok(()),
        }
        self.shared.change(|progress| progress.made[number] = wanted);
        Ok(())
    }

    fn write(&mut self) -> Result<(), String> {
        let write = self.draw();
        let version = match &write {
            Write::Set { path, .. } => self.told.nodes()[path].version,
            Write::Create { .. } | Write::Delete { .. } => -1,
        };
        let Some(client) = self.client() else { return Ok(()) };
        let answer = match &write {
            Write::Create { path, value } => {
                client.create(path, Some(value), &Acl::open(), CreateMode::default()).map(|(_, stat)| Some(stat))
            }
            Write::Set { path, value } => client.set_data(path, Some(value), version).map(Some),
            Write::Delete { paths } => match client.read_deleted(client.ask_delete_all(paths)) {
                Ok(false) => Err(Error::Refused { code: Code::NoNode, path: Some(paths.join(", ")) }),
                done => done.map(|_| None),
            },
        };
        self.told.ask(write);
        match answer {
            Ok(stat) => {
                self.told.acknowledge(stat.map(|stat| (stat.mzxid, stat.version)))?;
                self.shared.change(|progress| progress.writes += 1);
                Ok(())
            }
            Err(error) if matches!(error.code(), Some(Code::NoNode | Code::NodeExists | Code::BadVersion)) => {
                Err(format!("refused, though after what was acknowledged it can be done: {error}"))
            }
            // It happened or not, which the next comparison tells.
            Err(_) => Ok(()),
        }
    }

    /// The next write: a node of the writer's that is not there is made, another one is mostly set.
    fn draw(&mut self) -> Write {
        let path = |node: u64| format!("/{}-{node}", self.number);
        let (one, other) = (path(self.random.below(NODES)), path(self.random.below(NODES)));
        let bytes = self.random.scaled(1, self.value_bytes_max);
        let nodes = self.told.nodes();
        if nodes.contains_key(&one) && nodes.contains_key(&other) && one != other && self.random.one_in(8) {
            return Write::Delete { paths: vec![one, other] };
        }
        let value = (0..bytes.div_ceil(8)).flat_map(|_| self.random.next().to_le_bytes()).collect();
        if nodes.contains_key(&one) { Write::Set { path: one, value } } else { Write::Create { path: one, value } }
    }
}
