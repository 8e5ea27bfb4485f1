//! The judgement: facts in, findings out, nothing else. Called by `cli::doctor`; the rules and their
//! thresholds are in the three `rules_` modules.

use crate::doctor::facts::Facts;
use crate::doctor::{rules_data, rules_ensemble, rules_host};

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

/// Judges, worst first.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    rules_data::config(facts, &mut found);
    rules_host::sync(facts, &mut found);
    rules_host::clock(facts, &mut found);
    rules_host::memory(facts, &mut found);
    rules_host::own_ports(facts, &mut found);
    rules_data::folders(facts, &mut found);
    if let (Some(ensemble), Some(settings)) = (&facts.ensemble, &facts.settings) {
        rules_ensemble::members(ensemble, &mut found);
        rules_ensemble::timeouts(ensemble, settings, facts, &mut found);
    }
    found.0.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found.0
}

/// What was found so far.
pub(super) struct Findings(Vec<Finding>);

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

    /// The server does not start, or must not.
    pub fn error(
        &mut self,
        check: &'static str,
        what: impl Into<String>,
        then: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(Severity::Error, check, what, then, fix);
    }

    /// It will hurt.
    pub fn warn(
        &mut self,
        check: &'static str,
        what: impl Into<String>,
        then: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(Severity::Warning, check, what, then, fix);
    }

    /// Good to know.
    pub fn note(
        &mut self,
        check: &'static str,
        what: impl Into<String>,
        then: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(Severity::Note, check, what, then, fix);
    }
}

