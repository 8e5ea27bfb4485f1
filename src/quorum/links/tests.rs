//! Links that meet, break and are replaced, with dials and hellos played by hand.

use super::*;

const ME: ServerId = ServerId(5);
const SMALL: ServerId = ServerId(2);
const LARGE: ServerId = ServerId(8);

fn at(host: &str) -> Vec<PeerAddress> {
    vec![PeerAddress { host: host.into(), quorum_port: 0, election_port: 3888 }]
}

fn links() -> Links {
    Links::new(ME, b"hello".to_vec())
}

fn hello(server: ServerId, host: &str) -> Hello {
    Hello { server, addresses: vec![(host.into(), 3888)] }
}

/// What is to be done, told shortly.
fn done(links: &mut Links) -> Vec<String> {
    let tell = |effect| match effect {
        Effect::DialElection { server, addresses } => format!("dial {} {}", server.0, addresses[0].host),
        Effect::SendElection { link, bytes } => format!("{}: {}", link.0, String::from_utf8(bytes).unwrap()),
        Effect::Close { link, .. } => format!("{} closed", link.0),
        other => panic!("{other:?}"),
    };
    links.take_effects().into_iter().map(tell).collect()
}

/// A link to the smaller server, over which nothing was said yet.
fn up(links: &mut Links) -> LinkId {
    let link = LinkId(1);
    links.connect(SMALL, &at("a"), 0);
    links.on_dialed(link, SMALL);
    links.on_flushed(link);
    done(links);
    link
}

fn send(links: &mut Links, to: ServerId, frame: &str, now_ms: i64) -> Vec<String> {
    links.send(to, frame.into(), &at("a"), now_ms);
    done(links)
}

#[test]
fn a_smaller_server_is_dialled_and_the_link_kept() {
    let mut links = links();
    assert_eq!(send(&mut links, SMALL, "vote", 0), ["dial 2 a"]);
    links.on_dialed(LinkId(1), SMALL);
    assert_eq!(done(&mut links), ["1: hello"]);
    links.on_flushed(LinkId(1));
    assert_eq!(done(&mut links), ["1: vote"]);
    assert_eq!(links.server_of(LinkId(1)), Some(SMALL));
}

#[test]
fn a_smaller_server_that_says_where_it_is_while_it_is_dialled_elsewhere_is_dialled_there_next() {
    let mut links = links();
    assert_eq!(send(&mut links, SMALL, "vote", 0), ["dial 2 a"]);
    links.on_hello(LinkId(2), &hello(SMALL, "b"), 1);
    assert_eq!(done(&mut links), ["2 closed"]);
    links.on_undialed(SMALL, 2);
    assert_eq!(done(&mut links), ["dial 2 b"]);
    links.on_undialed(SMALL, 3);
    assert_eq!(done(&mut links), ["dial 2 a"]);
    links.on_undialed(SMALL, 4);
    assert_eq!(done(&mut links), [""; 0], "both places were tried");
}

#[test]
fn whatever_is_said_of_where_a_server_is_it_is_dialled_where_the_configuration_has_it_every_second_time() {
    let mut links = links();
    assert_eq!(send(&mut links, SMALL, "vote", 0), ["dial 2 a"]);
    links.on_hello(LinkId(1), &hello(SMALL, "b"), 0);
    links.on_undialed(SMALL, 0);
    assert_eq!(done(&mut links), ["1 closed", "dial 2 b"]);
    let mut dialed = Vec::new();
    for (n, place) in ["c", "d", "e", "f", "g"].into_iter().enumerate() {
        links.on_hello(LinkId(n as u64 + 2), &hello(SMALL, place), n as i64);
        links.on_undialed(SMALL, n as i64);
        dialed.extend(done(&mut links).into_iter().filter(|done| done.starts_with("dial")));
    }
    assert_eq!(dialed, ["dial 2 a", "dial 2 d", "dial 2 a", "dial 2 f", "dial 2 a"]);
}

