//! `mntr`: the table of metrics as text (`MonitorCommand`, `DefaultMetricsProvider`), and as JSON. Called by the tables of
//! words and of commands.
//!
//! Two readers decide the form. Telegraf drops everything if one line is not `zk_NAME`, blanks, a value of letters,
//! digits, `_`, `.` and `-`. And check_zookeeper.py reads only the first 2,048 bytes: so gauges and counters come first,
//! and sets, of which there may be many lines, behind them (Apache has the quotas between the two).

use std::fmt::{Display, Write};

use serde_json::{Number, Value};

use super::commands::CommandContext;
use super::java;
use super::json::Fields;
use super::prometheus;
use super::version;
use super::view::{Mode, ServerView};
use super::words::QueryContext;
use crate::config::MetricsProvider;
use crate::memory;
use crate::metrics::{self, Advanced, Metric, Row, Scope, SummaryValues};

/// Every metric.
pub fn mntr(context: &QueryContext) -> String {
    publish(context);
    let mut out = String::with_capacity(32 << 10);
    push(&mut out, "version", version::full());
    push(&mut out, "server_state", context.server.mode().text());
    if let Some(peer_state) = context.server.peer_state() {
        push(&mut out, "peer_state", peer_state);
    }
    let rows = metrics::TABLE.iter().filter(|row| is_shown(row.scope, context.server));
    match context.provider {
        MetricsProvider::Default => rows.for_each(|row| push_row(&mut out, row)),
        MetricsProvider::Prometheus => rows.for_each(|row| prometheus::push_lines(&mut out, row)),
        MetricsProvider::Null => {}
    }
    out
}

/// The same as an object, numbers as numbers.
pub fn monitor(command: &CommandContext) -> Fields {
    let text = mntr(command.context);
    let pairs = text.lines().filter_map(|line| line.strip_prefix("zk_")?.split_once('\t'));
    pairs.map(|(key, value)| (key.to_owned(), json_value(value))).collect()
}

fn json_value(text: &str) -> Value {
    let number = text.parse::<i64>().ok().map(Number::from);
    let number = number.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64));
    number.map_or_else(|| text.into(), Value::Number)
}

/// Brings every gauge up to date that the pipeline, the poller and the host know of. What the quorum knows, its thread
/// publishes.
pub fn publish(context: &QueryContext) {
    let server = context.server;
    let integer = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    metrics::refresh_derived();
    metrics::NUM_ALIVE_CONNECTIONS.set(i64::from(context.poller.connection_count));
    metrics::OUTSTANDING_REQUESTS.set(integer(server.outstanding()));
    metrics::ZNODE_COUNT.set(integer(server.node_count()));
    metrics::WATCH_COUNT.set(integer(server.watch_count()));
    metrics::EPHEMERALS_COUNT.set(integer(server.ephemerals_count()));
    metrics::APPROXIMATE_DATA_SIZE.set(integer(server.approximate_data_size()));
    metrics::GLOBAL_SESSIONS.set(integer(server.global_sessions()));
    metrics::LOCAL_SESSIONS.set(integer(server.local_sessions()));
    metrics::UPTIME.set(server.uptime_ms());
    // Shown on a leader only, whose time to serve begins with its lead.
    metrics::LEADER_UPTIME.set(server.uptime_ms());
    metrics::CONNECTION_DROP_PROBABILITY.set(server.connection_drop_probability());
    let (open, max) = context.host.file_descriptors();
    metrics::OPEN_FILE_DESCRIPTOR_COUNT.set(open);
    metrics::MAX_FILE_DESCRIPTOR_COUNT.set(max);
    publish_memory(context);
    let quotas = server.quotas();
    let column = |value: fn(&super::view::Quota) -> i64| {
        quotas.iter().take(crate::limits::METRIC_KEYS_MAX).map(|q| (q.namespace.clone(), value(q))).collect()
    };
    metrics::QUOTA_COUNT_LIMIT_PER_NAMESPACE.replace(column(|q| q.count_limit));
    metrics::QUOTA_BYTES_LIMIT_PER_NAMESPACE.replace(column(|q| q.bytes_limit));
    metrics::QUOTA_COUNT_USAGE_PER_NAMESPACE.replace(column(|q| q.count_usage));
    metrics::QUOTA_BYTES_USAGE_PER_NAMESPACE.replace(column(|q| q.bytes_usage));
}

/// The accounts of memory, as their threads said last.
fn publish_memory(context: &QueryContext) {
    let resident = i64::try_from(context.host.memory().resident).unwrap_or(i64::MAX);
    let mut bytes = vec![("process".to_owned(), resident)];
    let mut bytes_max = vec![("process".to_owned(), memory::published_budget())];
    for row in &memory::TABLE {
        let (level, bound) = row.account.published();
        bytes.push((row.name.to_owned(), level));
        bytes_max.push((row.name.to_owned(), bound));
    }
    metrics::MEMORY_ACCOUNT_BYTES.replace(bytes);
    metrics::MEMORY_ACCOUNT_BYTES_MAX.replace(bytes_max);
}

/// Whether this server shows a row.
pub fn is_shown(scope: Scope, server: &dyn ServerView) -> bool {
    match (scope, server.mode()) {
        (Scope::Always, _) => true,
        (Scope::Quorum, Mode::Leader | Mode::Follower | Mode::Observer) => true,
        (Scope::Leader | Scope::ObserverMaster, Mode::Leader) => true,
        (Scope::Observer, Mode::Observer) => true,
        (Scope::ObserverMaster, Mode::Follower) => server.is_observer_master(),
        (Scope::Quorum | Scope::Leader | Scope::ObserverMaster | Scope::Observer, _) => false,
    }
}

/// All lines of one row.
pub fn push_row(out: &mut String, row: &Row) {
    let name = row.name;
    let of_key = |key: &str| format!("{}_{name}", metrics::printable_key(key));
    match row.metric {
        Metric::Counter(counter) => push(out, name, counter.get()),
        Metric::Gauge(gauge) => push(out, name, gauge.get()),
        Metric::FloatGauge(gauge) => push(out, name, java::double(gauge.get())),
        Metric::Summary(summary) => push_summary(out, name, summary.values()),
        Metric::Advanced(advanced) => push_advanced(out, name, advanced),
        Metric::GaugeSet(set) => set.each(|key, value| push(out, &of_key(key), value)),
        Metric::CounterSet(set) => set.each(|key, counter| push(out, &of_key(key), counter.get())),
        Metric::SummarySet(set) => set.each(|key, summary| push_summary(out, &of_key(key), summary.values())),
        Metric::AdvancedSet(set) => set.each(|key, advanced| push_advanced(out, &of_key(key), advanced)),
        Metric::Histogram(_) => {}
    }
}

fn push_summary(out: &mut String, name: &str, values: SummaryValues) {
    push(out, &format!("avg_{name}"), java::double(values.mean()));
    push(out, &format!("min_{name}"), values.min);
    push(out, &format!("max_{name}"), values.max);
    push(out, &format!("cnt_{name}"), values.count);
    push(out, &format!("sum_{name}"), values.sum);
}

fn push_advanced(out: &mut String, name: &str, advanced: &Advanced) {
    push_summary(out, name, advanced.values());
    for ((prefix, _), value) in Advanced::QUANTILES.iter().zip(advanced.percentiles()) {
        push(out, &format!("{prefix}_{name}"), value);
    }
}

fn push(out: &mut String, name: &str, value: impl Display) {
    let _ = writeln!(out, "zk_{name}\t{value}");
}
