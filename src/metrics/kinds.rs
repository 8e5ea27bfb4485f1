//! The kinds of metric: small values that any thread may record into and any thread may read. No names, no text.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram as Percentiles;

/// Counts up until it is reset.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counter(AtomicI64);

impl Counter {
    /// Zero.
    pub const fn new() -> Counter {
        Counter(AtomicI64::new(0))
    }

    /// Counts `n` more.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Counted since the last reset.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }

    /// Back to zero.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// An integer that its owner publishes.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Zero.
    pub const fn new() -> Gauge {
        Gauge(AtomicI64::new(0))
    }

    /// Publishes a value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Goes up, or down when negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// A fraction that its owner publishes; kept as the bits of an `f64`.
#[derive(Debug, Default)]
pub struct FloatGauge(AtomicU64);

impl FloatGauge {
    /// Zero.
    pub const fn new() -> FloatGauge {
        FloatGauge(AtomicU64::new(0))
    }

    /// Publishes a value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// The value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// Count, sum, least and greatest of what was recorded (`AvgMinMaxCounter`). Read while another thread records, the four
/// may differ by that one value.
#[derive(Debug)]
#[repr(align(64))]
pub struct Summary {
    count: AtomicI64,
    sum: AtomicI64,
    /// `i64::MAX` before the first value.
    min: AtomicI64,
    /// `i64::MIN` before the first value.
    max: AtomicI64,
}

impl Default for Summary {
    fn default() -> Summary {
        Summary::new()
    }
}

impl Summary {
    /// Nothing recorded.
    pub const fn new() -> Summary {
        Summary {
            count: AtomicI64::new(0),
            sum: AtomicI64::new(0),
            min: AtomicI64::new(i64::MAX),
            max: AtomicI64::new(i64::MIN),
        }
    }

    /// Records one value.
    pub fn record(&self, value: i64) {
        self.count.fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
        // The two loads save the costlier read-modify-write, which is hardly ever needed.
        if value < self.min.load(Relaxed) {
            self.min.fetch_min(value, Relaxed);
        }
        if value > self.max.load(Relaxed) {
            self.max.fetch_max(value, Relaxed);
        }
    }

