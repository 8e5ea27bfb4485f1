//! Tests of `Config::load` as a whole: text in, settings or one line out. Called by nobody; reads no file but the samples.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::ensemble::{PeerRole, QuorumRule};
use super::*;

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
    let loaded = Config::load(Path::new("zoo.cfg"), text, &flags[0], &flags[1], world);
    let (config, warnings) = loaded.map_err(|e| e.to_string())?;
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
    let standalone = include_bytes!("../../conf/zoo.cfg");
    let ensemble = include_bytes!("../../conf/ensemble.cfg");
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
    assert_eq!(
        (c.session_timeout_min_ms, c.session_timeout_max_ms),
        (6000, 60000)
    );
    assert_eq!(c.data_dir, PathBuf::from("/d"));
    assert_eq!(c.data_log_dir, c.data_dir);
    assert_eq!((c.clients.listen, c.clients.secure_listen), (None, None));
    assert_eq!((c.clients.cnxns_per_ip_max, c.clients.cnxns_max), (60, 0));
    assert_eq!(c.clients.listen_backlog, 50);
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
    let listen = Listen {
        ip: None,
        port: 2181,
    };
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

#[test]
fn a_bad_value_is_one_line_with_file_line_key_value_and_what_was_expected() {
    let cases = [
        (
            "tickTime=abc",
            "expected a whole number of milliseconds, at least 1",
        ),
        (
            "tickTime=0",
            "expected a whole number of milliseconds, at least 1",
        ),
        (
            "tickTime=",
            "expected a whole number of milliseconds, at least 1",
        ),
        (
            "tickTime=0x10",
            "expected a whole number of milliseconds, at least 1",
        ),
        (
            "tickTime=3000000000",
            "expected a whole number of milliseconds, at most 2147483647",
        ),
        ("clientPort=65536", "expected a port between 0 and 65535"),
        ("clientPort=-1", "expected a port between 0 and 65535"),
        (
            "maxClientCnxns=many",
            "expected a whole number of connections",
        ),
        ("electionAlg=0", "expected 3, the only election algorithm"),
        ("localSessionsEnabled=yes", "expected true or false"),
        ("syncEnabled=on", "expected true or false"),
        ("peerType=voter", "expected participant or observer"),
        (
            "autopurge.purgeInterval=daily",
            "expected a whole number of hours, or one followed by ms, s, m, h or d",
        ),
        ("snapCount=1e5", "expected a whole number, at least 2"),
        (
            "jute.maxbuffer=1MB",
            "expected a whole number of bytes, at least 1",
        ),
        (
            "jute.maxbuffer=0",
            "expected a whole number of bytes, at least 1",
        ),
        (
            "globalOutstandingLimit=x",
            "expected a whole number of requests, at least 0",
        ),
        (
            "intBufferStartingSizeBytes=16",
            "expected a whole number of bytes, at least 32",
        ),
        (
            "connection_throttle_drop_increase=2",
            "expected a number between 0 and 1",
        ),
        (
            "DigestAuthenticationProvider.digestAlg=MD5",
            "expected SHA1, SHA-224, SHA-256, SHA-384, SHA-512, SHA-512/224 or SHA-512/256",
        ),
        (
            "authProvider.1=com.example.Mine",
            "expected one of org.apache.zookeeper.server.auth.{SASL,X509,Digest,IP,Ensemble}AuthenticationProvider",
        ),
        (
            "serverCnxnFactory=com.example.Mine",
            "expected org.apache.zookeeper.server.NIOServerCnxnFactory or ...NettyServerCnxnFactory",
        ),
        ("ssl.keyStore.type=BCFKS", "expected PEM, PKCS12 or JKS"),
        (
            "ssl.quorum.trustStore.type=BCFKS",
            "expected PEM, PKCS12 or JKS",
        ),
        (
            "metricsProvider.className=com.example.Mine",
            "expected org.apache.zookeeper.metrics.impl.DefaultMetricsProvider, ...impl.NullMetricsProvider or ...prometheus.PrometheusMetricsProvider",
        ),
        (
            "oraclePath=/o",
            "refused: the oracle of a two-server ensemble is not served",
        ),
        (
            "ssl.crl=true",
            "refused: certificate revocation lists are not consulted",
        ),
        (
            "ssl.authProvider=mine",
            "refused: client certificates are checked by x509 only",
        ),
        (
            "ssl.context.supplier.class=a.B",
            "refused: a Java class cannot be loaded",
        ),
        (
            "audit.impl.class=a.B",
            "refused: a Java class cannot be loaded",
        ),
    ];
    for (line, what) in cases {
        let error = load(&format!("# first\n{line}")).unwrap_err();
        assert_eq!(error, format!("zoo.cfg:2: {line}: {what}"));
    }
}

