//! What is counted: the TABLE of metrics with Apache's names, and the kinds of metric it is made of. Any thread records
//! (`metrics::COMMIT_COUNT.add(1)`, `metrics::READLATENCY.record(ms)`); `admin` walks the table for `mntr`, and the
//! Prometheus endpoint does. This is the shared memory the design allows: published figures nobody decides by.
//!
//! Counters, gauges and summaries are relaxed atomics, each on a cache line of its own, so that two threads counting
//! different things do not slow each other. Only percentiles and sets keep a lock, held for some 20 ns by the one
//! thread that records into them.
//!
//! What Apache publishes for stages that this server does not have stays in the table and reads 0: a dashboard must not
//! lose a series by the exchange of the server.

mod kinds;
mod sets;
mod table;

pub use kinds::{
    Advanced, Bytes, BytesValues, Counter, FloatGauge, Gauge, Histogram, HistogramValues, Summary, SummaryValues,
};
pub use sets::{AdvancedSet, CounterSet, GaugeSet, SummarySet, printable_key, top_namespace};
pub use table::*;

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// Apache's name, without the `zk_` that `mntr` puts before it.
    pub name: &'static str,
    /// One line for people; the HELP text of Prometheus.
    pub doc: &'static str,
    /// Which servers show it.
    pub scope: Scope,
    /// Where the value is.
    pub metric: Metric,
}

/// Which servers show a row: some of Apache's gauges exist in one role only, and tools tell roles apart by that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All of them.
    Always,
    /// Members of an ensemble.
    Quorum,
    /// The leader.
    Leader,
    /// The leader, and a follower that observers connect to.
    ObserverMaster,
    /// Observers.
    Observer,
}

/// A metric by its kind.
#[derive(Clone, Copy, Debug)]
pub enum Metric {
    /// Counts up.
    Counter(&'static Counter),
    /// An integer that goes up and down.
    Gauge(&'static Gauge),
    /// A fraction.
    FloatGauge(&'static FloatGauge),
    /// Count, sum, least, greatest.
    Summary(&'static Summary),
    /// The same and percentiles.
    Advanced(&'static Advanced),
    /// A gauge per key.
    GaugeSet(&'static GaugeSet),
    /// A counter per key.
    CounterSet(&'static CounterSet),
    /// A summary per key.
    SummarySet(&'static SummarySet),
    /// A summary with percentiles per key.
    AdvancedSet(&'static AdvancedSet),
    /// Times by bounds; not for `mntr`, where Apache has no such thing.
    Histogram(&'static Histogram),
}

impl Metric {
    /// `srst`: everything starts again but gauges. Keys of sets stay, with nothing recorded, as in Apache.
    pub fn reset(self) {
        match self {
            Metric::Counter(counter) => counter.reset(),
            Metric::Summary(summary) => summary.reset(),
            Metric::Advanced(advanced) => advanced.reset(),
            Metric::CounterSet(set) => set.reset(),
            Metric::SummarySet(set) => set.reset(),
            Metric::AdvancedSet(set) => set.reset(),
            Metric::Gauge(_) | Metric::FloatGauge(_) | Metric::GaugeSet(_) | Metric::Histogram(_) => {}
        }
    }
}

/// Requests read and answers sent, all connections together, four-letter words included (`ServerStats`). Reset by `srst`;
/// published as the gauges `packets_received` and `packets_sent`.
pub static RECEIVED: Counter = Counter::new();
/// See [`RECEIVED`].
pub static SENT: Counter = Counter::new();
/// From reading a request to sending its answer, ms (`ServerStats`); published as `{min,avg,max}_latency`.
pub static REQUEST_LATENCY: Summary = Summary::new();
/// Sizes of answers; published as `{last,min,max}_client_response_size`.
pub static CLIENT_RESPONSE: Bytes = Bytes::new();
/// Sizes of proposals; published as `{last,min,max}_proposal_size`, on a leader only.
pub static PROPOSAL: Bytes = Bytes::new();

/// Syncs of the log that took longer than `fsync.warningthresholdms`.
pub static SLOW_SYNCS: Counter = Counter::new();

/// What `srvr` shows of all this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerStats {
    /// [`RECEIVED`].
    pub received: i64,
    /// [`SENT`].
    pub sent: i64,
    /// [`REQUEST_LATENCY`].
    pub latency: SummaryValues,
    /// [`PROPOSAL`].
    pub proposal: BytesValues,
}

/// The statistics of this moment.
pub fn server_stats() -> ServerStats {
    ServerStats {
        received: RECEIVED.get(),
        sent: SENT.get(),
        latency: REQUEST_LATENCY.values(),
        proposal: PROPOSAL.values(),
    }
}

/// `srst`: counters and summaries start again, gauges stay (`ServerStats.reset`, `MetricsProvider.resetAllValues`).
pub fn reset() {
    TABLE.iter().for_each(|row| row.metric.reset());
    reset_server_stats();
}

/// The same where the table goes to Prometheus, which wants counters that only rise.
pub fn reset_server_stats() {
    RECEIVED.reset();
    SENT.reset();
    REQUEST_LATENCY.reset();
    CLIENT_RESPONSE.reset();
    PROPOSAL.reset();
}

/// Brings those gauges up to date that follow from what is recorded here. Whoever walks the table calls it first.
pub fn refresh_derived() {
    PACKETS_RECEIVED.set(RECEIVED.get());
    PACKETS_SENT.set(SENT.get());
    let latency = REQUEST_LATENCY.values();
    AVG_LATENCY.set(latency.mean());
    MIN_LATENCY.set(latency.min);
    MAX_LATENCY.set(latency.max);
    let response = CLIENT_RESPONSE.values();
    LAST_CLIENT_RESPONSE_SIZE.set(response.last);
    MIN_CLIENT_RESPONSE_SIZE.set(response.min);
    MAX_CLIENT_RESPONSE_SIZE.set(response.max);
    let proposal = PROPOSAL.values();
    LAST_PROPOSAL_SIZE.set(proposal.last);
    MIN_PROPOSAL_SIZE.set(proposal.min);
    MAX_PROPOSAL_SIZE.set(proposal.max);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_is_there_once_and_fits_every_parser() {
        let mut seen = HashSet::new();
        for row in TABLE {
            assert!(seen.insert(row.name), "{} twice", row.name);
            assert!(
                row.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{}",
                row.name
            );
            assert!(!row.doc.is_empty() && row.doc.trim() == row.doc, "{}", row.name);
        }
    }

    #[test]
    fn the_table_is_ordered_as_mntr_prints_it() {
        let rank = |row: &Row| match row.metric {
            Metric::Gauge(_) | Metric::FloatGauge(_) => 0,
            Metric::Counter(_) => 1,
            Metric::GaugeSet(_) | Metric::CounterSet(_) => 2,
            Metric::Summary(_) => 3,
            Metric::Advanced(_) => 4,
            Metric::SummarySet(_) | Metric::AdvancedSet(_) => 5,
            Metric::Histogram(_) => 6,
        };
        assert!(TABLE.windows(2).all(|pair| rank(&pair[0]) <= rank(&pair[1])));
    }
}
