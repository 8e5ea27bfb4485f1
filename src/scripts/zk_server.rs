//! `zkServer.sh`: start, stop and question a server as Apache's script does.
//!
//! The shell script of that name has read `zkEnv.sh` and what that sources, so everything comes from the arguments and the
//! environment here. Lines on standard output and exit codes are Apache's; where Apache's script looks away (a process that
//! does not end, an id that belongs to a stranger), this one looks. A configuration that a unit of systemd runs is started and
//! stopped by systemd: a server beside the service would leave files that it cannot read.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::utsname::uname;

use crate::admin::version;
use crate::config::{entries, environment_properties, secret};
use crate::sys::clock;
use crate::sys::process::{self, Holder};
use crate::sys::systemd::{Unit, UnitState};

/// A server that lives this long after its start has started, as Apache's script sees it, ms.
const START_WATCH_MS: i64 = 1_000;

/// How long `stop` waits for the end. The server itself takes less than two seconds; Apache's may take longer.
const STOP_WAIT_MS: i64 = 10_000;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// How long the server may take to answer `status`, as with `FourLetterWordMain`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The end of the output file that a failed start shows, bytes.
const TAIL_BYTES: usize = 2_000;

const USAGE: &str = "[--config <conf-dir>] {start|start-foreground|stop|version|restart|status|print-cmd}";