#[test]
fn a_larger_server_is_told_the_name_and_dials_back() {
    let mut links = links();
    assert_eq!(send(&mut links, LARGE, "vote", 0), ["dial 8 a"]);
    links.on_dialed(LinkId(1), LARGE);
    assert_eq!(done(&mut links), ["1: hello"]);
    links.on_flushed(LinkId(1));
    assert_eq!(done(&mut links), ["1 closed"], "not before it has the name");
    links.on_hello(LinkId(2), &hello(LARGE, "b"), 1);
    assert_eq!(done(&mut links), ["2: vote"]);
    links.on_hello(LinkId(3), &hello(LARGE, "b"), 2);
    assert_eq!(done(&mut links), ["2 closed", "3: vote"], "the newer link counts, and 2 had not delivered");
}

#[test]
fn a_dial_that_crosses_the_larger_servers_own_is_given_up_in_silence() {
    let mut links = links();
    send(&mut links, LARGE, "vote", 0);
    links.on_hello(LinkId(2), &hello(LARGE, "b"), 1);
    links.on_dialed(LinkId(1), LARGE);
    assert_eq!(done(&mut links), ["2: vote", "1 closed"]);
    assert_eq!(links.server_of(LinkId(2)), Some(LARGE));
}

#[test]
fn a_smaller_server_that_dials_is_dialled_back_where_it_says() {
    let mut links = links();
    let old = up(&mut links);
    links.on_hello(LinkId(7), &hello(SMALL, "elsewhere"), 1);
    assert_eq!(done(&mut links), ["1 closed", "7 closed", "dial 2 elsewhere"], "at once, whatever failed before");
    links.on_hello(LinkId(8), &hello(SMALL, "elsewhere"), 2);
    assert_eq!(done(&mut links), ["8 closed"], "one attempt at a time");
    assert_eq!(links.server_of(old), None);
    links.on_undialed(SMALL, 3);
    assert_eq!(done(&mut links), ["dial 2 a"], "where the configuration says, then");
    for wildcard in ["0.0.0.0", "::", "[::]", "0:0:0:0:0:0:0:0", ""] {
        links.on_undialed(SMALL, 3);
        links.on_hello(LinkId(9), &hello(SMALL, wildcard), 3);
        assert_eq!(done(&mut links), ["9 closed", "dial 2 a"], "{wildcard}");
    }
}

#[test]
fn a_stranger_is_dealt_with_where_it_says_and_strangers_are_bounded() {
    let mut links = links();
    links.on_hello(LinkId(1), &hello(ServerId(-3), "x"), 0);
    assert_eq!(done(&mut links), ["1 closed", "dial -3 x"]);
    links.send(ServerId(77), b"nowhere".to_vec(), &[], 0);
    for id in 1_000..2_000 {
        links.on_hello(LinkId(id as u64), &hello(ServerId(id), "x"), 0);
    }
    assert_eq!((links.peers.len(), links.servers.len()), (MAX_STRANGERS, MAX_STRANGERS - 1));
    assert_eq!(send(&mut links, SMALL, "vote", 0).last().unwrap(), "dial 2 a", "members have their place");
    assert!(links.server_of(LinkId(1_000)).is_some());
    links.on_closed(LinkId(1_000));
    links.on_hello(LinkId(9_999), &hello(ServerId(9_999), "x"), 0);
    assert!(links.server_of(LinkId(9_999)).is_some(), "who left makes room");
}

#[test]
fn the_own_id_from_outside_is_closed_with_the_reason() {
    let mut links = links();
    links.on_hello(LinkId(1), &hello(ME, "x"), 0);
    let effects = links.take_effects();
    assert!(matches!(&effects[..], [Effect::Close { why, .. }] if why.contains("myid")), "{effects:?}");
    links.send(ME, b"vote".to_vec(), &at("a"), 0);
    assert_eq!(done(&mut links), [""; 0]);
}

#[test]
fn only_the_newest_message_waits() {
    let mut links = links();
    let link = up(&mut links);
    assert_eq!(send(&mut links, SMALL, "one", 0), ["1: one"]);
    assert_eq!(send(&mut links, SMALL, "two", 0), [""; 0]);
    assert_eq!(send(&mut links, SMALL, "three", 0), [""; 0]);
    links.on_flushed(link);
    assert_eq!(done(&mut links), ["1: three"]);
    links.on_flushed(link);
    assert_eq!(done(&mut links), [""; 0]);
}

