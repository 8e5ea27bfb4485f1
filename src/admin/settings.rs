//! The words about what was there before the first request: conf, dirs, envi (`ZooKeeperServer.dumpConf`,
//! `QuorumZooKeeperServer.dumpConf`, `Environment`). Called by the table of words only.

use std::fmt::Write;

use super::version;
use super::view::{QuorumSettings, Settings};
use super::words::Ask;

/// The settings in force.
pub fn conf(ask: &Ask) -> String {
    let settings = ask.server.settings();
    let mut out = own(&settings, ask);
    if let Some(quorum) = &settings.quorum {
        out += &of_the_ensemble(quorum);
    }
    out
}

fn own(settings: &Settings, ask: &Ask) -> String {
    let bytes = ask.host.store_bytes();
    let rows: [(&str, &dyn std::fmt::Display); 12] = [
        ("clientPort", &settings.client_port),
        ("secureClientPort", &settings.secure_client_port),
        ("dataDir", &settings.data_dir.display()),
        ("dataDirSize", &bytes.data_dir),
        ("dataLogDir", &settings.data_log_dir.display()),
        ("dataLogSize", &bytes.log_dir),
        ("tickTime", &settings.tick_ms),
        ("maxClientCnxns", &settings.max_client_cnxns),
        ("minSessionTimeout", &settings.min_session_timeout_ms),
        ("maxSessionTimeout", &settings.max_session_timeout_ms),
        ("clientPortListenBacklog", &settings.client_port_listen_backlog),
        ("serverId", &settings.server_id),
    ];
    lines(&rows)
}

/// Ends without a newline when the membership is shown, as Apache does.
fn of_the_ensemble(quorum: &QuorumSettings) -> String {
    let mut out = lines(&[
        ("initLimit", &quorum.init_limit),
        ("syncLimit", &quorum.sync_limit),
        ("electionAlg", &quorum.election_alg),
        ("electionPort", &quorum.election_ports),
        ("quorumPort", &quorum.quorum_ports),
        ("peerType", &quorum.peer_type),
    ]);
    if let Some(membership) = &quorum.membership {
        let _ = write!(out, "membership: \n{membership}");
    }
    out
}

/// Sizes of the directories.
pub fn dirs(ask: &Ask) -> String {
    let bytes = ask.host.store_bytes();
    format!("datadir_size: {}\nlogdir_size: {}\n", bytes.data_dir, bytes.log_dir)
}

/// The environment. Java's keys are there, for the tools that look for them; `none` says that there is no Java. Memory
/// is told so that total less free is what this process uses, as it is of a Java heap.
pub fn envi(ask: &Ask) -> String {
    let environment = ask.host.environment();
    let memory = ask.host.memory();
    let mib = |bytes: u64| format!("{}MB", bytes >> 20);
    let rows: [(&str, &dyn std::fmt::Display); 18] = [
        ("zookeeper.version", &version::full()),
        ("host.name", &environment.host_name),
        ("java.version", &"none"),
        ("java.vendor", &"Rookeeper"),
        ("java.home", &"none"),
        ("java.class.path", &environment.program),
        ("java.library.path", &"none"),
        ("java.io.tmpdir", &environment.temp_dir),
        ("java.compiler", &"<NA>"),
        ("os.name", &"Linux"),
        ("os.arch", &environment.os_arch),
        ("os.version", &environment.os_version),
        ("user.name", &environment.user_name),
        ("user.home", &environment.user_home),
        ("user.dir", &environment.user_dir),
        ("os.memory.free", &mib(memory.available)),
        ("os.memory.max", &mib(memory.machine)),
        ("os.memory.total", &mib(memory.resident + memory.available)),
    ];
    "Environment:\n".to_owned() + &lines(&rows)
}

fn lines(rows: &[(&str, &dyn std::fmt::Display)]) -> String {
    let mut out = String::new();
    for (key, value) in rows {
        let _ = writeln!(out, "{key}={value}");
    }
    out
}
