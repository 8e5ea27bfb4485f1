//! `stages`, which Apache lacks: how long writes take in each stage, as counts by bounds and as percentiles.

use serde_json::{Value, json};

use super::commands::{CommandContext, fields};
use super::json::Fields;
use crate::metrics::{self, Histogram, Metric};

/// Every histogram of the table.
pub fn stages(_: &CommandContext) -> Fields {
    let rows = metrics::TABLE.iter().filter_map(|row| match row.metric {
        Metric::Histogram(histogram) => Some((row.name.to_owned(), shown(row.doc, histogram))),
        _ => None,
    });
    let bounds: Vec<i64> = Histogram::BOUNDS_US.to_vec();
    fields(json!({ "bounds_us": bounds, "stages": Value::Object(rows.collect()) }))
}

fn shown(doc: &str, histogram: &Histogram) -> Value {
    let values = histogram.values();
    let at = |quantile| values.quantile_us(quantile);
    json!({
        "description": doc,
        "count": values.count(),
        "sum_us": values.sum_us,
        "p50_us": at(0.5),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "counts": values.counts.to_vec(),
    })
}
