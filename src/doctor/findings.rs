//! The judgement: facts in, findings out, nothing else. Every threshold stands here. Called by `cli::doctor`.

use crate::doctor::facts::{
    Address, Answer, Ensemble, Facts, Folder, LeftoverKind, PortUse, Server, Settings, SyncWay,
};
use crate::doctor::sync_ways;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Good to know.
    Note,
    /// It will hurt some day, or does a little.
    Warning,
    /// The server does not start, or must not.
    Error,
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Which check: a word that stays.
    pub check: &'static str,
    /// What is so.
    pub what: String,
    /// What comes of it; empty for a note that is only a number.
    pub consequence: String,
    /// What to do, exactly; empty if nothing.
    pub remedy: String,
}

/// From here on a sync is slow for a log.
const SYNC_P50_SLOW_US: i64 = 5_000;
/// From here on every client feels it.
const SYNC_P50_BAD_US: i64 = 50_000;
/// One write in a hundred waits at least this long.
const SYNC_P99_SLOW_US: i64 = 50_000;
/// No disk is that quick: the sync reached no disk.
const SYNC_P50_IMPOSSIBLE_US: i64 = 8;
/// One way is better than another if it takes less than this part of it.
const BETTER: f64 = 0.8;
/// A timeout that is less than so many round trips ends connections that work.
const ROUND_TRIPS_MIN: u64 = 20;
/// What a learner can be expected to be sent, load and write, at the least.
const SNAPSHOT_BYTES_PER_MS: u64 = 20 << 10;
/// A wall clock that jumps by this is noticed.
const STEP_MS: i64 = 50;
/// With more than this the kernel swaps though there is memory.
const SWAPPINESS_MAX: u32 = 10;
/// Fewer descriptors are soon used up.
const OPEN_FILES_MIN: u64 = 4096;
/// Logs that should find room: the one in use, the one prepared, one to come.
const LOGS_OF_ROOM: u64 = 3;
/// Clock sources that cost a system call a reading.
const SLOW_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];

/// Judges, worst first.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    config(facts, &mut found);
    sync(facts, &mut found);
    clock(facts, &mut found);
    memory(facts, &mut found);
    folders(facts, &mut found);
    if let (Some(ensemble), Some(settings)) = (&facts.ensemble, &facts.settings) {
        members(ensemble, &mut found);
        timeouts(ensemble, settings, facts, &mut found);
    }
    found.0.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        check: &'static str,
        what: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (what, consequence, remedy) = (what.into(), consequence.into(), remedy.into());
        self.0.push(Finding { severity, check, what, consequence, remedy });
    }

    fn error(&mut self, check: &'static str, what: impl Into<String>, then: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Error, check, what, then, fix);
    }

    fn warn(&mut self, check: &'static str, what: impl Into<String>, then: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Warning, check, what, then, fix);
    }

    fn note(&mut self, check: &'static str, what: impl Into<String>, then: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Note, check, what, then, fix);
    }
}

fn config(facts: &Facts, found: &mut Findings) {
    if let Some(error) = &facts.config_error {
        let fix =
            format!("correct {}, then run this again: what depends on it was not checked", facts.config_path.display());
        found.error("config", error, "the server does not start (exit code 2)", fix);
    }
    for warning in &facts.config_warnings {
        found.note("config", warning, "the server says this at each start", "");
    }
    let Some(settings) = &facts.settings else { return };
    if !settings.force_sync {
        let then = "a power failure loses writes that clients were told are done";
        found.error("force-sync", "forceSync=no", then, "remove forceSync from zoo.cfg");
    }
    if !settings.purges {
        let then = "snapshots and logs are kept for ever, until the disk is full";
        let fix = "set autopurge.purgeInterval=1 in zoo.cfg, or run `rookeeper purge` from a timer";
        found.warn("purge", "autopurge is off", then, fix);
    }
    if let Some(next) = &facts.next_config {
        let what = format!("{} is there: members that were proposed, and not known to be committed", next.display());
        let then = "the server starts with them as a second opinion; fine while a reconfiguration is under way";
        let fix = "start the server: when it has joined, it removes the file. Do not edit it";
        found.note("dynamic-next", what, then, fix);
    }
}

fn ms(us: i64) -> String {
    if us < 10_000 { format!("{us} µs") } else { format!("{} ms", us / 1000) }
}

