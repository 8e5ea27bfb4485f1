//! The words and commands about what was there before the first request: conf, dirs, envi (`ZooKeeperServer.dumpConf`,
//! `QuorumZooKeeperServer.dumpConf`, `Environment`). Called by the tables of words and of commands
//! only.

use std::fmt::Write;

use serde_json::json;

use super::commands::{CommandContext, fields};
use super::json::Fields;
use super::version;
use super::view::{QuorumSettings, Settings};
use super::words::QueryContext;

/// The settings in force.
pub fn conf(context: &QueryContext) -> String {
    let settings = context.server.settings();
    let mut out = own(&settings, context);
    if let Some(quorum) = &settings.quorum {
        out += &of_the_ensemble(quorum);
    }
    out
}

fn own(settings: &Settings, context: &QueryContext) -> String {
    let bytes = context.host.store_bytes();
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
pub fn dirs(context: &QueryContext) -> String {
    let bytes = context.host.store_bytes();
    format!("datadir_size: {}\nlogdir_size: {}\n", bytes.data_dir, bytes.log_dir)
}

/// The environment. Java's keys are there, for the tools that look for them; `none` says that there is no Java. Memory
/// is told so that total less free is what this process uses, as it is of a Java heap.
pub fn envi(context: &QueryContext) -> String {
    let rows = environment_rows(context);
    "Environment:\n".to_owned() + &lines(&rows.each_ref().map(|(key, value)| (*key, value as &dyn std::fmt::Display)))
}

fn environment_rows(context: &QueryContext) -> [(&'static str, String); 18] {
    let environment = context.host.environment();
    let memory = context.host.memory();
    let mib = |bytes: u64| format!("{}MB", bytes >> 20);
    [
        ("zookeeper.version", version::full().to_owned()),
        ("host.name", environment.host_name.clone()),
        ("java.version", "none".to_owned()),
        ("java.vendor", "Rookeeper".to_owned()),
        ("java.home", "none".to_owned()),
        ("java.class.path", environment.program.clone()),
        ("java.library.path", "none".to_owned()),
        ("java.io.tmpdir", environment.temp_dir.clone()),
        ("java.compiler", "<NA>".to_owned()),
        ("os.name", "Linux".to_owned()),
        ("os.arch", environment.os_arch.clone()),
        ("os.version", environment.os_version.clone()),
        ("user.name", environment.user_name.clone()),
        ("user.home", environment.user_home.clone()),
        ("user.dir", environment.user_dir.clone()),
        ("os.memory.free", mib(memory.available)),
        ("os.memory.max", mib(memory.machine)),
        ("os.memory.total", mib(memory.resident + memory.available)),
    ]
}

fn lines(rows: &[(&str, &dyn std::fmt::Display)]) -> String {
    let mut out = String::new();
    for (key, value) in rows {
        let _ = writeln!(out, "{key}={value}");
    }
    out
}

/// The settings in force, without those of the ensemble.
pub fn configuration(command: &CommandContext) -> Fields {
    let settings = command.context.server.settings();
    fields(json!({
        "client_port": settings.client_port,
        "data_dir": settings.data_dir.display().to_string(),
        "data_log_dir": settings.data_log_dir.display().to_string(),
        "tick_time": settings.tick_ms,
        "max_client_cnxns": settings.max_client_cnxns,
        "min_session_timeout": settings.min_session_timeout_ms,
        "max_session_timeout": settings.max_session_timeout_ms,
        "server_id": settings.server_id,
        "client_port_listen_backlog": settings.client_port_listen_backlog,
    }))
}

/// Sizes of the directories.
pub fn directories(command: &CommandContext) -> Fields {
    let bytes = command.context.host.store_bytes();
    fields(json!({ "datadir_size": bytes.data_dir, "logdir_size": bytes.log_dir }))
}

/// The environment.
pub fn environment(command: &CommandContext) -> Fields {
    environment_rows(command.context).into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
}

/// The configuration file as it was read; null in an ensemble, as in Apache.
pub fn initial_configuration(command: &CommandContext) -> Fields {
    fields(json!({ "initial_configuration": command.query.started.config_text }))
}

/// Every system property.
pub fn system_properties(command: &CommandContext) -> Fields {
    command.query.started.properties.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect()
}
