//! Rules about the ensemble: its members, their names and ports, its timeouts. Pure; called by `findings`.

use crate::doctor::facts::{Address, Answer, Ensemble, Facts, PortUse, Server, Settings};
use crate::doctor::findings::{Findings, ms};

/// A timeout that is less than so many round trips ends connections that work.
const ROUND_TRIPS_MIN: u64 = 20;
/// What a learner can be expected to be sent, load and write, at the least.
const SNAPSHOT_BYTES_PER_MS: u64 = 20 << 10;
/// The other remedy for an own address that does not fit.
const EVERYWHERE: &str = "or, behind NAT, set quorumListenOnAllIPs=true";

/// Who is in the ensemble, and who can be reached.
pub(super) fn members(ensemble: &Ensemble, found: &mut Findings) {
    let voters = ensemble.participants;
    let tolerated = voters.saturating_sub(1) / 2;
    if voters < 3 {
        let what = format!("{voters} servers vote");
        found.warn(
            "members",
            what,
            "no server may fail: the ensemble stops with any of them",
            "have three servers, or an odd number above that",
        );
    } else if voters.is_multiple_of(2) {
        let what = format!("{voters} servers vote, an even number");
        let then = format!("{tolerated} may fail, as with {}; every write waits for one more", voters - 1);
        found.warn("members", what, then, "add one, remove one, or make one an observer (:observer behind its line)");
    } else {
        found.note("members", format!("{voters} servers vote, {tolerated} may fail"), "", "");
    }
    for server in &ensemble.servers {
        for address in &server.addresses {
            judge_address(ensemble, server, address, found);
        }
    }
}

fn judge_address(ensemble: &Ensemble, server: &Server, address: &Address, found: &mut Findings) {
    let (id, host) = (server.id, &address.host);
    let shown = address.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let loops_back = !ensemble.is_one_host() && address.is_loopback();
    if address.ips.is_empty() {
        let what = format!("server.{id}: the name {host} cannot be resolved here");
        let fix =
            format!("add {host} to DNS or to /etc/hosts (`getent hosts {host}` must find it), or write its address");
        found.error("names", what, "this server cannot talk to that one", fix);
    } else if id != ensemble.my_id && loops_back {
        let what = format!("server.{id}: {host} stands for this host's loopback ({shown})");
        let fix = format!("give {host} its own address in /etc/hosts, DNS or zoo.cfg");
        found.error("names", what, "this server would talk to itself", fix);
    } else if address.is_local == Some(false) && !ensemble.listens_everywhere {
        let what = format!("server.{id} is this server by its myid, but {host} ({shown}) is no address of this host");
        let then = "it cannot listen for the others (exit code 14), or is not the server it takes itself for";
        let fix = format!("put the right number into myid or the right address behind server.{id}; {EVERYWHERE}");
        found.error("myid", what, then, fix);
    } else if address.is_local == Some(true) && loops_back && !ensemble.listens_everywhere {
        let what = format!("server.{id}: {host} is this server, and stands for its loopback ({shown})");
        let fix = format!(
            "give {host} the address that the others use (on Debian, the 127.0.1.1 line of /etc/hosts); {EVERYWHERE}"
        );
        found.warn("names", what, "it listens where no other host can reach it", fix);
    }
    let is_up = server
        .addresses
        .iter()
        .flat_map(|address| &address.ports)
        .any(|(_, kind, answer)| *kind == PortUse::Election && matches!(answer, Answer::Open { .. }));
    for (port, kind, answer) in &address.ports {
        // Nobody asks a server that is down, which is told already, for its clients' port.
        if *kind != PortUse::Client || is_up {
            judge_port(id, host, *port, *kind, answer, found);
        }
    }
}

