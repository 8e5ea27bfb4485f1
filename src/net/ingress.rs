//! What all connections share while their bytes become mail: the batch for the pipeline, the load, the rules. Pure.
//! Called by `threads::poller`.

use crate::admin::words::Word;
use crate::ids::ConnId;
use crate::limits;
use crate::mail::ToPipeline;
use crate::metrics;
use crate::net::PollerOptions;
use crate::net::admit::Throttle;
use crate::net::conn::{CloseCause, Conn, Rules, Step};
use crate::net::load::Load;

/// How a connection stands when its bytes are looked through.
#[derive(Debug, PartialEq, Eq)]
pub enum Flow {
    /// More bytes are wanted.
    Open,
    /// No more until an answer or a write; what was read is held.
    Paused,
}

/// The shared part of the client side.
pub struct Ingress {
    /// What is in flight.
    pub load: Load,
    /// Mail for the pipeline, sent once a turn.
    pub batch: Vec<ToPipeline>,
    /// Words to be answered: their view needs all connections, so the shell makes it.
    pub words: Vec<(ConnId, Word, Option<i64>)>,
    frame_bytes_max: usize,
    allowed: Vec<Word>,
    keep_bodies: bool,
    throttle: Throttle,
    random: fastrand::Rng,
}

impl Ingress {
    /// `seed` is where chance comes from.
    pub fn new(options: &PollerOptions, seed: u64) -> Ingress {
        Ingress {
            load: Load::new(options.load),
            batch: Vec::new(),
            words: Vec::new(),
            frame_bytes_max: options.frame_bytes_max,
            allowed: options.words.clone(),
            keep_bodies: options.keep_bodies,
            throttle: Throttle::new(options.throttle),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Whether this connection may be read.
    pub fn may_read(&self, conn: &Conn) -> bool {
        let is_allowed = !conn.awaits_session() && self.load.may_read(&conn.account, conn.output.unsent());
        conn.is_deaf() || is_allowed
    }

    /// Whether what comes of this connection is up to its client: it may be read, or is not since its client does not take
    /// its answers.
    pub fn is_up_to_client(&self, conn: &Conn) -> bool {
        self.may_read(conn) || conn.output.unsent() > self.load.unsent_bytes_pause()
    }

    /// Bytes that may be taken at once of this connection.
    pub fn read_bytes_max(&self, conn: &Conn) -> usize {
        if self.load.is_tight() && !conn.account.is_receiving() {
            limits::READ_BYTES_IN_LINE
        } else {
            limits::READ_BYTES_PER_TURN
        }
    }

    /// Looks through what is held and what was just read, as far as the load allows.
    pub fn take(&mut self, conn: &mut Conn, mut bytes: &[u8], now_us: i64) -> Result<Flow, CloseCause> {
        loop {
            if !self.may_read(conn) {
                conn.hold(bytes);
                return Ok(Flow::Paused);
            }
            let rules = Rules {
                frame_bytes_max: self.frame_bytes_max,
                allowed: &|word| self.allowed.contains(&word),
                load: &self.load,
                keep_bodies: self.keep_bodies,
            };
            match conn.next(&mut bytes, &rules) {
                Step::Starved => return Ok(Flow::Open),
                Step::Large(length) => {
                    if !self.load.admit(conn.id, &mut conn.account, length) {
                        conn.hold(bytes);
                        return Ok(Flow::Paused);
                    }
                }
                Step::Request(request, length) => {
                    if !self.load.on_request(&mut conn.account, length) {
                        metrics::LARGE_REQUESTS_REJECTED.add(1);
                        return Err(CloseCause::LargeRequest { length });
                    }
                    self.batch.push(ToPipeline::Request { conn: conn.id, request, received_us: now_us });
                }
                Step::Connect(request) => {
                    self.load.on_frame_dropped(conn.id, &mut conn.account);
                    let chance = self.random.f64();
                    if !self.throttle.on_connect(now_us / 1000, request.session_id != 0, chance) {
                        return Err(CloseCause::Throttled);
                    }
                    conn.known = true;
                    metrics::CONNECTION_REQUEST_COUNT.add(1);
                    self.batch.push(ToPipeline::Connect { conn: conn.id, peer: conn.peer, request });
                }
                Step::Word(word, argument) => self.words.push((conn.id, word, argument)),
                Step::Forbidden(_) => (),
                Step::Close(cause) => {
                    if matches!(cause, CloseCause::LargeRequest { .. }) {
                        metrics::LARGE_REQUESTS_REJECTED.add(1);
                    }
                    return Err(cause);
                }
            }
        }
    }

    /// A part of these, taken by chance: so many of a hundred, to the nearest whole.
    pub fn share<T>(&mut self, mut items: Vec<T>, percent: u8) -> Vec<T> {
        let wanted = (items.len() * usize::from(percent) + 50) / 100;
        self.random.shuffle(&mut items);
        items.truncate(wanted);
        items
    }
}
