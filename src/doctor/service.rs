//! The unit of systemd that runs a server with this configuration, where it is an installed one: as whom it runs, and what it
//! may do. The shell that the doctor is started from says nothing about that.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::doctor::facts::{Account, Service};
use crate::sys::systemd::{Shown, Unit};

/// What is asked for.
const PROPERTIES: &str =
    "User,Group,LimitNOFILE,ProtectHome,ProtectSystem,ReadWritePaths,StateDirectory,CacheDirectory,LogsDirectory";
/// Folders that systemd makes, and gives to the unit's user.
const MADE: [(&str, &str); 3] =
    [("StateDirectory", "/var/lib"), ("CacheDirectory", "/var/cache"), ("LogsDirectory", "/var/log")];

/// Asks systemd, where it runs and has such a unit.
pub fn probe(config_path: &Path) -> Option<Service> {
    let unit = Unit::of(config_path).ok()??;
    let shown = unit.show(PROPERTIES).ok()?;
    Some(understand(unit.name, &shown))
}

fn understand(unit: String, shown: &Shown) -> Service {
    let of = |property: &str| shown.of(property);
    let made: Vec<PathBuf> = MADE
        .iter()
        .flat_map(|(key, above)| of(key).split_whitespace().map(|name| Path::new(above).join(name)))
        .collect();
    let writable =
        of("ReadWritePaths").split_whitespace().map(|path| PathBuf::from(path.trim_start_matches(['-', '+'])));
    let user = Some(of("User")).filter(|user| !user.is_empty()).unwrap_or("root");
    Service {
        unit,
        account: account(user, of("Group")),
        // `infinity` is no number.
        open_files_max: of("LimitNOFILE").parse().ok(),
        protect_home: of("ProtectHome").to_owned(),
        protect_system: of("ProtectSystem").to_owned(),
        writable: writable.collect(),
        made,
    }
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
    fn what_systemd_shows_is_understood() {
        let shown = "User=\nGroup=\nLimitNOFILE=65536\nProtectHome=yes\nProtectSystem=full\n\
                     ReadWritePaths=/etc/rookeeper -/srv/a\nStateDirectory=rookeeper\nCacheDirectory=\nLogsDirectory=rookeeper\n";
        let service = understand("rookeeper.service".into(), &Shown(shown.into()));
        assert_eq!((service.account.unwrap().uid, service.open_files_max), (0, Some(65_536)));
        assert_eq!((service.protect_home.as_str(), service.protect_system.as_str()), ("yes", "full"));
        assert_eq!(service.writable, [Path::new("/etc/rookeeper"), Path::new("/srv/a")]);
        assert_eq!(service.made, [Path::new("/var/lib/rookeeper"), Path::new("/var/log/rookeeper")]);
        let bare = understand("x".into(), &Shown("User=no-such-user\nLimitNOFILE=infinity\n".into()));
        assert!(bare.account.is_none() && bare.open_files_max.is_none() && bare.made.is_empty());
    }
}