#[test]
fn rules_between_keys_name_the_line_to_look_at() {
    let cases = [
        (
            "clientPortAddress=localhost",
            "zoo.cfg:1: clientPortAddress is set but clientPort is not set",
        ),
        (
            "secureClientPortAddress=localhost",
            "zoo.cfg:1: secureClientPortAddress is set but secureClientPort is not set",
        ),
        (
            "clientPort=1\nclientPortAddress=nowhere",
            "zoo.cfg:2: clientPortAddress=nowhere: expected a host name that resolves, or an address",
        ),
        (
            "minSessionTimeout=9\nmaxSessionTimeout=5",
            "zoo.cfg:2: minSessionTimeout (9) must not be larger than maxSessionTimeout (5)",
        ),
        (
            "minSessionTimeout=90000",
            "zoo.cfg:1: minSessionTimeout (90000) must not be larger than maxSessionTimeout (60000)",
        ),
        (
            "quorum.auth.serverRequireSasl=true",
            "zoo.cfg:1: quorum.auth.enableSasl is disabled, so cannot enable quorum.auth.serverRequireSasl",
        ),
        (
            "quorum.auth.enableSasl=true\nquorum.auth.serverRequireSasl=true",
            "zoo.cfg:2: quorum.auth.learnerRequireSasl is disabled, so cannot enable quorum.auth.serverRequireSasl",
        ),
        (
            "enforce.auth.enabled=true",
            "zoo.cfg:1: enforce.auth.enabled is true, so enforce.auth.schemes must be configured",
        ),
        (
            "enforce.auth.enabled=true\nenforce.auth.schemes=digest, ensemble",
            "zoo.cfg:2: enforce.auth.schemes: Authentication scheme ensemble is not available: it has no authProvider",
        ),
        (
            "enforce.auth.enabled=true\nenforce.auth.schemes=sasl",
            "zoo.cfg:2: enforce.auth.schemes: refused: scheme sasl is not served by this version",
        ),
        (
            "sessionRequireClientSASLAuth=true",
            "zoo.cfg:1: sessionRequireClientSASLAuth: refused: scheme sasl is not served by this version",
        ),
        (
            "standaloneEnabled=false",
            "zoo.cfg: standaloneEnabled = false then number of participants should be >0",
        ),
        (
            "a=\\u12",
            "zoo.cfg:1: Malformed \\uxxxx encoding: not enough digits. (line_number = 1)",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(load(text).unwrap_err(), expected, "for {text}");
    }
    let error = load_in(&Fake::default(), b"tickTime=2000", "", "").unwrap_err();
    assert_eq!(error, "zoo.cfg: dataDir is not set");
}

#[test]
fn what_apache_only_warns_about_is_a_warning_here() {
    let cases = [
        (
            "snapCount=1",
            "snapCount=1: expected a whole number, at least 2, taken as 2",
        ),
        (
            "autopurge.snapRetainCount=1",
            "autopurge.snapRetainCount=1: expected a whole number, at least 3, taken as 3",
        ),
        (
            "commitLogCount=20",
            "commitLogCount=20: expected a whole number, at least 500, taken as 500",
        ),
        (
            "preAllocSize=64M",
            "preAllocSize=64M: expected a whole number of KiB, at least 1, taken as 65536",
        ),
        (
            "snapshotSizeFactor=2",
            "snapshotSizeFactor=2: expected a number of at most 1, taken as 0.33",
        ),
        (
            "maxCnxns=-5",
            "maxCnxns=-5: expected a whole number of connections, at least 0, taken as 0",
        ),
        (
            "snapshot.compression.method=zip",
            "snapshot.compression.method=zip: expected gz, snappy or nothing, taken as the default",
        ),
        (
            "enforceQuota=yes",
            "enforceQuota=yes: expected true or false, taken as false",
        ),
        (
            "digest.enabled=yes",
            "digest.enabled=yes: expected true or false, taken as false",
        ),
        (
            "forceSync=false",
            "forceSync=false: expected yes or no, taken as yes",
        ),
        (
            "skipACL=true",
            "skipACL=true: expected yes or no, taken as no",
        ),
        (
            "globalOutstandingLimit=",
            "globalOutstandingLimit=: expected a whole number of requests, at least 0, taken as 1000",
        ),
        (
            "connection_throttle_local_session_weight=0",
            "connection_throttle_local_session_weight=0: expected a whole number, at least 1, taken as 1",
        ),
        (
            "connection_throttle_renew_session_weight=1\nconnection_throttle_local_session_weight=3",
            "connection_throttle_renew_session_weight: expected at least the weight of a local session, taken as 3",
        ),
        (
            "dataLogDir=log",
            "dataLogDir: log is relative. Prepend ./ to indicate that you're sure!",
        ),
        (
            "nio.numWorkerThreads=4",
            "nio.numWorkerThreads: no effect on this server (threads; here one polls)",
        ),
        (
            "peerType=observer",
            "peerType (Observer) doesn't match the servers list (Participant), which counts",
        ),
        ("tickTime=1\ntickTime=2", "tickTime: overrides line 1"),
    ];
    for (text, expected) in cases {
        let lines = text.lines().count();
        let line = if text.contains("renew") { 1 } else { lines };
        assert_eq!(warnings(text), [format!("zoo.cfg:{line}: {expected}")]);
    }
}

#[test]
fn what_this_version_does_not_serve_is_named_in_one_line() {
    let text = "secureClientPort=2281\nserverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
                ssl.keyStore.location=/k\nssl.quorum.keyStore.location=/q\nsslQuorum=false\nadmin.enableServer=false\n\
                authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n\
                metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider";
    let (c, warnings) = load(text).unwrap();
    assert_eq!(
        warnings,
        [
            "zoo.cfg: not served by this version: secureClientPort, ssl.keyStore.location, \
          ssl.quorum.keyStore.location, metricsProvider.className"
        ]
    );
    let listen = Listen {
        ip: None,
        port: 2281,
    };
    assert_eq!(c.clients.secure_listen, Some(listen));
    assert!(c.access.auth_providers.contains(&AuthProvider::Sasl));
    assert_eq!(c.properties["zookeeper.ssl.quorum.keyStore.location"], "/q");
}

#[test]
fn unknown_keys_become_properties_and_name_their_neighbour() {
    let (c, warnings) = load("maxClientCnxn=5\nfrobnicate=1").unwrap();
    assert_eq!(
        warnings,
        [
            "zoo.cfg:1: maxClientCnxn: unknown key; the nearest known is maxClientCnxns; \
             it becomes property zookeeper.maxClientCnxn",
            "zoo.cfg:2: frobnicate: unknown key; no known one is near it; \
             it becomes property zookeeper.frobnicate",
        ]
    );
    assert_eq!(c.properties["zookeeper.maxClientCnxn"], "5");
    assert_eq!(c.clients.cnxns_per_ip_max, 60);
}

#[test]
fn a_prefix_in_zoo_cfg_is_taken_off_unless_the_right_spelling_is_there_too() {
    let (c, told) = load("zookeeper.snapCount=7").unwrap();
    assert_eq!(c.storage.snap_count, 7);
    assert_eq!(
        told,
        [
            "zoo.cfg:1: zookeeper.snapCount: in zoo.cfg the prefix is left out (Apache ignores \
                  this line); taken as snapCount"
        ]
    );
    let (c, told) = load("zookeeper.snapCount=7\nsnapCount=9").unwrap();
    assert_eq!((c.storage.snap_count, told.len()), (9, 1));
}

#[test]
fn keys_that_apache_documents_but_ignores_in_zoo_cfg_work() {
    let c = quiet(
        "readonlymode.enabled=true\njute.maxbuffer=4000000\nznode.container.checkIntervalMs=5\n\
         connectionMaxTokens=3\nrequestThrottleLimit=4\nthrottledOpWaitTime=6",
    );
    assert!(c.features.read_only_mode_enabled);
    assert!(c.clients.four_letter_words.allows("isro"));
    assert_eq!(c.clients.jute_max_buffer_bytes, 4_000_000);
    assert_eq!(c.clients.jute_extra_bytes, 4_000_000);
    assert_eq!(c.features.container_check_interval_ms, 5);
    assert_eq!(c.throttle.connections.tokens, 3);
    assert_eq!(c.throttle.requests_max, 4);
    assert_eq!(c.throttle.op_wait_ms, Some(6));
    assert_eq!(c.properties["jute.maxbuffer"], "4000000");
    assert_eq!(c.properties["zookeeper.connection_throttle_tokens"], "3");

    let both = "connectionMaxTokens=3\nconnection_throttle_tokens=8";
    let (c, told) = load(both).unwrap();
    assert_eq!(c.throttle.connections.tokens, 8);
    assert_eq!(
        told,
        ["zoo.cfg:1: connectionMaxTokens: ignored, connection_throttle_tokens is given too"]
    );
}

#[test]
fn zoo_cfg_overrides_flags_and_our_flags_override_the_environment() {
    let text = b"dataDir=/d\nsnapCount=10\njute.maxbuffer=100";
    let env = "-Xmx1g -Dzookeeper.snapCount=20 -Dzookeeper.commitLogCount=600 \
               -Dzookeeper.maxCnxns=5 -Djute.maxbuffer=200 -Dcom.example=1";
    let cli = "-Dzookeeper.maxCnxns=6";
    let (c, told) = load_in(&Fake::default(), text, cli, env).unwrap();
    assert_eq!(
        (c.storage.snap_count, c.storage.commit_log_count),
        (10, 600)
    );
    assert_eq!(c.clients.cnxns_max, 6);
    assert_eq!(c.clients.jute_max_buffer_bytes, 200);
    assert_eq!(
        told,
        ["zoo.cfg:3: jute.maxbuffer=100: ignored, -Djute.maxbuffer=200 is given"]
    );
    assert_eq!(c.properties["com.example"], "1");
    assert_eq!(c.properties["zookeeper.snapCount"], "10");
}

#[test]
fn flags_are_checked_like_the_file_and_misspelt_ones_are_told() {
    let with = |cli: &str, env: &str| load_in(&Fake::default(), b"dataDir=/d", cli, env);
    assert_eq!(
        with("-Dzookeeper.snapCount=x", "").unwrap_err(),
        "command line: -Dzookeeper.snapCount=x: expected a whole number, at least 2"
    );
    assert_eq!(
        with("", "-Djute.maxbuffer=x").unwrap_err(),
        "environment: -Djute.maxbuffer=x: expected a whole number of bytes, at least 1"
    );
    let told = with(
        "-Dzookeeper.tickTime=1 -Dzookeeper.skipAcl=yes -Dzookeeper.jute.maxbuffer=5",
        "",
    );
    assert_eq!(
        told.unwrap().1,
        [
            "command line: -Dzookeeper.tickTime: unknown property; tickTime is read from zoo.cfg only",
            "command line: -Dzookeeper.skipAcl: unknown property; the nearest known is skipACL",
            "command line: -Dzookeeper.jute.maxbuffer: unknown property; the property is called jute.maxbuffer",
        ]
    );
    let (c, _) = with(
        "-Dfsync.warningthresholdms=5 -Dzookeeper.fsync.warningthresholdms=7",
        "",
    )
    .unwrap();
    assert_eq!(c.storage.fsync_warning_threshold_ms, 7);
    let (c, _) = with("-Dfsync.warningthresholdms=5", "").unwrap();
    assert_eq!(c.storage.fsync_warning_threshold_ms, 5);
    let (c, _) = with(
        "-Dzookeeper.snapCount=0x10 -Dzookeeper.commitLogCount=01750",
        "",
    )
    .unwrap();
    assert_eq!(
        (c.storage.snap_count, c.storage.commit_log_count),
        (16, 1000)
    );
}

#[test]
fn the_environment_gives_properties_in_the_order_of_apaches_scripts() {
    let found = environment_properties(|name| match name {
        "JVMFLAGS" => Some("-Da=3 -Xmx1g".to_string()),
        "SERVER_JVMFLAGS" => Some("-Da=2".to_string()),
        "JAVA_OPTS" => Some("-Da=1 -Djmx=off".to_string()),
        "ZOO_DATADIR_AUTOCREATE_DISABLE" => Some("1".to_string()),
        _ => None,
    });
    let expected = [
        ("zookeeper.datadir.autocreate", "false"),
        ("a", "1"),
        ("jmx", "off"),
        ("a", "2"),
        ("a", "3"),
    ];
    assert_eq!(found, expected.map(|(k, v)| (k.to_string(), v.to_string())));
}

#[test]
fn typed_settings_arrive_where_they_belong() {
    let c = quiet(
        "clientPort=0\nclientPortAddress=[::1]\n4lw.commands.whitelist= ruok, *\nforceSync=no\nskipACL=yes\n\
         snapshot.compression.method=snappy\nautopurge.purgeInterval=2\nflushDelay=30\nmaxClientCnxns=0\n\
         DigestAuthenticationProvider.digestAlg=sha-256\nenforce.auth.enabled=TRUE\nenforce.auth.schemes=ip, digest\n\
         snapSizeLimitInKb=-1\nleaderServes=no\nextendedTypesEnabled=true",
    );
    let listen = c.clients.listen.unwrap();
    assert_eq!(listen.socket_addr().to_string(), "[::1]:0");
    assert!(c.clients.four_letter_words.allows("wchp"));
    assert!(!c.storage.force_sync && c.access.skip_acl && !c.ensemble.leader_serves);
    assert_eq!(c.storage.snapshot_compression, Compression::Snappy);
    assert_eq!(c.storage.purge_interval_ms, Some(7_200_000));
    assert_eq!(
        (c.storage.flush_delay_ms, c.storage.write_queue_poll_ms),
        (30, 10)
    );
    assert_eq!(c.clients.cnxns_per_ip_max, 0);
    assert_eq!(c.access.digest_alg, DigestAlg::Sha256);
    let schemes = vec!["ip".to_string(), "digest".to_string()];
    assert_eq!(
        c.access.enforce_auth,
        EnforceAuth {
            enabled: true,
            schemes
        }
    );
    assert_eq!(c.storage.snap_size_limit_kb, None);
    assert!(c.features.extended_types_enabled);
    assert_eq!(
        quiet("autopurge.purgeInterval=90s")
            .storage
            .purge_interval_ms,
        Some(90_000)
    );
}

#[test]
fn the_file_is_latin_1_and_its_escapes_are_javas() {
    let (c, _) = load_in(
        &Fake::default(),
        b"dataDir = /d\\u00e9/\xe9\\\n   x\\ y",
        "",
        "",
    )
    .unwrap();
    assert_eq!(c.data_dir, PathBuf::from("/d\u{e9}/\u{e9}x y"));
}

const LIMITS: &str = "dataDir=/d\ninitLimit=5\nsyncLimit=2\n";

fn ensemble(lines: &str) -> Loaded {
    let world = Fake::with("/d/myid", "1\n");
    load_in(&world, format!("{LIMITS}{lines}").as_bytes(), "", "")
}

fn quorum(lines: &str) -> EnsembleConfig {
    let (c, warnings) = ensemble(lines).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    match c.mode {
        Mode::Quorum(ensemble) => *ensemble,
        Mode::Standalone => panic!("standalone"),
    }
}

const THREE: &str =
    "server.1=a:1:2\nserver.2=b:1:2;2181\nserver.3=[::1]:1:2:Observer;[::2]:5\nserver.4=d:1:2\n";

#[test]
fn members_are_read_and_written_in_apaches_form() {
    let e = quorum(&format!("clientPort=2181\n{THREE}"));
    assert_eq!((e.my_id, e.members.servers.len()), (1, 4));
    assert_eq!(e.members.rule, QuorumRule::Majority);
    assert_eq!(e.members.participants().count(), 3);
    assert_eq!(e.members.servers[&3].role, PeerRole::Observer);
    assert_eq!(
        e.members.to_string(),
        "server.1=a:1:2:participant\nserver.2=b:1:2:participant;0.0.0.0:2181\n\
         server.3=[::1]:1:2:observer;[::2]:5\nserver.4=d:1:2:participant\nversion=0"
    );
    let own = e.members.servers[&1].client.as_ref().unwrap();
    assert_eq!(own.to_string(), "0.0.0.0:2181");
}

#[test]
fn a_bad_server_line_says_what_its_form_is() {
    let form = "expected host:quorumPort:electionPort[:participant|:observer][;[host:]clientPort]";
    let cases = [
        ("server.1=a:1", form),
        ("server.1=a:1:2:observer:x", form),
        ("server.1=a:1:2;3;4", form),
        ("server.x=a:1:2", "expected a number after the dot"),
        (
            "server.1=a:1:2 ",
            "Address unresolved: a:2 ; expected a port between 0 and 65535 without blanks",
        ),
        (
            "server.1=a:1:2;2181 ",
            "Address unresolved: 0.0.0.0:2181 ; expected a port between 0 and 65535 without blanks",
        ),
        (
            "server.1=a:x:2",
            "Address unresolved: a:x; expected a port between 0 and 65535",
        ),
        (
            "server.1=a:2:2",
            "expected two different ports, for quorum and election",
        ),
        (
            "server.1=a:1:2:voter",
            "Unrecognised peertype: voter; expected participant or observer",
        ),
        (
            "server.1=[::1:1:2",
            "[::1:1:2 starts with '[' but has no matching ']:'",
        ),
        ("server.1=[::1]:", "[::1]: doesn't have a port after colon"),
        (
            "server.1=a:1:2|b:1:2",
            "expected one address, since multiAddress.enabled is not true",
        ),
        ("group.1=1:x", "expected server numbers separated by colons"),
        ("weight.1=heavy", "expected the weight as a whole number"),
    ];
    for (line, what) in cases {
        let error = ensemble(line).unwrap_err();
        assert_eq!(error, format!("zoo.cfg:4: {line}: {what}"));
    }
    let multi =
        quorum("multiAddress.enabled=true\nserver.1=b:1:2|a:3:4\nserver.2=c:1:2\nserver.3=d:1:2");
    assert!(
        multi
            .members
            .to_string()
            .starts_with("server.1=a:3:4|b:1:2:participant\n")
    );
}

#[test]
fn the_members_decide_the_mode() {
    let standalone = |lines: &str| ensemble(lines).map(|(c, w)| (c.mode == Mode::Standalone, w));
    let no_failure = "zoo.cfg: No server failure will be tolerated. You need at least 3 servers.";
    let cases = [
        (
            "server.1=a:1:2",
            Ok((
                true,
                "zoo.cfg: only one server specified: running standalone",
            )),
        ),
        (
            "server.1=a:1:2\nstandaloneEnabled=false",
            Ok((false, no_failure)),
        ),
        ("server.1=a:1:2\nserver.2=b:1:2", Ok((false, no_failure))),
        (
            "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2",
            Ok((
                false,
                "zoo.cfg: Non-optimal configuration, consider an odd number of servers.",
            )),
        ),
        (
            "server.1=a:1:2\nserver.2=b:1:2:observer",
            Err("zoo.cfg: Observers w/o quorum is an invalid configuration"),
        ),
        (
            "server.1=a:1:2:observer",
            Err("zoo.cfg: Observers w/o participants is an invalid configuration"),
        ),
        (
            "server.2=a:1:2\nserver.3=b:1:2\nserver.4=c:1:2",
            Err("zoo.cfg: My id 1 not in the peer list"),
        ),
        (
            "initLimit=0\nserver.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2",
            Err("zoo.cfg: initLimit is not set"),
        ),
    ];
    for (lines, expected) in cases {
        let expected =
            expected.map(|(alone, warning): (bool, &str)| (alone, vec![warning.to_string()]));
        let mut found = standalone(lines);
        if let Ok((_, warnings)) = &mut found {
            warnings.retain(|w| !w.contains("overrides"));
        }
        assert_eq!(found, expected.map_err(str::to_string), "for {lines}");
    }
    let text = format!("{LIMITS}{THREE}");
    let error = load_in(&Fake::default(), text.as_bytes(), "", "").unwrap_err();
    assert_eq!(error, "/d/myid: myid file is missing");
}

#[test]
fn groups_make_the_quorum_hierarchical_and_must_hold_everyone_once() {
    let servers = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2\n";
    let e = quorum(&format!("{servers}group.1=1:2\ngroup.2=3:4\nweight.4=0"));
    let text = e.members.to_string();
    let expected =
        "group.1=1:2\ngroup.2=3:4\nweight.1=1\nweight.2=1\nweight.3=1\nweight.4=0\nversion=0";
    assert!(text.ends_with(expected), "{text}");
    assert_eq!(
        ensemble(&format!("{servers}group.1=1:2:3")).unwrap_err(),
        "zoo.cfg: Server 4 is not in a group"
    );
    assert_eq!(
        ensemble(&format!("{servers}group.1=1:2:3:4\ngroup.2=1")).unwrap_err(),
        "zoo.cfg:9: group.2=1: Server 1 is in multiple groups"
    );
}

#[test]
fn a_lone_servers_own_line_may_carry_the_client_port() {
    let (c, _) = ensemble("server.1=localhost:2888:3888;2181").unwrap();
    let listen = c.clients.listen.unwrap();
    assert!(listen.is_wildcard() && listen.port == 2181);
    let error =
        ensemble("clientPort=2182\nserver.1=localhost:2888:3888;localhost:2181").unwrap_err();
    assert_eq!(
        error,
        "zoo.cfg:4: client address for this server (id = 1) is [::]:2182 by clientPort \
         but localhost:2181 by its server line"
    );
}

#[test]
fn a_dynamic_file_holds_the_members_and_nothing_else() {
    let text = format!("{LIMITS}dynamicConfigFile=/c/zoo.cfg.dynamic.10000000a");
    let load = |dynamic: &str, next: &str| {
        let mut world = Fake::with("/d/myid", "1").and("/c/zoo.cfg.dynamic.10000000a", dynamic);
        if !next.is_empty() {
            world = world.and("zoo.cfg.dynamic.next", next);
        }
        load_in(&world, text.as_bytes(), "", "")
    };
    let Mode::Quorum(e) = load(THREE, "").unwrap().0.mode else {
        panic!("standalone");
    };
    assert_eq!((e.members.version, e.next), (0x1_0000_000a, None));
    let Mode::Quorum(e) = load(THREE, &format!("{THREE}version=10000000b"))
        .unwrap()
        .0
        .mode
    else {
        panic!("standalone");
    };
    assert_eq!(e.next.unwrap().version, 0x1_0000_000b);
    let file = "/c/zoo.cfg.dynamic.10000000a";
    assert_eq!(
        load("version=1", "").unwrap_err(),
        format!("{file}:1: dynamic file shouldn't have version inside")
    );
    assert_eq!(
        load("\ntickTime=1", "").unwrap_err(),
        format!("{file}:2: Unrecognised parameter: tickTime")
    );
    assert_eq!(
        ensemble("server.1=a:1:2\ndynamicConfigFile=/c/x").unwrap_err(),
        "zoo.cfg:4: parameter: server.1 must be in a separate dynamic config file"
    );
    assert_eq!(
        ensemble("dynamicConfigFile=/c/x").unwrap_err(),
        "/c/x: cannot be read: file is missing"
    );
}

#[test]
fn myid_is_a_bare_number() {
    let with = |id: &str| load_in(&Fake::with("/d/myid", id), b"dataDir=/d", "", "");
    for (text, id) in [("7", 7), ("7\n", 7), ("7\r\nx", 7), ("-3", -3)] {
        assert_eq!(with(text).unwrap().0.server_id, id);
    }
    for text in ["", " 7", "7 ", "x", "\n7"] {
        let error = with(text).unwrap_err();
        assert!(error.starts_with("/d/myid: serverid "), "{error}");
    }
}
