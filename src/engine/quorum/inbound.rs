//! What comes in on one connection between servers, from bytes to what is whole. Pure: the socket is `link`'s.
//!
//! A stream changes what it means in two places: behind the hello of the election port, and before and behind the snapshot
//! that follows SNAP. The decoder changes with the byte that does it, wherever one read ends and the next begins.

use crate::quorum::notification::{ElectionDecoder, Hello, Notification};
use crate::quorum::packet::{From, Packet, PacketDecoder};
use crate::state::{State, StateRules};
use crate::storage::stream::{Progress, SnapshotReceiver};

/// Packets handed over at once: many, so that a batch of proposals is one batch for the log.
const PACKETS_AT_ONCE: usize = 4096;

/// What a link carries, and how far its decoding is.
#[derive(Debug)]
pub enum Port {
    /// The election port, accepted: the other side says who it is.
    Nameless(ElectionDecoder),
    /// The election port: frames.
    Election(ElectionDecoder),
    /// The quorum port, accepted: a learner.
    Learner(PacketDecoder),
    /// The quorum port, dialled: the leader.
    Leader(LeaderDecoder),
}

/// What came in.
#[derive(Debug)]
pub enum Heard {
    /// Nothing whole.
    Nothing,
    /// Who is there.
    Hello(Hello),
    /// A vote.
    Notification(Notification),
    /// A notification that is none; the connection goes on.
    Malformed(String),
    /// Packets, in order.
    Packets(Vec<Packet>),
    /// The state that followed a SNAP.
    Snapshot(Box<State>),
}

impl Port {
    /// An accepted connection of the election port.
    pub fn nameless() -> Port {
        Port::Nameless(ElectionDecoder::new())
    }

    /// A connection to another server's election port.
    pub fn known() -> Port {
        Port::Election(ElectionDecoder::new())
    }

    /// An accepted connection of the quorum port.
    pub fn learner(packet_bytes_max: usize) -> Port {
        Port::Learner(PacketDecoder::new(From::Learner, packet_bytes_max))
    }

    /// A connection to the leader. `rules` are for the state behind a SNAP.
    pub fn leader(packet_bytes_max: usize, rules: StateRules) -> Port {
        Port::Leader(LeaderDecoder {
            packets: PacketDecoder::new(From::Leader, packet_bytes_max),
            snapshot: None,
            is_exact: false,
            state: None,
            rules,
            entry_bytes_max: packet_bytes_max,
        })
    }

    /// The next bytes. To bound what is held, hear what is whole before feeding much more.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Port::Nameless(election) | Port::Election(election) => election.feed(bytes),
            Port::Learner(packets) => packets.feed(bytes),
            Port::Leader(leader) => leader.feed(bytes)?,
        }
        Ok(())
    }

    /// The next thing that is whole, of what was fed.
    pub fn hear(&mut self) -> Result<Heard, String> {
        match self {
            Port::Nameless(election) => {
                let hello = election.next_hello().map_err(|error| error.to_string())?;
                let Some(hello) = hello else { return Ok(Heard::Nothing) };
                *self = Port::Election(std::mem::take(election));
                Ok(Heard::Hello(hello))
            }
            Port::Election(election) => {
                let notification = election.next_notification().map_err(|error| error.to_string())?;
                Ok(match notification {
                    None => Heard::Nothing,
                    Some(Ok(notification)) => Heard::Notification(notification),
                    Some(Err(error)) => Heard::Malformed(error.to_string()),
                })
            }
            Port::Learner(packets) => next_packets(packets, |_| false).map(heard),
            Port::Leader(leader) => leader.hear(),
        }
    }
}

/// What a leader sends: packets, and behind SNAP a snapshot between them.
#[derive(Debug)]
pub struct LeaderDecoder {
    packets: PacketDecoder,
    /// In the midst of a snapshot.
    snapshot: Option<Box<SnapshotReceiver>>,
    /// It is of one moment, as those of our servers are: Apache goes on writing while it sends.
    is_exact: bool,
    /// What a snapshot ended in. The packets behind it come after it.
    state: Option<Box<State>>,
    rules: StateRules,
    entry_bytes_max: usize,
}

