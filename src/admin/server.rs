//! The words about the server as a whole: srvr, stat, srst, ruok, isro, gtmk, stmk (`ServerStats`, `StatCommand`).
//! Called by the table of words only.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::view::Mode;
use super::words::Ask;
use super::{connections, java, version};
use crate::metrics;

/// Apache's `ZooTrace` mask. Nothing here traces by it; what an operator sets is kept and shown.
static TRACE_MASK: AtomicI64 = AtomicI64::new(306);

/// Statistics of the server.
pub fn srvr(ask: &Ask) -> String {
    heading(ask) + &statistics(ask)
}

/// The same with the connections between.
pub fn stat(ask: &Ask) -> String {
    heading(ask) + "Clients:\n" + &connections::list(ask, false) + &statistics(ask)
}

fn heading(ask: &Ask) -> String {
    let read_only = match ask.server.mode() {
        Mode::ReadOnly => "READ-ONLY mode; serving only read-only clients\n",
        Mode::NotServing | Mode::Standalone | Mode::Leader | Mode::Follower | Mode::Observer => "",
    };
    format!("Zookeeper version: {}\n{read_only}", version::full())
}

fn statistics(ask: &Ask) -> String {
    let (server, stats) = (ask.server, ask.stats);
    let (min, mean, max) = (stats.latency.min, java::double(stats.latency.mean()), stats.latency.max);
    let mut out = format!("Latency min/avg/max: {min}/{mean}/{max}\n");
    let _ = writeln!(out, "Received: {}\nSent: {}", stats.received, stats.sent);
    let _ = writeln!(out, "Connections: {}\nOutstanding: {}", ask.poller.connection_count, server.outstanding());
    let _ = writeln!(out, "Zxid: {}\nMode: {}", server.last_zxid(), server.mode().text());
    let _ = writeln!(out, "Node count: {}", server.node_count());
    if server.mode() == Mode::Leader {
        let sizes = stats.proposal;
        let _ = writeln!(out, "Proposal sizes last/min/max: {}/{}/{}", sizes.last, sizes.min, sizes.max);
    }
    out
}

/// Counters and summaries start again.
pub fn srst(_: &Ask) -> String {
    metrics::reset();
    "Server stats reset.\n".to_owned()
}

/// Whoever can answer is ok.
pub fn ruok(_: &Ask) -> String {
    "imok".to_owned()
}

/// What a client that accepts a read-only server looks for.
pub fn isro(ask: &Ask) -> String {
    match ask.server.mode() {
        Mode::NotServing => "null",
        Mode::ReadOnly => "ro",
        Mode::Standalone | Mode::Leader | Mode::Follower | Mode::Observer => "rw",
    }
    .to_owned()
}

/// The trace mask.
pub fn gtmk(_: &Ask) -> String {
    TRACE_MASK.load(Relaxed).to_string()
}

/// The new trace mask.
pub fn stmk(ask: &Ask) -> String {
    let Some(mask) = ask.poller.argument else { return String::new() };
    TRACE_MASK.store(mask, Relaxed);
    mask.to_string()
}
