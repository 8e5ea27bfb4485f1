//! When memory that is free goes back to the kernel. Pure; `threads::memory` looks and does it.

/// What the process has of the kernel's memory, and what of it is in use, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use {
    /// What it has, files aside.
    pub resident: u64,
    /// What is in use, or was given and never touched.
    pub used: u64,
}

/// Decides when free memory goes back to the kernel: when much of it is free, at two looks in a row, so that it is not
/// taken again at once; and not again and again for what lies between what is in use.
#[derive(Debug, Default)]
pub struct Returns {
    /// Free, at the last look.
    free: u64,
    /// What could not be given back the last time.
    kept: Option<u64>,
    gave_back: bool,
}

/// Bytes that are worth it.
const FREE_BYTES_MUCH: u64 = 32 << 20;

impl Returns {
    /// A look. True: free memory is to be given back now.
    pub fn look(&mut self, now: Use) -> bool {
        let free = now.resident.saturating_sub(now.used);
        let before = std::mem::replace(&mut self.free, free);
        if std::mem::take(&mut self.gave_back) {
            self.kept = Some(free);
            return false;
        }
        // Less is kept than was: more can be given back than it seemed.
        self.kept = self.kept.map(|kept| kept.min(free));
        let much = FREE_BYTES_MUCH.max(now.used / 8) + self.kept.unwrap_or(0);
        self.gave_back = before.min(free) > much;
        self.gave_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_goes_back_when_it_stays_free_and_not_again_for_what_cannot_go() {
        let mut returns = Returns::default();
        let mut look = |resident: u64, used: u64| returns.look(Use { resident: resident << 20, used: used << 20 });
        assert!(!look(50, 40) && !look(1420, 1400), "it is in use");
        assert!(!look(1420, 40) && !look(1420, 1400) && !look(1420, 40), "it was used again");
        assert!(look(1420, 40));
        assert!(!look(100, 40), "60 MB could not go");
        assert!(!look(100, 40) && !look(130, 40), "so they are not tried again");
        assert!(!look(400, 40) && look(400, 40));
        assert!(!look(60, 40) && !look(80, 40) && !look(80, 40));
    }
}
