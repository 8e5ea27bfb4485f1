//! Messages of the election port (`QuorumCnxManager.InitialMessage`, `FastLeaderElection.Notification`): bytes both ways.
//! Pure; used by [`super::election`], [`super::links`] and `engine::quorum`.
//!
//! ```text
//! from the dialling side: hello frame*     from the other side: frame*
//! hello        = -65536 i64 or, with several addresses, -65535 i64  server i64  length i32  addresses
//!              | server i64                 before 3.5
//! addresses    = host:port { "|" host:port }
//! frame        = length i32  notification
//! notification = state i32  leader i64  zxid i64  round i64      28 bytes: 3.3
//!                epoch i64  version i32                          40 bytes: since 3.4.6
//!                length i32  config                              since 3.5
//! ```

use thiserror::Error;

use crate::config::ensemble::HostPort;
use crate::ids::{ServerId, Zxid};
use crate::jute::{JuteError, Reader, Writer, len_i32};
use crate::quorum::{PeerState, Vote};

/// Begins a hello with one address.
const HELLO_V1: i64 = -65_536;
/// Begins a hello with several addresses.
const HELLO_V2: i64 = -65_535;
/// Bytes of the addresses in a hello.
const ADDRESS_BYTES_MAX: usize = 2048;
/// Bytes of a notification.
const NOTIFICATION_BYTES_MAX: usize = 512 << 10;
/// Malformed notifications of one connection that are passed over; one more ends it.
const MALFORMED_MAX: u32 = 8;
/// The version of notifications that hold a configuration: what is written here.
const VERSION: i32 = 2;

/// What the dialling side says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Who dials.
    pub server: ServerId,
    /// Its election addresses as host and port; empty from a peer before 3.5.
    pub addresses: Vec<(String, u16)>,
}

/// A vote as it is told to others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification {
    /// What the sender is doing.
    pub state: PeerState,
    /// Whom it votes for or follows.
    pub vote: Vote,
    /// Its election round (logical clock).
    pub round: i64,
    /// 0 for the forms without version, 1, 2.
    pub version: i32,
    /// Its committed configuration as text, version 2 only.
    pub config: Option<Vec<u8>>,
}

/// Why a connection of the election port cannot go on. It is to be closed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ElectionError {
    /// Neither a server's number nor a version of the hello that is known.
    #[error("the first message begins with {0}, which no release sends")]
    BadVersion(i64),
    /// Addresses that are none.
    #[error("the first message of server {server} has malformed addresses: {what:.240}")]
    BadAddresses {
        /// Who it says it is.
        server: i64,
        /// What is wrong.
        what: String,
    },
    /// A frame that is empty or too long.
    #[error("a message says that it has {0} bytes; from 1 to {NOTIFICATION_BYTES_MAX} are allowed")]
    BadFrameLength(i32),
    /// Malformed notifications, one after the other.
    #[error("more than {MALFORMED_MAX} of its notifications were malformed, the last one so: {0}")]
    TooManyMalformed(JuteError),
}

impl Hello {
    /// The bytes to begin a connection with, for at least one address. They must be written at once: Apache reads the
    /// addresses with one call. A server without `multiAddress.enabled` says its first address alone.
    pub fn encode(my_id: ServerId, addresses: &[(String, u16)], multi_address: bool) -> Vec<u8> {
        let mut text = String::new();
        for (host, port) in addresses.iter().take(if multi_address { usize::MAX } else { 1 }) {
            let address = HostPort { host: host.clone(), port: *port }.to_string();
            let bar = if text.is_empty() { "" } else { "|" };
            if text.len() + bar.len() + address.len() > ADDRESS_BYTES_MAX {
                break;
            }
            text += bar;
            text += &address;
        }
        let mut out = Vec::new();
        out.put_long(if multi_address { HELLO_V2 } else { HELLO_V1 });
        out.put_long(my_id.0);
        out.put_string(&text);
        out
    }
}

impl Notification {
    /// Appends the frame, in the form of today whatever `version` is.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let config = self.config.as_deref().unwrap_or_default();
        out.put_int(len_i32(44 + config.len()));
        out.put_int(self.state.number());
        out.put_long(self.vote.leader.0);
        out.put_long(self.vote.zxid.0);
        out.put_long(self.round);
        out.put_long(self.vote.epoch);
        out.put_int(VERSION);
        out.put_buffer(Some(config));
    }

    /// Reads the content of a frame. What is malformed is to be passed over; the connection goes on. The form of 36 bytes
    /// (3.4.0 to 3.4.5) is malformed for every release since 3.5.
    pub fn decode(frame: &[u8]) -> Result<Notification, JuteError> {
        let mut r = Reader::new(frame);
        let number = r.int()?;
        let bad_state = JuteError::BadValue { at: 0, value: i64::from(number) };
        let state = PeerState::of_number(number).ok_or(bad_state)?;
        let (leader, zxid, round) = (ServerId(r.long()?), Zxid(r.long()?), r.long()?);
        let epoch = if frame.len() == 28 { zxid.0 >> 32 } else { r.long()? };
        let version = match frame.len() {
            28 => 0,
            // The number is there, but counts for nothing in Apache.
            40 => r.int().map(|_| 0)?,
            _ => r.int()?,
        };
        let config = if version >= VERSION { r.buffer()? } else { None };
        let config = config.filter(|text| !text.is_empty()).map(<[u8]>::to_vec);
        Ok(Notification { state, vote: Vote { leader, zxid, epoch }, round, version, config })
    }
}

