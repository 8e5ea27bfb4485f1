//! The threads of a lone client's writes, gathered on one core. Syncing a mapped log takes write access from its pages,
//! which interrupts every core that runs a thread of this process, and waits for it: with the poller awake on another
//! core a write takes an eighth longer. So while single writes come one after the other, and poller and pipeline mostly
//! wait, they keep the log's thread company on its core; under load each goes where it likes. The log's thread leads.
//! Used by the shells.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sys::affinity::{Cores, current_core};

/// No core: everybody goes where it likes.
const NOWHERE: usize = usize::MAX;

/// So many lone writes in a row gather the threads.
const LONE_WRITES: u32 = 16;

/// So often a thread looks whether it mostly waits.
const TURNS_PER_LOOK: u32 = 32;

/// The core where the log's thread wants company; cloned into each thread.
#[derive(Clone, Debug)]
pub struct Huddle(Arc<AtomicUsize>);

impl Default for Huddle {
    fn default() -> Huddle {
        Huddle(Arc::new(AtomicUsize::new(NOWHERE)))
    }
}

/// Where the calling thread may run.
#[derive(Debug)]
struct Place {
    huddle: Huddle,
    home: Option<Cores>,
    at: usize,
}

impl Place {
    fn new(huddle: Huddle) -> Place {
        Place { huddle, home: Cores::allowed(), at: NOWHERE }
    }

    /// Goes to a core, or anywhere; a core that is not allowed counts as anywhere.
    fn go(&mut self, core: usize) {
        let Some(home) = self.home.filter(|_| core != self.at) else { return };
        if core == NOWHERE || !home.use_only(core) {
            home.use_all();
        }
        self.at = core;
    }
}

/// The log's part.
#[derive(Debug)]
pub struct Leader {
    place: Place,
    lone_writes: u32,
}

impl Leader {
    /// For the calling thread.
    pub fn new(huddle: Huddle) -> Leader {
        Leader { place: Place::new(huddle), lone_writes: 0 }
    }

    /// A batch is complete; `lone` is a single write that came soon after the last one.
    pub fn on_batch(&mut self, lone: bool) {
        self.lone_writes = if lone { self.lone_writes.saturating_add(1) } else { 0 };
        let gathered = self.place.at != NOWHERE;
        let core = match (gathered, self.lone_writes) {
            (false, LONE_WRITES..) => current_core().unwrap_or(NOWHERE),
            (true, 0) => NOWHERE,
            _ => return,
        };
        self.place.go(core);
        self.place.huddle.0.store(core, Ordering::Relaxed);
    }
}

/// The part of poller and pipeline.
#[derive(Debug)]
pub struct Follower {
    place: Place,
    idleness: Idleness,
}

impl Follower {
    /// For the calling thread.
    pub fn new(huddle: Huddle) -> Follower {
        Follower { place: Place::new(huddle), idleness: Idleness::default() }
    }

    /// A turn begins at this time after a wait, microseconds.
    pub fn on_turn(&mut self, now_us: i64, waited_us: i64) {
        let mostly_waits = self.idleness.on_turn(now_us, waited_us);
        let core = if mostly_waits { self.place.huddle.0.load(Ordering::Relaxed) } else { NOWHERE };
        self.place.go(core);
    }
}

/// Whether a thread mostly waits, judged every few turns.
#[derive(Debug, Default)]
struct Idleness {
    since_us: i64,
    waited_us: i64,
    turns: u32,
    mostly: bool,
}

impl Idleness {
    fn on_turn(&mut self, now_us: i64, waited_us: i64) -> bool {
        self.turns += 1;
        self.waited_us += waited_us;
        if self.turns == TURNS_PER_LOOK {
            let mostly = self.waited_us * 4 > (now_us - self.since_us) * 3;
            *self = Idleness { since_us: now_us, waited_us: 0, turns: 0, mostly };
        }
        self.mostly
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_three_quarters_of_its_time_mostly_waits() {
        let mut idleness = Idleness::default();
        let turn = |idleness: &mut Idleness, n: i64, waited_us| idleness.on_turn(n * 100, waited_us);
        let judged: Vec<bool> = (1..=96).map(|n| turn(&mut idleness, n, if n <= 64 { 80 } else { 70 })).collect();
        assert!(!judged[30], "nothing is known yet");
        assert!(judged[31..95].iter().all(|mostly| *mostly));
        assert!(!judged[95]);
    }

    #[test]
    fn lone_writes_gather_the_threads_and_company_scatters_them() {
        // In a thread of its own, which may be confined to a core.
        let body = || {
            let huddle = Huddle::default();
            let mut leader = Leader::new(huddle.clone());
            let core = || huddle.0.load(Ordering::Relaxed);
            (1..LONE_WRITES).for_each(|_| leader.on_batch(true));
            assert_eq!(core(), NOWHERE);
            leader.on_batch(true);
            let gathered = core();
            assert_eq!(Some(gathered), current_core());
            assert!(leader.place.home.is_some_and(|home| home.use_only(gathered)));
            let mut follower = Follower::new(huddle.clone());
            (1..=i64::from(TURNS_PER_LOOK)).for_each(|n| follower.on_turn(n * 100, 90));
            assert_eq!(follower.place.at, gathered);
            leader.on_batch(false);
            assert_eq!(core(), NOWHERE);
            follower.on_turn(10_000, 90);
            assert_eq!(follower.place.at, NOWHERE);
        };
        std::thread::spawn(body).join().unwrap();
    }
}
