//! Listeners of a server that come, go and change.

use super::*;

fn place(host: &str) -> Place {
    let address = PeerAddress { host: host.to_owned(), quorum_port: 0, election_port: 0 };
    Place { addresses: vec![address], on_all_ips: false, found: BTreeMap::new(), origin: origin() }
}

#[test]
fn own_hosts_are_looked_up_once() {
    let mut place = place("a.host.that.is.nowhere.invalid");
    assert!(place.look_up().is_err() && place.listen(|a| a.quorum_port).is_err());
    // The name server is asked no more, whoever opens a port.
    place.found.insert(place.addresses[0].host.clone(), SocketAddr::from(([127, 0, 0, 1], 1)));
    place.look_up().unwrap();
    for _ in 0..2 {
        assert_eq!(place.listen(|a| a.quorum_port).unwrap()[0].address.ip(), IpAddr::from([127, 0, 0, 1]));
    }
}

#[test]
fn of_several_own_hosts_one_without_an_address_or_without_a_network_is_done_without() {
    // Nobody has an address for documentation.
    let hosts = ["a.host.that.is.nowhere.invalid", "127.0.0.1", "192.0.2.1"];
    let address = |host: &str| PeerAddress { host: host.to_owned(), quorum_port: 0, election_port: 0 };
    let mut place = Place { addresses: hosts.map(address).into(), ..place("127.0.0.1") };
    place.look_up().unwrap();
    let at = |listeners: Vec<Listener>| listeners.iter().map(|one| one.address.ip()).collect::<Vec<IpAddr>>();
    assert_eq!(at(place.listen(|a| a.quorum_port).unwrap()), [IpAddr::from([127, 0, 0, 1])]);
    assert!(place.listen_on_all(|a| a.election_port).is_err());
    place.addresses.pop();
    assert_eq!(at(place.listen_on_all(|a| a.election_port).unwrap()), [IpAddr::from([127, 0, 0, 1])]);
    place.addresses.remove(1);
    assert!(place.listen(|a| a.quorum_port).is_err());
}

#[test]
fn a_host_without_an_address_is_an_error_with_its_name() {
    let mut place = place("a.host.that.is.nowhere.invalid");
    let error = patiently(Some(1), || place.look_up()).unwrap_err();
    assert!(error.is_of_name() && error.hint().contains("mend the host's name"));
    let error = error.to_string();
    assert!(error.starts_with("cannot listen on a.host.that.is.nowhere.invalid:0: "), "{error}");
    assert!(error.ends_with(" (server.7=a.host.that.is.nowhere.invalid:0:0 in zoo.cfg)"), "{error}");
}

#[test]
fn a_name_that_is_another_hosts_is_looked_up_again_and_told_with_its_line() {
    let mut place = place("localhost");
    let nobody = SocketAddr::from(([192, 0, 2, 1], 0));
    let mut attempts = 0;
    let listeners = patiently(None, || {
        attempts += 1;
        match attempts {
            1 => place.found.insert("localhost".into(), nobody),
            _ => place.look_up_again().map(|()| None)?,
        };
        place.listen_on_all(|address| address.election_port).inspect_err(|error| {
            let expected = "cannot listen on localhost:0: server.7=localhost:0:0 in zoo.cfg is 192.0.2.1, which no \
                            interface of this host has; /d/myid says 7";
            assert!(error.to_string() == expected && error.is_of_name(), "{error}");
        })
    });
    assert!(listeners.unwrap()[0].address.ip().is_loopback() && attempts == 2);
}

#[test]
fn a_server_on_loopback_whose_ensemble_is_elsewhere_gets_a_hint() {
    let others = |hosts: &[&str]| (1..).zip(hosts).map(|(id, host)| (id, (*host).to_owned())).collect::<Vec<_>>();
    let mut place = place("h121");
    place.found.insert("h121".into(), "127.0.1.1:1".parse().unwrap());
    let hint = place.loopback_hint(&others(&["127.0.0.1", "h122", "10.0.0.3"])).unwrap();
    assert!(hint.starts_with("server.7, h121 in zoo.cfg, is 127.0.1.1 here, "), "{hint}");
    assert!(hint.contains("servers 2, 3 are on other hosts: set quorumListenOnAllIPs=true"), "{hint}");
    assert_eq!(place.loopback_hint(&others(&["127.0.0.1", "localhost", "::1"])), None);
    assert_eq!(Place { on_all_ips: true, ..place.clone() }.loopback_hint(&others(&["h122"])), None);
    let both = [(2, "127.0.0.1".to_owned()), (2, "h122".to_owned())];
    assert_eq!(place.loopback_hint(&both), None);
    let twice = [(2, "h122".to_owned()), (2, "h122.other".to_owned())];
    assert!(place.loopback_hint(&twice).unwrap().contains("and server 2 is on other hosts: "));
    // That may be where the others reach it.
    let second = PeerAddress { host: "h121.later".to_owned(), ..place.addresses[0].clone() };
    let two = Place { addresses: vec![place.addresses[0].clone(), second], ..place.clone() };
    assert_eq!(two.loopback_hint(&others(&["h122"])), None);
    place.found.insert("h121".into(), "10.0.0.1:1".parse().unwrap());
    assert_eq!(place.loopback_hint(&others(&["h122"])), None);
}

fn origin() -> LineSource {
    LineSource { id: 7, lines: "zoo.cfg".into(), my_id: "/d/myid".into() }
}
