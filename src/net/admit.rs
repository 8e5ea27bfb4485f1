//! Who may connect: connections per address and in total, and the rate of connect requests. Pure; time and chance are
//! arguments. Called by `threads::poller` (connections) and `net::ingress` (connect requests).

use std::collections::HashMap;
use std::net::IpAddr;

use rustc_hash::FxBuildHasher;

use crate::limits::KEPT_DESCRIPTORS;

/// How many connections a listener takes; 0 is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AdmitLimits {
    /// `maxClientCnxns`: from one address.
    pub per_address: u32,
    /// `maxCnxns`: in all.
    pub total: u32,
}

/// Why a connection is not taken. The text is Apache's, which people search for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Surplus {
    /// `maxClientCnxns`
    #[error("Too many connections from {address} - max is {max}")]
    PerAddress {
        /// The client.
        address: IpAddr,
        /// The limit.
        max: u32,
    },
    /// `maxCnxns`
    #[error("Too many connections max allowed is {max}")]
    Total {
        /// The limit.
        max: u32,
    },
    /// The process may open no more files for clients.
    #[error(
        "Too many connections: {clients} clients are connected, and {kept} of the {open_files} files that this process may open are kept for its data, the other servers and operators; raise the limit with LimitNOFILE=65536 (`systemctl edit rookeeper`), or `ulimit -n 65536` where it is started by hand"
    )]
    Descriptors {
        /// How many there are.
        clients: usize,
        /// The limit.
        open_files: u64,
        /// What clients leave of it.
        kept: u64,
    },
}

/// How many files the process may open, and what of that clients may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptors {
    open_files: u64,
}

impl Descriptors {
    /// Of a process that may open so many.
    pub fn new(open_files: u64) -> Descriptors {
        Descriptors { open_files }
    }

    /// Clients at most. With a limit that is smaller than what the rest may need at worst, a few are served all the same.
    pub fn clients_max(self) -> u64 {
        self.open_files.saturating_sub(KEPT_DESCRIPTORS).max(self.open_files / 4)
    }

    /// Whether one more fits beside so many.
    pub fn check(self, clients: usize) -> Result<(), Surplus> {
        if (clients as u64) < self.clients_max() {
            return Ok(());
        }
        let Descriptors { open_files } = self;
        Err(Surplus::Descriptors { clients, open_files, kept: open_files - self.clients_max() })
    }
}

/// The connections of one listener, counted.
#[derive(Debug)]
pub struct Admission {
    limits: AdmitLimits,
    /// Invariant: no zeros, and the sum is `total`.
    per_address: HashMap<IpAddr, u32, FxBuildHasher>,
    total: u32,
}

impl Admission {
    /// Nobody is connected.
    pub fn new(limits: AdmitLimits) -> Admission {
        Admission { limits, per_address: HashMap::default(), total: 0 }
    }

    /// A connection was accepted: counts it, or says why it must go (`NIOServerCnxnFactory.AcceptThread.doAccept`).
    pub fn on_accepted(&mut self, address: IpAddr) -> Result<(), Surplus> {
        let AdmitLimits { per_address, total } = self.limits;
        if total > 0 && self.total >= total {
            return Err(Surplus::Total { max: total });
        }
        let have = self.per_address.get(&address).copied().unwrap_or(0);
        if per_address > 0 && have >= per_address {
            return Err(Surplus::PerAddress { address, max: per_address });
        }
        self.per_address.insert(address, have + 1);
        self.total += 1;
        Ok(())
    }

    /// A counted connection is gone.
    pub fn on_closed(&mut self, address: IpAddr) {
        let have = self.per_address.get_mut(&address).expect("only counted connections close");
        *have -= 1;
        if *have == 0 {
            self.per_address.remove(&address);
        }
        self.total -= 1;
    }
}

