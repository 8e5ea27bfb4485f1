//! The words and commands about the server as a whole: srvr, stat, srst, ruok, isro, gtmk, stmk (`ServerStats`,
//! `StatCommand`), and about its place in the ensemble. Called by the tables of words and of commands only.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use serde_json::{Value, json};

use super::commands::{CommandContext, array, fields, own_error};
use super::json::Fields;
use super::view::{LearnerView, Mode, QuorumView};
use super::words::QueryContext;
use super::{connections, java, version};
use crate::config::MetricsProvider;
use crate::config::ensemble::{PeerRole, Server};
use crate::ids::{ServerId, Zxid};
use crate::memory;
use crate::metrics::{self, BytesValues};

/// Apache's `ZooTrace` mask. Nothing here traces by it; what an operator sets is kept and shown.
static TRACE_MASK: AtomicI64 = AtomicI64::new(306);

/// Statistics of the server.
pub fn srvr(context: &QueryContext) -> String {
    heading(context) + &statistics(context)
}

/// The same with the connections between.
pub fn stat(context: &QueryContext) -> String {
    heading(context) + "Clients:\n" + &connections::list(context, false) + &statistics(context)
}

fn heading(context: &QueryContext) -> String {
    let read_only = match context.server.mode() {
        Mode::ReadOnly => "READ-ONLY mode; serving only read-only clients\n",
        Mode::NotServing | Mode::Standalone | Mode::Leader | Mode::Follower | Mode::Observer => "",
    };
    format!("Zookeeper version: {}\n{read_only}", version::full())
}

fn statistics(context: &QueryContext) -> String {
    let (server, stats) = (context.server, context.stats);
    let (min, mean, max) = (stats.latency.min, java::double(stats.latency.mean()), stats.latency.max);
    let mut out = format!("Latency min/avg/max: {min}/{mean}/{max}\n");
    let _ = writeln!(out, "Received: {}\nSent: {}", stats.received, stats.sent);
    let _ = writeln!(out, "Connections: {}\nOutstanding: {}", context.poller.connection_count, server.outstanding());
    let _ = writeln!(out, "Zxid: {}\nMode: {}", server.last_zxid(), server.mode().text());
    let _ = writeln!(out, "Node count: {}", server.node_count());
    if server.mode() == Mode::Leader {
        let sizes = stats.proposal;
        let _ = writeln!(out, "Proposal sizes last/min/max: {}/{}/{}", sizes.last, sizes.min, sizes.max);
    }
    out
}

/// Counters and summaries start again.
pub fn srst(context: &QueryContext) -> String {
    match context.provider {
        MetricsProvider::Default | MetricsProvider::Null => metrics::reset(),
        MetricsProvider::Prometheus => metrics::reset_server_stats(),
    }
    "Server stats reset.\n".to_owned()
}

/// Whoever can answer is ok.
pub fn ruok(_: &QueryContext) -> String {
    "imok".to_owned()
}

/// The accounts of memory.
pub fn memory(command: &CommandContext) -> Fields {
    let accounts = memory::TABLE.iter().map(|row| {
        let (bytes, bytes_max) = row.account.published();
        let shown = json!({ "bytes": bytes, "bytes_max": bytes_max, "what": row.what, "when_full": row.holds });
        (row.name.to_owned(), shown)
    });
    fields(json!({
        "budget_bytes": memory::published_budget(),
        "resident_bytes": command.context.host.memory().resident,
        "accounts": accounts.collect::<Fields>(),
    }))
}

/// What a client that accepts a read-only server looks for.
pub fn isro(context: &QueryContext) -> String {
    match context.server.mode() {
        Mode::NotServing => "null",
        Mode::ReadOnly => "ro",
        Mode::Standalone | Mode::Leader | Mode::Follower | Mode::Observer => "rw",
    }
    .to_owned()
}

/// The trace mask.
pub fn gtmk(_: &QueryContext) -> String {
    TRACE_MASK.load(Relaxed).to_string()
}

/// The new trace mask.
pub fn stmk(context: &QueryContext) -> String {
    let Some(mask) = context.poller.argument else { return String::new() };
    TRACE_MASK.store(mask, Relaxed);
    mask.to_string()
}

/// Statistics of the server.
pub fn server_stats(command: &CommandContext) -> Fields {
    let context = command.context;
    let mut shown = fields(json!({
        "version": version::full(),
        "read_only": context.server.mode() == Mode::ReadOnly,
        "server_stats": statistics_value(context),
        "client_response": sizes(metrics::CLIENT_RESPONSE.values()),
    }));
    if context.server.mode() == Mode::Leader {
        shown.insert("proposal_stats".into(), sizes(context.stats.proposal));
    }
    shown.insert("node_count".into(), context.server.node_count().into());
    shown
}

/// The same with the connections behind.
pub fn stats(command: &CommandContext) -> Fields {
    let mut shown = server_stats(command);
    shown.insert("connections".into(), connections::values(command.context, false));
    shown.insert("secure_connections".into(), json!([]));
    shown
}

