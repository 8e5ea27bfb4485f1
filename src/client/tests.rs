//! The client against servers that a test plays by hand.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::*;
use crate::jute::Writer;
use crate::ops::encode::framed;

const SESSION: i64 = 0x1_0000;
/// In an event, its kind and the state.
const NODE_DELETED: i32 = 2;
const SYNC_CONNECTED: i32 = 3;

/// One connection, seen from the server.
struct Peer(TcpStream);

impl Peer {
    fn accept(listener: &TcpListener) -> Peer {
        Peer(listener.accept().unwrap().0)
    }

    /// The next frame, without its length.
    fn hear(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }

    /// Takes the handshake and answers with this session; none is an expired one.
    fn greet(mut self, session: Option<i64>) -> Peer {
        self.hear();
        self.0.write_all(&greeting(session)).unwrap();
        self
    }

    fn say(&mut self, xid: i32, err: i32, body: &[u8]) {
        self.0.write_all(&answer(xid, err, body)).unwrap();
    }
}

fn greeting(session: Option<i64>) -> Vec<u8> {
    let mut answer = Vec::new();
    answer.put_int(0);
    answer.put_int(session.map_or(0, |_| 10_000));
    answer.put_long(session.unwrap_or(0));
    answer.put_buffer(Some(&[7; 16]));
    answer.put_bool(false);
    framed(&answer)
}

fn answer(xid: i32, err: i32, body: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    answer.put_int(xid);
    answer.put_long(5);
    answer.put_int(err);
    answer.extend_from_slice(body);
    framed(&answer)
}

/// Starts a client of a server that does `play`.
fn client_of(play: impl FnOnce(TcpListener) + Send + 'static) -> (Client, Receiver<Event>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let servers = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || play(listener));
    let (sender, events) = crossbeam_channel::unbounded();
    let options = Options { timeout_ms: 10_000, ..Options::default() };
    let client = Client::start(&servers, options, move |event| sender.send(event).unwrap()).unwrap();
    (client, events, server)
}

fn data_body(data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_buffer(Some(data));
    Stat::default().write(&mut body);
    body
}

fn keeper_states(events: &Receiver<Event>, count: usize) -> Vec<KeeperState> {
    events.iter().take(count).map(|event| event.keeper_state).collect()
}

#[test]
fn a_read_is_asked_again_after_a_loss_and_a_write_is_not() {
    let (client, events, server) = client_of(|listener| {
        let mut first = Peer::accept(&listener).greet(Some(SESSION));
        let read = first.hear();
        first.hear();
        drop(first);
        let mut second = Peer::accept(&listener).greet(Some(SESSION));
        assert_eq!(second.hear(), read);
        second.say(i32::from_be_bytes(*read.first_chunk().unwrap()), 0, &data_body(b"x"));
        // Until the client goes.
        let _ = second.0.read(&mut [0]);
    });
    client.wait_connected(Duration::from_secs(10)).unwrap();
    let read = client.ask_data("/a", false).unwrap();
    let lost = client.delete("/a", -1).unwrap_err();
    assert!(matches!(&lost, Error::ConnectionLoss { path: Some(path), .. } if path == "/a"), "{lost:?}");
    assert_eq!(client.read_data(read).unwrap().0.as_deref(), Some(&b"x"[..]));
    assert_eq!(
        keeper_states(&events, 3),
        [KeeperState::SyncConnected, KeeperState::Disconnected, KeeperState::SyncConnected]
    );
    drop(client);
    server.join().unwrap();
}

#[test]
fn answers_and_events_follow_the_greeting_however_it_is_cut() {
    for piece_bytes in [usize::MAX, 1] {
        let (asked, is_asked) = crossbeam_channel::bounded(1);
        let (client, events, server) = client_of(move |listener| {
            let mut peer = Peer::accept(&listener);
            is_asked.recv().unwrap();
            let mut event = Vec::new();
            event.put_int(NODE_DELETED);
            event.put_int(SYNC_CONNECTED);
            event.put_string("/a");
            // The client sends its request behind the greeting, which it has not read yet: nobody waits for it here.
            let all = [greeting(Some(SESSION)), answer(1, 0, &data_body(b"x")), answer(-1, 0, &event)].concat();
            peer.0.set_nodelay(true).unwrap();
            all.chunks(piece_bytes.min(all.len())).for_each(|piece| peer.0.write_all(piece).unwrap());
            let _ = peer.0.read_to_end(&mut Vec::new());
        });
        let ticket = client.ask_data("/a", true).unwrap();
        asked.send(()).unwrap();
        assert_eq!(client.read_data(ticket).unwrap().0.as_deref(), Some(&b"x"[..]));
        let kinds: Vec<_> = events.iter().take(2).map(|event| (event.kind, event.path)).collect();
        assert_eq!(kinds[1], (Kind::NodeDeleted, Some("/a".to_owned())));
        drop(client);
        server.join().unwrap();
    }
}

#[test]
fn nonsense_in_place_of_a_greeting_is_told_and_the_next_one_serves() {
    let (asked, is_asked) = crossbeam_channel::bounded(1);
    let (client, _events, server) = client_of(move |listener| {
        let mut first = Peer::accept(&listener);
        first.hear();
        is_asked.recv().unwrap();
        first.0.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        let mut second = Peer::accept(&listener).greet(Some(SESSION));
        // An answer to nothing that was asked ends the connection.
        second.say(99, 0, &[]);
        let mut third = Peer::accept(&listener).greet(Some(SESSION));
        let request = third.hear();
        third.say(i32::from_be_bytes(*request.first_chunk().unwrap()), -101, &[]);
        let _ = third.0.read(&mut [0]);
    });
    let ticket = client.ask_data("/a", false).unwrap();
    asked.send(()).unwrap();
    let told = client.read_data(ticket).unwrap_err();
    let Error::ConnectionLoss { tried, .. } = &told else { panic!("{told:?}") };
    assert!(tried[0].why.contains("does not speak ZooKeeper's protocol"), "{tried:?}");
    assert!(client.data("/a", false).unwrap_err().is_no_node());
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_session_that_ended_meanwhile_is_told_to_everybody() {
    let (client, events, server) = client_of(|listener| {
        let mut first = Peer::accept(&listener).greet(Some(SESSION));
        first.hear();
        drop(first);
        Peer::accept(&listener).greet(None);
    });
    let expired = Error::SessionExpired { path: Some("/a".into()) };
    assert_eq!(client.data("/a", false).unwrap_err(), expired);
    assert_eq!(client.data("/a", false).unwrap_err(), expired);
    assert!(!client.is_alive());
    assert_eq!(
        keeper_states(&events, 3),
        [KeeperState::SyncConnected, KeeperState::Disconnected, KeeperState::Expired]
    );
    server.join().unwrap();
}

#[test]
fn a_raised_interrupt_ends_a_wait() {
    let (client, _events, server) = client_of(|listener| {
        let mut peer = Peer::accept(&listener).greet(Some(SESSION));
        peer.hear();
        let _ = peer.0.read(&mut [0]);
    });
    client.wait_connected(Duration::from_secs(10)).unwrap();
    let ticket = client.ask_data("/a", false).unwrap();
    client.interrupt.raise();
    assert_eq!(ticket.wait().unwrap_err(), Error::Interrupted);
    client.interrupt.lower();
    drop(client);
    server.join().unwrap();
}
