//! Tests of where values come from: zoo.cfg under any spelling, flags, the environment; and where they go.

use super::*;

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
fn a_key_with_the_prefix_of_properties_does_nothing_in_zoo_cfg_and_is_told() {
    let (c, told) = load("zookeeper.skipACL=yes\nzookeeper.forceSync=no").unwrap();
    assert!(!c.access.skip_acl);
    assert!(c.properties.keys().all(|name| !name.contains("skipACL") && !name.contains("forceSync")));
    assert_eq!(
        told,
        [
            "zoo.cfg:1: zookeeper.skipACL: ignored, as by Apache; to set it, write skipACL, without the prefix",
            "zoo.cfg:2: zookeeper.forceSync: ignored, as by Apache; to set it, write forceSync, without the prefix",
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
    assert_eq!(told, ["zoo.cfg:1: connectionMaxTokens: ignored, connection_throttle_tokens is given too"]);
}

#[test]
fn zoo_cfg_overrides_flags_and_our_flags_override_the_environment() {
    let text = b"dataDir=/d\nsnapCount=10\njute.maxbuffer=100";
    let env = "-Xmx1g -Dzookeeper.snapCount=20 -Dzookeeper.commitLogCount=600 \
               -Dzookeeper.maxCnxns=5 -Djute.maxbuffer=200 -Dcom.example=1";
    let cli = "-Dzookeeper.maxCnxns=6";
    let (c, told) = load_in(&Fake::default(), text, cli, env).unwrap();
    assert_eq!((c.storage.snap_count, c.storage.commit_log_count), (10, 600));
    assert_eq!(c.clients.cnxns_max, 6);
    assert_eq!(c.clients.jute_max_buffer_bytes, 200);
    assert_eq!(told, ["zoo.cfg:3: jute.maxbuffer=100: ignored, -Djute.maxbuffer=200 is given"]);
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
    let told = with("-Dzookeeper.tickTime=1 -Dzookeeper.skipAcl=yes -Dzookeeper.jute.maxbuffer=5", "");
    assert_eq!(
        told.unwrap().1,
        [
            "command line: -Dzookeeper.tickTime: unknown property; tickTime is read from zoo.cfg only",
            "command line: -Dzookeeper.skipAcl: unknown property; the nearest known is skipACL",
            "command line: -Dzookeeper.jute.maxbuffer: unknown property; the property is called jute.maxbuffer",
        ]
    );
    let told = with("", "-Dcom.sun.management.jmxremote.port=9010 -Dcom.sun.management.jmxremote").unwrap().1;
    let jmx = "no effect on this server (JMX; metrics are had from the admin server, mntr and metricsProvider)";
    assert_eq!(told, [format!("environment: -Dcom.sun.management.jmxremote.port: {jmx}")]);
    let (c, _) = with("-Dfsync.warningthresholdms=5 -Dzookeeper.fsync.warningthresholdms=7", "").unwrap();
    assert_eq!(c.storage.fsync_warning_threshold_ms, 7);
    let (c, _) = with("-Dfsync.warningthresholdms=5", "").unwrap();
    assert_eq!(c.storage.fsync_warning_threshold_ms, 5);
    let (c, _) = with("-Dzookeeper.snapCount=0x10 -Dzookeeper.commitLogCount=01750", "").unwrap();
    assert_eq!((c.storage.snap_count, c.storage.commit_log_count), (16, 1000));
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
    let expected = [("zookeeper.datadir.autocreate", "false"), ("a", "1"), ("jmx", "off"), ("a", "2"), ("a", "3")];
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
    assert_eq!((c.storage.flush_delay_ms, c.storage.write_queue_poll_ms), (30, 10));
    assert_eq!(c.clients.cnxns_per_ip_max, 0);
    assert_eq!(c.access.digest_alg, DigestAlg::Sha256);
    let schemes = vec!["ip".to_string(), "digest".to_string()];
    assert_eq!(c.access.enforce_auth, EnforceAuth { enabled: true, schemes });
    assert_eq!(c.storage.snap_size_limit_kb, None);
    assert!(c.features.extended_types_enabled);
    assert_eq!(quiet("autopurge.purgeInterval=90s").storage.purge_interval_ms, Some(90_000));
}

#[test]
fn the_file_is_latin_1_and_its_escapes_are_javas() {
    let (c, _) = load_in(&Fake::default(), b"dataDir = /d\\u00e9/\xe9\\\n   x\\ y", "", "").unwrap();
    assert_eq!(c.data_dir, PathBuf::from("/d\u{e9}/\u{e9}x y"));
}