fn statistics_value(context: &QueryContext) -> Value {
    let (server, stats, bytes) = (context.server, context.stats, context.host.store_bytes());
    json!({
        "packets_sent": stats.sent,
        "packets_received": stats.received,
        "fsync_threshold_exceed_count": metrics::SLOW_SYNCS.get(),
        "client_response_stats": sizes(metrics::CLIENT_RESPONSE.values()),
        "data_dir_size": bytes.data_dir,
        "log_dir_size": bytes.log_dir,
        "provider_null": false,
        "server_state": server.mode().text(),
        "last_processed_zxid": server.last_zxid().0,
        "outstanding_requests": server.outstanding(),
        "avg_latency": stats.latency.mean(),
        "max_latency": stats.latency.max,
        "min_latency": stats.latency.min,
        "num_alive_client_connections": context.poller.connection_count,
        "uptime": server.uptime_ms(),
        "auth_failed_count": metrics::AUTH_FAILED_COUNT.get(),
        "non_mtlsremote_conn_count": metrics::NON_MTLS_REMOTE_CONN_COUNT.get(),
        "non_mtlslocal_conn_count": metrics::NON_MTLS_LOCAL_CONN_COUNT.get(),
    })
}

fn sizes(values: BytesValues) -> Value {
    json!({ "last_buffer_size": values.last, "min_buffer_size": values.min, "max_buffer_size": values.max })
}

/// Counters and summaries start again.
pub fn reset(command: &CommandContext) -> Fields {
    srst(command.context);
    Fields::new()
}

/// Read-only?
pub fn is_read_only(command: &CommandContext) -> Fields {
    fields(json!({ "read_only": command.context.server.mode() == Mode::ReadOnly }))
}

/// The trace mask.
pub fn trace_mask(_: &CommandContext) -> Fields {
    fields(json!({ "tracemask": TRACE_MASK.load(Relaxed) }))
}

/// The new trace mask.
pub fn set_trace_mask(command: &CommandContext) -> Fields {
    const WANTED: &str = "setTraceMask requires long traceMask argument";
    let Some(given) = command.parameter("traceMask") else { return own_error(WANTED) };
    let Ok(mask) = given.parse::<i64>() else { return own_error(format!("{WANTED}, got {given}")) };
    TRACE_MASK.store(mask, Relaxed);
    fields(json!({ "tracemask": mask }))
}

/// Who leads.
pub fn leader(command: &CommandContext) -> Fields {
    let Some(quorum) = command.query.quorum.as_ref().filter(|_| command.context.server.mode() != Mode::ReadOnly) else {
        return own_error("server is not initialized");
    };
    let found = quorum.leader.and_then(|id| command.context.server.members()?.servers.get(&id.0));
    fields(json!({
        "is_leader": command.context.server.mode() == Mode::Leader,
        "leader_id": quorum.leader.map_or(-1, |id| id.0),
        "leader_ip": found.and_then(|server| server.addresses.first()).map_or("", |address| &address.host),
    }))
}

/// Observers connected to this server.
pub fn observers(command: &CommandContext) -> Fields {
    let learners = command.query.quorum.as_ref().map_or(&[][..], |quorum| &quorum.learners);
    let observers: Vec<Value> = learners.iter().filter(|l| l.observer && l.synced).map(observer).collect();
    fields(json!({ "synced_observers": observers.len(), "observers": observers }))
}

fn observer(learner: &LearnerView) -> Value {
    let link = &learner.link;
    json!({
        "remote_socket_address": link.peer.map_or_else(String::new, java::socket_address),
        "sid": learner.id.0,
        "established": link.established_wall_ms,
        // Packets wait as bytes here, one behind the other.
        "queued_packets": u8::from(link.queued_bytes > 0),
        "queued_packets_size": link.queued_bytes,
        "packets_received": link.received,
        "packets_sent": link.sent,
        "requests": link.requests,
        "last_zxid": learner.last.0,
    })
}

/// Who votes.
pub fn voting_view(command: &CommandContext) -> Fields {
    let members = command.context.server.members();
    let voters = members.into_iter().flat_map(|m| m.participants());
    let voters: Fields = voters.map(|server| (server.id.to_string(), member(server))).collect();
    fields(json!({ "current_config": voters }))
}

fn member(server: &Server) -> Value {
    let addresses = |port: fn(&crate::config::ensemble::PeerAddress) -> u16| {
        array(server.addresses.iter().map(|address| format!("{}:{}", address.host, port(address))))
    };
    json!({
        "server_addresses": addresses(|address| address.quorum_port),
        "election_addresses": addresses(|address| address.election_port),
        "client_address": client_address(server),
        "learner_type": if server.role == PeerRole::Participant { "participant" } else { "observer" },
    })
}

fn client_address(server: &Server) -> String {
    server.client.as_ref().map_or_else(String::new, |client| format!("{}:{}", client.host, client.port))
}

