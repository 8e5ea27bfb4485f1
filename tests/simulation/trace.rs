//! What happened, in order: always as a running hash, which says whether two runs were the same; as text only when asked
//! for, since a run that holds is read by nobody.

use std::collections::VecDeque;
use std::fmt;

/// Lines that are kept when lines are wanted.
const LINES_MAX: usize = 20_000;

/// See the module.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<VecDeque<String>>,
    echo: bool,
}

impl Trace {
    /// `readable`: keep the last lines as text.
    pub fn new(readable: bool) -> Trace {
        let lines = readable.then(VecDeque::new);
        let echo = readable && std::env::var_os("SIMULATION_ECHO").is_some();
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines, echo }
    }

    /// Takes an event in: the time, who, what (a number that tells events of the same kind apart), and how it reads.
    pub fn note(&mut self, now_us: u64, who: usize, what: u64, text: impl FnOnce() -> String) {
        self.events += 1;
        for part in [now_us, who as u64, what] {
            self.hash = (self.hash.rotate_left(23) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        if let Some(lines) = &mut self.lines {
            let line = format!("{:>4}.{:06} {}", now_us / 1_000_000, now_us % 1_000_000, text());
            if self.echo {
                println!("{line}");
            }
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }

    /// What all events so far come to.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last lines.
    pub fn tail(&self, lines_max: usize) -> String {
        let Some(lines) = &self.lines else { return String::new() };
        let from = lines.len().saturating_sub(lines_max);
        lines.iter().skip(from).map(|line| format!("{line}\n")).collect()
    }
}

/// A value, short enough for a line: of lists of bytes only the length.
pub fn short(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_digit() && c != ',' && c != ' ').unwrap_or(after.len());
        let (list, behind) = after.split_at(end);
        if end > 0 && behind.starts_with(']') {
            out.push_str(&format!("[{} bytes", list.split(',').count()));
        } else {
            out.push('[');
            out.push_str(list);
        }
        rest = behind;
    }
    out.push_str(rest);
    if let Some((end, _)) = out.char_indices().nth(400) {
        out.truncate(end);
        out.push('…');
    }
    out
}
