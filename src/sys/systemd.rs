//! Units of systemd: the one that runs a configuration, as `systemctl` tells of it and is told; and the one that this process
//! is, where its sandbox is in the way. Called by `scripts`, `doctor`, `storage` and `main`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, Stdio};

use nix::unistd::Uid;

/// Where this is, systemd runs the host (`sd_booted`).
const BOOTED: &str = "/run/systemd/system";

/// What a unit is called, and so is the folder of its configuration.
const NAME: &str = "rookeeper";

/// A unit that is installed.
#[derive(Debug)]
pub struct Unit {
    /// With its kind, `.service`.
    pub name: String,
}

/// What a unit is just now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnitState {
    load: String,
    active: String,
    sub: String,
    main_pid: i32,
    /// Another for every start.
    pub invocation: String,
    command: String,
}

impl Unit {
    /// The unit that runs this configuration, if systemd runs this host and has one.
    pub fn of(config: &Path) -> Result<Option<Unit>, String> {
        if !Path::new(BOOTED).is_dir() {
            return Ok(None);
        }
        let whole = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let lexical = absolute(config).unwrap_or_else(|_| config.to_owned());
        let real = lexical.parent().map(whole);
        for name in [lexical.parent().and_then(unit_name), real.as_deref().and_then(unit_name)].into_iter().flatten() {
            let unit = Unit { name };
            let state = unit.state().map_err(|error| {
                format!("whether {} runs {} cannot be found out: {error}", unit.name, config.display())
            })?;
            let runs = state.config().is_some_and(|path| path == config || whole(&path) == whole(config));
            if state.load == "loaded" && runs {
                return Ok(Some(unit));
            }
        }
        Ok(None)
    }

    /// What it is now.
    pub fn state(&self) -> Result<UnitState, String> {
        self.show("LoadState,ActiveState,SubState,MainPID,InvocationID,ExecStart").map(|shown| UnitState::of(&shown))
    }

    /// Asks systemd for these properties of it, their names parted by commas.
    pub fn show(&self, properties: &str) -> Result<Shown, String> {
        run("systemctl", &["show", "-p", properties, &self.name]).map(Shown)
    }

    /// Has it started; does not wait for it to serve.
    pub fn start(&self) -> Result<(), String> {
        self.tell(&["--no-block", "start"])
    }

    /// Has it stopped, and waits until it is.
    pub fn stop(&self) -> Result<(), String> {
        self.tell(&["stop"])
    }

    fn tell(&self, verb: &[&str]) -> Result<(), String> {
        let refused = |said: String| {
            let who = if Uid::effective().is_root() { "" } else { "; do it as root" };
            format!("{} runs this configuration: {said}{who}", self.name)
        };
        run("systemctl", &[&["--no-ask-password"], verb, &[&self.name]].concat()).map(drop).map_err(refused)
    }

    /// The last lines of its log. `systemctl status` leaves out those before a restart.
    pub fn log_tail(&self) -> String {
        let journal = |args: &[&str]| run("journalctl", args).unwrap_or_else(|error| error);
        journal(&["--sync"]);
        let lines = journal(&["--quiet", "--no-pager", "--output=cat", "--lines=10", "--unit", &self.name]);
        format!("the end of `journalctl -u {}`:\n{lines}", self.name)
    }
}

/// Properties of a unit as `systemctl show` prints them.
#[derive(Debug)]
pub struct Shown(pub String);

impl Shown {
    /// A property's value; nothing where it was not asked for, or is not there.
    pub fn of(&self, property: &str) -> &str {
        let value = self.0.lines().find_map(|line| line.strip_prefix(property)?.strip_prefix('='));
        value.unwrap_or_default()
    }
}

impl UnitState {
    fn of(shown: &Shown) -> UnitState {
        let of = |property: &str| shown.of(property).to_owned();
        UnitState {
            load: of("LoadState"),
            active: of("ActiveState"),
            sub: of("SubState"),
            main_pid: of("MainPID").parse().unwrap_or(0),
            invocation: of("InvocationID"),
            command: of("ExecStart"),
        }
    }

    /// There is no process, though there may be one in a moment.
    pub fn is_down(&self) -> bool {
        self.is_at_rest() || self.sub == "auto-restart"
    }

    /// There is no process, nor will there be one unless somebody starts it.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.active.as_str(), "inactive" | "failed")
    }

    /// The server, if it lives and is to go on.
    pub fn server(&self) -> Option<i32> {
        (self.main_pid != 0 && self.active != "deactivating").then_some(self.main_pid)
    }

    /// The last word of the command.
    fn config(&self) -> Option<PathBuf> {
        let command = self.command.split_once("argv[]=")?.1.split(" ;").next()?;
        command.split_whitespace().next_back().map(PathBuf::from)
    }
}

/// Of the folder of a configuration.
fn unit_name(folder: &Path) -> Option<String> {
    let name_of = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
    let name = name_of(folder)?;
    // What systemd takes for the name of an instance.
    let is_instance = || name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.".contains(&byte));
    match folder.parent().and_then(name_of) {
        Some(above) if above == NAME && is_instance() => Some(format!("{NAME}@{name}.service")),
        _ if name == NAME => Some(format!("{NAME}.service")),
        _ => None,
    }
}