/// Rate of connect requests (`BlueThrottle`): a bucket of tokens, and a share dropped at random that grows while the
/// bucket stays empty.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ThrottleOptions {
    /// `connection_throttle_tokens`: size of the bucket; 0 is off.
    pub tokens: i64,
    /// `connection_throttle_fill_time`, ms.
    pub fill_time_ms: i64,
    /// `connection_throttle_fill_count`: tokens per fill time.
    pub fill_count: i64,
    /// `connection_throttle_freeze_time`, ms between changes of the dropped share; -1 is off.
    pub freeze_time_ms: i64,
    /// `connection_throttle_drop_increase`
    pub drop_increase: f64,
    /// `connection_throttle_drop_decrease`
    pub drop_decrease: f64,
    /// `connection_throttle_decrease_ratio`: used share of the bucket below which less is dropped.
    pub decrease_ratio: f64,
    /// `connection_throttle_global_session_weight` (or the local one, where sessions are local); 1 without weights.
    pub new_session_weight: i64,
    /// `connection_throttle_renew_session_weight`; 1 without weights.
    pub renew_session_weight: i64,
}

impl Default for ThrottleOptions {
    fn default() -> Self {
        ThrottleOptions {
            tokens: 0,
            fill_time_ms: 1,
            fill_count: 1,
            freeze_time_ms: -1,
            drop_increase: 0.02,
            drop_decrease: 0.002,
            decrease_ratio: 0.0,
            new_session_weight: 1,
            renew_session_weight: 1,
        }
    }
}

/// The bucket.
#[derive(Debug)]
pub struct Throttle {
    options: ThrottleOptions,
    tokens: i64,
    filled_ms: i64,
    frozen_ms: i64,
    dropped_share: f64,
}

impl Throttle {
    /// A full bucket.
    pub fn new(options: ThrottleOptions) -> Throttle {
        Throttle { options, tokens: options.tokens, filled_ms: 0, frozen_ms: 0, dropped_share: 0.0 }
    }

    /// Whether a connect request may go on. `chance` is drawn evenly from 0..1.
    pub fn on_connect(&mut self, now_ms: i64, renews: bool, chance: f64) -> bool {
        if self.options.tokens <= 0 {
            return true;
        }
        self.fill(now_ms);
        if self.options.freeze_time_ms != -1 {
            self.adapt(now_ms);
            if chance < self.dropped_share {
                return false;
            }
        }
        let need = if renews { self.options.renew_session_weight } else { self.options.new_session_weight };
        if self.tokens < need {
            return false;
        }
        self.tokens -= need;
        true
    }

    fn fill(&mut self, now_ms: i64) {
        let passed_ms = now_ms - self.filled_ms;
        if passed_ms > self.options.fill_time_ms {
            let refill = passed_ms.saturating_mul(self.options.fill_count) / self.options.fill_time_ms.max(1);
            self.tokens = self.tokens.saturating_add(refill).min(self.options.tokens);
            self.filled_ms = now_ms;
        }
    }