fn sync(facts: &Facts, found: &mut Findings) {
    if let Some(error) = &facts.disk_error {
        let fix = "run this as the user that the server runs as, or root; make room if the disk is full";
        found.warn(
            "disk-sync",
            format!("the disk could not be measured: {error}"),
            "how fast writes can be is not known",
            fix,
        );
    }
    let Some(disk) = &facts.disk else { return };
    let dir = disk.dir.display();
    match disk.file_system {
        Some("tmpfs") => {
            let fix = "put dataDir and dataLogDir on a disk";
            found.error("file-system", format!("{dir} is in memory (tmpfs)"), "a reboot loses all data", fix);
        }
        Some("nfs") => {
            let then = "syncs wait for the network, and a lock that is lost lets two servers write";
            found.warn("file-system", format!("{dir} is on NFS"), then, "put dataDir and dataLogDir on a local disk");
        }
        Some(other) => {
            let then = "data in a container's own layer goes with the container, and is slower";
            found.warn(
                "file-system",
                format!("{dir} is on {other}"),
                then,
                "mount a volume for dataDir and dataLogDir",
            );
        }
        None => {}
    }
    let named = |name: &str| disk.ways.iter().find(|way| way.name == name);
    for way in &disk.ways {
        let SyncWay { name, p50_us, p99_us, count } = way;
        let what = format!("{name}: p50 {}, p99 {} ({count} syncs of 1,100 bytes)", ms(*p50_us), ms(*p99_us));
        found.note("disk-sync", what, "", "");
    }
    let through_mapping = facts.settings.as_ref().is_some_and(|settings| settings.log_through_mapping);
    let (mine, other, setting) = if through_mapping {
        (named(sync_ways::SERVER_MMAP.name), named(sync_ways::SERVER.name), "write")
    } else {
        (named(sync_ways::SERVER.name), named(sync_ways::SERVER_MMAP.name), "mmap")
    };
    let Some(mine) = mine else { return };
    judge_sync(mine, &dir.to_string(), found);
    if let Some(other) = other
        && (other.p50_us as f64) < BETTER * mine.p50_us as f64
        && (other.p99_us as f64) < mine.p99_us as f64
    {
        let what = format!(
            "txnLogStore={setting} takes {} for a sync here, what is set takes {}",
            ms(other.p50_us),
            ms(mine.p50_us)
        );
        found.note(
            "log-store",
            what,
            "every write waits longer than it need",
            format!("set txnLogStore={setting} in zoo.cfg, then measure under load"),
        );
    }
}

fn judge_sync(mine: &SyncWay, dir: &str, found: &mut Findings) {
    let per_second = 1_000_000 / mine.p50_us.max(1);
    let what = format!("a sync of the log in {dir} takes {} (p50), {} (p99)", ms(mine.p50_us), ms(mine.p99_us));
    let fix =
        "put dataLogDir on a disk of its own, an SSD with power-loss protection; nothing else on it, no snapshots";
    if mine.p50_us < SYNC_P50_IMPOSSIBLE_US {
        let then = "that reaches no disk: a power failure may lose what clients were told is done";
        found.warn(
            "disk-sync",
            what,
            then,
            "find out what swallows syncs: eatmydata, a disk mounted with nobarrier, a hypervisor's cache=unsafe",
        );
    } else if mine.p50_us >= SYNC_P50_BAD_US {
        let then = format!(
            "every write waits for it; a client that waits for each gets fewer than {} a second",
            per_second + 1
        );
        found.error("disk-sync", what, then, fix);
    } else if mine.p50_us >= SYNC_P50_SLOW_US {
        found.warn(
            "disk-sync",
            what,
            format!("a client that waits for each write gets at most {per_second} a second"),
            fix,
        );
    } else if mine.p99_us >= SYNC_P99_SLOW_US {
        found.warn("disk-sync", what, "one write in a hundred waits that long, and all that come meanwhile", fix);
    }
}

