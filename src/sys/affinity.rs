//! On which core a thread runs. Called by `threads::huddle`.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread's choice of cores.
#[derive(Clone, Copy, Debug)]
pub struct Cores(CpuSet);

impl Cores {
    /// Those that the calling thread may use now; `None` where the system does not say.
    pub fn allowed() -> Option<Cores> {
        sched_getaffinity(Pid::from_raw(0)).ok().map(Cores)
    }

    /// The calling thread may use these and no other. A refusal changes nothing.
    pub fn use_all(&self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }

    /// The calling thread may use this one of them only; false: it is not among them, or the system refuses.
    pub fn use_only(&self, core: usize) -> bool {
        let mut only = CpuSet::new();
        matches!(self.0.is_set(core), Ok(true))
            && only.set(core).is_ok()
            && sched_setaffinity(Pid::from_raw(0), &only).is_ok()
    }
}

/// The core that the calling thread runs on.
pub fn current_core() -> Option<usize> {
    sched_getcpu().ok()
}
