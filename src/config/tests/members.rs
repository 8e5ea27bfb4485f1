//! Tests of server lines, groups, dynamic files, myid and the mode that follows from them.

use super::*;
use crate::config::ensemble::{PeerRole, QuorumRule};

const LIMITS: &str = "dataDir=/d\ninitLimit=5\nsyncLimit=2\n";

fn ensemble(lines: &str) -> Loaded {
    let world = Fake::with("/d/myid", "1\n");
    load_in(&world, format!("{LIMITS}{lines}").as_bytes(), "", "")
}

fn quorum(lines: &str) -> EnsembleConfig {
    let (c, warnings) = ensemble(lines).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    match c.mode {
        Mode::Quorum(ensemble) => *ensemble,
        Mode::Standalone => panic!("standalone"),
    }
}

const THREE: &str = "server.1=a:1:2\nserver.2=b:1:2;2181\nserver.3=[::1]:1:2:Observer;[::2]:5\nserver.4=d:1:2\n";

#[test]
fn members_are_read_and_written_in_apaches_form() {
    let e = quorum(&format!("clientPort=2181\n{THREE}"));
    assert_eq!((e.my_id, e.members.servers.len()), (1, 4));
    assert_eq!(e.members.rule, QuorumRule::Majority);
    assert_eq!(e.members.participants().count(), 3);
    assert_eq!(e.members.servers[&3].role, PeerRole::Observer);
    assert_eq!(
        e.members.to_string(),
        "server.1=a:1:2:participant\nserver.2=b:1:2:participant;0.0.0.0:2181\n\
         server.3=[0:0:0:0:0:0:0:1]:1:2:observer;[0:0:0:0:0:0:0:2]:5\nserver.4=d:1:2:participant\nversion=0"
    );
    let own = e.members.servers[&1].client.as_ref().unwrap();
    assert_eq!(own.to_string(), "0.0.0.0:2181");
}

#[test]
fn ports_for_clients_with_tls_are_kept_and_the_own_one_is_refused_by_name() {
    let lines =
        "server.1=a:1:2;2181;[::1]:2281\nserver.2=b:1:2:observer;;2281\nserver.3=c:1:2;c:5;\nserver.4=d:1:2;;\n";
    let (config, warnings) = ensemble(lines).unwrap();
    let Mode::Quorum(e) = config.mode else { panic!("{:?}", config.mode) };
    let written = "server.1=a:1:2:participant;0.0.0.0:2181;[0:0:0:0:0:0:0:1]:2281\n\
                   server.2=b:1:2:observer;;0.0.0.0:2281\nserver.3=c:1:2:participant;c:5\n\
                   server.4=d:1:2:participant\nversion=0";
    assert_eq!(e.members.to_string(), written);
    assert_eq!(Members::parse_text(written.as_bytes()).unwrap(), e.members);
    assert_eq!(config.clients.listen.map(|listen| listen.port), Some(2181));
    let refused = "zoo.cfg: server.1: secureClientPort [0:0:0:0:0:0:0:1]:2281, behind the second ';', is refused: TLS for \
                   clients is not served by this version, and nobody listens there; clients connect to 0.0.0.0:2181 \
                   without it";
    assert_eq!(warnings.iter().filter(|w| w.contains("secure")).collect::<Vec<_>>(), [refused]);

    let (config, warnings) = ensemble("server.1=a:1:2;;2281\nserver.2=b:1:2;5\nserver.3=c:1:2;5").unwrap();
    assert_eq!(config.clients.listen, None);
    assert!(
        warnings
            .iter()
            .any(|w| w.ends_with("it has no clientPort either, so that no client can connect to this server"))
    );
}