/// What a program said, or why it failed, in a line.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let done = Command::new(program).args(args).stdin(Stdio::null()).output();
    let done = done.map_err(|error| format!("{program} cannot be run: {error}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&done.stderr).lines().next().map(str::to_owned);
    Err(complaint.unwrap_or_else(|| format!("{program} ended with {} and does not say why", done.status)))
}

// -- the sandbox

/// What the unit hides (`ProtectHome`).
pub const HIDDEN: [&str; 3] = ["/home", "/root", "/run/user"];

/// What nobody writes below the unit (`ProtectSystem`).
const READ_ONLY: [&str; 3] = ["/usr", "/boot", "/etc"];

/// What to do about a folder where this process is a service of ours, which may not go there; `None` where that is not the
/// reason.
pub fn sandbox_remedy(folder: &Path, error: &io::Error) -> Option<String> {
    std::env::var_os("INVOCATION_ID")?;
    remedy_of(&unit_of_cgroup(&fs::read_to_string("/proc/self/cgroup").ok()?)?, folder, error.kind())
}

/// `0::/system.slice/rookeeper.service`, or a line of the kind among others.
fn unit_of_cgroup(text: &str) -> Option<String> {
    let is_ours = |name: &str| name.starts_with(NAME) && name.ends_with(".service");
    text.lines().filter_map(|line| line.rsplit('/').next()).find(|name| is_ours(name)).map(str::to_owned)
}

fn remedy_of(unit: &str, folder: &Path, error: io::ErrorKind) -> Option<String> {
    let is_below = |tops: &[&str]| tops.iter().any(|top| folder.starts_with(top));
    let (is_read_only, is_denied) =
        (error == io::ErrorKind::ReadOnlyFilesystem, error == io::ErrorKind::PermissionDenied);
    let home = if is_below(&HIDDEN) && (is_denied || is_read_only) {
        "ProtectHome=read-only and "
    } else if is_below(&READ_ONLY) && is_read_only {
        ""
    } else {
        return None;
    };
    let folder = folder.display();
    Some(format!(
        "{unit} does not let it there: take a folder elsewhere, or make this one, give this user the right to it and, with \
         `systemctl edit {unit}`, put {home}ReadWritePaths={folder} below [Service], a line each"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_goes_by_the_folder_of_its_configuration() {
        let of = |folder: &str| unit_name(Path::new(folder)).unwrap_or_default();
        assert_eq!(of("/etc/rookeeper"), "rookeeper.service");
        assert_eq!(of("/etc/rookeeper/second"), "rookeeper@second.service");
        assert_eq!(of("/etc/rookeeper/rookeeper"), "rookeeper@rookeeper.service");
        for other in ["/etc/zookeeper/conf", "/etc/rookeeper/a b", "/etc/rookeeper/a/b", "/"] {
            assert_eq!(of(other), "", "{other}");
        }
    }

    #[test]
    fn what_systemd_shows_is_understood() {
        let shown = "ExecStart={ path=/usr/bin/rookeeper ; argv[]=/usr/bin/rookeeper run -Da=b /etc/rookeeper/zoo.cfg ; \
            ignore_errors=no ; pid=7 ; status=0/0 }\nLoadState=loaded\nActiveState=activating\nSubState=start\nMainPID=7\n\
            InvocationID=ab\n";
        let state = UnitState::of(&Shown(shown.into()));
        assert_eq!(state.config(), Some(PathBuf::from("/etc/rookeeper/zoo.cfg")));
        assert_eq!((state.load.as_str(), state.invocation.as_str(), state.server()), ("loaded", "ab", Some(7)));
        assert!(!state.is_down());
        let changed = |active: &str, sub: &str| UnitState { active: active.into(), sub: sub.into(), ..state.clone() };
        assert_eq!(changed("deactivating", "stop-sigterm").server(), None);
        assert!(changed("failed", "failed").is_at_rest());
        let between = changed("activating", "auto-restart");
        assert!(between.is_down() && !between.is_at_rest());
        assert_eq!(UnitState::of(&Shown("LoadState=not-found\nMainPID=0\n".into())).config(), None);
    }

    #[test]
    fn only_what_the_sandbox_does_is_blamed_on_it() {
        let unit = unit_of_cgroup("0::/system.slice/system-rookeeper.slice/rookeeper@b.service\n").unwrap();
        assert_eq!(unit, "rookeeper@b.service");
        assert_eq!(unit_of_cgroup("1:name=systemd:/user.slice/session-1.scope\n0::/system.slice/cron.service\n"), None);
        let remedy = |folder: &str, error| remedy_of(&unit, Path::new(folder), error).unwrap_or_default();
        let (denied, read_only) = (io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem);
        let lines = "`systemctl edit rookeeper@b.service`, put ProtectHome=read-only and ReadWritePaths=/root/a below";
        assert!(remedy("/root/a", denied).contains(lines) && remedy("/root/a", read_only).contains(lines));
        assert!(remedy("/usr/a", read_only).contains("put ReadWritePaths=/usr/a below"));
        for (folder, error) in [
            ("/usr/a", denied),
            ("/etc/rookeeper", denied),
            ("/homes", denied),
            ("/srv", read_only),
            ("/home/a", io::ErrorKind::StorageFull),
        ] {
            assert_eq!(remedy(folder, error), "", "{folder}");
        }
    }
}
