//! Keeps a flood of equal complaints out of the log. Pure: the caller logs, and says what time it is. Any layer may use it.

/// Shortest distance of two lines unless told otherwise, ms.
const INTERVAL_MS: i64 = 1000;

/// Lets one line through per interval and counts the others.
#[derive(Debug)]
pub struct Quiet {
    interval_ms: i64,
    next_ms: i64,
    swallowed: u64,
}

impl Default for Quiet {
    fn default() -> Quiet {
        Quiet::every(INTERVAL_MS)
    }
}

impl Quiet {
    /// With this interval.
    pub fn every(interval_ms: i64) -> Quiet {
        Quiet { interval_ms, next_ms: 0, swallowed: 0 }
    }

    /// Whether the next line is let through.
    pub fn would_pass(&self, now_ms: i64) -> bool {
        now_ms >= self.next_ms
    }

    /// `Some(n)`: log it, and that n others were not logged before it.
    pub fn pass(&mut self, now_ms: i64) -> Option<u64> {
        if !self.would_pass(now_ms) {
            self.swallowed += 1;
            return None;
        }
        self.next_ms = now_ms + self.interval_ms;
        Some(std::mem::take(&mut self.swallowed))
    }
}

/// What a line says at its end of those that [`Quiet::pass`] left out.
pub fn suppressed(messages: u64) -> String {
    match messages {
        0 => String::new(),
        1 => " (1 similar message suppressed)".to_owned(),
        more => format!(" ({more} similar messages suppressed)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_one_line_per_interval_that_counts_the_rest() {
        let mut quiet = Quiet::default();
        let lines: Vec<_> = (1000..3500).filter_map(|ms| quiet.pass(ms)).collect();
        assert_eq!(lines, [0, 999, 999]);
        assert_eq!(suppressed(lines[0]) + &suppressed(lines[1]), " (999 similar messages suppressed)");
    }
}