#[test]
fn a_bad_server_line_says_what_its_form_is() {
    let form =
        "expected host:quorumPort:electionPort[:participant|:observer][;[[host:]clientPort][;[host:]secureClientPort]]";
    let cases = [
        ("server.1=a:1", form),
        ("server.1=a:1:2:observer:x", form),
        ("server.1=a:1:2;3;4;5", form),
        ("server.1=a:1:2;3;4:5:6", form),
        ("server.1=a:1:2;;x", "Address unresolved: 0.0.0.0:x; expected a port between 0 and 65535"),
        ("server.x=a:1:2", "expected a number after the dot"),
        ("server.1=a:1:2 ", "Address unresolved: a:2 ; expected a port between 0 and 65535 without blanks"),
        (
            "server.1=a:1:2;2181 ",
            "Address unresolved: 0.0.0.0:2181 ; expected a port between 0 and 65535 without blanks",
        ),
        ("server.1=a:x:2", "Address unresolved: a:x; expected a port between 0 and 65535"),
        ("server.1=a:2:2", "expected two different ports, for quorum and election"),
        ("server.1=a:1:2:voter", "Unrecognised peertype: voter; expected participant or observer"),
        ("server.1=[::1:1:2", "[::1:1:2 starts with '[' but has no matching ']:'"),
        ("server.1=[::1]:", "[::1]: doesn't have a port after colon"),
        ("server.1=a:1:2|b:1:2", "expected one address, since multiAddress.enabled is not true"),
        ("group.1=1:x", "expected server numbers separated by colons"),
        ("weight.1=heavy", "expected the weight as a whole number of at least 0"),
    ];
    for (line, what) in cases {
        let error = ensemble(line).unwrap_err();
        assert_eq!(error, format!("zoo.cfg:4: {line}: {what}"));
    }
    let multi = quorum("multiAddress.enabled=true\nserver.1=b:1:2|a:3:4\nserver.2=c:1:2\nserver.3=d:1:2");
    assert!(multi.members.to_string().starts_with("server.1=a:3:4|b:1:2:participant\n"));
}

#[test]
fn the_members_decide_the_mode() {
    let standalone = |lines: &str| ensemble(lines).map(|(c, w)| (c.mode == Mode::Standalone, w));
    let no_failure = "zoo.cfg: No server failure will be tolerated. You need at least 3 servers.";
    let cases = [
        ("server.1=a:1:2", Ok((true, "zoo.cfg: only one server specified: running standalone"))),
        ("server.1=a:1:2\nstandaloneEnabled=false", Ok((false, no_failure))),
        ("server.1=a:1:2\nserver.2=b:1:2", Ok((false, no_failure))),
        (
            "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2",
            Ok((false, "zoo.cfg: Non-optimal configuration, consider an odd number of servers.")),
        ),
        ("server.1=a:1:2\nserver.2=b:1:2:observer", Err("zoo.cfg: Observers w/o quorum is an invalid configuration")),
        ("server.1=a:1:2:observer", Err("zoo.cfg: Observers w/o participants is an invalid configuration")),
        (
            "server.2=a:1:2\nserver.3=b:1:2\nserver.4=c:1:2",
            Err("zoo.cfg: My id 1 not in the peer list: /d/myid says 1, and the list has servers 2, 3, 4"),
        ),
        ("initLimit=0\nserver.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2", Err("zoo.cfg: initLimit is not set")),
    ];
    for (lines, expected) in cases {
        let expected = expected.map(|(alone, warning): (bool, &str)| (alone, vec![warning.to_string()]));
        let mut found = standalone(lines);
        if let Ok((_, warnings)) = &mut found {
            warnings.retain(|w| !w.contains("overrides"));
        }
        assert_eq!(found, expected.map_err(str::to_string), "for {lines}");
    }
    let text = format!("{LIMITS}{THREE}");
    let error = load_in(&Fake::default(), text.as_bytes(), "", "").unwrap_err();
    assert_eq!(error, "/d/myid: myid file is missing");
}

#[test]
fn two_lines_with_one_address_are_told() {
    let (_, warnings) =
        ensemble("server.1=a:1:2\nserver.2=b:1:2\nserver.3=b:7:1\nserver.4=c:1:2\nserver.5=d:1:2").unwrap();
    let expected = "zoo.cfg: server.2 and server.3 are both at b:1: only one of them can be reached there";
    assert_eq!(warnings, [expected]);
}

