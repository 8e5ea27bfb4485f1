//! The table of metrics in the text format 0.0.4, with the names and series of Apache's Prometheus provider
//! (`PrometheusMetricsProvider`, simpleclient 0.9), so that dashboards go on working. Pure. A plain summary has no
//! percentiles here; its series for the median is there, and NaN.

use std::fmt::Write;

use super::java;
use super::view::{Host, ServerView};
use crate::metrics::{self, Advanced, Histogram, Metric, Row, SummaryValues};

/// One line: what follows the name of the metric, its labels, the value.
struct Sample<'a> {
    suffix: &'static str,
    labels: &'a [(&'a str, &'a str)],
    value: f64,
}

/// The rows that this server shows, by position in the table.
pub fn shown(server: &dyn ServerView) -> Vec<bool> {
    metrics::TABLE.iter().map(|row| super::mntr::is_shown(row.scope, server)).collect()
}

/// What a scrape gets: rows of the table, brought up to date by `mntr::publish`, and figures of the process if there are to
/// be any; of all of them those whose names are wanted.
pub fn exposition(shown: &[bool], process: Option<&dyn Host>, is_wanted: &dyn Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(64 << 10);
    let rows = metrics::TABLE.iter().zip(shown).filter_map(|(row, shown)| shown.then_some(row));
    for row in rows.filter(|row| is_wanted(row.name)) {
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", row.name, row.doc, row.name, kind(row.metric));
        each(row, &mut |sample| {
            let _ = write!(out, "{}{}", row.name, sample.suffix);
            if !sample.labels.is_empty() {
                out.push('{');
                sample.labels.iter().for_each(|(name, value)| push_label(&mut out, name, value));
                out.push('}');
            }
            let _ = writeln!(out, " {}", number(sample.value));
        });
    }
    if let Some(host) = process {
        push_process(&mut out, host, is_wanted);
    }
    out
}

