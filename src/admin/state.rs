//! The words and commands about what is stored and watched: dump, wchs, wchc, wchp, hash (`SessionTrackerImpl`, `DataTree`,
//! `WatchManager`). Long on a busy server: they are made only when asked. Called by the tables of words and of
//! commands only.

use std::fmt::Write;

use serde_json::{Value, json};

use super::commands::{CommandContext, array, fields};
use super::connections;
use super::java;
use super::json::Fields;
use super::view::Sessions;
use super::words::QueryContext;

/// Sessions, their ephemeral nodes, connections.
pub fn dump(context: &QueryContext) -> String {
    let mut out = "SessionTracker dump:\n".to_owned() + &sessions(context) + "ephemeral nodes dump:\n";
    let owners = context.server.ephemerals();
    let _ = writeln!(out, "Sessions with Ephemerals ({}):", owners.len());
    for (session, paths) in owners {
        let _ = writeln!(out, "{session}:");
        paths.iter().for_each(|path| push_indented(&mut out, path));
    }
    out + "Connections dump:\n" + &connections::by_expiry(context)
}

fn sessions(context: &QueryContext) -> String {
    let buckets = match context.server.sessions() {
        Sessions::Known(known) => {
            let mut out = format!("Global Sessions({}):\n", known.len());
            for (session, timeout_ms) in known {
                let _ = writeln!(out, "{session}\t{timeout_ms}ms");
            }
            return out;
        }
        Sessions::Expiring(buckets) => buckets,
    };
    let zone = context.host.time_zone();
    let count: usize = buckets.iter().map(|bucket| bucket.sessions.len()).sum();
    let mut out = format!("Session Sets ({})/({count}):\n", buckets.len());
    for bucket in buckets {
        let date = java::date(context.now.wall_ms + bucket.expires_mono_ms - context.now.mono_ms, &zone);
        let _ = writeln!(out, "{} expire at {date}:", bucket.sessions.len());
        for session in bucket.sessions {
            let _ = writeln!(out, "\t{session}");
        }
    }
    out
}

/// Watches in numbers.
pub fn wchs(context: &QueryContext) -> String {
    let totals = context.server.watch_totals();
    let (connections, paths, watches) = (totals.connections, totals.paths, totals.watches);
    format!("{connections} connections watching {paths} paths\nTotal watches:{watches}\n")
}

/// Watches by session.
pub fn wchc(context: &QueryContext) -> String {
    let mut out = String::new();
    for (session, paths) in context.server.watches_by_session() {
        let _ = writeln!(out, "{session}");
        paths.iter().for_each(|path| push_indented(&mut out, path));
    }
    out + "\n"
}

/// Watches by path.
pub fn wchp(context: &QueryContext) -> String {
    let mut out = String::new();
    for (path, sessions) in context.server.watches_by_path() {
        out.push_str(&path);
        out.push('\n');
        for session in sessions {
            let _ = writeln!(out, "\t{session}");
        }
    }
    out + "\n"
}

fn push_indented(out: &mut String, path: &str) {
    out.push('\t');
    out.push_str(path);
    out.push('\n');
}

/// Digests of the past; signed, as Java's `long` prints them.
pub fn hash(context: &QueryContext) -> String {
    let mut out = String::new();
    for (zxid, digest) in context.server.digest_log() {
        let _ = writeln!(out, "{:x}: {}", zxid.0, digest.cast_signed());
    }
    out
}

/// Sessions by the time they expire (not on a learner, which does not know), and ephemeral nodes by session.
pub fn sessions_and_ephemerals(command: &CommandContext) -> Fields {
    let server = command.context.server;
    let expiring: Fields = match server.sessions() {
        Sessions::Known(_) => Fields::new(),
        Sessions::Expiring(buckets) => {
            let ids = |bucket: &super::view::Bucket| array(bucket.sessions.iter().map(|session| session.0));
            buckets.iter().map(|bucket| (bucket.expires_mono_ms.to_string(), ids(bucket))).collect()
        }
    };
    fields(json!({
        "expiry_time_to_session_ids": expiring,
        "session_id_to_ephemeral_paths": paths_by_session(server.ephemerals()),
    }))
}

fn paths_by_session(sessions: Vec<(crate::ids::SessionId, Vec<std::borrow::Cow<'_, str>>)>) -> Fields {
    sessions.into_iter().map(|(id, paths)| (id.0.to_string(), array(paths.into_iter().map(String::from)))).collect()
}

/// Watches in numbers.
pub fn watch_summary(command: &CommandContext) -> Fields {
    let totals = command.context.server.watch_totals();
    fields(json!({
        "num_connections": totals.connections, "num_paths": totals.paths, "num_total_watches": totals.watches
    }))
}

/// Watches by session.
pub fn watches(command: &CommandContext) -> Fields {
    fields(json!({ "session_id_to_watched_paths": paths_by_session(command.context.server.watches_by_session()) }))
}

/// Watches by path.
pub fn watches_by_path(command: &CommandContext) -> Fields {
    let paths = command.context.server.watches_by_path();
    let ids = |sessions: Vec<crate::ids::SessionId>| array(sessions.into_iter().map(|session| session.0));
    let by_path: Fields = paths.into_iter().map(|(path, sessions)| (path.into_owned(), ids(sessions))).collect();
    fields(json!({ "path_to_session_ids": by_path }))
}

/// Digests of the past.
pub fn digests(command: &CommandContext) -> Fields {
    let shown = |(zxid, digest): (crate::ids::Zxid, u64)| json!({ "zxid": zxid.0, "digest": digest.cast_signed(), "digest_version": crate::txn::DIGEST_VERSION });
    fields(json!({ "digests": Value::Array(command.context.server.digest_log().into_iter().map(shown).collect()) }))
}

/// The newest snapshot on disk.
pub fn last_snapshot(command: &CommandContext) -> Fields {
    let last = command.context.host.last_snapshot();
    let (zxid, written_s) = last.map_or((-1, -1), |snapshot| (snapshot.zxid.0, snapshot.written_wall_s));
    fields(json!({ "zxid": format!("{zxid:x}"), "timestamp": written_s }))
}