fn clock(facts: &Facts, found: &mut Findings) {
    if let Some((source, available)) = &facts.clock.source {
        if SLOW_CLOCKS.contains(&source.as_str()) {
            let better = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];
            let better = better.iter().find(|name| available.iter().any(|there| there == *name));
            let fix = match better {
                Some(name) => format!(
                    "echo {name} > /sys/devices/system/clocksource/clocksource0/current_clocksource; to keep it, boot with clocksource={name}"
                ),
                None => "ask whoever runs the hypervisor for a stable TSC (the kernel's log says why it was given up)"
                    .into(),
            };
            found.warn(
                "clock-source",
                format!("the clock source is {source}"),
                "reading a clock takes a microsecond or more instead of 20 ns; the server reads it at every step",
                fix,
            );
        } else {
            found.note("clock-source", format!("the clock source is {source}"), "", "");
        }
    }
    match facts.clock.synchronised {
        Some((false, _)) => {
            let then = "ctime, mtime and TTLs differ between servers; logs of several hosts cannot be read together";
            let fix = "run one of chrony, systemd-timesyncd or ntpd: systemctl enable --now systemd-timesyncd";
            found.warn(
                "clock-sync",
                "nothing keeps the wall clock on time (the kernel says it is not synchronised)",
                then,
                fix,
            );
        }
        Some((true, error_us)) => {
            found.note("clock-sync", format!("the wall clock is kept on time, within {}", ms(error_us)), "", "")
        }
        None => {}
    }
    if facts.clock.step_ms.abs() >= STEP_MS {
        let what = format!("the wall clock jumped by {} ms while this ran", facts.clock.step_ms);
        let then =
            "ctime and mtime jump with it; TTL nodes may go early or late. Sessions do not: they go by another clock";
        found.warn(
            "clock-step",
            what,
            then,
            "let the clock slew: with chrony, `makestep 1 3` at most; stop what else sets it (guest tools, cron)",
        );
    }
}

fn memory(facts: &Facts, found: &mut Findings) {
    let host = &facts.host;
    let mib = |bytes: u64| bytes >> 20;
    if let Some(swappiness) = host.swappiness
        && host.swap_bytes > 0
        && (swappiness > SWAPPINESS_MAX || host.swap_used_bytes > 0)
    {
        let what = format!(
            "{} MiB of swap, {} MiB in use, vm.swappiness is {swappiness}",
            mib(host.swap_bytes),
            mib(host.swap_used_bytes)
        );
        let then =
            "pages of the server may be swapped out; a request that needs one waits for the disk, and sessions expire";
        let fix = "swapoff -a and remove it from /etc/fstab; or sysctl -w vm.swappiness=1, kept in /etc/sysctl.d/90-rookeeper.conf";
        found.warn("swap", what, then, fix);
    }
    if host.huge_pages.as_deref() == Some("always") {
        let then = "the kernel joins and splits pages behind the server's back: pauses of milliseconds, and more memory than it asked for";
        let fix = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled; to keep it, boot with transparent_hugepage=madvise";
        found.warn("huge-pages", "transparent huge pages are always on", then, fix);
    }
    if let Some(max) = host.open_files_max.filter(|max| *max < OPEN_FILES_MIN) {
        let then = format!("no more than about {} clients can be connected", max.saturating_sub(64));
        let fix = "LimitNOFILE=65536 in the service, or `ulimit -Hn 65536` where it is started by hand";
        found.warn("open-files", format!("{max} open files are allowed here (hard limit)"), then, fix);
    }
}

fn folders(facts: &Facts, found: &mut Findings) {
    let log_bytes = facts.settings.as_ref().map_or(64 << 20, |settings| settings.log_bytes);
    for folder in &facts.folders {
        let path = folder.path.display();
        if let Some(error) = &folder.error {
            let fix = "fine before the first start: the server makes it. Else give the server's user the right to it, or correct dataDir and dataLogDir";
            found.note("data-dir", format!("{path}: {error}"), "nothing in it could be checked", fix);
        }
        if folder.in_use {
            found.note("data-dir", format!("{path}: a server is running on it"), "", "");
        }
        room(folder, log_bytes, found);
        leftovers(folder, found);
        if let Some(first) = folder.foreign.first() {
            let what = format!(
                "{path}: {} of its files are not of its owner, {}, or closed to it ({}, …)",
                folder.foreign.len(),
                folder.owner,
                first.display()
            );
            let then = "a server that runs as the owner does not start, or ends when it comes to them";
            found.error("ownership", what, then, format!("chown -R {0}: {path}; chmod -R u+rwX {path}", folder.owner));
        }
    }
    if let (Some([snapshots, logs]), Some(settings)) = (facts.folders.get(..2), &facts.settings)
        && settings.has_log_dir
        && snapshots.device == logs.device
        && snapshots.device != 0
    {
        let what = "dataLogDir and dataDir are two folders on the same file system";
        let then = "nothing is won: a snapshot being written still slows every sync of the log";
        found.warn("same-disk", what, then, "put dataLogDir on a disk of its own, or leave it out");
    } else if facts.settings.as_ref().is_some_and(|settings| !settings.has_log_dir) {
        let then = "a snapshot being written slows the syncs of the log; the server writes it slowly for that reason";
        found.note("same-disk", "logs and snapshots share a disk", then, "with a second disk: dataLogDir there");
    }
}

