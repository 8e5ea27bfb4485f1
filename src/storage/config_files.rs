//! The configuration files, once members may change at run time: `zoo.cfg.dynamic.VERSION` holds the members in force,
//! `zoo.cfg` points there, `zoo.cfg.dynamic.next` holds members that are only proposed (`QuorumPeerConfig.editStaticConfig`,
//! `writeDynamicConfig`). Read by `config` at start, written by `engine::quorum`; everything is durable when a call
//! returns.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::ensemble::Server;
use crate::config::voters::Configs;
use crate::config::{Members, entries, member_file, point_to};
use crate::ids::ServerId;
use crate::sys::files::{self, Files};

/// A file that could not be written.
#[derive(Debug, Error)]
#[error("{}: {source}{}", path.display(), advised(source))]
pub struct ConfigFileError {
    path: PathBuf,
    source: io::Error,
}

/// What to do, where the disk is the reason.
fn advised(source: &io::Error) -> String {
    source.raw_os_error().map_or_else(String::new, |_| format!("; {}", files::advice(source)))
}

/// The files of one server.
#[derive(Debug)]
pub struct ConfigFiles {
    files: Files,
    zoo_cfg: PathBuf,
    my_id: ServerId,
    /// Where this server is, or was when it was listed last.
    own: Server,
    /// What they say.
    saved: Configs,
}

/// One change of one file. It is done or not, and durable before the next; the server may end between any two.
#[derive(Debug)]
pub enum Step {
    /// The file holds this from now on.
    Replace(PathBuf, Vec<u8>),
    /// There is no such file from now on.
    Remove(PathBuf),
}

impl ConfigFiles {
    /// The files beside this one; `configs` is what was read from them, and `own` where this server is.
    pub fn new(files: &Files, zoo_cfg: &Path, my_id: ServerId, own: Server, configs: Configs) -> ConfigFiles {
        // The server may be started from another folder the next time.
        let zoo_cfg = files.canonicalize(zoo_cfg).unwrap_or_else(|_| zoo_cfg.to_owned());
        ConfigFiles { files: files.clone(), zoo_cfg, my_id, own, saved: configs }
    }

    /// Makes durable what was read from the files: whoever wrote them may have ended before it was. Where this server may not
    /// do so, it did not write them.
    pub fn make_durable(&self) -> Result<(), ConfigFileError> {
        let committed = self.beside(&format!(".dynamic.{:x}", self.saved.committed.version));
        for path in [committed, self.beside(".dynamic.next"), self.zoo_cfg.clone()] {
            match self.files.make_durable(&path) {
                Err(error) if is_not_ours(&error) => {}
                settled => settled.map_err(|source| ConfigFileError { path, source })?,
            }
        }
        Ok(())
    }

    /// Makes the files say this, as far as they do not.
    pub fn save(&mut self, configs: &Configs) -> Result<(), ConfigFileError> {
        let steps = self.steps(configs, || self.files.read(&self.zoo_cfg))?;
        steps.into_iter().try_for_each(|step| step.take(&self.files, &self.zoo_cfg))?;
        self.on_saved(configs);
        Ok(())
    }

    /// They say this from now on.
    pub fn on_saved(&mut self, configs: &Configs) {
        if let Some(own) = configs.committed.servers.get(&self.my_id.0) {
            self.own.clone_from(own);
        }
        self.saved = configs.clone();
    }