    fn adapt(&mut self, now_ms: i64) {
        if now_ms - self.frozen_ms <= self.options.freeze_time_ms {
            return;
        }
        let used = self.options.tokens - self.tokens;
        let calm = (self.options.tokens as f64 * self.options.decrease_ratio).round() as i64;
        if used == self.options.tokens {
            self.dropped_share = (self.dropped_share + self.options.drop_increase).min(1.0);
        } else if used <= calm {
            self.dropped_share = (self.dropped_share - self.options.drop_decrease).max(0.0);
        }
        self.frozen_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn an_address_gets_its_share_and_another_its_own() {
        let mut admission = Admission::new(AdmitLimits { per_address: 2, total: 0 });
        assert_eq!(admission.on_accepted(address(1)), Ok(()));
        assert_eq!(admission.on_accepted(address(1)), Ok(()));
        let surplus = admission.on_accepted(address(1)).unwrap_err();
        assert_eq!(surplus.to_string(), "Too many connections from 10.0.0.1 - max is 2");
        assert_eq!(admission.on_accepted(address(2)), Ok(()));
        admission.on_closed(address(1));
        assert_eq!(admission.on_accepted(address(1)), Ok(()));
    }

    #[test]
    fn zero_is_no_limit() {
        let mut admission = Admission::new(AdmitLimits::default());
        for _ in 0..1000 {
            assert_eq!(admission.on_accepted(address(1)), Ok(()));
        }
    }

    #[test]
    fn the_total_counts_every_address() {
        let mut admission = Admission::new(AdmitLimits { per_address: 0, total: 2 });
        assert_eq!(admission.on_accepted(address(1)), Ok(()));
        assert_eq!(admission.on_accepted(address(2)), Ok(()));
        assert_eq!(admission.on_accepted(address(3)), Err(Surplus::Total { max: 2 }));
    }

    #[test]
    fn addresses_that_left_take_no_memory() {
        let mut admission = Admission::new(AdmitLimits { per_address: 2, total: 0 });
        for n in 0..=255 {
            admission.on_accepted(address(n)).unwrap();
            admission.on_closed(address(n));
        }
        assert!(admission.per_address.is_empty());
    }

    #[test]
    fn the_bucket_empties_and_fills_with_time() {
        let options = ThrottleOptions { tokens: 2, fill_time_ms: 10, fill_count: 1, ..ThrottleOptions::default() };
        let mut throttle = Throttle::new(options);
        let mut at = |now_ms| throttle.on_connect(now_ms, false, 0.5);
        assert!(at(1000) && at(1000) && !at(1000));
        assert!(!at(1010), "the fill time has to be exceeded");
        assert!(at(1011) && !at(1011));
        assert!(at(9000) && at(9000) && !at(9000), "never more than the bucket holds");
    }

    #[test]
    fn renewals_may_weigh_less_than_new_sessions() {
        let options =
            ThrottleOptions { tokens: 3, new_session_weight: 3, renew_session_weight: 1, ..Default::default() };
        let mut throttle = Throttle::new(options);
        assert!(throttle.on_connect(0, true, 0.5));
        assert!(!throttle.on_connect(0, false, 0.5));
        assert!(throttle.on_connect(0, true, 0.5));
    }

    #[test]
    fn an_empty_bucket_raises_the_share_that_is_dropped_at_random() {
        let options = ThrottleOptions {
            tokens: 1,
            fill_time_ms: 1_000_000,
            freeze_time_ms: 10,
            drop_increase: 0.5,
            decrease_ratio: 1.0,
            drop_decrease: 0.1,
            ..Default::default()
        };
        let mut throttle = Throttle::new(options);
        assert!(throttle.on_connect(100, false, 0.4));
        assert!(!throttle.on_connect(111, false, 0.9), "no token, share now 0.5");
        assert!(!throttle.on_connect(1_000_200, false, 0.3), "a token, but dropped by chance");
        assert!(throttle.on_connect(1_000_200, false, 0.6));
    }

    #[test]
    fn no_tokens_configured_is_no_throttle() {
        let mut throttle = Throttle::new(ThrottleOptions::default());
        assert!((0..10_000).all(|_| throttle.on_connect(5, false, 0.0)));
    }

    #[test]
    fn clients_leave_descriptors_to_everybody_else() {
        let clients_max = |open_files| Descriptors::new(open_files).clients_max();
        assert_eq!(clients_max(65_536), 65_536 - KEPT_DESCRIPTORS);
        assert_eq!(clients_max(300), 300 - KEPT_DESCRIPTORS);
        assert_eq!(clients_max(200), 50);
        let descriptors = Descriptors::new(300);
        descriptors.check(107).unwrap();
        let refused = descriptors.check(108).unwrap_err().to_string();
        assert!(refused.contains("192 of the 300 files") && refused.contains("LimitNOFILE="), "{refused}");
    }
}