/// The same for `mntr`: `zk_` before the name, a tab before the value, no types.
pub fn push_lines(out: &mut String, row: &Row) {
    each(row, &mut |sample| {
        let _ = write!(out, "zk_{}{}", row.name, sample.suffix);
        if !sample.labels.is_empty() {
            let labels: Vec<String> = sample.labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            let _ = write!(out, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(out, "\t{}", number(sample.value));
    });
}

fn kind(metric: Metric) -> &'static str {
    match metric {
        Metric::Counter(_) | Metric::CounterSet(_) => "counter",
        Metric::Gauge(_) | Metric::FloatGauge(_) | Metric::GaugeSet(_) => "gauge",
        Metric::Summary(_) | Metric::Advanced(_) | Metric::SummarySet(_) | Metric::AdvancedSet(_) => "summary",
        Metric::Histogram(_) => "histogram",
    }
}

fn each(row: &Row, see: &mut dyn FnMut(Sample<'_>)) {
    let mut one = |value| see(Sample { suffix: "", labels: &[], value });
    match row.metric {
        Metric::Counter(counter) => one(counter.get() as f64),
        Metric::Gauge(gauge) => one(gauge.get() as f64),
        Metric::FloatGauge(gauge) => one(gauge.get()),
        Metric::Summary(summary) => each_of_summary(None, summary.values(), see),
        Metric::Advanced(advanced) => each_of_advanced(None, advanced, see),
        Metric::GaugeSet(set) => {
            set.each(|key, value| see(Sample { suffix: "", labels: &[("key", key)], value: value as f64 }));
        }
        Metric::CounterSet(set) => {
            set.each(|key, n| see(Sample { suffix: "", labels: &[("key", key)], value: n.get() as f64 }));
        }
        Metric::SummarySet(set) => set.each(|key, summary| each_of_summary(Some(key), summary.values(), see)),
        Metric::AdvancedSet(set) => set.each(|key, advanced| each_of_advanced(Some(key), advanced, see)),
        Metric::Histogram(histogram) => each_of_histogram(histogram, see),
    }
}

fn each_of_summary(key: Option<&str>, values: SummaryValues, see: &mut dyn FnMut(Sample<'_>)) {
    see_quantile(key, "0.5", f64::NAN, see);
    see_count_and_sum(key, values, see);
}

fn each_of_advanced(key: Option<&str>, advanced: &Advanced, see: &mut dyn FnMut(Sample<'_>)) {
    for (name, quantile) in [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99)] {
        see_quantile(key, name, advanced.quantile(quantile).map_or(f64::NAN, |value| value as f64), see);
    }
    see_count_and_sum(key, advanced.values(), see);
}

fn see_quantile(key: Option<&str>, name: &str, value: f64, see: &mut dyn FnMut(Sample<'_>)) {
    let quantile = ("quantile", name);
    match key {
        None => see(Sample { suffix: "", labels: &[quantile], value }),
        Some(key) => see(Sample { suffix: "", labels: &[("key", key), quantile], value }),
    }
}

fn see_count_and_sum(key: Option<&str>, values: SummaryValues, see: &mut dyn FnMut(Sample<'_>)) {
    for (suffix, value) in [("_count", values.count), ("_sum", values.sum)] {
        let value = value as f64;
        match key {
            None => see(Sample { suffix, labels: &[], value }),
            Some(key) => see(Sample { suffix, labels: &[("key", key)], value }),
        }
    }
}

/// In seconds, as Prometheus would have all times.
fn each_of_histogram(histogram: &Histogram, see: &mut dyn FnMut(Sample<'_>)) {
    let values = histogram.values();
    let mut below = 0;
    let bounds = Histogram::BOUNDS_US.iter().map(|us| (*us as f64 / 1e6).to_string());
    for (count, bound) in values.counts.iter().zip(bounds.chain(["+Inf".to_owned()])) {
        below += count;
        see(Sample { suffix: "_bucket", labels: &[("le", &bound)], value: below as f64 });
    }
    see(Sample { suffix: "_count", labels: &[], value: below as f64 });
    see(Sample { suffix: "_sum", labels: &[], value: values.sum_us as f64 / 1e6 });
}

/// As Java prints doubles, which every reader of the format takes.
fn number(value: f64) -> String {
    if value.is_nan() { "NaN".to_owned() } else { java::double(value) }
}

/// Clients name namespaces as they like.
fn push_label(out: &mut String, name: &str, value: &str) {
    let _ = write!(out, "{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push_str("\",");
}

fn push_process(out: &mut String, host: &dyn Host, is_wanted: &dyn Fn(&str) -> bool) {
    let (open, max) = host.file_descriptors();
    let process = host.process();
    let all = [
        ("process_cpu_seconds_total", "counter", "Time on a processor.", process.cpu_s),
        ("process_start_time_seconds", "gauge", "When the process began, since 1970.", process.start_wall_s),
        ("process_open_fds", "gauge", "File descriptors in use.", open as f64),
        ("process_max_fds", "gauge", "File descriptors that may be in use.", max as f64),
        ("process_virtual_memory_bytes", "gauge", "Addresses in use.", process.virtual_bytes as f64),
        ("process_resident_memory_bytes", "gauge", "Memory in use.", host.memory().resident as f64),
    ];
    for (name, kind, doc, value) in all.into_iter().filter(|(name, ..)| is_wanted(name)) {
        let _ = writeln!(out, "# HELP {name} {doc}\n# TYPE {name} {kind}\n{name} {}", number(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Counter, CounterSet, Scope};

    fn lines(metric: Metric) -> String {
        let mut out = String::new();
        push_lines(&mut out, &Row { name: "n", doc: "d", scope: Scope::Always, metric });
        out
    }

    fn leaked<T>(value: T) -> &'static T {
        Box::leak(Box::new(value))
    }

    #[test]
    fn mntr_has_the_series_of_the_provider() {
        let counter = leaked(Counter::new());
        counter.add(7);
        assert_eq!(lines(Metric::Counter(counter)), "zk_n\t7.0\n");
        let advanced = leaked(Advanced::new());
        assert!(lines(Metric::Advanced(advanced)).starts_with("zk_n{quantile=\"0.5\"}\tNaN\n"));
        (1..=100).for_each(|value| advanced.record(value));
        assert_eq!(
            lines(Metric::Advanced(advanced)),
            "zk_n{quantile=\"0.5\"}\t50.0\nzk_n{quantile=\"0.9\"}\t90.0\nzk_n{quantile=\"0.99\"}\t99.0\n\
             zk_n_count\t100.0\nzk_n_sum\t5050.0\n"
        );
    }

    #[test]
    fn a_key_with_quotes_does_not_end_its_label() {
        let mut out = String::new();
        push_label(&mut out, "key", "a\"b\\c\nd");
        assert_eq!(out, "key=\"a\\\"b\\\\c\\nd\",");
        let set = leaked(CounterSet::new());
        set.add("my app", 2);
        assert_eq!(lines(Metric::CounterSet(set)), "zk_n{key=\"my app\"}\t2.0\n");
    }

    #[test]
    fn a_histogram_counts_up_to_everything() {
        let histogram = leaked(Histogram::new());
        histogram.record(15, 3);
        histogram.record(i64::MAX, 1);
        let text = lines(Metric::Histogram(histogram));
        assert!(text.starts_with("zk_n_bucket{le=\"0.00001\"}\t0.0\nzk_n_bucket{le=\"0.00002\"}\t3.0\n"), "{text}");
        assert!(text.contains("le=\"10\"}\t3.0\nzk_n_bucket{le=\"+Inf\"}\t4.0\nzk_n_count\t4.0\n"), "{text}");
    }
}
