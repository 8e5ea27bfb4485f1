//! One question to a pipeline that has nodes and a session, and one answer. Used by the fuzz target `requests`.

use std::net::{Ipv4Addr, SocketAddr};

use rookeeper::ids::{ConnId, Now};
use rookeeper::mail::{Fate, Outgoing, ToPipeline};
use rookeeper::ops::{ConnectRequest, Create, Op, OpCode, ReadOp, Request, WriteOp};
use rookeeper::pipeline::Pipeline;
use rookeeper::records::{Acl, OwnerRules};
use rookeeper::state::{State, StateRules};

use super::choices::Choices;
use super::frames;
use super::world;

const ASKER: ConnId = ConnId { slot: 0, generation: 0 };
const STRANGER: ConnId = ConnId { slot: 1, generation: 1 };

/// A pipeline with a few nodes, which one client made.
pub struct Ask {
    pipeline: Pipeline,
}

impl Ask {
    pub fn fresh() -> Ask {
        let owners = OwnerRules { extended_types: true, emulate_353: false };
        let state = State::fresh(StateRules::new(owners, true));
        let now = Now { mono_ms: 1_000_000, wall_ms: 1_800_000_000_000 };
        let mut ask = Ask { pipeline: Pipeline::new(world::rules(&mut Choices::new(&[])), state, now, 1) };
        let request = ConnectRequest {
            last_zxid_seen: 0,
            timeout_ms: 1000,
            session_id: 0,
            password: Vec::new(),
            read_only: Some(false),
        };
        assert!(matches!(ask.connect_as(ASKER, request).fate, Fate::Established { .. }));
        for path in ["/a", "/a/b", "/zookeeper/quota/a", "/zookeeper/quota/a/zookeeper_limits"] {
            let create = Create {
                code: OpCode::Create,
                path: path.into(),
                data: Some(b"count=5,bytes=100".to_vec()),
                acl: Some(Acl::open()),
                flags: 0,
                ttl_ms: -1,
            };
            ask.ask(Request { xid: 1, op_number: 1, op: Op::Write(WriteOp::Create(create)), body: Vec::new() });
        }
        ask
    }

    /// Another client connects.
    pub fn connect(&mut self, request: ConnectRequest) {
        let outgoing = self.connect_as(STRANGER, request);
        match outgoing.fate {
            Fate::Established { timeout_ms, .. } => assert!((200..=2000).contains(&timeout_ms)),
            Fate::Close => {}
            Fate::Open => panic!("a connect request is taken or refused"),
        }
        frames::split(&outgoing.bytes.into_vec())
            .into_iter()
            .for_each(|frame| assert!(frames::welcome(frame).timeout_ms >= 0));
    }

    fn connect_as(&mut self, conn: ConnId, request: ConnectRequest) -> Outgoing {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1000));
        self.pipeline.step(ToPipeline::Connect { conn, peer, request });
        self.settle(conn)
    }

    /// The client asks, and is answered once, in whole frames.
    pub fn ask(&mut self, request: Request) {
        let xid = if request.op == Op::Read(ReadOp::Ping) { -2 } else { request.xid };
        self.pipeline.step(ToPipeline::Request { conn: ASKER, request, received_us: 0 });
        let outgoing = self.settle(ASKER);
        assert_eq!(outgoing.answered, 1);
        let bytes = outgoing.bytes.into_vec();
        let frames = frames::split(&bytes);
        assert_eq!(frames.len(), outgoing.frames as usize);
        let last = frames.last().expect("there is a reply");
        assert_eq!(last[..4], xid.to_be_bytes());
    }

    /// Commits what is logged. Gives what a client is told.
    fn settle(&mut self, conn: ConnId) -> Outgoing {
        let mut outbox = self.pipeline.take_outbox();
        if let Some(record) = outbox.records.last() {
            self.pipeline.step(ToPipeline::Committed { zxid: record.zxid, at_us: 0, synced: vec![] });
            let told = self.pipeline.take_outbox().poller.outgoing;
            outbox.poller.outgoing.extend(told);
        }
        let pending = self.pipeline.pending();
        assert!(pending.is_empty() && pending.digest() == self.pipeline.state().tree_digest());
        let told: Vec<Outgoing> = outbox.poller.outgoing.into_iter().filter(|told| told.conn == conn).collect();
        told.into_iter().next().expect("the client is told something")
    }
}
