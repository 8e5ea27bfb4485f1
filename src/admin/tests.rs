//! Four-letter words over a server made up for the purpose. What they say is in `tests/scenarios/words/*.txt`: a word
//! and, after `@`, what the server is; `----`; the answer, closed by a `$`. `REWRITE=1 cargo test` writes the answers
//! anew: read the diff.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use jiff::tz::TimeZone;

use super::view::*;
use super::words::{QueryContext, Word, answer};
use super::{mntr, version};
use crate::config::MetricsProvider;
use crate::ids::{Now, SessionId, Zxid};
use crate::mail::LastAnswer;
use crate::metrics::{BytesValues, ServerStats, SummaryValues};

const NOW: Now = Now { mono_ms: 1_431_500, wall_ms: 1_795_358_419_900 };
const KAZOO: SessionId = SessionId(0x0100_0015_c498_0000);
const OTHER: SessionId = SessionId(0x0100_0015_c498_0001);

struct FakeServer(Mode);

impl ServerView for FakeServer {
    fn mode(&self) -> Mode {
        self.0
    }
    fn last_zxid(&self) -> Zxid {
        Zxid(0x1a)
    }
    fn node_count(&self) -> u64 {
        10
    }
    fn ephemerals_count(&self) -> u64 {
        3
    }
    fn approximate_data_size(&self) -> u64 {
        680
    }
    fn watch_count(&self) -> u64 {
        4
    }
    fn outstanding(&self) -> u64 {
        0
    }
    fn global_sessions(&self) -> u64 {
        2
    }
    fn uptime_ms(&self) -> i64 {
        1_430_500
    }
    fn settings(&self) -> Settings {
        let quorum = QuorumSettings {
            init_limit: 10,
            sync_limit: 5,
            election_alg: 3,
            election_ports: "3888".into(),
            quorum_ports: "2888".into(),
            peer_type: 0,
            membership: Some("server.1=10.0.0.1:2888:3888:participant\nversion=100000000".into()),
        };
        Settings {
            client_port: 2181,
            secure_client_port: -1,
            data_dir: "/var/lib/zookeeper/version-2".into(),
            data_log_dir: "/var/lib/zookeeper/version-2".into(),
            tick_ms: 2000,
            max_client_cnxns: 60,
            min_session_timeout_ms: 4000,
            max_session_timeout_ms: 40_000,
            client_port_listen_backlog: -1,
            server_id: if self.0 == Mode::Standalone { 0 } else { 1 },
            quorum: match self.0 {
                Mode::NotServing | Mode::Standalone => None,
                Mode::ReadOnly => Some(QuorumSettings { membership: None, ..quorum }),
                Mode::Leader | Mode::Follower | Mode::Observer => Some(quorum),
            },
        }
    }
    fn quotas(&self) -> Vec<Quota> {
        let namespace = "my app".to_owned();
        vec![Quota { namespace, count_limit: 5, bytes_limit: -1, count_usage: 2, bytes_usage: 30 }]
    }
    fn listed_sessions(&self) -> u64 {
        2
    }
    fn data_watch_count(&self) -> u64 {
        3
    }
    fn sessions(&self) -> Sessions {
        match self.0 {
            Mode::Follower | Mode::Observer => Sessions::Known(vec![(KAZOO, 10_000), (OTHER, 20_000)]),
            _ => Sessions::Expiring(vec![
                Bucket { expires_mono_ms: 1_433_000, sessions: vec![KAZOO] },
                Bucket { expires_mono_ms: 1_443_000, sessions: vec![OTHER] },
            ]),
        }
    }
    fn ephemerals(&self) -> Vec<(SessionId, Vec<Cow<'_, str>>)> {
        vec![(KAZOO, vec!["/a/s-0000000002".into(), "/a/e".into()]), (OTHER, vec!["/foo/e".into()])]
    }
    fn watch_totals(&self) -> WatchTotals {
        WatchTotals { connections: 2, paths: 2, watches: 3 }
    }
    fn watches_by_session(&self) -> Vec<(SessionId, Vec<Cow<'_, str>>)> {
        vec![(KAZOO, vec!["/foo".into(), "/nope".into()]), (OTHER, vec!["/foo".into()])]
    }
    fn watches_by_path(&self) -> Vec<(Cow<'_, str>, Vec<SessionId>)> {
        vec![("/foo".into(), vec![KAZOO, OTHER]), ("/nope".into(), vec![KAZOO])]
    }
    fn digest_log(&self) -> Vec<(Zxid, u64)> {
        vec![(Zxid(0x80), 9_175_962_159), (Zxid(0x1_0000_0100), u64::MAX)]
    }
    fn peer_state(&self) -> Option<String> {
        (self.0 == Mode::Follower).then(|| "following - broadcast".into())
    }
}

