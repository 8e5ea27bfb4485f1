//! Rules about zoo.cfg and the data folders. Pure; called by `findings`.

use crate::doctor::facts::{Facts, Folder, LeftoverKind, Service};
use crate::doctor::findings::Findings;
use crate::sys::files;
use crate::sys::systemd::HIDDEN;

/// Logs that should find room: the one in use, the one prepared, one to come.
const LOGS_OF_ROOM: u64 = 3;

/// What zoo.cfg says.
pub(super) fn config(facts: &Facts, found: &mut Findings) {
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

/// The data folders.
pub(super) fn folders(facts: &Facts, found: &mut Findings) {
    let log_bytes = facts.settings.as_ref().map_or(64 << 20, |settings| settings.log_bytes);
    for folder in &facts.folders {
        let path = folder.path.display();
        if folder.is_missing {
            let fix = "before the first start, nothing: the server makes it. Later, correct dataDir and dataLogDir";
            found.note("data-dir", format!("{path} is not there"), "a server that starts now has no data", fix);
        }
        if let Some(error) = &folder.error {
            let fix = "run this as the server's user or root; if it is that user, give it the right to the folder";
            found.warn("data-dir", format!("{path}: {error}"), "nothing in it was checked", fix);
        }
        if folder.in_use {
            found.note("data-dir", format!("{path}: a server is running on it"), "", "");
        }
        place(folder, found);
        if let Some(service) = &facts.service {
            sandbox(folder, service, found);
        }
        room(folder, log_bytes, found);
        if folder.holds_snapshots {
            snapshots(folder, facts.snapshot_failures, found);
        }
        leftovers(folder, found);
        ownership(folder, facts.service.as_ref(), found);
        secrecy(folder, found);
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

/// Whether the server can use what is there.
fn ownership(folder: &Folder, service: Option<&Service>, found: &mut Findings) {
    let (path, user, count) = (folder.path.display(), &folder.owner, folder.foreign.len());
    if let Some(above) = &folder.closed_above {
        let above = above.display();
        let what = format!("{path}: {user}, as whom the service runs, may not pass {above}");
        let fix = format!("chmod o+x {above}, or move the folder to /var/lib/zookeeper or its like");
        found.error("ownership", what, "the server does not start (exit code 3)", fix);
    }
    let Some(first) = folder.foreign.first() else { return };
    let first = first.display();
    match service {
        Some(Service { unit, .. }) => {
            let what =
                format!("{path}: {count} files or folders are closed to {user}, as whom {unit} runs ({first}, …)");
            let then = "the server does not start (exit code 3), or ends when it comes to them";
            let data = files::parent(&folder.path).display();
            let fix = match folder.is_missing {
                true => format!("install -d -o {user} {data} {path}; chown -R {user}: {data}"),
                false => format!("chown -R {user}: {data}; chmod -R u+rwX {data}"),
            };
            found.error("ownership", what, then, fix);
        }
        None => {
            let what =
                format!("{path}: {count} of its files are not of its owner, {user}, or closed to it ({first}, …)");
            let then = "a server that runs as the owner does not start, or ends when it comes to them";
            found.error("ownership", what, then, format!("chown -R {user}: {path}; chmod -R u+rwX {path}"));
        }
    }
}

/// Whether others may read what only the server should.
fn secrecy(folder: &Folder, found: &mut Findings) {
    let Some(readable) = &folder.readable else { return };
    let (path, data) = (folder.path.display(), files::parent(&folder.path).display());
    let what = format!("{path}: every user of this host may read it ({}, …)", readable.display());
    let then = "whoever has an account here reads all data, and the hashes of passwords";
    found.warn("ownership", what, then, format!("chmod -R go-rwx {data}"));
}

/// Whether the unit lets its server write there.
fn sandbox(folder: &Folder, service: &Service, found: &mut Findings) {
    let place = |places: &[&'static str]| places.iter().copied().find(|place| folder.real_path.starts_with(place));
    let is_writable = service.writable.iter().chain(&service.made).any(|path| folder.real_path.starts_with(path));
    let home = place(&HIDDEN);
    let system = match service.protect_system.as_str() {
        "yes" => place(&["/usr", "/boot", "/efi"]),
        "full" => place(&["/usr", "/boot", "/efi", "/etc"]),
        "strict" => place(&["/dev", "/proc", "/sys"]).is_none().then_some("/"),
        _ => None,
    };
    let opened = format!("ReadWritePaths={}", files::parent(&folder.path).display());
    // What is hidden cannot be made writable by itself.
    let (place, setting, mended): (&str, String, String) = match (home, system, service.protect_home.as_str()) {
        (Some(home), _, "yes" | "tmpfs") => {
            (home, format!("ProtectHome={}", service.protect_home), format!("ProtectHome=read-only and {opened}"))
        }
        (Some(home), _, "read-only") if !is_writable => (home, "ProtectHome=read-only".into(), opened),
        (_, Some(system), _) if !is_writable => (system, format!("ProtectSystem={}", service.protect_system), opened),
        _ => return,
    };
    let unit = &service.unit;
    let what = format!("{} is in {place}, which {unit} may not write ({setting})", folder.path.display());
    let fix = format!(
        "move the folder to /var/lib/zookeeper or its like and correct zoo.cfg; or systemctl edit {unit}: {mended} below [Service]"
    );
    found.error("sandbox", what, "the server does not start (exit code 2 or 3)", fix);
}

/// Whether the folder is where data can stay.
fn place(folder: &Folder, found: &mut Findings) {
    let path = folder.path.display();
    if let Some(temporary) = folder.temporary {
        let then = "old files are removed from there while the server runs (systemd-tmpfiles), and all of them may be at a reboot: all data is lost, or a start finds it damaged";
        let fix = "stop the server, move the folder to /var/lib/zookeeper or its like, correct dataDir and dataLogDir in zoo.cfg, start the server";
        found.error("temporary-dir", format!("{path} is in {temporary}, the place for temporary files"), then, fix);
    }
    match folder.file_system {
        Some("tmpfs") => {
            let fix = "put dataDir and dataLogDir on a disk";
            found.error("file-system", format!("{path} is in memory (tmpfs)"), "a reboot loses all data", fix);
        }
        Some("nfs") => {
            let then = "syncs wait for the network, and a lock that is lost lets two servers write";
            found.warn("file-system", format!("{path} is on NFS"), then, "put dataDir and dataLogDir on a local disk");
        }
        Some(other) => {
            let then = "data in a container's own layer goes with the container, and is slower";
            let fix = "mount a volume for dataDir and dataLogDir";
            found.warn("file-system", format!("{path} is on {other}"), then, fix);
        }
        None => {}
    }
}

/// Whether the server that runs here can write its snapshots.
fn snapshots(folder: &Folder, failures: i64, found: &mut Findings) {
    if failures == 0 {
        return;
    }
    let path = folder.path.display();
    let what = format!("{path}: the last {failures} snapshots of the server that runs here could not be written");
    let then = "logs pile up and nothing is purged; the next start replays all of them";
    let fix = "its log says why (ERROR, \"snapshot … cannot be written\"): make room, or mend the disk. It tries again by itself";
    found.error("snapshots", what, then, fix);
}

fn room(folder: &Folder, log_bytes: u64, found: &mut Findings) {
    let of_logs = if folder.holds_logs { log_bytes } else { 0 };
    let wanted = LOGS_OF_ROOM * of_logs + if folder.holds_snapshots { 2 * folder.snapshot_bytes } else { 0 };
    let free = folder.free_bytes;
    let what = format!("{}: {} MiB are free, {} MiB are wanted", folder.path.display(), free >> 20, wanted >> 20);
    let then = "snapshots that find no room are put off; when the log finds none the server ends (exit code 11), and its next start waits for room";
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
    for replaced in of(LeftoverKind::Replaced) {
        let what = format!(
            "{}: transactions that this server had when a leader's history replaced its own, {} bytes",
            replaced.path.display(),
            replaced.bytes
        );
        let then = "they are nowhere else, as far as is known; nobody reads them, and the folder stays for ever";
        let fix = format!(
            "look at its logs with `rookeeper log dump`; once nobody misses anything, rm -r {}",
            replaced.path.display()
        );
        found.warn("replaced-history", what, then, fix);
    }
    for wrong in of(LeftoverKind::WrongJoin) {
        let what = format!("{}: this server followed a leader with another history", wrong.path.display());
        let then = "what that leader sent is taken out of the log by the next start; if an end of its own history was cut off for \
                    it, it has no voice in elections until a leader has sent it everything";
        let fix = "leave the file where it is: the server removes it, or says at its start why it cannot; start it while the \
                   others serve";
        found.warn("wrong-join", what, then, fix);
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