impl PeerState {
    /// The number on the wire.
    fn number(self) -> i32 {
        match self {
            PeerState::Looking => 0,
            PeerState::Following => 1,
            PeerState::Leading => 2,
            PeerState::Observing => 3,
        }
    }

    fn of_number(number: i32) -> Option<PeerState> {
        use PeerState::{Following, Leading, Looking, Observing};
        [Looking, Following, Leading, Observing].into_iter().find(|state| state.number() == number)
    }
}

/// Takes messages out of the bytes of a connection that come in pieces. Holds what was fed and not taken; a length alone
/// makes it hold nothing.
#[derive(Debug, Default)]
pub struct ElectionDecoder {
    bytes: Vec<u8>,
    /// Bytes that are taken.
    used: usize,
    /// Notifications that were none.
    malformed: u32,
}

impl ElectionDecoder {
    /// Nothing was fed.
    pub fn new() -> ElectionDecoder {
        ElectionDecoder::default()
    }

    /// The next bytes of the stream. To bound what is held, take the messages before feeding again.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.used);
        self.used = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The hello, on a connection that was accepted; `None` until more is fed.
    pub fn next_hello(&mut self) -> Result<Option<Hello>, ElectionError> {
        let mut r = Reader::new(&self.bytes[self.used..]);
        let Ok(first) = r.long() else { return Ok(None) };
        if first >= 0 {
            self.used += r.position();
            return Ok(Some(Hello { server: ServerId(first), addresses: Vec::new() }));
        }
        if first != HELLO_V1 && first != HELLO_V2 {
            return Err(ElectionError::BadVersion(first));
        }
        let (Ok(server), Ok(len)) = (r.long(), r.int()) else { return Ok(None) };
        let bad = |what| ElectionError::BadAddresses { server, what };
        let length = usize::try_from(len).ok().filter(|len| (1..=ADDRESS_BYTES_MAX).contains(len));
        let length = length.ok_or_else(|| bad(format!("{len} bytes; from 1 to {ADDRESS_BYTES_MAX} are allowed")))?;
        let Some(text) = r.rest().get(..length) else { return Ok(None) };
        let addresses = String::from_utf8_lossy(text).split('|').map(address).collect::<Result<_, _>>().map_err(bad)?;
        self.used += r.position() + length;
        Ok(Some(Hello { server: ServerId(server), addresses }))
    }

    /// The next notification; `None` until more is fed. One that is malformed is to be passed over, and the connection
    /// goes on, unless there are many of them.
    pub fn next_notification(&mut self) -> Result<Option<Result<Notification, JuteError>>, ElectionError> {
        let Some(frame) = self.next_frame()? else { return Ok(None) };
        let notification = Notification::decode(&frame);
        if let Err(error) = &notification {
            self.malformed += 1;
            if self.malformed > MALFORMED_MAX {
                return Err(ElectionError::TooManyMalformed(*error));
            }
        }
        Ok(Some(notification))
    }

    /// The content of the next frame.
    fn next_frame(&mut self) -> Result<Option<Vec<u8>>, ElectionError> {
        let mut r = Reader::new(&self.bytes[self.used..]);
        let Ok(len) = r.int() else { return Ok(None) };
        let length = usize::try_from(len).ok().filter(|len| (1..=NOTIFICATION_BYTES_MAX).contains(len));
        let length = length.ok_or(ElectionError::BadFrameLength(len))?;
        let Some(frame) = r.rest().get(..length) else { return Ok(None) };
        let frame = frame.to_vec();
        self.used += 4 + length;
        Ok(Some(frame))
    }
}

