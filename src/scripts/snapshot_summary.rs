//! `zkSnapshotRecursiveSummaryToolkit.sh` (`SnapshotRecursiveSummary`, 3.9): nodes and bytes below each inner node.

use std::io::Write;
use std::path::Path;

use crate::inspect::{GOOD, Outcome};
use crate::scripts::snapshot_formatter::{children, read};
use crate::scripts::{invalid, unexpected};

const USAGE: &str = "\
USAGE:


SnapshotRecursiveSummary  <snapshot_file>  <starting_node>  <max_depth>


snapshot_file:    path to the zookeeper snapshot
starting_node:    the path in the zookeeper tree where the traversal should begin
max_depth:        defines the depth where the tool still writes to the output. 0 means there is no depth limit, every non-leaf node's stats will be displayed, 1 means it will only contain the starting node's and it's children's stats, 2 ads another level and so on. This ONLY affects the level of details displayed, NOT the calculation.";

/// The tool.
pub fn summarize_snapshot(args: &[String], out: &mut dyn Write) -> Outcome {
    let [file, top, depth] = args else { return Err(invalid(USAGE)) };
    let Ok(depth_max) = depth.parse::<i32>() else { return Err(invalid(USAGE)) };
    let tree = read(Path::new(file))?;
    let top = tree.place(top).ok_or_else(|| unexpected(format!("{file}: it has no node {top}")))?;
    let weights = tree.weights();
    let mut waiting = vec![(top, 0)];
    while let Some((at, level)) = waiting.pop() {
        let node = &tree.nodes[at];
        if node.children.is_empty() || (depth_max != 0 && level > depth_max) {
            continue;
        }
        let (tab, (nodes, bytes)) = ("--".repeat(level as usize), weights[at]);
        writeln!(out, "{tab} {}\n{tab}   children: {}\n{tab}   data: {bytes}", node.shown_path(), nodes - 1)?;
        waiting.extend(children(&tree, node).into_iter().rev().map(|child| (child, level + 1)));
    }
    writeln!(out)?;
    Ok(GOOD)
}
