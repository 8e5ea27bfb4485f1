//! Bytes as what a learner or a leader sends on the quorum port, snapshots included, cut into segments in any way.
//! Whatever the cuts, the same packets and states come of it; a packet is written and read again, and comes out the same.
//!
//! Input: the sender, number of cuts, the lengths of the segments (used over and over), the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rookeeper::quorum::packet::{From, Packet, PacketDecoder};
use rookeeper::records::OwnerRules;
use rookeeper::state::StateRules;
use rookeeper::storage::stream::{Progress, SnapshotReceiver};
use rookeeper_fuzz::{check_state, cut};

const BYTES_MAX: usize = 3000;
const RULES: StateRules = StateRules::new(OwnerRules { extended_types: true, emulate_353: false }, true);

struct Link {
    from: From,
    decoder: PacketDecoder,
    snapshot: Option<SnapshotReceiver>,
    heard: Vec<String>,
    end: Option<String>,
}

impl Link {
    fn new(from: From) -> Link {
        let decoder = PacketDecoder::new(from, BYTES_MAX);
        Link { from, decoder, snapshot: None, heard: Vec::new(), end: None }
    }

    fn read(&mut self, bytes: &[u8]) {
        if self.end.is_none()
            && let Err(why) = self.try_read(bytes)
        {
            self.end = Some(why);
        }
    }

    fn try_read(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut bytes = bytes.to_vec();
        loop {
            if let Some(receiver) = &mut self.snapshot {
                match receiver.feed(&bytes).map_err(|error| error.to_string())? {
                    Progress::More => return Ok(()),
                    Progress::Done { state, used } => {
                        check_state(&state);
                        self.heard.push(format!("{} nodes, {:x}", state.tree().len(), state.tree_digest()));
                        bytes.drain(..used);
                        self.snapshot = None;
                    }
                }
            }
            self.decoder.feed(&bytes);
            loop {
                let Some(packet) = self.decoder.next_packet().map_err(|error| error.to_string())? else {
                    return Ok(());
                };
                self.check(&packet);
                self.heard.push(format!("{packet:?}"));
                if let Packet::Snap { zxid, .. } = packet {
                    self.snapshot = Some(SnapshotReceiver::new(RULES, zxid, BYTES_MAX));
                    bytes = self.decoder.take_rest();
                    break;
                }
            }
        }
    }

    fn check(&self, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(self.from, &mut bytes);
        // An old learner's info becomes a longer one.
        let mut decoder = PacketDecoder::new(self.from, BYTES_MAX);
        decoder.feed(&bytes);
        assert_eq!(decoder.next_packet().as_ref(), Ok(&Some(packet.clone())));
        assert!(decoder.take_rest().is_empty());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&sender, rest)) = bytes.split_first() else { return };
    let from = if sender % 2 == 0 { From::Leader } else { From::Learner };
    let (stream, pieces) = cut(rest);
    let mut whole = Link::new(from);
    whole.read(stream);
    let mut cut = Link::new(from);
    pieces.into_iter().for_each(|piece| cut.read(piece));
    assert_eq!(whole.heard, cut.heard);
    // What is wrong with an entry of a snapshot may be noticed later: it is not looked through anew for each byte.
    assert!(whole.end.is_some() || cut.end.is_none());
});