fn address(text: &str) -> Result<(String, u16), String> {
    HostPort::parse(text).map(|address| (address.host, address.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &[u8] = b"server.1=127.0.0.1:3101:4101:participant\nserver.2=127.0.0.1:3102:4102:participant\n\
        server.3=127.0.0.1:3103:4103:participant\nversion=0";

    fn hello(bytes: &[u8]) -> Result<Option<Hello>, ElectionError> {
        let mut decoder = ElectionDecoder::new();
        decoder.feed(bytes);
        decoder.next_hello()
    }

    fn place(host: &str, port: u16) -> (String, u16) {
        (host.to_string(), port)
    }

    fn first_vote() -> Notification {
        let vote = Vote { leader: ServerId(1), zxid: Zxid(0), epoch: 0 };
        Notification { state: PeerState::Looking, vote, round: 1, version: 2, config: Some(CONFIG.to_vec()) }
    }

    /// The head of a first vote as servers of Apache were seen to send it, behind its length.
    fn captured() -> Vec<u8> {
        let mut bytes = vec![0; 4];
        for long in [1_i64, 0, 1, 0] {
            bytes.extend(long.to_be_bytes());
        }
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 0x84]);
        bytes.extend(CONFIG);
        bytes
    }

    #[test]
    fn a_hello_is_written_as_apache_writes_it() {
        let mut expected = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 14];
        expected.extend(b"127.0.0.1:4101");
        let addresses = [place("127.0.0.1", 4101), place("::1", 4102)];
        assert_eq!(Hello::encode(ServerId(1), &addresses, false), expected);
        assert_eq!(
            hello(&expected),
            Ok(Some(Hello { server: ServerId(1), addresses: vec![place("127.0.0.1", 4101)] }))
        );
        let many = Hello::encode(ServerId(1), &addresses, true);
        assert_eq!(many[..8], HELLO_V2.to_be_bytes());
        assert_eq!(&many[20..], b"127.0.0.1:4101|[0:0:0:0:0:0:0:1]:4102");
        let both = hello(&many).unwrap().unwrap().addresses;
        assert_eq!(both, [place("127.0.0.1", 4101), place("0:0:0:0:0:0:0:1", 4102)]);
    }

    #[test]
    fn a_hello_of_an_old_peer_is_its_number_alone() {
        assert_eq!(hello(&7_i64.to_be_bytes()), Ok(Some(Hello { server: ServerId(7), addresses: vec![] })));
    }

    #[test]
    fn a_first_message_that_is_no_hello_is_refused() {
        assert_eq!(hello(&(-1_i64).to_be_bytes()), Err(ElectionError::BadVersion(-1)));
        for (len, text) in [(0, &b""[..]), (2049, b""), (-1, b""), (4, b"host"), (6, b"host:x"), (8, b"h:1|a:b:")] {
            let mut bytes = HELLO_V1.to_be_bytes().to_vec();
            bytes.put_long(3);
            bytes.put_int(len);
            bytes.extend(text);
            assert!(matches!(hello(&bytes), Err(ElectionError::BadAddresses { server: 3, .. })), "{len}");
        }
    }

    #[test]
    fn a_notification_is_written_and_read_as_apache_writes_it() {
        let mut frame = Vec::new();
        first_vote().encode(&mut frame);
        assert_eq!(frame[..4], [0, 0, 0, 0xb0]);
        assert_eq!(frame[4..], captured());
        assert_eq!(Notification::decode(&frame[4..]), Ok(first_vote()));
        let vote = Vote { leader: ServerId(2), zxid: Zxid(0), epoch: 1 };
        let follower = Notification { state: PeerState::Following, vote, config: None, ..first_vote() };
        let mut frame = Vec::new();
        follower.encode(&mut frame);
        assert_eq!(Notification::decode(&frame[4..]), Ok(follower));
    }

    #[test]
    fn forms_of_older_releases_are_told_by_their_length() {
        let mut bytes = captured();
        bytes[12..20].copy_from_slice(&0x7_0000_0003_i64.to_be_bytes());
        let read = |len: usize| Notification::decode(&bytes[..len]).map(|n| (n.vote.epoch, n.version, n.config));
        assert_eq!(read(28), Ok((7, 0, None)));
        assert_eq!(read(40), Ok((0, 0, None)));
        for malformed in [0, 27, 36, 43, 44, bytes.len() - 1] {
            assert!(read(malformed).is_err(), "{malformed}");
        }
        // What a later version adds behind the configuration is passed over.
        bytes.extend([1, 2, 3]);
        assert_eq!(Notification::decode(&bytes).unwrap().config.as_deref(), Some(CONFIG));
        bytes[3] = 4;
        assert_eq!(Notification::decode(&bytes), Err(JuteError::BadValue { at: 0, value: 4 }));
    }

    #[test]
    fn a_hello_and_frames_come_out_however_they_are_cut() {
        let mut stream = Hello::encode(ServerId(3), &[place("h", 1)], false);
        first_vote().encode(&mut stream);
        first_vote().encode(&mut stream);
        for step in [1, 5, stream.len()] {
            let mut decoder = ElectionDecoder::new();
            let (mut hello, mut frames) = (None, 0);
            for piece in stream.chunks(step) {
                decoder.feed(piece);
                if hello.is_none() {
                    hello = decoder.next_hello().unwrap();
                }
                while hello.is_some()
                    && let Some(frame) = decoder.next_frame().unwrap()
                {
                    assert_eq!(Notification::decode(&frame), Ok(first_vote()));
                    frames += 1;
                }
            }
            assert_eq!((hello.map(|hello| hello.server), frames), (Some(ServerId(3)), 2));
        }
    }

    #[test]
    fn a_frame_that_is_empty_or_too_long_is_refused_before_its_bytes_come() {
        for len in [0, -1, 524_289, i32::MAX] {
            let mut decoder = ElectionDecoder::new();
            decoder.feed(&len.to_be_bytes());
            assert_eq!(decoder.next_frame(), Err(ElectionError::BadFrameLength(len)));
        }
        let mut decoder = ElectionDecoder::new();
        decoder.feed(&524_288_i32.to_be_bytes());
        assert_eq!(decoder.next_frame(), Ok(None));
    }
}
