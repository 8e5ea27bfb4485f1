//! Tests of `Config::load` as a whole: text in, settings or one line out. Here the table, the samples and what the others
//! share. Called by nobody; reads no file but the samples.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::*;

mod documented;
mod given;
mod members;
mod origins;
mod values;

/// Files by path, and the one host name that resolves.
#[derive(Default)]
struct Fake(BTreeMap<PathBuf, Vec<u8>>);

impl Fake {
    fn with(path: &str, text: &str) -> Fake {
        Fake::default().and(path, text)
    }

    fn and(mut self, path: &str, text: &str) -> Fake {
        self.0.insert(PathBuf::from(path), text.into());
        self
    }
}

impl World for Fake {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(path).cloned())
    }

    fn resolve(&self, host: &str) -> Option<IpAddr> {
        (host == "localhost").then_some(IpAddr::from([127, 0, 0, 1]))
    }
}

type Loaded = Result<(Config, Vec<String>), String>;

fn load_in(world: &Fake, text: &[u8], command_line: &str, environment: &str) -> Loaded {
    let flags = [command_line, environment].map(properties_from_flags);
    let (loaded, warnings) = Config::load(Path::new("zoo.cfg"), text, &flags[0], &flags[1], world);
    let config = loaded.map_err(|e| e.to_string())?;
    Ok((config, warnings.iter().map(Warning::to_string).collect()))
}

fn load(text: &str) -> Loaded {
    let text = format!("{text}\ndataDir=/d");
    load_in(&Fake::default(), text.as_bytes(), "", "")
}

/// For text that must pass without a word.
fn quiet(text: &str) -> Config {
    let (config, warnings) = load(text).unwrap();
    assert_eq!(warnings, Vec::<String>::new(), "for {text}");
    config
}

fn warnings(text: &str) -> Vec<String> {
    load(text).unwrap().1
}

#[test]
fn the_table_has_no_name_twice_and_every_default_is_good() {
    let mut names: Vec<&str> = keys::TABLE.iter().map(|row| row.name).collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|w| w[0] == w[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
    for row in keys::TABLE {
        row.apply_default(&mut Config::default());
        assert!(!row.doc.is_empty(), "{}", row.name);
        if let Home::Means(other) = row.home {
            assert!(keys::find(other).is_some_and(|r| r.name == other));
        }
        for property in row.properties() {
            let found = keys::find_property(&property).map(|r| r.name);
            assert_eq!(found, Some(row.name), "for {property}");
        }
    }
}

#[test]
fn every_key_of_the_samples_is_known_and_needs_no_warning() {
    let standalone = include_bytes!("../../../conf/zoo.cfg");
    let ensemble = include_bytes!("../../../conf/host.cfg");
    for text in [&standalone[..], ensemble] {
        // `#key=value` is an example to switch on, `# words` are words.
        let lines = String::from_utf8_lossy(text);
        let prose = |line: &&str| line.starts_with("# ");
        let keys: Vec<&str> = lines.lines().filter(|l| !prose(l)).collect();
        let switched_on = keys.join("\n").replace('#', "");
        for entry in syntax::entries(switched_on.as_bytes()).unwrap() {
            assert!(keys::find(&entry.key).is_some(), "{}", entry.key);
        }
        let world = Fake::with("/var/lib/zookeeper/myid", "2\n");
        let (_, warnings) = load_in(&world, text, "", "").unwrap();
        assert_eq!(warnings, Vec::<String>::new());
    }
}

#[test]
fn a_file_with_a_data_directory_alone_gets_apaches_defaults() {
    let c = quiet("");
    assert_eq!(c.mode, Mode::Standalone);
    assert_eq!((c.tick_ms, c.server_id), (3000, 0));
    assert_eq!((c.session_timeout_min_ms, c.session_timeout_max_ms), (6000, 60000));
    assert_eq!(c.data_dir, PathBuf::from("/d"));
    assert_eq!(c.data_log_dir, c.data_dir);
    assert_eq!(c.clients.listen, None);
    assert_eq!((c.clients.cnxns_per_ip_max, c.clients.cnxns_max), (60, 0));
    assert_eq!(c.clients.listen_backlog, None);
    assert_eq!(c.clients.jute_max_buffer_bytes, 0xfffff);
    assert_eq!(c.clients.jute_extra_bytes, 0xfffff);
    assert_eq!(c.throttle.outstanding_requests_max, 1000);
    assert_eq!(c.throttle.large_request_threshold_bytes, None);
    assert_eq!(c.storage.snap_size_limit_kb, Some(4194304));
    assert_eq!(c.storage.txn_log_size_limit_kb, None);
    assert_eq!(c.storage.purge_interval_ms, None);
    assert_eq!(c.storage.snapshot_size_factor, Some(0.33));
    assert!(c.storage.force_sync && c.storage.digest_enabled && c.storage.datadir_autocreate);
    assert!(c.ensemble.leader_serves && c.ensemble.standalone_enabled);
    assert!(!c.access.skip_acl && c.access.digest_provider_enabled);
    assert!(c.clients.four_letter_words.allows("srvr"));
    assert!(!c.clients.four_letter_words.allows("ruok"));
    assert!(c.properties.is_empty());
}

#[test]
fn debians_file_starts_as_it_is() {
    let text = "# ticks\ntickTime=2000\n# first sync \ninitLimit=10\nsyncLimit=5\n\
                dataDir=/tmp/zookeeper\nclientPort=2181\n#maxClientCnxns=60\n\n## Metrics\n#\n\
                #metricsProvider.httpPort=7000\n";
    let (c, warnings) = load_in(&Fake::default(), text.as_bytes(), "", "").unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(c.data_dir, PathBuf::from("/tmp/zookeeper"));
    let listen = Listen { ip: None, port: 2181 };
    assert_eq!(c.clients.listen, Some(listen));
    assert!(listen.is_wildcard());
    assert_eq!(c.ensemble.init_limit_ticks, 10);

    let world = Fake::with("/tmp/zookeeper/myid", "replace this with your id\n");
    let error = load_in(&world, text.as_bytes(), "", "").unwrap_err();
    assert_eq!(
        error,
        "/tmp/zookeeper/myid: serverid \"replace this with your id\" is not a number; \
         expected only a number on the first line"
    );
}