#[test]
fn groups_make_the_quorum_hierarchical_and_must_hold_everyone_once() {
    let servers = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2\n";
    let e = quorum(&format!("{servers}group.1=1:2\ngroup.2=3:4\nweight.4=0"));
    let text = e.members.to_string();
    let expected = "group.1=1:2\ngroup.2=3:4\nweight.1=1\nweight.2=1\nweight.3=1\nweight.4=0\nversion=0";
    assert!(text.ends_with(expected), "{text}");
    assert_eq!(ensemble(&format!("{servers}group.1=1:2:3")).unwrap_err(), "zoo.cfg: Server 4 is not in a group");
    assert_eq!(
        ensemble(&format!("{servers}group.1=1:2:3:4:9")).unwrap_err(),
        "zoo.cfg: Server 9 is in a group but is no participant and has no weight"
    );
    assert_eq!(
        ensemble(&format!("{servers}group.1=1:2:3:4\ngroup.2=1")).unwrap_err(),
        "zoo.cfg:9: group.2=1: Server 1 is in multiple groups"
    );
}

#[test]
fn a_lone_servers_own_line_may_carry_the_client_port() {
    let (c, _) = ensemble("server.1=localhost:2888:3888;2181").unwrap();
    let listen = c.clients.listen.unwrap();
    assert!(listen.is_wildcard() && listen.port == 2181);
    let error = ensemble("clientPort=2182\nserver.1=localhost:2888:3888;localhost:2181").unwrap_err();
    assert_eq!(
        error,
        "zoo.cfg:4: client address for this server (id = 1) is [::]:2182 by clientPort \
         but localhost:2181 by its server line"
    );
}

#[test]
fn a_dynamic_file_holds_the_members_and_nothing_else() {
    let text = format!("{LIMITS}dynamicConfigFile=/c/zoo.cfg.dynamic.10000000a");
    let load = |dynamic: &str, next: &str| {
        let mut world = Fake::with("/d/myid", "1").and("/c/zoo.cfg.dynamic.10000000a", dynamic);
        if !next.is_empty() {
            world = world.and("zoo.cfg.dynamic.next", next);
        }
        load_in(&world, text.as_bytes(), "", "")
    };
    let Mode::Quorum(e) = load(THREE, "").unwrap().0.mode else {
        panic!("standalone");
    };
    assert_eq!((e.members.version, e.next), (0x1_0000_000a, None));
    let Mode::Quorum(e) = load(THREE, &format!("{THREE}version=10000000b")).unwrap().0.mode else {
        panic!("standalone");
    };
    assert_eq!(e.next.unwrap().version, 0x1_0000_000b);
    let file = "/c/zoo.cfg.dynamic.10000000a";
    assert_eq!(load("version=1", "").unwrap_err(), format!("{file}:1: dynamic file shouldn't have version inside"));
    assert_eq!(load("\ntickTime=1", "").unwrap_err(), format!("{file}:2: Unrecognised parameter: tickTime"));
    assert_eq!(
        ensemble("server.1=a:1:2\ndynamicConfigFile=/c/x").unwrap_err(),
        "zoo.cfg:4: parameter: server.1 must be in a separate dynamic config file"
    );
    assert_eq!(ensemble("dynamicConfigFile=/c/x").unwrap_err(), "/c/x: cannot be read: file is missing");
}

const AGREED: &str = "server.1=127.0.0.1:1:2;11\nserver.2=b:1:2\nserver.3=c:1:2\nversion=10000000a";
const DYNAMIC: &str = "/c/zoo.cfg.dynamic.10000000a";

/// A zoo.cfg that names the file of members.
fn pointing(lines: &str) -> Vec<u8> {
    let text = format!("{LIMITS}reconfigEnabled=true\n{lines}");
    point_to(text.as_bytes(), Path::new(DYNAMIC), true).unwrap()
}

fn agreed(list: &str, unlisted: Option<&ensemble::Server>) -> String {
    String::from_utf8(member_file(&Members::parse_text(list.as_bytes()).unwrap(), false, unlisted)).unwrap()
}

