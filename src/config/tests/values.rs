//! Tests of single values and rules between keys: what is refused, what is grumbled at, what is not served.

use super::*;

#[test]
fn a_bad_value_is_one_line_with_file_line_key_value_and_what_was_expected() {
    let cases = [
        ("tickTime=abc", "expected a whole number of milliseconds, at least 1"),
        ("tickTime=0", "expected a whole number of milliseconds, at least 1"),
        ("tickTime=", "expected a whole number of milliseconds, at least 1"),
        ("tickTime=0x10", "expected a whole number of milliseconds, at least 1"),
        ("tickTime=3000000000", "expected a whole number of milliseconds, at most 2147483647"),
        ("clientPort=65536", "expected a port between 0 and 65535"),
        ("clientPort=-1", "expected a port between 0 and 65535"),
        ("maxClientCnxns=many", "expected a whole number of connections"),
        ("electionAlg=0", "expected 3, the only election algorithm"),
        ("localSessionsEnabled=yes", "expected true or false"),
        ("syncEnabled=on", "expected true or false"),
        ("peerType=voter", "expected participant or observer"),
        ("autopurge.purgeInterval=daily", "expected a whole number of hours, or one followed by ms, s, m, h or d"),
        ("snapCount=1e5", "expected a whole number, at least 2"),
        ("jute.maxbuffer=1MB", "expected a whole number of bytes, at least 1"),
        ("jute.maxbuffer=0", "expected a whole number of bytes, at least 1"),
        ("globalOutstandingLimit=x", "expected a whole number of requests, at least 0"),
        ("intBufferStartingSizeBytes=16", "expected a whole number of bytes, at least 32"),
        ("connection_throttle_drop_increase=2", "expected a number between 0 and 1"),
        (
            "DigestAuthenticationProvider.digestAlg=ROT13",
            "expected an algorithm that Java has: SHA1, SHA-224, SHA-256, SHA-384, SHA-512, SHA-512/224, SHA-512/256, \
             SHA3-224, SHA3-256, SHA3-384, SHA3-512, MD5 or MD2",
        ),
        (
            "authProvider.1=org.apache.zookeeper.server.auth.znode.groupacl.X509ZNodeGroupAclProvider",
            "refused: this version has no such provider, which gives each new node the access list of its creator: nodes \
             would be open to everybody",
        ),
        (
            "serverCnxnFactory=com.example.Mine",
            "expected org.apache.zookeeper.server.NIOServerCnxnFactory or ...NettyServerCnxnFactory",
        ),
        ("ssl.keyStore.type=BCFKS", "expected PEM, PKCS12 or JKS"),
        ("ssl.quorum.trustStore.type=BCFKS", "expected PEM, PKCS12 or JKS"),
        (
            "metricsProvider.className=com.example.Mine",
            "expected org.apache.zookeeper.metrics.impl.DefaultMetricsProvider, ...impl.NullMetricsProvider or ...prometheus.PrometheusMetricsProvider",
        ),
        ("oraclePath=/o", "refused: the oracle of a two-server ensemble is not served"),
        ("ssl.crl=true", "refused: certificate revocation lists are not consulted"),
        ("ssl.authProvider=mine", "refused: client certificates are checked by x509 only"),
        ("ssl.context.supplier.class=a.B", "refused: a Java class cannot be loaded"),
        ("audit.impl.class=a.B", "refused: a Java class cannot be loaded"),
    ];
    for (line, what) in cases {
        let error = load(&format!("# first\n{line}")).unwrap_err();
        assert_eq!(error, format!("zoo.cfg:2: {line}: {what}"));
    }
}

