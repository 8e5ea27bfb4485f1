//! The words about what is stored and watched: dump, wchs, wchc, wchp, hash (`SessionTrackerImpl`, `DataTree`,
//! `WatchManager`). Long on a busy server: they are made only when asked. Called by the table of words only.

use std::fmt::Write;

use super::connections;
use super::java;
use super::view::Sessions;
use super::words::Ask;

/// Sessions, their ephemeral nodes, connections.
pub fn dump(ask: &Ask) -> String {
    let mut out = "SessionTracker dump:\n".to_owned() + &sessions(ask) + "ephemeral nodes dump:\n";
    let owners = ask.server.ephemerals();
    let _ = writeln!(out, "Sessions with Ephemerals ({}):", owners.len());
    for (session, paths) in owners {
        let _ = writeln!(out, "{session}:");
        paths.iter().for_each(|path| push_indented(&mut out, path));
    }
    out + "Connections dump:\n" + &connections::by_expiry(ask)
}

fn sessions(ask: &Ask) -> String {
    let buckets = match ask.server.sessions() {
        Sessions::Known(known) => {
            let mut out = format!("Global Sessions({}):\n", known.len());
            for (session, timeout_ms) in known {
                let _ = writeln!(out, "{session}\t{timeout_ms}ms");
            }
            return out;
        }
        Sessions::Expiring(buckets) => buckets,
    };
    let zone = ask.host.time_zone();
    let count: usize = buckets.iter().map(|bucket| bucket.sessions.len()).sum();
    let mut out = format!("Session Sets ({})/({count}):\n", buckets.len());
    for bucket in buckets {
        let date = java::date(ask.now.wall_ms + bucket.expires_mono_ms - ask.now.mono_ms, &zone);
        let _ = writeln!(out, "{} expire at {date}:", bucket.sessions.len());
        for session in bucket.sessions {
            let _ = writeln!(out, "\t{session}");
        }
    }
    out
}

/// Watches in numbers.
pub fn wchs(ask: &Ask) -> String {
    let totals = ask.server.watch_totals();
    let (connections, paths, watches) = (totals.connections, totals.paths, totals.watches);
    format!("{connections} connections watching {paths} paths\nTotal watches:{watches}\n")
}

/// Watches by session.
pub fn wchc(ask: &Ask) -> String {
    let mut out = String::new();
    for (session, paths) in ask.server.watches_by_session() {
        let _ = writeln!(out, "{session}");
        paths.iter().for_each(|path| push_indented(&mut out, path));
    }
    out + "\n"
}

/// Watches by path.
pub fn wchp(ask: &Ask) -> String {
    let mut out = String::new();
    for (path, sessions) in ask.server.watches_by_path() {
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
pub fn hash(ask: &Ask) -> String {
    let mut out = String::new();
    for (zxid, digest) in ask.server.digest_log() {
        let _ = writeln!(out, "{:x}: {}", zxid.0, digest.cast_signed());
    }
    out
}