#[test]
fn files_of_members_that_were_cut_short_anywhere_are_refused() {
    let next = Members::parse_text(AGREED.replace("10000000a", "10000000b").as_bytes()).unwrap();
    let next = String::from_utf8(member_file(&next, true, None)).unwrap();
    let (zoo_cfg, dynamic) = (pointing(""), agreed(AGREED, None));
    let load = |zoo_cfg: &[u8], dynamic: &str, next: &str, my_id: &str| {
        let world = Fake::with("/d/myid", my_id).and(DYNAMIC, dynamic).and("zoo.cfg.dynamic.next", next);
        load_in(&world, zoo_cfg, "", "")
    };
    load(&zoo_cfg, &dynamic, &next, "1").unwrap();
    for length in 0..zoo_cfg.len() {
        assert!(load(&zoo_cfg[..length], &dynamic, &next, "1").is_err(), "{length} bytes of zoo.cfg");
    }
    for length in 0..dynamic.len() {
        assert!(load(&zoo_cfg, &dynamic[..length], &next, "1").is_err(), "{length} bytes of the dynamic file");
    }
    for length in 0..next.len() {
        assert!(load(&zoo_cfg, &dynamic, &next[..length], "1").is_err(), "{length} bytes of the next one");
    }
    assert!(load(&zoo_cfg, &dynamic, &next, "").is_err());
    // Java servers write no first line: of theirs, what is proposed needs its version, and what is in force a voter.
    let unsealed = |text: &str| text.split_once('\n').unwrap().1.to_string();
    load(&zoo_cfg, &unsealed(&dynamic), &unsealed(&next), "1").unwrap();
    let why = load(&zoo_cfg, &unsealed(&dynamic), unsealed(&next).trim_end_matches("\nversion=10000000b"), "1");
    assert!(why.unwrap_err().contains("it does not say its version: it was cut short"));
    let none = "no server is in it: it was cut short or damaged. Restore it, or copy the members from another server";
    for length in [0, 1, 10] {
        let cut = &dynamic[..length];
        assert_eq!(load(&zoo_cfg, cut, &next, "1").unwrap_err(), format!("{DYNAMIC}: {none}"));
        assert_eq!(load(&zoo_cfg, &dynamic, cut, "1").unwrap_err(), format!("zoo.cfg.dynamic.next: {none}"));
    }
    let no_voter = load(&zoo_cfg, "server.1=a:1:2:observer", &next, "1").unwrap_err();
    assert_eq!(no_voter, format!("{DYNAMIC}: no server is a participant"));
    // What was sealed for one version is that of no other.
    let other = agreed(&AGREED.replace("10000000a", "100000009"), None);
    let why = load(&zoo_cfg, &other, &next, "1").unwrap_err();
    assert_eq!(
        why,
        format!("{DYNAMIC}: the members in it are those of version 100000009; give the file its name back")
    );
}

#[test]
fn a_server_that_the_ensembles_list_does_not_name_starts_where_it_was_and_asks() {
    let own = ensemble::Server::parse(4, "127.0.0.1:7:8;9", MemberRules::AGREED).unwrap();
    let load = |text: &str, zoo_cfg: &[u8]| load_in(&Fake::with("/d/myid", "4").and(DYNAMIC, text), zoo_cfg, "", "");
    let (config, warnings) = load(&agreed(AGREED, Some(&own)), &pointing("")).unwrap();
    assert_eq!(config.clients.listen.unwrap().port, 9);
    let Mode::Quorum(e) = config.mode else { panic!("standalone") };
    assert_eq!((e.my_id, e.own, e.members.servers.len()), (4, own.clone(), 3));
    let expected = format!(
        "{DYNAMIC}: My id 4 (/d/myid) not in the peer list of version 10000000a, servers 1, 2, 3: this server asks those \
         for the list in force, and has no vote until it is in it. If it is to join, add it by reconfig; if it is another \
         server, mend myid"
    );
    assert_eq!(warnings, [expected]);
    // Left with one voter, it does not run alone with their data.
    let one = agreed("server.2=b:1:2\nversion=10000000a", Some(&own));
    assert!(matches!(load(&one, &pointing("")).unwrap().0.mode, Mode::Quorum(_)));
    // Where nobody changes lists, or nothing says where it is, it is a mistake.
    let fixed = String::from_utf8(pointing("")).unwrap().replace("reconfigEnabled=true", "reconfigEnabled=false");
    assert_eq!(
        load(&agreed(AGREED, Some(&own)), fixed.as_bytes()).unwrap_err(),
        "zoo.cfg: My id 4 not in the peer list: /d/myid says 4, and the list has servers 1, 2, 3"
    );
    let hint = "nothing says where it listens: list it in the dynamic file, as for a server that is to join";
    assert_eq!(
        load(&agreed(AGREED, None), &pointing("")).unwrap_err(),
        format!("zoo.cfg: My id 4 not in the peer list: /d/myid says 4, and the list has servers 1, 2, 3; {hint}")
    );
    // What is proposed may say it.
    let next = format!("{AGREED}\nserver.4=127.0.0.1:7:8;9").replace("10000000a", "10000000b");
    let world = Fake::with("/d/myid", "4").and(DYNAMIC, &agreed(AGREED, None)).and("zoo.cfg.dynamic.next", &next);
    let Mode::Quorum(e) = load_in(&world, &pointing(""), "", "").unwrap().0.mode else { panic!("standalone") };
    assert_eq!(e.own, own);
}

