//! The configuration files, once members may change at run time: `zoo.cfg.dynamic.VERSION` holds the members in force,
//! `zoo.cfg` points there, `zoo.cfg.dynamic.next` holds members that are only proposed (`QuorumPeerConfig.editStaticConfig`,
//! `writeDynamicConfig`). Read by `config` at start, written by `threads::quorum`; everything is durable when a call
//! returns.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::{Members, without};
use crate::ids::ServerId;
use crate::quorum::voters::Configs;
use crate::sys::files;

/// A file that could not be written.
#[derive(Debug, Error)]
#[error("{}: {source}", path.display())]
pub struct ConfigFileError {
    path: PathBuf,
    source: io::Error,
}

/// The files of one server.
#[derive(Debug)]
pub struct ConfigFiles {
    zoo_cfg: PathBuf,
    my_id: ServerId,
    /// What they say.
    saved: Configs,
}

impl ConfigFiles {
    /// The files beside this one; `configs` is what was read from them.
    pub fn new(zoo_cfg: &Path, my_id: ServerId, configs: Configs) -> ConfigFiles {
        // The server may be started from another folder the next time.
        let zoo_cfg = fs::canonicalize(zoo_cfg).unwrap_or_else(|_| zoo_cfg.to_owned());
        ConfigFiles { zoo_cfg, my_id, saved: configs }
    }

    /// Makes the files say this, as far as they do not.
    pub fn save(&mut self, configs: &Configs) -> Result<(), ConfigFileError> {
        let version = |members: &Option<Members>| members.as_ref().map(|members| members.version);
        if configs.committed.version != self.saved.committed.version {
            self.save_committed(&configs.committed)?;
        }
        match &configs.last_seen {
            Some(members) if version(&self.saved.last_seen) != Some(members.version) => {
                replace(&self.beside(".dynamic.next"), members.to_string().as_bytes())?;
            }
            Some(_) => {}
            None => remove(&self.beside(".dynamic.next"))?,
        }
        self.saved = configs.clone();
        Ok(())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.zoo_cfg.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    fn save_committed(&self, members: &Members) -> Result<(), ConfigFileError> {
        let dynamic = self.beside(&format!(".dynamic.{:x}", members.version));
        let text = members.to_string();
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("version=")).collect();
        lines.sort_unstable();
        replace(&dynamic, lines.join("\n").as_bytes())?;
        self.point_to(&dynamic, members)
    }

    /// Everything in zoo.cfg stays as it is but what the other file says now.
    fn point_to(&self, dynamic: &Path, members: &Members) -> Result<(), ConfigFileError> {
        let failed = |source: io::Error| ConfigFileError { path: self.zoo_cfg.clone(), source };
        let text = fs::read(&self.zoo_cfg).map_err(failed)?;
        let client_is_there = members.servers.get(&self.my_id.0).is_some_and(|server| server.client.is_some());
        let mut had_pointer = false;
        let moved = |key: &str| {
            had_pointer |= key == "dynamicConfigFile";
            ["server.", "group", "weight", "dynamicConfigFile", "peerType"].iter().any(|k| key.starts_with(k))
                || (client_is_there && key.starts_with("clientPort"))
        };
        let invalid = |what: String| failed(io::Error::new(io::ErrorKind::InvalidData, what));
        let mut rest = without(&text, moved).map_err(|error| invalid(error.what))?;
        if !had_pointer {
            replace(&self.beside(".bak"), &text)?;
        }
        let path = dynamic.to_string_lossy().replace('\\', "\\\\");
        rest.extend(format!("dynamicConfigFile={path}\n").bytes());
        replace(&self.zoo_cfg, &rest)
    }
}

/// Replaces a file, or makes it; who may read it stays.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), ConfigFileError> {
    let mut tmp: OsString = path.to_owned().into_os_string();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let written = files::write_durably(&tmp, bytes).and_then(|()| match fs::metadata(path) {
        Ok(old) => fs::set_permissions(&tmp, old.permissions()),
        Err(_) => Ok(()),
    });
    let replaced = written.and_then(|()| files::rename_durably(&tmp, path));
    replaced.map_err(|source| ConfigFileError { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), ConfigFileError> {
    match files::remove_durably(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| ConfigFileError { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Members {
        Members::parse_text(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_files_follow_what_is_proposed_and_what_is_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let zoo_cfg = dir.path().join("zoo.cfg");
        let original =
            "# ours\ntickTime=200\nserver.1=a:1:2\nserver.2=b:1:\\\n  2\npeerType=participant\nclientPort=7\n";
        fs::write(&zoo_cfg, original).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        let at =
            |hex: &str| format!("dynamicConfigFile={}.dynamic.{hex}\n", fs::canonicalize(&zoo_cfg).unwrap().display());
        let first = members("server.1=a:1:2\nserver.2=b:1:2");
        let mut configs = Configs { committed: first, last_seen: None, reconfig_enabled: true };
        let mut saved = ConfigFiles::new(&zoo_cfg, ServerId(1), configs.clone());

        configs.see(members("server.2=b:1:2\nserver.1=a:1:2\nversion=100000000"));
        saved.save(&configs).unwrap();
        assert!(read("zoo.cfg.dynamic.next").unwrap().ends_with("\nversion=100000000"));
        assert_eq!(read("zoo.cfg").as_deref(), Some(original));

        configs.activate(configs.last_seen.clone().unwrap());
        saved.save(&configs).unwrap();
        let expected = "server.1=a:1:2:participant\nserver.2=b:1:2:participant";
        assert_eq!(read("zoo.cfg.dynamic.100000000").as_deref(), Some(expected));
        assert_eq!(read("zoo.cfg"), Some(format!("# ours\ntickTime=200\nclientPort=7\n{}", at("100000000"))));
        assert_eq!((read("zoo.cfg.bak").as_deref(), read("zoo.cfg.dynamic.next")), (Some(original), None));

        configs.activate(members("server.1=a:1:2;7\nversion=100000005"));
        saved.save(&configs).unwrap();
        assert_eq!(read("zoo.cfg"), Some(format!("# ours\ntickTime=200\n{}", at("100000005"))));
        assert_eq!(read("zoo.cfg.bak").as_deref(), Some(original));
    }
}