struct FakeHost(Environment);

impl Host for FakeHost {
    fn store_bytes(&self) -> StoreBytes {
        StoreBytes { data_dir: 629, log_dir: 67_109_337 }
    }
    fn file_descriptors(&self) -> (i64, i64) {
        (36, 20_000)
    }
    fn environment(&self) -> &Environment {
        &self.0
    }
    fn memory(&self) -> Memory {
        Memory { resident: 40 << 20, available: 1_500 << 20, machine: 2_000 << 20 }
    }
    fn process(&self) -> Process {
        Process { cpu_s: 1.5, start_wall_s: 1_795_000_000.0, virtual_bytes: 80 << 20 }
    }
    fn time_zone(&self) -> TimeZone {
        TimeZone::UTC
    }
    fn last_snapshot(&self) -> Option<SnapshotOnDisk> {
        Some(SnapshotOnDisk { zxid: Zxid(0x10), written_wall_s: 1_795_000_001 })
    }
}

fn fake_host() -> FakeHost {
    FakeHost(Environment {
        host_name: "zk1".into(),
        program: "/usr/bin/rookeeper".into(),
        temp_dir: "/tmp".into(),
        os_arch: "amd64".into(),
        os_version: "6.1.0".into(),
        user_name: "zookeeper".into(),
        user_home: "/var/lib/zookeeper".into(),
        user_dir: "/".into(),
    })
}

fn poller() -> PollerView {
    let probe = ConnView {
        peer: "10.0.0.9:36082".parse().expect("an address"),
        interest_ops: 0,
        queued: 0,
        received: 1,
        sent: 0,
        expires_mono_ms: 1_443_000,
        session: None,
    };
    let quiet = SessionView {
        id: OTHER,
        timeout_ms: 20_000,
        established_wall_ms: 1_795_358_409_704,
        last: None,
        last_response_mono_ms: 0,
        last_latency_ms: 0,
        min_latency_ms: 0,
        avg_latency_ms: 0,
        max_latency_ms: 0,
    };
    let busy = SessionView {
        id: KAZOO,
        timeout_ms: 10_000,
        last: Some(LastAnswer { op: "GETC", cxid: 0x21, zxid: Zxid(0x1a), received_us: 0 }),
        last_response_mono_ms: 1_431_469,
        last_latency_ms: 2,
        avg_latency_ms: 3,
        max_latency_ms: 21,
        ..quiet.clone()
    };
    let pinged = SessionView {
        last: Some(LastAnswer { op: "PING", cxid: -2, zxid: Zxid(0x1a), received_us: 0 }),
        ..busy.clone()
    };
    let of = |peer: &str, session| ConnView {
        peer: peer.parse().expect("an address"),
        interest_ops: 1,
        received: 35,
        sent: 36,
        session: Some(session),
        ..probe.clone()
    };
    PollerView {
        argument: Some(1_000_000_000_000),
        connections: vec![
            ConnView { expires_mono_ms: 1_453_000, queued: 7, interest_ops: 5, ..of("10.0.0.9:55358", busy) },
            of("10.0.0.10:1024", pinged),
            of("[::1]:54932", quiet),
            probe,
        ],
        connection_count: 4,
    }
}

fn stats() -> ServerStats {
    ServerStats {
        received: 43,
        sent: 44,
        latency: SummaryValues { count: 35, sum: 107, min: 0, max: 21 },
        proposal: BytesValues { last: 48, min: 36, max: 264 },
    }
}

fn mode(text: &str) -> Mode {
    let all = [Mode::NotServing, Mode::Standalone, Mode::Leader, Mode::Follower, Mode::Observer, Mode::ReadOnly];
    *all.iter().find(|mode| format!("{mode:?}") == text).expect("a mode")
}

