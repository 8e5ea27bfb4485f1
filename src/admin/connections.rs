//! The words and commands about connections: cons, crst, and the lists inside stat and dump (`ServerCnxn.dumpConnectionInfo`,
//! `NIOServerCnxnFactory.dumpConnections`). Called by the tables of words and
//! of commands only.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::commands::{CommandContext, array, fields};
use super::java;
use super::json::Fields;
use super::view::ConnView;
use super::words::QueryContext;
use crate::ids::{SessionId, Zxid};

/// All connections, in full.
pub fn cons(context: &QueryContext) -> String {
    list(context, true)
}

/// Says that the figures of the connections are reset; the poller has done it.
pub fn crst(_: &QueryContext) -> String {
    "Connection stats reset.\n".to_owned()
}

/// One line a connection and an empty one.
pub fn list(context: &QueryContext, in_full: bool) -> String {
    let mut out = String::new();
    for connection in &context.poller.connections {
        line(&mut out, connection, in_full);
    }
    out.push('\n');
    out
}

fn line(out: &mut String, connection: &ConnView, in_full: bool) {
    let ConnView { peer, interest_ops, queued, received, sent, .. } = connection;
    let peer = java::socket_address(*peer);
    let _ = write!(out, " {peer}[{interest_ops:x}](queued={queued},recved={received},sent={sent}");
    if in_full {
        session(out, connection);
    }
    out.push_str(")\n");
}

/// Nothing without a session; and no `lcxid` while the last request had none (it was internal, or there was none).
fn session(out: &mut String, connection: &ConnView) {
    let Some(session) = &connection.session else { return };
    let op = session.last.map_or("NA", |last| last.op);
    let (established, timeout) = (session.established_wall_ms, session.timeout_ms);
    let _ = write!(out, ",sid={},lop={op},est={established},to={timeout}", session.id);
    if let Some(last) = session.last.filter(|last| last.cxid >= 0) {
        let _ = write!(out, ",lcxid=0x{:x}", last.cxid);
    }
    let zxid = session.last.map_or(Zxid(-1), |last| last.zxid);
    let _ = write!(out, ",lzxid={zxid},lresp={},llat={}", session.last_response_mono_ms, session.last_latency_ms);
    let (min, avg, max) = (session.min_latency_ms, session.avg_latency_ms, session.max_latency_ms);
    let _ = write!(out, ",minlat={min},avglat={avg},maxlat={max}");
}

/// The last part of `dump`: connections by the time they close for silence.
pub fn by_expiry(context: &QueryContext) -> String {
    let mut buckets: BTreeMap<i64, Vec<&ConnView>> = BTreeMap::new();
    for connection in &context.poller.connections {
        buckets.entry(connection.expires_mono_ms).or_default().push(connection);
    }
    let zone = context.host.time_zone();
    let mut out = format!("Connections Sets ({})/({}):\n", buckets.len(), context.poller.connections.len());
    for (expires_mono_ms, connections) in buckets {
        let date = java::date(context.now.wall_ms + expires_mono_ms - context.now.mono_ms, &zone);
        let _ = writeln!(out, "{} expire at {date}:", connections.len());
        for connection in connections {
            let id = connection.session.as_ref().map_or(SessionId::NONE, |session| session.id);
            let _ = writeln!(out, "\tip: {} sessionId: {id}", java::socket_address(connection.peer));
        }
    }
    out
}

/// All connections, in full.
pub fn connections(command: &CommandContext) -> Fields {
    fields(json!({ "connections": values(command.context, true), "secure_connections": [] }))
}

/// The connections; in brief their first five figures.
pub fn values(context: &QueryContext, in_full: bool) -> Value {
    array(context.poller.connections.iter().map(|connection| value(connection, in_full)))
}

fn value(connection: &ConnView, in_full: bool) -> Value {
    let mut shown = fields(json!({
        "remote_socket_address": java::socket_address(connection.peer).trim_start_matches('/'),
        "interest_ops": connection.interest_ops,
        "outstanding_requests": connection.queued,
        "packets_received": connection.received,
        "packets_sent": connection.sent,
    }));
    let session = connection.session.as_ref().filter(|_| in_full);
    if let Some(session) = session {
        shown.extend(fields(json!({
            "session_id": session.id.0,
            "last_operation": session.last.map_or("NA", |last| last.op),
            "established": session.established_wall_ms,
            "session_timeout": session.timeout_ms,
            "last_cxid": session.last.map_or(-1, |last| last.cxid),
            "last_zxid": session.last.map_or(-1, |last| last.zxid.0),
            "last_response_time": session.last_response_mono_ms,
            "last_latency": session.last_latency_ms,
            "min_latency": session.min_latency_ms,
            "avg_latency": session.avg_latency_ms,
            "max_latency": session.max_latency_ms,
        })));
    }
    Value::Object(shown)
}