fn room(folder: &Folder, log_bytes: u64, found: &mut Findings) {
    let of_logs = if folder.holds_logs { log_bytes } else { 0 };
    let wanted = LOGS_OF_ROOM * of_logs + if folder.holds_snapshots { 2 * folder.snapshot_bytes } else { 0 };
    let free = folder.free_bytes;
    let what = format!("{}: {} MiB are free, {} MiB are wanted", folder.path.display(), free >> 20, wanted >> 20);
    let then = "when a log or snapshot finds no room, the server ends (exit codes 10 and 11)";
    let fix = "make room: `rookeeper purge`; set autopurge.purgeInterval=1; or a smaller preAllocSize";
    if free < of_logs {
        found.error("disk-space", what, then, fix);
    } else if free < wanted {
        found.warn("disk-space", what, then, fix);
    }
}

fn leftovers(folder: &Folder, found: &mut Findings) {
    let of = |kind: LeftoverKind| folder.leftovers.iter().filter(move |left| left.kind == kind);
    for stray in of(LeftoverKind::Stray) {
        let what = format!("{}: its name begins like a log's or snapshot's", stray.path.display());
        let then =
            "servers of Apache read it as one, with what it says; ours reads it where no exact name says the same";
        found.warn("leftovers", what, then, format!("mv {} somewhere else", stray.path.display()));
    }
    for uncut in of(LeftoverKind::Uncut) {
        let what = format!(
            "{}: a log as it was before its unfinished end was cut, {} bytes",
            uncut.path.display(),
            uncut.bytes
        );
        let fix =
            format!("look at it with `rookeeper log dump`; once nobody misses a write, rm {}", uncut.path.display());
        found.note("leftovers", what, "nobody reads it; it stays for ever", fix);
    }
    let rest: Vec<_> = of(LeftoverKind::Unfinished).chain(of(LeftoverKind::OfTool)).collect();
    if let Some(first) = rest.first() {
        let bytes: u64 = rest.iter().map(|left| left.bytes).sum();
        let what = format!("{} unfinished files, {bytes} bytes ({}, …)", rest.len(), first.path.display());
        let fix = match of(LeftoverKind::OfTool).next() {
            Some(left) => format!("rm {}; the next start removes the others", left.path.display()),
            None => "none: the next start removes them".into(),
        };
        found.note("leftovers", what, "a server or tool was interrupted; they hold nothing", fix);
    }
}

fn members(ensemble: &Ensemble, found: &mut Findings) {
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
            judge_address(ensemble.my_id, server, address, found);
        }
    }
}