    /// What is to be done to have them say this; `zoo_cfg` reads that file. What is in force comes first: if the server ends
    /// before the proposal is replaced, that is not newer, and counts for nothing.
    pub fn steps(
        &self,
        configs: &Configs,
        zoo_cfg: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<Vec<Step>, ConfigFileError> {
        let version = |members: &Option<Members>| members.as_ref().map(|members| members.version);
        let mut steps = Vec::new();
        if configs.committed.version != self.saved.committed.version {
            let text = zoo_cfg().map_err(|source| ConfigFileError { path: self.zoo_cfg.clone(), source })?;
            self.commit(&configs.committed, text, &mut steps)?;
        }
        let next = self.beside(".dynamic.next");
        match &configs.last_seen {
            Some(members) if version(&self.saved.last_seen) != Some(members.version) => {
                steps.push(Step::Replace(next, member_file(members, true, None)));
            }
            Some(_) => {}
            None => steps.push(Step::Remove(next)),
        }
        Ok(steps)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.zoo_cfg.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    fn commit(&self, members: &Members, mut text: Vec<u8>, steps: &mut Vec<Step>) -> Result<(), ConfigFileError> {
        let invalid = |what: String| {
            let source = io::Error::new(io::ErrorKind::InvalidData, what);
            ConfigFileError { path: self.zoo_cfg.clone(), source }
        };
        let keys: Vec<String> = entries(&text).map_err(|e| invalid(e.what))?.into_iter().map(|e| e.key).collect();
        let has = |name: &str| keys.iter().any(|key| key == name);
        let dynamic = self.beside(&format!(".dynamic.{:x}", members.version));
        let listed = members.servers.get(&self.my_id.0);
        let unlisted = if listed.is_none() { Some(&self.own) } else { None };
        steps.push(Step::Replace(dynamic.clone(), member_file(members, false, unlisted)));
        if !has("dynamicConfigFile") {
            steps.push(Step::Replace(self.beside(".bak"), text.clone()));
        }
        let has_client = listed.is_some_and(|server| server.client.is_some());
        if let (false, false, Some(client)) = (has_client || unlisted.is_some(), has("clientPort"), &self.own.client) {
            // Its clients stay where they are, and no other file says so any more.
            text.extend(format!("\nclientPort={}\nclientPortAddress={}\n", client.port, client.host).bytes());
        }
        let pointing = point_to(&text, &dynamic, has_client).map_err(|error| invalid(error.what))?;
        steps.push(Step::Replace(self.zoo_cfg.clone(), pointing));
        Ok(())
    }
}

/// Whether this server may not even read the file, or its file system is read-only.
fn is_not_ours(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

impl Step {
    /// Whoever may read `zoo_cfg` may read a file that is made beside it.
    pub fn take(self, files: &Files, zoo_cfg: &Path) -> Result<(), ConfigFileError> {
        match self {
            Step::Replace(path, bytes) => replace(files, &path, &bytes, zoo_cfg),
            Step::Remove(path) => remove(files, &path),
        }
    }
}

/// Replaces a file, or makes it; who may read it stays, or is as with `like`.
fn replace(files: &Files, path: &Path, bytes: &[u8], like: &Path) -> Result<(), ConfigFileError> {
    let mut tmp: OsString = path.to_owned().into_os_string();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let written = files.write_durably(&tmp, bytes).and_then(|()| {
        match [path, like].into_iter().find(|path| files.exists(path)) {
            Some(old) => files.copy_mode(old, &tmp),
            None => Ok(()),
        }
    });
    let replaced = written.and_then(|()| files.rename_durably(&tmp, path));
    replaced.map_err(|source| ConfigFileError { path: path.to_owned(), source })
}

fn remove(files: &Files, path: &Path) -> Result<(), ConfigFileError> {
    match files.remove_durably(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| ConfigFileError { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, EnsembleConfig, Mode};
    use std::fs;

    fn members(text: &str) -> Members {
        Members::parse_text(text.as_bytes()).unwrap()
    }

    /// A server's folder, with its zoo.cfg and myid.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(zoo_cfg: &str) -> Folder {
            let folder = Folder(tempfile::tempdir().unwrap());
            let data = format!("dataDir={}\n", folder.0.path().display());
            fs::write(folder.zoo_cfg(), format!("{zoo_cfg}{data}reconfigEnabled=true\ninitLimit=5\nsyncLimit=2\n"))
                .unwrap();
            fs::write(folder.0.path().join("myid"), "1").unwrap();
            folder
        }

        fn zoo_cfg(&self) -> PathBuf {
            fs::canonicalize(self.0.path()).unwrap().join("zoo.cfg")
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.0.path().join(name)).ok()
        }

        /// Without the line that says how it ends.
        fn members_in(&self, name: &str) -> Option<String> {
            self.read(name).map(|text| text.split_once('\n').unwrap().1.to_owned())
        }

        /// What a start finds.
        fn start(&self) -> EnsembleConfig {
            match config::read(&self.zoo_cfg(), &[]).0.unwrap().mode {
                Mode::Quorum(ensemble) => *ensemble,
                Mode::Standalone => panic!("it runs alone"),
            }
        }

        fn steps(&self, configs: &Configs) -> Vec<Step> {
            self.files().steps(configs, || fs::read(self.zoo_cfg())).unwrap()
        }

        fn files(&self) -> ConfigFiles {
            let EnsembleConfig { own, members, next, .. } = self.start();
            let last_seen = next.filter(|next| next.version > members.version);
            ConfigFiles::new(
                &Files::host(),
                &self.zoo_cfg(),
                ServerId(1),
                own,
                Configs { committed: members, last_seen, reconfig_enabled: true },
            )
        }
    }

    #[test]
    fn whoever_may_read_the_configuration_may_read_the_files_beside_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::with("server.1=a:1:2\nserver.2=b:1:2\nclientPort=7\n");
        fs::set_permissions(folder.zoo_cfg(), fs::Permissions::from_mode(0o640)).unwrap();
        let mut files = folder.files();
        let mut configs = files.saved.clone();
        configs.see(members("server.2=b:1:2\nserver.1=a:1:2\nversion=100000000"));
        files.save(&configs).unwrap();
        let made = folder.0.path().join("zoo.cfg.dynamic.next");
        assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn the_files_follow_what_is_proposed_and_what_is_in_force() {
        let original =
            "# ours\ntickTime=200\nserver.1=a:1:2\nserver.2=b:1:\\\n  2\npeerType=participant\nclientPort=7\n";
        let folder = Folder::with(original);
        let rest = folder.read("zoo.cfg").unwrap().replace(original, "");
        let at = |hex: &str| format!("{rest}dynamicConfigFile={}.dynamic.{hex}\n", folder.zoo_cfg().display());
        let mark = "#The last line names the file of the members\n";
        let mut saved = folder.files();
        let mut configs = saved.saved.clone();

        configs.see(members("server.2=b:1:2\nserver.1=a:1:2\nversion=100000000"));
        saved.save(&configs).unwrap();
        assert!(folder.read("zoo.cfg.dynamic.next").unwrap().ends_with("\nversion=100000000"));
        assert_eq!(folder.read("zoo.cfg"), Some(format!("{original}{rest}")));

        configs.activate(configs.last_seen.clone().unwrap());
        saved.save(&configs).unwrap();
        let expected = "server.1=a:1:2:participant\nserver.2=b:1:2:participant";
        assert_eq!(folder.members_in("zoo.cfg.dynamic.100000000").as_deref(), Some(expected));
        let zoo_cfg = format!("{mark}# ours\ntickTime=200\nclientPort=7\n{}", at("100000000"));
        assert_eq!(folder.read("zoo.cfg"), Some(zoo_cfg));
        assert_eq!(
            (folder.read("zoo.cfg.bak"), folder.read("zoo.cfg.dynamic.next")),
            (Some(format!("{original}{rest}")), None)
        );

        configs.activate(members("server.1=127.0.0.1:1:2;7\nserver.2=b:1:2\nversion=100000005"));
        saved.save(&configs).unwrap();
        assert_eq!(folder.read("zoo.cfg"), Some(format!("{mark}# ours\ntickTime=200\n{}", at("100000005"))));
        assert_eq!(folder.read("zoo.cfg.bak"), Some(format!("{original}{rest}")));

        // A list that does not say where clients connect leaves them where they are.
        configs.activate(members("server.1=127.0.0.1:1:2\nserver.2=b:1:2\nversion=100000006"));
        saved.save(&configs).unwrap();
        assert_eq!(folder.start().own.client.unwrap().to_string(), "0.0.0.0:7");
    }

    #[test]
    fn a_server_that_is_in_no_list_keeps_its_place() {
        let folder = Folder::with("server.1=127.0.0.1:1:2;7\nserver.2=b:1:2\n");
        let mut saved = folder.files();
        let mut configs = saved.saved.clone();
        let own = configs.committed.servers[&1].clone();
        for version in ["100000000", "100000007"] {
            configs.activate(members(&format!("server.2=b:1:2\nserver.3=c:1:2\nversion={version}")));
            saved.save(&configs).unwrap();
            let found = folder.start();
            assert_eq!((found.members, found.own), (configs.committed.clone(), own.clone()));
        }
        configs.see(members("server.1=d:1:2;8\nserver.2=b:1:2\nserver.3=c:1:2\nversion=100000008"));
        saved.save(&configs).unwrap();
        assert_eq!((folder.start().own, folder.start().next), (own, configs.last_seen));
    }

    /// Wherever a server ends while it writes its files, the next start finds the lists of before or those of after; or what
    /// is in force now beside a proposal that is not newer, which counts for nothing.
    #[test]
    fn a_server_that_ends_at_any_point_of_a_reconfiguration_starts_with_what_was_or_what_is() {
        let two = |ports: &str, version: &str| {
            members(&format!("server.1=127.0.0.1:{ports};7\nserver.2=b:1:2\nserver.3=c:1:2\nversion={version}"))
        };
        let three = |version: &str| members(&format!("server.2=b:1:2\nserver.3=c:1:2:observer\nversion={version}"));
        let base = Configs { committed: two("1:2", "100000000"), last_seen: None, reconfig_enabled: true };
        let proposed = |members: Members| Configs { last_seen: Some(members), ..base.clone() };
        let committed = |members: Members| Configs { committed: members, ..base.clone() };
        let moves = [
            // Proposed, committed, and both at once; given up, and another one proposed.
            (base.clone(), proposed(two("3:4", "100000001"))),
            (proposed(two("3:4", "100000001")), committed(two("3:4", "100000001"))),
            (base.clone(), committed(three("100000001"))),
            (proposed(three("100000001")), committed(three("100000001"))),
            (proposed(two("3:4", "100000001")), base.clone()),
            (proposed(two("3:4", "100000001")), proposed(three("200000001"))),
            (
                proposed(two("3:4", "100000001")),
                Configs { last_seen: Some(three("200000005")), ..committed(two("5:6", "200000001")) },
            ),
            (proposed(two("3:4", "100000001")), committed(two("3:4", "200000000"))),
        ];
        for (before, after) in moves {
            let of = |folder: &Folder| {
                let found = folder.files().saved;
                (found.committed, found.last_seen)
            };
            let count = {
                let folder = Folder::with("clientPort=7\nserver.1=127.0.0.1:9:10\nserver.2=b:1:2\n");
                folder.files().save(&before).unwrap();
                folder.steps(&after).len()
            };
            for done in 0..=count {
                let folder = Folder::with("clientPort=7\nserver.1=127.0.0.1:9:10\nserver.2=b:1:2\n");
                folder.files().save(&before).unwrap();
                let mut steps = folder.steps(&after).into_iter();
                steps.by_ref().take(done).for_each(|step| step.take(&Files::host(), &folder.zoo_cfg()).unwrap());
                if let Some(Step::Replace(path, bytes)) = steps.next() {
                    let tmp = format!("{}.tmp", path.display());
                    fs::write(tmp, &bytes[..bytes.len() / 2]).unwrap();
                }
                let found = of(&folder);
                let possible = [
                    (before.committed.clone(), before.last_seen.clone()),
                    (
                        after.committed.clone(),
                        before.last_seen.clone().filter(|seen| seen.version > after.committed.version),
                    ),
                    (after.committed.clone(), after.last_seen.clone()),
                ];
                assert!(possible.contains(&found), "after {done} of {count} steps to {after:?}: {found:?}");
                assert!(done < count || found == possible[2], "{found:?}");
                // And from there it goes on.
                folder.files().save(&after).unwrap();
                assert_eq!(of(&folder), possible[2]);
            }
        }
    }
}