#[test]
fn a_new_link_begins_with_the_newest_message() {
    // What was sent last; or what waits; or what the old link had not delivered.
    for (second, expected) in [(None, "one"), (Some("two"), "two")] {
        for flushed in [false, true] {
            let mut links = links();
            let link = up(&mut links);
            send(&mut links, SMALL, "one", 0);
            if flushed {
                links.on_flushed(link);
            }
            second.map(|frame| send(&mut links, SMALL, frame, 0));
            links.on_closed(link);
            links.connect(SMALL, &at("a"), 1_000);
            links.on_dialed(LinkId(2), SMALL);
            links.on_flushed(LinkId(2));
            assert_eq!(done(&mut links), ["dial 2 a", "2: hello", &format!("2: {expected}")]);
        }
    }
}

#[test]
fn attempts_that_fail_become_rarer_and_news_are_tried_at_once() {
    let mut links = links();
    send(&mut links, SMALL, "one", 0);
    assert_eq!(links.next_deadline_ms(), i64::MAX, "one attempt at a time");
    let mut tried = Vec::new();
    for now_ms in 0..20_000 {
        links.on_undialed(SMALL, tried.last().copied().unwrap_or(0));
        let due = links.next_deadline_ms();
        links.tick(now_ms);
        let dials = done(&mut links);
        assert_eq!(dials.is_empty(), now_ms < due);
        if !dials.is_empty() {
            tried.push(now_ms);
        }
    }
    assert_eq!(tried, [100, 300, 700, 1_500, 3_100, 6_300, 11_300, 16_300]);
    assert_eq!(send(&mut links, SMALL, "two", 20_000), ["dial 2 a"]);
    links.on_undialed(SMALL, 20_010);
    links.connect(SMALL, &at("a"), 20_200);
    assert_eq!(send(&mut links, SMALL, "three", 20_099), [""; 0]);
    assert_eq!(send(&mut links, SMALL, "four", 20_100), ["dial 2 a"]);
    // Where nobody answers, an attempt is as long as the longest pause: there is always one under way.
    links.on_undialed(SMALL, 25_100);
    links.tick(25_100);
    assert_eq!(done(&mut links), ["dial 2 a"]);
}

fn find(links: &mut Links, server: ServerId, host: &str, now_ms: i64) -> Vec<String> {
    links.find(server, &at(host), b"vote".to_vec(), now_ms);
    done(links)
}

fn found(links: &Links, server: ServerId) -> Vec<&str> {
    links.found(server).iter().map(|address| address.host.as_str()).collect()
}

#[test]
fn a_smaller_server_is_found_by_the_link_to_it() {
    let mut links = links();
    assert_eq!(find(&mut links, SMALL, "b", 0), ["dial 2 b"]);
    links.on_dialed(LinkId(1), SMALL);
    links.on_flushed(LinkId(1));
    assert_eq!(done(&mut links), ["1: hello", "1: vote"]);
    assert_eq!(found(&links, SMALL), ["b"]);
    assert_eq!(find(&mut links, SMALL, "b", 1_000), [""; 0]);
    links.on_closed(LinkId(1));
    assert_eq!(found(&links, SMALL), [""; 0]);
}

#[test]
fn a_larger_server_is_found_when_it_comes_back_for_the_name_that_was_left() {
    let mut links = links();
    // Anybody may say that it is that one.
    links.on_hello(LinkId(1), &hello(LARGE, "elsewhere"), 0);
    assert_eq!(found(&links, LARGE), [""; 0]);
    assert_eq!(find(&mut links, LARGE, "b", 1), ["1: vote", "dial 8 b"]);
    links.on_undialed(LARGE, 2);
    assert_eq!((found(&links, LARGE), links.server_of(LinkId(1))), (vec![], Some(LARGE)), "the link stays");
    assert_eq!(find(&mut links, LARGE, "b", 3), [""; 0], "not at once");
    assert_eq!(links.next_deadline_ms(), 101);
    links.tick(101);
    assert_eq!(done(&mut links), ["dial 8 b"]);
    links.on_dialed(LinkId(2), LARGE);
    links.on_flushed(LinkId(2));
    assert_eq!(done(&mut links), ["2: hello", "2 closed"]);
    assert_eq!(found(&links, LARGE), [""; 0]);
    links.on_hello(LinkId(3), &hello(LARGE, "b"), 110);
    assert_eq!(done(&mut links), ["1 closed", "3: vote"]);
    assert_eq!((found(&links, LARGE), links.next_deadline_ms()), (vec!["b"], i64::MAX));
    // The next one that comes by itself was not found.
    links.on_hello(LinkId(4), &hello(LARGE, "b"), 120);
    assert_eq!(found(&links, LARGE), [""; 0]);
}