/// Hands over what answers are made from: a server in this mode, with these connections.
fn with_context<T>(mode: Mode, poller: &PollerView, told: impl FnOnce(&QueryContext) -> T) -> T {
    told(&QueryContext {
        now: NOW,
        poller,
        server: &FakeServer(mode),
        host: &fake_host(),
        stats: stats(),
        provider: MetricsProvider::Default,
    })
}

fn ask_as(word: Word, mode: Mode) -> String {
    with_context(mode, &poller(), |context| answer(word, context))
}

/// One scenario with its answers as they are now; comments are kept.
fn replay(scenario: &str) -> String {
    let mut out = String::new();
    let mut in_answer = false;
    for line in scenario.lines() {
        match line.strip_prefix("> ") {
            Some(command) => {
                let (word, mode_text) = command.split_once(" @ ").expect("word @ mode");
                let word = Word::ALL.iter().find(|known| known.text() == word).expect("a word");
                let text = ask_as(*word, mode(mode_text)).replace(version::full(), "VERSION");
                out += &format!("{line}\n----\n{text}$\n");
                in_answer = true;
            }
            None if in_answer => in_answer = !line.ends_with('$'),
            None => out += &format!("{line}\n"),
        }
    }
    out
}

#[test]
fn words_say_what_their_scenarios_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/words");
    for entry in std::fs::read_dir(&dir).expect("scenarios") {
        let path = entry.expect("a file").path();
        let expected = std::fs::read_to_string(&path).expect("text");
        let got = replay(&expected);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&path, &got).expect("a file to write");
        } else {
            assert_eq!(got, expected, "{}; REWRITE=1 writes it anew", path.display());
        }
    }
}

