//! `zkSnapshotComparer.sh` (`SnapshotComparer`): two snapshots, layer by layer, sizes and counts only.

use std::io::{self, BufRead, Write};
use std::path::Path;

use crate::arguments::{Opt, opt, parse};
use crate::inspect::tree::Tree;
use crate::inspect::{Failure, GOOD, Outcome};
use crate::scripts::snapshot_formatter::read;
use crate::scripts::{INVALID_INVOCATION, invalid, unexpected};
use crate::sys::clock;

static OPTIONS: [Opt; 6] = [
    opt("l", "left", true),
    opt("r", "right", true),
    opt("b", "bytes", true),
    opt("n", "nodes", true),
    opt("d", "debug", false),
    opt("i", "interactive", false),
];

const USAGE: &str = "\
usage: java -cp <classPath> org.apache.zookeeper.server.SnapshotComparer
 -b,--bytes <BYTETHRESHOLD>   (Required) The node data delta size threshold, in bytes, for printing the node.
 -d,--debug                   Use debug output.
 -i,--interactive             Enter interactive mode.
 -l,--left <LEFT>             (Required) The left snapshot file.
 -n,--nodes <NODETHRESHOLD>   (Required) The descendant node delta size threshold, in nodes, for printing the node.
 -r,--right <RIGHT>           (Required) The right snapshot file.
";

const PROMPT: &str = "\
- Press enter to move to print current depth layer;
- Type a number to jump to and print all nodes at a given depth;
- Enter an ABSOLUTE path to print the immediate subtree of a node. Path must start with '/'.";

/// The tool. `answers` steers the interactive mode.
pub fn compare_snapshots(args: &[String], answers: &mut dyn BufRead, out: &mut dyn Write) -> Outcome {
    let refused = |message: String, out: &mut dyn Write| {
        out.write_all(USAGE.as_bytes())?;
        Err(Failure { code: INVALID_INVOCATION, message })
    };
    let given = match parse(&OPTIONS, args) {
        Ok(given) => given,
        Err((_, error)) => return refused(error.to_string(), out),
    };
    let missing: Vec<&str> = ["l", "r", "b", "n"].into_iter().filter(|name| !given.has(name)).collect();
    let (Some(left), Some(right), Some(bytes), Some(nodes)) =
        (given.value("l"), given.value("r"), given.value("b"), given.value("n"))
    else {
        let s = if missing.len() == 1 { "" } else { "s" };
        return refused(format!("Missing required option{s}: {}", missing.join(", ")), out);
    };
    let number = |text: &str| text.parse::<i32>().map_err(|_| unexpected(format!("For input string: \"{text}\"")));
    let (bytes_max, nodes_max) = (i64::from(number(bytes)?), i64::from(number(nodes)?));
    writeln!(out, "Successfully parsed options!")?;
    let (left, right) = (Layers::read(left, out)?, Layers::read(right, out)?);
    left.print(out)?;
    right.print(out)?;
    let (debug, interactive) = (given.has("d"), given.has("i"));
    let comparison = Comparison { left, right, bytes_max, nodes_max, debug, filtered: debug || interactive };
    if interactive {
        comparison.ask(answers, out)?
    } else {
        comparison.print_all(out)?
    }
    writeln!(out, "All layers compared.")?;
    Ok(GOOD)
}

/// A snapshot by depth.
struct Layers {
    tree: Tree,
    /// At and below each node: nodes without itself, bytes with it.
    weights: Vec<(i64, i64)>,
    /// Places, sorted by path.
    layers: Vec<Vec<usize>>,
}

fn seconds(begun_us: i64) -> f64 {
    (clock::mono_us() - begun_us) as f64 / 1e6
}

impl Layers {
    fn read(name: &str, out: &mut dyn Write) -> Result<Layers, Failure> {
        let path = Path::new(name);
        let begun_us = clock::mono_us();
        let tree = read(path)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        writeln!(out, "Deserialized snapshot in {file} in {:.6} seconds", seconds(begun_us))?;
        let begun_us = clock::mono_us();
        let weights = tree.weights().into_iter().map(|(nodes, bytes)| (nodes as i64 - 1, bytes as i64)).collect();
        let mut layers: Vec<Vec<usize>> = Vec::new();
        for place in tree.sorted() {
            let depth = tree.nodes[place].path.matches('/').count();
            layers.resize_with(layers.len().max(depth + 1), Vec::new);
            layers[depth].push(place);
        }
        writeln!(out, "Processed data tree in {:.6} seconds", seconds(begun_us))?;
        if tree.nodes.is_empty() {
            return Err(unexpected(format!("{name}: it has no root")));
        }
        Ok(Layers { tree, weights, layers })
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "Node count: {}\nTotal size: {}", self.tree.nodes.len(), self.weights[0].1)?;
        writeln!(out, "Max depth: {}", self.layers.len())?;
        for (depth, layer) in self.layers.iter().enumerate() {
            writeln!(out, "Count of nodes at depth {depth}: {}", layer.len())?;
        }
        writeln!(out)
    }

    fn layer(&self, depth: usize) -> &[usize] {
        self.layers.get(depth).map_or(&[], Vec::as_slice)
    }

    fn path(&self, place: usize) -> &str {
        &self.tree.nodes[place].path
    }
}

struct Comparison {
    left: Layers,
    right: Layers,
    bytes_max: i64,
    nodes_max: i64,
    debug: bool,
    /// Nodes below the thresholds are named too.
    filtered: bool,
}

