//! What `cons` and `stat` show of one connection. Pure. Called by `net::conn`.

use crate::mail::LastAnswer;

/// Counters of one connection, since it was made or since `crst`.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Frames read (a four-letter word is one).
    pub received: u64,
    /// Frames handed over for sending.
    pub sent: u64,
    /// The last answer.
    pub last: Option<LastAnswer>,
    /// When it was handed over, monotonic ms.
    pub last_response_mono_ms: i64,
    last_ms: i64,
    min_ms: i64,
    max_ms: i64,
    total_ms: i64,
    count: i64,
}

impl Default for Stats {
    fn default() -> Self {
        Stats {
            received: 0,
            sent: 0,
            last: None,
            last_response_mono_ms: 0,
            last_ms: 0,
            min_ms: i64::MAX,
            max_ms: 0,
            total_ms: 0,
            count: 0,
        }
    }
}

impl Stats {
    /// An answer is handed over. Of several that leave together the last one, which waited least, stands for all.
    pub fn on_answer(&mut self, last: LastAnswer, now_us: i64) {
        let latency_ms = (now_us - last.received_us).max(0) / 1000;
        self.last = Some(last);
        self.last_response_mono_ms = now_us / 1000;
        self.last_ms = latency_ms;
        self.min_ms = self.min_ms.min(latency_ms);
        self.max_ms = self.max_ms.max(latency_ms);
        self.total_ms += latency_ms;
        self.count += 1;
    }

    /// Latencies in ms: last, least, mean, most.
    pub fn latencies_ms(&self) -> [i64; 4] {
        match self.count {
            0 => [0; 4],
            count => [self.last_ms, self.min_ms, self.total_ms / count, self.max_ms],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Zxid;

    #[test]
    fn latencies_are_those_of_the_answers() {
        let mut stats = Stats::default();
        assert_eq!(stats.latencies_ms(), [0; 4]);
        for (received_us, now_us) in [(0, 5000), (10_000, 11_999), (20_000, 29_000)] {
            stats.on_answer(LastAnswer { op: "GETD", cxid: 1, zxid: Zxid(7), received_us }, now_us);
        }
        assert_eq!(stats.latencies_ms(), [9, 1, 5, 9]);
        assert_eq!(stats.last_response_mono_ms, 29);
    }
}