fn judge_port(id: i64, host: &str, port: u16, kind: PortUse, answer: &Answer, found: &mut Findings) {
    let named = match kind {
        PortUse::Election => "election",
        PortUse::Quorum => "quorum",
        PortUse::Client => "clients",
    };
    let place = format!("server.{id} ({host}:{port}, {named})");
    let firewall = format!(
        "on {host}: `ss -ltn` shows who listens; open port {port} to this host in every firewall between, dropped packets look like this"
    );
    match (answer, kind) {
        (Answer::Open { round_trip_us }, _) => {
            found.note("ports", format!("{place} answers in {}", ms(*round_trip_us)), "", "");
        }
        // Only a leader has it open.
        (Answer::Refused { .. }, PortUse::Quorum) => {}
        (Answer::Refused { .. }, PortUse::Election) => {
            let fix = format!(
                "start it; if it runs, compare its election port with server.{id} here, and see whether a firewall rejects"
            );
            found.warn(
                "ports",
                format!("{place}: nobody listens there"),
                "that server is down, or listens elsewhere: it cannot be voted with",
                fix,
            );
        }
        (Answer::Refused { .. }, PortUse::Client) => {
            let then = "that server runs and listens for clients elsewhere: those that are sent there do not find it";
            let fix = format!(
                "compare what stands behind the ; of server.{id} with its own configuration and `ss -ltn` on {host}"
            );
            found.warn("ports", format!("{place}: nobody listens there"), then, fix);
        }
        (Answer::Silent | Answer::Failed(_), PortUse::Client) => {
            let error = if let Answer::Failed(error) = answer { error } else { "no answer" };
            let then = "clients on this side of a firewall do not reach that server; other servers do";
            found.warn("ports", format!("{place}: {error}"), then, firewall);
        }
        (Answer::Silent, PortUse::Election) => {
            found.error(
                "ports",
                format!("{place}: no answer"),
                "that host is down or a firewall drops packets: the two servers cannot vote together",
                firewall,
            );
        }
        (Answer::Silent, PortUse::Quorum) => {
            found.error(
                "ports",
                format!("{place}: no answer"),
                "should that server lead, this one cannot follow it",
                firewall,
            );
        }
        (Answer::Failed(error), _) => {
            found.error(
                "ports",
                format!("{place}: {error}"),
                "the two servers cannot talk",
                format!("`ip route get {host}` must find a way there"),
            );
        }
    }
}

/// Limits against what was measured.
pub(super) fn timeouts(ensemble: &Ensemble, settings: &Settings, facts: &Facts, found: &mut Findings) {
    let tick_ms = u64::from(settings.tick_ms);
    // What follows from another limit is mended with that one.
    let unless = |limit_ms: u64, other_ms: u64| if limit_ms == other_ms { u64::MAX } else { limit_ms };
    let session_ms = unless(settings.session_timeout_min_ms, 2 * tick_ms);
    let connect_ms = unless(settings.connect_ms, settings.init_ms);
    let trips = ensemble.servers.iter().flat_map(|server| &server.addresses).flat_map(|address| &address.ports);
    let slowest_us = trips.filter_map(|(_, _, answer)| answer.round_trip_us()).max().unwrap_or(0);
    let needed_ms = ROUND_TRIPS_MIN * u64::try_from(slowest_us).unwrap_or(0) / 1000;
    let limits = [
        ("initLimit", settings.init_ms, "a server that joins gives up, or is given up, before it has caught up"),
        ("syncLimit", settings.sync_ms, "followers are dropped by the leader though they work"),
        ("tickTime", tick_ms, "pings come late, and sessions expire though their clients live"),
        ("minSessionTimeout", session_ms, "sessions that ask for so little expire though their clients live"),
        ("cnxTimeout", settings.dial_ms, "servers give up connections to each other that would come: no vote arrives"),
        ("connectToLearnerMasterLimit", connect_ms, "a follower gives up the leader before it is connected"),
    ];
    for (key, limit_ms, then) in limits.into_iter().filter(|(_, limit_ms, _)| *limit_ms < needed_ms) {
        let what = format!("{key} is {limit_ms} ms, and a round trip to the slowest server takes {}", ms(slowest_us));
        let fix = format!("set it so that it is at least {needed_ms} ms, the same on every server");
        found.warn("timeouts", what, then, fix);
    }
    if (needed_ms..tick_ms).contains(&session_ms) {
        let what = format!("minSessionTimeout is {session_ms} ms, less than tickTime, {tick_ms} ms");
        let then = "a leader hears of the clients of others twice a tick: sessions that ask for so little may expire though their clients live";
        let fix = format!("set minSessionTimeout={} or leave it out, the same on every server", 2 * tick_ms);
        found.warn("timeouts", what, then, fix);
    }
    let p99_ms = facts.server_sync().map(|way| way.p99_us / 1000);
    if let Some(p99_ms) = p99_ms.filter(|p99_ms| u64::try_from(*p99_ms).unwrap_or(0) * 4 > tick_ms) {
        let what = format!("tickTime is {} ms, and a sync may take {p99_ms} ms", settings.tick_ms);
        found.warn(
            "timeouts",
            what,
            "a follower that syncs may be taken for dead",
            format!("set tickTime={} or more, the same on every server", p99_ms * 4),
        );
    }
    let snapshot_bytes = facts.folders.iter().map(|folder| folder.snapshot_bytes).max().unwrap_or(0);
    let load_ms = snapshot_bytes / SNAPSHOT_BYTES_PER_MS;
    if load_ms > settings.init_ms {
        let what =
            format!("initLimit is {} ms, and the newest snapshot has {} MiB", settings.init_ms, snapshot_bytes >> 20);
        let then = "a server that must fetch all the data may not be done in time, and begins again and again";
        let ticks = load_ms.div_ceil(u64::from(settings.tick_ms.max(1)));
        found.warn("timeouts", what, then, format!("set initLimit={ticks} or more, the same on every server"));
    }
}
