//! The poller with a pipeline that only looks replies up: what a request costs before any work is done on it. A tool for
//! measuring, driven by a load generator: `cargo run --release --example poller_floor -- 127.0.0.1:2199 [poller spin us]
//! [pipeline spin us]`. Answers get, set, create and exists; keeps nothing.

use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use rookeeper::ids::{ConnId, SessionId};
use rookeeper::jute::Writer;
use rookeeper::mail::{Fate, Outgoing, ToPipeline, ToPoller};
use rookeeper::net::AdmitLimits;
use rookeeper::ops::{Op, Request};
use rookeeper::sys::net::bind;
use rookeeper::threads::poller::{self, PollerHandle, PollerOptions};
use rookeeper::threads::spin::{Spin, receive};

fn main() {
    env_logger::init();
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or("127.0.0.1:2199".into()).parse().expect("an address");
    let mut number = || args.next().map_or(0, |text| text.parse().expect("microseconds"));
    let (spin_us, pipeline_spin_us): (i64, i64) = (number(), number());
    let listener = bind(address, -1).expect("a free port");
    println!("listening on {}", listener.address);
    let (sender, receiver) = unbounded();
    let options = PollerOptions { spin_us, admit: AdmitLimits::default(), ..PollerOptions::default() };
    let (handle, thread) = poller::start(options, vec![listener], sender).expect("a poller");
    pipeline(&receiver, &handle, Spin::new(pipeline_spin_us));
    thread.join().expect("no panic");
}

fn pipeline(receiver: &Receiver<Vec<ToPipeline>>, handle: &PollerHandle, mut spin: Spin) {
    let value = vec![b'v'; 1024];
    while let Ok(first) = receive(receiver, &mut spin, Duration::MAX) {
        let mut outgoing: Vec<Outgoing> = Vec::new();
        for mail in std::iter::once(first).chain(receiver.try_iter()).flatten() {
            let (conn, answered, fate) = match &mail {
                ToPipeline::Connect { conn, .. } => {
                    (*conn, 0, Fate::Established { session: SessionId(1), timeout_ms: 30_000 })
                }
                ToPipeline::Request { conn, .. } => (*conn, 1, Fate::Open),
                _ => continue,
            };
            let entry = entry(&mut outgoing, conn);
            entry.answered += answered;
            if fate != Fate::Open {
                entry.fate = fate;
            }
            reply(&mail, &value, &mut entry.bytes);
        }
        handle.post(ToPoller { outgoing, ..ToPoller::default() });
    }
}

fn entry(outgoing: &mut Vec<Outgoing>, conn: ConnId) -> &mut Outgoing {
    if outgoing.last().is_none_or(|last| last.conn != conn) {
        outgoing.push(Outgoing { conn, bytes: Vec::new(), frames: 0, answered: 0, fate: Fate::Open, last: None });
    }
    outgoing.last_mut().expect("just pushed")
}

fn reply(mail: &ToPipeline, value: &[u8], bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.put_int(0);
    match mail {
        ToPipeline::Request { request: Request { xid, op, .. }, .. } => {
            bytes.put_int(*xid);
            bytes.put_long(1);
            bytes.put_int(0);
            match op {
                Op::GetData(_) => {
                    bytes.put_buffer(Some(value));
                    bytes.extend_from_slice(&[0; 68]);
                }
                Op::SetData(_) | Op::Exists(_) => bytes.extend_from_slice(&[0; 68]),
                Op::Create(create) => bytes.put_string(&create.path),
                _ => (),
            }
        }
        _ => {
            bytes.put_int(0);
            bytes.put_int(30_000);
            bytes.put_long(1);
            bytes.put_buffer(Some(&[0; 16]));
            bytes.put_bool(false);
        }
    }
    let length = i32::try_from(bytes.len() - start - 4).expect("small");
    bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