fn judge_address(my_id: i64, server: &Server, address: &Address, found: &mut Findings) {
    let (id, host) = (server.id, &address.host);
    if address.ips.is_empty() {
        let fix = format!(
            "add {host} to DNS or, better, to /etc/hosts of every server: `getent hosts {host}` must find it; or write its address in zoo.cfg"
        );
        found.error(
            "names",
            format!("server.{id}: the name {host} cannot be resolved here"),
            "this server cannot talk to that one",
            fix,
        );
        return;
    }
    if server.id != my_id
        && address.ips.iter().all(std::net::IpAddr::is_loopback)
        && host != "localhost"
        && host.parse::<std::net::IpAddr>().is_err()
    {
        let fix = format!("remove {host} from the line of 127.0.0.1 in /etc/hosts and give it its own address");
        found.error(
            "names",
            format!("server.{id}: the name {host} stands for this host's loopback"),
            "this server would talk to itself",
            fix,
        );
    }
    if id == my_id && host.ends_with("localhost") {
        return;
    }
    match address.is_local {
        Some(false) => {
            let shown: Vec<String> = address.ips.iter().map(ToString::to_string).collect();
            let what = format!(
                "server.{id} is this server (myid), but {host} ({}) is no address of this host",
                shown.join(", ")
            );
            let fix = format!(
                "put the right number into myid, or the right address behind server.{id}; behind NAT, quorumListenOnAllIPs=true"
            );
            found.error(
                "myid",
                what,
                "it cannot listen for the others (exit code 14), or it is not the server it takes itself for",
                fix,
            );
        }
        Some(true) if address.ips.iter().all(std::net::IpAddr::is_loopback) => {
            let fix = format!(
                "let {host} stand for the address that the others use (Debian's 127.0.1.1 line in /etc/hosts), or set quorumListenOnAllIPs=true"
            );
            found.warn(
                "names",
                format!("server.{id}: {host} is this server, and stands for a loopback address"),
                "it listens where no other host can reach it",
                fix,
            );
        }
        _ => {}
    }
    for (port, kind, answer) in &address.ports {
        judge_port(id, host, *port, *kind, answer, found);
    }
}