#[test]
fn mntr_has_every_key_of_apache() {
    let text = ask_as(Word::Mntr, Mode::Standalone);
    let ours: HashSet<&str> = text.lines().filter_map(|line| line.split('\t').next()).collect();
    let missing: Vec<&str> =
        include_str!("testdata/mntr_keys_3.8.txt").lines().filter(|key| !ours.contains(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn mntr_of_a_standalone_server_has_no_key_that_tells_of_an_ensemble() {
    let text = ask_as(Word::Mntr, Mode::Standalone);
    for key in ["zk_peer_state", "zk_quorum_size", "zk_learners", "zk_synced_followers", "zk_last_proposal_size"] {
        assert!(!text.contains(&format!("{key}\t")), "{key}");
        assert_eq!(ask_as(Word::Mntr, Mode::Leader).contains(&format!("{key}\t")), key != "zk_peer_state", "{key}");
    }
    assert!(ask_as(Word::Mntr, Mode::Follower).contains("zk_peer_state\tfollowing - broadcast\n"));
    crate::metrics::OBSERVER_MASTER_ID.set(3);
    assert!(ask_as(Word::Mntr, Mode::Observer).contains("zk_observer_master_id\t3\n"));
}

#[test]
fn the_first_2048_bytes_of_mntr_hold_all_gauges_and_most_counters() {
    for mode in [Mode::Standalone, Mode::Leader] {
        let text = ask_as(Word::Mntr, mode);
        let head = &text[..2048];
        for row in crate::metrics::TABLE.iter() {
            use crate::metrics::Metric::{FloatGauge, Gauge};
            if matches!(row.metric, Gauge(_) | FloatGauge(_)) && text.contains(&format!("zk_{}\t", row.name)) {
                assert!(head.contains(&format!("zk_{}\t", row.name)), "{}", row.name);
            }
        }
        assert!(head.matches('\n').count() > 50, "{}", head.matches('\n').count());
    }
}

/// Telegraf: `^zk_(\w[\w\.\-]*)\s+([\w\.\-]+)`; one line that does not match, and nothing is gathered.
#[test]
fn every_line_of_mntr_is_one_that_telegraf_takes() {
    crate::metrics::READ_PER_NAMESPACE.record("-odd name\twith é", 7);
    crate::metrics::READLATENCY.record(12_345_678);
    let takes = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    for mode in [Mode::Standalone, Mode::Leader, Mode::Follower, Mode::Observer] {
        let text = ask_as(Word::Mntr, mode);
        assert!(text.contains("zk_max__odd_name_with___read_per_namespace\t"));
        assert!(text.contains("zk_my_app_quota_count_limit_per_namespace\t5\n"));
        for line in text.lines() {
            let (name, value) = line.split_once('\t').expect("a tab");
            let name = name.strip_prefix("zk_").expect("zk_");
            assert!(name.chars().all(takes) && name.starts_with(|c: char| c != '.' && c != '-'), "{line}");
            assert!(value.starts_with(takes), "{line}");
        }
    }
}

#[test]
fn a_word_is_four_bytes_in_lower_case() {
    assert_eq!(Word::from_bytes(*b"ruok"), Some(Word::Ruok));
    assert_eq!(Word::from_bytes(*b"RUOK"), None);
    assert_eq!(Word::from_bytes([0, 0, 0, 44]), None);
    assert!(
        Word::ALL.iter().all(|word| Word::from_bytes(word.text().as_bytes().try_into().expect("4")) == Some(*word))
    );
}

#[test]
fn the_trace_mask_is_what_was_set_and_no_argument_sets_nothing() {
    assert_eq!(ask_as(Word::Stmk, Mode::NotServing), "1000000000000");
    let without = PollerView { argument: None, ..poller() };
    with_context(Mode::Standalone, &without, |context| {
        assert_eq!(answer(Word::Stmk, context), "");
        assert_eq!(answer(Word::Gtmk, context), "1000000000000");
    });
}

#[test]
fn a_row_of_each_kind_prints_its_lines() {
    use crate::metrics::*;
    fn text(name: &'static str, metric: Metric) -> String {
        let mut out = String::new();
        mntr::push_row(&mut out, &Row { name, doc: "", scope: Scope::Always, metric });
        out
    }
    static SUMMARY: Summary = Summary::new();
    [3, 4, 4].into_iter().for_each(|value| SUMMARY.record(value));
    let expected = "zk_avg_s\t3.6667\nzk_min_s\t3\nzk_max_s\t4\nzk_cnt_s\t3\nzk_sum_s\t11\n";
    assert_eq!(text("s", Metric::Summary(&SUMMARY)), expected);
    static SET: AdvancedSet = AdvancedSet::new();
    SET.record("2", 9);
    let expected = "zk_avg_2_q\t9.0\nzk_min_2_q\t9\nzk_max_2_q\t9\nzk_cnt_2_q\t1\nzk_sum_2_q\t9\n\
                    zk_p50_2_q\t9\nzk_p95_2_q\t9\nzk_p99_2_q\t9\nzk_p999_2_q\t9\n";
    assert_eq!(text("q", Metric::AdvancedSet(&SET)), expected);
    static RATIO: FloatGauge = FloatGauge::new();
    assert_eq!(text("r", Metric::FloatGauge(&RATIO)), "zk_r\t0.0\n");
    static ERRORS: CounterSet = CounterSet::new();
    ERRORS.add("foo", 2);
    assert_eq!(text("e", Metric::CounterSet(&ERRORS)), "zk_foo_e\t2\n");
}

#[test]
fn a_list_that_would_keep_everybody_waiting_is_refused_and_says_where_to_look() {
    use super::commands::{Asker, CommandQuery, Started, find};
    let query = |name: &str| CommandQuery {
        command: find(name).expect("a command"),
        name: name.to_owned(),
        parameters: Vec::new(),
        asker: Asker { address: std::net::Ipv4Addr::LOCALHOST.into(), authorization: None },
        started: Started { config_text: None, properties: Vec::new() }.into(),
        quorum: None,
    };
    let crowded = PollerView { connection_count: 10_001, ..poller() };
    with_context(Mode::Standalone, &crowded, |context| {
        let told = |name: &str| query(name).answer(context).into_text();
        assert_eq!(
            told("cons"),
            "{\n  \"error\" : \"10001 connections: more than 10000 are not listed; srvr has their number\",\n  \
             \"command\" : \"connections\"\n}"
        );
        assert!(told("watches").contains("/foo"));
        let cut = "1 of 10001 connections left out: no more than 10000 are listed; srvr has their number\n";
        for word in Word::ALL.iter().copied().filter(|word| *word != Word::Srst) {
            let lists_connections = matches!(word, Word::Cons | Word::Stat | Word::Dump);
            assert_eq!(answer(word, context).ends_with(cut), lists_connections, "{word:?}");
        }
        assert!(answer(Word::Cons, context).ends_with(&format!(",sent=0)\n\n{cut}")), "Apache's empty line stays");
    });
}