#[test]
fn rules_between_keys_name_the_line_to_look_at() {
    let cases = [
        ("clientPortAddress=localhost", "zoo.cfg:1: clientPortAddress is set but clientPort is not set"),
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
        ("standaloneEnabled=false", "zoo.cfg: standaloneEnabled = false then number of participants should be >0"),
        ("a=\\u12", "zoo.cfg:1: Malformed \\uxxxx encoding: not enough digits. (line_number = 1)"),
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
        ("snapCount=1", "snapCount=1: expected a whole number, at least 2, taken as 2"),
        ("autopurge.snapRetainCount=1", "autopurge.snapRetainCount=1: expected a whole number, at least 3, taken as 3"),
        ("commitLogCount=20", "commitLogCount=20: expected a whole number, at least 500, taken as 500"),
        ("preAllocSize=64M", "preAllocSize=64M: expected a whole number of KiB, at least 1, taken as 65536"),
        ("snapshotSizeFactor=2", "snapshotSizeFactor=2: expected a number of at most 1, taken as 0.33"),
        ("maxCnxns=-5", "maxCnxns=-5: expected a whole number of connections, at least 0, taken as 0"),
        (
            "snapshot.compression.method=zip",
            "snapshot.compression.method=zip: expected gz, snappy or nothing, taken as the default",
        ),
        ("enforceQuota=yes", "enforceQuota=yes: expected true or false, taken as false"),
        ("digest.enabled=yes", "digest.enabled=yes: expected true or false, taken as false"),
        ("forceSync=false", "forceSync=false: expected yes or no, taken as yes"),
        ("skipACL=true", "skipACL=true: expected yes or no, taken as no"),
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
        ("dataLogDir=log", "dataLogDir: log is relative. Prepend ./ to indicate that you're sure!"),
        ("nio.numWorkerThreads=4", "nio.numWorkerThreads: no effect on this server (threads; here one polls)"),
        ("peerType=observer", "peerType (Observer) doesn't match the servers list (Participant), which counts"),
        (
            "dataLogDir=/x # fast",
            "dataLogDir: what follows the # is a part of the value; a comment needs a line of its own",
        ),
        (
            "authProvider.1=org.apache.zookeeper.server.auth.KeyAuthenticationProvider",
            "authProvider.1=org.apache.zookeeper.server.auth.KeyAuthenticationProvider: expected one of \
             org.apache.zookeeper.server.auth.{SASL,X509,Digest,IP,Ensemble}AuthenticationProvider, passed over",
        ),
        ("=5", "a line without a key, ignored"),
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
    let text = "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
                ssl.keyStore.location=/k\nssl.quorum.keyStore.location=/q\nsslQuorum=false\nadmin.enableServer=false\n\
                authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n\
                metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider";
    let (c, warnings) = load(text).unwrap();
    assert_eq!(
        warnings,
        ["zoo.cfg: not served by this version: ssl.keyStore.location, ssl.quorum.keyStore.location, authProvider.1"]
    );
    assert!(c.access.auth_providers.contains(&AuthProvider::Sasl));
    assert_eq!(c.properties["zookeeper.ssl.quorum.keyStore.location"], "/q");
}

#[test]
fn protection_that_this_version_does_not_serve_ends_the_start() {
    let sasl = "SASL between servers is not served by this version: anybody could join them";
    let tls = "TLS for clients is not served by this version";
    let cases = [
        (
            "sslQuorum=true",
            "TLS between servers is not served by this version: all of it would go in the clear, and to anybody",
        ),
        ("portUnification=TRUE", "TLS between servers is not served by this version"),
        ("quorum.auth.enableSasl=true", sasl),
        ("quorum.auth.learnerRequireSasl=true", sasl),
        ("quorum.auth.serverRequireSasl=true", sasl),
        ("secureClientPort=2281", tls),
        ("secureClientPortAddress=localhost", tls),
        ("client.portUnification=true", tls),
        (
            "metricsProvider.httpsPort=7443",
            "metrics over HTTPS are not served by this version: they would go in the clear",
        ),
        (
            "IPAuthenticationProvider.usexforwardedfor=true",
            "the address behind a proxy is not looked at: everybody behind it would have the proxy's rights",
        ),
    ];
    for (line, why) in cases {
        assert_eq!(load(&format!("# first\n{line}")).unwrap_err(), format!("zoo.cfg:2: {line}: refused: {why}"));
    }
    // Switched off they say nothing; what is neither is an error.
    quiet(
        "sslQuorum=false\nportUnification=false\nquorum.auth.enableSasl=false\nquorum.auth.learnerRequireSasl=false\n\
         quorum.auth.serverRequireSasl=False\nclient.portUnification=false",
    );
    assert!(load("sslQuorum=maybe").unwrap_err().ends_with("expected true or false"));
}

#[test]
fn no_line_shows_the_value_of_a_secret_key() {
    let text = "ssl.keyStore.password=one\nssl.keyStore.password=two\nDigestAuthenticationProvider.superDigest=three\n\
                my.passwd=four\nzookeeper.ssl.trustStore.password=five\nSASLAuthenticationProvider.superPassword=six";
    let (_, told) =
        load_in(&Fake::default(), format!("{text}\ndataDir=/d").as_bytes(), "-Da.secret=seven", "").unwrap();
    assert!(told.len() >= 4, "{told:?}");
    for value in ["one", "two", "three", "four", "five", "six", "seven"] {
        assert!(told.iter().all(|line| !line.contains(&format!("={value}"))), "{value}: {told:?}");
    }
}