fn judge_port(id: i64, host: &str, port: u16, kind: PortUse, answer: &Answer, found: &mut Findings) {
    let place =
        format!("server.{id} ({host}:{port}, {})", if kind == PortUse::Election { "election" } else { "quorum" });
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

fn timeouts(ensemble: &Ensemble, settings: &Settings, facts: &Facts, found: &mut Findings) {
    let trips = ensemble.servers.iter().flat_map(|server| &server.addresses).flat_map(|address| &address.ports);
    let slowest_us = trips.filter_map(|(_, _, answer)| answer.round_trip_us()).max();
    if let Some(slowest_us) = slowest_us {
        let needed_ms = ROUND_TRIPS_MIN * u64::try_from(slowest_us).unwrap_or(0) / 1000;
        let slow = format!("a round trip to the slowest server takes {}", ms(slowest_us));
        let limits = [
            ("syncLimit", settings.sync_ms, "followers are dropped by the leader though they work"),
            ("tickTime", u64::from(settings.tick_ms), "pings come late, and sessions expire though their clients live"),
        ];
        for (key, limit_ms, then) in limits.into_iter().filter(|(_, limit_ms, _)| *limit_ms < needed_ms) {
            let what = format!("{key} is {limit_ms} ms, and {slow}");
            found.warn(
                "timeouts",
                what,
                then,
                format!("set it so that it is at least {needed_ms} ms, the same on every server"),
            );
        }
    }
    let p99_ms = facts
        .disk
        .iter()
        .flat_map(|disk| &disk.ways)
        .find(|way| way.name == sync_ways::SERVER.name)
        .map(|way| way.p99_us / 1000);
    if let Some(p99_ms) = p99_ms.filter(|p99_ms| u64::try_from(*p99_ms).unwrap_or(0) * 4 > u64::from(settings.tick_ms))
    {
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::doctor::facts::{Clock, Disk, Host, Leftover};

    fn way(name: &'static str, p50_us: i64, p99_us: i64) -> SyncWay {
        SyncWay { name, p50_us, p99_us, count: 100 }
    }

    fn server(id: i64, last: u8, answer: Answer) -> Server {
        let ports = if id == 1 { Vec::new() } else { vec![(3888, PortUse::Election, answer)] };
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        let is_local = (id == 1).then_some(true);
        Server { id, addresses: vec![Address { host: format!("h{id}"), ips: vec![ip], is_local, ports }] }
    }

    /// A host that has nothing to complain about.
    fn healthy() -> Facts {
        let open = || Answer::Open { round_trip_us: 200 };
        Facts {
            config_path: "zoo.cfg".into(),
            settings: Some(Settings {
                tick_ms: 2000,
                init_ms: 20_000,
                sync_ms: 10_000,
                session_timeout_min_ms: 4000,
                log_bytes: 64 << 20,
                force_sync: true,
                purges: true,
                ..Settings::default()
            }),
            disk: Some(Disk {
                dir: "/data".into(),
                ways: vec![way(sync_ways::SERVER.name, 110, 300), way(sync_ways::SERVER_MMAP.name, 105, 300)],
                file_system: None,
            }),
            clock: Clock {
                source: Some(("tsc".into(), vec!["tsc".into(), "hpet".into()])),
                synchronised: Some((true, 900)),
                step_ms: 0,
            },
            host: Host {
                swappiness: Some(60),
                huge_pages: Some("madvise".into()),
                open_files_max: Some(1 << 16),
                memory_bytes: 4 << 30,
                ..Host::default()
            },
            ensemble: Some(Ensemble {
                my_id: 1,
                participants: 3,
                servers: vec![server(1, 1, open()), server(2, 2, open()), server(3, 3, open())],
            }),
            folders: vec![Folder {
                path: "/data/version-2".into(),
                holds_logs: true,
                holds_snapshots: true,
                device: 5,
                free_bytes: 1 << 40,
                ..Folder::default()
            }],
            ..Facts::default()
        }
    }

    /// What a change of the healthy host brings: the findings that are no notes, by check.
    fn after(change: impl FnOnce(&mut Facts)) -> Vec<(Severity, &'static str)> {
        let mut facts = healthy();
        change(&mut facts);
        let found = examine(&facts);
        for finding in found.iter().filter(|finding| finding.severity > Severity::Note) {
            assert!(!finding.consequence.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
        }
        let found = found.into_iter().filter(|finding| finding.severity > Severity::Note);
        found.map(|finding| (finding.severity, finding.check)).collect()
    }

    use Severity::{Error, Warning};

    #[test]
    fn a_healthy_host_is_left_alone() {
        assert_eq!(after(|_| ()), []);
    }

    #[test]
    fn a_slow_disk_is_told_by_how_slow_it_is() {
        let disk = |p50_us, p99_us| {
            after(|facts| facts.disk.as_mut().unwrap().ways = vec![way(sync_ways::SERVER.name, p50_us, p99_us)])
        };
        assert_eq!(disk(6000, 9000), [(Warning, "disk-sync")]);
        assert_eq!(disk(200, 60_000), [(Warning, "disk-sync")]);
        assert_eq!(disk(60_000, 90_000), [(Error, "disk-sync")]);
        assert_eq!(disk(3, 5), [(Warning, "disk-sync")]);
        // A tick of 2 s is too short for it, too.
        assert_eq!(disk(60_000, 700_000), [(Error, "disk-sync"), (Warning, "timeouts")]);
        assert_eq!(after(|facts| facts.disk.as_mut().unwrap().file_system = Some("tmpfs")), [(Error, "file-system")]);
    }

    #[test]
    fn the_better_way_to_sync_is_named_where_it_is_clearly_better() {
        let named = |ours: i64, other: i64, through_mapping: bool| {
            let mut facts = healthy();
            facts.settings.as_mut().unwrap().log_through_mapping = through_mapping;
            let (write, mmap) = if through_mapping { (other, ours) } else { (ours, other) };
            facts.disk.as_mut().unwrap().ways =
                vec![way(sync_ways::SERVER.name, write, write * 2), way(sync_ways::SERVER_MMAP.name, mmap, mmap * 2)];
            examine(&facts).into_iter().find(|finding| finding.check == "log-store").map(|finding| finding.remedy)
        };
        assert_eq!(named(110, 105, false), None);
        assert!(named(200, 100, false).unwrap().contains("txnLogStore=mmap"));
        assert!(named(200, 100, true).unwrap().contains("txnLogStore=write"));
    }

    #[test]
    fn clocks_that_are_slow_free_or_jumpy_are_told() {
        let hpet = after(|facts| facts.clock.source = Some(("hpet".into(), vec!["tsc".into(), "hpet".into()])));
        assert_eq!(hpet, [(Warning, "clock-source")]);
        assert_eq!(after(|facts| facts.clock.synchronised = Some((false, 0))), [(Warning, "clock-sync")]);
        assert_eq!(after(|facts| facts.clock.step_ms = -1000), [(Warning, "clock-step")]);
    }

    #[test]
    fn memory_that_may_go_to_disk_is_told() {
        assert_eq!(after(|facts| facts.host.swap_bytes = 1 << 30), [(Warning, "swap")]);
        let careful = after(|facts| (facts.host.swap_bytes, facts.host.swappiness) = (1 << 30, Some(1)));
        assert_eq!(careful, []);
        assert_eq!(after(|facts| facts.host.huge_pages = Some("always".into())), [(Warning, "huge-pages")]);
        assert_eq!(after(|facts| facts.host.open_files_max = Some(1024)), [(Warning, "open-files")]);
    }

    #[test]
    fn an_ensemble_that_no_failure_fits_is_told() {
        assert_eq!(after(|facts| facts.ensemble.as_mut().unwrap().participants = 4), [(Warning, "members")]);
        assert_eq!(after(|facts| facts.ensemble.as_mut().unwrap().participants = 2), [(Warning, "members")]);
        assert_eq!(after(|facts| facts.ensemble.as_mut().unwrap().participants = 5), []);
    }

    #[test]
    fn servers_that_cannot_be_found_or_reached_are_told() {
        let second = |change: fn(&mut Address)| {
            after(|facts| change(&mut facts.ensemble.as_mut().unwrap().servers[1].addresses[0]))
        };
        assert_eq!(second(|a| a.ips.clear()), [(Error, "names")]);
        assert_eq!(second(|a| a.ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]), [(Error, "names")]);
        assert_eq!(second(|a| a.ports[0].2 = Answer::Silent), [(Error, "ports")]);
        assert_eq!(second(|a| a.ports[0].2 = Answer::Refused { round_trip_us: 9 }), [(Warning, "ports")]);
        let quorum = |answer| second_port(answer);
        assert_eq!(quorum(Answer::Refused { round_trip_us: 9 }), []);
        assert_eq!(quorum(Answer::Silent), [(Error, "ports")]);
    }

    fn second_port(answer: Answer) -> Vec<(Severity, &'static str)> {
        after(|facts| {
            let address = &mut facts.ensemble.as_mut().unwrap().servers[1].addresses[0];
            address.ports.push((2888, PortUse::Quorum, answer));
        })
    }

    #[test]
    fn a_myid_of_another_host_is_told() {
        let own = |change: fn(&mut Address)| {
            after(|facts| change(&mut facts.ensemble.as_mut().unwrap().servers[0].addresses[0]))
        };
        assert_eq!(own(|a| a.is_local = Some(false)), [(Error, "myid")]);
        assert_eq!(own(|a| a.ips = vec![IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1))]), [(Warning, "names")]);
    }

    #[test]
    fn timeouts_shorter_than_the_network_or_the_data_are_told() {
        let slow = after(|facts| {
            facts.settings.as_mut().unwrap().tick_ms = 100;
            let address = &mut facts.ensemble.as_mut().unwrap().servers[2].addresses[0];
            address.ports[0].2 = Answer::Open { round_trip_us: 20_000 };
        });
        assert_eq!(slow, [(Warning, "timeouts")]);
        assert_eq!(after(|facts| facts.folders[0].snapshot_bytes = 2 << 30), [(Warning, "timeouts")]);
    }

    #[test]
    fn what_lies_about_in_the_data_is_told() {
        let left = |kind| {
            after(|facts| facts.folders[0].leftovers = vec![Leftover { path: "/data/x".into(), kind, bytes: 7 }])
        };
        assert_eq!(left(LeftoverKind::Stray), [(Warning, "leftovers")]);
        assert_eq!(left(LeftoverKind::Uncut), []);
        assert_eq!(after(|facts| facts.folders[0].foreign = vec!["/data/log.1".into()]), [(Error, "ownership")]);
        assert_eq!(after(|facts| facts.folders[0].free_bytes = 100 << 20), [(Warning, "disk-space")]);
        assert_eq!(after(|facts| facts.folders[0].free_bytes = 10 << 20), [(Error, "disk-space")]);
    }

    #[test]
    fn settings_that_lose_data_or_fill_the_disk_are_told() {
        assert_eq!(after(|facts| facts.settings.as_mut().unwrap().force_sync = false), [(Error, "force-sync")]);
        assert_eq!(after(|facts| facts.settings.as_mut().unwrap().purges = false), [(Warning, "purge")]);
        assert_eq!(after(|facts| facts.config_error = Some("myid is missing".into())), [(Error, "config")]);
        let two = after(|facts| {
            facts.settings.as_mut().unwrap().has_log_dir = true;
            let snapshots = Folder { holds_logs: false, ..facts.folders[0].clone() };
            facts.folders.insert(0, snapshots);
        });
        assert_eq!(two, [(Warning, "same-disk")]);
    }
}
