//! Which threads go first. Called by those that are in nobody's way.

/// As niceness.
const BEHIND_OTHERS: libc::c_int = 10;

/// The calling thread, and those that it starts from now on, run when the others leave a core free. A refusal changes
/// nothing.
pub fn yield_to_others() {
    // SAFETY: a system call on numbers alone; on Linux, process 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, BEHIND_OTHERS) };
}