    /// What was recorded since the last reset.
    pub fn values(&self) -> SummaryValues {
        let (min, max) = (self.min.load(Relaxed), self.max.load(Relaxed));
        SummaryValues {
            count: self.count.load(Relaxed),
            sum: self.sum.load(Relaxed),
            min: if min == i64::MAX { 0 } else { min },
            max: if max == i64::MIN { 0 } else { max },
        }
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.count.store(0, Relaxed);
        self.sum.store(0, Relaxed);
        self.min.store(i64::MAX, Relaxed);
        self.max.store(i64::MIN, Relaxed);
    }
}

/// A [`Summary`] as read; least and greatest are 0 while there is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SummaryValues {
    /// How many values.
    pub count: i64,
    /// Their sum.
    pub sum: i64,
    /// Least.
    pub min: i64,
    /// Greatest.
    pub max: i64,
}

impl SummaryValues {
    /// The mean, rounded half up to four places as Apache shows it; 0 of nothing.
    pub fn mean(self) -> f64 {
        if self.count <= 0 { 0.0 } else { (self.sum as f64 / self.count as f64 * 10_000.0).round() / 10_000.0 }
    }
}

/// A [`Summary`] with percentiles (`AvgMinMaxPercentileCounter`): all values since the reset, to two digits, where Apache
/// keeps a random sample of 4,096.
#[derive(Debug, Default)]
pub struct Advanced {
    summary: Summary,
    /// Made at the first value: a third of the table is never recorded into.
    histogram: Mutex<Option<Percentiles<u64>>>,
}

/// Longest time told apart, an hour in ms; what is longer counts as this in percentiles. Bounds a histogram to 16 KiB.
const PERCENTILE_VALUE_MAX: u64 = 3_600_000;

impl Advanced {
    /// The percentiles that `mntr` prints, with their prefixes.
    pub const QUANTILES: [(&'static str, f64); 4] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)];

    /// Nothing recorded.
    pub const fn new() -> Advanced {
        Advanced { summary: Summary::new(), histogram: Mutex::new(None) }
    }

    /// Records one value; a negative one counts as 0 in percentiles.
    pub fn record(&self, value: i64) {
        self.summary.record(value);
        self.with_histogram(|slot| {
            let histogram = slot.get_or_insert_with(|| {
                Percentiles::new_with_bounds(1, PERCENTILE_VALUE_MAX, 2).expect("constant bounds that fit each other")
            });
            histogram.saturating_record(u64::try_from(value).unwrap_or(0));
        });
    }

    /// Everything but the percentiles.
    pub fn values(&self) -> SummaryValues {
        self.summary.values()
    }

    /// The values at [`Advanced::QUANTILES`]; 0 of nothing.
    pub fn percentiles(&self) -> [i64; 4] {
        let greatest = self.values().max;
        self.with_histogram(|slot| {
            let at = |quantile| slot.as_ref().map_or(0, |h| h.value_at_quantile(quantile) as i64);
            // A histogram answers with the upper end of a bucket: never say more than was recorded.
            Advanced::QUANTILES.map(|(_, quantile)| at(quantile).min(greatest))
        })
    }

    /// The value at one quantile; `None` of nothing.
    pub fn quantile(&self, quantile: f64) -> Option<i64> {
        let greatest = self.values().max;
        self.with_histogram(|slot| {
            slot.as_ref().filter(|h| !h.is_empty()).map(|h| h.value_at_quantile(quantile) as i64)
        })
        .map(|value| value.min(greatest))
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.summary.reset();
        self.with_histogram(|slot| {
            if let Some(histogram) = slot {
                histogram.reset();
            }
        });
    }

    fn with_histogram<T>(&self, act: impl FnOnce(&mut Option<Percentiles<u64>>) -> T) -> T {
        // A histogram is whole between calls, so a poisoned lock is still good; and a panic ends the process anyway.
        act(&mut self.histogram.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How often a time fell between which bounds, and the sum: what Prometheus can add up over servers and compare over
/// years. Never reset. One thread records into each, so that recording takes a nanosecond or two: no addition locks the
/// bus.
#[derive(Debug)]
#[repr(align(64))]
pub struct Histogram {
    counts: [AtomicI64; Histogram::BOUNDS_US.len() + 1],
    sum_us: AtomicI64,
}

/// A [`Histogram`] as read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistogramValues {
    /// Values up to each of [`Histogram::BOUNDS_US`] and above the one before; the last: above all of them.
    pub counts: [i64; Histogram::BOUNDS_US.len() + 1],
    /// Sum of all values, microseconds.
    pub sum_us: i64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    /// Upper bounds, microseconds.
    #[rustfmt::skip]
    pub const BOUNDS_US: [i64; 19] = [
        10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
        2_000_000, 5_000_000, 10_000_000,
    ];

    /// Nothing recorded.
    pub const fn new() -> Histogram {
        Histogram { counts: [const { AtomicI64::new(0) }; Histogram::BOUNDS_US.len() + 1], sum_us: AtomicI64::new(0) }
    }

    /// Records this time, microseconds, for so many writes; a negative one counts as 0.
    pub fn record(&self, us: i64, writes: usize) {
        let (us, writes) = (us.clamp(0, i64::from(u32::MAX)), i64::try_from(writes).unwrap_or(0));
        let bucket = Histogram::BOUNDS_US.partition_point(|bound| *bound < us);
        let add = |to: &AtomicI64, n: i64| to.store(to.load(Relaxed).wrapping_add(n), Relaxed);
        add(&self.counts[bucket], writes);
        add(&self.sum_us, us.saturating_mul(writes));
    }

    /// Everything recorded.
    pub fn values(&self) -> HistogramValues {
        HistogramValues {
            counts: self.counts.each_ref().map(|count| count.load(Relaxed)),
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

impl HistogramValues {
    /// How many values.
    pub fn count(&self) -> i64 {
        self.counts.iter().sum()
    }

    /// The bound below which this part of the values is, microseconds; the last one for what is above; 0 of nothing.
    pub fn quantile_us(&self, quantile: f64) -> i64 {
        let wanted = (self.count() as f64 * quantile).ceil() as i64;
        let mut below = 0;
        let at = self.counts.iter().position(|count| {
            below += count;
            below >= wanted
        });
        match at {
            Some(at) if wanted > 0 => Histogram::BOUNDS_US[at.min(Histogram::BOUNDS_US.len() - 1)],
            _ => 0,
        }
    }
}

/// Last, least and greatest of some sizes in bytes (`BufferStats`); all -1 before the first.
#[derive(Debug)]
#[repr(align(64))]
pub struct Bytes {
    last: AtomicI64,
    min: AtomicI64,
    max: AtomicI64,
}

/// [`Bytes`] as read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BytesValues {
    /// Last.
    pub last: i64,
    /// Least.
    pub min: i64,
    /// Greatest.
    pub max: i64,
}

impl Default for Bytes {
    fn default() -> Bytes {
        Bytes::new()
    }
}

impl Bytes {
    /// Nothing recorded.
    pub const fn new() -> Bytes {
        Bytes { last: AtomicI64::new(-1), min: AtomicI64::new(-1), max: AtomicI64::new(-1) }
    }

    /// Records one size. One thread does so at a time.
    pub fn record(&self, bytes: i64) {
        self.last.store(bytes, Relaxed);
        let min = self.min.load(Relaxed);
        if min == -1 || bytes < min {
            self.min.store(bytes, Relaxed);
        }
        if bytes > self.max.load(Relaxed) {
            self.max.store(bytes, Relaxed);
        }
    }

    /// The three.
    pub fn values(&self) -> BytesValues {
        BytesValues { last: self.last.load(Relaxed), min: self.min.load(Relaxed), max: self.max.load(Relaxed) }
    }

    /// All -1 again.
    pub fn reset(&self) {
        self.last.store(-1, Relaxed);
        self.min.store(-1, Relaxed);
        self.max.store(-1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_nothing_is_all_zero_and_so_it_is_after_a_reset() {
        let summary = Summary::new();
        assert_eq!(summary.values(), SummaryValues::default());
        assert_eq!(summary.values().mean(), 0.0);
        summary.record(7);
        summary.record(2);
        assert_eq!(summary.values(), SummaryValues { count: 2, sum: 9, min: 2, max: 7 });
        summary.reset();
        assert_eq!(summary.values(), SummaryValues::default());
    }

    #[test]
    fn a_mean_has_four_places() {
        let mean = |sum, count| SummaryValues { count, sum, ..Default::default() }.mean();
        assert_eq!(mean(107, 35), 3.0571);
        assert_eq!(mean(280, 3), 93.3333);
        assert_eq!(mean(1, 20_000), 0.0001);
        assert_eq!(mean(-1, 3), -0.3333);
    }

    #[test]
    fn percentiles_are_those_of_all_values_to_two_digits() {
        let advanced = Advanced::new();
        assert_eq!(advanced.percentiles(), [0; 4]);
        (0..1000).for_each(|value| advanced.record(value));
        let expected = [499, 949, 989, 998];
        for (got, expected) in advanced.percentiles().into_iter().zip(expected) {
            assert!((got - expected).abs() * 100 <= expected, "{got} for {expected}");
        }
        advanced.reset();
        assert_eq!((advanced.percentiles(), advanced.values()), ([0; 4], SummaryValues::default()));
    }

    #[test]
    fn small_values_are_exact_and_strange_ones_do_no_harm() {
        let advanced = Advanced::new();
        (0..100).for_each(|_| advanced.record(3));
        assert_eq!(advanced.percentiles(), [3; 4]);
        advanced.record(-5);
        advanced.record(i64::MAX / 2);
        assert_eq!(
            advanced.values(),
            SummaryValues { count: 102, sum: 295 + i64::MAX / 2, min: -5, max: i64::MAX / 2 }
        );
        assert_eq!(advanced.percentiles()[0], 3);
    }

    #[test]
    fn a_percentile_never_exceeds_the_greatest_value() {
        let advanced = Advanced::new();
        advanced.record(100_001);
        assert_eq!(advanced.percentiles(), [100_001; 4]);
    }

    #[test]
    fn a_histogram_tells_times_apart_by_its_bounds() {
        let histogram = Histogram::new();
        assert_eq!(histogram.values().quantile_us(0.5), 0);
        histogram.record(-1, 1);
        histogram.record(10, 1);
        histogram.record(11, 97);
        histogram.record(60_000_000, 1);
        let values = histogram.values();
        assert_eq!((values.counts[0], values.counts[1], values.counts[19]), (2, 97, 1));
        assert_eq!((values.count(), values.sum_us), (100, 10 + 11 * 97 + 60_000_000));
        assert_eq!([0.5, 0.99, 0.999].map(|q| values.quantile_us(q)), [20, 20, 10_000_000]);
    }

    #[test]
    fn sizes_are_minus_one_until_there_is_one() {
        let sizes = Bytes::new();
        assert_eq!(sizes.values(), BytesValues { last: -1, min: -1, max: -1 });
        [48, 264, 36].into_iter().for_each(|bytes| sizes.record(bytes));
        assert_eq!(sizes.values(), BytesValues { last: 36, min: 36, max: 264 });
        sizes.reset();
        assert_eq!(sizes.values(), BytesValues { last: -1, min: -1, max: -1 });
    }
}
