//! The unit of systemd that runs a server with this configuration, where it is an installed one: as whom it runs, and what it
//! may do. The shell that the doctor is started from says nothing about that.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::doctor::facts::{Account, Service};

/// Where units that are installed have their configurations.
const CONFIG_DIR: &str = "/etc/rookeeper";
/// What is asked for.
const PROPERTIES: &str = "LoadState,User,Group,LimitNOFILE,ProtectHome,ProtectSystem,ReadWritePaths,StateDirectory,CacheDirectory,LogsDirectory";
/// Folders that systemd makes, and gives to the unit's user.
const MADE: [(&str, &str); 3] =
    [("StateDirectory", "/var/lib"), ("CacheDirectory", "/var/cache"), ("LogsDirectory", "/var/log")];

/// Asks systemd, where it runs and has such a unit.
pub fn probe(config_path: &Path) -> Option<Service> {
    let unit = unit_of(&absolute(config_path).ok()?)?;
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let shown = Command::new("systemctl").args(["show", &unit, "-p", PROPERTIES]).stdin(Stdio::null()).output().ok()?;
    parse(unit, &String::from_utf8_lossy(&shown.stdout))
}

/// The unit whose configuration this is.
fn unit_of(config_path: &Path) -> Option<String> {
    let parts: Vec<&str> =
        config_path.strip_prefix(CONFIG_DIR).ok()?.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    match parts[..] {
        ["zoo.cfg"] => Some("rookeeper.service".into()),
        [name, "zoo.cfg"] => Some(format!("rookeeper@{name}.service")),
        _ => None,
    }
}

fn parse(unit: String, shown: &str) -> Option<Service> {
    let of = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
    if of("LoadState") != "loaded" {
        return None;
    }
    let made: Vec<PathBuf> = MADE
        .iter()
        .flat_map(|(key, above)| of(key).split_whitespace().map(|name| Path::new(above).join(name)))
        .collect();
    let writable =
        of("ReadWritePaths").split_whitespace().map(|path| PathBuf::from(path.trim_start_matches(['-', '+'])));
    let user = Some(of("User")).filter(|user| !user.is_empty()).unwrap_or("root");
    Some(Service {
        unit,
        account: account(user, of("Group")),
        // `infinity` is no number.
        open_files_max: of("LimitNOFILE").parse().ok(),
        protect_home: of("ProtectHome").to_owned(),
        protect_system: of("ProtectSystem").to_owned(),
        writable: writable.collect(),
        made,
    })
}

/// Of a user and, if it is not the user's own, a group; names or numbers.
fn account(user: &str, group: &str) -> Option<Account> {
    let by_number = || User::from_uid(Uid::from_raw(user.parse().ok()?)).ok().flatten();
    let found = User::from_name(user).ok().flatten().or_else(by_number)?;
    let named = Group::from_name(group).ok().flatten().map(|group| group.gid);
    let gid = named.or_else(|| group.parse().ok().map(Gid::from_raw)).unwrap_or(found.gid);
    let gids = getgrouplist(&CString::new(found.name.as_str()).ok()?, gid).unwrap_or_else(|_| vec![gid]);
    Some(Account { name: found.name, uid: found.uid.as_raw(), gids: gids.into_iter().map(Gid::as_raw).collect() })
}

/// Whether systemd gives this folder to the unit's user before the server starts, whoever has it now.
pub fn is_given(service: &Service, dir: &Path) -> bool {
    let uid = service.account.as_ref().map(|account| account.uid);
    let is_given = |made: &Path| fs::metadata(made).map_or(true, |found| Some(found.uid()) != uid);
    service.made.iter().any(|made| dir.starts_with(made) && is_given(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_goes_by_where_the_configuration_is() {
        let of = |path: &str| unit_of(Path::new(path));
        assert_eq!(of("/etc/rookeeper/zoo.cfg").as_deref(), Some("rookeeper.service"));
        assert_eq!(of("/etc/rookeeper/second/zoo.cfg").as_deref(), Some("rookeeper@second.service"));
        assert_eq!((of("/etc/rookeeper/other.cfg"), of("/srv/rookeeper/zoo.cfg")), (None, None));
        assert_eq!(of("/etc/rookeeper/a/b/zoo.cfg"), None);
    }

    #[test]
    fn what_systemd_shows_is_understood() {
        let shown = "LoadState=loaded\nUser=\nGroup=\nLimitNOFILE=65536\nProtectHome=yes\nProtectSystem=full\n\
                     ReadWritePaths=/etc/rookeeper -/srv/a\nStateDirectory=rookeeper\nCacheDirectory=\nLogsDirectory=rookeeper\n";
        let service = parse("rookeeper.service".into(), shown).unwrap();
        assert_eq!((service.account.unwrap().uid, service.open_files_max), (0, Some(65_536)));
        assert_eq!((service.protect_home.as_str(), service.protect_system.as_str()), ("yes", "full"));
        assert_eq!(service.writable, [Path::new("/etc/rookeeper"), Path::new("/srv/a")]);
        assert_eq!(service.made, [Path::new("/var/lib/rookeeper"), Path::new("/var/log/rookeeper")]);
        assert!(parse("rookeeper.service".into(), "LoadState=not-found\nUser=\n").is_none());
        let bare = parse("x".into(), "LoadState=loaded\nUser=no-such-user\nLimitNOFILE=infinity\n").unwrap();
        assert!(bare.account.is_none() && bare.open_files_max.is_none() && bare.made.is_empty());
    }
}