/// The script: runs one verb; the exit code.
pub fn control_server(args: &[String]) -> i32 {
    let script = Script::new(args, |name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    script.announce();
    match script.verb.as_deref() {
        Some("start") => script.start(),
        Some("start-foreground") => script.start_foreground(),
        Some("stop") => script.stop(),
        Some("restart") => {
            script.stop();
            script.start()
        }
        Some("status") => script.status(),
        Some("print-cmd") => script.print_command(),
        Some("version") => {
            println!("Apache ZooKeeper, version {}", version::of_scripts());
            0
        }
        _ => {
            eprintln!("Usage: {} {USAGE}", script.name);
            0
        }
    }
}

/// What the script was told, and what it finds in zoo.cfg.
#[derive(Debug)]
struct Script {
    /// How it was called.
    name: String,
    verb: Option<String>,
    config: PathBuf,
    /// Of zoo.cfg in its order; or why there are none.
    settings: Result<Vec<(String, String)>, String>,
    pid_file: Option<PathBuf>,
    log_dir: PathBuf,
    /// The properties of the flags.
    properties: Vec<(String, String)>,
    autocreate: bool,
    jmx_disabled: bool,
    jmx_port: Option<String>,
    exec: bool,
    user: String,
}

impl Script {
    fn new(args: &[String], variable: impl Fn(&str) -> Option<String>) -> Script {
        let mut args = args;
        let mut config_dir = variable("ZOOCFGDIR").map(PathBuf::from);
        if let [flag, dir, rest @ ..] = args
            && flag == "--config"
        {
            config_dir = Some(PathBuf::from(dir));
            args = rest;
        }
        let config = config_path(config_dir, args.get(1).cloned(), variable("ZOOCFG"));
        let settings = read_settings(&config);
        let data_dir = settings.as_ref().ok().and_then(|settings| last_of(settings, "dataDir")).map(PathBuf::from);
        let properties = environment_properties(&variable);
        Script {
            name: variable("ZOOSCRIPT").unwrap_or_else(|| "zkServer.sh".to_owned()),
            verb: args.first().cloned(),
            config,
            settings,
            pid_file: variable("ZOOPIDFILE")
                .map(PathBuf::from)
                .or(data_dir.map(|dir| dir.join("zookeeper_server.pid"))),
            log_dir: PathBuf::from(variable("ZOO_LOG_DIR").unwrap_or_else(|| "logs".to_owned())),
            properties,
            autocreate: variable("ZOO_DATADIR_AUTOCREATE_DISABLE").is_none(),
            jmx_disabled: variable("JMXDISABLE").is_some_and(|value| value != "false"),
            jmx_port: variable("JMXPORT"),
            exec: variable("ZOO_NOEXEC").is_none(),
            user: variable("USER").unwrap_or_default(),
        }
    }

    fn setting(&self, key: &str) -> Option<&str> {
        last_of(self.settings.as_ref().ok()?, key)
    }

    /// The lines that every verb begins with.
    fn announce(&self) {
        if self.jmx_disabled {
            eprintln!("JMX disabled by user request");
        } else {
            eprintln!("ZooKeeper JMX enabled by default");
            if let Some(port) = &self.jmx_port {
                eprintln!("JMXPORT={port} has no effect: this server is not a JVM; its figures are in mntr");
            }
        }
        eprintln!("Using config: {}", self.config.display());
        if let Err(reason) = &self.settings {
            eprintln!("{}: {reason}", self.config.display());
        }
    }

    // -- start

    fn start(&self) -> i32 {
        if let Some(missing) = self.missing_directory() {
            println!("{missing}");
            return 1;
        }
        print_now("Starting zookeeper ... ");
        if let Some(pid) = self.running() {
            return already_running(pid);
        }
        match Unit::of(&self.config).and_then(|unit| unit.map(|unit| self.start_unit(&unit)).transpose()) {
            Ok(None) => {}
            Ok(Some(code)) => return code,
            Err(reason) => {
                println!("FAILED TO START");
                eprintln!("{reason}");
                return 1;
            }
        }
        let Some(pid_file) = &self.pid_file else {
            println!("FAILED TO START");
            eprintln!("{}: no dataDir: no place for the data, nor for the pid file", self.config.display());
            return 1;
        };
        let output = self.output_file();
        let before = fs::metadata(&output).map_or(0, |data| data.len());
        let mut server = match self.spawn(&output) {
            Ok(server) => server,
            Err(error) => {
                println!("SERVER DID NOT START");
                eprintln!("{}: {error}", output.display());
                return 1;
            }
        };
        if let Err(error) = make_parent(pid_file).and_then(|()| write_pid(pid_file, server.id())) {
            println!("FAILED TO WRITE PID");
            eprintln!("{}: {error}; the server runs as process {}", pid_file.display(), server.id());
            return 1;
        }
        match within(START_WATCH_MS, || server.try_wait().ok().flatten()) {
            None => {
                println!("STARTED");
                0
            }
            Some(status) => {
                println!("FAILED TO START");
                eprintln!(
                    "the server ended with {status}; the end of {}:\n{}",
                    output.display(),
                    tail(&output, before)
                );
                1
            }
        }
    }

    /// By systemd, as the unit says; the exit code, or why there is no server.
    fn start_unit(&self, unit: &Unit) -> Result<i32, String> {
        let before = unit.state()?;
        if let Some(pid) = before.server() {
            return Ok(already_running(pid));
        }
        if !self.properties.is_empty() {
            eprintln!("the flags given here have no effect: {0} has its own, see `systemctl cat {0}`", unit.name);
        }
        unit.start()?;
        let look = || unit.state().ok().filter(UnitState::is_down);
        let ended = within(START_WATCH_MS, || look().filter(|now| now.invocation != before.invocation));
        // Where a condition of the unit is not met, there was no start to see the end of.
        if ended.or_else(look).is_some() {
            return Err(unit.log_tail());
        }
        println!("STARTED");
        Ok(0)
    }

    fn spawn(&self, output: &Path) -> io::Result<std::process::Child> {
        make_parent(output)?;
        let log = OpenOptions::new().create(true).append(true).open(output)?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        process::detach(&mut command);
        command.spawn()
    }

    fn start_foreground(&self) -> i32 {
        if let Some(missing) = self.missing_directory() {
            println!("{missing}");
            return 1;
        }
        let mut command = self.command();
        let error = if self.exec {
            command.exec()
        } else {
            match command.status() {
                Ok(status) => return status.code().unwrap_or(1),
                Err(error) => error,
            }
        };
        eprintln!("{} cannot be run: {error}", own_program().display());
        1
    }

    /// The server, with the properties of the flags as arguments, where an operator sees them in `ps`; those with secrets
    /// come by its environment, where nobody else does.
    fn command(&self) -> Command {
        let mut command = Command::new(own_program());
        let flag = |(name, value): &(String, String)| format!("-D{name}={value}");
        let (secret, open): (Vec<_>, Vec<_>) = self.properties.iter().partition(|(name, _)| secret::is_secret(name));
        command.arg("run").args(open.into_iter().map(flag)).arg(&self.config);
        for flags in ["SERVER_JVMFLAGS", "JVMFLAGS", "JAVA_OPTS", "ZOO_DATADIR_AUTOCREATE_DISABLE"] {
            command.env_remove(flags);
        }
        if !secret.is_empty() {
            let flags: Vec<String> = secret.into_iter().map(|property| quoted(&flag(property))).collect();
            command.env("JVMFLAGS", flags.join(" "));
        }
        command
    }

    fn print_command(&self) -> i32 {
        let shown = secret::shown;
        let properties: String =
            self.properties.iter().map(|(name, value)| format!(" \"-D{name}={}\"", shown(name, value))).collect();
        let (program, config, output) = (own_program(), &self.config, self.output_file());
        println!(
            "\"{}\" run{properties} \"{}\" > \"{}\" 2>&1 < /dev/null",
            program.display(),
            config.display(),
            output.display()
        );
        0
    }

    fn output_file(&self) -> PathBuf {
        let host = uname().map_or(String::new(), |names| names.nodename().to_string_lossy().into_owned());
        self.log_dir.join(format!("zookeeper-{}-server-{host}.out", self.user))
    }

    /// Where directories may not be made, they must be there.
    fn missing_directory(&self) -> Option<String> {
        let missing = |(key, kind): &(&str, &str)| {
            let dir = self.setting(key).filter(|dir| !Path::new(dir).join("version-2").is_dir())?;
            Some(format!("ZooKeeper {kind} directory is missing at {dir} fix the path or run initialize"))
        };
        if self.autocreate { None } else { [("dataDir", "data"), ("dataLogDir", "txnlog")].iter().find_map(missing) }
    }

    // -- stop

    fn stop(&self) -> i32 {
        print_now("Stopping zookeeper ... ");
        match Unit::of(&self.config).and_then(|unit| unit.as_ref().map_or(Ok(false), stop_unit)) {
            // One beside the service may have kept it from starting.
            Ok(true) if self.running().is_none() => {
                println!("STOPPED");
                return 0;
            }
            Ok(_) => {}
            Err(reason) => {
                println!("NOT STOPPED: {reason}");
                return 1;
            }
        }
        let pid_file = self.pid_file.clone().unwrap_or_else(|| PathBuf::from("/zookeeper_server.pid"));
        let text = match fs::read_to_string(&pid_file) {
            Ok(text) => text,
            Err(error) => {
                println!("no zookeeper to stop (could not find file {})", pid_file.display());
                if error.kind() != io::ErrorKind::NotFound {
                    eprintln!("{}: {error}", pid_file.display());
                }
                return 0;
            }
        };
        let pid = text.trim().parse().unwrap_or(0);
        match process::holder(pid, &self.config) {
            Holder::Server => {
                if let Err(reason) = self.end(pid) {
                    // Its file stays, for the next try.
                    println!("NOT STOPPED: process {pid} {reason}");
                    return 1;
                }
            }
            Holder::OtherServer => {
                println!(
                    "NOT STOPPED: process {pid} is a server with another configuration than {}",
                    self.config.display()
                );
                return 1;
            }
            Holder::NoServer => {
                eprintln!("process {} of {} is no server, or has ended", text.trim(), pid_file.display())
            }
        }
        if let Err(error) = fs::remove_file(&pid_file) {
            eprintln!("{}: {error}", pid_file.display());
        }
        println!("STOPPED");
        0
    }

    /// Ends the server, or says why not.
    fn end(&self, pid: i32) -> Result<(), String> {
        match process::terminate(pid) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err("belongs to another user; stop it as that user, or as root".to_owned());
            }
            // It has ended by itself, or will be looked at all the same.
            _ => {}
        }
        within(STOP_WAIT_MS, || (process::holder(pid, &self.config) != Holder::Server).then_some(()))
            .ok_or_else(|| format!("was told to end and has not within {STOP_WAIT_MS} ms"))
    }

    /// The server that the pid file names, if it lives.
    fn running(&self) -> Option<i32> {
        let pid = fs::read_to_string(self.pid_file.as_ref()?).ok()?.trim().parse().ok()?;
        (process::holder(pid, &self.config) == Holder::Server).then_some(pid)
    }

    // -- status

    fn status(&self) -> i32 {
        let Some(Place { port, address, secure }) = self.find_client_port() else {
            println!("Unable to find either secure or unsecure client port in any configs. Terminating.");
            return 1;
        };
        println!("Client port found: {port}. Client address: {address}. Client SSL: {secure}.");
        if !secure && let Some(mode) = ask_mode(&address, &port) {
            println!("{mode}");
            return 0;
        }
        if secure {
            println!(" ");
            println!("Note: there is only a secureClientPort ({port}), which this command cannot ask. Give the server");
            println!("  a clientPort as well, with clientPortAddress=127.0.0.1, for its own host to look after it.");
            println!(" ");
        }
        println!("Error contacting service. It is probably not running.");
        1
    }

    /// As Apache's script goes about it, down to what it says on the way.
    fn find_client_port(&self) -> Option<Place> {
        let plain = |port: &str, address: Option<&str>| Place {
            port: port.to_owned(),
            address: address.unwrap_or("localhost").to_owned(),
            secure: false,
        };
        let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let address = self.setting("clientPortAddress");
        if let Some(port) = self.setting("clientPort").filter(is_number) {
            return Some(plain(port, address));
        }
        let id = self.setting("dataDir").and_then(|dir| fs::read_to_string(Path::new(dir).join("myid")).ok());
        match id.as_deref().map(str::trim).filter(is_number) {
            None => println!("myid could not be determined, will not able to locate clientPort in the server configs."),
            Some(id) => {
                if let Some(ports) = self.client_part(id) {
                    let (client, secure_client) = ports.split_once(';').unwrap_or((&ports, ""));
                    let secure = client.is_empty();
                    let place = if secure { secure_client } else { client };
                    let place = match place.rsplit_once(':') {
                        Some((host, port)) => plain(port, Some(host.trim_matches(['[', ']']))),
                        None => plain(place, address),
                    };
                    return Some(Place { secure, ..place });
                }
                println!("Client port not found in the server configs");
            }
        }
        println!("Client port not found. Looking for secureClientPort in the static config.");
        let port = self.setting("secureClientPort").filter(|port| !port.is_empty())?;
        let address = self.setting("secureClientPortAddress").unwrap_or("localhost").to_owned();
        Some(Place { port: port.to_owned(), address, secure: true })
    }

    /// What follows the first `;` in this server's line: where clients connect, and behind another `;` where by TLS.
    fn client_part(&self, id: &str) -> Option<String> {
        let key = format!("server.{id}");
        let part = |line: Option<&str>| Some(line?.split_once(';')?.1.trim().to_owned());
        if let Some(found) = part(self.setting(&key)) {
            return Some(found);
        }
        println!("Client port not found in static config file. Looking in dynamic config file.");
        let path = self.setting("dynamicConfigFile")?;
        match read_settings(Path::new(path)) {
            Ok(dynamic) => part(last_of(&dynamic, &key)),
            Err(reason) => {
                eprintln!("{path}: {reason}");
                None
            }
        }
    }
}

