//! Bytes as what a client sends, cut into segments in any way: frames, four-letter words, garbage. Whatever the cuts,
//! the same mail comes of it and the connection ends the same way.
//!
//! Input: number of cuts, the lengths of the segments (used over and over), the stream.
#![no_main]

use std::net::{Ipv4Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use rookeeper::admin::words::Word;
use rookeeper::ids::{ConnId, SessionId};
use rookeeper::mail::{Fate, Outgoing, ToPipeline};
use rookeeper::net::PollerOptions;
use rookeeper::net::conn::Conn;
use rookeeper::net::ingress::{Ingress, Flow};
use rookeeper_fuzz::cut;

const ID: ConnId = ConnId { slot: 1, generation: 1 };
const NOW_US: i64 = 1_000_000;

struct Client {
    ingress: Ingress,
    conn: Conn,
    mail: Vec<String>,
    end: Option<String>,
}

impl Client {
    fn new() -> Client {
        let words = Word::ALL.iter().copied().filter(|word| *word != Word::Conf).collect();
        let options = PollerOptions { frame_bytes_max: 3000, words, ..PollerOptions::default() };
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1000));
        let conn = Conn::new(ID, peer, NOW_US / 1000);
        Client { ingress: Ingress::new(&options, 1), conn, mail: Vec::new(), end: None }
    }

    /// The poller's part: bytes in, answers back, until nothing is held.
    fn read(&mut self, mut bytes: &[u8]) {
        while self.end.is_none() {
            match self.ingress.take(&mut self.conn, bytes, NOW_US) {
                Ok(flow) => {
                    bytes = &[];
                    let answered = self.answer();
                    if flow == Flow::Open {
                        return;
                    }
                    assert!(answered, "a paused connection waits for an answer");
                }
                Err(cause) => self.end = Some(cause.to_string()),
            }
        }
        self.answer();
    }

    fn answer(&mut self) -> bool {
        let mail: Vec<ToPipeline> = std::mem::take(&mut self.ingress.batch);
        let words = std::mem::take(&mut self.ingress.words);
        let any = !mail.is_empty() || !words.is_empty();
        for mail in mail {
            self.mail.push(format!("{mail:?}"));
            match mail {
                ToPipeline::Connect { .. } => {
                    self.told(0, Fate::Established { session: SessionId(1), timeout_ms: 4000 });
                }
                ToPipeline::Request { .. } => self.told(1, Fate::Open),
                other => panic!("{other:?} does not come of bytes"),
            }
        }
        for word in words {
            self.mail.push(format!("{word:?}"));
            self.told(0, Fate::Close);
        }
        any
    }

    fn told(&mut self, answered: u32, fate: Fate) {
        let outgoing =
            Outgoing { conn: ID, bytes: vec![0; 8].into(), frames: 1, tell_drained: false, answered, fate, last: None };
        self.conn.on_outgoing(outgoing, &mut self.ingress.load, NOW_US, 0);
        let sent = self.conn.output.unsent();
        self.conn.output.advance(sent);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (stream, pieces) = cut(bytes);
    let mut whole = Client::new();
    whole.read(stream);
    let mut cut = Client::new();
    pieces.into_iter().for_each(|piece| cut.read(piece));
    assert_eq!(whole.mail, cut.mail);
    assert_eq!(whole.end, cut.end);
    assert_eq!(format!("{:?}", whole.conn.phase()), format!("{:?}", cut.conn.phase()));
    assert_eq!((whole.ingress.load.requests(), cut.ingress.load.requests()), (0, 0));
});
