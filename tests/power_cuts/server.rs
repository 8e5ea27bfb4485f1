//! One server: the built binary, on volumes that lose power.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::disk::Kept;
use crate::random::Random;
use crate::volume::{FileSystem, Volume};

/// Lines of a server's log that are shown when something is wrong.
const LINES_SHOWN: usize = 25;

/// What a server is given.
#[derive(Clone, Debug)]
pub struct Setting {
    pub file_system: FileSystem,
    /// Of its disks.
    pub sector_bytes: usize,
    /// The log is stored into through its mapping.
    pub is_mapped: bool,
    pub pre_alloc_kib: u64,
    pub has_log_disk: bool,
    /// Transactions from one snapshot to the next.
    pub snap_count: u64,
}

/// See the module.
pub struct Server {
    pub number: usize,
    /// Of its data, and of its log where that is apart.
    pub volumes: Vec<Volume>,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// Makes its disks and its configuration, and starts it.
    pub fn make(within: &Path, number: usize, setting: &Setting, members: &[String]) -> Result<Server, String> {
        let home = within.join(format!("server-{number}"));
        let names: &[&str] = if setting.has_log_disk { &["data", "log"] } else { &["data"] };
        let volumes =
            names.iter().map(|name| Volume::make(&home.join(name), setting.file_system, setting.sector_bytes));
        let volumes: Vec<_> = volumes.collect::<Result<_, _>>()?;
        let config = home.join("zoo.cfg");
        let mut lines = vec![
            format!("dataDir={}", volumes[0].folder.display()),
            format!("clientPort={}", members[number - 1].rsplit(':').next().expect("a member has a client port")),
            "clientPortAddress=127.0.0.1\nadmin.enableServer=false\ntickTime=500\ninitLimit=60\nsyncLimit=10".into(),
            "minSessionTimeout=1000\nmaxSessionTimeout=60000".into(),
            format!("preAllocSize={}", setting.pre_alloc_kib),
            format!("snapCount={}", setting.snap_count),
        ];
        if let Some(log) = volumes.get(1) {
            lines.push(format!("dataLogDir={}", log.folder.display()));
        }
        if setting.is_mapped {
            lines.push("txnLogStore=mmap".into());
        }
        if members.len() > 1 {
            lines.extend(members.iter().enumerate().map(|(i, member)| format!("server.{}={member}", i + 1)));
        }
        fs::write(&config, lines.join("\n") + "\n").map_err(|error| error.to_string())?;
        let mut server = Server { number, volumes, config, log: home.join("server.log"), child: None };
        server.mount()?;
        server.volumes[0].write("myid", &format!("{number}\n"))?;
        server.start()?;
        Ok(server)
    }

    fn mount(&mut self) -> Result<(), String> {
        self.volumes.iter_mut().try_for_each(Volume::mount)
    }

    /// Starts it, on what is mounted.
    pub fn start(&mut self) -> Result<(), String> {
        let told = |error: std::io::Error| format!("server {} cannot be run: {error}", self.number);
        let log = File::options().create(true).append(true).open(&self.log).map_err(told)?;
        // Another build, as the tests with real clients take it.
        let program = std::env::var_os("ROOKEEPER").unwrap_or_else(|| env!("CARGO_BIN_EXE_rookeeper").into());
        let mut command = Command::new(program);
        command.arg("run").arg(&self.config).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().map_err(told)?);
        Ok(())
    }

    /// Of its log.
    pub fn log_volume(&self) -> &Volume {
        self.volumes.last().expect("a server has a disk")
    }

    /// How it ended by itself, if it did.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.as_mut()?.try_wait().expect("a child can be waited for")
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self) -> Result<std::process::ExitStatus, String> {
        let child = self.child.as_mut().ok_or("it does not run")?;
        child.wait().map_err(|error| error.to_string())
    }

    /// The power of all its disks goes, and with it the process.
    pub fn lose_power(&mut self, kept: Kept, random: &mut Random) {
        for volume in &self.volumes {
            volume.disk.cut(kept, Random::new(random.next()));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether the power of one of its disks is gone.
    pub fn has_lost_power(&self) -> bool {
        self.volumes.iter().any(|volume| volume.disk.is_cut())
    }

    /// The power is back: `prepare` has the disks before anything is done with them. File systems recover, and the server
    /// starts.
    pub fn power_on(&mut self, prepare: impl Fn(&[Volume])) -> Result<(), String> {
        for volume in &mut self.volumes {
            volume.unmount()?;
            volume.disk.power_on();
        }
        prepare(&self.volumes);
        self.mount()?;
        self.volumes.iter().try_for_each(Volume::make_room)?;
        self.start()
    }

    /// The end of what it said.
    pub fn said(&self) -> String {
        let said = fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<_> = said.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
        format!("server {} said at last:\n  {}\n", self.number, shown.join("\n  "))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lose_power(Kept::Nothing, &mut Random::new(0));
    }
}