/// Where clients connect.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    port: String,
    address: String,
    secure: bool,
}

/// A file that is named with a folder is itself; else it is in the configuration's folder.
fn config_path(dir: Option<PathBuf>, argument: Option<String>, variable: Option<String>) -> PathBuf {
    let name = PathBuf::from(argument.or(variable).unwrap_or_else(|| "zoo.cfg".to_owned()));
    match dir {
        Some(dir) if name.components().count() == 1 => dir.join(name),
        _ => name,
    }
}

fn read_settings(path: &Path) -> Result<Vec<(String, String)>, String> {
    let text = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "No such file or directory".to_owned(),
        _ => error.to_string(),
    })?;
    let entries = entries(&text).map_err(|error| format!("line {}: {}", error.line, error.what))?;
    Ok(entries.into_iter().map(|entry| (entry.key.trim().to_owned(), entry.value.trim().to_owned())).collect())
}

/// The value that counts: the last of duplicates.
fn last_of<'a>(settings: &'a [(String, String)], key: &str) -> Option<&'a str> {
    settings.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// The `Mode:` line of `srvr`.
fn ask_mode(address: &str, port: &str) -> Option<String> {
    // A wildcard is where a server listens, and no address to connect to.
    let address = if matches!(address, "0.0.0.0" | "::") { "localhost" } else { address };
    let mut addresses = (address, port.parse().ok()?).to_socket_addrs().ok()?;
    let mut stream = addresses.find_map(|address| TcpStream::connect_timeout(&address, ANSWER_TIMEOUT).ok())?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
    stream.write_all(b"srvr").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().find(|line| line.contains("Mode")).map(str::to_owned)
}

fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("rookeeper"))
}

/// False: systemd has nothing to stop.
fn stop_unit(unit: &Unit) -> Result<bool, String> {
    if unit.state()?.is_at_rest() { Ok(false) } else { unit.stop().map(|()| true) }
}

fn already_running(pid: i32) -> i32 {
    println!("already running as process {pid}.");
    1
}

/// Root writes where others may: no link of theirs is followed.
fn write_pid(file: &Path, pid: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW);
    options.open(file)?.write_all(pid.to_string().as_bytes())
}

fn make_parent(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)
}

fn print_now(text: &str) {
    print!("{text}");
    // Who reads this may have gone; what is to be done is done all the same.
    let _ = io::stdout().flush();
}

/// One word, whatever is in it, for who reads flags as a shell does.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\"'\"'"))
}

/// Looks until there is something, at most so long.
fn within<T>(ms: i64, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until_us = clock::mono_us() + ms * 1000;
    loop {
        match look() {
            None if clock::mono_us() < until_us => sleep(LOOK),
            result => return result,
        }
    }
}

/// What the file has behind this offset, the end of it if it is long.
fn tail(path: &Path, from: u64) -> String {
    let text = fs::read(path).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(usize::MAX).max(text.len().saturating_sub(TAIL_BYTES));
    String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_as_apaches_script_finds_it() {
        let path = |dir: &str, argument: Option<&str>, variable: Option<&str>| {
            let dir = (!dir.is_empty()).then(|| PathBuf::from(dir));
            config_path(dir, argument.map(str::to_owned), variable.map(str::to_owned)).display().to_string()
        };
        assert_eq!(path("/etc/zk", None, None), "/etc/zk/zoo.cfg");
        assert_eq!(path("/etc/zk", Some("b.cfg"), Some("a.cfg")), "/etc/zk/b.cfg");
        assert_eq!(path("/etc/zk", Some("/x/b.cfg"), None), "/x/b.cfg");
        assert_eq!(path("/etc/zk", Some("./b.cfg"), None), "./b.cfg");
        assert_eq!(path("/etc/zk", None, Some("/x/a.cfg")), "/x/a.cfg");
    }

    #[test]
    fn flags_with_secrets_stand_in_no_list_of_processes() {
        let flags = "-Da=1 \"-Dssl.keyStore.password=it's two\"";
        let script = Script::new(&["start".to_owned()], |name| (name == "JVMFLAGS").then(|| flags.to_owned()));
        let command = script.command();
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        assert_eq!(args[..2], ["run", "-Da=1"]);
        assert_eq!(args.len(), 3);
        let given = command.get_envs().find(|(name, _)| *name == "JVMFLAGS").and_then(|(_, value)| value).unwrap();
        let read = environment_properties(|name| (name == "JVMFLAGS").then(|| given.to_string_lossy().into_owned()));
        assert_eq!(read, [("ssl.keyStore.password".to_owned(), "it's two".to_owned())]);
    }

    #[test]
    fn the_client_port_is_looked_for_in_four_places() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().display();
        fs::write(dir.path().join("myid"), "7\n").unwrap();
        fs::write(dir.path().join("dynamic"), "server.7=h:1:2;[::1]:2183\n").unwrap();
        let place = |config: &str| {
            let file = dir.path().join("zoo.cfg");
            fs::write(&file, config).unwrap();
            let script = Script::new(&["status".to_owned(), file.display().to_string()], |_| None);
            script.find_client_port().map(|place| format!("{} {} {}", place.address, place.port, place.secure))
        };
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(place("clientPort=2181\nclientPort = 2182\n"), found("localhost 2182 false"));
        assert_eq!(place("clientPort=2181\nclientPortAddress=10.0.0.1"), found("10.0.0.1 2181 false"));
        assert_eq!(place(&format!("dataDir={data}\nserver.7=h:1:2;2184")), found("localhost 2184 false"));
        assert_eq!(place(&format!("dataDir={data}\ndynamicConfigFile={data}/dynamic")), found("::1 2183 false"));
        assert_eq!(place(&format!("dataDir={data}\nserver.7=h:1:2;h:2184;2281")), found("h 2184 false"));
        assert_eq!(place(&format!("dataDir={data}\nserver.7=h:1:2;;2281")), found("localhost 2281 true"));
        assert_eq!(place(&format!("dataDir={data}\nsecureClientPort=2281")), found("localhost 2281 true"));
        assert_eq!(place("dataDir=/nowhere\nclientPort="), None);
    }
}