/// How far this server is in the protocol of the ensemble.
pub fn zab_state(command: &CommandContext) -> Fields {
    let server = command.context.server;
    let own = server.members().zip(command.query.quorum.as_ref());
    let Some((members, quorum)) = own.filter(|_| !matches!(server.mode(), Mode::NotServing | Mode::ReadOnly)) else {
        return fields(json!({ "voting": false, "zabstate": "" }));
    };
    let line = members.servers.get(&quorum.my_id.0);
    let addresses = |port: fn(&crate::config::ensemble::PeerAddress) -> u16| {
        let all: Vec<(String, u16)> =
            line.map_or_else(Vec::new, |line| line.addresses.iter().map(|a| (a.host.clone(), port(a))).collect());
        multiple_addresses(&all)
    };
    let zxid = server.last_zxid();
    fields(json!({
        "myid": quorum.my_id.0,
        "is_leader": server.mode() == Mode::Leader,
        "quorum_address": addresses(|address| address.quorum_port),
        "election_address": addresses(|address| address.election_port),
        "client_address": line.map_or_else(String::new, client_address),
        "voting": members.is_participant(quorum.my_id),
        "last_zxid": zxid.to_string(),
        "zab_epoch": zxid.epoch(),
        "zab_counter": zxid.counter(),
        "zabstate": quorum.stage,
    }))
}

/// What Java shows of its `MultipleAddresses`; all of them are taken for reachable here.
fn multiple_addresses(addresses: &[(String, u16)]) -> Value {
    let all: Vec<String> = addresses.iter().map(|(host, port)| format!("{host}:{port}")).collect();
    let wildcard: Vec<String> = addresses.iter().map(|(_, port)| format!("0.0.0.0:{port}")).collect();
    let one = all.first();
    json!({
        "empty": all.is_empty(),
        "all_addresses": all,
        "all_reachable_addresses": all,
        "one": one,
        "reachable_address": one,
        "wildcard_addresses": wildcard,
        "all_ports": array(addresses.iter().map(|(_, port)| *port)),
        "all_host_strings": array(addresses.iter().map(|(host, _)| host.clone())),
        "all_reachable_addresses_or_all": all,
        "reachable_or_one": one,
    })
}

/// What Apache lacks: all that the head of the status page shows.
pub fn status(command: &CommandContext) -> Fields {
    let (context, server) = (command.context, command.context.server);
    let serving = server.mode() != Mode::NotServing;
    let mut shown = fields(json!({
        "version": version::full(),
        "host": context.host.environment().host_name,
        "state": server.mode().text(),
        "serving": serving,
        "wall_ms": context.now.wall_ms,
        "ensemble": command.query.quorum.as_ref().map(|quorum| ensemble(command, quorum)),
    }));
    if serving {
        super::mntr::publish(context);
        let settings = server.settings();
        let latency = context.stats.latency;
        shown.extend(fields(json!({
            "server_id": settings.server_id,
            "client_port": settings.client_port,
            "data_dir": settings.data_dir.display().to_string(),
            "zxid": server.last_zxid().to_string(),
            "uptime_ms": server.uptime_ms(),
            "connections": context.poller.connection_count,
            "outstanding": server.outstanding(),
            "sessions": server.global_sessions(),
            "local_sessions": server.local_sessions(),
            "nodes": server.node_count(),
            "ephemerals": server.ephemerals_count(),
            "watches": server.watch_count(),
            "data_watches": server.data_watch_count(),
            "data_bytes": server.approximate_data_size(),
            "received": context.stats.received,
            "sent": context.stats.sent,
            "latency_ms": { "min": latency.min, "avg": latency.mean(), "max": latency.max },
            "slow_syncs": metrics::SLOW_SYNCS.get(),
        })));
    }
    shown
}

fn ensemble(command: &CommandContext, quorum: &QuorumView) -> Value {
    let server = command.context.server;
    let head = server.last_zxid();
    let leads = server.mode() == Mode::Leader;
    let members = server.members().into_iter().flat_map(|members| members.servers.values());
    let members = members.map(|line| {
        let id = ServerId(line.id);
        let learner = quorum.learners.iter().find(|learner| learner.id == id);
        let last = match learner {
            Some(learner) => Some((head, learner.last)),
            None => quorum.leaders_last.filter(|_| id == quorum.my_id).map(|leaders| (leaders, head)),
        };
        json!({
            "id": line.id,
            "address": line.addresses.first().map(|address| address.host.clone()),
            "client_address": client_address(line),
            "votes": line.role == PeerRole::Participant,
            "here": id == quorum.my_id,
            "leads": quorum.leader == Some(id),
            "connected": (leads && id != quorum.my_id).then_some(learner.is_some()),
            "synced": learner.map(|learner| learner.synced),
            "last_zxid": learner.map(|learner| learner.last.to_string()),
            "behind": last.map(|(head, last)| behind(head, last)),
            "queued_bytes": learner.map(|learner| learner.link.queued_bytes),
        })
    });
    json!({
        "my_id": quorum.my_id.0,
        "stage": quorum.stage,
        "leader": quorum.leader.map(|id| id.0),
        "members": members.collect::<Vec<Value>>(),
    })
}

/// How many transactions; `None` across epochs.
fn behind(head: Zxid, last: Zxid) -> Option<i64> {
    (head.epoch() == last.epoch()).then(|| (head.0 - last.0).max(0))
}