/// A duration for people.
pub(super) fn ms(us: i64) -> String {
    if us < 10_000 { format!("{us} µs") } else { format!("{} ms", us / 1000) }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::doctor::facts::{
        Address, Answer, Clock, Disk, Ensemble, Folder, Host, Leftover, LeftoverKind, PortMissed, PortUse, Server,
        Service, Settings, SyncWay,
    };
    use crate::doctor::sync_ways;

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
                dial_ms: 5000,
                connect_ms: 20_000,
                log_bytes: 64 << 20,
                force_sync: true,
                purges: true,
                ..Settings::default()
            }),
            disk: Some(Disk {
                dir: "/data".into(),
                ways: vec![way(sync_ways::SERVER.name, 110, 300), way(sync_ways::SERVER_MMAP.name, 105, 300)],
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
                listens_everywhere: false,
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
        let disk_of =
            |name, p50_us, p99_us| after(|facts| facts.disk.as_mut().unwrap().ways = vec![way(name, p50_us, p99_us)]);
        let disk = |p50_us, p99_us| disk_of(sync_ways::SERVER.name, p50_us, p99_us);
        assert_eq!(disk(6000, 9000), [(Warning, "disk-sync")]);
        assert_eq!(disk(200, 60_000), [(Warning, "disk-sync")]);
        assert_eq!(disk(60_000, 90_000), [(Error, "disk-sync")]);
        assert_eq!(disk(3, 5), [(Warning, "disk-sync")]);
        // A tick of 2 s is too short for it, too.
        assert_eq!(disk(60_000, 700_000), [(Error, "disk-sync"), (Warning, "timeouts")]);
        // So it is where the log is a plain file.
        let plain = |p50_us, p99_us| disk_of(sync_ways::SERVER_PLAIN.name, p50_us, p99_us);
        assert_eq!(plain(200, 300), []);
        assert_eq!(plain(60_000, 700_000), [(Error, "disk-sync"), (Warning, "timeouts")]);
        // What counts is the way that is set.
        let only_write_is_slow = |through_mapping| {
            after(|facts| {
                facts.settings.as_mut().unwrap().log_through_mapping = through_mapping;
                facts.disk.as_mut().unwrap().ways[0].p99_us = 700_000;
            })
        };
        assert_eq!(only_write_is_slow(false), [(Warning, "disk-sync"), (Warning, "timeouts")]);
        assert_eq!(only_write_is_slow(true), []);
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
        let quorum = |answer| second_port(2888, PortUse::Quorum, answer);
        assert_eq!(quorum(Answer::Refused { round_trip_us: 9 }), []);
        assert_eq!(quorum(Answer::Silent), [(Error, "ports")]);
        let refused = || Answer::Refused { round_trip_us: 9 };
        assert_eq!(second_port(2181, PortUse::Client, Answer::Open { round_trip_us: 9 }), []);
        assert_eq!(second_port(2181, PortUse::Client, refused()), [(Warning, "ports")]);
        assert_eq!(second_port(2181, PortUse::Client, Answer::Silent), [(Warning, "ports")]);
        let down = |answer| {
            after(|facts| {
                let address = &mut facts.ensemble.as_mut().unwrap().servers[1].addresses[0];
                address.ports = vec![(3888, PortUse::Election, refused()), (2181, PortUse::Client, answer)];
            })
        };
        assert_eq!(down(refused()), [(Warning, "ports")], "once is enough");
    }

    fn second_port(port: u16, kind: PortUse, answer: Answer) -> Vec<(Severity, &'static str)> {
        after(|facts| facts.ensemble.as_mut().unwrap().servers[1].addresses[0].ports.push((port, kind, answer)))
    }

    #[test]
    fn data_that_everybody_may_read_is_told() {
        let readable = after(|facts| facts.folders[0].readable = Some("/data/version-2/log.1".into()));
        assert_eq!(readable, [(Warning, "ownership")]);
    }

    #[test]
    fn snapshots_that_cannot_be_written_are_told() {
        assert_eq!(after(|facts| facts.snapshot_failures = 3), [(Error, "snapshots")]);
    }

    #[test]
    fn a_port_that_somebody_else_has_is_told() {
        let missed = |is_fatal, change: fn(&mut Folder)| {
            after(|facts| {
                let error = "cannot listen on 0.0.0.0:2181: in use".into();
                facts.ports_missed = vec![PortMissed { setting: "x", then: "y", is_fatal, error, is_taken: true }];
                change(&mut facts.folders[0]);
            })
        };
        assert_eq!(missed(true, |_| ()), [(Error, "ports")]);
        assert_eq!(missed(false, |_| ()), [(Warning, "ports")]);
        assert_eq!(missed(true, |folder| folder.in_use = true), [], "the server itself has it");
        assert_eq!(missed(true, |folder| folder.error = Some("denied".into())), [(Warning, "data-dir")]);
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
        let told = |change: fn(&mut Settings)| {
            let mut facts = healthy();
            change(facts.settings.as_mut().unwrap());
            let address = &mut facts.ensemble.as_mut().unwrap().servers[2].addresses[0];
            address.ports[0].2 = Answer::Open { round_trip_us: 200_000 };
            let found = examine(&facts).into_iter().filter(|finding| finding.check == "timeouts");
            found.map(|finding| finding.what.split(' ').next().unwrap().to_owned()).collect::<Vec<String>>()
        };
        assert_eq!(told(|settings| settings.tick_ms = 2000), ["tickTime"]);
        assert_eq!(told(|settings| settings.tick_ms = 4000), [""; 0]);
        assert_eq!(told(|settings| settings.tick_ms = 5000), ["minSessionTimeout"]);
        let beside = |key, change: fn(&mut Settings)| {
            let found = told(change);
            assert_eq!(found, ["tickTime", key]);
        };
        beside("minSessionTimeout", |settings| settings.session_timeout_min_ms = 3000);
        beside("cnxTimeout", |settings| settings.dial_ms = 3000);
        beside("connectToLearnerMasterLimit", |settings| settings.connect_ms = 3000);
        assert_eq!(after(|facts| facts.folders[0].snapshot_bytes = 2 << 30), [(Warning, "timeouts")]);
    }

    #[test]
    fn a_place_where_data_does_not_stay_is_told() {
        let on = |name| after(|facts| facts.folders[0].file_system = Some(name));
        assert_eq!(on("tmpfs"), [(Error, "file-system")]);
        assert_eq!((on("nfs"), on("overlayfs")), (vec![(Warning, "file-system")], vec![(Warning, "file-system")]));
        assert_eq!(after(|facts| facts.folders[0].temporary = Some("/var/tmp")), [(Error, "temporary-dir")]);
        let only_snapshots = after(|facts| {
            facts.settings.as_mut().unwrap().has_log_dir = true;
            let snapshots =
                Folder { holds_logs: false, device: 9, temporary: Some("/tmp"), ..facts.folders[0].clone() };
            facts.folders.insert(0, snapshots);
        });
        assert_eq!(only_snapshots, [(Error, "temporary-dir")]);
    }

    #[test]
    fn what_lies_about_in_the_data_is_told() {
        let left = |kind| {
            after(|facts| facts.folders[0].leftovers = vec![Leftover { path: "/data/x".into(), kind, bytes: 7 }])
        };
        assert_eq!(left(LeftoverKind::Stray), [(Warning, "leftovers")]);
        assert_eq!(left(LeftoverKind::Uncut), []);
        assert_eq!(left(LeftoverKind::Replaced), [(Warning, "replaced-history")]);
        assert_eq!(left(LeftoverKind::WrongJoin), [(Warning, "wrong-join")]);
        assert_eq!(after(|facts| facts.folders[0].is_missing = true), []);
        assert_eq!(after(|facts| facts.folders[0].error = Some("denied".into())), [(Warning, "data-dir")]);
        assert_eq!(after(|facts| facts.folders[0].foreign = vec!["/data/log.1".into()]), [(Error, "ownership")]);
        assert_eq!(after(|facts| facts.folders[0].free_bytes = 100 << 20), [(Warning, "disk-space")]);
        assert_eq!(after(|facts| facts.folders[0].free_bytes = 10 << 20), [(Error, "disk-space")]);
    }

    /// As packaged.
    fn service() -> Service {
        Service {
            unit: "rookeeper.service".into(),
            open_files_max: Some(1 << 16),
            protect_home: "yes".into(),
            protect_system: "full".into(),
            writable: vec!["/etc/rookeeper".into()],
            made: vec!["/var/lib/rookeeper".into()],
            ..Service::default()
        }
    }

    #[test]
    fn a_service_is_judged_by_its_own_limits() {
        let limits = |shells, services| {
            after(|facts| {
                facts.host.open_files_max = Some(shells);
                facts.service = Some(Service { open_files_max: services, ..service() });
            })
        };
        assert_eq!(limits(1024, Some(1 << 16)), []);
        assert_eq!(limits(1024, None), []);
        assert_eq!(limits(1 << 20, Some(1024)), [(Warning, "open-files")]);
    }

    #[test]
    fn folders_that_a_service_cannot_use_are_told() {
        let closed = |change: fn(&mut Folder)| {
            after(|facts| {
                facts.service = Some(service());
                change(&mut facts.folders[0]);
            })
        };
        assert_eq!(closed(|_| ()), []);
        assert_eq!(closed(|folder| folder.foreign = vec!["/data/version-2".into()]), [(Error, "ownership")]);
        assert_eq!(closed(|folder| folder.closed_above = Some("/data".into())), [(Error, "ownership")]);
        let at = |place: &str, change: fn(&mut Service)| {
            let mut service = service();
            change(&mut service);
            after(|facts| {
                facts.folders[0].real_path = place.into();
                facts.service = Some(service);
            })
        };
        for place in ["/home/zk/version-2", "/root/zk/version-2", "/usr/local/zk", "/boot/zk", "/etc/zk"] {
            assert_eq!(at(place, |_| ()), [(Error, "sandbox")], "{place}");
            assert_eq!(after(|facts| facts.folders[0].real_path = place.into()), []);
        }
        for place in ["/homes/zk", "/srv/zk", "/var/lib/rookeeper/version-2", "/etc/rookeeper/zk"] {
            assert_eq!(at(place, |_| ()), [], "{place}");
        }
        let opened: fn(&mut Service) = |service| service.writable = vec!["/home/zk".into(), "/usr/zk".into()];
        assert_eq!(at("/usr/zk/version-2", opened), []);
        assert_eq!(at("/home/zk/version-2", opened), [(Error, "sandbox")], "hidden all the same");
        let strict: fn(&mut Service) = |service| service.protect_system = "strict".into();
        assert_eq!(
            (at("/srv/zk", strict), at("/var/lib/rookeeper/version-2", strict)),
            (vec![(Error, "sandbox")], vec![])
        );
        let free: fn(&mut Service) =
            |service| (service.protect_home, service.protect_system) = ("no".into(), "no".into());
        assert_eq!((at("/home/zk", free), at("/usr/zk", free)), (vec![], vec![]));
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