impl Comparison {
    fn depth(&self) -> usize {
        self.left.layers.len().max(self.right.layers.len())
    }

    fn print_thresholds(&self, out: &mut dyn Write) -> io::Result<()> {
        let (bytes, nodes) = (self.bytes_max, self.nodes_max);
        let what = format!("difference larger than {bytes} bytes or node count difference larger than {nodes}");
        writeln!(out, "Printing analysis for nodes {what}.")
    }

    fn print_all(&self, out: &mut dyn Write) -> io::Result<()> {
        self.print_thresholds(out)?;
        (0..self.depth()).try_for_each(|depth| self.print_layer(depth, out))
    }

    fn print_layer(&self, depth: usize, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "Analysis for depth {depth}")?;
        self.compare(self.left.layer(depth), self.right.layer(depth), out)
    }

    fn ask(&self, answers: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), Failure> {
        let mut depth = 0;
        while depth < self.depth() {
            writeln!(out, "Current depth is {depth}\n{PROMPT}")?;
            out.flush()?;
            let mut answer = String::new();
            if answers.read_line(&mut answer).map_err(unexpected)? == 0 {
                return Err(invalid("No line found"));
            }
            let answer = answer.trim_end_matches(['\n', '\r']);
            self.print_thresholds(out)?;
            if answer.is_empty() {
                self.print_layer(depth, out)?;
                depth += 1;
            } else if answer.starts_with('/') {
                writeln!(out, "Analysis for node {answer}")?;
                self.print_subtree(answer, out)?;
            } else {
                let last = self.depth() - 1;
                match answer.parse::<i32>().map(usize::try_from) {
                    Ok(Ok(wanted)) if wanted <= last => {
                        depth = wanted;
                        self.print_layer(depth, out)?;
                    }
                    Ok(_) => {
                        writeln!(out, "Depth must be in range [0, {last}]")?;
                        continue;
                    }
                    Err(_) => writeln!(
                        out,
                        "Input {answer} is not valid. Depth must be in range [0, {last}]. Path must be an absolute path which starts with '/'."
                    )?,
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn print_subtree(&self, path: &str, out: &mut dyn Write) -> io::Result<()> {
        let (left, right) = (self.left.tree.find(path), self.right.tree.find(path));
        if left.is_none() && right.is_none() {
            return writeln!(out, "Path {path} is neither found in left tree nor right tree.");
        }
        let children = |layers: &Layers, node: Option<&crate::inspect::tree::Node>| -> Vec<usize> {
            let mut places = node.map_or_else(Vec::new, |node| node.children.clone());
            places.sort_by(|a, b| layers.path(*a).cmp(layers.path(*b)));
            places
        };
        self.compare(&children(&self.left, left), &children(&self.right, right), out)
    }

    fn compare(&self, left: &[usize], right: &[usize], out: &mut dyn Write) -> io::Result<()> {
        let (mut i, mut j) = (0, 0);
        loop {
            match (left.get(i), right.get(j)) {
                (None, None) => return Ok(()),
                (Some(l), None) => {
                    self.print_one(&self.left, *l, "left", out)?;
                    i += 1;
                }
                (None, Some(r)) => {
                    self.print_one(&self.right, *r, "right", out)?;
                    j += 1;
                }
                (Some(l), Some(r)) => {
                    let (a, b) = (self.left.path(*l), self.right.path(*r));
                    self.say(format_args!("Comparing {a} to {b}"), out)?;
                    match a.cmp(b) {
                        std::cmp::Ordering::Less => {
                            self.say(format_args!("left is less"), out)?;
                            self.print_one(&self.left, *l, "left", out)?;
                            i += 1;
                        }
                        std::cmp::Ordering::Greater => {
                            self.say(format_args!("right is less"), out)?;
                            self.print_one(&self.right, *r, "right", out)?;
                            j += 1;
                        }
                        std::cmp::Ordering::Equal => {
                            self.say(format_args!("same"), out)?;
                            self.print_both(*l, *r, out)?;
                            (i, j) = (i + 1, j + 1);
                        }
                    }
                }
            }
        }
    }

    fn say(&self, what: std::fmt::Arguments<'_>, out: &mut dyn Write) -> io::Result<()> {
        if self.debug { writeln!(out, "{what}") } else { Ok(()) }
    }

    fn print_one(&self, side: &Layers, place: usize, name: &str, out: &mut dyn Write) -> io::Result<()> {
        let (path, (nodes, bytes)) = (side.path(place), side.weights[place]);
        if bytes > self.bytes_max || nodes > self.nodes_max {
            let what = format!("Descendant size: {bytes}. Descendant count: {nodes}");
            return writeln!(out, "Node {path} found only in {name} tree. {what}");
        }
        if self.filtered { writeln!(out, "Filtered {name} node {path} of size {bytes}") } else { Ok(()) }
    }

    fn print_both(&self, left: usize, right: usize, out: &mut dyn Write) -> io::Result<()> {
        let (path, a, b) = (self.left.path(left), self.left.weights[left], self.right.weights[right]);
        let (nodes, bytes) = (b.0 - a.0, b.1 - a.1);
        if bytes.abs() > self.bytes_max || nodes.abs() > self.nodes_max {
            return writeln!(out, "Node {path} found in both trees. Delta: {bytes} bytes, {nodes} descendants");
        }
        if !self.filtered {
            return Ok(());
        }
        writeln!(out, "Filtered node {path} of left size {}, right size {}", a.1, b.1)
    }
}