#[test]
fn a_server_that_may_have_moved_is_dialled_at_both_places_in_turn() {
    let mut links = links();
    assert_eq!(send(&mut links, SMALL, "vote", 0), ["dial 2 a"]);
    links.on_undialed(SMALL, 0);
    let mut tried = Vec::new();
    for now_ms in [1_000, 2_000, 4_000, 8_000] {
        tried.extend(find(&mut links, SMALL, "b", now_ms));
        links.on_undialed(SMALL, now_ms);
    }
    assert_eq!(tried, ["dial 2 b", "dial 2 a", "dial 2 b", "dial 2 a"]);
    links.find_nobody();
    links.tick(20_000);
    links.on_undialed(SMALL, 20_000);
    links.tick(40_000);
    assert_eq!(done(&mut links), ["dial 2 a", "dial 2 a"]);
}

#[test]
fn a_new_link_does_not_begin_with_what_was_taken_back() {
    let mut links = links();
    let link = up(&mut links);
    send(&mut links, SMALL, "old", 0);
    assert_eq!(links.take_back(), []);
    links.on_closed(link);
    links.connect(SMALL, &at("a"), 1_000);
    links.on_dialed(LinkId(2), SMALL);
    links.on_flushed(LinkId(2));
    assert_eq!(done(&mut links), ["dial 2 a", "2: hello"]);
    send(&mut links, SMALL, "one", 1_000);
    send(&mut links, SMALL, "two", 1_000);
    assert_eq!(links.take_back(), [SMALL], "it waits for an answer");
    links.on_flushed(LinkId(2));
    assert_eq!(done(&mut links), [""; 0]);
}

#[test]
fn a_server_is_dialled_again_once_it_has_left_a_place_where_somebody_answered() {
    let mut links = links();
    let both = [at("a"), at("b")].concat();
    links.send(SMALL, b"one".to_vec(), &both, 0);
    assert_eq!(done(&mut links), ["dial 2 a"]);
    links.on_dialed(LinkId(1), SMALL);
    links.on_flushed(LinkId(1));
    assert_eq!(done(&mut links), ["1: hello", "1: one"]);
    links.on_flushed(LinkId(1));
    links.send(SMALL, b"two".to_vec(), &both, 200);
    assert_eq!(done(&mut links), ["1: two"]);
    // By the next list it is at b only: at a there may be another by now.
    links.send(SMALL, b"three".to_vec(), &at("b"), 400);
    assert_eq!(done(&mut links), ["1 closed", "dial 2 b"]);
    // One that dialled said who it is.
    links.on_hello(LinkId(3), &hello(LARGE, "c"), 400);
    links.send(LARGE, b"one".to_vec(), &at("c"), 400);
    links.send(LARGE, b"two".to_vec(), &at("d"), 800);
    assert_eq!(done(&mut links), ["3: one"]);
}

#[test]
fn a_second_server_with_an_id_is_noticed_while_the_first_is_connected() {
    let mut links = links();
    up(&mut links);
    let elsewhere = usable(&hello(SMALL, "elsewhere").addresses);
    let peer = links.peers.get_mut(&SMALL).unwrap();
    assert!(peer.clash(&elsewhere).is_some_and(|why| why.contains("elsewhere")));
    assert!(peer.clash(&peer.configured).is_none() && peer.clash(&[]).is_none());
    peer.contact = Contact::None;
    assert!(peer.clash(&elsewhere).is_none());
}