#[test]
fn an_address_for_clients_that_does_not_resolve_keeps_no_member_from_its_ensemble() {
    let list = AGREED.replace("127.0.0.1:1:2;11", "127.0.0.1:1:2;nowhere:11");
    let world = Fake::with("/d/myid", "1").and(DYNAMIC, &agreed(&list, None));
    let (config, warnings) = load_in(&world, &pointing(""), "", "").unwrap();
    assert!(config.clients.listen.is_none() && matches!(config.mode, Mode::Quorum(_)));
    let what = "client address nowhere:11 of this server does not resolve";
    let hint = "until it does, no client is served there; mend the name, or its line by reconfig";
    assert_eq!(warnings, [format!("zoo.cfg: {what}: {hint}")]);
    // Where an operator alone has written it, it is a slip to be told at once.
    let text = format!("{LIMITS}server.1=a:1:2;nowhere:11\nserver.2=b:1:2\nserver.3=c:1:2");
    let why = load_in(&Fake::with("/d/myid", "1"), text.as_bytes(), "", "").unwrap_err();
    assert_eq!(why, format!("zoo.cfg: {what}"));
}

#[test]
fn myid_is_a_bare_number() {
    let with = |id: &str| load_in(&Fake::with("/d/myid", id), b"dataDir=/d", "", "");
    for (text, id) in [("7", 7), ("7\n", 7), ("7\r\nx", 7), ("-3", -3)] {
        assert_eq!(with(text).unwrap().0.server_id, id);
    }
    for text in ["", " 7", "7 ", "x", "\n7"] {
        let error = with(text).unwrap_err();
        assert!(error.starts_with("/d/myid: serverid "), "{error}");
    }
}

#[test]
fn what_peers_say_about_members_reads_back() {
    let text = "server.1=a:1:2:participant\nserver.2=[0:0:0:0:0:0:0:1]:1:2|b:3:4:observer;h:5\ngroup.1=1\nweight.1=2\nversion=1f00000002";
    let members = Members::parse_text(text.as_bytes()).unwrap();
    assert_eq!(members.version, 0x1f_0000_0002);
    assert_eq!(members.servers[&2].addresses.len(), 2);
    assert_eq!(Members::parse_text(members.to_string().as_bytes()), Ok(members));
    let german = Members::parse_text("server.1=zürich:1:2".as_bytes()).unwrap();
    assert_eq!((german.servers[&1].addresses[0].host.as_str(), german.version), ("zürich", 0));
}

#[test]
fn what_is_no_list_of_members_is_refused_with_its_reason() {
    let long = vec![b'\n'; (512 << 10) + 1];
    let cases: [(&[u8], &str); 8] = [
        (b"", "no server is a participant"),
        (b"server.1=a:1:2:observer", "no server is a participant"),
        (b"server.1=a:1:2\nclientPort=2181", "clientPort=2181: expected server.N, group.N, weight.N or version"),
        (b"server.1=a:1:2\nversion=xyz", "version=xyz: expected a hexadecimal number"),
        (b"server.1=a:1:2\nversion=-1", "version=-1: expected a hexadecimal number"),
        (b"server.1=a:1:1", "server.1=a:1:1: expected two different ports, for quorum and election"),
        (b"server.1=a\\nserver.2=b:1:2", "server.1=a\\nserver.2=b:1:2: \"a\\nserver.2=b\" is no host"),
        (&long, "524289 bytes are too long for a list of members"),
    ];
    for (text, what) in cases {
        assert_eq!(Members::parse_text(text).unwrap_err().to_string(), what);
    }
}