impl LeaderDecoder {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(receiver) = &mut self.snapshot else {
            self.packets.feed(bytes);
            return Ok(());
        };
        if let Progress::Done { mut state, used } = receiver.feed(bytes).map_err(|error| error.to_string())? {
            self.snapshot = None;
            if !self.is_exact {
                state.doubt_digests();
            }
            self.state = Some(state);
            self.packets.feed(&bytes[used..]);
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<Heard, String> {
        if let Some(state) = self.state.take() {
            return Ok(Heard::Snapshot(state));
        }
        let packets = next_packets(&mut self.packets, |packet| matches!(packet, Packet::Snap { .. }))?;
        if let Some(Packet::Snap { zxid, told }) = packets.last() {
            self.is_exact = told.is_some();
            let rest = self.packets.take_rest();
            self.snapshot = Some(Box::new(SnapshotReceiver::new(self.rules, *zxid, self.entry_bytes_max)));
            self.feed(&rest)?;
        }
        Ok(heard(packets))
    }
}

/// The next packets, up to the first that is `last`.
fn next_packets(decoder: &mut PacketDecoder, last: impl Fn(&Packet) -> bool) -> Result<Vec<Packet>, String> {
    let mut packets = Vec::new();
    while packets.len() < PACKETS_AT_ONCE
        && let Some(packet) = decoder.next_packet().map_err(|error| error.to_string())?
    {
        packets.push(packet);
        if packets.last().is_some_and(&last) {
            break;
        }
    }
    Ok(packets)
}

fn heard(packets: Vec<Packet>) -> Heard {
    if packets.is_empty() { Heard::Nothing } else { Heard::Packets(packets) }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::ids::{ServerId, Zxid};
    use crate::quorum::{PeerState, Vote};
    use crate::state::State;
    use crate::storage::stream::SIGNATURE;

    /// What a snapshot file has before the parts that a stream has.
    const FILE_HEADER_BYTES: usize = 16;

    /// The bytes behind SNAP for a fresh state.
    pub fn snapshot() -> Vec<u8> {
        let mut state = State::fresh(StateRules::default());
        let mut bytes = state.begin_cut();
        loop {
            let (slice, done) = state.cut_slice(1000);
            bytes.extend(slice);
            if done {
                return [&bytes[FILE_HEADER_BYTES..], SIGNATURE].concat();
            }
        }
    }

    fn encoded(packets: &[Packet], from: From) -> Vec<u8> {
        let mut bytes = Vec::new();
        packets.iter().for_each(|packet| packet.encode(from, &mut bytes));
        bytes
    }

    /// In short, however the packets are gathered.
    fn words(heard: Heard) -> Vec<String> {
        match heard {
            Heard::Nothing => vec![],
            Heard::Packets(packets) => packets.iter().map(|packet| format!("{packet:?}")).collect(),
            Heard::Snapshot(state) => vec![format!("the state as of {}", state.last_zxid())],
            other => vec![format!("{other:?}")],
        }
    }

    /// What is heard when so many bytes come with each read, and so many reads with each turn.
    fn heard(mut port: Port, stream: &[u8], read_bytes: usize, reads: usize) -> Vec<String> {
        let mut all = Vec::new();
        let pieces: Vec<&[u8]> = stream.chunks(read_bytes).collect();
        for turn in pieces.chunks(reads) {
            turn.iter().for_each(|piece| port.feed(piece).unwrap());
            loop {
                match words(port.hear().unwrap()) {
                    nothing if nothing.is_empty() => break,
                    more => all.extend(more),
                }
            }
        }
        all
    }

    #[track_caller]
    fn is_heard_however_it_is_cut(port: impl Fn() -> Port, stream: &[u8], expected: &[String]) {
        for read_bytes in [stream.len(), 1, 7, 100] {
            for reads in [1, 3, stream.len()] {
                let heard = heard(port(), stream, read_bytes, reads);
                assert_eq!(heard, expected, "{read_bytes} bytes a read, {reads} reads a turn");
            }
        }
    }

    #[test]
    fn packets_follow_a_snapshot_however_the_bytes_are_cut() {
        let proposal = |n| Packet::Proposal { zxid: Zxid(n), payload: vec![5; 40] };
        let leader = [Packet::LeaderInfo { epoch: 1, ours: None }, Packet::Snap { zxid: Zxid(9), told: None }];
        let behind = [proposal(10), Packet::Commit { zxid: Zxid(10) }, Packet::UpToDate];
        // A second snapshot is no business of the decoder's: the learner refuses it.
        let again = [Packet::Snap { zxid: Zxid(10), told: None }];
        let last = [proposal(11)];
        let (sent, tree) = (|packets: &[Packet]| encoded(packets, From::Leader), snapshot());
        let stream = [sent(&leader), tree.clone(), sent(&behind), sent(&again), tree, sent(&last)].concat();
        let mut expected = Vec::new();
        for (packets, zxid) in [(&leader[..], Some(9)), (&[&behind[..], &again].concat(), Some(10)), (&last, None)] {
            expected.extend(packets.iter().map(|packet| format!("{packet:?}")));
            expected.extend(zxid.map(|n| format!("the state as of {}", Zxid(n))));
        }
        is_heard_however_it_is_cut(|| Port::leader(1000, StateRules::default()), &stream, &expected);
    }

    #[test]
    fn a_leader_hears_its_learner_however_the_bytes_are_cut() {
        let packets = [Packet::AckEpoch { zxid: Zxid(3), epoch: Some(1), reach: None }, Packet::Ack { zxid: Zxid(4) }];
        let expected: Vec<String> = packets.iter().map(|packet| format!("{packet:?}")).collect();
        is_heard_however_it_is_cut(|| Port::learner(1000), &encoded(&packets, From::Learner), &expected);
    }

    #[test]
    fn votes_follow_the_hello_however_the_bytes_are_cut() {
        let vote = Vote { leader: ServerId(2), zxid: Zxid(5), epoch: 1 };
        let notification = |round| Notification { state: PeerState::Looking, vote, round, version: 2, config: None };
        let addresses = vec![("127.0.0.1".to_owned(), 4101)];
        let new = Hello { server: ServerId(3), addresses: addresses.clone() };
        let old = Hello { server: ServerId(4), addresses: Vec::new() };
        for (hello, bytes) in
            [(new, Hello::encode(ServerId(3), &addresses, false)), (old, 4_i64.to_be_bytes().to_vec())]
        {
            let mut stream = bytes;
            (1..=3).for_each(|round| notification(round).encode(&mut stream));
            let votes = (1..=3).map(|round| format!("{:?}", Heard::Notification(notification(round))));
            let expected: Vec<String> = [format!("{:?}", Heard::Hello(hello))].into_iter().chain(votes).collect();
            is_heard_however_it_is_cut(Port::nameless, &stream, &expected);
        }
    }
}
