//! Rules about the host: disk, clocks, memory, limits. Pure; called by `findings`.

use crate::doctor::facts::{Facts, Service, SyncWay};
use crate::doctor::findings::{Findings, ms};
use crate::doctor::sync_ways;
use crate::net::admit::Descriptors;

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
/// A wall clock that jumps by this is noticed.
const STEP_MS: i64 = 50;
/// With more than this the kernel swaps though there is memory.
const SWAPPINESS_MAX: u32 = 10;
/// Fewer descriptors are soon used up.
const OPEN_FILES_MIN: u64 = 4096;
/// Clock sources that cost a system call a reading.
const SLOW_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];

/// How quick the disk of the logs is, and whether another way to sync would be quicker.
pub(super) fn sync(facts: &Facts, found: &mut Findings) {
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
    let best_us = disk.ways.iter().map(|way| way.p50_us).min();
    for SyncWay { name, p50_us, p99_us, count } in &disk.ways {
        let best = if Some(*p50_us) == best_us { ", the best here" } else { "" };
        let what = format!("{name}: p50 {}, p99 {} ({count} syncs of 1,100 bytes){best}", ms(*p50_us), ms(*p99_us));
        found.note("disk-sync", what, "", "");
    }
    if let Some(mine) = facts.server_sync() {
        judge_sync(mine, &disk.dir.display().to_string(), found);
    }
    let Some(mine) = facts.mapped_sync(true) else {
        let what = format!("{}: its file system has no writable shared mappings", disk.dir.display());
        let fix = "put dataLogDir on a local disk (ext4, xfs)";
        return found.note("log-store", what, "the log is written as a plain file, which is slower", fix);
    };
    if let Some(other) = facts.mapped_sync(false)
        && (other.p50_us as f64) < BETTER * mine.p50_us as f64
        && (other.p99_us as f64) < mine.p99_us as f64
    {
        let setting = if other.name == sync_ways::SERVER_MMAP.name { "mmap" } else { "write" };
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

/// What the clocks are like.
pub(super) fn clock(facts: &Facts, found: &mut Findings) {
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

/// Whether this server can listen where it is to.
pub(super) fn own_ports(facts: &Facts, found: &mut Findings) {
    // A server that runs on this data has its ports itself; where its folder cannot be looked into, nobody knows.
    if facts.folders.iter().any(|folder| folder.in_use || folder.error.is_some()) {
        return;
    }
    for missed in &facts.ports_missed {
        let setting = missed.setting;
        let fix = if missed.is_taken {
            format!("end the process that has the port (`ss -ltnp` shows it), or change {setting}")
        } else {
            format!("correct {setting}: an address of this host, and a port that the server's user may have")
        };
        let what = format!("{setting}: {}", missed.error);
        if missed.is_fatal {
            found.error("ports", what, missed.then, fix);
        } else {
            found.warn("ports", what, missed.then, fix);
        }
    }
}

/// Memory and limits.
pub(super) fn memory(facts: &Facts, found: &mut Findings) {
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
    let open_files_max = match &facts.service {
        Some(service) => service.open_files_max,
        None => host.open_files_max,
    };
    if let Some(max) = open_files_max.filter(|max| *max < OPEN_FILES_MIN) {
        let clients = Descriptors::new(max).clients_max();
        let then = format!("no more than {clients} clients can be connected: the rest is kept for files and servers");
        let (what, fix) = match &facts.service {
            Some(Service { unit, .. }) => {
                let fix = format!("systemctl edit {unit}: LimitNOFILE=65536 below [Service]; then restart it");
                (format!("{unit} may have {max} files open (LimitNOFILE)"), fix)
            }
            None => {
                let fix = "LimitNOFILE=65536 in the service, or `ulimit -Hn 65536` where it is started by hand";
                (format!("{max} open files are allowed here (hard limit)"), fix.to_owned())
            }
        };
        found.warn("open-files", what, then, fix);
    }
}
